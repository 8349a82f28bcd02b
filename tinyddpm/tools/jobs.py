"""Long computations: the packages that they need, the folder that is theirs alone, and how far they have come."""

import contextlib
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

MINUTE = 60.0  # seconds
LINE = "{desc}: {n_fmt} of {total_fmt} in {elapsed}, {remaining} left"


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
    print(text, file=sys.stderr, flush=True)


class Lines:
    """A file for tqdm that begins a new line where a bar would be drawn again."""

    def write(self, text: str) -> None:
        if text.strip():
            say(text.strip())

    def flush(self) -> None: ...


def progress(items: Iterable, what: str, total: int | None = None) -> tqdm:
    """The items, under a bar that vanishes at the end; where stderr is no terminal, a line a minute."""
    if sys.stderr and sys.stderr.isatty():
        return tqdm(items, what, total, leave=False)
    slow = {"delay": MINUTE, "mininterval": MINUTE, "miniters": 1}
    return tqdm(items, what, total, leave=False, file=Lines(), bar_format=LINE, **slow)
