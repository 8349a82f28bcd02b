"""The data of a run: what is asked of it, and the order in which its images are seen."""

import random
from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset

from .recipes import Recipe

Batches = Iterator[tuple[Tensor, Tensor]]


class Data(Protocol):
    """A data set of (image (c, h, w) in [-1, 1], label)."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Any: ...


def check_data(data: Data, recipe: Recipe, network: nn.Module | None, accumulate: int, processes: int) -> None:
    """Raises ValueError for data that does not fit the recipe, or the network that is trained instead of its own."""
    size = recipe.batch_size
    if len(data) < size * processes or not 1 <= accumulate <= size:
        wanted = f"a batch is {size} images for each of {processes} processes, in 1 to {size} parts, but there are"
        advice = "give more data, smaller batches or fewer parts"
        raise ValueError(f"{wanted} {len(data)} images and {accumulate} parts: {advice}")
    if network is not None and not (hasattr(network, "num_classes") and hasattr(network, "arguments")):
        needed = "the attributes `num_classes` and `arguments`: see tinyddpm.nn"
        raise ValueError(f"{type(network).__name__} needs {needed}")
    classes = cast("int | None", recipe.num_classes if network is None else network.num_classes)
    found = getattr(data, "num_classes", classes)
    if classes is not None and (found is None or found > classes):
        advice = f"build it with num_classes={found}, or take replace(recipe, num_classes={found})"
        raise ValueError(f"the network has labels 0..{classes - 1}, but the data has {found or 'no'} classes: {advice}")


def batches(data: Data, order: list[list[int]], num_classes: int | None, first: bool) -> Batches:
    """Images (b, c, h, w) in [-1, 1] and labels (b,) in this order; `first` if a run begins with them. Raises
    ValueError for other images or labels, and for a first batch without black: its images are in [0, 1]."""
    loader = DataLoader(cast(Dataset, data), batch_sampler=order, generator=Generator())  # for its workers' seed
    for x_0, y in loader:
        low, high, known = float(x_0.min()), float(x_0.max()), num_classes or float("inf")
        if not (-1 <= low <= high <= 1 and 0 <= y.min() <= y.max() < known) or first and low >= 0:
            wanted = f"images must be in [-1, 1], where -1 is black, and labels in 0..{known - 1}"
            found = f"a batch has images in [{low:g}, {high:g}] and labels in {y.min()}..{y.max()}"
            raise ValueError(f"{wanted}, but {found}: for images in [0, 1] give 2 * images - 1")
        first = False
        yield x_0, y


def epoch_order(n: int, batch: int, seed: int, epoch: int, part: int = 0, parts: int = 1) -> list[list[int]]:
    """Which of n images are in each batch of an epoch: a function of the seed and the epoch alone. Each of several
    processes gets a part of every batch, `batch` images long. What fills no batch is left out."""
    both = random.Random(f"{seed} {epoch}").getrandbits(32)  # torch uses 32 bits of a seed
    order = torch.randperm(n, generator=Generator().manual_seed(both))
    batches = n // (parts * batch)
    return order[: batches * parts * batch].reshape(batches, parts, batch)[:, part].tolist()
