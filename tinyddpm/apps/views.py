"""What the cells of the page show, built from marimo's parts."""

import base64
import contextlib
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import marimo as mo
import torch
from torch import Tensor

from ..cli.options import DIGIT
from ..pipeline import DDPM
from ..samplers import Step, last
from ..tools.jobs import needs
from .tabs import UPLOADS, Drawn, draw, each, gif, png
from .training import RUNS, active, trained

ABOUT = "### tinyddpm: handwritten digits out of noise, by a network that anybody can train"
COMPARE = """Three denoisers draw from the same noise. Two need no training: the **exact oracle**, the best answer for
the digits that it knows, draws these again; the **blinkered oracle** sees them through a small window around each
pixel, and puts pieces of them together."""
WAIT = "Nothing was trained here yet. The recipe `nano` draws digits after a minute or two."


@contextlib.contextmanager
def refusals() -> Iterator[None]:
    """Where the library refuses, the cell ends and shows the sentence that says why."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        without = re.sub(re.escape(UPLOADS.name) + r"[\\/]+\w+[\\/]+", "", str(error))  # the folder of an upload
        mo.stop(True, mo.callout(without, kind="warn"))


def of_digits(ddpm: DDPM) -> DDPM:
    """The network, if it draws digits by label. Else the cell ends and says so."""
    found = f"this one draws images {ddpm.image_shape} of {ddpm.num_classes or 'no'} classes: choose the shipped one"
    said = mo.callout(f"expected a network that draws digits by label, at least {DIGIT}x{DIGIT}, and {found}", "warn")
    mo.stop(ddpm.num_classes != 10 or ddpm.image_shape[0] != 1 or ddpm.image_shape[1] < DIGIT, said)
    return ddpm


def row(asked: mo.ui.dictionary) -> mo.Html:
    return mo.hstack(list(asked.elements.values()), justify="start", align="center", gap=1, wrap=True)


def pictures(files: Iterable[bytes], what: str, width: str = "min(84px, 20%)", rendering: str = "pixelated") -> mo.Html:
    """PNG files, as many in a row as there is room for; what they show, for those who do not see."""
    style = f"width:{width};image-rendering:{rendering};display:inline-block;margin:0"
    sources = (f"data:image/png;base64,{base64.b64encode(file).decode()}" for file in files)
    images = "".join(f'<img src="{source}" alt="" style="{style}">' for source in sources)
    return mo.Html(f'<div role="img" aria-label="{what}" style="max-width:840px;line-height:0">{images}</div>')


def answers(asked: mo.ui.dictionary) -> dict:
    """What was answered. Where a number is missing, the cell ends and says so."""
    mo.stop(None in asked.value.values(), mo.callout("a number is missing", kind="warn"))
    return asked.value


def denoised(ddpm: DDPM, **how) -> list[Step]:
    """All steps of tabs.draw, under a bar."""
    bar = {"total": how["steps"] + 1, "title": "Denoising", "remove_on_exit": True}
    return list(mo.status.progress_bar(draw(ddpm, **how), **bar))


def show_film(film: list[Step], ddpm: DDPM, at: int) -> mo.Html:
    """A step of the film: the images, what the network sees in them, and the files to download."""
    step, now, seen = film[at], f"At t = {film[at].t} of {ddpm.schedule.T}", "What the network sees in it"
    files = [
        mo.download(png(step.x_t, ddpm), "digits.png", label="This picture"),
        mo.download(lambda: gif(film, ddpm), "digits.gif", label="The film, a GIF"),
    ]
    shown = [mo.md(now), pictures(each(step.x_t, ddpm), now), mo.md(seen), pictures(each(step.x_0_hat, ddpm), seen)]
    return mo.vstack([*shown, mo.hstack(files, justify="start")])


@refusals()
def show_training() -> mo.Html:
    """The last run here: how far it is, samples of its network as it is now, and its losses."""
    if not RUNS:
        return mo.md(WAIT)
    run = RUNS[-1]
    shown: list[mo.Html] = [mo.callout(str(run), kind="info" if active() else "neutral")]
    if run.trainer:
        ddpm, rows = trained(run.out), list(run.trainer.log.rows)
        x = last(draw(ddpm, "0123456789"[: ddpm.num_classes], steps=10)).x_t
        shown.append(pictures(each(x, ddpm), "samples of it"))
        if rows:
            losses = curves(rows, "loss", ["loss"]), curves(rows, "loss by t", run.trainer.log.bands)
            shown.append(pictures(losses, "its losses", "min(420px, 100%)", "auto"))
    return mo.vstack(shown)


def curves(rows: Sequence[Mapping[str, str]], title: str, names: Sequence[str]) -> bytes:
    """These columns of the log over the steps, as a PNG in grey on nothing, to be read on light and dark."""
    needs("train", "a plot of the losses", "matplotlib")
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure, content = Figure(figsize=(5, 3.4), layout="constrained"), io.BytesIO()
    axes = figure.subplots()
    for k, name in enumerate(names):
        colour = colormaps["viridis"](0.1 + 0.8 * (k + 0.5) / len(names))
        values, label = [float(r[name] or "nan") for r in rows], name.removeprefix("loss_t_").replace("_", " to ")
        axes.plot([int(r["step"]) for r in rows], values, color=colour, linewidth=1.2, label=label)
    axes.set(yscale="log", facecolor="none")
    axes.set_title(title, color="grey")
    axes.set_xlabel("step", color="grey")
    axes.tick_params(colors="grey", which="both")
    axes.spines[:].set_color("grey")
    if len(names) > 1:
        axes.legend(fontsize=7, ncols=2, labelcolor="grey", framealpha=0)
    figure.savefig(content, dpi=150, transparent=True)
    return content.getvalue()


def show_comparison(drawn: Mapping[str, Drawn]) -> mo.Html:
    shown = []
    for name, (images, nearest, distance) in drawn.items():
        far = f"{distance.mean():.1f} away on average, at least {distance.min():.1f}"
        both = [png(torch.stack(pair), columns=1) for pair in zip(images, nearest)]
        shown += [mo.md(f"**{name}.** Below each is the nearest training digit: {far}."), pictures(both, name)]
    return mo.vstack(shown)


def show_edited(x: Tensor) -> mo.Html:
    """A strip; or images, of which an eleventh is shown first, by itself."""
    if x.shape[-1] > x.shape[-2]:
        return pictures([png(x)], "a strip of digits", "100%")
    parts = [part for part in (x[: len(x) % 10], x[len(x) % 10 :]) if len(part)]
    return mo.vstack([pictures(each(part), "a digit, and what the network made of it") for part in parts])
