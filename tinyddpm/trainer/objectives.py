"""What the names in a recipe mean: how a step draws its times, networks and objectives."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Generator, Tensor, nn

from ..diffusion import LOSSES, WEIGHTS
from ..extensions.learned_variance import LearnedVarianceLoss
from ..extensions.self_conditioning import SelfConditioned, SelfConditionedLoss
from ..extensions.vdm import POWERS, WIDTH, BoundLoss, GreyLevels
from ..schedules import BETAS
from ..training import DenoisingLoss, uniform_times
from ..training import Objective as Loss
from .optim import OPTIMIZERS
from .recipes import DECAYS, Recipe

# --- the times of a step: (n, T, generator, progress of the run from 0 to 1) -> n times in 1..T --------------------


def logit_normal(n: int, T: int, generator: Generator, progress: float) -> Tensor:
    """T / (1 + e^-z) with z from N(0, 1), rounded up: the middle more often (Esser et al. 2024, section 3.1)."""
    z = torch.randn(n, generator=generator, device=generator.device)
    return (z.sigmoid() * T).ceil().long().clamp(1, T)


def half_logit_normal(n: int, T: int, generator: Generator, progress: float) -> Tensor:
    """The first half of the times uniform, the others logit-normal."""
    u = torch.rand(n // 2, generator=generator, device=generator.device)
    return torch.cat([(u * T).ceil().long().clamp(1, T), logit_normal(n - n // 2, T, generator, progress)])


def progressive(n: int, T: int, generator: Generator, progress: float) -> Tensor:
    """Among 10, then 100 evenly spaced times, then all T, each in a third of the run."""
    places = min((10, 100, T)[min(int(3 * progress), 2)], T)
    return (uniform_times(n, places, generator) * T + places - 1) // places


Times = Callable[[int, int, Generator], Tensor]
TIMES = {
    "uniform": lambda n, T, generator, progress: uniform_times(n, T, generator), "logit-normal": logit_normal,
    "half-logit-normal": half_logit_normal, "progressive": progressive,
}  # fmt: skip


def network(
    recipe: Recipe, image_shape: tuple[int, int, int], inputs: int = 1, outputs: int | None = None
) -> nn.Module:
    """Untrained, for images (c, h, w), with inputs c channels in and outputs c channels out, c by default."""
    c, h, w = image_shape
    return recipe.network.build((inputs * c, h, w), recipe.num_classes, outputs and outputs * c)


def self_conditioned(recipe: Recipe, image_shape: tuple[int, int, int]) -> nn.Module:
    return SelfConditioned(network(recipe, image_shape, 2, 1))


def grey_levels(recipe: Recipe, image_shape: tuple[int, int, int]) -> nn.Module:
    return GreyLevels(network(recipe, image_shape, 1 + 2 * len(POWERS), WIDTH))


class Objective(NamedTuple):
    network: Callable[[Recipe, tuple[int, int, int]], nn.Module]  # untrained, for images (c, h, w)
    loss: Callable[..., Loss]  # called with the fields of DenoisingLoss


OBJECTIVES = {
    "denoising": Objective(network, DenoisingLoss),
    "learned-variance": Objective(partial(network, outputs=2), LearnedVarianceLoss),
    "self-conditioned": Objective(self_conditioned, SelfConditionedLoss),
    "bound": Objective(grey_levels, BoundLoss),
}
TABLES = {  # of each setting of a recipe that is a name
    "objective": OBJECTIVES, "schedule": BETAS, "loss": LOSSES, "weights": WEIGHTS, "times": TIMES,
    "optimizer": OPTIMIZERS, "decay": DECAYS,
}  # fmt: skip
