"""What samples are worth: an independent digit classifier, and the figures made with it."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset


class DigitClassifier(nn.Sequential):
    """A small convolutional network for digits: (b, 1, 32, 32) in [-1, 1] to (b, 10) logits."""

    def __init__(self, dims: tuple[int, int, int] = (24, 48, 96)):
        a, b, c = dims
        super().__init__(
            *conv_norm(1, a), nn.MaxPool2d(2), *conv_norm(a, b), nn.MaxPool2d(2),
            *conv_norm(b, c), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3), nn.Linear(16 * c, 10),
        )  # fmt: skip


def conv_norm(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(c_in, c_out, 3, padding=1, bias=False), nn.BatchNorm2d(c_out), nn.ReLU()


def train_classifier(data: Dataset, epochs: int = 5, batch_size: int = 128, seed: int = 0) -> DigitClassifier:
    """A DigitClassifier trained on (image, label) items, each digit moved by up to two pixels at random."""
    torch.manual_seed(seed)
    generator = Generator().manual_seed(seed)
    model = DigitClassifier()
    loader = DataLoader(data, batch_size, shuffle=True, drop_last=True, generator=generator)
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    pace = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * len(loader))
    for _ in range(epochs):
        for x, y in loader:
            dx, dy = torch.randint(-2, 3, (2,), generator=generator).tolist()
            loss = F.cross_entropy(model(x.roll((dx, dy), (2, 3))), y, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            pace.step()
    return model.eval()


@torch.no_grad()
def classify(
    classifier: nn.Module, x: Float[Tensor, "b c h w"], batch_size: int = 500
) -> Float[Tensor, "b k"]:
    """The classifier's probabilities: (b, 10)."""
    return torch.cat([classifier(part).softmax(1) for part in x.split(batch_size)])


def label_accuracy(classifier: nn.Module, x: Float[Tensor, "b c h w"], y: Int[Tensor, " b"]) -> float:
    """The share of images that the classifier reads as the digit in y.

    Raises ValueError when images and labels differ in number, and for images that are not finite.
    """
    if len(x) != len(y) or len(x) == 0:
        raise ValueError(f"one label an image and at least one: got {len(x)} images and {len(y)} labels")
    if not x.isfinite().all():
        bad = int((~x.flatten(1).isfinite().all(1)).sum())
        raise ValueError(f"{bad} of {len(x)} images hold NaN or infinite values")
    return float((classify(classifier, x).argmax(1) == y).float().mean())
