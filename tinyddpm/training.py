"""Training: the objective of a batch, the average of the weights, and the loop (Ho et al. 2020, algorithm 1).

The loop is a generator: logging and checkpoints stay outside. trainer/ makes the same loop resumable.
"""

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from .diffusion import Images, Labels, diffusion_loss
from .schedules import Schedule

Drawn = tuple[Int[Tensor, " b"], Images, Labels | None]  # t, eps and y
Losses = tuple[Float[Tensor, " b"], Int[Tensor, " b"]]  # the loss of each image, and its t
Objective = Callable[[nn.Module, Images, Tensor | None, Generator], Losses]


class EMA:
    """An exponential moving average of a network's weights, as a network: `model`, to sample from and to keep.

    average <- d average + (1 - d) weights, d = min(decay, (1 + n) / (10 + n)) after n updates. Buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for average, buffer in zip(self.model.buffers(), model.buffers()):
            average.copy_(buffer)


def drop_labels(y: Labels, num_classes: int, p: float, generator: Generator | None = None) -> Labels:
    """Replaces each label, or caption (b, k), by num_classes, null, with probability p (Ho & Salimans 2022, alg. 1)."""
    dropped = torch.rand(len(y), generator=generator, device=y.device) < p
    return torch.where(dropped.reshape(-1, *[1] * (y.ndim - 1)), num_classes, y)


def uniform_times(n: int, T: int, generator: Generator) -> Int[Tensor, " n"]:
    return torch.randint(1, T + 1, (n,), generator=generator, device=generator.device)


@dataclass(frozen=True)
class DenoisingLoss:
    """The denoising loss of a batch: an objective, which draws its own times and noise, as any other does.

    times: (n, T, generator) -> n times in 1..T. label_drop: the share of labels replaced by the null class, for
    classifier-free guidance. The others are those of diffusion_loss.
    """

    schedule: Schedule
    predicts: str = "eps"
    loss: str = "mse"
    weights: str = "none"
    label_drop: float = 0.1
    times: Callable[[int, int, Generator], Tensor] = uniform_times

    def __call__(self, model: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        t, eps, y = self.draw(model, x_0, y, generator)
        return diffusion_loss(model, x_0, t, eps, self.schedule, y, self.predicts, self.loss, self.weights, "none"), t

    def draw(self, model: nn.Module, x_0: Images, y: Labels | None, generator: Generator) -> Drawn:
        """The times, the noise, and the labels of which some are dropped, None for a network without labels."""
        t = self.times(len(x_0), self.schedule.T, generator)
        eps = torch.randn(x_0.shape, generator=generator, device=x_0.device)
        classes: int | None = model.num_classes  # type: ignore[assignment]
        return t, eps, None if y is None or classes is None else drop_labels(y, classes, self.label_drop, generator)


def warmup_cosine(rate: float, warmup: int, steps: int) -> Callable[[int], float]:
    """A learning rate that rises linearly over `warmup` steps, and falls to 0 along a cosine over all `steps`."""
    return lambda n: rate * min(1, n / max(1, warmup)) * (1 + math.cos(math.pi * min(1, n / steps))) / 2


@dataclass(frozen=True)
class TrainStep:
    """One step of training, and the gradient's norm before clipping."""

    number: int  # from 1
    losses: Float[Tensor, " b"]
    t: Int[Tensor, " b"]
    grad_norm: Tensor


def train_steps(
    model: nn.Module,
    batches: Iterable[tuple[Images, Tensor | None]],
    loss: Objective,
    optimizer: torch.optim.Optimizer,
    rate: Callable[[int], float],
    ema: EMA | None = None,
    generator: Generator | None = None,
    max_norm: float = 1.0,
    start: int = 0,
    backward: Callable[[Tensor], None] = Tensor.backward,
    clip: Callable[[Iterable[Tensor], float], Tensor] = nn.utils.clip_grad_norm_,
) -> Iterator[TrainStep]:
    """The training loop: one optimizer step for each batch (x_0, y), lazily: stop iterating, and training stops.

    loss            an objective such as DenoisingLoss
    rate            the learning rate of step n = 1, 2, ...
    generator       for times, noise and dropped labels, on the images' device; by default one with a fixed seed
    max_norm        to which gradients are scaled down
    start           the number of steps taken before
    backward, clip  those of accelerate's Accelerator, for mixed precision
    """
    generator = Generator(next(model.parameters()).device) if generator is None else generator
    for number, (x_0, y) in enumerate(batches, start + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(number)
        losses, t = loss(model, x_0, y, generator)
        backward(losses.mean())
        norm = clip(model.parameters(), max_norm)
        optimizer.step()
        optimizer.zero_grad()
        if ema is not None:
            ema.update(model)
        yield TrainStep(number, losses.detach(), t, norm)
