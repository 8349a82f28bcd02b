"""What a hand does to a digit whichever it is: brightness, slant and stroke width, each differentiable.

They judge style transfer, and as the energy of a guidance they steer a sampler. Ink is (x + 1) / 2: 0 where
the paper is black, 1 in the middle of a stroke.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LITTLE = 1.0  # pixel of ink, where a digit has a hundred: less than that has no slant, and pulls gently
Measure = Float[Tensor, " b"]


def brightness(x: Float[Tensor, "b c h w"]) -> Measure:
    """The mean ink of a pixel, in [0, 1]."""
    return ((x.mean(1) + 1) / 2).flatten(1).mean(1)


def slant(x: Float[Tensor, "b c h w"]) -> Measure:
    """How far the digit leans to the right, in columns a row: the shear that would set it upright, from its
    second moments, -sum ink dx dy / sum ink dy^2 (dy counts downwards). 0.5 is 27 degrees."""
    ink = ink_of(x)
    h, w = ink.shape[-2:]
    y = torch.arange(h, device=x.device, dtype=x.dtype)[:, None]
    column = torch.arange(w, device=x.device, dtype=x.dtype)
    mass = ink.sum((1, 2), keepdim=True).clamp(min=LITTLE)
    dy = y - (ink * y).sum((1, 2), keepdim=True) / mass
    dx = column - (ink * column).sum((1, 2), keepdim=True) / mass
    return -(ink * dx * dy).sum((1, 2)) / (ink * dy**2).sum((1, 2)).clamp(min=LITTLE)


def stroke_width(x: Float[Tensor, "b c h w"]) -> Measure:
    """How wide the pen is, in pixels: twice the area of the ink over the length of its edge, which is the
    total variation of the ink. Strokes with soft edges, as MNIST's are, within 3 %
    from 3 pixels on; with hard edges within 10 %."""
    ink = torch.nn.functional.pad(ink_of(x), (1, 1, 1, 1))
    down, right = ink[:, 1:] - ink[:, :-1], ink[..., 1:] - ink[..., :-1]
    down, right = ((down[..., 1:] + down[..., :-1]) / 2, (right[:, 1:] + right[:, :-1]) / 2)  # between 2x2 pixels
    edge = (down**2 + right**2 + 1e-8).sqrt().sum((1, 2))
    return 2 * ink.sum((1, 2)) / edge.clamp(min=LITTLE)


def ink_of(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b h w"]:
    """(b, h, w), none below 0: what is darker than black would count as a hole in moments and areas."""
    return ((x.mean(1) + 1) / 2).clamp(min=0)
