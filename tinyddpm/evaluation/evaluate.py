"""The one way to draw samples and to measure them: `score` for two metrics, `evaluate` for a report with all."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..data import from_uint8, to_uint8
from ..extensions.score_sde import euler_maruyama, predictor_corrector
from ..files import digest, read_checkpoint, writable_folder, write_checkpoint
from ..guidance import Scale, check_scale
from ..pipeline import DDPM, Guide
from ..samplers import SAMPLERS, Sampler, ddim
from ..schedules import Grid, Schedule, choose, require
from ..tools.jobs import alone, needs, progress, say
from ..tools.plots import save_panels
from .bits import add_bits
from .classifier import not_finite
from .judge import compared
from .judges import Reference, check_measurable, in_words, reference_for
from .metrics import METRICS, ImageBatch
from .report import ReportCache, save_pictures

NAMED_SAMPLERS = SAMPLERS | {"euler_maruyama": euler_maruyama, "predictor_corrector": predictor_corrector}
SWEEPS = {"scale": (0.5, 1.0, 1.5, 2.0, 3.0), "steps": (5, 10, 20, 50, 100)}
SWEEP_SAMPLES = 1000  # for each point of a curve, at most
CURVES = ("label_accuracy", "frechet_digit_distance")


@dataclass(frozen=True)
class Score:
    """The share of samples that the classifier reads as their label (None without labels) and the Frechet digit
    distance, both also of as many real images; the CPU time of an image; and the samples."""

    accuracy: float | None
    distance: float
    floor_accuracy: float
    floor_distance: float
    milliseconds: float
    samples: ImageBatch


def score(
    ddpm: DDPM,
    n: int = 1000,
    steps: int = 50,
    sampler: Sampler | str = ddim,
    scale: Scale = 1.0,
    seed: int = 0,
    grid: Grid | None = None,
    guide: Guide | None = None,
    batch_size: int = 200,
    reference: Reference | None = None,
    folder: Path | None = None,
) -> Score:
    """Draws n samples (see DDPM.sample) with seeds from `seed` on and the labels of real images, rounds them to
    256 grey values as those are, and compares them with as many of the test set: of the data that the model was trained
    on (see reference_for). Batches are kept in `folder` and read from it: one for each model and each way to sample.
    Raises ValueError for a model of data without a judge, for too few or too many samples, and for samples that are not
    finite."""
    reference = reference_for(ddpm) if reference is None else reference
    check_measurable(ddpm, n, seed, reference)
    seeds, started = torch.arange(seed, seed + n), time.process_time()
    y = None if ddpm.model.num_classes is None else reference.labels[seeds % len(reference.labels)]
    sample = partial(ddpm.sample, steps=steps, sampler=sampler, scale=scale, grid=grid, guide=guide)
    parts = progress(torch.arange(n).split(batch_size), "batches of samples")
    x = torch.cat([draw(sample, None if y is None else y[part], seeds[part], folder, reference) for part in parts])
    milliseconds = (time.process_time() - started) * 1000 / n
    samples, floor = reference.batch(x, y), reference.floor(n)
    ours, real = ([batch.measure(METRICS[name]) for name in CURVES] for batch in (samples, floor))
    return Score(ours[0], ours[1], real[0], real[1], milliseconds, samples)


def draw(
    sample: Callable[..., Tensor], y: Tensor | None, seeds: Tensor, folder: Path | None, reference: Reference
) -> Tensor:
    """A batch as the classifier sees it, (b, 1, 32, 32), read from the folder if it holds these seeds and labels."""
    labels = "" if y is None else "-" + digest({}, {"labels": y})[:16]
    path = folder and folder / f"{seeds[0]}-{seeds[-1]}{labels}.safetensors"
    if path and path.exists():
        with contextlib.suppress(ValueError):  # damaged: drawn again
            return from_uint8(read_checkpoint(path, 2)[1]["pixels"])
    x = sample(y, n=len(seeds) if y is None else None, seeds=seeds.tolist(), batch_size=len(seeds))
    if bad := not_finite(x):
        raise ValueError(f"{bad} of the samples of seeds {seeds[0]}..{seeds[-1]} hold NaN or infinite values")
    pixels = to_uint8(reference.judge.show(x.cpu()))
    if path:
        write_checkpoint(path, 2, {}, {"pixels": pixels})
    return from_uint8(pixels)


def fingerprint(model: nn.Module, **more: str) -> str:
    """A hash of a network's arguments and weights, and of more."""
    arguments = repr(getattr(model, "arguments", type(model).__name__))
    return digest({"arguments": arguments, **more}, model.state_dict())[:16]


@dataclass(frozen=True)
class SampleSpec:
    """The samples of a report, in the names of the command line. eta and spacing: see ddim and Schedule.grid."""

    n: int = 1000
    steps: int = 50
    scale: float = 1.0
    sampler: str = "ddim"
    seed: int = 0
    eta: float = 0.0
    spacing: str = "uniform"

    def arguments(self, schedule: Schedule) -> dict:
        """The arguments of `score`. Raises ValueError for those that the sampler does not take, and for eta with
        another one than ddim."""
        samplers: Mapping[str, Sampler] = {"ddim": partial(ddim, eta=self.eta)} if self.eta else NAMED_SAMPLERS
        sampler = choose(samplers, self.sampler, "sampler with eta" if self.eta else "sampler")
        grid = schedule.grid(self.steps, self.spacing)
        check_scale(self.scale)
        sampler(lambda x, t: x, torch.zeros(1, 1, 1, 1), schedule, grid)  # refuses what does not fit it
        return {"n": self.n, "seed": self.seed, "sampler": sampler, "scale": self.scale, "grid": grid}

    def score(self, ddpm: DDPM, folder: Path, reference: Reference) -> Score:
        own = folder / f"{self.sampler}-{self.steps}-{self.scale}-{self.eta}-{self.spacing}"
        return score(ddpm, **self.arguments(ddpm.schedule), reference=reference, folder=own)


def evaluate(
    ddpm: DDPM,
    out: str | Path,
    spec: SampleSpec = SampleSpec(),
    sweeps: bool | Mapping[str, Sequence[float]] = True,
    metrics: Mapping[str, tuple] = METRICS,
    reference: Reference | None = None,
    bits: int = 100,
) -> dict:
    """Measures the samples of spec and writes report.json, report.md, samples.png, worst.png, nearest.png and a plot
    for each sweep, a field of spec and its values (True: SWEEPS), to out. bits is the number of test images whose bits
    per dimension are bounded, each by 2 T calls of the network; 0: no bound. Returns what report.json holds. Called
    again, it resumes where it was interrupted. Raises ValueError as `score` does, without matplotlib unless sweeps is
    False, and for a folder that holds the report of another model or other samples, or in which one is being written.
    """
    reference = reference_for(ddpm) if reference is None else reference
    check_measurable(ddpm, spec.n, spec.seed, reference)
    least, bounded = 2 if bits else 0, f"{reference.judge.noun}s whose bits are bounded"
    require(bits >= least, f"the number of {bounded} must be at least {least}", bits)
    spec.arguments(ddpm.schedule)
    if curves := SWEEPS if sweeps is True else sweeps or {}:
        needs("train", "a report with plots", "matplotlib")
    with alone(writable_folder(out), "write to another one (--out)"):
        weights = fingerprint(ddpm.model, betas=repr(ddpm.schedule.beta.tolist()), predicts=ddpm.predicts)
        what = {"weights": weights, "data": ddpm.notes.get("data", "unknown"), "samples": asdict(spec)}
        what |= {"classifier": fingerprint(reference.classifier)}
        what |= {} if reference.name == "mnist" else {"beside": reference.name}
        cache = ReportCache(Path(out) / "report.json", what)
        if (kept := cache.get("bits_per_dim")) and kept[2:] != [bits or kept[-1]]:  # of another number of digits
            del cache["bits_per_dim"]
        measure(ddpm, spec, metrics, cache, reference)
        for axis, values in curves.items():
            sweep(ddpm, replace(spec, n=min(spec.n, SWEEP_SAMPLES)), axis, values, cache, reference)
        if bits and not hasattr(ddpm.model, "steps"):
            add_bits(cache, ddpm, reference, bits, plots=bool(curves))
    return cache


def measure(ddpm: DDPM, spec: SampleSpec, metrics: Mapping, cache: ReportCache, reference: Reference) -> None:
    """Draws the samples, shows them, and adds each metric of them and of as many real images to the report."""
    say(f"evaluating: {spec.n} samples in {spec.steps} steps")
    samples, floor = spec.score(ddpm, cache.samples, reference).samples, reference.floor(spec.n)
    save_pictures(cache.folder, samples)
    cache.write()
    for name, find in compared(samples, floor, metrics):
        cache.once(name, find)


def point(ddpm: DDPM, spec: SampleSpec, folder: Path, reference: Reference) -> dict[str, float]:
    """What the curves show of these samples."""
    found = spec.score(ddpm, folder, reference)
    return {name: value for name, value in zip(CURVES, (found.accuracy, found.distance)) if value is not None}


def sweep(ddpm: DDPM, spec: SampleSpec, axis: str, values: Sequence, cache: ReportCache, reference: Reference):
    """Plots accuracy and distance against one field of spec; not against the scale of a model without labels, and not
    for a network of a few steps."""
    if axis == "scale" and ddpm.model.num_classes is None or hasattr(ddpm.model, "steps"):
        return
    values = [v for v in values if axis != "steps" or v <= ddpm.schedule.T] or [ddpm.schedule.T]
    specs = {f"{axis} {v:g}": replace(spec, **{axis: v}) for v in values}
    points = [cache.once(name, point, ddpm, own, cache.samples, reference) for name, own in specs.items()]
    panels, noun = {}, reference.judge.noun
    for name in points[0]:
        floor = reference.floor(spec.n).measure(METRICS[name])
        ours = [found[name] for found in points]
        panels[in_words(name, noun)] = {"samples": ours, f"real {noun}s": [floor] * len(points)}
    save_panels(values, panels, cache.folder / f"{axis}.png", label=f"{axis} (n = {spec.n})")
