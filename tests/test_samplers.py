"""The samplers, step by step, against exact Gaussian algebra and diffusers (whose t is ours - 1).

On data N(m, v) the exact denoiser is affine, and so is every step: x_s = A x_t + B + sigma z. The tests read
A, B and sigma off the samplers with known inputs, and derive them again from the score of the noisy data.
"""

import math
import warnings
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tinyddpm.diffusion import make_denoiser, q_posterior, q_sample, q_step
from tinyddpm.editing.inpainting import resampling_grid
from tinyddpm.guidance import clip_x_0
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.samplers import Step, ddim, last, noise_like, p_sample, p_sample_loop
from tinyddpm.schedules import Schedule

COSINE = Schedule.named("cosine", 50)
SAMPLERS = {
    "posterior": partial(p_sample_loop, variance="posterior"),
    "beta": partial(p_sample_loop, variance="beta"),
    "ddim 0": partial(ddim, eta=0.0),
    "ddim 0.3": partial(ddim, eta=0.3),
    "ddim 1": partial(ddim, eta=1.0),
}
# (schedule, T, steps): steps that divide T and steps that do not
RUNS = [("cosine", 10, 10), ("cosine", 10, 7), ("cosine", 10, 1), ("linear", 50, 50), ("cosine", 50, 50)]
RUNS += [("linear", 50, 33), ("linear", 1000, 1000), ("cosine", 1000, 333), ("sigmoid", 1000, 7)]
PURE_NOISE = ("linear-zero-snr", "flow")  # x_T is noise alone
DATA = [(0.3, 0.0), (0.0, 1.0), (-0.4, 1.0), (0.0, 0.05), (0.6, 0.25)]  # mean and variance; a point mass first


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def column(values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def affine(sampler, t, s, schedule, monkeypatch):
    """(A, B, sigma) of one step for each of DATA: three images each, (x_t, z) = (0, 0), (1, 0), (0, 1)."""
    n = len(DATA)
    noise = column([0, 0, 1] * n)
    monkeypatch.setattr("tinyddpm.samplers.noise_like", lambda x, generator=None: noise)
    mean, variance = (column([d[i] for d in DATA for _ in range(3)]) for i in (0, 1))
    steps = sampler(gaussian_oracle(mean, variance, schedule), column([0, 1, 0] * n), schedule, grid=[(t, s)])
    at_0, at_1, noisy = last(steps).x_t.reshape(n, 3).T
    return (at_1 - at_0).tolist(), at_0.tolist(), (noisy - at_0).tolist()


def papers(name, abar_t, abar_s, m, v):
    """(A, B, sigma) of a step on N(m, v), from the score (sqrt(abar_t) m - x_t) / (abar_t v + 1 - abar_t)."""
    a = abar_t / abar_s
    var_t = abar_t * v + 1 - abar_t
    small = (1 - abar_s) / (1 - abar_t) * (1 - a)
    if name in ("posterior", "beta"):  # Ho et al. 2020, eq. 11: x_s = (x_t + (1 - a) score) / sqrt(a)
        A = (1 - (1 - a) / var_t) / math.sqrt(a)
        B = (1 - a) * math.sqrt(abar_t) * m / var_t / math.sqrt(a)
        return A, B, math.sqrt(0 if abar_s == 1 else small if name == "posterior" else 1 - a)
    # Song et al. 2021, eq. 12: eps = -sqrt(1 - abar_t) score, x_0 = (x_t + (1 - abar_t) score) / sqrt(abar_t)
    sigma = float(name.split()[1]) * math.sqrt(small)
    direction = math.sqrt(1 - abar_s - sigma**2)
    to_score = math.sqrt(abar_s / abar_t) * (1 - abar_t) - direction * math.sqrt(1 - abar_t)
    A = math.sqrt(abar_s / abar_t) - to_score / var_t
    return A, to_score * math.sqrt(abar_t) * m / var_t, sigma


# Every step is exact where the data are Gaussian


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("run", RUNS, ids=str)
def test_every_step_is_the_papers_and_every_marginal_exact_on_gaussian_data(name, run, monkeypatch):
    schedule = Schedule.named(run[0], run[1])
    abar, grid = schedule.alpha_bar.tolist(), schedule.grid(run[2])
    steps = [affine(SAMPLERS[name], t, s, schedule, monkeypatch) for t, s in grid]
    for (t, s), got in zip(grid, steps):
        for k, (m, v) in enumerate(DATA):
            expected = papers(name, abar[t], abar[s], m, v)
            assert tuple(part[k] for part in got) == pytest.approx(expected, rel=1e-8, abs=1e-9)
    check_marginals(name, abar, grid, steps)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("run", [(kind, 50, n) for kind in PURE_NOISE for n in (50, 7, 1)], ids=str)
def test_every_marginal_is_exact_from_pure_noise_too(name, run, monkeypatch):
    schedule = Schedule.named(run[0], run[1])
    grid = schedule.grid(run[2])
    steps = [affine(SAMPLERS[name], t, s, schedule, monkeypatch) for t, s in grid]
    check_marginals(name, schedule.alpha_bar.tolist(), grid, steps)


def check_marginals(name, abar, grid, steps):
    # trap 2: right images at the end do not prove the way there. All samplers keep the mean; the posterior
    # variance and ddim keep the variance of a point mass, the variance beta that of data with variance 1.
    mean = [math.sqrt(abar[-1]) * m for m, _ in DATA]
    var = [abar[-1] * v + 1 - abar[-1] for _, v in DATA]
    for (_, s), (A, B, sigma) in zip(grid, steps):
        for k, (m, v) in enumerate(DATA):
            mean[k], var[k] = A[k] * mean[k] + B[k], A[k] ** 2 * var[k] + sigma[k] ** 2
            assert mean[k] == pytest.approx(math.sqrt(abar[s]) * m, abs=1e-6)
            if v == (1 if name == "beta" else 0) and s > 0:
                assert var[k] == pytest.approx(abar[s] * v + 1 - abar[s], abs=1e-6)
    assert var[0] == pytest.approx(0, abs=1e-6)  # a point mass ends in its point


def test_the_last_step_of_beta_leaves_out_its_noise_and_nothing_else(monkeypatch):
    # data of variance 1 lose exactly beta_1, which the last step would have added
    A, _, sigma = affine(SAMPLERS["beta"], 1, 0, COSINE, monkeypatch)
    k = DATA.index((0.0, 1.0))
    assert sigma[k] == 0 and A[k] ** 2 == pytest.approx(1 - float(COSINE.beta[1]), abs=1e-12)


@pytest.mark.parametrize("T, v, small, large", [(50, 0.05, 0.0328, 0.0597), (1000, 0.05, 0.0484, 0.0504)])
def test_the_two_variances_lie_on_either_side_of_the_data_s(T, v, small, large, monkeypatch):
    # trap 38, linear betas scaled by 1000 / T
    assert small < v < large
    for name, expected in (("posterior", small), ("beta", large)):
        assert final_variance(name, T, v, monkeypatch) == pytest.approx(expected, abs=6e-5)


def test_the_posterior_variance_costs_unit_data_a_seventh_of_theirs(monkeypatch):
    # trap 38
    assert final_variance("posterior", 50, 1.0, monkeypatch) == pytest.approx(0.854, abs=5e-4)
    assert final_variance("beta", 50, 1.0, monkeypatch) == pytest.approx(0.998, abs=5e-4)


def final_variance(name, T, v, monkeypatch):
    schedule, var = Schedule.named("linear", T), 1.0
    k = [variance for _, variance in DATA].index(v)
    for t, s in schedule.grid():
        A, _, sigma = affine(SAMPLERS[name], t, s, schedule, monkeypatch)
        var = A[k] ** 2 * var + sigma[k] ** 2
    return var


@pytest.mark.parametrize("steps", [50, 33, 7, 1])
@pytest.mark.parametrize("spacing", ["uniform", "log-snr"])
def test_ddim_of_unit_data_turns_by_the_angle_between_its_times(steps, spacing):
    # N(0, 1): x_s = cos(phi_t - phi_s) x_t with cos(phi) = sqrt(alpha_bar), in closed form over any grid
    x_T, factor = randn(2, 1, 2, 2), 1.0
    phi = COSINE.sqrt_alpha_bar.acos().tolist()
    grid = COSINE.grid(steps, spacing)
    for step, (t, s) in zip(ddim(gaussian_oracle(0.0, 1.0, COSINE), x_T, COSINE, grid), [*grid, (0, 0)]):
        assert step.t == t
        assert_close(step.x_t, factor * x_T, rtol=0, atol=1e-10)
        factor *= math.cos(phi[t] - phi[s])


def test_ddim_in_all_steps_comes_near_the_exact_flow():
    # the ODE maps N(m_T, var_T) to N(m, v) by scaling alone; its error shrinks with the steps
    schedule, x_T = Schedule.named("cosine", 1000), column([-1.5, -0.2, 0.7, 2.0])
    for m, v in DATA[1:]:
        abar = float(schedule.alpha_bar[-1])
        exact = m + math.sqrt(v / (abar * v + 1 - abar)) * (x_T - math.sqrt(abar) * m)
        errors = [
            float(
                (last(ddim(gaussian_oracle(m, v, schedule), x_T, schedule, schedule.grid(n))).x_t - exact).abs().max()
            )
            for n in (50, 200, 1000)
        ]
        assert errors[0] > 2 * errors[1] > 4 * errors[2] and errors[2] < 5e-3


def test_a_whole_run_has_the_variance_of_its_recursion():
    # by Monte Carlo, with the sampler's own noise: fresh at every step, and another for each pixel
    schedule, v = Schedule.named("cosine", 10), 0.25
    abar, n = schedule.alpha_bar.tolist(), 40_000
    for name in ("posterior", "beta", "ddim 1", "ddim 0.3"):
        var, x_T = 1.0, randn(n, 1, 1, 2, seed=5)
        for t, s in schedule.grid(4):
            A, _, sigma = papers(name, abar[t], abar[s], 0, v)
            var = A**2 * var + sigma**2
        oracle = gaussian_oracle(0.0, v, schedule)
        x_0 = last(SAMPLERS[name](oracle, x_T, schedule, schedule.grid(4), generator=seeded(6))).x_t
        assert float(x_0.var()) == pytest.approx(var, rel=0.025)
        assert abs(float((x_0[..., 0] * x_0[..., 1]).mean())) < 0.025 * var


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("schedule", [Schedule.named("linear", 1000), COSINE])
def test_a_model_that_knows_the_noise_gives_back_the_image(name, schedule):
    # trap 1: unclamped, in float32, and from noise that has nothing of the image
    x_0 = randn(2, 1, 4, 4, dtype=torch.float32)

    def true_eps(x_t, t):
        noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t)
        return (x_t - schedule.at(schedule.sqrt_alpha_bar, t, x_t) * x_0) / noise

    denoiser = make_denoiser(true_eps, schedule, "eps")
    x_T = randn(2, 1, 4, 4, dtype=torch.float32, seed=1)
    got = last(SAMPLERS[name](denoiser, x_T, schedule, generator=seeded(2)))
    assert_close(got.x_t, x_0, rtol=0, atol=1e-4)


# Against diffusers


def with_our_tables(scheduler, schedule):
    """In float64, so that only the algebra is compared; the betas have their own test."""
    scheduler.betas, scheduler.alphas_cumprod = schedule.beta[1:], schedule.alpha_bar[1:]
    return scheduler


def model(x_t, t):
    """Stands for a network: eps_hat, wrong enough for x_0_hat to leave [-1, 1]."""
    return (1.3 * x_t + 0.1 * t.reshape(-1, 1, 1, 1) / 50).sin()


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("variance, variance_type", [("posterior", "fixed_small"), ("beta", "fixed_large")])
@pytest.mark.parametrize("name, steps", [("linear", 50), ("linear", 10), ("cosine", 50), ("cosine", 25)])
def test_ancestral_sampling_is_that_of_diffusers(name, steps, variance, variance_type, clip):
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule.named(name, 50)
    scheduler = diffusers.DDPMScheduler(
        50, variance_type=variance_type, clip_sample=clip, timestep_spacing="trailing", prediction_type="epsilon"
    )
    scheduler = with_our_tables(scheduler, schedule)
    scheduler.set_timesteps(steps)
    denoiser = make_denoiser(model, schedule, "eps")
    denoiser = clip_x_0(denoiser) if clip else denoiser
    x_t = randn(3, 1, 4, 4)
    ours, g = p_sample_loop(denoiser, x_t, schedule, schedule.grid(steps), seeded(7), variance), seeded(7)
    for timestep, step in zip(scheduler.timesteps.tolist(), ours):
        assert step.t == timestep + 1
        assert_close(step.x_t, x_t, rtol=1e-9, atol=1e-9)
        theirs = scheduler.step(model(x_t, torch.full((3,), step.t)), timestep, x_t, generator=g)
        assert_close(step.x_0_hat, theirs.pred_original_sample, rtol=1e-9, atol=1e-9)
        x_t = theirs.prev_sample
    # trap 5: in strides, diffusers adds noise to its last step too (it asks whether t > 0 where s > 0 counts)
    x_0 = x_t if steps == 50 else theirs.pred_original_sample
    assert_close(last(ours).x_t, x_0, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name, steps", [("linear", 50), ("linear", 10), ("cosine", 25)])
def test_implicit_sampling_is_that_of_diffusers(name, steps, eta, clip):
    # traps 10 and 11: eps follows from the clipped x_0, and the last step goes to alpha_bar = 1
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule.named(name, 50)
    scheduler = diffusers.DDIMScheduler(
        50, clip_sample=clip, set_alpha_to_one=True, timestep_spacing="trailing", prediction_type="epsilon"
    )
    scheduler = with_our_tables(scheduler, schedule)
    scheduler.set_timesteps(steps)
    denoiser = make_denoiser(model, schedule, "eps")
    denoiser = clip_x_0(denoiser) if clip else denoiser
    x_t = randn(3, 1, 4, 4)
    ours, g = ddim(denoiser, x_t, schedule, schedule.grid(steps), seeded(7), eta), seeded(7)
    for timestep, step in zip(scheduler.timesteps.tolist(), ours):
        assert step.t == timestep + 1
        assert_close(step.x_t, x_t, rtol=1e-8, atol=1e-8)
        out = model(x_t, torch.full((3,), step.t))
        x_t = scheduler.step(out, timestep, x_t, eta, use_clipped_model_output=True, generator=g).prev_sample
    assert_close(last(ours).x_t, x_t, rtol=1e-8, atol=1e-8)


# The samplers among each other


@pytest.mark.parametrize("steps", [50, 33, 2])
@pytest.mark.parametrize("spacing", ["uniform", "log-snr"])
def test_ddpm_is_ddim_with_all_its_noise(steps, spacing):
    # trap 12: the variance of eta = 1 is the posterior's
    denoiser, x_T = clip_x_0(make_denoiser(model, COSINE, "eps")), randn(3, 1, 4, 4)
    grid = COSINE.grid(steps, spacing)
    ddpm = p_sample_loop(denoiser, x_T, COSINE, grid, generator=seeded(8))
    for a, b in zip(ddpm, ddim(denoiser, x_T, COSINE, grid, eta=1.0, generator=seeded(8)), strict=True):
        assert a.t == b.t
        assert_close(a.x_t, b.x_t, rtol=1e-10, atol=1e-10)


def test_p_sample_loop_is_p_sample_again_and_again():
    denoiser, x_T = clip_x_0(make_denoiser(model, COSINE, "eps")), randn(3, 1, 4, 4)
    for variance in ("posterior", "beta"):
        x_t, g = x_T, seeded(8)
        steps = list(p_sample_loop(denoiser, x_T, COSINE, variance=variance, generator=seeded(8)))
        for step, (t, s) in zip(steps, COSINE.grid()):
            assert torch.equal(step.x_t, x_t) and torch.equal(step.x_0_hat, denoiser(x_t, torch.full((3,), t)))
            x_t = p_sample(x_t, step.x_0_hat, t, s, COSINE, variance, g)
        assert torch.equal(steps[-1].x_t, x_t)


def test_p_sample_adds_noise_of_the_posterior_s_size():
    x_0_hat, x_t = randn(1, 1, 4, 4), randn(1, 1, 4, 4, seed=1)
    mean, variance = q_posterior(x_0_hat, x_t, 30, 20, COSINE)
    got = p_sample(x_t, x_0_hat, 30, 20, COSINE, generator=seeded(3))
    assert_close(got, mean + math.sqrt(variance) * randn(1, 1, 4, 4, seed=3))


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("t", [1, 2, 50])
def test_the_last_step_adds_no_noise(variance, t):
    # trap 5: it is x_0_hat itself, without a generator and from any t
    x_t, x_0_hat = randn(2, 1, 4, 4), randn(2, 1, 4, 4, seed=1)
    assert_close(p_sample(x_t, x_0_hat, t, 0, COSINE, variance), x_0_hat, rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_last_x_0_hat_is_the_finished_image(name):
    # trap 11: the last pair ends at t = 0, where nothing but x_0_hat is left
    denoiser = clip_x_0(make_denoiser(model, COSINE, "eps"))
    *_, before, end = SAMPLERS[name](denoiser, randn(2, 1, 4, 4), COSINE, COSINE.grid(7), generator=seeded(1))
    assert end.t == 0 and before.t > 0
    assert_close(end.x_t, before.x_0_hat, rtol=0, atol=1e-14)
    assert torch.equal(end.x_t, end.x_0_hat)


def test_ddim_without_eta_is_a_function_of_x_T():
    # trap 12; not one number is drawn
    denoiser, x_T = make_denoiser(model, COSINE, "eps"), randn(2, 1, 4, 4)
    g = seeded(0)
    state, everyones = g.get_state(), torch.get_rng_state()
    once = last(ddim(denoiser, x_T, COSINE, generator=g)).x_t
    assert torch.equal(once, last(ddim(denoiser, x_T, COSINE)).x_t)
    assert torch.equal(g.get_state(), state) and torch.equal(torch.get_rng_state(), everyones)


@settings(max_examples=60, deadline=None)
@given(beta=st.lists(st.floats(1e-5, 0.9999), min_size=1, max_size=12), eta=st.floats(0, 1), seed=st.integers(0, 9))
def test_ddim_is_real_and_finite_on_any_schedule(beta, eta, seed):
    # trap 12: 1 - alpha_bar_s - sigma^2 never falls below 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = Schedule(torch.tensor([0.0, *beta], dtype=torch.float64))
    x_T = randn(2, 1, 1, 1, seed=seed)
    for step in ddim(gaussian_oracle(0.2, 0.1, schedule), x_T, schedule, eta=eta, generator=seeded(seed)):
        assert step.x_t.dtype == torch.float64 and step.x_t.isfinite().all()


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_schedule_down_to_one_step_samples(name):
    # trap 8
    for T in (1, 2, 3, 20, 21, 50):
        for kind in ("linear", "cosine", "cosine-shifted", "sigmoid", *PURE_NOISE):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    schedule = Schedule.named(kind, T)
                except ValueError:
                    continue
            x_T = randn(2, 1, 2, 2, dtype=torch.float32)
            assert last(SAMPLERS[name](gaussian_oracle(0.0, 0.2, schedule), x_T, schedule)).x_t.isfinite().all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("kind", PURE_NOISE)
def test_pure_noise_is_the_limit_of_little_signal(kind, name):
    # nothing is divided by the signal at T, so that a beta of 1 there is no special case
    beta = Schedule.named(kind, 50).beta
    nearly = beta.clone()
    nearly[-1] -= 1e-16
    assert nearly[-1] < 1
    ends = []
    for schedule in (Schedule(beta), Schedule(nearly)):
        denoiser = make_denoiser(model, schedule, "v")
        walk = SAMPLERS[name](denoiser, randn(2, 1, 4, 4), schedule, schedule.grid(7), generator=seeded(2))
        ends.append(last(walk).x_t)
    assert_close(ends[0], ends[1], rtol=0, atol=1e-6)


# Up and down again: RePaint's walk

CLIMBING = [
    resampling_grid(COSINE.grid(10), jump=3, repeats=3),
    resampling_grid(COSINE.grid(50), jump=1, repeats=2),
    [(50, 20), (20, 50), (50, 1), (1, 2), (2, 40), (40, 7)],  # twice upwards, and not to the end
]


@pytest.mark.parametrize("grid", CLIMBING, ids=["jumps of 3", "jumps of 1", "by hand"])
@pytest.mark.parametrize("variance, v", [("posterior", 0.0), ("beta", 1.0), ("posterior", 0.3), ("beta", 0.3)])
def test_marginals_stay_exact_on_a_climbing_grid(grid, variance, v, monkeypatch):
    # The mean of any data, and the variance where the way down keeps it (as above). Image k + 1 is a run with
    # one unit draw, the k-th, and image 0 one without any: their distances are what each draw adds.
    draws, m = sum(s > 0 for _, s in grid), 0.6
    schedule, drawn = COSINE, []

    def one_of_them(x, generator=None):
        noise = torch.zeros_like(x)
        noise[len(drawn) + 1] = 1
        drawn.append(len(drawn))
        return noise

    monkeypatch.setattr("tinyddpm.samplers.noise_like", one_of_them)
    abar = schedule.alpha_bar.tolist()
    first, units = math.sqrt(abar[50]) * m, column([0.0] * (draws + 1) + [1.0])
    spread = math.sqrt(abar[50] * v + 1 - abar[50])
    steps = p_sample_loop(gaussian_oracle(m, v, schedule), first + spread * units, schedule, grid, None, variance)
    for step in steps:
        assert float(step.x_t[0]) == pytest.approx(math.sqrt(abar[step.t]) * m, abs=1e-9)
        if v in (0.0, 1.0) and step.t > 0:
            var = float((step.x_t[1:] - step.x_t[0]).square().sum())
            assert var == pytest.approx(abar[step.t] * v + 1 - abar[step.t], abs=1e-9)
    assert len(drawn) == draws


@pytest.mark.parametrize("grid", CLIMBING, ids=["jumps of 3", "jumps of 1", "by hand"])
def test_a_climb_asks_no_denoiser_and_shows_what_was_seen_before(grid):
    asked = []

    def denoiser(x_t, t):
        asked.append(int(t[0]))
        return (x_t + len(asked)).sin()

    steps = list(p_sample_loop(denoiser, randn(2, 1, 4, 4), COSINE, grid, generator=seeded(0)))
    assert [step.t for step in steps] == [t for t, _ in grid] + [grid[-1][1]]
    assert asked == [t for t, s in grid if t > s]
    for (t, s), before, step in zip(grid[1:], steps, steps[1:]):
        assert torch.equal(step.x_0_hat, before.x_0_hat) == (t < s)


def test_a_climb_adds_the_noise_of_the_forward_process_and_nothing_else():
    # one step up is q_step; several are what that does again and again
    x_T, g = randn(1, 1, 2, 2), seeded(4)
    grid = [(50, 9), (9, 10), (10, 8), (8, 30), (30, 0)]
    walk = list(p_sample_loop(model, x_T, COSINE, grid, generator=seeded(4)))
    draws = [noise_like(x_T, g) for _ in range(4)]
    assert_close(walk[2].x_t, q_step(walk[1].x_t, 10, draws[1], COSINE), rtol=0, atol=1e-12)
    keep, var = 1.0, 0.0
    for beta in COSINE.beta[9:31].tolist():
        keep, var = math.sqrt(1 - beta) * keep, (1 - beta) * var + beta
    assert_close(walk[4].x_t, keep * walk[3].x_t + math.sqrt(var) * draws[3], rtol=0, atol=1e-12)


def test_a_finished_image_may_go_up_again():
    # from t = 0 the climb is q_sample, and shown as the clean image is the image itself
    x_T, draws = randn(2, 1, 4, 4), seeded(3)
    denoiser = clip_x_0(make_denoiser(model, COSINE))
    grid = [(50, 3), (3, 0), (0, 30), (30, 0)]
    steps = list(p_sample_loop(denoiser, x_T, COSINE, grid, generator=seeded(3)))
    assert steps[2].t == 0 and torch.equal(steps[2].x_t, steps[2].x_0_hat)
    draw = [noise_like(x_T, draws) for _ in range(2)][1]
    assert_close(steps[3].x_t, q_sample(steps[2].x_t, 30, draw, COSINE), rtol=0, atol=1e-12)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_a_climb_up_to_pure_noise_forgets_the_image(variance):
    schedule, grid = Schedule.named("flow", 50), [(50, 20), (20, 50), (50, 0)]
    denoiser = make_denoiser(model, schedule, "flow")
    for seed in (0, 1):
        walk = p_sample_loop(denoiser, randn(1, 1, 4, 4, seed=seed), schedule, grid, seeded(5), variance)
        climbed = list(walk)[2].x_t
        g = seeded(5)
        noise_like(climbed, g)
        assert torch.equal(climbed, noise_like(climbed, g))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_on_a_climbing_grid_is_the_image_its_generator_gives_alone(dtype):
    denoiser, x_T = clip_x_0(make_denoiser(model, COSINE, "eps")), randn(3, 1, 4, 4, dtype=dtype)
    seeds = (11, 12, 13)
    batch = last(p_sample_loop(denoiser, x_T, COSINE, CLIMBING[0], generator=[seeded(k) for k in seeds])).x_t
    assert batch.dtype == dtype
    for k, seed in enumerate(seeds):
        alone = last(p_sample_loop(denoiser, x_T[k : k + 1], COSINE, CLIMBING[0], generator=seeded(seed))).x_t
        assert_close(batch[k : k + 1], alone, rtol=0, atol=1e-6)


def test_a_climb_writes_over_nothing_keeps_no_graph_and_looks_at_nothing():
    # traps 30 and 31
    weight, kept = torch.ones((), dtype=torch.float64, requires_grad=True), []
    for step in p_sample_loop(lambda x_t, t: weight * x_t.tanh(), randn(2, 1, 4, 4), COSINE, CLIMBING[0]):
        assert torch.is_grad_enabled() and not step.x_t.requires_grad
        kept.append((step, step.x_t.clone(), step.x_0_hat.clone()))
    assert all(torch.equal(step.x_t, a) and torch.equal(step.x_0_hat, b) for step, a, b in kept)
    x_T = torch.zeros(2, 1, 4, 4, device="meta")
    run = p_sample_loop(gaussian_oracle(0.1, 0.2, COSINE), x_T, COSINE, CLIMBING[0], generator=seeded(0))
    assert last(run).x_t.device.type == "meta"


# Noise and its generators


def test_noise_is_standard_normal():
    noise = noise_like(torch.zeros(4, 1, 100, 100, dtype=torch.float64), seeded(0)).flatten()
    assert abs(float(noise.mean())) < 0.02 and float(noise.var()) == pytest.approx(1, abs=0.03)
    assert float((noise**4).mean()) == pytest.approx(3, abs=0.2)  # trap 6: uniform noise has 1.8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_noise_has_the_dtype_and_the_shape_of_the_images(dtype):
    x = torch.zeros(2, 3, 4, 5, dtype=dtype)
    for generator in (None, seeded(0), [seeded(0), seeded(1)]):
        noise = noise_like(x, generator)
        assert noise.shape == x.shape and noise.dtype == dtype


def test_one_seed_gives_one_noise():
    x = torch.zeros(2, 1, 4, 4)
    assert torch.equal(noise_like(x, seeded(1)), noise_like(x, seeded(1)))
    assert not torch.equal(noise_like(x, seeded(1)), noise_like(x, seeded(2)))
    torch.manual_seed(1)
    assert torch.equal(noise_like(x), noise_like(x, seeded(1)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_of_a_batch_is_the_image_its_generator_gives_alone(name):
    denoiser, x_T = clip_x_0(make_denoiser(model, COSINE, "eps")), randn(3, 1, 4, 4, dtype=torch.float32)
    grid, seeds = COSINE.grid(7), (11, 12, 13)
    batch = last(SAMPLERS[name](denoiser, x_T, COSINE, grid, generator=[seeded(seed) for seed in seeds])).x_t
    for k, seed in enumerate(seeds):
        for generator in (seeded(seed), [seeded(seed)]):
            alone = last(SAMPLERS[name](denoiser, x_T[k : k + 1], COSINE, grid, generator=generator)).x_t
            assert_close(batch[k : k + 1], alone, rtol=0, atol=1e-6)


# Generators of steps


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [None, 7, 1])
def test_a_sampler_asks_the_denoiser_once_a_step_and_only_then(name, steps):
    asked = []

    def denoiser(x_t, t):
        asked.append(t.tolist())
        return 0 * x_t

    grid = COSINE.grid(steps)
    run = SAMPLERS[name](denoiser, randn(2, 1, 4, 4), COSINE, None if steps is None else grid)
    assert asked == []
    seen = []
    for step in run:
        seen.append(step.t)
        assert len(asked) == min(len(seen), len(grid))
    assert seen == [t for t, _ in grid] + [0]  # trap 4: with all steps, every t of training
    assert asked == [[t, t] for t, _ in grid]


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_step_carries_x_t_and_what_the_denoiser_saw_in_it(name):
    denoiser, x_T = clip_x_0(make_denoiser(model, COSINE, "eps")), randn(2, 1, 4, 4)
    steps = list(SAMPLERS[name](denoiser, x_T, COSINE, COSINE.grid(7)))
    assert torch.equal(steps[0].x_t, x_T)
    for step in steps[:-1]:
        assert torch.equal(step.x_0_hat, denoiser(step.x_t, torch.full((2,), step.t)))


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_keeps_no_graph_and_leaves_the_caller_s_gradients_on(name):
    weight = torch.ones((), requires_grad=True)
    for step in SAMPLERS[name](lambda x_t, t: weight * x_t, randn(2, 1, 4, 4), COSINE, COSINE.grid(3)):
        assert not step.x_t.requires_grad and not step.x_0_hat.requires_grad
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_step_writes_over_what_was_given_or_yielded(name):
    # trap 30
    x_T, kept = randn(2, 1, 4, 4), []
    before = x_T.clone()
    for step in SAMPLERS[name](make_denoiser(model, COSINE, "eps"), x_T, COSINE, COSINE.grid(5)):
        kept.append((step, step.x_t.clone(), step.x_0_hat.clone()))
    assert torch.equal(x_T, before)
    assert all(torch.equal(step.x_t, a) and torch.equal(step.x_0_hat, b) for step, a, b in kept)


def test_p_sample_writes_over_nothing():
    # trap 30
    x_t, x_0_hat = randn(2, 1, 4, 4), randn(2, 1, 4, 4, seed=1)
    before = x_t.clone(), x_0_hat.clone()
    p_sample(x_t, x_0_hat, 9, 5, COSINE)
    assert torch.equal(x_t, before[0]) and torch.equal(x_0_hat, before[1])


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_keeps_the_dtype_of_x_T(name, dtype):
    x_T = randn(2, 1, 4, 4, dtype=dtype)
    for step in SAMPLERS[name](gaussian_oracle(0.1, 0.2, COSINE), x_T, COSINE, COSINE.grid(3)):
        assert step.x_t.dtype == step.x_0_hat.dtype == dtype


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_run_never_looks_at_values_on_a_device(name):
    # trap 31: meta tensors have no values, so that a look (a stall on a GPU) raises
    x_T = torch.zeros(2, 1, 4, 4, device="meta")
    run = SAMPLERS[name](gaussian_oracle(0.1, 0.2, COSINE), x_T, COSINE, COSINE.grid(3), generator=seeded(0))
    assert last(run).x_t.device.type == "meta"


def test_a_sampler_starts_from_an_image_on_the_way_too():
    # a grid may begin below T: x_t then is that of q_sample, and the mean of the data is kept
    x_0 = torch.full((2, 1, 4, 4), 0.3, dtype=torch.float64)
    x_30 = q_sample(x_0, 30, randn(2, 1, 4, 4), COSINE)
    grid = [(t, s) for t, s in COSINE.grid() if t <= 30]
    assert_close(last(ddim(gaussian_oracle(0.3, 0.0, COSINE), x_30, COSINE, grid)).x_t, x_0)


def test_last_drains_a_run_and_keeps_its_last_step():
    alive = []

    def steps():
        for t in (2, 1, 0):
            alive.append(t)
            yield Step(t, torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))

    run = steps()
    assert last(run).t == 0 and alive == [2, 1, 0]
    assert next(run, None) is None


# What is refused, and in which words
