"""Self-conditioning: the network also sees what it last believed x_0 to be (Chen, Zhang & Hinton 2023,
"Analog bits", section 3.2).

The network has twice the images' channels, such as UNet(channels=2 * c): x_t and the last x_0_hat go in, and
the first half of what comes out is the prediction. The rest is unused.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ..diffusion import PREDICTIONS, Denoiser, Images, check_predicts, diffusion_loss, q_sample
from ..schedules import Schedule
from .learned_variance import ask_both


def self_conditioned(
    model: Callable, schedule: Schedule, predicts: str = "eps", y: Int[Tensor, " b"] | None = None
) -> Denoiser:
    """A denoiser that shows the network its last x_0_hat, held in [-1, 1] (Chen et al. 2023, algorithm 2).

    It shows zeros at first, where the shape changes, and to each image whose t rises, and so serves run after
    run; only one that begins no higher than where the last one stopped needs a denoiser of its own.
    Raises ValueError as make_denoiser does.
    """
    check_predicts(predicts, schedule)
    seen = at = None

    def denoiser(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        nonlocal seen, at
        beside = torch.zeros_like(x_t)
        if seen is not None and seen.shape == x_t.shape:
            beside = torch.where((t <= at).reshape(-1, 1, 1, 1), seen, beside)
        prediction, _ = ask_both(model, x_t, beside, t, y)
        x_0_hat = PREDICTIONS[predicts].to_x_0(prediction, x_t, t, schedule)
        seen, at = x_0_hat.detach().clamp(-1, 1), t
        return x_0_hat

    return denoiser


def self_conditioned_loss(
    model: Callable,
    x_0: Images,
    t: Int[Tensor, " b"],
    eps: Images,
    schedule: Schedule,
    y: Int[Tensor, " b"] | None = None,
    predicts: str = "eps",
    share: float = 0.5,
    generator: Generator | None = None,
) -> Float[Tensor, ""]:
    """diffusion_loss of a network that sees zeros beside x_t, or with probability `share`, drawn for each
    image (by them for each batch), its own x_0_hat from zeros, through which no gradient goes (Chen et al.
    2023, algorithm 1).

    That first look is one pass of the whole batch without gradient; with share 0 there is none.
    Raises ValueError as diffusion_loss does, and for a share outside [0, 1].
    """
    check_predicts(predicts, schedule)
    if not 0 <= share <= 1:
        raise ValueError(f"the share of images that see an estimate goes from 0 to 1, got {share}")
    beside = torch.zeros_like(x_0)
    if share > 0:
        with torch.no_grad():
            x_t = q_sample(x_0, t, eps, schedule)
            prediction, _ = ask_both(model, x_t, beside, t, y)
            x_0_hat = PREDICTIONS[predicts].to_x_0(prediction, x_t, t, schedule).clamp(-1, 1)
        torch.clear_autocast_cache()  # in older torch it hands on weights that get no gradient
        device = "cpu" if generator is None else generator.device
        looks = torch.rand(len(x_0), generator=generator, device=device).to(x_0.device) < share
        beside = torch.where(looks.reshape(-1, 1, 1, 1), x_0_hat, beside)
    return diffusion_loss(
        lambda x_t, t, y=None: ask_both(model, x_t, beside, t, y)[0], x_0, t, eps, schedule, y, predicts
    )
