"""A question in the terminal, and checks of its answer, which say what it may be."""

import math
import re
import shutil
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ..editing.strip import check_text
from ..files import writable_folder
from .art import STRIP_ENDINGS, file_of
from .commands import at_least_one, digits_of, picture_file

Answer = TypeVar("Answer")


class Back(Exception):
    """The answer to a question was that none of this is wanted."""


def ask(question: str, default: str, check: Callable[[str], Answer]) -> Answer:
    """What `check` makes of the answer. Asks again for as long as it raises a ValueError, and says it."""
    while True:
        answer = input(f"  {question:<33}[{default}] ").strip()
        if answer == "back":
            raise Back
        try:
            return check(answer or default)
        except ValueError as error:
            say(str(error), "  -> ")


def say(text: str, before: str = "  ") -> None:
    """Prints lines, each broken between words where the terminal ends."""
    how = {"initial_indent": before, "subsequent_indent": " " * len(before)}
    how |= {"break_on_hyphens": False, "break_long_words": False}  # names and folders stay whole
    for line in text.splitlines():
        print(textwrap.fill(line, max(40, shutil.get_terminal_size().columns), **how))


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """A check: one of the names, or so much of one that it can be no other."""

    def check(answer: str) -> str:
        begun = [name for name in names if name.lower().startswith(answer.lower())]
        if answer not in names and len(begun) != 1:
            raise ValueError(f"choose one of {', '.join(names)}, got {answer!r}")
        return answer if answer in names else begun[0]

    return check


def digits_in(answer: str) -> str:
    try:
        return answer if len(digits_of(answer)) else ""
    except ValueError:
        raise ValueError(f"say digits, such as 7 or 2026, got {answer!r}") from None


def text_to_write(answer: str) -> str:
    check_text(answer)
    return answer


def file_for_a_strip(answer: str) -> str:
    return str(file_of(str(Path(answer).expanduser()), *STRIP_ENDINGS))


def whole_number(answer: str) -> int:
    try:
        return at_least_one(int(answer), "this")
    except ValueError:
        raise ValueError(f"say a whole number of at least 1, got {answer!r}") from None


def from_0(answer: str) -> str:
    """A guidance scale as it is written in a command."""
    try:
        value = float(answer)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ValueError(
            "0 ignores which digit, 1 is the plain network, above 1 the digit counts for more: say a number, "
            f"got {answer!r}"
        )
    return f"{value:g}"


def epochs_or_minutes(answer: str) -> list[str]:
    """["--minutes", "10"] for "10 minutes" or "10 m"."""
    found = re.fullmatch(r"([0-9]+|[0-9]*\.[0-9]+) *([a-z]+)", answer.lower())
    units = [unit for unit in ("epochs", "minutes") if found and unit.startswith(found[2])]
    if not units or not float(found[1]) > 0:
        raise ValueError(f"say a number and its unit, such as 2 epochs or 10 minutes, got {answer!r}")
    return [f"--{units[0]}", f"{float(found[1]):g}"]


def picture_or_no(answer: str) -> str:
    if answer.lower() in ("n", "no"):
        return "no"
    path = picture_file(answer).expanduser()
    writable_folder(path.parent)
    return str(path)


def folder_for_files(answer: str) -> str:
    return str(writable_folder(Path(answer).expanduser()))
