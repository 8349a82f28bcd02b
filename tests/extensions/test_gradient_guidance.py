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
from tinyddpm.editing.handwriting import brightness, slant
from tinyddpm.extensions.gradient_guidance import blend, classifier_guidance, energy_guidance
from tinyddpm.extensions.score_sde import euler_maruyama, predictor_corrector
from tinyddpm.guidance import classifier_free_guidance, clip_x_0
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.samplers import ddim, dpm_solver_pp, heun, last, p_sample_loop
from tinyddpm.schedules import Schedule

COSINE = Schedule.named("cosine", 50)
GRID = COSINE.grid(20)
SCHEDULES = [COSINE, Schedule.named("linear", 100), Schedule.named("flow", 50)]
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
    ends = []
    for denoiser in (steered, gaussian_oracle(M + V * a, V, COSINE)):
        generator = torch.Generator().manual_seed(4)
        ends.append(last(sampler(denoiser, randn(3, 1, 2, 2), COSINE, generator=generator)).x_t)
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
    got = last(ddim(guided, x_T, COSINE, GRID)).x_t
    assert_close(got, last(ddim(mixture.of_class[label], x_T, COSINE, GRID)).x_t, rtol=1e-6, atol=1e-6)
    error = math.sqrt(v / got.numel())  # of the mean: 800 pixels
    assert float(got.mean()) == pytest.approx(m, abs=4 * error)
    free = last(ddim(mixture.denoiser, x_T, COSINE, GRID)).x_t  # and without it, on both
    landed = mixture.classifier(free, torch.ones(200, dtype=torch.long)).argmax(1)
    assert 0.2 < float((landed == 0).double().mean()) < 0.4


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
        x_0 = last(ddim(guided, x_T, COSINE, GRID)).x_t
        found.append(clean_classifier(x_0).log_softmax(1)[torch.arange(4), y])
    assert all((b > a).all() for a, b in zip(found, found[1:]))
    assert (found[-1] > math.log(0.9)).all() and (found[0] < math.log(0.9)).all()


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
def test_steering_writes_over_nothing(noisy):
    # trap 30
    x_t, t, y, believed = (randn(2, 1, 4, 4), torch.tensor([3, 40]), torch.tensor([0, 1]), randn(2, 1, 4, 4, seed=1))
    before = [a.clone() for a in (x_t, t, y, believed)]

    def denoiser(x_t, t):
        return believed + 0 * x_t if not noisy else believed

    classifier_guidance(denoiser, lambda x, t=None: clean_classifier(x), y, COSINE, 3.0, noisy)(x_t, t).add_(1)
    assert all(torch.equal(a, b) for a, b in zip((x_t, t, y, believed), before))


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


@pytest.mark.parametrize(
    "log_weight, found",
    [
        (lambda x: x.sum(), r"\(\) with requires_grad=True"),
        (lambda x: x.flatten(1).sum(1, keepdim=True), r"\(2, 1\) with requires_grad=True"),
        (lambda x: x.flatten(1).sum(1)[:1], r"\(1,\) with requires_grad=True"),
        (lambda x: torch.zeros(2), r"\(2,\) with requires_grad=False"),
        (lambda x: x.flatten(1).argmax(1).double(), r"\(2,\) with requires_grad=False"),
    ],
)
def test_log_weights_that_are_not_one_differentiable_number_for_each_image_are_refused(log_weight, found):
    # one for the whole batch, such as a mean, would depend on the batch
    guided = energy_guidance(network, lambda x, t: log_weight(x), COSINE)
    with pytest.raises(
        ValueError, match=rf"log_weight gives 2 images one number each, differentiable in x, got {found}"
    ):
        guided(randn(2, 1, 4, 4), torch.tensor([3, 40]))


class Judge(nn.Module):
    """Stands for a classifier that knows the size of its images."""

    image_size = 8

    def forward(self, x, t=None):
        return clean_classifier(x)


@pytest.mark.parametrize("h, w", [(4, 4), (8, 16)])
def test_a_classifier_of_images_of_another_size_is_refused(h, w):
    # a convolutional one would accept them, and misread them
    y, t = torch.tensor([0, 1]), torch.tensor([3, 40])
    guided = classifier_guidance(network, Judge(), y, COSINE)
    with pytest.raises(ValueError, match=rf"takes images of 8x8, the denoiser returns {h}x{w}: pad or crop"):
        guided(randn(2, 1, h, w), t)
    assert guided(randn(2, 1, 8, 8), t).shape == (2, 1, 8, 8)


@pytest.mark.parametrize(("y", "error"), [([0], "batch_size"), ([0, 1, 2], "batch_size"), ([0, 3], "out of bounds")])
def test_labels_that_do_not_fit_images_or_classifier_are_refused(y, error):
    guided = classifier_guidance(network, clean_classifier, torch.tensor(y), COSINE)
    with pytest.raises((ValueError, IndexError), match=error):
        guided(randn(2, 1, 4, 4), torch.tensor([3, 40]))


@pytest.mark.parametrize("y", [[-1, 2], [0, -100], [0.5, 1.0], [[0, 1]], 1])
def test_labels_that_are_not_integers_from_0_are_refused_at_once(y):
    # cross_entropy would ignore -100 in silence, and takes rows of floats for probabilities
    with pytest.raises(ValueError, match=r"labels are integers from 0, one for each image, got"):
        classifier_guidance(network, clean_classifier, torch.tensor(y), COSINE)


@pytest.mark.parametrize("b", [1, 3])
def test_weights_of_another_number_than_the_images_are_refused_by_blend(b):
    mixed = blend(network, pull, torch.tensor([0.2, 0.7]))
    with pytest.raises(RuntimeError, match="expanded size"):
        mixed(randn(b, 1, 4, 4), torch.full((b,), 3))


def test_a_scale_that_is_not_finite_is_refused_at_once():
    with pytest.raises(ValueError, match="scale is a finite number"):
        energy_guidance(network, pull, COSINE, float("nan"))
