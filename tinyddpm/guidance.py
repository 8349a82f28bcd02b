"""Guidance: functions from denoiser to denoiser, so that each works with every sampler and with each other."""

import functools
import math
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from .diffusion import Denoiser, Images, make_denoiser
from .schedules import Schedule, require

Scale = float | Callable[[Tensor], Tensor]  # constant, or a function of t: (b,) -> (b,)


def classifier_free_guidance(conditional: Denoiser, unconditional: Denoiser, scale: Scale) -> Denoiser:
    """x_0_hat = unconditional + scale (conditional - unconditional) (Ho & Salimans 2022, eq. 6, w = scale - 1).

    scale 1 is the conditional model and 0 the unconditional one, each returned as it is; above 1 the label weighs more,
    at the price of variety. Clip the result, never the branches. Raises ValueError as check_scale does.
    """
    if not callable(scale):
        check_scale(scale)
        if scale in (0, 1):
            return conditional if scale else unconditional

    def guided(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        w = torch.as_tensor(scale(t) if callable(scale) else scale, dtype=x_t.dtype, device=x_t.device)
        if callable(scale) and w.device.type == "cpu" and (w == 1).all():  # a GPU would have to wait for the answer
            return conditional(x_t, t)
        x_0_uncond = unconditional(x_t, t)
        return x_0_uncond + w.reshape(-1, 1, 1, 1) * (conditional(x_t, t) - x_0_uncond)

    return guided


def check_scale(scale: Scale, T: int = 1) -> None:
    """Raises ValueError unless scale is a finite number, or a function that gives one for each t in 1..T."""
    number = scale if isinstance(scale, (int, float)) else math.nan
    w = torch.as_tensor(scale(torch.arange(1, T + 1)) if callable(scale) else number)
    if w.shape not in ((), (T,)) or not w.isfinite().all():
        raise ValueError(f"a guidance scale is a finite number, or a function of t: (b,) to finite (b,), got {scale!r}")


def branches(model: Callable, schedule: Schedule, predicts: str, y: Tensor, null: int) -> tuple[Denoiser, Denoiser]:
    """The conditional and the unconditional denoiser of one network. Called at the same x_t, the unconditional one
    first, they call the network once, with a joined batch of 2b images."""
    alone = make_denoiser(model, schedule, predicts, y)
    both = make_denoiser(model, schedule, predicts, torch.cat([y, torch.full_like(y, null)]))
    kept: list[Tensor] = []  # x_t, t and the conditional half of the joined call

    def unconditional(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        with_y, without = both(torch.cat([x_t, x_t]), torch.cat([t, t])).chunk(2)
        kept[:] = x_t, t, with_y
        return without

    def conditional(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        found, kept[:] = kept[:], []  # used once: x_t may be changed in place
        return found[2] if found and found[0] is x_t and found[1] is t else alone(x_t, t)

    return conditional, unconditional


def interval(scale: float, low: int, high: int, outside: float = 1.0) -> Callable[[Tensor], Tensor]:
    """The scale for low <= t <= high, and no guidance elsewhere (Kynkäänniemi et al. 2024, section 3, there in sigma).
    Raises ValueError unless low <= high, and for a scale that is not a finite number."""
    check_scale(scale)
    check_scale(outside)
    require(low <= high, "an interval of times needs low <= high", f"{low}..{high}")
    return lambda t: torch.where((t >= low) & (t <= high), scale, outside)


def clip_x_0(denoiser: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """x_0_hat clamped to the range of images; samplers derive eps from it anew. That of two times is clamped for s = 0:
    a chord to s > 0 points beyond the image. Raises ValueError unless low < high."""
    require(low < high, "clipping needs low < high", [low, high])

    @functools.wraps(denoiser)
    def clipped(x_t: Images, t: Int[Tensor, " b"], *s: int) -> Images:
        return denoiser(x_t, t, *s) if any(s) else denoiser(x_t, t, *s).clamp(low, high)

    return clipped
