"""Which samples are looked at and measured, and the folder that keeps them: none is drawn twice."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..data import from_uint8, pad_to, to_uint8
from ..files import writable_folder, write_whole
from ..pipeline import DDPM
from ..viz import image_grid

BATCH = 200  # images sampled at once, and kept at once


@dataclass(frozen=True)
class Draw:
    """Which samples: n of them, with seeds from `seed` on."""

    n: int
    steps: int
    scale: float
    sampler: str
    seed: int
    eta: float = 0.0
    spacing: str = "uniform"

    @property
    def seeds(self) -> Tensor:
        return torch.arange(self.seed, self.seed + self.n)

    def labels(self, pool: Tensor) -> Tensor:
        """Seed k draws label k of the pool, which repeats: so the labels have the pool's proportions."""
        return pool[self.seeds % len(pool)]

    def images(self, ddpm: DDPM, y: Tensor | None, folder: Path) -> Tensor:
        """(n, 1, 32, 32), rounded to 256 grey values as real digits are. Each batch is kept in the folder
        as soon as it is there, and is not drawn again for the same labels."""
        way = f"{self.sampler}-{self.steps}-{self.scale!r}" + (f"-{self.eta!r}" if self.eta else "")
        way += "" if self.spacing == "uniform" else f"-{self.spacing}"
        kept = folder / fingerprint(ddpm) / way
        x = []
        for chosen in tqdm(
            torch.arange(self.n).split(BATCH), f"{self.steps} steps, scale {self.scale:g}", disable=None
        ):
            seeds = self.seeds[chosen]
            labels = None if y is None else y[chosen]
            asked = "" if y is None else "-" + short_hash(repr(labels.tolist()).encode())
            path = kept / f"{seeds[0]}-{seeds[-1]}{asked}.npy"
            if not path.exists():
                content = io.BytesIO()
                np.save(content, to_uint8(self.batch(ddpm, labels, seeds)).numpy())
                write_whole(writable_folder(kept) / path.name, content.getvalue())
            x.append(from_uint8(torch.from_numpy(np.load(path))))
        return torch.cat(x)

    def batch(self, ddpm: DDPM, y: Tensor | None, seeds: Tensor) -> Tensor:
        n = len(seeds) if y is None else None
        how = self.steps, self.sampler, self.scale, seeds.tolist(), self.eta
        images = ddpm.sample(y, n, *how, spacing=self.spacing)
        if bad := int((~images.flatten(1).isfinite().all(1)).sum()):
            raise ValueError(f"{bad} of the samples of seeds {seeds[0]}..{seeds[-1]} hold NaN or infinite values")
        return pad_to(images.cpu())


def few_of_each(ddpm: DDPM) -> Tensor:
    """Four images a class, of the first 50, or 40 without classes, from the same noise each time."""
    classes = ddpm.model.num_classes
    if classes is None:
        return image_grid(ddpm.sample(n=40, steps=20, seeds=range(40)), columns=20)
    y = torch.arange(min(classes, 50)).repeat_interleave(4)
    return image_grid(ddpm.sample(y, steps=20, seeds=range(len(y))), columns=20)


def fingerprint(ddpm: DDPM) -> str:
    """A name for all that decides what this model draws."""
    return digest(ddpm.model, ddpm.schedule.beta.numpy().tobytes() + ddpm.predicts.encode())


def digest(model: torch.nn.Module, more: bytes = b"") -> str:
    """The start of a sha256 over a network's arguments and weights, and what else there is."""
    weights = (weight.detach().cpu().contiguous().numpy() for weight in model.state_dict().values())
    return short_hash(more + repr(model.arguments).encode(), *(weight.tobytes() for weight in weights))


def short_hash(*parts: bytes) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()[:16]
