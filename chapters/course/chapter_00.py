"""The pictures of chapter 00, made with the library's pieces: python -m course.chapter_00 writes three_rows.png."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.patches import Rectangle

import tinyddpm
from tinyddpm.data import crop_to, mnist
from tinyddpm.evaluation import classify, load_classifier, nearest
from tinyddpm.oracle import local_oracle
from tinyddpm.viz import image_grid, save_gif

from .figures import BLUE, GREEN, GREY, GROUND, ORANGE, picture_of

LABELS = (
    ("exact denoiser: copies what it knows", ORANGE),
    ("the same with blinkers: invents, untrained", BLUE),
    ("a neural network: invents, too", GREEN),
)


def three_walks(seed: int, steps: int = 16) -> list[Iterator[tinyddpm.Step]]:
    """The digits 0 to 9 from one noise, drawn by the exact denoiser, by the one with blinkers and by a network."""
    images, labels = mnist()[:3000]
    chosen = torch.cat([(labels == digit).nonzero()[:150, 0] for digit in range(10)])
    data, own, y = images[chosen], labels[chosen], torch.arange(10)
    x_T = torch.randn(10, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    cosine, ddpm = tinyddpm.Schedule.named("cosine"), tinyddpm.load_pretrained()
    exact, local = (local_oracle(data, cosine, own, y, **window) for window in ({"radius": 31}, {}))
    walks = [tinyddpm.ddim(denoiser, x_T, cosine, cosine.grid(steps)) for denoiser in (exact, local)]
    return [*walks, tinyddpm.ddim(ddpm.denoiser(y), x_T, ddpm.schedule, ddpm.schedule.grid(steps))]


def three_rows(path: str | Path, seed: int = 30, enlarge: int = 6) -> None:
    """The picture that is made to be shared: from the same noise, copies, and two ways to invent."""
    rows = {label: tinyddpm.last(walk).x_t for label, walk in zip(LABELS, three_walks(seed))}
    Path(path).write_bytes(picture_of(rows, enlarge))


def film(path: str | Path | None = None, seed: int = 30, frames: int = 16) -> Path:
    """A GIF of the two that invent, side by side in time. It begins with its last frame, for where it does not move."""
    path = Path(path or Path(tempfile.mkdtemp()) / "film.gif")
    tables = [tinyddpm.Schedule.named("cosine").log_snr, tinyddpm.load_pretrained().schedule.log_snr]
    pictures = []
    for walk, log_snr in zip(map(list, three_walks(seed, 40)[1:]), tables):
        wanted = torch.linspace(-2.5, 4.0, frames - 1, dtype=torch.float64)  # where something is to be seen
        chosen = (log_snr[[step.t for step in walk]] - wanted[:, None]).abs().argmin(1).tolist()
        pictures.append([crop_to(walk[k].x_t) for k in (*chosen, -1)])
    moving = [image_grid(torch.cat(pair), columns=10, enlarge=2, levels=4) for pair in zip(*pictures)]
    save_gif([moving[-1], *moving], path, fps=8)
    return path


def copies(x, digits) -> int:
    """How many of the drawings (..., 1, 32, 32) are nearer to one of the digits than 999 of 1,000 real test digits."""
    data = digits.flatten(0, -4)
    threshold = nearest(mnist(train=False)[:][0], data)[0].quantile(0.001)
    return int((nearest(x.flatten(0, -4), data)[0] < threshold).sum())


def read(x) -> int:
    """How many of the drawings (10, n, 1, h, w) the library's classifier reads as the digits 0 to 9."""
    large = F.interpolate(x.flatten(0, 1).clamp(-1, 1), size=(32, 32), mode="bilinear")
    found = classify(load_classifier(), large).argmax(1).reshape(10, -1)
    return int((found == torch.arange(10)[:, None]).sum())


def windows(images, radii: list[int], titles: list[str], row: int = 12, column: int = 16) -> None:
    """Images (n, 1, h, w) side by side, and on each the window of one pixel."""
    figure, axes = plt.subplots(1, len(images), figsize=(6.12, 1.5), dpi=150, facecolor=(GROUND,) * 3)
    for place, image, radius, title in zip(axes, images, radii, titles):
        h, w = image.shape[1:]
        place.imshow(image[0], vmin=-1, vmax=1)
        top, left = max(row - radius, 0), max(column - radius, 0)
        size = min(column + radius + 1, w) - left, min(row + radius + 1, h) - top
        place.add_patch(Rectangle((left - 0.5, top - 0.5), *size, fill=False, color=ORANGE, linewidth=1.5))
        place.plot(column, row, "s", color=ORANGE, markersize=2)
        place.set_title(title, color=GREY, fontsize=8)
        place.axis("off")
    plt.show()


if __name__ == "__main__":
    three_rows(*sys.argv[1:] or ["assets/pictures/three_rows.png"])
