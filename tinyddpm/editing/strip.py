"""Strips: many digits side by side, drawn in one reverse process by windows that overlap and agree."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion import Denoiser, Images
from ..pipeline import DDPM, load_pretrained, seeded
from ..samplers import Step, ddim, last
from ..schedules import require

LONGEST = 64  # characters in a strip
STRIDE = 22  # columns from one digit to the next: digits are at most 20 wide


def windowed(denoiser: Denoiser, places: Sequence[int], width: int) -> Denoiser:
    """The denoiser of a strip (b, c, h, w), from one of n windows (b n, c, h, width) that start at the columns in
    places: each pixel is the mean over the windows that cover it, -1 where none does.

    This is MultiDiffusion (Bar-Tal et al. 2023, eq. 5) where a step calls the denoiser once, and so is linear in
    x_0_hat. Raises ValueError when called for windows outside the strip, and for none.
    """

    def strip_denoiser(x_t: Images, t: Tensor) -> Images:
        if not places or min(places) < 0 or max(places) + width > x_t.shape[-1]:
            found = f"{width} columns at {list(places)}"
            raise ValueError(f"a strip of {x_t.shape[-1]} columns needs windows inside it, got {found}")
        windows = torch.stack([x_t[..., left : left + width] for left in places], 1)  # (b, n, c, h, width)
        x_0_hat = denoiser(windows.flatten(0, 1), t.repeat_interleave(len(places))).reshape(windows.shape)
        total, count = torch.zeros_like(x_t), x_t.new_zeros(x_t.shape[-1])
        for k, left in enumerate(places):
            total[..., left : left + width] += x_0_hat[:, k]
            count[left : left + width] += 1
        return torch.where(count > 0, total / count.clamp(min=1), -1)

    return strip_denoiser


def write(*args, **options) -> Float[Tensor, "1 c h w"]:
    """The finished strip of write_steps, which takes the same arguments: (1, c, h, w) in [-1, 1]."""
    return last(write_steps(*args, **options)).x_t


def write_steps(
    text: str, ddpm: DDPM | None = None, steps: int = 50, scale: float = 2.0, seed: int = 0, variety: float = 0.2
) -> Iterator[Step]:
    """The sampling trajectory of a strip of digits in one handwriting.

    text     digits and blanks, at most 64
    ddpm     the shipped weights by default
    variety  the share of the noise's variance that is each digit's own: at 0 every 2 is the same, at 1 none is

    Raises ValueError for another text, a variety outside [0, 1], and labels that the weights do not have.
    """
    wanted = f"expected up to {LONGEST} digits and blanks with at least one digit"
    require(bool(text.strip(" ")) and set(text) <= set("0123456789 ") and len(text) <= LONGEST, wanted, repr(text))
    require(0 <= variety <= 1, "expected a variety in [0, 1]", variety)
    ddpm = load_pretrained() if ddpm is None else ddpm
    y = ddpm.check_labels([int(character) for character in text if character != " "])
    c, h, width = ddpm.image_shape
    generator = seeded(seed, 1)[0]
    columns = STRIDE * (len(text) - 1) + width
    own = torch.randn(1, c, h, columns, generator=generator)
    shared = torch.randn(1, c, h, STRIDE, generator=generator)[..., torch.arange(columns) % STRIDE]
    x_T = (variety**0.5 * own + (1 - variety) ** 0.5 * shared).to(ddpm.device)
    places = [STRIDE * k for k, character in enumerate(text) if character != " "]
    denoiser = windowed(ddpm.denoiser(y, scale), places, width)
    return ddim(denoiser, x_T, ddpm.schedule, ddpm.schedule.grid(steps))
