"""The classifier that scores samples: a small convolutional network, trained on real images alone."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from ..files import asset, read_checkpoint, write_checkpoint
from ..tools.jobs import progress

FORMAT_VERSION = 2
Images = Float[Tensor, "n 1 h w"]
Labels = Int[Tensor, " n"]


class Classifier(nn.Module):
    """A small convolutional network for digits, or what its noun says: (b, 1, 32, 32) in [-1, 1] to (b, 10) logits. Its
    features are the means of the last convolution's maps; the distances in metrics.py compare them."""

    image_size, noun = 32, "digit"

    def __init__(self, dims: tuple[int, ...] = (24, 48, 96, 128), num_classes: int = 10):
        super().__init__()
        self.arguments = {"dims": tuple(dims), "num_classes": num_classes}
        self.body = nn.Sequential()
        for level, (c_in, c_out) in enumerate(zip((1, *dims), dims)):
            conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
            block = nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())
            self.body.append(nn.Sequential(block, nn.MaxPool2d(2) if level < 2 else nn.Identity()))
        self.head = nn.Linear(dims[-1], num_classes)

    def features(self, x: Images) -> Float[Tensor, "n d"]:
        return self.body(x).mean((2, 3))

    def forward(self, x: Images) -> Float[Tensor, "n k"]:
        return self.head(self.features(x))


def distort(x: Images, generator: Generator | None = None, degrees: float = 12.0, pixels: float = 2.0) -> Images:
    """A random affine map of each image: rotation by up to `degrees`, scaling and shear by up to a tenth, translation
    by up to `pixels`. No reflection; the border is filled with -1."""
    n, side = len(x), x.shape[-1]
    angle, scale, shear, dx, dy = 2 * torch.rand(5, n, generator=generator) - 1
    angle, scale, shear = angle * math.radians(degrees), 1 + 0.1 * scale, 0.1 * shear
    cos, sin = angle.cos() * scale, angle.sin() * scale
    dx, dy = dx * 2 * pixels / side, dy * 2 * pixels / side
    theta = torch.stack([cos, shear - sin, dx, sin, cos, dy], 1).reshape(n, 2, 3)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # zero padding is the background of -1


def train_classifier(
    x: Images, y: Labels, epochs: int = 10, batch_size: int = 100, seed: int = 0, *,
    dims: tuple[int, ...] = (24, 48, 96, 128), augment: Callable[[Images, Generator], Images] = distort, half=False,
) -> Classifier:  # fmt: skip
    """A new classifier, trained with cross-entropy on images that `augment` changes anew in each epoch, in bf16 if
    `half`. One seed gives the same weights on the same machine. Raises ValueError for invalid images or labels, and for
    less than a batch."""
    check_readable(x)
    check_labels(x, y, batch_size)
    generator = Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = convert_conv2d_weight_memory_format(Classifier(dims), torch.channels_last)
    steps = len(x) // batch_size
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * steps)
    orders = (torch.randperm(len(x), generator=generator)[: steps * batch_size] for _ in range(epochs))
    batches = (batch for order in orders for batch in order.split(batch_size))  # an order when its turn comes
    for batch in progress(batches, "batches of a classifier", epochs * steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            logits = model(augment(x[batch], generator))
        loss = F.cross_entropy(logits.float(), y[batch], label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return convert_conv2d_weight_memory_format(model, torch.contiguous_format).eval()


def save_classifier(model: Classifier, path: str | Path, notes: dict | None = None) -> None:
    """Writes one .safetensors file with the weights in half precision."""
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    write_checkpoint(path, FORMAT_VERSION, {"classifier": model.arguments, "notes": notes or {}}, tensors)


def load_classifier(path: str | Path | None = None) -> Classifier:
    """The digit classifier that ships with the package, or one that save_classifier wrote. Raises ValueError for a file
    that is missing or damaged, or that does not hold a classifier."""
    path = asset("weights/digit-classifier.safetensors") if path is None else path
    description, tensors = read_checkpoint(path, FORMAT_VERSION)
    try:
        model = Classifier(**description["classifier"])
        model.load_state_dict(tensors)  # into float32
        model.noun = str(description.get("notes", {}).get("noun", model.noun))
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path} holds no digit classifier ({error}): save_classifier writes one") from error
    return model.eval()


@torch.no_grad()
def read(classifier: Classifier, x: Images, batch_size: int = 500) -> tuple[Tensor, Tensor]:
    """The features (n, d) of images and the probabilities (n, k) of classes. Raises ValueError for invalid images."""
    check_readable(x, getattr(classifier, "noun", "digit"))
    found = [classifier.features(part) for part in x.split(batch_size)]
    return torch.cat(found), torch.cat([classifier.head(part).softmax(1) for part in found])


def features(classifier: Classifier, x: Images, batch_size: int = 500) -> Float[Tensor, "n d"]:
    """The classifier's features of each image. Raises ValueError for invalid images."""
    return read(classifier, x, batch_size)[0]


def classify(classifier: Classifier, x: Images, batch_size: int = 500) -> Float[Tensor, "n k"]:
    """The probability of each class. Raises ValueError for invalid images."""
    return read(classifier, x, batch_size)[1]


def check_readable(x: Tensor, noun: str = "digit", size: int = Classifier.image_size) -> None:
    """Raises ValueError unless x is float32 (n, 1, 32, 32), finite, in [-1, 1] and on a background of -1."""
    if not isinstance(x, Tensor) or x.dtype != torch.float32 or x.shape[1:] != (1, size, size) or len(x) == 0:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x)
        wrong = f"float32 tensors (n, 1, {size}, {size}), got {got}: data.pad_to pads 28x28"
    else:
        low, high = float(x.min()), float(x.max())  # NaN if there is one
        halved = abs(low + 0.5) < 0.01 and high < 0.51  # [-0.5, 0.5]; in [0, 1], low is not negative
        if -1.001 <= low < 0 and high <= 1.001 and not halved:
            return
        wrong = f"finite, in [-1, 1] and on a background of -1, got [{low:.3g}, {high:.3g}] and {not_finite(x)} of "
        wrong += f"{len(x)} images with NaN or infinite values: data.from_uint8 maps [0, 255] to [-1, 1]"
    raise ValueError(f"{noun}s are {wrong}")


def not_finite(x: Tensor) -> int:
    """How many images hold NaN or infinite values."""
    return int((~x.flatten(1).isfinite().all(1)).sum())


def check_labels(x: Tensor, y: Tensor, least: int = 1) -> None:
    """Raises ValueError unless y holds an integer in 0..9 for each image of x, and x at least that many images."""
    whole = isinstance(y, Tensor) and y.ndim == 1 and not y.is_floating_point() and y.dtype != torch.bool
    if not whole or not len(y) == len(x) >= least or y.min() < 0 or y.max() > 9:
        raise ValueError(f"expected one label in 0..9 for each of {len(x)} images, at least {least}, got {y!r:.200}")
