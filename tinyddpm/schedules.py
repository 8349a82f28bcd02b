"""How much noise there is at each time t: the betas, what follows from them, and the times to visit.

Time is an integer t in 1..T and index 0 is the clean image: every array has length T + 1, with
beta[0] = 0 and alpha_bar[0] = 1, so that a subscript here is a subscript in the papers.
"""

import math
import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
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


BETAS = {
    "linear": linear_betas,
    "linear-unscaled": lambda T=1000: linear_betas(T, scaled=False),
    "cosine": cosine_betas,
    "cosine-shifted": lambda T=1000: cosine_betas(T, shift=0.5),
    "sigmoid": sigmoid_betas,
}


@dataclass(frozen=True, eq=False)
class Schedule:
    """One beta a time, and alpha_bar_t = prod_{s <= t} (1 - beta_s) (Ho et al. 2020, equation 4).

    beta: (T + 1,) with beta[0] = 0 and all others in (0, 1). Everything is kept in float64 on the CPU
    and leaves it through `at` alone.

    Raises ValueError for betas that are not such a table. Warns when signal is left at T
    (alpha_bar_T > 1e-3): samples then start from noise that training never saw.
    """

    beta: Float[Tensor, " times"]

    def __post_init__(self):
        beta = torch.as_tensor(self.beta, dtype=torch.float64).detach().cpu()
        if beta.ndim != 1 or len(beta) < 2 or beta[0] != 0:
            raise ValueError(
                f"a schedule needs one beta for each t in 0..T with beta[0] = 0 (the clean image), got "
                f"shape {tuple(beta.shape)} beginning with {beta.flatten()[:1].tolist()}: prepend a 0"
            )
        check_betas(beta[1:], "these")
        object.__setattr__(self, "beta", beta)
        if self.alpha_bar[-1] > 1e-3:
            warnings.warn(
                f"this schedule leaves {self.sqrt_alpha_bar[-1]:.1%} of the image's amplitude at t = "
                f"{self.T}: sampling starts from pure noise, which training will not have seen there",
                stacklevel=3,
            )

    @classmethod
    def named(cls, name: str, T: int = 1000) -> "Schedule":
        """One of BETAS by its name. Raises ValueError for a name that is not there, with those that are."""
        if name not in BETAS:
            raise ValueError(f"there is no schedule {name!r}: choose one of {', '.join(BETAS)}")
        return cls(BETAS[name](T))

    @property
    def T(self) -> int:
        return len(self.beta) - 1

    @cached_property
    def alpha_bar(self) -> Float[Tensor, " times"]:
        return (1 - self.beta).cumprod(0)

    @cached_property
    def sqrt_alpha_bar(self) -> Float[Tensor, " times"]:
        """What is left of the image's amplitude."""
        return self.alpha_bar.sqrt()

    @cached_property
    def sqrt_one_minus_alpha_bar(self) -> Float[Tensor, " times"]:
        """The noise's standard deviation."""
        return (1 - self.alpha_bar).sqrt()

    @cached_property
    def log_snr(self) -> Float[Tensor, " times"]:
        """log(alpha_bar / (1 - alpha_bar)): infinite at t = 0."""
        return torch.log(self.alpha_bar / (1 - self.alpha_bar))

    def at(
        self, table: Float[Tensor, " times"], t: Int[Tensor, " b"] | int, x: Tensor
    ) -> Float[Tensor, "b 1 1 1"]:
        """table[t], one value an image, in the dtype and on the device of x, shaped to multiply it.

        Raises ValueError for a t outside 0..T (checked on the CPU only: a look would stall a GPU).
        """
        t = torch.as_tensor(t, device=x.device).expand(len(x))
        if t.device.type == "cpu" and (t.min() < 0 or t.max() > self.T):
            raise ValueError(f"t counts from 0 (clean) to T = {self.T}, got {t.min()}..{t.max()}")
        return table.to(x.dtype).to(x.device)[t].reshape(-1, *[1] * (x.ndim - 1))

    def grid(self, steps: int | None = None, spacing: str = "uniform") -> list[tuple[int, int]]:
        """The pairs (t, s) that a sampler walks, from t = T to s = 0; all T of them where steps is None.

        "uniform" steps are even in t, "log-snr" ones put the times between even in log-SNR.
        Raises ValueError for steps outside 1..T.
        """
        steps = self.T if steps is None else steps
        if not 1 <= steps <= self.T:
            raise ValueError(f"steps must be in 1..T = 1..{self.T}, got {steps}")
        if spacing == "uniform":
            times = [(self.T * i + steps // 2) // steps for i in range(steps, -1, -1)]
        elif spacing == "log-snr":
            times = [*self.times_even_in_log_snr(steps), 0]
        else:
            raise ValueError(f'a grid is spaced "uniform" or "log-snr", got {spacing!r}')
        return list(zip(times, times[1:]))

    def times_even_in_log_snr(self, n: int) -> list[int]:
        """n different times from T down to 1, as even in log-SNR as integers allow."""
        wanted = torch.linspace(float(self.log_snr[-1]), float(self.log_snr[1]), n, dtype=torch.float64)
        times = []
        for i, value in enumerate(wanted):
            nearest = int((self.log_snr[1:] - value).abs().argmin()) + 1
            below = times[-1] - 1 if times else self.T
            times.append(min(max(nearest, n - i), below))
        return times


def check_T(T: int) -> None:
    if T < 1:
        raise ValueError(f"T counts the noising steps and must be at least 1, got {T}")


def check_betas(beta: Tensor, name: str) -> None:
    if not ((beta > 0) & (beta < 1)).all():
        raise ValueError(
            f"every beta must lie in (0, 1), but {name} betas for T = {len(beta)} reach from "
            f"{beta.min():.4g} to {beta.max():.4g}: take a larger T or the cosine schedule"
        )


def _betas_of(alpha_bar: Tensor) -> Tensor:
    return 1 - alpha_bar[1:] / alpha_bar[:-1]


def _with_zero(beta: Tensor, name: str) -> Tensor:
    check_betas(beta, name)
    return torch.cat([beta.new_zeros(1), beta])
