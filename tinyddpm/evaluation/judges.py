"""Who judges which samples: for each data set that can be measured a classifier, and the real images beside them."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Generator, Tensor

from ..data import ImageDataset, pad_to
from ..datasets.named import DATASETS, LARGEST, load_data
from ..datasets.resized import resize
from ..files import asset
from ..pipeline import DDPM
from ..schedules import choose, require
from .classifier import Classifier, features, load_classifier, read
from .metrics import ImageBatch


def reduce(x: Tensor) -> Tensor:
    """Digits of any size as the classifier knows them: resized to 28x28 without aliasing, then padded to 32x32."""
    return pad_to(resize(x, 28))


@dataclass(frozen=True)
class Judge:
    """What measures models of one data set: a classifier, by its name in assets/weights or as the Path of a file; what
    an image is called; the sides of the images that it measures; and how these become its (n, 1, 32, 32)."""

    file: str | Path
    noun: str
    sides: Sequence[int] = (28, 32)
    show: Callable[[Tensor], Tensor] = pad_to

    def load(self) -> Classifier:
        """The classifier. Raises ValueError as load_classifier does."""
        return load_classifier(self.file if isinstance(self.file, Path) else asset(f"weights/{self.file}.safetensors"))


JUDGES = {  # by the name of the data set in DATASETS
    "mnist": Judge("digit-classifier", "digit"),
    "mnist-resized": Judge("digit-classifier", "digit", range(32, LARGEST + 1), reduce),
    "fashion": Judge("garment-classifier", "garment"),
}


def noun_of(report: dict) -> str:
    """What an image is called in a report, which says beside which data it is if these are not MNIST as it is."""
    return JUDGES[report["of"].get("beside", "mnist")].noun


def in_words(metric: str, noun: str) -> str:
    """The name of a metric of such images."""
    return metric.replace("_", " ").replace("digit", noun)


class Reference:
    """The real images beside which samples are measured, MNIST by default, in a random order: the first n test images
    are a fair sample. Samples take the labels of the training images, since the classes of MNIST differ in size.

    train, test  other images of that data set than all of it
    data         a name in JUDGES
    size         the side of the images that are compared; only resized ones depend on it
    root         see load_data, which raises ValueError for data that are missing
    """

    def __init__(
        self,
        train: ImageDataset | None = None,
        test: ImageDataset | None = None,
        data: str = "mnist",
        size: int = 32,
        root: str | Path | None = None,
    ):
        self.name, self.judge = data, choose(JUDGES, data, "data set with a judge")
        self.classifier = self.judge.load()
        self.floors: dict[int, ImageBatch] = {}
        own = enumerate((train, test))
        self.data = [cast(ImageDataset, load_data(data, root, size, k == 0)) if d is None else d for k, d in own]
        (self.train, y_train), (self.test, self.test_labels) = (self.shown(part) for part in self.data)
        generator = Generator().manual_seed(0)
        self.order = torch.randperm(len(self.train), generator=generator)
        self.test_order = torch.randperm(len(self.test), generator=generator)
        self.labels = y_train[self.order]

    def shown(self, data: ImageDataset) -> tuple[Tensor, Tensor]:
        """All images as the classifier sees them, and their labels."""
        parts = (data[part] for part in torch.arange(len(data)).split(1000))
        x, y = zip(*((self.judge.show(x), y) for x, y in parts))
        return torch.cat(x), torch.cat(y)

    @functools.cached_property
    def test_features(self) -> Tensor:
        return features(self.classifier, self.test[self.test_order])

    def batch(self, x: Tensor, y: Tensor | None) -> ImageBatch:
        """Images (n, 1, 32, 32) with all that their metrics need. Raises ValueError for invalid ones."""
        real = self.test_features[: len(x)], self.train, self.test, self.test_labels
        return ImageBatch(x, y, *read(self.classifier, x), *real)

    def floor(self, n: int) -> ImageBatch:
        """n training images."""
        if n not in self.floors:
            self.floors[n] = self.batch(self.train[self.order[:n]], self.labels[:n])
        return self.floors[n]


def data_of(ddpm: DDPM) -> str:
    """The name in DATASETS, if there is one, of what a model was trained on; "unknown" if its notes do not say."""
    name = str(ddpm.notes.get("data", "unknown")).lower()
    theirs = {row.torchvision_class.lower(): own for own, row in DATASETS.items() if row.torchvision_class}
    return theirs.get(name, name)


def reference_for(ddpm: DDPM, root: str | Path | None = None) -> Reference:
    """The real images beside which a model's samples are measured: those that it was trained on, read from `root` where
    they do not ship (see load_data), or MNIST if its notes do not say, or name what nothing here can judge."""
    name = data_of(ddpm) if data_of(ddpm) in JUDGES else "mnist"
    return load_reference(name, max(32, side if (side := ddpm.image_shape[-1]) in JUDGES[name].sides else 32), root)


@functools.cache
def load_reference(name: str, size: int, root: str | Path | None) -> Reference:
    return Reference(data=name, size=size, root=root)


def check_measurable(ddpm: DDPM, n: int, seed: int, reference: Reference) -> None:
    """Raises ValueError unless the model draws what the reference holds, and n samples can be compared with as many
    test images."""
    (c, h, w), classes, data = ddpm.image_shape, ddpm.model.num_classes, ddpm.notes.get("data", "unknown")
    judge, head, most = reference.judge, reference.classifier.head, len(reference.test)
    fits = c == 1 and h == w and h in judge.sides and classes in (None, head.out_features)
    sides = f"{judge.sides[0]} to {judge.sides[-1]}" if len(judge.sides) > 2 else " or ".join(map(str, judge.sides))
    wanted = f"beside {reference.name} only models of it can be measured, in grey and {sides} pixels wide, and "
    wanted += f"there are judges of {', '.join(JUDGES)}"
    found = f"this one draws images {ddpm.image_shape} of {classes} classes and was trained on {data}"
    require(fits and data_of(ddpm) in (reference.name, "unknown"), wanted, found)
    wanted = f"more samples than the classifier has features and as many test {judge.noun}s as samples: take n in "
    wanted += f"{head.in_features + 1}..{most} and a seed from 0"
    require(head.in_features < n <= most and 0 <= seed < 2**62, f"the distance needs {wanted}", f"{n} and {seed}")
