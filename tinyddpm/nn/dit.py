"""The diffusion transformer: an image as a sequence of patches, all at one resolution."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from .embedding import LabelEmbedding, SinusoidalEmbedding
from .resample import DepthToSpace, SpaceToDepth

Tokens = Float[Tensor, "b n c"]
Rotary = tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]  # cosines, and sines with their signs
Labels = Int[Tensor, " b"] | Int[Tensor, "b k"]


def rms_norm(x: Tensor, eps: float = 1e-6) -> Tensor:
    """x / sqrt(mean(x^2)) over the last axis (Zhang & Sennrich 2019, eq. 4): on a CPU twice as fast as F.rms_norm."""
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + eps)


def axial_rotary(rows: int, columns: int, d: int, like: Tensor, base: float = 100.0) -> Rotary:
    """The angles of each patch: half of the d channels turn by its row, half by its column, in d / 4 pairs each, with
    frequencies base^(-4 i / d) (Su et al. 2021, section 3.2; in two dimensions, Heo et al. 2024, section 3.2)."""
    frequency = base ** -(torch.arange(d // 4).to(like) / (d // 4))
    places = torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).to(like)
    angle = (places[:, :, None] * frequency).flatten(1)  # (n, d / 2)
    return torch.cat([angle.cos(), angle.cos()], dim=1), torch.cat([-angle.sin(), angle.sin()], dim=1)


def rotate(x: Float[Tensor, "b m n d"], rotary: Rotary) -> Float[Tensor, "b m n d"]:
    """Turns channels i and i + d / 2 as one vector in the plane: scores then depend on how far patches are apart."""
    cos, sin = (table.to(x) for table in rotary)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


class TokenAttention(nn.Module):
    """softmax(q k^T) v in several heads (Vaswani et al. 2017, section 3.2), q from x (b, n, dim), k and v from context
    (b, k, dim), with QK-norm (Henry et al. 2020): both are scaled to RMS 1, then q by learned weights, at first d^-0.5.

    rotary turns q and k by their places; mask (b, k) says where to look. Returns (b, n, dim). Memory grows with n k.
    Written out, as F.scaled_dot_product_attention is several times slower for a few dozen tokens on a CPU.
    """

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, d = heads, dim // heads
        self.to_q, self.to_kv = nn.Linear(dim, dim, bias=False), nn.Linear(dim, 2 * dim, bias=False)
        self.scale = nn.Parameter(torch.full((heads, 1, d), d**-0.5))
        self.project = nn.Linear(dim, dim)

    def look(
        self, x: Tokens, context: Tensor, rotary: Rotary | None = None, mask: Tensor | None = None
    ) -> tuple[Float[Tensor, "b m n k"], Float[Tensor, "b m k d"]]:
        """How much each token looks at each of the context, shares that add up to 1, and the values there."""
        q = rearrange(self.to_q(x), "b n (m d) -> b m n d", m=self.heads)
        k, v = rearrange(self.to_kv(context), "b k (two m d) -> two b m k d", two=2, m=self.heads)
        q, k = rms_norm(q) * self.scale.to(q), rms_norm(k)
        if rotary is not None:
            q, k = rotate(q, rotary), rotate(k, rotary)
        scores = q @ k.mT
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -torch.inf)
        return scores.softmax(dim=-1), v

    def forward(self, x: Tokens, *context: Any) -> Tokens:
        shares, v = self.look(x, *context)
        return self.project(rearrange(shares @ v, "b m n d -> b n (m d)"))


class Neighbours(nn.Conv2d):
    """x (b, n, dim) plus its depthwise 3x3 convolution on the grid of patches, n = rows x columns in row-major order.
    The weights start at zero (the generator of Chu et al. 2021, "Conditional positional encodings", in every block)."""

    def __init__(self, dim: int):
        super().__init__(dim, dim, 3, padding=1, groups=dim)
        for weight in self.parameters():
            nn.init.zeros_(weight)

    def forward(self, x: Tokens, rows: int) -> Tokens:  # type: ignore[override]
        grid = super().forward(rearrange(x, "b (h w) c -> b c h w", h=rows))
        return x + rearrange(grid, "b c h w -> b (h w) c")


class DiTBlock(nn.Module):
    """On x (b, n, dim), in this order: Neighbours if `local`, self-attention, cross-attention to the tokens of a label
    if `cross`, and an MLP, each added to its input.

    Self-attention and the MLP are x + gate f(norm(x) (1 + scale) + shift). Shift, scale and gate are a linear function
    of cond that starts at zero (adaLN-zero, Peebles & Xie 2023, section 3.2). The other two parts start at zero as
    well, so that an untrained block is the identity.
    """

    def __init__(self, dim: int, heads: int, cross: bool = False, local: bool = False):
        super().__init__()
        self.local = Neighbours(dim) if local else None
        self.modulation = nn.Linear(dim, 6 * dim)
        self.attend = TokenAttention(dim, heads)
        self.cross = TokenAttention(dim, heads) if cross else None
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        for weight in (*self.modulation.parameters(), *(self.cross.project.parameters() if self.cross else ())):
            nn.init.zeros_(weight)

    def forward(
        self, x: Tokens, cond: Tensor, rotary: Rotary, label: Tensor | None, mask: Tensor | None, rows: int
    ) -> Tokens:
        x = x if self.local is None else self.local(x, rows)
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(cond)[:, None].chunk(6, dim=-1)
        h = torch.addcmul(shift1, rms_norm(x), 1 + scale1)
        x = torch.addcmul(x, gate1, self.attend(h, h, rotary))
        if self.cross is not None:
            x = x + self.cross(rms_norm(x), label, None, mask)
        return torch.addcmul(x, gate2, self.mlp(torch.addcmul(shift2, rms_norm(x), 1 + scale2)))


class DiT(nn.Module):
    """Noisy image, time and label in, an image of the same size out (Peebles & Xie 2023). Untrained, it predicts 0.

    dim, depth    channels of each token, and blocks
    heads         of each attention: dim is a multiple of 4 heads
    patch         side of the squares of pixels that are a token each
    cross         read labels by cross-attention to a set of tokens, in place of adding them to the time
    local         a depthwise 3x3 convolution of the patches in each block
    channels      of the image
    num_classes   labels, or tokens, are 0..num_classes-1, and num_classes is null; None: no labels
    out_channels  of what it returns; by default those of the image. Arguments that do not fit raise ValueError
    """

    def __init__(
        self,
        dim: int = 128,
        depth: int = 5,
        heads: int = 4,
        patch: int = 4,
        cross: bool = False,
        local: bool = False,
        channels: int = 1,
        num_classes: int | None = None,
        out_channels: int | None = None,
    ):
        self.arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__()
        if min(dim, depth, heads, patch) < 1 or dim % (4 * heads):
            wanted = "a DiT needs dim, depth, heads and patch of at least 1, and dim a multiple of 4 heads"
            raise ValueError(f"{wanted}, got dim={dim}, depth={depth}, heads={heads}, patch={patch}")
        self.channels, self.num_classes, self.patch, self.heads = channels, num_classes, patch, heads
        self.cross = cross and num_classes is not None
        self.time = nn.Sequential(SinusoidalEmbedding(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = None if num_classes is None else LabelEmbedding(num_classes, dim)
        self.stem = nn.Sequential(SpaceToDepth(patch), nn.Conv2d(channels * patch**2, dim, 1))
        self.blocks = nn.ModuleList(DiTBlock(dim, heads, self.cross, local) for _ in range(depth))
        self.modulation = nn.Linear(dim, 2 * dim)
        self.out = nn.Sequential(nn.Conv2d(dim, (out_channels or channels) * patch**2, 1), DepthToSpace(patch))
        for weight in (*self.modulation.parameters(), *self.out.parameters()):
            nn.init.zeros_(weight)

    def forward(self, x: Float[Tensor, "b c h w"], t: Tensor, y: Labels | None = None) -> Float[Tensor, "b c2 h w"]:
        """x: (b, channels, h, w); t: (b,); y: (b,), with `cross` also (b, k), None for null. Returns (b, out_channels,
        h, w). Raises ValueError unless patch divides h and w, and for labels or a dtype that it was not built for."""
        self.check(x, y)
        h = self.stem(x)
        (_, dim, rows, columns), (cond, *label) = h.shape, self.condition(t, y)
        h, rotary = rearrange(h, "b c h w -> b (h w) c"), axial_rotary(rows, columns, dim // self.heads, x)
        for block in self.blocks:
            h = block(h, cond, rotary, *label, rows)
        shift, scale = self.modulation(cond)[:, None].chunk(2, dim=-1)
        h = torch.addcmul(shift, rms_norm(h), 1 + scale)
        return self.out(rearrange(h, "b (h w) c -> b c h w", h=rows))

    def condition(self, t: Tensor, y: Labels | None) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """What modulates the blocks (b, dim), the tokens of `cross` (b, 1 + k, dim), and their mask: True for the null
        token that leads and for all that are not null. A caption is the same in any order and however it is padded."""
        cond, null = self.time(t), cast(int, self.num_classes)
        if self.label is None:
            return F.silu(cond), None, None
        y = torch.full_like(t, null, dtype=torch.long) if y is None else y
        if not self.cross:
            return F.silu(cond + self.label(y)), None, None
        y = F.pad(y.reshape(len(t), -1), (1, 0), value=null)
        return F.silu(cond), self.label(y), (y != null) | (torch.arange(y.shape[1], device=y.device) == 0)

    def check(self, x: Tensor, y: Tensor | None) -> None:
        (c, h, w), p, dtype, last = x.shape[1:], self.patch, next(self.parameters()).dtype, self.num_classes
        if c != self.channels or h % p or w % p or x.dtype != dtype or dtype.itemsize < 4:
            fits = ", ".join(str(n) for n in range(1, min(h, w) + 1) if h % n == w % n == 0)
            got = f"got {c}x{h}x{w}: pad to {h + -h % p}x{w + -w % p}, or build it with a patch in {fits}"
            wanted = f"a DiT takes images of {self.channels} channels, their sides multiples of its patch {p}"
            raise ValueError(f"{wanted}, {got}, all in float32 ({x.dtype}, weights {dtype})")
        if y is None:
            return
        if last is None:
            raise ValueError("this DiT was built without labels, but got some: build it with num_classes")
        known = torch.compiler.is_compiling() or not y.numel() or 0 <= y.min() <= y.max() <= last
        if not known or len(y) != len(x) or y.ndim > 1 + self.cross:
            wanted = f"{'(b,) or (b, k)' if self.cross else '(b,)'}, integers in 0..{last}, of which {last} is null"
            raise ValueError(f"labels are {wanted}, got {tuple(y.shape)} for {len(x)} images: {y.tolist()[:5]}")

    @torch.no_grad()
    def attention_maps(self, x: Tensor, t: Tensor, y: Labels | None = None, cross: bool = False) -> list[Tensor]:
        """The attention of each block from patch to patch, (b, heads, n, n), in row-major order; with `cross`, from
        each patch to the tokens of the label, (b, heads, n, 1 + k), the null token first. The other arguments are those
        of a call. Raises ValueError for `cross` and a DiT without cross-attention."""
        if cross and not self.cross:
            raise ValueError("this DiT has no cross-attention: build it with cross=True and num_classes")
        maps: list[Tensor] = []
        parts = [block.cross if cross else block.attend for block in cast(Any, self.blocks)]
        hooks = [part.register_forward_pre_hook(lambda part, args: maps.append(part.look(*args)[0])) for part in parts]
        try:
            self(x, t, y)
        finally:
            for hook in hooks:
                hook.remove()
        return maps
