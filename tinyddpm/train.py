"""Training, from what to train to the weights. What to train, the recipes say."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset

from .data import mnist, writable_folder
from .device import find_device
from .interrupt import Interrupts
from .pipeline import DDPM
from .recipes import Recipe, get_recipe
from .run import Run

PRECISIONS = ("no", "bf16")


def train(
    recipe: Recipe | str = "tiny",
    out: str | Path = "runs/tiny",
    data: Dataset | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: str = "no",
    compile: bool = False,
    fresh: bool = False,
    command: Sequence[str] = (),
) -> DDPM:
    """Trains a network on images with labels and returns it with its averaged weights.

    After each epoch, out/model.safetensors and out/samples/epoch_001.png are written. A run that was
    interrupted goes on from its last saved state when it is called again: on a CPU with the same weights,
    bit for bit, as one that was not.

    data       items (image (c, h, w) in [-1, 1], label); MNIST where None
    epochs     how often to see all of it; the recipe's number where None
    minutes    stop by the clock instead: the learning rate then falls by the clock, too
    device     "cpu", "cuda" or "mps"; the fastest there is where None
    precision  "no" (float32) or "bf16" where the device has it
    compile    through torch.compile: slow to start, then faster
    fresh      begin anew where the folder holds a run
    command    the words of a command that goes on with it, kept with the state

    Raises ValueError before any work for a recipe, device or precision that does not exist, for epochs and
    minutes at once, for data of less than a batch, for an output folder that cannot be written, that
    holds a finished or another run, or in which another run is at work; later for a loss that is not finite
    and for a disk that is full. Raises Interrupted, a KeyboardInterrupt, after Ctrl-C or SIGTERM.
    """
    recipe = get_recipe(recipe)
    if epochs is not None and minutes is not None:
        raise ValueError(f"a run ends after epochs or after minutes, got both: {epochs} and {minutes}")
    if epochs is not None and not 0 < epochs < math.inf:
        raise ValueError(f"a run needs at least one step and an end, got {epochs} epochs")
    out = writable_folder(out)
    writable_folder(out / "samples")
    accelerator = make_accelerator(device, precision, compile)
    processes = accelerator.num_processes
    if minutes is not None and processes > 1:
        raise ValueError("minutes are for one process, since each has its own clock: give epochs instead")
    data = mnist(size=recipe.image_size) if data is None else data
    if len(data) < recipe.batch_size * processes:
        raise ValueError(
            f"the recipe's batch is {recipe.batch_size} images for each of {processes} processes, but the "
            f"data has {len(data)}: take more data or a recipe of smaller batches"
        )
    with alone(out, accelerator.is_main_process), Interrupts() as interrupts:
        run = Run(recipe, data, out, epochs, minutes, seed, accelerator)
        run.command = list(command)
        run.take_up(fresh)
        return run.through(interrupts)


@contextlib.contextmanager
def alone(out: Path, main: bool) -> Iterator[None]:
    """Holds the folder for one run. Raises ValueError where another, living one holds it."""
    from filelock import FileLock, Timeout

    if not main:
        yield
        return
    lock = FileLock(out / "run.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"another run is at work in {out}: wait for it, or train in another folder (--out)"
        ) from None
    try:
        yield
    finally:
        lock.release()


def make_accelerator(device: str | None, precision: str, compile: bool):
    """accelerate's Accelerator: where to train, how precisely, and with how many processes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    find_device(device or "cpu")
    # one process may train twice, differently, but accelerate remembers the first time
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    backend = "inductor" if compile else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=device == "cpu", dynamo_backend=backend)
    if device not in (None, accelerator.device.type):
        raise ValueError(
            f"training can be asked for on {accelerator.device.type} or cpu here, got {device!r}: choose "
            "among several GPUs with CUDA_VISIBLE_DEVICES"
        )
    return accelerator
