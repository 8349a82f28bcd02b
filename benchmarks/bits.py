"""What each part of the recipe `bits` gives: the recipe without it, or with what is usual in its place, for as many
minutes of one core.

    python benchmarks/bits.py run [NAME ...] [--minutes 10] [--seeds 0]
    python benchmarks/bits.py table     # of all runs, as markdown

A minute is 60 seconds of the process's CPU time on one thread. bfloat16 where the processor has it natively. The bound
is measured on 500 test digits, in bits per pixel of 28x28. A run whose record exists (runs/bits-parts/*.json) is not
repeated.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Generator, Tensor

from tinyddpm.evaluation import Reference
from tinyddpm.evaluation.bits import bound
from tinyddpm.extensions import vdm
from tinyddpm.files import write_whole
from tinyddpm.nn import NETWORKS
from tinyddpm.schedules import BETAS, betas_from, with_zero
from tinyddpm.trainer import train
from tinyddpm.trainer.objectives import OBJECTIVES, Objective, network
from tinyddpm.trainer.recipes import RECIPES, Recipe

RUNS = Path("runs/bits-parts")
N = 500


class Learned(vdm.GreyLevels):
    """Is not told what x_t says of its own pixels."""

    def forward(self, x_t, t, y=None, signal=None, noise=None):
        return super().forward(x_t, t, y)


def independent(n: int, generator: Generator) -> Tensor:
    """Times for vdm.low_discrepancy, each drawn independently."""
    return torch.rand(n, generator=generator, device=generator.device)


def other(kind: type[vdm.GreyLevels], powers: tuple[int, ...], recipe: Recipe, image_shape: tuple[int, int, int]):
    return kind(network(recipe, image_shape, 1 + 2 * len(powers), vdm.WIDTH), powers)


def straight(T: int = 1000) -> Tensor:
    """The ends of vdm.bound_betas, and log-SNR linear in t."""
    log_snr = torch.linspace(vdm.KNOTS[0][1], vdm.KNOTS[-1][1], T, dtype=torch.float64)
    return with_zero(betas_from(torch.cat([log_snr.new_ones(1), log_snr.sigmoid()])))


NETWORKS["Learned"] = Learned
BETAS["straight"] = straight
WHOLE = RECIPES["bits"]
OBJECTIVES |= {
    "no features": Objective(partial(other, vdm.GreyLevels, ()), vdm.BoundLoss),
    "learned": Objective(partial(other, Learned, vdm.POWERS), vdm.BoundLoss),
    "rare first": Objective(OBJECTIVES["bound"].network, partial(vdm.BoundLoss, first=1 / WHOLE.T)),
}
PARTS = {
    "the recipe": WHOLE,
    "without Fourier features": replace(WHOLE, objective="no features"),
    "without the likelihood of each grey value given x_t": replace(WHOLE, objective="learned"),
    "log-SNR linear in t": replace(WHOLE, schedule="straight"),
    "the last step drawn as rarely as any": replace(WHOLE, objective="rare first"),
    "independent times": WHOLE,
    "Adam at 2e-3": replace(WHOLE, optimizer="adam", learning_rate=2e-3),
}


def run(names: list[str], minutes: float, seeds: list[int]) -> None:
    for name in names or list(PARTS):
        for seed in seeds:
            path = RUNS / f"{name.replace(' ', '-')}-{minutes:g}-{seed}.json"
            if path.exists():
                continue
            draw = independent if name == "independent times" else vdm.low_discrepancy
            with tempfile.TemporaryDirectory() as folder, patch.object(vdm, "low_discrepancy", draw):
                ddpm = train(PARTS[name], folder, minutes=minutes, seed=seed, device="cpu", clock=time.process_time)
            mean, error, n = bound(ddpm, Reference(), N)
            found = {"name": name, "minutes": minutes, "seed": seed, "steps": ddpm.notes["steps"]}
            write_whole(path, json.dumps(found | {"bits": mean, "error": error, "n": n}).encode())
            print(f"{name}: {mean:.3f} ± {error:.3f} bits per pixel", flush=True)


def table() -> None:
    found = [json.loads(path.read_text()) for path in RUNS.glob("*.json")]
    print("| | minutes | steps | seeds | bits per pixel |\n|---|---|---|---|---|")
    for name in PARTS:
        for minutes in sorted({one["minutes"] for one in found if one["name"] == name}):
            same = [one for one in found if (one["name"], one["minutes"]) == (name, minutes)]
            steps, bits = (statistics.mean(one[key] for one in same) for key in ("steps", "bits"))
            print(f"| {name} | {minutes:g} | {steps:,.0f} | {len(same)} | {bits:.3f} ± {same[0]['error']:.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("names", nargs="*", help="; ".join(PARTS))
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(PARTS)):
        parser.error(f"there is no {', '.join(unknown)}: choose among {'; '.join(PARTS)}")
    torch.set_num_threads(1)
    if args.what == "table":
        table()
    else:
        RUNS.mkdir(parents=True, exist_ok=True)
        run(args.names, args.minutes, args.seeds)


if __name__ == "__main__":
    main()
