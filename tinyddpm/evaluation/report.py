"""The results of an evaluation: saved as they are found, as a table with floors, as pictures and as plots."""

import json
from collections.abc import Callable
from pathlib import Path

import torch

from ..files import write_whole
from ..tools.jobs import say
from ..viz import image_grid, save_picture
from .bits import bits_table
from .judges import in_words, noun_of
from .metrics import ImageBatch, nearest

ROWS = (  # metric, its name in the table, its format
    ("label_accuracy", "read as the digit asked for", "{:.2%}"),
    ("frechet_digit_distance", "Frechet digit distance", "{:.4f}"),
    ("kernel_distance", "kernel distance, with standard error", "{0[0]:.5f} ± {0[1]:.5f}"),
    ("inception_score", "inception score of the classifier", "{:.3f}"),
    ("precision_recall", "precision, recall", "{0[0]:.3f}, {0[1]:.3f}"),
    ("coverage", "coverage of test digits", "{:.3f}"),
    ("memorisation", "nearer to a training digit than 99.9 % of test digits are", "{0[copied]:.2%}"),
    ("memorisation", "median distance to a training digit (test digits)", "{0[median]:.2f} ({0[floor_median]:.2f})"),
    ("memorisation", "smallest distance to one (test digits)", "{0[smallest]:.2f} ({0[floor_smallest]:.2f})"),
    ("train_on_synthetic", "a classifier trained on them reads the test set", "{:.2%}"),
    ("bits_per_dim", "bits per dimension of test digits, at most", "{0[0]:.4f} ± {0[1]:.4f} ({0[2]} digits)"),
)


class ReportCache(dict):
    """The results so far, written to report.json and report.md with each new one, so that an interruption loses one at
    most. Raises ValueError for a file that is damaged, or that reports on something else than `identity`."""

    def __init__(self, path: Path, identity: dict):
        self.path, self.folder = path, path.parent
        super().__init__(of=json.loads(json.dumps(identity)))
        try:
            found = json.loads(path.read_text()) if path.exists() else dict(self)
            same = found["of"] == self["of"]
        except (KeyError, TypeError, ValueError, RecursionError):
            found, same = {"of": "nothing that can be read"}, False
        if not same:
            raise ValueError(f"{path} reports on something else ({found['of']}, not {identity}): choose another folder")
        self.update(found)
        self.samples = self.folder / "samples" / self["of"]["weights"]  # of this model

    def write(self) -> None:
        write_whole(self.path, json.dumps(self, indent=1).encode())
        shown = f"![samples, ten of each {noun_of(self)}](samples.png)\n\n{page(self)}"
        write_whole(self.folder / "report.md", shown.encode())

    def once(self, name: str, find: Callable[..., object], *arguments: object):
        """self[name], the result of find(*arguments) unless it is known. Says on stderr what is being found."""
        if name not in self:
            say(f"evaluating: {in_words(name, noun_of(self))}")
            self[name] = find(*arguments)
            self.write()
        return self[name]


def save_pictures(out: Path, batch: ImageBatch) -> None:
    """samples.png, ten a class; worst.png, by the classifier's confidence; nearest.png, above training images."""
    x, y, confidence, shown = batch.images, batch.labels, batch.probabilities.max(1).values, torch.arange(100)
    if y is not None:
        confidence = batch.probabilities.gather(1, y[:, None])[:, 0]
        shown = torch.cat([(y == label).nonzero()[:10, 0] for label in y.unique()])
    distance, index = nearest(x, batch.train)
    closest = distance.argsort()[:20]
    pairs = torch.cat([x[closest], batch.train[index[closest]]])
    save_picture(image_grid(x[shown], columns=10, enlarge=2), out / "samples.png")
    save_picture(image_grid(x[confidence.argsort()[:50]], columns=10, enlarge=2), out / "worst.png")
    save_picture(image_grid(pairs, columns=20, enlarge=2), out / "nearest.png")


def page(cache: dict) -> str:
    """The report as Markdown: each metric of the samples beside that of real images."""
    spec, noun = cache["of"]["samples"], noun_of(cache)
    eta = f" (eta {spec['eta']:g})" if spec.get("eta") else ""
    how = "{n} samples, {steps} steps of {sampler}{eta}, guidance scale {scale:g}, seeds from {seed}; weights "
    lines = [
        spec["text"] if "text" in spec else how.format(**spec | {"eta": eta}) + f"{cache['of']['weights']}.",
        f"Beside them: {spec['n']} real training {noun}s. Samples as good as the data score the same.",
        "",
        f"| metric | samples | real {noun}s |",
        "|---|---|---|",
    ]
    own = [(name, name, "{}") for name in cache if f"floor of {name}" in cache and name not in {row[0] for row in ROWS}]
    for name, label, form in (row for row in (*ROWS, *own) if row[0] in cache):
        floor = form.format(cache[f"floor of {name}"]) if f"floor of {name}" in cache else ""
        line = f"| {label} | {form.format(cache[name])} | {floor} |"
        lines.append(line if label == name else line.replace("digit", noun))
    lines += bits_table(cache)
    if cache["of"]["data"] == "unknown":
        beside = cache["of"].get("beside", "MNIST")
        lines += ["", f"The checkpoint does not say what it was trained on; all metrics are beside {beside}."]
    if counts := cache.get("confusion"):
        head = [f"read as {digit}" for digit in range(len(counts))]
        lines += ["", f"| asked for | {' | '.join(head)} | right |", "|---" * (len(counts) + 2) + "|"]
        right = [row[digit] / max(sum(row), 1) for digit, row in enumerate(counts)]
        lines += [f"| {d} | {' | '.join(map(str, row))} | {right[d]:.1%} |" for d, row in enumerate(counts)]
    return "\n".join(lines) + "\n"
