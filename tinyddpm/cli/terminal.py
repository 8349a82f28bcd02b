"""Pictures as text, for a terminal."""

import os
import shutil
import sys
from itertools import groupby

import torch
from einops import rearrange
from torch import Tensor
from torch.nn.functional import interpolate

from ..data import from_uint8
from ..viz import Picture, as_array, image_grid

TRUE_COLOUR = 2**24
NOTEBOOK_WIDTH = 640  # pixels, at most, to which show enlarges


def show(x: Tensor, columns: int = 10) -> None:
    """Shows images (b, c, h, w) or one (c, h, w), in [-1, 1] or uint8: enlarged in a notebook, as block characters in a
    terminal. Elsewhere it says how to save them. Raises ValueError as image_grid does, and for a narrow terminal."""
    x = torch.as_tensor(x)
    x = x[None] if x.ndim == 3 else x
    x = from_uint8(x) if x.dtype == torch.uint8 else x
    picture = image_grid(x, columns)
    ipython = sys.modules.get("IPython")
    if hasattr(ipython and ipython.get_ipython(), "kernel"):  # of Jupyter
        import imageio.v3 as iio
        from IPython.display import Image, display

        picture = image_grid(x, columns, max(1, min(8, NOTEBOOK_WIDTH // picture.shape[2])))
        display(Image(iio.imwrite("<bytes>", as_array(picture), extension=".png")))
    elif sys.stdout.isatty():
        print(blocks(image_grid(x, min(columns, images_in_a_row(x.shape[3]))), terminal_colours()))
    else:
        print("no notebook or terminal shows images here: save_picture(image_grid(x), 'x.png') writes a file")


def blocks(picture: Picture, colours: int = TRUE_COLOUR) -> str:
    """A picture (1 or 3, h, w) as text, w characters a line: each is an upper half block, with the colour of one pixel
    on the colour of the pixel below. A black row is added to an odd height. colours: 2**24; 256, xterm's greys and
    colour cube; or 2, blocks without colours where pixels are brighter than half."""
    c, h, w = picture.shape
    pixels = torch.cat([picture, picture.new_zeros(c, h % 2, w)], 1)
    if colours == 2:
        bright = (pixels.float().mean(0) > 127.5).int()
        return "\n".join("".join(" ▀▄█"[i] for i in line) for line in (bright[::2] + 2 * bright[1::2]).tolist())
    rows = rearrange(pixels.expand(3, -1, -1), "c h w -> h w c").tolist()
    codes = [["2;{};{};{}".format(*p) if colours > 256 else xterm_colour(*p) for p in row] for row in rows]
    lines = []
    for pair in zip(codes[::2], codes[1::2]):
        runs = [(code, len(list(run))) for code, run in groupby(zip(*pair))]  # a colour is named where it changes
        lines.append("".join(f"\x1b[38;{upper};48;{lower}m" + "▀" * n for (upper, lower), n in runs) + "\x1b[0m")
    return "\n".join(lines)


def as_number(x: Tensor) -> Picture:
    """Images (b, c, h, w) side by side as the digits of a number: made smaller, down to half their side, where they are
    too many for one line of the terminal, and in lines of equally many where that does not do."""
    most = images_in_a_row(-(-x.shape[3] // 2))  # at half their side
    in_a_line = -(-len(x) // -(-len(x) // most))
    side = min(x.shape[3], images_in_a_row(1) // in_a_line)
    return image_grid(interpolate(x, side, mode="bilinear", antialias=True), in_a_line)


def xterm_colour(r: int, g: int, b: int) -> str:
    """The nearest of 24 greys, black and white to a grey; of the 6x6x6 cube to another colour."""
    if r == g == b and 4 <= r <= 246:
        return f"5;{232 + min(23, round((r - 8) / 10))}"
    r, g, b = (0 if value < 48 else max(1, (value - 35) // 40) for value in (r, g, b))  # levels 0, 95, 135, ..., 255
    return f"5;{16 + 36 * r + 6 * g + b}"


def terminal_colours() -> int:
    """How many colours stdout shows: 2 if it is no terminal, TERM is dumb or NO_COLOR is set."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR"):
        return 2
    return TRUE_COLOUR if os.environ.get("COLORTERM") in ("truecolor", "24bit") else 256


def images_in_a_row(width: int) -> int:
    """How many images of that width fit the terminal. Raises ValueError if none does, and for an encoding without block
    characters."""
    columns = shutil.get_terminal_size().columns or 80  # some pseudo-terminals say 0
    if columns < width:
        raise ValueError(f"an image is {width} characters wide, but this terminal {columns}: make it wider")
    try:
        "▀▄█".encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{error.encoding} text has no block characters: set PYTHONIOENCODING=utf-8") from error
    return columns // width
