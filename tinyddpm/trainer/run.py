"""A network in training: all of a run that changes, to disk and back, so that it can stop and go on."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Generator
from torch.utils.data import Dataset

from ..pipeline import DDPM
from ..schedules import Schedule
from ..training import EMA
from .clock import Clock
from .log import Watch
from .recipes import Recipe
from .state import clear_state, differences, flat, load_state, save_state, unflat
from .step import Stepper, make_optimizers


class Run:
    """A network in training, and all that changes on the way."""

    def __init__(
        self,
        recipe: Recipe,
        data: Dataset,
        out: Path,
        epochs: float | None,
        minutes: float | None,
        seed: int,
        accelerator,
        accumulate: int = 1,
    ):
        self.recipe, self.data, self.out, self.seed, self.accelerator = recipe, data, out, seed, accelerator
        self.batches = len(data) // (recipe.batch_size * accelerator.num_processes)  # an epoch
        epochs = recipe.epochs if epochs is None else epochs
        image_shape = tuple(data[0][0].shape)
        self.settings = {  # two runs of equal settings end with equal weights
            **asdict(recipe),
            "epochs": epochs if minutes is None else None,
            "minutes": minutes,
            "seed": seed,
            "precision": accelerator.mixed_precision,
            "processes": accelerator.num_processes,
            "accumulate": accumulate,
            "data": getattr(data, "name", "unknown"),
            "images": len(data),
            "image_shape": image_shape,
        }
        torch.manual_seed(seed)
        self.model = recipe.network(image_shape).to(accelerator.device)
        self.schedule = Schedule.named(recipe.schedule, recipe.T)
        self.ema = EMA(self.model, recipe.ema_decay)  # before prepare puts autocast into forward
        self.optimizers = make_optimizers(recipe, self.model, half=accelerator.mixed_precision == "bf16")
        with warnings.catch_warnings():  # accelerate knows only the old name of what saves the sending
            warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
            net = accelerator.prepare(self.model)
        self.stepper = Stepper(net, self.optimizers, recipe, self.schedule, accelerator, accumulate)
        self.noise = Generator(accelerator.device).manual_seed(seed)
        self.clock = Clock(round(self.batches * epochs), minutes)
        self.epoch, self.batch = 1, 0  # batches seen of this epoch
        self.total = torch.zeros((), device=accelerator.device)  # sum of their losses
        self.ddpm = DDPM(self.ema.model, self.schedule, recipe.predicts, image_shape)
        self.watch = Watch(out, recipe.T, recipe.batch_size * accelerator.num_processes, accelerator)
        self.saved = None  # the step of the last good state
        self.command: list[str] = []  # goes on with the run, where a command began it

    def take_up(self, fresh: bool) -> None:
        """Goes on from the state in the folder, if there is one. Raises ValueError for another run's."""
        model = self.out / "model.safetensors"
        found = None if fresh else load_state(self.out)
        steps = -1 if found is None else found[0]["steps"]
        most, least = self.agree(steps, -steps)
        if most != -least:  # all have looked by now: from here on the first may clear and save
            raise ValueError(
                f"the processes do not see the same state in {self.out}: take a folder that all of them see"
            )
        if found is None:
            if model.exists() and not fresh:
                raise ValueError(
                    f"{model} is there already, of a finished run: train in another folder (--out), or "
                    "replace it with fresh=True (--fresh)"
                )
            if self.accelerator.is_main_process:
                clear_state(self.out)
            self.watch.begin(self.clock)
            self.save()  # a disk that does not take it is found before the work
            return
        counters, tensors = found
        before = {**asdict(Recipe()), "accumulate": 1}  # an older state lacks what came later
        before |= counters["settings"]
        if changed := differences(before, self.settings):
            raise ValueError(
                f"{self.out} holds an unfinished run of other settings ({changed}): give it the settings "
                "that it had, train in another folder (--out), or begin anew with fresh=True (--fresh)"
            )
        self.noise.set_state(tensors.pop("noise"))
        torch.set_rng_state(tensors.pop("torch"))
        self.total.copy_(tensors.pop("total"))
        unflat(tensors, self.model, self.ema.model, self.optimizers)
        self.epoch, self.batch, self.ema.updates = (counters[n] for n in ("epoch", "batch", "updates"))
        self.clock.go_on(*(counters[n] for n in ("steps", "progress", "minutes")))
        if (scaler := self.accelerator.scaler) is not None:
            scaler.load_state_dict(counters["scaler"])
        self.watch.begin(self.clock)
        self.saved = self.clock.steps
        if self.accelerator.is_main_process:
            print(f"going on in {self.out}: epoch {self.epoch}, {self.clock}", flush=True)

    def save(self) -> None:
        """The whole state, to disk. Raises ValueError for a disk that does not take it, and for NaN."""
        self.check_finite(weights=True)
        self.write_row()
        counters = {"settings": self.settings, "epoch": self.epoch, "batch": self.batch}
        counters |= {"updates": self.ema.updates, "steps": self.clock.steps, "command": self.command}
        counters |= {"progress": self.clock.progress, "minutes": self.clock.spent}
        if (scaler := self.accelerator.scaler) is not None:
            counters["scaler"] = scaler.state_dict()
        if self.accelerator.is_main_process:
            tensors = flat(self.model, self.ema.model, self.optimizers)
            tensors |= {"noise": self.noise.get_state(), "torch": torch.get_rng_state(), "total": self.total}
            with self.disk():
                save_state(self.out, counters, tensors)
        self.saved = self.clock.steps

    def agree(self, *numbers: int) -> list[int]:
        """The largest that any of the processes has of each number, so that all do the same."""
        if self.accelerator.num_processes == 1:
            return list(numbers)
        mine = torch.tensor([numbers], dtype=torch.long, device=self.accelerator.device)
        return self.accelerator.gather(mine).amax(0).tolist()

    @contextlib.contextmanager
    def disk(self) -> Iterator[None]:
        """Raises ValueError, with what is safe, for a disk that does not take what is written."""
        try:
            yield
        except OSError as error:
            raise ValueError(f"cannot write to {self.out} ({error}): {self.where_it_stands()}") from error

    def write_row(self) -> None:
        with self.disk():
            self.watch.write(self.clock, self.epoch, self.rate)

    @property
    def rate(self) -> float:
        return self.optimizers[0].param_groups[0]["lr"]

    def check_finite(self, weights: bool = False) -> None:
        if not self.total.isfinite() or weights and not all(p.isfinite().all() for p in self.model.parameters()):
            raise ValueError(
                f"the loss is NaN or infinite at step {self.clock.steps}, learning rate {self.rate:.2g}: "
                f"{self.where_it_stands()}; a lower learning rate may help"
            )

    def where_it_stands(self) -> str:
        if self.saved is None:
            return "nothing was saved yet"
        return f"the last good state is that of step {self.saved}, in {self.out}"
