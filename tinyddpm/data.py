"""MNIST, and the only place where pixel ranges change: [0, 255] on disk, [-1, 1] everywhere else.

All of MNIST ships with the package, xz-compressed, in the IDX format of its authors. datasets/ has other data.
"""

import functools
import lzma
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from .files import asset


def from_uint8(images: UInt8[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    """[0, 255] to [-1, 1]; to_uint8 inverts it exactly. Raises ValueError unless the pixels are uint8."""
    if images.dtype != torch.uint8:
        raise ValueError(f"expected uint8 pixels in [0, 255], got {images.dtype}")
    return images.to(torch.get_default_dtype()) / 127.5 - 1


def to_uint8(x: Float[Tensor, "*b h w"]) -> UInt8[Tensor, "*b h w"]:
    """[-1, 1] to [0, 255], rounded and clamped."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pad_to(x: Float[Tensor, "*b h w"], size: int = 32) -> Float[Tensor, "*b size size"]:
    """Centres images on a background of -1, without resizing. Raises ValueError for images larger than size."""
    h, w = x.shape[-2:]
    if h > size or w > size:
        raise ValueError(f"an image of {h}x{w} does not fit into {size}x{size}: choose a larger size")
    top, left = (size - h) // 2, (size - w) // 2
    return F.pad(x, (left, size - w - left, top, size - h - top), value=-1.0)


def crop_to(x: Tensor, size: int = 28) -> Tensor:
    """The centre of images: inverts pad_to. Raises ValueError for images smaller than size."""
    h, w = x.shape[-2:]
    if h < size or w < size:
        raise ValueError(f"an image of {h}x{w} is smaller than {size}x{size}: choose a smaller size")
    top, left = (h - size) // 2, (w - size) // 2
    return x[..., top : top + size, left : left + size]


class ImageDataset(Dataset):
    """Labelled images in memory. Item i, or a slice of items, is ((c, size, size) float32 in [-1, 1], label).

    images: (n, c, h, w), uint8 in [0, 255] or float in [-1, 1]; they are padded to size. labels: (n,) in
    0..num_classes-1, or None: all are then 0, and num_classes is None. num_classes is by default one more than the
    largest label. Raises ValueError unless there is one label for each image.
    """

    def __init__(
        self, images: Tensor, labels: Tensor | None, size: int = 32, name="unknown", num_classes: int | None = None
    ):
        if labels is not None and len(images) != len(labels):
            raise ValueError(f"expected one label for each image, got {len(images)} images and {len(labels)} labels")
        self.images, self.size, self.name, self.channels = images, size, name, images.shape[1]
        self.labels = torch.zeros(len(images), dtype=torch.long) if labels is None else labels
        self.num_classes = None if labels is None else num_classes or int(labels.max()) + 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i) -> tuple[Float[Tensor, "c size size"], Int[Tensor, ""]]:
        return as_float(self.images[i], self.size), self.labels[i]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        return list(zip(*self[indices]))  # how data loaders ask: four times as fast as one by one

    def tensors(self) -> tuple[Float[Tensor, "n c size size"], Int[Tensor, " n"]]:
        """All images and all labels."""
        return self[:]


def as_float(x: Tensor, size: int) -> Float[Tensor, "*b size size"]:
    """uint8 in [0, 255] or float in [-1, 1], padded: float32 in [-1, 1]."""
    return pad_to(from_uint8(x) if x.dtype == torch.uint8 else x.float(), size)


def mnist(train: bool = True, size: int = 32) -> ImageDataset:
    """The 60,000 training or 10,000 test digits of MNIST (LeCun et al. 1998), 28x28, padded to size."""
    part = "train" if train else "t10k"
    images, labels = read_idx(f"{part}-images-idx3-ubyte"), read_idx(f"{part}-labels-idx1-ubyte")
    return ImageDataset(images[:, None].clone(), labels.long(), size, "mnist", 10)


@functools.cache
def read_idx(name: str) -> UInt8[Tensor, "..."]:
    """An IDX file: four bytes, the last one the number of axes; a big-endian int32 for each length; uint8 values."""
    path = asset(f"mnist/{name}.xz")
    try:
        content = lzma.decompress(path.read_bytes())  # its own checksum is verified
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}): reinstall tinyddpm") from error
    shape = np.frombuffer(content, ">i4", content[3], offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * content[3])
    return torch.from_numpy(values.reshape(shape.tolist()).copy())
