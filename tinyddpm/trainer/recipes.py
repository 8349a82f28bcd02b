"""What to train, by name: a recipe holds all that decides the weights, except the data, the seed and the length. Torch
is imported when a recipe is used, so that the command line can show them at once."""

import contextlib
import math
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .dit import DiTConfig

if TYPE_CHECKING:
    from torch import nn

    from ..data import ImageDataset
    from ..nn import UNet
    from ..schedules import Schedule
    from .objectives import Loss, Times

LARGEST = 128  # pixels: the largest side of an image that errors propose
DECAYS = {"cosine": lambda p: (1 + math.cos(math.pi * p)) / 2, "linear": lambda p: 1 - p, "none": lambda p: 1.0}


@dataclass(frozen=True)
class UNetConfig:
    """What a recipe says about its U-Net. The image's shape and the number of classes come from the data."""

    dims: tuple[int, ...] = (32, 64, 128)  # channels at each level, from the largest maps to the smallest
    patch: int = 2  # side of the squares of pixels that the network sees as one, 1 or 2
    blocks: int = 1  # residual blocks at each level, on the way down and again on the way up
    attention: tuple[int, ...] = (4,)  # sides of the maps that get self-attention, counted in patches
    linear_attention: bool = False  # give the maps of all other sizes linear attention
    heads: int = 4  # heads of each attention
    groups: int = 8  # groups of each group normalization; their number divides each of dims
    upsample: str = "depth_to_space"  # how maps become larger again: depth_to_space or nearest

    def build(
        self, image_shape: tuple[int, int, int], num_classes: int | None = None, out_channels: int | None = None
    ) -> "UNet":
        """The untrained network for images (c, h, w). Larger images get more levels: the last of dims is repeated for
        each doubling of 28 or 32, so that the smallest maps, and attention with them, stay the same. Raises ValueError
        for images that are not square, and for a size that the levels do not divide."""
        from ..nn.unet import UNet, level_sides

        channels, size, width = image_shape
        if size != width:
            raise ValueError(f"a U-Net of a recipe takes square images, got {size}x{width}: pad them")
        try:
            level_sides(len(self.levels(size)), self.patch, size, self.attention)
        except ValueError as error:
            fitting = [n for n in range(8, LARGEST + 1) if self.fits(n)]
            nearest = [n for n in fitting if n < size][-1:] + [n for n in fitting if n > size][:1]
            advice = f": the nearest size that fits is {' or '.join(map(str, nearest))}" if nearest else ""
            raise ValueError(f"{error}{advice}") from error
        arguments = asdict(self) | {"dims": self.levels(size), "image_size": size, "out_channels": out_channels}
        return UNet(channels=channels, num_classes=num_classes, **arguments)

    def levels(self, size: int) -> tuple[int, ...]:
        return self.dims + max(0, (size // 28).bit_length() - 1) * self.dims[-1:]

    def fits(self, size: int) -> bool:
        from ..nn.unet import level_sides

        with contextlib.suppress(ValueError):
            return bool(level_sides(len(self.levels(size)), self.patch, size, self.attention))
        return False


@dataclass(frozen=True)
class Recipe:
    """All that decides the weights, except the data, the seed and the length of the run. The comment beside a field is
    its help in `tinyddpm train --help`. Raises ValueError for a name that is in none of the tables."""

    network: UNetConfig | DiTConfig = field(default_factory=UNetConfig)  # a U-Net, or a diffusion transformer
    objective: str = "denoising"  # what is learned: denoising, learned-variance, self-conditioned or bound
    num_classes: int | None = 10  # number of labels; None: without labels
    schedule: str = "cosine-shifted"  # bound cosine cosine-shifted flow linear linear-unscaled linear-zero-snr sigmoid
    T: int = 1000  # number of noise levels
    predicts: str = "x_0"  # what the network predicts: eps, x_0, v or flow
    loss: str = "mse"  # distance to what it should predict: mse, l1 or huber
    weights: str = "clamped-snr"  # weight of each noise level in the loss: none (as it is), min-snr or clamped-snr
    times: str = "uniform"  # how noise levels are drawn: uniform, logit-normal, half-logit-normal or progressive
    label_drop: float = 0.1  # share of labels replaced by the null class, for guidance
    optimizer: str = "muon"  # muon (with adam for what is no matrix) or adam
    batch_size: int = 64  # images of each step, in each process
    learning_rate: float = 5e-3  # the highest, after the warmup
    warmup: int = 100  # steps over which the learning rate rises linearly
    decay: str = "cosine"  # how the learning rate falls to 0 after the warmup: cosine, linear, or none (it stays)
    weight_decay: float = 0.0  # how much adam shrinks its weights: this times the learning rate, each step
    grad_norm: float | None = 1.0  # norm down to which larger gradients are scaled; None: as they are
    ema_decay: float = 0.999  # share of the averaged weights that each step keeps; 0: no average
    epochs: float = 30  # how often all of the data is seen
    image_size: int = 32  # side in pixels to which the bundled digits are padded

    def __post_init__(self):
        if "RECIPES" in globals():  # those are right, as a test says, and the tables import torch
            from ..schedules import choose
            from .objectives import TABLES

            for name, table in TABLES.items():
                choose(table, getattr(self, name), name)

    def build(self, image_shape: tuple[int, int, int]) -> "nn.Module":
        """The untrained network for images (c, h, w). Raises ValueError for images that do not fit it."""
        from .objectives import OBJECTIVES

        return OBJECTIVES[self.objective].network(self, image_shape)

    def loss_of(self, schedule: "Schedule", times: "Times") -> "Loss":
        """The objective, with times drawn by `times`. Raises ValueError for settings that it does not take."""
        from .objectives import OBJECTIVES

        return OBJECTIVES[self.objective].loss(schedule, self.predicts, self.loss, self.weights, self.label_drop, times)

    def rate(self, step: int, progress: float) -> float:
        """The learning rate of step 1, 2, ..., at a progress of the run from 0 to 1."""
        return self.learning_rate * min(1, step / max(1, self.warmup)) * DECAYS[self.decay](min(progress, 1))

    def suited(self, data: "ImageDataset | Any") -> "Recipe":
        """This recipe for the size and classes of a data set, or of a tensor of images. Without labels, in either, it
        has none."""
        from ..datasets.own import as_data

        data = data if hasattr(data, "num_classes") else as_data(data)
        classes = None if self.num_classes is None else data.num_classes
        return replace(self, image_size=data.size, num_classes=classes)


# The settings of other tutorials: eps, linear betas as published and not scaled to T, Adam at a constant rate, all
# noise levels alike, no averaged weights.
PUBLISHED = Recipe(
    UNetConfig(patch=1, attention=(8,)), num_classes=None, schedule="linear-unscaled", predicts="eps", weights="none",
    optimizer="adam", batch_size=48, learning_rate=1e-4, warmup=0, decay="none", grad_norm=None, ema_decay=0.0,
    epochs=20,
)  # fmt: skip
# Under a minute on two cores: unweighted, since there is no time for more than the high noise.
NANO = Recipe(UNetConfig((16, 32, 64)), weights="none", batch_size=48, warmup=50, ema_decay=0.99, epochs=0.7)
RECIPES = {
    "tiny": Recipe(),  # the shipped weights
    "nano": NANO,
    "learned-variance": replace(NANO, objective="learned-variance", predicts="eps", schedule="cosine", epochs=10),
    "self-conditioned": replace(NANO, objective="self-conditioned", weights="clamped-snr", epochs=10),
    "unconditional-300": replace(
        PUBLISHED, network=UNetConfig(patch=1, attention=(7,)), image_size=28, T=300, batch_size=128, learning_rate=2e-4
    ),
    "conditional-500": replace(
        PUBLISHED, network=UNetConfig((32, 64, 96), patch=1, attention=(7,)), image_size=28, num_classes=10, T=500,
        batch_size=128, weight_decay=1e-5, grad_norm=1.0,
    ),
    "unconditional-1000": PUBLISHED,
    "l1-1000": replace(PUBLISHED, loss="l1"),
    "large-1000": replace(
        PUBLISHED, network=UNetConfig((64, 128, 256, 512), patch=1, blocks=2, attention=(16, 4)), num_classes=10,
        batch_size=64, loss="l1",
    ),
    "dit": Recipe(DiTConfig(local=True)), "dit-cross": Recipe(DiTConfig(cross=True, local=True)),
    "bits": Recipe(UNetConfig((64, 96), attention=()), "bound", None, "bound", weights="none", image_size=28),
}  # fmt: skip


def get_recipe(recipe: Recipe | str) -> Recipe:
    """The recipe of that name. Raises ValueError for an unknown one, with those there are."""
    from ..schedules import choose

    return recipe if isinstance(recipe, Recipe) else choose(RECIPES, recipe, "recipe")
