"""What the commands of cli.py do, each with the arguments that it was given."""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from .data import crop_to, to_uint8, writable_folder
from .datasets import PADDED, load_data
from .pipeline import DDPM, load_pretrained
from .recipes import get_recipe
from .samplers import Step
from .viz import even_in_log_snr, image_grid, save_gif, save_picture

BATCH = 200  # images sampled at once
GREYS = 16  # of a GIF: noise is what fills the file


def run_sample(args: argparse.Namespace) -> None:
    out = Path(args.out)
    writable_folder(out.parent)
    if out.suffix not in (".npz", ".png"):
        raise ValueError(f"samples go to a .npz or a .png file, got {out.name!r}")
    y = digits_of(args.digits).repeat_interleave(at_least_one(args.per_digit, "--per-digit"))
    ddpm = load(args)
    x = unpadded(ddpm, draw(ddpm, y, args))
    if out.suffix == ".png":
        save_picture(image_grid(x, columns=args.per_digit if args.per_digit > 1 else 10), out)
    else:
        import numpy as np

        images = x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)
        labels = {} if ddpm.model.num_classes is None else {"labels": y.numpy()}
        np.savez_compressed(out, images=to_uint8(images).numpy(), **labels)
    print(f"{len(x)} digits in {out}")


def unpadded(ddpm: DDPM, x: Tensor) -> Tensor:
    """Images as they were before data.py gave them a border. Weights that say nothing of it drew digits."""
    border = ddpm.notes.get("data", "mnist" if ddpm.image_shape == (1, 32, 32) else None) in PADDED
    return crop_to(x) if border else x


def draw(ddpm: DDPM, y: Tensor, args: argparse.Namespace) -> Tensor:
    """One image for each label, in batches, under a progress bar that counts calls of the network."""
    seeds = torch.arange(args.seed, args.seed + len(y))
    done = []
    with tqdm(total=len(y) * args.steps, desc="sampling", disable=None) as bar:
        for part, part_seeds in zip(y.split(BATCH), seeds.split(BATCH)):
            for step in walk(ddpm, part, part_seeds, args):
                bar.update(len(part) if step.t > 0 else 0)
            done.append(step.x_t.cpu())
    return torch.cat(done)


def walk(ddpm: DDPM, y: Tensor, seeds: Tensor, args: argparse.Namespace) -> Iterator[Step]:
    labels, n = (None, len(y)) if ddpm.model.num_classes is None else (y, None)
    return ddpm.sample_steps(labels, n, args.steps, args.sampler, args.scale, seeds.tolist(), args.eta)


def run_gif(args: argparse.Namespace) -> None:
    out = writable_folder(args.out)
    frames = at_least_one(args.frames, "--frames")
    ddpm, y = load(args), digits_of(args.digits, once=True)  # a file a digit
    seeds = torch.arange(args.seed, args.seed + len(y))
    steps = list(tqdm(walk(ddpm, y, seeds, args), "denoising", total=args.steps + 1, disable=None))
    times = torch.tensor([step.t for step in steps])
    shown = [steps[i].x_t for i in even_in_log_snr(ddpm.schedule.log_snr[times], frames)]
    for i, digit in enumerate(y.tolist()):
        film = [image_grid(x[i : i + 1], columns=1, enlarge=4, levels=GREYS) for x in shown]
        save_gif(film, out / f"digit_{digit}.gif")
    save_gif([image_grid(x, columns=5, enlarge=2, levels=GREYS) for x in shown], out / "digits.gif")
    print(f"{len(y)} digits, {len(shown)} frames each, in {out}")


def run_eval(args: argparse.Namespace) -> None:
    from .draw import Draw
    from .evaluate import evaluate
    from .report import page

    if args.checkpoint and args.weights:
        raise ValueError(f"one checkpoint at a time: got {args.checkpoint} and --weights {args.weights}")
    args.weights = args.checkpoint or args.weights
    draw = Draw(args.n, args.steps, args.scale, args.sampler, args.seed, args.eta)
    kept = evaluate(load(args), args.out, draw, sweeps=not args.no_sweeps)
    print(page(kept), end="")
    print(f"the report is in {args.out}")


def run_train(args: argparse.Namespace) -> None:
    from .train import train

    recipe, data = get_recipe(args.recipe), None
    if args.grow:
        recipe = replace(recipe, grow=whole_numbers(args.grow, "--grow"))
    name = args.recipe if args.data == "mnist" else f"{args.recipe}-{args.data}"
    out = writable_folder(args.out or f"runs/{name}")
    if (args.data, args.root, args.size) != ("mnist", None, None):
        size = recipe.image_size if args.size is None else args.size
        data = load_data(args.data, args.root, size, skip_broken=args.skip_broken)
        recipe = recipe.suited(data)
    names = "epochs minutes seed device precision compile fresh accumulate tensorboard".split()
    train(recipe, out, data, **{name: getattr(args, name) for name in names})
    print(f"the trained network is {out / 'model.safetensors'}")


def load(args: argparse.Namespace) -> DDPM:
    device = args.device or "cpu"
    return DDPM.load(args.weights, device) if args.weights else load_pretrained(device=device)


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
