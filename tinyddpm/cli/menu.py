"""`tinyddpm` alone, on a terminal: asks what to do, prints the command that does it, and runs it."""

import contextlib
import itertools
import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import questionary
from questionary import Choice

from ..trainer.recipes import RECIPES
from ..trainer.state import is_unfinished, resume_command
from .options import DIGIT
from .terminal import images_in_a_row

RUNS = Path("runs")
Words = list[str]
ACTIONS = {
    "draw": "digits, here in the terminal",
    "gif": "digits on their way from noise",
    "write": "many digits in one handwriting, into a picture",
    "train": "a network of your own",
    "resume": "a training run that was interrupted",
    "quit": "",
}
DIGITS, NUMBER, SCALE = "[0-9]+", "[1-9][0-9]*", r"[0-9]*\.?[0-9]+"


class Back(Exception):
    """The answer to a question was "back"."""


def menu(run: Callable[[Words], int]) -> int:
    """Asks and runs until "quit", or Ctrl-C at a question. Returns 0, or 128 + SIGTERM after one. `run` takes the words
    of a command after "tinyddpm" and returns its exit status."""
    print('tinyddpm draws handwritten digits out of noise. "back" at a question leads back here, Ctrl-C out.\n')
    questions, status = Questions(), 0
    choices = [Choice(f"{name:8}{what}", name, shortcut_key=name[0]) for name, what in ACTIONS.items()]
    with contextlib.suppress(KeyboardInterrupt, EOFError):
        while status != 128 + signal.SIGTERM:
            action = questionary.select("What next?", choices, use_shortcuts=True).unsafe_ask()
            if action == "quit":
                break
            try:
                words = getattr(questions, action)()
                print(f"\n$ {shlex.join(['tinyddpm', *words])}\n", flush=True)
                status = run(words)
            except Back:
                pass
            except (ValueError, OSError) as error:
                print(f"  {error}")
            print()
    print("Goodbye.")
    return status if status == 128 + signal.SIGTERM else 0


class Questions:
    """The questions before each command. Each method returns the words of its command."""

    def __init__(self):
        self.drawn = 0  # digits so far: the next ones have other seeds
        self.folders: set[Path] = set()  # trained in, maybe outside of RUNS

    def draw(self) -> Words:
        digits = ask("Which digits?", "7", DIGITS)
        each = ask("How many of each?", str(images_in_a_row(DIGIT)), NUMBER)
        scale = ask("Guidance scale?", "1", SCALE)
        words = ["sample", "--show", "--digits", digits, "--per-digit", each, "--scale", scale, *self.network()]
        out = ask("Into a file, too? (x.png or x.npz)", "no", r"no|.+\.(png|npz)")
        words += [*(["--out", out] if out != "no" else []), "--seed", str(self.drawn)]
        self.drawn += len(digits) * int(each)
        return words

    def gif(self) -> Words:
        digits, scale = ask("Which digits?", "0123456789", DIGITS), ask("Guidance scale?", "1.5", SCALE)
        network = self.network()
        return ["gif", "--digits", digits, "--scale", scale, *network, "--out", ask("Into which folder?", "gifs", ".+")]

    def write(self) -> Words:
        text = ask("Which digits and blanks?", "2026 11 21", "[0-9 ]*[0-9][0-9 ]*")
        words = ["write", text, "--scale", ask("Guidance scale?", "2", SCALE), *self.network()]
        words += ["--out", ask("Into which file? (x.png or x.gif)", "strip.png", r".+\.(png|gif)")]
        self.drawn += 1
        return [*words, "--seed", str(self.drawn - 1)]

    def train(self) -> Words:
        recipe = choose("Which recipe?", [Choice(name, name) for name in RECIPES], "nano")
        length = ask("How many epochs or minutes?", f"{RECIPES[recipe].epochs:g} epochs", SCALE + " *(e|m)[a-z]*")
        number, unit = re.findall(SCALE, length)[0], "--minutes" if "m" in length else "--epochs"
        out = ask("Into which folder?", str(free_folder(recipe)), ".+")
        self.folders.add(Path(out))
        return ["train", "--recipe", recipe, unit, number, "--out", out]

    def resume(self) -> Words:
        runs = [run_choice(folder) for folder in sorted({*RUNS.glob("*"), *self.folders}) if is_unfinished(folder)]
        if all(run.disabled for run in runs):
            raise ValueError("\n  ".join(["there is no run to resume", *(str(run.disabled) for run in runs)]))
        return choose("Which run?", runs)

    def network(self) -> Words:
        """The option for other weights than the shipped ones, if any were trained here."""
        paths = {folder / "model.safetensors" for folder in {*RUNS.glob("*"), *self.folders}}
        trained = [Choice(str(path.parent), ["--weights", str(path)]) for path in sorted(paths) if path.exists()]
        return choose("Which network?", [Choice("shipped", []), *trained]) if trained else []


def run_choice(folder: Path) -> Choice:
    """The interrupted run in a folder, with the words that resume it; it cannot be chosen if there are none."""
    try:
        found, words = resume_command(folder)
    except (ValueError, OSError) as error:
        found, words = str(error), []
    return Choice(f"{folder}  {found}" if words else str(folder), words, None if words else found)


def choose(question: str, choices: list[Choice], default: str | None = None):
    """The value of a choice."""
    return answered(questionary.select(question, [*choices, Choice("back", "back")], default=default).unsafe_ask())


def ask(question: str, default: str, pattern: str) -> str:
    """An answer that matches the pattern; the default if it is empty."""

    def check(answer: str) -> bool | str:
        return bool(re.fullmatch(f"({pattern})|back|", answer.strip())) or f"expected an answer such as {default}"

    answer = questionary.text(question, validate=check, placeholder=default).unsafe_ask().strip()
    return os.path.expanduser(answered(answer or default))


def answered(answer):
    if answer == "back":
        raise Back
    return answer


def free_folder(recipe: str) -> Path:
    """RUNS/nano, or RUNS/nano-2 and so on if that holds a network or an interrupted run."""
    folders = (RUNS / name for name in itertools.chain([recipe], (f"{recipe}-{i}" for i in itertools.count(2))))
    return next(f for f in folders if not is_unfinished(f) and not (f / "model.safetensors").exists())
