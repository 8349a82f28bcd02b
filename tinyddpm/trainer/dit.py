"""What a recipe says about a diffusion transformer."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..nn.dit import DiT


@dataclass(frozen=True)
class DiTConfig:
    """The geometry of a DiT. The image's channels and the number of classes come from the data; images of another size
    are more or fewer patches."""

    dim: int = 128  # channels of each token, a multiple of 4 heads
    depth: int = 5  # blocks
    heads: int = 4  # heads of each attention
    patch: int = 4  # side of the squares of pixels that are a token each
    cross: bool = False  # read labels by cross-attention, in place of adding them to the time
    local: bool = False  # a depthwise 3x3 convolution of the patches in each block

    def build(
        self, image_shape: tuple[int, int, int], num_classes: int | None = None, out_channels: int | None = None
    ) -> "DiT":
        """The untrained network for images (c, h, w). Raises ValueError for settings that do not fit each other."""
        from ..nn.dit import DiT

        return DiT(channels=image_shape[0], num_classes=num_classes, out_channels=out_channels, **asdict(self))

    def fits(self, size: int) -> bool:
        return self.patch > 0 and size % self.patch == 0
