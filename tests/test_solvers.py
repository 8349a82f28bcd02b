"""The solvers of second order: how fast their errors shrink, and each step against formulas and diffusers.

On data N(m, v) the probability-flow ODE is solved in closed form: (x_t - sqrt(alpha_bar_t) m) keeps its place
among the noisy data, whose variance is alpha_bar_t v + 1 - alpha_bar_t.
"""

import math
import warnings
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tinyddpm.datasets.named import torchvision_datasets
from tinyddpm.diffusion import make_denoiser
from tinyddpm.guidance import clip_x_0
from tinyddpm.oracle import dataset_oracle, gaussian_oracle
from tinyddpm.samplers import ddim, dpm_solver_pp, heun, last
from tinyddpm.schedules import BETAS, Schedule

COSINE = Schedule.named("cosine", 50)
SOLVERS = {"heun": heun, "dpm_solver_pp": dpm_solver_pp}
ORDERS = {"ddim": (ddim, 1), "heun": (heun, 2), "dpm_solver_pp": (dpm_solver_pp, 2)}
PURE_NOISE = ("linear-zero-snr", "flow")  # x_T is noise alone
DATA = [(0.3, 0.2), (0.0, 0.05), (0.6, 0.25)]


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def column(values):
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1)


@cache
def long(name):
    """A chain so long that its whole times lie nowhere in the way of an order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schedule.named(name, 4096)


def exact(x_t, t, s, m, v, schedule):
    a, b = schedule.alpha_bar[t], schedule.alpha_bar[s]
    return b.sqrt() * m + ((b * v + 1 - b) / (a * v + 1 - a)).sqrt() * (x_t - a.sqrt() * m)


def model(x_t, t):
    """Stands for a network, and is far from linear."""
    return (1.3 * x_t + 0.1 * t.reshape(-1, 1, 1, 1) / 50).sin()


# How fast the error shrinks


def errors(sampler, grid, schedule):
    """The largest error for each of DATA, on four images."""
    x_T = column([-1.5, -0.2, 0.7, 2.0] * len(DATA))
    mean, variance = (column([d[i] for d in DATA for _ in range(4)]) for i in (0, 1))
    got = last(sampler(gaussian_oracle(mean, variance, schedule), x_T, schedule, grid)).x_t
    away = got - exact(x_T, grid[0][0], grid[-1][1], mean, variance, schedule)
    return away.abs().reshape(len(DATA), 4).amax(1)


def orders(errors):
    """log2 of each error's ratio to the next, at half the step."""
    return [(a / b).log2().tolist() for a, b in zip(errors, errors[1:])]


def even(n):
    """From 3T/4 to T/4 in n even steps."""
    times = [3072 - 2048 * k // n for k in range(n + 1)]
    return list(zip(times, times[1:]))


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("kind", BETAS)
def test_the_order_on_the_way_is_1_for_ddim_and_2_for_the_solvers(kind, name):
    sampler, order = ORDERS[name]
    for found in orders([errors(sampler, even(n), long(kind)) for n in (32, 64, 128)]):
        assert found == pytest.approx([order] * len(DATA), abs=0.17)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("kind", ["linear", "cosine", "cosine-shifted", *PURE_NOISE])
def test_the_order_of_a_whole_run_is_the_same_on_a_log_snr_grid(kind, name):
    # Down to t = 0: the last step is of first order, and so short here that it costs none. More steps than
    # these meet the whole times near t = 1.
    (sampler, order), schedule = ORDERS[name], long(kind)
    (found,) = orders([errors(sampler, schedule.grid(n, "log-snr"), schedule) for n in (32, 64)])
    assert found == pytest.approx([order] * len(DATA), abs=0.2)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", ["linear", "cosine", "flow"])
def test_a_solver_of_second_order_beats_ddim_at_the_same_number_of_calls(kind, name):
    schedule = long(kind)
    grid = schedule.grid(48, "log-snr")
    of_solver = errors(SOLVERS[name], schedule.grid(24, "log-snr") if name == "heun" else grid, schedule)
    assert (of_solver < errors(ddim, grid, schedule) / 2).all()


@cache
def three_points():
    """Three points, four images at t = 3T/4, and where the points' exact denoiser leads these at T/4: by the
    classical rule of Runge and Kutta on dx / d phi = (cos(phi) x - x_0_hat) / sin(phi), which is v."""
    points, x_t = randn(3, 1, 1, 2, seed=4) / 2, randn(4, 1, 1, 2, seed=3)
    flat, x = points.flatten(1), x_t.flatten(1)

    def slope(x, phi):
        closeness = math.cos(phi) * x @ flat.T - math.cos(phi) ** 2 * flat.square().sum(1) / 2
        x_0_hat = (closeness / math.sin(phi) ** 2).softmax(1) @ flat
        return (math.cos(phi) * x - x_0_hat) / math.sin(phi)

    phi, end = (float(long("cosine").sqrt_alpha_bar[t].acos()) for t in (3072, 1024))
    h = (end - phi) / 200
    for _ in range(200):
        k1 = slope(x, phi)
        k2 = slope(x + h / 2 * k1, phi + h / 2)
        k3 = slope(x + h / 2 * k2, phi + h / 2)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + h * k3, phi + h))
        phi = phi + h
    return points, x_t, x.reshape(x_t.shape)


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_is_the_same_where_the_denoiser_is_not_linear(name):
    # the paths between three points bend
    (sampler, order), schedule = ORDERS[name], long("cosine")
    points, x_t, end = three_points()
    oracle = dataset_oracle(points, schedule)
    away = [(last(sampler(oracle, x_t, schedule, even(n))).x_t - end).abs().max() for n in (64, 128, 256)]
    assert orders(away) == pytest.approx([order] * 2, abs=0.15)


# Heun, against the rule itself


@pytest.mark.parametrize("kind", ["linear", "cosine", "flow"])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "log-snr"])
def test_heun_is_the_mean_of_two_slopes_of_a_network_that_predicts_v(kind, spacing):
    # dx / d phi = v: no conversion is needed for the reference. diffusers has a Heun of its own, which cannot
    # be compared: it takes the slopes in noise / signal of x / signal, where pure noise lies at infinity.
    schedule, x = Schedule.named(kind, 50), randn(3, 1, 4, 4)
    phi = schedule.sqrt_alpha_bar.acos().tolist()
    grid = schedule.grid(7, spacing)
    steps = heun(make_denoiser(model, schedule, "v"), x, schedule, grid)
    for (t, s), step in zip(grid, steps):
        assert_close(step.x_t, x, rtol=0, atol=1e-9)
        slope, turn = model(x, torch.full((3,), t)), phi[s] - phi[t]
        ahead = model(x + turn * slope, torch.full((3,), s))
        # the last step takes x_0_hat itself, which the network's v says at t
        x_0_hat = math.cos(phi[t]) * x - math.sin(phi[t]) * slope
        x = x_0_hat if s == 0 else x + turn * (slope + ahead) / 2
    assert_close(last(steps).x_t, x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["linear", "cosine", *PURE_NOISE])
def test_heun_of_unit_data_stands_still_until_its_last_step(kind):
    # N(0, 1) plus noise is N(0, 1) at every t: v is 0
    schedule, x_T = Schedule.named(kind, 50), randn(2, 1, 2, 2)
    *steps, end = heun(gaussian_oracle(0.0, 1.0, schedule), x_T, schedule, schedule.grid(7))
    for step in steps:
        assert_close(step.x_t, x_T, rtol=0, atol=1e-13)
    assert_close(end.x_t, schedule.sqrt_alpha_bar[steps[-1].t] * x_T, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["linear", "cosine", *PURE_NOISE])
def test_heun_of_shifted_unit_data_is_the_trapezoid_rule(kind):
    # N(m, 1): v = -sin(phi) m wherever x is
    schedule, x, m = Schedule.named(kind, 50), randn(2, 1, 2, 2), 0.7
    phi, sin = schedule.sqrt_alpha_bar.acos().tolist(), schedule.sqrt_one_minus_alpha_bar.tolist()
    grid = [(50, 43), (43, 20), (20, 3)]
    for (t, s), step in zip(grid, heun(gaussian_oracle(m, 1.0, schedule), x, schedule, grid)):
        assert_close(step.x_t, x, rtol=0, atol=1e-12)
        x = x - (phi[s] - phi[t]) * m * (sin[t] + sin[s]) / 2


# DPM-Solver++, against diffusers


def theirs(schedule, grid, prediction_type, **kwargs):
    """The scheduler of diffusers with our tables and our times, which it counts from 0."""
    torchvision_datasets()  # so that torchvision, which it imports, can be there without its operators
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DPMSolverMultistepScheduler(
        schedule.T,
        algorithm_type="dpmsolver++",
        solver_order=2,
        lower_order_final=True,
        final_sigmas_type="zero",
        prediction_type=prediction_type,
        **kwargs,
    )
    scheduler.betas, scheduler.alphas_cumprod = schedule.beta[1:], schedule.alpha_bar[1:]
    scheduler.set_timesteps(timesteps=[t - 1 for t, _ in grid])
    return scheduler


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # between diffusers and numpy
@pytest.mark.parametrize("predicts, theirs_for_it", [("eps", "epsilon"), ("x_0", "sample"), ("v", "v_prediction")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["linear", "cosine", "sigmoid"])
def test_dpm_solver_pp_is_that_of_diffusers(kind, dtype, predicts, theirs_for_it):
    # Its steps are in float32 whatever it is given. Not compared: chains that end in pure noise, where its
    # first sigma would be infinite (it leaves a signal of 2^-12 there), and grids that stop above 0.
    schedule = Schedule.named(kind, 50)
    denoiser = make_denoiser(model, schedule, predicts)
    for steps, spacing in (
        (50, "uniform"),
        (14, "uniform"),
        (15, "log-snr"),
        (7, "quadratic"),
        (2, "uniform"),
        (1, "uniform"),
    ):
        grid, x_t = schedule.grid(steps, spacing), randn(3, 1, 4, 4, dtype=dtype)
        scheduler = theirs(schedule, grid, theirs_for_it)
        ours = dpm_solver_pp(denoiser, x_t, schedule, grid)
        for timestep, step in zip(scheduler.timesteps.tolist(), ours):
            assert step.t == timestep + 1 and same(step.x_t, x_t)
            x_t = scheduler.step(model(x_t, torch.full((3,), step.t)), timestep, x_t).prev_sample
        assert same(last(ours).x_t, x_t)


def same(a, b):
    """Within 1e-5 of the largest value: eps is turned into x_0 of thousands near t = T."""
    return float((a - b).abs().max()) < 1e-5 * max(1.0, float(b.abs().max()))


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
@pytest.mark.parametrize("kind", ["cosine", *PURE_NOISE])
def test_the_first_step_and_the_last_of_dpm_solver_pp_are_those_of_ddim(kind, steps):
    # also where the last one stops above 0
    schedule = Schedule.named(kind, 50)
    denoiser = make_denoiser(model, schedule, "v")
    for grid in (schedule.grid(steps), [(t, s) for t, s in schedule.grid(50) if s >= 50 - steps]):
        walk = list(dpm_solver_pp(denoiser, randn(2, 1, 4, 4), schedule, grid))
        for k in (0, len(grid) - 1):
            alone = last(ddim(denoiser, walk[k].x_t, schedule, [grid[k]])).x_t
            assert_close(walk[k + 1].x_t, alone, rtol=0, atol=1e-12)


def test_between_them_dpm_solver_pp_aims_half_a_step_ahead():
    # a denoiser that is a line in lambda = log-SNR / 2, whatever x: the aim is its value half a step ahead
    lam = COSINE.log_snr / 2

    def line(x_t, t):
        return 0 * x_t + 0.2 + 0.1 * lam[t].reshape(-1, 1, 1, 1)

    grid = [(45, 40), (40, 25), (25, 20), (20, 6)]
    walk = list(dpm_solver_pp(line, randn(2, 1, 4, 4), COSINE, grid))
    for k, (t, s) in list(enumerate(grid))[1:-1]:
        signal, noise = COSINE.sqrt_alpha_bar, COSINE.sqrt_one_minus_alpha_bar
        aim = 0.2 + 0.1 * float(lam[t] + lam[s]) / 2
        eps = (walk[k].x_t - signal[t] * aim) / noise[t]
        assert_close(walk[k + 1].x_t, signal[s] * aim + noise[s] * eps, rtol=0, atol=1e-12)


# Where theory leaves no error


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("kind", ["linear", "cosine", *PURE_NOISE])
@pytest.mark.parametrize("spacing", ["uniform", "quadratic", "log-snr"])
def test_a_point_is_found_in_any_number_of_steps(kind, spacing, name):
    schedule, x_T = Schedule.named(kind, 50), randn(2, 1, 2, 2)
    for steps in (1, 2, 7, 50):
        run = SOLVERS[name](gaussian_oracle(0.3, 0.0, schedule), x_T, schedule, schedule.grid(steps, spacing))
        assert_close(last(run).x_t, torch.full_like(x_T, 0.3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "cosine", *PURE_NOISE])
def test_dpm_solver_pp_walks_straight_to_a_point(kind):
    # every x_0_hat is the same: the noise that is left of x_T is never changed
    schedule, x_T = Schedule.named(kind, 50), randn(2, 1, 2, 2)
    run = dpm_solver_pp(gaussian_oracle(0.3, 0.0, schedule), x_T, schedule, schedule.grid(9))
    for step in run:
        assert_close(step.x_t, exact(x_T, 50, step.t, 0.3, 0.0, schedule), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("predicts", ["x_0", "v", "flow"])
@pytest.mark.parametrize("kind", PURE_NOISE)
def test_a_run_from_pure_noise_is_finite_with_every_prediction(kind, predicts, dtype, name):
    schedule, x_T = Schedule.named(kind, 50), randn(2, 1, 4, 4, dtype=dtype)
    denoiser = make_denoiser(model, schedule, predicts)
    for spacing in ("uniform", "quadratic", "log-snr"):
        for steps in (1, 2, 7, 50):
            for step in SOLVERS[name](denoiser, x_T, schedule, schedule.grid(steps, spacing)):
                assert step.x_t.isfinite().all() and step.x_0_hat.isfinite().all()
                assert float(step.x_t.abs().max()) < 20


@pytest.mark.parametrize("kind", PURE_NOISE)
def test_pure_noise_is_the_limit_of_little_signal_for_heun(kind):
    beta = Schedule.named(kind, 50).beta
    nearly = beta.clone()
    nearly[-1] -= 1e-16
    assert nearly[-1] < 1
    ends = [
        last(heun(make_denoiser(model, schedule, "v"), randn(2, 1, 4, 4), schedule, schedule.grid(7))).x_t
        for schedule in (Schedule(beta), Schedule(nearly))
    ]
    assert_close(ends[0], ends[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", PURE_NOISE)
def test_dpm_solver_pp_draws_no_line_from_pure_noise(kind):
    # T lies infinitely far in lambda: a line through it is flat, and the second step is that of ddim as well
    schedule = Schedule.named(kind, 50)
    denoiser, grid = make_denoiser(model, schedule, "v"), schedule.grid(7)
    pairs = zip(*(f(denoiser, randn(2, 1, 4, 4), schedule, grid) for f in (dpm_solver_pp, ddim)))
    apart = [float((a.x_t - b.x_t).abs().max()) for a, b in pairs]
    assert max(apart[:3]) < 1e-12 and apart[3] > 1e-3


@settings(max_examples=60, deadline=None)
@given(
    beta=st.lists(st.floats(1e-5, 0.9999), min_size=1, max_size=12),
    pure_noise=st.booleans(),
    name=st.sampled_from(sorted(SOLVERS)),
    seed=st.integers(0, 9),
)
def test_a_run_over_any_schedule_is_finite(beta, pure_noise, name, seed):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = Schedule(torch.tensor([0.0, *beta, *[1.0] * pure_noise], dtype=torch.float64))
    for step in SOLVERS[name](gaussian_oracle(0.2, 0.1, schedule), randn(2, 1, 1, 1, seed=seed), schedule):
        assert step.x_t.dtype == torch.float64 and step.x_t.isfinite().all()


# Generators of steps


@pytest.mark.parametrize("steps", [None, 7, 2, 1])
@pytest.mark.parametrize("name, calls", [("heun", 2), ("dpm_solver_pp", 1)])
def test_heun_asks_twice_a_step_but_the_last_and_dpm_solver_pp_once(name, calls, steps):
    asked = []

    def denoiser(x_t, t):
        asked.append(t.tolist())
        return 0 * x_t

    grid = COSINE.grid(steps)
    run = SOLVERS[name](denoiser, randn(2, 1, 4, 4), COSINE, None if steps is None else grid)
    assert asked == []
    assert [step.t for step in run] == [t for t, _ in grid] + [0]
    at = [[t, s] if calls == 2 and s > 0 else [t] for t, s in grid]
    assert asked == [[t, t] for both in at for t in both]


def test_heun_that_stops_above_0_asks_twice_in_its_last_step_too():
    asked = []

    def denoiser(x_t, t):
        asked.append(int(t[0]))
        return 0 * x_t

    end = last(heun(denoiser, randn(2, 1, 4, 4), COSINE, [(50, 30), (30, 10)]))
    assert asked == [50, 30, 30, 10] and end.t == 10


@pytest.mark.parametrize("name", SOLVERS)
def test_a_step_carries_x_t_and_what_the_denoiser_saw_in_it(name):
    denoiser, x_T = clip_x_0(make_denoiser(model, COSINE, "v")), randn(2, 1, 4, 4)
    steps = list(SOLVERS[name](denoiser, x_T, COSINE, COSINE.grid(7)))
    assert torch.equal(steps[0].x_t, x_T)
    for step in steps[:-1]:
        assert torch.equal(step.x_0_hat, denoiser(step.x_t, torch.full((2,), step.t)))


@pytest.mark.parametrize("name", SOLVERS)
def test_the_last_x_0_hat_is_the_finished_image(name):
    denoiser = clip_x_0(make_denoiser(model, COSINE, "eps"))
    *_, before, end = SOLVERS[name](denoiser, randn(2, 1, 4, 4), COSINE, COSINE.grid(7))
    assert end.t == 0 and before.t > 0
    assert torch.equal(end.x_t, before.x_0_hat) and torch.equal(end.x_t, end.x_0_hat)
    assert float(end.x_t.abs().max()) <= 1


@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_that_stops_above_0_ends_in_a_noisy_image_and_the_x_0_hat_before_it(name):
    denoiser = make_denoiser(model, COSINE, "v")
    *_, before, end = SOLVERS[name](denoiser, randn(2, 1, 4, 4), COSINE, [(50, 30), (30, 10)])
    assert (before.t, end.t) == (30, 10)
    assert torch.equal(end.x_0_hat, before.x_0_hat) and not torch.equal(end.x_0_hat, end.x_t)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_in_two_pieces_of_heun_is_the_run_in_one(name):
    # heun knows nothing of the steps before; the line of dpm_solver_pp begins anew
    denoiser, x_T = make_denoiser(model, COSINE, "v"), randn(2, 1, 4, 4)
    grid = COSINE.grid(10)
    half = last(SOLVERS[name](denoiser, x_T, COSINE, grid[:5])).x_t
    pieces = last(SOLVERS[name](denoiser, half, COSINE, grid[5:])).x_t
    apart = float((pieces - last(SOLVERS[name](denoiser, x_T, COSINE, grid)).x_t).abs().max())
    assert apart < 1e-13 if name == "heun" else apart > 1e-6


@pytest.mark.parametrize("name", SOLVERS)
def test_an_image_of_a_batch_is_the_image_it_would_be_alone(name):
    denoiser, x_T = clip_x_0(make_denoiser(model, COSINE, "v")), randn(3, 1, 4, 4, dtype=torch.float32)
    batch = last(SOLVERS[name](denoiser, x_T, COSINE, COSINE.grid(7))).x_t
    for k in range(3):
        alone = last(SOLVERS[name](denoiser, x_T[k : k + 1], COSINE, COSINE.grid(7))).x_t
        assert_close(batch[k : k + 1], alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SOLVERS)
def test_not_one_number_is_drawn(name):
    state = torch.get_rng_state()
    last(SOLVERS[name](make_denoiser(model, COSINE, "v"), randn(2, 1, 4, 4), COSINE, COSINE.grid(5)))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", SOLVERS)
def test_a_solver_keeps_no_graph_and_leaves_the_caller_s_gradients_on(name):
    weight = torch.ones((), requires_grad=True)
    for step in SOLVERS[name](lambda x_t, t: weight * x_t, randn(2, 1, 4, 4), COSINE, COSINE.grid(3)):
        assert not step.x_t.requires_grad and not step.x_0_hat.requires_grad
        assert torch.is_grad_enabled()


@pytest.mark.parametrize("name", SOLVERS)
def test_no_step_writes_over_what_was_given_or_yielded(name):
    # trap 30
    x_T, kept = randn(2, 1, 4, 4), []
    before = x_T.clone()
    for step in SOLVERS[name](make_denoiser(model, COSINE, "v"), x_T, COSINE, COSINE.grid(5)):
        kept.append((step, step.x_t.clone(), step.x_0_hat.clone()))
    assert torch.equal(x_T, before)
    assert all(torch.equal(step.x_t, a) and torch.equal(step.x_0_hat, b) for step, a, b in kept)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_run_keeps_the_dtype_of_x_T(name, dtype):
    x_T = randn(2, 1, 4, 4, dtype=dtype)
    for step in SOLVERS[name](gaussian_oracle(0.1, 0.2, COSINE), x_T, COSINE, COSINE.grid(3)):
        assert step.x_t.dtype == step.x_0_hat.dtype == dtype


@pytest.mark.parametrize("name", SOLVERS)
def test_a_run_never_looks_at_values_on_a_device(name):
    # trap 31: meta tensors have no values, so that a look (a stall on a GPU) raises
    x_T = torch.zeros(2, 1, 4, 4, device="meta")
    run = SOLVERS[name](gaussian_oracle(0.1, 0.2, COSINE), x_T, COSINE, COSINE.grid(3))
    assert last(run).x_t.device.type == "meta"


# What is refused, and in which words
