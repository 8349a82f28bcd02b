"""A resumable training run: tinyddpm.training.train_steps with saved states, samples, a log and several processes."""

import contextlib
import copy
import math
import random
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from tqdm import tqdm

from ..data import mnist
from ..datasets.own import as_data, refuse_grey
from ..files import writable_folder
from ..pipeline import DDPM
from ..schedules import Schedule
from ..training import EMA, train_steps
from ..viz import save_picture
from .interrupt import Interrupted, Interrupts
from .log import Log, few_of_each
from .optim import OPTIMIZERS
from .processes import SharedObjective, make_accelerator, native_bf16
from .recipes import OBJECTIVES, TIMES, Recipe, get_recipe
from .state import Damaged, clear_state, differences, load_state, position, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator


class Trainer:
    """A network in training, and all that changes on the way. The arguments are those of train."""

    def __init__(
        self,
        recipe: Recipe,
        data: Dataset,
        out: Path,
        accelerator: "Accelerator",
        network: nn.Module | None = None,
        epochs: float | None = None,
        minutes: float | None = None,
        seed: int = 0,
        accumulate: int = 1,
        command: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
        save_every: float = 5.0,
        log_every: int = 50,
    ):
        self.recipe, self.data, self.out, self.accelerator, self.seed = recipe, data, out, accelerator, seed
        self.limit, self.clock, self.save_every, self.command = minutes, clock, save_every, list(command)
        images = recipe.batch_size * accelerator.num_processes  # of a step
        epochs = recipe.epochs if epochs is None else epochs
        self.length = len(data) // images  # of an epoch, in steps
        self.total_steps = round(self.length * epochs)
        image_shape = tuple(data[0][0].shape)
        torch.manual_seed(seed)
        self.model = recipe.build(image_shape) if network is None else copy.deepcopy(network)
        self.model.to(accelerator.device)
        self.schedule = Schedule.named(recipe.schedule, recipe.T)
        self.ema = EMA(self.model, recipe.ema_decay)  # before accelerate puts autocast into forward
        self.ddpm = DDPM(self.ema.model, self.schedule, recipe.predicts, image_shape)
        half = accelerator.mixed_precision == "bf16" and native_bf16(accelerator.device.type)
        optimizer = OPTIMIZERS[recipe.optimizer](self.model, recipe.weight_decay, half)
        with warnings.catch_warnings():  # accelerate knows only the old name of an option
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            self.net, self.optimizer = accelerator.prepare(self.model, optimizer)
        objective = OBJECTIVES[recipe.objective].loss(recipe, self.schedule, self.times)
        self.objective = SharedObjective(objective, self.model, accelerator, accumulate)
        self.generator = Generator(accelerator.device).manual_seed(seed)
        self.log = Log(out, recipe.T, images, accelerator, log_every)
        self.settings = {  # two runs of equal settings end with equal weights
            **asdict(recipe), "network": type(self.model).__name__, "arguments": getattr(self.model, "arguments", {}),
            "epochs": epochs if minutes is None else None, "minutes": minutes, "seed": seed,
            "precision": accelerator.mixed_precision, "processes": accelerator.num_processes,
            "accumulate": accumulate, "data": getattr(data, "name", "unknown"), "images": len(data),
            "image_shape": image_shape,
        }  # fmt: skip
        self.steps, self.epoch, self.batch = 0, 1, 0  # steps in all, and those of this epoch
        self.progress = self.minutes = self.minutes_before = 0.0  # before this process began
        self.started = clock()
        self.total = torch.zeros((), device=accelerator.device)  # of the losses of this epoch's batches
        self.saved: int | None = None  # the step of the last good state

    def times(self, n: int, T: int, generator: Generator) -> Tensor:
        return TIMES[self.recipe.times](n, T, generator, self.progress)

    def rate(self, step: int) -> float:
        return self.recipe.rate(step, self.progress)

    # --- the loop

    def run(self, interrupts: Interrupts) -> DDPM:
        """Trains to the end, or until it is interrupted."""
        saved, most = self.minutes, self.recipe.grad_norm
        steps = train_steps(
            self.net, self.batches(), self.objective, self.optimizer, self.rate, self.ema, self.generator,
            math.inf if most is None else most, self.steps, self.accelerator.backward, self.accelerator.clip_grad_norm_,
        )  # fmt: skip
        for step in steps:
            self.log.record(step)
            self.total += step.losses.mean()
            self.steps, self.batch = step.number, self.batch + 1
            self.minutes = self.minutes_before + (self.clock() - self.started) / 60
            self.progress = self.steps / self.total_steps if self.limit is None else self.minutes / self.limit
            if self.progress >= 1:
                break
            caught, due = self.agree(interrupts.caught or 0, self.minutes - saved > self.save_every)
            if caught or due:
                self.save()
                saved = self.minutes
            if caught:
                raise Interrupted(f"saved {self.out} at {position(vars(self))}", caught)
        self.end_of_epoch()
        if self.accelerator.is_main_process:
            clear_state(self.out)
        return self.ddpm

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's batches from here on, epoch after epoch."""
        while True:
            yield from self.rest_of_epoch()
            self.end_of_epoch()

    def rest_of_epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        part = self.accelerator.process_index, self.accelerator.num_processes
        mine = epoch_order(len(self.data), self.recipe.batch_size, self.seed, self.epoch, *part)[self.batch :]
        random = torch.get_rng_state()
        loader = iter(DataLoader(self.data, batch_sampler=mine))
        torch.set_rng_state(random)  # a loader draws a seed for its workers whenever one is made
        shown = None if self.accelerator.is_main_process else True
        bar = tqdm(loader, f"epoch {self.epoch}", self.length, initial=self.batch, disable=shown)
        for x_0, y in bar:
            check_batch(x_0, y, self.model.num_classes, self.steps == 0)
            yield x_0.to(self.accelerator.device), y.to(self.accelerator.device)
            if self.log.due():
                self.check_finite()
                self.write_row()
                bar.set_postfix(loss=self.log.loss)

    def end_of_epoch(self) -> None:
        """Writes the averaged weights and samples of them, and begins the next epoch."""
        self.check_finite()
        self.write_row()
        if self.accelerator.is_main_process:
            print(f"epoch {self.epoch}: loss {float(self.total) / self.batch:.4f}, {position(vars(self))}", flush=True)
            self.ddpm.notes = {**self.settings, "steps": self.steps, "minutes": round(self.minutes, 1)}
            picture = few_of_each(self.ddpm)  # refuses NaN before a good file is overwritten
            with self.disk():
                self.ddpm.save(self.out / "model.safetensors")
                save_picture(picture, self.out / "samples" / f"epoch_{self.epoch:03d}.png")
                self.log.show(self.epoch, self.minutes, self.progress >= 1)
        self.epoch, self.batch = self.epoch + 1, 0
        self.total.zero_()
        if self.progress < 1:
            self.save()

    def agree(self, *numbers: int) -> list[int]:
        """The largest that any process has of each number, so that all of them do the same."""
        if self.accelerator.num_processes == 1:
            return list(numbers)
        mine = torch.tensor([numbers], dtype=torch.long, device=self.accelerator.device)
        return self.accelerator.gather(mine).amax(0).tolist()

    # --- its state

    def resume(self, fresh: bool) -> None:
        """Resumes from the state in the folder, if there is one. Raises ValueError for that of another run."""
        state, model = None if fresh else load_state(self.out), self.out / "model.safetensors"
        steps = -1 if state is None else state["steps"]
        most, least = self.agree(steps, -steps)
        if most != -least:  # all processes have read by now: from here on the first may remove and save
            raise ValueError(f"the processes see different states in {self.out}: choose a folder that all can see")
        if state is not None:
            self.restore(state)
        elif model.exists() and not fresh:
            raise ValueError(
                f"{model} is of a finished run: train in another folder (--out), or replace it with fresh=True (--fresh)"
            )
        elif self.accelerator.is_main_process:
            clear_state(self.out)
        with self.disk():
            self.log.begin(self.steps, self.minutes)
        if state is None:
            self.save()  # so that a full disk is noticed before the work
        elif self.accelerator.is_main_process:
            print(f"resuming {self.out}: epoch {self.epoch}, {position(vars(self))}", flush=True)

    def restore(self, state: dict) -> None:
        if changed := differences({**asdict(Recipe()), **state["settings"]}, self.settings):  # settings may be newer
            raise ValueError(
                f"{self.out} holds an unfinished run of other settings ({changed}): give it the same settings, train in "
                "another folder (--out), or begin anew with fresh=True (--fresh)"
            )
        try:
            self.model.load_state_dict(state["model"])
            self.ema.model.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:
            raise Damaged(f"the state in {self.out} is of another network: {error}") from error
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        self.total.copy_(state["total"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.ema.updates, self.epoch, self.batch = (state[name] for name in ("updates", "epoch", "batch"))
        self.steps = self.saved = state["steps"]
        self.progress, self.minutes = state["progress"], state["minutes"]
        self.minutes_before = self.minutes

    def save(self) -> None:
        """Writes the whole state. Raises ValueError if that fails, and for NaN."""
        self.check_finite(weights=True)
        self.write_row()
        if self.accelerator.is_main_process:
            names = "settings command epoch batch steps progress minutes total".split()
            scaler = self.accelerator.scaler
            state = {name: getattr(self, name) for name in names} | {
                "model": self.model.state_dict(), "average": self.ema.model.state_dict(), "updates": self.ema.updates,
                "optimizer": self.optimizer.state_dict(), "scaler": None if scaler is None else scaler.state_dict(),
                "generator": self.generator.get_state(), "torch": torch.get_rng_state(),
            }  # fmt: skip
            with self.disk():
                save_state(self.out, state)
        self.saved = self.steps

    def write_row(self) -> None:
        with self.disk():
            self.log.write(self.steps, self.epoch, self.minutes, self.optimizer.param_groups[0]["lr"])

    @contextlib.contextmanager
    def disk(self) -> Iterator[None]:
        """Turns the error of a disk that cannot be written into a ValueError that says what is safe."""
        try:
            yield
        except OSError as error:
            raise ValueError(f"cannot write to {self.out} ({error}): {self.last_good}") from error

    def check_finite(self, weights: bool = False) -> None:
        if not self.total.isfinite() or weights and not all(p.isfinite().all() for p in self.model.parameters()):
            rate = self.optimizer.param_groups[0]["lr"]
            raise ValueError(
                f"the loss is NaN or infinite at step {self.steps}, learning rate {rate:.2g}: {self.last_good}; a lower "
                "learning rate may help"
            )

    @property
    def last_good(self) -> str:
        if self.saved is None:
            return "nothing was saved yet"
        return f"the last good state is that of step {self.saved}, in {self.out}"


def train(
    recipe: Recipe | str = "tiny",
    out: str | Path = "runs/tiny",
    data: Dataset | None = None,
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
    data         items (image (c, h, w) in [-1, 1], label); MNIST by default
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

    Raises ValueError before any work for: an unknown recipe, device or precision; both epochs and minutes; a network
    without num_classes or arguments; data of less than a batch, or whose images or labels do not fit the network; a
    folder that cannot be written, that holds a finished or another run, or in which another run is active. Raises
    ValueError later for a loss that is not finite and for a full disk; and Interrupted, a KeyboardInterrupt, after
    Ctrl-C or SIGTERM.
    """
    recipe = get_recipe(recipe)
    out = writable_folder(writable_folder(Path(out) / "samples").parent)
    accelerator = make_accelerator(device, precision, compile, out if tensorboard else None)
    data = mnist(size=recipe.image_size) if data is None else data
    data = as_data(data) if isinstance(data, TensorDataset) else data  # all of it is looked at, at no cost
    check_length(epochs, minutes, accelerator.num_processes)
    check_data(data, recipe, network, accumulate, accelerator.num_processes)
    with alone(out, accelerator.is_main_process), Interrupts() as interrupts:
        trainer = Trainer(
            recipe, data, out, accelerator, network, epochs, minutes, seed, accumulate, command, clock, save_every,
            log_every,
        )  # fmt: skip
        trainer.resume(fresh)
        ddpm = trainer.run(interrupts)
        for tracker in accelerator.trackers:  # end_training would end the group of processes, too
            tracker.finish()
        return ddpm


def check_length(epochs: float | None, minutes: float | None, processes: int) -> None:
    given = [number for number in (epochs, minutes) if number is not None]
    if len(given) > 1 or not all(0 < number < math.inf for number in given):
        raise ValueError(f"a run ends after a number of epochs or of minutes above 0, got {epochs} and {minutes}")
    if minutes is not None and processes > 1:
        raise ValueError("minutes are for one process, since each has its own clock: give epochs instead")


def check_data(data: Dataset, recipe: Recipe, network: nn.Module | None, accumulate: int, processes: int) -> None:
    if not 1 <= accumulate <= recipe.batch_size:
        raise ValueError(f"a batch of {recipe.batch_size} goes in 1 to as many parts, got {accumulate}")
    if not hasattr(network, "arguments") and network is not None:
        raise ValueError("the network needs `arguments` that rebuild it, so that it can be saved: see tinyddpm.nn")
    if len(data) < recipe.batch_size * processes:
        raise ValueError(
            f"the recipe's batch is {recipe.batch_size} images for each of {processes} processes, but the data has "
            f"{len(data)}: give more data or a recipe of smaller batches"
        )
    classes = recipe.num_classes if network is None else getattr(network, "num_classes", None)
    found = getattr(data, "num_classes", classes)
    if classes is not None and (found is None or found > classes):
        raise ValueError(
            f"the network has labels 0..{classes - 1}, but the data has {found or 'no'} classes: build it with "
            f"num_classes={found}, or take replace(recipe, num_classes={found})"
        )


def check_batch(x_0: Tensor, y: Tensor, num_classes: int | None, first: bool) -> None:
    """Raises ValueError for labels that the network does not have, and for a first batch of images in [0, 1]."""
    if num_classes is not None and not 0 <= y.min() <= y.max() < num_classes:
        raise ValueError(f"the network has labels 0..{num_classes - 1}, but the data has {y.min()}..{y.max()}")
    if first and x_0.max() <= 1:
        refuse_grey(float(x_0.min()))


def epoch_order(n: int, batch: int, seed: int, epoch: int, part: int = 0, parts: int = 1) -> list[list[int]]:
    """Which of n images are in each batch of an epoch: a function of the seed and the epoch alone.

    Each of several processes gets a part of every batch, `batch` images long. What fills no batch is left out.
    """
    both = random.Random(f"{seed} {epoch}").getrandbits(32)  # torch uses 32 bits of a seed
    order = torch.randperm(n, generator=Generator().manual_seed(both))
    batches = n // (parts * batch)
    return order[: batches * parts * batch].reshape(batches, parts, batch)[:, part].tolist()


@contextlib.contextmanager
def alone(out: Path, main: bool) -> Iterator[None]:
    """Locks the folder for one run. Raises ValueError while another one has locked it."""
    from filelock import FileLock, Timeout

    lock = FileLock(out / "run.lock") if main else None
    try:
        if lock is not None:
            lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another run is active in {out}: wait for it, or train in another folder (--out)") from None
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
