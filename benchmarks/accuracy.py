"""What the samples are worth: how many of them an independent classifier reads as the digit asked for.

    python benchmarks/accuracy.py [CHECKPOINT] [--per-digit 100] [--steps 50] [--scales 1 1.5 2]

Trains the classifier first: five epochs of MNIST, two to seven minutes on a laptop.
"""

import argparse

import torch

from tinyddpm import DDPM, load_pretrained
from tinyddpm.data import mnist
from tinyddpm.metrics import classify, label_accuracy, train_classifier


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint", nargs="?")
    parser.add_argument("--per-digit", type=int, default=100)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5, 2.0])
    args = parser.parse_args()
    ddpm = DDPM.load(args.checkpoint) if args.checkpoint else load_pretrained()
    classifier = train_classifier(mnist())
    test = mnist(train=False)
    x = torch.stack([test[i][0] for i in range(len(test))])
    print(f"real test digits: {label_accuracy(classifier, x, test.labels):.2%} of {len(x)}")
    y = torch.arange(10).repeat_interleave(args.per_digit)
    batches = list(zip(y.split(200), torch.arange(len(y)).split(200)))
    for scale in args.scales:
        x = torch.cat([ddpm.sample(part, steps=args.steps, scale=scale, seeds=s) for part, s in batches])
        read = classify(classifier, x).argmax(1)
        each = [float((read[y == digit] == digit).float().mean()) for digit in range(10)]
        worst = f"worst digit {each.index(min(each))} with {min(each):.0%}"
        print(f"scale {scale:g}: {label_accuracy(classifier, x, y):.1%} of {len(x)}, {worst}", flush=True)


if __name__ == "__main__":
    main()
