"""One style for every figure of the course."""

import base64
import io
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from IPython.display import display

from tinyddpm.data import crop_to

plt.rcParams.update(
    {
        "figure.figsize": (8, 2.6),
        "figure.dpi": 90,
        "figure.constrained_layout.use": True,
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "image.cmap": "gray",
        "image.interpolation": "nearest",
        "animation.html": "none",
    }
)


def show(picture, title: str = "", width: float = 8.0) -> None:
    """A uint8 picture (c, h, w), as tinyddpm.viz makes them, `width` inches wide."""
    c, h, w = picture.shape
    figure, axes = plt.subplots(figsize=(width, max(0.4, width * h / w) + (0.3 if title else 0)))
    axes.imshow(picture[0] if c == 1 else picture.permute(1, 2, 0), vmin=0, vmax=255)
    axes.set_title(title)
    axes.axis("off")
    plt.show()


BLUE, ORANGE, GREEN, GREY = "#56b4e9", "#e69f00", "#2fbf8f", "#b8bec6"  # Okabe and Ito's, lighter on a dark ground
GROUND = 0x1C / 255  # the grey between tiles


def tiles(rows: dict, enlarge: int = 3) -> None:
    """Rows of digits (n, 1, h, w) in [-1, 1], without MNIST's empty border, each row under its label, with gaps between
    the tiles; all rows as wide as the widest. A label may be (text, colour)."""
    content = picture_of(rows, enlarge)
    display({"image/png": base64.b64encode(content).decode(), "text/plain": f"<{len(rows)} rows>"}, raw=True)


def picture_of(rows: dict, enlarge: int) -> bytes:
    """A PNG of labelled rows, one pixel of the figure for each pixel of it."""
    gap, head, margin = 2 * enlarge, 13 * enlarge, 4 * enlarge
    rows = {label: crop_to(x, x.shape[-1] * 7 // 8) for label, x in rows.items()}  # 32 to 28, 16 to 14
    bands, labels = [], []
    widest = max(len(x) * (x.shape[-1] * enlarge + gap) for x in rows.values())
    for label, x in rows.items():
        factor = (widest // len(x) - gap) // x.shape[-1]  # images of half the side are enlarged twice as much
        big = (x.detach().float().clamp(-1, 1) + 1).div(2).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        row = torch.cat([F.pad(tile[0], (0, gap), value=GROUND) for tile in big], 1)
        labels.append((label, head + sum(map(len, bands))))
        bands.append(F.pad(row, (0, widest - row.shape[1], head, gap), value=GROUND))
    canvas = F.pad(torch.cat(bands), (margin, margin - gap, 0, margin - gap), value=GROUND)
    h, w = canvas.shape
    figure = plt.figure(figsize=(w / 150, h / 150), dpi=150, layout="none")
    figure.figimage(canvas.numpy(), cmap="gray", vmin=0, vmax=1)
    for label, below in labels:
        text, colour = label if isinstance(label, tuple) else (label, GREY)
        place = {"va": "bottom", "color": colour, "fontsize": 8.5 * enlarge * 72 / 150}
        figure.text(margin / w, 1 - (below - 2 * enlarge) / h, text, **place)
    file = io.BytesIO()
    figure.savefig(file, dpi=150, format="png", bbox_inches=None)
    plt.close(figure)
    return smaller(file.getvalue())


def smaller(png: bytes) -> bytes:
    """The same picture in a palette of 128 colours, where that takes fewer bytes."""
    from PIL import Image

    file = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return min(png, file.getvalue(), key=len)


def play(path: str | Path) -> None:
    """A GIF. It is handed on as a PNG, since pages made from notebooks leave out outputs of type GIF; a
    browser looks at the bytes."""
    content = base64.b64encode(Path(path).read_bytes()).decode()
    display({"image/png": content, "text/plain": f"<{Path(path).name}>"}, raw=True)
