"""`tinyddpm eval`: draws samples, measures them beside real digits and keeps all that it finds."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor
from tqdm import tqdm

from ..data import crop_to, mnist
from ..extensions.likelihood import bits_per_dim, denoising_error
from ..files import writable_folder, write_whole
from ..pipeline import DDPM
from .classifier import DigitClassifier, classify, features, load_classifier
from .draw import Draw, digest, fingerprint
from .metrics import (
    frechet_digit_distance,
    inception_score,
    kernel_distance,
    memorisation,
    precision_recall,
    train_on_synthetic,
)
from .report import BITS, Kept, page, save_curves, save_pictures

SWEEP = 1000  # samples for each point of a plot, at most
SCALES = (0.5, 1.0, 1.5, 2.0, 3.0)
STEPS = (5, 10, 20, 50, 100)
MOST = 10_000  # the test set
NEED_LABELS = ("label_accuracy", "train_on_synthetic")
NO_FLOOR = ("memorisation",)  # it holds its own


def evaluate(ddpm: DDPM, out: str | Path, draw: Draw, sweeps: bool = True) -> dict:
    """Measures draw's samples and writes to out: report.json, report.md, samples.png, worst.png,
    nearest.png and, with sweeps, scale.png and steps.png. Returns what report.json holds.

    Called again with the same arguments it goes on where it was interrupted. Raises ValueError for a
    model of other images than digits, for a number of samples that a figure cannot do with, for NaN
    samples and for a folder that holds the report of another model or other samples.
    """
    classifier = load_classifier()
    check(ddpm, draw.n, draw.seed, classifier.head.in_features)
    out = writable_folder(out)
    of = {"weights": fingerprint(ddpm), "data": ddpm.notes.get("data", "unknown")}
    of |= {"classifier": digest(classifier), "draw": asdict(draw), "labels": "those of real digits"}
    kept = Kept(out / "report.json", of)
    data = Real(classifier, draw.n)
    x, y = samples(ddpm, draw, data, out)
    kept.write()
    probabilities = classify(classifier, x)
    save_pictures(out, x, y, probabilities, data.train)
    figures = figures_of(classifier, x, y, data)
    floors = figures_of(classifier, data.real, data.y_real, data)
    if y is not None:
        kept.once("confusion", lambda: confusion(probabilities, y))
    for name in tqdm(figures, "figures", disable=None):
        kept.once(name, figures[name])
        if name not in NO_FLOOR:
            kept.once(f"floor of {name}", floors[name])
        write_whole(out / "report.md", page(kept).encode())
    if sweeps:
        sweep(ddpm, draw, classifier, data, kept, out)
    kept.once("bits_per_dim", lambda: bits(ddpm, data))
    write_whole(out / "report.md", page(kept).encode())
    return kept


def check(ddpm: DDPM, n: int, seed: int, features: int) -> None:
    if ddpm.image_shape not in ((1, 32, 32), (1, 28, 28)) or ddpm.model.num_classes not in (None, 10):
        raise ValueError(
            "only models of MNIST's digits can be measured, since the classifier knows nothing else: this "
            f"one draws images {ddpm.image_shape} of {ddpm.model.num_classes} classes"
        )
    if (data := str(ddpm.notes.get("data", "unknown"))).lower() not in ("mnist", "unknown"):
        raise ValueError(f"only models of MNIST's digits can be measured: this one was trained on {data}")
    if not 0 <= seed < 2**62:
        raise ValueError(f"seeds count from 0, got {seed}")
    if not features < n <= MOST:
        raise ValueError(
            f"the distance needs more samples than the classifier has features, and as many real test "
            f"digits as samples: take n in {features + 1}..{MOST}, got {n}"
        )


class Real:
    """Real digits: n of the training set for the floor, n of the test set to compare with, and all.

    Samples are asked for with the labels of the floor's digits: digits of MNIST are not equally frequent,
    and as many real ones of each would be 0.01 further from the test set.
    """

    def __init__(self, classifier: DigitClassifier, n: int):
        (self.train, y_train), (self.test, self.y_test) = mnist().tensors(), mnist(train=False).tensors()
        order = Generator().manual_seed(0)
        chosen = torch.randperm(len(self.train), generator=order)
        self.labels = y_train[chosen]
        self.real, self.y_real = self.train[chosen[:n]], self.labels[:n]
        self.order = torch.randperm(len(self.test), generator=order)
        self.features = features(classifier, self.test[self.order])  # any first part of it is a fair sample


def samples(ddpm: DDPM, draw: Draw, data: Real, out: Path) -> tuple[Tensor, Tensor | None]:
    """Images and what was asked for: None of a model without labels."""
    y = None if ddpm.model.num_classes is None else draw.labels(data.labels)
    return draw.images(ddpm, y, out / "samples"), y


Figures = dict[str, Callable[[], object]]


def figures_of(classifier: DigitClassifier, x: Tensor, y: Tensor | None, data: Real) -> Figures:
    """Each figure of images x, found when it is called; the last two take minutes."""
    f, p, g = features(classifier, x), classify(classifier, x), data.features[: len(x)]
    figures = {
        "label_accuracy": lambda: float((p.argmax(1) == y).float().mean()),
        "frechet_digit_distance": lambda: frechet_digit_distance(f, g),
        "kernel_distance": lambda: kernel_distance(f, g),
        "inception_score": lambda: inception_score(p),
        "precision_recall": lambda: precision_recall(f, g),
        "memorisation": lambda: memorisation(x, data.train, data.test),
        "train_on_synthetic": lambda: train_on_synthetic(x, y, data.test, data.y_test),
    }
    return figures if y is not None else {n: figures[n] for n in figures if n not in NEED_LABELS}


def bits(ddpm: DDPM, data: Real, n: int = BITS) -> tuple[float, float]:
    """Mean and standard error over n test digits, given their labels; with the variances that the model's
    error on n training digits asks for."""
    ddpm.model.eval()
    labelled, generator = ddpm.model.num_classes is not None, Generator().manual_seed(0)
    denoiser = ddpm.denoiser(data.y_real[:n] if labelled else None)
    real = crop_to(data.real[:n], ddpm.image_shape[-1]).to(ddpm.device)
    error = denoising_error(denoiser, real, ddpm.schedule, generator=generator)
    chosen = data.order[:n]
    denoiser = ddpm.denoiser(data.y_test[chosen] if labelled else None)
    x = crop_to(data.test[chosen], ddpm.image_shape[-1]).to(ddpm.device)
    found = bits_per_dim(denoiser, x, ddpm.schedule, None, error, generator)
    return float(found.mean()), float(found.std() / n**0.5)


def confusion(probabilities: Tensor, y: Tensor) -> list[list[int]]:
    """Row: the digit asked for. Column: the digit read."""
    k = probabilities.shape[1]
    return torch.bincount(y * k + probabilities.argmax(1), minlength=k * k).reshape(k, k).tolist()


def sweep(ddpm: DDPM, draw: Draw, classifier: DigitClassifier, data: Real, kept: Kept, out: Path) -> None:
    """Accuracy and distance against the guidance scale and against the number of steps."""
    n = min(draw.n, SWEEP)
    axes = {"steps": [steps for steps in STEPS if steps <= ddpm.schedule.T] or [ddpm.schedule.T]}
    if ddpm.model.num_classes is not None:
        axes = {"scale": list(SCALES), **axes}
    for axis, values in axes.items():
        others = [replace(draw, n=n, **{axis: value}) for value in values]
        points = [
            kept.once(f"{axis} {v:g}", partial(point, ddpm, other, classifier, data, out))
            for v, other in zip(values, others)
        ]
        curves = {name: [found[name] for found in points] for name in points[0]}
        floor = figures_of(classifier, data.real[:n], data.y_real[:n], data)
        floors = {name: floor[name]() for name in curves}
        save_curves(values, curves, floors, f"{axis} (n = {n})", out / f"{axis}.png")


def point(ddpm: DDPM, draw: Draw, classifier: DigitClassifier, data: Real, out: Path) -> dict[str, float]:
    """What a plot shows of one setting."""
    figures = figures_of(classifier, *samples(ddpm, draw, data, out), data)
    return {name: figures[name]() for name in ("label_accuracy", "frechet_digit_distance") if name in figures}
