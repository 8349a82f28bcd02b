"""Plots of a run and of a report, with matplotlib."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import write_whole


def save_panels(
    x: Sequence[float],
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    path: Path,
    logarithmic: Sequence[str] = (),
    label: str = "step",
) -> None:
    """Several plots over x, at most three in a row: {title: {name of a line, or "": values}}."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(13 * columns / 3, 3.4 * rows), layout="constrained")
    for axes in (grid := figure.subplots(rows, columns, squeeze=False).flatten())[len(panels) :]:
        axes.remove()
    for axes, (title, lines) in zip(grid, panels.items()):
        for k, (name, values) in enumerate(lines.items()):
            colour = colormaps["viridis"](k / len(lines))
            axes.plot(x, values, ".-" if len(x) < 20 else "-", color=colour, linewidth=1, label=name)
        if any(lines):
            axes.legend(fontsize=6, ncols=2)
        axes.set(title=title, xlabel=label, yscale="log" if title in logarithmic else "linear")
        axes.grid(alpha=0.3)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=100)
    write_whole(path, picture.getvalue())
