"""From image to image: each goes back to noise and comes again, changed on the way."""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion import Denoiser, Images, eps_from_x_0, q_sample
from ..samplers import Generators, Step, angle, ddim, last, noise_like, times, velocity
from ..schedules import Grid, Schedule, check_grid


def sdedit(
    denoiser: Denoiser,
    x_0: Images,
    schedule: Schedule,
    grid: Grid,
    sampler: Callable[..., Iterator[Step]] = ddim,
    generator: Generators = None,
) -> Iterator[Step]:
    """The image noised to where the grid begins, and from there sampled (Meng et al. 2022, "SDEdit",
    algorithm 1): schedule.grid(steps, start=t) says how far back, and so how little of it stays. One that
    draws noise on the way is given its own generator: partial(p_sample_loop, generator=generator)."""
    start = check_grid(grid, schedule.T, climbs=True)[0][0]
    x_t = q_sample(x_0, start, noise_like(x_0, generator), schedule)
    return sampler(denoiser, x_t, schedule, grid)


@torch.no_grad()
def invert(
    denoiser: Denoiser, x_0: Images, schedule: Schedule, grid: Grid | None = None, iterations: int = 1
) -> Iterator[Step]:
    """The noise that ddim would make this image of: its steps backwards, from the grid's last s up to its
    first t (Song et al. 2021, "DDIM", section 4.3). The grid is the sampler's, and descends.

    A step of ddim from t to s asks the denoiser at t, where this one only goes: it takes eps(x_s, t), and
    with more iterations solves x_s = cos(d) x_t - sin(d) v(x_t, t), d = phi_t - phi_s, for x_t by fixed
    points (Pan et al. 2023, "AIDI", in eps; in v they converge at high noise, too). That brings the round
    trip as near to x_0 as wanted, where the denoiser is smooth enough. Raises ValueError for iterations
    below 1, and for more than 1 where a step is nearly all of the way.
    """
    if iterations < 1:
        raise ValueError(f"an inversion takes at least 1 iteration a step, got {iterations}")
    grid, x = check_grid(grid, schedule.T), x_0
    yield Step(grid[-1][1], x, x)
    for t, s in reversed(grid):
        x_0_hat = denoiser(x, times(t, x))
        x_t = back(x, eps_from_x_0(x_0_hat, x, t, schedule), t, s, schedule)
        turn = angle(t, schedule) - angle(s, schedule)
        if iterations > 1 and math.cos(turn) < 0.1:
            raise ValueError(f"a step from {t} to {s} is too long to be inverted by iterations: take more steps")
        for _ in range(iterations - 1):
            x_0_hat = denoiser(x_t, times(t, x_t))
            slope = velocity(x_0_hat, x_t, t, schedule)
            x_t = (x + math.sin(turn) * slope) / math.cos(turn)
        x = x_t
        yield Step(t, x, x_0_hat)


def back(x_s: Images, eps_hat: Images, t: int, s: int, schedule: Schedule) -> Images:
    """x_t such that ddim's step from t with this eps ends in x_s (Song et al. 2021, eq. 13)."""
    signal_t, signal_s = (float(schedule.sqrt_alpha_bar[i]) for i in (t, s))
    noise_t, noise_s = (float(schedule.sqrt_one_minus_alpha_bar[i]) for i in (t, s))
    return signal_t / signal_s * (x_s - noise_s * eps_hat) + noise_t * eps_hat


def round_trip_error(
    denoiser: Denoiser, x_0: Images, schedule: Schedule, grid: Grid | None = None, iterations: int = 1
) -> Float[Tensor, " b"]:
    """How far an image is from itself after `invert` and ddim: root mean square over its pixels, (b,)."""
    x_t = last(invert(denoiser, x_0, schedule, grid, iterations)).x_t
    return (last(ddim(denoiser, x_t, schedule, grid)).x_t - x_0).square().flatten(1).mean(1).sqrt()


def transfer(
    source: Denoiser, target: Denoiser, x_0: Images, schedule: Schedule, grid: Grid | None = None, iterations: int = 1
) -> Iterator[Step]:
    """x_0, inverted under one belief and sampled under another: what the two share is kept in the noise.
    Between a digit's own label and another one that is the hand, slant and stroke width (Su et al. 2023,
    "Dual diffusion implicit bridges", algorithm 1)."""
    x_T = last(invert(source, x_0, schedule, grid, iterations)).x_t
    return ddim(target, x_T, schedule, grid)


def slerp(a: Images, b: Images, share: float | Float[Tensor, " b"]) -> Images:
    """From a to b on a great circle, each image by itself (Shoemake 1985, section 3.3; for diffusion, Song et
    al. 2021, "DDIM", appendix D.5): what is between two noises is noise again, where a straight line would
    lose variance. share 0 is a, 1 is b; one number, or one for each image. Between exact opposites there is
    no one great circle, and the straight line is taken.

    Raises ValueError for images of two shapes, and for shares outside [0, 1] or of another number.
    """
    if a.shape != b.shape:
        raise ValueError(f"both ends are images of one shape, got {tuple(a.shape)} and {tuple(b.shape)}")
    share = torch.as_tensor(share, dtype=a.dtype).reshape(-1, 1, 1, 1)
    if len(share) not in (1, len(a)) or not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"one share in [0, 1], or one an image: got {share.flatten().tolist()}")
    share = share.to(a.device)
    norms = a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1)
    cos = (a * b).flatten(1).sum(1) / norms.clamp(min=1e-12)
    theta = cos.clamp(-1, 1).acos().reshape(-1, 1, 1, 1)
    near = theta.sin() < 1e-4  # on a line
    sin = torch.where(near, 1, theta.sin())
    arc = ((1 - share) * theta).sin() / sin * a + (share * theta).sin() / sin * b
    return torch.where(near, torch.lerp(a, b, share), arc)
