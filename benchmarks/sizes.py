"""What larger pictures cost: training steps of `tiny` on digits of 32, 64 and 128 pixels, on one core.

    python benchmarks/sizes.py [--seconds 60] [--batch 64] [--sizes 32 64 128] [--precisions no bf16]

Prints a table in Markdown: images a second of CPU time, and the largest memory of the process, with and without what it
holds before the first step. Each row is measured in a process of its own. The network is the recipe's, with one more
level for each doubling; the optimizer, the average of the weights and the data (mnist-resized) are those of a run.
"""

import argparse
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

SETTINGS = ("size", "precision", "batch", "seconds")


def measure(size: int, precision: str, batch: int, seconds: float) -> None:
    """Trains for so many seconds of CPU time after two steps, and prints figures."""
    import torch

    from tinyddpm.datasets import load_data
    from tinyddpm.trainer.processes import make_accelerator
    from tinyddpm.trainer.recipes import RECIPES
    from tinyddpm.trainer.trainer import Trainer
    from tinyddpm.training import train_steps

    torch.set_num_threads(1)
    data = load_data("mnist-resized", size=size)
    recipe = replace(RECIPES["tiny"].suited(data), batch_size=batch)
    accelerator, norm = make_accelerator("cpu", precision), recipe.grad_norm or math.inf
    with tempfile.TemporaryDirectory() as folder:
        run = Trainer(recipe, data, Path(folder), accelerator)
        parts = run.net, run.batches(), run.objective, run.optimizer
        how = norm, 0, accelerator.backward, accelerator.clip_grad_norm_
        before, spent = peak(), 0.0
        for step in train_steps(*parts, lambda k: recipe.rate(k, 0.0), run.ema, run.generator, *how):
            if step.number == 2:  # the first are slower
                started = time.process_time()
            elif step.number > 2 and (spent := time.process_time() - started) > seconds:
                break
        rate = (step.number - 2) * batch / spent
    million = sum(map(torch.numel, run.model.parameters())) / 1e6
    print(f"{million:.2f} {rate:.2f} {peak():.0f} {before:.0f}")


def peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--precisions", nargs="+", default=["no", "bf16"])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--one", nargs=4, metavar=SETTINGS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return measure(int(args.one[0]), args.one[1], int(args.one[2]), float(args.one[3]))
    print("| side | precision | parameters | images/s | times as long | memory at most | before the first step |")
    print("|---|---|---|---|---|---|---|")
    environment, first = {**os.environ, "OMP_NUM_THREADS": "1"}, {}
    for size in args.sizes:
        for precision in args.precisions:
            own = [sys.executable, __file__, "--one", str(size), precision, str(args.batch), str(args.seconds)]
            found = subprocess.run(own, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout
            million, rate, most, before = map(float, found.split()[-4:])
            slower = first.setdefault(precision, rate) / rate
            name = {"no": "float32"}.get(precision, precision)
            row = f"{size}x{size}", name, f"{million:.2f} M", f"{rate:.1f}", f"{slower:.1f}"
            print(f"| {' | '.join(row)} | {most:,.0f} MB | {before:,.0f} MB |", flush=True)


if __name__ == "__main__":
    main()
