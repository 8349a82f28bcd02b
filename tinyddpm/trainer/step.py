"""One step of training: which times and labels, which loss, how far to go."""

import contextlib
import itertools
import math
import random

import torch
from torch import Generator, Tensor, nn

from ..diffusion import diffusion_loss
from ..schedules import Schedule
from .optim import Muon, matrices_and_rest
from .recipes import Recipe

OPTIMIZERS = ("adam", "muon")
DECAYS = ("cosine", "linear", "none")
TIMES = ("uniform", "logit-normal", "half-logit-normal")


def drop_labels(y: Tensor, num_classes: int, p: float, generator: Generator | None = None) -> Tensor:
    """Each label by itself becomes the null class with probability p (Ho & Salimans 2022, algorithm 1).

    Raises ValueError for labels outside 0..num_classes-1.
    """
    check_labels(y, num_classes)
    dropped = torch.rand(y.shape, generator=generator, device=y.device) < p
    return torch.where(dropped, num_classes, y)


def check_labels(y: Tensor, num_classes: int | None) -> None:
    """Raises ValueError for labels outside 0..num_classes-1. Looks on the CPU only: a GPU would wait."""
    if num_classes is not None and y.device.type == "cpu" and (y.min() < 0 or y.max() >= num_classes):
        raise ValueError(
            f"the recipe has labels 0..{num_classes - 1}, but the data has {y.min()}..{y.max()}: "
            "set the recipe's num_classes to that of the data"
        )


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """Rises over the warm-up's steps, then falls to 0 as the recipe's decay says, or stays; progress from 0
    to 1."""
    rise, progress = min(1, step / max(1, recipe.warmup)), min(progress, 1)
    left = {"cosine": (1 + math.cos(math.pi * progress)) / 2, "linear": 1 - progress, "none": 1.0}
    return recipe.learning_rate * rise * left[recipe.decay]


def make_optimizers(recipe: Recipe, model: nn.Module, half: bool) -> list[torch.optim.Optimizer]:
    """Adam for all weights, or Muon for the matrices and Adam for the rest.

    Raises ValueError for the name of another optimizer or decay.
    """
    if recipe.decay not in DECAYS:
        raise ValueError(f"the learning rate's decay is one of {', '.join(DECAYS)}, got {recipe.decay!r}")
    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(f"the optimizer is one of {', '.join(OPTIMIZERS)}, got {recipe.optimizer!r}")
    matrices, rest = matrices_and_rest(model) if recipe.optimizer == "muon" else ([], model.parameters())
    fused = next(model.parameters()).device.type != "mps"
    if recipe.weight_decay:
        adam = torch.optim.AdamW(rest, weight_decay=recipe.weight_decay, fused=fused)
    else:
        adam = torch.optim.Adam(rest, fused=fused)
    return [Muon(matrices, half=half), adam] if matrices else [adam]


def draw_times(n: int, T: int, generator: Generator, places: int | None = None, times: str = "uniform") -> Tensor:
    """n times in 1..T, or among so many places even in 1..T, the last of them T: (n,).

    "uniform", or "logit-normal", the middle more often: T / (1 + e^-z) with z from N(0, 1) (Esser et al.
    2024, section 3.1); "half-logit-normal": the first half of them uniform, the others so. Raises ValueError
    for another name.
    """
    places, device = T if places is None else places, generator.device
    if times not in TIMES:
        raise ValueError(f"times are drawn as one of {', '.join(TIMES)}, got {times!r}")
    if times == "uniform":
        place = torch.randint(1, places + 1, (n,), generator=generator, device=device)
    else:
        share = torch.rand(n // 2 if times == "half-logit-normal" else 0, generator=generator, device=device)
        middle = torch.randn(n - len(share), generator=generator, device=device).sigmoid()
        share = torch.cat([share, middle])
        place = (share * places).ceil().long().clamp(1, places)
    return (place * T + places - 1) // places


def places_at(recipe: Recipe, progress: float) -> int:
    """How many different times the recipe trains now: in progressive training few at first."""
    stages = (*recipe.grow, recipe.T)
    return stages[min(int(progress * len(stages)), len(stages) - 1)]


def epoch_order(n: int, batch: int, seed: int, epoch: int, part: int = 0, parts: int = 1) -> list[list[int]]:
    """Which of n images each batch of an epoch takes: it follows from the seed and the epoch's number alone.

    Each of several processes gets a part of every batch, `batch` images long. What fills no batch is left.
    """
    both = random.Random(f"{seed} {epoch}").getrandbits(32)  # torch looks at 32 bits of a seed
    order = torch.randperm(n, generator=Generator().manual_seed(both))
    batches = n // (parts * batch)
    return order[: batches * parts * batch].reshape(batches, parts, batch)[:, part].tolist()


def draw_noise(
    x_0: Tensor, y: Tensor, recipe: Recipe, generator: Generator, progress: float = 1.0, part: int = 0, parts: int = 1
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What is random in a step (Ho et al. 2020, algorithm 1): times (b,), noise in the shape of x_0, and
    the labels that are left, (b,) or None.

    x_0 may be one of several equal parts of a batch, each with a process of its own: all draw the times,
    the noise and the dropped labels of the whole batch, and take theirs.
    """
    n = len(x_0)
    mine = slice(part * n, (part + 1) * n)
    t = draw_times(parts * n, recipe.T, generator, places_at(recipe, progress), recipe.times)[mine]
    eps = torch.randn((parts * n, *x_0.shape[1:]), generator=generator, device=x_0.device)[mine]
    labels = None
    if recipe.num_classes is not None:
        labels = drop_labels(y.repeat(parts), recipe.num_classes, recipe.label_drop, generator)[mine]
    return t, eps, labels


class Stepper:
    """A network and its optimizers, one step at a time.

    With accumulate the batch goes through the network in so many parts, one after another: the same step
    in less memory.
    """

    def __init__(
        self,
        net: nn.Module,
        optimizers: list[torch.optim.Optimizer],
        recipe: Recipe,
        schedule: Schedule,
        accelerator,
        accumulate: int = 1,
    ):
        self.net, self.optimizers, self.recipe, self.schedule = net, optimizers, recipe, schedule
        self.accelerator, self.accumulate = accelerator, accumulate

    def __call__(self, x_0: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None, rate: float):
        """One step at this learning rate. Returns each image's loss (b,), and the gradient's norm before
        it was held to the recipe's."""
        for group in itertools.chain(*(optimizer.param_groups for optimizer in self.optimizers)):
            group["lr"] = rate
        parts = [part.chunk(self.accumulate) for part in (x_0, t, eps)]
        labels = [None] * len(parts[0]) if labels is None else labels.chunk(self.accumulate)
        losses = []
        for k, (images, times, noise, y) in enumerate(zip(*parts, labels), 1):
            wait = k < len(labels)  # other processes hear of the gradient when it is whole
            with self.accelerator.no_sync(self.net) if wait else contextlib.nullcontext():
                loss = batch_losses(self.net, images, times, noise, y, self.recipe, self.schedule)
                self.accelerator.backward(loss.sum() / len(x_0))
            losses.append(loss.detach())
        return torch.cat(losses), self.update()

    def update(self) -> Tensor:
        scaler = self.accelerator.scaler  # with fp16, whose gradients would vanish
        if scaler is not None:
            for optimizer in self.optimizers:
                scaler.unscale_(optimizer)
        most = math.inf if self.recipe.grad_norm is None else self.recipe.grad_norm
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), most)
        if scaler is None or norm.isfinite():  # all of them or none: what overflowed spoils the common norm
            for optimizer in self.optimizers:
                optimizer.step() if scaler is None else scaler.step(optimizer)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        if scaler is not None:  # once for all of them: accelerate's own wrapper does so for each
            scaler.update()
        return norm


def batch_losses(
    net: nn.Module, x_0: Tensor, t: Tensor, eps: Tensor, labels: Tensor | None, recipe: Recipe, schedule: Schedule
) -> Tensor:
    """The recipe's loss of each image: (b,)."""
    how = recipe.predicts, recipe.loss, recipe.weights
    return diffusion_loss(net, x_0, t, eps, schedule, labels, *how, reduction="none")
