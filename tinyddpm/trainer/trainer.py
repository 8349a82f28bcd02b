"""A resumable training run: tinyddpm.training.train_steps with saved states, samples, a log and several processes."""

import contextlib
import copy
import math
import operator
import time
import warnings
from collections import abc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn

from ..pipeline import DDPM
from ..schedules import Schedule
from ..tools.jobs import progress
from ..training import EMA, TrainStep, train_steps
from ..viz import save_picture
from .batches import Data, batches, epoch_order
from .interrupt import Interrupted, Interrupts
from .log import Log, few_of_each
from .objectives import TIMES
from .optim import OPTIMIZERS
from .processes import SharedObjective, native_bf16
from .recipes import Recipe
from .state import Position, clear_state, differences, expected, load_state, save_state

if TYPE_CHECKING:
    from accelerate import Accelerator


class Trainer:
    """A network in training, and all that changes on the way. The arguments are those of train."""

    def __init__(
        self,
        recipe: Recipe,
        data: Data,
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
        self.recipe, self.data, self.out, self.accelerator = recipe, data, out, accelerator
        self.limit, self.seed, self.command, self.clock, self.save_every = minutes, seed, command, clock, save_every
        images = recipe.batch_size * accelerator.num_processes  # of a step
        epochs = recipe.epochs if epochs is None else epochs
        self.length = len(data) // images  # of an epoch, in steps
        self.total_steps = max(1, round(self.length * epochs))
        image_shape = tuple(data[0][0].shape)
        torch.manual_seed(seed)
        self.model = recipe.build(image_shape) if network is None else copy.deepcopy(network)
        self.model.to(accelerator.device)
        self.ema = EMA(self.model, recipe.ema_decay)  # before accelerate puts autocast into forward
        schedule = Schedule.named(recipe.schedule, recipe.T)
        self.ddpm = DDPM(self.ema.model, schedule, recipe.predicts, image_shape)
        half = accelerator.mixed_precision == "bf16" and native_bf16(accelerator.device.type)
        optimizer = OPTIMIZERS[recipe.optimizer](self.model, recipe.weight_decay, half)
        with warnings.catch_warnings():  # accelerate knows only the old name of an option
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            self.net, self.optimizer = accelerator.prepare(self.model, optimizer)
        objective = recipe.loss_of(schedule, lambda n, T, g: TIMES[recipe.times](n, T, g, self.at.progress))
        self.objective = SharedObjective(objective, self.model, accelerator, accumulate)
        self.generator = Generator(accelerator.device).manual_seed(seed)
        self.log = Log(out, recipe.T, images, accelerator, log_every)
        self.settings = {  # two runs of equal settings end with equal weights
            **asdict(recipe), "network": type(self.model).__name__, "arguments": self.model.arguments,
            "epochs": epochs if minutes is None else None, "minutes": minutes, "seed": seed,
            "precision": accelerator.mixed_precision, "processes": accelerator.num_processes,
            "accumulate": accumulate, "data": getattr(data, "name", "unknown"), "images": len(data),
            "image_shape": image_shape,
        }  # fmt: skip
        self.at, self.started = Position(), clock()
        self.minutes_before = 0.0  # of the runs that this one resumes
        self.total = torch.zeros((), device=accelerator.device)  # of the losses of this epoch's batches
        self.saved: int | None = None  # the step of the last good state

    def run(self, interrupts: Interrupts) -> DDPM:
        """Trains to the end, or until it is interrupted."""
        last, recipe, accelerator = self.at.minutes, self.recipe, self.accelerator
        parts = self.net, self.batches(), self.objective, self.optimizer
        norm = math.inf if recipe.grad_norm is None else recipe.grad_norm
        how = norm, self.at.steps, accelerator.backward, accelerator.clip_grad_norm_
        for step in train_steps(*parts, lambda k: recipe.rate(k, self.at.progress), self.ema, self.generator, *how):
            self.record(step)
            if self.at.progress >= 1:
                break
            caught, due = self.agree(interrupts.caught or 0, self.at.minutes - last > self.save_every)
            if caught or due:
                self.save()
                last = self.at.minutes
            if caught:
                raise Interrupted(f"saved {self.out} at {self.at}", caught)
        parts[1].close()  # and its bar, before a line is printed
        self.end_of_epoch()
        if self.accelerator.is_main_process:
            clear_state(self.out)
        return self.ddpm

    def record(self, step: TrainStep) -> None:
        self.log.record(step)
        self.total += step.losses.mean()
        at = self.at
        at.steps, at.batch = step.number, at.batch + 1
        at.minutes = self.minutes_before + (self.clock() - self.started) / 60
        at.progress = at.steps / self.total_steps if self.limit is None else at.minutes / self.limit

    def batches(self) -> "abc.Generator[tuple[Tensor, Tensor], None, None]":
        """This process's batches from here on, epoch after epoch."""
        at, accelerator = self.at, self.accelerator
        main, part = accelerator.is_main_process, (accelerator.process_index, accelerator.num_processes)
        while True:
            mine = epoch_order(len(self.data), self.recipe.batch_size, self.seed, at.epoch, *part)[at.batch :]
            found = batches(self.data, mine, self.ddpm.num_classes, at.steps == 0)
            bar = progress(found, f"epoch {at.epoch}", self.length, initial=at.batch, disable=not main)
            for x_0, y in bar:
                yield x_0.to(accelerator.device), y.to(accelerator.device)
                if self.log.steps >= self.log.every:
                    self.write_row()
                    bar.set_postfix(loss=self.log.rows[-1]["loss"], refresh=False)
            self.end_of_epoch()

    def end_of_epoch(self) -> None:
        """Writes the averaged weights and samples of them, and begins the next epoch."""
        at = self.at
        self.write_row()
        if self.accelerator.is_main_process:
            print(f"loss {float(self.total) / at.batch:.4f} in {at}", flush=True)
            self.ddpm.notes = {**self.settings, "steps": at.steps, "minutes": round(at.minutes, 1)}
            picture = few_of_each(self.ddpm)  # refuses NaN before a good file is overwritten
            with self.disk():
                self.ddpm.save(self.out / "model.safetensors")
                save_picture(picture, self.out / "samples" / f"epoch_{at.epoch:03d}.png")
                self.log.show(at.epoch, at.minutes, at.progress >= 1)
        at.epoch, at.batch = at.epoch + 1, 0
        self.total.zero_()
        if at.progress < 1:
            self.save()

    def agree(self, *numbers: int) -> list[int]:
        """The largest that any process has of each number, so that all of them do the same."""
        if self.accelerator.num_processes == 1:
            return list(numbers)
        mine = torch.tensor([numbers], dtype=torch.long, device=self.accelerator.device)
        return self.accelerator.gather(mine).amax(0).tolist()

    def resume(self, fresh: bool) -> None:
        """Resumes from the state in the folder, if there is one. Raises ValueError for that of another run."""
        state, model = {} if fresh else load_state(self.out), self.out / "model.safetensors"
        with expected(self.out):
            steps = operator.index(state["position"]["steps"]) if state else -1
        most, least = self.agree(steps, -steps)
        if most != -least:  # all processes have read by now: from here on the first may remove and save
            raise ValueError(f"the processes see different states in {self.out}: choose a folder that all can see")
        if state:
            self.restore(state)
        elif model.exists() and not fresh:
            raise ValueError(f"{model} exists: train in another folder (--out), or replace it (--fresh, fresh=True)")
        elif self.accelerator.is_main_process:
            clear_state(self.out)
        with self.disk():
            self.log.begin(self.at.minutes)
        if not state:
            self.save()  # so that a full disk is noticed before the work
        if self.accelerator.is_main_process:
            length = f"{self.total_steps} steps" if self.limit is None else f"{self.limit:g} minutes"
            print(f"resuming {self.out}: {self.at}" if state else f"training in {self.out} for {length}", flush=True)

    def stateful(self) -> dict:
        parts = {"model": self.model, "average": self.ema.model, "optimizer": self.optimizer}
        return parts if self.accelerator.scaler is None else {**parts, "scaler": self.accelerator.scaler}

    def restore(self, state: dict) -> None:
        with expected(self.out):
            changed = differences({**asdict(Recipe()), **state["settings"]}, self.settings)  # settings may be newer
        if changed:
            advice = "give it the same settings, train in another folder (--out), or begin anew (--fresh, fresh=True)"
            raise ValueError(f"the unfinished run in {self.out} has other settings ({changed}): {advice}")
        with expected(self.out):
            groups = zip(self.optimizer.state_dict()["param_groups"], state["optimizer"]["param_groups"], strict=True)
            state["optimizer"]["param_groups"] = [{**own, "lr": float(kept["lr"])} for own, kept in groups]
            for name, part in self.stateful().items():
                part.load_state_dict(state[name])
            for p, kept in self.optimizer.state.items():
                [value.reshape(p.shape) for value in kept.values() if value.ndim]  # raises for another optimizer's
            self.generator.set_state(state["generator"])
            torch.set_rng_state(state["torch"])
            self.total.copy_(state["total"])
            self.log.rows = [{name: row[name] for name in self.log.columns} for row in state.get("rows", [])]
            [float(value or "nan") for row in self.log.rows for value in row.values()]  # raises for what is no number
            self.ema.updates, self.at = operator.index(state["updates"]), Position(**state["position"])
        self.saved, self.minutes_before = self.at.steps, self.at.minutes

    def save(self) -> None:
        """Writes the whole state. Raises ValueError if that fails, and for NaN."""
        self.write_row(weights=True)
        if self.accelerator.is_main_process:
            state = {
                "settings": self.settings, "command": list(self.command), "position": asdict(self.at),
                "generator": self.generator.get_state(), "torch": torch.get_rng_state(), "total": self.total,
                "updates": self.ema.updates, "rows": self.log.rows,
                **{name: part.state_dict() for name, part in self.stateful().items()},
            }  # fmt: skip
            with self.disk():
                save_state(self.out, state)
        self.saved = self.at.steps

    def write_row(self, weights: bool = False) -> None:
        """Adds a row to the log. Raises ValueError for a loss, or also for weights, that are NaN or infinite."""
        at, rate = self.at, self.optimizer.param_groups[0]["lr"]
        if not self.total.isfinite() or weights and not all(p.isfinite().all() for p in self.model.parameters()):
            advice = f"{self.last_good}; a lower learning rate may help"
            raise ValueError(f"the loss is NaN or infinite at step {at.steps}, learning rate {rate:.2g}: {advice}")
        with self.disk():
            self.log.write(at.steps, at.epoch, at.minutes, rate)

    @property
    def last_good(self) -> str:
        found = f"the last good state is that of step {self.saved}, in {self.out}"
        return "nothing was saved yet" if self.saved is None else found

    @contextlib.contextmanager
    def disk(self) -> Iterator[None]:
        """Turns the error of a disk that cannot be written into a ValueError that says what is safe."""
        try:
            yield
        except OSError as error:
            raise ValueError(f"cannot write to {self.out} ({error}): {self.last_good}") from error
