"""The commands morph, inpaint, style and write: pictures made with one trained network."""

from pathlib import Path

import torch
from torch import Tensor

from ..data import crop_to, from_uint8, mnist, pad_to
from ..datasets.own import read_picture
from ..editing.handwriting import handwriting, morph
from ..editing.inpainting import complete, hide_half
from ..editing.strip import write_steps
from ..tools.jobs import count, progress
from ..viz import image_grid, save_gif, save_picture
from .commands import file_of, frames_of, load
from .options import DIGIT, GREYS, Inpaint, Morph, Style, Write, expect, labels_in, number_in

FRAMES = 40  # of a strip on its way from noise


def run_morph(ask: Morph) -> None:
    out, ddpm = file_of(ask.out, ".gif"), load(ask, digits=True)
    y = ddpm.check_labels(labels_in(ask.digits))
    images = morph(ddpm, y, number_in(ask.frames, "--frames"), ask.steps, ask.scale, ask.seed, ask.wander)
    film = [image_grid(x[None], columns=1, enlarge=4, levels=GREYS) for x in crop_to(images.cpu(), DIGIT)]
    save_gif(film, out, hold=1 / 12.5)
    print(f"{count(len(film), 'frame')} in {out}")


def run_inpaint(ask: Inpaint) -> None:
    out, ddpm = file_of(ask.out, ".png"), load(ask, digits=True)
    y = ddpm.check_labels(labels_in(ask.digits))
    expect(ask.labelled or ask.scale == 1, "--labelled beside --scale, which guides towards a label", "--scale alone")
    each, times = number_in(ask.each, "--each", most=1000), number_in(ask.times, "--times", most=1000)
    x_0, rows = real_digits(y, ask.seed), []
    mask = hide_half(ask.hide, *x_0.shape[2:])
    for k, x in enumerate(progress(x_0, "inpainting")):
        label, seed = y[k : k + 1] if ask.labelled else None, ask.seed + k * each
        completed = complete(ddpm, x[None], mask, each, label, ask.steps, times, ask.scale, seed)
        rows.append(torch.cat([x[None], torch.where(mask > 0, x, 0.0)[None], completed.cpu()]))
    save_rows(rows, out)


def run_style(ask: Style) -> None:
    out, ddpm = file_of(ask.out, ".png"), load(ask, digits=True)
    y_new = ddpm.check_labels(labels_in(ask.digits))
    both = (ask.image is None) == (ask.label is None)
    expect(both, "--image and which digit it is as --label", f"{ask.image} and {ask.label}")
    y = ddpm.check_labels(torch.arange(number_in(ask.hands, "--hands")) % 10 if ask.label is None else ask.label)
    x_0 = real_digits(y, ask.seed) if ask.image is None else load_digit(ask.image)
    n, rows = len(y_new), []
    for x, label in zip(progress(x_0[:, None], "writing"), y):
        written = handwriting(ddpm, x.expand(n, -1, -1, -1), label.repeat(n), y_new, ask.steps, ask.scale)
        rows.append(torch.cat([x, written.cpu()]))
    save_rows(rows, out)


def run_write(ask: Write) -> None:
    out, ddpm = file_of(ask.out, ".png", ".gif"), load(ask, digits=True)
    steps = write_steps(ask.text, ddpm, ask.steps, ask.scale, ask.seed, ask.variety)
    shown = frames_of(steps, ask.steps, ddpm, FRAMES, ask.poster)
    if out.suffix == ".png":
        save_picture(image_grid(shown[-1], columns=1, enlarge=4), out)
    else:
        save_gif([image_grid(x, columns=1, enlarge=2, levels=GREYS) for x in shown], out)
    print(f"{ask.text!r} in {out}")


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
    print(f"{count(len(rows), 'row')} in {out}")
