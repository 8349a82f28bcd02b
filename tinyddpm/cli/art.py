"""What the commands morph, inpaint, style and write do, each with the arguments that it was given."""

import argparse
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..data import crop_to, from_uint8, mnist, pad_to
from ..datasets.folder import pixels, read_picture, smaller
from ..editing.handwriting import all_but, complete, handwriting, morph
from ..editing.strip import check_text, write_steps
from ..files import writable_folder
from ..pipeline import DDPM
from ..viz import frames_even_in_log_snr, image_grid, save_gif, save_picture
from .commands import GREYS, at_least_one, digits_of, load

DIGIT = 28  # pixels wide, without its border
HIDDEN = 0.0  # how a pixel that is not known is shown: grey
FRAMES = 40  # of a strip on its way from noise
STRIP_ENDINGS = (".png", ".gif")


def run_morph(args: argparse.Namespace) -> None:
    out = file_of(args.out, ".gif")
    y = digits_of(args.digits)
    images = morph(digit_model(args), y, args.frames, args.steps, args.scale, args.seed, args.wander)
    film = [image_grid(x[None], columns=1, enlarge=4, levels=GREYS) for x in crop_to(images.cpu(), DIGIT)]
    save_gif(film, out, hold=1 / 12.5)
    print(f"{len(film)} frames in {out}")


def run_inpaint(args: argparse.Namespace) -> None:
    out = file_of(args.out, ".png")
    y, each = digits_of(args.digits), at_least_one(args.each, "--each")
    x_0 = real_digits(y, args.seed)
    mask = all_but(args.hide, *x_0.shape[2:])
    labels = y if args.labelled else None
    ddpm = digit_model(args)
    rows = [
        complete(ddpm, x[None], mask, each, None if labels is None else labels[k : k + 1], **inpaint_options(args, k))
        for k, x in enumerate(tqdm(x_0, "inpainting", leave=False, disable=None))
    ]
    seen = torch.where(mask > 0, x_0, HIDDEN)
    save_rows(zip(x_0, seen, rows), out)


def inpaint_options(args: argparse.Namespace, row: int) -> dict:
    """Seeds of one row do not come again in another."""
    return {
        "steps": args.steps,
        "times": at_least_one(args.times, "--times"),
        "scale": args.scale,
        "seed": args.seed + row * args.each,
    }


def run_style(args: argparse.Namespace) -> None:
    out = file_of(args.out, ".png")
    y_new = digits_of(args.digits)
    if args.image is None:
        y = torch.arange(at_least_one(args.hands, "--hands")) % 10
        x_0 = real_digits(y, args.seed)
    else:
        if args.label is None:
            raise ValueError(f"say with --label which digit {args.image} is")
        y = digits_of(args.label)
        if len(y) != 1:
            raise ValueError(f"--label takes the one digit that the image is, got {args.label!r}")
        x_0 = own_digit(args.image)
    ddpm = digit_model(args)
    ways = tqdm(list(zip(x_0, y)), "writing", leave=False, disable=None)
    n, how = len(y_new), (args.steps, args.scale)
    rows = [handwriting(ddpm, x.expand(n, -1, -1, -1), label.repeat(n), y_new, *how) for x, label in ways]
    save_rows(zip(x_0, rows), out)


def run_write(args: argparse.Namespace) -> None:
    out = file_of(args.out, *STRIP_ENDINGS)
    check_text(args.text)
    ddpm = digit_model(args)
    way = write_steps(args.text, ddpm, args.steps, args.scale, args.seed, args.variety)
    steps = list(tqdm(way, "writing", total=args.steps + 1, leave=False, disable=None))
    if out.suffix == ".png":
        save_picture(image_grid(steps[-1].x_t, columns=1, enlarge=4), out)
    else:
        shown = frames_even_in_log_snr(ddpm.schedule.log_snr[torch.tensor([step.t for step in steps])], FRAMES)
        save_gif([image_grid(steps[i].x_t, columns=1, enlarge=2, levels=GREYS) for i in shown], out)
    print(f"{args.text!r} in {out}")


def file_of(name: str, *endings: str) -> Path:
    """A file to write, in a folder that can be written to. Raises ValueError for another kind of file."""
    if Path(name).suffix not in endings:
        raise ValueError(f"this picture goes to a {' or a '.join(endings)} file, got {Path(name).name!r}")
    return writable_folder(Path(name).parent) / Path(name).name


def digit_model(args: argparse.Namespace) -> DDPM:
    """Raises ValueError for weights that do not draw digits by their labels."""
    ddpm = load(args)
    if ddpm.image_shape != (1, 32, 32) or ddpm.model.num_classes != 10:
        raise ValueError(
            f"this takes weights that draw digits (1, 32, 32) by label, and these draw {ddpm.image_shape} of "
            f"{ddpm.model.num_classes} classes: leave --weights away for the shipped ones"
        )
    return ddpm


def real_digits(y: Tensor, seed: int) -> Tensor:
    """A digit of the test set for each label, another for the same label and for another seed."""
    x, labels = mnist(train=False).tensors()
    places = {digit: (labels == digit).nonzero()[:, 0] for digit in set(y.tolist())}
    count = dict.fromkeys(places, seed)
    chosen = []
    for digit in y.tolist():
        chosen.append(places[digit][count[digit] % len(places[digit])])
        count[digit] += 1
    return x[torch.stack(chosen)]


def own_digit(path: str) -> Tensor:
    """An image file as (1, 1, 32, 32): bright strokes on a dark ground, at the size of MNIST's digits."""
    picture = crop_to(pixels(smaller(read_picture(Path(path)), DIGIT), 1), DIGIT)
    x = pad_to(from_uint8(picture))[None]
    if float(x.mean()) > 0:
        raise ValueError(f"{path} is bright: digits are white strokes on black, so invert it")
    return x


def save_rows(rows: Iterable[tuple[Tensor, ...]], out: Path) -> None:
    """Pictures side by side: single images (c, h, w) and several (n, c, h, w) in each row."""
    rows = [torch.cat([x.cpu() if x.ndim == 4 else x[None] for x in row]) for row in rows]
    save_picture(image_grid(crop_to(torch.cat(rows), DIGIT), columns=len(rows[0]), enlarge=2), out)
    print(f"{len(rows)} rows in {out}")
