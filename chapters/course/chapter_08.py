"""The figure and exercises of chapter 08: frames, sizes and loops."""

import math
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from .exercises import Exercise, Experiment
from .figures import NETWORK, NOISE, SIGNAL, label_lines, show_figure


def kilobytes(path: str | Path) -> float:
    return Path(path).stat().st_size / 1000


def movements(films):
    """films: schedule -> rule -> how far each frame moves."""
    figure, axes = plt.subplots(1, len(films), figsize=(7, 2.1), sharey=True)
    for panel, (name, rules) in zip(axes, films.items()):
        for (rule, film), colour, style in zip(rules.items(), (NOISE, SIGNAL, NETWORK), ("-", "--", ":")):
            panel.plot(film, style, color=colour, label=f"even in {rule}")
        panel.set(title=name, xlabel="frame")
    axes[0].set(ylabel="movement of x_t", ylim=(0, None))
    label_lines(axes[-1], gap=0.14)
    show_figure(
        "How far each of forty frames moves, on three schedules: even in the angle nearly alike, even in log-SNR "
        "little at the end, even in t hardly at all in the first half on the linear schedule"
    )


def walks():
    """Walks of images: their steps are of very different lengths."""
    generator = torch.Generator().manual_seed(0)
    for n, frames in ((60, 8), (200, 20), (12, 12)):
        lengths = torch.linspace(-3, 1, n).exp().reshape(-1, 1, 1, 1)
        steps = lengths * (1 + torch.randn(n, 1, 4, 4, generator=generator))
        yield steps.cumsum(0), frames


def distances(path):
    return path.diff(dim=0).flatten(1).norm(dim=1)


def even_in(moved, frames, start=True):
    travelled = torch.cat([torch.zeros(1), moved.cumsum(0)]) if start else moved.cumsum(0)
    wanted = torch.linspace(0, float(travelled[-1]), frames)
    return [(travelled - value).abs().argmin().item() for value in wanted]


def travelled_evenly(path, frames):
    return sorted(set(even_in(distances(path), frames)))


def as_the_crow_flies(path, frames):
    away = (path - path[:1]).flatten(1).norm(dim=1)
    wanted = torch.linspace(0, float(away[-1]), frames)
    return sorted({(away - value).abs().argmin().item() for value in wanted})


def largest(path, frames):
    return sorted(distances(path).topk(min(frames, len(path) - 1)).indices.tolist())


def bits(levels, low=-1.0, high=1.0, base=2.0):
    values = torch.linspace(low, high, levels, dtype=torch.float64)
    return entropy((values[1:] + values[:-1]) / 2, base)


def by_density(levels):
    bell = (-torch.linspace(-1, 1, levels, dtype=torch.float64).square() / 2).softmax(0)
    return (torch.special.entr(bell).sum() / math.log(2)).item()


def entropy(edges, base=2.0, tails=True):
    below = torch.distributions.Normal(0.0, 1.0).cdf(edges)
    below = torch.cat([torch.zeros(1), below, torch.ones(1)]) if tails else below
    return (torch.special.entr(below.diff()).sum() / math.log(base)).item()


EXERCISES = {
    "08a": Exercise(
        travelled_evenly,
        walks,
        {
            "that is even in t: space the wanted values evenly in the distance travelled": (
                lambda path, frames: [round(i) for i in torch.linspace(0, len(path) - 1, frames).tolist()]
            ),
            "you added squares: distances add up, their squares do not": (
                lambda path, frames: sorted(set(even_in(distances(path) ** 2, frames)))
            ),
            "every index is one too small: before the first movement 0 is travelled": (
                lambda path, frames: sorted(set(even_in(distances(path), frames, start=False)))
            ),
            "that is the distance from the first image, as the crow flies: add up the movements": as_the_crow_flies,
            "these are the largest movements: choose where the sum of movements is even": largest,
            "where steps are long the same one is nearest twice: keep it once": (
                lambda path, frames: even_in(distances(path), frames)
            ),
        },
    ),
    "08b": Exercise(
        bits,
        lambda: [(2,), (4,), (16,), (256,)],
        {
            "these are nats: divide by log 2, or take log2": lambda levels: bits(levels, base=math.e),
            "that is for levels that are equally likely: noise is mostly near 0": lambda levels: math.log2(levels),
            "the tails are missing: what is clamped falls on the outermost levels": (
                lambda levels: entropy(torch.linspace(-1, 1, levels + 1, dtype=torch.float64), tails=False)
            ),
            "levels stand at -1 and 1, and their edges half way between: you cut [-1, 1] into equal parts": (
                lambda levels: entropy(torch.linspace(-1, 1, levels + 1, dtype=torch.float64)[1:-1])
            ),
            "the edges are half way between neighbouring levels: you cut at the levels themselves": (
                lambda levels: entropy(torch.linspace(-1, 1, levels, dtype=torch.float64))
            ),
            "that weighs each level by the density there: take areas, and the outermost have the tails": by_density,
            "the range is [-1, 1]: you spread the levels over [0, 1]": lambda levels: bits(levels, low=0.0),
        },
    ),
    "08c": Exercise(
        lambda n: [*range(n), *range(n - 2, 0, -1)],
        lambda: [(2,), (5,), (40,)],
        {
            "both ends come twice in a row, and the film stops there": lambda n: [*range(n), *reversed(range(n))],
            "the last frame comes twice in a row: begin the way back one earlier": (
                lambda n: [*range(n), *range(n - 1, 0, -1)]
            ),
            "the first frame comes twice: the next round begins with it anyway": (
                lambda n: [*range(n), *range(n - 2, -1, -1)]
            ),
            "frame 1 is left out on the way back: range leaves its end out": (
                lambda n: [*range(n), *range(n - 2, 1, -1)]
            ),
            "that goes forth only, and jumps back at its end": lambda n: [*range(n)],
            "there is no frame n: the last of n frames is n - 1": lambda n: [*range(n), *range(n, 0, -1)],
            "the first frame is 0": lambda n: [*range(1, n + 1), *range(n - 1, 1, -1)],
        },
    ),
    "08d": Experiment(
        24,
        40,
        {
            "that is 8 levels beside 16: write the film with 4": (50, 62),
            "that is 2 levels beside 16: write the film with 4": (12, 18),
            "that is beside 256 levels: image_grid takes 256 unless told otherwise": (6, 11),
            "that is what is saved: ask for what is left": (63, 74),
            "upside down: the bytes with 4 levels over those with 16": (250, 420),
            "that is a fraction: in per cent, please": (0.2, 0.5),
        },
    ),
}
