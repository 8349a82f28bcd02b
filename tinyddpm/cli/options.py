"""What can be asked of each command, and checks of it. Nothing here imports torch, so that help is quick."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Fixed, Positional, Suppress

from ..trainer.recipes import RECIPES, Recipe
from .export import Export as Export
from .judge import Judge as Judge

DIGIT = 28  # pixels on a side of MNIST's images, without their border
GREYS = 16  # levels of a GIF: most of its bytes are noise
SamplerName = Literal["ddim", "ddpm", "heun", "dpm_solver_pp", "euler_maruyama", "predictor_corrector"]
Spacing = Literal["uniform", "quadratic", "log-snr"]
DataName = Literal["mnist", "mnist-resized", "fashion", "kmnist", "letters", "cifar10", "folder"]
if TYPE_CHECKING:
    RecipeName = str
else:
    RecipeName = Literal[tuple(RECIPES)]
Half = Literal["left", "right", "top", "bottom", "middle"]
EXAMPLES = {  # shown in the help of each command
    "sample": ("--show --digits 2026 --per-digit 1", "--digits 7 --per-digit 20 --scale 2 --out sevens.png"),
    "gif": ("--out gifs", "--digits 38 --steps 50 --grid log-snr"),
    "morph": ("--out morph.gif", "--digits 0123 --frames 24 --wander"),
    "inpaint": ("--hide top --out inpaint.png", "--digits 47 --labelled --scale 2"),
    "style": ("--out style.png", "--image mine.png --label 7 --digits 0123456789"),
    "write": ("'2026 11 21'", "31415926 --variety 1 --out pi.gif"),
    "export": ("--out digits.onnx", "--weights runs/mine/model.safetensors"),
    "app": ("--port 8000", "--no-browser"),
    "eval": ("--n 1000 --no-sweeps", "runs/nano/model.safetensors --out report-nano"),
    "judge": ("samples.npz", "samples --data fashion --n 1000 --out judged.md"),
    "train": ("--recipe nano", "--minutes 30 --out runs/mine", "--recipe nano --data folder --root photos --size 32"),
}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The options of every command that draws. The command line shows comments, and what follows here, as help.

    Args:
        steps: number of denoising steps, at most T (1000 for the shipped weights)
        scale: strength of guidance: 0 ignores the label, 1 is the conditional model, above 1 the label weighs more
    """

    steps: int = 50
    scale: float = 1.0
    seed: int = 0  # seed of the first image; each image after it has the next seed
    weights: Path | None = None  # checkpoint file, or the name of shipped weights; None: mnist-tiny
    device: str = "cpu"  # cpu, cuda or mps


@dataclass(frozen=True, kw_only=True)
class Sampling(Drawing):
    """The options of every command that leaves the choice of the sampler."""

    sampler: SamplerName = "ddim"  # how noise becomes an image
    grid: Spacing = "uniform"  # spacing of the times that the sampler visits
    eta: float = 0.0  # fresh noise of ddim, from 0 (none) to 1 (as much as ddpm)


@dataclass(frozen=True, kw_only=True)
class Sample(Sampling):
    """Draw digits into a file or the terminal."""

    digits: str = "0123456789"  # labels, such as 2026; above 9 with commas, such as 3,14
    per_digit: int = 10  # images of each label
    # file to write; None: samples.png, or none with --show. x.npz holds images (n, 28, 28), in colour (n, h, w, 3), as
    # uint8 and their labels; x.png shows a grid
    out: Path | None = None
    enlarge: int = 4  # how many times larger x.png shows each pixel
    show: bool = False  # show the images in the terminal
    bf16: bool = False  # call the network in bfloat16: 1.5 times as fast for 100 digits; grey values differ a little


@dataclass(frozen=True, kw_only=True)
class Gif(Sampling):
    """Write a GIF of each digit on its way from noise, and one of all."""

    steps: int = 100
    scale: float = 1.5
    out: Path = Path("gifs")  # folder to write
    digits: str = "0123456789"  # labels, such as 2026; above 9 with commas, such as 3,14
    frames: int = 40  # of each GIF at most
    poster: bool = False  # show the finished digits first, where a GIF stands still


@dataclass(frozen=True, kw_only=True)
class Morph(Drawing):
    """Write a GIF of digits that turn into each other."""

    steps: int = 20
    scale: float = 2.0
    digits: str = "0123456789"  # which, in this order
    frames: int = 12  # from each digit to the next
    wander: bool = False  # change the handwriting from digit to digit, too
    out: Path = Path("morph.gif")  # GIF to write


@dataclass(frozen=True, kw_only=True)
class Inpaint(Drawing):
    """Complete real digits, half hidden, in several ways."""

    digits: str = "0123456789"  # which of the test set
    hide: Half = "left"  # part to hide
    each: int = 8  # completions of each digit
    labelled: bool = False  # tell the network which digit it is
    times: int = 5  # how often to go over each part of the sampling, until it fits
    out: Path = Path("inpaint.png")  # picture to write: a row is a digit, what is left of it, and its completions


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


@dataclass(frozen=True, kw_only=True)
class Write(Drawing):
    """Write a strip of digits in one handwriting."""

    scale: float = 2.0
    text: Positional[str]  # digits and blanks, such as "2026 11 21"
    variety: float = 0.2  # from 0, every 2 alike, to 1, each digit in a handwriting of its own
    out: Path = Path("strip.png")  # x.png, or x.gif of the strip on its way from noise
    poster: bool = False  # show the finished strip first, where a GIF stands still


@dataclass(frozen=True, kw_only=True)
class Eval(Sampling):
    """Measure samples beside real images, and write a report."""

    checkpoint: Positional[Path | None] = None  # checkpoint file; None: the shipped weights
    n: int = 10_000  # samples
    root: Path | None = None  # folder of downloaded data, for a model of data that do not ship
    out: Path = Path("report")  # folder to write; the same command resumes an interrupted report
    sweeps: bool = True  # --no-sweeps leaves out the plots against guidance scale and steps
    bits: bool = True  # --no-bits leaves out the bound on bits per dimension of test images
    bits_n: int = 100  # of how many: each takes two calls of the network for each t


@dataclass(frozen=True, kw_only=True)
class App:
    """Draw, train, compare and edit in a browser."""

    port: int | None = None  # of http://127.0.0.1:PORT; None: the first free one from 2718 on
    browser: bool = True  # --no-browser prints the address alone


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a network by a recipe, each setting of which is an option, too."""

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


def labels_in(digits: str) -> list[int]:
    """[2, 0] for "20", [3, 14] for "3,14"."""
    right = re.fullmatch("[0-9]+(,[0-9]+)*", digits)
    expect(right, "digits such as 2026, or labels with commas such as 3,14", repr(digits))
    return [int(name) for name in (digits.split(",") if "," in digits else digits)]


def expect(right: object, wanted: str, found: object) -> None:
    if not right:
        raise ValueError(f"expected {wanted}, got {found}")


def number_in(n: int, option: str, least: int = 1, most: int = 10_000) -> int:
    if not least <= n <= most:
        raise ValueError(f"{option} must be in {least}..{most}, got {n}")
    return n
