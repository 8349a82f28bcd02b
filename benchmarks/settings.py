"""The recipe `tiny` beside what the Hugging Face diffusion course and others train, for equally many minutes of one
core.

    python benchmarks/settings.py run [NAME ...] [--minutes 1 3 10] [--seeds 0] [--workers 1]
    python benchmarks/settings.py table     # prints the table, draws docs/peers.png

Data, training loop, classifier, sampler (DDPM, 50 steps, x_0 clipped), scale 1, labels and seeds are the same for all:
see tinyddpm.evaluation.score. A minute is 60 seconds of the process's CPU time. Beside the distance the table has the
floor, that of as many real training digits. A run whose record exists (runs/settings/*.json) is not repeated.

The course's network (unit 2): diffusers.UNet2DModel, channels 32/64/64, two layers a block, attention at 14 and 7, a
label embedding of 4 channels concatenated to the image of 28x28, T = 1000, squared cosine, eps, Adam 1e-3, batch 128,
float32, no average of the weights. The course samples with 1000 steps of DDPM, which would take an hour here; `tiny`
was chosen by metrics on the same test set, the others were not.

Recipes with the settings of others compare settings, not programs: they train our network in our loop. Models without
labels have no accuracy.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from tinyddpm.datasets.named import torchvision_datasets
from tinyddpm.evaluation import score
from tinyddpm.files import writable_folder, write_whole
from tinyddpm.trainer import train
from tinyddpm.trainer.recipes import RECIPES, Recipe

HERE = Path(__file__).parent


class CourseNet(nn.Module):
    """The course's class-conditioned network, called as ours: t in 1..T, labels as numbers (0 where there are none)."""

    num_classes, arguments = 10, {}

    def __init__(self):
        super().__init__()
        torchvision_datasets()  # diffusers imports torchvision: this also works beside a torch for the CPU
        from diffusers import UNet2DModel

        self.label = nn.Embedding(10, 4)
        self.unet = UNet2DModel(
            sample_size=28,
            in_channels=5,
            out_channels=1,
            layers_per_block=2,
            block_out_channels=(32, 64, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        )

    def forward(self, x, t, y=None):
        label = self.label(torch.zeros_like(t) if y is None else y)
        return self.unet(torch.cat([x, label[:, :, None, None].expand(-1, -1, *x.shape[2:])], 1), t - 1).sample


COURSE = Recipe(
    schedule="cosine",
    predicts="eps",
    weights="none",
    label_drop=0.0,
    optimizer="adam",
    batch_size=128,
    learning_rate=1e-3,
    warmup=0,
    decay="none",
    grad_norm=None,
    ema_decay=0.0,
    image_size=28,
)
OTHERS = ("unconditional-300", "conditional-500", "unconditional-1000", "l1-1000", "large-1000")
PEERS = {  # name: (recipe, precision, network: None for the recipe's)
    "tiny": (RECIPES["tiny"], "no", None),
    "tiny, bf16": (RECIPES["tiny"], "bf16", None),
    "tiny, bf16, times logit-normal": (replace(RECIPES["tiny"], times="logit-normal"), "bf16", None),
    "course: UNet2DModel 32/64/64": (COURSE, "no", CourseNet),
    **{name: (RECIPES[name], "no", None) for name in OTHERS},
}


def settings(name: str) -> dict:
    """What tells a record of today's peer from one of another day."""
    return json.loads(json.dumps(asdict(PEERS[name][0])))


def core_seconds() -> float:
    return sum(os.times()[:4])


def one(name: str, minutes: float, n: int, seed: int, out: Path) -> None:
    """Trains and measures one peer; writes its record."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    started, (recipe, precision, network) = core_seconds(), PEERS[name]
    network = network and network()
    with tempfile.TemporaryDirectory() as folder:
        how = {"minutes": minutes, "seed": seed, "device": "cpu", "precision": precision}
        ddpm = train(recipe, folder, network=network, clock=core_seconds, **how)
    spent, images = (core_seconds() - started) / 60, ddpm.notes["steps"] * recipe.batch_size
    found = score(ddpm, n, sampler="ddpm")
    record = {
        "name": name,
        "recipe": settings(name),
        "minutes": minutes,
        "seed": seed,
        "images": images,
        "core minutes": spent,
        "images/s": images / spent / 60,
        "sampling ms": found.milliseconds,
        "n": n,
        "accuracy": found.accuracy,
        "distance": found.distance,
        "floor": found.floor_distance,
    }
    write_whole(
        writable_folder(out) / f"{file_name(name, minutes, n, seed)}.json", json.dumps(record, indent=1).encode()
    )
    print(record, flush=True)


def file_name(*parts: object) -> str:
    return "-".join(map(str, parts)).replace("/", "-").replace(" ", "_").replace(":", "")


def run_all(jobs: dict[str, Sequence[object]], script: str, workers: int, out: Path) -> bool:
    """Runs `python script one ARGUMENTS` for each job without a record, NAME: ARGUMENTS, in processes of one thread.
    Returns whether all succeeded."""
    out.mkdir(parents=True, exist_ok=True)

    def process(name: str) -> bool:
        command = [sys.executable, script, "one", *map(str, jobs[name]), "--out", str(out)]
        with open(out / f"{name}.log", "w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            ok = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode == 0
        print(f"{'done' if ok else f'FAILED, see {log.name}'}: {name}", flush=True)
        return ok

    with ThreadPoolExecutor(workers) as pool:
        return all(pool.map(process, [name for name in jobs if not (out / f"{name}.json").exists()]))


def pooled(records: list[dict]) -> dict:
    """The mean over seeds. The error is that of a share of all samples or, if it is larger, that of the seeds' mean."""
    keys = ("core minutes", "images/s", "distance", "sampling ms")
    mean = {key: statistics.mean(record[key] for record in records) for key in keys}
    n, seeds, error = records[0]["n"], len(records), None
    accuracies = [record["accuracy"] for record in records]
    if (accuracy := None if None in accuracies else statistics.mean(accuracies)) is not None:
        error = (accuracy * (1 - accuracy) / (n * seeds)) ** 0.5
        if seeds > 1:
            error = max(error, statistics.stdev(accuracies) / seeds**0.5)
    return {**records[0], "seeds": seeds, "accuracy": accuracy, "error": error, **mean}


def table(out: Path) -> None:
    runs = defaultdict(list)
    for path in out.glob("*.json"):
        record = json.loads(path.read_text())
        if record["name"] not in PEERS or record.get("recipe") != settings(record["name"]) or "floor" not in record:
            raise SystemExit(f"{path} is of another peer than today's {record['name']!r}: move it away")
        runs[list(PEERS).index(record["name"]), record["minutes"], record["n"]].append(record)
    records = [pooled(runs[key]) for key in sorted(runs)]
    print("| trained | minutes of one core | seeds | images/s | n | read as asked | distance | ms an image |")
    print("|---|---|---|---|---|---|---|---|")
    floors = {r["n"]: r["floor"] for r in records}
    for n, distance in sorted(floors.items()):
        print(f"| real digits | | | | {n} | | {distance:.2f} | |")
    for r in records:
        read = "no labels" if r["accuracy"] is None else f"{r['accuracy']:.1%} ± {r['error']:.1%}"
        row = [r["name"], f"{r['core minutes']:.1f}", r["seeds"], f"{r['images/s']:.0f}", r["n"], read]
        print("| " + " | ".join([*map(str, row), f"{r['distance']:.2f}", f"{r['sampling ms']:.0f}"]) + " |")
    plot(records, floors)


def plot(records: list[dict], floors: dict[int, float]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("accuracy", "distance")):
        for i, name in enumerate(PEERS):
            points = [(r["core minutes"], r[key]) for r in records if r["name"] == name and r[key] is not None]
            if points:
                axes.plot(*zip(*points), marker="o", color=f"C{i}", label=name)
        axes.set(xlabel="minutes of one core", title=key, xscale="log")
        axes.set_yscale("linear" if key == "accuracy" else "log")
        if key == "distance" and floors:
            axes.axhline(floors[max(floors)], ls="--", color="black", label=f"real digits, n = {max(floors)}")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.savefig(HERE.parent / "docs" / "peers.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run", "one", "table"])
    parser.add_argument("names", nargs="*", default=list(PEERS), help=f"among {', '.join(PEERS)}")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/settings"))
    args = parser.parse_args()
    if unknown := set(args.names) - set(PEERS):
        raise SystemExit(f"there is no peer {sorted(unknown)}: choose among {list(PEERS)}")
    if args.command == "one":
        one(args.names[0], args.minutes[0], args.n, args.seeds[0], args.out)
    elif args.command == "run":
        each = [(name, m, seed) for seed in args.seeds for m in args.minutes for name in args.names]
        jobs = {
            file_name(name, m, args.n, seed): (name, "--minutes", m, "--n", args.n, "--seeds", seed)
            for name, m, seed in each
        }
        sys.exit(not run_all(jobs, __file__, args.workers, args.out))
    else:
        table(args.out)


if __name__ == "__main__":
    main()
