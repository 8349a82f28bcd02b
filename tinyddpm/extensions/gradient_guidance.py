"""Steering by a gradient: classifiers, and anything else about an image that can be differentiated.

    x_0_hat = E[x_0 | x_t] + (1 - alpha_bar_t) / sqrt(alpha_bar_t) grad log w(x_t)

is what Bayes' rule makes of a belief about x_0 when images are weighted by w: the score of the noisy images
gains grad log w (Dhariwal & Nichol 2021, algorithm 2, in terms of x_0).
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..diffusion import Denoiser, Images
from ..guidance import check_scale
from ..schedules import Schedule

LogWeight = Callable[[Tensor, Tensor], Tensor]  # (x, t) -> (b,), how welcome each image is


def energy_guidance(
    denoiser: Denoiser, log_weight: LogWeight, schedule: Schedule, scale: float = 1.0, noisy: bool = False
) -> Denoiser:
    """The denoiser, steered towards images of high log_weight, times scale.

    log_weight(x, t) -> (b,) is asked about x_0_hat, and the gradient goes back through the denoiser (Chung et
    al. 2023, "DPS", theorem 1; Bansal et al. 2023): any function of clean images serves, approximately, since
    it is taken at the mean. With noisy, it is asked about x_t itself: exact where it is the logarithm of
    E[w(x_0) | x_t], as of a classifier trained on noisy images.

    Where x_T is noise alone nothing is steered. Raises ValueError for a scale that is no finite number, and
    for log-weights that are not one an image or have no gradient.
    """
    check_scale(scale)

    def steered(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        asked = x_t.requires_grad and torch.is_grad_enabled()  # by another energy around this one
        with torch.enable_grad():
            x_t = x_t if asked else x_t.detach().requires_grad_()
            with torch.set_grad_enabled(asked or not noisy):  # no way back through it is needed
                x_0_hat = denoiser(x_t, t)
            weights = torch.as_tensor(log_weight(x_t if noisy else x_0_hat, t))
            if weights.shape != t.shape:
                raise ValueError(
                    f"a log-weight is one number an image, {tuple(t.shape)}, got {tuple(weights.shape)}: "
                    "sum or average over the pixels only"
                )
            slope = None
            if weights.requires_grad:
                (slope,) = torch.autograd.grad(weights.sum(), x_t, create_graph=asked, allow_unused=True)
            if slope is None:
                raise ValueError(
                    "the log-weight has no gradient: it must be made of its images by differentiable "
                    "functions, and the denoiser must not run under no_grad"
                )
        signal = schedule.at(schedule.sqrt_alpha_bar, t, x_t)
        noise = schedule.at(schedule.sqrt_one_minus_alpha_bar, t, x_t)
        reach = torch.where(signal > 0, noise**2 / signal.clamp(min=1e-12), 0)
        x_0_hat = x_0_hat + scale * reach * slope
        return x_0_hat if asked else x_0_hat.detach()

    return steered


def classifier_guidance(
    denoiser: Denoiser,
    classifier: nn.Module | LogWeight,
    y: Int[Tensor, " b"],
    schedule: Schedule,
    scale: float = 1.0,
    noisy: bool = False,
) -> Denoiser:
    """Steered towards images that the classifier reads as y (Dhariwal & Nichol 2021, algorithm 2).

    The classifier gives logits (b, k): of clean images as classifier(x_0_hat), or with noisy of noisy ones as
    classifier(x_t, t). Raises ValueError for one that reads images of another size (its attribute
    image_size) or does not give one logit a class, and for labels that it does not have. It must be on the
    images' device: load_classifier() is on the CPU.
    """
    y = torch.as_tensor(y)
    if y.ndim != 1 or len(y) == 0 or y.is_floating_point():
        raise ValueError(f"labels are one integer an image, got {y.dtype} of shape {tuple(y.shape)}")
    size = getattr(classifier, "image_size", None)

    def log_weight(x: Images, t: Int[Tensor, " b"]) -> Tensor:
        if size is not None and x.shape[-2:] != (size, size):
            raise ValueError(
                f"the classifier reads images of {size}x{size}, the denoiser sees {x.shape[-2]}x{x.shape[-1]}"
                ": bring one to the other's size, such as with tinyddpm.data.pad_to"
            )
        logits = classifier(x, t) if noisy else classifier(x)
        if logits.ndim != 2 or len(logits) != len(y):
            raise ValueError(
                f"{len(y)} labels need logits ({len(y)}, classes), got {tuple(logits.shape)} for "
                f"images {tuple(x.shape)}"
            )
        return logits.log_softmax(1).gather(1, labels_of(y, logits)[:, None])[:, 0]

    return energy_guidance(denoiser, log_weight, schedule, scale, noisy)


def labels_of(y: Tensor, logits: Tensor) -> Tensor:
    if y.device.type == "cpu" and (y.min() < 0 or y.max() >= logits.shape[1]):
        raise ValueError(f"the classifier has labels 0..{logits.shape[1] - 1}, got {y.min()}..{y.max()}")
    return y.to(logits.device)


def blend(a: Denoiser, b: Denoiser, share: float | Float[Tensor, " b"]) -> Denoiser:
    """(1 - share) a + share b: from one belief to another, such as from label to label. One share, or one for
    each image.

    Raises ValueError for a share outside [0, 1], and for shares of another number than the images.
    """
    share = torch.as_tensor(share, dtype=torch.float64)
    if share.numel() == 0 or not ((share >= 0) & (share <= 1)).all():
        raise ValueError(f"the share of the second denoiser goes from 0 to 1, got {share.tolist()}")
    if (share == share.reshape(-1)[0]).all() and share.reshape(-1)[0] in (0, 1):
        return b if share.reshape(-1)[0] else a

    def blended(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        if share.numel() not in (1, len(x_t)):
            raise ValueError(f"one share, or one an image: got {share.numel()} for {len(x_t)} images")
        return torch.lerp(a(x_t, t), b(x_t, t), share.to(x_t).reshape(-1, 1, 1, 1))

    return blended


def dynamic_threshold(denoiser: Denoiser, share: float = 0.995) -> Denoiser:
    """x_0_hat held in [-m, m] and divided by m, where m >= 1 holds this share of the image's pixels: what
    strong guidance drives out of range comes back without all of it ending at the range's ends (Saharia et
    al. 2022, "Imagen", section 2.3). Made for photographs: digits lie on a ground of exactly -1, which
    dividing by m turns grey, and are better clipped.

    Raises ValueError for a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(f"the share of pixels to keep as they are lies in (0, 1], got {share}")

    def held(x_t: Images, t: Int[Tensor, " b"]) -> Images:
        x_0_hat = denoiser(x_t, t)
        sizes = x_0_hat.abs().flatten(1)
        sizes = sizes.float() if sizes.element_size() < 4 else sizes  # quantile takes no half precision
        m = sizes.quantile(share, dim=1).clamp(min=1).to(x_0_hat).reshape(-1, 1, 1, 1)
        return torch.minimum(torch.maximum(x_0_hat, -m), m) / m

    return held
