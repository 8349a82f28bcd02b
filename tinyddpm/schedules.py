"""How much noise there is at each time t: the betas, what follows from them, and the times to visit.

Time is an integer t in 1..T and index 0 is the clean image: every array has length T + 1, with
beta[0] = 0 and alpha_bar[0] = 1, so that a subscript here is a subscript in the papers.
"""

import warnings
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from .betas import (
    BETAS,
    check_table,
    cosine_betas,
    flow_betas,
    linear_betas,
    sigmoid_betas,
    zero_terminal_snr,
)
from .grids import even_in_log_snr, make_grid

__all__ = [
    "BETAS",
    "Schedule",
    "cosine_betas",
    "flow_betas",
    "linear_betas",
    "sigmoid_betas",
    "zero_terminal_snr",
]


@dataclass(frozen=True, eq=False)
class Schedule:
    """One beta a time, and alpha_bar_t = prod_{s <= t} (1 - beta_s) (Ho et al. 2020, equation 4).

    beta: (T + 1,) with beta[0] = 0 and all others in (0, 1), or 1 at T: then x_T is noise alone. Everything
    is kept in float64 on the CPU and leaves it through `at` alone.

    Raises ValueError for betas that are not such a table. Warns when signal is left at T
    (alpha_bar_T > 1e-3): samples then start from noise that training never saw.
    """

    beta: Float[Tensor, " times"]

    def __post_init__(self):
        beta = torch.as_tensor(self.beta, dtype=torch.float64).detach().cpu()
        check_table(beta)
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
        """log(alpha_bar / (1 - alpha_bar)): infinite at t = 0, minus infinity where x_T is noise alone."""
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

    def grid(
        self, steps: int | None = None, spacing: str = "uniform", start: int | None = None
    ) -> list[tuple[int, int]]:
        """The pairs (t, s) that a sampler walks, from t = start (T where it is None) to s = 0; all of them
        where steps is None.

        spacing is "uniform" in t, "quadratic" (even in the square root of t) or "log-snr": see grids.py.
        Raises ValueError for a start outside 1..T, steps outside 1..start and another spacing.
        """
        start = self.T if start is None else start
        if not 1 <= start <= self.T:
            raise ValueError(f"a grid starts in 1..T = 1..{self.T}, got {start}")
        if steps is not None and start < steps <= self.T:
            raise ValueError(f"steps must be in 1..start = 1..{start}, got {steps}")
        return make_grid(self.log_snr[: start + 1], start if steps is None else steps, spacing)

    def times_even_in_log_snr(self, n: int) -> list[int]:
        """n different times from T down to 1, as even in log-SNR as integers allow. Raises ValueError for n
        outside 1..T."""
        return even_in_log_snr(self.log_snr, n)
