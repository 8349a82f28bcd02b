"""Many digits side by side, drawn in one reverse process: windows that overlap and agree."""

from collections.abc import Iterator, Sequence

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Generator, Tensor

from ..diffusion import Denoiser, Images
from ..pipeline import DDPM, load_pretrained
from ..samplers import Step, ddim, last

LONGEST = 64  # characters in a strip
STRIDE = 22  # columns from a digit to the next: digits are at most 20 wide


def windowed(denoiser: Denoiser, places: Sequence[int], width: int) -> Denoiser:
    """The denoiser of a strip (b, c, h, w), from one of windows (b n, c, h, width) that begin at the columns
    in places (n): each pixel is the mean of what the windows over it believe (Bar-Tal et al. 2023,
    "MultiDiffusion", eq. 5; a step that asks once is linear in x_0_hat, so that their mean of steps is the
    step of the mean).
    Where there is no window the strip is blank, -1.

    Raises ValueError for no windows, and for windows that do not lie in the strip.
    """
    if not places:
        raise ValueError("a strip needs at least one window")

    def whole(x_t: Images, t: Tensor) -> Images:
        if min(places) < 0 or max(places) + width > x_t.shape[-1]:
            raise ValueError(
                f"windows of {width} columns at {min(places)}..{max(places)} do not lie in a strip of {x_t.shape[-1]}"
            )
        windows = torch.stack([x_t[..., left : left + width] for left in places], 1)  # (b, n, c, h, width)
        seen = denoiser(windows.flatten(0, 1), t.repeat_interleave(len(places))).reshape(windows.shape)
        total, count = torch.zeros_like(x_t), x_t.new_zeros(x_t.shape[-1])
        for k, left in enumerate(places):
            total[..., left : left + width] += seen[:, k]
            count[left : left + width] += 1
        return torch.where(count > 0, total / count.clamp(min=1), -1)

    return whole


def write(
    text: str, ddpm: DDPM | None = None, steps: int = 50, scale: float = 2.0, seed: int = 0, variety: float = 0.2
) -> Float[Tensor, "1 c h w"]:
    """Digits and blanks as one strip (1, c, h, w) in [-1, 1], in one hand: see write_steps."""
    return last(write_steps(text, ddpm, steps, scale, seed, variety)).x_t


def write_steps(
    text: str, ddpm: DDPM | None = None, steps: int = 50, scale: float = 2.0, seed: int = 0, variety: float = 0.2
) -> Iterator[Step]:
    """The same as a generator of every Step on the way.

    text     digits and blanks, at most 64
    ddpm     what draws them; the shipped weights if not given
    variety  the share of noise, in variance, that each digit has to itself. The rest is the same under all of
             them, which makes them one hand's: 0 writes every 2 alike, 1 each digit in a hand of its own.

    Raises ValueError for a text of no digits, for other characters, one that is too long, a variety outside
    [0, 1], and weights that have no labels 0 to 9.
    """
    check_text(text)
    if not 0 <= variety <= 1:
        raise ValueError(f"variety goes from 0 (one hand) to 1 (a hand for each digit), got {variety}")
    ddpm = load_pretrained() if ddpm is None else ddpm
    y = ddpm.check_labels([int(character) for character in text if character != " "])
    places = [STRIDE * k for k, character in enumerate(text) if character != " "]
    c, h, width = ddpm.image_shape
    generator = Generator().manual_seed(seed)
    columns = STRIDE * (len(text) - 1) + width
    own = torch.randn(1, c, h, columns, generator=generator)
    hand = torch.randn(1, c, h, STRIDE, generator=generator)[..., torch.arange(columns) % STRIDE]
    x_T = (variety**0.5 * own + (1 - variety) ** 0.5 * hand).to(ddpm.device)
    denoiser = windowed(ddpm.denoiser(y, scale), places, width)
    return ddim(denoiser, x_T, ddpm.schedule, ddpm.schedule.grid(steps))


def windows_of(strip: Float[Tensor, "1 c h w"], text: str, width: int) -> Float[Tensor, "n c h width"]:
    """Each digit of a strip that write made, as the window it was drawn in. Raises ValueError for another
    text than the strip has."""
    if strip.shape[-1] != STRIDE * (len(text) - 1) + width:
        raise ValueError(f"{text!r} is no strip of {strip.shape[-1]} columns: give the text that it was made of")
    places = [STRIDE * k for k, character in enumerate(text) if character != " "]
    return rearrange([strip[..., left : left + width] for left in places], "n 1 c h w -> n c h w")


def check_text(text: str) -> None:
    if not text.strip(" "):
        raise ValueError("there is nothing to write: give digits, with blanks between them if you like")
    if bad := sorted(set(text) - set("0123456789 ")):
        raise ValueError(f"only digits 0 to 9 and blanks can be written, got {' '.join(map(repr, bad))}")
    if len(text) > LONGEST:
        raise ValueError(f"a strip holds at most {LONGEST} characters, got {len(text)}: write it in parts")
