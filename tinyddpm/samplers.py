"""From t to s: the samplers. Each sees a denoiser (x_t, t) -> x_0_hat and nothing else, derives eps
from it again, and is a generator of `Step`s over the pairs (t, s) of one explicit time grid.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .diffusion import Denoiser, Images, eps_from_x_0, q_posterior
from .grids import Grid, check_grid
from .schedules import Schedule

Generators = Generator | Sequence[Generator] | None
VARIANCES = ("posterior", "beta")
Variance = str | Callable[[int, int], Tensor]  # one of VARIANCES, or (t, s) -> that of each pixel


@dataclass(frozen=True)
class Step:
    """Where the sampler stands: x_t at time t, and the clean image that the denoiser sees in it.

    The last step of a run has t = 0, and there both are the finished image. Where a grid stops earlier,
    the last x_0_hat is that of the step before.
    """

    t: int
    x_t: Images
    x_0_hat: Images


def last(steps: Iterable[Step]) -> Step:
    """Runs a sampler to its end without keeping what it passed. Raises ValueError where there is no step."""
    step = None
    for step in steps:
        pass
    if step is None:
        raise ValueError("there was no step to take the last of: the sampler was already drained")
    return step


def noise_like(x: Tensor, generator: Generators = None) -> Tensor:
    """Standard normal noise in the shape of x; from a list of generators, one for each image.

    Noise is drawn on the generator's own device (the CPU for none) and moved: seeds mean the same
    everywhere. Raises ValueError for a list of another length than the batch.
    """
    if generator is None or isinstance(generator, Generator):
        device = generator.device if generator is not None else "cpu"
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=device).to(x.device)
    if len(generator) != len(x):
        raise ValueError(f"one generator an image: got {len(generator)} for {len(x)} images")
    return torch.stack(
        [torch.randn(x.shape[1:], generator=g, dtype=x.dtype, device=g.device) for g in generator]
    ).to(x.device)


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

    variance: "posterior" (beta tilde, exact where all data are one image) or "beta" (1 - alpha_bar_t /
    alpha_bar_s, exact where the data are standard normal), or a function such as LearnedVariance.variance.
    A step to s = 0 adds no noise.
    """
    if not callable(variance) and variance not in VARIANCES:
        raise ValueError(f"the variance is one of {', '.join(VARIANCES)}, got {variance!r}")
    mean, var = q_posterior(x_0_hat, x_t, t, s, schedule)
    if s == 0:
        return mean
    if callable(variance):
        var = variance(t, s)
    elif variance == "beta":
        var = 1 - float(schedule.alpha_bar[t] / schedule.alpha_bar[s])
    return mean + var**0.5 * noise_like(x_t, generator)


@torch.no_grad()
def p_sample_loop(
    denoiser: Denoiser,
    x_T: Images,
    schedule: Schedule,
    grid: Grid | None = None,
    variance: Variance = "posterior",
    generator: Generators = None,
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2) over any grid: all T steps where it is None.

    Where the grid goes up from t to s it adds the noise of q(x_s | x_t) = N(sqrt(a) x_t, 1 - a), a =
    alpha_bar_s / alpha_bar_t, without asking the denoiser (Lugmayr et al. 2022, "RePaint", algorithm 1).
    """
    x_t = x_T
    for t, s in check_grid(grid, schedule.T, climbs=True):
        if t < s:
            yield Step(t, x_t, x_t if t == 0 else x_0_hat)
            a = float(schedule.alpha_bar[s] / schedule.alpha_bar[t])
            x_t = a**0.5 * x_t + (1 - a) ** 0.5 * noise_like(x_t, generator)
            continue
        x_0_hat = denoiser(x_t, times(t, x_t))
        yield Step(t, x_t, x_0_hat)
        x_t = p_sample(x_t, x_0_hat, t, s, schedule, variance, generator)
    yield Step(s, x_t, x_t if s == 0 else x_0_hat)


@torch.no_grad()
def ddim(
    denoiser: Denoiser,
    x_T: Images,
    schedule: Schedule,
    grid: Grid | None = None,
    eta: float = 0.0,
    generator: Generators = None,
) -> Iterator[Step]:
    """Implicit sampling (Song et al. 2021, "DDIM", eq. 12 and 16): the same marginals with as much fresh
    noise as eta says. eta = 0 draws none: the image is a function of x_T. eta = 1 is p_sample_loop.

    x_s = sqrt(alpha_bar_s) x_0_hat + sqrt(1 - alpha_bar_s - sigma^2) eps_hat + sigma z, with
    sigma = eta sqrt((1 - alpha_bar_s) / (1 - alpha_bar_t) (1 - alpha_bar_t / alpha_bar_s)).

    Raises ValueError for an eta outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta goes from 0 (no fresh noise) to 1 (as much as DDPM), got {eta}")
    x_t = x_T
    for t, s in check_grid(grid, schedule.T):
        x_0_hat = denoiser(x_t, times(t, x_t))
        yield Step(t, x_t, x_0_hat)
        eps_hat = eps_from_x_0(x_0_hat, x_t, t, schedule)
        abar_t, abar_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
        var = eta**2 * (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)
        x_t = abar_s**0.5 * x_0_hat + max(1 - abar_s - var, 0.0) ** 0.5 * eps_hat
        if var > 0:
            x_t = x_t + var**0.5 * noise_like(x_t, generator)
    yield Step(s, x_t, x_t if s == 0 else x_0_hat)


def times(t: int, x: Images) -> Tensor:
    """t once for each image: (b,)."""
    return torch.full((len(x),), t, device=x.device)
