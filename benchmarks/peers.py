"""The recipe `tiny` beside what the Hugging Face diffusion course and others train: as many minutes of one
core each.

    python benchmarks/peers.py run [NAME ...] [--minutes 1 3 10] [--seeds 0] [--workers 1]
    python benchmarks/peers.py table     # prints the table, draws benchmarks/peers.png

Data, classifier, sampler (DDPM, 50 steps, x_0 clipped), scale 1 and seeds are the same for all. A minute
is 60 seconds of the process's CPU time, from before the data are read. The distance is to all test digits;
the table has beside it what real training digits of the same number and labels have, the floor. A run that
is there already (runs/peers/*.json) is not run again.

The course's network (unit 2): diffusers.UNet2DModel, channels 32/64/64, two layers a block, attention at
14 and 7, a label embedding of 4 channels joined to the image of 28x28, T = 1000, squared cosine, eps,
Adam 1e-3, batch 128, float32, no average of the weights. The course samples with 1000 steps of DDPM,
which would take an hour here; `tiny` was chosen by figures on the same test set, the others were not.

The recipes that state what others train are settings of theirs in our network and our loop: they compare
the settings, not the programs. Those without labels have no digit to be read as.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import tinyddpm.trainer.trainer
from tinyddpm import DDPM, Schedule, clip_x_0, last, make_denoiser, p_sample_loop, q_sample
from tinyddpm.data import crop_to, mnist, pad_to
from tinyddpm.datasets.named import torchvision_datasets
from tinyddpm.evaluation.classifier import features, load_classifier
from tinyddpm.evaluation.metrics import frechet_digit_distance, label_accuracy
from tinyddpm.files import write_whole
from tinyddpm.samplers import noise_like
from tinyddpm.trainer.recipes import RECIPES, Recipe, get_recipe

HERE = Path(__file__).parent
COURSE = "course: UNet2DModel 32/64/64"
MIDDLE = "tiny, bf16, times logit-normal"
PEERS = {  # name: (recipe, precision)
    "tiny": ("tiny", "no"),
    "tiny, bf16": ("tiny", "bf16"),
    MIDDLE: (dataclasses.replace(RECIPES["tiny"], times="logit-normal"), "bf16"),
    COURSE: None,
    **{name: (name, "no") for name in RECIPES if name not in ("tiny", "nano")},
}


class CourseNet(nn.Module):
    """The course's class-conditioned network, called as ours: t in 1..T, labels as numbers."""

    def __init__(self):
        super().__init__()
        torchvision_datasets()  # diffusers imports torchvision: this door opens beside a torch for the CPU
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

    def forward(self, x, t, y):
        label = self.label(y)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.unet(torch.cat([x, label], 1), t - 1).sample


def settings(name: str) -> dict | None:
    """What tells a record of today's peer from one of another day."""
    return PEERS[name] and json.loads(json.dumps(dataclasses.asdict(get_recipe(PEERS[name][0]))))


def core_minutes() -> float:
    return sum(os.times()[:4]) / 60


def train_ours(recipe: Recipe | str, precision: str, minutes: float, seed: int) -> tuple:
    started = core_minutes()
    tinyddpm.trainer.clock.Clock.elapsed = lambda clock: core_minutes() - started
    with tempfile.TemporaryDirectory() as out:
        ddpm = tinyddpm.trainer.trainer.train(
            recipe, out, minutes=minutes, seed=seed, device="cpu", precision=precision
        )
    return ddpm, ddpm.notes["steps"] * ddpm.notes["batch_size"]


def train_course(minutes: float, seed: int) -> tuple:
    started, seen = core_minutes(), 0
    torch.manual_seed(seed)
    (x, y), schedule, net = mnist().tensors(), Schedule.named("cosine", 1000), CourseNet()
    x = crop_to(x)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    while core_minutes() - started < minutes:
        for chosen in torch.randperm(len(x)).split(128):
            t = torch.randint(1, 1001, (len(chosen),))
            eps = torch.randn_like(x[chosen])
            loss = F.mse_loss(net(q_sample(x[chosen], t, eps, schedule), t, y[chosen]), eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += len(chosen)
            if core_minutes() - started >= minutes:
                break
    return (net.eval(), schedule), seen


def sampled(model, y: torch.Tensor, seeds: torch.Tensor, steps: int = 50) -> torch.Tensor:
    """Images (b, 1, 32, 32) by 50 steps of DDPM, one seed each."""
    if isinstance(model, DDPM):
        what = {"n": len(y)} if model.model.num_classes is None else {"y": y}
        return pad_to(model.sample(**what, steps=steps, sampler="ddpm", seeds=seeds.tolist()))
    net, schedule = model
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    denoiser = clip_x_0(make_denoiser(net, schedule, "eps", y))
    x_T = noise_like(torch.empty(len(y), 1, 28, 28), generators)
    walk = p_sample_loop(denoiser, x_T, schedule, schedule.grid(steps), generator=generators)
    return pad_to(last(walk).x_t)


def one(name: str, minutes: float, n: int, seed: int, out: Path) -> None:
    torch.set_num_threads(1)
    started = core_minutes()
    model, seen = train_course(minutes, seed) if PEERS[name] is None else train_ours(*PEERS[name], minutes, seed)
    spent = core_minutes() - started
    y = torch.arange(n) % 10
    parts = list(zip(y.split(100), torch.arange(n).split(100)))
    before = core_minutes()
    x = torch.cat([sampled(model, *part) for part in parts])
    milliseconds = (core_minutes() - before) * 60_000 / n
    classifier, (real, _) = load_classifier(), mnist(train=False).tensors()
    labelled = PEERS[name] is None or get_recipe(PEERS[name][0]).num_classes
    record = {
        "name": name,
        "recipe": settings(name),
        "minutes": minutes,
        "seed": seed,
        "images": seen,
        "core minutes": spent,
        "images/s": seen / spent / 60,
        "sampling ms": milliseconds,
        "n": n,
        "accuracy": label_accuracy(classifier, x, y) if labelled else None,
        "distance": frechet_digit_distance(features(classifier, x), features(classifier, real)),
    }
    write_whole(out / f"{file_name(name, minutes, n, seed)}.json", json.dumps(record, indent=1).encode())
    print(record, flush=True)


def file_name(name: str, minutes: float, n: int, seed: int) -> str:
    return f"{name.replace('/', '-').replace(' ', '_').replace(':', '')}-{minutes:g}-{n}-{seed}"


def floors(numbers: set[int], draws: int = 5) -> dict[int, float]:
    """n: the distance of n real training digits, as many of each, to the test digits; the mean of draws."""
    classifier, (x, y), (real, _) = load_classifier(), mnist().tensors(), mnist(train=False).tensors()
    real, found = features(classifier, real), {}
    for n in numbers:
        of_each = [(y == digit).nonzero()[:, 0] for digit in range(10)]
        generator = torch.Generator().manual_seed(0)
        distances = []
        for _ in range(draws):
            drawn = [places[torch.randperm(len(places), generator=generator)] for places in of_each]
            chosen = torch.stack([drawn[k % 10][k // 10] for k in range(n)])
            distances.append(frechet_digit_distance(features(classifier, x[chosen]), real))
        found[n] = statistics.mean(distances)
    return found


def run(names: list[str], minutes: list[float], n: int, seeds: list[int], workers: int, out: Path) -> bool:
    """Each peer for each number of minutes, in a process of its own. Returns whether all went well."""

    def process(job: tuple[str, float, int]) -> bool:
        name, length, seed = job
        log_path = out / f"{file_name(name, length, n, seed)}.log"
        with open(log_path, "w") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "one", name, "--minutes", str(length), "--n", str(n)]
            command += ["--seeds", str(seed), "--out", str(out)]
            ok = subprocess.run(command, stdout=log, stderr=log, env=environment).returncode == 0
        print(f"{'done' if ok else f'FAILED, see {log_path}'}: {name}, {length:g} minutes, seed {seed}", flush=True)
        return ok

    jobs = [(name, length, seed) for seed in seeds for length in minutes for name in names]
    with ThreadPoolExecutor(workers) as pool:
        todo = [job for job in jobs if not (out / f"{file_name(job[0], job[1], n, job[2])}.json").exists()]
        return all(pool.map(process, todo))


def pooled(records: list[dict]) -> dict:
    """The mean over seeds. The error is that of a share of all samples, or, where it is larger, that of the
    mean of the seeds."""
    keys = ("core minutes", "images/s", "distance", "sampling ms")
    mean = {key: statistics.mean(record[key] for record in records) for key in keys}
    n, seeds, error = records[0]["n"], len(records), None
    accuracies = [record["accuracy"] for record in records]
    if (accuracy := None if None in accuracies else statistics.mean(accuracies)) is not None:
        error = (accuracy * (1 - accuracy) / (n * seeds)) ** 0.5
        if seeds > 1:
            error = max(error, statistics.stdev(accuracies) / seeds**0.5)
    return {"name": records[0]["name"], "n": n, "seeds": seeds, "accuracy": accuracy, "error": error, **mean}


def table(out: Path) -> None:
    from matplotlib.figure import Figure

    runs = defaultdict(list)
    for path in out.glob("*.json"):
        record = json.loads(path.read_text())
        known = record["name"] in PEERS and "recipe" in record
        trained = record["recipe"] and dataclasses.asdict(Recipe()) | record["recipe"] if known else None
        if not known or json.loads(json.dumps(trained)) != settings(record["name"]):
            raise SystemExit(f"{path} is of another peer than today's {record['name']!r}: move it away")
        runs[list(PEERS).index(record["name"]), record["minutes"], record["n"]].append(record)
    records = [pooled(runs[key]) for key in sorted(runs)]
    floor = floors({r["n"] for r in records})
    print("| trained | minutes of one core | seeds | images/s | n | read as asked | distance | ms an image |")
    print("|---|---|---|---|---|---|---|---|")
    for n, distance in sorted(floor.items()):
        print(f"| real digits | | | | {n} | | {distance:.2f} | |")
    for r in records:
        read = "no labels" if r["accuracy"] is None else f"{r['accuracy']:.1%} ± {r['error']:.1%}"
        row = [r["name"], f"{r['core minutes']:.1f}", r["seeds"], f"{r['images/s']:.0f}", r["n"], read]
        print("| " + " | ".join([*map(str, row), f"{r['distance']:.2f}", f"{r['sampling ms']:.0f}"]) + " |")
    figure = Figure(figsize=(11, 3.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("accuracy", "distance")):
        for i, name in enumerate(PEERS):
            points = [(r["core minutes"], r[key]) for r in records if r["name"] == name and r[key] is not None]
            if points:
                axes.plot(*zip(*points), marker="o", color=f"C{i}", label=name)
        axes.set(xlabel="minutes of one core", title=key, xscale="log")
        axes.set_yscale("linear" if key == "accuracy" else "log")
        if key == "distance" and floor:
            axes.axhline(floor[max(floor)], ls="--", color="black", label=f"real digits, n = {max(floor)}")
        axes.grid(alpha=0.3)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize="small")
    figure.savefig(HERE / "peers.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run", "one", "table"])
    parser.add_argument("names", nargs="*", default=[], help=f"among {', '.join(PEERS)}")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    args = parser.parse_args()
    least = load_classifier().head.in_features + 1
    if args.n < least:
        raise SystemExit(f"the distance takes at least {least} samples, got --n {args.n}")
    args.out.mkdir(parents=True, exist_ok=True)
    if unknown := set(args.names) - set(PEERS):
        raise SystemExit(f"there is no peer {sorted(unknown)}: choose among {list(PEERS)}")
    if args.command == "one":
        one(args.names[0], args.minutes[0], args.n, args.seeds[0], args.out)
    elif args.command == "run":
        names = args.names or list(PEERS)
        sys.exit(not run(names, args.minutes, args.n, args.seeds, args.workers, args.out))
    else:
        table(args.out)


if __name__ == "__main__":
    main()
