"""Digits in other sizes: a data set whose images are resized, where others are padded."""

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..data import ImageDataset, from_uint8, to_uint8


def resize(x: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c size size"]:
    """Images in [-1, 1], enlarged or reduced: bicubic (Keys 1981), over a wider window where it reduces so that nothing
    is aliased, then rounded to 256 grey values."""
    return from_uint8(to_uint8(F.interpolate(x, (size, size), mode="bicubic", antialias=True)))


class Resized(ImageDataset):
    """A data set in another size. Item i, or a slice of items, is ((c, size, size) float32 in [-1, 1], label), resized
    when it is asked for."""

    def __init__(self, data: ImageDataset, size: int, name: str):
        super().__init__(data.images, data.labels, size, name, data.num_classes)
        self.data = data

    def __getitem__(self, i) -> tuple[Float[Tensor, "*b c size size"], Int[Tensor, "*b"]]:
        x, y = self.data[i]
        return resize(x.reshape(-1, *x.shape[-3:]), self.size).reshape(*x.shape[:-2], self.size, self.size), y
