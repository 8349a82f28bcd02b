"""The variational bound on the likelihood of images, in bits per dimension."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion import Denoiser, Images, q_sample
from ..samplers import Generators, check_arguments, noise_like, times
from ..schedules import Grid, Schedule, require
from ..tools.jobs import progress

HALF_BIN = 1 / 255  # 256 grey values from -1 to 1


@torch.no_grad()
def bits_per_dim(
    denoiser: Denoiser,
    x_0: Images,
    schedule: Schedule,
    grid: Grid | None = None,
    error_variance: Float[Tensor, " times"] | None = None,
    generator: Generators = None,
) -> Float[Tensor, " b"]:
    """An upper bound on -log2 p(x_0) / (c h w) for each image, (b,) float64: the sum over the grid's steps, all T by
    default, of KL(q(x_s | x_t, x_0) || p(x_s | x_t)) at one x_t drawn for each t (Ho et al. 2020, eq. 5; the last step
    is a Gaussian over 256 bins, eq. 13).

    The variance of p is that of the posterior plus that of the denoiser's error (Bao et al. 2022, "Analytic-DPM",
    theorem 1): error_variance[t] is the mean of (x_0 - x_0_hat)^2 per pixel, see denoising_error; by default 0.

    Raises ValueError for images outside [-1, 1], a grid that does not go from T to 0, an error_variance that is not
    finite and at least 0 for each t in 0..T, and as denoising_error does.
    """
    low, high = map(float, x_0.aminmax()) if x_0.numel() else (math.nan, math.nan)
    require(low >= -1 and high <= 1, "images must be in [-1, 1]", f"[{low:.3g}, {high:.3g}]: see data.from_uint8")
    grid, T = check_arguments(x_0, schedule, grid, generator), schedule.T
    error = torch.zeros(T + 1) if error_variance is None else torch.as_tensor(error_variance)
    if (grid[0][0], grid[-1][1]) != (T, 0) or error.shape != (T + 1,) or not (error.isfinite() & (error >= 0)).all():
        wanted = f"a grid from T = {T} to 0, and a finite error_variance for each t"
        raise ValueError(f"the bound needs {wanted}, got {grid[0][0]}..{grid[-1][1]} and {error}")
    image = x_0.cpu().double()
    nats = prior_nats(image, schedule)
    for t, s in progress(grid, "bits per dimension"):
        x_0_hat = denoise_noised(denoiser, x_0, t, schedule, generator)
        nats = nats + step_nats(image, x_0_hat, t, s, schedule, float(error[t]))
    return nats / x_0[0].numel() / math.log(2)


def prior_nats(x_0: Images, schedule: Schedule) -> Float[Tensor, " b"]:
    """KL(q(x_T | x_0) || N(0, 1)) of each image."""
    abar = float(schedule.alpha_bar[-1])
    return (abar * (x_0.square() - 1) - math.log(1 - abar)).flatten(1).sum(1) / 2


def step_nats(x_0: Images, x_0_hat: Images, t: int, s: int, schedule: Schedule, error: float) -> Float[Tensor, " b"]:
    """The bound's term of the step from t to s: the KL of two Gaussians, or for s = 0 the image's own bins."""
    small, large = schedule.posterior_variance(t, s)
    abar_t, abar_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    weight = abar_s**0.5 * large / (1 - abar_t)  # of x_0 in the posterior's mean
    variance = small + weight**2 * error
    if s == 0:  # the posterior is a point: without an error_variance, take the variance of the noise at t
        return -log_bin(x_0, x_0_hat, (variance if error > 0 else 1 - abar_t) ** 0.5).flatten(1).sum(1)
    gap = (weight * (x_0 - x_0_hat)).square().flatten(1).sum(1)
    spread = small / variance - 1 - math.log(small / variance)
    return (gap / variance + spread * x_0[0].numel()) / 2


def log_bin(x_0: Images, mean: Images, std: float | Tensor) -> Images:
    """The log-probability of the pixel's bin under N(mean, std^2); the outer two bins are open."""
    off = (x_0 - mean) * torch.where(x_0 > mean, -1, 1)  # the side on which log_ndtr does not round to 0
    inner = torch.special.log_ndtr((off + HALF_BIN) / std)
    outer = torch.special.log_ndtr((off - HALF_BIN) / std)
    both = inner + torch.log1p(-(outer - inner).exp())
    black = torch.special.log_ndtr((x_0 + HALF_BIN - mean) / std)
    white = torch.special.log_ndtr((mean - x_0 + HALF_BIN) / std)
    return torch.where(x_0 < -1 + HALF_BIN, black, torch.where(x_0 > 1 - HALF_BIN, white, both))


@torch.no_grad()
def denoising_error(
    denoiser: Denoiser, x_0: Images, schedule: Schedule, grid: Grid | None = None, generator: Generators = None
) -> Float[Tensor, " times"]:
    """The mean of (x_0 - x_0_hat)^2 per pixel at each t of the grid, 0 elsewhere: (T + 1,) float64. Raises ValueError
    for an invalid grid or generator, and for a denoiser that returns NaN or infinity."""
    errors, image = torch.zeros(schedule.T + 1, dtype=torch.float64), x_0.cpu().double()
    grid = check_arguments(x_0, schedule, grid, generator)
    for t, _ in progress(grid, "error at each t"):
        errors[t] = (image - denoise_noised(denoiser, x_0, t, schedule, generator)).square().mean()
    return errors


def denoise_noised(denoiser: Denoiser, x_0: Images, t: int, schedule: Schedule, generator: Generators) -> Images:
    """x_0_hat of one x_t drawn for each image, float64 on the CPU."""
    x_t = q_sample(x_0, times(t, x_0), noise_like(x_0, generator), schedule)
    x_0_hat = denoiser(x_t, times(t, x_0)).cpu().double()
    if not x_0_hat.isfinite().all():
        raise ValueError(f"the denoiser returns NaN or infinity at t = {t}: training may have diverged")
    return x_0_hat
