"""What the training loop costs over the bare step, and what a second process gains, as ratios in one run.

    python benchmarks/loop.py overhead [--rounds 15]    # one thread
    python benchmarks/loop.py processes [--rounds 3]    # needs two idle cores

The bare step is loss, gradients, clipping and optimizer on images in memory. The loop also reads and shuffles the
data, sets the learning rate, averages the weights, checks for NaN, writes the log and shows a progress bar.
"""

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tinyddpm.data import mnist
from tinyddpm.trainer import Trainer, train
from tinyddpm.trainer.processes import make_accelerator
from tinyddpm.trainer.recipes import RECIPES
from tinyddpm.training import train_steps

STEPS = 20  # in each turn
SKIPPED = 10  # first steps of a process, which are slow


def made(recipe: str, folder: str) -> Trainer:
    return Trainer(RECIPES[recipe], mnist(), Path(folder), make_accelerator("cpu", "no"), epochs=1000)


def overhead(recipe: str, rounds: int) -> float:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run, bare = made(recipe, folder), made(recipe, folder)
        run.log.begin(0.0)
        x, y = next(run.batches())
        steps = train_steps(
            run.net, run.batches(), run.objective, run.optimizer, run.rate, run.ema, run.generator,
            backward=run.accelerator.backward, clip=run.accelerator.clip_grad_norm_,
        )  # fmt: skip

        def loop():
            for step in itertools.islice(steps, STEPS):
                run.record(step)

        def bare_steps():
            for _ in range(STEPS):
                losses, _ = bare.objective(bare.model, x, y, bare.generator)
                losses.mean().backward()
                torch.nn.utils.clip_grad_norm_(bare.model.parameters(), bare.recipe.grad_norm)
                bare.optimizer.step()
                bare.optimizer.zero_grad()

        loop(), bare_steps()
        return statistics.median(timed(loop) / timed(bare_steps) for _ in range(rounds)) - 1


def timed(what) -> float:
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def worker() -> None:
    """Trains nano for a while and prints how many images a second this process saw, after the first steps."""
    marks = []

    def clock() -> float:  # which the trainer reads once at the start, and once a step
        marks.append(time.perf_counter())
        return marks[-1]

    with tempfile.TemporaryDirectory() as folder:
        if os.environ.get("WORLD_SIZE"):  # one folder for all
            folder = sys.argv[2]
        train("nano", folder, epochs=0.1, device="cpu", precision="no", clock=clock)
    seconds = marks[-1] - marks[1 + SKIPPED]
    print("images/s", RECIPES["nano"].batch_size * (len(marks) - 2 - SKIPPED) / seconds, flush=True)


def images_per_second(processes: int, threads: int, together: bool = True) -> float:
    """Of so many processes in all: of one run, or of independent runs."""
    launch = [sys.executable]
    if processes > 1 and together:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        command = [*launch, __file__, "worker", folder]
        started = [
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
            for _ in range(1 if together else processes)
        ]
        said = "".join(process.communicate()[0] for process in started)
    return sum(float(line.split()[1]) for line in said.splitlines() if line.startswith("images/s"))


def processes(rounds: int) -> None:
    turns = [[images_per_second(*how) for how in ((2, 1), (1, 1), (1, 2), (2, 1, False))] for _ in range(rounds)]
    others = ("one of one thread", "one of two threads", "two independent ones")
    for k, name in enumerate(others, 1):
        ratio = statistics.median(turn[0] / turn[k] for turn in turns)
        print(f"nano: two processes of one run, of one thread each, are {ratio:.2f} times as fast as {name}")
    print("images/s, by turns:", [[round(value) for value in turn] for turn in turns])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["overhead", "processes", "worker"])
    parser.add_argument("folder", nargs="?")
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args()
    if args.command == "worker":
        worker()
    elif args.command == "processes":
        processes(args.rounds or 3)
    else:
        for recipe in ("tiny", "nano"):
            print(f"{recipe}: the loop costs {overhead(recipe, args.rounds or 15):+.1%} over the bare step")


if __name__ == "__main__":
    main()
