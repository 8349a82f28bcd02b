"""Data sets by name: what ships with the package, what torchvision downloads, a folder of images."""

import gzip
import os
from pathlib import Path

import torch
from torch.utils.data import Dataset

from ..data import ImageDataset, mnist
from ..files import writable_folder, write_whole
from .folder import Folder
from .own import as_data as as_data  # one door: load_data by name, as_data for your own

IDX = [f"{part}-{what}-ubyte.gz" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
LETTERS = [f"emnist-letters-{name.replace('t10k', 'test')}" for name in IDX]
DOWNLOADED = {  # torchvision's class, what it is asked for, where below root it looks, and for which files
    "fashion": ("FashionMNIST", {}, "FashionMNIST/raw", IDX),
    "kmnist": ("KMNIST", {}, "KMNIST/raw", IDX),
    "letters": ("EMNIST", {"split": "letters"}, "EMNIST/raw", LETTERS),
    "cifar10": ("CIFAR10", {}, "", ["cifar-10-python.tar.gz"]),
}
NAMES = ("mnist", *DOWNLOADED, "folder")
PADDED = ("mnist", "fashion", "kmnist", "letters")  # 28x28 with a border
SMALLEST = {**dict.fromkeys(PADDED, 28), "cifar10": 32, "folder": 8}
LARGEST = 128
CLASSES = {"letters": 26}  # 10 in the others


def load_data(
    name: str, root: str | Path | None = None, size: int | None = None, train: bool = True, skip_broken: bool = False
) -> Dataset:
    """A data set by name: mnist (in the box), fashion, kmnist, letters, cifar10, or a folder of images.

    root         where its files are or are downloaded to, the cache folder where None; of a folder: itself
    size         pixels on a side, 32 where None: a folder's images are scaled to it, the others padded
    train        the training or the test images; a folder is not divided
    skip_broken  leave out a folder's images that cannot be read

    Items are ((c, size, size) float32 in [-1, 1], label). It knows its name, channels, size and num_classes
    (None: no labels). Raises ValueError for another name or size, and for files that are not there, cannot
    be downloaded or cannot be read, with what to do.
    """
    if name not in NAMES:
        raise ValueError(f"there is no data set {name!r}: choose one of {', '.join(NAMES)}")
    size = 32 if size is None else size
    if not SMALLEST[name] <= size <= LARGEST:
        raise ValueError(f"{name} comes in sizes from {SMALLEST[name]} to {LARGEST}, got {size}")
    if name == "mnist":
        return mnist(train, root, size)
    if name == "folder":
        if root is None:
            raise ValueError("which folder of images? give it as root (--root DIR)")
        return Folder(root, size, skip_broken)
    found = downloaded(name, Path(root).expanduser() if root is not None else cache_dir(), train)
    images, labels = torch.as_tensor(found.data), torch.as_tensor(found.targets)
    if name == "letters":  # the files hold them lying, and count from 1
        images, labels = images.transpose(1, 2), labels - 1
    images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return ImageDataset(images.contiguous(), labels, size, name, CLASSES.get(name, 10))


def cache_dir() -> Path:
    """$TINYDDPM_CACHE, else tinyddpm in the user's cache folder."""
    if chosen := os.environ.get("TINYDDPM_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyddpm"


def downloaded(name: str, root: Path, train: bool) -> Dataset:
    """torchvision's data set, its files downloaded where they are missing. Raises ValueError where that
    fails."""
    kind, options, where, files = DOWNLOADED[name]
    kind, folder = getattr(torchvision_datasets(), kind), root / where
    try:
        unpack(folder, files)
        return kind(root, train=train, **options)
    except Exception:  # files that are missing or damaged raise all kinds of errors
        pass
    try:
        from filelock import FileLock

        with FileLock(writable_folder(folder) / "download.lock"):  # of several processes one downloads
            return kind(root, train=train, download=True, **options)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{name} cannot be downloaded or read ({reason}): put {', '.join(files)} into {folder} by hand, "
            "in place of what is there"
        ) from error


def unpack(folder: Path, files: list[str]) -> None:
    """Unpacks what was put there by hand. torchvision would do so only for files with the checksums of
    its own source, and the same data packed by somebody else has others."""
    for packed in (folder / file for file in files if file.endswith("ubyte.gz")):
        if packed.is_file() and not packed.with_suffix("").exists():
            write_whole(packed.with_suffix(""), gzip.decompress(packed.read_bytes()))


def torchvision_datasets():
    """torchvision.datasets, also beside a torch that has no CUDA.

    The torchvision of the package index is built for CUDA. Beside a torch for the CPU its compiled
    part does not load, and its import then fails on operators that were never declared. Declaring the
    two that it looks for is enough: data sets do not call them.
    """
    try:
        import torchvision.datasets
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import sys

        for module in [m for m in sys.modules if m.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision_datasets.library = library  # the operators live as long as this does
        import torchvision.datasets
    return torchvision.datasets
