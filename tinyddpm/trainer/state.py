"""The resumable state of a run: two files, each written whole and verified when it is read."""

import contextlib
import hashlib
import io
import operator
import os
import pickle
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files import TEMPORARY, writable_folder, write_whole
from ..schedules import require

FILES = ("run.state", "run.state.before")  # the newest state, and the one before it
DIGEST = 64  # letters of sha256 that each file begins with


def save_state(folder: Path, state: dict) -> None:
    """Writes the newest state, of tensors, numbers, strings, and dicts, lists and tuples of these, and keeps the one
    before: whenever the process dies, there is at least one. A damaged one is not kept in the place of a good one."""
    torch.save(state, content := io.BytesIO())
    newest, before = (folder / name for name in FILES)
    following = folder / f"{TEMPORARY}{FILES[0]}"
    write_whole(following, sha256(content.getvalue()) + content.getvalue())
    if newest.exists() and is_whole(newest.read_bytes()):
        os.replace(newest, before)
    os.replace(following, newest)


def load_state(folder: Path) -> dict:
    """The latest good state in the folder, its tensors on the CPU; empty if no run was interrupted there. No code in it
    is run. Raises ValueError if there are states and all were cut or changed."""
    errors = []
    for path in filter(Path.exists, (folder / name for name in FILES)):
        written, reason = path.read_bytes(), "its sha256 differs"
        try:
            if is_whole(written):
                return dict(torch.load(io.BytesIO(written[DIGEST:]), map_location="cpu", weights_only=True))
        except pickle.UnpicklingError:
            reason = "it holds Python objects, as tinyddpm 0.1 wrote them, and they are never run"
        except Exception as error:  # what is not a state fails in many ways
            reason = str(error).splitlines()[0]
        errors.append(f"{path} is not a state as this program writes it ({reason})")
    if errors:
        raise ValueError(f"{'; '.join(errors)}: begin anew with fresh=True (--fresh), or in another folder")
    return {}


def sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def is_whole(written: bytes) -> bool:
    return sha256(written[DIGEST:]) == written[:DIGEST]


def clear_state(folder: Path) -> None:
    """Removes the states of a run, and files that were half written when a process was killed."""
    writable_folder(folder, 0)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def differences(before: dict, now: dict) -> str:
    """Which settings differ, for people: "batch_size 64 -> 32, seed 0 -> 1"."""
    before, now = ({**settings, **settings.get("arguments", {}), "arguments": None} for settings in (before, now))
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in names)


@dataclass
class Position:
    """How far a run has come."""

    steps: int = 0
    epoch: int = 1
    batch: int = 0  # steps of this epoch
    progress: float = 0.0  # from 0 to 1
    minutes: float = 0.0

    def __post_init__(self):  # as a state may hold anything
        self.progress, self.minutes = float(self.progress), float(self.minutes)
        require(min(map(operator.index, (self.steps, self.epoch, self.batch))) >= 0, "no count is negative", self)

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.steps}, {self.minutes:.1f} minutes, {min(self.progress, 1):.0%} done"


def shell_command(words: Iterable[str], processes: int = 1) -> str:
    """The command of these words as one types it."""
    launcher = ["torchrun", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    return shlex.join([*launcher, "tinyddpm", *words])


def is_unfinished(folder: Path) -> bool:
    return any((folder / name).exists() for name in FILES)


def resume_command(folder: Path) -> tuple[str, list[str]]:
    """How far the interrupted run in a folder has come, and the words, after "tinyddpm", that resume it: none where no
    such command does, and then the first answer says what does. Raises ValueError for a state that cannot be read."""
    state = load_state(folder)
    with expected(folder):
        position, words = Position(**state["position"]), [str(word) for word in state["command"]]
        processes = state["settings"]["processes"]
    if not words:
        return f"{position}: resumed by the same call of train(), as it began in Python", []
    if not any(Path(word.removeprefix("--out=")) == folder for word in words):
        words += ["--out", str(folder)]
    if processes > 1:
        return f"{position}: resumed by {shell_command(words, processes)}", []
    return str(position), words


@contextlib.contextmanager
def expected(folder: Path) -> Iterator[None]:
    """Raises ValueError where a state does not hold what a Trainer saves."""
    try:
        yield
    except (ArithmeticError, AttributeError, KeyError, TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"the state in {folder} is of another program ({error}): begin anew (--fresh)") from error
