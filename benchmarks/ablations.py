"""What was tried for the recipe `tiny`, one change at a time, for equally many minutes of one core.

    python benchmarks/ablations.py run [NAME ...] [--seeds 0] [--workers 2]
    python benchmarks/ablations.py table     # writes docs/ablations.md

Each run is a process of its own with one thread. Its time is that process's CPU time from the third step on, so that
neither a busy machine nor torch.compile's start decides anything. A run whose record exists is not repeated.
"""

import argparse
import json
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from settings import file_name, run_all
from torch import Generator, Tensor, nn
from torch.utils.data import Dataset

from tinyddpm import DDPM, cosine_betas, eps_from_x_0, q_sample, v_from
from tinyddpm.data import mnist
from tinyddpm.evaluation import score
from tinyddpm.files import writable_folder, write_whole
from tinyddpm.nn.resnet import ResnetBlock
from tinyddpm.schedules import BETAS
from tinyddpm.trainer import train
from tinyddpm.trainer.objectives import TIMES
from tinyddpm.trainer.optim import OPTIMIZERS, muon
from tinyddpm.trainer.recipes import RECIPES, Recipe

HERE = Path(__file__).parent


# --- what is tried besides the fields of a recipe: rows of its tables, other networks, other data ------


def stratified(n: int, T: int, generator: Generator, progress: float) -> Tensor:
    """One time in each n-th part of 1..T (Kingma et al. 2021, appendix I.1)."""
    u = (torch.rand(1, generator=generator) + torch.arange(n) / n) % 1
    return (u * T).ceil().long().clamp(1, T)


def beta(n: int, T: int, generator: Generator, progress: float) -> Tensor:
    """Times T u, u from Beta(2, 2)."""
    u = torch.rand(3, n, generator=generator).median(0).values
    return (u * T).ceil().long().clamp(1, T)


def muon_beta2(model: nn.Module, weight_decay: float, half: bool) -> torch.optim.Optimizer:
    optimizer = muon(model, weight_decay, half)
    for group in optimizer.param_groups:
        group["betas"] = (0.9, 0.99)
    return optimizer


BETAS["cosine-shift-0.25"] = partial(cosine_betas, shift=0.25)
TIMES |= {"stratified": stratified, "beta": beta}
OPTIMIZERS["muon, beta2 0.99"] = muon_beta2


def plain_convolutions(net: nn.Module) -> None:
    """Does not standardise the weights."""
    for block in blocks(net):
        for half in (block.block1, block.block2):
            half.conv = nn.Conv2d(half.conv.in_channels, half.conv.out_channels, 3, padding=1)


def shift_only(net: nn.Module) -> None:
    """Adds the condition, without a scale."""
    for block in blocks(net):
        block.modulation.register_forward_hook(without_scale)


def dropout(net: nn.Module) -> None:
    for block in blocks(net):
        block.block2.register_forward_pre_hook(drop_a_tenth)


def blocks(net: nn.Module) -> list[ResnetBlock]:
    return [module for module in net.modules() if isinstance(module, ResnetBlock)]


def without_scale(module, arguments, out):
    scale, shift = out.chunk(2, dim=1)
    return torch.cat([torch.zeros_like(scale), shift], dim=1)


def drop_a_tenth(module, arguments):
    return F.dropout(arguments[0], 0.1, module.training), *arguments[1:]


class Moved(Dataset):
    """Digits, each moved anew by up to a pixel each way."""

    num_classes = 10

    def __init__(self, data: Dataset):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, i):
        x, y = self.data[i]
        return x.roll(torch.randint(-1, 2, (2,)).tolist(), (-2, -1)), y


@dataclass(frozen=True)
class Trial:
    """A recipe, and the changes that are not worth a field in one."""

    recipe: Recipe = field(default_factory=Recipe)
    network: str | None = None  # a row of EDITS
    moved: bool = False


EDITS = {"plain convolutions": plain_convolutions, "shift only": shift_only, "dropout": dropout}


def trial(dims=None, patch=None, blocks=None, attention=None, network=None, moved=False, **fields) -> Trial:
    """`tiny` with these fields of its recipe or of its U-Net changed."""
    unet = {"dims": dims, "patch": patch, "blocks": blocks, "attention": attention}
    unet = {name: value for name, value in unet.items() if value is not None}
    tiny = RECIPES["tiny"]
    return Trial(replace(tiny, network=replace(tiny.network, **unet), **fields), network, moved)


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
    "v, plain convolutions": {"network": "plain convolutions"},
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
    "plain convolutions": {"network": "plain convolutions"},
    "condition added, not scaled": {"network": "shift only"},
    "times stratified": {"times": "stratified"},
    "times logit-normal": {"times": "logit-normal"},
    "weights min-snr": {"weights": "min-snr"},
    "loss huber": {"loss": "huber"},
    "label drop 0.05": {"label_drop": 0.05},
    "dropout 0.1": {"network": "dropout"},
    "moved by up to 1 pixel": {"moved": True},
    "EMA 0.99": {"ema_decay": 0.99},
    "EMA 0.9999": {"ema_decay": 0.9999},
    "warm-up 500": {"warmup": 500},
    "decay linear": {"decay": "linear"},
    "no decay": {"decay": "none"},
    "Adam's beta2 0.99": {"optimizer": "muon, beta2 0.99"},
}
THIRD = {
    "tiny: x_0, SNR held in [1, 5]": {},
    "x_0, weight 1, 4 minutes": {"weights": "none"},
    "v, SNR held in [1, 5]": {"predicts": "v"},
    "10, then 100, then all times": {"times": "progressive"},
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


def as_json(trial: Trial) -> dict:
    """What tells trials apart: all but the epochs, since minutes end a trial."""
    return json.loads(json.dumps(asdict(replace(trial, recipe=replace(trial.recipe, epochs=0)))))


class ClockFromThirdStep:
    """CPU time in seconds that stands still until the third step: the trainer asks once before the first step and once
    after each."""

    def __init__(self):
        self.asked = 0

    def __call__(self) -> float:
        self.asked += 1
        if self.asked <= 4:
            self.start = time.process_time()
        return time.process_time() - self.start


def run_trial(name: str, seed: int, out: Path) -> None:
    """Trains and measures one variant; writes out/NAME-SEED.json."""
    torch.set_num_threads(1)
    chosen, data, folder, network = trial(**VARIANTS[name]), mnist(), out / file_name(name, seed), None
    if chosen.network is not None:
        torch.manual_seed(seed)
        network = chosen.recipe.build((1, 32, 32))
        EDITS[chosen.network](network)
    data = Moved(data) if chosen.moved else data
    how = {"minutes": MINUTES[name], "seed": seed, "device": "cpu", "precision": "bf16", "compile": True}
    ddpm = train(chosen.recipe, folder, data, fresh=True, network=network, clock=ClockFromThirdStep(), **how)
    found, steps = score(ddpm, steps=20), ddpm.notes["steps"]
    record = {"trial": as_json(chosen), "name": name, "seed": seed, "minutes": MINUTES[name], "steps": steps}
    record |= {"images": steps * chosen.recipe.batch_size, "accuracy": found.accuracy, "distance": found.distance}
    test = mnist(train=False)[:1000]
    record |= {"floor": found.floor_distance, "v error": v_error(ddpm, *test)}
    write_whole(writable_folder(out) / f"{folder.name}.json", json.dumps(record).encode())
    print(record, flush=True)


@torch.no_grad()
def v_error(ddpm: DDPM, x_0: torch.Tensor, y: torch.Tensor) -> float:
    """The mean squared error in v at log-SNRs even in [-8, 8], with the same noise for every model: comparable between
    predictions, schedules and weights."""
    generator = torch.Generator().manual_seed(0)
    wanted = torch.linspace(-8, 8, len(x_0), dtype=torch.float64)
    t = (ddpm.schedule.log_snr[1:][None] - wanted[:, None]).abs().argmin(1) + 1
    eps = torch.randn(x_0.shape, generator=generator)
    x_t = q_sample(x_0, t, eps, ddpm.schedule)
    x_0_hat = torch.cat([ddpm.denoiser(part[2])(*part[:2]) for part in zip(x_t.split(200), t.split(200), y.split(200))])
    v_hat = v_from(x_0_hat, eps_from_x_0(x_0_hat, x_t, t, ddpm.schedule), t, ddpm.schedule)
    return float((v_hat - v_from(x_0, eps, t, ddpm.schedule)).square().mean())


def run(args: argparse.Namespace) -> None:
    names = args.names or list(VARIANTS)
    if unknown := set(names) - set(VARIANTS):
        raise SystemExit(f"there is no variant {sorted(unknown)}: choose among {list(VARIANTS)}")
    jobs = {file_name(name, seed): (name, "--seeds", seed) for seed in args.seeds for name in names}
    sys.exit(not run_all(jobs, __file__, args.workers, args.out))


def table(args: argparse.Namespace) -> None:
    """Writes docs/ablations.md from the records in out."""
    found = defaultdict(list)
    for path in sorted(args.out.glob("*.json")):
        record = json.loads(path.read_text())
        if record["name"] not in VARIANTS or record["trial"] != as_json(trial(**VARIANTS[record["name"]])):
            raise SystemExit(f"{path} is of another recipe than today's {record['name']!r}: move it away")
        if record["minutes"] != (minutes := MINUTES[record["name"]]):
            raise SystemExit(f"{path} had {record['minutes']} minutes, not {minutes}: move it away")
        found[record["name"]].append(record)
    if not found:
        raise SystemExit(f"{args.out} holds no record: python benchmarks/ablations.py run")
    lines = [HEAD.format(floor=next(iter(found.values()))[0]["floor"])]
    for title, (_, names, minutes) in ROUNDS.items():
        lines += [f"## {title} ({minutes:g} minutes each)", "", COLUMNS, "|---|---|---|---|---|---|"]
        for name in sorted(set(names) & set(found), key=lambda name: mean(found[name], "distance")):
            records = found[name]
            cells = [name, str(len(records)), f"{mean(records, 'images') / 1000:.0f}"]
            cells += [spread(records, *column) for column in (("accuracy", 100, 1), ("distance", 1, 2))]
            lines.append("| " + " | ".join([*cells, f"{mean(records, 'v error'):.3f}"]) + " |")
        lines += ["", f"Not tried yet: {'; '.join(name for name in names if name not in found) or 'none'}.", ""]
    (HERE.parent / "docs" / "ablations.md").write_text("\n".join(lines))


HEAD = """# What was tried for the recipe `tiny`

Made by `python benchmarks/ablations.py run`, then `table`. Each run has so many minutes of CPU time on one
core, in bf16 and compiled, the compiler's own time not counted; then 1,000 samples of 20 DDIM steps at
guidance scale 1. *Read* is the share that the classifier reads as asked (standard error of one run: about 1
point), *distance* the Frechet digit distance to as many test digits (real training digits have {floor:.2f}),
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
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    args = parser.parse_args()
    if args.command == "one":
        run_trial(args.names[0], args.seeds[0], args.out)
    else:
        {"run": run, "table": table}[args.command](args)


if __name__ == "__main__":
    main()
