"""The command line: `tinyddpm` and a command, or alone for a menu."""

import contextlib
import importlib.metadata
import io
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from tyro.conf import Fixed, Positional, Suppress

from ..data import to_uint8
from ..datasets.named import DATASETS, LARGEST, load_data
from ..evaluation import evaluate
from ..evaluation.report import page
from ..files import writable_folder, write_whole
from ..trainer import train
from ..trainer.interrupt import Interrupted, is_first
from ..trainer.recipes import RECIPES, Recipe
from ..trainer.state import alone, shell_command
from ..viz import image_grid, save_gif, save_picture
from .app import App
from .art import Inpaint, Morph, Style, Write
from .options import GREYS, DataName, RecipeName, Sampling, file_of, frames_of, labels_in, number_in, shown_size
from .terminal import blocks, images_in_a_row, terminal_colours

ABOUT = """Denoising diffusion from scratch, on MNIST. Without a command: a menu, on a terminal.

--version prints the version; --tyro-print-completion bash (zsh, fish, tcsh) a script for completion in that shell."""


@dataclass(frozen=True, kw_only=True)
class Sample(Sampling):
    """Draw digits into a file or the terminal."""

    digits: str = "0123456789"  # labels, such as 2026; above 9 with commas, such as 3,14
    per_digit: int = 10  # images of each label
    # file to write; None: samples.png, or none with --show. x.npz holds images (n, 28, 28), in colour (n, h, w, 3), as
    # uint8 and their labels; x.png shows a grid
    out: Path | None = None
    show: bool = False  # show the images in the terminal

    def run(self) -> None:
        out = None if self.show and not self.out else file_of(self.out or Path("samples.png"), ".npz", ".png")
        y = [label for label in labels_in(self.digits) for _ in range(number_in(self.per_digit, "--per-digit"))]
        ddpm = self.load()
        columns = images_in_a_row(shown_size(ddpm)) if self.show else 0
        x = self.draw(ddpm, y)
        for part in x.split(self.per_digit if self.per_digit > 1 else len(x)) if self.show else ():
            print(blocks(image_grid(part, min(columns, len(part))), terminal_colours()))
        if out and out.suffix == ".png":
            save_picture(image_grid(x, self.per_digit if self.per_digit > 1 else 10), out)
        elif out:
            images = to_uint8(x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)).numpy()
            labels: dict = {} if ddpm.num_classes is None else {"labels": y}
            np.savez_compressed(content := io.BytesIO(), images=images, **labels)
            write_whole(out, content.getvalue())
        if out:
            print(f"{len(x)} images in {out}")


@dataclass(frozen=True, kw_only=True)
class Gif(Sampling):
    """Write a GIF of each digit on its way from noise, and one of all."""

    steps: int = 100
    scale: float = 1.5
    out: Path = Path("gifs")  # folder to write
    digits: str = "0123456789"  # labels, such as 2026; above 9 with commas, such as 3,14
    frames: int = 40  # of each GIF, at most

    def run(self) -> None:
        out, frames = writable_folder(self.out), number_in(self.frames, "--frames")
        y, ddpm = list(dict.fromkeys(labels_in(self.digits))), self.load()
        shown = frames_of(ddpm.sample_steps(**self.arguments(ddpm, y)), self.steps, ddpm, frames)
        for i, digit in enumerate(y):
            film = [image_grid(x[i : i + 1], columns=1, enlarge=4, levels=GREYS) for x in shown]
            save_gif(film, out / f"digit_{digit}.gif")
        save_gif([image_grid(x, columns=5, enlarge=2, levels=GREYS) for x in shown], out / "digits.gif")
        print(f"{len(y)} images, {len(shown)} frames each, in {out}")


@dataclass(frozen=True, kw_only=True)
class Eval(Sampling):
    """Measure samples beside real digits, and write a report."""

    checkpoint: Positional[Path | None] = None  # checkpoint file; None: the shipped weights
    n: int = 10_000  # samples
    out: Path = Path("report")  # folder to write; the same command resumes an interrupted report
    sweeps: bool = True  # plot accuracy and distance against guidance scale and steps

    def run(self) -> None:
        if self.checkpoint and self.weights:
            raise ValueError(f"expected one checkpoint, got {self.checkpoint} and --weights {self.weights}")
        ddpm = replace(self, weights=self.checkpoint or self.weights).load()
        with alone(writable_folder(self.out), "write to another one (--out)"):
            print(page(evaluate(ddpm, self.out, self.spec(self.n), sweeps=self.sweeps)), end="")
        print(f"the report is in {self.out}")


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a network by a recipe, whose settings are options, too."""

    recipe: RecipeName = "tiny"  # name of the recipe, which holds the defaults of its settings
    data: DataName = "mnist"  # data set
    root: Path | None = None  # folder of images, or folder for downloads
    size: int | None = None  # side of the images in pixels, at most 128; None: image_size, or the next that fits
    skip_broken: bool = False  # leave out images that cannot be read
    out: Path | None = None  # folder to write; None: runs/RECIPE, or runs/RECIPE-DATA
    minutes: float | None = None  # stop by the clock instead of after epochs
    seed: int = 0  # of the weights, the batches and the noise
    device: str | None = None  # cpu, cuda or mps; None: the fastest
    precision: Literal["auto", "no", "bf16", "fp16"] = "auto"  # auto: bf16 if it is fast, else no (float32)
    compile: bool = False  # use torch.compile: slow to start, then faster
    accumulate: int = 1  # parts in which each batch passes the network, to save memory
    tensorboard: bool = False  # write the log for TensorBoard, too
    fresh: bool = False  # begin anew if the folder holds a run
    settings: Annotated[Recipe, tyro.conf.arg(name="")]
    command: Suppress[Fixed[tuple[str, ...]]] = ()  # the words that resume the run

    def run(self) -> None:
        recipe = self.settings
        out = self.out or Path("runs", self.recipe if self.data == "mnist" else f"{self.recipe}-{self.data}")
        writable_folder(out)
        least = max(recipe.image_size, DATASETS[self.data].smallest)
        number_in(self.seed, "--seed", 0, 2**62)
        fitting = (n for n in range(least, LARGEST + 1) if recipe.network.fits(n))
        size = next(fitting, least) if self.size is None else self.size
        data = load_data(self.data, self.root, size, skip_broken=self.skip_broken)
        epochs = None if recipe.epochs == RECIPES[self.recipe].epochs else recipe.epochs  # refused beside minutes
        options = {name: getattr(self, name) for name in ("precision", "compile", "fresh", "accumulate", "tensorboard")}
        how = epochs, self.minutes, self.seed, self.device
        train(recipe.suited(data), out, data, *how, **options, command=self.command)
        if is_first():
            print(f"the trained network is {out / 'model.safetensors'}")


COMMANDS: dict[str, Callable] = {
    "sample": Sample, "gif": Gif, "morph": Morph, "inpaint": Inpaint, "style": Style, "write": Write, "eval": Eval,
    "train": Train, "app": App,
}  # fmt: skip


def recipe_name(recipe: RecipeName = "tiny") -> str:
    return recipe


def run(argv: list[str], resume: list[str]) -> None:
    """Runs a command. resume: the words of the command that resumes it."""
    name = "tiny"
    if argv[:1] == ["train"]:
        name, _ = tyro.cli(recipe_name, prog="tinyddpm train", args=argv[1:], return_unknown_args=True, add_help=False)
    with_recipe = {"train": partial(Train, settings=RECIPES[name], command=tuple(resume))}
    command = tyro.extras.subcommand_cli_from_dict(
        COMMANDS | with_recipe, prog="tinyddpm", description=ABOUT, args=argv, config=(tyro.conf.FlagCreatePairsOff,)
    )
    command.run()


def without_command() -> int:
    """The menu on a terminal, elsewhere the help."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        from .menu import menu

        return menu(main)
    with contextlib.redirect_stdout(sys.stderr), contextlib.suppress(SystemExit):
        run(["--help"], [])
    return 2


def main(argv: list[str] | None = None) -> int:
    """Runs the command in argv. Returns 0; 2 after a message on stderr about bad input; 128 plus the signal's number
    after SIGINT or SIGTERM."""
    argv = sys.argv[1:] if argv is None else argv
    sys.stdout = sys.stdout or open(os.devnull, "w")  # None where the shell has closed it
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # names of files may be of another encoding
    resume = [word for word in argv if word != "--fresh"]
    try:
        if not argv:
            return without_command()
        if argv == ["--version"]:
            print(importlib.metadata.version("tinyddpm"))
        else:
            run(argv, resume)
    except SystemExit as error:  # of tyro, after a message
        return int(error.code or 0)
    except KeyboardInterrupt as error:
        if is_first():
            print(f"\ntinyddpm: {str(error) or 'stopped'}", file=sys.stderr)
            if isinstance(error, Interrupted) or argv[:1] == ["eval"]:
                print(f"resume with: {shell_command(resume, int(os.environ.get('WORLD_SIZE', '1')))}", file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except (ValueError, OSError) as error:
        print(f"tinyddpm: {error}", file=sys.stderr)
        return 2
    return 0
