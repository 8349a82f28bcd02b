"""One judge for the samples of any generator: read from a file or a folder, measured beside as many real images."""

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Generator, Tensor

from ..data import from_uint8, to_uint8
from ..datasets.own import image_folder, read_picture
from ..schedules import choose, require
from ..tools.jobs import progress, say
from .classifier import not_finite
from .judges import JUDGES, Judge, Reference, in_words, load_reference
from .metrics import METRICS, WITHOUT_FLOOR, Features, ImageBatch, check_features

IMAGES, LABELS = ("images", "x", "arr_0"), ("labels", "y", "arr_1")  # names in an archive; the last is np.savez's own


def coverage(samples: Features, real: Features, k: int = 5, chunk: int = 1000) -> float:
    """The share of real images that have a sample within the distance of their k-th nearest real neighbour (Naeem et
    al. 2020, "Reliable fidelity and diversity metrics"): about 1 - 2^-k for as many samples of the same distribution.
    Raises ValueError for k below 1, for k or fewer images, and for features that are not finite."""
    require(k >= 1, "the number of neighbours k must be at least 1", k)
    check_features(samples, real, k + 1)
    pairs = ((torch.cdist(part, samples), torch.cdist(part, real)) for part in real.split(chunk))
    found = [ours.amin(1) <= theirs.kthvalue(k + 1, 1).values for ours, theirs in pairs]  # nearest to each is itself
    return float(torch.cat(found).float().mean())


JUDGED = METRICS | {"coverage": (coverage, "features", "test_features")}


def compared(samples: ImageBatch, floor: ImageBatch, metrics: Mapping) -> Iterator[tuple[str, Callable[[], object]]]:
    """The names of the metrics that can be measured, and of their floors, each with a function that measures it."""
    for name, metric in metrics.items():
        if samples.labels is not None or "labels" not in metric:
            yield name, partial(samples.measure, metric)
            if name not in WITHOUT_FLOOR:
                yield f"floor of {name}", partial(floor.measure, metric)


def judge(
    images: Tensor | np.ndarray, labels: Tensor | np.ndarray | None = None, reference: Reference | None = None,
    metrics: Mapping[str, tuple] = JUDGED, n: int | None = None, name: str = "samples",
) -> dict:  # fmt: skip
    """Each metric of samples, and its floor, that of as many real training images. Takes what read_samples returns.
    With n, measures n of them, chosen at random. Returns what report.page shows. Raises ValueError for images of
    another shape or range, for too few or too many, and for labels that do not fit them."""
    reference = load_reference("mnist", 32, None) if reference is None else reference
    x, y = as_samples(images, labels, reference, n)
    noun = reference.judge.noun
    text = f"{len(x)} {noun}s of {name}, {'without' if y is None else 'with'} labels."
    found: dict = {"of": {"samples": {"n": len(x), "text": text}, "data": reference.name, "beside": reference.name}}
    for metric, find in compared(reference.batch(x, y), reference.floor(len(x)), metrics):
        say(f"judging: {in_words(metric, noun)}")
        found[metric] = find()
    return found


def reference_of(images: np.ndarray, data: str, root: str | Path | None = None) -> Reference:
    """The real images of a data set with a judge; digits of mnist-resized in the size of these images."""
    side = max(32, *images.shape[1:])
    return load_reference(data, side if side in choose(JUDGES, data, "data set with a judge").sides else 32, root)


def as_samples(images, labels, reference: Reference, n: int | None = None) -> tuple[Tensor, Tensor | None]:
    """n images as the classifier sees them, of 256 grey values, and their labels, in a random order: some metrics work
    on parts, and files are often sorted by label. Raises ValueError as `judge` does."""
    x, noun = as_greys(np.asarray(images), reference.judge), reference.judge.noun
    y = None if labels is None else as_labels(np.asarray(labels), len(x))
    n, least, most = len(x) if n is None else n, reference.classifier.head.in_features + 1, len(reference.test)
    wanted = f"a judge takes {least}..{most} images, more than its classifier has features and as many as there are "
    advice = f": judge some of them, with n={most} (--n {most})" if n > most else ": judge more"
    require(least <= n <= min(most, len(x)), f"{wanted}test {noun}s at most", f"{n} of {len(x)}{advice}")
    order = torch.randperm(len(x), generator=Generator().manual_seed(0))[:n]
    return reference.judge.show(from_uint8(x[order])), None if y is None else y[order]


def as_greys(images: np.ndarray, judge: Judge) -> Tensor:
    """uint8 (n, 1, h, w) of images with one channel, three equal ones or none. Raises ValueError for others."""
    noun, real = judge.noun, images.dtype.kind == "f"
    require(real or images.dtype == np.uint8, f"{noun}s are uint8 or floats", images.dtype)
    x = torch.from_numpy(images.astype(np.float32 if real else np.uint8))
    x = x[:, None] if x.ndim == 3 else x
    x = x.movedim(3, 1) if x.ndim == 4 and x.shape[1] not in (1, 3) else x
    fits = x.ndim == 4 and len(x) and x.shape[1] in (1, 3) and x.shape[2] == x.shape[3] and x.shape[2] in judge.sides
    wanted = f"{noun}s are (n, h, w), (n, c, h, w) or (n, h, w, c) with 1 or 3 channels c and h = w in {judge.sides}"
    require(bool(fits), wanted, f"shape {images.shape}")
    broken = not_finite(x)
    require(not broken, f"{noun}s are finite", f"{broken} of {len(x)} with NaN or infinite values")
    require(bool((x == x[:, :1]).all()), f"{noun}s are grey", "channels that differ")
    return as_uint8(x[:, :1], noun)


def as_uint8(x: Tensor, noun: str) -> Tensor:
    """Images in [0, 255], [0, 1] or [-1, 1] as uint8. Raises ValueError for another range, and on white."""
    low, high, real = float(x.min()), float(x.max()), x.is_floating_point()
    fits = high <= 1.001 and (low >= -0.001 or -1.001 <= low <= -0.9) if real else high > 1
    wanted = f"{noun}s are uint8 in [0, 255] or floats in [0, 1] or [-1, 1], black at the lowest value"
    require(fits, wanted, f"{x.dtype} in [{low:.3g}, {high:.3g}]: scale them, or clip what lies outside")
    x = to_uint8(x if low < -0.5 else 2 * x - 1) if real else x
    above = float(x[:, :, 0].float().mean())  # of the row at the top
    require(above < 230, f"{noun}s are light on black", f"a background of {above:.0f} of 255: invert them")
    return x


def as_labels(labels: np.ndarray, n: int) -> Tensor:
    """n labels in 0..9 as int64. Raises ValueError for others."""
    whole = labels.dtype.kind in "iu" and labels.size > 0
    low, high = (labels.min(), labels.max()) if whole else (0, 0)
    fits = whole and labels.shape == (n,) and 0 <= low and high <= 9
    found = f"{labels.dtype} of shape {labels.shape}{f' from {low} to {high}' * whole}"
    require(fits, f"expected an integer label in 0..9 for each of {n} images", found)
    return torch.from_numpy(labels.astype(np.int64))


def read_samples(path: str | Path, skip_broken: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """The images of an .npz archive or a folder, unchanged, and their labels or None. Raises ValueError for anything
    else. Nothing is unpickled.

    An archive has its images under one name of IMAGES, and labels under one of LABELS. The images of a folder, all of
    one size, have labels if each lies in a folder whose name begins with its label ("7", "7_sneaker"), or if each
    file's name begins with a digit that no other follows ("7_0001.png")."""
    path = Path(path)
    if path.is_dir():
        return read_folder(path, skip_broken)
    what = "is no archive" if path.exists() else "does not exist"
    require(zipfile.is_zipfile(path), "expected an .npz archive or a folder of images", f"{path}, which {what}")
    try:
        with np.load(path, allow_pickle=False) as file:
            known = [next((name for name in names if name in file), None) for names in (IMAGES, LABELS)]
            require(known[0] is not None, f"expected images under one of {', '.join(IMAGES)}", list(file) or "none")
            images, labels = (None if name is None else np.asarray(file[name]) for name in known)
    except Exception as error:  # archives fail in many ways
        raise ValueError(f"{path} cannot be read as samples: {error}") from error
    return cast(np.ndarray, images), labels


def read_folder(root: Path, skip_broken: bool) -> tuple[np.ndarray, np.ndarray | None]:
    from PIL import Image

    data = image_folder(root, skip_broken=skip_broken)
    paths = [Path(data.data[i][0]) for i in data.indices]
    sizes = set()
    for path in paths:
        with Image.open(path) as picture:
            sizes.add(picture.size)
    require(len(sizes) == 1 and len({*min(sizes)}) == 1, f"the images of {root} are square and of one size", sizes)
    pictures = [read_picture(path, min(sizes)[0]) for path in progress(paths, f"reading {root}")]
    labels = [re.match(r"\d+" if data.num_classes else r"\d(?!\d)", path.relative_to(root).parts[0]) for path in paths]
    images = torch.stack([picture.expand(data.channels, -1, -1) for picture in pictures]).numpy()
    return images, np.array([int(label[0]) for label in labels if label]) if all(labels) else None
