"""Plots of a run and of a report, with matplotlib."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..files import write_whole

Lines = Mapping[str, Sequence[float]]  # name, or "", to values


def save_panels(
    x: Sequence[float], panels: Mapping[str, Lines], path: Path, logarithmic: Sequence[str] = (), label: str = "step"
) -> None:
    """Several plots over x, by their titles, at most three in a row."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(13 * columns / 3, 3.4 * rows), layout="constrained")
    for place, (title, lines) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        for k, (name, values) in enumerate(lines.items()):
            colour = colormaps["viridis"](k / len(lines))
            axes.plot(x, values, ".-" if len(x) < 20 else "-", color=colour, linewidth=1, label=name)
        if any(lines):
            axes.legend(fontsize=6, ncols=2)
        axes.set(title=title, xlabel=label, yscale="log" if title in logarithmic else "linear")
        axes.grid(alpha=0.3)
    figure.savefig(picture := io.BytesIO(), dpi=100)
    write_whole(path, picture.getvalue())
