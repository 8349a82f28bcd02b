"""Puts the 300 digits into docs/index.html: python docs/build.py

They are the first 30 of each class of MNIST's training digits whose ink lies in the central 24x24 pixels, reduced to
16x16 by areas: 3x3 pixels become 2x2, in whole numbers, so that every machine writes the same bytes.
"""

import base64
import re
import textwrap
from pathlib import Path

import torch
from torch import Tensor

from tinyddpm.data import read_idx

PAGE = Path(__file__).with_name("index.html")
BLOCK = re.compile(r'(<script type="text/plain" id="digits">\n).*?(\n</script>)', re.DOTALL)
EACH = 30


def reduce(x: Tensor) -> Tensor:
    """uint8 (n, 28, 28) to (n, 16, 16): the central 24x24, each pixel the mean over 1.5x1.5 pixels, rounded."""
    x = x[:, 2:26, 2:26].int()
    for axis in (1, 2):
        first, middle, last = x.unflatten(axis, (8, 3)).unbind(axis + 1)
        x = torch.stack([2 * first + middle, middle + 2 * last], axis + 1).flatten(axis, axis + 1)
    return ((x + 4) // 9).to(torch.uint8)


def digits() -> tuple[Tensor, Tensor]:
    """uint8 (300, 16, 16), ordered by class, and their labels (300,)."""
    images, labels = read_idx("train-images-idx3-ubyte"), read_idx("train-labels-idx1-ubyte").long()
    fits = images.sum((1, 2)) == images[:, 2:26, 2:26].sum((1, 2))
    chosen = torch.cat([((labels == k) & fits).nonzero()[:EACH, 0] for k in range(10)])
    return reduce(images[chosen]), labels[chosen]


def packed() -> str:
    """The pixels as base64, in lines."""
    return "\n".join(textwrap.wrap(base64.b64encode(digits()[0].numpy().tobytes()).decode(), 120))


if __name__ == "__main__":
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(BLOCK.sub(lambda found: found[1] + packed() + found[2], page), encoding="utf-8")
