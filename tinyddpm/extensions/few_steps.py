"""One step, or a few: three objectives that learn where the path of the probability-flow ODE leads.

    ReflowLoss       straightens the path, from pairs of a noise and the image it led to (Liu et al. 2022)
    ConsistencyLoss  predicts the clean end of the path, the same from anywhere on it (Song et al. 2023)
    MeanFlowLoss     predicts the average velocity between any two times of the path (Geng et al. 2025)

Each is an objective of train_steps. ddim draws with all in one step; consistency_sampling and mean_flow in several.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from ..diffusion import LOSSES, Images, Labels, diffusion_loss, eps_from_x_0, loss_weight, make_denoiser, q_sample
from ..samplers import Generators, Step, check_arguments, ddim, heun, last, noise_like, trajectory
from ..schedules import Grid, Schedule, Times, choose, require
from ..training import DenoisingLoss, Losses
from .self_conditioning import SelfConditioned


def reflow_pairs(
    denoiser: Callable, x_T: Images, schedule: Schedule, grid: Grid | None = None, sampler: Callable = heun
) -> Float[Tensor, "b c2 h w"]:
    """The images that the ODE makes of x_T, and the noise that leads from each to its x_T, joined along the channels
    (Liu et al. 2022, algorithm 1). Raises ValueError as the sampler does."""
    x_0 = last(sampler(denoiser, x_T, schedule, grid)).x_t
    return torch.cat([x_0, eps_from_x_0(x_0, x_T, schedule.T, schedule)], dim=1)


def split_pairs(pairs: Float[Tensor, "b c2 h w"]) -> tuple[Images, ...]:
    """The images and the noise that reflow_pairs joined. Raises ValueError for a batch of images alone."""
    require(pairs.shape[1] % 2 == 0, "expected batches of reflow_pairs, with twice the channels", tuple(pairs.shape))
    return pairs.chunk(2, dim=1)


class ReflowLoss(DenoisingLoss):
    """The denoising loss of pairs: each image keeps its own noise, so that the paths learned cross less and come out
    straighter (Liu et al. 2022, eq. 1). x_0 holds the images and their noise: reflow_pairs."""

    def __call__(self, model: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        x_0, eps = split_pairs(x_0)
        t, _, y = self.draw(model, x_0, y, generator)
        kind = self.predicts, self.loss, self.weights, "none"
        return diffusion_loss(model, x_0, t, eps, self.schedule, y, *kind), t


@dataclass(frozen=True)
class ConsistencyLoss(DenoisingLoss):
    """The difference of the network's x_0_hat at two times of a path, t and s = t - gap. No gradient flows through the
    one at s (Song et al. 2023, algorithms 2 and 3). weights: those of DenoisingLoss, as if it predicted x_0.

    teacher: y -> denoiser, such as ddpm.denoiser: its DDIM step leads to x_s (distillation). None: the noise of x_t
    leads there (training). Raises ValueError for a gap below 1, and for "x_0", which may change a clean image at t = 0.
    """

    predicts: str = "v"
    teacher: Callable[[Labels | None], Callable] | None = None
    gap: int = 20

    def __post_init__(self):
        if self.predicts == "x_0" or self.gap < 1:
            found = f"{self.predicts!r} and {self.gap}: predict v or flow"
            raise ValueError(f"consistency needs a prediction other than 'x_0' and a gap of at least 1, got {found}")

    def __call__(self, model: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        t, eps, y = self.draw(model, x_0, y, generator)
        x_t, s = q_sample(x_0, t, eps, self.schedule), (t - self.gap).clamp(min=0)
        consistent = make_denoiser(model, self.schedule, self.predicts, y)
        with torch.no_grad():
            if self.teacher is not None:
                x_0 = self.teacher(y)(x_t, t)
                eps = eps_from_x_0(x_0, x_t, t, self.schedule)
            target = consistent(q_sample(x_0, s, eps, self.schedule), s)
        torch.clear_autocast_cache()  # see self_conditioning
        errors = choose(LOSSES, self.loss, "loss")(consistent(x_t, t), target, reduction="none").flatten(1).mean(1)
        return loss_weight(t, x_0, self.schedule, "x_0", self.weights) * errors, t


def consistency_sampling(
    denoiser: Callable, x_T: Images, schedule: Schedule, grid: Grid | None = None, generator: Generators = None
) -> Iterator[Step]:
    """x_s = sqrt(alpha_bar_s) x_0_hat + sqrt(1 - alpha_bar_s) z with fresh noise z: to the end of the path, and back to
    s (Song et al. 2023, algorithm 1). Raises ValueError for invalid arguments."""

    def update(x_t: Images, x_0_hat: Images, t: int, s: int) -> Images:
        return x_0_hat if s == 0 else q_sample(x_0_hat, s, noise_like(x_t, generator), schedule)

    return trajectory(denoiser, x_T, check_arguments(x_T, schedule, grid, generator), update)


# Average velocities: of the straight path z = (1 - u) x_0 + u eps, u in [0, 1], on which x_t / (signal + noise) lies.
# A network is asked at x_t and T u, which is t itself for the schedule "flow".
VELOCITY = {"flow": "eps - x_0, or its average between two times"}


def flow_time(t: Times, x: Images, schedule: Schedule) -> Tensor:
    """u = noise / (signal + noise) of each image: (b,)."""
    signal, noise = schedule.coefficients(t, x)
    return (noise / (signal + noise)).flatten()


def average_velocity(model: Callable, y: Labels | None, T: int, u_s: Tensor, z: Images, u: Tensor) -> Images:
    """What the network says of (z_u - z_s) / (u - u_s)."""
    scale = ((1 - u) ** 2 + u**2).sqrt().reshape(-1, 1, 1, 1)
    return model(z / scale, T * u, y, T * u_s)


def mean_flow_target(average: Callable, z: Images, u: Tensor, u_s: Tensor, velocity: Images) -> tuple[Images, Images]:
    """average(z, u), and what it must be: velocity - (u - u_s) d/du average, the total derivative along the path (Geng
    et al. 2025, eq. 6) by torch.func.jvp. No gradient flows through the second."""
    found, change, *_ = torch.func.jvp(average, (z, u), (velocity, torch.ones_like(u)))
    return found, (velocity - (u - u_s).reshape(-1, 1, 1, 1) * change).detach()


@dataclass(frozen=True)
class MeanFlowLoss(DenoisingLoss):
    """The error of a network of two times in the average velocity between them (Geng et al. 2025, algorithm 1). Raises
    ValueError unless predicts is "flow", and instant is in [0, 1]."""

    predicts: str = "flow"
    instant: float = 0.5  # the share of images with s = t: flow matching

    def __post_init__(self):
        choose(VELOCITY, self.predicts, "prediction of two times")
        require(0 <= self.instant <= 1, "the share of images with s = t must be in [0, 1]", self.instant)

    def __call__(self, model: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        t, eps, y = self.draw(model, x_0, y, generator)
        s = self.times(len(x_0), self.schedule.T, generator) - 1
        t, s = t.maximum(s), t.minimum(s)
        s = torch.where(torch.rand(len(x_0), generator=generator, device=x_0.device) < self.instant, t, s)
        u, u_s = (flow_time(time, x_0, self.schedule) for time in (t, s))
        z = x_0 + u.reshape(-1, 1, 1, 1) * (eps - x_0)
        average = partial(average_velocity, model, y, self.schedule.T, u_s)
        found, target = mean_flow_target(average, z, u, u_s, eps - x_0)
        errors = choose(LOSSES, self.loss, "loss")(found, target, reduction="none").flatten(1).mean(1)
        return loss_weight(t, x_0, self.schedule, "flow", self.weights) * errors, t


class TwoTimes(SelfConditioned):
    """A network of two times around one of 2c channels in and c out, which sees s / t in the other channels: a module,
    or the name of its class in NETWORKS with the arguments of that class."""

    def forward(self, x_t: Images, t: Tensor, y: Labels | None = None, s: Tensor | None = None) -> Images:
        """The average velocity between t > 0 and s, by default 0: (b, c, h, w)."""
        share = torch.zeros_like(t) if s is None else s / t
        return super().forward(x_t, t, y, share.to(x_t.dtype).reshape(-1, 1, 1, 1).expand_as(x_t))

    @staticmethod
    def make_denoiser(model: Callable, schedule: Schedule, predicts: str = "flow", y: Labels | None = None) -> Callable:
        """(x_t, t, s=0) -> x_0_hat, where the chord from t to s ends. Raises ValueError unless predicts is "flow"."""
        choose(VELOCITY, predicts, "prediction of two times")

        def denoiser(x_t: Images, t: Tensor, s: int = 0) -> Images:
            u, u_s = (flow_time(time, x_t, schedule) for time in (t, s))
            z = x_t / sum(schedule.coefficients(t, x_t))
            return z - u.reshape(-1, 1, 1, 1) * average_velocity(model, y, schedule.T, u_s, z, u)

        return denoiser


def mean_flow(
    denoiser: Callable, x_T: Images, schedule: Schedule, grid: Grid | None = None, generator: Generators = None
) -> Iterator[Step]:
    """DDIM along the chords of the path in place of its tangents: exact in any number of steps if the average velocity
    is (Geng et al. 2025, eq. 12). Raises ValueError as ddim does, and for a denoiser that takes no time s."""
    if "s" not in inspect.signature(denoiser).parameters:
        raise ValueError("mean_flow needs a denoiser (x_t, t, s) of two times, such as TwoTimes.make_denoiser's")
    ends = dict(check_arguments(x_T, schedule, grid, generator))
    return ddim(lambda x_t, t: denoiser(x_t, t, ends[int(t[0])]), x_T, schedule, grid)
