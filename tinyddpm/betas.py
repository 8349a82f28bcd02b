"""How fast noise comes in: one beta for each time t, as the papers have them.

Every table has length T + 1 and beta[0] = 0, the clean image, so that a subscript here is one in the papers.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def linear_betas(
    T: int = 1000, start: float = 1e-4, end: float = 0.02, scaled: bool = True
) -> Float[Tensor, " times"]:
    """beta_t on a line from start to end (Ho et al. 2020, section 4), float64, beta[0] = 0.

    The published values belong to T = 1000. Scaled by 1000 / T, every T ends in as much noise; with
    scaled=False a shorter chain keeps part of the image to its end (T = 300: 22 % of the amplitude).

    Raises ValueError when a beta leaves (0, 1): scaled, that is T of 2 to 20 (T = 1 is start alone).
    """
    check_T(T)
    scale = 1000 / T if scaled else 1.0
    return _with_zero(torch.linspace(scale * start, scale * end, T, dtype=torch.float64), "linear")


def cosine_betas(
    T: int = 1000, offset: float = 0.008, max_beta: float = 0.999, shift: float = 1.0
) -> Float[Tensor, " times"]:
    """alpha_bar_t = f(t) / f(0), f(t) = cos^2((t/T + offset) / (1 + offset) pi/2) (Nichol & Dhariwal
    2021, equation 17), with beta_t = 1 - alpha_bar_t / alpha_bar_{t-1} held at max_beta. float64.

    A shift below 1 multiplies the SNR by shift^2 at every t and so spends more of the times where the
    noise is high (Hoogeboom et al. 2023, "simple diffusion", section 3.1).
    """
    check_T(T)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    alpha_bar = f / f[0]
    alpha_bar = alpha_bar * shift**2 / (1 - alpha_bar + alpha_bar * shift**2)
    return _with_zero(_betas_of(alpha_bar).clamp(max=max_beta), "cosine")


def sigmoid_betas(
    T: int = 1000, start: float = -3.0, end: float = 3.0, tau: float = 1.0, max_beta: float = 0.999
) -> Float[Tensor, " times"]:
    """alpha_bar_t = (s(end) - s(t)) / (s(end) - s(start)), s the sigmoid of a line from start / tau to
    end / tau (Jabri et al. 2023, "Scalable Adaptive Computation", appendix B). float64.

    Beta is held at max_beta, so that the last step does not divide by 0.
    """
    check_T(T)
    u = torch.linspace(start / tau, end / tau, T + 1, dtype=torch.float64).sigmoid()
    return _with_zero(_betas_of(u[-1] - u).clamp(max=max_beta), "sigmoid")


def flow_betas(T: int = 1000) -> Float[Tensor, " times"]:
    """alpha_bar_t = (1 - u)^2 / ((1 - u)^2 + u^2), u = t/T: the straight line (1 - u) x_0 + u eps of flow
    matching (Lipman et al. 2023, eq. 20 to 22; Liu et al. 2023), divided by the norm of (1 - u, u), which
    makes it variance preserving. float64; the last beta is 1.
    """
    check_T(T)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    return _with_zero(_betas_of((1 - u) ** 2 / ((1 - u) ** 2 + u**2)), "flow", end=True)


def zero_terminal_snr(beta: Float[Tensor, " times"]) -> Float[Tensor, " times"]:
    """The betas, beta[0] = 0 included, rescaled to end in pure noise: sqrt(alpha_bar) is shifted so that
    it is 0 at T, and stretched so that it is as it was at 1 (Lin et al. 2024, algorithm 1).

    Raises ValueError for T = 1, where both cannot be, and for what is no table of betas.
    """
    check_table(beta)
    kept = (1 - beta.double()).cumprod(0).sqrt()
    if len(kept) < 3:
        raise ValueError("with T = 1 the last step is the first: zero terminal SNR takes a T of at least 2")
    kept = torch.cat([kept[:1], (kept[1:] - kept[-1]) * kept[1] / (kept[1] - kept[-1])])
    return _with_zero(_betas_of(kept**2), "rescaled", end=True)


BETAS = {
    "linear": linear_betas,
    "linear-unscaled": lambda T=1000: linear_betas(T, scaled=False),
    "cosine": cosine_betas,
    "cosine-shifted": lambda T=1000: cosine_betas(T, shift=0.5),
    "sigmoid": sigmoid_betas,
    "linear-zero-snr": lambda T=1000: zero_terminal_snr(linear_betas(T)),
    "flow": flow_betas,
}


def check_T(T: int) -> None:
    if T < 1:
        raise ValueError(f"T counts the noising steps and must be at least 1, got {T}")


def check_table(beta: Tensor) -> None:
    """Raises ValueError for what is no table of betas: one for each t in 0..T, the first of them 0."""
    if beta.ndim != 1 or len(beta) < 2 or beta[0] != 0:
        raise ValueError(
            f"a schedule needs one beta for each t in 0..T with beta[0] = 0 (the clean image), got "
            f"shape {tuple(beta.shape)} beginning with {beta.flatten()[:1].tolist()}: prepend a 0"
        )
    check_betas(beta[1:], "these", end=True)


def check_betas(beta: Tensor, name: str, end: bool = False) -> None:
    """Raises ValueError unless all lie in (0, 1); with end, the last may be 1."""
    inside = (beta > 0) & (beta < 1)
    if end:
        inside[-1] |= beta[-1] == 1
    if not inside.all():
        where = "lie in (0, 1), or be 1 at T" if end else "lie in (0, 1)"
        raise ValueError(
            f"every beta must {where}, but {name} betas for T = {len(beta)} reach from {beta.min():.4g} to "
            f"{beta.max():.4g}: take a larger T or the cosine schedule"
        )


def _betas_of(alpha_bar: Tensor) -> Tensor:
    return 1 - alpha_bar[1:] / alpha_bar[:-1]


def _with_zero(beta: Tensor, name: str, end: bool = False) -> Tensor:
    check_betas(beta, name, end)
    return torch.cat([beta.new_zeros(1), beta])
