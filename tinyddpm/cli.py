"""tinyddpm train | sample | gif | eval: the library from the command line."""

import argparse
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from .data import crop_to, to_uint8, writable_folder
from .interrupt import Interrupted
from .pipeline import DDPM, SAMPLERS, load_pretrained
from .samplers import Step
from .viz import even_in_log_snr, image_grid, save_gif, save_picture

BATCH = 200  # images sampled at once
GREYS = 16  # of a GIF: noise is what fills the file


def main(argv: list[str] | None = None) -> int:
    """Runs one command. Returns 0; 2 after a message on stderr where something was not as it must be; and
    after a signal that ended a training run 128 and its number, as shells do."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        args.command(args)
    except Interrupted as interrupted:
        again = shlex.join(["tinyddpm", *(sys.argv[1:] if argv is None else argv)])
        print(f"tinyddpm: {interrupted}\nto go on: {again}", file=sys.stderr)
        return 128 + interrupted.signal
    except (ValueError, OSError) as error:
        print(f"tinyddpm: {error}", file=sys.stderr)
        return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tinyddpm", description="Denoising diffusion from scratch, on MNIST.")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="train | sample | gif | eval")

    sample = commands.add_parser("sample", parents=[draw_options(50, 1.0)], help="draw digits into a file")
    sample.add_argument("--digits", default="0123456789", help="which (0123456789)")
    sample.add_argument("--per-digit", type=int, default=10, help="how many of each (10)")
    sample.add_argument(
        "--out",
        default="samples.png",
        help="x.npz: images (N, 28, 28) uint8, with colours (N, h, w, 3), and labels; x.png: a grid",
    )
    sample.set_defaults(command=run_sample)

    gif = commands.add_parser(
        "gif", parents=[draw_options(100, 1.5)], help="a GIF of each digit on its way from noise"
    )
    gif.add_argument("--out", default="gifs", help="the folder to write to (gifs)")
    gif.add_argument("--digits", default="0123456789", help="which (0123456789)")
    gif.add_argument("--frames", type=int, default=40, help="at most (40)")
    gif.set_defaults(command=run_gif)

    judge = commands.add_parser("eval", parents=[draw_options(50, 1.0)], help="what the samples are worth")
    judge.add_argument("checkpoint", nargs="?", help="a checkpoint; the shipped weights if not given")
    judge.add_argument("--n", type=int, default=10_000, help="samples (10000)")
    judge.add_argument("--out", default="report", help="the folder to write to, and to go on in (report)")
    judge.add_argument("--no-sweeps", action="store_true", help="no plots against scale and steps")
    judge.set_defaults(command=run_eval)

    train = commands.add_parser("train", help="train a network by a recipe")
    train.add_argument("--recipe", default="tiny", help="by name (tiny)")
    train.add_argument("--out", help="the folder to write to (runs/RECIPE)")
    train.add_argument("--epochs", type=float, help="the recipe's number if not given")
    train.add_argument("--minutes", type=float, help="stop by the clock instead")
    train.add_argument("--seed", type=int, default=0, help="(0)")
    train.add_argument("--device", help="cpu, cuda or mps; the fastest there is if not given")
    train.add_argument("--precision", default="no", help="no (float32) or bf16 (no)")
    train.add_argument(
        "--compile", action="store_true", help="through torch.compile: slow to start, then faster"
    )
    train.add_argument("--fresh", action="store_true", help="begin anew where the folder holds a run")
    train.set_defaults(command=run_train)
    return parser


def draw_options(steps: int, scale: float) -> argparse.ArgumentParser:
    """What every command that draws takes. One for each: parsers share the options of their parents."""
    draw = argparse.ArgumentParser(add_help=False)
    draw.add_argument("--weights", metavar="FILE", help="a checkpoint; the shipped weights if not given")
    draw.add_argument("--steps", type=int, default=steps, help=f"calls of the network an image ({steps})")
    guidance = f"guidance: 1 none, above 1 the label counts for more ({scale:g})"
    draw.add_argument("--scale", type=float, default=scale, help=guidance)
    draw.add_argument("--sampler", default="ddim", help=f"{' or '.join(SAMPLERS)} (ddim)")
    draw.add_argument("--eta", type=float, default=0.0, help="fresh noise in ddim: 0 none, 1 as ddpm (0)")
    draw.add_argument("--seed", type=int, default=0, help="of the first image; the next has the next (0)")
    draw.add_argument("--device", help="cpu, cuda or mps; cpu if not given")
    return draw


def run_sample(args: argparse.Namespace) -> None:
    out = Path(args.out)
    writable_folder(out.parent)
    if out.suffix not in (".npz", ".png"):
        raise ValueError(f"samples go to a .npz or a .png file, got {out.name!r}")
    y = digits_of(args.digits).repeat_interleave(at_least_one(args.per_digit, "--per-digit"))
    x = crop_to(draw(load(args), y, args))
    if out.suffix == ".png":
        save_picture(image_grid(x, columns=args.per_digit if args.per_digit > 1 else 10), out)
    else:
        import numpy as np

        images = x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)
        np.savez_compressed(out, images=to_uint8(images).numpy(), labels=y.numpy())
    print(f"{len(x)} digits in {out}")


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
    return ddpm.sample_steps(y, None, args.steps, args.sampler, args.scale, seeds.tolist(), args.eta)


def run_gif(args: argparse.Namespace) -> None:
    out = writable_folder(args.out)
    frames = at_least_one(args.frames, "--frames")
    ddpm, y = load(args), digits_of("".join(dict.fromkeys(args.digits)))  # a file a digit
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

    out = Path(args.out or f"runs/{args.recipe}")
    train(
        args.recipe,
        out,
        None,
        args.epochs,
        args.minutes,
        args.seed,
        args.device,
        args.precision,
        args.compile,
        args.fresh,
    )
    print(f"the trained network is {out / 'model.safetensors'}")


def load(args: argparse.Namespace) -> DDPM:
    device = args.device or "cpu"
    return DDPM.load(args.weights, device) if args.weights else load_pretrained(device=device)


def digits_of(text: str) -> Tensor:
    """The labels that a string of digits names. Raises ValueError for anything else in it."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(f"--digits takes digits such as 0123456789, got {text!r}")
    return torch.tensor([int(digit) for digit in text])


def at_least_one(n: int, name: str) -> int:
    if n < 1:
        raise ValueError(f"{name} must be at least 1, got {n}")
    return n
