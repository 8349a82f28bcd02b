"""The state of a run, so that it can go on: one file, written whole and checked whole."""

import hashlib
import json
import os
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from ..files import write_whole

FILES = ("run.state", "run.state.before")  # the newest, and the one before it
FORMAT = "tinyddpm run 1"


class Damaged(ValueError):
    """A file that does not hold what was written."""


def save_state(folder: Path, counters: dict, tensors: dict[str, Tensor]) -> None:
    """Writes the newest state and keeps the one before. At no moment is there none.

    The file is the sha256 of what follows, in 64 letters, and a safetensors file.
    """
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    content = save(tensors, {"format": FORMAT, "counters": json.dumps(counters)})
    newest, before = (folder / name for name in FILES)
    if newest.exists():
        os.replace(newest, before)
    write_whole(newest, hashlib.sha256(content).hexdigest().encode() + content)


def load_state(folder: Path) -> tuple[dict, dict[str, Tensor]] | None:
    """Counters and tensors of the latest good state in the folder, or None where there never was one.

    Raises Damaged, a ValueError, where there are states and none is good.
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
    return None


def read_state(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """What save_state wrote. Nothing is unpickled. Raises Damaged for a file that was cut or changed."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    written = path.read_bytes()
    digest, content = written[:64], written[64:]
    if hashlib.sha256(content).hexdigest().encode() != digest:
        raise Damaged(f"{path} is not as it was written (another sha256)")
    try:
        length = int.from_bytes(content[:8], "little")
        metadata = json.loads(content[8 : 8 + length])["__metadata__"]
        if metadata["format"] != FORMAT:
            raise Damaged(f"{path} has the format {metadata['format']!r}, not {FORMAT!r}")
        return json.loads(metadata["counters"]), load(content)
    except (SafetensorError, KeyError, ValueError) as error:
        raise Damaged(f"{path} holds no state of a run ({error})") from error


def clear_state(folder: Path) -> None:
    """Removes the states of a run, and what was half written when a process was killed."""
    for pattern in (*FILES, f"{FILES[0]}.????????", "model.safetensors.????????"):  # names of mkstemp
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def differences(before: dict, now: dict) -> str:
    """What two dicts of settings do not share, for people: 'batch_size 64 -> 32, seed 0 -> 1'."""
    before, now = (json.loads(json.dumps(settings)) for settings in (before, now))  # lists for tuples
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name)} -> {now.get(name)}" for name in names)


def flat(model: nn.Module, average: nn.Module, optimizers: list[Optimizer]) -> dict[str, Tensor]:
    """Weights, averaged weights and what the optimizers remember, each tensor under a name of its own."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for k, optimizer in enumerate(optimizers):
        for i, memory in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer {k}.{i}.{name}": tensor for name, tensor in memory.items()}
    return tensors


def unflat(tensors: dict[str, Tensor], model: nn.Module, average: nn.Module, optimizers: list[Optimizer]) -> None:
    """Puts back what `flat` took. Raises Damaged for tensors of other networks or optimizers."""
    try:
        for prefix, network in (("model.", model), ("average.", average)):
            weights = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            network.load_state_dict(weights)
        for k, optimizer in enumerate(optimizers):
            memories: dict[int, dict] = {}
            for name, tensor in tensors.items():
                if name.startswith(prefix := f"optimizer {k}."):
                    i, _, which = name.removeprefix(prefix).partition(".")
                    memories.setdefault(int(i), {})[which] = tensor
            optimizer.load_state_dict({**optimizer.state_dict(), "state": memories})
    except (RuntimeError, ValueError) as error:
        raise Damaged(f"the state is of another network: {error}") from error
