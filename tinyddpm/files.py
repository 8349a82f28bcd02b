"""Files that ship with the package, files that are written whole or not at all, and checkpoints."""

import json
import os
import tempfile
from pathlib import Path

from torch import Tensor

FORMAT = "tinyddpm"


def asset(name: str) -> Path:
    """A file that ships with the package: inside it when installed, beside it in a checkout."""
    inside, beside = (folder / "assets" / name for folder in Path(__file__).parents[:2])
    return inside if inside.exists() else beside


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file atomically: to a temporary name, flushed, then renamed."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's 0o600 would hide the file from others
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def writable_folder(path: str | Path) -> Path:
    """Creates the folder and writes to it once, so that a full or read-only disk raises ValueError before the work."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return Path(path)
    except OSError as error:
        raise ValueError(f"cannot write to the folder {path} ({error}): choose another") from error


def write_checkpoint(path: str | Path, version: int, description: dict, tensors: dict[str, Tensor]) -> None:
    """Writes one .safetensors file, its description as metadata. Raises ValueError for a read-only folder."""
    from safetensors.torch import save

    metadata = {"format": FORMAT, "format_version": version, **description}
    content = save(tensors, {key: json.dumps(value) for key, value in metadata.items()})
    write_whole(writable_folder(Path(path).parent) / Path(path).name, content)


def read_checkpoint(path: str | Path, newest: int) -> tuple[dict, dict[str, Tensor]]:
    """Description and tensors of a file that write_checkpoint wrote, in any version up to `newest`; no unpickling.

    Raises ValueError for a file that is missing, cut off, or of another format or version.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise ValueError(f"there is no checkpoint {path}: `tinyddpm train` writes one")
    try:
        with safe_open(path, "pt") as file:
            metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is cut off, damaged or of another format ({error}): get or train it again") from error
    version = metadata.get("format_version")
    if metadata.get("format") != FORMAT or version not in range(1, newest + 1):
        raise ValueError(
            f"{path} has format {metadata.get('format')} {version}, and this tinyddpm reads {FORMAT} 1 to {newest}: "
            "use the tinyddpm that wrote it, or save it again with this one"
        )
    return metadata, tensors
