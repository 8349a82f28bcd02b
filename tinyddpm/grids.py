"""Which times a sampler visits: the pairs (t, s) that it walks, most often from T down to 0."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Grid = Sequence[tuple[int, int]]
SPACINGS = ("uniform", "quadratic", "log-snr")


def make_grid(
    log_snr: Float[Tensor, " times"], steps: int, spacing: str = "uniform"
) -> list[tuple[int, int]]:
    """The pairs (t, s) of so many steps from t = T, the last of log_snr, to s = 0.

    "uniform" steps are even in t, "quadratic" ones in the square root of t, so that they shorten towards the
    image (Song et al. 2021, "DDIM", appendix D.2), and "log-snr" puts the times between even in log-SNR
    (Lu et al. 2022, "DPM-Solver", section 3.3), as far as integers allow.

    Raises ValueError for steps outside 1..T and for another spacing.
    """
    T = check_steps(steps, log_snr)
    if spacing == "uniform":
        times = [(T * i + steps // 2) // steps for i in range(steps, 0, -1)]
    elif spacing == "quadratic":
        times = different([T * (i / steps) ** 2 for i in range(steps, 0, -1)], T)
    elif spacing == "log-snr":
        times = even_in_log_snr(log_snr, steps)
    else:
        raise ValueError(f"a grid is spaced as one of {', '.join(SPACINGS)}, got {spacing!r}")
    return pairs([*times, 0])


def check_steps(steps: int, log_snr: Tensor) -> int:
    """T. Raises ValueError for more steps than that, and for none."""
    T = len(log_snr) - 1
    if not 1 <= steps <= T:
        raise ValueError(f"steps must be in 1..T = 1..{T}, got {steps}")
    return T


def pairs(times: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(times, times[1:]))


def even_in_log_snr(log_snr: Float[Tensor, " times"], n: int) -> list[int]:
    """n different times from T down to 1. Where T is pure noise, whose log-SNR is minus infinity, those
    after it are even."""
    T = check_steps(n, log_snr)
    if math.isinf(log_snr[-1]):
        return [T, *(even_in_log_snr(log_snr[:-1], n - 1) if n > 1 else [])]
    wanted = torch.linspace(float(log_snr[-1]), float(log_snr[1]), n, dtype=torch.float64)
    nearest = (log_snr[1:][None] - wanted[:, None]).abs().argmin(1) + 1
    return different(nearest.tolist(), T)


def different(times: Sequence[float], T: int) -> list[int]:
    """The nearest integers to falling times that all differ, the first of them T and none below 1."""
    chosen = [T]
    for left, time in zip(range(len(times) - 1, 0, -1), times[1:]):
        chosen.append(min(max(round(time), left), chosen[-1] - 1))
    return chosen


def resampling_grid(grid: Grid, jump: int = 10, times: int = 10) -> list[tuple[int, int]]:
    """The grid with each `jump` steps of it walked `times` times: down, back up in one step of noise, and
    down again (Lugmayr et al. 2022, "RePaint", algorithm 1 and figure 9). The last step, to 0, is walked
    once.

    Raises ValueError for a jump or times below 1.
    """
    if jump < 1 or times < 1:
        raise ValueError(f"jump and times must be at least 1, got jump={jump} and times={times}")
    grid = list(grid)
    walked = []
    for k in range(0, len(grid), jump):
        down = grid[k : k + jump]
        again = [pair for pair in down if pair[1] > 0]
        if again:
            walked += [*again, (again[-1][1], again[0][0])] * (times - 1)
        walked += down
    return walked


def check_grid(grid: Grid | None, T: int, climbs: bool = False) -> list[tuple[int, int]]:
    """The grid itself, or all of T..0 where it is None. Raises ValueError unless it goes on where it stopped,
    stays in 0..T, and goes down; with climbs, it may go up from its second pair on."""
    grid = pairs(range(T, -1, -1)) if grid is None else list(grid)
    if not grid:
        raise ValueError("the time grid is empty: schedule.grid(steps) makes one")
    if not all(isinstance(pair, tuple) and len(pair) == 2 for pair in grid):
        raise ValueError("a time grid is pairs (t, s): grids.pairs(times) makes them of times that fall")
    for k, (t, s) in enumerate(grid):
        if not (climbs and k > 0 and 0 <= t < s <= T):
            check_pair(t, s, T)
    for (_, s), (t, _) in pairs(grid):
        if s != t:
            raise ValueError(
                f"the time grid must go on where it stopped, but ...-> {s} is followed by {t} -> ..."
            )
    return grid


def check_pair(t: int, s: int, T: int) -> None:
    if 0 <= t < s <= T:
        raise ValueError(
            f"a step goes from t to s with 0 <= s < t <= T = {T}, got t={t}, s={s}: p_sample_loop alone goes "
            "up, and after its first step"
        )
    if not 0 <= s < t <= T:
        raise ValueError(f"a step goes from t to s with 0 <= s < t <= T = {T}, got t={t}, s={s}")
