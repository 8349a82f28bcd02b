"""The only door to the disk and to pixel ranges: data sets, and [0, 255] <-> [-1, 1].

All of MNIST ships with the package, compressed. It is unpacked once into a cache folder in the
layout that torchvision reads.
"""

import hashlib
import lzma
import os
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


def from_uint8(images: UInt8[Tensor, "*b h w"]) -> Float[Tensor, "*b h w"]:
    """[0, 255] to [-1, 1], exactly undone by to_uint8."""
    if images.dtype != torch.uint8:
        raise ValueError(f"from_uint8 takes uint8 pixels in [0, 255], got {images.dtype}")
    return images.float() / 127.5 - 1


def to_uint8(x: Float[Tensor, "*b h w"]) -> UInt8[Tensor, "*b h w"]:
    """[-1, 1] to [0, 255], rounded; what lies outside is held at the ends."""
    return ((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def pad_to(x: Float[Tensor, "*b h w"], size: int = 32) -> Float[Tensor, "*b size size"]:
    """Centres the image on a background of -1, pixels as they are. Raises ValueError if it does not fit."""
    h, w = x.shape[-2:]
    if h > size or w > size:
        raise ValueError(f"an image of {h}x{w} does not fit {size}x{size}: choose a larger size")
    top, left = (size - h) // 2, (size - w) // 2
    return F.pad(x, (left, size - w - left, top, size - h - top), value=-1.0)


def crop_to(x: Tensor, size: int = 28) -> Tensor:
    """Cuts the centre out: undoes pad_to. Raises ValueError for an image smaller than that."""
    h, w = x.shape[-2:]
    if h < size or w < size:
        raise ValueError(f"an image of {h}x{w} holds no {size}x{size}: choose a smaller size")
    top, left = (h - size) // 2, (w - size) // 2
    return x[..., top : top + size, left : left + size]


class Images(Dataset):
    """Images in memory: item i is ((c, size, size) float32 in [-1, 1], label), 0 where there are no labels.

    images       (n, c, h, w), uint8 in [0, 255] or float in [-1, 1], kept as they are
    labels       (n,) in 0..num_classes-1, or None
    size         to which they are padded
    num_classes  one more than the largest label where None
    """

    def __init__(
        self,
        images: Tensor,
        labels: Int[Tensor, " n"] | None,
        size: int = 32,
        name: str = "unknown",
        num_classes: int | None = None,
    ):
        if labels is not None and len(images) != len(labels):
            raise ValueError(f"one label an image: got {len(images)} images and {len(labels)} labels")
        self.images, self.size, self.name, self.channels = images, size, name, images.shape[1]
        self.labels = torch.zeros(len(images), dtype=torch.long) if labels is None else labels
        self.num_classes = None if labels is None else num_classes or int(labels.max()) + 1

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i) -> tuple[Float[Tensor, "c size size"], Int[Tensor, ""]]:
        return as_float(self.images[i], self.size), self.labels[i]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Tensor]]:
        """Several items at once, as loaders ask for them: a quarter of the time of one by one."""
        return list(zip(*self[indices]))

    def tensors(self) -> tuple[Float[Tensor, "n c size size"], Int[Tensor, " n"]]:
        """All of it at once: images (n, c, size, size) in [-1, 1] and labels (n,)."""
        return self[:]


def as_float(x: Tensor, size: int) -> Float[Tensor, "*b size size"]:
    """uint8 in [0, 255] or float in [-1, 1], padded: float32 in [-1, 1]."""
    return pad_to(from_uint8(x) if x.dtype == torch.uint8 else x.float(), size)


def mnist(train: bool = True, root: str | Path | None = None, size: int = 32) -> Images:
    """MNIST as it ships with the package: 60,000 training or 10,000 test digits (LeCun et al. 1998), 28x28
    and padded to size."""
    MNIST = torchvision_datasets().MNIST
    digits = MNIST(unpack_mnist(root), train=train)
    return Images(digits.data[:, None], digits.targets, size, "mnist", 10)


def unpack_mnist(root: str | Path | None = None) -> Path:
    """Makes sure that root/MNIST/raw holds the four files, whole, and returns root (the cache folder
    where None).

    Each file is checked against its sha256 and made again when it is damaged. It is written under
    another name and then renamed, so that two processes may do this at once.
    """
    root = Path(root) if root is not None else cache_dir()
    raw = root / "MNIST" / "raw"
    for name, sha256 in MNIST_SHA256.items():
        path = raw / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
            continue
        packed = asset(f"mnist/{name}.xz")
        content = lzma.decompress(packed.read_bytes())
        if hashlib.sha256(content).hexdigest() != sha256:
            raise ValueError(
                f"{packed} is damaged (another sha256 than MNIST's {name}): install tinyddpm again"
            )
        raw.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    return root


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that nobody ever sees half of it: under a name of its own, flushed, renamed."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name + ".")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp's own 0o600 would hide the file from others
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def writable_folder(path: str | Path) -> Path:
    """Makes the folder where it is missing and writes to it once, so that a folder which takes no files
    is found before the work and not after. Raises ValueError for one."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return Path(path)
    except OSError as error:
        raise ValueError(f"cannot write to the folder {path} ({error}): choose another") from error


def cache_dir() -> Path:
    """TINYDDPM_CACHE, else tinyddpm in the user's cache folder."""
    if chosen := os.environ.get("TINYDDPM_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinyddpm"


def asset(name: str) -> Path:
    """A file that ships with the package: inside it when installed, beside it in the checkout."""
    here = Path(__file__).parent
    for folder in (here / "assets", here.parent / "assets"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{name} should ship with tinyddpm but is not there: install tinyddpm again")


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
