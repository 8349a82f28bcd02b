"""The commands morph, inpaint, style and write: pictures made with one trained network."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm
from tyro.conf import Positional

from ..data import crop_to, from_uint8, mnist, pad_to
from ..datasets.own import read_picture
from ..editing.handwriting import handwriting, morph
from ..editing.inpainting import complete, hide_half
from ..editing.strip import check_strip, write_steps
from ..pipeline import DDPM
from ..viz import image_grid, save_gif, save_picture
from .options import DIGIT, GREYS, Drawing, Half, file_of, frames_of, labels_in, number_in

FRAMES = 40  # of a strip on its way from noise


@dataclass(frozen=True, kw_only=True)
class Morph(Drawing):
    """Write a GIF of digits that turn into each other."""

    steps: int = 20
    scale: float = 2.0
    digits: str = "0123456789"  # which, in this order
    frames: int = 12  # from each digit to the next
    wander: bool = False  # change the handwriting from digit to digit, too
    out: Path = Path("morph.gif")  # GIF to write

    def run(self) -> None:
        out, ddpm = file_of(self.out, ".gif"), digit_model(self)
        y = ddpm.check_labels(labels_in(self.digits))
        images = morph(ddpm, y, number_in(self.frames, "--frames"), self.steps, self.scale, self.seed, self.wander)
        film = [image_grid(x[None], columns=1, enlarge=4, levels=GREYS) for x in crop_to(images.cpu(), DIGIT)]
        save_gif(film, out, hold=1 / 12.5)
        print(f"{len(film)} frames in {out}")


@dataclass(frozen=True, kw_only=True)
class Inpaint(Drawing):
    """Complete real digits, half hidden, in several ways."""

    digits: str = "0123456789"  # which of the test set
    hide: Half = "left"  # part to hide
    each: int = 8  # completions of each digit
    labelled: bool = False  # tell the network which digit it is
    times: int = 5  # how often to go over each part of the sampling, until it fits
    out: Path = Path("inpaint.png")  # picture to write: a row is a digit, what is left of it, and its completions

    def run(self) -> None:
        out, ddpm = file_of(self.out, ".png"), digit_model(self)
        y = ddpm.check_labels(labels_in(self.digits))
        if self.scale != 1 and not self.labelled:
            raise ValueError("--scale guides towards a label: give --labelled, too")
        number_in(self.each, "--each", most=1000)
        number_in(self.times, "--times", most=1000)
        x_0, rows = real_digits(y, self.seed), []
        mask = hide_half(self.hide, *x_0.shape[2:])
        for k, x in enumerate(tqdm(x_0, "inpainting", leave=False, disable=None)):
            label, seed = y[k : k + 1] if self.labelled else None, self.seed + k * self.each
            completed = complete(ddpm, x[None], mask, self.each, label, self.steps, self.times, self.scale, seed)
            rows.append(torch.cat([x[None], torch.where(mask > 0, x, 0.0)[None], completed.cpu()]))
        save_rows(rows, out)


@dataclass(frozen=True, kw_only=True)
class Style(Drawing):
    """Write all digits in the handwriting of a real one."""

    steps: int = 20
    scale: float = 2.5
    digits: str = "0123456789"  # to write
    hands: int = 8  # digits of the test set whose handwriting to take
    image: Path | None = None  # a digit of your own instead, in white on black
    label: int | None = None  # which digit the image is
    out: Path = Path("style.png")  # picture to write: a row is a real digit, and those in its handwriting

    def run(self) -> None:
        out, ddpm = file_of(self.out, ".png"), digit_model(self)
        y_new = ddpm.check_labels(labels_in(self.digits))
        if (self.image is None) != (self.label is None):
            raise ValueError(f"expected --image and which digit it is as --label, got {self.image} and {self.label}")
        y = ddpm.check_labels(torch.arange(number_in(self.hands, "--hands")) % 10 if self.label is None else self.label)
        x_0 = real_digits(y, self.seed) if self.image is None else load_digit(self.image)
        n, rows = len(y_new), []
        for x, label in zip(tqdm(x_0[:, None], "writing", leave=False, disable=None), y):
            written = handwriting(ddpm, x.expand(n, -1, -1, -1), label.repeat(n), y_new, self.steps, self.scale)
            rows.append(torch.cat([x, written.cpu()]))
        save_rows(rows, out)


@dataclass(frozen=True, kw_only=True)
class Write(Drawing):
    """Write a strip of digits in one handwriting."""

    scale: float = 2.0
    text: Positional[str]  # digits and blanks, such as "2026 11 21"
    variety: float = 0.2  # from 0, every 2 alike, to 1, each digit in a handwriting of its own
    out: Path = Path("strip.png")  # x.png, or x.gif of the strip on its way from noise

    def run(self) -> None:
        check_strip(self.text, self.variety)
        out, ddpm = file_of(self.out, ".png", ".gif"), digit_model(self)
        steps = write_steps(self.text, ddpm, self.steps, self.scale, self.seed, self.variety)
        shown = frames_of(steps, self.steps, ddpm, FRAMES)
        if out.suffix == ".png":
            save_picture(image_grid(shown[-1], columns=1, enlarge=4), out)
        else:
            save_gif([image_grid(x, columns=1, enlarge=2, levels=GREYS) for x in shown], out)
        print(f"{self.text!r} in {out}")


def digit_model(drawing: Drawing) -> DDPM:
    """The weights to draw with. Raises ValueError unless they draw digits by label."""
    ddpm = drawing.load()
    if ddpm.image_shape != (1, 32, 32) or ddpm.model.num_classes != 10:
        raise ValueError(
            f"expected weights that draw digits (1, 32, 32) by label, got images {ddpm.image_shape} of "
            f"{ddpm.model.num_classes} classes: leave out --weights for the shipped ones"
        )
    return ddpm


def real_digits(y: Tensor, seed: int) -> Tensor:
    """A digit of the test set for each label, another one for the same label again and for another seed."""
    x, labels = mnist(train=False).tensors()
    chosen = []
    for k, digit in enumerate(y):
        places, before = (labels == digit).nonzero()[:, 0], int((y[:k] == digit).sum())
        chosen.append(places[(seed + before) % len(places)])
    return x[torch.stack(chosen)]


def load_digit(path: Path) -> Tensor:
    """An image file as (1, 1, 32, 32), scaled to 28x28. Raises ValueError for a bright background, and without ink."""
    x = pad_to(from_uint8(read_picture(path, DIGIT, "L")))[None]
    if float(x.mean()) > 0 or float(x.max()) < 0:
        what, advice = ("bright", "invert it") if float(x.mean()) > 0 else ("empty", "draw one")
        raise ValueError(f"{path} is {what}, and digits are white strokes on black: {advice}")
    return x


def save_rows(rows: list[Tensor], out: Path) -> None:
    """Writes rows of equally many images (n, c, h, w)."""
    save_picture(image_grid(crop_to(torch.cat(rows), DIGIT), columns=len(rows[0]), enlarge=2), out)
    print(f"{len(rows)} rows in {out}")
