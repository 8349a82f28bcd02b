"""What a test image costs in bits: a model's bound, in both units, and beside it what compressors need."""

import gzip
import io
import lzma
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Generator, Tensor

from ..data import crop_to, to_uint8
from ..datasets.named import DATASETS
from ..extensions.likelihood import bits_per_dim, denoising_error
from ..extensions.vdm import GreyLevels, bits_by_time, ode_bits
from ..pipeline import DDPM
from ..tools.plots import save_panels
from .judges import Reference

if TYPE_CHECKING:
    from .report import ReportCache

MOST = 50  # an image visits at least each 50th step of the bound
COMPRESSORS: dict[str, Callable[[np.ndarray], bytes]] = {  # of images (n, h, w)
    "PNG": lambda images: picture(images, format="PNG", optimize=True),
    "WebP, lossless": lambda images: picture(images, format="WebP", lossless=True, quality=100),
    "gzip": lambda images: gzip.compress(images.tobytes()),
    "LZMA": lambda images: lzma.compress(images.tobytes()),
}
PUBLISHED = {"Residual Flow, as published (Chen et al. 2019, table 1)": 0.97}  # per pixel of 28x28


def bound(ddpm: DDPM, reference: Reference, n: int, out: Path | None = None) -> tuple[float, float, int]:
    """The mean of bits_per_dim over n test images given their labels, with the error variance of n training images; its
    standard error; and n.

    For a network trained for it (vdm), the bound is that of its training, and what each t contributes is plotted as
    bits.png in the folder `out`.
    """
    generator, (x_test, y_test) = Generator().manual_seed(0), test_images(ddpm, reference, n)
    if isinstance(ddpm.model, GreyLevels):
        by_time = own_bits(ddpm, x_test, y_test, generator)
        if out is not None:
            plot_shares(by_time.mean(1), out / "bits.png")
        found = by_time.sum(0)
    else:
        x = crop_to(reference.data[0][reference.order[:n]][0], ddpm.image_shape[-1]).to(ddpm.device)
        y = reference.labels[:n] if ddpm.num_classes else None
        error_variance = denoising_error(ddpm.denoiser(y), x, ddpm.schedule, generator=generator)
        found = bits_per_dim(ddpm.denoiser(y_test), x_test, ddpm.schedule, None, error_variance, generator)
    return float(found.mean()), float(found.std() / n**0.5), n


def test_images(ddpm: DDPM, reference: Reference, n: int) -> tuple[Tensor, Tensor | None]:
    """n test images, not as the classifier sees them, and their labels, None for a model without labels."""
    chosen = reference.test_order[:n]
    x = crop_to(reference.data[1][chosen][0], ddpm.image_shape[-1]).to(ddpm.device)
    return x, reference.test_labels[chosen] if ddpm.num_classes else None


def own_bits(ddpm: DDPM, x: Tensor, y: Tensor | None, generator: Generator) -> Float[Tensor, "times n"]:
    """bits_by_time where each image visits one step in n // 20, or in MOST, and the images together visit all steps."""
    every = min(max(1, len(x) // 20), MOST)
    by_time, model = torch.zeros(ddpm.schedule.T + 1, len(x), dtype=torch.float64), ddpm.model.eval()
    for first in range(every):
        part = slice(first, None, every)
        label = None if y is None else y[part]
        by_time[:, part] = bits_by_time(model, x[part], ddpm.schedule, label, generator, every, first)
    return by_time


def plot_shares(each: Float[Tensor, " times"], path: Path) -> None:
    """What each t contributes to the bound, and what those from T down to t do."""
    titles = "bits per dimension, each step", "bits per dimension, from T down to t"
    curves = each[1:], each[1:].flip(0).cumsum(0).flip(0)
    panels = {title: {"": curve.tolist()} for title, curve in zip(titles, curves)}
    save_panels(range(1, len(each)), panels, path, titles[:1], "t")


def by_ode(ddpm: DDPM, reference: Reference, n: int) -> tuple[float, float, int]:
    """The mean of ode_bits over n test images, its standard error, and n."""
    x, y = test_images(ddpm, reference, n)
    found = ode_bits(ddpm.model.eval(), x, ddpm.schedule, y, Generator().manual_seed(0))
    return float(found.mean()), float(found.std() / n**0.5), n


def own_side(ddpm: DDPM, reference: Reference) -> int:
    """The side of the data's images without the border that pads them."""
    side, row = ddpm.image_shape[-1], DATASETS.get(reference.name)
    return side if row is None or reference.name == "mnist-resized" else min(side, row.smallest)


def compressed(images: UInt8[Tensor, "n h w"]) -> dict[str, tuple[float, float]]:
    """Bits per pixel by each of COMPRESSORS: of the first 200 images each alone, and of all together."""
    pixels, few = images.numpy(), images.numpy()[:200]
    return {
        name: (sum(len(compress(image[None])) for image in few) * 8 / few.size, len(compress(pixels)) * 8 / pixels.size)
        for name, compress in COMPRESSORS.items()
    }


def picture(images: np.ndarray, **how) -> bytes:
    """A file of images in 100 columns; WebP pictures have at most 16,383 pixels on a side."""
    n, h, w = images.shape
    columns = min(n, 100)
    rows = np.concatenate([images, np.zeros((-n % columns, h, w), np.uint8)]).reshape(-1, columns, h, w)
    Image.fromarray(rows.swapaxes(1, 2).reshape(-1, columns * w)).save(file := io.BytesIO(), **how)
    return file.getvalue()


def add_bits(cache: "ReportCache", ddpm: DDPM, reference: Reference, n: int, plots: bool) -> None:
    """Adds the bound of n test images to a report, in both units, and the table of what others need."""
    before = cache.get("bits_per_dim")
    cache.once("bits_per_dim", bound, ddpm, reference, n, cache.folder if plots else None)
    if before is None or "bits_beside" not in cache:
        side, own = ddpm.image_shape[-1], own_side(ddpm, reference)
        pixels = to_uint8(crop_to(reference.data[1].tensors()[0], own)[:, 0])
        beside: dict = {"side": side, "own": own, "images": len(pixels), "compressed": compressed(pixels)}
        if isinstance(ddpm.model, GreyLevels):
            beside["ode"] = by_ode(ddpm, reference, min(n, 20))
        cache["bits_beside"] = beside
        cache.write()


def bits_table(cache: Mapping) -> list[str]:
    """The bound beside compressors, in bits per pixel without the border: lines of Markdown, none without a bound."""
    if not ("bits_per_dim" in cache and "bits_beside" in cache):
        return []
    beside = cache["bits_beside"]
    own, all_images, factor = beside["own"], beside["images"], (beside["side"] / beside["own"]) ** 2
    rows = {"this model's bound": cache["bits_per_dim"]}
    if "ode" in beside:
        rows["its probability-flow ODE, Gaussian dequantisation"] = beside["ode"]
    lines = ["", f"| bits per pixel of {own}x{own} | each image alone | {all_images} together |", "|---|---|---|"]
    for name, (mean, error, n) in rows.items():
        lines.append(f"| {name} | {mean * factor:.3f} ± {error * factor:.3f} ({n}) | |")
    lines += [f"| {name} | {alone:.2f} | {both:.2f} |" for name, (alone, both) in beside["compressed"].items()]
    if cache["of"].get("beside", "mnist") == "mnist":
        lines += [f"| {name} | {bits:.2f} | |" for name, bits in PUBLISHED.items()]
    return lines
