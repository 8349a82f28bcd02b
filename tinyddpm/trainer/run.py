"""train: a run from its arguments to its network."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ..data import mnist
from ..datasets.own import as_data
from ..files import writable_folder
from ..pipeline import DDPM
from ..schedules import require
from ..tools.jobs import alone, needs
from .batches import Data, check_data
from .interrupt import Interrupts
from .processes import make_accelerator
from .recipes import Recipe, get_recipe
from .trainer import Trainer


def train(
    recipe: Recipe | str = "tiny",
    out: str | Path = "runs/tiny",
    data: Data | Tensor | np.ndarray | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: str = "auto",
    compile: bool = False,
    fresh: bool = False,
    accumulate: int = 1,
    tensorboard: bool = False,
    network: nn.Module | None = None,
    command: Sequence[str] = (),
    clock: Callable[[], float] = time.monotonic,
    save_every: float = 5.0,
    log_every: int = 50,
) -> DDPM:
    """Trains a network and returns it with its averaged weights.

    Each epoch writes out/model.safetensors, samples as out/samples/epoch_001.png, and those of all epochs as
    out/progress.gif; metrics go to out/log.csv and log.png. An interrupted run resumes from its last saved state when
    train is called again: on a CPU it ends with the same weights, bit for bit, as an uninterrupted one.

    recipe       a Recipe, or the name of one in RECIPES
    out          the folder of this run
    data         items (image (c, h, w) in [-1, 1], label), or images without labels as as_data takes them, to which
                 the recipe is suited; MNIST by default
    epochs       how often all of it is seen; the recipe's number by default
    minutes      stop by the clock instead; the learning rate then falls by the clock, too
    seed         of the weights, the order of the images, times, noise and dropped labels
    device       "cpu", "cuda" or "mps"; the fastest one by default
    precision    "no" (float32), "bf16", "fp16" (CUDA), or "auto": bf16 where the device computes in it natively, else
                 float32
    compile      through torch.compile: slow to start, then faster
    fresh        begin anew even if the folder holds a run
    accumulate   parts in which each batch goes through the network: the same steps in less memory
    tensorboard  also write the metrics to out/tensorboard
    network      of which a copy is trained instead of the recipe's U-Net; see tinyddpm.nn for what it needs
    command      the words of the shell command that resumes this run, saved with its state
    clock        of which the differences are seconds
    save_every   minutes between two saved states
    log_every    steps of a row of log.csv

    Raises ValueError before any work for: missing packages of the extra `train` (also a ModuleNotFoundError); an
    unknown recipe, device or precision; both epochs and minutes; a network without num_classes or arguments; data
    of less than a batch, or whose images or labels do not fit the network; a folder that cannot be written, that holds
    a finished or another run, or in which another run is active. Raises ValueError later for a loss that is not finite
    and for a full disk; and Interrupted, a KeyboardInterrupt, after Ctrl-C or SIGTERM.
    """
    needs("train", "training", "accelerate", "matplotlib")
    recipe = get_recipe(recipe)
    out = writable_folder(writable_folder(Path(out) / "samples").parent)
    accelerator = make_accelerator(device, precision, compile, out if tensorboard else None)
    if isinstance(data, (Tensor, np.ndarray)):
        data = as_data(torch.as_tensor(data))
        recipe = recipe.suited(data) if network is None else recipe
    data = mnist(size=recipe.image_size) if data is None else data
    data = as_data(data) if isinstance(data, TensorDataset) else data  # all of it is looked at, at no cost
    processes = accelerator.num_processes
    check_length(epochs, minutes, processes)
    check_data(data, recipe, network, accumulate, processes)
    lock = alone(out, "train in another folder (--out)") if accelerator.is_main_process else contextlib.nullcontext()
    with lock, Interrupts() as interrupts:
        how = network, epochs, minutes, seed, accumulate, command, clock, save_every, log_every
        trainer = Trainer(recipe, data, out, accelerator, *how)
        trainer.resume(fresh)
        ddpm = trainer.run(interrupts)
        for tracker in accelerator.trackers:  # end_training would end the group of processes, too
            tracker.finish()
        return ddpm


def check_length(epochs: float | None, minutes: float | None, processes: int) -> None:
    """Raises ValueError unless one of the two is given at most, above 0, and minutes to one process alone."""
    both = f"{epochs} epochs and {minutes} minutes: leave one out"
    require(None in (epochs, minutes), "expected epochs or minutes", both)
    unit, n = ("epochs", epochs) if minutes is None else ("minutes", minutes)
    require(n is None or 0 < n < math.inf, f"expected a number of {unit} above 0", f"{n or 0:g}")
    if minutes is not None:
        require(processes == 1, "minutes end a run of one process", f"{processes} processes: give epochs instead")
