"""Data sets by name: MNIST, those that torchvision downloads, and a folder of images."""

import gzip
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..data import ImageDataset, mnist
from ..files import writable_folder, write_whole
from ..schedules import choose, require
from .own import LazyImageDataset, image_folder, torchvision_datasets
from .resized import Resized

LARGEST = 128
IDX = tuple(f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1"))
LETTERS = tuple(f"emnist-letters-{name.replace('t10k', 'test')}" for name in IDX)


@dataclass(frozen=True)
class Named:
    """A data set by name: its class in torchvision.datasets, called with `options`, which expects `files` in `folder`
    below root; `prepare` corrects its (images, labels), and without padding its images have the size `smallest`."""

    torchvision_class: str = ""
    folder: str = ""
    files: tuple[str, ...] = ()
    options: dict = field(default_factory=dict)
    classes: int = 10
    prepare: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None
    smallest: int = 28

    def read(self, root: Path, train: bool) -> tuple[Tensor, Tensor]:
        """Images (n, c, h, w) and labels. Missing files are downloaded; raises ValueError if that fails."""
        from filelock import FileLock

        kind, folder = getattr(torchvision_datasets(), self.torchvision_class), root / self.folder
        try:
            unpack(folder, self.files)
            found = kind(root, train=train, **self.options)
        except Exception:  # missing and damaged files raise errors of many types
            try:
                with FileLock(writable_folder(folder) / "download.lock"):  # one of several processes downloads
                    found = kind(root, train=train, download=True, **self.options)
            except Exception as error:
                why = f"{self.torchvision_class} can be neither read nor downloaded ({' '.join(str(error).split())})"
                advice = f"put {', '.join(self.files)} into {folder} by hand, replacing what is there"
                raise ValueError(f"{why}: {advice}") from error
        images, labels = torch.as_tensor(found.data), torch.as_tensor(found.targets)
        images, labels = self.prepare(images, labels) if self.prepare else (images, labels)
        return (images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)).contiguous(), labels


def unpack(folder: Path, files: tuple[str, ...]) -> None:
    """Unpacks IDX files that were put there by hand, as torchvision does only where their checksum is its source's."""
    for packed in (folder / file for file in files if file.endswith("ubyte.gz")):
        if packed.is_file() and not packed.with_suffix("").exists():
            write_whole(packed.with_suffix(""), gzip.decompress(packed.read_bytes()))


DATASETS = {
    "mnist": Named(),
    "mnist-resized": Named(smallest=32),
    "fashion": Named("FashionMNIST", "FashionMNIST/raw", IDX),
    "kmnist": Named("KMNIST", "KMNIST/raw", IDX),
    # stored transposed, and counted from 1
    "letters": Named("EMNIST", "EMNIST/raw", LETTERS, {"split": "letters"}, 26, lambda x, y: (x.mT, y - 1)),
    "cifar10": Named("CIFAR10", "", ("cifar-10-python.tar.gz",), smallest=32),
    "folder": Named(smallest=8),
}


def load_data(
    name: str, root: str | Path | None = None, size: int | None = None, train: bool = True, skip_broken: bool = False
) -> ImageDataset | LazyImageDataset:
    """A data set by its name in DATASETS: mnist or mnist-resized, which ship with the package; fashion, kmnist, letters
    or cifar10, which are downloaded; or a folder of images. Items are ((c, size, size) float32 in [-1, 1], label).

    root         the folder of images, or where downloaded files are kept (default: the cache folder)
    size         height and width in pixels, by default 32: mnist-resized and a folder are resized, others are padded
    train        the training or the test images; a folder has no such division
    skip_broken  leave out a folder's broken images

    Raises ValueError for an unknown name, a size out of range, and files that are missing, broken or not downloaded.
    """
    row, size = choose(DATASETS, name, "data set"), 32 if size is None else size
    require(row.smallest <= size <= LARGEST, f"{name} comes in sizes from {row.smallest} to {LARGEST}", size)
    if name.startswith("mnist"):
        return mnist(train, size) if name == "mnist" else Resized(mnist(train, 28), size, name)
    if name == "folder":
        return image_folder(root, size, skip_broken)
    images, labels = row.read(cache_dir() if root is None else Path(root).expanduser(), train)
    return ImageDataset(images, labels, size, name, row.classes)


def cache_dir() -> Path:
    """$TINYDDPM_CACHE, else tinyddpm in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "tinyddpm")
    return Path(os.path.expanduser(os.environ.get("TINYDDPM_CACHE") or default))
