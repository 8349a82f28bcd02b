"""tinyddpm alone, on a terminal: asks what to do, does it by a command that it says, and asks again."""

import itertools
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

from ..files import writable_folder
from ..trainer.recipes import RECIPES
from ..trainer.unfinished import Unfinished, is_unfinished, unfinished_runs
from .commands import in_a_row
from .questions import (
    Back,
    ask,
    digits_in,
    epochs_or_minutes,
    file_for_a_strip,
    folder_for_files,
    from_0,
    one_of,
    picture_or_no,
    say,
    text_to_write,
    whole_number,
)

RUNS = Path("runs")
SHIPPED = "shipped"  # the weights that come with the package
HELLO = """
tinyddpm draws handwritten digits out of noise.

  draw     digits, here in the terminal
  gif      digits on their way from noise
  write    many digits in one hand, into a picture
  train    a network of your own
  resume   a training run that was stopped
  quit

Enter takes what stands in [brackets]; the first letters of a word are enough.
"back" at any question leads back here, Ctrl-C out.
"""


def interact(run: Callable[[list[str]], int]) -> int:
    """Asks and does until it is told to quit, or by Ctrl-C or Ctrl-D at a question. Returns 0; and what
    `run` returned after a SIGTERM, which is for all of the program.

    run    does one command, given the words behind "tinyddpm", and returns its exit status
    """
    menu = Menu()
    actions = {name: getattr(menu, name) for name in ("draw", "gif", "write", "train", "resume")}
    print(HELLO)
    try:
        while (action := ask("What next?", "draw", one_of([*actions, "quit"]))) != "quit":
            try:
                if do(actions[action](), run) == 128 + signal.SIGTERM:
                    return 128 + signal.SIGTERM
            except ValueError as error:
                say(str(error))
            except Back:
                pass
            print()
    except (KeyboardInterrupt, EOFError):
        print()
    print("Goodbye.")
    return 0


def do(words: list[str], run: Callable[[list[str]], int]) -> int:
    """Says the command and runs it. Ctrl-C stops it, and not the menu."""
    print(f"\n$ {shlex.join(['tinyddpm', *words])}\n", flush=True)
    try:
        status = run(words)
    except SystemExit:  # the parser has said what it does not take
        return 2
    if status == 128 + signal.SIGINT and words[0] == "train":
        print("or here:  resume")
    return status


class Menu:
    """The questions before each command. Each action returns the words of its command."""

    def __init__(self):
        self.drawn = 0  # digits until now: the next ones have the next seeds, and are others
        self.folders: set[Path] = set()  # that were trained in, since they may lie outside RUNS

    def draw(self) -> list[str]:
        digits = ask("Which digits?", "7", digits_in)
        each = ask("How many of each?", str(in_a_row()), whole_number)
        words = ["sample", "--show", "--digits", digits, "--per-digit", str(each)]
        words += option("--scale", ask("Guidance scale?", "1", from_0), "1")
        words += self.network()
        words += option("--out", ask("Into a file (x.png, x.npz)?", "no", picture_or_no), "no")
        words += option("--seed", str(self.drawn), "0")
        self.drawn += len(digits) * each
        return words

    def gif(self) -> list[str]:
        words = ["gif", *option("--digits", ask("Which digits?", "0123456789", digits_in), "0123456789")]
        words += option("--scale", ask("Guidance scale?", "1.5", from_0), "1.5")
        words += self.network()
        return words + option("--out", ask("Into which folder?", "gifs", folder_for_files), "gifs")

    def write(self) -> list[str]:
        words = ["write", ask("Which digits and blanks?", "2026 11 21", text_to_write)]
        words += option("--scale", ask("Guidance scale?", "2", from_0), "2")
        words += self.network()
        words += option("--out", ask("Into which file (.png, .gif)?", "strip.png", file_for_a_strip), "strip.png")
        words += option("--seed", str(self.drawn), "0")
        self.drawn += 1
        return words

    def train(self) -> list[str]:
        say(f"Recipes: {', '.join(RECIPES)}")
        recipe = ask("Which recipe?", "nano", one_of(RECIPES))
        usual = f"{RECIPES[recipe].epochs:g} epochs"
        length = ask("For how many epochs, or minutes?", usual, epochs_or_minutes)
        words = ["train", "--recipe", recipe, *(length if length != epochs_or_minutes(usual) else [])]
        folder = ask("Into which folder?", str(free_folder(recipe)), folder_for_a_run)
        self.folders.add(folder)
        return words + option("--out", str(folder), str(RUNS / recipe))

    def resume(self) -> list[str]:
        runs = unfinished_runs({*RUNS.glob("*"), *self.folders})
        width = max((len(str(run.folder)) for run in runs), default=0)
        for i, run in enumerate(runs, 1):
            print(f"  {i}  {str(run.folder):{width}}  {run.stands}")
        can = [str(i) for i, run in enumerate(runs, 1) if run.words]
        if not can:
            raise ValueError("\n".join([f"There is no run in {RUNS} to go on with.", *(r.why for r in runs)]))
        return ask("Which one?", can[0], lambda answer: going_on(runs, answer))

    def network(self) -> list[str]:
        """The shipped weights, or those of a network that was trained here."""
        found = {*RUNS.glob("*/model.safetensors"), *(f / "model.safetensors" for f in self.folders)}
        trained = {str(path.parent): str(path) for path in sorted(found) if path.exists()}
        if not trained:
            return []
        say(f"Networks: {', '.join([SHIPPED, *trained])}")
        name = ask("Which network?", SHIPPED, one_of([SHIPPED, *trained]))
        return ["--weights", trained[name]] if name in trained else []


def option(name: str, value: str, default: str) -> list[str]:
    """An option of a command, left out where it says what holds without it."""
    return [] if value == default else [name, value]


def folder_for_a_run(answer: str) -> Path:
    folder = Path(answer).expanduser()
    if what := taken(folder):
        raise ValueError(f"{folder} holds {what}: say another folder")
    return writable_folder(folder)


def taken(folder: Path) -> str:
    """What a folder holds that a new run must not write over; "" where nothing."""
    if is_unfinished(folder):
        return "a run that was stopped"
    return "a trained network" if (folder / "model.safetensors").exists() else ""


def free_folder(recipe: str) -> Path:
    """RUNS/nano, or RUNS/nano-2 where that is taken, and so on."""
    names = itertools.chain([recipe], (f"{recipe}-{i}" for i in itertools.count(2)))
    return next(RUNS / name for name in names if not taken(RUNS / name))


def going_on(runs: list[Unfinished], answer: str) -> list[str]:
    """The words of the command that goes on with the run of that number, or in that folder."""
    for i, run in enumerate(runs, 1):
        if answer in (str(i), str(run.folder)):
            if run.words is None:
                raise ValueError(run.why)
            return run.words
    raise ValueError(f"choose one of {', '.join(str(i) for i in range(1, len(runs) + 1))}, got {answer!r}")
