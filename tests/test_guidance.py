"""Guidance, clipping and thresholds, from denoiser to denoiser and through the samplers."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tinyddpm.diffusion import eps_from_x_0, make_denoiser
from tinyddpm.extensions.gradient_guidance import blend, dynamic_threshold
from tinyddpm.guidance import branches, classifier_free_guidance, clip_x_0, interval
from tinyddpm.nn import UNet
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


def counted(denoiser):
    """The denoiser, and the list of the times that it was asked about."""
    asked = []

    def counting(x_t, t):
        asked.append(t.tolist())
        return denoiser(x_t, t)

    return counting, asked


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
    assert_close(got, (1 - scale) * unconditional(x_t, t) + scale * conditional(x_t, t), rtol=1e-10, atol=1e-10)


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


# A scale for every time


@pytest.mark.parametrize("b", [1, 2, 3])
@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 7.3])
def test_a_scale_that_says_the_same_at_every_t_is_that_constant(b, scale):
    # 0 included: both branches are asked then, and the sum is the unconditional one
    x_t, t = randn(b, 1, 4, 4), torch.arange(1, b + 1) * 10
    expected = classifier_free_guidance(conditional, unconditional, scale)(x_t, t)
    for same in (lambda t: torch.full(t.shape, scale, dtype=torch.float64), lambda t: scale):
        got = classifier_free_guidance(conditional, unconditional, same)(x_t, t)
        assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_every_image_of_a_batch_has_the_scale_of_its_own_t():
    x_t, t = randn(3, 1, 4, 4), torch.tensor([40, 3, 20])
    table = torch.linspace(-1, 6, COSINE.T + 1, dtype=torch.float64)
    together = classifier_free_guidance(conditional, unconditional, lambda t: table[t])(x_t, t)
    for k in range(3):
        constant = classifier_free_guidance(conditional, unconditional, float(table[t[k]]))
        alone = constant(x_t[k : k + 1], t[k : k + 1])
        assert_close(together[k : k + 1], alone, rtol=1e-12, atol=1e-12)


def test_a_scale_of_one_at_every_t_asks_the_conditional_branch_alone():
    x_t, t = randn(3, 1, 4, 4), torch.tensor([40, 3, 20])
    for ones in (lambda t: torch.ones(len(t)), lambda t: torch.ones_like(t), lambda t: 1.0):
        got = classifier_free_guidance(conditional, never, ones)(x_t, t)
        assert torch.equal(got, conditional(x_t, t))
    with pytest.raises(AssertionError, match="not to be asked"):  # one image of three is guided
        classifier_free_guidance(conditional, never, lambda t: 1.0 + (t == 3))(x_t, t)


def test_a_scale_of_t_keeps_the_dtype_of_the_images():
    t = torch.tensor([3, 40])
    for dtype in (torch.float32, torch.float64):
        for scale in (lambda t: t.double() / 10, lambda t: t, lambda t: t.float(), lambda t: 3):
            guided = classifier_free_guidance(unconditional, lambda x_t, t: x_t.sin(), scale)
            assert guided(randn(2, 1, 4, 4, dtype=dtype), t).dtype == dtype


def test_guidance_never_looks_at_values_on_a_device():
    # trap 31: meta tensors have no values, so that a look (a stall on a GPU) raises
    x_t, t = torch.zeros(2, 1, 4, 4, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")
    for denoiser in (
        classifier_free_guidance(conditional, unconditional, 3.0),
        classifier_free_guidance(conditional, unconditional, interval(3.0, 5, 20)),
        blend(conditional, unconditional, 0.3),
        dynamic_threshold(conditional),
    ):
        assert denoiser(x_t, t).device.type == "meta"


def test_an_interval_holds_both_its_ends_and_leaves_the_rest_unguided():
    t = torch.tensor([0, 4, 5, 6, 19, 20, 21, 50])
    assert interval(2.5, 5, 20)(t).tolist() == [1, 1, 2.5, 2.5, 2.5, 2.5, 1, 1]
    assert interval(2.5, 5, 20, outside=0.0)(t).tolist() == [0, 0, 2.5, 2.5, 2.5, 2.5, 0, 0]
    assert interval(2.5, 6, 6)(t).tolist() == [1, 1, 1, 2.5, 1, 1, 1, 1]


@pytest.mark.parametrize("sampler", [ddim, p_sample_loop])
def test_an_interval_of_all_times_is_the_constant_and_one_of_none_no_guidance(sampler):
    def drawn(scale, without=unconditional):
        guided = classifier_free_guidance(conditional, without, scale)
        g = torch.Generator().manual_seed(1)
        return last(sampler(guided, randn(2, 1, 4, 4), COSINE, COSINE.grid(10), generator=g)).x_t

    assert_close(drawn(interval(2.5, 1, 50)), drawn(2.5), rtol=1e-12, atol=1e-12)
    assert torch.equal(drawn(interval(2.5, 60, 90), never), drawn(1.0))


def test_outside_its_interval_guidance_costs_one_call_a_step():
    label, asked = counted(conditional)
    without, asked_without = counted(unconditional)
    guided = classifier_free_guidance(label, without, interval(2.5, 11, 30))
    last(ddim(guided, randn(2, 1, 4, 4), COSINE, COSINE.grid(10)))
    assert [t for t, _ in asked] == [50, 45, 40, 35, 30, 25, 20, 15, 10, 5]
    assert [t for t, _ in asked_without] == [30, 25, 20, 15]


# Between two beliefs


@pytest.mark.parametrize("share", [0, 0.0, 1, 1.0])
def test_a_blend_at_its_ends_is_the_denoiser_itself(share):
    assert blend(conditional, unconditional, share) is (unconditional if share else conditional)


@pytest.mark.parametrize("share", [1e-9, 0.25, 0.5, 0.9])
def test_a_blend_is_linear_in_its_share(share):
    x_t, t = randn(3, 1, 4, 4), torch.tensor([40, 3, 20])
    expected = (1 - share) * conditional(x_t, t) + share * unconditional(x_t, t)
    assert_close(blend(conditional, unconditional, share)(x_t, t), expected, rtol=1e-12, atol=1e-12)


def test_a_blend_of_two_gaussians_is_the_gaussian_between_and_is_sampled_as_such():
    blended = blend(gaussian_oracle(0.5, 0.2, COSINE), gaussian_oracle(-0.3, 0.2, COSINE), 0.25)
    x_T = randn(3, 1, 4, 4)
    between = last(ddim(gaussian_oracle(0.3, 0.2, COSINE), x_T, COSINE)).x_t
    assert_close(last(ddim(blended, x_T, COSINE)).x_t, between, rtol=1e-10, atol=1e-10)


def test_a_blend_is_guidance_with_its_share_as_the_scale():
    x_t, t = randn(3, 1, 4, 4), torch.tensor([40, 3, 20])
    guided = classifier_free_guidance(conditional, unconditional, 0.3)
    assert_close(blend(unconditional, conditional, 0.3)(x_t, t), guided(x_t, t), rtol=1e-12, atol=1e-12)


def test_every_image_of_a_batch_has_its_own_share():
    x_t, t, shares = randn(3, 1, 4, 4), torch.tensor([40, 3, 20]), [0.0, 0.3, 1.0]
    together = blend(conditional, unconditional, torch.tensor(shares, dtype=torch.float64))(x_t, t)
    for k, share in enumerate(shares):
        alone = blend(conditional, unconditional, share)(x_t[k : k + 1], t[k : k + 1])
        assert_close(together[k : k + 1], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_blend_keeps_the_dtype_of_the_images(dtype):
    x_t, t = randn(2, 1, 4, 4, dtype=dtype), torch.tensor([40, 3])
    for share in (0.3, torch.tensor([0.2, 0.4]), torch.tensor([0.2, 0.4], dtype=torch.float64)):
        assert blend(unconditional, lambda x_t, t: x_t.sin(), share)(x_t, t).dtype == dtype


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
    a, b = (lambda x_t, t: outs[0]), (lambda x_t, t: outs[1])
    for scale in (0.0, 0.5, 1.0, 4.0, interval(3.0, 1, 10), lambda t: t):
        clip_x_0(classifier_free_guidance(a, b, scale))(x_t, t)
        dynamic_threshold(classifier_free_guidance(a, b, scale), 0.8)(x_t, t)
    for share in (0.0, 0.4, 1.0):
        blend(a, b, share)(x_t, t)
    assert all(torch.equal(a, b) for a, b in zip((x_t, t, *outs), before))


# Dynamic thresholds


def imagen(x_0_hat, share):
    """The few lines in words: sort the sizes, find the one that so many lie below, hold, divide."""
    out = []
    for image in x_0_hat:
        sizes = sorted(image.abs().flatten().tolist())
        place = share * (len(sizes) - 1)
        k = min(int(place), len(sizes) - 2)
        m = max(1.0, sizes[k] + (place - k) * (sizes[k + 1] - sizes[k]))
        out.append([max(-m, min(m, x)) / m for x in image.flatten().tolist()])
    return torch.tensor(out, dtype=x_0_hat.dtype).reshape(x_0_hat.shape)


def as_denoiser(x_0_hat):
    return lambda x_t, t: x_0_hat


@pytest.mark.parametrize("share", [0.1, 0.8, 0.95, 0.995, 1.0])
def test_a_dynamic_threshold_is_imagen_s_each_image_by_itself(share):
    # out of range by far, by a little, and not at all: one m an image
    x_0_hat = randn(3, 2, 8, 8) * torch.tensor([3.0, 1.0, 0.2]).reshape(3, 1, 1, 1)
    held = dynamic_threshold(as_denoiser(x_0_hat), share)(x_0_hat, torch.tensor([40, 3, 20]))
    assert_close(held, imagen(x_0_hat, share), rtol=1e-12, atol=1e-12)
    assert float(held.abs().max()) <= 1


@pytest.mark.parametrize("share", [0.5, 0.995])
def test_a_dynamic_threshold_is_that_of_diffusers(share):
    diffusers = pytest.importorskip("diffusers")
    x_0_hat = randn(3, 1, 8, 8) * torch.tensor([3.0, 1.0, 0.2]).reshape(3, 1, 1, 1)
    scheduler = diffusers.DDPMScheduler(thresholding=True, dynamic_thresholding_ratio=share, sample_max_value=1e9)
    held = dynamic_threshold(as_denoiser(x_0_hat), share)(x_0_hat, torch.tensor([40, 3, 20]))
    assert_close(held, scheduler._threshold_sample(x_0_hat), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_dynamic_threshold_changes_nothing_within_the_range(dtype):
    x_0_hat = randn(3, 1, 8, 8, dtype=dtype).clamp(-1, 1)
    assert float(x_0_hat.abs().max()) == 1
    for share in (0.5, 0.995, 1.0):
        held = dynamic_threshold(as_denoiser(x_0_hat), share)(x_0_hat, torch.tensor([40, 3, 20]))
        assert torch.equal(held, x_0_hat) and held.dtype == dtype


def test_a_dynamic_threshold_is_the_paper_s_unless_told():
    x_0_hat, t = 3 * randn(2, 1, 32, 32), torch.tensor([40, 3])
    told = dynamic_threshold(as_denoiser(x_0_hat), 0.995)(x_0_hat, t)
    assert torch.equal(dynamic_threshold(as_denoiser(x_0_hat))(x_0_hat, t), told)


def test_the_whole_share_divides_by_the_largest_and_holds_nothing():
    x_0_hat = 3 * randn(2, 1, 8, 8)
    held = dynamic_threshold(as_denoiser(x_0_hat), 1.0)(x_0_hat, torch.tensor([40, 3]))
    assert_close(held, x_0_hat / x_0_hat.abs().amax((1, 2, 3), keepdim=True), rtol=1e-12, atol=1e-12)


def test_fewer_pixels_end_at_the_range_s_ends_than_with_clipping():
    x_0_hat = 3 * randn(2, 1, 16, 16)
    ends = [float((f(as_denoiser(x_0_hat))(x_0_hat, torch.tensor([9, 9])).abs() == 1).double().mean())
            for f in (clip_x_0, partial(dynamic_threshold, quantile=0.9))]  # fmt: skip
    assert ends[0] > 0.6 and ends[1] == pytest.approx(0.1, abs=0.005)


def test_a_dynamic_threshold_goes_outside_guidance():
    x_t, t, scale = randn(2, 1, 4, 4), torch.tensor([3, 40]), 7.5
    outside = dynamic_threshold(classifier_free_guidance(conditional, unconditional, scale), 0.9)
    mixed = unconditional(x_t, t) + scale * (conditional(x_t, t) - unconditional(x_t, t))
    assert_close(outside(x_t, t), imagen(mixed, 0.9), rtol=1e-12, atol=1e-12)
    branches = (dynamic_threshold(f, 0.9) for f in (conditional, unconditional))
    assert float(classifier_free_guidance(*branches, scale)(x_t, t).abs().max()) > 1
    for run in (ddim, p_sample_loop):
        x_0 = last(run(outside, randn(3, 1, 4, 4, dtype=torch.float32), COSINE, COSINE.grid(9))).x_t
        assert float(x_0.abs().max()) <= 1 + 1e-6


def test_a_dynamic_threshold_takes_half_precision():
    x = 3 * randn(2, 1, 8, 8).to(torch.bfloat16)
    held = dynamic_threshold(lambda x_t, t: x_t)(x, torch.tensor([1, 1]))
    assert held.dtype == torch.bfloat16 and float(held.abs().max()) <= 1


def test_the_joined_call_is_used_once():
    """A second conditional call sees what x_t is by then, although it is the same tensor."""
    model = UNet((8,), attention=(), num_classes=3, groups=2)
    for p in model.parameters():
        torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([1, 2])
    conditional, unconditional = branches(model, COSINE, "x_0", y, 3)
    x_t, t = torch.randn(2, 1, 32, 32), torch.tensor([7, 7])
    with torch.no_grad():
        unconditional(x_t, t)
        first = conditional(x_t, t)
        assert_close(first, make_denoiser(model, COSINE, "x_0", y)(x_t, t), atol=1e-3, rtol=1e-3)
        unconditional(x_t, t)
        conditional(x_t, t)
        x_t.add_(1)
        assert_close(conditional(x_t, t), make_denoiser(model, COSINE, "x_0", y)(x_t, t), atol=1e-3, rtol=1e-3)
