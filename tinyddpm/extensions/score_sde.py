"""The continuous view: the same denoiser as a score, as an SDE, and as an ODE with an exact likelihood.

A step of the grid stands for the time in which the SDE dx = -beta/2 x dt + sqrt(beta) dw (Song et al. 2021,
"Score-based generative modeling through SDEs", eq. 11) takes alpha_bar from alpha_bar_s to alpha_bar_t: the
integral of beta over it is -log(alpha_bar_t / alpha_bar_s), however beta goes in between.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion import Denoiser, Images, Times, eps_from_x_0
from ..samplers import Generators, Step, angle, noise_like, p_sample, times, velocity
from ..schedules import Grid, Schedule, check_grid

Score = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> grad log p_t(x_t)


def score(denoiser: Denoiser, schedule: Schedule) -> Score:
    """The denoiser as (x_t, t) -> grad log p_t(x_t), the slope of the noisy images' log-density; t > 0."""
    return lambda x_t, t: score_from_x_0(denoiser(x_t, t), x_t, t, schedule)


def score_from_x_0(x_0_hat: Images, x_t: Images, t: Times, schedule: Schedule) -> Images:
    """(sqrt(alpha_bar_t) x_0_hat - x_t) / (1 - alpha_bar_t) = -eps_hat / sqrt(1 - alpha_bar_t) (Tweedie's
    formula: Efron 2011, eq. 1.4; Vincent 2011); t > 0."""
    return -eps_from_x_0(x_0_hat, x_t, t, schedule) / schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t)


@torch.no_grad()
def euler_maruyama(
    denoiser: Denoiser, x_T: Images, schedule: Schedule, grid: Grid | None = None, generator: Generators = None
) -> Iterator[Step]:
    """The reverse SDE dx = -beta (x/2 + score) dt + sqrt(beta) dw in straight steps (Song et al. 2021,
    "SDEs", eq. 6 and appendix E): x_s = x_t + B (x_t / 2 + score) + sqrt(B) z, with B = -log(alpha_bar_t /
    alpha_bar_s).

    It wants small B, where p_sample_loop, which solves the linear part exactly, does with large ones. The
    step to 0 takes x_0_hat. Raises ValueError where B is infinite, since x_T is noise alone.
    """
    x_t = x_T
    for t, s in check_grid(grid, schedule.T):
        x_0_hat = denoiser(x_t, times(t, x_t))
        yield Step(t, x_t, x_0_hat)
        if s == 0:
            x_t = x_0_hat
            continue
        B = noising(t, s, schedule)
        slope = score_from_x_0(x_0_hat, x_t, t, schedule)
        x_t = x_t + B * (x_t / 2 + slope) + B**0.5 * noise_like(x_t, generator)
    yield Step(s, x_t, x_t if s == 0 else x_0_hat)


def noising(t: int, s: int, schedule: Schedule) -> float:
    """The integral of beta from s to t."""
    if schedule.alpha_bar[t] == 0:
        raise ValueError(
            "this schedule ends in noise alone, where the SDE's beta is infinite: take p_sample_loop, which "
            "steps over it, or a schedule that leaves some signal"
        )
    return math.log(schedule.alpha_bar[s] / schedule.alpha_bar[t])


@torch.no_grad()
def predictor_corrector(
    denoiser: Denoiser,
    x_T: Images,
    schedule: Schedule,
    grid: Grid | None = None,
    generator: Generators = None,
    snr: float = 0.16,
) -> Iterator[Step]:
    """After each step of p_sample_loop (the predictor) a step of Langevin dynamics at the s it came to, which
    nearly leaves p_s as it is and pulls what is not there towards it (Song et al. 2021, "SDEs", algorithm
    5): x_s + e score + sqrt(2 e) z. Two calls of the denoiser a step.

    e = 2 snr^2 (1 - alpha_bar_s): theirs without its factor 1 - beta_s, and with the norm that eps has in
    place of the measured one, so that an image does not depend on its batch. Where p_s is standard normal
    its variance comes out 1 / (1 - e / 2) too large, 2.6 % at the 0.16 that they take. Raises
    ValueError for an snr outside (0, 1).
    """
    if not 0 < snr < 1:
        raise ValueError(f"the corrector's signal-to-noise ratio lies in (0, 1), got {snr}")
    x_t = x_T
    for t, s in check_grid(grid, schedule.T):
        x_0_hat = denoiser(x_t, times(t, x_t))
        yield Step(t, x_t, x_0_hat)
        x_t = p_sample(x_t, x_0_hat, t, s, schedule, generator=generator)
        if s > 0:
            e = 2 * snr**2 * (1 - float(schedule.alpha_bar[s]))
            slope = score(denoiser, schedule)(x_t, times(s, x_t))
            x_t = x_t + e * slope + (2 * e) ** 0.5 * noise_like(x_t, generator)
    yield Step(s, x_t, x_t if s == 0 else x_0_hat)


def log_likelihood(
    denoiser: Denoiser,
    x: Images,
    schedule: Schedule,
    grid: Grid | None = None,
    generator: Generators = None,
    probes: int = 1,
) -> Float[Tensor, " b"]:
    """log p_t(x) in nats, (b,) float64, of x as an image at the time t = s that the grid ends at, s >= 1: the
    log-density of its noise at T plus what the probability-flow ODE stretches on the way there,
    log p_s(x) = log N(x_T; 0, 1) + integral of div v_hat d phi (Song et al. 2021, "SDEs", eq. 39).

    The divergence is estimated by z . grad(v_hat . z), z of random signs (Hutchinson 1990; Grathwohl et al.
    2019, eq. 7), the same z all the way: unbiased, and exact for independent pixels. `probes` of them are
    averaged. The ODE is solved by Heun's method, second order in the grid's steps. grid None: all of T..1.

    Raises ValueError for a grid that does not begin at T or ends at 0 (noise images a little first: the data
    themselves have no density), and for probes below 1.
    """
    grid = check_grid(schedule.grid()[:-1] if grid is None else grid, schedule.T)
    if grid[0][0] != schedule.T or grid[-1][1] < 1:
        raise ValueError(
            f"a likelihood needs a grid from T = {schedule.T} down to 1 or above, got "
            f"{grid[0][0]}..{grid[-1][1]}: schedule.grid(steps)[:-1] is one; q_sample brings the "
            "image to its end"
        )
    if probes < 1:
        raise ValueError(f"the divergence takes at least 1 probe, got {probes}")
    x = x.detach()
    signs = [noise_like(x, generator).sign() for _ in range(probes)]
    stretched = torch.zeros(len(x), dtype=torch.float64)
    slope, div = velocity_and_divergence(denoiser, x, grid[-1][1], schedule, signs)
    for t, s in reversed(grid):
        turn = angle(t, schedule) - angle(s, schedule)
        slope_t, div_t = velocity_and_divergence(denoiser, x + turn * slope, t, schedule, signs)
        x = x + turn * (slope + slope_t) / 2
        stretched += turn * (div + div_t) / 2
        if t < schedule.T:  # once more at where it really came to
            slope, div = velocity_and_divergence(denoiser, x, t, schedule, signs)
    normal = -(x.cpu().double().square() + math.log(2 * math.pi)).flatten(1).sum(1) / 2
    return normal + stretched


def velocity_and_divergence(
    denoiser: Denoiser, x: Images, t: int, schedule: Schedule, signs: list[Images]
) -> tuple[Images, Float[Tensor, " b"]]:
    """v_hat at (x, t), and its divergence over the pixels by Hutchinson's estimator, (b,) float64."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        v = velocity(denoiser(x, times(t, x)), x, t, schedule)
        slopes = [torch.autograd.grad((v * z).sum(), x, retain_graph=True)[0] for z in signs]
    div = [(slope * z).flatten(1).sum(1) for slope, z in zip(slopes, signs)]
    return v.detach(), torch.stack(div).mean(0).cpu().double()
