"""What a run shows: its metrics as a table and a plot, and its samples as a film."""

import contextlib
import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..files import write_whole
from ..pipeline import DDPM
from ..tools.plots import save_panels
from ..training import TrainStep
from ..viz import Picture, image_grid, save_gif

if TYPE_CHECKING:
    from accelerate import Accelerator

BANDS = 10  # equal parts of 1..T
REDRAW = 1.0  # minutes between two drawings of the plot, and of the film: each costs about a second
FRAMES = 100  # of the film, at most
COLUMNS = ("step", "epoch", "minutes", "loss", "learning_rate", "gradient_norm", "images_per_s")


class Log:
    """Averages the steps of all processes, and writes a row of log.csv for each `every` steps of `images` images: loss
    is the mean over the images of a row, loss_t_1_100 that over the images whose t lies there (empty without any), and
    gradient_norm the mean before clipping."""

    def __init__(self, folder: Path, T: int, images: int, accelerator: "Accelerator", every: int = 50):
        self.folder, self.T, self.images, self.accelerator, self.every = folder, T, images, accelerator, every
        ends = [-(-T * k // BANDS) for k in range(BANDS + 1)]  # rounded up
        self.bands = [f"loss_t_{a + 1}_{b}" for a, b in zip(ends, ends[1:])]
        self.columns, self.table = [*COLUMNS, *self.bands], folder / "log.csv"
        self.sums = torch.zeros(2, BANDS, device=accelerator.device)  # of losses, and their number
        self.norms, self.steps = torch.zeros(2, device=accelerator.device), 0  # their sum, and their number
        self.rows: list[dict] = []
        self.spent = self.drawn = 0.0  # minutes, at the last row and at the last picture

    def begin(self, minutes: float) -> None:
        """Writes the table as far as it is known."""
        self.spent = self.drawn = minutes
        if self.accelerator.is_main_process:
            writer = csv.DictWriter(text := io.StringIO(), self.columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(self.rows)
            write_whole(self.table, text.getvalue().encode())

    def record(self, step: TrainStep) -> None:
        band = (step.t - 1) * BANDS // self.T
        self.sums[0].index_add_(0, band, step.losses.float())
        self.sums[1].index_add_(0, band, torch.ones_like(step.losses, dtype=torch.float32))
        finite = step.grad_norm.isfinite()  # fp16 skips a step whose gradient overflowed
        self.norms += torch.stack([step.grad_norm.where(finite, 0), finite])
        self.steps += 1

    def write(self, steps: int, epoch: int, minutes: float, rate: float) -> None:
        """A row for the steps since the last one, if there were any. Every process must call it."""
        if not self.steps:
            return
        losses, counts = self.accelerator.reduce(self.sums.clone(), "sum").tolist()
        (norms, finite), seconds = self.norms.tolist(), max(60 * (minutes - self.spent), 1e-9)
        values = [steps, epoch, minutes, sum(losses) / sum(counts), rate]
        values += [norms / finite if finite else "", self.steps * self.images / seconds]
        values += [loss / n if n else "" for loss, n in zip(losses, counts)]
        row = dict(zip(self.columns, (f"{v:.5g}" if isinstance(v, float) else v for v in values)))
        self.sums.zero_(), self.norms.zero_()
        self.steps, self.spent = 0, minutes
        self.rows.append(row)
        self.accelerator.log({name: float(v) for name, v in row.items() if v != ""}, step=steps)
        if self.accelerator.is_main_process:
            with open(self.table, "a", newline="") as file:
                csv.DictWriter(file, row, lineterminator="\n").writerow(row)

    def show(self, epochs: int, minutes: float, last: bool) -> None:
        """Draws the plot and the film after an epoch, unless they are recent and another epoch follows."""
        if last or minutes - self.drawn > REDRAW:
            self.plot()
            self.film(epochs)
            self.drawn = minutes

    def plot(self) -> None:
        def column(name: str) -> list[float]:
            return [float(row[name] or "nan") for row in self.rows]

        alone = {name.replace("_", " "): {"": column(name)} for name in COLUMNS[3:]}
        bands = {"t = {} to {}".format(*band.split("_")[2:]): column(band) for band in self.bands}
        save_panels(column("step"), {**alone, "loss by t": bands}, self.folder / "log.png", ("loss", "loss by t"))

    def film(self, epochs: int) -> None:
        """progress.gif: the samples of each epoch, all from the same noise."""
        import imageio.v3 as iio

        frames = []
        for epoch in torch.linspace(1, epochs, min(epochs, FRAMES)).round().int().tolist():
            with contextlib.suppress(Exception):  # a picture lost in a power failure does not end the run
                picture = np.atleast_3d(iio.imread(self.folder / "samples" / f"epoch_{epoch:03d}.png"))
                frames.append(torch.from_numpy(picture).permute(2, 0, 1))
        save_gif([frame for frame in frames if frame.shape == frames[-1].shape], self.folder / "progress.gif", fps=4)


def few_of_each(ddpm: DDPM) -> Picture:
    """Four samples of each class, of the first 50 classes, or 40 without classes; the same noise each time. Raises
    ValueError for samples that are not finite."""
    if (classes := ddpm.num_classes) is None:
        return image_grid(ddpm.sample(n=40, steps=20, seeds=range(40)), columns=20)
    y = torch.arange(min(classes, 50)).repeat_interleave(4)
    return image_grid(ddpm.sample(y, steps=20, seeds=range(len(y))), columns=20)
