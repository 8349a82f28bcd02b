"""Speed, always of two things in turns: absolute numbers depend on the machine, their ratio hardly does.

    python benchmarks/speed.py [--threads 1] [--batch 32] [--rounds 10]    # training, beside diffusers' UNet2DModel
    python benchmarks/speed.py before PATH [--rounds 10]                   # beside another checkout of tinyddpm

The first trains `tiny` and what a course trains on MNIST: a UNet2DModel of channels 32/64/64 with two layers a block,
attention at 14 and 7 on images of 28x28, and 5 input channels (the image and a label embedding of 4).

`before` times training steps of `tiny`, calls of the shipped weights' denoiser, and sampling in 10 steps at guidance
scale 2, all on one thread: each checkout in a process of its own, of which one waits for the other.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

HERE = Path(__file__).resolve()
TASKS = {  # name: (what is timed, batch, repetitions)
    "training, batch 32": ("training", 32, 8),
    "training, batch 64": ("training", 64, 4),
    "denoiser, batch 10": ("denoiser", 10, 20),
    "denoiser, batch 100": ("denoiser", 100, 3),
    "sample, 10 digits": ("sample", 10, 2),
    "sample, 100 digits": ("sample", 100, 1),
}


def timed(run: Callable[[], object], repetitions: int = 1) -> float:
    """Seconds of one call: of CPU time on one thread, which a busy machine hardly changes, else of the clock."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    started = clock()
    for _ in range(repetitions):
        run()
    return (clock() - started) / repetitions


def training_step(net: torch.nn.Module, batch: int, side: int) -> Callable[[], None]:
    """Forward, backward, clip and Adam, as a function."""
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    t, y, x = torch.randint(1, 1001, (batch,)), torch.randint(0, 10, (batch,)), torch.randn(batch, 1, side, side)

    def step() -> None:
        (net(x, t, y) - x).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def tiny() -> torch.nn.Module:
    """The untrained network of the recipe, of this checkout or of one from before the trainer was a package."""
    try:
        from tinyddpm.trainer.recipes import RECIPES
    except ModuleNotFoundError:
        from tinyddpm.recipes import RECIPES
    network = RECIPES["tiny"].network
    return network.build((1, 32, 32), 10) if hasattr(network, "build") else network()


def task(what: str, batch: int) -> Callable[[], object]:
    if what == "training":
        return training_step(tiny(), batch, 32)
    from tinyddpm import load_pretrained

    ddpm, y = load_pretrained(), torch.arange(batch) % 10
    if what == "sample":
        return partial(ddpm.sample, y, steps=10, scale=2.0, seeds=range(batch))
    x_t, t = torch.randn(batch, 1, 32, 32), torch.full((batch,), 500)
    return torch.no_grad()(partial(ddpm.denoiser(y), x_t, t))


def worker() -> None:
    """Says where tinyddpm comes from; then times the task that each line of the input names."""
    import tinyddpm

    torch.set_num_threads(1)
    print(Path(tinyddpm.__file__).resolve().parent.parent, flush=True)
    runs = {}
    for name in map(str.strip, sys.stdin):
        what, batch, repetitions = TASKS[name]
        if name not in runs:
            runs[name] = task(what, batch)
            runs[name]()
        print(timed(runs[name], repetitions), flush=True)


def start(checkout: Path) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, str(HERE), "worker"], env=environment, **pipes)
    if (found := process.stdout.readline().strip()) != str(checkout):
        raise SystemExit(f"{checkout} holds no tinyddpm: the worker imported it from {found or 'nowhere'}")
    return process


def ask(process: subprocess.Popen, name: str) -> float:
    print(name, file=process.stdin, flush=True)
    if not (seconds := process.stdout.readline()):
        raise SystemExit(f"a worker ended in {name!r}, with status {process.wait()}")
    return float(seconds)


def before(path: Path, rounds: int) -> None:
    pair = [start(HERE.parent.parent), start(path.resolve())]
    print("| | here, ms | before, ms | before / here | images/s here |")
    print("|---|---|---|---|---|")
    for name, (_, batch, _) in TASKS.items():
        times = [[ask(process, name) for process in pair] for _ in range(rounds)]
        here, there = (statistics.median(column) for column in zip(*times))
        row = name, f"{1000 * here:.1f}", f"{1000 * there:.1f}", f"{there / here:.2f}", f"{batch / here:.0f}"
        print(f"| {' | '.join(row)} |", flush=True)
    for process in pair:
        process.stdin.close()
        process.wait()


def beside_diffusers(threads: int, batch: int, rounds: int) -> None:
    from peers import CourseNet

    torch.set_num_threads(threads)
    ours, theirs = training_step(tiny(), batch, 32), training_step(CourseNet(), batch, 28)
    ours(), theirs()
    seconds = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    a, b = (batch / statistics.median(column) for column in zip(*seconds))
    ratio = statistics.median(theirs / ours for ours, theirs in seconds)
    print(f"tiny {a:.0f} images/s, UNet2DModel {b:.0f} images/s, ratio {ratio:.1f} ({threads} threads)")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", nargs="?", choices=["diffusers", "before", "worker"], default="diffusers")
    parser.add_argument("path", nargs="?", type=Path, help="of the other checkout")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    if args.command == "worker":
        worker()
    elif args.command == "before":
        if args.path is None:
            parser.error("before needs the PATH of another checkout")
        before(args.path, args.rounds)
    else:
        beside_diffusers(args.threads, args.batch, args.rounds)


if __name__ == "__main__":
    main()
