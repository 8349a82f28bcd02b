"""What an evaluation found: kept as it is found, and shown as a table with floors and as pictures."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..files import write_whole
from ..viz import image_grid, save_picture
from .metrics import nearest

BITS = 100  # test digits that the bound is found for: each takes T calls of the network, twice


class Kept(dict):
    """What was found so far, written to a JSON file with each new entry: an interruption loses one of them
    at most. There is no file before `write` or the first entry, so that what cannot be drawn leaves none."""

    def __init__(self, path: Path, identity: dict):
        self.path = path
        super().__init__(of=json.loads(json.dumps(identity)))
        if not path.exists():
            return
        try:
            found = json.loads(path.read_text())
            of = found["of"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no report that can be gone on with: choose another folder") from error
        if of != self["of"]:
            raise ValueError(f"{path} reports on something else ({of}, not {identity}): choose another folder")
        self.update(found)

    def write(self) -> None:
        write_whole(self.path, json.dumps(self, indent=1).encode())

    def once(self, name: str, find: Callable[[], object]):
        """self[name], found now if it was not yet."""
        if name not in self:
            self[name] = find()
            self.write()
        return self[name]


def save_pictures(out: Path, x: Tensor, y: Tensor | None, probabilities: Tensor, train: Tensor) -> None:
    """Ten samples a digit, the worst by the classifier's confidence, and training digits beside samples."""
    shown = torch.arange(100)
    if y is not None:
        shown = torch.cat([(y == digit).nonzero()[:10, 0] for digit in y.unique()])
    save_picture(image_grid(x[shown], columns=10, enlarge=2), out / "samples.png")
    confidence = probabilities.max(1).values if y is None else probabilities.gather(1, y[:, None])[:, 0]
    save_picture(image_grid(x[confidence.argsort()[:50]], columns=10, enlarge=2), out / "worst.png")
    distance, index = nearest(x, train)
    closest = distance.argsort()[:20]
    pairs = torch.cat([x[closest], train[index[closest]]])
    save_picture(image_grid(pairs, columns=20, enlarge=2), out / "nearest.png")


def page(kept: dict) -> str:
    """The report as Markdown: each figure, and that of real digits."""
    draw = kept["of"]["draw"]
    rows = [(label, read(kept[name]), read(kept.get(f"floor of {name}"))) for name, label, read in ROWS if name in kept]
    sampler = draw["sampler"] + (f" (eta {draw['eta']:g})" if draw.get("eta") else "")
    how = f"{draw['n']} samples, {draw['steps']} steps of {sampler}, guidance scale {draw['scale']:g}"
    lines = [
        f"{how}, seeds from {draw['seed']}; weights {kept['of']['weights']}.",
        f"Beside them: {draw['n']} real training digits. Samples as good as the data score the same.",
        "",
        "| figure | samples | real digits |",
        "|---|---|---|",
        *(f"| {label} | {value} | {floor} |" for label, value, floor in rows),
    ]
    if {"train_on_synthetic", "floor of train_on_synthetic"} <= kept.keys():
        share = kept["train_on_synthetic"] / kept["floor of train_on_synthetic"]
        lines += ["", f"Trained on samples, the classifier reaches {share:.1%} of what it does on real digits."]
    if kept["of"]["data"] == "unknown":
        lines += ["", "The checkpoint does not say what it was trained on; all figures are beside MNIST."]
    if "confusion" in kept:
        counts = kept["confusion"]
        each = [row[digit] / sum(row) for digit, row in enumerate(counts)]
        lines += ["", "| asked for | " + " | ".join(f"read as {digit}" for digit in range(len(counts))) + " | right |"]
        lines += ["|---" * (len(counts) + 2) + "|"]
        lines += [f"| {d} | " + " | ".join(map(str, row)) + f" | {each[d]:.1%} |" for d, row in enumerate(counts)]
    return "\n".join(lines) + "\n"


def save_curves(
    x: Sequence[float], curves: dict[str, Sequence[float]], floors: dict[str, float], label: str, path: str | Path
) -> None:
    """One plot a curve, side by side, over x on a shared axis; its floor as a dashed line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(curves), 3.2), layout="constrained")
    for axes, (name, values) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items()):
        axes.plot(x, values, marker="o")
        if name in floors:
            axes.axhline(floors[name], linestyle="--", color="grey", label="real digits")
            axes.legend()
        axes.set(xlabel=label, title=name.replace("_", " "))
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def number(form: str) -> Callable:
    return lambda value: "" if value is None else format(value, form)


def pair(form: str, between: str) -> Callable:
    return lambda value: "" if value is None else between.join(format(v, form) for v in value)


ROWS = [
    ("label_accuracy", "read as the digit asked for", number(".2%")),
    ("frechet_digit_distance", "Frechet digit distance", number(".4f")),
    ("kernel_distance", "kernel distance, with standard error", pair(".5f", " ± ")),
    ("inception_score", "inception score of the classifier", number(".3f")),
    ("precision_recall", "precision, recall", pair(".3f", ", ")),
    (
        "memorisation",
        "nearer to a training digit than 99.9 % of test digits are; median distance (of test digits)",
        lambda m: "" if m is None else f"{m['copied']:.2%}; {m['median']:.2f} ({m['floor_median']:.2f})",
    ),
    (
        "memorisation",
        "smallest distance of all to a training digit (of test digits)",
        lambda m: "" if m is None else f"{m['smallest']:.2f} ({m['floor_smallest']:.2f})",
    ),
    ("train_on_synthetic", "a classifier trained on them reads the test set", number(".2%")),
    ("bits_per_dim", f"bits per dimension of {BITS} test digits of the model's own size, at most", pair(".4f", " ± ")),
]
