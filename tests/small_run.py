"""A run of six steps, and data that can do something while it is read."""

import csv
import os

import torch
from torch.utils.data import Dataset

from tinyddpm.trainer import train
from tinyddpm.trainer.recipes import Recipe, UNetConfig

SMALL = UNetConfig((8, 16), attention=())
MINI = Recipe(SMALL, num_classes=3, T=20, batch_size=4, warmup=2, ema_decay=0.9, epochs=2)
STEPS = 6  # two epochs of three


class Fetched(Dataset):
    """Twelve noisy images; when the `fatal`-th is fetched, `action` is called. The first is fetched to see its shape,
    and then four a step."""

    def __init__(self, fatal: int | None = None, action=None):
        self.fatal, self.action, self.fetched = fatal, action, 0

    def __len__(self):
        return 12

    def __getitem__(self, i):
        self.fetched += 1
        if self.fetched == self.fatal:
            self.action()
        return (torch.rand(1, 16, 16) + i / 6 - 1.5).clamp(-1, 1), i % 3  # other pixels at each look


def send(number):
    return lambda: os.kill(os.getpid(), number)


def crash():
    raise RuntimeError("the power failed")


def weights(ddpm):
    return torch.cat([p.flatten() for p in ddpm.model.parameters()])


def run(out, data=None, recipe=MINI, **options):
    """The averaged weights of a run, by default of a row in its table a step."""
    return weights(
        train(recipe, out, data or Fetched(), device="cpu", **{"log_every": 1, "precision": "no", **options})
    )


def table(folder):
    with open(folder / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def steady(folder):
    """The table without the columns that depend on the clock."""
    return [{n: v for n, v in row.items() if n not in ("minutes", "images_per_s")} for row in table(folder)]
