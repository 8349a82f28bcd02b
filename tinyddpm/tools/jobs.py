"""Long computations: the packages that they need, the folder that is theirs alone, and how far they have come."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

from tqdm import tqdm

MINUTE = 60.0  # seconds
LINE = "{desc}: {n_fmt} of {total_fmt} in {elapsed}, {remaining} left{postfix}"


class MissingExtra(ModuleNotFoundError, ValueError):
    """Packages are missing that an extra of tinyddpm installs."""


def needs(extra: str, what: str, *packages: str) -> None:
    """Raises MissingExtra, which names the extra, unless these packages are there."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise MissingExtra(f"{what} needs {' and '.join(missing)}: pip install 'tinyddpm[{extra}]'", name=missing[0])


@contextlib.contextmanager
def alone(folder: Path, advice: str) -> Iterator[None]:
    """Locks a folder. Raises ValueError, with advice, while another process has locked it."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / "run.lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another run is active in {folder}: wait for it, or {advice}") from None


def say(text: str) -> None:
    if text.strip():
        print(text.strip(), file=sys.stderr, flush=True)


def progress(items: Iterable, what: str, total: int | None = None, **more) -> tqdm:
    """The items, under a bar that vanishes at the end; where stderr is no terminal, a line a minute. `more` is for
    tqdm, such as initial=3 items before these."""
    if not (sys.stderr and sys.stderr.isatty()):
        out = SimpleNamespace(write=say, flush=lambda: None)  # a file: a new line where a bar is redrawn
        more |= {"delay": MINUTE, "mininterval": MINUTE, "miniters": 1, "file": out, "bar_format": LINE, "position": 0}
    return tqdm(items, what, total, leave=False, **more)


def count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
