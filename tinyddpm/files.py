"""Files that ship with the package, files that are written whole or not at all, and checkpoints."""

import contextlib
import hashlib
import json
import os
import secrets
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

FORMAT, DIGEST = "tinyddpm", "sha256"
TEMPORARY = ".tinyddpm-"  # how the names of half written files begin


def asset(name: str) -> Path:
    """A file that ships with the package: inside it when installed, beside it in a checkout."""
    for folder in Path(__file__).parents[:2]:
        if (folder / "assets" / name).exists():
            return folder / "assets" / name
    raise FileNotFoundError(f"{name} should ship with tinyddpm but is missing: reinstall the package")


def write_whole(path: str | Path, content: bytes) -> None:
    """Writes a file atomically: a flushed copy, renamed. Raises OSError with its name, and leaves what was there."""
    temporary = Path(path).parent / f"{TEMPORARY}{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        with contextlib.suppress(OSError):  # not every system lets a folder be flushed
            os.fsync(folder := os.open(temporary.parent, os.O_RDONLY))
            os.close(folder)
    except OSError as error:
        raise OSError(*error.args[:2], str(path)) from error
    finally:
        temporary.unlink(missing_ok=True)


def writable_folder(path: str | Path, seconds: float = 3600) -> Path:
    """Creates the folder and writes to it once, so that a full or read-only disk raises ValueError before the work.
    Removes what write_whole left there when a process was killed, if it is that many seconds old."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            for left in Path(path).glob(f"{TEMPORARY}*"):
                with contextlib.suppress(FileNotFoundError):  # another process was faster
                    if time.time() - left.stat().st_mtime >= seconds:
                        left.unlink()
            return Path(path)
    except OSError as error:
        raise ValueError(f"cannot write to the folder {path} ({error}): choose another") from error


def digest(description: dict[str, str], tensors: dict[str, Tensor]) -> str:
    """The sha256 of a description and of the names, types, shapes and values of tensors."""
    total = hashlib.sha256(json.dumps(description, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        total.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        total.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


def write_checkpoint(path: str | Path, version: int, description: dict, tensors: dict[str, Tensor]) -> None:
    """Writes one .safetensors file, its description as metadata. Raises ValueError for a read-only folder."""
    from safetensors.torch import save

    metadata = {"format": FORMAT, "format_version": version, **description, DIGEST: ""}
    written = {key: json.dumps(value) for key, value in metadata.items()}
    content = save(tensors, written | {DIGEST: json.dumps(digest(written, tensors))})
    write_whole(writable_folder(Path(path).parent) / Path(path).name, content)


def read_checkpoint(path: str | Path, newest: int) -> tuple[dict, dict[str, Tensor]]:
    """Description and tensors of a file that write_checkpoint wrote, in any version up to `newest`, of which version 1
    may have no digest. Raises ValueError for a file that is missing, damaged, of another format, or not finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    if not Path(path).is_file():
        raise ValueError(f"there is no checkpoint {path}: `tinyddpm train` writes one")
    try:
        content = Path(path).read_bytes()  # a mapped file that is cut while it is read would end the process
        tensors, header = load(content), content[8 : 8 + int.from_bytes(content[:8], "little")]
        written = json.loads(header).get("__metadata__") or {}
        metadata = {key: json.loads(value) for key, value in written.items()}
        bare = (version := metadata.get("format_version")) not in range(2, newest + 1) and DIGEST not in metadata
        same = bare or metadata.pop(DIGEST, None) == digest(written | {DIGEST: json.dumps("")}, tensors)
        if not same or not all(value.sum(dtype=torch.float64).isfinite() for value in tensors.values()):
            raise ValueError("it holds NaN or infinite values" if same else "its sha256 differs or is missing")
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is cut off, damaged or of another format ({error}): get or train it again") from error
    if metadata.get("format") != FORMAT or version not in range(1, newest + 1):
        found = f"format {metadata.get('format')} {version}, and this tinyddpm reads {FORMAT} 1 to {newest}"
        raise ValueError(f"{path} has {found}: use the tinyddpm that wrote it, or save it again with this one")
    return metadata, tensors
