"""Speed, always of two things in turns: absolute numbers depend on the machine, their ratio hardly does.

    python benchmarks/speed.py [--threads 1] [--batch 32] [--rounds 10]    # training, beside diffusers' UNet2DModel
    python benchmarks/speed.py before PATH [--rounds 10]                   # beside another checkout of tinyddpm
    python benchmarks/speed.py others [--batch 32] [--rounds 10]           # networks of other libraries: speed.md

The first trains `tiny` and what a course trains on MNIST: a UNet2DModel of channels 32/64/64 with two layers a block,
attention at 14 and 7 on images of 28x28, and 5 input channels (the image and a label embedding of 4).

`before` times training steps of `tiny`, calls of the shipped weights' denoiser, and sampling in 10 steps at guidance
scale 2, all on one thread: each checkout in a process of its own, of which one waits for the other.

`others` trains and calls, on one thread and on images of 32x32 with one channel, our networks and those of three other
libraries, each with the settings of its own README, example or tutorial for such images (lucidrains' is for any).
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
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


def training_step(net: torch.nn.Module, batch: int, side: int, bf16: bool = False) -> Callable[[], None]:
    """Forward, backward, clip and Adam, as a function."""
    optimizer = torch.optim.Adam(net.parameters(), fused=True)
    t, y, x = torch.randint(1, 1001, (batch,)), torch.randint(0, 10, (batch,)), torch.randn(batch, 1, side, side)

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = (net(x, t, y) - x).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def tiny(recipe: str = "tiny") -> torch.nn.Module:
    """The untrained network of the recipe, of this checkout or of one from before the trainer was a package."""
    try:
        from tinyddpm.trainer.recipes import RECIPES
    except ModuleNotFoundError:
        from tinyddpm.recipes import RECIPES
    network = RECIPES[recipe].network
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
    from settings import CourseNet

    torch.set_num_threads(threads)
    ours, theirs = training_step(tiny(), batch, 32), training_step(CourseNet(), batch, 28)
    ours(), theirs()
    seconds = [(timed(ours), timed(theirs)) for _ in range(rounds)]
    a, b = (batch / statistics.median(column) for column in zip(*seconds))
    ratio = statistics.median(theirs / ours for ours, theirs in seconds)
    print(f"tiny {a:.0f} images/s, UNet2DModel {b:.0f} images/s, ratio {ratio:.1f} ({threads} threads)")


class Foreign(torch.nn.Module):
    """A network of another library, called as ours, and embeddings of what it leaves to its caller."""

    def __init__(self, network: torch.nn.Module, call: Callable, **embeddings: torch.nn.Module):
        super().__init__()
        self.network, self.call, self.embeddings = network, call, torch.nn.ModuleDict(embeddings)

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.call(self.network, self.embeddings, x, t, y)


def lucidrains() -> torch.nn.Module:
    """As in the README, which has no labels."""
    from denoising_diffusion_pytorch import Unet

    net = Unet(dim=64, dim_mults=(1, 2, 4, 8), channels=1, flash_attn=True)
    return Foreign(net, lambda net, _, x, t, y: net(x, t))


def smalldiffusion() -> torch.nn.Module:
    """As in examples/fashion_mnist_dit_cond.py, but for the size of the images. It takes sigma, which t stands for."""
    from smalldiffusion import CondEmbedderLabel, DiT

    label = CondEmbedderLabel(32 * 6, 10, 0.1)
    net = DiT(in_dim=32, channels=1, patch_size=2, depth=6, head_dim=32, num_heads=6, mlp_ratio=4.0, cond_embed=label)
    return Foreign(net, lambda net, _, x, t, y: net(x, t / 1000, y))


def azula() -> torch.nn.Module:
    """As in the tutorial for MNIST, with its embeddings of the label and of the noise level."""
    from azula.nn.unet import UNet
    from torch.nn import Embedding, Linear, Sequential, SiLU

    net = UNet(1, 1, hid_channels=[16, 32, 64], hid_blocks=[2, 2, 2], mod_features=64)
    embeddings = {"y": Embedding(10, 64), "t": Sequential(Linear(1, 64), SiLU(), Linear(64, 64))}
    return Foreign(net, lambda net, embed, x, t, y: net(x, embed["y"](y) + embed["t"](t[:, None] / 1000)), **embeddings)


OTHERS = {  # our recipe, or the package of the index and its network
    "tiny (U-Net)": partial(tiny, "tiny"),
    "dit (DiT)": partial(tiny, "dit"),
    "denoising-diffusion-pytorch": lucidrains,
    "smalldiffusion": smalldiffusion,
    "azula": azula,
}
INSTALL = "pip install --no-deps denoising-diffusion-pytorch ema-pytorch pytorch-fid smalldiffusion azula"


def found_others() -> dict[str, torch.nn.Module]:
    """The networks, each with the release of its package in its name; says which are missing."""
    from tinyddpm.datasets.named import torchvision_datasets

    torchvision_datasets()  # the others import torchvision: this also works beside a torch for the CPU
    networks = {}
    for name, make in OTHERS.items():
        try:
            release = "" if isinstance(make, partial) else f" {version(name)}"
            networks[name + release] = make()
        except (ImportError, KeyError) as error:
            ours = isinstance(make, partial)
            print(f"left out: {name} ({error})" + ("" if ours else f"; to measure it, {INSTALL}"), file=sys.stderr)
    return networks


def flops(net: torch.nn.Module) -> float:
    """Of one call for one image, as torch counts them; a product and its sum are two."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 1, 32, 32), torch.ones(1, dtype=torch.long), torch.ones(1, dtype=torch.long))
    return counter.get_total_flops()


def beside_others(batch: int, rounds: int) -> None:
    torch.set_num_threads(1)
    networks, times = found_others(), {}
    tasks = {name: {} for name in networks}
    for name, net in networks.items():
        for bf16 in (False, True):
            tasks[name]["bf16" if bf16 else "float32"] = training_step(net, batch, 32, bf16)
        for b in (1, 10, 100):
            x, t, y = torch.randn(b, 1, 32, 32), torch.full((b,), 500), torch.arange(b) % 10
            tasks[name][b] = torch.no_grad()(partial(net, x, t, y))
        for run in tasks[name].values():
            run()
    for task in ("float32", "bf16", 1, 10, 100):
        turns = [{name: timed(tasks[name][task], 10 if task == 1 else 1) for name in networks} for _ in range(rounds)]
        times[task] = {name: statistics.median(turn[name] for turn in turns) for name in networks}
        first = next(iter(networks))
        times[f"{task} ratio"] = {
            name: statistics.median(turn[name] / turn[first] for turn in turns) for name in networks
        }
    print("| | parameters | GFLOPs an image | training, images/s | with bf16 | ms a call of 1 | of 10 | of 100 |")
    print("|---|---|---|---|---|---|---|---|")
    for name, net in networks.items():
        size = sum(p.numel() for p in net.parameters() if p.requires_grad) / 1e6
        row = [name, f"{size:.2f} M", f"{flops(net.eval()) / 1e9:.3f}"]
        row += [
            f"{batch / times[task][name]:.0f} (x {times[f'{task} ratio'][name]:.2f})" for task in ("float32", "bf16")
        ]
        row += [f"{1000 * times[b][name]:.0f} (x {times[f'{b} ratio'][name]:.2f})" for b in (1, 10, 100)]
        print(f"| {' | '.join(row)} |")
    print("\nx: how many times as long as the first row, the median over rounds.")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", nargs="?", choices=["diffusers", "before", "others", "worker"], default="diffusers")
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
    elif args.command == "others":
        beside_others(args.batch, args.rounds)
    else:
        beside_diffusers(args.threads, args.batch, args.rounds)


if __name__ == "__main__":
    main()
