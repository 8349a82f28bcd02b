"""The resumable state of a run: two files, each written whole and verified when it is read."""

import contextlib
import hashlib
import io
import os
import pickle
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files import write_whole

FILES = ("run.state", "run.state.before")  # the newest state, and the one before it
DIGEST = 64  # letters of sha256 that each file begins with


class Damaged(ValueError):
    """A file that does not hold what was written."""


def save_state(folder: Path, state: dict) -> None:
    """Writes the newest state and keeps the one before: whenever the process dies, there is at least one.

    state: tensors, numbers, strings, and dicts, lists and tuples of these.
    """
    content = io.BytesIO()
    torch.save(state, content)
    newest, before = (folder / name for name in FILES)
    if newest.exists():
        os.replace(newest, before)
    write_whole(newest, hashlib.sha256(content.getbuffer()).hexdigest().encode() + content.getbuffer())


def load_state(folder: Path) -> dict:
    """The latest good state in the folder, its tensors on the CPU; empty if no run was interrupted there.

    Raises Damaged, a ValueError, if there are states and none is good.
    """
    errors = []
    for path in (folder / name for name in FILES):
        if path.exists():
            try:
                return read_state(path)
            except Damaged as error:
                errors.append(str(error))
    if errors:
        raise Damaged(f"{'; '.join(errors)}: begin anew with fresh=True (--fresh), or in another folder")
    return {}


def read_state(path: Path) -> dict:
    """What save_state wrote; no code in it is run. Raises Damaged for a file that was cut or changed."""
    written, reason = path.read_bytes(), "its sha256 differs"
    if hashlib.sha256(written[DIGEST:]).hexdigest().encode() == written[:DIGEST]:
        try:
            return torch.load(io.BytesIO(written[DIGEST:]), map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error)
    raise Damaged(f"{path} is not a state as this program writes it ({reason})")


def clear_state(folder: Path) -> None:
    """Removes the states of a run, and files that were half written when a process was killed."""
    for pattern in (*FILES, f"{FILES[0]}.????????", "model.safetensors.????????"):  # names of mkstemp
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Locks the folder for one run. Raises ValueError while another one has locked it."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / "run.lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(
            f"another run is active in {folder}: wait for it, or train in another folder (--out)"
        ) from None


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

    def __str__(self) -> str:
        return f"epoch {self.epoch}, step {self.steps}, {self.minutes:.1f} minutes, {min(self.progress, 1):.0%} done"


def shell_command(words: Iterable[str], processes: int = 1) -> str:
    """The command of these words as one types it."""
    launcher = ["torchrun", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    return shlex.join([*launcher, "tinyddpm", *words])


def is_unfinished(folder: Path) -> bool:
    return any((folder / name).exists() for name in FILES)


def resume_command(folder: Path) -> tuple[str, list[str]]:
    """How far the interrupted run in a folder has come, and the words, after "tinyddpm", that resume it. Raises
    ValueError where no command does, and says what does."""
    state = load_state(folder)
    words, processes = list(state["command"]), state["settings"]["processes"]
    if not any(Path(word.removeprefix("--out=")) == folder for word in words):
        words += ["--out", str(folder)]
    if not state["command"] or processes > 1:
        how = shell_command(words, processes) if state["command"] else "the same call of train(), as it began in Python"
        raise ValueError(f"the run in {folder} is resumed by {how}")
    return str(Position(**state["position"])), words
