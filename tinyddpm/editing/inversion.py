"""From image to image by way of noise: inversion, SDEdit, transfer, and interpolation of noise."""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion import Denoiser, Images, eps_from_x_0, q_sample
from ..samplers import Generators, Sampler, Step, angle, check_arguments, ddim, last, noise_like, times, velocity
from ..schedules import Grid, Schedule, check_grid


def sdedit(
    denoiser: Denoiser,
    x_0: Images,
    schedule: Schedule,
    grid: Grid,
    sampler: Sampler = ddim,
    generator: Generators = None,
) -> Iterator[Step]:
    """The image noised to the first time of the grid, and sampled from there (Meng et al. 2022, "SDEdit", algorithm 1).

    The smaller t in schedule.grid(steps, start=t), the more of the image is kept. All noise comes from the generator.
    Raises ValueError for a grid that the sampler does not take.
    """
    start = check_arguments(x_0, schedule, grid, generator, climbs=True)[0][0]
    x_t = q_sample(x_0, start, noise_like(x_0, generator), schedule)
    return sampler(denoiser, x_t, schedule, grid, generator)


def invert(
    denoiser: Denoiser, x_0: Images, schedule: Schedule, grid: Grid | None = None, iterations: int = 1
) -> Iterator[Step]:
    """The noise from which ddim would generate this image: the sampler's grid in reverse order, from its last s to its
    first t (Song et al. 2021, "DDIM", section 4.3).

    ddim's step from t to s calls the denoiser at x_t, which is not known here. One iteration takes eps(x_s, t) in its
    place; more solve x_s = cos(d) x_t - sin(d) v(x_t, t), d = phi_t - phi_s, for x_t by fixed points (Pan et al. 2023,
    "AIDI", in eps; in v they also converge at high noise): exact in the limit where the denoiser is smooth enough.

    Raises ValueError for an invalid grid, for iterations below 1, and for more than 1 on a step of nearly 90 degrees.
    """
    grid = check_grid(grid, schedule.T)
    longest = max(angle(t, schedule) - angle(s, schedule) for t, s in grid)
    if iterations < 1 or iterations > 1 and math.cos(longest) < 0.1:
        wanted = f"iterations >= 1, and for more than 1 shorter steps than {longest:.2f} radians"
        raise ValueError(f"an inversion needs {wanted}, got {iterations}: take more steps")
    return inversion_steps(denoiser, x_0, schedule, grid, iterations)


@torch.no_grad()
def inversion_steps(denoiser: Denoiser, x: Images, schedule: Schedule, grid: Grid, iterations: int) -> Iterator[Step]:
    yield Step(grid[-1][1], x, x)
    for t, s in reversed(grid):
        x_0_hat = denoiser(x, times(t, x))
        eps_hat = eps_from_x_0(x_0_hat, x, t, schedule)
        (signal_t, noise_t), (signal_s, noise_s) = schedule.signal_noise(t), schedule.signal_noise(s)
        x_t = signal_t / signal_s * (x - noise_s * eps_hat) + noise_t * eps_hat  # DDIM, eq. 13, solved for x_t
        turn = angle(t, schedule) - angle(s, schedule)
        for _ in range(iterations - 1):
            x_0_hat = denoiser(x_t, times(t, x_t))
            x_t = (x + math.sin(turn) * velocity(x_0_hat, x_t, t, schedule)) / math.cos(turn)
        x = x_t
        yield Step(t, x, x_0_hat)


def round_trip_error(
    denoiser: Denoiser, x_0: Images, schedule: Schedule, grid: Grid | None = None, iterations: int = 1
) -> Float[Tensor, " b"]:
    """The root mean square over pixels of the difference that `invert` and then ddim make to an image, (b,)."""
    x_0_hat = last(transfer(denoiser, denoiser, x_0, schedule, grid, iterations)).x_t
    return (x_0_hat - x_0).square().flatten(1).mean(1).sqrt()


def transfer(
    source: Denoiser, target: Denoiser, x_0: Images, schedule: Schedule, grid: Grid | None = None, iterations: int = 1
) -> Iterator[Step]:
    """x_0 inverted with one denoiser and sampled with another (Su et al. 2023, "Dual diffusion implicit bridges",
    algorithm 1): the noise keeps what the two share, such as slant and stroke width. Raises ValueError as invert."""
    x_T = last(invert(source, x_0, schedule, grid, iterations)).x_t
    return ddim(target, x_T, schedule, grid)


def slerp(a: Images, b: Images, weight: float | Float[Tensor, " b"]) -> Images:
    """Spherical interpolation of each image, a at weight 0 and b at 1 (Shoemake 1985, section 3.3; for diffusion, Song
    et al. 2021, "DDIM", appendix D.5): between two noises it gives noise, where a straight line would lose variance.

    One weight, or one for each image. Parallel and opposite images, which determine no great circle, are interpolated
    linearly. Raises ValueError for two shapes, for integers, and for weights outside [0, 1] or of another number.
    """
    weight = torch.as_tensor(weight, dtype=a.dtype, device=a.device).reshape(-1, 1, 1, 1)
    floats = a.shape == b.shape and a.is_floating_point() and b.is_floating_point()
    if not floats or len(weight) not in (1, len(a)) or not ((weight >= 0) & (weight <= 1)).all():
        found = f"{tuple(a.shape)}, {tuple(b.shape)} and {weight.flatten().tolist()} for {a.dtype}, {b.dtype}"
        raise ValueError(f"slerp needs one shape and weights in [0, 1], one or one for each image, got {found}")
    theta = torch.cosine_similarity(a.flatten(1), b.flatten(1)).clamp(-1, 1).acos().reshape(-1, 1, 1, 1)
    on_a_line = theta.sin() < 1e-4
    sin = torch.where(on_a_line, 1, theta.sin())
    arc = ((1 - weight) * theta).sin() / sin * a + (weight * theta).sin() / sin * b
    return torch.where(on_a_line, torch.lerp(a, b, weight), arc)
