"""Learned variance: the network also predicts the variance of each pixel's step (Nichol & Dhariwal 2021, section 3.1).

The network returns 2c channels for images of c, such as UNet(channels=c, out_channels=2 * c): the prediction and nu.
Train it with LearnedVarianceLoss. DDPM.sample ignores nu unless (with labels y in both calls, in one batch)

    d = LearnedVariance(ddpm.model, ddpm.schedule, ddpm.predicts)
    x = ddpm.sample(n=4, guide=lambda _: d, sampler=partial(p_sample_loop, variance=d.variance))
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ..diffusion import Images, Labels, check_predicts, diffusion_loss, q_sample
from ..schedules import Schedule, Table
from ..training import DenoisingLoss, Losses
from .likelihood import log_bin


def predict_pair(model: Callable, x_t: Images, t: Tensor, y: Tensor | None) -> tuple[Images, Images]:
    """The prediction and nu, (b, c, h, w) each, in the dtype of x_t. Raises ValueError for other than 2c channels."""
    out, c = model(x_t, t, y), x_t.shape[1]
    if out.shape[1] != 2 * c:
        found = f"got {out.shape[1]}: build it with out_channels={2 * c}"
        raise ValueError(f"a network with learned variance returns {2 * c} channels for images of {c}, {found}")
    return tuple(out.to(x_t.dtype).chunk(2, dim=1))


def learned_variance(nu: Images, small: float | Tensor, large: float | Tensor) -> Images:
    """exp(w log(large) + (1 - w) log(small)) with w = (nu + 1) / 2, for each pixel (Nichol & Dhariwal 2021, eq. 15):
    the variances "posterior" and "beta" of p_sample at nu = -1 and 1, between which nu need not stay.

    nu is learned in steps from t to t - 1. In longer ones the variance is a little too small, as the arithmetic mean of
    small and large would be right; for nu above 1, as an untrained network has, it is much too large.
    """
    return small * (large / small) ** ((nu + 1) / 2)


def variance_tables(schedule: Schedule) -> tuple[Table, Table]:
    """(small, large) of the steps from t to t - 1. At t = 1, where the posterior is a point, small is that of t = 2."""
    noise = 1 - schedule.alpha_bar
    small = schedule.beta * noise.roll(1) / noise  # Ho et al. 2020, eq. 7
    small[1] = small[2] if schedule.T > 1 else schedule.beta[1]
    return small, schedule.beta


def hybrid_loss(
    model: Callable,
    x_0: Images,
    t: Int[Tensor, " b"],
    eps: Images,
    schedule: Schedule,
    y: Labels | None = None,
    predicts: str = "eps",
    loss: str = "mse",
    weights: str = "none",
    vlb_weight: float = 0.001,
) -> Float[Tensor, " b"]:
    """diffusion_loss + vlb_weight L_vlb for each image, where only nu gets the gradient of L_vlb (Nichol & Dhariwal
    2021, eq. 16): T times the bound's term at t in bits per dimension, whose mean over t is the bound without x_T's.
    Raises ValueError as diffusion_loss does, and unless the network returns 2c channels."""
    to_x_0, x_t = check_predicts(predicts, schedule).to_x_0, q_sample(x_0, t, eps, schedule)
    prediction, nu = predict_pair(model, x_t, t, y)
    simple = diffusion_loss(lambda *_: prediction, x_0, t, eps, schedule, y, predicts, loss, weights, "none")
    x_0_hat = to_x_0(prediction.detach(), x_t, t, schedule)
    variance = learned_variance(nu, *(schedule.at(table, t, x_0) for table in variance_tables(schedule)))
    return simple + vlb_weight * schedule.T * step_bits(x_0, x_0_hat, variance, t, schedule)


def step_bits(x_0: Images, x_0_hat: Images, variance: Images, t: Tensor, schedule: Schedule) -> Float[Tensor, " b"]:
    """The bound's term from t to t - 1 in bits per dimension: KL(q(x_{t-1} | x_t, x_0) || p(x_{t-1} | x_t)), or at
    t = 1 that of the image's own bins (Ho et al. 2020, eq. 5 and 13)."""
    small, large = (schedule.at(table, t, x_0) for table in variance_tables(schedule))
    signal, noise = schedule.coefficients(t - 1, x_0)[0], schedule.at(1 - schedule.alpha_bar, t, x_0)
    gap = signal * large / noise * (x_0 - x_0_hat)  # of the means (Ho et al. 2020, eq. 7)
    kl = (gap.square() / variance + small / variance - 1 - torch.log(small / variance)) / 2
    first = (t == 1).reshape(-1, 1, 1, 1)
    image = -log_bin(x_0, x_0_hat, torch.where(first, variance, 1).sqrt())  # 1: no NaN in unused gradients
    return torch.where(first, image, kl).flatten(1).mean(1) / math.log(2)


@dataclass(frozen=True)
class LearnedVarianceLoss(DenoisingLoss):
    """hybrid_loss as an objective."""

    vlb_weight: float = 0.001

    def __call__(self, model: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        t, eps, y = self.draw(model, x_0, y, generator)
        kind = self.predicts, self.loss, self.weights
        return hybrid_loss(model, x_0, t, eps, self.schedule, y, *kind, self.vlb_weight), t


class LearnedVariance:
    """A denoiser that keeps the nu of its last call: p_sample_loop(clip_x_0(d), x_T, schedule, variance=d.variance).
    Raises ValueError as make_denoiser does, and when called unless the network returns 2c channels."""

    def __init__(self, model: Callable, schedule: Schedule, predicts: str = "eps", y: Labels | None = None):
        self.to_x_0 = check_predicts(predicts, schedule).to_x_0
        self.model, self.schedule, self.y = model, schedule, y
        self.nu: Images | None = None

    def __call__(self, x_t: Images, t: Int[Tensor, " b"]) -> Images:
        prediction, self.nu = predict_pair(self.model, x_t, t, self.y)
        return self.to_x_0(prediction, x_t, t, self.schedule)

    def variance(self, t: int, s: int) -> Images:
        """The variance of each pixel from t, the time of the last call, to s. Raises ValueError before the first."""
        if self.nu is None:
            raise ValueError("the variance is known only after a call: call the denoiser first")
        return learned_variance(self.nu, *self.schedule.posterior_variance(t, s))
