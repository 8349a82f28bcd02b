"""What the commands of cli.py do, each with the arguments that it was given."""

import argparse
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ..data import crop_to, to_uint8
from ..datasets.named import PADDED, SMALLEST, load_data
from ..files import writable_folder
from ..pipeline import DDPM, load_pretrained
from ..samplers import Step
from ..trainer.interrupt import is_first
from ..trainer.recipes import get_recipe
from ..viz import frames_even_in_log_snr, image_grid, save_gif, save_picture
from .terminal import blocks, terminal_colours

BATCH = 200  # images sampled at once
GREYS = 16  # of a GIF: noise is what fills the file
DIGIT = 28  # pixels wide, without its border


def run_sample(args: argparse.Namespace) -> None:
    out = None if args.show and args.out is None else picture_file(args.out or "samples.png")
    if out is not None:
        writable_folder(out.parent)
    y = digits_of(args.digits).repeat_interleave(at_least_one(args.per_digit, "--per-digit"))
    ddpm = load(args)
    width = DIGIT if bordered(ddpm) else ddpm.image_shape[-1]
    columns = in_a_row(width) if args.show else 0
    x = draw(ddpm, y, args)
    x = crop_to(x, DIGIT) if bordered(ddpm) else x
    if args.show:
        for some in x.split(args.per_digit if args.per_digit > 1 else len(x)):  # a digit begins a row
            print(blocks(image_grid(some, min(columns, len(some))), terminal_colours()))
    if out is not None:
        save_samples(x, None if ddpm.model.num_classes is None else y, out, args)


def save_samples(x: Tensor, y: Tensor | None, out: Path, args: argparse.Namespace) -> None:
    if out.suffix == ".png":
        save_picture(image_grid(x, columns=args.per_digit if args.per_digit > 1 else 10), out)
    else:
        import numpy as np

        images = x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)
        labels = {} if y is None else {"labels": y.numpy()}
        np.savez_compressed(out, images=to_uint8(images).numpy(), **labels)
    print(f"{counted(len(x))} in {out}")


def picture_file(name: str) -> Path:
    """Where samples go. Raises ValueError for a kind of file that they are not written as."""
    if Path(name).suffix not in (".npz", ".png"):
        raise ValueError(f"samples go to a .npz or a .png file, got {Path(name).name!r}")
    return Path(name)


def in_a_row(wide: int = DIGIT) -> int:
    """How many images fit the terminal, a pixel being a character wide. Raises ValueError where none does,
    and where there are no block characters to show them with."""
    width = shutil.get_terminal_size().columns or 80  # some that are no terminals say 0
    if width < wide:
        raise ValueError(f"an image is {wide} characters wide, but this terminal {width}: make it wider")
    try:
        "▀▄█".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.encoding} text has no block characters: set PYTHONIOENCODING=utf-8") from error
    return width // wide


def bordered(ddpm: DDPM) -> bool:
    """Whether its images have the border that data.py gives to 28x28. Weights that say nothing of their
    data drew digits."""
    return ddpm.notes.get("data", "mnist" if ddpm.image_shape == (1, 32, 32) else None) in PADDED


def draw(ddpm: DDPM, y: Tensor, args: argparse.Namespace) -> Tensor:
    """One image for each label, in batches, under a progress bar that counts calls of the network."""
    seeds = torch.arange(args.seed, args.seed + len(y))
    done = []
    with tqdm(total=len(y) * args.steps, desc="sampling", leave=False, disable=None) as bar:
        for part, part_seeds in zip(y.split(BATCH), seeds.split(BATCH)):
            for step in walk(ddpm, part, part_seeds, args):
                bar.update(len(part) if step.t > 0 else 0)
            done.append(step.x_t.cpu())
    return torch.cat(done)


def walk(ddpm: DDPM, y: Tensor, seeds: Tensor, args: argparse.Namespace) -> Iterator[Step]:
    labels, n = (None, len(y)) if ddpm.model.num_classes is None else (y, None)
    how = args.steps, args.sampler, args.scale, seeds.tolist(), args.eta, args.grid
    return ddpm.sample_steps(labels, n, *how)


def run_gif(args: argparse.Namespace) -> None:
    out = writable_folder(args.out)
    frames = at_least_one(args.frames, "--frames")
    ddpm, y = load(args), digits_of(args.digits, once=True)  # a file a digit
    seeds = torch.arange(args.seed, args.seed + len(y))
    way = walk(ddpm, y, seeds, args)
    steps = list(tqdm(way, "denoising", total=args.steps + 1, leave=False, disable=None))
    times = torch.tensor([step.t for step in steps])
    shown = [steps[i].x_t for i in frames_even_in_log_snr(ddpm.schedule.log_snr[times], frames)]
    for i, digit in enumerate(y.tolist()):
        film = [image_grid(x[i : i + 1], columns=1, enlarge=4, levels=GREYS) for x in shown]
        save_gif(film, out / f"digit_{digit}.gif")
    save_gif([image_grid(x, columns=5, enlarge=2, levels=GREYS) for x in shown], out / "digits.gif")
    print(f"{counted(len(y))}, {len(shown)} frames each, in {out}")


def run_eval(args: argparse.Namespace) -> None:
    from ..evaluation.draw import Draw
    from ..evaluation.evaluate import evaluate
    from ..evaluation.report import page

    if args.checkpoint and args.weights:
        raise ValueError(f"one checkpoint at a time: got {args.checkpoint} and --weights {args.weights}")
    args.weights = args.checkpoint or args.weights
    draw = Draw(args.n, args.steps, args.scale, args.sampler, args.seed, args.eta, args.grid)
    try:
        kept = evaluate(load(args), args.out, draw, sweeps=not args.no_sweeps)
    except KeyboardInterrupt:
        print(f"\nwhat was found is kept in {args.out}: the same command goes on from there", file=sys.stderr)
        raise
    print(page(kept), end="")
    print(f"the report is in {args.out}")


def run_train(args: argparse.Namespace) -> None:
    from ..trainer.trainer import train

    recipe, data = get_recipe(args.recipe), None
    if args.grow:
        recipe = replace(recipe, grow=whole_numbers(args.grow, "--grow"))
    name = args.recipe if args.data == "mnist" else f"{args.recipe}-{args.data}"
    out = writable_folder(args.out or f"runs/{name}")
    if (args.data, args.root, args.size) != ("mnist", None, None):
        size = args.size or recipe.size_from(max(recipe.image_size, SMALLEST.get(args.data, 0)))
        data = load_data(args.data, args.root, size, skip_broken=args.skip_broken)
        recipe = recipe.suited(data)
    names = "epochs minutes seed device precision compile fresh accumulate tensorboard".split()
    train(recipe, out, data, **{name: getattr(args, name) for name in names}, command=args.again)
    if is_first():
        print(f"the trained network is {out / 'model.safetensors'}")


def load(args: argparse.Namespace) -> DDPM:
    device = args.device or "cpu"
    return DDPM.load(args.weights, device) if args.weights else load_pretrained(device=device)


def counted(n: int) -> str:
    return "1 image" if n == 1 else f"{n} images"


def digits_of(text: str, once: bool = False) -> Tensor:
    """The labels that a string of digits names, or of numbers between commas; once: each no more than once.
    Raises ValueError for anything else in it."""
    names = text.split(",") if "," in text else list(text)
    if not names or not all(name.isascii() and name.isdigit() for name in names):
        raise ValueError(
            f"--digits takes digits such as 0123456789, got {text!r} (labels above 9 go between commas: 3,14)"
        )
    labels = [int(name) for name in names]
    return torch.tensor(list(dict.fromkeys(labels)) if once else labels)


def whole_numbers(text: str, name: str) -> tuple[int, ...]:
    """(10, 100) for "10,100". Raises ValueError for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"{name} takes whole numbers with commas between, got {text!r}") from None


def at_least_one(n: int, name: str) -> int:
    if n < 1:
        raise ValueError(f"{name} must be at least 1, got {n}")
    return n
