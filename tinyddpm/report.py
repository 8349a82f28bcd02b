"""What an evaluation found, as pages for people: a table with floors, and pictures of samples."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from .metrics import nearest
from .viz import image_grid, save_picture


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
    """The report as Markdown: each figure, and its floor."""
    draw = kept["of"]["draw"]
    rows = [
        (label, read(kept[name]), read(kept.get(f"floor of {name}")))
        for name, label, read in ROWS
        if name in kept
    ]
    how = f"{draw['n']} samples, {draw['steps']} steps of {draw['sampler']}, guidance scale {draw['scale']:g}"
    lines = [
        f"{how}, seeds from {draw['seed']}; weights {kept['of']['weights']}.",
        f"The floor is what {draw['n']} real training digits score.",
        "",
        "| figure | samples | floor |",
        "|---|---|---|",
        *(f"| {label} | {value} | {floor} |" for label, value, floor in rows),
    ]
    if "confusion" in kept:
        counts = kept["confusion"]
        each = [row[digit] / sum(row) for digit, row in enumerate(counts)]
        lines += [
            "",
            "| asked for | " + " | ".join(f"read as {digit}" for digit in range(len(counts))) + " | right |",
        ]
        lines += ["|---" * (len(counts) + 2) + "|"]
        lines += [
            f"| {d} | " + " | ".join(map(str, row)) + f" | {each[d]:.1%} |" for d, row in enumerate(counts)
        ]
    return "\n".join(lines) + "\n"


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
    ("train_on_synthetic", "a classifier trained on them reads the test set", number(".2%")),
    ("bits_per_dim", "bits per dimension of test digits (32x32), at most", pair(".4f", " ± ")),
]
