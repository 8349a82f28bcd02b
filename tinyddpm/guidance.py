"""What we believe x_0 is, changed on purpose: functions from denoiser to denoiser, for every sampler.

Here those that need no gradient; energy.py has those that follow one, and inpainting.py the known pixels.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .diffusion import Denoiser, Images

Scale = float | Callable[[Tensor], Tensor]  # the same at every t, or t (b,) -> (b,)


def classifier_free_guidance(conditional: Denoiser, unconditional: Denoiser, scale: Scale) -> Denoiser:
    """x_0_hat = unconditional + scale (conditional - unconditional) (Ho & Salimans 2022, eq. 6, whose
    w is scale - 1; linear in eps, so the same in x_0).

    scale 1 is the plain conditional model and 0 the unconditional one, each returned as it is; above 1
    the label counts for more and the samples vary less. A function of t gives every time a scale of its
    own, as `interval` does. Clip outside, never the two branches.

    Raises ValueError for a scale that is neither a finite number nor such a function, and where the function
    returns another shape, NaN or infinity (looked at on the CPU only).
    """
    if not callable(scale):
        check_scale(scale)
    if not callable(scale) and scale == 1:
        return conditional
    if not callable(scale) and scale == 0:
        return unconditional

    def guided(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        at_t = scale_at(scale, t, x_t) if callable(scale) else scale
        if callable(scale) and at_t.device.type == "cpu" and (at_t == 1).all():
            return conditional(x_t, t)
        x_0_uncond = unconditional(x_t, t)
        return x_0_uncond + at_t * (conditional(x_t, t) - x_0_uncond)

    return guided


def check_scale(scale: float) -> None:
    if not isinstance(scale, (int, float)) or not math.isfinite(scale):
        raise ValueError(f"a guidance scale is one finite number, or a function of t; got {scale!r}")


def scale_at(scale: Callable[[Tensor], Tensor], t: Tensor, x_t: Images) -> Tensor:
    """What a scale that depends on t says, as (b, 1, 1, 1)."""
    found = torch.as_tensor(scale(t), dtype=x_t.dtype, device=x_t.device)
    if found.ndim and found.shape != t.shape:
        raise ValueError(
            f"a guidance scale that depends on t maps t (b,) to (b,), got {tuple(found.shape)} for t of "
            f"shape {tuple(t.shape)}"
        )
    if found.device.type == "cpu" and not found.isfinite().all():
        bad = t[~found.expand(t.shape).isfinite()].tolist()
        raise ValueError(f"the guidance scale is NaN or infinite at t = {bad}: give every t a number")
    return found.reshape(-1, *[1] * (x_t.ndim - 1))


def interval(scale: float, low: int, high: int, outside: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The scale at low <= t <= high, and outside of it 1: no guidance (Kynkäänniemi et al. 2024, section 3,
    in t in place of sigma).

    Raises ValueError unless low <= high, and for scales that are no finite numbers.
    """
    check_scale(scale)
    check_scale(outside)
    if not low <= high:
        raise ValueError(f"an interval of times needs low <= high, got {low}..{high}")
    return lambda t: torch.where((t >= low) & (t <= high), scale, outside)


def blend(a: Denoiser, b: Denoiser, share: float | Float[Tensor, " b"]) -> Denoiser:
    """(1 - share) a + share b: from one belief to another, such as from label to label. One share, or one for
    each image.

    Raises ValueError for a share outside [0, 1], and for shares of another number than the images.
    """
    share = torch.as_tensor(share, dtype=torch.float64)
    if share.numel() == 0 or not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"the share of the second denoiser goes from 0 to 1, got {share.tolist()}")
    if (share == share.reshape(-1)[0]).all() and share.reshape(-1)[0] in (0, 1):
        return b if share.reshape(-1)[0] else a

    def blended(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        if share.numel() not in (1, len(x_t)):
            raise ValueError(f"one share, or one an image: got {share.numel()} for {len(x_t)} images")
        return torch.lerp(a(x_t, t), b(x_t, t), share.to(x_t).reshape(-1, 1, 1, 1))

    return blended


def clip_x_0(denoiser: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """x_0_hat held in the range of images (Ho et al. 2020's code; the samplers derive eps from it again)."""
    if not low < high:
        raise ValueError(f"clipping needs low < high, got [{low}, {high}]")
    return lambda x_t, t: denoiser(x_t, t).clamp(low, high)


def dynamic_threshold(denoiser: Denoiser, share: float = 0.995) -> Denoiser:
    """x_0_hat held in [-m, m] and divided by m, where m >= 1 holds this share of the image's pixels: what
    strong guidance drives out of range comes back without all of it ending at the range's ends (Saharia et
    al. 2022, "Imagen", section 2.3). Made for photographs: digits lie on a ground of exactly -1, which
    dividing by m turns grey, and are better clipped.

    Raises ValueError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of pixels to keep as they are lies in (0, 1], got {share}")

    def held(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        x_0_hat = denoiser(x_t, t)
        sizes = x_0_hat.abs().flatten(1)
        sizes = sizes.float() if sizes.element_size() < 4 else sizes  # quantile takes no half precision
        m = sizes.quantile(share, dim=1).clamp(min=1).to(x_0_hat).reshape(-1, 1, 1, 1)
        return torch.minimum(torch.maximum(x_0_hat, -m), m) / m

    return held
