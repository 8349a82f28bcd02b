"""What was tried for the recipe `tiny`, one change at a time, each for as many minutes of one core.

    python benchmarks/ablations.py run [NAME ...] [--seeds 0] [--workers 2]
    python benchmarks/ablations.py table     # writes benchmarks/ablations.md

Every run is a process of its own with one thread. Its time is that process's own CPU time from the third
step on, so that neither a busy machine nor torch.compile's start decides anything. A run that is there
already is not run again.
"""

import argparse
import dataclasses
import functools
import json
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from peers import floors
from torch.utils.data import Dataset

import tinyddpm.trainer.trainer
from tinyddpm import DDPM, q_sample, v_from
from tinyddpm.data import mnist
from tinyddpm.diffusion import eps_from_x_0
from tinyddpm.evaluation.classifier import features, load_classifier
from tinyddpm.evaluation.metrics import frechet_digit_distance, label_accuracy
from tinyddpm.files import write_whole
from tinyddpm.nn.conv import WeightStandardizedConv2d
from tinyddpm.nn.resnet import ResnetBlock
from tinyddpm.schedules import BETAS, cosine_betas
from tinyddpm.trainer.recipes import RECIPES, Recipe

HERE = Path(__file__).parent
N = 1000  # samples that each run is judged by
Adam = torch.optim.Adam  # as it is before a trial changes it


@dataclasses.dataclass(frozen=True)
class Trial(Recipe):
    """A recipe, and the changes that are not worth a place in one."""

    standardized: bool = True  # the convolutions' weights
    additive: bool = False  # the condition shifts and does not scale
    dropout: float = 0.0
    moved: int = 0  # pixels that a digit is moved by, at most
    beta2: float = 0.999

    def network(self, image_shape=(1, 32, 32)):
        net = super().network(image_shape)
        for block in [m for m in net.modules() if isinstance(m, ResnetBlock)]:
            if not self.standardized:
                for half in (block.block1, block.block2):
                    half.conv = plain(half.conv)
            if self.additive:
                block.modulation.register_forward_hook(no_scale)
            if self.dropout:
                block.block2.register_forward_pre_hook(dropping(self.dropout))
        return net


def plain(conv: WeightStandardizedConv2d) -> torch.nn.Conv2d:
    return torch.nn.Conv2d(conv.in_channels, conv.out_channels, 3, padding=1)


def no_scale(module, arguments, out):
    scale, shift = out.chunk(2, dim=1)
    return torch.cat([torch.zeros_like(scale), shift], dim=1)


def dropping(p):
    return lambda module, arguments: (F.dropout(arguments[0], p, module.training), *arguments[1:])


class Moved(Dataset):
    """Digits, each moved by up to `by` pixels each way, another way each time."""

    def __init__(self, data: Dataset, by: int):
        self.data, self.by = data, by

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        x, y = self.data[i]
        dx, dy = torch.randint(-self.by, self.by + 1, (2,)).tolist()
        return x.roll((dx, dy), (-2, -1)), y


V = {"predicts": "v", "attention": (8, 4)}  # where the search began
FIRST = {
    "v": {},
    "v, Adam 2e-3": {"optimizer": "adam", "learning_rate": 2e-3},
    "v, Adam 4e-3": {"optimizer": "adam", "learning_rate": 4e-3},
    "v, learning rate 1e-2": {"learning_rate": 1e-2},
    "v, learning rate 2.5e-3": {"learning_rate": 2.5e-3},
    "v, batch 128": {"batch_size": 128},
    "v, batch 32": {"batch_size": 32},
    "v, shift 1": {"schedule": "cosine"},
    "v, shift 0.25": {"schedule": "cosine-shift-0.25"},
    "v, shift 0.25, attention at 4": {"schedule": "cosine-shift-0.25", "attention": (4,)},
    "v, width 24/48/96": {"dims": (24, 48, 96)},
    "v, width 48/96/144": {"dims": (48, 96, 144)},
    "v, attention at 4": {"attention": (4,)},
    "v, two blocks a level": {"blocks": 2},
    "v, label drop 0.05": {"label_drop": 0.05},
    "v, plain convolutions": {"standardized": False},
    "v, weights min-snr": {"weights": "min-snr"},
    "eps": {"predicts": "eps"},
    "x_0": {"predicts": "x_0"},
}
X_0 = {"weights": "none"}  # what the second round changes
SECOND = {
    "x_0, weight 1": {},
    "shift 1": {"schedule": "cosine"},
    "shift 0.25": {"schedule": "cosine-shift-0.25"},
    "shift 0.25, learning rate 1e-2": {"schedule": "cosine-shift-0.25", "learning_rate": 1e-2},
    "shift 0.25, width 24/48/96": {"schedule": "cosine-shift-0.25", "dims": (24, 48, 96)},
    "schedule linear": {"schedule": "linear"},
    "schedule sigmoid": {"schedule": "sigmoid"},
    "Adam 4e-3": {"optimizer": "adam", "learning_rate": 4e-3},
    "learning rate 1e-2": {"learning_rate": 1e-2},
    "learning rate 2.5e-3": {"learning_rate": 2.5e-3},
    "batch 32": {"batch_size": 32},
    "batch 128": {"batch_size": 128},
    "width 24/48/96": {"dims": (24, 48, 96)},
    "width 48/96/144": {"dims": (48, 96, 144)},
    "two blocks a level": {"blocks": 2},
    "four levels 32/64/96/128": {"dims": (32, 64, 96, 128)},
    "patch 1, 16/32/64/128": {"patch": 1, "dims": (16, 32, 64, 128)},
    "attention none": {"attention": ()},
    "attention at 16, 8, 4": {"attention": (16, 8, 4)},
    "plain convolutions": {"standardized": False},
    "condition added, not scaled": {"additive": True},
    "times stratified": {"times": "stratified"},
    "times logit-normal": {"times": "logit-normal"},
    "weights min-snr": {"weights": "min-snr"},
    "loss huber": {"loss": "huber"},
    "label drop 0.05": {"label_drop": 0.05},
    "dropout 0.1": {"dropout": 0.1},
    "moved by up to 1 pixel": {"moved": 1},
    "EMA 0.99": {"ema_decay": 0.99},
    "EMA 0.9999": {"ema_decay": 0.9999},
    "warm-up 500": {"warmup": 500},
    "decay linear": {"decay": "linear"},
    "no decay": {"decay": "none"},
    "Adam's beta2 0.99": {"beta2": 0.99},
}
THIRD = {
    "tiny: x_0, SNR held in [1, 5]": {},
    "x_0, weight 1, 4 minutes": {"weights": "none"},
    "v, SNR held in [1, 5]": {"predicts": "v"},
    "10, then 100, then all times": {"grow": (10, 100)},
    "tiny, times logit-normal": {"times": "logit-normal"},
    "tiny, times half logit-normal": {"times": "half-logit-normal"},
    "tiny, times Beta(2, 2)": {"times": "beta"},
}
ROUNDS = {  # title: (what each trial has, what it changes, minutes)
    "First round: from v": (V | {"weights": "none"}, FIRST, 2.0),
    "Second round: from x_0 with weight 1": (X_0, SECOND, 2.0),
    "Third round: from tiny, for longer": ({}, THIRD, 4.0),
}
VARIANTS = {name: base | change for base, changes, _ in ROUNDS.values() for name, change in changes.items()}
MINUTES = {name: minutes for _, changes, minutes in ROUNDS.values() for name in changes}


def trial_of(name: str) -> Trial:
    return Trial(**{**dataclasses.asdict(RECIPES["tiny"]), **VARIANTS[name]})


def as_json(trial: Trial) -> dict:
    """What tells trials apart: all but the epochs, since minutes end a trial."""
    return json.loads(json.dumps({**dataclasses.asdict(trial), "epochs": None}))


def run_trial(name: str, seed: int, out: Path) -> None:
    """Trains and measures one variant; writes out/NAME-SEED.json."""
    minutes = MINUTES[name]
    torch.set_num_threads(1)
    BETAS["cosine-shift-0.25"] = functools.partial(cosine_betas, shift=0.25)
    trial = trial_of(name)
    data = mnist()
    data = Moved(data, trial.moved) if trial.moved else data
    patch_training(trial)
    folder = out / file_name(name, seed)
    how = {"minutes": minutes, "seed": seed, "device": "cpu", "precision": "bf16", "compile": True}
    ddpm = tinyddpm.trainer.trainer.train(trial, folder, data, fresh=True, **how)
    record = {"trial": as_json(trial), "name": name, "seed": seed, "minutes": minutes, "steps": ddpm.notes["steps"]}
    record["images"] = ddpm.notes["steps"] * trial.batch_size
    record |= measure(ddpm)
    write_whole(out / f"{folder.name}.json", json.dumps(record).encode())
    print(record, flush=True)


DRAWS = {  # of shares of T, beside those that a recipe may name
    # one in each n-th part (Kingma et al. 2021, appendix I.1)
    "stratified": lambda n, g: (torch.rand(1, generator=g) + torch.arange(n) / n) % 1,
    "beta": lambda n, g: torch.rand(3, n, generator=g).median(0).values,  # Beta(2, 2)
}


def patch_training(trial: Trial) -> None:
    """What a Trial changes in the loop itself, and a clock of CPU time."""
    if trial.times in DRAWS:

        def draw_times(n, T, generator, *_):
            share = DRAWS[trial.times](n, generator)
            return (share * T).ceil().long().clamp(1, T)

        tinyddpm.trainer.step.draw_times = draw_times

    torch.optim.Adam = functools.partial(Adam, betas=(0.9, trial.beta2))

    def elapsed(clock):
        if clock.steps <= 3:
            clock.started = time.process_time()
        return (time.process_time() - clock.started) / 60

    tinyddpm.trainer.clock.Clock.elapsed = elapsed


def measure(ddpm: DDPM, n: int = N, steps: int = 20) -> dict:
    y = torch.arange(10).repeat(n // 10)
    parts = zip(y.split(200), torch.arange(n).split(200))
    x = torch.cat([ddpm.sample(part, steps=steps, seeds=seeds.tolist()) for part, seeds in parts])
    classifier = load_classifier()
    test = mnist(train=False)
    real = torch.stack([test[i][0] for i in range(len(test))])
    return {
        "accuracy": label_accuracy(classifier, x, y),
        "distance": frechet_digit_distance(features(classifier, x), features(classifier, real)),
        "v error": v_error(ddpm, real[:1000], test.labels[:1000]),
    }


@torch.no_grad()
def v_error(ddpm: DDPM, x_0: torch.Tensor, y: torch.Tensor) -> float:
    """The mean squared error in v at log-SNRs even in [-8, 8], the same noise for every model: one yardstick
    for every prediction, schedule and weight."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.linspace(-8, 8, len(x_0), dtype=torch.float64)
    t = (ddpm.schedule.log_snr[1:][None] - wanted[:, None]).abs().argmin(1) + 1
    eps = torch.randn(x_0.shape, generator=generator)
    x_t = q_sample(x_0, t, eps, ddpm.schedule)
    x_0_hat = torch.cat([ddpm.denoiser(part[2])(*part[:2]) for part in zip(x_t.split(200), t.split(200), y.split(200))])
    v_hat = v_from(x_0_hat, eps_from_x_0(x_0_hat, x_t, t, ddpm.schedule), t, ddpm.schedule)
    return float((v_hat - v_from(x_0, eps, t, ddpm.schedule)).square().mean())


def run(args: argparse.Namespace) -> None:
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    names = args.names or list(VARIANTS)
    if unknown := set(names) - set(VARIANTS):
        raise SystemExit(f"there is no variant {sorted(unknown)}: choose among {list(VARIANTS)}")
    todo = [(name, seed) for seed in args.seeds for name in names]
    todo = [(n, s) for n, s in todo if not (out / f"{file_name(n, s)}.json").exists()]

    def one(trial: tuple[str, int]) -> bool:
        name, seed = trial
        with open(out / f"{file_name(name, seed)}.log", "w") as log:
            command = [sys.executable, __file__, "one", name, "--seeds", str(seed), "--out", str(out)]
            ok = subprocess.run(command, stdout=log, stderr=log).returncode == 0
        print(f"{'done' if ok else f'FAILED, see {log.name}'}: {name}, seed {seed}", flush=True)
        return ok

    with ThreadPoolExecutor(args.workers) as pool:
        sys.exit(not all(pool.map(one, todo)))


def file_name(name: str, seed: int) -> str:
    return f"{name.replace('/', '-').replace(' ', '_')}-{seed}"


def table(args: argparse.Namespace) -> None:
    """Writes benchmarks/ablations.md from the records in out."""
    found = defaultdict(list)
    for path in sorted(Path(args.out).glob("*.json")):
        record = json.loads(path.read_text())
        trial = as_json(Trial()) | record["trial"]  # what recipes did not have then is as it is by default
        if record["name"] not in VARIANTS or trial != as_json(trial_of(record["name"])):
            raise SystemExit(f"{path} is of another recipe than today's {record['name']!r}: move it away")
        if record["minutes"] != (minutes := MINUTES[record["name"]]):
            raise SystemExit(f"{path} had {record['minutes']} minutes, not {minutes}: move it away")
        found[record["name"]].append(record)
    lines = [HEAD.format(floor=floors({N})[N])]
    for title, (_, names, minutes) in ROUNDS.items():
        lines += [f"## {title} ({minutes:g} minutes each)", "", COLUMNS, "|---|---|---|---|---|---|"]
        for name in sorted(set(names) & set(found), key=lambda name: mean(found[name], "distance")):
            records = found[name]
            cells = [name, str(len(records)), f"{mean(records, 'images') / 1000:.0f}"]
            cells += [spread(records, *column) for column in (("accuracy", 100, 1), ("distance", 1, 2))]
            lines.append("| " + " | ".join([*cells, f"{mean(records, 'v error'):.3f}"]) + " |")
        lines += ["", f"Not tried yet: {'; '.join(name for name in names if name not in found) or 'none'}.", ""]
    (HERE / "ablations.md").write_text("\n".join(lines))


HEAD = """# What was tried for the recipe `tiny`

Made by `python benchmarks/ablations.py run`, then `table`. Each run has so many minutes of CPU time on one
core, in bf16 and compiled, the compiler's own time not counted; then 1,000 samples of 20 DDIM steps at
guidance scale 1. *Read* is the share that the classifier reads as asked (standard error of one run: about 1
point), *distance* the Frechet digit distance to the test set (as many real training digits have {floor:.2f}),
*v error* the mean squared error in v on test digits at log-SNRs even in [-8, 8]. Each row changes the recipe
that its round began with (`v`; `x_0, weight 1`; `tiny`) by what it names; rows are ordered by distance. With
several seeds: mean and standard deviation. One seed's distance differs from the next one's by 0.03: smaller
gaps between rows of one seed say nothing.
"""
COLUMNS = "| change | seeds | 1,000 images | read, % | distance | v error |"


def mean(records: list[dict], key: str) -> float:
    return statistics.mean(record[key] for record in records)


def spread(records: list[dict], key: str, factor: float, digits: int) -> str:
    values = [factor * record[key] for record in records]
    wide = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{wide}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run", "one", "table"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="runs/ablations")
    args = parser.parse_args()
    if args.command == "one":
        run_trial(args.names[0], args.seeds[0], Path(args.out))
    else:
        {"run": run, "table": table}[args.command](args)


if __name__ == "__main__":
    main()
