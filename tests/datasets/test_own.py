import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tinyddpm.data import from_uint8, mnist, pad_to
from tinyddpm.datasets.own import as_data


def noise(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Items(Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


@pytest.mark.parametrize("shape", [(4, 16, 16), (4, 1, 16, 16), (4, 3, 16, 16)])
def test_pixels_and_their_floats_are_the_same_data(shape):
    x, y = noise(*shape), torch.tensor([0, 2, 1, 2])
    wanted = from_uint8(x).reshape(4, -1, 16, 16)
    for made in (
        as_data(x, y),
        as_data(from_uint8(x), y),
        as_data(from_uint8(x).double(), y.int()),
        as_data(TensorDataset(x, y)),
        as_data(Items(*zip(x, y.tolist()))),
        as_data(Items(*((from_uint8(image), np.int64(label)) for image, label in zip(x, y)))),
        as_data(x.numpy(), y.numpy()),
    ):
        assert (made.channels, made.size, made.num_classes) == (wanted.shape[1], 16, 3)
        ((images, labels),) = DataLoader(made, batch_size=4)
        assert torch.equal(images, wanted) and images.dtype == torch.float32
        assert torch.equal(labels, y) and labels.dtype == torch.int64


def test_pixels_stay_bytes_in_memory():
    x = noise(4, 3, 16, 16)
    assert as_data(x).images.data_ptr() == x.data_ptr()


def test_pictures_are_taken_as_they_are():
    grey, colour = noise(16, 16), noise(16, 16, 3)
    ((image, label),) = as_data(Items((Image.fromarray(grey.numpy()), 3)))
    assert torch.equal(image, from_uint8(grey)[None]) and label == 3
    made = as_data(Items((Image.fromarray(colour.numpy()), 0)))
    assert torch.equal(made[0][0], from_uint8(colour.permute(2, 0, 1))) and made.channels == 3


def test_without_labels_there_are_no_classes():
    made = as_data(noise(4, 16, 16))
    assert made.num_classes is None and [int(label) for _, label in made] == [0] * 4
    assert as_data(TensorDataset(noise(4, 16, 16))).num_classes is None


def test_a_size_pads_and_scales_nothing():
    x = noise(2, 3, 20, 28)
    for made in (as_data(x, size=32), as_data(Items(*((image, 0) for image in x)), size=32)):
        assert made.size == 32 and torch.equal(made[1][0], pad_to(from_uint8(x[1]), 32))


def test_items_come_together_as_they_come_one_by_one():
    x = noise(5, 3, 16, 16)
    for made in (as_data(x, torch.arange(5)), as_data(Items(*((image, i) for i, image in enumerate(x))))):
        for together, alone in zip(made.__getitems__([4, 0]), (made[4], made[0]), strict=True):
            assert torch.equal(together[0], alone[0]) and together[1] == alone[1]


def test_the_data_of_the_house_goes_through_unchanged():
    digits = mnist(train=False)
    digits.images, digits.labels = digits.images[:20], digits.labels[:20]
    made = as_data(digits)
    assert (made.channels, made.size, made.num_classes) == (digits.channels, digits.size, digits.num_classes)
    assert torch.equal(made[7][0], digits[7][0]) and made[7][1] == digits[7][1]


HALF = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))  # in [0, 1]: trap 24
GOOD = 2 * HALF - 1
NAN = GOOD.clone()
NAN[3, 0, 5, 5] = float("nan")
BRIGHT = GOOD.clone()
BRIGHT[2, 0, 0, 0] = 1.5


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (HALF, r"never go below .*: where they are in \[0, 1\], give 2 \* images - 1"),
        (BRIGHT, r"must lie in \[-1, 1\], got values in \[-0.9.*, 1.5\]: give uint8"),
        (NAN, r"must lie in \[-1, 1\], got values in \[nan"),
        (GOOD[:, :, :12], "12x16 are not square or too large: pad them with size=16"),
        (GOOD.repeat(1, 2, 1, 1), r"with 1 or 3 channels c, got shape \((4, )?2, 16, 16\)"),
        (noise(4, 16, 16, 3), r"got shape \((4, )?16, 16, 3\): put the channels before"),
        (noise(4, 16, 16).long(), "uint8 in .* or float in .*, got torch.int64"),
        (GOOD[:0], "holds no i(mage|tem)s"),
    ],
)
def test_images_that_cannot_be_meant_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        as_data(images, torch.zeros(len(images), dtype=torch.long))
    with pytest.raises(ValueError, match=message):
        as_data(Items(*((image, 0) for image in images)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.zeros(4), r"labels are \(n,\) integers from 0, got torch.float32"),
        (torch.zeros(4, 1, dtype=torch.long), r"of shape \(4, 1\)"),
        (torch.tensor([0, -1, 2, 3]), "integers from 0"),
        (torch.zeros(3, dtype=torch.long), "4 images and 3 labels"),
    ],
)
def test_labels_that_cannot_be_meant_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        as_data(GOOD, labels)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ((GOOD[0], 1.0), "item 1 is no .*'float' object"),
        ((GOOD[0], -1), "item 1 is no .*: labels count from 0, got -1"),
        (GOOD[0], r"item 1 is no \(image, label\) .*: not enough values"),
        ((BRIGHT[2], 0), r"item 1 is no .* lie in \[-1, 1\]"),
        ((GOOD[0, :, 4:], 0), r"one shape, got \(1, 16, 16\) and, with item 1, \(1, 12, 16\)"),
    ],
)
def test_an_item_that_cannot_be_used_is_named(item, message):
    with pytest.raises(ValueError, match=message):
        as_data(Items((GOOD[0], 0), item))


def test_labels_come_with_the_items_of_a_data_set():
    with pytest.raises(ValueError, match="give labels with a tensor only"):
        as_data(Items((GOOD[0], 0)), torch.zeros(1))


def test_bright_images_among_dark_ones_are_no_fault():
    assert len(as_data(Items((GOOD[0], 0), (HALF[0], 0)))) == len(as_data(torch.cat([GOOD, HALF]))) - 6
