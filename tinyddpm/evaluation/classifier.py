"""The judge: a small convolutional network that reads digits, and never sees the diffusion model."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from tqdm import tqdm

from ..files import asset, read_checkpoint, write_checkpoint


class DigitClassifier(nn.Module):
    """A small convolutional network for digits: (b, 1, 32, 32) in [-1, 1] to (b, 10) logits.

    Its features are the mean of the last convolution's maps: what the distances of metrics.py compare.
    """

    image_size = 32

    def __init__(self, dims: tuple[int, ...] = (24, 48, 96, 128), num_classes: int = 10):
        super().__init__()
        self.arguments = {"dims": tuple(dims), "num_classes": num_classes}
        levels = [conv_norm(c_in, c_out) for c_in, c_out in zip((1, *dims), dims)]
        pools = [nn.MaxPool2d(2), nn.MaxPool2d(2), *[nn.Identity()] * (len(dims) - 2)]
        self.body = nn.Sequential(*(nn.Sequential(conv, pool) for conv, pool in zip(levels, pools)))
        self.head = nn.Linear(dims[-1], num_classes)

    def features(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b d"]:
        return self.body(x).mean((2, 3))

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b k"]:
        return self.head(self.features(x))


def conv_norm(c_in: int, c_out: int) -> nn.Sequential:
    conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(c_out), nn.ReLU())


def distort(
    x: Float[Tensor, "b c h w"], generator: Generator | None = None, turn: float = 12.0, move: float = 2.0
) -> Float[Tensor, "b c h w"]:
    """Each image turned by up to `turn` degrees, scaled and sheared by up to a tenth and moved by up to
    `move` pixels, at random and by itself; never mirrored. What comes in from outside is -1."""
    n, side = len(x), x.shape[-1]
    angle, scale, shear, dx, dy = 2 * torch.rand(5, n, generator=generator) - 1
    angle, scale, shear = angle * math.radians(turn), 1 + 0.1 * scale, 0.1 * shear
    cos, sin = angle.cos() * scale, angle.sin() * scale
    dx, dy = dx * 2 * move / side, dy * 2 * move / side
    theta = torch.stack([cos, shear - sin, dx, sin, cos, dy], 1).reshape(n, 2, 3)
    grid = F.affine_grid(theta, x.shape, align_corners=False)
    return F.grid_sample(x + 1, grid, align_corners=False) - 1  # zeros come in: the background is -1


def train_classifier(
    x: Float[Tensor, "n 1 h w"], y: Int[Tensor, " n"], epochs: int = 10, batch_size: int = 100, seed: int = 0
) -> DigitClassifier:
    """A DigitClassifier trained on images and labels, each image distorted anew each time it is seen.

    The same seed gives the same weights on the same machine. Raises ValueError for less than a batch.
    """
    if len(x) != len(y) or len(x) < batch_size:
        raise ValueError(f"one label an image and at least {batch_size}: got {len(x)} and {len(y)} labels")
    generator = Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DigitClassifier().to(memory_format=torch.channels_last)
    steps = len(x) // batch_size
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.01, fused=True)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=epochs * steps)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)[: steps * batch_size]
        for chosen in tqdm(order.split(batch_size), f"classifier, epoch {epoch + 1}", disable=None):
            logits = model(distort(x[chosen], generator))
            loss = F.cross_entropy(logits, y[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pace.step()
    return model.to(memory_format=torch.contiguous_format).eval()


def save_classifier(model: DigitClassifier, path: str | Path, notes: dict | None = None) -> None:
    """Writes one .safetensors file in half precision: half the size, the same reading."""
    tensors = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    write_checkpoint(Path(path), {"classifier": model.arguments, "notes": notes or {}}, tensors)


def load_classifier(path: str | Path | None = None) -> DigitClassifier:
    """The classifier that ships with the package, or one that save_classifier wrote.

    Raises ValueError for a file that is missing, cut off or holds something else.
    """
    path = asset("weights/digit-classifier.safetensors") if path is None else Path(path)
    description, tensors = read_checkpoint(path)
    if "classifier" not in description:
        raise ValueError(f"{path} holds no classifier: save_classifier writes one")
    try:
        model = DigitClassifier(**description["classifier"])
        model.load_state_dict(tensors)  # into float32
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{path} describes another classifier than the one it holds: {error}") from error
    return model.eval()


@torch.no_grad()
def features(classifier: DigitClassifier, x: Float[Tensor, "n 1 h w"], batch_size: int = 500) -> Float[Tensor, "n d"]:
    """What the classifier sees in each image: (n, d). Raises ValueError for what are no digits."""
    check_digits(x)
    return torch.cat([classifier.features(part) for part in x.split(batch_size)])


@torch.no_grad()
def classify(classifier: nn.Module, x: Float[Tensor, "n 1 h w"], batch_size: int = 500) -> Float[Tensor, "n k"]:
    """The probability of each class: (n, 10). Raises ValueError for what are no digits."""
    check_digits(x)
    return torch.cat([classifier(part).softmax(1) for part in x.split(batch_size)])


def check_digits(x: Tensor, size: int = DigitClassifier.image_size) -> None:
    """Raises ValueError unless x is float32 images (n, 1, 32, 32), finite and in [-1, 1]."""
    if not isinstance(x, Tensor):
        raise ValueError(f"digits are a tensor (n, 1, {size}, {size}), got {type(x)}: see torch.as_tensor")
    if x.ndim != 4 or len(x) == 0 or x.shape[1:] != (1, size, size):
        raise ValueError(
            f"digits are images (n, 1, {size}, {size}), got shape {tuple(x.shape)}: "
            "tinyddpm.data.pad_to brings 28x28 there"
        )
    if not (finite := x.flatten(1).isfinite().all(1)).all():
        raise ValueError(f"{int((~finite).sum())} of {len(x)} images hold NaN or infinite values")
    if x.dtype != torch.float32:
        raise ValueError(f"digits are float32, got {x.dtype}: x.float() makes them that")
    low, high = float(x.min()), float(x.max())
    half = abs(low + 0.5) < 0.01 and high < 0.51  # [-0.5, 0.5] and [0, 1] are the usual mistakes
    if low < -1.001 or high > 1.001 or low >= 0 or half:
        raise ValueError(
            f"digits lie in [-1, 1] on a background of -1, got values in [{low:.3g}, {high:.3g}]: "
            "tinyddpm.data.from_uint8 maps [0, 255] there"
        )


def check_labels(x: Tensor, y: Tensor) -> None:
    """Raises ValueError unless y holds one integer in 0..9 for each image of x."""
    if not isinstance(y, Tensor):
        raise ValueError(f"labels are a tensor (n,) of integers 0..9, got {type(y)}: see torch.as_tensor")
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"one label an image and at least one: got {len(x)} images and {len(y)} labels")
    if y.ndim != 1 or y.is_floating_point() or y.dtype == torch.bool or y.min() < 0 or y.max() > 9:
        values = "" if y.ndim != 1 else f", values {y.min():g}..{y.max():g}"
        raise ValueError(f"labels are integers 0..9, one an image, got {y.dtype} of shape {tuple(y.shape)}{values}")
