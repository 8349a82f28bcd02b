"""Morphs, completed halves and handwriting. What they are made of is proved elsewhere: here it is their wiring, which
noise, which labels, which pixels."""

import pytest
import torch
from torch.testing import assert_close

from tinyddpm import DDPM, Schedule, UNet, blend, ddim, invert, last, slerp
from tinyddpm.data import mnist
from tinyddpm.editing.handwriting import handwriting, morph
from tinyddpm.editing.inpainting import HALVES, complete, hide_half
from tinyddpm.samplers import noise_like


def normal(small, seeds):
    """The noise of each seed, in the shape of the model's images."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    return noise_like(torch.empty(len(seeds), *small.image_shape), generators)


def alone(small, y, seed, steps=3, scale=2.0):
    return small.sample(y=[y], steps=steps, seeds=[seed], scale=scale)


def test_a_morph_begins_at_each_label_with_the_image_that_its_seed_gives(small):
    x = morph(small, torch.tensor([3, 8]), frames=4, steps=3, seed=5)
    assert x.shape == (8, 1, 32, 32)
    for frame, y in ((0, 3), (4, 8)):
        assert_close(x[frame : frame + 1], alone(small, y, 5), atol=1e-5, rtol=0)


def test_a_wandering_morph_begins_at_each_label_with_a_hand_of_its_own(small):
    x = morph(small, torch.tensor([3, 8]), frames=2, steps=3, seed=5, wander=True)
    for frame, y, seed in ((0, 3, 5), (2, 8, 6)):
        assert_close(x[frame : frame + 1], alone(small, y, seed), atol=1e-5, rtol=0)


def test_a_frame_between_is_of_both_labels_and_of_both_noises(small):
    x = morph(small, torch.tensor([3, 8]), frames=4, steps=3, wander=True)[1:2]
    noise = slerp(normal(small, [0]), normal(small, [1]), 0.25)
    beliefs = [small.denoiser(torch.tensor([y]), 2.0) for y in (3, 8)]
    grid = small.schedule.grid(3)
    assert_close(x, last(ddim(blend(*beliefs, 0.25), noise, small.schedule, grid)).x_t, atol=1e-5, rtol=0)


def test_the_last_label_turns_into_the_first(small):
    there, back = (morph(small, torch.tensor(y), frames=4, steps=3) for y in ([3, 8], [8, 3]))
    assert_close(there[6], back[2], atol=1e-5, rtol=0)  # half-way from 8 to 3


@pytest.mark.parametrize("half", HALVES)
def test_what_is_known_stays_and_what_is_hidden_is_drawn(small, half):
    x_0 = mnist(train=False)[:2][0]
    mask = hide_half(half, 32, 32)
    x = complete(small, x_0, mask, each=3, steps=4, repeats=2).reshape(2, 3, 1, 32, 32)
    known = mask.bool()
    for k in range(2):
        for way in x[k]:
            assert_close(way[0][known], x_0[k, 0][known], atol=1e-5, rtol=0)
    assert not torch.equal(x[0, 0], x[0, 1])  # each way has a seed of its own
    assert float((x[:, :, 0][..., ~known] - x_0[:, None, 0][..., ~known]).abs().mean()) > 0.01


def test_each_half_hides_about_half_and_the_middle_a_ninth():
    for half in HALVES:
        mask = hide_half(half, 30, 30)
        assert float(1 - mask.mean()) == pytest.approx(1 / 9 if half == "middle" else 1 / 2)
    assert hide_half("left", 4, 4)[0].tolist() == [0, 0, 1, 1]
    assert hide_half("bottom", 4, 4)[:, 0].tolist() == [1, 1, 0, 0]


def test_a_completion_of_a_label_asks_for_that_label(small):
    x_0, mask = mnist(train=False)[:1][0], hide_half("left", 32, 32)
    seven, three, none = (
        complete(small, x_0, mask, each=1, steps=4, repeats=1, y=y)
        for y in (torch.tensor([7]), torch.tensor([3]), None)
    )
    assert not torch.allclose(seven, three) and not torch.allclose(seven, none)


def test_handwriting_is_the_noise_of_one_label_under_another(small):
    x_0, y, y_new = mnist(train=False)[:2][0], torch.tensor([7, 2]), torch.tensor([4, 4])
    got = handwriting(small, x_0, y, y_new, steps=4, scale=2.0, from_scale=1.0)
    grid = small.schedule.grid(4)
    noise = last(invert(small.denoiser(y, 1.0), x_0, small.schedule, grid)).x_t
    expected = last(ddim(small.denoiser(y_new, 2.0), noise, small.schedule, grid)).x_t
    assert_close(got, expected, atol=1e-5, rtol=0)


# What is refused, and in which words


@pytest.mark.parametrize("y", [[1], [1, 2, 3]])
def test_labels_that_are_not_one_for_each_image_are_refused(small, y):
    # one label would serve all images by broadcasting, silently
    x_0, mask, two = torch.zeros(2, 1, 32, 32), hide_half("left", 32, 32), torch.tensor([4, 5])
    for wrong in (
        lambda: complete(small, x_0, mask, each=1, y=torch.tensor(y)),
        lambda: handwriting(small, x_0, torch.tensor(y), two),
        lambda: handwriting(small, x_0, two, torch.tensor(y)),
    ):
        with pytest.raises(ValueError, match=f"one label for each of 2, got {len(y)}: repeat the shorter"):
            wrong()


@pytest.mark.parametrize(("y", "frames"), [([3], 4), ([3, 4], 0)])
def test_a_morph_without_a_way_is_refused(small, y, frames):
    with pytest.raises(ValueError, match=f"at least two labels and one frame, got {len(y)} labels and {frames} frames"):
        morph(small, torch.tensor(y), frames)


def test_another_half_is_answered_with_those_that_there_are():
    with pytest.raises(ValueError, match="unknown half 'west': choose one of left, right, top, bottom, middle"):
        hide_half("west", 32, 32)


def test_labels_need_a_network_that_has_them():
    unet = UNet((8,), attention=(), heads=1)
    with pytest.raises(ValueError, match="trained without labels"):
        morph(DDPM(unet, Schedule.named("cosine", 20), "v"), torch.tensor([3, 4]))


def test_no_way_to_complete_an_image_is_refused(small):
    with pytest.raises(ValueError, match="at least 1 image and an integer seed for each, got 0 images"):
        complete(small, torch.zeros(1, 1, 32, 32), hide_half("left", 32, 32), each=0)
