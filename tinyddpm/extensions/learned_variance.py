"""Learned variance: the network says of each pixel how much noise a step back adds (Nichol & Dhariwal 2021,
"Improved DDPM", section 3.1).

The network has twice the images' channels, such as UNet(channels=2 * c): x_t and zeros go in, the prediction
and nu come out.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..diffusion import PREDICTIONS, Images, Times, check_predicts, diffusion_loss, q_sample
from ..schedules import Schedule
from .likelihood import log_bin


def ask_both(model: Callable, x_t: Images, beside: Images, t: Tensor, y: Tensor | None) -> tuple[Images, Images]:
    """Both halves, c channels each, of what the network makes of [x_t, beside], in the dtype of x_t. Raises
    ValueError where it makes another shape."""
    x = torch.cat([x_t, beside], dim=1)  # (b, 2c, h, w)
    out = model(x, t) if y is None else model(x, t, y)
    if out.shape != x.shape:
        raise ValueError(
            f"the network makes twice the images' channels of as many, {tuple(x.shape)} here, got "
            f"{tuple(out.shape)}: build it with channels={x.shape[1]}"
        )
    return out.to(x_t.dtype).chunk(2, dim=1)


def learned_variance(nu: Images, t: Times, s: Times, schedule: Schedule) -> Images:
    """exp(share log(large) + (1 - share) log(small)) for each pixel (Nichol & Dhariwal 2021, eq. 15), with
    share = (nu + 1) / 2: at nu = -1 and 1 the sampler's "posterior" and "beta". nu may leave [-1, 1].

    Learned in steps to t - 1, it comes out a little too small in longer ones, where the mean of small and
    large themselves would be right, and much too large there from a nu above 1, such as that of a network
    that has barely begun.
    Raises ValueError unless 0 <= s < t <= T.
    """
    small, large = small_and_large(t, s, nu, schedule)
    share = (nu + 1) / 2
    return torch.exp(share * large.log() + (1 - share) * small.log())


def small_and_large(t: Times, s: Times, x: Images, schedule: Schedule) -> tuple[Tensor, Tensor]:
    """The posterior's variance, and 1 - alpha_bar_t / alpha_bar_s: (b, 1, 1, 1) each. To s = 0, where the
    posterior is a point, that of the step from 2 to 1 instead, as in their code (for T = 1: large)."""
    t, s = torch.as_tensor(t, device=x.device), torch.as_tensor(s, device=x.device)
    if x.device.type == "cpu" and not (s < t).all():
        raise ValueError(f"a step goes from t to s < t, got t={t.tolist()}, s={s.tolist()}")
    log_abar, noise = schedule.alpha_bar.log(), 1 - schedule.alpha_bar
    large = -torch.expm1(schedule.at(log_abar, t, x) - schedule.at(log_abar, s, x))
    noise_t, noise_s = schedule.at(noise, t, x), schedule.at(noise, s, x)
    first = min(2, schedule.T)
    least = float(noise[1] / noise[first] * schedule.beta[first])
    return torch.where(noise_s > 0, noise_s / noise_t * large, least), large


def hybrid_loss(
    model: Callable,
    x_0: Images,
    t: Int[Tensor, " b"],
    eps: Images,
    schedule: Schedule,
    y: Int[Tensor, " b"] | None = None,
    predicts: str = "eps",
    vlb_weight: float = 0.001,
) -> Float[Tensor, ""]:
    """diffusion_loss of the prediction + vlb_weight L_vlb, whose gradient reaches nu alone (Nichol & Dhariwal
    2021, eq. 16).

    L_vlb is the bound in bits per dimension, without what x_T tells: T times the mean of its terms at the
    t that were drawn, each from t to t - 1, t in 1..T. Raises ValueError as diffusion_loss does.
    """
    x_t = q_sample(x_0, t, eps, schedule)
    prediction, nu = ask_both(model, x_t, torch.zeros_like(x_t), t, y)
    simple = diffusion_loss(lambda *_: prediction, x_0, t, eps, schedule, y, predicts)
    x_0_hat = PREDICTIONS[predicts].to_x_0(prediction.detach(), x_t, t, schedule)
    variance = learned_variance(nu, t, t - 1, schedule)
    return simple + vlb_weight * schedule.T * step_bits(x_0, x_0_hat, variance, t, schedule).mean()


def step_bits(
    x_0: Images, x_0_hat: Images, variance: Images, t: Int[Tensor, " b"], schedule: Schedule
) -> Float[Tensor, " b"]:
    """The bound's term from t to t - 1 in bits per dimension: KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)),
    or at t = 1 that of the image's own bins (Ho et al. 2020, eq. 5 and 13)."""
    small, large = small_and_large(t, t - 1, x_0, schedule)
    signal, noise = schedule.at(schedule.sqrt_alpha_bar, t - 1, x_0), 1 - schedule.alpha_bar
    gap = signal * large / schedule.at(noise, t, x_0) * (x_0 - x_0_hat)  # of the means (Ho et al., eq. 7)
    kl = (gap.square() / variance + small / variance - 1 - torch.log(small / variance)) / 2
    first = (t == 1).reshape(-1, 1, 1, 1)
    image = -log_bin(x_0, x_0_hat, torch.where(first, variance, 1).sqrt())  # 1: no NaN in unused gradients
    return torch.where(first, image, kl).flatten(1).mean(1) / math.log(2)


class LearnedVariance:
    """A denoiser that keeps the nu of its last call: p_sample_loop(d, x_T, schedule, variance=d.variance).

    What clips or guides d may stand between: d.variance stays that of the network. Raises ValueError as
    make_denoiser does.
    """

    def __init__(self, model: Callable, schedule: Schedule, predicts: str = "eps", y: Int[Tensor, " b"] | None = None):
        check_predicts(predicts, schedule)
        self.model, self.schedule, self.predicts, self.y = model, schedule, predicts, y
        self.nu = None

    def __call__(self, x_t: Images, t: Int[Tensor, " b"]) -> Images:
        prediction, self.nu = ask_both(self.model, x_t, torch.zeros_like(x_t), t, self.y)
        return PREDICTIONS[self.predicts].to_x_0(prediction, x_t, t, self.schedule)

    def variance(self, t: int, s: int) -> Images:
        """That of each pixel, from the t of the last call to any s < t. Raises ValueError before a call."""
        if self.nu is None:
            raise ValueError("the variance is known when the denoiser has been called: no call came yet")
        return learned_variance(self.nu, t, s, self.schedule)
