"""Self-conditioning: the network also sees its last estimate of x_0 (Chen, Zhang & Hinton 2023, "Analog bits",
section 3.2).

    model = SelfConditioned(UNet(channels=2 * c, out_channels=c))

is trained with SelfConditionedLoss and sampled with DDPM.sample, which uses the network's own denoiser: it remembers
the last x_0_hat. Importing this file registers the network, so that its checkpoints can be loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ..diffusion import Denoiser, Images, check_predicts, diffusion_loss, make_denoiser, q_sample
from ..nn import NETWORKS
from ..schedules import Schedule
from ..training import Losses, labels_for, uniform_times


def self_conditioned(
    model: Callable, schedule: Schedule, predicts: str = "eps", y: Int[Tensor, " b"] | None = None
) -> Denoiser:
    """A denoiser that shows the network its last x_0_hat, clamped to [-1, 1] (Chen et al. 2023, algorithm 2).

    model is called as model(x_t, t, y, x_0_hat). It sees zeros at first, where the shape changes, and for each image
    whose t rises, so that one denoiser serves run after run; use a new one to start again at or below the last t.
    Raises ValueError as make_denoiser does.
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
    """A network that takes x_t and an estimate of x_0 beside it, around one of 2c channels in and c out: a module, or
    the name of its class in NETWORKS with the arguments of that class."""

    make_denoiser = staticmethod(self_conditioned)

    def __init__(self, network: nn.Module | str, **arguments):
        super().__init__()
        self.network = NETWORKS[network](**arguments) if isinstance(network, str) else network
        self.num_classes = self.network.num_classes
        self.arguments = {"network": type(self.network).__name__, **self.network.arguments}

    def forward(
        self,
        x_t: Float[Tensor, "b c h w"],
        t: Int[Tensor, " b"],
        y: Int[Tensor, " b"] | None = None,
        x_0_hat: Float[Tensor, "b c h w"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """x_0_hat: the last estimate, None for zeros."""
        x_0_hat = torch.zeros_like(x_t) if x_0_hat is None else x_0_hat
        return self.network(torch.cat([x_t, x_0_hat], dim=1), t, y)


NETWORKS["SelfConditioned"] = SelfConditioned


@dataclass(frozen=True)
class SelfConditionedLoss:
    """The denoising loss of a network that sees zeros or, with probability p, its own x_0_hat from zeros, through which
    no gradient flows (Chen et al. 2023, algorithm 1; drawn for each image, there for each batch).

    An objective with the signature and the fields of training.DenoisingLoss. The first estimate costs one pass of the
    whole batch without gradient, none for p = 0. Raises ValueError for p outside [0, 1].
    """

    schedule: Schedule
    predicts: str = "eps"
    loss: str = "mse"
    weights: str = "none"
    label_drop: float = 0.1
    times: Callable[[int, int, Generator], Tensor] = uniform_times
    p: float = 0.5

    def __post_init__(self):
        if not 0 <= self.p <= 1:
            raise ValueError(f"the probability that an image sees an estimate must be in [0, 1], got {self.p}")

    def __call__(self, model: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        """The loss of each image (b,) and its t (b,). A network without labels ignores y."""
        t = self.times(len(x_0), self.schedule.T, generator)
        eps = torch.randn(x_0.shape, generator=generator, device=x_0.device)
        y = labels_for(model, y, self.label_drop, generator)
        shown = torch.zeros_like(x_0)
        if self.p > 0:
            sees = torch.rand(len(x_0), generator=generator, device=x_0.device) < self.p
            shown = torch.where(sees.reshape(-1, 1, 1, 1), self.estimate(model, x_0, t, eps, y), shown)

        def network(x_t: Images, t: Int[Tensor, " b"], y: Int[Tensor, " b"] | None = None) -> Images:
            return model(x_t, t, y, shown)

        kind = self.predicts, self.loss, self.weights
        return diffusion_loss(network, x_0, t, eps, self.schedule, y, *kind, reduction="none"), t

    @torch.no_grad()
    def estimate(self, model: nn.Module, x_0: Images, t: Tensor, eps: Images, y: Tensor | None) -> Images:
        """x_0_hat of a network that sees zeros."""
        x_0_hat = make_denoiser(model, self.schedule, self.predicts, y)(q_sample(x_0, t, eps, self.schedule), t)
        torch.clear_autocast_cache()  # in older torch it keeps weights without gradient for the next pass
        return x_0_hat.clamp(-1, 1)
