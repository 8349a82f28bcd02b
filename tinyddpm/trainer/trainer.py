"""Training, from what to train to the weights. What to train, the recipes say."""

import atexit
import contextlib
import gc
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch.utils.data import Dataset, TensorDataset

from ..data import mnist
from ..datasets.own import as_data
from ..files import writable_folder
from ..pipeline import DDPM, fastest_device, find_device
from .interrupt import Interrupts
from .loop import Loop
from .recipes import Recipe, get_recipe

PRECISIONS = ("no", "bf16", "fp16")


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
    accumulate: int = 1,
    tensorboard: bool = False,
    command: Sequence[str] = (),
) -> DDPM:
    """Trains a network on images with labels and returns it with its averaged weights.

    After each epoch, out/model.safetensors and out/samples/epoch_001.png are written, the samples of all
    epochs as out/progress.gif; on the way, the figures in out/log.csv and as a plot in out/log.png. A run
    that was interrupted goes on from its last saved state when it is called again: on a CPU with the same
    weights, bit for bit, as one that was not.

    data       items (image (c, h, w) in [-1, 1], label), as load_data and as_data of tinyddpm.datasets
               make them; MNIST where None
    epochs     how often to see all of it; the recipe's number where None
    minutes    stop by the clock instead: the learning rate then falls by the clock, too
    device     "cpu", "cuda" or "mps"; the fastest there is where None
    precision  "no" (float32), or "bf16" or "fp16" where the device has it
    compile    through torch.compile: slow to start, then faster
    fresh      begin anew where the folder holds a run
    accumulate   parts in which each batch goes through the network: the same steps in less memory
    tensorboard  write the figures to out/tensorboard, too
    command      the words of a command that goes on with it, kept with the state

    Raises ValueError before any work for a recipe, device or precision that does not exist, for epochs and
    minutes at once, for data of less than a batch or of other channels or labels than the recipe's, for an
    output folder that cannot be written, that holds a finished or another run, or in which another run is at
    work; later for a loss that is not finite and for a disk that is full. Raises Interrupted, a
    KeyboardInterrupt, after Ctrl-C or SIGTERM.
    """
    recipe = get_recipe(recipe)
    if epochs is not None and minutes is not None:
        raise ValueError(f"a run ends after epochs or after minutes, got both: {epochs} and {minutes}")
    if epochs is not None and not 0 < epochs < math.inf:
        raise ValueError(f"a run needs at least one step and an end, got {epochs} epochs")
    out = writable_folder(out)
    writable_folder(out / "samples")
    accelerator = make_accelerator(device, precision, compile, out if tensorboard else None)
    processes = accelerator.num_processes
    if minutes is not None and processes > 1:
        raise ValueError("minutes are for one process, since each has its own clock: give epochs instead")
    if not 1 <= accumulate <= recipe.batch_size:
        raise ValueError(f"a batch of {recipe.batch_size} goes in 1 to as many parts, got {accumulate}")
    data = mnist(size=recipe.image_size) if data is None else data
    if isinstance(data, TensorDataset):  # at no cost: all of it is looked at, and uint8 is converted
        data = as_data(data)
    recipe.check_labels(data)
    if len(data) < recipe.batch_size * processes:
        raise ValueError(
            f"the recipe's batch is {recipe.batch_size} images for each of {processes} processes, but the "
            f"data has {len(data)}: take more data or a recipe of smaller batches"
        )
    with alone(out, accelerator.is_main_process), Interrupts() as interrupts:
        loop = Loop(recipe, data, out, epochs, minutes, seed, accelerator, accumulate)
        loop.command = list(command)
        loop.take_up(fresh)
        ddpm = loop.through(interrupts)
        for tracker in accelerator.trackers:  # end_training would end the group of processes, too
            tracker.finish()
        return ddpm


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
        raise ValueError(f"another run is at work in {out}: wait for it, or train in another folder (--out)") from None
    try:
        yield
    finally:
        lock.release()


def make_accelerator(device: str | None, precision: str, compile: bool, tensorboard: Path | None = None):
    """accelerate's Accelerator: where to train, how precisely, and with how many processes; and where to
    write for TensorBoard."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import DistributedDataParallelKwargs, is_tensorboard_available

    if tensorboard is not None and not is_tensorboard_available():
        raise ValueError("logging to TensorBoard needs its package: pip install tensorboard")
    check_precision(precision, find_device(device or "cpu").type if device else fastest_device())
    # one process may train twice, differently, but accelerate remembers the first time
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    how = {"mixed_precision": precision, "cpu": device == "cpu"}
    how |= {"dynamo_backend": "inductor" if compile else "no"}
    # the buffers are constants: to send them around at every step would cost for nothing
    ours = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    how["kwargs_handlers"] = [ours]
    if tensorboard is not None:
        how |= {"log_with": "tensorboard", "project_dir": tensorboard}
    others = torch.distributed.is_initialized()  # somebody else began the processes, and ends them
    accelerator = Accelerator(**how)
    if torch.distributed.is_initialized() and not others:
        atexit.register(end_processes)
    if device not in (None, accelerator.device.type):
        raise ValueError(
            f"training can be asked for on {accelerator.device.type} or cpu here, got {device!r}: choose "
            "among several GPUs with CUDA_VISIBLE_DEVICES"
        )
    if tensorboard is not None:
        accelerator.init_trackers("tensorboard")
    return accelerator


def end_processes() -> None:
    """Ends the group of processes, and its threads with it, which only what the network was wrapped in still
    holds on to: a thread that lets go of a tensor while Python ends would abort the process.

    Registered to run at exit, since a group that is ended after each run could not train again.
    """
    if torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()


def check_precision(precision: str, device: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    there = ["no"]
    if device == "cpu" or device == "cuda" and torch.cuda.is_bf16_supported():
        there.append("bf16")
    if device == "cuda":  # half precision elsewhere is slow, or has no scaler for its gradients
        there.append("fp16")
    if precision not in there:
        raise ValueError(f"{device} here has no {precision} for training: choose {' or '.join(there)}")
