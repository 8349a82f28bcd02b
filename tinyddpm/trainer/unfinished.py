"""Runs that were stopped: how far each has come, and the command that goes on with it."""

import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .state import FILES, load_state


@dataclass(frozen=True)
class Unfinished:
    """A folder with a run that was stopped.

    stands  how far it has come, for people
    words   of the command that goes on with it, after "tinyddpm"; None where there is none
    why     there is none, and what to do instead
    """

    folder: Path
    stands: str
    words: list[str] | None = None
    why: str = ""


def typed(words: Iterable[str], processes: int = 1) -> str:
    """The command of these words as a person types it."""
    launcher = ["torchrun", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    return shlex.join([*launcher, "tinyddpm", *words])


def unfinished_runs(folders: Iterable[Path]) -> list[Unfinished]:
    """Those of the folders that hold a run which was stopped, by name."""
    return [look(folder) for folder in sorted(set(folders)) if is_unfinished(folder)]


def is_unfinished(folder: Path) -> bool:
    return any((folder / name).exists() for name in FILES)


def look(folder: Path) -> Unfinished:
    """What the state in a folder says of its run."""
    try:
        counters, _ = load_state(folder)
    except (ValueError, OSError) as error:
        return Unfinished(folder, "damaged", why=str(error))
    stands = f"step {counters['steps']}, {counters['minutes']:.1f} minutes, {counters['progress']:.0%} done"
    words = list(counters.get("command", ()))
    if not words:
        why = f"the run in {folder} began in Python: go on with the call of train() that began it"
        return Unfinished(folder, stands, why=why)
    if not any(Path(word.removeprefix("--out=")) == folder for word in words):
        words += ["--out", str(folder)]
    if (processes := counters["settings"]["processes"]) > 1:
        why = f"this run has {processes} processes, go on with: {typed(words, processes)}"
        return Unfinished(folder, stands, why=why)
    return Unfinished(folder, stands, words)
