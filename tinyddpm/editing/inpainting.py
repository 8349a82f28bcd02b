"""Inpainting: known pixels, and others drawn to fit them."""

from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..diffusion import Denoiser, Images
from ..pipeline import DDPM
from ..samplers import p_sample_loop
from ..schedules import Grid, choose, require

WHOLE, FIRST, SECOND, MIDDLE = (0, 1), (0, 1 / 2), (1 / 2, 1), (1 / 3, 2 / 3)  # from and to, as parts of a side
HALVES = {"left": (WHOLE, FIRST), "right": (WHOLE, SECOND), "top": (FIRST, WHOLE), "bottom": (SECOND, WHOLE)}
HALVES["middle"] = (MIDDLE, MIDDLE)  # rows and columns, all five


def inpaint(denoiser: Denoiser, known: Images, mask: Float[Tensor, "..."]) -> Denoiser:
    """x_0_hat with the known pixels, (b, c, h, w) or (1, c, h, w) for all, where the mask is 1, and those of the
    denoiser where it is 0. The mask broadcasts to them.

    The samplers noise known pixels along with the others. The drawn ones see them through that noise only, and fit them
    better with p_sample_loop on a `resampling_grid` (Lugmayr et al. 2022, "RePaint", section 4).

    Raises ValueError for a mask of other values than 0 and 1, for one that does not broadcast, and when called with
    images of another shape than the known ones.
    """
    fits = mask.ndim <= known.ndim and all(m in (1, n) for m, n in zip(mask.shape[::-1], known.shape[::-1]))
    if not fits or not known.is_floating_point() or not ((mask == 0) | (mask == 1)).all():
        wanted = f"is 1 where a pixel is known, 0 elsewhere, and broadcasts to {tuple(known.shape)}"
        values = f"values in [{mask.min():.3g}, {mask.max():.3g}]" if mask.numel() else "no values"
        found = f"shape {tuple(mask.shape)} with {values} for {known.dtype}"
        raise ValueError(f"a mask {wanted}, got {found}: see (mask > 0.5).float(), data.from_uint8")
    mask = mask.bool()

    def inpainted(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        if x_t.shape[1:] != known.shape[1:] or len(known) not in (1, len(x_t)):
            raise ValueError(f"known pixels of {tuple(known.shape)} do not fit images of {tuple(x_t.shape)}")
        return torch.where(mask.to(x_t.device), known.to(x_t), denoiser(x_t, t))

    return inpainted


def resampling_grid(grid: Grid, jump: int = 10, repeats: int = 10) -> list[tuple[int, int]]:
    """The grid with every `jump` steps walked `repeats` times: down, up again in one step of noise, and down (Lugmayr
    et al. 2022, "RePaint", algorithm 1 and figure 9). The step to 0 is walked once. Raises ValueError below 1."""
    require(jump >= 1 and repeats >= 1, "jump and repeats must be at least 1", f"jump={jump} and repeats={repeats}")
    grid, walk = list(grid), []
    for k in range(0, len(grid), jump):
        down = grid[k : k + jump]
        if again := [(t, s) for t, s in down if s > 0]:
            walk += [*again, (again[-1][1], again[0][0])] * (repeats - 1)
        walk += down
    return walk


def complete(
    ddpm: DDPM,
    x_0: Images,
    mask: Float[Tensor, "h w"],
    each: int = 8,
    y: Int[Tensor, " b"] | None = None,
    steps: int = 50,
    repeats: int = 5,
    scale: float = 1.0,
    seed: int = 0,
) -> Images:
    """`each` completions of every image where the mask is 0: (b each, c, h, w). Without labels the network infers the
    digit. The seeds count up from `seed`; repeats, of resampling_grid, fit better the more there are.

    Raises ValueError unless there is one label for each image, for a mask that does not fit, and for each below 1.
    """
    known, n = x_0.to(ddpm.device).repeat_interleave(each, 0), len(x_0) * each
    y = None if y is None else check_pairs(ddpm, y, x_0).repeat_interleave(each)
    grid = resampling_grid(ddpm.schedule.grid(steps), max(1, steps // 10), repeats)
    guide = partial(inpaint, known=known, mask=mask.to(ddpm.device))
    how = {"seeds": range(seed, seed + n), "sampler": p_sample_loop, "scale": scale, "grid": grid, "guide": guide}
    return ddpm.sample(y, n if y is None else None, batch_size=n, **how)


def check_pairs(ddpm: DDPM, y: Tensor, of: Images | Tensor) -> Int[Tensor, " b"]:
    """The labels, checked. Raises ValueError unless there are as many as images or labels in `of`."""
    if len(y := ddpm.check_labels(y)) != len(of):
        raise ValueError(f"expected one label for each of {len(of)}, got {len(y)}: repeat the shorter ones")
    return y


def hide_half(half: str, height: int, width: int) -> Float[Tensor, "h w"]:
    """A mask for inpaint, 0 in one half of the image and 1 elsewhere. half: "left", "right", "top", "bottom", or
    "middle", the middle ninth. Raises ValueError for another half."""
    (top, bottom), (left, right) = choose(HALVES, half, "half")
    mask = torch.ones(height, width)
    rows = slice(int(top * height), height - int((1 - bottom) * height))
    mask[rows, int(left * width) : width - int((1 - right) * width)] = 0
    return mask
