"""Handwriting: digits that turn into each other, or are written in the hand of another; and its measures.

The measures are differentiable, for energy_guidance too. Ink is (x + 1) / 2: 0 on the background, 1 within a stroke.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..diffusion import Images, Labels
from ..extensions.gradient_guidance import blend
from ..pipeline import DDPM, seeded
from ..samplers import ddim, last, noise_like
from .inpainting import check_pairs
from .inversion import slerp, transfer

MIN_INK = 1.0  # in pixels, where a digit has a hundred: with less ink a measure tends to 0, and its gradient is small
Measure = Float[Tensor, " b"]


def morph(
    ddpm: DDPM, y: Tensor, frames: int = 12, steps: int = 20, scale: float = 2.0, seed: int = 0, wander: bool = False
) -> Images:
    """Each of k labels turning into the next, and the last into the first: (k frames, c, h, w).

    All frames start from one noise, and so share one handwriting; with wander each label has its own noise, with slerp
    between. Raises ValueError for fewer than two labels or one frame.
    """
    y = ddpm.check_labels(y)
    if len(y) < 2 or frames < 1:
        raise ValueError(f"a morph needs at least two labels and one frame, got {len(y)} labels and {frames} frames")
    weight = (torch.arange(frames) / frames).repeat(len(y))
    first = torch.arange(len(y)).repeat_interleave(frames)
    second = (first + 1) % len(y)
    generators = seeded([seed + k * wander for k in range(len(y))], len(y))
    noise = noise_like(torch.empty(len(y), *ddpm.image_shape, device=ddpm.device), generators)
    denoiser = blend(ddpm.denoiser(y[first], scale), ddpm.denoiser(y[second], scale), weight)
    x_T = slerp(noise[first], noise[second], weight)
    return last(ddim(denoiser, x_T, ddpm.schedule, ddpm.schedule.grid(steps))).x_t


def handwriting(
    ddpm: DDPM, x_0: Images, y: Labels, y_new: Labels, steps: int = 20, scale: float = 2.5, from_scale: float = 1.5
) -> Images:
    """Each image x_0 of label y rewritten as y_new in the same slant and stroke width: see inversion.transfer, which
    inverts with guidance from_scale. Raises ValueError unless there is one label of either kind for each image."""
    y, y_new = check_pairs(ddpm, y, x_0), check_pairs(ddpm, y_new, x_0)
    denoisers = ddpm.denoiser(y, from_scale), ddpm.denoiser(y_new, scale)
    return last(transfer(*denoisers, x_0.to(ddpm.device), ddpm.schedule, ddpm.schedule.grid(steps))).x_t


def brightness(x: Float[Tensor, "b c h w"]) -> Measure:
    """The mean ink of a pixel, in [0, 1] for x in [-1, 1]."""
    return ((x.mean(1) + 1) / 2).flatten(1).mean(1)


def slant(x: Float[Tensor, "b c h w"]) -> Measure:
    """How far the digit leans to the right, in columns per row: the shear that would set it upright,
    -sum ink dx dy / sum ink dy^2 (dy points down). 0.5 is 27 degrees."""
    ink = ink_of(x)
    y, column = (torch.arange(n, device=x.device, dtype=x.dtype) for n in ink.shape[-2:])
    mass = ink.sum((1, 2), keepdim=True).clamp(min=MIN_INK)
    dy = y[:, None] - (ink * y[:, None]).sum((1, 2), keepdim=True) / mass
    dx = column - (ink * column).sum((1, 2), keepdim=True) / mass
    return -(ink * dx * dy).sum((1, 2)) / (ink * dy**2).sum((1, 2)).clamp(min=MIN_INK)


def stroke_width(x: Float[Tensor, "b c h w"]) -> Measure:
    """The mean width of strokes in pixels: twice the area of the ink over its total variation, the length of its edge.
    Within 3 % for strokes of 3 pixels or more with soft edges, such as MNIST's; within 10 % for hard edges."""
    ink = F.pad(ink_of(x), (1, 1, 1, 1))
    down, right = ink[:, 1:] - ink[:, :-1], ink[..., 1:] - ink[..., :-1]
    down, right = (down[..., 1:] + down[..., :-1]) / 2, (right[:, 1:] + right[:, :-1]) / 2  # between 2x2 pixels
    edge = (down**2 + right**2 + 1e-8).sqrt().sum((1, 2))
    return 2 * ink.sum((1, 2)) / edge.clamp(min=MIN_INK)


def ink_of(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """Ink, clamped at 0: values below black would count as holes in moments and areas."""
    return ((x.mean(1) + 1) / 2).clamp(min=0)
