"""Pixels that are known, and the rest drawn to fit them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..diffusion import Denoiser, Images
from ..schedules import Grid


def inpaint(denoiser: Denoiser, known: Images, mask: Float[Tensor, "..."]) -> Denoiser:
    """x_0_hat with the known pixels in it where the mask is 1, the denoiser's own where it is 0.

    The samplers make x_s of it, so that the known pixels are noised along with the rest and end as they
    are. What is drawn sees them only through noise, as much as there is at t, and fits them less well than it
    should: p_sample_loop on a grid that climbs (`resampling_grid`) goes over each part several times and lets
    the two agree (Lugmayr et al. 2022, "RePaint", section 4).

    mask: 0 or 1 in the shape of known, or one that broadcasts to it. Raises ValueError for other values and
    shapes.
    """
    mask = check_mask(mask, known)

    def filled(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        if x_t.shape != known.shape:
            raise ValueError(
                f"the known pixels are {tuple(known.shape)}, the images that are sampled {tuple(x_t.shape)}: "
                "give one image of known pixels for each"
            )
        return torch.where(mask.to(x_t.device), known.to(x_t), denoiser(x_t, t))

    return filled


def check_mask(mask: Tensor, known: Images) -> Tensor:
    try:
        shape = torch.broadcast_shapes(mask.shape, known.shape)
    except RuntimeError:
        shape = None
    if shape != known.shape:
        raise ValueError(
            f"a mask has the shape of the images, {tuple(known.shape)}, or broadcasts to it, such as "
            f"{(1, 1, *known.shape[2:])}; got {tuple(mask.shape)}"
        )
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(
            f"a mask is 1 where a pixel is known and 0 where it is drawn, got values in "
            f"[{float(mask.min()):.3g}, {float(mask.max()):.3g}]: take (mask > 0.5).float()"
        )
    return mask.bool()


def resampling_grid(grid: Grid, jump: int = 10, times: int = 10) -> list[tuple[int, int]]:
    """The grid with each `jump` steps of it walked `times` times: down, back up in one step of noise, and
    down again (Lugmayr et al. 2022, "RePaint", algorithm 1 and figure 9). The last step, to 0, is walked
    once.

    Raises ValueError for a jump or times below 1.
    """
    if jump < 1 or times < 1:
        raise ValueError(f"jump and times must be at least 1, got jump={jump} and times={times}")
    grid = list(grid)
    walked = []
    for k in range(0, len(grid), jump):
        down = grid[k : k + jump]
        again = [pair for pair in down if pair[1] > 0]
        if again:
            walked += [*again, (again[-1][1], again[0][0])] * (times - 1)
        walked += down
    return walked
