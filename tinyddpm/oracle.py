"""Exact denoisers, without a network: E[x_0 | x_t] where the distribution of the data is known.

They stand wherever a network's denoiser could, so that a sampler is proved before anything is trained.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .diffusion import Denoiser, Images, Labels
from .schedules import Schedule, require


def dataset_oracle(data: Float[Tensor, "n c h w"], schedule: Schedule) -> Denoiser:
    """The optimal denoiser where the data are exactly these n images, equally likely: their mean, weighted by the
    likelihood of x_t given each (Karras et al. 2022, appendix B.3, eq. 57).

    weights = softmax_i(-|x_t - sqrt(alpha_bar_t) x_i|^2 / (2 (1 - alpha_bar_t)))

    Sampling with it returns the images themselves. Needs b n floats of memory. Raises ValueError for no data.
    """
    require(len(data) > 0, "the oracle of a data set needs at least one image", "none")
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
    Raises ValueError for a negative variance."""
    if (variance < 0) if isinstance(variance, (int, float)) else bool((variance < 0).any()):
        raise ValueError("a variance cannot be negative")

    def denoiser(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        signal, noise = schedule.coefficients(t, x_t)
        k = signal * variance / (signal**2 * variance + noise**2)
        return mean + k * (x_t - signal * mean)

    return denoiser


def shrinking(log_snr: float) -> int:
    """The radius of the window of local_oracle: 31 below a log-SNR of -3.5 (a whole digit), then 9, 6, 5, 4 and, from 1
    on, 3. Half as wide it invents more, and twice as wide it copies."""
    return next((radius for bound, radius in ((-3.5, 31), (-2, 9), (-1, 6), (0, 5), (1, 4)) if log_snr < bound), 3)


def local_oracle(
    data: Float[Tensor, "n c h w"],
    schedule: Schedule,
    labels: Int[Tensor, " n"] | None = None,
    y: Labels | None = None,
    radius: int | Callable[[float], int] = shrinking,
    chunk: int = 4096,
) -> Denoiser:
    """The optimal denoiser that sees the data through a window around each pixel p, here a square of side 2 radius + 1
    (Kamb & Ganguli 2025, "An analytic theory of creativity", the local score machine): new images, without a network.

    weights_p = softmax_i(-|x_t - sqrt(alpha_bar_t) x_i|^2 over the window of p / (2 (1 - alpha_bar_t)))

    radius: at all times, or a function of log-SNR; as large as the image, this is dataset_oracle. labels (n,), y (b,):
    image k of a batch sees the data of label y[k] only. Needs `chunk` images of memory. Raises ValueError for no data,
    a label that no image has, and a negative radius.
    """
    n, own = len(data), [] if labels is None else labels.tolist()
    unknown = [] if y is None else sorted({*y.tolist()} - {*own})
    if n == 0 or unknown or len(own) not in (0, n) or isinstance(radius, int) and radius < 0:
        found = f"{n} images and {len(own)} labels, none of them in {unknown}, and radius {radius}"
        raise ValueError(f"a local oracle needs images, each with a label if y is given, and radius >= 0, got {found}")

    def look(x: Tensor, seen: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """Over the images seen (m, c, h, w): log sum exp of their closeness at each pixel, and their weighted mean."""
        signal, noise = schedule.signal_noise(t)
        r = radius if isinstance(radius, int) else radius(float(schedule.log_snr[t]))
        rows, columns = (x.new_ones(side, side).tril(r).triu(-r) for side in x.shape[1:])  # 1 within r of the diagonal
        closeness = -(rows @ (x - signal * seen).square().sum(1) @ columns) / (2 * noise**2)  # (m, h, w)
        return closeness.logsumexp(0), (closeness.softmax(0)[:, None] * seen).sum(0)

    def denoiser(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        x_0_hat = []
        for x, time, k in zip(x_t, t.tolist(), [None] * len(x_t) if y is None else y, strict=True):
            seen = data if k is None else data[labels == k]
            totals, means = zip(*(look(x, part, time) for part in seen.split(chunk)))
            x_0_hat.append((torch.stack(totals).softmax(0)[:, None] * torch.stack(means)).sum(0))
        return torch.stack(x_0_hat)

    return denoiser
