"""The forward process, what it implies at one time t, and the loss:

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps                  (Ho et al. 2020, eq. 4)

Images are (b, c, h, w) in [-1, 1]; t is one integer, or one for each image as (b,).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from .schedules import Schedule, Table, Times, choose

Images = Float[Tensor, "b c h w"]
Labels = Int[Tensor, "b *k"]  # (b,), or for networks that read them captions (b, k)
Denoiser = Callable[[Tensor, Tensor], Tensor]  # (x_t, t) -> x_0_hat


def q_step(x: Images, t: Times, eps: Images, schedule: Schedule) -> Images:
    """x_t from x_{t-1}: sqrt(1 - beta_t) x_{t-1} + sqrt(beta_t) eps (Ho et al. 2020, eq. 2)."""
    return schedule.at((1 - schedule.beta).sqrt(), t, x) * x + schedule.at(schedule.beta.sqrt(), t, x) * eps


def q_sample(x_0: Images, t: Times, eps: Images, schedule: Schedule) -> Images:
    """x_t from x_0 in one step: sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps (Ho et al. 2020, eq. 4)."""
    signal, noise = schedule.coefficients(t, x_0)
    return signal * x_0 + noise * eps


def q_posterior(x_0: Images, x_t: Images, t: int, s: int, schedule: Schedule) -> tuple[Images, float]:
    """Mean and variance of q(x_s | x_t, x_0) for any s < t (Ho et al. 2020, eq. 6 and 7, where s = t - 1).

    mean = (sqrt(alpha_bar_s) (1 - a) x_0 + sqrt(a) (1 - alpha_bar_s) x_t) / (1 - alpha_bar_t), and
    variance = (1 - alpha_bar_s) / (1 - alpha_bar_t) (1 - a), with a = alpha_bar_t / alpha_bar_s, the signal kept from
    s to t. At s = 0 the mean is x_0 and the variance 0. Raises ValueError unless 0 <= s < t <= T.
    """
    small, large = schedule.posterior_variance(t, s)
    abar_t, abar_s = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[s])
    of_x_0 = abar_s**0.5 * large / (1 - abar_t)
    of_x_t = (abar_t / abar_s) ** 0.5 * (1 - abar_s) / (1 - abar_t)
    return of_x_0 * x_0 + of_x_t * x_t, small


def eps_from_x_0(x_0: Images, x_t: Images, t: Times, schedule: Schedule) -> Images:
    """eps = (x_t - sqrt(alpha_bar_t) x_0) / sqrt(1 - alpha_bar_t), t > 0 (Ho et al. 2020, eq. 4 solved for eps)."""
    signal, noise = schedule.coefficients(t, x_t)
    return (x_t - signal * x_0) / noise


def x_0_from_eps(eps: Images, x_t: Images, t: Times, schedule: Schedule) -> Images:
    """x_0 = (x_t - sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_bar_t) (Ho et al. 2020, eq. 4 solved for x_0)."""
    signal, noise = schedule.coefficients(t, x_t)
    return (x_t - noise * eps) / signal


def v_from(x_0: Images, eps: Images, t: Times, schedule: Schedule) -> Images:
    """v = sqrt(alpha_bar_t) eps - sqrt(1 - alpha_bar_t) x_0 (Salimans & Ho 2022, section 4)."""
    signal, noise = schedule.coefficients(t, x_0)
    return signal * eps - noise * x_0


def x_0_from_v(v: Images, x_t: Images, t: Times, schedule: Schedule) -> Images:
    """x_0 = sqrt(alpha_bar_t) x_t - sqrt(1 - alpha_bar_t) v (Salimans & Ho 2022, appendix D)."""
    signal, noise = schedule.coefficients(t, x_t)
    return signal * x_t - noise * v


def x_0_from_flow(u: Images, x_t: Images, t: Times, schedule: Schedule) -> Images:
    """x_0 from u = eps - x_0, the velocity of the straight path (Lipman et al. 2023, eq. 23; Liu et al. 2023, eq. 1):
    (x_t - sqrt(1 - alpha_bar_t) u) / (sqrt(alpha_bar_t) + sqrt(1 - alpha_bar_t))."""
    signal, noise = schedule.coefficients(t, x_t)
    return (x_t - noise * u) / (signal + noise)


class Prediction(NamedTuple):
    """What a network may predict: its target, the way back to x_0, and the weight of an error in x_0 that its own error
    implies, over 1 + SNR: SNR, 1, SNR + 1 and (sqrt(SNR) + 1)^2 below (Hang et al. 2023, section 3.4)."""

    target: Callable[[Tensor, Tensor, Times, Schedule], Tensor]  # x_0, eps, t, schedule
    to_x_0: Callable[[Tensor, Tensor, Times, Schedule], Tensor]  # output, x_t, t, schedule
    weight: Callable[[Table], Table]  # alpha_bar


PREDICTIONS = {
    "eps": Prediction(lambda x_0, eps, *_: eps, x_0_from_eps, lambda abar: abar),
    "x_0": Prediction(lambda x_0, *_: x_0, lambda x_0, *_: x_0, lambda abar: 1 - abar),
    "v": Prediction(v_from, x_0_from_v, torch.ones_like),
    "flow": Prediction(lambda x_0, eps, *_: eps - x_0, x_0_from_flow, lambda a: (a.sqrt() + (1 - a).sqrt()) ** 2),
}


def check_predicts(predicts: str, schedule: Schedule) -> Prediction:
    """The row of PREDICTIONS. Raises ValueError for an unknown name, and for eps where x_T is pure noise."""
    row = choose(PREDICTIONS, predicts, "prediction")
    if predicts == "eps" and schedule.alpha_bar[-1] == 0:
        raise ValueError("x_T is pure noise (zero terminal SNR), so eps says nothing of x_0: predict v, x_0 or flow")
    return row


def make_denoiser(model: Callable, schedule: Schedule, predicts: str = "eps", y: Labels | None = None) -> Denoiser:
    """A network that predicts eps, x_0, v or flow, as a denoiser (x_t, t) -> x_0_hat: what every sampler takes.

    model is called as model(x_t, t), or as model(x_t, t, y) if labels are given. It may return more channels than the
    image has, such as a variance: the first ones are the prediction. Raises ValueError as check_predicts does.
    """
    prediction = check_predicts(predicts, schedule)

    def denoiser(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        out = model(x_t, t) if y is None else model(x_t, t, y)
        return prediction.to_x_0(out[:, : x_t.shape[1]], x_t, t, schedule)

    return denoiser


LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}
WEIGHTS = {"none": None, "min-snr": (0.0, 5.0), "clamped-snr": (1.0, 5.0)}  # the range that the SNR is clamped to


def diffusion_loss(
    model: Callable,
    x_0: Images,
    t: Int[Tensor, " b"],
    eps: Images,
    schedule: Schedule,
    y: Labels | None = None,
    predicts: str = "eps",
    loss: str = "mse",
    weights: str = "none",
    reduction: str = "mean",
) -> Float[Tensor, ""] | Float[Tensor, " b"]:
    """The mean over images of w(t) |target - model(x_t, t)|: the simple loss of Ho et al. 2020, eq. 14, for any
    prediction. With reduction="none", the loss of each image.

    loss: "mse"; "l1", which learns the median, while samplers want the mean; or "huber". weights: "none"; "min-snr",
    min(SNR, 5) on the error in x_0 (Hang et al. 2023, section 3.4); or "clamped-snr", the SNR clamped to [1, 5], so
    that high noise keeps its weight (Salimans & Ho 2022, section 4). Raises ValueError for unknown names.
    """
    error, target = choose(LOSSES, loss, "loss"), check_predicts(predicts, schedule).target(x_0, eps, t, schedule)
    x_t = q_sample(x_0, t, eps, schedule)
    out = model(x_t, t) if y is None else model(x_t, t, y)
    per_image = error(out[:, : x_0.shape[1]], target, reduction="none").flatten(1).mean(1)  # (b,)
    per_image = loss_weight(t, x_0, schedule, predicts, weights) * per_image
    return per_image if reduction == "none" else per_image.mean()


def loss_weight(t: Tensor, x_0: Images, schedule: Schedule, predicts: str, weights: str) -> Float[Tensor, " b"]:
    """w(t) for each image: the desired weight of an error in x_0 over the one that the prediction implies."""
    clamp = choose(WEIGHTS, weights, "weights")
    if clamp is None:
        return torch.ones(len(x_0), device=x_0.device)
    # both are divided by 1 + SNR, which keeps them finite at both ends of the schedule
    abar, one = schedule.alpha_bar, (1 - schedule.alpha_bar).clamp(min=1e-300)
    desired = abar.maximum(clamp[0] * one).minimum(clamp[1] * one)
    implied = PREDICTIONS[predicts].weight(abar).clamp(min=1e-300)
    return schedule.at(desired / implied, t, x_0).flatten()
