"""What the tabs of the app compute, with a few calls of the library each, which also refuses bad input."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as iio
import torch
from torch import Tensor

from ..cli.art import load_digit, real_digits
from ..cli.commands import frames_of, shown_size
from ..cli.options import GREYS, labels_in
from ..data import crop_to, mnist, pad_to
from ..editing.handwriting import handwriting
from ..editing.inpainting import complete, hide_half
from ..editing.strip import write
from ..evaluation.evaluate import NAMED_SAMPLERS
from ..evaluation.metrics import nearest
from ..oracle import dataset_oracle, local_oracle
from ..pipeline import DDPM, load_pretrained
from ..samplers import Step
from ..viz import as_array, image_grid, save_gif
from .training import trained

SOURCES = ["shipped with tinyddpm", "trained here"]
UPLOADS = tempfile.TemporaryDirectory(prefix="tinyddpm-")  # removed at exit


def dropped(files: Sequence, read: Callable):
    """What `read` makes of the last file that was dropped on the page, which lies in a folder of its own until then."""
    with tempfile.TemporaryDirectory(dir=UPLOADS.name) as folder:
        path = Path(folder, Path(files[-1].name).name)
        path.write_bytes(files[-1].contents)
        return read(path)


def network(source: str, files: Sequence, folder: str) -> DDPM:
    """The network that all tabs use: of the dropped file if there is one, else one of SOURCES."""
    if files:
        return dropped(files, DDPM.load)
    return load_pretrained() if source == SOURCES[0] else trained(folder)


# --- Draw


def draw(
    ddpm: DDPM, digits: str, sampler: str = "ddim", steps: int = 20, spacing="uniform", scale: float = 1, seed: int = 0
) -> Iterator[Step]:
    """The trajectory of an image of each digit; a network without labels draws as many."""
    y = labels_in(digits)
    labels, n = (y, None) if ddpm.num_classes else (None, len(y))
    grid, seeds = ddpm.schedule.grid(steps, spacing), range(seed, seed + len(y))
    return ddpm.sample_steps(labels, n, sampler=NAMED_SAMPLERS[sampler], scale=scale, grid=grid, seeds=seeds)


def png(x: Tensor, ddpm: DDPM | None = None, columns: int = 10) -> bytes:
    """A file of images, without the border that the data of the network have."""
    x = crop_to(x, shown_size(ddpm)) if ddpm else x
    return iio.imwrite("<bytes>", as_array(image_grid(x, min(columns, len(x)), enlarge=4)), extension=".png")


def each(x: Tensor, ddpm: DDPM | None = None) -> list[bytes]:
    return [png(image, ddpm) for image in x.split(1)]


def gif(film: list[Step], ddpm: DDPM, frames: int = 40) -> bytes:
    """A file of images on their way from noise."""
    shown = frames_of(film, len(film) - 1, ddpm, frames, True)
    with tempfile.TemporaryDirectory(dir=UPLOADS.name) as folder:
        path = Path(folder, "film.gif")
        save_gif([image_grid(crop_to(x, shown_size(ddpm)), min(10, len(x)), 4, GREYS) for x in shown], path)
        return path.read_bytes()


# --- Compare


class Drawn(NamedTuple):
    """Images, the nearest training digit of each, and the Euclidean distance to it."""

    images: Tensor
    nearest: Tensor
    distance: Tensor


@cache
def real(digit: int, size: int, train: bool = True) -> Tensor:
    """All training or test images of a digit, padded to size."""
    data = mnist(train, size)
    return data[(data.labels == digit).nonzero()[:, 0]][0]


def compare(ddpm: DDPM, digit: str, known: int, steps: int = 20, seed: int = 0, n: int = 10) -> dict[str, Drawn]:
    """n images of a digit by three denoisers from the same noise, and n test digits to measure distance by."""
    y, size = int(digit), ddpm.image_shape[-1]
    data, sample = real(y, size), partial(ddpm.sample, [y] * n, steps=steps, seeds=range(seed, seed + n))
    exact, blinkered = dataset_oracle(data[:known], ddpm.schedule), local_oracle(data[:known], ddpm.schedule)
    drawn = {
        "The exact oracle copies": sample(guide=lambda network: exact),
        "The blinkered oracle invents": sample(guide=lambda network: blinkered),
        "The network has learned": sample(),
        "Real digits that none of them knows": real(y, size, train=False)[:n],
    }
    found = {name: nearest(x, data) for name, x in drawn.items()}
    return {name: Drawn(drawn[name], data[index], distance) for name, (distance, index) in found.items()}


# --- Edit


def edit(ddpm: DDPM, way: str, image: Mapping, half: Mapping, strip: Mapping) -> Tensor:
    """A strip; or a digit, dropped or of the test set, and what the network makes of it."""
    if way == "Strip":
        return write(strip["text"], ddpm, 30, seed=strip["seed"], variety=strip["variety"])
    y = torch.tensor([int(image["label"])])
    x_0 = dropped(image["files"], load_digit) if image["files"] else real_digits(y, image["seed"])
    x_0 = pad_to(crop_to(x_0), ddpm.image_shape[-1])
    if way == "Style":
        return torch.cat([x_0, handwriting(ddpm, x_0.expand(10, -1, -1, -1), y.repeat(10), torch.arange(10))])
    mask = hide_half(half["hidden"], *x_0.shape[2:])
    completed = complete(ddpm, x_0, mask, 8, y if half["told"] else None, steps=20, repeats=3)
    return torch.cat([x_0, torch.where(mask > 0, x_0, 0.0), completed])
