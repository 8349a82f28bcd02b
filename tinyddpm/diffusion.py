"""The algebra at one t: how an image becomes noisy, what follows about the way back, and the loss.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps                  (Ho et al. 2020, eq. 4)

Images are (b, c, h, w) in [-1, 1]; t is one integer, or one for each image as (b,).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .grids import check_pair
from .schedules import Schedule

Images = Float[Tensor, "b c h w"]
Times = Int[Tensor, " b"] | int
Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> x_0_hat

PREDICTS = ("eps", "x_0", "v", "flow")
LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}
WEIGHTS = ("none", "min-snr", "clamped-snr")


def q_step(x: Images, t: Times, eps: Images, schedule: Schedule) -> Images:
    """x_t from x_{t-1}: sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps (Ho et al. 2020, eq. 2)."""
    beta = schedule.beta
    return schedule.at((1 - beta).sqrt(), t, x) * x + schedule.at(beta.sqrt(), t, x) * eps


def q_sample(x_0: Images, t: Times, eps: Images, schedule: Schedule) -> Images:
    """x_t from x_0 in one jump: sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, eq. 4)."""
    signal = schedule.at(schedule.sqrt_alpha_bar, t, x_0)
    noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_0)
    return signal * x_0 + noise * eps


def q_posterior(x_0: Images, x_t: Images, t: int, s: int, schedule: Schedule) -> tuple[Images, float]:
    """Mean and variance of q(x_s | x_t, x_0) for any s < t (Ho et al. 2020, eq. 6 and 7, where s = t - 1).

    With a = alpha_bar_t / alpha_bar_s, the signal kept from s to t:
    mean = (sqrt(alpha_bar_s) (1 - a) x_0 + sqrt(a) (1 - alpha_bar_s) x_t) / (1 - alpha_bar_t)
    variance = (1 - alpha_bar_s) / (1 - alpha_bar_t) (1 - a)

    At s = 0 that is x_0 itself, with variance 0. Raises ValueError unless 0 <= s < t <= T.
    """
    check_pair(t, s, schedule.T)
    abar_t, abar_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    a = abar_t / abar_s
    of_x_0, of_x_t = abar_s**0.5 * (1 - a) / (1 - abar_t), a**0.5 * (1 - abar_s) / (1 - abar_t)
    return of_x_0 * x_0 + of_x_t * x_t, (1 - abar_s) / (1 - abar_t) * (1 - a)


def eps_from_x_0(x_0: Images, x_t: Images, t: Times, schedule: Schedule) -> Images:
    """eps = (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1 - alpha_bar_t): Ho et al. 2020, eq. 4, for eps; t > 0."""
    signal = schedule.at(schedule.sqrt_alpha_bar, t, x_t)
    return (x_t - signal * x_0) / schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t)


def x_0_from_eps(eps: Images, x_t: Images, t: Times, schedule: Schedule) -> Images:
    """x_0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t): Ho et al. 2020, eq. 4, for x_0."""
    noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t)
    return (x_t - noise * eps) / schedule.at(schedule.sqrt_alpha_bar, t, x_t)


def v_from(x_0: Images, eps: Images, t: Times, schedule: Schedule) -> Images:
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0 (Salimans & Ho 2022, section 4)."""
    signal = schedule.at(schedule.sqrt_alpha_bar, t, x_0)
    return signal * eps - schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_0) * x_0


def x_0_from_v(v: Images, x_t: Images, t: Times, schedule: Schedule) -> Images:
    """x_0 = sqrt(alpha_bar_t) x_t - sqrt(1 - alpha_bar_t) v (Salimans & Ho 2022, appendix D)."""
    signal = schedule.at(schedule.sqrt_alpha_bar, t, x_t)
    return signal * x_t - schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t) * v


def x_0_from_flow(u: Images, x_t: Images, t: Times, schedule: Schedule) -> Images:
    """x_0 from u = eps - x_0, the velocity of the straight line between them (Lipman et al. 2023, eq. 23;
    Liu et al. 2023, eq. 1): (x_t - sqrt(1 - alpha_bar_t) u) / (sqrt(alpha_bar_t) + sqrt(1 - alpha_bar_t))."""
    signal = schedule.at(schedule.sqrt_alpha_bar, t, x_t)
    noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t)
    return (x_t - noise * u) / (signal + noise)


TO_X_0 = {
    "eps": x_0_from_eps,
    "x_0": lambda x_0, x_t, t, schedule: x_0,
    "v": x_0_from_v,
    "flow": x_0_from_flow,
}


def make_denoiser(
    model: Callable, schedule: Schedule, predicts: str = "eps", y: Int[Tensor, " b"] | None = None
) -> Denoiser:
    """A network that predicts eps, x_0, v or flow, as what every sampler takes: (x_t, t) -> x_0_hat.

    model is called as model(x_t, t), or as model(x_t, t, y) when labels are given.
    Raises ValueError for another prediction, and for eps where x_T is noise alone.
    """
    check_predicts(predicts, schedule)

    def denoiser(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        out = model(x_t, t) if y is None else model(x_t, t, y)
        return TO_X_0[predicts](out, x_t, t, schedule)

    return denoiser


def diffusion_loss(
    model: Callable,
    x_0: Images,
    t: Int[Tensor, " b"],
    eps: Images,
    schedule: Schedule,
    y: Int[Tensor, " b"] | None = None,
    predicts: str = "eps",
    loss: str = "mse",
    weights: str = "none",
    reduction: str = "mean",
) -> Float[Tensor, ""] | Float[Tensor, " b"]:
    """The mean over images of w(t) |target - model(x_t, t)|: the simple loss (Ho et al. 2020, eq. 14),
    with eps, x_0, v or flow (eps - x_0) as the target. With the reduction "none", that of each image.

    "l1" learns the median where "mse" learns the mean, and samplers want the mean. "min-snr" weighs
    the error in x_0 by min(SNR, 5) whatever is predicted (Hang et al. 2023, section 3.4), "clamped-snr"
    by the SNR held in [1, 5], so that high noise keeps its weight (below 1: Salimans & Ho 2022, section 4).

    Raises ValueError for images outside [-1, 1], for names that do not exist, and for eps where x_T is noise
    alone.
    """
    check_predicts(predicts, schedule)
    check_images(x_0)
    if loss not in LOSSES:
        raise ValueError(f"there is no loss {loss!r}: choose one of {', '.join(LOSSES)}")
    x_t = q_sample(x_0, t, eps, schedule)
    out = model(x_t, t) if y is None else model(x_t, t, y)
    target = {"eps": eps, "x_0": x_0, "v": v_from(x_0, eps, t, schedule), "flow": eps - x_0}[predicts]
    per_image = LOSSES[loss](out, target, reduction="none").flatten(1).mean(1)  # (b,)
    per_image = loss_weight(t, x_0, schedule, predicts, weights) * per_image
    return per_image if reduction == "none" else per_image.mean()


def loss_weight(
    t: Int[Tensor, " b"], x_0: Images, schedule: Schedule, predicts: str, weights: str, gamma: float = 5.0
) -> Float[Tensor, " b"]:
    """w(t), one an image: 1, or the SNR held in [0 or 1, gamma], divided by the weight that the prediction
    has in x_0 already: 1 for x_0, SNR for eps, SNR + 1 for v, (sqrt(SNR) + 1)^2 for flow (Hang et al. 2023,
    section 3.4)."""
    if weights not in WEIGHTS:
        raise ValueError(f"there are no weights {weights!r}: choose one of {', '.join(WEIGHTS)}")
    if weights == "none":
        return torch.ones(len(x_0), device=x_0.device)
    # both divided by 1 + SNR: finite at T, and with a little more than 0 at t = 0, too
    snr, one = schedule.alpha_bar, (1 - schedule.alpha_bar).clamp(min=1e-300)
    wanted = torch.minimum(snr if weights == "min-snr" else torch.maximum(snr, one), gamma * one)
    own = {"eps": snr, "x_0": one, "v": snr + one, "flow": (snr.sqrt() + one.sqrt()) ** 2}
    return schedule.at(wanted / own[predicts], t, x_0).flatten()


def check_predicts(predicts: str, schedule: Schedule) -> None:
    if predicts not in PREDICTS:
        raise ValueError(f"a network predicts one of {', '.join(PREDICTS)}, got {predicts!r}")
    if predicts == "eps" and schedule.alpha_bar[-1] == 0:
        raise ValueError(
            "with zero terminal SNR x_T is noise alone, and eps says nothing about the image there: "
            "predict v, x_0 or flow, or take a schedule that leaves some signal"
        )


def check_images(x_0: Tensor) -> None:
    """Raises ValueError for images outside [-1, 1]. Looks only on the CPU: a look would stall a GPU."""
    if x_0.device.type == "cpu" and not (x_0.min() >= -1 and x_0.max() <= 1):  # NaN is neither
        raise ValueError(
            f"images must lie in [-1, 1], got values in [{x_0.min():.3g}, {x_0.max():.3g}]: "
            "tinyddpm.data.from_uint8 maps [0, 255] there"
        )
