"""A folder of images as a data set, and pictures of any kind as pixels."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from ..data import crop_to, from_uint8

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".pgm", ".ppm", ".tif", ".tiff", ".webp")
GREY = ("1", "L", "LA", "La")  # modes of Pillow
WITH_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
EIGHT_BITS = (*GREY, "P", "PA", "RGB", "RGBX", "RGBA", "RGBa", "CMYK", "YCbCr", "LAB", "HSV")


class Folder(Dataset):
    """Images of a folder, read from disk whenever asked for: item i is ((c, size, size) float32 in [-1, 1],
    label), cut square out of the middle after the shorter side was scaled to size.

    root/NAME/*.png makes NAME a class; labels count the names in order. Images in root itself have no
    classes: num_classes is None and each label 0. Channels are 1 if all images are grey, else 3. What is
    transparent is black, and photos stand upright.

    Raises ValueError for a folder without images and for one that holds images beside folders; and, with
    its name, for an image that cannot be read: each is read once at the start. skip_broken leaves such out.
    """

    def __init__(self, root: str | Path, size: int = 32, skip_broken: bool = False):
        self.root, self.size = Path(root), size
        self.name = f"folder {self.root.resolve().name}"
        files, self.classes = image_files(self.root)
        self.num_classes = len(self.classes) or None
        self.files, self.labels, self.skipped, grey = [], [], [], True
        for path, label in tqdm(files, f"reading {self.name}", disable=None):
            try:
                grey &= read_picture(path).mode in GREY
            except ValueError as error:
                if not skip_broken:
                    raise ValueError(
                        f"{error}: mend or remove it, or leave out all such images with skip_broken=True "
                        "(--skip-broken)"
                    ) from error
                self.skipped.append(path)
            else:
                self.files.append(path)
                self.labels.append(label)
        self.channels = 1 if grey else 3
        if self.skipped:
            print(f"left out {len(self.skipped)} images that cannot be read: {listing(self.skipped)}")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[Float[Tensor, "c size size"], int]:
        picture = smaller(read_picture(self.files[i]), self.size)
        return from_uint8(crop_to(pixels(picture, self.channels), self.size)), self.labels[i]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        return [self[i] for i in indices]


def image_files(root: Path) -> tuple[list[tuple[Path, int]], list[str]]:
    """The images in root with their labels, and the names of the classes: none for images in root itself."""
    if not root.is_dir():
        raise ValueError(f"there is no folder {root}: give the one that holds the images (--root)")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    flat = images_among(root.glob("*"))
    classes = {folder.name: images_among(folder.rglob("*")) for folder in folders}
    if flat and any(classes.values()):
        raise ValueError(
            f"{root} holds images beside folders of images ({listing(list(classes))}): give each class a "
            "folder, or put all images into one folder without classes"
        )
    if flat:
        return [(path, 0) for path in flat], []
    if empty := [str(root)] if not classes else [name for name in classes if not classes[name]]:
        raise ValueError(f"no images (files that end in {', '.join(ENDINGS)}) are in {listing(empty)}")
    return [(path, k) for k, found in enumerate(classes.values()) for path in found], list(classes)


def images_among(paths: Iterable[Path]) -> list[Path]:
    return sorted(p for p in paths if p.suffix.lower() in ENDINGS and not p.name.startswith(".") and p.is_file())


def listing(things: list, most: int = 5) -> str:
    more = f" and {len(things) - most} more" if len(things) > most else ""
    return ", ".join(map(str, things[:most])) + more


def read_picture(path: Path):
    """The image of a file, upright. Raises ValueError for a file that cannot be read whole."""
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as picture:
            if picture.mode not in EIGHT_BITS:  # Pillow would cut what is above 255
                raise ValueError(f"its pixels are of mode {picture.mode}, not of 8 bits a channel")
            return ImageOps.exif_transpose(picture)  # a copy: all of the file is read here
    except Exception as error:  # each format of Pillow fails in its own way
        raise ValueError(f"{path} cannot be read as an image ({error})") from error


def smaller(picture, size: int):
    """Scaled, smoothly, so that the shorter side is `size` pixels."""
    from PIL import Image

    if min(picture.size) == size:
        return picture
    w, h = (max(size, round(side * size / min(picture.size))) for side in picture.size)
    return on_black(picture).resize((w, h), Image.Resampling.BICUBIC)  # Pillow's smooths what it shrinks


def on_black(picture):
    """Without transparency and palette, which cannot be scaled: grey stays grey, all else is RGB."""
    from PIL import Image

    mode = "L" if picture.mode in GREY else "RGB"
    if picture.mode in WITH_ALPHA or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture)
    return picture.convert(mode)


def pixels(picture, channels: int | None = None) -> UInt8[Tensor, "c h w"]:
    """A picture of Pillow as uint8: 1 channel or 3, where None as many as it has."""
    flat = on_black(picture)
    if channels is not None:
        flat = flat.convert("L" if channels == 1 else "RGB")
    array = torch.from_numpy(np.array(flat))
    return array[None] if array.ndim == 2 else array.permute(2, 0, 1)
