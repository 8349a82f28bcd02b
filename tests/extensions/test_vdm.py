"""The bound that a network is trained for: closed forms of one pixel, and what the parts must be exactly."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tinyddpm import DDPM, Schedule, UNet
from tinyddpm.data import from_uint8
from tinyddpm.extensions.likelihood import prior_nats, step_nats
from tinyddpm.extensions.vdm import (
    KNOTS,
    BoundLoss,
    GreyLevels,
    bits_by_time,
    bound_betas,
    bound_nats,
    fourier_features,
    grey_values,
    level_denoiser,
    level_logits,
    low_discrepancy,
    ode_bits,
)
from tinyddpm.trainer.recipes import RECIPES, UNetConfig

GREY = from_uint8(torch.arange(256, dtype=torch.uint8))
P = torch.zeros(256).index_put(
    (torch.tensor([0, 1, 100, 128, 254, 255]),), torch.tensor([0.45, 0.1, 0.1, 0.1, 0.1, 0.15])
)


class Prior(torch.nn.Module):
    """A network that knows how often each grey value is, and no more: for independent pixels nothing is to be known."""

    num_classes = None

    def __init__(self, p=P):
        super().__init__()
        self.log_p = p.clamp(min=1e-30).log()

    def forward(self, x_t, t, y=None, signal=None, noise=None):
        own = -((x_t[:, :, None] - signal[..., None] * GREY[:, None, None]) ** 2) / (2 * noise[..., None] ** 2)
        return (self.log_p[:, None, None] + own).flatten(1, 2)


def pixels(values, nodes=20):
    """One-pixel images of these grey values, each with the nodes of Gauss-Hermite quadrature as its noise."""
    eps, weight = np.polynomial.hermite_e.hermegauss(nodes)
    weight = torch.from_numpy(weight / weight.sum()).float()
    x_0 = values.repeat_interleave(nodes).reshape(-1, 1, 1, 1)
    return x_0, torch.from_numpy(eps).float().repeat(len(values)).reshape(-1, 1, 1, 1), weight


def whole_bound(model, values, schedule):
    """The bound of each grey value as a one-pixel image, its expectation over the noise by quadrature, in nats."""
    x_0, eps, weight = pixels(values)
    nats = prior_nats(values.reshape(-1, 1, 1, 1).double(), schedule)
    for t in range(1, schedule.T + 1):
        found = bound_nats(model, x_0, torch.full((len(x_0),), t), eps, schedule)
        nats = nats + found.reshape(len(values), -1) @ weight
    return nats


def test_the_bound_of_the_exact_denoiser_approaches_the_entropy_from_above():
    """The gap of a sum over T steps to its integral halves with each doubling of T; what stays is the prior's KL."""
    entropy = -float((P[P > 0] * P[P > 0].log()).sum())
    gaps = []
    for T in (40, 80, 160):
        schedule = Schedule(bound_betas(T))
        bound = float(P[P > 0].double() @ whole_bound(Prior(), GREY[P > 0], schedule))
        gaps.append(bound - entropy)
    assert gaps[0] > gaps[1] > gaps[2] > 0
    assert gaps[0] - gaps[1] == pytest.approx(2 * (gaps[1] - gaps[2]), rel=0.15)
    assert 2 * gaps[2] - gaps[1] == pytest.approx(0, abs=0.01)  # its limit


@pytest.mark.parametrize("believed", [P, P.flip(0), torch.full((256,), 1 / 256)])
def test_all_probabilities_of_a_small_space_sum_to_at_most_1(believed):
    schedule = Schedule(bound_betas(16))
    total = float(torch.exp(-whole_bound(Prior(believed), GREY, schedule)).sum())
    assert 0.3 < total <= 1


def tiny(channels=1, num_classes=None, **how):
    torch.manual_seed(0)
    inner = UNet((16, 32), channels * 5, num_classes, attention=(), image_size=8, out_channels=channels * 32)
    for p in inner.out.parameters():
        torch.nn.init.normal_(p, std=0.3)
    return GreyLevels(inner, **how).eval()


@pytest.mark.parametrize("channels", [1, 3])
def test_the_logits_are_the_network_s_and_the_likelihood_of_the_pixel_itself(channels):
    model, schedule = tiny(channels), Schedule.named("bound")
    x_t, t = torch.randn(3, channels, 8, 8), torch.tensor([1, 300, 1000])
    logits = model(x_t, t).double().unflatten(1, (channels, 256))
    signal, noise = schedule.coefficients(t, x_t.double())
    own = -((x_t[:, :, None] - signal[..., None] * GREY[:, None, None]) ** 2) / (2 * noise[..., None] ** 2)
    expected = (logits + own).softmax(2)
    found = level_logits(model, x_t, t, schedule)
    assert_close(found.softmax(-1).movedim(-1, 2).double(), expected, rtol=2e-3, atol=1e-5)
    x_0_hat = level_denoiser(model, schedule)(x_t, t)
    assert_close(x_0_hat.double(), (expected * GREY[:, None, None]).sum(2), rtol=1e-4, atol=1e-4)


def test_the_decoder_is_a_distribution_over_the_grey_values():
    """All values of one pixel at one x_1: the term at t = 1 is -log p, whose sum over the values is 1."""
    model, schedule = tiny(), Schedule.named("bound")
    x_0, t = torch.full((256, 1, 8, 8), -1.0), torch.ones(256, dtype=torch.long)
    x_1 = x_0[:1] + 0.01 * torch.randn(1, 1, 8, 8)
    x_0[:, 0, 3, 4], x_1[:, :, 3, 4] = GREY, 0.1
    signal, noise = schedule.coefficients(t, x_0)
    with torch.no_grad():
        nats = bound_nats(model, x_0, t, (x_1 - signal * x_0) / noise, schedule).double()  # x_1 for each
        log_p = level_logits(model, x_1, t[:1], schedule).double().log_softmax(-1)[0, 0]
    black = log_p[..., 0].sum() - log_p[3, 4, 0]  # of the other pixels
    assert float((-nats - black).exp().sum()) == pytest.approx(1, abs=1e-3)


def test_the_schedule_has_its_ends_and_knots():
    for T in (2, 100, 1000):
        log_snr = Schedule(bound_betas(T)).log_snr
        assert [float(log_snr[1]), float(log_snr[T])] == pytest.approx([KNOTS[0][1], KNOTS[-1][1]])
    log_snr = Schedule.named("bound", 1001).log_snr[1:]
    assert [float(log_snr[round(1000 * u)]) for u, _ in KNOTS] == pytest.approx([value for _, value in KNOTS])
    assert (log_snr.diff() < 0).all()


def test_the_weights_are_the_derivative_of_the_snr():
    """Times T, the bound's weight is -SNR'(u) / 2, by the schedule's own log-SNR as a function of u = t / T."""
    T, c = 1000, 0.3
    schedule, t = Schedule.named("bound", T), torch.tensor([50, 300, 800, 990])
    x_0 = torch.full((4, 1, 1, 1), c)
    found = bound_nats(Constant(255), x_0, t, torch.zeros_like(x_0), schedule) / (1 - c) ** 2
    slope = torch.tensor([(a[1] - b[1]) / (a[0] - b[0]) for a, b in (KNOTS[:2], KNOTS[:2], KNOTS[1:3], KNOTS[3:5])])
    expected = -slope * ((schedule.log_snr[t] + schedule.log_snr[t - 1]) / 2).exp() / 2
    assert_close(found.double() * (T - 1), expected.double(), rtol=2e-3, atol=0)
    exact = [
        float(step_nats(x_0[:1].double(), torch.ones(1, 1, 1, 1).double(), int(k), int(k) - 1, schedule, 0)) for k in t
    ]
    assert found.tolist() == pytest.approx([nats / (1 - c) ** 2 for nats in exact], rel=1e-4)


def test_low_discrepancy_times_are_uniform_each_and_even_together():
    draws = torch.stack([low_discrepancy(50, torch.Generator().manual_seed(seed)) for seed in range(2000)])
    assert (draws.mul(50).long() == 0).sum(1).eq(1).all() and draws.min() >= 0 and draws.max() < 1
    for k in (0, 17):
        off = draws[:, k].sort().values - (torch.arange(2000) + 0.5) / 2000
        assert off.abs().max() < 0.04  # Kolmogorov and Smirnov: 0.036 in one of 100


def test_the_loss_is_an_unbiased_estimate_of_the_bound():
    schedule, n = Schedule(bound_betas(20)), 5_000
    values = GREY[[30, 200]]
    exact = whole_bound(Prior(), values, schedule) / math.log(2)
    for x, expected in zip(values, exact):
        losses, t = BoundLoss(schedule, first=0.4)(
            Prior(), x.expand(n, 1, 1, 1), None, torch.Generator().manual_seed(0)
        )
        assert float((t == 1).double().mean()) == pytest.approx(0.4, abs=1e-3) and sorted(set(t.tolist())) == [
            *range(1, 21)
        ]
        assert float(losses.mean()) == pytest.approx(float(expected), rel=0.05)


def test_fourier_features_are_what_they_say():
    x = torch.tensor([0.0, 0.125, -0.0625]).reshape(1, 1, 1, 3)
    found = fourier_features(x, (2, 3))
    expected = [[0, 0.125, -0.0625], [0, 1, -(0.5**0.5)], [0, 0, -1], [1, 0, 0.5**0.5], [1, -1, 0]]
    assert_close(found, torch.tensor(expected).reshape(1, 5, 1, 3), rtol=0, atol=1e-6)
    assert_close(fourier_features(x, ()), x)


def test_every_so_many_steps_are_the_whole_bound_on_average():
    x_0, schedule = from_uint8(torch.randint(256, (3, 1, 4, 4)).byte()), Schedule(bound_betas(40))
    constant = Constant(200)
    whole = bits_by_time(constant, x_0, schedule)
    parts = [bits_by_time(constant, x_0, schedule, every=7, first=k) for k in range(7)]
    assert_close(torch.stack(parts).mean(0), whole)
    assert [int((part[2:, 0] > 0).sum()) for part in parts] == [6, 6, 6, 6, 5, 5, 5]
    expected = [step_nats(x_0.double(), GREY[200].double().expand_as(x_0), t, t - 1, schedule, 0) for t in range(2, 41)]
    assert_close(whole[2:], torch.stack(expected) / 16 / math.log(2), rtol=1e-4, atol=0)


class Constant(torch.nn.Module):
    """A network that is sure of one grey value."""

    num_classes = None

    def __init__(self, level):
        super().__init__()
        self.level = level

    def forward(self, x_t, *_):
        return torch.full((len(x_t), 256, *x_t.shape[2:]), -1e9).index_fill(1, torch.tensor(self.level), 0.0)


def test_the_ode_finds_the_entropy_of_independent_pixels():
    """A smooth density of grey values, which the ODE knows exactly and the network returns as its logits."""
    p = torch.exp(-((GREY + 0.2) ** 2) / (2 * 0.2**2))
    p = p / p.sum()
    generator = torch.Generator().manual_seed(0)
    x = GREY[torch.multinomial(p, 60 * 16, True, generator=generator)].reshape(60, 1, 4, 4)
    found = ode_bits(Prior(p), x, Schedule.named("bound"), None, generator, 50)
    exact = -p[((x + 1) * 127.5).round().long()].log2().flatten(1).mean(1)
    assert float(found.mean()) == pytest.approx(float(exact.mean()), abs=0.03)


def test_a_checkpoint_is_loaded_by_its_name(tmp_path):
    model, x_t, t = tiny(powers=(2, 4)), torch.randn(2, 1, 8, 8), torch.tensor([5, 900])
    ddpm = DDPM(model, Schedule.named("bound"), "x_0", (1, 8, 8))
    ddpm.save(tmp_path / "bits.safetensors")
    again = DDPM.load(tmp_path / "bits.safetensors")
    assert type(again.model) is GreyLevels and again.model.arguments == model.arguments
    assert_close(again.model(x_t, t), model(x_t, t), rtol=0, atol=0)
    assert_close(again.denoiser()(x_t, t), level_denoiser(model, ddpm.schedule)(x_t, t), rtol=0, atol=0)
    samples = again.sample(n=2, steps=3, seeds=[1, 2])
    assert samples.shape == (2, 1, 8, 8) and samples.abs().max() <= 1


def test_the_recipe_trains_the_bound(tmp_path):
    from tinyddpm.data import mnist
    from tinyddpm.trainer import train

    recipe = replace(RECIPES["bits"], network=UNetConfig((16, 32), attention=()), batch_size=16, warmup=5)
    ddpm = train(recipe, tmp_path, mnist(size=28), epochs=0.008, device="cpu")
    rows = [float(line.split(",")[2]) for line in (tmp_path / "log.csv").read_text().splitlines()[1:]]
    assert ddpm.image_shape == (1, 28, 28) and ddpm.num_classes is None and rows[-1] < 7
    assert torch.equal(DDPM.load(tmp_path / "model.safetensors").schedule.beta, Schedule.named("bound").beta)


def test_bad_input_is_refused_in_one_sentence():
    schedule, x = Schedule.named("bound"), torch.zeros(2, 1, 8, 8)
    advice = r"images of the 256 grey values v / 127\.5 - 1, got pixels 0\.0039 off: round them by data\.to_uint8"
    for measure in (bits_by_time, ode_bits):
        with pytest.raises(ValueError, match=advice):
            measure(tiny(), x, schedule)
    for first in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match=r"the share of images at t = 1 must be in \(0, 1\), got"):
            BoundLoss(schedule, first=first)
    assert_close(grey_values(x), GREY)
