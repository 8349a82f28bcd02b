"""The pictures of chapter 00, made with the library's pieces: python -m course.chapter_00 writes three_rows.png."""

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

import tinyddpm
from tinyddpm.data import mnist
from tinyddpm.evaluation import classify, load_classifier, nearest
from tinyddpm.oracle import local_oracle

from .figures import BLUE, GREEN, GREY, GROUND, ORANGE, picture_of, show_figure

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


def film(path: str | Path | None = None, seed: int = 30, frames: int = 10, levels: int = 3) -> Path:
    """A GIF of the two that invent, one above the other. It begins with its last frame, for where it does not move."""
    path = Path(path or Path(tempfile.mkdtemp()) / "film.gif")
    tables = [tinyddpm.Schedule.named("cosine").log_snr, tinyddpm.load_pretrained().schedule.log_snr]
    labels = ("averages of 1,500 digits, no network", BLUE), ("a trained network", GREEN)
    rows = []
    for walk, log_snr in zip(map(list, three_walks(seed, 40)[1:]), tables):
        wanted = torch.linspace(-2, 4, frames - 1, dtype=torch.float64)  # where something is to be seen
        chosen = (log_snr[[step.t for step in walk]] - wanted[:, None]).abs().argmin(1).tolist()
        rows.append([in_levels(walk[k].x_t, 256 if k < 0 else levels) for k in (*chosen, -1)])
    pictures = [picture_of(dict(zip(labels, pair)), 2) for pair in zip(*rows)]
    moving = [Image.open(io.BytesIO(png)).convert("RGB") for png in (pictures[-1], *pictures)]
    first, *rest = (frame.quantize(palette=few_colours(), dither=Image.Dither.NONE) for frame in moving)
    times = [140] * len(rest) + [1500]
    first.save(path, save_all=True, append_images=rest, duration=times, loop=0, optimize=True)
    return path


def few_colours() -> Image.Image:
    """A palette of 16 colours: greys, and from the ground to those of the two labels. A third of the bytes of 256."""
    ground = torch.full((3,), GROUND)
    greys = torch.linspace(0, 1, 7)[:, None].expand(-1, 3)
    ramps = [ground + k / 4 * (torch.tensor(to_rgb(c)) - ground) for c in (BLUE, GREEN) for k in range(1, 5)]
    palette = Image.new("P", (1, 1))
    palette.putpalette((255 * torch.stack([*greys, ground, *ramps])).round().byte().flatten().tolist())
    return palette


def in_levels(x, levels: int):
    """Images rounded to so many greys: noise makes a large file of each."""
    return ((x.clamp(-1, 1) + 1) / 2 * (levels - 1)).round() / (levels - 1) * 2 - 1


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


def nearest_of(x, digits):
    """For each drawing (n, 1, 32, 32) the digit that is nearest to it."""
    data = digits.flatten(0, -4)
    return data[nearest(x, data)[1]]


def windows(x_0, eps, mix, radius, row: int = 12, column: int = 16) -> None:
    """One image (1, 1, h, w) under less and less noise, and on each picture the window of one pixel."""
    angles = [1.5, 1.3, 1.1, 0.9, 0.3]
    figure, axes = plt.subplots(1, len(angles), figsize=(6.12, 1.56), facecolor=(GROUND,) * 3)
    for place, angle in zip(axes, angles):
        image, reach = mix(x_0, eps, angle)[0], radius(angle)
        h, w = image.shape[1:]
        place.imshow(image[0], vmin=-1, vmax=1)
        top, left = max(row - reach, 0), max(column - reach, 0)
        size = min(column + reach + 1, w) - left, min(row + reach + 1, h) - top
        place.add_patch(Rectangle((left - 0.5, top - 0.5), *size, fill=False, color=ORANGE, linewidth=1.5))
        place.plot(column, row, "s", color=ORANGE, markersize=2)
        side = min(2 * reach + 1, w)
        place.set_title(f"angle {angle:.1f}\n{side} × {side} pixels", color=GREY, fontsize=7.5)
        place.axis("off")
    show_figure(
        "One noisy three at five angles: the window of a pixel is the whole image at first, then shrinks to 7 × 7"
    )


if __name__ == "__main__":
    three_rows(*sys.argv[1:] or ["assets/pictures/three_rows.png"])
