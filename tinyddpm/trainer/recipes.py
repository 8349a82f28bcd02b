"""What to train, by name: all that decides what the weights become, in one frozen class."""

from dataclasses import dataclass, replace

from ..nn import UNet
from ..nn.unet import level_sides


@dataclass(frozen=True)
class Recipe:
    """All that decides what the weights become, save the data, the seed and the length of the run."""

    dims: tuple[int, ...] = (32, 64, 128)
    patch: int = 2
    blocks: int = 1
    attention: tuple[int, ...] = (4,)
    num_classes: int | None = 10
    schedule: str = "cosine-shifted"
    T: int = 1000
    predicts: str = "x_0"
    loss: str = "mse"
    weights: str = "clamped-snr"
    times: str = "uniform"  # how each step draws them, or "logit-normal": the middle more often, or
    # "half-logit-normal": half of a batch like that
    label_drop: float = 0.1  # share of images trained without their label, for guidance
    optimizer: str = "muon"  # or "adam"
    batch_size: int = 64
    learning_rate: float = 5e-3
    warmup: int = 100  # steps over which the learning rate rises
    decay: str = "cosine"  # how it then falls to 0, or "linear"; "none": not at all
    weight_decay: float = 0.0  # with "adam" alone: AdamW's
    grad_norm: float | None = 1.0  # gradients are scaled down to this norm
    grow: tuple[int, ...] = ()  # how many different times to train in equal parts of the run, before all T
    ema_decay: float = 0.999  # 0: no average
    epochs: float = 30  # how often all of the data is seen
    image_size: int = 32  # of the bundled digits
    channels: int = 1  # 3: colours

    def __post_init__(self):
        plan = [self.grow] if isinstance(self.grow, int) else [0, *self.grow, self.T]
        if len(plan) == 1 or any(type(a) is not int or a >= b for a, b in zip(plan, plan[1:])):
            raise ValueError(
                f"grow tells how many times the run begins with, rising whole numbers below T = {self.T}, "
                f"such as (10, 100), got {self.grow}"
            )

    def network(self, image_shape: tuple[int, int, int] | None = None) -> UNet:
        """The untrained network for images (c, h, w); of the recipe's own channels and size where None.

        Larger images get more levels: see levels. Raises ValueError for images that are not square, of
        other channels than the recipe's, or of a size that the levels do not divide.
        """
        own = (self.channels, self.image_size, self.image_size)
        channels, size, width = image_shape or own
        if size != width:
            raise ValueError(f"a recipe takes square images, got {size}x{width}: pad them first")
        if channels not in (1, 3):
            raise ValueError(f"a recipe takes images of 1 or 3 channels, got {channels}")
        if channels != self.channels:
            raise ValueError(
                f"the recipe is for images of {self.channels} channels, but the data has {channels}: take "
                f"replace(recipe, channels={channels})"
            )
        try:
            level_sides(len(self.levels(size)), self.patch, size, self.attention)
        except ValueError as error:
            near = " or ".join(map(str, self.sizes_near(size)))
            raise ValueError(f"{error}" + (near and f": the nearest size that fits is {near}")) from error
        return UNet(
            self.levels(size), channels, self.num_classes, self.patch, self.blocks, self.attention, image_size=size
        )

    def levels(self, size: int) -> tuple[int, ...]:
        """The channels of each level for images of that size: dims, the last of them once more for each
        doubling of 28 or 32, so that the smallest maps, and attention with them, stay as they are."""
        doublings = max(0, (size // 28).bit_length() - 1)
        return self.dims + doublings * self.dims[-1:]

    def fits(self, size: int) -> bool:
        try:
            return bool(level_sides(len(self.levels(size)), self.patch, size, self.attention))
        except ValueError:
            return False

    def sizes_near(self, size: int, most: int = 128) -> list[int]:
        """The next smaller and the next larger size of image that fit."""
        fitting = [n for n in range(8, most + 1) if self.fits(n)]
        return [n for n in fitting if n < size][-1:] + [n for n in fitting if n > size][:1]

    def size_from(self, size: int, most: int = 128) -> int:
        """That size, or else the next larger one that fits."""
        return next((n for n in range(size, most + 1) if self.fits(n)), size)

    def suited(self, data) -> "Recipe":
        """This recipe for a data set's channels, size and classes, each as an attribute of it. A recipe
        without labels stays without, and data without labels makes it one."""
        classes = None if self.num_classes is None else data.num_classes
        return replace(self, channels=data.channels, image_size=data.size, num_classes=classes)

    def check_labels(self, data) -> None:
        """Raises ValueError for a data set that says of its labels that the recipe does not have them."""
        classes = getattr(data, "num_classes", self.num_classes)
        if self.num_classes is None or classes == self.num_classes:
            return
        if classes is None or classes > self.num_classes:
            has = "no labels" if classes is None else f"labels 0..{classes - 1}"
            raise ValueError(
                f"the recipe has labels 0..{self.num_classes - 1}, but the data has {has}: take "
                f"replace(recipe, num_classes={classes})"
            )


# What others train, with their settings: eps, linear betas as published and not scaled to T, Adam at one
# rate throughout, all noise levels alike, no average of the weights.
PUBLISHED = Recipe(
    patch=1,
    num_classes=None,
    schedule="linear-unscaled",
    predicts="eps",
    weights="none",
    optimizer="adam",
    learning_rate=1e-4,
    warmup=0,
    decay="none",
    grad_norm=None,
    ema_decay=0.0,
    epochs=20,
)
RECIPES = {
    "tiny": Recipe(),  # the shipped weights
    "nano": Recipe(
        dims=(16, 32, 64),
        weights="none",  # the high noise first: there is no time for more
        batch_size=48,
        warmup=50,
        ema_decay=0.99,
        epochs=0.7,
    ),  # under a minute on two cores
    "unconditional-300": replace(PUBLISHED, image_size=28, attention=(7,), T=300, batch_size=128, learning_rate=2e-4),
    "conditional-500": replace(
        PUBLISHED,
        image_size=28,
        dims=(32, 64, 96),
        attention=(7,),
        num_classes=10,
        T=500,
        batch_size=128,
        weight_decay=1e-5,
        grad_norm=1.0,
    ),
    "unconditional-1000": replace(PUBLISHED, attention=(8,), batch_size=48),
    "l1-1000": replace(PUBLISHED, attention=(8,), batch_size=48, loss="l1"),
    "large-1000": replace(PUBLISHED, dims=(64, 128, 256, 512), blocks=2, attention=(16, 4), num_classes=10, loss="l1"),
}


def get_recipe(recipe: Recipe | str) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe]
