"""One style for every figure of the course: 150 dpi, Okabe and Ito's colours with a line style each, a text for those
who do not see the figure, and digits enlarged by whole factors."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from cycler import cycler
from IPython.display import display

from tinyddpm.data import crop_to

DPI = 150
# One colour, one meaning, through the whole course.
SIGNAL, NOISE = "#0072B2", "#D55E00"  # the data and the clean image; noise
EXACT, BLINKERED, NETWORK = "#E69F00", "#56B4E9", "#009E73"  # who denoises
STEERED, REST, TEXT = "#CC79A7", "#777777", "#000000"  # guided or edited; all else
BLUE, ORANGE, GREEN, GREY = BLINKERED, EXACT, "#2fbf8f", "#b8bec6"  # on the dark ground between tiles
GROUND = 0x1C / 255  # the grey between tiles

plt.rcParams.update(
    {
        "figure.figsize": (7, 2.4),
        "figure.dpi": DPI,
        "figure.constrained_layout.use": True,
        "font.size": 8.5,
        "axes.titlesize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.prop_cycle": cycler(
            color=[SIGNAL, NOISE, NETWORK, STEERED, EXACT, TEXT],
            linestyle=["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1))],
        ),
        "grid.alpha": 0.25,
        "legend.frameon": False,
        "image.cmap": "gray",
        "image.interpolation": "nearest",
        "animation.html": "none",
    }
)


def show_figure(alt: str) -> None:
    """Displays the current figure and closes it. `alt` says what it shows to a reader who does not see it."""
    figure, file = plt.gcf(), io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png")
    w, h = figure.get_size_inches()
    name = f"<Figure {w:g} x {h:g} inches with {len(figure.axes)} axes>"
    plt.close(figure)
    publish(file.getvalue(), name, alt, width=round(96 * w))


def label_lines(axes, gap: float = 0.09) -> None:
    """Writes the label of each line at its right end in its colour, at least `gap` of the axes' height apart. Takes the
    place of a legend: colours need not be compared."""
    axes.get_xlim(), axes.get_ylim()  # scales the axes to their lines, on which the next line relies
    lines = [line for line in axes.get_lines() if not line.get_label().startswith("_")]
    to_axes = axes.transData + axes.transAxes.inverted()
    ends = [float(to_axes.transform((line.get_xdata()[-1], line.get_ydata()[-1]))[1]) for line in lines]
    height = -1.0
    for end, line in sorted(zip(ends, lines), key=lambda pair: pair[0]):
        height = max(min(max(end, 0.0), 1.0), height + gap)  # a line that leaves the axes is labelled at their border
        place = {"xycoords": "axes fraction", "va": "center", "color": line.get_color(), "annotation_clip": False}
        axes.annotate(" " + line.get_label(), (1.01, height), **place)


def clock(t: int, schedule) -> str:
    """What stands above a picture at time t: the time, and how noisy it is."""
    log_snr = float(schedule.log_snr[t])
    rounded = round(log_snr, 0 if abs(log_snr) >= 9.95 else 1) + 0.0  # no -0.0
    return f"t = {t}\nlog-SNR {rounded:g}" if t else "clean"


def show(picture, title: str = "", width: float = 8.0, alt: str = "") -> None:
    """A uint8 picture (c, h, w), as tinyddpm.viz makes them, enlarged by the whole factor nearest to `width` inches."""
    factor = max(1, round(width * DPI / picture.shape[-1]))
    big = picture.repeat_interleave(factor, 1).repeat_interleave(factor, 2).permute(1, 2, 0)
    h, w, _ = big.shape
    head = round(0.3 * DPI) if title else 0
    figure = plt.figure(figsize=(w / DPI, (h + head) / DPI), layout="none")
    figure.figimage((big[..., 0] if big.shape[2] == 1 else big).numpy(), cmap="gray", vmin=0, vmax=255)
    figure.text(0.5, 1 - head / 2 / (h + head), title, ha="center", va="center", fontsize=9)
    show_figure(alt or title)


def tiles(rows: dict, enlarge: int = 3, columns: Sequence[str] = (), alt: str = "") -> None:
    """Rows of digits (n, 1, h, w) in [-1, 1], without MNIST's empty border, each row under its label, with gaps between
    the tiles; all rows as wide as the widest. A label may be (text, colour). `columns` stand above the first row."""
    content = picture_of(rows, enlarge, columns)
    names = ", ".join(label if isinstance(label, str) else label[0] for label in rows)
    publish(content, f"<{len(rows)} rows of digits>", alt or f"Rows of digits: {names}")


def play(film, schedule=None, alt: str = "", enlarge: int = 3) -> None:
    """A GIF, given by its path; or the Steps of a sampler, with a slider through them where ipywidgets is there, and
    as a labelled strip elsewhere and in stored notebooks."""
    if isinstance(film, (str, Path)):
        # handed on as a PNG, since pages made from notebooks leave out outputs of type GIF; browsers look at the bytes
        return publish(Path(film).read_bytes(), f"<{Path(film).name}>", alt or f"Animation: {Path(film).stem}")
    steps = list(film)
    chosen = [steps[round(k)] for k in torch.linspace(0, len(steps) - 1, min(8, len(steps))).tolist()]
    rows = {"x_t": torch.stack([step.x_t[0] for step in chosen])}
    rows["x_0_hat"] = torch.stack([step.x_0_hat[0] for step in chosen])
    columns = [clock(step.t, schedule) if schedule else f"t = {step.t}" for step in chosen]
    content = picture_of(rows, enlarge, columns)
    alt = alt or "One image on the way from noise to a digit, and the denoiser's answer at each time"
    publish(content, f"<{len(steps)} steps>", alt, more=slider(steps, schedule, enlarge))


def slider(steps: list, schedule, enlarge: int) -> dict:
    """What a notebook with ipywidgets shows of a film: a slider, and the images of that step below it."""
    try:
        import ipywidgets
    except ImportError:
        return {}
    picture, place = ipywidgets.Image(format="png"), ipywidgets.IntSlider(0, 0, len(steps) - 1, description="step")

    def draw(change=None):
        step = steps[place.value]
        time = clock(step.t, schedule).replace("\n", ", ") if schedule else f"t = {step.t}"
        picture.value = picture_of({f"x_t at {time}": step.x_t[:10], "x_0_hat": step.x_0_hat[:10]}, enlarge)

    draw()
    place.observe(draw, "value")
    view = "application/vnd.jupyter.widget-view+json"
    return {view: ipywidgets.VBox([place, picture])._repr_mimebundle_()[view]}


def publish(content: bytes, name: str, alt: str, width: int | None = None, more: dict | None = None) -> None:
    """Displays a picture under a name that notebooks are compared by, with its alternative text."""
    data = {"image/png": base64.b64encode(content).decode(), "text/plain": name, **(more or {})}
    about = {"alt": alt} | ({"width": width} if width else {})
    display(data, metadata={"image/png": about}, raw=True)


def picture_of(rows: dict, enlarge: int, columns: Sequence[str] = ()) -> bytes:
    """A PNG of labelled rows, one pixel of the figure for each pixel of it."""
    gap, head, margin = 2 * enlarge, 13 * enlarge, 4 * enlarge
    above = enlarge * (6 * max(text.count("\n") for text in columns) + 8) if columns else 0
    rows = {label: crop_to(x, x.shape[-1] * 7 // 8) for label, x in rows.items()}  # 32 to 28, 16 to 14
    bands, labels = [], []
    widest = max(len(x) * (x.shape[-1] * enlarge + gap) for x in rows.values())
    for label, x in rows.items():
        factor = (widest // len(x) - gap) // x.shape[-1]  # images of half the side are enlarged twice as much
        big = (x.detach().float().clamp(-1, 1) + 1).div(2).repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        row = torch.cat([F.pad(tile[0], (0, gap), value=GROUND) for tile in big], 1)
        labels.append((label, head + above + sum(map(len, bands))))
        bands.append(F.pad(row, (0, widest - row.shape[1], head, gap), value=GROUND))
    canvas = F.pad(torch.cat(bands), (margin, margin - gap, above, margin - gap), value=GROUND)
    h, w = canvas.shape
    figure = plt.figure(figsize=(w / DPI, h / DPI), dpi=DPI, layout="none")
    figure.figimage(canvas.numpy(), cmap="gray", vmin=0, vmax=1)
    size = 72 / DPI * enlarge
    for label, below in labels:
        text, colour = label if isinstance(label, tuple) else (label, GREY)
        figure.text(margin / w, 1 - (below - 2 * enlarge) / h, text, va="bottom", color=colour, fontsize=8.5 * size)
    for k, text in enumerate(columns):
        x = margin + (k + 0.5) * (widest / len(columns)) - gap / 2
        place = {"ha": "center", "va": "top", "color": GREY, "fontsize": 4.4 * size, "linespacing": 1.2}
        figure.text(x / w, 1 - 3 * enlarge / h, text, **place)
    file = io.BytesIO()
    figure.savefig(file, dpi=DPI, format="png", bbox_inches=None)
    plt.close(figure)
    return smaller(file.getvalue())


def smaller(png: bytes) -> bytes:
    """The same picture in a palette of 256 colours, where that takes fewer bytes. A GIF stays as it is."""
    from PIL import Image

    picture, file = Image.open(io.BytesIO(png)), io.BytesIO()
    if picture.format != "PNG":
        return png
    picture.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, "png", optimize=True, dpi=(DPI, DPI))
    return min(png, file.getvalue(), key=len)
