"""Something to look at: image grids, film strips, GIFs, and text for a terminal. All show the fixed range
[-1, 1], so that noise which is left in an image is seen and not stretched away.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

Picture = UInt8[Tensor, "c h w"]
TRUE_COLOUR = 2**24


def image_grid(
    x: Float[Tensor, "b c h w"], columns: int = 10, enlarge: int = 1, levels: int = 256
) -> Picture:
    """Images (b, c, h, w) in [-1, 1], `columns` in a row: one uint8 picture (c, rows h, columns w), each
    pixel shown as enlarge x enlarge, in so many levels from black to white: 16 make a GIF of noise less
    than a third as large. Values outside the range are held at its ends.

    Raises ValueError for images of another shape, for none, for values that are not finite and for
    columns, enlargements and levels that cannot be.
    """
    if x.ndim != 4 or len(x) == 0 or x.shape[1] not in (1, 3):
        raise ValueError(f"image_grid takes images (b, 1 or 3, h, w), got shape {tuple(x.shape)}")
    if columns < 1 or enlarge < 1:
        raise ValueError(f"columns and enlarge must be at least 1, got {columns} and {enlarge}")
    if not 2 <= levels <= 256:
        raise ValueError(f"a picture has 2 to 256 levels of brightness, got {levels}")
    if not x.isfinite().all():
        raise ValueError("the images hold NaN or infinite values: what made them has diverged")
    x = x.detach().float().cpu()
    x = torch.cat([x, x.new_full((-len(x) % columns, *x.shape[1:]), -1.0)])
    x = rearrange(x, "(rows columns) c h w -> c (rows h) (columns w)", columns=columns)
    level = ((x.clamp(-1, 1) + 1) / 2 * (levels - 1)).round()
    picture = (level * 255 / (levels - 1)).round().to(torch.uint8)
    return picture.repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2)


def film_strip(
    steps: Iterable, frames: int = 10, image: int = 0, enlarge: int = 1, levels: int = 256
) -> Picture:
    """One image on its way from noise, left to right: x_t above x_0_hat, what the denoiser saw in it.

    steps: what a sampler yields, taken at `frames` places from the first to the last.
    """
    steps = list(steps)
    if not steps:
        raise ValueError("there are no steps to show: was the sampler already drained?")
    chosen = [steps[round(i)] for i in torch.linspace(0, len(steps) - 1, min(frames, len(steps))).tolist()]
    rows = [step.x_t[image] for step in chosen] + [step.x_0_hat[image] for step in chosen]
    return image_grid(torch.stack(rows), len(chosen), enlarge, levels)


def blocks(picture: Picture, colours: int = TRUE_COLOUR) -> str:
    """A picture (1 or 3, h, w) as text of half blocks, w characters a line: each shows two pixels, the upper
    one in its colour and the lower one in the colour behind it. An odd height is filled up with black.

    colours    2**24 as they are, 256 the nearest of those that most terminals have, or 2: no colours at
               all, but blocks where the pixels are brighter than half

    Raises ValueError for another number of colours.
    """
    if colours not in (2, 256, TRUE_COLOUR):
        raise ValueError(f"a terminal has 2, 256 or {TRUE_COLOUR} colours, got {colours}")
    c, h, w = picture.shape
    pixels = torch.cat([picture, picture.new_zeros(c, h % 2, w)], 1)
    pixels = rearrange(pixels.expand(3, -1, -1), "c h w -> h w c")
    if colours == 2:
        bright = (pixels.float().mean(2) > 127.5).int()
        lines = (bright[::2] + 2 * bright[1::2]).tolist()
        return "\n".join("".join(" ▀▄█"[i] for i in line) for line in lines)
    names = colour_names(pixels, colours)
    return "\n".join(half_blocks(upper, lower) for upper, lower in zip(names[::2], names[1::2]))


def half_blocks(upper: list[str], lower: list[str]) -> str:
    """One line of text for two of pixels, given their colours. One is named where it changes, not a pixel."""
    line = ""
    for (above, below), same in groupby(zip(upper, lower)):
        line += f"\x1b[38;{above};48;{below}m" + "▀" * len(list(same))
    return line + "\x1b[0m"


def colour_names(pixels: UInt8[Tensor, "h w 3"], colours: int) -> list[list[str]]:
    """What a terminal calls the colour of each pixel, behind its 38 or 48."""
    if colours == TRUE_COLOUR:
        return [[f"2;{r};{g};{b}" for r, g, b in line] for line in pixels.tolist()]
    levels = torch.tensor([0, 95, 135, 175, 215, 255])
    greys = torch.arange(8, 248, 10)[:, None].expand(-1, 3)
    palette = torch.cat([torch.cartesian_prod(levels, levels, levels), greys])  # colours 16 to 255
    nearest = torch.cdist(pixels.reshape(-1, 3).float(), palette.float(), p=1).argmin(1)
    return [[f"5;{16 + i}" for i in line] for line in nearest.reshape(pixels.shape[:2]).tolist()]


def terminal_colours() -> int:
    """How many colours stdout shows: 2, none, where it is no terminal, TERM is dumb or NO_COLOR is set."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR"):
        return 2
    return TRUE_COLOUR if os.environ.get("COLORTERM") in ("truecolor", "24bit") else 256


def save_picture(picture: Picture, path: str | Path) -> None:
    """Writes an image file of the kind that the name ends in."""
    import imageio.v3 as iio

    iio.imwrite(path, as_array(picture))


def save_gif(frames: Sequence[Picture], path: str | Path, fps: float = 12.5, hold: float = 1.5) -> None:
    """Writes frames as a GIF that repeats: fps of them a second, the last one held for `hold` seconds.

    GIF counts time in hundredths of a second, and a frame equal to the one before is merged with it,
    their times added. Raises ValueError for no frames, frames of several shapes and times not above 0.
    """
    import imageio.v3 as iio

    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) != 1:
        raise ValueError(f"a GIF needs at least one frame and all of one shape, got {sorted(shapes)}")
    if not (fps > 0 and hold > 0):
        raise ValueError(f"fps and hold must be above 0, got fps={fps} and hold={hold}")
    times = [1000 / fps] * (len(frames) - 1) + [1000 * hold]
    duration = times if len(times) > 1 else times[0]  # a list is refused for one frame
    iio.imwrite(path, [as_array(frame) for frame in frames], extension=".gif", duration=duration, loop=0)


def save_curves(
    x: Sequence[float],
    curves: dict[str, Sequence[float]],
    floors: dict[str, float],
    label: str,
    path: str | Path,
) -> None:
    """One plot a curve, side by side, over x on a shared axis; its floor as a dashed line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(curves), 3.2), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items()):
        axes.plot(x, values, marker="o")
        if name in floors:
            axes.axhline(floors[name], linestyle="--", color="grey", label="real digits")
            axes.legend()
        axes.set(xlabel=label, title=name.replace("_", " "))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def save_panels(
    x: Sequence[float],
    panels: dict[str, dict[str, Sequence[float]]],
    logarithmic: Sequence[str],
    label: str,
    path: str | Path,
) -> None:
    """Several plots over x, three in a row: {title: {name of a line: values}}. Lines without a name have no
    legend."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(13, 3.4 * rows), layout="constrained")
    for axes in (grid := figure.subplots(rows, 3, squeeze=False).flatten())[len(panels) :]:
        axes.remove()
    for axes, (title, lines) in zip(grid, panels.items()):
        for k, (name, values) in enumerate(lines.items()):
            colour = colormaps["viridis"](k / len(lines))
            axes.plot(x, values, ".-" if len(x) < 20 else "-", color=colour, linewidth=1, label=name)
        if any(lines):
            axes.legend(fontsize=6, ncols=2)
        axes.set(title=title, xlabel=label, yscale="log" if title in logarithmic else "linear")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)


def as_array(picture: Picture):
    """(c, h, w) as the numpy array that image files are written from: (h, w) grey or (h, w, 3)."""
    return (picture[0] if len(picture) == 1 else picture.permute(1, 2, 0)).numpy()


def even_in_log_snr(
    log_snr: Float[Tensor, " n"], frames: int, low: float = -4.0, high: float = 6.0
) -> list[int]:
    """Which n of a run's steps to show, given each step's log-SNR: at most `frames` indices, evenly from
    low to high, and the last step. Below low there is only noise to see, above high only the image:
    frames even in t would show little else.
    """
    wanted = torch.linspace(low, high, max(frames - 1, 1), dtype=torch.float64)
    nearest = (log_snr.double()[None] - wanted[:, None]).abs().argmin(1)
    return sorted({*nearest.tolist(), len(log_snr) - 1})
