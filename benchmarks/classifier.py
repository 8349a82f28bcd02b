"""Trains a classifier that scores samples, and writes it to where it ships from.

    python benchmarks/classifier.py [--epochs 10] [--seed 0] [--out FILE]             # digits: six minutes of a core
    python benchmarks/classifier.py --data fashion --root DIR [--held-out 10000]      # garments: 15

The test set is used once, at the end. --held-out N trains without the last N of the training images, in a random order,
and measures on these alone: settings are chosen so.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tinyddpm.datasets import load_data
from tinyddpm.evaluation import JUDGES, label_accuracy, load_classifier, save_classifier, train_classifier

WEIGHTS = Path(__file__).parent.parent / "assets" / "weights"


def shift_or_mirror(x: Tensor, generator: Generator, pixels: int = 1) -> Tensor:
    """Each image moved by up to so many whole pixels, and mirrored or not: a garment is the same either way."""
    n, _, h, w = x.shape
    down, right = torch.randint(2 * pixels + 1, (2, n, 1), generator=generator)
    rows, columns = torch.arange(h) + down, torch.arange(w) + right
    columns = torch.where(torch.rand(n, 1, generator=generator) < 0.5, columns.flip(1), columns)
    padded = F.pad(x, (pixels,) * 4, value=-1.0)
    return padded[torch.arange(n)[:, None, None], 0, rows[:, :, None], columns[:, None]][:, None]


RECIPES: dict[str, dict] = {
    "mnist": {"epochs": 10},
    "fashion": {"epochs": 12, "dims": (32, 64, 128, 128), "augment": shift_or_mirror, "half": True},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", choices=RECIPES, default="mnist")
    parser.add_argument("--root", help="folder of the data, if they do not ship")
    parser.add_argument("--epochs", type=int, help="10 for digits, 12 for garments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pixels", type=int, default=1, help="by which garments are moved at most")
    parser.add_argument("--held-out", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="another number rounds differently")
    parser.add_argument("--out", type=Path, help="by default the file that ships")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    judge, recipe = JUDGES[args.data], RECIPES[args.data] | {"seed": args.seed}
    recipe |= {"epochs": args.epochs} if args.epochs else {}
    recipe |= {"augment": partial(shift_or_mirror, pixels=args.pixels)} if args.data == "fashion" else {}
    (x, y), (x_test, y_test) = (load_data(args.data, args.root, train=part).tensors() for part in (True, False))
    if n := args.held_out:
        order = torch.randperm(len(x), generator=Generator().manual_seed(0))
        x, y, x_test, y_test = x[order[:-n]], y[order[:-n]], x[order[-n:]], y[order[-n:]]
    model = train_classifier(x, y, **recipe)
    notes = {"epochs": recipe["epochs"], "seed": args.seed, "threads": args.threads, "torch": torch.__version__}
    out = args.out or WEIGHTS / f"{judge.file}.safetensors"
    save_classifier(model, out, notes | ({"noun": judge.noun} if judge.noun != model.noun else {}))
    accuracy = label_accuracy(load_classifier(out), x_test, y_test)
    where = "held out" if args.held_out else "of the test set"
    print(f"{accuracy:.2%} of {len(x_test)} {judge.noun}s {where}, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
