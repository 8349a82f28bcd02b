"""Options that several commands share, and their checks."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm import tqdm
from tyro.extras import literal_type_from_choices

from ..data import crop_to
from ..datasets.named import DATASETS
from ..diffusion import Denoiser
from ..editing.inpainting import HALVES
from ..evaluation.evaluate import NAMED_SAMPLERS, SampleSpec
from ..files import writable_folder
from ..pipeline import DDPM, load_pretrained
from ..samplers import Step
from ..schedules import SPACINGS
from ..trainer.recipes import RECIPES
from ..viz import frames_even_in_log_snr

DIGIT = 28  # pixels on a side of MNIST's images, without their border
GREYS = 16  # levels of a GIF: most of its bytes are noise
if TYPE_CHECKING:
    from builtins import str as DataName
    from builtins import str as Half
    from builtins import str as RecipeName
    from builtins import str as SamplerName
    from builtins import str as Spacing
else:  # types whose values the help shows
    SamplerName, Spacing, DataName, RecipeName, Half = (
        literal_type_from_choices(list(table)) for table in (NAMED_SAMPLERS, SPACINGS, DATASETS, RECIPES, HALVES)
    )


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """The options of every command that draws. The command line shows comments, and what follows here, as help.

    Args:
        steps: from noise to image, at most T (1000 for the shipped weights)
        scale: of guidance: 0 ignores the label, 1 is the conditional model, above 1 the label weighs more
    """

    steps: int = 50
    scale: float = 1.0
    seed: int = 0  # of the first image; each image after it has the next seed
    weights: Path | None = None  # checkpoint file; None: the shipped weights
    device: str = "cpu"  # cpu, cuda or mps

    def load(self) -> DDPM:
        number_in(self.seed, "--seed", 0, 2**62)
        return DDPM.load(self.weights, self.device) if self.weights else load_pretrained(device=self.device)


@dataclass(frozen=True, kw_only=True)
class Sampling(Drawing):
    """The options of every command that leaves the choice of the sampler."""

    sampler: SamplerName = "ddim"  # how noise becomes an image
    grid: Spacing = "uniform"  # spacing of the times that the sampler visits
    eta: float = 0.0  # fresh noise of ddim, from 0 (none) to 1 (as much as ddpm)

    def spec(self, n: int) -> SampleSpec:
        return SampleSpec(n, self.steps, self.scale, self.sampler, self.seed, self.eta, self.grid)

    def arguments(self, ddpm: DDPM, y: list[int]) -> dict:
        """Those of ddpm.sample and ddpm.sample_steps, for one image of each label."""
        labels = {"n": len(y)} if ddpm.model.num_classes is None else {"y": y}
        how = self.spec(len(y)).arguments(ddpm.schedule)
        return (
            labels | {"seeds": range(self.seed, self.seed + len(y))} | {k: how[k] for k in ("sampler", "scale", "grid")}
        )

    def draw(self, ddpm: DDPM, y: list[int]) -> Tensor:
        """One image of each label, without the border of 28x28 images, under a progress bar."""
        with tqdm(total=len(y) * self.steps, desc="sampling", leave=False, disable=None) as bar:
            x = ddpm.sample(**self.arguments(ddpm, y), guide=partial(counted, bar=bar))
        return crop_to(x.cpu(), shown_size(ddpm))


def counted(denoiser: Denoiser, bar: tqdm) -> Denoiser:
    """The denoiser, moving the bar by its images at each new time."""
    seen = None

    def counting(x_t: Tensor, t: Tensor) -> Tensor:
        nonlocal seen
        bar.update(len(x_t) if int(t[0]) != seen else 0)
        seen = int(t[0])
        return denoiser(x_t, t)

    return counting


def frames_of(steps: Iterable[Step], total: int, ddpm: DDPM, frames: int) -> list[Tensor]:
    """At most `frames` x_t of a trajectory, even in log-SNR, and the last one; under a progress bar."""
    steps = list(tqdm(steps, "denoising", total + 1, leave=False, disable=None))
    log_snr = ddpm.schedule.log_snr[torch.tensor([step.t for step in steps])]
    return [steps[i].x_t for i in frames_even_in_log_snr(log_snr, frames)]


def shown_size(ddpm: DDPM) -> int:
    """The side of images without the border of 28x28 ones. Old weights, which do not name their data, draw digits."""
    data = ddpm.notes.get("data", "mnist" if ddpm.image_shape == (1, 32, 32) else "")
    return DIGIT if data in DATASETS and DATASETS[data].smallest == DIGIT else ddpm.image_shape[-1]


def labels_in(digits: str) -> list[int]:
    """[2, 0] for "20", [3, 14] for "3,14"."""
    names = digits.split(",") if "," in digits else list(digits)
    if not names or not all(name.isascii() and name.isdigit() for name in names):
        raise ValueError(f"expected digits such as 2026, or labels with commas such as 3,14, got {digits!r}")
    return [int(name) for name in names]


def number_in(n: int, option: str, least: int = 1, most: int = 10_000) -> int:
    if not least <= n <= most:
        raise ValueError(f"{option} must be in {least}..{most}, got {n}")
    return n


def file_of(path: Path, *endings: str) -> Path:
    """A file with one of these endings, in a folder that can be written."""
    if path.suffix not in endings or path.is_dir():
        raise ValueError(f"expected a {' or '.join(endings)} file, got {path.name!r}")
    return writable_folder(path.parent) / path.name
