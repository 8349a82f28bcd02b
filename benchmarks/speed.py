"""Training speed of the tiny U-Net beside a plain diffusers.UNet2DModel, in turns in one run.

    python benchmarks/speed.py [--threads 1] [--batch 32] [--rounds 10]

The other network is what a course trains on MNIST: channels 32/64/64, two layers a block, attention at
14 and 7 on images of 28x28, and 5 input channels (the image and a label embedding of 4). Absolute figures
depend on the machine; the ratio, taken round by round, hardly does.
"""

import argparse
import statistics
import time

import torch
from peers import CourseNet

from tinyddpm.trainer.recipes import RECIPES


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    ours, theirs = tiny_step(args.batch), diffusers_step(args.batch)
    ours(), theirs()
    seconds = [(timed(ours), timed(theirs)) for _ in range(args.rounds)]
    a, b = (args.batch / statistics.median(column) for column in zip(*seconds))
    ratio = statistics.median(theirs / ours for ours, theirs in seconds)
    print(f"tiny {a:.0f} images/s, UNet2DModel {b:.0f} images/s, ratio {ratio:.1f} ({args.threads} threads)")


def timed(step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def step_of(net, predict, target):
    """One step of training as a function: forward, backward, clip, Adam."""
    optimizer = torch.optim.Adam(net.parameters(), fused=True)

    def step():
        loss = (predict() - target).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def tiny_step(batch: int):
    net = RECIPES["tiny"].network()
    t, y = torch.randint(1, 1001, (batch,)), torch.randint(0, 10, (batch,))
    x = torch.randn(batch, 1, 32, 32)
    return step_of(net, lambda: net(x, t, y), x)


def diffusers_step(batch: int):
    net = CourseNet()
    t, y = torch.randint(1, 1001, (batch,)), torch.randint(0, 10, (batch,))
    x = torch.randn(batch, 1, 28, 28)
    return step_of(net, lambda: net(x, t, y), x)


if __name__ == "__main__":
    main()
