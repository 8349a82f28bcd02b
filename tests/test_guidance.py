"""Guidance and clipping, from denoiser to denoiser and through the samplers."""

import math

import pytest
import torch
from torch.testing import assert_close

from tinyddpm.diffusion import eps_from_x_0, make_denoiser
from tinyddpm.guidance import classifier_free_guidance, clip_x_0
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.samplers import ddim, last, p_sample_loop
from tinyddpm.schedules import Schedule

COSINE = Schedule.named("cosine", 50)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def conditional(x_t, t):
    return 0.4 + (2 * x_t).sin() * t.reshape(-1, 1, 1, 1) / 30


def unconditional(x_t, t):
    return 0.7 * x_t - 0.1


def never(x_t, t):
    raise AssertionError("this branch was not to be asked")


# Classifier-free guidance


@pytest.mark.parametrize("b", [1, 2, 3])
@pytest.mark.parametrize("scale, alone", [(1.0, conditional), (0.0, unconditional)])
def test_scale_1_is_the_conditional_model_and_0_the_unconditional_bit_for_bit(b, scale, alone):
    # trap 19: one library returned one tensor here where two were unpacked, which split a batch of 2
    x_T = randn(b, 1, 4, 4, dtype=torch.float32)
    guided = classifier_free_guidance(conditional, unconditional, scale)
    got, expected = (last(ddim(d, x_T, COSINE, COSINE.grid(7))).x_t for d in (guided, alone))
    assert got.shape == x_T.shape and torch.equal(got, expected)


def test_the_branch_without_weight_is_not_computed():
    x_t, t = randn(2, 1, 4, 4), torch.tensor([3, 40])
    assert torch.equal(classifier_free_guidance(conditional, never, 1.0)(x_t, t), conditional(x_t, t))
    assert torch.equal(classifier_free_guidance(never, unconditional, 0.0)(x_t, t), unconditional(x_t, t))


@pytest.mark.parametrize("b", [1, 2, 3])
@pytest.mark.parametrize("scale", [-1.0, 0.5, 2.0, 7.5])
def test_guidance_is_linear_in_its_scale(b, scale):
    x_t, t = randn(b, 1, 4, 4), torch.arange(1, b + 1) * 10
    got = classifier_free_guidance(conditional, unconditional, scale)(x_t, t)
    assert_close(
        got, (1 - scale) * unconditional(x_t, t) + scale * conditional(x_t, t), rtol=1e-10, atol=1e-10
    )


def test_guidance_tends_to_the_plain_models_as_its_scale_does():
    x_t, t = randn(2, 1, 4, 4), torch.tensor([3, 40])
    for scale, alone in ((1, conditional), (0, unconditional)):
        near = classifier_free_guidance(conditional, unconditional, scale + 1e-9)
        assert_close(near(x_t, t), alone(x_t, t), rtol=0, atol=1e-7)


@pytest.mark.parametrize("predicts", ["eps", "v"])
def test_guidance_of_x_0_is_guidance_of_what_the_network_predicts(predicts):
    # diffusers: uncond + scale (cond - uncond) on the network's output
    x_t, t, scale = randn(2, 1, 4, 4), torch.tensor([3, 40]), 3.0
    branches = [make_denoiser(f, COSINE, predicts) for f in (conditional, unconditional)]

    def network(x_t, t):
        return unconditional(x_t, t) + scale * (conditional(x_t, t) - unconditional(x_t, t))

    expected = make_denoiser(network, COSINE, predicts)(x_t, t)
    assert_close(classifier_free_guidance(*branches, scale)(x_t, t), expected, rtol=1e-10, atol=1e-10)


def test_guidance_of_two_gaussians_is_the_gaussian_of_their_extrapolated_means():
    # N(m, v) is affine in m, so that guiding N(.5, v) from N(.1, v) is the denoiser of N(.1 + scale .4, v)
    x_t, t, v = randn(3, 1, 4, 4), torch.tensor([1, 20, 50]), 0.2
    guided = classifier_free_guidance(gaussian_oracle(0.5, v, COSINE), gaussian_oracle(0.1, v, COSINE), 2.5)
    assert_close(guided(x_t, t), gaussian_oracle(1.1, v, COSINE)(x_t, t), rtol=1e-10, atol=1e-10)


# Clipping


def test_clipping_holds_x_0_in_range_and_changes_nothing_within():
    x_t, t = randn(4, 1, 4, 4), torch.tensor([3, 10, 40, 50])
    free = make_denoiser(conditional, COSINE, "eps")(x_t, t)
    assert (free.abs() > 1).any() and (free.abs() < 1).any()
    clipped = clip_x_0(lambda x_t, t: free)(x_t, t)
    inside = free.abs() <= 1
    assert torch.equal(clipped[inside], free[inside])
    assert torch.equal(clipped[~inside], free[~inside].sign())
    narrow = clip_x_0(lambda x_t, t: free, -0.2, 0.5)(x_t, t)
    assert float(narrow.min()) == -0.2 and float(narrow.max()) == 0.5


def test_clipping_goes_outside_guidance_and_differs_within():
    x_t, t, scale = randn(2, 1, 4, 4), torch.tensor([3, 40]), 7.5
    outside = clip_x_0(classifier_free_guidance(conditional, unconditional, scale))(x_t, t)
    expected = unconditional(x_t, t) + scale * (conditional(x_t, t) - unconditional(x_t, t))
    assert_close(outside, expected.clamp(-1, 1))
    within = classifier_free_guidance(clip_x_0(conditional), clip_x_0(unconditional), scale)(x_t, t)
    assert float(outside.abs().max()) <= 1 < float(within.abs().max())


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_x_s_lies_where_the_clipped_x_0_says(eta, monkeypatch):
    # trap 10: eps follows from the clipped x_0, so that x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps still holds
    monkeypatch.setattr("tinyddpm.samplers.noise_like", lambda x, generator=None: torch.zeros_like(x))
    guided = classifier_free_guidance(*(make_denoiser(f, COSINE) for f in (conditional, unconditional)), 5.0)
    steps = list(ddim(clip_x_0(guided), randn(3, 1, 4, 4), COSINE, COSINE.grid(7), eta=eta))
    clipped = 0
    for step, at_s in zip(steps, steps[1:]):
        abar_t, abar_s = float(COSINE.alpha_bar[step.t]), float(COSINE.alpha_bar[at_s.t])
        x_0 = guided(step.x_t, torch.full((3,), step.t)).clamp(-1, 1)
        eps = (step.x_t - math.sqrt(abar_t) * x_0) / math.sqrt(1 - abar_t)
        var = eta**2 * (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)
        expected = math.sqrt(abar_s) * x_0 + math.sqrt(1 - abar_s - var) * eps
        assert_close(at_s.x_t, expected, rtol=1e-10, atol=1e-10)
        assert_close(eps_from_x_0(step.x_0_hat, step.x_t, step.t, COSINE), eps, rtol=1e-10, atol=1e-10)
        clipped += int((x_0.abs() == 1).sum())
    assert clipped > 10


def test_a_clipped_run_ends_in_range_with_every_sampler():
    denoiser, x_T = clip_x_0(make_denoiser(conditional, COSINE)), randn(3, 1, 4, 4, dtype=torch.float32)
    for run in (ddim(denoiser, x_T, COSINE), p_sample_loop(denoiser, x_T, COSINE)):
        assert float(last(run).x_t.abs().max()) <= 1 + 1e-6


def test_neither_guidance_nor_clipping_writes_over_a_tensor():
    # trap 30: the denoiser's own output as well as its inputs
    x_t, t = randn(2, 1, 4, 4), torch.tensor([3, 40])
    outs = 3 * randn(2, 1, 4, 4, seed=1), 3 * randn(2, 1, 4, 4, seed=2)
    before = [a.clone() for a in (x_t, t, *outs)]
    for scale in (0.0, 0.5, 1.0, 4.0):
        clip_x_0(classifier_free_guidance(lambda x_t, t: outs[0], lambda x_t, t: outs[1], scale))(x_t, t)
    assert all(torch.equal(a, b) for a, b in zip((x_t, t, *outs), before))


@pytest.mark.parametrize("low, high", [(1.0, -1.0), (0.5, 0.5), (math.nan, 1.0)])
def test_a_range_without_an_inside_is_refused(low, high):
    with pytest.raises(ValueError, match=rf"clipping needs low < high, got \[{low}, {high}\]"):
        clip_x_0(conditional, low, high)
