"""Steering by a gradient, where Bayes' rule gives the steered denoiser in closed form.

Weighted by w, data N(m, v) have another law, whose denoiser is known; with w in place of the data, E[w(x_0) |
x_t] is known too. A step of guidance must make the one of the other, at every t.
"""

import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tinyddpm.diffusion import make_denoiser, q_sample
from tinyddpm.editing.stroke import brightness, slant
from tinyddpm.evaluation.classifier import DigitClassifier
from tinyddpm.extensions.gradient_guidance import classifier_guidance, energy_guidance
from tinyddpm.extensions.score_sde import euler_maruyama, predictor_corrector
from tinyddpm.guidance import classifier_free_guidance, clip_x_0
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.samplers import ddim, dpm_solver_pp, heun, last, p_sample_loop
from tinyddpm.schedules import Schedule

COSINE = Schedule.named("cosine", 50)
SCHEDULES = [COSINE, Schedule.named("linear", 1000), Schedule.named("flow", 50)]
SAMPLERS = [ddim, p_sample_loop, heun, dpm_solver_pp, euler_maruyama, predictor_corrector]


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def uniform(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def times(schedule, n=5):
    """From 1 to the last t that has any signal left."""
    last_t = schedule.T - int(schedule.alpha_bar[-1] == 0)
    return torch.linspace(1, last_t, n).round().long()


def spread(v, t, schedule, x):
    """Var[x_0 | x_t] where x_0 has the variance v."""
    abar = schedule.at(schedule.alpha_bar, t, x)
    return v * (1 - abar) / (abar * v + 1 - abar)


def network(x_t, t):
    """Stands for a denoiser: each pixel sees all others of its image, and no other image."""
    return (1.3 * x_t + x_t.mean((1, 2, 3), keepdim=True) + 0.1 * t.reshape(-1, 1, 1, 1) / 50).sin()


def pull(x, t):
    """Stands for an energy."""
    return (x.sin() * x.cumsum(-1)).flatten(1).sum(1)


M, V = (0.8 * randn(1, 1, 2, 2, seed=1), 0.1 + uniform(1, 1, 2, 2, seed=2))  # mean and variance, each pixel's own


# Exact where the data are Gaussian


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"T={s.T}")
@pytest.mark.parametrize("c, q", [(0.5, 0.3), (-1.0, 0.01), (0.2, 100.0)])
def test_a_bell_as_the_weight_makes_the_product_of_two_gaussians(schedule, c, q):
    # w = exp(-(x_0 - c)^2 / 2q): the prior becomes N(m', v') with 1/v' = 1/v + 1/q and m'/v' = m/v + c/q
    t, prior = times(schedule), gaussian_oracle(M, V, schedule)
    x_t = q_sample(M + V.sqrt() * randn(5, 1, 2, 2), t, randn(5, 1, 2, 2, seed=3), schedule)

    def log_expected_weight(x_t, t):
        # x_0 | x_t is N(mu, s2), so that E[w | x_t] is a bell of variance s2 + q around c, at mu
        mu, s2 = prior(x_t, t), spread(V, t, schedule, x_t)
        return -((mu - c) ** 2 / (2 * (s2 + q))).flatten(1).sum(1)

    v = 1 / (1 / V + 1 / q)
    posterior = gaussian_oracle(v * (M / V + c / q), v, schedule)
    steered = energy_guidance(prior, log_expected_weight, schedule, noisy=True)
    assert_close(steered(x_t, t), posterior(x_t, t), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"T={s.T}")
@pytest.mark.parametrize("scale", [1.0, 2.5, -1.0])
def test_a_linear_log_weight_is_exact_of_clean_images_too(schedule, scale, noisy):
    # w = exp(a . x_0) moves N(m, v) to N(m + v a, v), and log E[w | x_t] = a . mu + a^2 s2 / 2
    t, prior, a = times(schedule), gaussian_oracle(M, V, schedule), randn(1, 1, 2, 2, seed=5)
    x_t = randn(5, 1, 2, 2)

    def log_weight(x, t):
        return (a * (prior(x, t) if noisy else x)).flatten(1).sum(1)

    steered = energy_guidance(prior, log_weight, schedule, scale, noisy)(x_t, t)
    posterior = gaussian_oracle(M + scale * V * a, V, schedule)
    assert_close(steered, posterior(x_t, t), rtol=1e-10, atol=1e-10)
    shift = steered - prior(x_t, t)
    assert_close(shift, scale * a * spread(V, t, schedule, x_t), rtol=1e-9, atol=1e-10)


def test_what_one_pixel_is_told_another_learns_by_their_covariance():
    # two pixels of correlation 0.8, the weight on the first alone: the shift is Cov[x_0 | x_t] a
    C, a = torch.tensor([[1, 0.8], [0.8, 1]], dtype=torch.float64), torch.tensor([1.5, 0.0]).double()
    for t in (1, 20, 50):
        abar = float(COSINE.alpha_bar[t])
        covariance = (C.inverse() + abar / (1 - abar) * torch.eye(2).double()).inverse()
        oracle = linear_oracle(math.sqrt(abar) / (1 - abar) * covariance)
        x_t, at = randn(3, 1, 1, 2), torch.full((3,), t)
        steered = energy_guidance(oracle, lambda x, t: x.flatten(1) @ a, COSINE)
        shift = (steered(x_t, at) - oracle(x_t, at)).reshape(3, 2)
        assert_close(shift, (covariance @ a).expand(3, 2), rtol=1e-9, atol=1e-10)


def linear_oracle(K):
    return lambda x_t, t: (x_t.flatten(1) @ K.T).reshape(x_t.shape)


def test_a_curved_log_weight_of_clean_images_pulls_too_far():
    # taken at the mean, a bell of variance q pulls by s2 / q where s2 / (s2 + q) is right
    t, prior, c, q = times(COSINE), gaussian_oracle(M, V, COSINE), 0.5, 0.2
    x_t = randn(5, 1, 2, 2)
    mu, s2 = prior(x_t, t), spread(V, t, COSINE, x_t)
    bell = energy_guidance(prior, lambda x, t: -((x - c) ** 2 / (2 * q)).flatten(1).sum(1), COSINE)
    assert_close(bell(x_t, t), mu + s2 / q * (c - mu), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_steered_run_is_the_run_of_the_steered_data(sampler):
    # cosine leaves next to no signal at T, so that the reach is large there: 1 / sqrt(alpha_bar) > 1000
    prior, a = gaussian_oracle(M, V, COSINE), randn(1, 1, 2, 2, seed=5)
    steered = energy_guidance(prior, lambda x, t: (a * x).flatten(1).sum(1), COSINE)
    random = sampler not in (heun, dpm_solver_pp)
    ends = []
    for denoiser in (steered, gaussian_oracle(M + V * a, V, COSINE)):
        g = {"generator": torch.Generator().manual_seed(4)} if random else {}
        ends.append(last(sampler(denoiser, randn(3, 1, 2, 2), COSINE, **g)).x_t)
    assert_close(*ends, rtol=1e-8, atol=1e-8)


def test_asked_for_brightness_gaussian_data_get_brighter_by_half_their_variance():
    # brightness = mean((x + 1) / 2), so that its slope is 1 / 2n in each of n pixels
    steered = energy_guidance(gaussian_oracle(M, V, COSINE), lambda x, t: 8 * brightness(x), COSINE)
    x_t, t = randn(5, 1, 2, 2), times(COSINE)
    assert_close(steered(x_t, t), gaussian_oracle(M + V, V, COSINE)(x_t, t), rtol=1e-10, atol=1e-10)


def test_asked_for_a_slant_a_bar_leans_that_way():
    # no oracle here: a stroke whose place is not certain, drawn towards a slant of 0.3
    y, x = torch.meshgrid(*[torch.arange(16.0) - 7.5] * 2, indexing="ij")
    bar = 2 * (2.5 - x.abs()).clamp(0, 1) * (6 - y.abs()).clamp(0, 1) - 1
    prior = gaussian_oracle(bar[None, None], 0.05, COSINE)
    steered = energy_guidance(prior, lambda x, t: -300 * (slant(x) - 0.3) ** 2, COSINE)
    x_T = randn(4, 1, 16, 16, dtype=torch.float32)
    free, leaning = (slant(last(ddim(d, x_T, COSINE)).x_t) for d in (prior, steered))
    assert (free.abs() < 0.15).all() and (leaning > 0.15).all() and (leaning < 0.4).all()


# Classifiers


CLASSES = [(-0.6, 0.05), (0.5, 0.2)]  # mean and variance of each pixel in each of two classes
PRIOR = [0.3, 0.7]


class Mixture:
    """Data of two Gaussian classes: the exact denoisers, and the exact classifier of noisy images."""

    def __init__(self, schedule):
        self.schedule = schedule
        self.of_class = [gaussian_oracle(m, v, schedule) for m, v in CLASSES]

    def classifier(self, x_t, t):
        abar = self.schedule.at(self.schedule.alpha_bar, t, x_t)
        logs = []
        for p, (m, v) in zip(PRIOR, CLASSES):
            var = abar * v + 1 - abar
            log = -((x_t - abar.sqrt() * m) ** 2 / var + var.log()) / 2
            logs.append(math.log(p) + log.flatten(1).sum(1))
        return torch.stack(logs, 1)

    def denoiser(self, x_t, t):
        shares = self.classifier(x_t, t).softmax(1)[..., None, None, None]
        return sum(shares[:, k] * self.of_class[k](x_t, t) for k in range(2))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"T={s.T}")
def test_a_mixture_steered_by_its_exact_classifier_is_the_class(schedule):
    mixture, t = Mixture(schedule), times(schedule).repeat_interleave(4)
    y = torch.tensor([0, 1] * 10)
    x_t = q_sample(uniform(20, 1, 2, 2) - 0.5, t, randn(20, 1, 2, 2, seed=3), schedule)
    guided = classifier_guidance(mixture.denoiser, mixture.classifier, y, schedule, noisy=True)(x_t, t)
    expected = torch.where(y[:, None, None, None] == 0, *(d(x_t, t) for d in mixture.of_class))
    assert_close(guided, expected, rtol=1e-8, atol=1e-8)
    assert (mixture.denoiser(x_t, t) - expected).abs().max() > 0.1  # which the mixture is not


@pytest.mark.parametrize("label", [0, 1])
def test_sampling_with_the_exact_classifier_lands_on_the_class(label):
    mixture, x_T, (m, v) = Mixture(COSINE), randn(200, 1, 2, 2), CLASSES[label]
    y = torch.full((200,), label)
    guided = classifier_guidance(mixture.denoiser, mixture.classifier, y, COSINE, noisy=True)
    got = last(ddim(guided, x_T, COSINE)).x_t
    assert_close(got, last(ddim(mixture.of_class[label], x_T, COSINE)).x_t, rtol=1e-6, atol=1e-6)
    error = math.sqrt(v / got.numel())  # of the mean: 800 pixels
    assert float(got.mean()) == pytest.approx(m, abs=4 * error)
    free = last(ddim(mixture.denoiser, x_T, COSINE)).x_t  # and without it, on both
    landed = mixture.classifier(free, torch.ones(200, dtype=torch.long)).argmax(1)
    assert 0.2 < float((landed == 0).double().mean()) < 0.4


def test_each_image_goes_to_its_own_class():
    mixture, y = Mixture(COSINE), torch.tensor([0, 1, 1, 0])
    guided = classifier_guidance(mixture.denoiser, mixture.classifier, y, COSINE, noisy=True)
    x_0 = last(ddim(guided, randn(4, 1, 4, 4), COSINE)).x_t
    assert mixture.classifier(x_0, torch.ones(4, dtype=torch.long)).argmax(1).tolist() == y.tolist()


def clean_classifier(x):
    """Three classes by the mean of the image's left half, its right half and neither."""
    half = x.shape[-1] // 2
    left, right = x[..., :half].flatten(1).mean(1), x[..., half:].flatten(1).mean(1)
    return 4 * torch.stack([left - right, right - left, 0 * left], 1)


def test_a_clean_classifier_s_log_probability_rises_with_the_scale():
    y, x_T, believed = torch.tensor([0, 1, 0, 1]), randn(4, 1, 4, 4), gaussian_oracle(0.0, 0.2, COSINE)
    found = []
    for scale in (0.0, 1.0, 4.0, 16.0):
        guided = classifier_guidance(believed, clean_classifier, y, COSINE, scale)
        x_0 = last(ddim(guided, x_T, COSINE)).x_t
        found.append(clean_classifier(x_0).log_softmax(1)[torch.arange(4), y])
    assert all((b > a).all() for a, b in zip(found, found[1:]))
    assert (found[-1] > math.log(0.9)).all() and (found[0] < math.log(0.9)).all()


def test_a_clean_classifier_s_log_probability_rises_in_one_step_at_every_t():
    # along the gradient, however little: J J^T is never negative
    t, y = torch.tensor([1, 10, 30, 50]), torch.tensor([0, 1, 0, 1])
    x_t = randn(4, 1, 4, 4)
    before, after = (
        clean_classifier(classifier_guidance(network, clean_classifier, y, COSINE, scale)(x_t, t))
        .log_softmax(1)
        .gather(1, y[:, None])
        for scale in (0.0, 1e-6)
    )
    assert (after > before).all()


def test_guidance_by_a_classifier_is_guidance_by_the_log_probability_of_the_label():
    t, y, x_t = torch.tensor([1, 30, 50]), torch.tensor([2, 0, 1]), randn(3, 1, 4, 4)

    def log_probability(x, t):
        return clean_classifier(x).log_softmax(1)[torch.arange(3), y]

    for scale in (0.7, 3.0):
        expected = energy_guidance(network, log_probability, COSINE, scale)(x_t, t)
        got = classifier_guidance(network, clean_classifier, y, COSINE, scale)(x_t, t)
        assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noisy", [False, True])
def test_a_classifier_sees_what_it_was_trained_on(noisy):
    # clean: x_0_hat and nothing else; noisy: x_t and t
    x_t, t, seen = randn(2, 1, 4, 4), torch.tensor([3, 40]), []

    def classifier(*seen_now):
        seen.extend(seen_now)
        return clean_classifier(seen_now[0])

    classifier_guidance(network, classifier, torch.tensor([0, 1]), COSINE, noisy=noisy)(x_t, t)
    expected = [x_t, t] if noisy else [network(x_t, t)]
    assert len(seen) == len(expected) and all(torch.equal(a, b) for a, b in zip(seen, expected))


@pytest.mark.parametrize("noisy", [False, True])
def test_the_denoiser_keeps_a_way_back_only_where_it_is_gone(noisy):
    kept = []

    def watched(x_t, t):
        kept.append(torch.is_grad_enabled())
        return network(x_t, t)

    energy_guidance(watched, pull, COSINE, noisy=noisy)(randn(2, 1, 4, 4), torch.tensor([3, 40]))
    assert kept == [not noisy]


@pytest.mark.parametrize("noisy", [False, True])
def test_an_energy_is_told_the_time_either_way(noisy):
    x_t, t, seen = randn(2, 1, 4, 4), torch.tensor([3, 40]), []

    def log_weight(*seen_now):
        seen.extend(seen_now)
        return pull(*seen_now)

    energy_guidance(network, log_weight, COSINE, noisy=noisy)(x_t, t)
    assert torch.equal(seen[0], x_t if noisy else network(x_t, t)) and torch.equal(seen[1], t)


# Contracts


@pytest.mark.parametrize("noisy", [False, True])
def test_the_shift_is_the_gradient_by_finite_differences(noisy):
    x_t, t, scale = randn(3, 1, 2, 2), torch.tensor([3, 20, 40]), 1.7

    def energy(x_t):
        return pull(x_t if noisy else network(x_t, t), t)

    slope = torch.zeros_like(x_t)
    for k in range(4):
        step = torch.zeros_like(x_t)
        step.view(3, 4)[:, k] = 1e-5
        slope.view(3, 4)[:, k] = (energy(x_t + step) - energy(x_t - step)) / 2e-5
    abar = COSINE.at(COSINE.alpha_bar, t, x_t)
    expected = network(x_t, t) + scale * (1 - abar) / abar.sqrt() * slope
    steered = energy_guidance(network, pull, COSINE, scale, noisy)(x_t, t)
    assert_close(steered, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("noisy", [False, True])
def test_scale_0_is_the_denoiser(noisy):
    x_t, t = randn(3, 1, 4, 4), torch.tensor([1, 20, 50])
    assert torch.equal(energy_guidance(network, pull, COSINE, 0.0, noisy)(x_t, t), network(x_t, t))
    by_class = partial(classifier_guidance, y=torch.tensor([0, 1, 2]), schedule=COSINE, scale=0.0)
    assert torch.equal(by_class(network, clean_classifier)(x_t, t), network(x_t, t))


def test_the_scale_is_one_unless_told_and_the_weight_that_of_clean_images():
    x_t, t, y = randn(2, 1, 4, 4), torch.tensor([3, 40]), torch.tensor([0, 1])
    told = energy_guidance(network, pull, COSINE, scale=1.0, noisy=False)(x_t, t)
    assert torch.equal(energy_guidance(network, pull, COSINE)(x_t, t), told)
    told = classifier_guidance(network, clean_classifier, y, COSINE, scale=1.0, noisy=False)(x_t, t)
    assert torch.equal(classifier_guidance(network, clean_classifier, y, COSINE)(x_t, t), told)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("name", ["flow", "linear-zero-snr"])
def test_where_x_T_is_noise_alone_nothing_is_steered_and_all_is_finite(name, noisy, dtype):
    schedule = Schedule.named(name, 50)
    assert schedule.alpha_bar[-1] == 0
    x_t, t = randn(3, 1, 4, 4, dtype=dtype), torch.tensor([50, 30, 50])
    steered = energy_guidance(network, lambda x, t: 1e6 * pull(x, t), schedule, 10.0, noisy)(x_t, t)
    assert steered.isfinite().all() and steered.dtype == dtype
    assert torch.equal(steered[[0, 2]], network(x_t, t)[[0, 2]])
    assert (steered[1] - network(x_t, t)[1]).abs().max() > 1
    assert (
        last(ddim(clip_x_0(energy_guidance(network, pull, schedule, noisy=noisy)), x_t, schedule)).x_t.isfinite().all()
    )


@pytest.mark.parametrize("noisy", [False, True])
def test_nothing_is_steered_where_nothing_is_noisy(noisy):
    # t = 0: x_0_hat is the image itself, and a gradient has no reach
    x_t, t = randn(2, 1, 4, 4), torch.tensor([0, 0])
    steered = energy_guidance(lambda x_t, t: x_t, pull, COSINE, 100.0, noisy)
    assert torch.equal(steered(x_t, t), x_t)


@pytest.mark.parametrize("noisy", [False, True])
def test_images_of_a_batch_do_not_mix(noisy):
    x_t, t, y = randn(3, 1, 4, 4), torch.tensor([1, 20, 50]), torch.tensor([2, 0, 1])

    def classifier(x, t=None):
        return clean_classifier(x)

    together = energy_guidance(network, pull, COSINE, 2.0, noisy)(x_t, t)
    by_class = classifier_guidance(network, classifier, y, COSINE, 2.0, noisy)(x_t, t)
    for k in range(3):
        one = slice(k, k + 1)
        alone = energy_guidance(network, pull, COSINE, 2.0, noisy)(x_t[one], t[one])
        assert_close(together[one], alone, rtol=1e-12, atol=1e-12)
        alone = classifier_guidance(network, classifier, y[one], COSINE, 2.0, noisy)(x_t[one], t[one])
        assert_close(by_class[one], alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_gradients_are_taken_where_a_sampler_has_turned_them_off(sampler, noisy):
    model = nn.Conv2d(1, 1, 3, padding=1).double()
    judge = nn.Linear(16, 3).double()
    denoiser = make_denoiser(lambda x_t, t: model(x_t), COSINE, "v")
    guided = classifier_guidance(
        denoiser, lambda x, t=None: judge(x.flatten(1)), torch.tensor([0, 2]), COSINE, 3.0, noisy
    )
    x_T = randn(2, 1, 4, 4)
    steps = list(sampler(guided, x_T, COSINE, COSINE.grid(3)))
    free = list(sampler(denoiser, x_T, COSINE, COSINE.grid(3)))
    assert not torch.equal(steps[0].x_0_hat, free[0].x_0_hat)
    assert not any(step.x_t.requires_grad or step.x_0_hat.requires_grad for step in steps)
    assert torch.is_grad_enabled() and not x_T.requires_grad
    assert all(p.grad is None for p in [*model.parameters(), *judge.parameters()])
    assert all(p.requires_grad for p in [*model.parameters(), *judge.parameters()])


@pytest.mark.parametrize("noisy", [False, True])
def test_steering_leaves_no_graph_and_does_not_switch_gradients(noisy):
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    steered = energy_guidance(lambda x_t, t: weight * x_t.sin(), pull, COSINE, noisy=noisy)
    x_t, t = randn(2, 1, 4, 4), torch.tensor([3, 40])
    assert not steered(x_t, t).requires_grad and torch.is_grad_enabled()
    with torch.no_grad():
        assert not steered(x_t, t).requires_grad and not torch.is_grad_enabled()
    assert weight.grad is None


@pytest.mark.parametrize("noisy", [False, True])
def test_steering_writes_over_nothing(noisy):
    # trap 30
    x_t, t, y, believed = (randn(2, 1, 4, 4), torch.tensor([3, 40]), torch.tensor([0, 1]), randn(2, 1, 4, 4, seed=1))
    before = [a.clone() for a in (x_t, t, y, believed)]

    def denoiser(x_t, t):
        return believed + 0 * x_t if not noisy else believed

    classifier_guidance(denoiser, lambda x, t=None: clean_classifier(x), y, COSINE, 3.0, noisy)(x_t, t).add_(1)
    assert all(torch.equal(a, b) for a, b in zip((x_t, t, y, believed), before))


@pytest.mark.parametrize("noisy", [False, True])
def test_steering_never_looks_at_values_on_a_device(noisy):
    # trap 31: meta tensors have no values, so that a look (a stall on a GPU) raises; labels come from the CPU
    x_t, t = torch.zeros(2, 1, 4, 4, device="meta"), torch.zeros(2, dtype=torch.long, device="meta")

    def classifier(x, t=None):
        return clean_classifier(x)

    assert energy_guidance(lambda x_t, t: x_t.sin(), pull, COSINE, noisy=noisy)(x_t, t).device.type == "meta"
    for y in (torch.tensor([0, 1], device="meta"), torch.tensor([0, 1])):
        guided = classifier_guidance(lambda x_t, t: x_t.sin(), classifier, y, COSINE, noisy=noisy)
        assert guided(x_t, t).device.type == "meta"


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("outer", [False, True])
def test_two_energies_one_around_the_other_add_up(inner, outer):
    # guidance is a function from denoiser to denoiser: what is steered can be steered again
    x_t, t, prior = randn(5, 1, 2, 2), times(COSINE), gaussian_oracle(M, V, COSINE)

    def linear(a, noisy):
        return lambda x, t: (a * (prior(x, t) if noisy else x)).flatten(1).sum(1)

    a, b = randn(1, 1, 2, 2, seed=5), randn(1, 1, 2, 2, seed=6)
    once = energy_guidance(prior, linear(a, inner), COSINE, noisy=inner)
    twice = energy_guidance(once, linear(b, outer), COSINE, noisy=outer)
    posterior = gaussian_oracle(M + V * (a + b), V, COSINE)
    with torch.no_grad():
        assert_close(twice(x_t, t), posterior(x_t, t), rtol=1e-9, atol=1e-9)


def test_an_energy_steers_what_classifier_free_guidance_believes():
    x_t, t = randn(5, 1, 2, 2), times(COSINE)
    believed = classifier_free_guidance(gaussian_oracle(0.5, V, COSINE), gaussian_oracle(0.1, V, COSINE), 2.5)
    steered = energy_guidance(believed, lambda x, t: 3 * x.flatten(1).sum(1), COSINE)
    expected = gaussian_oracle(1.1 + 3 * V, V, COSINE)(x_t, t)
    assert_close(steered(x_t, t), expected, rtol=1e-10, atol=1e-10)


# What is refused, and in which words


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(
    "reduce, told",
    [
        (lambda x: x.sum(), r"\(\)"),
        (lambda x: x.flatten(1).sum(1, keepdim=True), r"\(2, 1\)"),
        (lambda x: x, r"\(2, 1, 4, 4\)"),
        (lambda x: x.flatten(1).sum(1)[:1], r"\(1,\)"),
    ],
)
def test_log_weights_that_are_not_one_an_image_are_refused(reduce, told, noisy):
    # one for all would steer as well, and its sum would be right: but a mean would depend on the batch
    steered = energy_guidance(network, lambda x, t: reduce(x), COSINE, noisy=noisy)
    words = rf"one number an image, \(2,\), got {told}: sum or average over the pixels only"
    with pytest.raises(ValueError, match=words):
        steered(randn(2, 1, 4, 4), torch.tensor([3, 40]))


class Judge(nn.Module):
    """Stands for a classifier that knows the size of its images."""

    image_size = 8

    def forward(self, x, t=None):
        return clean_classifier(x)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize("h, w", [(4, 4), (16, 16), (8, 16), (16, 8)])
def test_a_classifier_of_images_of_another_size_is_refused(h, w, noisy):
    # a convolutional one would read them without a word, and badly
    y, t = torch.tensor([0, 1]), torch.tensor([3, 40])
    guided = classifier_guidance(network, Judge(), y, COSINE, noisy=noisy)
    words = rf"reads images of 8x8, the denoiser sees {h}x{w}: bring one to .*tinyddpm\.data\.pad_to"
    with pytest.raises(ValueError, match=words):
        guided(randn(2, 1, h, w), t)
    assert guided(randn(2, 1, 8, 8), t).shape == (2, 1, 8, 8)


def test_the_digit_classifier_states_its_size():
    y, t = torch.tensor([0, 1]), torch.tensor([3, 40])
    guided = classifier_guidance(network, DigitClassifier(dims=(4, 4)).eval(), y, COSINE)
    with pytest.raises(ValueError, match="reads images of 32x32, the denoiser sees 28x28"):
        guided(randn(2, 1, 28, 28, dtype=torch.float32), t)
    assert guided(randn(2, 1, 32, 32, dtype=torch.float32), t).shape == (2, 1, 32, 32)


def test_a_classifier_that_states_no_size_reads_any():
    y, t = torch.tensor([0, 1]), torch.tensor([3, 40])
    for size in (4, 8, 10):
        classifier_guidance(network, clean_classifier, y, COSINE)(randn(2, 1, size, size), t)


@pytest.mark.parametrize("noisy", [False, True])
@pytest.mark.parametrize(
    "shaped, told",
    [
        (lambda logits: logits[:, 0], r"\(2,\)"),
        (lambda logits: logits[..., None], r"\(2, 3, 1\)"),
        (lambda logits: logits[:1], r"\(1, 3\)"),
        (lambda logits: logits.sum(), r"\(\)"),
    ],
)
def test_logits_of_another_shape_are_refused(shaped, told, noisy):
    def classifier(x, t=None):
        return shaped(clean_classifier(x))

    guided = classifier_guidance(network, classifier, torch.tensor([0, 1]), COSINE, noisy=noisy)
    words = rf"2 labels need logits \(2, classes\), got {told} for images \(2, 1, 4, 4\)"
    with pytest.raises(ValueError, match=words):
        guided(randn(2, 1, 4, 4), torch.tensor([3, 40]))


@pytest.mark.parametrize("n", [1, 3])
def test_labels_of_another_number_than_the_images_are_refused(n):
    guided = classifier_guidance(network, clean_classifier, torch.zeros(n, dtype=torch.long), COSINE)
    with pytest.raises(ValueError, match=rf"{n} labels need logits \({n}, classes\), got \(2, 3\)"):
        guided(randn(2, 1, 4, 4), torch.tensor([3, 40]))


@pytest.mark.parametrize("y", [[0, 3], [-1, 2], [10, 10]])
def test_labels_that_the_classifier_does_not_have_are_refused(y):
    guided = classifier_guidance(network, clean_classifier, torch.tensor(y), COSINE)
    with pytest.raises(ValueError, match=rf"classifier has labels 0\.\.2, got {min(y)}\.\.{max(y)}"):
        guided(randn(2, 1, 4, 4), torch.tensor([3, 40]))


def test_a_log_weight_without_a_gradient_is_refused():
    # a constant, an argmax, or a denoiser that runs under no_grad: torch would speak of a grad_fn
    x_t, t = randn(2, 1, 4, 4), torch.tensor([3, 40])
    for denoiser, log_weight in (
        (network, lambda x, t: torch.zeros(2, dtype=torch.float64)),
        (network, lambda x, t: x.flatten(1).argmax(1).double()),
        (torch.no_grad()(network), pull),
    ):
        with pytest.raises(ValueError, match="gradient"):
            energy_guidance(denoiser, log_weight, COSINE)(x_t, t)


def test_a_denoiser_without_a_gradient_is_named_also_beside_a_judge_with_weights():
    # the judge's own weights have gradients, and so has what it says
    judge = torch.nn.Linear(16, 1).double()
    guided = energy_guidance(torch.no_grad()(network), lambda x, t: judge(x.flatten(1))[:, 0], COSINE)
    with pytest.raises(ValueError, match="the denoiser must not run under no_grad"):
        guided(randn(2, 1, 4, 4), torch.tensor([3, 40]))


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_no_finite_number_is_refused(scale):
    with pytest.raises(ValueError, match="one finite number"):
        energy_guidance(network, pull, COSINE, scale)


@pytest.mark.parametrize("y", [[0.5, 1.0], [], [[0, 1]]])
def test_labels_that_are_not_one_integer_an_image_are_refused(y):
    with pytest.raises(ValueError, match="labels are one integer an image"):
        classifier_guidance(network, clean_classifier, torch.tensor(y), COSINE)
