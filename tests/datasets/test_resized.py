import pytest
import torch

from tinyddpm.data import from_uint8, mnist, pad_to, to_uint8
from tinyddpm.datasets import Resized, load_data, resize
from tinyddpm.evaluation.judges import reduce

LEVEL = 1.01 / 127.5  # a grey value


@pytest.mark.parametrize(("old", "new"), [(28, 64), (28, 128), (64, 28), (128, 28), (32, 48)])
def test_a_plane_stays_a_plane_and_its_values_are_grey_values(old, new):
    """Cubic convolution reproduces linear functions, wherever its window lies within the image."""
    side = torch.arange(old) / (old - 1) - 0.5
    x = (0.9 * side[:, None] + 0.6 * side)[None, None]
    found, places = resize(x, new), (torch.arange(new) + 0.5) * old / new - 0.5
    place = places / (old - 1) - 0.5
    edge = 3 if new > old else 2 + 28 // 14
    inner = slice(edge * max(1, new // old), new - edge * max(1, new // old))
    expected = (0.9 * place[:, None] + 0.6 * place)[inner, inner]
    assert found.shape == (1, 1, new, new)
    assert (found[0, 0, inner, inner] - expected).abs().max() <= LEVEL
    assert torch.equal(found, from_uint8(to_uint8(found)))


def test_what_is_finer_than_a_smaller_image_becomes_grey_and_no_pattern():
    board = 2.0 * ((torch.arange(64)[:, None] + torch.arange(64)) % 2) - 1
    assert resize(board[None, None], 28)[0, 0, 3:-3, 3:-3].abs().max() < 0.1
    assert resize(board[None, None], 64).abs().min() > 0.99


def test_a_digit_that_was_enlarged_comes_back():
    x = mnist(train=False, size=28)[:500][0]
    for size in (64, 128):
        error = reduce(resize(x, size)) - pad_to(x)
        assert error.square().mean().sqrt() < 0.06 and reduce(resize(x, size)).shape == (500, 1, 32, 32)


def test_a_resized_data_set_gives_items_slices_and_lists():
    digits, found = mnist(train=False, size=28), load_data("mnist-resized", size=64, train=False)
    assert isinstance(found, Resized) and len(found) == 10_000
    assert (found.name, found.size, found.channels, found.num_classes) == ("mnist-resized", 64, 1, 10)
    expected = resize(digits[:4][0], 64)
    assert torch.equal(found[:4][0], expected) and torch.equal(found[3][0], expected[3])
    assert torch.equal(found[torch.tensor([2, 0])][0], expected[[2, 0]])
    listed = found.__getitems__([3, 1])
    assert torch.equal(listed[1][0], expected[1]) and [int(y) for _, y in listed] == digits.labels[[3, 1]].tolist()
    assert found[3][0].shape == (1, 64, 64) and int(found[3][1]) == int(digits.labels[3])


def test_digits_are_not_resized_to_less_than_the_usual_size():
    assert load_data("mnist-resized").size == 32
    with pytest.raises(ValueError, match=r"mnist-resized comes in sizes from 32 to 128, got 28"):
        load_data("mnist-resized", size=28)
