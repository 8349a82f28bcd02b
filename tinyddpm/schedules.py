"""Noise schedules: how much noise x_t holds at each time t, and which times a sampler visits.

Time is an integer t in 1..T and t = 0 is the clean image. Every table is (T + 1,) float64, with beta[0] = 0 and
alpha_bar[0] = 1, so that a subscript in the code is one in the papers. Betas outside (0, 1) raise ValueError.
"""

import math
import pkgutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

Table = Float[Tensor, " times"]  # one value for each t in 0..T
Times = Int[Tensor, " b"] | int  # t for each image, or for all of them
Grid = Sequence[tuple[int, int]]  # the steps (t, s) of a sampler


def choose(table: Mapping[str, Any], name: str, what: str) -> Any:
    """A row by its name; a row "module:name" is imported. Raises ValueError for other names, with the known ones."""
    if name not in table:
        raise ValueError(f"unknown {what} {name!r}: choose one of {', '.join(table)}")
    return pkgutil.resolve_name(row) if isinstance(row := table[name], str) and ":" in row else row


def require(fits: bool, wanted: str, found: Any) -> None:
    """Raises ValueError unless an argument fits."""
    if not fits:
        raise ValueError(f"{wanted}, got {found}")


def linear_betas(T: int = 1000, start: float = 1e-4, end: float = 0.02, scaled: bool = True) -> Table:
    """beta_t rises linearly from start to end (Ho et al. 2020, section 4).

    The published endpoints belong to T = 1000. They are scaled by 1000 / T so that every T ends in noise; scaled=False
    keeps them, and at T = 300 leaves 22 % of the image's amplitude in x_T. Scaled, T from 2 to 20 raises ValueError.
    """
    check_T(T)
    scale = 1000 / T if scaled else 1.0
    return with_zero(torch.linspace(scale * start, scale * end, T, dtype=torch.float64))


def cosine_betas(T: int = 1000, offset: float = 0.008, max_beta: float = 0.999, shift: float = 1.0) -> Table:
    """alpha_bar_t = f(t) / f(0), f(t) = cos^2((t/T + offset) / (1 + offset) pi/2), clipped betas (Nichol & Dhariwal
    2021, eq. 17). A shift below 1 multiplies the SNR by shift^2 (Hoogeboom et al. 2023, section 3.1)."""
    check_T(T)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    f = torch.cos((u + offset) / (1 + offset) * math.pi / 2) ** 2
    alpha_bar = f / f[0]
    alpha_bar = alpha_bar * shift**2 / (1 - alpha_bar + alpha_bar * shift**2)
    return with_zero(betas_from(alpha_bar).clamp(max=max_beta))


def flow_betas(T: int = 1000) -> Table:
    """alpha_bar_t = (1 - u)^2 / ((1 - u)^2 + u^2), u = t/T: the straight path (1 - u) x_0 + u eps of flow matching
    (Lipman et al. 2023, eq. 20; Liu et al. 2023), rescaled to preserve variance. The last beta is 1."""
    check_T(T)
    u = torch.arange(T + 1, dtype=torch.float64) / T
    return with_zero(betas_from((1 - u) ** 2 / ((1 - u) ** 2 + u**2)), end=True)


def betas_from(alpha_bar: Table) -> Tensor:
    return 1 - alpha_bar[1:] / alpha_bar[:-1]


def with_zero(beta: Tensor, end: bool = False) -> Table:
    return check_betas(torch.cat([beta.new_zeros(1), beta]), end)


BETAS: dict[str, Callable[..., Table] | str] = {
    "linear": linear_betas,
    "linear-unscaled": partial(linear_betas, scaled=False),
    "cosine": cosine_betas,
    "cosine-shifted": partial(cosine_betas, shift=0.5),
    "sigmoid": "tinyddpm.extensions.betas:sigmoid_betas",
    "linear-zero-snr": "tinyddpm.extensions.betas:linear_zero_snr_betas",
    "flow": flow_betas,
    "bound": "tinyddpm.extensions.vdm:bound_betas",
}


def check_T(T: int) -> None:
    require(isinstance(T, int) and T >= 1, "T, the number of noising steps, must be an integer of at least 1", T)


def check_betas(beta: Tensor, end: bool = True) -> Table:
    if beta.ndim != 1 or len(beta) < 2 or beta[0] != 0:
        found = f"got shape {tuple(beta.shape)} starting with {beta.flatten()[:1].tolist()}: prepend a 0"
        raise ValueError(f"a schedule needs one beta for each t in 0..T, and beta[0] = 0 (the clean image), {found}")
    inside = (1 - beta[1:] < 1) & (beta[1:] < 1)  # 1e-300 adds no noise: 1 - beta is rounded to 1
    inside[-1] |= end and beta[-1] == 1
    if not inside.all():
        wanted = f"in (0, 1){' or be 1 at T' * end}"
        found = f"{beta[1:].min():.4g} to {beta[1:].max():.4g}: choose a larger T or the cosine schedule"
        raise ValueError(f"betas must be {wanted}, but these for T = {len(beta) - 1} range from {found}")
    return beta


@dataclass(frozen=True, eq=False)
class Schedule:
    """A table of betas and what follows from it: alpha_bar_t = prod_{s <= t} (1 - beta_s) (Ho et al. 2020, eq. 4).

    Tables are float64, on the CPU. Raises ValueError unless beta[0] = 0 and the others are in (0, 1); the last may be
    1: x_T is then pure noise. Warns when alpha_bar[T] > 1e-3: sampling starts from noise unseen in training.
    """

    beta: Table

    def __post_init__(self):
        beta = torch.as_tensor(self.beta, dtype=torch.float64).detach().cpu()
        object.__setattr__(self, "beta", check_betas(beta))
        if self.alpha_bar[-1] > 1e-3:
            left = f"this schedule leaves {self.sqrt_alpha_bar[-1]:.1%} of the image's amplitude at t = {self.T}"
            warnings.warn(f"{left}: sampling starts from pure noise, unseen in training", stacklevel=3)

    @classmethod
    def named(cls, name: str, T: int = 1000) -> "Schedule":
        """The schedule of that name in BETAS. Raises ValueError for an unknown name."""
        return cls(choose(BETAS, name, "schedule")(T))

    @property
    def T(self) -> int:
        return len(self.beta) - 1

    @cached_property
    def alpha_bar(self) -> Table:
        return (1 - self.beta).cumprod(0)

    @cached_property
    def sqrt_alpha_bar(self) -> Table:
        return self.alpha_bar.sqrt()

    @cached_property
    def sqrt_one_minus_alpha_bar(self) -> Table:
        return (1 - self.alpha_bar).sqrt()

    @cached_property
    def log_snr(self) -> Table:
        """log(alpha_bar / (1 - alpha_bar)): +inf at t = 0, -inf where x_T is pure noise."""
        return torch.log(self.alpha_bar / (1 - self.alpha_bar))

    def at(self, table: Table, t: Times, x: Tensor) -> Float[Tensor, "b 1 1 1"]:
        """table[t] for each image of x, in the dtype and on the device of x, shaped to multiply it."""
        t = torch.as_tensor(t, device=x.device).expand(x.shape[0])
        return table.to(x.dtype).to(x.device).index_select(0, t).reshape(-1, *[1] * (x.ndim - 1))

    def coefficients(self, t: Times, x: Tensor) -> tuple[Tensor, Tensor]:
        """sqrt(alpha_bar_t) and sqrt(1 - alpha_bar_t), (b, 1, 1, 1) each: x_t = signal x_0 + noise eps."""
        return self.at(self.sqrt_alpha_bar, t, x), self.at(self.sqrt_one_minus_alpha_bar, t, x)

    def signal_noise(self, t: int) -> tuple[float, float]:
        """The same two coefficients at one time, as numbers."""
        return float(self.sqrt_alpha_bar[t]), float(self.sqrt_one_minus_alpha_bar[t])

    def posterior_variance(self, t: int, s: int) -> tuple[float, float]:
        """(small, large): the variance of q(x_s | x_t, x_0), and 1 - alpha_bar_t / alpha_bar_s, its limit when
        nothing is known of x_0 (Ho et al. 2020, eq. 7 and section 3.2). Raises ValueError unless s < t in 0..T."""
        check_step(t, s, self.T)
        abar_t, abar_s = float(self.alpha_bar[t]), float(self.alpha_bar[s])
        large = 1 - abar_t / abar_s
        return (1 - abar_s) / (1 - abar_t) * large, large

    def grid(self, steps: int | None = None, spacing: str = "uniform", start: int | None = None) -> Grid:
        """The steps (t, s) from t = start (default T) to s = 0; all of them by default.

        spacing: "uniform" in t; "quadratic", uniform in sqrt(t) (Song et al. 2021, "DDIM", appendix D.2); or
        "log-snr", uniform in log-SNR (Lu et al. 2022, "DPM-Solver", section 3.3), rounded to distinct integers.
        Raises ValueError unless 1 <= steps <= start <= T, and for an unknown spacing.
        """
        start = self.T if start is None else start
        steps = start if steps is None else steps
        fits = 1 <= steps <= start <= self.T
        require(fits, f"need 1 <= steps <= start <= T = {self.T}", f"steps={steps}, start={start}")
        return list(pairwise([*choose(SPACINGS, spacing, "spacing")(start, steps, self.log_snr), 0]))


def uniform_times(T: int, steps: int, log_snr: Table) -> list[int]:
    return [(T * i + steps // 2) // steps for i in range(steps, 0, -1)]


def quadratic_times(T: int, steps: int, log_snr: Table) -> list[int]:
    return distinct([T * (i / steps) ** 2 for i in range(steps, 0, -1)], T)


def log_snr_times(T: int, steps: int, log_snr: Table) -> list[int]:
    """Even in log-SNR from T down to 1; after a T of pure noise, the remaining ones are."""
    if math.isinf(log_snr[T]):
        return [T, *(log_snr_times(T - 1, steps - 1, log_snr) if steps > 1 else [])]
    wanted = torch.linspace(float(log_snr[T]), float(log_snr[1]), steps, dtype=torch.float64)
    return distinct(((log_snr[1 : T + 1] - wanted[:, None]).abs().argmin(1) + 1).tolist(), T)


SPACINGS = {"uniform": uniform_times, "quadratic": quadratic_times, "log-snr": log_snr_times}


def distinct(times: Sequence[float], T: int) -> list[int]:
    """Descending times rounded to distinct integers from T down to 1."""
    chosen = [T]
    for remaining, time in zip(range(len(times) - 1, 0, -1), times[1:]):
        chosen.append(min(max(round(time), remaining), chosen[-1] - 1))
    return chosen


def check_step(t: int, s: int, T: int) -> None:
    require(0 <= s < t <= T, f"a step (t, s) needs 0 <= s < t <= T = {T}", f"t={t}, s={s} (only p_sample_loop climbs)")


def check_grid(grid: Grid | None, T: int, climbs: bool = False) -> Grid:
    """The grid as a list, the full one for None. Raises ValueError unless consecutive steps descend (climb) in 0..T."""
    grid = list(pairwise(range(T, -1, -1)) if grid is None else grid)
    if not grid or not all(isinstance(step, tuple) and len(step) == 2 for step in grid):
        raise ValueError("a time grid is a sequence of steps (t, s), and not empty: schedule.grid(steps) makes one")
    for k, (t, s) in enumerate(grid):
        check_step(*(max(t, s), min(t, s)) if climbs and k > 0 else (t, s), T)
        if k > 0 and t != grid[k - 1][1]:
            raise ValueError(f"step ({t}, {s}) of the time grid must start at {grid[k - 1][1]}, where the last ended")
    return grid
