"""The U-Net: wiring only. Every part it is made of stands in a file of its own."""

import inspect

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .attention import Attention, LinearAttention
from .embedding import LabelEmbedding, SinusoidalEmbedding
from .resample import DepthToSpace, Downsample, SpaceToDepth, Upsample
from .resnet import ResnetBlock


class UNet(nn.Module):
    """Noisy image, time and label in; one image of the same shape out (Ronneberger et al. 2015; for
    diffusion, Ho et al. 2020, appendix B).

    Way down: at each level `blocks` residual blocks, attention, half the size. Middle: block,
    attention, block. Way up: the same again, each block also fed with what its twin on the way down
    made. The last convolution starts at zero, so that an untrained network predicts 0.

    dims              channels of each level: the one dial of size
    channels          of the image
    num_classes       labels are 0..num_classes-1, num_classes is the null class; None: no labels
    patch             1, or 2 to fold 2x2 pixels into channels first: a quarter of the work
    blocks            residual blocks a level
    attention         sides of the maps that get full attention, for images of side image_size
    linear_attention  linear attention at all other levels
    heads             of each attention, 32 channels each
    groups            of each group norm
    upsample          "depth_to_space" or "nearest"

    Raises ValueError for arguments that do not fit together.
    """

    def __init__(
        self,
        dims: tuple[int, ...] = (32, 64, 128),
        channels: int = 1,
        num_classes: int | None = None,
        patch: int = 2,
        blocks: int = 1,
        attention: tuple[int, ...] = (8, 4),
        linear_attention: bool = False,
        heads: int = 4,
        groups: int = 8,
        upsample: str = "depth_to_space",
        image_size: int = 32,
    ):
        super().__init__()
        self.arguments = {name: value for name, value in locals().items() if name in ARGUMENTS}
        self.channels, self.num_classes = channels, num_classes
        self.divisor = patch * 2 ** (len(dims) - 1)
        sides = level_sides(len(dims), patch, image_size, attention)
        cond_dim = 4 * dims[0]

        def resnets(c_in: int, c_out: int) -> nn.ModuleList:
            return nn.ModuleList(ResnetBlock(c_in, c_out, cond_dim, groups) for _ in range(blocks))

        def attend(c: int, side: int) -> nn.Module:
            if side in attention:
                return Attention(c, heads)
            return LinearAttention(c, heads) if linear_attention else nn.Identity()

        self.time = nn.Sequential(
            SinusoidalEmbedding(dims[0]),
            nn.Linear(dims[0], cond_dim),
            nn.SiLU(),
            nn.Linear(cond_dim, cond_dim),
        )
        self.label = None if num_classes is None else LabelEmbedding(num_classes, cond_dim)
        stem = nn.Conv2d(channels * patch**2, dims[0], 3, padding=1)
        self.stem = nn.Sequential(SpaceToDepth(patch), stem)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for c, c_below, side in zip(dims, (*dims[1:], None), sides):
            down = Downsample(c, c_below) if c_below else nn.Identity()
            up = Upsample(c_below, c, upsample) if c_below else nn.Identity()
            self.down.append(nn.ModuleList([resnets(c, c), attend(c, side), down]))
            self.up.insert(0, nn.ModuleList([up, resnets(2 * c, c), attend(c, side)]))
        c = dims[-1]
        self.middle1 = ResnetBlock(c, c, cond_dim, groups)
        self.middle_attend = attend(c, sides[-1])
        self.middle2 = ResnetBlock(c, c, cond_dim, groups)
        self.last = ResnetBlock(2 * dims[0], dims[0], cond_dim, groups)
        self.out = nn.Sequential(nn.Conv2d(dims[0], channels * patch**2, 1), DepthToSpace(patch))
        nn.init.zeros_(self.out[0].weight)
        nn.init.zeros_(self.out[0].bias)

    def forward(
        self,
        x: Float[Tensor, "b c h w"],
        t: Int[Tensor, " b"],
        y: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """x: (b, channels, h, w); t: (b,); y: (b,), None for the null class. Returns (b, channels, h, w).

        Raises ValueError when h or w does not halve often enough, for another number of channels
        and for labels given to a network without them.
        """
        self.check(x, y)
        cond = self.condition(t, y)
        h = stem = self.stem(x)
        skips = []
        for resnets, attend, down in self.down:
            for resnet in resnets:
                h = resnet(h, cond)
                skips.append(h)
            h = skips[-1] = attend(h)
            h = down(h)
        h = self.middle2(self.middle_attend(self.middle1(h, cond)), cond)
        for up, resnets, attend in self.up:
            h = up(h)
            for resnet in resnets:
                h = resnet(torch.cat([h, skips.pop()], dim=1), cond)
            h = attend(h)
        return self.out(self.last(torch.cat([h, stem], dim=1), cond))

    def condition(self, t: Int[Tensor, " b"], y: Int[Tensor, " b"] | None) -> Float[Tensor, "b cond_dim"]:
        """Time and label as one vector: (b, cond_dim)."""
        cond = self.time(t)
        if self.label is None:
            return cond
        return cond + self.label(torch.full_like(t, self.label.null_class) if y is None else y)

    def check(self, x: Tensor, y: Tensor | None) -> None:
        h, w = x.shape[-2:]
        if x.shape[1] != self.channels:
            raise ValueError(f"this U-Net takes images of {self.channels} channels, got {x.shape[1]}")
        if h % self.divisor or w % self.divisor:
            low = [max(side // self.divisor, 1) * self.divisor for side in (h, w)]
            high = [-(-side // self.divisor) * self.divisor for side in (h, w)]
            raise ValueError(
                f"this U-Net halves images down by {self.divisor}, so height and width must be "
                f"multiples of it, got {h}x{w}: pad to {high[0]}x{high[1]} or crop to {low[0]}x{low[1]}"
            )
        if y is not None and self.label is None:
            raise ValueError("labels were given to a U-Net without: build it with num_classes")


ARGUMENTS = tuple(inspect.signature(UNet).parameters)  # kept by each network, to rebuild it from a file


def level_sides(levels: int, patch: int, image_size: int, attention: tuple[int, ...]) -> list[int]:
    """The side of the feature map at each level, from the top."""
    if patch not in (1, 2):
        raise ValueError(f"patch is 1 (pixels as they are) or 2 (2x2 pixels folded), got {patch}")
    divisor = patch * 2 ** (levels - 1)
    if image_size % divisor:
        raise ValueError(
            f"{levels} levels with patch {patch} need an image_size that {divisor} divides, got {image_size}"
        )
    sides = [image_size // patch // 2**level for level in range(levels)]
    if unknown := set(attention) - set(sides):
        raise ValueError(f"attention was asked for at {sorted(unknown)}, but the maps are {sides} on a side")
    return sides
