"""Grids, film strips and GIFs. All show the fixed range [-1, 1], so that noise left in an image stays visible."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from .files import write_whole
from .samplers import last

Picture = UInt8[Tensor, "c h w"]


def image_grid(x: Float[Tensor, "b c h w"], columns: int = 10, enlarge: int = 1, levels: int = 256) -> Picture:
    """Images (b, 1 or 3, h, w) in rows of at most `columns`, as one uint8 picture (c, rows h, columns w). Each pixel is
    enlarge x enlarge, in that many levels from black to white: 16 make a GIF of noise a third as large. Values outside
    [-1, 1] are clamped. Raises ValueError for no images, other shapes and values that are not finite.
    """
    if x.ndim != 4 or len(x) == 0 or x.shape[1] not in (1, 3) or not x.isfinite().all():
        diverged = "" if x.isfinite().all() else " with NaN or infinite values: sampling or training has diverged"
        raise ValueError(f"image_grid takes images (b, 1 or 3, h, w), got shape {tuple(x.shape)}{diverged}")
    if columns < 1 or enlarge < 1 or not 2 <= levels <= 256:
        raise ValueError(f"columns and enlarge must be at least 1, levels 2 to 256, got {columns}, {enlarge}, {levels}")
    x, columns = x.detach().float().cpu(), min(columns, len(x))
    x = torch.cat([x, x.new_full((-len(x) % columns, *x.shape[1:]), -1.0)])
    x = rearrange(x, "(rows columns) c h w -> c (rows h) (columns w)", columns=columns)
    level = ((x.clamp(-1, 1) + 1) / 2 * (levels - 1)).round() * 255 / (levels - 1)
    return level.round().to(torch.uint8).repeat_interleave(enlarge, 1).repeat_interleave(enlarge, 2)


def film_strip(steps: Iterable, frames: int = 10, image: int = 0, enlarge: int = 1, levels: int = 256) -> Picture:
    """One image of a trajectory, left to right: x_t above x_0_hat, at `frames` evenly spaced steps."""
    steps = list(steps)
    last(steps)  # ValueError if there are none
    chosen = [steps[round(i)] for i in torch.linspace(0, len(steps) - 1, min(frames, len(steps))).tolist()]
    rows = [step.x_t[image] for step in chosen] + [step.x_0_hat[image] for step in chosen]
    return image_grid(torch.stack(rows), len(chosen), enlarge, levels)


def frames_even_in_log_snr(log_snr: Tensor, frames: int, low: float = -4.0, high: float = 6.0) -> list[int]:
    """Indices of at most `frames` of n steps, even in log-SNR from low to high, and of the last step. Below low an
    image is only noise and above high it is finished: frames even in t would show little else."""
    wanted = torch.linspace(low, high, max(frames - 1, 1), dtype=torch.float64)
    nearest = (log_snr.double()[None] - wanted[:, None]).abs().argmin(1)
    return sorted({*nearest.tolist(), len(log_snr) - 1})


def save_picture(picture: Picture, path: str | Path) -> None:
    """Writes an image file, of the format that the name ends in."""
    import imageio.v3 as iio

    write_whole(path, iio.imwrite("<bytes>", as_array(picture), extension=Path(path).suffix or "."))


def save_gif(frames: Sequence[Picture], path: str | Path, fps: float = 12.5, hold: float = 1.5) -> None:
    """Writes a looping GIF of `fps` frames a second, the last one held for `hold` seconds. Equal frames are merged, and
    times rounded to hundredths of a second. Raises ValueError for no frames, different shapes and times of 0."""
    import imageio.v3 as iio

    shapes = {tuple(frame.shape) for frame in frames}
    if len(shapes) != 1 or not (fps > 0 and 0 < hold <= 655):  # the longest time that a GIF can state
        wanted = "at least one frame, all of one shape, and fps and hold above 0, hold at most 655 s"
        raise ValueError(f"a GIF needs {wanted}, got {sorted(shapes)}, fps={fps} and hold={hold}")
    times = [1000 / fps] * (len(frames) - 1) + [1000 * hold]
    duration = times if len(times) > 1 else times[0]  # imageio refuses a list for one frame
    write_whole(path, iio.imwrite("<bytes>", [*map(as_array, frames)], extension=".gif", duration=duration, loop=0))


def as_array(picture: Picture):
    """(c, h, w) as the numpy array that image files are written from: (h, w) grey or (h, w, 3)."""
    c, _, _ = picture.shape  # ValueError for what is no picture
    return (picture[0] if c == 1 else picture.permute(1, 2, 0)).numpy()
