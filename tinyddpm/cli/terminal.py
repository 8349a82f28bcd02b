"""Pictures as text, for a terminal."""

import os
import sys
from itertools import groupby

import torch
from einops import rearrange
from jaxtyping import UInt8

from ..viz import Picture

TRUE_COLOUR = 2**24


def blocks(picture: Picture, colours: int = TRUE_COLOUR) -> str:
    """A picture (1 or 3, h, w) as text of half blocks, w characters a line: each shows two pixels, the upper
    one in its colour and the lower one in the colour behind it. An odd height is filled up with black.

    colours    2**24 as they are, 256 the nearest of those that most terminals have, or 2: no colours at
               all, but blocks where the pixels are brighter than half

    Raises ValueError for another number of colours.
    """
    if colours not in (2, 256, TRUE_COLOUR):
        raise ValueError(f"a terminal has 2, 256 or {TRUE_COLOUR} colours, got {colours}")
    c, h, w = picture.shape
    pixels = torch.cat([picture, picture.new_zeros(c, h % 2, w)], 1)
    pixels = rearrange(pixels.expand(3, -1, -1), "c h w -> h w c")
    if colours == 2:
        bright = (pixels.float().mean(2) > 127.5).int()
        lines = (bright[::2] + 2 * bright[1::2]).tolist()
        return "\n".join("".join(" ▀▄█"[i] for i in line) for line in lines)
    names = colour_names(pixels, colours)
    return "\n".join(half_blocks(upper, lower) for upper, lower in zip(names[::2], names[1::2]))


def half_blocks(upper: list[str], lower: list[str]) -> str:
    """One line of text for two of pixels, given their colours. One is named where it changes, not a pixel."""
    line = ""
    for (above, below), same in groupby(zip(upper, lower)):
        line += f"\x1b[38;{above};48;{below}m" + "▀" * len(list(same))
    return line + "\x1b[0m"


def colour_names(pixels: UInt8[Tensor, "h w 3"], colours: int) -> list[list[str]]:
    """What a terminal calls the colour of each pixel, behind its 38 or 48."""
    if colours == TRUE_COLOUR:
        return [[f"2;{r};{g};{b}" for r, g, b in line] for line in pixels.tolist()]
    levels = torch.tensor([0, 95, 135, 175, 215, 255])
    greys = torch.arange(8, 248, 10)[:, None].expand(-1, 3)
    palette = torch.cat([torch.cartesian_prod(levels, levels, levels), greys])  # colours 16 to 255
    nearest = torch.cdist(pixels.reshape(-1, 3).float(), palette.float(), p=1).argmin(1)
    return [[f"5;{16 + i}" for i in line] for line in nearest.reshape(pixels.shape[:2]).tolist()]


def terminal_colours() -> int:
    """How many colours stdout shows: 2, none, where it is no terminal, TERM is dumb or NO_COLOR is set."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR"):
        return 2
    return TRUE_COLOUR if os.environ.get("COLORTERM") in ("truecolor", "24bit") else 256
