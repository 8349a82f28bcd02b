"""The network as a classifier: the label under which it denoises an image best (Li et al. 2023, "Your diffusion model
is secretly a zero-shot classifier", eq. 5; Clark & Jaini 2023, "Text-to-image diffusion models are zero-shot
classifiers"; Chen et al. 2024, "Robust classification via a single diffusion model").

With the exact denoiser of each label, log p(x | y) = constant - 1/2 integral over SNR of E |x - x_0_hat(x_t, t, y)|^2
(Kingma et al. 2021, eq. 13). `classify` estimates that integral with few calls of the network: all labels see the same
noise, so that their differences are known long before the sums are, and labels that fall behind are dropped.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ..diffusion import Images, make_denoiser, q_sample
from ..pipeline import DDPM
from ..schedules import Schedule, Table, require

LOG_SNRS = (-4.3, -3.3, -2.6, -2.0, -1.5, -1.0, -0.4)  # where the labels of training digits differ
SHARPNESS = 0.3  # fitted to 480 of them, distorted; the bound has 0.33, half the mean distance of LOG_SNRS


@torch.no_grad()
def classify(
    ddpm: DDPM,
    x: Images,
    times: Sequence[int] | None = None,
    weights: Table | None = None,
    rounds: int = 12,
    margin: float = 8.0,
    generator: Generator | None = None,
    batch_size: int = 240,
) -> Float[Tensor, "n classes"]:
    """The probability of each label, (n, num_classes) in float64: the softmax over labels of minus the sum over `times`
    of weights[t] |x - x_0_hat(x_t, t, y)|^2, averaged over rounds.

    times    by default those of LOG_SNRS
    weights  one for each t in 0..T; by default SHARPNESS SNR_t. The bound has half of what the SNR gains at t
    rounds   at most; an image with one label left is done. Odd rounds draw noise, even rounds take the negative of it
    margin   after r rounds, labels behind by more than margin / sqrt(r) in log-probability are dropped; inf: none are

    All labels and all images see the same noise (of seed 0 by default), so that a verdict does not depend on the other
    images. Raises ValueError for a network without labels, images of another shape or range or with NaN, times outside
    1..T, weights that are not finite or not one for each t, rounds below 1, and a margin below 0.
    """
    schedule, k = ddpm.schedule, check_images(ddpm, x)
    times = times_at(schedule, LOG_SNRS) if times is None else list(times)
    weights = SHARPNESS * schedule.log_snr.exp() if weights is None else weights
    check_plan(schedule.T, times, weights, rounds, margin)
    generator = Generator().manual_seed(0) if generator is None else generator
    cost, behind = torch.zeros(2, len(x), k, dtype=torch.float64)  # cost is summed over rounds
    asked, noises = torch.ones(len(x), k, dtype=torch.bool), [torch.empty(0)] * len(times)
    for r in range(1, rounds + 1):
        if not asked.any():
            break
        noises = [torch.randn(x.shape[1:], generator=generator) for _ in times] if r % 2 else [-eps for eps in noises]
        for t, eps in zip(times, noises):
            cost[asked] += float(weights[t]) * label_errors(ddpm, x, asked.nonzero(), t, eps, batch_size)
        behind, asked = drop(cost, behind, asked, r, margin)
    return (-behind).softmax(1)


def drop(cost: Tensor, behind: Tensor, asked: Tensor, r: int, margin: float) -> tuple[Tensor, Tensor]:
    """How far each label is behind the best after r rounds (a dropped one as it was), and which are still asked."""
    mean = (cost / r).where(asked, torch.inf)
    gap = mean - mean.amin(1, keepdim=True)
    near = asked & (gap <= margin / r**0.5)
    return gap.where(asked, behind), near & (near.sum(1, keepdim=True) > 1)


def label_errors(
    ddpm: DDPM, x: Images, pairs: Int[Tensor, "m 2"], t: int, eps: Tensor, batch_size: int = 240
) -> Float[Tensor, " m"]:
    """|x - x_0_hat(x_t, t, y)|^2, float64 on the CPU, for pairs (index of the image, y): labels 0..num_classes-1, and
    num_classes for none. All share the noise eps (c, h, w)."""
    found = []
    for part in pairs.split(batch_size):
        x_0, time = x[part[:, 0].to(x.device)].to(ddpm.device), torch.full((len(part),), t, device=ddpm.device)
        x_t = q_sample(x_0, time, eps.to(x_0).expand_as(x_0), ddpm.schedule)
        denoiser = make_denoiser(ddpm.model.eval(), ddpm.schedule, ddpm.predicts, part[:, 1].to(ddpm.device))
        x_0_hat = denoiser(x_t, time).to(x_0.dtype).clamp(-1, 1)
        found.append((x_0 - x_0_hat).square().flatten(1).sum(1).double().cpu())
    errors = torch.cat(found)
    require(bool(errors.isfinite().all()), "a classifier needs a network that returns numbers", f"NaN at t = {t}")
    return errors


def times_at(schedule: Schedule, log_snrs: Sequence[float]) -> list[int]:
    """The time in 1..T whose log-SNR is nearest to each."""
    return [int((schedule.log_snr[1:] - value).abs().argmin()) + 1 for value in log_snrs]


def check_images(ddpm: DDPM, x: Tensor) -> int:
    """The number of labels. Raises ValueError for a network without labels, and for images that are not its own."""
    require(ddpm.num_classes is not None, "a classifier needs a network with labels", "one with num_classes None")
    fits = isinstance(x, Tensor) and x.dtype == torch.float32 and len(x) > 0 and x.shape[1:] == ddpm.image_shape
    found = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x)
    require(fits, f"the network's images are float32 (n, {', '.join(map(str, ddpm.image_shape))})", found)
    low, high = map(float, x.aminmax())  # NaN if there is one
    wanted = "images must be finite and in [-1, 1], and some pixel below 0 (data.from_uint8 maps [0, 255] there)"
    require(-1.001 <= low < 0 and high <= 1.001, wanted, f"[{low:.3g}, {high:.3g}]")
    return ddpm.num_classes or 0


def check_plan(T: int, times: Sequence[int], weights: Table, rounds: int, margin: float) -> None:
    require(bool(times) and all(t in range(1, T + 1) for t in times), f"times must be in 1..{T}, at least one", times)
    fits = isinstance(weights, Tensor) and weights.shape == (T + 1,) and bool(weights[times].isfinite().all())
    require(fits, f"expected a table of finite weights, one for each t in 0..{T}", weights)
    require(isinstance(rounds, int) and rounds >= 1, "rounds must be an integer of at least 1", rounds)
    require(margin >= 0, "margin must be at least 0", margin)
