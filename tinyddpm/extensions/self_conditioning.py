"""Self-conditioning: the network also sees its last x_0_hat (Chen, Zhang & Hinton 2023, "Analog bits", section 3.2).

    model = SelfConditioned(UNet(channels=2 * c, out_channels=c))

is trained with SelfConditionedLoss and sampled with DDPM.sample, which uses the network's own denoiser.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn

from ..diffusion import Denoiser, Images, Labels, check_predicts, diffusion_loss, make_denoiser, q_sample
from ..nn import NETWORKS
from ..schedules import Schedule, choose, require
from ..training import DenoisingLoss, Losses


def self_conditioned(model: Callable, schedule: Schedule, predicts: str = "eps", y: Labels | None = None) -> Denoiser:
    """A denoiser that calls model(x_t, t, y, x_0_hat) with its last x_0_hat, clamped to [-1, 1] (Chen et al. 2023,
    algorithm 2); with zeros at first, where the shape changes, and for each image whose t rises, as in the next run.

    Use a new one to start again at or below the last t. Raises ValueError as make_denoiser does.
    """
    prediction = check_predicts(predicts, schedule)
    last = last_t = None

    def denoiser(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        nonlocal last, last_t
        shown = torch.zeros_like(x_t)
        if last is not None and last.shape == x_t.shape:
            shown = torch.where((t <= last_t).reshape(-1, 1, 1, 1), last, shown)
        x_0_hat = prediction.to_x_0(model(x_t, t, y, shown), x_t, t, schedule)
        last, last_t = x_0_hat.detach().clamp(-1, 1), t
        return x_0_hat

    return denoiser


class SelfConditioned(nn.Module):
    """A network of x_t and an estimate of x_0, around one of 2c channels in and c out: a module, or the name of its
    class in NETWORKS with the arguments of that class."""

    make_denoiser = staticmethod(self_conditioned)

    def __init__(self, network: nn.Module | str, **arguments):
        super().__init__()
        inner: Any = choose(NETWORKS, network, "network")(**arguments) if isinstance(network, str) else network
        self.network, self.num_classes = inner, inner.num_classes
        self.arguments = {"network": type(inner).__name__, **inner.arguments}

    def forward(self, x_t: Images, t: Tensor, y: Tensor | None = None, x_0_hat: Images | None = None) -> Images:
        """x_0_hat: the last estimate, None for zeros."""
        x_0_hat = torch.zeros_like(x_t) if x_0_hat is None else x_0_hat
        return self.network(torch.cat([x_t, x_0_hat], dim=1), t, y)


@dataclass(frozen=True)
class SelfConditionedLoss(DenoisingLoss):
    """The denoising loss of a network that sees zeros or, with probability p, its own x_0_hat from zeros, through which
    no gradient flows (Chen et al. 2023, algorithm 1, where a batch shares the draw). Unless p = 0, a step costs one
    more pass, without gradient. Raises ValueError for p outside [0, 1]."""

    p: float = 0.5

    def __post_init__(self):
        require(0 <= self.p <= 1, "the probability that an image sees an estimate must be in [0, 1]", self.p)

    def __call__(self, model: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        t, eps, y = self.draw(model, x_0, y, generator)
        shown = torch.zeros_like(x_0)
        if self.p > 0:
            sees = torch.rand(len(x_0), 1, 1, 1, generator=generator, device=x_0.device) < self.p
            with torch.no_grad():
                x_0_hat = make_denoiser(model, self.schedule, self.predicts, y)(q_sample(x_0, t, eps, self.schedule), t)
            torch.clear_autocast_cache()  # in older torch it keeps weights without gradient for the next pass
            shown = torch.where(sees, x_0_hat.clamp(-1, 1), shown)
        seeing = partial(model, x_0_hat=shown)
        return diffusion_loss(seeing, x_0, t, eps, self.schedule, y, self.predicts, self.loss, self.weights, "none"), t
