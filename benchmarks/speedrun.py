"""From nothing to digits in 60 and in 600 seconds of one core. The rules and the tables are in SPEEDRUN.md.

    python benchmarks/speedrun.py                          # make speedrun: the best of 60 seconds, three seeds
    python benchmarks/speedrun.py run [NAME ...] [--seeds 0 1 2] [--float32]
    python benchmarks/speedrun.py table                    # writes all runs into SPEEDRUN.md

A run whose record exists (runs/speedrun/*.json) is not repeated. Before measuring on another processor, move the
records away: a row is the mean of one processor's runs.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from peers import processor
from torch import Generator, Tensor, nn

from tinyddpm import DDPM, EMA, Schedule, mnist, train_steps
from tinyddpm.evaluation import score
from tinyddpm.files import write_whole
from tinyddpm.trainer.objectives import TIMES
from tinyddpm.trainer.optim import OPTIMIZERS
from tinyddpm.trainer.processes import native_bf16
from tinyddpm.trainer.recipes import RECIPES, Recipe

ROOT = Path(__file__).parent.parent
RUNS, PAGE = Path("runs/speedrun"), ROOT / "SPEEDRUN.md"
N, FIRST_SEED, CALLS = 2000, 10**6, 50  # samples, the seed of the first one, and the most calls of the network for each


@dataclass(frozen=True)
class Entry:
    """A recipe trained for so many seconds, how its samples are drawn, and what it changes."""

    seconds: int
    recipe: Recipe
    new: str
    steps: int = 50
    sampler: str = "ddim"
    scale: float = 1.0
    momentum: float = 0.95  # Muon's

    def __post_init__(self):
        calls = self.steps * (2 if self.scale != 1 else 1)  # guidance calls it twice
        calls *= 2 if self.sampler == "heun" else 1
        if calls > CALLS:
            raise ValueError(f"an image takes at most {CALLS} calls of the network, got {calls}")


def but(entry: Entry, new: str, *, seconds: int | None = None, **changes) -> Entry:
    """The entry with other seconds, steps, sampler, scale or momentum, and with changed fields of its recipe."""
    own = {name: changes.pop(name) for name in ("steps", "sampler", "scale", "momentum") if name in changes}
    return replace(entry, new=new, seconds=seconds or entry.seconds, recipe=replace(entry.recipe, **changes), **own)


TINY = Entry(60, RECIPES["tiny"], "the recipe `tiny`")
NANO = but(TINY, "the recipe `nano`: a quarter of the weights", **vars(RECIPES["nano"]))
FROM_MIDDLE = "times drawn from the middle, batches of 64, warmup of 20 steps, averaged over 50"
MIDDLE = but(NANO, FROM_MIDDLE, times="logit-normal", batch_size=64, warmup=20, ema_decay=0.98)
GUIDED = but(MIDDLE, "guidance 1.5, in 15 steps of `dpm_solver_pp`", scale=1.5, steps=15, sampler="dpm_solver_pp")
MOMENTUM = but(GUIDED, "Muon's momentum 0.9 in place of 0.95", momentum=0.9)
LONG = but(TINY, "the recipe `tiny`", seconds=600)
LONG_DIT = but(LONG, "the recipe `dit`, a transformer", **vars(RECIPES["dit"]))
LONG_MIDDLE = but(LONG, "`tiny`, times drawn from the middle", times="logit-normal")
LONG_GUIDED = but(
    LONG_MIDDLE, "guidance 1.25, in 25 steps of `dpm_solver_pp`", scale=1.25, steps=25, sampler="dpm_solver_pp"
)
LONG_MOMENTUM = but(LONG_GUIDED, MOMENTUM.new, momentum=0.9)
ENTRIES = {
    "60-tiny": TINY, "60-nano": NANO, "60-middle": MIDDLE, "60-guided": GUIDED, "60-momentum": MOMENTUM,
    "600-dit": LONG_DIT, "600-tiny": LONG, "600-middle": LONG_MIDDLE, "600-guided": LONG_GUIDED,
    "600-momentum": LONG_MOMENTUM,
}  # fmt: skip


def run(entry: Entry, seed: int, half: bool) -> dict:
    """Trains on the clock, and measures. The clock is the CPU time of this process and its one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    started = time.process_time()

    def progress() -> float:
        return min(1.0, (time.process_time() - started) / entry.seconds)

    recipe, schedule = entry.recipe, Schedule.named(entry.recipe.schedule, entry.recipe.T)
    x, y = mnist(size=recipe.image_size).tensors()
    model = recipe.build((1, recipe.image_size, recipe.image_size))
    times, generator = TIMES[recipe.times], Generator().manual_seed(seed)
    loss = recipe.loss_of(schedule, lambda n, T, g: times(n, T, g, progress()))
    optimizer = OPTIMIZERS[recipe.optimizer](model, recipe.weight_decay, half)
    for group in optimizer.param_groups:
        group["momentum"] = entry.momentum

    def objective(model: nn.Module, x_0: Tensor, y: Tensor, generator: Generator):
        with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
            losses, t = loss(model, x_0, y, generator)
        return losses.float(), t

    ema, steps, images = EMA(model, recipe.ema_decay), 0, 0
    data = batches(x, y, recipe.batch_size, generator)
    for step in train_steps(model, data, objective, optimizer, lambda n: recipe.rate(n, progress()), ema, generator):
        steps, images = step.number, images + len(step.losses)
        if progress() >= 1:
            break
    spent = time.process_time() - started
    ddpm = DDPM(ema.model, schedule, recipe.predicts, notes={"data": "mnist"})
    found = score(ddpm, N, entry.steps, entry.sampler, entry.scale, FIRST_SEED)
    return {
        "read": found.accuracy, "distance": found.distance, "floor": found.floor_distance, "steps": steps,
        "images": images, "seconds": spent, "milliseconds": found.milliseconds, "processor": processor(),
        "parameters": sum(p.numel() for p in model.parameters()),
    }  # fmt: skip


def batches(x: Tensor, y: Tensor, size: int, generator: Generator) -> Iterator[tuple[Tensor, Tensor]]:
    while True:
        for part in torch.randperm(len(x), generator=generator).split(size)[: len(x) // size]:
            yield x[part], y[part]


def record_of(name: str, seed: int, half: bool) -> Path:
    return RUNS / f"{name}-{'bf16' if half else 'float32'}-{seed}.json"


def run_all(names: list[str], seeds: list[int], half: bool) -> None:
    """Each run in a process of its own, which knows nothing of the one before."""
    RUNS.mkdir(parents=True, exist_ok=True)
    for name in names:
        for seed in seeds:
            path = record_of(name, seed, half)
            if not path.exists():
                command = [sys.executable, "-W", "ignore", __file__, "one", name, "--seeds", str(seed)]
                subprocess.run([*command, *([] if half else ["--float32"])], check=True)
            found = json.loads(path.read_text())
            print(f"{path.stem}: {found['read']:.1%} read, distance {found['distance']:.3f} ({found['floor']:.3f})")


def table() -> None:
    """Rewrites what stands between the marks of SPEEDRUN.md."""
    text = PAGE.read_text()
    for seconds in sorted({entry.seconds for entry in ENTRIES.values()}):
        for kind in ("bf16", "float32"):
            head, mark, rest = text.partition(f"<!-- {seconds} {kind} -->\n")
            if mark:
                text = head + mark + rows(seconds, kind) + "<!-- end -->" + rest.partition("<!-- end -->")[2]
    write_whole(PAGE, text.encode())


def rows(seconds: int, kind: str) -> str:
    lines = ["| what is new | parameters | images | read as asked | distance | runs |", "|---|---|---|---|---|---|"]
    records = {name: sorted(RUNS.glob(f"{name}-{kind}-[0-9]*.json")) for name in ENTRIES}
    read = {name: [json.loads(path.read_text()) for path in paths] for name, paths in records.items()}
    shown = {name: found for name, found in read.items() if found and ENTRIES[name].seconds == seconds}
    for name, found in shown.items():
        cells = [ENTRIES[name].new, f"{found[0]['parameters'] / 1e6:.2f} M"]
        cells += [f"{statistics.mean(one['images'] for one in found):,.0f}"]
        for key, form in (("read", "{:.1%} ± {:.1%}"), ("distance", "{:.3f} ± {:.3f}")):
            values = [one[key] for one in found]
            cells.append(form.format(statistics.mean(values), (max(values) - min(values)) / 2))
        lines.append(f"| {' | '.join(cells)} | {len(found)} |")
    if not shown:
        return ""
    every = [one for found in shown.values() for one in found]
    if len(processors := sorted({one["processor"] for one in every})) > 1:
        raise SystemExit(f"{RUNS} has runs of {' and '.join(processors)}: keep those of one processor")
    lines += [f"| {N:,} real digits | | | | {every[0]['floor']:.3f} | |", ""]
    return "\n".join([*lines, f"Measured on {processors[0]}.", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    fastest = [name for name, entry in ENTRIES.items() if entry.seconds == 60][-1]
    parser.add_argument("what", nargs="?", default="run", choices=["run", "one", "table"])
    parser.add_argument("names", nargs="*", default=[fastest], help=", ".join(ENTRIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--float32", action="store_true", help="even where the processor computes in bfloat16")
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(ENTRIES)):
        parser.error(f"there is no {', '.join(unknown)}: choose among {', '.join(ENTRIES)}")
    half = native_bf16("cpu") and not args.float32
    if args.what == "table":
        table()
    elif args.what == "run":
        run_all(args.names, args.seeds, half)
    else:
        (name,), (seed,) = args.names, args.seeds
        found = {"entry": json.loads(json.dumps(asdict(ENTRIES[name]))), "seed": seed} | run(ENTRIES[name], seed, half)
        write_whole(record_of(name, seed, half), json.dumps(found).encode())


if __name__ == "__main__":
    main()
