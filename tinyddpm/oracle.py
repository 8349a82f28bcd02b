"""Exact denoisers, without a network: E[x_0 | x_t] where the distribution of the data is known.

They stand wherever a network's denoiser could, so that a sampler is proved before anything is trained.
"""

from jaxtyping import Float, Int
from torch import Tensor

from .diffusion import Denoiser, Images
from .schedules import Schedule


def dataset_oracle(data: Float[Tensor, "n c h w"], schedule: Schedule) -> Denoiser:
    """The optimal denoiser where the data are exactly these n images, equally likely: their mean, weighted by the
    likelihood of x_t given each (Karras et al. 2022, appendix B.3, eq. 57).

    weights = softmax_i(-|x_t - sqrt(alpha_bar_t) x_i|^2 / (2 (1 - alpha_bar_t)))

    Sampling with it returns the images themselves. Needs b n floats of memory. Raises ValueError for no data.
    """
    if len(data) == 0:
        raise ValueError("the oracle of a data set needs at least one image, got none")
    flat = data.flatten(1)  # (n, c h w)
    square = flat.square().sum(1)

    def denoiser(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        signal, noise = (a.reshape(-1, 1) for a in schedule.coefficients(t, x_t))
        closeness = signal * (x_t.flatten(1) @ flat.T) - signal**2 * square / 2  # (b, n)
        return ((closeness / noise**2).softmax(1) @ flat).reshape(x_t.shape)

    return denoiser


def gaussian_oracle(mean: Tensor | float, variance: Tensor | float, schedule: Schedule) -> Denoiser:
    """The optimal denoiser where the data are N(mean, variance), independently for each pixel: E[x_0 | x_t] =
    mean + k (x_t - sqrt(alpha_bar_t) mean), k = sqrt(alpha_bar_t) variance / (alpha_bar_t variance +
    1 - alpha_bar_t) (Bishop 2006, eq. 2.116). mean and variance broadcast against (b, c, h, w).

    Raises ValueError for a negative variance.
    """
    if (variance < 0) if isinstance(variance, (int, float)) else bool((variance < 0).any()):
        raise ValueError("a variance cannot be negative")

    def denoiser(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        signal, noise = schedule.coefficients(t, x_t)
        k = signal * variance / (signal**2 * variance + noise**2)
        return mean + k * (x_t - signal * mean)

    return denoiser
