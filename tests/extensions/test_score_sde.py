"""The continuous view, held to Gaussians (on which every step is affine) and to densities in closed form."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal
from torch.testing import assert_close

from tinyddpm.diffusion import eps_from_x_0, make_denoiser
from tinyddpm.extensions.score_sde import euler_maruyama, log_likelihood, predictor_corrector, score
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.samplers import last, noise_like, p_sample_loop
from tinyddpm.schedules import Schedule

COSINE = Schedule.named("cosine", 50)
LINEAR = Schedule.named("linear", 1024)
SAMPLERS = {"euler_maruyama": euler_maruyama, "predictor_corrector": predictor_corrector}
SDE = "tinyddpm.extensions.score_sde"
DATA = [(0.0, 1.0), (-0.4, 0.25), (0.6, 0.05), (0.3, 0.0), (0.2, 2.0)]  # mean and variance


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def column(values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


def network(schedule):
    """Stands for one: neither affine nor right, and a pixel hears of its neighbour."""

    def model(x_t, t):
        return (1.3 * x_t + 0.5 * x_t.roll(1, -1) + 0.1 * t.reshape(-1, 1, 1, 1) / 50).sin()

    return make_denoiser(model, schedule, "v")


def marginal(m, v, t, schedule):
    """Mean and variance of x_t where x_0 is N(m, v)."""
    abar = float(schedule.alpha_bar[t])
    return math.sqrt(abar) * m, abar * v + 1 - abar


def grid_of(steps, end, schedule=LINEAR):
    """So many steps, even in t, from T to end."""
    return list(pairwise([end + (schedule.T - end) * k // steps for k in range(steps, -1, -1)]))


# The score


@pytest.mark.parametrize("m, v", DATA)
def test_the_score_of_a_gaussian_is_the_slope_of_its_log_density(m, v):
    x_t, t = randn(4, 1, 2, 2).requires_grad_(), torch.tensor([1, 10, 40, 50])
    got = score(gaussian_oracle(m, v, COSINE), COSINE)(x_t, t)
    for k in range(4):
        mean, variance = marginal(m, v, int(t[k]), COSINE)
        log_p = Normal(mean, math.sqrt(variance)).log_prob(x_t[k]).sum()
        assert_close(got[k], torch.autograd.grad(log_p, x_t)[0][k], rtol=1e-6, atol=1e-8)


def test_the_score_is_the_noise_pointing_back():
    x_t, t = randn(3, 1, 4, 4), torch.tensor([3, 20, 50])
    x_0_hat = network(COSINE)(x_t, t)
    eps_hat = eps_from_x_0(x_0_hat, x_t, t, COSINE)
    got = score(network(COSINE), COSINE)(x_t, t)
    for k in range(3):
        std = math.sqrt(1 - float(COSINE.alpha_bar[t[k]]))
        assert_close(got[k], -eps_hat[k] / std, rtol=1e-10, atol=1e-10)


def test_the_score_lets_gradients_through():
    x_t = randn(1, 1, 2, 2).requires_grad_()
    got = score(gaussian_oracle(0.0, 1.0, COSINE), COSINE)(x_t, torch.tensor([20]))
    assert_close(torch.autograd.grad(got.sum(), x_t)[0], -torch.ones_like(x_t))  # N(0, 1) at every t


# Steps, read off the samplers: x_s = slope x_t + shift + sigma_1 z_1 + sigma_2 z_2


def affine(sampler, t, s, schedule, monkeypatch):
    """(slope, shift, size of p_sample's noise, of the noise drawn in score_sde.py) of one step, for each of
    DATA: four images each, (x_t, z_1, z_2) = (0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)."""
    n = len(DATA)
    for room, noise in {"tinyddpm.samplers": column([0, 0, 1, 0] * n), SDE: column([0, 0, 0, 1] * n)}.items():
        monkeypatch.setattr(f"{room}.noise_like", lambda x, generator=None, z=noise: z)
    mean, variance = (column([d[i] for d in DATA for _ in range(4)]) for i in (0, 1))
    run = sampler(gaussian_oracle(mean, variance, schedule), column([0, 1, 0, 0] * n), schedule, grid=[(t, s)])
    rows = last(run).x_t.reshape(n, 4).tolist()
    return [(at_1 - at_0, at_0, z_1 - at_0, z_2 - at_0) for at_0, at_1, z_1, z_2 in rows]


def after(sampler, grid, schedule, monkeypatch):
    """Mean and variance at the grid's end, exactly, from the right ones where it begins; for each of DATA."""
    found = [marginal(m, v, grid[0][0], schedule) for m, v in DATA]
    for t, s in grid:
        steps = affine(sampler, t, s, schedule, monkeypatch)
        found = [(A * mean + B, A**2 * var + z_1**2 + z_2**2) for (mean, var), (A, B, z_1, z_2) in zip(found, steps)]
    return found


def orders(errors):
    """log2 of what each halving of the step divides the error by."""
    return [math.log2(a / b) for a, b in zip(errors, errors[1:])]


# The reverse SDE in straight steps


@pytest.mark.parametrize("name, T, steps", [("cosine", 50, 50), ("cosine", 50, 7), ("linear", 100, 33)])
def test_each_step_of_euler_maruyama_is_the_paper_s(name, T, steps, monkeypatch):
    schedule = Schedule.named(name, T)
    for t, s in schedule.grid(steps):
        for got, (m, v) in zip(affine(euler_maruyama, t, s, schedule, monkeypatch), DATA):
            mean, var = marginal(m, v, t, schedule)
            if s == 0:  # x_0_hat, without noise
                k = math.sqrt(float(schedule.alpha_bar[t])) * v / var
                expected = k, m - k * mean, 0, 0
            else:  # score = (mean - x_t) / var; the integral of beta as the sum over the times between
                B = -float(torch.log1p(-schedule.beta[s + 1 : t + 1]).sum())
                expected = 1 + B / 2 - B / var, B * mean / var, 0, math.sqrt(B)
            assert got == pytest.approx(expected, rel=1e-7, abs=1e-8)


def test_euler_maruyama_is_of_weak_order_1(monkeypatch):
    # mean and variance, without drawing a number, at a time where the image is all but clean
    runs = [after(euler_maruyama, grid_of(n, 128), LINEAR, monkeypatch) for n in (80, 160)]
    for k, (m, v) in enumerate(DATA):
        mean, var = marginal(m, v, 128, LINEAR)
        off = [abs(run[k][1] - var) for run in runs]
        assert orders(off) == pytest.approx([1], abs=0.2) and off[-1] < 0.1 * var
        off = [abs(run[k][0] - mean) for run in runs]
        if m:
            assert orders(off) == pytest.approx([1], abs=0.2) and off[-1] < 0.05
        else:
            assert off == pytest.approx([0, 0], abs=1e-12)


@pytest.mark.parametrize("variance", ["posterior", "beta"])
def test_euler_maruyama_nears_ancestral_sampling_as_the_steps_get_small(variance, monkeypatch):
    # with the same noise at every step, path by path: to first order
    oracle, x_T, gaps = gaussian_oracle(-0.4, 0.25, LINEAR), randn(64, 1, 2, 2), []
    for n in (28, 56, 112):
        grid = grid_of(n, 128)
        ends = [
            last(sampler(oracle, x_T, LINEAR, grid, generator=seeded(n))).x_t
            for sampler in (euler_maruyama, partial(p_sample_loop, variance=variance))
        ]
        gaps.append(float((ends[0] - ends[1]).square().mean().sqrt()))
    assert orders(gaps) == pytest.approx([1, 1], abs=0.3) and gaps[-1] < 0.1


def test_pure_noise_has_no_reverse_sde_to_step_along():
    flow = Schedule.named("flow", 50)
    oracle, x_T = gaussian_oracle(0.1, 0.2, flow), randn(2, 1, 2, 2)
    for grid in (None, [(50, 20), (20, 0)]):
        with pytest.raises(ValueError, match="ends in pure noise.*beta is infinite: use p_sample_loop"):
            euler_maruyama(oracle, x_T, flow, grid)
    assert last(euler_maruyama(oracle, x_T, flow, flow.grid(5, start=49), seeded(0))).x_t.isfinite().all()


# Predictor and corrector


@pytest.mark.parametrize("snr", [0.05, 0.16, 0.5])
def test_each_step_of_the_corrector_is_langevin_s(snr, monkeypatch):
    # after the predictor's: x + e (mean - x) / var + sqrt(2 e) z
    sampler = partial(predictor_corrector, snr=snr)
    for t, s in [(50, 40), (40, 3), (3, 2), (2, 0)]:
        plain = affine(p_sample_loop, t, s, COSINE, monkeypatch)
        for k, got in enumerate(affine(sampler, t, s, COSINE, monkeypatch)):
            A, B, sigma, _ = plain[k]
            mean, var = marginal(*DATA[k], s, COSINE)
            e = 2 * snr**2 * (1 - float(COSINE.alpha_bar[s]))
            keep = 1 - e / var if s > 0 else 1  # clean images are not corrected: they may have no score
            expected = keep * A, keep * B + (1 - keep) * mean, keep * sigma, math.sqrt(2 * e)
            assert got == pytest.approx(expected, rel=1e-8, abs=1e-9)


def test_the_corrector_s_step_is_the_paper_s_ratio_of_signal_to_noise():
    # algorithm 5's e = 2 (snr |z| / |score|)^2, with the norms' root mean squares over the marginal
    for m, v in [(0.0, 0.0), (0.3, 0.0)]:  # of a point the score is the noise itself
        x_20 = math.sqrt(float(COSINE.alpha_bar[20])) * m + COSINE.sqrt_one_minus_alpha_bar[20] * randn(2000, 1, 2, 2)
        slope = score(gaussian_oracle(m, v, COSINE), COSINE)(x_20, torch.full((2000,), 20))
        ratio = 4 / float(slope.square().sum((1, 2, 3)).mean())  # E |z|^2 is the number of pixels
        assert 2 * 0.16**2 * ratio == pytest.approx(2 * 0.16**2 * (1 - float(COSINE.alpha_bar[20])), rel=0.05)


def corrected(wrong, s, snr, monkeypatch):
    """What the corrector alone, a step whose predictor stays where it is, makes of marginals that are off by
    (in the mean, in the variance as a factor): how far off they are then, for each of DATA."""
    monkeypatch.setattr(
        "tinyddpm.extensions.score_sde.p_sample", lambda x_t, x_0_hat, t, s, schedule, generator=None: x_t
    )
    found = []
    steps = affine(partial(predictor_corrector, snr=snr), s + 1, s, COSINE, monkeypatch)
    for (A, B, _, sigma), (m, v) in zip(steps, DATA):
        mean, var = marginal(m, v, s, COSINE)
        found.append((A * (mean + wrong[0]) + B - mean, (A**2 * wrong[1] * var + sigma**2) / var))
    return found


@pytest.mark.parametrize("s", [2, 20, 49])
def test_the_corrector_leaves_a_right_marginal_nearly_as_it_is(s, monkeypatch):
    # the mean exactly, the variance but for (e / var)^2 of itself, which falls with the fourth power of snr
    runs = [corrected((0, 1), s, snr, monkeypatch) for snr in (0.32, 0.16, 0.08)]
    for k in range(len(DATA)):
        assert [run[k][0] for run in runs] == pytest.approx([0, 0, 0], abs=1e-9)
        excess = [run[k][1] - 1 for run in runs]
        assert 0 < excess[1] < 0.003
        assert orders(excess) == pytest.approx([4, 4], abs=1e-3)


@pytest.mark.parametrize("s", [2, 20, 49])
@pytest.mark.parametrize("factor", [0.5, 0.8, 1.3, 2.0])
def test_the_corrector_pulls_a_wrong_marginal_towards_the_right_one(factor, s, monkeypatch):
    for mean_off, var_factor in corrected((0.2, factor), s, 0.16, monkeypatch):
        assert 0 < mean_off < 0.2
        assert abs(var_factor - 1) < abs(factor - 1) and (var_factor > factor) == (factor < 1)


def test_corrected_steps_end_nearer_to_the_data_s_variance(monkeypatch):
    # the posterior's variance is too small for data that are not points, the more so the longer the steps
    for steps in (10, 20):
        plain, little, more = (
            after(sampler, COSINE.grid(steps), COSINE, monkeypatch)
            for sampler in (p_sample_loop, predictor_corrector, partial(predictor_corrector, snr=0.3))
        )
        for k, (m, v) in enumerate(DATA):
            assert little[k][0] == pytest.approx(m, abs=1e-6)
            assert plain[k][1] <= little[k][1] <= more[k][1] <= v + 1e-9
            assert v == 0 or plain[k][1] < 0.99 * little[k][1] < 0.98 * more[k][1]


@pytest.mark.parametrize("grid", [None, COSINE.grid(7), [(50, 30), (30, 20)]], ids=["all", "7", "to 20"])
def test_predictor_and_corrector_ask_twice_a_step_and_once_in_the_step_to_0(grid):
    asked = []

    def denoiser(x_t, t):
        asked.append(t.tolist())
        return 0 * x_t

    run = predictor_corrector(denoiser, randn(2, 1, 4, 4), COSINE, grid)
    assert asked == []
    list(run)
    walked = COSINE.grid() if grid is None else grid
    assert asked == [[time, time] for t, s in walked for time in (t, s) if time > 0]


@pytest.mark.parametrize("snr", [0.0, 1.0, -0.1, math.nan])
def test_a_signal_to_noise_ratio_outside_0_to_1_is_refused_at_once(snr):
    with pytest.raises(ValueError, match=rf"must be in \(0, 1\), got {snr}"):
        predictor_corrector(network(COSINE), randn(1, 1, 2, 2), COSINE, snr=snr)


# What is true of both samplers


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_whole_run_has_the_variance_of_its_recursion(name, monkeypatch):
    # by Monte Carlo, with the sampler's own noise: fresh at every draw, and another for each pixel
    (m, v), grid = (-0.4, 0.25), COSINE.grid(5, start=45)
    mean, var = marginal(m, v, 45, COSINE)
    x_45 = mean + math.sqrt(var) * randn(20_000, 1, 1, 2, seed=5)
    x_0 = last(SAMPLERS[name](gaussian_oracle(m, v, COSINE), x_45, COSINE, grid, seeded(6))).x_t
    mean, var = after(SAMPLERS[name], grid, COSINE, monkeypatch)[DATA.index((m, v))]
    assert float(x_0.mean()) == pytest.approx(mean, abs=0.01)
    assert float(x_0.var()) == pytest.approx(var, rel=0.04)
    assert abs(float(((x_0[..., 0] - mean) * (x_0[..., 1] - mean)).mean())) < 0.04 * var


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_of_a_batch_is_the_image_its_generator_gives_alone(name):
    x_T, grid, seeds = randn(3, 1, 4, 4, dtype=torch.float32), COSINE.grid(7, start=45), (11, 12, 13)
    run = partial(SAMPLERS[name], network(COSINE), schedule=COSINE, grid=grid)
    batch = last(run(x_T, generator=[seeded(seed) for seed in seeds])).x_t
    for k, seed in enumerate(seeds):
        alone = last(run(x_T[k : k + 1], generator=seeded(seed))).x_t
        assert_close(batch[k : k + 1], alone, rtol=0, atol=1e-5)
    again = last(run(x_T, generator=[seeded(seed) for seed in seeds])).x_t
    other = last(run(x_T, generator=[seeded(seed + 1) for seed in seeds])).x_t
    assert torch.equal(again, batch) and not torch.equal(other, batch)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("grid", [COSINE.grid(7), [(50, 30), (30, 20)]], ids=["to 0", "to 20"])
def test_a_step_carries_x_t_and_what_the_denoiser_saw_in_it(name, grid):
    x_T = randn(2, 1, 4, 4)
    before, kept = x_T.clone(), []
    for step in SAMPLERS[name](network(COSINE), x_T, COSINE, grid, seeded(0)):
        kept.append((step, step.x_t.clone(), step.x_0_hat.clone()))
    steps = [step for step, _, _ in kept]
    assert torch.equal(steps[0].x_t, x_T) and [step.t for step in steps] == [50, *(s for _, s in grid)]
    for step in steps[:-1]:
        assert torch.equal(step.x_0_hat, network(COSINE)(step.x_t, torch.full((2,), step.t)))
    if grid[-1][1] == 0:
        assert_close(steps[-1].x_t, steps[-2].x_0_hat, rtol=0, atol=1e-12)
        assert torch.equal(steps[-1].x_0_hat, steps[-1].x_t)
    else:
        assert torch.equal(steps[-1].x_0_hat, steps[-2].x_0_hat)
    # and nothing is written over that was given or yielded
    assert torch.equal(x_T, before)
    assert all(torch.equal(step.x_t, a) and torch.equal(step.x_0_hat, b) for step, a, b in kept)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_keeps_no_graph_and_leaves_the_caller_s_gradients_on(name):
    weight = torch.ones((), requires_grad=True)
    for step in SAMPLERS[name](lambda x_t, t: weight * x_t, randn(2, 1, 4, 4), COSINE, COSINE.grid(3)):
        assert not step.x_t.requires_grad and not step.x_0_hat.requires_grad
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_grid_that_does_not_descend_is_refused_at_once(name):
    with pytest.raises(ValueError, match=r"needs 0 <= s < t <= T = 50, got t=20, s=30"):
        SAMPLERS[name](network(COSINE), randn(1, 1, 2, 2), COSINE, [(50, 20), (20, 30)])


# The likelihood

FLOW = Schedule.named("flow", 1024)  # ends in noise alone: x_T is N(0, 1), and nothing is left but the steps


def log_normal(x, m, v, t, schedule):
    """log p_t(x) of independent pixels N(m, v), exactly."""
    mean, var = marginal(m, v, t, schedule)
    return Normal(mean, math.sqrt(var)).log_prob(x).flatten(1).sum(1)


@pytest.mark.parametrize("m, v", [(0.0, 1.0), (-0.4, 0.25), (0.6, 0.05), (0.2, 2.0)])
def test_the_likelihood_of_a_gaussian_is_exact_to_second_order(m, v):
    mean, var = marginal(m, v, 64, FLOW)
    x, errors = mean + math.sqrt(var) * randn(3, 2, 2, 2), []
    for n in (20, 40, 80):
        got = log_likelihood(gaussian_oracle(m, v, FLOW), x, FLOW, grid_of(n, 64, FLOW), seeded(0))
        assert got.shape == (3,) and got.dtype == torch.float64
        errors.append(float((got - log_normal(x, m, v, 64, FLOW)).abs().max()))
    if (m, v) == (0.0, 1.0):  # which do not move
        assert max(errors) < 1e-9
    else:
        assert orders(errors) == pytest.approx([2, 2], abs=0.3) and errors[-1] < 0.05


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_the_likelihood_needs_no_grid(name):
    # all of T..1, where x is all but clean
    schedule, x = Schedule.named(name, 60), -0.4 + 0.5 * randn(3, 1, 2, 2)
    oracle = gaussian_oracle(-0.4, 0.25, schedule)
    got = log_likelihood(oracle, x, schedule, generator=seeded(0))
    assert torch.equal(got, log_likelihood(oracle, x, schedule, schedule.grid()[:-1], seeded(0)))
    assert_close(got, log_normal(x, -0.4, 0.25, 1, schedule), rtol=0, atol=0.02)


# four pixels that hang together
SIGMA = torch.tensor(
    [[0.5, 0.3, 0.1, 0.0], [0.3, 0.4, 0.2, -0.1], [0.1, 0.2, 0.3, 0.1], [0.0, -0.1, 0.1, 0.2]], dtype=torch.float64
)
MU = torch.tensor([0.3, -0.2, 0.5, 0.0], dtype=torch.float64)
NEAR_MU = MU.reshape(1, 1, 2, 2) + 0.3
EYE = torch.eye(4, dtype=torch.float64)
EVERY_SIGN = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 4).reshape(16, 1, 2, 2)


def correlated(x_t, t):
    """E[x_0 | x_t] of N(MU, SIGMA)."""
    signal, noise = (float(table[t[0]]) for table in (FLOW.sqrt_alpha_bar, FLOW.sqrt_one_minus_alpha_bar))
    gain = signal * SIGMA @ torch.linalg.inv(signal**2 * SIGMA + noise**2 * EYE)
    return (MU + (x_t.flatten(1) - signal * MU) @ gain.T).reshape(x_t.shape)


def log_correlated(x, t):
    signal, noise = FLOW.sqrt_alpha_bar[t], FLOW.sqrt_one_minus_alpha_bar[t]
    return MultivariateNormal(signal * MU, signal**2 * SIGMA + noise**2 * EYE).log_prob(x.flatten(1))


def test_probes_of_every_sign_are_unbiased_together(monkeypatch):
    # Hutchinson's estimate is off by the Jacobian's other entries, which all signs together cancel
    monkeypatch.setattr("tinyddpm.extensions.score_sde.noise_like", lambda x, generator=None: 3 * EVERY_SIGN)
    errors = []
    for n in (20, 40, 80):
        got = log_likelihood(correlated, NEAR_MU.expand(16, 1, 2, 2), FLOW, grid_of(n, 64, FLOW))
        assert float(got.std()) > 0.3  # each by itself is off by more
        errors.append(abs(float(got.mean() - log_correlated(NEAR_MU, 64))))
    assert orders(errors) == pytest.approx([2, 2], abs=0.3) and errors[-1] < 0.01


def test_probes_at_random_are_right_on_average_and_more_of_them_more_often():
    grid, n = grid_of(12, 64, FLOW), 400
    once, often = (
        log_likelihood(correlated, NEAR_MU.expand(n, 1, 2, 2), FLOW, grid, seeded(0), probes) for probes in (1, 4)
    )
    for got in (once, often):
        assert abs(float(got.mean() - log_correlated(NEAR_MU, 64))) < 3 * float(got.std()) / math.sqrt(n) + 0.02
    assert float(once.var() / often.var()) == pytest.approx(4, rel=0.25)


def test_probes_are_averaged():
    x, grid, together, apart = randn(2, 1, 2, 2), grid_of(10, 64, FLOW), seeded(0), seeded(0)
    several = log_likelihood(correlated, x, FLOW, grid, together, 3)
    single = [log_likelihood(correlated, x, FLOW, grid, apart) for _ in range(3)]
    assert_close(several, sum(single) / 3, rtol=0, atol=1e-10)
    assert float((single[0] - single[1]).abs().max()) > 0.01
    assert torch.equal(together.get_state(), apart.get_state())  # the same signs all the way: none is drawn anew


# a pixel that is dark or bright
WEIGHTS, MEANS, VARIANCES = column([0.3, 0.7]).flatten(), column([-0.6, 0.5]).flatten(), (0.02, 0.05)


def parts(x_t, t):
    """Signal, and for each of the two the variance at t and log of its weight in p_t, (b, 2)."""
    signal, noise = float(FLOW.sqrt_alpha_bar[t]), float(FLOW.sqrt_one_minus_alpha_bar[t])
    variance = signal**2 * torch.tensor(VARIANCES, dtype=torch.float64) + noise**2
    return (signal, variance, WEIGHTS.log() + Normal(signal * MEANS, variance.sqrt()).log_prob(x_t.reshape(-1, 1)))


def mixture(x_t, t):
    """E[x_0 | x_t] of the mixture: that of each of the two, as likely as it is."""
    signal, variance, logs = parts(x_t, int(t[0]))
    gain = signal * torch.tensor(VARIANCES, dtype=torch.float64) / variance
    each = MEANS + gain * (x_t.reshape(-1, 1) - signal * MEANS)
    return (logs.softmax(1) * each).sum(1).reshape(x_t.shape)


def test_the_likelihood_of_a_mixture_is_exact_to_second_order():
    x, errors = column(torch.linspace(-1.5, 1.5, 13).tolist()), []
    exact = parts(x, 64)[2].logsumexp(1)
    for n in (20, 40):
        errors.append(float((log_likelihood(mixture, x, FLOW, grid_of(n, 64, FLOW)) - exact).abs().max()))
    assert orders(errors) == pytest.approx([2], abs=0.3) and errors[-1] < 0.15


def test_a_density_adds_up_to_1():
    # by quadrature, whatever the denoiser: the ODE only moves mass; here one that belongs to no data
    x = column(torch.linspace(-6, 6, 601).tolist())
    for denoiser in (mixture, lambda x_t, t: 0.5 * (2 * x_t).sin()):
        density = log_likelihood(denoiser, x, FLOW, grid_of(20, 128, FLOW)).exp()
        assert float(torch.trapezoid(density, x.flatten())) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("grid", [None, COSINE.grid(7)[:-1], [(50, 30), (30, 10)]], ids=["all", "7", "to 10"])
def test_the_likelihood_asks_twice_a_step(grid):
    # at both ends of it; where the next begins, again at what it came to
    asked, walked = [], COSINE.grid()[:-1] if grid is None else grid

    def denoiser(x_t, t):
        asked.append(t.tolist())
        return 0.5 * x_t

    log_likelihood(denoiser, randn(2, 1, 2, 2), COSINE, grid)
    rising = [walked[-1][1]] + [t for t, _ in reversed(walked) for _ in (0, 1)][:-1]
    assert asked == [[t, t] for t in rising] and len(asked) == 2 * len(walked)


def test_the_likelihood_of_an_image_does_not_depend_on_its_batch():
    x, grid, seeds = randn(3, 1, 4, 4), COSINE.grid(7)[:-1], (11, 12, 13)
    run = partial(log_likelihood, network(COSINE), schedule=COSINE, grid=grid, probes=2)
    batch = run(x, generator=[seeded(seed) for seed in seeds])
    for k, seed in enumerate(seeds):
        assert_close(run(x[k : k + 1], generator=seeded(seed)), batch[k : k + 1], rtol=0, atol=1e-9)
    assert torch.equal(run(x, generator=[seeded(seed) for seed in seeds]), batch)
    assert not torch.allclose(run(x, generator=[seeded(seed + 1) for seed in seeds]), batch, atol=1e-3)


def test_the_likelihood_takes_images_in_float32_and_writes_over_nothing(monkeypatch):
    x = randn(3, 1, 4, 4, dtype=torch.float32)
    before = x.clone()
    got = log_likelihood(network(COSINE), x, COSINE, COSINE.grid(7)[:-1], seeded(0))
    assert got.dtype == torch.float64 and torch.equal(x, before)
    monkeypatch.setattr(
        "tinyddpm.extensions.score_sde.noise_like", lambda x, generator: noise_like(x.float(), generator)
    )
    exact = log_likelihood(network(COSINE), x.double(), COSINE, COSINE.grid(7)[:-1], seeded(0))
    assert_close(got, exact, rtol=1e-5, atol=1e-4)


def test_a_likelihood_under_no_grad_is_the_same_and_leaves_no_graph():
    conv = torch.nn.Conv2d(1, 1, 3, padding=1)
    denoiser = make_denoiser(lambda x_t, t: conv(x_t).tanh(), COSINE, "v")
    x, grid = randn(2, 1, 4, 4, dtype=torch.float32), COSINE.grid(5)[:-1]
    plain = log_likelihood(denoiser, x, COSINE, grid, seeded(0))
    assert torch.is_grad_enabled()
    with torch.no_grad():
        under = log_likelihood(denoiser, x, COSINE, grid, seeded(0))
        assert not torch.is_grad_enabled()
    assert torch.equal(plain, under) and not plain.requires_grad
    assert conv.weight.grad is None and conv.weight.requires_grad


def test_a_likelihood_leaves_no_graph_of_an_image_that_asks_for_one():
    # half a gradient, through the noise's density but not the stretching, would be a wrong one
    x = randn(2, 1, 4, 4).requires_grad_()
    got = log_likelihood(network(COSINE), x, COSINE, COSINE.grid(5)[:-1], seeded(0))
    assert not got.requires_grad and x.grad is None


@pytest.mark.parametrize(
    "grid, probes, found",
    [
        (COSINE.grid(), 1, r"probes=1 and 50\.\.0"),
        ([(49, 1)], 1, r"probes=1 and 49\.\.1"),
        (None, 0, r"probes=0 and 50\.\.1"),
    ],
    ids=["to 0", "from 49", "no probe"],
)
def test_a_likelihood_to_the_image_itself_from_below_T_or_without_a_probe_is_refused(grid, probes, found):
    with pytest.raises(
        ValueError, match=rf"at least 1 probe, and a grid from T = 50 down to 1 or above .* got {found}"
    ):
        log_likelihood(network(COSINE), randn(1, 1, 2, 2), COSINE, grid, probes=probes)
