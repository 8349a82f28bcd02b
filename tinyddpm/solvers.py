"""From t to s along the probability-flow ODE, in few steps: solvers of second order.

Without fresh noise the reverse process is an ODE, and DDIM solves it to first order. In the angle phi,
where sqrt(alpha_bar) = cos(phi) and sqrt(1 - alpha_bar) = sin(phi), it reads dx / d phi = v_hat (Salimans &
Ho 2022, appendix D): finite at both ends, also where x_T is noise alone.
"""

import math
from collections.abc import Iterator

import torch

from .diffusion import Denoiser, Images, eps_from_x_0, v_from
from .grids import Grid, check_grid
from .samplers import Step, times
from .schedules import Schedule


@torch.no_grad()
def heun(denoiser: Denoiser, x_T: Images, schedule: Schedule, grid: Grid | None = None) -> Iterator[Step]:
    """Each step by the mean of the slopes at both its ends (Karras et al. 2022, algorithm 1, with phi as the
    time and cos(phi) as the scaling of eq. 4): second order.

    It asks the denoiser twice a step, at t and at s, and once in the step to 0, which takes x_0_hat itself.
    """
    x_t = x_T
    for t, s in check_grid(grid, schedule.T):
        x_0_hat = denoiser(x_t, times(t, x_t))
        yield Step(t, x_t, x_0_hat)
        if s == 0:
            x_t = x_0_hat
            continue
        turn = angle(s, schedule) - angle(t, schedule)
        slope = velocity(x_0_hat, x_t, t, schedule)
        x_s = x_t + turn * slope
        slope_s = velocity(denoiser(x_s, times(s, x_s)), x_s, s, schedule)
        x_t = x_t + turn * (slope + slope_s) / 2
    yield Step(s, x_t, x_t if s == 0 else x_0_hat)


def angle(t: int, schedule: Schedule) -> float:
    """phi in [0, pi/2], from the clean image to pure noise."""
    return math.atan2(float(schedule.sqrt_one_minus_alpha_bar[t]), float(schedule.sqrt_alpha_bar[t]))


def velocity(x_0_hat: Images, x_t: Images, t: int, schedule: Schedule) -> Images:
    """v_hat = dx / d phi along the probability-flow ODE; t > 0."""
    return v_from(x_0_hat, eps_from_x_0(x_0_hat, x_t, t, schedule), t, schedule)


@torch.no_grad()
def dpm_solver_pp(
    denoiser: Denoiser, x_T: Images, schedule: Schedule, grid: Grid | None = None
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order for one call of the denoiser a step, by
    a line through this x_0_hat and the last one, extended to half a step ahead in lambda = log-SNR / 2.

    x_s = sigma_s / sigma_t x_t - sqrt(alpha_bar_s) (e^-h - 1) D, sigma = sqrt(1 - alpha_bar), h = lambda_s -
    lambda_t, D = x_0_hat + (x_0_hat - last) h / (2 h_last). The first step has no line, and the last one
    takes none (x_0_hat itself where it ends at 0).
    """
    x_t, grid = x_T, check_grid(grid, schedule.T)
    last = h_last = None
    for k, (t, s) in enumerate(grid):
        x_0_hat = denoiser(x_t, times(t, x_t))
        yield Step(t, x_t, x_0_hat)
        h = float(schedule.log_snr[s] - schedule.log_snr[t]) / 2
        target = x_0_hat
        if last is not None and k < len(grid) - 1:
            target = x_0_hat + (x_0_hat - last) * (h / (2 * h_last))
        sigma_t, sigma_s = (float(schedule.sqrt_one_minus_alpha_bar[i]) for i in (t, s))
        x_t = sigma_s / sigma_t * x_t - float(schedule.sqrt_alpha_bar[s]) * math.expm1(-h) * target
        last, h_last = x_0_hat, h
    yield Step(s, x_t, x_t if s == 0 else x_0_hat)
