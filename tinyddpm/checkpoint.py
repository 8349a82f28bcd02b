"""The file that weights are shared in: safetensors, with all that rebuilds the model as its metadata."""

import json
from pathlib import Path

from torch import Tensor

from .data import writable_folder, write_whole

FORMAT, FORMAT_VERSION = "tinyddpm", 1


def write_checkpoint(path: Path, description: dict, tensors: dict[str, Tensor]) -> None:
    """Writes the file as a whole. Raises ValueError for a folder that cannot be written."""
    from safetensors.torch import save

    metadata = {"format": FORMAT, "format_version": FORMAT_VERSION, **description}
    content = save(tensors, {key: json.dumps(value) for key, value in metadata.items()})
    write_whole(writable_folder(path.parent) / path.name, content)


def read_checkpoint(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """Description and tensors of a file that write_checkpoint wrote. Nothing is unpickled.

    Raises ValueError for a file that is missing, cut off, or of another format or version.
    """
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(f"there is no checkpoint {path}: `tinyddpm train` writes one")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a whole .safetensors file ({error}): it was cut off, or is of another format; "
            "get or make it again"
        ) from error
    if metadata.get("format") != json.dumps(FORMAT):
        raise ValueError(f"{path} is a .safetensors file, but not one that tinyddpm's DDPM.save wrote")
    try:
        metadata = {key: json.loads(value) for key, value in metadata.items()}
    except json.JSONDecodeError as error:
        raise ValueError(f"the metadata of {path} is damaged ({error}): get or make it again") from error
    if metadata.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {metadata.get('format_version')} and this tinyddpm reads version "
            f"{FORMAT_VERSION}: use the tinyddpm that wrote it, or save it again with this one"
        )
    return metadata, tensors
