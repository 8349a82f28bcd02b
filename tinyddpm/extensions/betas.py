"""More tables of betas, which Schedule.named knows, too."""

import torch

from ..schedules import Table, betas_from, check_betas, check_T, linear_betas, with_zero


def sigmoid_betas(T: int = 1000, start: float = -3, end: float = 3, tau: float = 1, max_beta: float = 0.999) -> Table:
    """alpha_bar_t = (s(end) - s(t)) / (s(end) - s(start)), s the sigmoid of a line from start / tau to end / tau (Jabri
    et al. 2023, appendix B), betas clipped at max_beta."""
    check_T(T)
    u = torch.linspace(start / tau, end / tau, T + 1, dtype=torch.float64).sigmoid()
    return with_zero(betas_from(u[-1] - u).clamp(max=max_beta))


def zero_terminal_snr(beta: Table) -> Table:
    """The betas rescaled so that x_T is pure noise: sqrt(alpha_bar) is shifted to 0 at T and stretched to keep its
    value at t = 1 (Lin et al. 2024, algorithm 1). Raises ValueError for T = 1, where both are impossible."""
    check_betas(beta)
    if len(beta) < 3:
        raise ValueError("zero terminal SNR needs T of at least 2: at T = 1 the last step is the first")
    root = (1 - beta.double()).cumprod(0).sqrt()
    root = torch.cat([root[:1], (root[1:] - root[-1]) * root[1] / (root[1] - root[-1])])
    return with_zero(betas_from(root**2), end=True)


def linear_zero_snr_betas(T: int = 1000) -> Table:
    return zero_terminal_snr(linear_betas(T))
