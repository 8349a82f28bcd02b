"""The library from the command line: tinyddpm and a command, or alone."""

import argparse
import os
import signal
import sys

from ..datasets.named import NAMES
from ..editing.handwriting import HALVES
from ..pipeline import SAMPLERS
from ..schedules import SPACINGS
from ..trainer.interrupt import Interrupted, is_first
from ..trainer.unfinished import typed
from .art import run_inpaint, run_morph, run_style, run_write
from .commands import run_eval, run_gif, run_sample, run_train

ABOUT = "Denoising diffusion from scratch, on MNIST. Alone, on a terminal, it asks what to do."


def main(argv: list[str] | None = None) -> int:
    """Runs one command; without one asks for some where there is a terminal to ask on. Returns 0; 2 after
    a message on stderr where something was not as it must be; and after a signal that ended it 128 and
    its number, as shells do."""
    argv = sys.argv[1:] if argv is None else argv
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.command is None:
        if sys.stdin.isatty() and sys.stdout.isatty():
            from .menu import interact

            return interact(main)
        parser.print_help(sys.stderr)
        return 2
    args.again = [word for word in argv if not is_fresh(word)]
    try:
        args.command(args)
    except Interrupted as interrupted:
        if is_first():
            again = typed(args.again, int(os.environ.get("WORLD_SIZE", "1")))
            print(f"tinyddpm: {interrupted}\nto go on: {again}", file=sys.stderr)
        return 128 + interrupted.signal
    except KeyboardInterrupt:
        print("\ntinyddpm: stopped", file=sys.stderr)
        return 128 + signal.SIGINT
    except (ValueError, OSError) as error:
        print(f"tinyddpm: {error}", file=sys.stderr)
        return 2
    return 0


def is_fresh(word: str) -> bool:
    """Whether this is --fresh, which the parser takes cut short, too: with it a run would not go on."""
    return len(word) > 2 and "--fresh".startswith(word)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("tinyddpm", description=ABOUT)
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    sample = commands.add_parser(
        "sample", parents=[draw_options(50, 1.0)], help="draw digits into a file or the terminal"
    )
    sample.add_argument("--digits", default="0123456789", help="which (0123456789)")
    sample.add_argument("--per-digit", type=int, default=10, help="how many of each (10)")
    sample.add_argument(
        "--out",
        help="x.npz: images (N, 28, 28) uint8, with colours (N, h, w, 3), and labels; x.png: a grid (samples.png)",
    )
    show = "show the digits here, in the terminal; to a file then only with --out"
    sample.add_argument("--show", action="store_true", help=show)
    sample.set_defaults(command=run_sample)

    gif = commands.add_parser("gif", parents=[draw_options(100, 1.5)], help="a GIF of each digit on its way from noise")
    gif.add_argument("--out", default="gifs", help="the folder to write to (gifs)")
    gif.add_argument("--digits", default="0123456789", help="which (0123456789)")
    gif.add_argument("--frames", type=int, default=40, help="at most (40)")
    gif.set_defaults(command=run_gif)

    add_art(commands)

    judge = commands.add_parser("eval", parents=[draw_options(50, 1.0)], help="what the samples are worth")
    judge.add_argument("checkpoint", nargs="?", help="a checkpoint; the shipped weights if not given")
    judge.add_argument("--n", type=int, default=10_000, help="samples (10000)")
    judge.add_argument("--out", default="report", help="the folder to write to, and to go on in (report)")
    judge.add_argument("--no-sweeps", action="store_true", help="no plots against scale and steps")
    judge.set_defaults(command=run_eval)

    train = commands.add_parser("train", help="train a network by a recipe")
    train.add_argument("--recipe", default="tiny", help="by name (tiny)")
    train.add_argument("--data", default="mnist", help=f"one of {', '.join(NAMES)} (mnist)")
    train.add_argument("--root", metavar="DIR", help="where the data is, or is downloaded to")
    train.add_argument("--size", type=int, help="of the images, up to 128; the recipe's if not given")
    train.add_argument("--skip-broken", action="store_true", help="leave out images that cannot be read")
    train.add_argument("--out", help="the folder to write to (runs/RECIPE, or runs/RECIPE-DATA)")
    train.add_argument("--epochs", type=float, help="the recipe's number if not given")
    train.add_argument("--minutes", type=float, help="stop by the clock instead")
    train.add_argument("--seed", type=int, default=0, help="(0)")
    train.add_argument("--device", help="cpu, cuda or mps; the fastest there is if not given")
    train.add_argument("--precision", default="no", help="no (float32), bf16 or fp16 (no)")
    train.add_argument("--compile", action="store_true", help="through torch.compile: slow to start, then faster")
    train.add_argument(
        "--accumulate", type=int, default=1, metavar="N", help="each batch in N parts, for less memory (1)"
    )
    train.add_argument(
        "--grow", help="progressive: how many different times to begin with, such as 10,100, before all T"
    )
    train.add_argument("--tensorboard", action="store_true", help="write the figures for TensorBoard, too")
    train.add_argument("--fresh", action="store_true", help="begin anew where the folder holds a run")
    train.set_defaults(command=run_train)
    return parser


def add_art(commands) -> None:
    """The commands that make pictures of what artwork.py and strip.py can do."""
    morph = commands.add_parser(
        "morph", parents=[model_options(20, 2.0)], help="a GIF of digits that turn into each other"
    )
    morph.add_argument("--digits", default="0123456789", help="which, in this order (0123456789)")
    morph.add_argument("--frames", type=int, default=12, help="from a digit to the next (12)")
    morph.add_argument("--wander", action="store_true", help="from hand to hand, too; else all in one")
    morph.add_argument("--out", default="morph.gif", help="x.gif (morph.gif)")
    morph.set_defaults(command=run_morph)

    inpaint = commands.add_parser(
        "inpaint", parents=[model_options(50, 1.0)], help="real digits, half hidden, completed in several ways"
    )
    inpaint.add_argument("--digits", default="0123456789", help="which of the test set (0123456789)")
    inpaint.add_argument("--hide", default="left", help=f"{', '.join(HALVES)} (left)")
    inpaint.add_argument("--each", type=int, default=8, help="ways to complete each (8)")
    inpaint.add_argument("--labelled", action="store_true", help="tell the network which digit it is")
    inpaint.add_argument("--times", type=int, default=5, help="to go over each part, until it fits (5)")
    inpaint.add_argument("--out", default="inpaint.png", help="x.png (inpaint.png)")
    inpaint.set_defaults(command=run_inpaint)

    style = commands.add_parser(
        "style", parents=[model_options(20, 2.5)], help="all digits in the hand of one that somebody wrote"
    )
    style.add_argument("--digits", default="0123456789", help="to write (0123456789)")
    style.add_argument("--hands", type=int, default=8, help="digits of the test set to take the hand of (8)")
    style.add_argument("--image", metavar="FILE", help="a digit of your own instead: white on black, square")
    style.add_argument("--label", metavar="DIGIT", help="which digit that is")
    style.add_argument("--out", default="style.png", help="x.png (style.png)")
    style.set_defaults(command=run_style)

    write = commands.add_parser("write", parents=[model_options(50, 2.0)], help="a strip of digits in one hand")
    write.add_argument("text", help='digits and blanks, such as "2026 11 21"')
    write.add_argument("--variety", type=float, default=0.2, help="0 every 2 alike, 1 each another hand (0.2)")
    write.add_argument("--out", default="strip.png", help="x.png, or x.gif on its way from noise (strip.png)")
    write.set_defaults(command=run_write)


def draw_options(steps: int, scale: float) -> argparse.ArgumentParser:
    """What every command takes that leaves the sampler open."""
    draw = argparse.ArgumentParser(add_help=False, parents=[model_options(steps, scale)])
    draw.add_argument("--sampler", default="ddim", help=f"{', '.join(SAMPLERS)} (ddim)")
    draw.add_argument("--grid", default="uniform", help=f"times to visit: {', '.join(SPACINGS)} (uniform)")
    draw.add_argument("--eta", type=float, default=0.0, help="fresh noise in ddim: 0 none, 1 as ddpm (0)")
    return draw


def model_options(steps: int, scale: float) -> argparse.ArgumentParser:
    """What every command that draws takes. One for each: parsers share the options of their parents."""
    draw = argparse.ArgumentParser(add_help=False)
    draw.add_argument("--weights", metavar="FILE", help="a checkpoint; the shipped weights if not given")
    draw.add_argument("--steps", type=int, default=steps, help=f"from noise to the image ({steps})")
    guidance = f"guidance: 1 none, above 1 the label counts for more ({scale:g})"
    draw.add_argument("--scale", type=float, default=scale, help=guidance)
    draw.add_argument("--seed", type=int, default=0, help="of the first image; the next has the next (0)")
    draw.add_argument("--device", help="cpu, cuda or mps; cpu if not given")
    return draw
