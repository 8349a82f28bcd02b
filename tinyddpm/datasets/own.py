"""Tensors and data sets of your own, as the networks take them."""

import operator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from tqdm import tqdm

from ..data import ImageDataset, as_float
from .folder import pixels


class Converted(Dataset):
    """A data set of (image, label) whose images are converted when they are asked for.

    All of it is read once at the start, so that an item which cannot be used is found before the work.
    """

    def __init__(self, data: Dataset, size: int | None = None, name: str = "unknown"):
        self.data, self.name = data, name
        shape, low, most = None, float("inf"), -1
        for i in tqdm(range(len(data)), "looking at the data", disable=None):
            image, label, darkest = self.item(i)
            if shape not in (None, image.shape):
                shapes = f"{tuple(shape)} and, with item {i}, {tuple(image.shape)}"
                raise ValueError(f"images must be of one shape, got {shapes}: resize or pad them")
            shape, most = image.shape, max(most, label)
            low = min(low, darkest)
        if shape is None:
            raise ValueError("the data set holds no items: give images to train on")
        refuse_grey(low)
        self.channels, self.size, self.num_classes = shape[0], side(shape, size), most + 1

    def item(self, i: int) -> tuple[Tensor, int, float]:
        """(c, h, w) as the data set gives it, its label, and its smallest value."""
        try:
            image, label = self.data[i]
            image = shaped(pixels(image) if hasattr(image, "getbands") else torch.as_tensor(image), 3)
            low = lowest(image)
            if (label := operator.index(label)) < 0:
                raise ValueError(f"labels count from 0, got {label}")
            return image, label, low
        except (TypeError, ValueError) as error:
            raise ValueError(f"item {i} is no (image, label) to train on: {error}") from error

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Float[Tensor, "c size size"], int]:
        image, label, _ = self.item(i)
        return as_float(image, self.size), label

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        return [self[i] for i in indices]


def as_data(
    images: Tensor | Dataset, labels: Tensor | None = None, size: int | None = None, name: str = "unknown"
) -> ImageDataset | Converted:
    """ImageDataset of your own as train takes them: square, float32 in [-1, 1], of 1 or 3 channels.

    images  a tensor (n, h, w) or (n, c, h, w), uint8 in [0, 255] or float in [-1, 1]; or a data set of
            (image, label) with such images, or Pillow's
    labels  of a tensor: (n,) integers from 0; none where None
    size    pads them to so many pixels with -1; as they are where None
    name    is written beside the weights

    Raises ValueError for other shapes and types, for images of several shapes, for floats outside [-1, 1]
    and for floats that never go below 0, since [0, 1] would train a network that knows no black.
    """
    if isinstance(images, TensorDataset) and len(images.tensors) <= 2:
        images, labels = (*images.tensors, None)[:2]
    if isinstance(images, Dataset):
        if labels is not None:
            raise ValueError("a data set has its labels in its items: give labels with a tensor only")
        return Converted(images, size, name)
    try:
        images = torch.as_tensor(images)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(
            f"images are a tensor (n, c, h, w) or a data set of (image, label), got {type(images)} ({error})"
        ) from error
    images = shaped(images, 4)
    if not len(images):
        raise ValueError("the tensor holds no images: give images to train on")
    refuse_grey(lowest(images))
    if labels is not None:
        labels = torch.as_tensor(labels)
        whole = not (labels.is_floating_point() or labels.is_complex())
        if not whole or labels.ndim != 1 or len(labels) and (labels.long() < 0).any():
            raise ValueError(f"labels are (n,) integers from 0, got {labels.dtype} of shape {tuple(labels.shape)}")
        labels = labels.long()
    return ImageDataset(images, labels, side(images.shape, size), name)


def shaped(x: Tensor, ndim: int) -> Tensor:
    """With the axis of a single channel. Raises ValueError for what are no images of 1 or 3 channels."""
    x = x.unsqueeze(-3) if x.ndim == ndim - 1 else x
    if x.ndim != ndim or x.shape[-3] not in (1, 3):
        axes = "(c, h, w)" if ndim == 3 else "(n, c, h, w)"
        raise ValueError(
            f"images are {axes} with 1 or 3 channels c, got shape {tuple(x.shape)}: put the channels before the height"
        )
    if x.dtype != torch.uint8 and not x.is_floating_point():
        raise ValueError(f"images are uint8 in [0, 255] or float in [-1, 1], got {x.dtype}")
    return x


def lowest(x: Tensor) -> float:
    """The smallest value of float images, -1 of uint8. Raises ValueError for floats outside [-1, 1]."""
    if x.dtype == torch.uint8:
        return -1.0
    low, high = float(x.min()), float(x.max())
    if not -1 <= low <= high <= 1:  # so is NaN
        raise ValueError(
            f"float images must lie in [-1, 1], got values in [{low:g}, {high:g}]: give uint8 pixels in "
            "[0, 255] instead"
        )
    return low


def refuse_grey(low: float) -> None:
    if low >= 0:
        raise ValueError(
            f"float images must fill [-1, 1], -1 is black, but these never go below {low:g}: where they are "
            "in [0, 1], give 2 * images - 1"
        )


def side(shape: tuple[int, ...], size: int | None) -> int:
    """How large images of that shape become. Raises ValueError where they do not fit or are not square."""
    h, w = shape[-2:]
    if size is None and h != w or size is not None and max(h, w) > size:
        raise ValueError(f"images of {h}x{w} are not square or too large: pad them with size={max(h, w)}")
    return size or h
