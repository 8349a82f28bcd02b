"""Pictures that one network can make without being trained for them: digits that turn into each other,
halves completed, a hand that writes all digits. Each is a function from images to images.
"""

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from ..diffusion import Denoiser, Images
from ..extensions.gradient_guidance import blend
from ..guidance import Scale
from ..pipeline import DDPM
from ..samplers import ddim, last, noise_like, p_sample_loop
from .inpainting import inpaint, resampling_grid
from .inversion import slerp, transfer

HALVES = ("left", "right", "top", "bottom", "middle")


def between(ddpm: DDPM, y_from: Tensor, y_to: Tensor, share: Float[Tensor, " b"], scale: Scale) -> Denoiser:
    """The denoiser of images that are partly one label, partly another: share 0 the first, 1 the second.

    Raises ValueError for labels of two lengths.
    """
    y_from, y_to = same_length(ddpm, y_from, y_to)
    return blend(ddpm.denoiser(y_from, scale), ddpm.denoiser(y_to, scale), share)


def same_length(ddpm: DDPM, y_from: Tensor, y_to: Tensor) -> tuple[Tensor, Tensor]:
    y_from, y_to = ddpm.check_labels(y_from), ddpm.check_labels(y_to)
    if y_from.shape != y_to.shape:
        raise ValueError(
            f"one label at either end of each way, got {len(y_from)} and {len(y_to)}: repeat the shorter ones"
        )
    return y_from, y_to


def morph(
    ddpm: DDPM,
    y: Int[Tensor, " k"],
    frames: int = 12,
    steps: int = 20,
    scale: float = 2.0,
    seed: int = 0,
    wander: bool = False,
) -> Images:
    """Each label turning into the next, and the last one into the first: (k frames, c, h, w).

    All begin from one noise, and so are of one hand; with wander from a noise of each label's own, and from
    those on the great circle between two. Raises ValueError for fewer than two labels, or one frame.
    """
    y = ddpm.check_labels(y)
    if len(y) < 2 or frames < 1:
        raise ValueError(f"a way has two ends and at least 1 frame, got {len(y)} labels and {frames} frames")
    share = (torch.arange(frames) / frames).repeat(len(y))
    first = torch.arange(len(y)).repeat_interleave(frames)
    second = (first + 1) % len(y)
    noise = normal(ddpm, [seed + k * wander for k in range(len(y))])
    x_T = slerp(noise[first], noise[second], share)
    denoiser = between(ddpm, y[first], y[second], share, scale)
    return last(ddim(denoiser, x_T, ddpm.schedule, ddpm.schedule.grid(steps))).x_t


def complete(
    ddpm: DDPM,
    x_0: Images,
    mask: Float[Tensor, "h w"],
    each: int = 8,
    y: Int[Tensor, " b"] | None = None,
    steps: int = 50,
    times: int = 5,
    scale: float = 1.0,
    seed: int = 0,
) -> Images:
    """`each` ways to fill in every image where the mask is 0: (b each, c, h, w). Without labels the network
    decides which digit it is from what it sees. `times`: see `resampling_grid`; 1 is fast and fits less well.

    Raises ValueError for less than one way, and for labels that are not one an image.
    """
    if each < 1:
        raise ValueError(f"each image is completed in at least 1 way, got {each}")
    known = x_0.repeat_interleave(each, 0).to(ddpm.device)
    labels = None if y is None else labels_of(ddpm, y, x_0).repeat_interleave(each)
    seeds = range(seed, seed + len(known))
    denoiser = inpaint(ddpm.denoiser(labels, scale), known, mask.to(ddpm.device))
    grid = resampling_grid(ddpm.schedule.grid(steps), max(1, steps // 10), times)
    generators = [Generator().manual_seed(s) for s in seeds]
    x_T = noise_like(known, generators)
    return last(p_sample_loop(denoiser, x_T, ddpm.schedule, grid, generator=generators)).x_t


def all_but(half: str, height: int, width: int) -> Float[Tensor, "h w"]:
    """A mask for inpaint: 0 in one half of the image, or in the middle of it, 1 elsewhere. Raises ValueError
    for another half."""
    if half not in HALVES:
        raise ValueError(f"what is hidden is one of {', '.join(HALVES)}, got {half!r}")
    mask = torch.ones(height, width)
    rows = {"top": (0, height // 2), "bottom": (height // 2, height), "middle": (height // 3, -(height // 3))}
    columns = {"left": (0, width // 2), "right": (width // 2, width), "middle": (width // 3, -(width // 3))}
    mask[slice(*rows.get(half, (0, height))), slice(*columns.get(half, (0, width)))] = 0
    return mask


def handwriting(
    ddpm: DDPM,
    x_0: Images,
    y: Int[Tensor, " b"],
    y_new: Int[Tensor, " b"],
    steps: int = 20,
    scale: float = 2.5,
    from_scale: float = 1.5,
) -> Images:
    """Each image x_0 of label y written again as y_new, in the same hand: inverted under its own label, with
    guidance from_scale, it leaves slant and stroke width in its noise (edit.transfer).

    Raises ValueError for labels of two lengths, and for labels that are not one an image.
    """
    y, y_new = same_length(ddpm, labels_of(ddpm, y, x_0), y_new)
    beliefs = ddpm.denoiser(y, from_scale), ddpm.denoiser(y_new, scale)
    way = transfer(*beliefs, x_0.to(ddpm.device), ddpm.schedule, ddpm.schedule.grid(steps))
    return last(way).x_t


def labels_of(ddpm: DDPM, y: Tensor, x: Images) -> Tensor:
    if len(y := ddpm.check_labels(y)) != len(x):
        raise ValueError(f"one label an image: got {len(y)} labels for {len(x)} images")
    return y


def normal(ddpm: DDPM, seeds: list[int]) -> Images:
    """Noise in the shape of the model's images, one seed each."""
    x = torch.empty(len(seeds), *ddpm.image_shape, device=ddpm.device)
    return noise_like(x, [Generator().manual_seed(seed) for seed in seeds])
