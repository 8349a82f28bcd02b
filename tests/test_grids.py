"""Which times a run visits: rounding by itself in plain numbers, and what a grid may and may not be.

What every grid of a schedule keeps (from T down to 0, in as many steps as asked) is in test_schedules.py.
"""

import warnings
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tinyddpm.editing.inpainting import resampling_grid
from tinyddpm.schedules import BETAS, SPACINGS, Schedule, check_grid


def quiet(beta):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schedule(torch.as_tensor(beta, dtype=torch.float64))


def times_of(grid):
    return [t for t, _ in grid] + [grid[-1][1]]


def holds(grid, start, steps):
    """So many whole steps, in one piece, each downwards, from start to 0."""
    times = times_of(grid)
    return (
        len(grid) == steps
        and (times[0], times[-1]) == (start, 0)
        and all(t > s for t, s in zip(times, times[1:]))
        and [s for _, s in grid[:-1]] == [t for t, _ in grid[1:]]
        and all(type(t) is int for t in times)
    )


# Where the times lie


@pytest.mark.parametrize("T", [10, 50, 1000])
def test_a_uniform_time_is_never_more_than_half_a_step_of_1_from_even(T):
    for steps in (1, 2, 3, 7, T // 3, T - 1, T):
        times = times_of(Schedule.named("cosine", T).grid(steps))
        assert all(abs(t - T * (steps - k) / steps) <= 0.5 for k, t in enumerate(times))


@pytest.mark.parametrize("T", [10, 50, 1000])
def test_a_quadratic_grid_is_even_in_the_square_root_of_t(T):
    for steps in (1, 2, 3, 7, T // 3, T - 1, T):
        grid = Schedule.named("cosine", T).grid(steps, "quadratic")
        assert holds(grid, T, steps)
        for k, t in enumerate(times_of(grid)[:-1]):
            even = T * ((steps - k) / steps) ** 2
            # where even times fall together, those below make room: t is at least the steps that are left
            assert t == max(round(even), steps - k)


def test_a_quadratic_step_in_numbers():
    assert Schedule.named("cosine", 100).grid(5, "quadratic") == [(100, 64), (64, 36), (36, 16), (16, 4), (4, 0)]


@pytest.mark.parametrize("name", ["linear", "cosine-shifted"])
def test_a_log_snr_time_is_the_nearest_to_its_even_one(name):
    # few steps of a long chain, which never meet: each is the best that there is, by looking at all
    schedule = Schedule.named(name, 1000)
    log_snr = schedule.log_snr.tolist()
    grid = schedule.grid(8, "log-snr")
    assert holds(grid, 1000, 8)
    for k, (t, _) in enumerate(grid):
        even = log_snr[1000] + (log_snr[1] - log_snr[1000]) * k / 7
        assert t == min(range(1, 1001), key=lambda i: abs(log_snr[i] - even))


@pytest.mark.parametrize("name", ["linear-zero-snr", "flow"])
def test_from_pure_noise_the_times_after_T_are_even_in_log_snr(name):
    # log-SNR is minus infinity at T, and no share of that is a step
    schedule = Schedule.named(name, 1000)
    grid = schedule.grid(9, "log-snr")
    assert holds(grid, 1000, 9)
    times = [t for t, _ in grid]
    assert times[0] == 1000 and times[1] == 999 and times[-1] == 1
    gaps = schedule.log_snr[times[1:]].diff()
    assert_close(gaps, torch.full_like(gaps, float(gaps.mean())), rtol=0.1, atol=0)


@pytest.mark.parametrize("name", ["linear-zero-snr", "flow"])
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_chain_that_ends_in_pure_noise_is_walked_in_any_number_of_steps(name, spacing):
    schedule = Schedule.named(name, 40)
    for steps in range(1, 41):
        assert holds(schedule.grid(steps, spacing), 40, steps)
    assert Schedule.named("flow", 1).grid(1, spacing) == [(1, 0)]


# From a start on the way


@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("spacing", SPACINGS)
def test_a_start_is_the_T_of_a_chain_cut_off_there(name, spacing):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = Schedule.named(name, 60)
    for start in (1, 2, 37, 60):
        cut = quiet(schedule.beta[: start + 1])
        for steps in {1, start // 2 or 1, start}:
            grid = schedule.grid(steps, spacing, start)
            assert holds(grid, start, steps)
            assert grid == cut.grid(steps, spacing)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_all_steps_from_a_start_are_as_many_as_it_says(spacing):
    schedule = Schedule.named("cosine", 50)
    assert schedule.grid(spacing=spacing, start=20) == [(t, t - 1) for t in range(20, 0, -1)]
    assert schedule.grid(spacing=spacing, start=50) == schedule.grid(spacing=spacing)


@settings(max_examples=80, deadline=None)
@given(
    beta=st.lists(st.floats(1e-5, 0.999), min_size=1, max_size=30),
    pure_noise=st.booleans(),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    spacing=st.sampled_from(list(SPACINGS)),
)
def test_a_grid_from_any_start_of_any_schedule_descends(beta, pure_noise, shares, spacing):
    schedule = quiet([0.0, *beta, *[1.0] * pure_noise])
    start = 1 + round(shares[0] * (schedule.T - 1))
    steps = 1 + round(shares[1] * (start - 1))
    assert holds(schedule.grid(steps, spacing, start), start, steps)


# Down, up and down again


def papers_walk(T, times):
    """Lugmayr et al. 2022, algorithm 1: at each t so many draws of x_{t-1}, with noise back to x_t between
    two of them; for t > 1 only."""
    walked = []
    for t in range(T, 0, -1):
        for u in range(times):
            walked.append((t, t - 1))
            if t == 1:
                break
            if u < times - 1:
                walked.append((t - 1, t))
    return walked


@pytest.mark.parametrize("times", [1, 2, 5])
@pytest.mark.parametrize("T", [1, 2, 10])
def test_jumps_of_one_are_the_papers_algorithm(T, times):
    grid = check_grid(None, T)
    assert resampling_grid(grid, jump=1, repeats=times) == papers_walk(T, times)


def test_a_jump_goes_back_over_all_its_steps_at_once():
    grid = [(50, 40), (40, 30), (30, 20), (20, 10), (10, 0)]
    assert resampling_grid(grid, jump=2, repeats=2) == [
        *[(50, 40), (40, 30), (30, 50), (50, 40), (40, 30)],
        *[(30, 20), (20, 10), (10, 30), (30, 20), (20, 10)],
        (10, 0),
    ]
    # a last jump that is cut short by 0: what lies before the last step is walked again, and it is not
    assert resampling_grid(grid, jump=3, repeats=2)[-4:] == [(20, 10), (10, 20), (20, 10), (10, 0)]
    assert resampling_grid(grid, jump=99, repeats=2) == [*grid[:-1], (10, 50), *grid]


def test_the_defaults_are_the_papers():
    # its r = 10 and j = 10
    grid = check_grid(None, 250)
    assert resampling_grid(grid) == resampling_grid(grid, jump=10, repeats=10) != resampling_grid(grid, 10, 9)
    assert resampling_grid(grid) != resampling_grid(grid, 9, 10)


@pytest.mark.parametrize("jump", [1, 3, 10, 99])
def test_walked_once_is_the_grid_itself(jump):
    grid = Schedule.named("cosine", 50).grid(17)
    assert resampling_grid(grid, jump, repeats=1) == grid


@settings(max_examples=80, deadline=None)
@given(
    stops=st.sets(st.integers(1, 60), min_size=1, max_size=25),
    end=st.sampled_from([[0], []]),
    jump=st.integers(1, 30),
    times=st.integers(1, 5),
)
def test_every_step_is_walked_as_often_as_asked_and_the_last_one_once(stops, end, jump, times):
    stops = sorted(stops, reverse=True) + end
    grid = list(zip(stops, stops[1:]))
    if not grid:
        return
    walked = resampling_grid(grid, jump, times)
    assert check_grid(walked, 60, climbs=True) == walked  # in one piece, and downwards first
    down = Counter(pair for pair in walked if pair[0] > pair[1])
    assert down == {pair: times if pair[1] > 0 else 1 for pair in grid}
    assert all(t > 0 for t, s in walked if s > t)  # no noise on a finished image
    assert walked[0] == grid[0] and walked[-1] == grid[-1]


def test_a_grid_is_walked_again_without_being_written_over():
    grid = [(3, 2), (2, 1), (1, 0)]
    assert resampling_grid(iter(grid), 2, 3) == resampling_grid(tuple(grid), 2, 3)
    resampling_grid(grid, 2, 3)
    assert grid == [(3, 2), (2, 1), (1, 0)]


# What a grid may be


@pytest.mark.parametrize("T", [1, 2, 50])
@pytest.mark.parametrize("climbs", [False, True])
def test_no_grid_is_all_times_from_T_to_0(T, climbs):
    assert check_grid(None, T, climbs) == [(t, t - 1) for t in range(T, 0, -1)]


@pytest.mark.parametrize(
    "grid",
    [[(50, 0)], [(50, 49), (49, 7)], [(9, 4), (4, 0)], ((3, 2), (2, 1)), iter([(3, 2), (2, 1)])],
    ids=["one step", "ends above 0", "begins below T", "tuple", "iterator"],
)
def test_a_grid_may_begin_below_T_and_end_above_0_in_any_sequence(grid):
    kept = check_grid(grid, 50)
    assert type(kept) is list and kept[0][0] in (50, 9, 3)
    assert check_grid(kept, 50) == kept and check_grid(kept, 50) is not kept


@pytest.mark.parametrize(
    "grid", [[(50, 20), (20, 30)], [(50, 20), (20, 50), (50, 0)], [(5, 0), (0, 50), (50, 0)], [(9, 5), (5, 7), (7, 8)]]
)
def test_a_grid_climbs_where_that_is_allowed_and_only_there(grid):
    assert check_grid(grid, 50, climbs=True) == grid
    up = next((t, s) for t, s in grid if t < s)
    with pytest.raises(
        ValueError, match=rf"needs 0 <= s < t <= T = 50, got t={up[0]}, s={up[1]} .only p_sample_loop climbs"
    ):
        check_grid(grid, 50)
