"""The training loop: takes a run through the data, from where it stands, until it ends or is interrupted."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..datasets.own import refuse_grey
from ..evaluation.draw import few_of_each
from ..pipeline import DDPM
from ..viz import save_picture
from .interrupt import Interrupted, Interrupts
from .run import Run
from .state import clear_state
from .step import check_labels, draw_noise, epoch_order, learning_rate

SAVE_EVERY = 5.0  # minutes


class Loop(Run):
    """A run, and the way through its data."""

    def through(self, interrupts: Interrupts) -> DDPM:
        """Trains to the end, or until it is interrupted."""
        last = self.clock.spent
        while self.clock.progress < 1:
            for x_0, y in self.rest_of_epoch():
                self.step(x_0, y)
                if self.clock.progress >= 1:
                    break
                caught, due = self.agree(interrupts.caught or 0, self.clock.spent - last > SAVE_EVERY)
                if caught or due:
                    self.save()
                    last = self.clock.spent
                if caught:
                    raise Interrupted(f"saved {self.out} at {self.clock}", caught)
            self.end_of_epoch()
        if self.accelerator.is_main_process:
            clear_state(self.out)
        return self.ddpm

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
            check_labels(y, self.recipe.num_classes)  # here, while they are on the CPU
            if self.clock.steps == 0 and x_0.max() <= 1:
                refuse_grey(float(x_0.min()))
            yield x_0.to(self.accelerator.device), y.to(self.accelerator.device)
            if self.watch.due():
                self.check_finite()
                self.write_row()
                bar.set_postfix(loss=self.watch.loss)

    def step(self, x_0: Tensor, y: Tensor) -> None:
        rate = learning_rate(self.recipe, self.clock.steps + 1, self.clock.progress)
        part = self.accelerator.process_index, self.accelerator.num_processes
        t, eps, labels = draw_noise(x_0, y, self.recipe, self.noise, self.clock.progress, *part)
        losses, norm = self.stepper(x_0, t, eps, labels, rate)
        self.ema.update(self.model)
        self.watch.see(losses, t, norm)
        self.total += losses.mean()
        self.batch += 1
        self.clock.tick()

    def end_of_epoch(self) -> None:
        """Writes the averaged weights and what they draw, and begins the next epoch."""
        self.check_finite()
        self.write_row()
        if self.accelerator.is_main_process:
            print(f"epoch {self.epoch}: loss {float(self.total) / self.batch:.4f}, {self.clock}", flush=True)
            made = {"steps": self.clock.steps, "minutes": round(self.clock.spent, 1)}
            self.ddpm.notes = {**self.settings, **made}
            picture = few_of_each(self.ddpm)  # refuses NaN: what diverges must not replace a good file
            with self.disk():
                self.ddpm.save(self.out / "model.safetensors")
                save_picture(picture, self.out / "samples" / f"epoch_{self.epoch:03d}.png")
                self.watch.show(self.clock, self.epoch)
        self.epoch, self.batch = self.epoch + 1, 0
        self.total.zero_()
        if self.clock.progress < 1:
            self.save()
