"""What the cells of the page show, built from marimo's parts."""

import base64
import contextlib
import io
from collections.abc import Iterable, Iterator, Mapping

import marimo as mo
import torch

from ..pipeline import DDPM
from ..samplers import Step
from . import tabs, training
from .tabs import png

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
        mo.stop(True, mo.callout(str(error).replace(f"{tabs.UPLOADS.name}/", ""), kind="warn"))


def row(asked: mo.ui.dictionary) -> mo.Html:
    return mo.hstack(list(asked.elements.values()), justify="start", align="center", gap=1, wrap=True)


def picture(content: bytes, what: str, width: int = 840, rendering: str = "pixelated") -> mo.Html:
    """The bytes of a PNG, in the page itself and as wide as there is room; what it shows, for those who do not see."""
    source = f"data:image/png;base64,{base64.b64encode(content).decode()}"
    return mo.Html(
        f'<img src="{source}" alt="{what}" style="width:100%;max-width:{width}px;image-rendering:{rendering}">'
    )


def denoised(walk: Iterable[Step], steps: int) -> list[Step]:
    """All steps of a trajectory, under a bar."""
    film = []
    with mo.status.progress_bar(total=steps + 1, title="Denoising", remove_on_exit=True) as bar:
        for step in walk:
            film.append(step)
            bar.update()
    return film


def show_film(film: list[Step], ddpm: DDPM, at: int) -> mo.Html:
    """A step of the film: the image, what the network sees in it, and the files to download."""
    t, now, seen = film[at].t, png(film[at].x_t, ddpm), png(film[at].x_0_hat, ddpm)
    files = [
        mo.download(now, "digits.png", label="This picture"),
        mo.download(lambda: tabs.gif(film, ddpm), "digits.gif", label="The film, a GIF"),
    ]
    what = mo.md(f"Above at t = {t} of {ddpm.schedule.T}; below what the network sees in it.")
    return mo.vstack(
        [picture(now, f"at t = {t}"), what, picture(seen, "what the network sees"), mo.hstack(files, justify="start")]
    )


def show_training() -> mo.Html:
    """The last run here: how far it is, samples of its network as it is now, and its losses."""
    if not training.RUNS:
        return mo.md(WAIT)
    run = training.RUNS[-1]
    shown: list[mo.Html] = [mo.callout(str(run), kind="info" if training.active() else "neutral")]
    if run.trainer:
        ddpm = training.trained(run.out)
        steps = list(tabs.draw(ddpm, "0123456789", steps=10))
        shown.append(picture(png(steps[-1].x_t, ddpm), "samples"))
    if run.trainer and run.trainer.log.rows:
        shown.append(picture(curves(list(run.trainer.log.rows), run.trainer.log.bands), "the losses", 1000, "auto"))
    return mo.vstack(shown)


def curves(rows: list[Mapping[str, str]], bands: list[str]) -> bytes:
    """The loss, and that of ten ranges of t, over the steps; in grey on nothing, to be read on light and dark."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure, content = Figure(figsize=(10, 3.2), layout="constrained"), io.BytesIO()
    for axes, title, names in zip(figure.subplots(1, 2), ("loss", "loss by t"), (["loss"], bands)):
        for k, name in enumerate(names):
            colour = colormaps["viridis"](0.1 + 0.8 * (k + 0.5) / len(names))
            values, label = [float(r[name] or "nan") for r in rows], name.removeprefix("loss_t_").replace("_", " to ")
            axes.plot([int(r["step"]) for r in rows], values, color=colour, linewidth=1.2, label=label)
        axes.set(yscale="log", facecolor="none")
        axes.set_title(title, color="grey")
        axes.set_xlabel("step", color="grey")
        axes.tick_params(colors="grey", which="both")
        axes.spines[:].set_color("grey")
    axes.legend(fontsize=6, ncols=2, labelcolor="grey", framealpha=0)
    figure.savefig(content, dpi=150, transparent=True)
    return content.getvalue()


def show_comparison(drawn: Mapping[str, tabs.Drawn]) -> mo.Html:
    shown = []
    for name, (images, nearest, distance) in drawn.items():
        far = f"{distance.mean():.1f} on average, {distance.min():.1f} at least"
        both = png(torch.cat([images, nearest]), columns=len(images))
        shown += [mo.md(f"**{name}.** To the nearest training digit, below each: {far}."), picture(both, name, 640)]
    return mo.vstack(shown)
