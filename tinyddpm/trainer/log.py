"""What a run shows while it goes: its figures as a table and as a plot, and its samples as a film."""

import contextlib
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..files import write_whole
from ..viz import save_gif
from .clock import Clock

BANDS = 10  # equal parts of 1..T
EVERY = 50  # steps a row of the table
REDRAW = 1.0  # minutes between two drawings of the plot, and of the film: both cost about a second
FRAMES = 100  # of the film, at most
TABLE, PLOT, FILM = "log.csv", "log.png", "progress.gif"


class Watch:
    """Sums up the steps of a run, of all its processes, and writes a row of log.csv for each `EVERY`.

    loss is the mean over the images that the row stands for, loss_t_1_100 that over those whose t lay
    there (empty where none did); gradient_norm is the mean before it was held to the recipe's.
    """

    def __init__(self, folder: Path, T: int, images: int, accelerator):
        self.folder, self.T, self.images, self.accelerator = folder, T, images, accelerator
        ends = [-(-T * k // BANDS) for k in range(BANDS + 1)]  # rounded up
        self.bands = [f"loss_t_{a + 1}_{b}" for a, b in zip(ends, ends[1:])]
        start = "step epoch minutes loss learning_rate gradient_norm images_per_s"
        self.columns = [*start.split(), *self.bands]
        self.sums = torch.zeros(2, BANDS, device=accelerator.device)  # of losses, and how many
        self.norms, self.steps = torch.zeros(2, device=accelerator.device), 0  # their sum, how many
        self.rows: list[dict] = []
        self.spent = self.drawn = self.filmed = 0.0  # minutes, at the last row, plot and film

    def begin(self, clock: Clock) -> None:
        """Goes on with the table as it was at this step; begins a new one at step 0."""
        self.spent = self.drawn = self.filmed = clock.spent
        if not self.accelerator.is_main_process:
            return
        path = self.folder / TABLE
        if clock.steps and path.exists():
            self.rows = [row for row in self.read(path) if int(row["step"]) <= clock.steps]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_whole(path, text.getvalue().encode())

    def read(self, path: Path) -> list[dict]:
        """The whole rows of a table. One that is no table any more is put aside: the run goes on without."""
        try:
            with open(path, newline="") as file:
                reader = csv.DictReader(file)
                if reader.fieldnames != self.columns:
                    raise ValueError("other columns")
                rows = list(reader)
            return [row for row in rows if None not in row and None not in row.values() and int(row["step"])]
        except (ValueError, csv.Error):
            path.replace(path.with_suffix(".unread.csv"))
            return []

    def see(self, losses: Tensor, t: Tensor, norm: Tensor) -> None:
        """One step: the loss and the time of each image, (b,), and the gradient's norm."""
        band = (t - 1) * BANDS // self.T
        self.sums[0].index_add_(0, band, losses.float())
        self.sums[1].index_add_(0, band, torch.ones_like(losses, dtype=torch.float32))
        seen = norm.isfinite()  # fp16 skips a step whose gradient overflowed
        self.norms += torch.stack([norm.where(seen, 0), seen])
        self.steps += 1

    def due(self) -> bool:
        return self.steps >= EVERY

    def write(self, clock: Clock, epoch: int, rate: float) -> None:
        """A row for the steps since the last one, if there were any. Every process must call it."""
        if not self.steps:
            return
        losses, counts = self.accelerator.reduce(self.sums.clone(), "sum").tolist()
        seconds = max(60 * (clock.spent - self.spent), 1e-9)
        known = [clock.steps, epoch, clock.spent, sum(losses) / sum(counts), rate]
        norms, steps = self.norms.tolist()
        known += [norms / steps if steps else "", self.steps * self.images / seconds]
        known += [loss / n if n else "" for loss, n in zip(losses, counts)]
        row = dict(zip(self.columns, (f"{v:.5g}" if isinstance(v, float) else v for v in known)))
        self.sums.zero_(), self.norms.zero_()
        self.steps, self.spent = 0, clock.spent
        self.rows.append(row)
        self.accelerator.log({name: float(v) for name, v in row.items() if v != ""}, step=clock.steps)
        if self.accelerator.is_main_process:
            with open(self.folder / TABLE, "a", newline="") as file:
                csv.DictWriter(file, self.columns, lineterminator="\n").writerow(row)
            if clock.spent - self.drawn > REDRAW:
                self.draw()
                self.drawn = clock.spent

    @property
    def loss(self) -> str:
        """That of the last row."""
        return self.rows[-1]["loss"] if self.rows else "unknown"

    def show(self, clock: Clock, epochs: int) -> None:
        """After an epoch: plot and film, unless they are new or will be so soon."""
        if clock.progress >= 1 or clock.spent - self.filmed > REDRAW:
            self.draw()
            self.film(epochs)
            self.drawn = self.filmed = clock.spent

    def draw(self) -> None:
        def column(name: str) -> list[float]:
            return [float(row[name] or "nan") for row in self.rows]

        alone = {"loss": "loss", "learning rate": "learning_rate", "gradient norm": "gradient_norm"}
        panels = {title: {"": column(name)} for title, name in alone.items()}
        panels["images a second"] = {"": column("images_per_s")}
        names = ["t = {} to {}".format(*band.split("_")[2:]) for band in self.bands]
        panels["loss by t"] = dict(zip(names, map(column, self.bands)))
        save_panels(column("step"), panels, ("loss", "loss by t"), "step", self.folder / PLOT)

    def film(self, epochs: int) -> None:
        """progress.gif: what each epoch drew from the same noise, a frame an epoch."""
        import imageio.v3 as iio

        chosen = torch.linspace(1, epochs, min(epochs, FRAMES)).round().int().tolist()
        pictures = [self.folder / "samples" / f"epoch_{epoch:03d}.png" for epoch in chosen]
        frames = []
        for path in pictures:
            with contextlib.suppress(Exception):  # one that was lost with the power does not end the run
                frames.append(torch.from_numpy(iio.imread(path)))
        frames = [frame[None] if frame.ndim == 2 else frame.permute(2, 0, 1) for frame in frames]
        shape = frames[-1].shape
        save_gif([frame for frame in frames if frame.shape == shape], self.folder / FILM, fps=4)


def save_panels(
    x: Sequence[float],
    panels: dict[str, dict[str, Sequence[float]]],
    logarithmic: Sequence[str],
    label: str,
    path: str | Path,
) -> None:
    """Several plots over x, three in a row: {title: {name of a line: values}}. Lines without a name have no
    legend."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(13, 3.4 * rows), layout="constrained")
    for axes in (grid := figure.subplots(rows, 3, squeeze=False).flatten())[len(panels) :]:
        axes.remove()
    for axes, (title, lines) in zip(grid, panels.items()):
        for k, (name, values) in enumerate(lines.items()):
            colour = colormaps["viridis"](k / len(lines))
            axes.plot(x, values, ".-" if len(x) < 20 else "-", color=colour, linewidth=1, label=name)
        if any(lines):
            axes.legend(fontsize=6, ncols=2)
        axes.set(title=title, xlabel=label, yscale="log" if title in logarithmic else "linear")
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=100)
