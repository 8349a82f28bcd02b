"""One style for every figure of the course."""

import base64
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import display

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


def play(path: str | Path) -> None:
    """A GIF. It is handed on as a PNG, since pages made from notebooks leave out outputs of type GIF; a
    browser looks at the bytes."""
    content = base64.b64encode(Path(path).read_bytes()).decode()
    display({"image/png": content, "text/plain": f"<{Path(path).name}>"}, raw=True)
