"""What we believe x_0 is, changed on purpose: functions from denoiser to denoiser, for every sampler."""

from jaxtyping import Int
from torch import Tensor

from .diffusion import Denoiser, Images


def classifier_free_guidance(conditional: Denoiser, unconditional: Denoiser, scale: float) -> Denoiser:
    """x_0_hat = unconditional + scale (conditional - unconditional) (Ho & Salimans 2022, eq. 6, whose
    w is scale - 1; linear in eps, so the same in x_0).

    scale 1 is the plain conditional model and 0 the unconditional one, each returned as it is; above 1
    the label counts for more and the samples vary less. Clip outside, never the two branches.
    """
    if scale == 1:
        return conditional
    if scale == 0:
        return unconditional

    def guided(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        x_0_uncond = unconditional(x_t, t)
        return x_0_uncond + scale * (conditional(x_t, t) - x_0_uncond)

    return guided


def clip_x_0(denoiser: Denoiser, low: float = -1.0, high: float = 1.0) -> Denoiser:
    """x_0_hat held in the range of images (Ho et al. 2020's code; the samplers derive eps from it again)."""
    if not low < high:
        raise ValueError(f"clipping needs low < high, got [{low}, {high}]")
    return lambda x_t, t: denoiser(x_t, t).clamp(low, high)
