"""The recipe `tiny` beside what the Hugging Face diffusion course trains: as many minutes of one core each.

    python benchmarks/peers.py run [NAME ...] [--minutes 1 3 10] [--workers 1]
    python benchmarks/peers.py table     # prints the table, draws benchmarks/peers.png

Data, classifier, sampler (DDIM, 50 steps, x_0 clipped), scale 1 and seeds are the same for all. A minute
is 60 seconds of CPU time of the process and its children, so torch.compile's own work counts. A run
that is there already (runs/peers/*.json) is not run again.

The course's network (unit 2): diffusers.UNet2DModel, channels 32/64/64, two layers a block, attention at
14 and 7, a label embedding of 4 channels joined to the image of 28x28, T = 1000, squared cosine, eps,
Adam 1e-3, batch 128, float32. The course samples with 1000 steps of DDPM.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import tinyddpm.train
from tinyddpm import DDPM, Schedule, clip_x_0, ddim, last, make_denoiser, q_sample
from tinyddpm.classifier import features, load_classifier
from tinyddpm.data import crop_to, mnist, pad_to, torchvision_datasets
from tinyddpm.metrics import frechet_digit_distance, label_accuracy
from tinyddpm.samplers import noise_like

HERE = Path(__file__).parent
COURSE = "course: UNet2DModel 32/64/64"
PEERS = {  # name: (recipe, precision, compile)
    "tiny": ("tiny", "no", False),
    "tiny, bf16, compiled": ("tiny", "bf16", True),
    COURSE: None,
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


def core_minutes() -> float:
    return sum(os.times()[:4]) / 60


def train_ours(recipe: str, precision: str, compile: bool, minutes: float) -> tuple:
    started = core_minutes()
    tinyddpm.train.Clock.elapsed = lambda clock: core_minutes() - started
    with tempfile.TemporaryDirectory() as out:
        ddpm = tinyddpm.train.train(
            recipe, out, minutes=minutes, device="cpu", precision=precision, compile=compile
        )
    return ddpm, ddpm.notes["steps"] * ddpm.notes["batch_size"]


def train_course(minutes: float) -> tuple:
    torch.manual_seed(0)
    (x, y), schedule, net = mnist().tensors(), Schedule.named("cosine", 1000), CourseNet()
    x = crop_to(x)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    started, seen = core_minutes(), 0
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
    """Images (b, 1, 32, 32) by 50 steps of DDIM, one seed each."""
    if isinstance(model, DDPM):
        return model.sample(y, steps=steps, seeds=seeds.tolist())
    net, schedule = model
    generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
    denoiser = clip_x_0(make_denoiser(net, schedule, "eps", y))
    x_T = noise_like(torch.empty(len(y), 1, 28, 28), generators)
    return pad_to(last(ddim(denoiser, x_T, schedule, schedule.grid(steps))).x_t)


def one(name: str, minutes: float, n: int, out: Path) -> None:
    torch.set_num_threads(1)
    started = time.perf_counter()
    model, seen = train_course(minutes) if PEERS[name] is None else train_ours(*PEERS[name], minutes)
    trained = time.perf_counter()
    y = torch.arange(n) % 10
    parts = list(zip(y.split(100), torch.arange(n).split(100)))
    before = core_minutes()
    x = torch.cat([sampled(model, *part) for part in parts])
    milliseconds = (core_minutes() - before) * 60_000 / n
    classifier, (real, _) = load_classifier(), mnist(train=False).tensors()
    record = {
        "name": name,
        "minutes": minutes,
        "images": seen,
        "images/s": seen / minutes / 60,
        "sampling ms": milliseconds,
        "n": n,
        "accuracy": label_accuracy(classifier, x, y),
        "distance": frechet_digit_distance(features(classifier, x), features(classifier, real[:n])),
        "wall minutes": (trained - started) / 60,
    }
    (out / f"{file_name(name, minutes)}.json").write_text(json.dumps(record, indent=1))
    print(record, flush=True)


def file_name(name: str, minutes: float) -> str:
    return f"{name.replace('/', '-').replace(' ', '_').replace(':', '')}-{minutes:g}"


def run(names: list[str], minutes: list[float], n: int, workers: int, out: Path) -> None:
    def process(job: tuple[str, float]) -> None:
        name, length = job
        with tempfile.TemporaryDirectory() as cache, open(out / f"{file_name(*job)}.log", "w") as log:
            environment = {"TORCHINDUCTOR_CACHE_DIR": cache, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
            environment = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
            command = [sys.executable, __file__, "one", name, "--minutes", str(length), "--n", str(n)]
            subprocess.run([*command, "--out", str(out)], stdout=log, stderr=log, env=environment)
        print(f"done: {name}, {length:g} minutes", flush=True)

    jobs = [(name, length) for length in minutes for name in names]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(process, [job for job in jobs if not (out / f"{file_name(*job)}.json").exists()]))


def table(out: Path) -> None:
    from matplotlib.figure import Figure

    records = [json.loads(path.read_text()) for path in out.glob("*.json")]
    records.sort(key=lambda record: (list(PEERS).index(record["name"]), record["minutes"]))
    print("| trained | minutes of one core | images/s | read as asked | distance | ms an image |")
    print("|---|---|---|---|---|---|")
    for r in records:
        row = [r["name"], f"{r['minutes']:g}", f"{r['images/s']:.0f}", f"{r['accuracy']:.1%}"]
        print("| " + " | ".join([*row, f"{r['distance']:.2f}", f"{r['sampling ms']:.0f}"]) + " |")
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), ("accuracy", "distance")):
        for name in PEERS:
            points = [(r["minutes"], r[key]) for r in records if r["name"] == name]
            if points:
                axes.plot(*zip(*points), marker="o", label=name)
        axes.set(xlabel="minutes of one core", title=key, xscale="log")
        axes.set_yscale("linear" if key == "accuracy" else "log")
        axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(HERE / "peers.png", dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run", "one", "table"])
    parser.add_argument("names", nargs="*", default=[], help=f"among {', '.join(PEERS)}")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 3.0, 10.0])
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if unknown := set(args.names) - set(PEERS):
        raise SystemExit(f"there is no peer {sorted(unknown)}: choose among {list(PEERS)}")
    if args.command == "one":
        one(args.names[0], args.minutes[0], args.n, args.out)
    elif args.command == "run":
        run(args.names or list(PEERS), args.minutes, args.n, args.workers, args.out)
    else:
        table(args.out)


if __name__ == "__main__":
    main()
