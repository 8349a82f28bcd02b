"""A network in training: one run through the data, which can stop at any step and go on."""

import itertools
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .clock import Clock
from .draw import few_of_each
from .ema import EMA
from .interrupt import Interrupted, Interrupts
from .pipeline import DDPM
from .recipes import Recipe
from .schedules import Schedule
from .state import clear_state, differences, flat, load_state, save_state, unflat
from .step import batch_loss, epoch_order, learning_rate, make_optimizers
from .viz import save_picture

SAVE_EVERY = 5.0  # minutes


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
            "data": getattr(data, "name", "unknown"),
            "images": len(data),
            "image_shape": image_shape,
        }
        torch.manual_seed(seed)
        self.model = recipe.network(image_shape).to(accelerator.device)
        self.schedule = Schedule.named(recipe.schedule, recipe.T)
        self.ema = EMA(self.model, recipe.ema_decay)  # before prepare puts autocast into forward
        self.optimizers = make_optimizers(recipe, self.model, half=accelerator.mixed_precision == "bf16")
        self.noise = Generator(accelerator.device).manual_seed(seed)
        self.clock = Clock(round(self.batches * epochs), minutes)
        self.epoch, self.batch = 1, 0  # batches seen of this epoch
        self.total = torch.zeros((), device=accelerator.device)  # sum of their losses
        self.ddpm = DDPM(self.ema.model, self.schedule, recipe.predicts, image_shape)
        self.saved = None  # the step of the last good state
        self.command: list[str] = []  # goes on with the run, where a command began it

    def take_up(self, fresh: bool) -> None:
        """Goes on from the state in the folder, if there is one. Raises ValueError for another run's."""
        model = self.out / "model.safetensors"
        found = None if fresh else load_state(self.out)
        if found is None:
            if model.exists() and not fresh:
                raise ValueError(
                    f"{model} is there already, of a finished run: train in another folder (--out), or "
                    "replace it with fresh=True (--fresh)"
                )
            clear_state(self.out)
            self.save()  # a disk that does not take it is found before the work
            return
        counters, tensors = found
        if changed := differences(counters["settings"], self.settings):
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
        self.saved = self.clock.steps
        if self.accelerator.is_main_process:
            print(f"going on in {self.out}: epoch {self.epoch}, {self.clock}", flush=True)

    def save(self) -> None:
        """The whole state, to disk. Raises ValueError for a disk that does not take it, and for NaN."""
        self.check_finite(weights=True)
        counters = {"settings": self.settings, "epoch": self.epoch, "batch": self.batch}
        counters |= {"updates": self.ema.updates, "steps": self.clock.steps, "command": self.command}
        counters |= {"progress": self.clock.progress, "minutes": self.clock.spent}
        tensors = flat(self.model, self.ema.model, self.optimizers)
        tensors |= {"noise": self.noise.get_state(), "torch": torch.get_rng_state(), "total": self.total}
        if self.accelerator.is_main_process:
            try:
                save_state(self.out, counters, tensors)
            except OSError as error:
                raise ValueError(f"cannot save to {self.out} ({error}): {self.where_it_stands()}") from error
        self.saved = self.clock.steps

    def check_finite(self, weights: bool = False) -> None:
        if (
            not self.total.isfinite()
            or weights
            and not all(p.isfinite().all() for p in self.model.parameters())
        ):
            rate = self.optimizers[0].param_groups[0]["lr"]
            raise ValueError(
                f"the loss is NaN or infinite at step {self.clock.steps}, learning rate {rate:.2g}: "
                f"{self.where_it_stands()}; a lower learning rate may help"
            )

    def where_it_stands(self) -> str:
        if self.saved is None:
            return "nothing was saved yet"
        return f"the last good state is that of step {self.saved}, in {self.out}"

    def through(self, interrupts: Interrupts) -> DDPM:
        """Trains to the end, or until it is interrupted."""
        net, *optimizers = self.accelerator.prepare(self.model, *self.optimizers)
        last = self.clock.spent
        while self.clock.progress < 1:
            for x_0, y in self.rest_of_epoch():
                self.step(net, optimizers, x_0, y)
                if self.clock.progress >= 1:
                    break
                if caught := self.caught(interrupts):
                    self.save()
                    raise Interrupted(f"saved {self.out} at {self.clock}", caught)
                if self.clock.spent - last > SAVE_EVERY:
                    self.save()
                    last = self.clock.spent
            self.end_of_epoch()
        if self.accelerator.is_main_process:
            clear_state(self.out)
        return self.ddpm

    def caught(self, interrupts: Interrupts) -> int:
        """The signal that any of the processes caught, or 0: they stop at the same step."""
        if self.accelerator.num_processes == 1:
            return interrupts.caught or 0
        caught = torch.tensor([interrupts.caught or 0], device=self.accelerator.device)
        return int(self.accelerator.gather(caught).max())

    def rest_of_epoch(self) -> Iterator:
        """This process's batches that this epoch has not seen yet, under a progress bar."""
        part = self.accelerator.process_index, self.accelerator.num_processes
        size = self.recipe.batch_size
        mine = epoch_order(len(self.data), size, self.seed, self.epoch, *part)[self.batch :]
        random = torch.get_rng_state()
        loader = iter(DataLoader(self.data, batch_sampler=mine))
        torch.set_rng_state(random)  # a loader takes a number for its workers, whenever one is made
        shown = None if self.accelerator.is_main_process else True
        bar = tqdm(loader, f"epoch {self.epoch}", self.batches, initial=self.batch, disable=shown)
        for x_0, y in bar:
            yield x_0.to(self.accelerator.device), y.to(self.accelerator.device)
            if self.batch % 50 == 0:
                self.check_finite()
                bar.set_postfix(loss=f"{float(self.total) / self.batch:.4f}")

    def step(self, net: nn.Module, optimizers: list, x_0: Tensor, y: Tensor) -> None:
        for group in itertools.chain(*(optimizer.param_groups for optimizer in optimizers)):
            group["lr"] = learning_rate(self.recipe, self.clock.steps + 1, self.clock.progress)
        part = self.accelerator.process_index, self.accelerator.num_processes
        loss = batch_loss(net, x_0, y, self.recipe, self.schedule, self.noise, *part)
        self.accelerator.backward(loss)
        if self.recipe.grad_norm is not None:
            self.accelerator.clip_grad_norm_(net.parameters(), self.recipe.grad_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.ema.update(self.model)
        self.total += loss.detach()
        self.batch += 1
        self.clock.tick()

    def end_of_epoch(self) -> None:
        """Writes the averaged weights and what they draw, and begins the next epoch."""
        self.check_finite()
        if self.accelerator.is_main_process:
            print(f"epoch {self.epoch}: loss {float(self.total) / self.batch:.4f}, {self.clock}", flush=True)
            made = {"steps": self.clock.steps, "minutes": round(self.clock.spent, 1)}
            self.ddpm.notes = {**self.settings, **made}
            picture = few_of_each(self.ddpm)  # refuses NaN: what diverges must not replace a good file
            self.ddpm.save(self.out / "model.safetensors")
            save_picture(picture, self.out / "samples" / f"epoch_{self.epoch:03d}.png")
        self.epoch, self.batch = self.epoch + 1, 0
        self.total.zero_()
        if self.clock.progress < 1:
            self.save()
