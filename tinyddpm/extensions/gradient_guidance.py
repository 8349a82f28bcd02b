"""Guidance by a gradient: a classifier, or any differentiable function of an image.

    E[x_0 | x_t] + (1 - alpha_bar_t) / sqrt(alpha_bar_t) grad log w(x_t)

is the denoiser of the data reweighted by w (Dhariwal & Nichol 2021, algorithm 2, in terms of x_0).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ..diffusion import Denoiser, Images
from ..guidance import check_scale
from ..schedules import Schedule, require

LogWeight = Callable[[Tensor, Tensor], Tensor]  # (x, t) -> the log-weight of each image, (b,)


def energy_guidance(
    denoiser: Denoiser, log_weight: LogWeight, schedule: Schedule, scale: float = 1.0, noisy: bool = False
) -> Denoiser:
    """The denoiser, guided towards images of high log_weight(x, t) -> (b,), times scale.

    By default x is x_0_hat, and the gradient is taken through the denoiser: an approximation that any function of clean
    images allows (Chung et al. 2023, "DPS", theorem 1; Bansal et al. 2023). With noisy=True x is x_t: exact for
    log E[w(x_0) | x_t], such as that of a classifier trained on noisy images. Pure noise is not guided.

    Raises ValueError for a scale that is not finite, and for log-weights not differentiable or not one for each image.
    """
    check_scale(scale)

    def guided(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        nested = x_t.requires_grad and torch.is_grad_enabled()  # if an outer guidance needs the gradient
        with torch.enable_grad():
            x = x_t if nested else x_t.detach().requires_grad_()
            x_0_hat = denoiser(x, t)
            weights = torch.as_tensor(log_weight(x if noisy else x_0_hat, t))
            if weights.shape != t.shape or not weights.requires_grad:
                found = f"{tuple(weights.shape)} with requires_grad={weights.requires_grad}"
                raise ValueError(f"log_weight gives {len(t)} images one number each, differentiable in x, got {found}")
            (slope,) = torch.autograd.grad(weights.sum(), x, create_graph=nested)
            signal, noise = schedule.coefficients(t, x)
            x_0_hat = x_0_hat + scale * torch.where(signal > 0, noise**2 / signal.clamp(min=1e-12), 0) * slope
        return x_0_hat if nested else x_0_hat.detach()

    return guided


def classifier_guidance(
    denoiser: Denoiser, classifier: Callable, y: Tensor, schedule: Schedule, scale: float = 1.0, noisy: bool = False
) -> Denoiser:
    """Guidance towards images that the classifier assigns to y (Dhariwal & Nichol 2021, algorithm 2).

    The classifier, on the images' device, returns the logits (b, k) of clean images, classifier(x_0_hat), or with
    noisy=True of noisy ones, classifier(x_t, t). Raises ValueError as energy_guidance does, for labels that are not
    integers from 0, one for each image, and for images of another size than classifier.image_size, if there is one.
    """
    y, size = torch.as_tensor(y), getattr(classifier, "image_size", None)
    if y.ndim != 1 or y.is_floating_point() or (y < 0).any():
        raise ValueError(f"labels are integers from 0, one for each image, got {y.tolist()}")

    def log_weight(x: Images, t: Int[Tensor, " b"]) -> Tensor:
        if size is not None and x.shape[-2:] != (size, size):
            found = f"{x.shape[-2]}x{x.shape[-1]}: pad or crop the images, see tinyddpm.data.pad_to"
            raise ValueError(f"the classifier takes images of {size}x{size}, the denoiser returns {found}")
        logits = classifier(x, t) if noisy else classifier(x)
        return -F.cross_entropy(logits, y.to(logits.device), reduction="none")

    return energy_guidance(denoiser, log_weight, schedule, scale, noisy)


def blend(a: Denoiser, b: Denoiser, weight: float | Float[Tensor, " b"]) -> Denoiser:
    """(1 - weight) a + weight b, such as from one label to another. One weight in [0, 1], or one for each image.

    Where all are 0 or all are 1 the other denoiser is not called. Raises ValueError for weights outside [0, 1], and
    when called RuntimeError for weights of another number than the images.
    """
    weight = torch.as_tensor(weight, dtype=torch.float64).reshape(-1)
    if weight.numel() == 0 or not ((weight >= 0) & (weight <= 1)).all():
        raise ValueError(f"the weight of the second denoiser must be in [0, 1], got {weight.tolist()}")
    if (weight == 0).all() or (weight == 1).all():
        return b if weight[0] else a

    def blended(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        return torch.lerp(a(x_t, t), b(x_t, t), weight.to(x_t).reshape(-1, 1, 1, 1).expand(len(x_t), 1, 1, 1))

    return blended


def dynamic_threshold(denoiser: Denoiser, quantile: float = 0.995) -> Denoiser:
    """x_0_hat clamped to [-m, m] and divided by m, where m >= 1 is this quantile of the absolute values of an image's
    pixels: large guidance scales then saturate fewer pixels (Saharia et al. 2022, "Imagen", section 2.3).

    For photographs; the background of digits, -1, turns grey: clip those. Raises ValueError unless 0 < quantile <= 1.
    """
    require(0 < quantile <= 1, "the quantile of the pixels that keep their value must be in (0, 1]", quantile)

    def thresholded(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        x_0_hat = denoiser(x_t, t)
        precision = torch.promote_types(x_0_hat.dtype, torch.float32)  # torch.quantile takes no half precision
        m = x_0_hat.abs().flatten(1).to(precision).quantile(quantile, 1).clamp(min=1).to(x_0_hat).reshape(-1, 1, 1, 1)
        return x_0_hat.clamp(-m, m) / m

    return thresholded
