"""Samplers: from pure noise x_T to an image x_0.

A sampler sees a denoiser (x_t, t) -> x_0_hat and nothing else of the network. All share one loop, `trajectory`; they
differ in the update from x_t to x_s. Each checks its arguments when it is called and returns an iterator of `Step`s.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor

from .diffusion import Denoiser, Images, eps_from_x_0, q_posterior, v_from
from .schedules import Grid, Schedule, check_grid, choose, require

Generators = Generator | Sequence[Generator] | None  # one for the batch, or one for each image
Update = Callable[[Images, Images, int, int], Images]  # (x_t, x_0_hat, t, s) -> x_s
Variance = str | Callable[[int, int], Tensor]  # one of VARIANCES, or (t, s) -> a variance for each pixel
VARIANCES = {"posterior": 0, "beta": 1}  # which of Schedule.posterior_variance


@dataclass(frozen=True)
class Step:
    """A point of a sampling trajectory: x_t at time t, and the clean image that the denoiser sees in it.

    The last step has x_0_hat = x_t, the finished image, at t = 0; where a grid ends earlier, that of the step before.
    """

    t: int
    x_t: Images
    x_0_hat: Images


@torch.no_grad()
def trajectory(denoiser: Denoiser, x_T: Images, grid: Grid, update: Update) -> Iterator[Step]:
    """The sampling loop: denoise at t, yield the Step, update to s. A step that climbs (s > t) needs no denoiser."""
    x_t = x_T
    for t, s in grid:
        if s < t:
            x_0_hat = denoiser(x_t, times(t, x_t))
        yield Step(t, x_t, x_t if t == 0 else x_0_hat)
        x_t = update(x_t, x_0_hat, t, s)
    yield Step(s, x_t, x_t if s == 0 else x_0_hat)


def check_arguments(x_T: Images, schedule: Schedule, grid: Grid | None, generator: Generators, climbs=False) -> Grid:
    """The grid. Raises ValueError as check_grid does, and unless there is one generator, or one for each image."""
    each = generator if isinstance(generator, Sequence) else [generator] * len(x_T)
    if len(each) != len(x_T) or not all(isinstance(g, Generator | None) for g in each) or not x_T.is_floating_point():
        found = repr(generator) if x_T.is_floating_point() else f"{x_T.dtype}, not float images"
        raise ValueError(f"expected one generator, or one for each of {len(x_T)} images, got {found}")
    return check_grid(grid, schedule.T, climbs)


def last(steps: Iterable[Step]) -> Step:
    """The last step of a trajectory, without storing the others. Raises ValueError for an exhausted one."""
    found = deque(steps, maxlen=1)
    if not found:
        raise ValueError("the trajectory has no steps left: sample again, or keep the steps in a list")
    return found[0]


def times(t: int, x: Images) -> Tensor:
    """t for each image of the batch: (b,)."""
    return torch.full((len(x),), t, device=x.device)


def noise_like(x: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise in the shape of x. A list of generators gives each image its own noise, independent of its
    batch. Drawn on the generator's device, so that a seed means the same everywhere."""
    if isinstance(generator, Sequence):  # ValueError unless there is one for each image
        return torch.stack([noise_like(image, own) for image, own in zip(x, generator, strict=True)])
    device = "cpu" if generator is None else generator.device
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)


def p_sample(
    x_t: Images,
    x_0_hat: Images,
    t: int,
    s: int,
    schedule: Schedule,
    variance: Variance = "posterior",
    generator: Generators = None,
) -> Images:
    """x_s ~ q(x_s | x_t, x_0 = x_0_hat): one step of the reverse process (Ho et al. 2020, algorithm 2).

    variance: "posterior", exact if all data are one image; "beta", exact if they are standard normal (section 3.2); or
    a function (t, s) -> the variance of each pixel. The step to s = 0 adds no noise. With s > t the step climbs:
    x_s ~ q(x_s | x_t) (Lugmayr et al. 2022, "RePaint", algorithm 1).
    """
    if s > t:
        a = float(schedule.alpha_bar[s] / schedule.alpha_bar[t])
        return a**0.5 * x_t + (1 - a) ** 0.5 * noise_like(x_t, generator)
    which = choose(VARIANCES, variance, "variance") if isinstance(variance, str) else 0
    mean, _ = q_posterior(x_0_hat, x_t, t, s, schedule)
    if s == 0:
        return mean
    var = schedule.posterior_variance(t, s)[which] if isinstance(variance, str) else variance(t, s)
    return mean + var**0.5 * noise_like(x_t, generator)


def p_sample_loop(
    denoiser: Denoiser,
    x_T: Images,
    schedule: Schedule,
    grid: Grid | None = None,
    generator: Generators = None,
    variance: Variance = "posterior",
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), all T steps by default. The grid may climb (RePaint); variance:
    see p_sample. Raises ValueError for invalid arguments, as all samplers do."""
    if isinstance(variance, str):
        choose(VARIANCES, variance, "variance")
    update = partial(p_sample, schedule=schedule, variance=variance, generator=generator)
    return trajectory(denoiser, x_T, check_arguments(x_T, schedule, grid, generator, climbs=True), update)


def ddim(
    denoiser: Denoiser,
    x_T: Images,
    schedule: Schedule,
    grid: Grid | None = None,
    generator: Generators = None,
    eta: float = 0.0,
) -> Iterator[Step]:
    """Implicit sampling (Song et al. 2021, "DDIM", eq. 12 and 16). eta = 0 is deterministic, 1 is p_sample_loop.

    x_s = sqrt(alpha_bar_s) x_0_hat + sqrt(1 - alpha_bar_s - sigma^2) eps_hat + sigma z, with
    sigma^2 = eta^2 times the posterior variance. Raises ValueError for eta outside [0, 1].
    """
    require(0 <= eta <= 1, "eta, the share of fresh noise, must be in [0, 1] (1 is DDPM)", eta)

    def update(x_t: Images, x_0_hat: Images, t: int, s: int) -> Images:
        eps_hat = eps_from_x_0(x_0_hat, x_t, t, schedule)
        abar_s, var = float(schedule.alpha_bar[s]), eta**2 * schedule.posterior_variance(t, s)[0]
        x_s = abar_s**0.5 * x_0_hat + max(1 - abar_s - var, 0.0) ** 0.5 * eps_hat
        return x_s + var**0.5 * noise_like(x_t, generator) if var > 0 else x_s

    return trajectory(denoiser, x_T, check_arguments(x_T, schedule, grid, generator), update)


# Second-order solvers of the probability-flow ODE. In the angle phi, with cos(phi) = sqrt(alpha_bar) and sin(phi) =
# sqrt(1 - alpha_bar), it is dx / d phi = v_hat (Salimans & Ho 2022, appendix D), finite at both ends of the schedule.


def angle(t: int, schedule: Schedule) -> float:
    """phi in [0, pi/2]: 0 at the clean image."""
    signal, noise = schedule.signal_noise(t)
    return math.atan2(noise, signal)


def velocity(x_0_hat: Images, x_t: Images, t: int, schedule: Schedule) -> Images:
    """v_hat = dx / d phi along the probability-flow ODE, t > 0."""
    return v_from(x_0_hat, eps_from_x_0(x_0_hat, x_t, t, schedule), t, schedule)


def heun(
    denoiser: Denoiser, x_T: Images, schedule: Schedule, grid: Grid | None = None, generator: Generators = None
) -> Iterator[Step]:
    """Heun's method in phi (Karras et al. 2022, algorithm 1, with phi as the time): two calls of the denoiser a step,
    one in the step to 0. Deterministic: the generator is not used."""

    def update(x_t: Images, x_0_hat: Images, t: int, s: int) -> Images:
        if s == 0:
            return x_0_hat
        turn = angle(s, schedule) - angle(t, schedule)
        slope = velocity(x_0_hat, x_t, t, schedule)
        x_s = x_t + turn * slope
        slope_s = velocity(denoiser(x_s, times(s, x_s)), x_s, s, schedule)
        return x_t + turn * (slope + slope_s) / 2

    return trajectory(denoiser, x_T, check_arguments(x_T, schedule, grid, generator), update)


def dpm_solver_pp(
    denoiser: Denoiser, x_T: Images, schedule: Schedule, grid: Grid | None = None, generator: Generators = None
) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): second order with one call of the denoiser a step.

    x_s = sigma_s / sigma_t x_t - sqrt(alpha_bar_s) (e^-h - 1) D, where sigma = sqrt(1 - alpha_bar), h is the step in
    lambda = log-SNR / 2, and D extrapolates the last two x_0_hat by half a step; the first and the last step use
    x_0_hat itself. Deterministic: the generator is not used.
    """
    grid = check_arguments(x_T, schedule, grid, generator)
    previous = None  # x_0_hat and h of the step before

    def update(x_t: Images, x_0_hat: Images, t: int, s: int) -> Images:
        nonlocal previous
        (_, sigma_t), (signal_s, sigma_s) = schedule.signal_noise(t), schedule.signal_noise(s)
        h, D = float(schedule.log_snr[s] - schedule.log_snr[t]) / 2, x_0_hat
        if previous is not None and (t, s) != grid[-1]:
            D = x_0_hat + (x_0_hat - previous[0]) * (h / (2 * previous[1]))
        previous = x_0_hat, h
        return sigma_s / sigma_t * x_t - signal_s * math.expm1(-h) * D

    return trajectory(denoiser, x_T, grid, update)


Sampler = Callable[..., Iterator[Step]]  # (denoiser, x_T, schedule, grid=None, generator=None)
SAMPLERS: dict[str, Sampler] = {"ddim": ddim, "ddpm": p_sample_loop, "heun": heun, "dpm_solver_pp": dpm_solver_pp}
