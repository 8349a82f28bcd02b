"""From image to image, against exact Gaussian algebra and diffusers (whose t is ours - 1).

On data N(m, v) the probability-flow ODE only shifts and scales: it takes N(m, v) to N(sqrt(abar_T) m,
abar_T v + 1 - abar_T), pixel by pixel and in order. Inversion and transfer are held to that map.
"""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tinyddpm.datasets.named import torchvision_datasets
from tinyddpm.diffusion import make_denoiser, q_sample
from tinyddpm.editing.inpainting import resampling_grid
from tinyddpm.editing.inversion import invert, round_trip_error, sdedit, slerp, transfer
from tinyddpm.extensions.score_sde import euler_maruyama, predictor_corrector
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.samplers import ddim, dpm_solver_pp, heun, last, noise_like, p_sample_loop
from tinyddpm.schedules import BETAS, Schedule

COSINE = Schedule.named("cosine", 50)
LINEAR = Schedule.named("linear", 1000)
NOISY = {
    "p_sample_loop": p_sample_loop,
    "ddim": partial(ddim, eta=0.5),
    "euler_maruyama": euler_maruyama,
    "predictor_corrector": predictor_corrector,
}


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def model(x_t, t):
    """Stands for a network: eps_hat, neither affine nor right."""
    return (1.3 * x_t + 0.1 * t.reshape(-1, 1, 1, 1) / 50).sin()


def network(schedule):
    return make_denoiser(model, schedule, "eps")


# SDEdit


@pytest.mark.parametrize("start", [50, 31, 1])
def test_sdedit_begins_where_the_grid_does_with_the_noise_of_q_sample(start):
    x_0, grid = randn(3, 1, 4, 4), COSINE.grid(1, start=start)
    for generator, again in ((seeded(3), seeded(3)), ([seeded(k) for k in (1, 2, 3)], [seeded(k) for k in (1, 2, 3)])):
        first = next(sdedit(network(COSINE), x_0, COSINE, grid, generator=generator))
        assert first.t == start
        assert torch.equal(first.x_t, q_sample(x_0, start, noise_like(x_0, again), COSINE))


@pytest.mark.parametrize("sampler", [ddim, heun, dpm_solver_pp])
def test_after_its_noise_sdedit_is_the_sampler(sampler):
    x_0, grid = randn(3, 1, 4, 4), COSINE.grid(5, start=31)
    x_31 = q_sample(x_0, 31, noise_like(x_0, seeded(3)), COSINE)
    by_hand = sampler(network(COSINE), x_31, COSINE, grid)
    for a, b in zip(sdedit(network(COSINE), x_0, COSINE, grid, sampler, seeded(3)), by_hand, strict=True):
        assert a.t == b.t and torch.equal(a.x_t, b.x_t) and torch.equal(a.x_0_hat, b.x_0_hat)


@pytest.mark.parametrize("name", NOISY)
def test_the_sampler_draws_its_noise_from_the_same_generator(name):
    x_0, grid, g = randn(3, 1, 4, 4), COSINE.grid(5, start=31), seeded(3)
    x_31 = q_sample(x_0, 31, noise_like(x_0, g), COSINE)
    by_hand = last(NOISY[name](network(COSINE), x_31, COSINE, grid, generator=g)).x_t
    assert torch.equal(last(sdedit(network(COSINE), x_0, COSINE, grid, NOISY[name], seeded(3))).x_t, by_hand)


def test_an_edited_image_of_a_batch_is_the_one_its_generator_gives_alone():
    x_0, grid = randn(3, 1, 4, 4, dtype=torch.float32), COSINE.grid(5, start=31)

    def edited(chosen):
        generators = [seeded(k) for k in chosen]
        return last(sdedit(network(COSINE), x_0[chosen], COSINE, grid, p_sample_loop, generators)).x_t

    batch = edited([0, 1, 2])
    for k in range(3):
        assert_close(batch[k : k + 1], edited([k]), rtol=0, atol=1e-6)


def test_the_less_noise_the_more_of_the_image_stays():
    # at t = 1 all of it but the first beta's noise; from T nothing
    schedule, x_0 = Schedule.named("cosine", 1000), 0.3 + 0.4 * randn(64, 1, 4, 4)
    oracle = gaussian_oracle(0.3, 0.16, schedule)
    correlations, distances = [], []
    for start in (1, 100, 400, 700, 1000):
        grid = schedule.grid(min(start, 10), start=start)
        edited = last(sdedit(oracle, x_0, schedule, grid, generator=seeded(1))).x_t
        distances.append(float((edited - x_0).square().mean().sqrt()))
        correlations.append(float(torch.corrcoef(torch.stack([edited.flatten(), x_0.flatten()]))[0, 1]))
    assert distances == sorted(distances) and correlations == sorted(correlations, reverse=True)
    assert distances[0] < 1.05 * math.sqrt(float(schedule.beta[1])) < 0.01
    assert correlations[0] > 0.999 and abs(correlations[-1]) < 0.1


KEEP_THE_MEAN = {"ddim 0": ddim, **NOISY}
del KEEP_THE_MEAN["euler_maruyama"]  # its mean is right to first order only: test_score_sde.py has it


@pytest.mark.parametrize("name", KEEP_THE_MEAN)
@pytest.mark.parametrize("start", [50, 20])
def test_images_around_the_data_s_mean_keep_it(name, start, monkeypatch):
    # every step is affine on Gaussian data, so that noise and its mirror image end around the mean exactly
    x_0, noise = torch.full((2, 1, 4, 4), 0.3, dtype=torch.float64), randn(2, 1, 4, 4)
    ends = []
    for mirrored in (noise, -noise):
        for room in ("editing.inversion", "samplers", "extensions.score_sde"):
            monkeypatch.setattr(f"tinyddpm.{room}.noise_like", lambda x, generator=None, z=mirrored: z)
        run = sdedit(gaussian_oracle(0.3, 0.2, COSINE), x_0, COSINE, COSINE.grid(7, start=start), KEEP_THE_MEAN[name])
        ends.append(last(run).x_t)
    assert not torch.allclose(ends[0], x_0, atol=0.1)
    assert_close((ends[0] + ends[1]) / 2, x_0, rtol=0, atol=1e-10)


def test_sdedit_refuses_a_grid_at_once():
    with pytest.raises(ValueError, match=r"0 <= s < t <= T = 50, got t=51, s=0"):
        sdedit(network(COSINE), randn(1, 1, 4, 4), COSINE, [(51, 0)])


def test_sdedit_leaves_it_to_the_sampler_which_grids_it_walks():
    x_0, grid = randn(2, 1, 4, 4), resampling_grid(COSINE.grid(6, start=30), jump=2, repeats=2)
    times = [step.t for step in sdedit(network(COSINE), x_0, COSINE, grid, p_sample_loop)]
    assert times == [t for t, _ in grid] + [0]
    with pytest.raises(ValueError, match="only p_sample_loop climbs"):
        sdedit(network(COSINE), x_0, COSINE, grid, ddim)


# Inversion


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize("name, steps", [("linear", 50), ("linear", 10), ("cosine", 25), ("sigmoid", 5)])
def test_inversion_is_that_of_diffusers(name, steps, spacing):
    # its pipelines ask the network at the time that a step goes to, and pass that one to step() as well
    torchvision_datasets()  # diffusers imports torchvision, which needs our door beside a torch for the CPU
    diffusers = pytest.importorskip("diffusers")
    schedule = Schedule.named(name, 50)
    scheduler = diffusers.DDIMInverseScheduler(
        50, clip_sample=False, set_alpha_to_one=True, timestep_spacing=spacing, prediction_type="epsilon"
    )
    scheduler.betas, scheduler.alphas_cumprod = schedule.beta[1:], schedule.alpha_bar[1:]
    scheduler.set_timesteps(steps)
    times = [0, *(timestep + 1 for timestep in scheduler.timesteps.tolist())]
    grid = list(zip(times[:0:-1], times[-2::-1]))
    if spacing == "trailing":
        assert grid == schedule.grid(steps)
    # leading steps go to 1, 1 + 50 / steps, ..., but step() takes each for as long as the others, so that
    # the first comes from below 0, where alpha_bar is 1
    x_t = randn(3, 1, 4, 4)
    ours = invert(network(schedule), x_t, schedule, grid)
    assert torch.equal(next(ours).x_t, x_t)
    for timestep, step in zip(scheduler.timesteps.tolist(), ours, strict=True):
        assert step.t == timestep + 1
        out = model(x_t, torch.full((3,), step.t))
        x_t = scheduler.step(out, timestep, x_t).prev_sample
        assert_close(step.x_t, x_t, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("steps", [50, 33, 7, 1])
def test_inversion_of_unit_data_is_known_in_closed_form(steps):
    # N(0, 1): eps(x_s, t) = sin(phi_t) x_s, put where ddim's step has it
    phi, x_0, factor = COSINE.sqrt_alpha_bar.acos().tolist(), randn(2, 1, 2, 2), 1.0
    oracle, grid = gaussian_oracle(0.0, 1.0, COSINE), COSINE.grid(steps)
    for step, (t, s) in zip(invert(oracle, x_0, COSINE, grid), [(0, 0), *reversed(grid)], strict=True):
        if t > 0:
            x_0_part = (1 - math.sin(phi[s]) * math.sin(phi[t])) / math.cos(phi[s])
            factor *= math.cos(phi[t]) * x_0_part + math.sin(phi[t]) ** 2
        assert step.t == t
        assert_close(step.x_t, factor * x_0, rtol=0, atol=1e-10)


# (slope, shift) of an affine map of one pixel
PIXELS = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)


def affine(x):
    at_0, at_1 = x.flatten().tolist()
    return at_1 - at_0, at_0


def flow(m, v, schedule):
    """(slope, shift) of the exact way of N(m, v) to noise at T."""
    abar = float(schedule.alpha_bar[-1])
    slope = math.sqrt((abar * v + 1 - abar) / v)
    return slope, math.sqrt(abar) * m - slope * m


@pytest.mark.parametrize("m, v", [(0.0, 1.0), (-0.4, 0.25), (0.6, 0.05)])
def test_inversion_tends_to_the_exact_flow_of_a_gaussian_as_the_grid_gets_finer(m, v):
    # to first order: each halving of the steps halves the error
    oracle, errors = gaussian_oracle(m, v, LINEAR), []
    for n in (75, 150):
        found = affine(last(invert(oracle, PIXELS, LINEAR, LINEAR.grid(n))).x_t)
        errors.append(math.dist(found, flow(m, v, LINEAR)))
    for coarse, fine in zip(errors, errors[1:]):
        assert coarse / fine == pytest.approx(2, abs=0.15)
    assert errors[-1] < 0.12


def test_each_iteration_leaves_the_same_share_of_one_step_s_error():
    # on a Gaussian an iteration is affine: it multiplies the error by a number that the step's length sets
    x_s, t = 0.3 + 0.4 * randn(4, 1, 2, 2), 400
    oracle, weights = gaussian_oracle(0.3, 0.2, LINEAR), []
    for s in (300, 350, 375):
        grid = [(t, s)]
        errors = [float(round_trip_error(oracle, x_s, LINEAR, grid, n).max()) for n in (1, 2, 3, 4, 5)]
        ratios = [b / a for a, b in zip(errors[1:], errors[2:])]
        assert max(ratios) == pytest.approx(min(ratios), rel=1e-5)
        weights.append(ratios[0])
    assert weights[0] < 0.4 and weights[0] > 1.5 * weights[1] > 2.25 * weights[2]


@pytest.mark.parametrize("name", sorted(set(BETAS) - {"linear-unscaled"}))
def test_more_iterations_bring_the_round_trip_to_zero(name):
    # at least halved by each, on every schedule, and so also where x_T is noise alone or almost
    schedule, x_0 = Schedule.named(name, 1000), 0.3 + 0.4 * randn(4, 1, 2, 2)
    oracle, grid = gaussian_oracle(0.3, 0.2, schedule), schedule.grid(20)
    errors = [float(round_trip_error(oracle, x_0, schedule, grid, n).max()) for n in (1, 4, 7)]
    assert errors[0] > 0.01
    for fewer, more in zip(errors, errors[1:]):
        assert more < fewer / 8 or more < 1e-13


def test_iterations_also_serve_a_denoiser_that_is_not_affine():
    schedule, x_0 = Schedule.named("linear", 50), 0.3 * randn(2, 1, 4, 4)
    gentle = make_denoiser(lambda x_t, t: 0.9 * x_t.sin(), schedule, "eps")
    grid = schedule.grid(20)
    errors = [float(round_trip_error(gentle, x_0, schedule, grid, n).max()) for n in (1, 3, 40)]
    assert errors[0] > 2 * errors[1] and errors[2] < 1e-9


def test_the_first_iteration_asks_about_the_image_that_it_comes_from():
    asked, x_0 = [], randn(2, 1, 4, 4)

    def denoiser(x_t, t):
        asked.append(x_t)
        return 0.5 * x_t.sin()

    steps = list(invert(denoiser, x_0, COSINE, COSINE.grid(4), 2))
    for k, step in enumerate(steps[:-1]):
        assert torch.equal(asked[2 * k], step.x_t)
        assert not torch.equal(asked[2 * k + 1], step.x_t)


def test_images_do_not_mix_on_their_way_to_noise():
    x_0 = randn(3, 1, 4, 4)
    run = partial(invert, network(COSINE), schedule=COSINE, grid=COSINE.grid(5), iterations=2)
    batch = last(run(x_0=x_0)).x_t
    for k in range(3):
        assert_close(batch[k : k + 1], last(run(x_0=x_0[k : k + 1])).x_t, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_edits_keep_the_dtype_and_write_over_nothing(dtype):
    x_0, oracle, grid = randn(2, 1, 4, 4, dtype=dtype), gaussian_oracle(0.1, 0.2, COSINE), COSINE.grid(3)
    before, kept = x_0.clone(), []
    for run in (
        invert(oracle, x_0, COSINE, grid, 2),
        transfer(oracle, network(COSINE), x_0, COSINE, grid, 2),
        sdedit(oracle, x_0, COSINE, grid),
    ):
        for step in run:
            assert step.x_t.dtype == step.x_0_hat.dtype == dtype
            kept.append((step, step.x_t.clone(), step.x_0_hat.clone()))
    assert round_trip_error(oracle, x_0, COSINE, grid).dtype == dtype
    assert torch.equal(x_0, before)
    assert all(torch.equal(step.x_t, a) and torch.equal(step.x_0_hat, b) for step, a, b in kept)


def test_inversion_keeps_no_graph_and_leaves_the_caller_s_gradients_on():
    weight = torch.ones((), requires_grad=True, dtype=torch.float64)
    for step in invert(lambda x_t, t: weight * x_t, randn(2, 1, 4, 4), COSINE, COSINE.grid(3), 2):
        assert not step.x_t.requires_grad and not step.x_0_hat.requires_grad
        assert torch.is_grad_enabled()


@pytest.mark.parametrize(
    "schedule, grid, iterations, words",
    [
        (COSINE, [(0, 20), (20, 50)], 1, r"0 <= s < t <= T = 50, got t=0, s=20"),  # the sampler's grid, not reversed
        (COSINE, None, 0, "needs iterations >= 1, .* got 0"),
        (Schedule.named("flow", 100), [(100, 0)], 3, "shorter steps than 1.57 radians, got 3: take more steps"),
    ],
    ids=["ascending", "no iteration", "too long"],
)
def test_an_inversion_that_is_not_possible_is_refused_at_once(schedule, grid, iterations, words):
    x_0, oracle = randn(1, 1, 2, 2), gaussian_oracle(0.0, 0.2, schedule)
    for edit in (partial(invert, oracle), partial(transfer, oracle, oracle), partial(round_trip_error, oracle)):
        with pytest.raises(ValueError, match=words):
            edit(x_0, schedule, grid, iterations)
    assert last(invert(oracle, x_0, schedule, schedule.grid(1))).x_t.isfinite().all()


@pytest.mark.parametrize("grid", [None, COSINE.grid(4, start=31), [(40, 30), (30, 10)]])
def test_inversion_yields_its_steps_with_t_rising(grid):
    pairs, seen = COSINE.grid() if grid is None else grid, []
    for step in invert(network(COSINE), x_0 := randn(2, 1, 4, 4), COSINE, grid, 2):
        seen.append(step.t)
        assert len(seen) > 1 or torch.equal(step.x_t, x_0) and torch.equal(step.x_0_hat, x_0)
    assert seen == [pairs[-1][1], *(t for t, _ in reversed(pairs))]


@pytest.mark.parametrize("weight", [[0.1, 0.2, 0.3], 2.0, -0.1])
def test_weights_outside_0_to_1_or_of_another_number_and_other_shapes_are_refused_by_slerp(weight):
    a, b = randn(2, 1, 2, 2), randn(2, 1, 2, 2, seed=1)
    with pytest.raises(ValueError, match=r"one shape and weights in \[0, 1\], one or one for each image"):
        slerp(a, b, torch.tensor(weight))
    with pytest.raises(ValueError, match=r"got \(2, 1, 2, 2\), \(1, 1, 2, 2\) and \[0.5\]"):
        slerp(a, b[:1], 0.5)


# The round trip


def test_the_error_of_a_round_trip_is_the_root_mean_square_over_an_image_s_pixels():
    # N(0, 1) in one step: ddim multiplies by cos(phi_T), inversion by cos(phi_T) + sin(phi_T)^2
    x_0, schedule = randn(3, 2, 4, 4), Schedule.named("sigmoid", 30)
    phi = [float(schedule.sqrt_alpha_bar[t].acos()) for t in range(31)]
    grid = [(10, 0)]
    back_and_forth = math.cos(phi[10]) * (math.cos(phi[10]) + math.sin(phi[10]) ** 2)
    got = round_trip_error(gaussian_oracle(0.0, 1.0, schedule), x_0, schedule, grid)
    expected = abs(1 - back_and_forth) * x_0.square().mean((1, 2, 3)).sqrt()
    assert got.shape == (3,)
    assert_close(got, expected, rtol=1e-8, atol=0)


# From one belief to another


@pytest.mark.parametrize("source, target", [((0.3, 0.2), (-0.5, 0.6)), ((0.0, 1.0), (0.4, 0.05))])
def test_transfer_between_two_gaussians_is_their_monotone_map_as_the_grid_gets_finer(source, target):
    # from N(m, v) to N(n, w): n + sqrt(w / v) (x - m), but for what noise at T still knows of m and n
    up, down = flow(*source, LINEAR), flow(*target, LINEAR)
    exact = up[0] / down[0], (up[1] - down[1]) / down[0]
    (m, v), (n, w) = source, target
    assert exact == pytest.approx((math.sqrt(w / v), n - math.sqrt(w / v) * m), abs=0.01)
    oracles, errors = (gaussian_oracle(m, v, LINEAR), gaussian_oracle(n, w, LINEAR)), []
    for steps in (75, 150):
        found = affine(last(transfer(*oracles, PIXELS, LINEAR, LINEAR.grid(steps))).x_t)
        errors.append(math.dist(found, exact))
    for coarse, fine in zip(errors, errors[1:]):
        assert coarse / fine == pytest.approx(2, abs=0.15)
    assert errors[-1] < 0.04


@pytest.mark.parametrize("iterations", [1, 3])
def test_transfer_asks_the_source_on_the_way_up_and_the_target_on_the_way_down(iterations):
    x_0, source, grid = 0.3 * randn(3, 1, 4, 4), gaussian_oracle(0.1, 0.3, COSINE), COSINE.grid(6)
    x_T = last(invert(source, x_0, COSINE, grid, iterations)).x_t
    by_hand = ddim(network(COSINE), x_T, COSINE, grid)
    ours = transfer(source, network(COSINE), x_0, COSINE, grid, iterations)
    for a, b in zip(ours, by_hand, strict=True):
        assert a.t == b.t and torch.equal(a.x_t, b.x_t) and torch.equal(a.x_0_hat, b.x_0_hat)


# Between two noises


def right_angled(*shape):
    """Two images of norm 1 at right angles, for each of the batch."""
    a, c = randn(*shape), randn(*shape, seed=1)
    a = a / a.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    c = c - (a * c).flatten(1).sum(1).reshape(-1, 1, 1, 1) * a
    return a, c / c.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("angle", [0.01, 0.5, math.pi / 2, 2.5, 3.13])
@pytest.mark.parametrize("weight", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_slerp_turns_by_its_share_of_the_angle(angle, weight):
    a, c = right_angled(3, 1, 4, 4)
    got = slerp(a, math.cos(angle) * a + math.sin(angle) * c, weight)
    assert_close(got, math.cos(weight * angle) * a + math.sin(weight * angle) * c, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slerp_begins_at_a_and_ends_at_b(dtype):
    a, b = randn(3, 1, 8, 8, dtype=dtype), 2 * randn(3, 1, 8, 8, dtype=dtype, seed=1)  # of other norms too
    before = a.clone(), b.clone()
    assert_close(slerp(a, b, 0), a)
    assert_close(slerp(a, b, 1.0), b)
    middle = slerp(a, b, 0.5)
    assert middle.dtype == dtype and middle.shape == a.shape
    assert_close(slerp(b, a, 0.3), slerp(a, b, 0.7))
    assert torch.equal(a, before[0]) and torch.equal(b, before[1])


def test_slerp_keeps_a_norm_that_both_ends_have():
    a, c = right_angled(4, 1, 8, 8)
    b = 0.4 * a + math.sqrt(1 - 0.4**2) * c
    for weight in (0.1, 0.5, 0.8):
        norms = slerp(7 * a, 7 * b, weight).flatten(1).norm(dim=1)
        assert_close(norms, torch.full_like(norms, 7), rtol=1e-10, atol=0)


@pytest.mark.parametrize("weight", [0.2, 0.5])
def test_between_two_noises_slerp_finds_noise_where_a_straight_line_loses_variance(weight):
    a, b = randn(8, 1, 64, 64), randn(8, 1, 64, 64, seed=1)
    assert float(slerp(a, b, weight).var()) == pytest.approx(1, abs=0.03)
    assert float(torch.lerp(a, b, weight).var()) == pytest.approx(weight**2 + (1 - weight) ** 2, abs=0.03)


def test_each_image_has_its_own_weight_and_its_own_angle():
    a, b = randn(3, 1, 8, 8), randn(3, 1, 8, 8, seed=1)
    b[1] = a[1]  # on a line, which the others must not notice
    weights = torch.tensor([0.2, 0.5, 0.9])
    together = slerp(a, b, weights)
    for k, weight in enumerate(weights.tolist()):
        assert_close(together[k : k + 1], slerp(a[k : k + 1], b[k : k + 1], weight), rtol=0, atol=1e-7)
    assert not torch.allclose(together[0], slerp(a, b, 0.5)[0], atol=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("gap", [0.0, 1e-8, 1e-6, 1e-5, 1e-4, 1e-3])
def test_slerp_between_ends_on_a_line_is_finite(gap, sign, dtype):
    a, c = (part.to(dtype) for part in right_angled(3, 1, 8, 8))
    for weight in (0.0, 0.3, 0.5, 1.0):
        between = slerp(a, sign * a + gap * c, weight)
        assert between.isfinite().all() and float(between.flatten(1).norm(dim=1).max()) < 1.2
        if sign == 1:  # no way but the one between them
            assert_close(between, a + weight * gap * c, rtol=0, atol=1e-6)
    nothing = torch.zeros_like(a)
    assert slerp(nothing, a, 0.5).isfinite().all() and slerp(nothing, nothing, 0.5).eq(0).all()
