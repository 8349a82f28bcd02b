"""Kills a short training run at random moments, resumes it, and compares with the run that was never killed.

    python benchmarks/kill.py [--times 50] [--seed 0]

Each run has a process of its own, which SIGKILL ends after a random time, and is started again until it finishes. A
state is saved after every step, so that many kills come while one is written.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from tinyddpm import DDPM
from tinyddpm.trainer.state import load_state

RUN = """
import sys
from torch.utils.data import Subset
from tinyddpm.data import mnist
from tinyddpm.trainer.recipes import Recipe, UNetConfig
from tinyddpm.trainer import train

network = UNetConfig((8, 16), attention=())
recipe = Recipe(network, T=50, batch_size=16, warmup=5, ema_decay=0.9, epochs=3)
train(recipe, sys.argv[1], Subset(mnist(), range(320)), device="cpu", precision="no", save_every=-1.0)
"""


def start(folder: Path) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", RUN, folder], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def weights(folder: Path) -> torch.Tensor:
    model = DDPM.load(folder / "model.safetensors").model
    return torch.cat([p.flatten() for p in model.parameters()])


def steps(folder: Path) -> list[str]:
    """Those that the table has a row for."""
    return [row.split(",")[0] for row in (folder / "log.csv").read_text().splitlines()]


def finish(folder: Path, times: int, longest: float, moments: random.Random) -> int:
    """Starts the run in a folder again and again, killed at most so often, until it is done; returns the kills."""
    kills = 0
    while True:
        run = start(folder)
        try:
            run.wait(moments.uniform(0.3, 1) * longest if kills < times else None)
        except subprocess.TimeoutExpired:
            run.kill()
            run.wait()
            kills += 1
            if (folder / "model.safetensors").exists() and not load_state(folder):
                return kills  # it was killed on its way out, with all done
            continue
        if run.returncode:
            raise SystemExit(f"after {kills} kills, in {folder}:\n{run.stdout.read().decode()}")
        return kills


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    moments, kills, runs = random.Random(args.seed), 0, 0
    with tempfile.TemporaryDirectory() as out:
        began, whole = time.monotonic(), Path(out) / "whole"
        finish(whole, 0, 0, moments)
        longest, wanted = time.monotonic() - began, weights(whole)
        while kills < args.times:
            folder = Path(out) / str(runs)
            kills, runs = kills + finish(folder, args.times - kills, longest, moments), runs + 1
            if not torch.equal(weights(folder), wanted):
                raise SystemExit(f"run {runs} ended with other weights, after {kills} kills in all")
            if steps(folder) != steps(whole):
                raise SystemExit(f"run {runs} has other rows in its table, after {kills} kills in all")
    print(f"{kills} kills in {runs} runs: each resumed, to the weights of the run that was not killed")


if __name__ == "__main__":
    main()
