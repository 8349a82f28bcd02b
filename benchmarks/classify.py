"""The shipped generator as a classifier: what decided the defaults of `classify`, and what it reaches.

    python benchmarks/classify.py search [--n 400]    # on training digits, moved a little: sharpness, rounds, margin
    python benchmarks/classify.py test [--n 10000]    # once, on test digits; resumes
    python benchmarks/classify.py outliers [--n 1000] --root DIR    # test digits against FashionMNIST; resumes
    python benchmarks/classify.py plot                # assets/pictures/classify.png

The network was trained on the training digits, so `search` distorts them, as the judge's training does; no test digit
takes part in its choices. bfloat16 where the processor has it natively, compiled, on one thread; seconds are CPU time.
"""

import argparse
import io
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from tinyddpm import DDPM, classify, load_pretrained, mnist
from tinyddpm.datasets import load_data
from tinyddpm.evaluation.classifier import distort
from tinyddpm.extensions.classify import LOG_SNRS, drop, label_errors, times_at
from tinyddpm.files import write_whole
from tinyddpm.trainer.processes import native_bf16

RUNS = Path("runs/classify")
PICTURE = Path(__file__).parent.parent / "assets" / "pictures" / "classify.png"
CHUNK = 1000


def half() -> torch.autocast:
    return torch.autocast("cpu", torch.bfloat16, enabled=native_bf16("cpu"))


def shipped() -> DDPM:
    ddpm = load_pretrained()
    ddpm.model.compile()
    return ddpm


# --- what is measured ----------------------------------------------------------------------------------------------


def calibration(p: Tensor, y: Tensor, bins: int = 10) -> tuple[float, list[list[float]]]:
    """The expected calibration error (Guo et al. 2017, eq. 3), and count, confidence and accuracy of each bin."""
    confidence, right = p.max(1).values, (p.argmax(1) == y).double()
    rows, error = [], 0.0
    for k in range(bins):
        inside = (confidence > k / bins) & (confidence <= (k + 1) / bins)
        if inside.any():
            rows.append([int(inside.sum()), float(confidence[inside].mean()), float(right[inside].mean())])
            error += rows[-1][0] / len(p) * abs(rows[-1][1] - rows[-1][2])
    return error, rows


def area(inside: Tensor, outside: Tensor) -> float:
    """The probability that one of `outside` exceeds one of `inside`: the area under the ROC curve."""
    both = torch.cat([inside, outside])
    ranks = both.argsort().argsort()[len(inside) :].double() + 1
    return float((ranks.sum() - len(outside) * (len(outside) + 1) / 2) / (len(inside) * len(outside)))


def summary(p: Tensor, y: Tensor) -> dict:
    error, rows = calibration(p, y)
    nats = float(F.nll_loss(p.clamp(min=1e-12).log(), y))
    return {"n": len(y), "accuracy": float((p.argmax(1) == y).double().mean()), "ece": error, "nll": nats, "bins": rows}


# --- search --------------------------------------------------------------------------------------------------------


def errors_of(n: int, rounds: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """SNR_t |x - x_0_hat|^2 of distorted training digits, (rounds, n, 10), summed over the default times. Every second
    round takes the negative noise of the one before. Each round is kept, so that more can be added later."""
    path = RUNS / f"search-{n}.pt"
    (x, y), generator = mnist().tensors(), Generator().manual_seed(seed)
    chosen = torch.randperm(len(x), generator=generator)[:n]
    x, y = distort(x[chosen], generator, degrees=8.0, pixels=1.0), y[chosen]
    ddpm, pairs = shipped(), torch.cartesian_prod(torch.arange(n), torch.arange(10))
    times, found = times_at(ddpm.schedule, LOG_SNRS), torch.load(path) if path.exists() else []
    noises = [[torch.randn(1, 32, 32, generator=generator) for _ in times] for _ in range(rounds)]
    for r in range(len(found), rounds):
        total = torch.zeros(n, 10, dtype=torch.float64)
        for i, t in enumerate(times):
            eps = noises[r][i] if r % 2 == 0 else -noises[r - 1][i]
            snr = float(ddpm.schedule.log_snr[t].exp())
            total += snr * label_errors(ddpm, x, pairs, t, eps).reshape(n, 10)
        found.append(total)
        RUNS.mkdir(parents=True, exist_ok=True)
        torch.save(found, path)
        print(f"round {r + 1} of {rounds}", flush=True)
    return torch.stack(found), y


def replay(errors: Tensor, sharpness: float, margin: float) -> tuple[Tensor, float]:
    """What `classify` would return with these errors, and how many calls it would take for each image and time."""
    asked, cost = torch.ones_like(errors[0], dtype=torch.bool), torch.zeros_like(errors[0])
    behind, calls = torch.zeros_like(cost), 0
    for r, one in enumerate(errors, 1):
        calls += int(asked.sum())
        cost = cost + sharpness * one
        behind, asked = drop(cost, behind, asked, r, margin)
    return (-behind).softmax(1), calls / len(cost)


def search(n: int, rounds: int) -> None:
    with torch.no_grad(), half():
        errors, y = errors_of(n, rounds)
    print("| rounds | margin | sharpness | accuracy | nll | ece | calls an image |\n|---|---|---|---|---|---|---|")
    for r in sorted({r for r in (1, 2, 4) if r < rounds} | {rounds}):
        for margin in (2.0, 4.0, 8.0, torch.inf):
            rows = []
            for sharpness in torch.logspace(-2.5, 0, 26).tolist():
                p, calls = replay(errors[:r], sharpness, margin)
                rows.append((summary(p, y), sharpness, calls * len(LOG_SNRS)))
            best, sharpness, calls = min(rows, key=lambda row: row[0]["nll"])
            figures = f"{best['accuracy']:.4f} | {best['nll']:.4f} | {best['ece']:.4f} | {calls:.0f}"
            print(f"| {r} | {margin:g} | {sharpness:.3f} | {figures} |")


# --- the test digits -----------------------------------------------------------------------------------------------


def test(n: int) -> None:
    """Reads chunks of digits and keeps each when it is done."""
    (x, y), ddpm, path = mnist(train=False).tensors(), shipped(), RUNS / "test.pt"
    kept = torch.load(path) if path.exists() else {"p": torch.zeros(0, 10, dtype=torch.float64), "seconds": 0.0}
    while len(kept["p"]) < n:
        first, started = len(kept["p"]), time.process_time()
        with half():
            p = classify(ddpm, x[first : min(first + CHUNK, n)])
        seconds = kept["seconds"] + time.process_time() - started
        kept = {"p": torch.cat([kept["p"], p]), "seconds": seconds}
        RUNS.mkdir(parents=True, exist_ok=True)
        torch.save(kept, path)
        right = (kept["p"].argmax(1) == y[: len(kept["p"])]).double().mean()
        print(f"{len(kept['p'])} digits: {right:.2%} in {seconds / 60:.1f} core-minutes", flush=True)
    found = summary(kept["p"][:n], y[:n]) | {"core_minutes": kept["seconds"] / 60}
    write_whole(RUNS / "test.json", json.dumps(found).encode())
    print(json.dumps(found))


def outliers(n: int, root: Path) -> None:
    """How well the errors at each time, without a label and under the best of the ten, tell garments from digits."""
    ddpm, found = shipped(), {}
    times = times_at(ddpm.schedule, LOG_SNRS)
    data = {"digits": mnist(train=False), "fashion": load_data("fashion", root, train=False)}
    for name, images in data.items():
        x, path = images.tensors()[0][:n], RUNS / f"{name}-{n}.pt"
        if not path.exists():
            pairs, generator = torch.cartesian_prod(torch.arange(n), torch.arange(11)), Generator().manual_seed(2)
            with torch.no_grad(), half():
                noises = [torch.randn(1, 32, 32, generator=generator) for _ in times]
                parts = [label_errors(ddpm, x, pairs, t, eps).reshape(n, 11) for t, eps in zip(times, noises)]
            RUNS.mkdir(parents=True, exist_ok=True)
            torch.save(torch.stack(parts, 1), path)
        found[name] = torch.load(path)
    snr = ddpm.schedule.log_snr[times].exp()[None, :, None]
    inside, outside = ((found[name] * snr).sum(1) for name in data)
    ways = {
        "error without a label": lambda e: e[:, 10],
        "error under the best label": lambda e: e[:, :10].amin(1),
        "what the best label gains": lambda e: e[:, :10].amin(1) - e[:, 10],
        "gain, as a share of the error": lambda e: e[:, :10].amin(1) / e[:, 10],
    }
    rows = {name: area(way(inside), way(outside)) for name, way in ways.items()}
    rows |= {
        f"error without a label, t = {t}": area(*(found[name][:, i, 10] for name in data)) for i, t in enumerate(times)
    }
    write_whole(RUNS / "outliers.json", json.dumps({"n": n} | rows).encode())
    print("\n".join(f"| {name} | {value:.4f} |" for name, value in rows.items()))


def plot(out: Path) -> None:
    """Accuracy against confidence, and how many digits have it."""
    from matplotlib.figure import Figure

    if not (path := RUNS / "test.json").exists():
        raise SystemExit(f"{path} does not exist yet: run test first")
    found = json.loads(path.read_text())
    count, confidence, right = zip(*found["bins"])
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    left, number = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    left.plot(confidence, right, "o-", color="#31688e")
    left.set(xlabel="probability of the best label", ylabel="share that is right", xlim=(0, 1.02), ylim=(0, 1.02))
    left.set_title(f"{found['accuracy']:.2%} of {found['n']:,}, calibration error {found['ece']:.2%}", fontsize=10)
    number.bar(confidence, count, width=0.06, color="#31688e")
    number.set(xlabel="probability of the best label", ylabel="digits", yscale="log", xlim=(0, 1.05))
    figure.savefig(picture := io.BytesIO(), dpi=110)
    write_whole(out, picture.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["search", "test", "outliers", "plot"])
    parser.add_argument("--n", type=int, help="images: 400 of search, all 10,000 of test, 1,000 of outliers")
    parser.add_argument("--rounds", type=int, default=8, help="search")
    parser.add_argument("--root", type=Path, help="outliers: where FashionMNIST is")
    parser.add_argument("--out", type=Path, default=PICTURE)
    args = parser.parse_args()
    most = 60_000 if args.what == "search" else 10_000
    if args.rounds < 1 or args.n is not None and not 1 <= args.n <= most:
        parser.error(f"expected --rounds of at least 1 and --n in 1..{most}, got {args.rounds} and {args.n}")
    torch.set_num_threads(1)
    if args.what == "search":
        search(args.n or 400, args.rounds)
    elif args.what == "test":
        test(args.n or 10_000)
    elif args.what == "outliers":
        outliers(args.n or 1000, args.root)
    else:
        plot(args.out)


if __name__ == "__main__":
    main()
