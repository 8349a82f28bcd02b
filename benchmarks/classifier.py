"""Trains the digit classifier that scores samples, and writes it to where it ships from.

    python benchmarks/classifier.py [--epochs 10] [--seed 0] [--out FILE]

Six minutes on one core. The test set is used once, at the end.
"""

import argparse
from pathlib import Path

import torch

from tinyddpm.data import mnist
from tinyddpm.evaluation import label_accuracy, load_classifier, save_classifier, train_classifier

SHIPPED = Path(__file__).parent.parent / "assets" / "weights" / "digit-classifier.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="another number rounds differently")
    parser.add_argument("--out", type=Path, default=SHIPPED)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    (x, y), (x_test, y_test) = (digits.tensors() for digits in (mnist(), mnist(train=False)))
    model = train_classifier(x, y, args.epochs, seed=args.seed)
    notes = {"epochs": args.epochs, "seed": args.seed, "threads": args.threads, "torch": torch.__version__}
    save_classifier(model, args.out, notes)
    accuracy = label_accuracy(load_classifier(args.out), x_test, y_test)
    print(f"{accuracy:.2%} of {len(x_test)} test digits, {args.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
