"""A run of six steps, and data that can do something while it is read."""

import os

import torch
from torch.utils.data import Dataset

from tinyddpm.trainer.recipes import Recipe

MINI = Recipe(dims=(8, 16), attention=(), T=20, batch_size=4, warmup=2, ema_decay=0.9, epochs=2)
STEPS = 6  # two epochs of three


class Fetched(Dataset):
    """Twelve noisy images of which number `fatal` to be fetched does what `what` does."""

    def __init__(self, fatal: int | None = None, what=None):
        self.fatal, self.what, self.fetched = fatal, what, 0

    def __len__(self):
        return 12

    def __getitem__(self, i):
        self.fetched += 1
        if self.fetched == self.fatal:
            self.what()
        return (torch.rand(1, 32, 32) + i / 6 - 1).clamp(-1, 1), i % 10  # other pixels at each look


def send(number):
    return lambda: os.kill(os.getpid(), number)


def crash():
    raise RuntimeError("the power failed")


def weights(ddpm):
    return torch.cat([p.flatten() for p in ddpm.model.parameters()])
