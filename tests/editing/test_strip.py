"""Digits side by side: windows that overlap and agree, and texts written with them."""

from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tinyddpm import DDPM, Schedule, UNet, load_pretrained
from tinyddpm.editing.strip import STRIDE, windowed, write, write_steps
from tinyddpm.evaluation.classifier import classify, load_classifier
from tinyddpm.samplers import ddim, last, p_sample_loop, times

COSINE = Schedule.named("cosine", 50)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def conditional(labels):
    """Stands for a network: neither linear nor the same at every place of its batch, time or column."""
    label = torch.as_tensor(labels, dtype=torch.float64).reshape(-1, 1, 1, 1)

    def denoiser(x_t, t):
        column = torch.linspace(0, 1, x_t.shape[-1], dtype=x_t.dtype)
        return (1.3 * x_t + label + column + t.reshape(-1, 1, 1, 1) / 50).sin().to(x_t.dtype)

    return denoiser


# The denoiser of a strip


def by_loop(denoisers, x_t, t, places, width):
    """Pixel columns one by one: the mean over the windows that lie over each."""
    whole = torch.full_like(x_t, -1)
    seen = [d(x_t[..., left : left + width], t) for d, left in zip(denoisers, places)]
    for column in range(x_t.shape[-1]):
        over = [part[..., column - left] for part, left in zip(seen, places) if left <= column < left + width]
        if over:
            whole[..., column] = sum(over) / len(over)
    return whole


@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("places", [[0, 5, 10], [2, 3, 4, 9], [12, 1], [0, 0, 6], [7]], ids=str)
def test_a_strip_is_seen_as_by_a_loop_over_its_columns(places, b):
    x_t, t, n = randn(b, 2, 4, 20), torch.arange(1, b + 1) * 10, len(places)
    labels = torch.arange(b * n).reshape(b, n)  # each window of each strip has a label of its own
    got = windowed(conditional(labels), places, 8)(x_t, t)
    expected = by_loop([conditional(labels[:, k]) for k in range(n)], x_t, t, places, 8)
    assert_close(got, expected, rtol=0, atol=1e-12)


def test_where_windows_lie_over_each_other_a_pixel_is_their_mean():
    def says(x_t, t):  # the first window 0.2, the second 0.6, the third -1
        return torch.tensor([0.2, 0.6, -1.0]).reshape(3, 1, 1, 1).expand(x_t.shape)

    got = windowed(says, [0, 2, 3], 4)(torch.zeros(1, 1, 1, 7), torch.tensor([5]))
    expected = [0.2, 0.2, 0.4, -0.2 / 3, -0.2, -0.2, -1]
    assert_close(got.flatten(), torch.tensor(expected))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_columns_without_a_window_are_blank(dtype):
    x_t = randn(2, 1, 4, 20, dtype=dtype)
    before = x_t.clone()
    got = windowed(lambda x_t, t: 0 * x_t, [3, 12], 6)(x_t, torch.tensor([5, 5]))
    assert got.dtype == dtype and got.shape == x_t.shape and torch.equal(x_t, before)
    blank = torch.tensor([c < 3 or 9 <= c < 12 or c >= 18 for c in range(20)])
    assert (got[..., blank] == -1).all() and (got[..., ~blank] == 0).all()


def test_all_windows_are_asked_in_one_batch_at_their_strip_s_time():
    asked = []

    def denoiser(x_t, t):
        asked.append((x_t.shape, t.tolist()))
        return x_t

    windowed(denoiser, [0, 3, 6], 4)(randn(2, 1, 4, 10), torch.tensor([7, 30]))
    assert asked == [((6, 1, 4, 4), [7, 7, 7, 30, 30, 30])]


@pytest.mark.parametrize("name", ["ddim 0", "ddim 1", "p_sample_loop"])
def test_a_mean_of_steps_is_a_step_of_means(name, monkeypatch):
    # MultiDiffusion's rule: each window takes a step of its own, with its part of the same noise, and where
    # windows lie over each other the mean is taken; here of x_s, there of x_0_hat
    sampler = p_sample_loop if name == "p_sample_loop" else partial(ddim, eta=float(name.split()[1]))
    x_t, places, width = randn(1, 1, 4, 20), [0, 5, 12], 8
    denoisers = [conditional([k]) for k in range(3)]
    strip, noise = windowed(conditional([0, 1, 2]), places, width), randn(1, 1, 4, 20, seed=1)
    for t, s in [(50, 40), (40, 7), (7, 0)]:

        def with_noise(z):
            monkeypatch.setattr("tinyddpm.samplers.noise_like", lambda x, generator=None: z)

        with_noise(noise)
        together = last(sampler(strip, x_t, COSINE, [(t, s)])).x_t
        total, count = torch.zeros_like(x_t), torch.zeros(20)
        for denoiser, left in zip(denoisers, places):
            part = slice(left, left + width)
            with_noise(noise[..., part])
            total[..., part] += last(sampler(denoiser, x_t[..., part], COSINE, [(t, s)])).x_t
            count[part] += 1
        assert set(count.tolist()) == {1, 2}
        assert_close(together, total / count, rtol=0, atol=1e-12)
        x_t = together


# What can be written


def test_weights_without_labels_cannot_write():
    unet = UNet((8,), attention=(), heads=1)
    with pytest.raises(ValueError, match="trained without labels"):
        write("1", DDPM(unet, Schedule.named("cosine", 50), "v"))


def test_weights_with_fewer_labels_write_those():
    ddpm = DDPM(UNet((8,), num_classes=3, attention=(), heads=1), Schedule.named("cosine", 50), "v")
    assert write("20", ddpm, steps=1).shape == (1, 1, 32, STRIDE + 32)
    with pytest.raises(ValueError, match=r"labels are integers in 0\.\.2"):
        write("27", ddpm)


# Writing, with a network that was never trained


@pytest.mark.parametrize("text", ["3", "31", "3 1", " 3", "3  "])
def test_a_strip_has_a_window_for_each_character(text, small):
    strip = write(text, small, steps=2)
    assert strip.shape == (1, 1, 32, STRIDE * (len(text) - 1) + 32) and strip.dtype == torch.float32
    assert float(strip.min()) >= -1 and float(strip.max()) <= 1
    blank = torch.ones(strip.shape[-1], dtype=torch.bool)
    for k, character in enumerate(text):
        if character != " ":
            blank[STRIDE * k : STRIDE * k + 32] = False
    assert (strip[..., blank] == -1).all() and not (strip[..., ~blank] == -1).all(2).any()


def test_blanks_are_blank_paper_all_the_way_in_what_is_believed(small):
    steps = list(write_steps("3  1", small, steps=3))
    assert [step.t for step in steps] == [50, 33, 17, 0]
    assert all((step.x_0_hat[..., 32 : 3 * STRIDE] == -1).all() for step in steps)
    assert float(steps[0].x_t[..., 32 : 3 * STRIDE].std()) > 0.9  # of noise, as all else


def test_write_is_the_last_of_its_steps(small):
    steps = list(write_steps("31", small, steps=3, scale=1.5, seed=4, variety=0.7))
    assert torch.equal(write("31", small, steps=3, scale=1.5, seed=4, variety=0.7), steps[-1].x_t)
    for changed in ({"steps": 2}, {"scale": 1.0}, {"seed": 5}, {"variety": 0.6}):
        other = write("31", small, **{"steps": 3, "scale": 1.5, "seed": 4, "variety": 0.7} | changed)
        assert not torch.equal(other, steps[-1].x_t)


def test_a_seed_writes_the_same_each_time_and_draws_from_nobody_else(small):
    state = torch.get_rng_state()
    assert torch.equal(write("31", small, steps=2, seed=1), write("31", small, steps=2, seed=1))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(write("31", small, steps=2, seed=1), write("31", small, steps=2, seed=2))
    assert torch.equal(write("31", small, steps=2, seed=0), write("31", small, steps=2))


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_text_of_one_digit_is_that_digit_sampled_from_the_same_noise(small, scale):
    first = next(write_steps("7", small, steps=3, scale=scale, seed=3))
    denoiser = small.denoiser(torch.tensor([7]), scale)
    expected = last(ddim(denoiser, first.x_t, small.schedule, small.schedule.grid(3))).x_t
    assert_close(write("7", small, steps=3, scale=scale, seed=3), expected, rtol=0, atol=1e-6)


def test_each_digit_is_believed_under_its_own_label(small):
    # the first step of "31" against both windows by themselves
    first = next(write_steps("31", small, steps=3, scale=1.0))
    seen = [
        small.denoiser(torch.tensor([y]))(first.x_t[..., left : left + 32], times(50, first.x_t))
        for y, left in ((3, 0), (1, STRIDE))
    ]
    assert_close(first.x_0_hat[..., :STRIDE], seen[0][..., :STRIDE].detach(), rtol=0, atol=1e-5)
    assert_close(first.x_0_hat[..., 32:], seen[1][..., 32 - STRIDE :].detach(), rtol=0, atol=1e-5)
    both = (seen[0][..., STRIDE:] + seen[1][..., : 32 - STRIDE]).detach() / 2
    assert_close(first.x_0_hat[..., STRIDE:32], both, rtol=0, atol=1e-5)


def windows_of(strip):
    """The window of each character, (n, 1, 32, 32)."""
    return strip.unfold(3, 32, STRIDE)[0].permute(2, 0, 1, 3)


def test_without_variety_equal_digits_are_equal_where_no_neighbour_reaches_in(small):
    text = "3 3 1 3"
    alike, varied = (windows_of(write(text, small, steps=2, variety=variety)) for variety in (0.0, 0.2))
    for k in (2, 6):
        assert_close(alike[k], alike[0], rtol=0, atol=1e-5)
        assert float((varied[k] - varied[0]).abs().max()) > 0.05
    assert float((alike[4] - alike[0]).abs().max()) > 0.05  # another digit in the same hand


@pytest.mark.parametrize("variety", [0.0, 0.2, 1.0])
def test_each_digit_has_its_share_of_the_noise_to_itself(small, variety):
    # of variance 1 whatever the share: hand and own noise are independent
    x_T = next(write_steps("1" * 40, small, steps=1, variety=variety, seed=1)).x_t
    digits = x_T[..., : 40 * STRIDE].reshape(32, 40, STRIDE)  # under each character the same hand
    assert float(x_T.var()) == pytest.approx(1, abs=0.08)
    assert float(digits.var(1).mean()) == pytest.approx(variety, abs=0.02)
    assert float((digits[:, 1:] * digits[:, :-1]).mean()) == pytest.approx(1 - variety, abs=0.08)


def test_writing_keeps_no_graph_and_switches_the_network_to_evaluation(small):
    small.model.train()
    for step in write_steps("31", small, steps=2):
        assert not step.x_t.requires_grad and not step.x_0_hat.requires_grad and torch.is_grad_enabled()
    assert not small.model.training


# Writing, with the weights that ship


def test_what_the_shipped_weights_write_can_be_read():
    strip = write("0123456789", steps=6)
    assert strip.shape == (1, 1, 32, 9 * STRIDE + 32)
    read = classify(load_classifier(), windows_of(strip)).argmax(1)
    assert int((read == torch.arange(10)).sum()) >= 9
    assert torch.equal(write("5", steps=1), write("5", load_pretrained(), steps=1))


@pytest.mark.parametrize("places", [[], [-1, 4], [0, 13], [20]], ids=str)
def test_no_windows_and_windows_outside_the_strip_are_refused(places):
    strip = windowed(conditional([0, 1]), places, 8)
    with pytest.raises(ValueError, match=r"strip of 20 columns needs windows inside it, got 8 columns at \["):
        strip(randn(1, 1, 4, 20), torch.tensor([5]))


@pytest.mark.parametrize("text", ["", " ", "3a1", "12\n", "1٣", "2²", "7" * 65, "7" + " " * 64])
def test_a_text_of_anything_but_up_to_64_digits_and_blanks_is_refused(text, small):
    for door in (write, write_steps):
        with pytest.raises(ValueError, match="up to 64 digits and blanks with at least one digit, got '"):
            door(text, small)


def test_varieties_and_steps_are_refused_at_once(small):
    for variety in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=rf"expected a variety in \[0, 1\], got {variety}"):
            write_steps("1", small, variety=variety)
    with pytest.raises(ValueError, match="got steps=51"):
        write_steps("1", small, steps=51)
