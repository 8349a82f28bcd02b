"""Why a network invents: how well an exact denoiser that sees the data through windows predicts its digits.

    python benchmarks/invents.py fit --known 600      # the windows at each t, on other seeds than are measured
    python benchmarks/invents.py measure --known 600  # r2 of 100 digits from the same noise, by each oracle; resumes
    python benchmarks/invents.py memorise             # copies, against the number of training digits; resumes
    python benchmarks/invents.py table                # prints what has been measured, as markdown
    python benchmarks/invents.py plot                 # assets/pictures/invents.png

The network is the shipped one, at scale 1, in 16 steps of DDIM. Each digit has a label, and the oracle knows the first
`known` training digits of that label, or all if there are fewer (5,421 to 6,742). r is the correlation of a digit's
32x32 pixels, black border included, with those that the network makes from the same noise, and r2 its square (Kamb &
Ganguli 2025, table 2; a public copy of their evaluation calls r2 what is r, so both are here). One thread; seconds are
CPU time.
"""

import argparse
import io
import itertools
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor

from tinyddpm import DDPM, EMA, dataset_oracle, ddim, last, load_pretrained, local_oracle, mnist, train_steps
from tinyddpm.evaluation.metrics import memorisation
from tinyddpm.files import write_whole
from tinyddpm.schedules import Schedule
from tinyddpm.trainer.optim import muon
from tinyddpm.trainer.processes import native_bf16
from tinyddpm.trainer.recipes import RECIPES
from tinyddpm.training import uniform_times

RUNS = Path("runs/invents")
PICTURE = Path(__file__).parent.parent / "assets" / "pictures" / "invents.png"
STEPS, N, FITTED_ON = 16, 100, 10**6  # seeds 0..99 are measured, those from 10**6 on are fitted on
RADII, TEMPERATURES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 17, 31), (1.0, 2.0, 4.0)
Views = Callable[[Tensor, int, int], Tensor]  # x_t (h, w), t and the label to predictions (k, h, w)


def known_digits(known: int) -> list[Tensor]:
    """The first `known` training digits of each label, (m, h, w)."""
    x, y = mnist().tensors()
    return [x[y == label][:known, 0] for label in range(10)]


def look(data: list[Tensor], schedule: Schedule, choices: list[tuple[int, float]], chunk: int = 1500) -> Views:
    """The predictions of local oracles of each radius and temperature. A temperature divides the log-weights: at 1 they
    are those of local_oracle, and above 1 more images count, as if there were others between those known."""

    def views(x_t: Tensor, t: int, label: int) -> Tensor:
        signal, noise = schedule.signal_noise(t)
        top = [torch.full_like(x_t, -torch.inf) for _ in choices]
        mass, means = [torch.zeros_like(x_t) for _ in choices], [torch.zeros_like(x_t) for _ in choices]
        for seen in data[label].split(chunk):
            square = (x_t - signal * seen).square()
            windows = {}
            for k, (radius, temperature) in enumerate(choices):
                if radius not in windows:
                    near = x_t.new_ones(x_t.shape).tril(radius).triu(-radius)
                    windows[radius] = near @ square @ near / (-2 * noise**2)
                close = windows[radius] / temperature
                new = torch.maximum(top[k], close.amax(0))
                weights, old = (close - new).exp_(), (top[k] - new).exp()
                means[k] = means[k] * old + torch.einsum("mhw,mhw->hw", weights, seen)
                mass[k], top[k] = mass[k] * old + weights.sum(0), new
        return torch.stack(means) / torch.stack(mass)

    return views


def mixed(data: list[Tensor], schedule: Schedule, plan: dict[str, list]) -> Callable:
    """A denoiser of labels y: at each t the sum of the views that the plan lists, as [radius, temperature, share]."""
    views = {t: look(data, schedule, [(r, temperature) for r, temperature, _ in row]) for t, row in plan.items()}

    def denoiser(x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
        found = []
        for x, time_, label in zip(x_t[:, 0], t.tolist(), y.tolist()):
            shares = torch.tensor([share for *_, share in plan[str(time_)]])
            found.append((shares[:, None, None] * views[str(time_)](x, time_, label)).sum(0).clamp(-1, 1))
        return torch.stack(found)[:, None]

    return denoiser


# --- what is fitted ------------------------------------------------------------------------------------------------


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Of the pixels of each pair of images."""
    a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-9)


def shares_of(views: Tensor, target: Tensor) -> Tensor:
    """The shares, which sum to 1, whose sum of views (k, pixels) has the least squared error to the target."""
    off = views - target
    gram = (off @ off.T).double()
    inverse = torch.linalg.solve(
        gram + 1e-4 * gram.diagonal().mean() * torch.eye(len(gram)), torch.ones(len(gram)).double()
    )
    return (inverse / inverse.sum()).float()


def fit(known: int, n: int) -> None:
    """Three plans. At each t, along the network's own trajectory: the window whose view is nearest to the network's
    x_0_hat, the best pair of window and temperature, and a weighted sum of three such pairs."""
    ddpm, data = load_pretrained(), known_digits(known)
    y = torch.arange(n) % 10
    way = list(ddpm.sample_steps(y, steps=STEPS, seeds=range(FITTED_ON, FITTED_ON + n)))[:-1]
    choices = list(itertools.product(RADII, TEMPERATURES))
    views, started = look(data, ddpm.schedule, choices), time.process_time()
    plans: dict[str, dict[str, list]] = {"window": {}, "window and temperature": {}, "three of those": {}}
    for step in way:
        found = torch.stack([views(x, step.t, k) for x, k in zip(step.x_t[:, 0], y.tolist())], 1).flatten(1)
        target = step.x_0_hat.flatten()
        errors = (found - target).square().mean(1)
        plain = [k for k, (_, temperature) in enumerate(choices) if temperature == 1]
        chosen = [min(plain, key=lambda k: float(errors[k]))]
        plans["window"][str(step.t)] = [[*choices[chosen[0]], 1.0]]
        chosen = [int(errors.argmin())]
        plans["window and temperature"][str(step.t)] = [[*choices[chosen[0]], 1.0]]
        while len(chosen) < 3:
            trials = {k: [*chosen, k] for k in range(len(choices)) if k not in chosen}
            chosen = min(trials.values(), key=lambda ks: left(found[ks], target))
        shares = shares_of(found[chosen], target).tolist()
        plans["three of those"][str(step.t)] = [[*choices[k], share] for k, share in zip(chosen, shares)]
        print(step.t, {name: plan[str(step.t)] for name, plan in plans.items()}, flush=True)
    spent = (time.process_time() - started) / 60
    write_whole(RUNS / f"fit-{known}.json", json.dumps({"n": n, "core_minutes": spent} | plans).encode())


def left(views: Tensor, target: Tensor) -> float:
    """The squared error that the best shares leave."""
    return float((shares_of(views, target) @ views - target).square().mean())


# --- what is measured ----------------------------------------------------------------------------------------------


def ways(known: int, schedule: Schedule, y: Tensor) -> dict[str, Callable]:
    """Denoisers of n digits with labels y, made when they are asked for."""
    data = known_digits(known)

    def of_each(make: Callable) -> Callable:
        oracles = [make(images[:, None]) for images in data]
        return lambda x_t, t: torch.cat([oracles[k](x_t[i : i + 1], t[i : i + 1]) for i, k in enumerate(y.tolist())])

    found = {
        "whole images": lambda: of_each(partial(dataset_oracle, schedule=schedule)),
        "windows by eye": lambda: of_each(partial(local_oracle, schedule=schedule)),
    }
    path = RUNS / f"fit-{known}.json"
    plans = {k: v for k, v in json.loads(path.read_text()).items() if isinstance(v, dict)} if path.exists() else {}
    return found | {
        name: partial(lambda p: partial(mixed(data, schedule, p), y=y), plan) for name, plan in plans.items()
    }


@torch.no_grad()
def measure(known: int, n: int) -> None:
    ddpm, y = load_pretrained(), torch.arange(n) % 10
    path = RUNS / f"measured-{known}-{n}.json"
    found = json.loads(path.read_text()) if path.exists() else {"known": known, "n": n, "ways": {}}
    theirs = ddpm.sample(y, steps=STEPS, seeds=range(n))
    x_T = torch.cat([torch.randn(1, 1, 32, 32, generator=Generator().manual_seed(seed)) for seed in range(n)])
    for name, make in ways(known, ddpm.schedule, y).items():
        if name in found["ways"]:
            continue
        started = time.process_time()
        images = last(ddim(make(), x_T, ddpm.schedule, ddpm.schedule.grid(STEPS))).x_t
        r = correlation(images, theirs)
        row = {"r2": float(r.square().median()), "r": float(r.median()), "each": [round(v, 4) for v in r.tolist()]}
        found["ways"][name] = row | {"core_minutes": (time.process_time() - started) / 60}
        torch.save(images, RUNS / f"images-{known}-{name.replace(' ', '-')}.pt")
        write_whole(path, json.dumps(found).encode())
        print(f"{known} a label, {name}: median r2 {row['r2']:.3f}, r {row['r']:.3f}", flush=True)
    torch.save(theirs, RUNS / "images-network.pt")


# --- memorisation --------------------------------------------------------------------------------------------------


def memorise(sizes: list[int], steps: int, recipe: str, n: int) -> None:
    """One network for each number of training digits, all trained for as many steps, and how many of n samples copy."""
    (x, y), test = mnist().tensors(), mnist(train=False).tensors()[0]
    for size in sizes:
        path = RUNS / f"memorise-{recipe}-{size}-{steps}.json"
        if path.exists():
            continue
        started = time.process_time()
        ddpm = trained(x[:size], y[:size], steps, recipe)
        spent = (time.process_time() - started) / 60
        samples = ddpm.sample(torch.arange(n) % 10, steps=STEPS, seeds=range(n))
        row = memorisation(samples, x[:size], test) | {"third": third(samples, x[:size])}
        row |= {"digits": size, "steps": steps, "recipe": recipe, "n": n, "core_minutes": spent}
        write_whole(path, json.dumps(row).encode())
        print(row, flush=True)


def trained(x: Tensor, y: Tensor, steps: int, recipe: str) -> DDPM:
    how, generator = RECIPES[recipe], Generator().manual_seed(0)
    torch.manual_seed(0)
    network, schedule = how.build((1, 32, 32)).train(), Schedule.named(how.schedule, how.T)
    orders = (torch.randint(len(x), (how.batch_size,), generator=generator) for _ in range(steps))
    batches = ((x[order], y[order]) for order in orders)
    loss, ema, half = how.loss_of(schedule, uniform_times), EMA(network, how.ema_decay), native_bf16("cpu")
    optimizer = muon(network, 0.0, half)

    def objective(*batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            losses, t = loss(*batch)
        return losses.float(), t

    last(train_steps(network, batches, objective, optimizer, lambda k: how.rate(k, k / steps), ema, generator))
    return DDPM(ema.model, schedule, how.predicts, notes={"schedule": how.schedule, "data": f"{len(x)} digits"})


def third(samples: Tensor, data: Tensor) -> float:
    """The share of samples more than three times as near to one training digit as to any other: what Yoon et al. 2023
    and Bonnaire et al. 2025 count as copies."""
    nearest = torch.cdist(samples.flatten(1), data.flatten(1)).topk(2, largest=False).values
    return float((nearest[:, 0] < nearest[:, 1] / 3).double().mean())


# --- what is shown -------------------------------------------------------------------------------------------------


def measured() -> list[dict]:
    found = [json.loads(path.read_text()) for path in RUNS.glob("measured-*.json")]
    return sorted(found, key=lambda one: one["known"])


def memorised(steps: int, recipe: str) -> list[dict]:
    found = [json.loads(path.read_text()) for path in RUNS.glob(f"memorise-{recipe}-*-{steps}.json")]
    return sorted(found, key=lambda one: one["digits"])


def table(copies: list[dict]) -> None:
    names = list(dict.fromkeys(name for one in measured() for name in one["ways"]))
    print("| digits a label | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
    for one in measured():
        cells = ["{r2:.3f} ({r:.3f})".format(**one["ways"][name]) if name in one["ways"] else "" for name in names]
        print(f"| {one['known']:,} | " + " | ".join(cells) + " |")
    print("\n| training digits | steps | nearer than 99.9 % of test digits | nearest under a third of second |")
    print("|---|---|---|---|")
    for row in copies:
        print(f"| {row['digits']:,} | {row['steps']:,} | {row['copied']:.1%} | {row['third']:.1%} |")


def plot(copies: list[dict], out: Path) -> None:
    """r2 against the digits known, digits of both from the same noise, and copies against the digits trained on."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    found = measured()
    if not found or not copies:
        raise SystemExit(f"{RUNS} has nothing to plot yet: run measure and memorise first")
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    grows, pairs, copied = figure.subplots(1, 3, width_ratios=[1.2, 1.4, 1])
    names = list(dict.fromkeys(name for one in found for name in one["ways"]))
    for name, marker, shade in zip(names, "osD^v", colormaps["viridis"](torch.linspace(0, 0.85, len(names)).numpy())):
        rows = [(one["known"], one["ways"][name]["r2"]) for one in found if name in one["ways"]]
        grows.plot(*zip(*rows), marker + "-", label=name, markersize=5, color=shade)
    grows.set(xscale="log", xlabel="digits known of each label", ylabel="median r² of 100", ylim=(0, 1))
    grows.set_xticks(known := [one["known"] for one in found], [f"{number:,}" for number in known])
    grows.minorticks_off()
    grows.legend(fontsize=7)
    best = max(found, key=lambda one: one["known"])
    way = max(best["ways"], key=lambda name: best["ways"][name]["r2"])
    rows = [
        torch.load(RUNS / f"images-{best['known']}-{way.replace(' ', '-')}.pt"),
        torch.load(RUNS / "images-network.pt"),
    ]
    pairs.imshow(torch.cat([torch.cat(list(row[:10, 0]), 1) for row in rows]), cmap="gray_r")
    pairs.set(title=f"oracle ({way}, {best['known']:,}) above, network below", xticks=[], yticks=[])
    pairs.title.set_fontsize(8)
    kinds = ("copied", "nearer than 99.9 % of test digits", "o-"), ("third", "nearest under a third of second", "s--")
    for key, name, line in kinds:
        copied.plot([row["digits"] for row in copies], [row[key] for row in copies], line, label=name, markersize=5)
    copied.set(xscale="log", xlabel="training digits", ylabel="share of samples", ylim=(-0.03, 1.03))
    copied.legend(fontsize=7)
    figure.savefig(picture := io.BytesIO(), dpi=110)
    write_whole(out, picture.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["fit", "measure", "memorise", "table", "plot"])
    parser.add_argument("--known", type=int, nargs="+", default=[150, 600, 1500, 6000], help="digits of each label")
    parser.add_argument("--n", type=int, help="digits: 20 of fit, 100 of measure, 1,000 of memorise")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 300, 1000, 3000], help="memorise")
    parser.add_argument("--steps", type=int, default=4000, help="memorise, table, plot: of each network")
    parser.add_argument("--recipe", default="nano", choices=[*RECIPES], help="memorise, table, plot")
    parser.add_argument("--out", type=Path, default=PICTURE)
    args = parser.parse_args()
    counts = [*args.known, args.steps, 1 if args.n is None else args.n]
    if min(counts) < 1 or min(args.sizes) < 2 or max(args.sizes) > 60_000:
        parser.error("expected --known, --steps and --n of at least 1, and --sizes in 2..60000")
    torch.set_num_threads(1)
    RUNS.mkdir(parents=True, exist_ok=True)
    if args.what in ("fit", "measure"):
        for known in args.known:
            fit(known, args.n or 20) if args.what == "fit" else measure(known, args.n or N)
    elif args.what == "memorise":
        memorise(args.sizes, args.steps, args.recipe, args.n or 1000)
    elif args.what == "table":
        table(memorised(args.steps, args.recipe))
    else:
        plot(memorised(args.steps, args.recipe), args.out)


if __name__ == "__main__":
    main()
