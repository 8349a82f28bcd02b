"""Images of your own as a data set: tensors, any data set of (image, label), or a folder of image files."""

import os
import sys
from glob import escape, glob
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from ..data import ImageDataset, as_float
from ..tools.jobs import needs, progress

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
GREY = ("1", "L", "LA", "La")  # modes of Pillow


class LazyImageDataset(Dataset):
    """Another data set, read whenever an item is asked for: item i is ((c, size, size) float32 in [-1, 1], label). Its
    images are tensors, arrays, Pillow's or paths of files; grey ones among coloured ones become coloured. Raises
    ValueError for one that cannot be used, unless skip_broken leaves it out: each is read once at the start."""

    def __init__(self, data: Any, size: int | None, name: str, skip_broken: bool):
        self.data, self.name = data, name
        shapes: set[tuple[int, ...]] = set()
        labels: dict[int, int] = {}
        low, skippable = 1.0, ValueError if skip_broken else ()
        for i in progress(range(len(data)), f"reading {name}"):
            try:
                image, labels[i] = self.read(i, size)
            except skippable as error:
                print(f"left out item {i}: {error.__cause__}")
                continue
            shapes.add(tuple(image.shape))
            low = min(low, lowest(image))
        self.indices, self.size = list(labels), common_size(shapes, low, size)
        self.channels = max(shapes)[0]
        self.num_classes: int | None = max(labels.values()) + 1

    def read(self, i: int, size: int | None) -> tuple[Tensor, int]:
        try:
            image, label = self.data[i]
            image = read_picture(image, size or 32) if isinstance(image, (str, Path)) else image
            return check_images(image, 3), int(check_labels(label, 0))
        except Exception as error:  # a data set may fail in any way
            advice = "repair it, or leave out all such items with skip_broken=True (--skip-broken)"
            raise ValueError(f"item {i} cannot be used: {error}; {advice}") from error

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> tuple[Float[Tensor, "c size size"], int]:
        image, label = self.read(self.indices[i], self.size)
        return as_float(image.expand(self.channels, -1, -1), self.size), label


def as_data(
    images: Tensor | Dataset, labels: Tensor | None = None, size: int | None = None, name="unknown", skip_broken=False
) -> ImageDataset | LazyImageDataset:
    """Your own images as a data set to train on.

    images       (n, h, w) or (n, c, h, w) with 1 or 3 channels c, uint8 in [0, 255] or float in [-1, 1], with labels
                 (n,) from 0 or without; or a data set of (image, label) with such images or Pillow's
    size         to which they are padded with -1; by default they keep their size
    name         stored beside the weights
    skip_broken  leave out the items of a data set that cannot be used

    Raises ValueError for other shapes, types or ranges, and for floats that never fall below 0, such as in [0, 1].
    """
    if isinstance(images, TensorDataset) and len(images.tensors) <= 2:
        given: tuple = (*images.tensors, None)
        images, labels = given[:2]
    if isinstance(images, Dataset) and labels is None:
        return LazyImageDataset(images, size, name, skip_broken)
    if not isinstance(images, (Tensor, np.ndarray)):
        wanted = "a tensor of images (n, c, h, w), or a data set of (image, label) and no other labels"
        raise ValueError(f"expected {wanted}, got {type(images).__name__} and labels {type(labels).__name__}")
    images = check_images(images, 4)
    size = common_size({tuple(image.shape) for image in images[:1]}, lowest(images), size)
    return ImageDataset(images, None if labels is None else check_labels(labels, 1), size, name)


def image_folder(root: str | Path | None, size: int = 32, skip_broken: bool = False) -> LazyImageDataset:
    """A folder of images: root/NAME/*.png makes NAME a class, in the order of the names; images in root itself have no
    classes: num_classes is None and each label 0. All have 1 channel if all are grey, else 3. Raises ValueError for a
    folder without images, with images beside classes, with a class that has none, or with broken images, unless
    skip_broken leaves those out."""
    paths = sorted(Path(root).glob("[!.]*")) if root else []
    flat = [(str(path), 0) for path in paths if is_image(path)]
    below = {path.name: glob(f"{escape(str(path))}/**", recursive=True) for path in paths if path.is_dir()}
    classes = {name: sorted(filter(is_image, inside), key=os.path.split) for name, inside in below.items()}
    deep = [(path, k) for k, images in enumerate(classes.values()) for path in images]
    if bool(flat) == bool(deep) or deep and not all(classes.values()):
        counts = {name: len(images) for name, images in classes.items()}
        found = f"{root} with {len(flat)} images ({', '.join(ENDINGS)}) and the folders {counts or 'none'}"
        wanted = "a folder (--root) of images, or of one folder of images for each class"
        raise ValueError(f"expected {wanted}, got {found}")
    data = LazyImageDataset(flat or deep, size, f"folder {Path(root or '').resolve().name}", skip_broken)
    data.num_classes = len(classes) if deep else None
    return data


def is_image(path: str | Path) -> bool:
    return Path(path).suffix.lower() in ENDINGS and Path(path).is_file()  # a pipe would be waited for


def read_picture(path: str | Path, size: int, mode: str | None = None) -> Tensor:
    """The image of a file as (1 or 3, size, size) uint8: turned upright, on black where it is transparent, scaled until
    its shorter side is `size`, and cropped to its centre; mode="L" makes it grey. Raises ValueError for a file that
    cannot be read."""
    from PIL import Image, ImageOps

    try:
        if not Path(path).is_file():
            raise FileNotFoundError("No such file")
        with Image.open(path) as file:
            picture = flatten(ImageOps.exif_transpose(file), mode)
        return check_images(ImageOps.fit(picture, (size, size)), 3)
    except Exception as error:  # each format fails in its own way
        raise ValueError(f"{path} cannot be read as an image: {error}") from error


def flatten(picture, mode: str | None = None):
    """A picture of Pillow on black, in `mode`, by default "L" if it is grey, else "RGB". More than 8 bits, as in the
    modes I and F, stay as they are: Pillow would clip them."""
    from PIL import Image

    if picture.mode[0] in "IF":
        return picture
    own = "L" if picture.mode in GREY else "RGB"
    if picture.mode[-1] in "Aa" or "transparency" in picture.info:
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture.convert("RGBA"))
    return picture.convert(own).convert(mode or own)


def check_images(x, ndim: int) -> Tensor:
    """Images as a tensor of `ndim` axes. Raises ValueError for another shape, type or range."""
    if hasattr(x, "getbands"):  # a picture of Pillow, (h, w) or (h, w, c)
        x = np.atleast_3d(np.array(flatten(x))).transpose(2, 0, 1)
    x = torch.as_tensor(x)
    x = x.unsqueeze(-3) if x.ndim == ndim - 1 else x
    real = x.is_floating_point()
    in_range = (x.abs() <= 1).all() if real else x.dtype == torch.uint8
    if x.ndim != ndim or x.shape[-3] not in (1, 3) or not in_range:
        wanted = f"({'n, ' * (ndim - 3)}c, h, w) with 1 or 3 channels c, uint8 in [0, 255] or float in [-1, 1]"
        values = f" with values in [{x.min():g}, {x.max():g}]" if real and x.numel() else ""
        found = f"{x.dtype} of shape {tuple(x.shape)}{values}: move the channels before the height, or rescale"
        raise ValueError(f"images are {wanted}, got {found}")
    return x


def check_labels(y, ndim: int) -> Tensor:
    """Labels as int64. Raises ValueError unless they are integers from 0 with `ndim` axes."""
    y = torch.as_tensor(y)
    if y.is_floating_point() or y.is_complex() or y.ndim != ndim or (y.long() < 0).any():
        raise ValueError(f"labels are integers from 0, one for each image, got {y.dtype} of shape {tuple(y.shape)}")
    return y.long()


def lowest(x: Tensor) -> float:
    """The smallest value of float images, -1 for uint8."""
    return -1.0 if x.dtype == torch.uint8 or not len(x) else float(x.min())


def common_size(shapes: set[tuple[int, ...]], low: float, size: int | None) -> int:
    """The size of all images. Raises ValueError unless they are square and equal, or fit into `size`, and for floats
    whose lowest value is not below 0."""
    sides = {side for shape in shapes for side in shape[1:]}
    largest = max(sides, default=32)
    fits = len(sides) == 1 if size is None else sides and largest <= size
    if not fits or low >= 0:
        wanted = "square images of one size, or a size to pad them to, and black at -1"
        found = f"{sorted(shapes)[:5] or 'no images'} with values from {low:g}: give size={largest}"
        raise ValueError(f"expected {wanted}, got {found}, or 2 * images - 1 if they are in [0, 1]")
    return size or largest


def torchvision_datasets():
    """torchvision.datasets, even where torchvision's compiled part does not fit torch and so does not load: its import
    then fails until two operators are declared, which data sets never call."""
    needs("datasets", "this data set", "torchvision")
    try:
        import torchvision.datasets
    except RuntimeError:
        for module in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[module]
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        torchvision_datasets.library = library  # the operators live as long as this does
        import torchvision.datasets
    return torchvision.datasets
