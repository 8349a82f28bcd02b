"""Learned variance against the one that is known: on data N(m, v) the best denoiser errs by Var[x_0 | x_t],
v (1 - alpha_bar_t) / (alpha_bar_t v + 1 - alpha_bar_t), and the best variance of a step the posterior's plus
weight^2 times that, with the weight that x_0 has in the posterior's mean.

Quadratic means over N(m, v) are those over the four images x_0 = m +- sqrt(v), eps = +-1: no sampling error.
"""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tinyddpm.diffusion import diffusion_loss, eps_from_x_0, q_posterior, v_from
from tinyddpm.extensions.learned_variance import (
    LearnedVariance,
    LearnedVarianceLoss,
    hybrid_loss,
    learned_variance,
    step_bits,
)
from tinyddpm.extensions.likelihood import bits_per_dim, step_nats
from tinyddpm.guidance import clip_x_0
from tinyddpm.nn import UNet
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.pipeline import DDPM
from tinyddpm.samplers import last, noise_like, p_sample_loop
from tinyddpm.schedules import Schedule
from tinyddpm.training import train_steps

COSINE = Schedule.named("cosine", 10)
PURE_NOISE = Schedule.named("flow", 10)  # x_T is noise alone


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def column(values):
    return torch.as_tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def formulas(t, s, schedule):
    """(small, large, weight) of a step: the two variances, and the weight of x_0 in the posterior's mean."""
    abar_t, abar_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    a = abar_t / abar_s
    return (1 - abar_s) / (1 - abar_t) * (1 - a), 1 - a, abar_s**0.5 * (1 - a) / (1 - abar_t)


def error(t, v, schedule):
    abar = float(schedule.alpha_bar[t])
    return v * (1 - abar) / (abar * v + 1 - abar)


def best(t, s, v, schedule):
    small, _, weight = formulas(t, s, schedule)
    return small + weight**2 * error(t, v, schedule)


def ends(t, s, schedule):
    """The variances at nu = -1 and 1. To s = 0 the first is that of the step from 2 to 1."""
    small, large = schedule.posterior_variance(t, s)
    return (small if s > 0 else schedule.posterior_variance(2, 1)[0]), large


def nu_for(variance, t, s, schedule):
    """The nu whose learned variance this is: it is linear in logs."""
    small, large = (math.log(end) for end in ends(t, s, schedule))
    return 2 * (math.log(variance) - small) / (large - small) - 1


def table_model(denoiser, nu, schedule, predicts="x_0"):
    """Stands for a network: a denoiser's x_0_hat in the given form, beside nu[t]."""

    def model(x_t, t, y=None):
        x_0_hat = denoiser(x_t, t)
        eps = eps_from_x_0(x_0_hat, x_t, t, schedule)
        out = {"x_0": x_0_hat, "eps": eps, "v": v_from(x_0_hat, eps, t, schedule)}[predicts]
        return torch.cat([out, nu[t].reshape(-1, 1, 1, 1).expand_as(out)], dim=1)

    return model


def four_images(m, v, schedule):
    """(x_0, t, eps): all four corners of N(m, v) at each t in 1..T."""
    corners = torch.cartesian_prod(torch.tensor([-1.0, 1.0]), torch.tensor([-1.0, 1.0])).double()
    x_0, eps = (corners.repeat(schedule.T, 1)[:, i] for i in (0, 1))
    return column(m + v**0.5 * x_0), torch.arange(1, schedule.T + 1).repeat_interleave(4), column(eps)


def learned_table(denoiser, x_0, t, eps, schedule, predicts="x_0"):
    """nu[t] where hybrid_loss is least, by halving the interval in which its slope changes sign."""
    low, high = torch.full((2, schedule.T + 1), 60.0, dtype=torch.float64) * torch.tensor([[-1.0], [1.0]])
    for _ in range(60):
        nu = ((low + high) / 2).requires_grad_()
        model = table_model(denoiser, nu, schedule, predicts)
        (slope,) = torch.autograd.grad(hybrid_loss(model, x_0, t, eps, schedule, predicts=predicts).mean(), nu)
        low, high = torch.where(slope < 0, nu, low).detach(), torch.where(slope < 0, high, nu).detach()
    return (low + high) / 2


def variance_of(nu, t):
    """The learned variance of the step from t to t - 1."""
    return learned_variance(column([nu]), *ends(t, t - 1, COSINE))


# The range that nu goes through


@pytest.mark.parametrize("schedule", [COSINE, PURE_NOISE, Schedule.named("linear", 1000)])
def test_nu_goes_from_the_posterior_s_variance_to_beta_s_evenly_in_logs(schedule):
    T = schedule.T
    for t, s in [(2, 1), (T, T - 1), (T, 1), (T // 2, T // 3)]:
        small, large, _ = formulas(t, s, schedule)
        got = learned_variance(column([-1, 1, 0, 0.5, 3]), *schedule.posterior_variance(t, s)).flatten()
        middle = math.sqrt(small * large)
        assert got.tolist() == pytest.approx([small, large, middle, large**0.75 * small**0.25, large**2 / small])
        assert small == pytest.approx(q_posterior(column([0]), column([0]), t, s, schedule)[1])


@pytest.mark.parametrize("name", ["linear", "cosine", "flow"])
def test_float32_is_enough_for_steps_as_short_as_they_come(name):
    # 1 - alpha_bar_t / alpha_bar_s is a difference of nearly equal numbers
    schedule, t = Schedule.named(name, 4000), torch.arange(1, 4001)
    x_0, eps = (randn(4000, 1, 1, 1, seed=seed).clamp(-1, 1) for seed in (0, 1))
    loss = partial(hybrid_loss, lambda x_t, *_: torch.cat([x_t, x_t], dim=1), schedule=schedule, predicts="v", t=t)
    exact, got = loss(x_0=x_0, eps=eps), loss(x_0=x_0.float(), eps=eps.float())
    assert got.dtype == torch.float32
    assert_close(got.double(), exact, rtol=1e-3, atol=1e-4)


# What is learned


@pytest.mark.parametrize("predicts", ["x_0", "eps", "v"])
@pytest.mark.parametrize("m, v", [(0.0, 0.04), (0.4, 0.25), (0.0, 0.98)])
def test_the_loss_is_least_at_the_best_variance_there_is(m, v, predicts):
    images = four_images(m, v, COSINE)
    nu = learned_table(gaussian_oracle(m, v, COSINE), *images, COSINE, predicts)
    for t in range(1, 11):
        got = float(variance_of(nu[t], t))
        # at t = 1 the bins have a width, small beside the Gaussian's
        assert got == pytest.approx(best(t, t - 1, v, COSINE), rel=1e-9 if t > 1 else 1e-3)
        if t > 1:  # data in [-1, 1] have a variance of at most 1, which needs no nu outside
            assert -1 < nu[t] < 1


def test_a_wrong_mean_is_paid_for_with_variance_even_beyond_the_range():
    # small + weight^2 times the mean square of the error, whatever it comes from
    shift, v = 0.8, 0.04
    oracle = gaussian_oracle(0.0, v, COSINE)
    images = four_images(0.0, v, COSINE)
    nu = learned_table(lambda x_t, t: oracle(x_t, t) + shift, *images, COSINE)
    for t in range(2, 11):
        small, large, weight = formulas(t, t - 1, COSINE)
        wanted = small + weight**2 * (error(t, v, COSINE) + shift**2)
        assert float(variance_of(nu[t], t)) == pytest.approx(wanted, rel=1e-9)
        assert (nu[t] > 1) == (wanted > large)
    assert (nu[2:] > 1).any()


# What it is worth


def variances_of_a_run(denoiser, variance, v, schedule, grid, monkeypatch):
    """(t, variance of x_t) down a run on N(0, v): in image k draw k is 1 and all others 0, x_T the first."""
    n, drawn = len(grid), []

    def one_of_them(x, generator=None):
        drawn.append(None)
        return column([k == len(drawn) for k in range(n)])

    monkeypatch.setattr("tinyddpm.samplers.noise_like", one_of_them)
    start = float(schedule.alpha_bar[-1]) * v + 1 - float(schedule.alpha_bar[-1])
    x_T = column([start**0.5] + [0] * (n - 1))
    steps = p_sample_loop(denoiser, x_T, schedule, grid, variance=variance)
    return [(step.t, float(step.x_t.square().sum())) for step in steps]


def off(variances, v, schedule):
    """The largest relative error of the variance on the way."""
    abar = schedule.alpha_bar.tolist()
    return max(abs(var / (abar[t] * v + 1 - abar[t]) - 1) for t, var in variances if t > 0)


@pytest.mark.parametrize("v", [0.04, 0.25, 0.98])
@pytest.mark.parametrize("schedule", [COSINE, PURE_NOISE])
def test_in_a_few_steps_learned_variance_keeps_the_data_s_where_the_others_lose_it(schedule, v, monkeypatch):
    oracle, grid = gaussian_oracle(0.0, v, schedule), schedule.grid()
    nu = learned_table(oracle, *four_images(0.0, v, schedule), schedule)
    d = LearnedVariance(table_model(oracle, nu, schedule), schedule, "x_0")
    assert off(variances_of_a_run(d, d.variance, v, schedule, grid, monkeypatch), v, schedule) < 1e-8
    assert off(variances_of_a_run(oracle, "posterior", v, schedule, grid, monkeypatch), v, schedule) > 0.15
    if v < 0.5:
        assert off(variances_of_a_run(oracle, "beta", v, schedule, grid, monkeypatch), v, schedule) > 0.1


@pytest.mark.parametrize("v", [0.05, 0.25])
def test_what_was_learned_in_short_steps_is_nearly_right_in_long_ones(v, monkeypatch):
    # 25 of 1000: a mean of logs is less than the mean itself, which would be right
    schedule, grid = Schedule.named("linear", 1000), Schedule.named("linear", 1000).grid(25)
    nu = [0, 0] + [nu_for(best(t, t - 1, v, schedule), t, t - 1, schedule) for t in range(2, 1001)]
    oracle = gaussian_oracle(0.0, v, schedule)
    d = LearnedVariance(table_model(oracle, torch.tensor(nu).double(), schedule), schedule, "x_0")
    learned = variances_of_a_run(d, d.variance, v, schedule, grid, monkeypatch)
    posterior = variances_of_a_run(oracle, "posterior", v, schedule, grid, monkeypatch)
    assert off(learned, v, schedule) < 0.1 and off(posterior, v, schedule) > 0.28
    for (t, s), (_, after) in zip(grid[:-1], learned[1:]):
        small, large, _ = formulas(t, s, schedule)
        share = (nu[t] + 1) / 2
        assert (1 - share) * small + share * large == pytest.approx(best(t, s, v, schedule), rel=0.01)
        assert float(d(column([0]), torch.tensor([t])).sum()) == 0
        assert float(d.variance(t, s)) < best(t, s, v, schedule)
        assert after < float(schedule.alpha_bar[s]) * v + 1 - float(schedule.alpha_bar[s])


def test_a_nu_above_1_is_too_much_in_long_steps():
    # an error of four times the noise, such as that of a network that has barely begun
    schedule = Schedule.named("cosine-shifted", 1000)
    wrong = 4 * (1 - float(schedule.alpha_bar[200]))
    (small, _, weight), (long, large, far) = formulas(200, 199, schedule), formulas(200, 100, schedule)
    nu = nu_for(small + weight**2 * wrong, 200, 199, schedule)
    got, wanted = float(learned_variance(column([nu]), long, large)), long + far**2 * wrong
    assert nu > 5 and got > 8 * wanted > 8 * large


# The bound


@pytest.mark.parametrize("schedule", [COSINE, PURE_NOISE])
def test_a_term_of_the_bound_is_that_of_the_likelihood(schedule):
    x_0 = randn(10, 1, 4, 4).clamp(-1, 1)
    x_0_hat, t = x_0 + 0.3 * randn(10, 1, 4, 4, seed=1), torch.arange(1, 11)
    error = 0.02 * t.double()
    variance = column(
        [formulas(k, k - 1, schedule)[0] + formulas(k, k - 1, schedule)[2] ** 2 * 0.02 * k for k in range(1, 11)]
    )
    got = step_bits(x_0, x_0_hat, variance.expand_as(x_0), t, schedule)
    for k in range(1, 11):
        one = slice(k - 1, k)
        nats = step_nats(x_0[one], x_0_hat[one], k, k - 1, schedule, float(error[k - 1]))
        assert_close(got[one], nats / 16 / math.log(2), rtol=1e-10, atol=0)


def test_the_bound_in_the_loss_is_the_whole_one_in_bits_per_dimension():
    # T times the mean over all t of its terms, on the noise that bits_per_dim draws
    x_0, v = randn(1, 1, 4, 4).clamp(-1, 1), 0.1
    oracle, errors = gaussian_oracle(0.0, v, COSINE), [0] + [error(t, v, COSINE) for t in range(1, 11)]
    whole = bits_per_dim(oracle, x_0, COSINE, None, torch.tensor(errors).double(), seeded(3))
    abar = float(COSINE.alpha_bar[-1])
    prior = (abar * (x_0.square() - 1) - math.log(1 - abar)).flatten(1).sum(1) / 2  # KL(q(x_T | x_0) || N(0, 1))
    whole = whole - prior / 16 / math.log(2)
    nu = [0] + [nu_for(best(t, t - 1, v, COSINE), t, t - 1, COSINE) for t in range(1, 11)]
    model, g = table_model(oracle, torch.tensor(nu).double(), COSINE), seeded(3)
    t, eps = torch.arange(10, 0, -1), torch.cat([noise_like(x_0, g) for _ in range(10)])
    batch = x_0.expand(10, -1, -1, -1), t, eps, COSINE
    with_it, without = (hybrid_loss(model, *batch, predicts="x_0", vlb_weight=w).mean() for w in (2.0, 0.0))
    assert_close(with_it - without, 2 * whole[0])
    assert_close(hybrid_loss(model, *batch, predicts="x_0").mean() - without, 0.001 * whole[0])
    assert_close(without, diffusion_loss(oracle, *batch, predicts="x_0"))


@pytest.mark.parametrize("predicts", ["eps", "x_0", "v", "flow"])
def test_the_prediction_gets_no_gradient_from_the_bound(predicts):
    x_0, eps, t = randn(10, 2, 4, 4).clamp(-1, 1), randn(10, 2, 4, 4, seed=1), torch.arange(1, 11)
    out = randn(10, 4, 4, 4, seed=2).requires_grad_()

    def slopes(loss):
        return torch.autograd.grad(loss, out, allow_unused=True)[0].chunk(2, dim=1)

    bound = slopes(hybrid_loss(lambda *_: out, x_0, t, eps, COSINE, None, predicts, vlb_weight=1.0).mean())
    plain = slopes(diffusion_loss(lambda *_: out, x_0, t, eps, COSINE, predicts=predicts))
    assert torch.equal(bound[0], plain[0])
    assert (bound[1] != 0).all() and (plain[1] == 0).all()


@pytest.mark.parametrize("predicts", ["eps", "v"])
def test_gradients_are_finite_however_wrong_the_prediction(predicts):
    schedule = Schedule.named("cosine", 1000)
    x_0 = randn(1000, 1, 2, 2, dtype=torch.float32).clamp(-1, 1).round()  # -1, 0 and 1: both outer bins too
    eps, t = randn(1000, 1, 2, 2, dtype=torch.float32, seed=1), torch.arange(1, 1001)
    for size in (0.1, 30.0):
        out = size * randn(1000, 1, 2, 2, dtype=torch.float32, seed=2)
        nu = randn(1000, 1, 2, 2, dtype=torch.float32, seed=3).requires_grad_()
        both = torch.cat([out, nu], dim=1)
        loss = hybrid_loss(lambda *_, both=both: both, x_0, t, eps, schedule, predicts=predicts).mean()
        assert loss.isfinite() and torch.autograd.grad(loss, nu)[0].isfinite().all()


def test_images_of_a_batch_do_not_mix():
    x_0, x_0_hat, t = (randn(5, 1, 3, 3).clamp(-1, 1), randn(5, 1, 3, 3, seed=1), torch.tensor([1, 10, 4, 1, 7]))
    variance = 0.05 + randn(5, 1, 3, 3, seed=2).square()
    together = step_bits(x_0, x_0_hat, variance, t, COSINE)
    for k in range(5):
        one = slice(k, k + 1)
        assert_close(together[one], step_bits(x_0[one], x_0_hat[one], variance[one], t[one], COSINE))


# In the sampler


def noisy_nu(x, t, y=None):
    """Stands for a network: eps_hat, and a nu that depends on pixel and time."""
    eps_hat = (1.3 * x[:, :1] + 0.1 * t.reshape(-1, 1, 1, 1) / 50).sin()
    return torch.cat([eps_hat, (3 * x[:, :1] + t.reshape(-1, 1, 1, 1)).cos()], dim=1)


@pytest.mark.parametrize("nu, name", [(-1.0, "posterior"), (1.0, "beta")])
def test_at_its_ends_it_is_the_sampler_s_fixed_variance(nu, name):
    schedule, x_T = Schedule.named("cosine", 50), randn(2, 1, 4, 4)
    oracle = gaussian_oracle(0.2, 0.3, schedule)
    d = LearnedVariance(table_model(oracle, torch.full((51,), nu).double(), schedule), schedule, "x_0")
    grid = schedule.grid(20)
    ours = p_sample_loop(d, x_T, schedule, grid, seeded(1), d.variance)
    for a, b in zip(ours, p_sample_loop(oracle, x_T, schedule, grid, seeded(1), name), strict=True):
        assert_close(a.x_t, b.x_t, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name, steps", [("linear", 50), ("linear", 10), ("cosine", 50), ("cosine", 25)])
def test_sampling_with_it_is_that_of_diffusers(name, steps, clip):
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule.named(name, 50)
    scheduler = diffusers.DDPMScheduler(
        50, variance_type="learned_range", clip_sample=clip, timestep_spacing="trailing"
    )
    scheduler.betas, scheduler.alphas_cumprod = schedule.beta[1:], schedule.alpha_bar[1:]
    scheduler.set_timesteps(steps)
    d = LearnedVariance(noisy_nu, schedule)
    x_t = randn(3, 1, 4, 4)
    ours = p_sample_loop(clip_x_0(d) if clip else d, x_t, schedule, schedule.grid(steps), seeded(7), d.variance)
    g = seeded(7)
    for timestep, step in zip(scheduler.timesteps.tolist(), ours):
        assert step.t == timestep + 1
        assert_close(step.x_t, x_t, rtol=1e-9, atol=1e-9)
        both = noisy_nu(x_t, torch.full((3,), step.t))
        x_t = scheduler.step(both, timestep, x_t, generator=g).prev_sample


def test_half_precision_ends_at_the_network():
    d = LearnedVariance(lambda x, t, y=None: noisy_nu(x, t).bfloat16(), COSINE)
    x_t, t = randn(2, 1, 4, 4, dtype=torch.float32), torch.tensor([5, 5])
    assert d(x_t, t).dtype == d.variance(5, 4).dtype == torch.float32
    loss = hybrid_loss(lambda x, t, y=None: noisy_nu(x, t).bfloat16(), x_t.clamp(-1, 1), t, x_t, COSINE)
    assert loss.dtype == torch.float32 and loss.shape == (2,)


def test_a_small_network_is_trained_sampled_saved_and_loaded(tmp_path):
    torch.manual_seed(0)
    unet = UNet((8, 16), num_classes=3, patch=1, attention=(), groups=4, image_size=8, out_channels=2)
    schedule, predicts = Schedule.named("cosine-shifted", 20), "eps"
    x_0, y = randn(20, 1, 8, 8, dtype=torch.float32).sign() / 2, torch.arange(20) % 3
    loss = LearnedVarianceLoss(schedule, predicts, vlb_weight=0.01, times=lambda n, T, g: torch.arange(1, 21))
    optimizer = torch.optim.Adam(unet.parameters())
    steps = list(train_steps(unet, [(x_0, y)] * 12, loss, optimizer, lambda n: 3e-3, generator=seeded(0)))
    assert steps[-1].losses.mean() < 0.8 * steps[0].losses.mean()
    ddpm = DDPM(unet, schedule, predicts, (1, 8, 8))
    ddpm.save(tmp_path / "ddpm.safetensors")
    ddpm = DDPM.load(tmp_path / "ddpm.safetensors")
    d = LearnedVariance(ddpm.model, ddpm.schedule, ddpm.predicts)
    how = {"n": 2, "steps": 7, "seeds": [1, 2]}
    learned = ddpm.sample(**how, guide=lambda _: d, sampler=partial(p_sample_loop, variance=d.variance))
    fixed = ddpm.sample(**how, sampler=p_sample_loop)
    assert learned.isfinite().all() and (learned - fixed).abs().max() > 1e-3
    generators = [seeded(1), seeded(2)]
    x_T = noise_like(torch.empty(2, 1, 8, 8), generators)
    by_hand = p_sample_loop(clip_x_0(d), x_T, schedule, schedule.grid(7), generators, d.variance)
    assert_close(last(by_hand).x_t, learned)
    assert ddpm.sample(y=[0, 2], steps=3, scale=2.0).isfinite().all()  # ddim ignores nu


def test_the_objective_draws_times_noise_and_dropped_labels_in_this_order():
    model, x_0, y = partial(noisy_nu), randn(50, 1, 4, 4, dtype=torch.float32).clamp(-1, 1), torch.arange(50) % 3
    model.num_classes, seen = 3, []
    losses, t = LearnedVarianceLoss(COSINE, label_drop=0.5)(model, x_0, y, seeded(4))
    g = seeded(4)
    assert torch.equal(t, torch.randint(1, 11, (50,), generator=g))
    eps = torch.randn(x_0.shape, generator=g)
    assert_close(losses, hybrid_loss(noisy_nu, x_0, t, eps, COSINE))
    simple = partial(diffusion_loss, lambda *a: noisy_nu(*a)[:, :1], x_0, t, eps, COSINE, None, "x_0", reduction="none")
    weighted = LearnedVarianceLoss(COSINE, "x_0", "l1", "clamped-snr")(model, x_0, None, seeded(4))[0]
    others = hybrid_loss(noisy_nu, x_0, t, eps, COSINE, None, "x_0") - simple()
    assert_close(weighted, simple(loss="l1", weights="clamped-snr") + others)
    dropped = torch.rand(50, generator=g) < 0.5

    def labelled(x, t, y):
        seen.append(y)
        return noisy_nu(x, t)

    labelled.num_classes = 3
    LearnedVarianceLoss(COSINE, label_drop=0.5)(labelled, x_0, y, seeded(4))
    assert torch.equal(seen[0], torch.where(dropped, 3, y))


# What is refused, and in which words


def test_there_is_no_variance_before_the_first_call():
    with pytest.raises(ValueError, match="call the denoiser first"):
        LearnedVariance(noisy_nu, COSINE).variance(5, 4)


def test_a_network_of_another_shape_is_refused():
    x, t = randn(2, 3, 4, 4).clamp(-1, 1), torch.tensor([5, 5])
    for make in (lambda m: LearnedVariance(m, COSINE)(x, t), lambda m: hybrid_loss(m, x, t, x, COSINE)):
        with pytest.raises(ValueError, match="returns 6 channels for images of 3, got 3: build it with out_channels=6"):
            make(lambda x, *_: x)
