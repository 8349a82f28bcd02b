"""What to train, by name: all that decides what the weights become, in one frozen class."""

from dataclasses import dataclass

from .nn import UNet


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
    label_drop: float = 0.1  # share of images trained without their label, for guidance
    optimizer: str = "muon"  # or "adam"
    batch_size: int = 64
    learning_rate: float = 5e-3
    warmup: int = 100  # steps over which the learning rate rises
    grad_norm: float = 1.0
    ema_decay: float = 0.999
    epochs: float = 30  # how often all of the data is seen

    def network(self, image_shape: tuple[int, int, int] = (1, 32, 32)) -> UNet:
        """The untrained network for images (c, h, w). Raises ValueError unless they are square."""
        channels, size, width = image_shape
        if size != width:
            raise ValueError(f"a recipe takes square images, got {size}x{width}: pad them first")
        return UNet(
            self.dims,
            channels,
            self.num_classes,
            self.patch,
            self.blocks,
            self.attention,
            image_size=size,
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
}


def get_recipe(recipe: Recipe | str) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe]
