"""Where the work is done: the devices that this machine has."""

import torch


def find_device(name: torch.device | str = "cpu") -> torch.device:
    """The device of that name. Raises ValueError for one that this machine lacks, with those it has."""
    there = ["cpu"]
    there += ["cuda"] if torch.cuda.is_available() else []
    there += ["mps"] if torch.backends.mps.is_available() else []
    if str(name).split(":")[0] not in there:
        raise ValueError(f"there is no device {str(name)!r} here: choose one of {', '.join(there)}")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= (n := torch.cuda.device_count()):
        raise ValueError(f"there is no {device} here: the GPUs are cuda:0 to cuda:{n - 1}")
    return device


def fastest_device() -> str:
    """The kind of device to train on where none is asked for."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"
