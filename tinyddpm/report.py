"""The report of `tinyddpm eval`: every figure beside its floor, and the pictures that explain them."""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from .classifier import classify, features, load_classifier
from .data import from_uint8, mnist, to_uint8, writable_folder, write_whole
from .likelihood import bits_per_dim
from .metrics import (
    frechet_digit_distance,
    inception_score,
    kernel_distance,
    memorisation,
    nearest,
    precision_recall,
    train_on_synthetic,
)
from .pipeline import DDPM
from .viz import image_grid, save_curves, save_picture

BATCH = 200  # images sampled at once, and kept at once
SWEEP = 1000  # samples for each point of a plot, at most
SCALES = (0.5, 1.0, 1.5, 2.0, 3.0)
STEPS = (5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Draw:
    """Which samples: the same number of each digit, seeds from `seed` on."""

    n: int
    steps: int
    scale: float
    sampler: str
    seed: int

    def labels(self, ddpm: DDPM) -> Tensor | None:
        classes = ddpm.model.num_classes
        return None if classes is None else torch.arange(self.seed, self.seed + self.n) % classes

    def images(self, ddpm: DDPM, folder: Path) -> Tensor:
        """(n, 1, 32, 32), rounded to 256 grey values as real digits are. Each batch is kept in the folder
        as soon as it is there, and is not drawn again."""
        kept = writable_folder(folder / f"{self.sampler}-{self.steps}-{self.scale:g}-{self.seed}")
        y, seeds = self.labels(ddpm), torch.arange(self.seed, self.seed + self.n)
        x = []
        with tqdm(total=self.n, desc=f"{self.steps} steps, scale {self.scale:g}", disable=None) as bar:
            for start in range(0, self.n, BATCH):
                part = slice(start, min(start + BATCH, self.n))
                size = part.stop - part.start
                path = kept / f"{start:05d}-{size}.npy"
                if not path.exists():
                    label = None if y is None else y[part]
                    count = size if y is None else None
                    images = ddpm.sample(label, count, self.steps, self.sampler, self.scale, seeds[part].tolist())
                    if not images.isfinite().all():
                        raise ValueError(f"the samples of seeds {part.start}..{part.stop - 1} hold NaN")
                    content = io.BytesIO()
                    np.save(content, to_uint8(images.cpu()).numpy())
                    write_whole(path, content.getvalue())
                x.append(from_uint8(torch.from_numpy(np.load(path))))
                bar.update(size)
        return torch.cat(x)


class Kept(dict):
    """What was found so far, written to a JSON file with each new entry: an interruption loses nothing."""

    def __init__(self, path: Path, identity: dict):
        super().__init__(json.loads(path.read_text()) if path.exists() else {"of": identity})
        self.path = path
        if self["of"] != json.loads(json.dumps(identity)):
            raise ValueError(
                f"{path} reports on something else ({self['of']} and not {identity}): choose another folder"
            )

    def once(self, name: str, find: Callable[[], object]):
        """self[name], found now if it was not yet."""
        if name not in self:
            self[name] = find()
            write_whole(self.path, json.dumps(self, indent=1).encode())
        return self[name]


def evaluate(ddpm: DDPM, out: str | Path, draw: Draw, sweeps: bool = True) -> dict:
    """Measures draw's samples and writes to out: report.json, report.md, samples.png, worst.png,
    nearest.png and, with sweeps, scale.png and steps.png. Returns what report.json holds.

    Called again with the same arguments it goes on where it was interrupted. Raises ValueError for a model of
    other images than digits, for a number of samples that a figure cannot do with, for NaN samples and
    for a folder that holds the report of another model or other samples.
    """
    check_model(ddpm)
    classifier = load_classifier()
    check_n(draw.n, classifier.head.in_features)
    out = writable_folder(out)
    kept = Kept(out / "report.json", {"weights": fingerprint(ddpm), "draw": asdict(draw)})
    data = Real(classifier, draw.n)
    x, y = draw.images(ddpm, out / "samples"), draw.labels(ddpm)
    probabilities = classify(classifier, x)
    pictures(out, x, y, probabilities, data)
    figures = {**costless(classifier, x, y, data), **costly(x, y, data)}
    floors = {**costless(classifier, data.real, data.y_real, data), **costly(data.real, data.y_real, data)}
    for name in figures:
        kept.once(name, figures[name])
        if name in floors and name != "memorisation":
            kept.once(f"floor of {name}", floors[name])
        write_whole(out / "report.md", table(kept, draw).encode())
    if y is not None:
        kept.once("confusion", lambda: confusion(probabilities, y))
    kept.once("bits_per_dim", lambda: bits(ddpm, data))
    if sweeps:
        sweep(ddpm, draw, classifier, data, kept, out)
    write_whole(out / "report.md", table(kept, draw).encode())
    return kept


class Real:
    """Real digits: n of the training set for the floor, n of the test set to compare with, and all."""

    def __init__(self, classifier, n: int):
        (self.train, y_train), (self.test, self.y_test) = mnist().tensors(), mnist(train=False).tensors()
        order = Generator().manual_seed(0)
        chosen = torch.randperm(len(self.train), generator=order)[:n]
        self.real, self.y_real = self.train[chosen], y_train[chosen]
        self.order = torch.randperm(len(self.test), generator=order)
        self.features = features(classifier, self.test[self.order])  # any first part of it is a fair sample


Figures = dict[str, Callable[[], object]]


def costless(classifier, x: Tensor, y: Tensor | None, data: Real) -> Figures:
    """The figures that take seconds."""
    f, p, g = features(classifier, x), classify(classifier, x), data.features[: len(x)]
    figures = {
        "label_accuracy": lambda: float((p.argmax(1) == y).float().mean()),
        "frechet_digit_distance": lambda: frechet_digit_distance(f, g),
        "kernel_distance": lambda: kernel_distance(f, g),
        "inception_score": lambda: inception_score(p),
        "precision_recall": lambda: precision_recall(f, g),
    }
    if y is None:
        del figures["label_accuracy"]
    return figures


def costly(x: Tensor, y: Tensor | None, data: Real) -> Figures:
    """The figures that take minutes."""
    figures = {"memorisation": lambda: memorisation(x, data.train, data.test)}
    if y is not None:
        figures["train_on_synthetic"] = lambda: train_on_synthetic(x, y, data.test, data.y_test)
    return figures


def bits(ddpm: DDPM, data: Real, n: int = 100) -> tuple[float, float]:
    """Mean and standard error over n test digits, given their labels."""
    chosen = data.order[:n]
    x, y = data.test[chosen], None if ddpm.model.num_classes is None else data.y_test[chosen]
    ddpm.model.eval()
    denoiser = ddpm.denoiser(y)
    found = bits_per_dim(denoiser, x.to(ddpm.device), ddpm.schedule, generator=Generator().manual_seed(0))
    return float(found.mean()), float(found.std() / n**0.5)


def confusion(probabilities: Tensor, y: Tensor) -> list[list[int]]:
    """Row: the digit asked for. Column: the digit read."""
    k = probabilities.shape[1]
    return torch.bincount(y * k + probabilities.argmax(1), minlength=k * k).reshape(k, k).tolist()


def sweep(ddpm: DDPM, draw: Draw, classifier, data: Real, kept: Kept, out: Path) -> None:
    """Accuracy and distance against the guidance scale and against the number of steps."""
    n = min(draw.n, SWEEP)
    axes = {"steps": [steps for steps in STEPS if steps <= ddpm.schedule.T]}
    if ddpm.model.num_classes is not None:
        axes = {"scale": list(SCALES), **axes}
    for axis, values in axes.items():
        points = []
        for value in values:
            other = replace(draw, n=n, **{axis: value})

            def measure():
                x = other.images(ddpm, out / "samples")
                figures = costless(classifier, x, other.labels(ddpm), data)
                return {name: figures[name]() for name in ("label_accuracy", "frechet_digit_distance") if name in figures}

            points.append(kept.once(f"{axis} {value:g}", measure))
        curves = {name: [point[name] for point in points] for name in points[0]}
        floor = costless(classifier, data.real[:n], data.y_real[:n], data)
        save_curves(values, curves, {name: floor[name]() for name in curves}, axis, out / f"{axis}.png")


def pictures(out: Path, x: Tensor, y: Tensor | None, probabilities: Tensor, data: Real) -> None:
    """Ten samples a digit, the worst by the classifier's confidence, and training digits beside samples."""
    by_digit = torch.arange(len(x)) if y is None else y.argsort(stable=True).reshape(10, -1)[:, :10].flatten()
    save_picture(image_grid(x[by_digit[:100]], columns=10, enlarge=2), out / "samples.png")
    confidence = probabilities.max(1).values if y is None else probabilities.gather(1, y[:, None])[:, 0]
    save_picture(image_grid(x[confidence.argsort()[:50]], columns=10, enlarge=2), out / "worst.png")
    distance, index = nearest(x, data.train)
    closest = distance.argsort()[:20]
    pairs = torch.cat([x[closest], data.train[index[closest]]])
    save_picture(image_grid(pairs, columns=20, enlarge=2), out / "nearest.png")
