"""What samplers and steering are worth on the shipped weights, each figure printed as it is found.

    python benchmarks/steering.py samplers [--n 2000] [--scale 1] [--weights FILE]
    python benchmarks/steering.py thousand [--n 1000]    # DDPM with all 1000 steps: 20 minutes
    python benchmarks/steering.py seconds                # ten digits, the median of nine
    python benchmarks/steering.py style [--n 1000]
    python benchmarks/steering.py write [--n 100]
    python benchmarks/steering.py inpaint [--n 200]
    python benchmarks/steering.py guidance [--n 500]

Read: the share that the shipped classifier reads as asked. Distance: Frechet digit distance to the first
test digits, as many as samples; `samplers` prints beside it what as many real training digits have.
"""

import argparse
import random
import statistics
import time
from functools import partial

import torch

from tinyddpm import DDPM, dynamic_threshold, energy_guidance, interval, invert, last, load_pretrained
from tinyddpm.data import mnist
from tinyddpm.editing.handwriting import all_but, complete, handwriting
from tinyddpm.editing.inversion import round_trip_error
from tinyddpm.editing.strip import windows_of, write
from tinyddpm.editing.stroke import brightness, slant, stroke_width
from tinyddpm.evaluation.classifier import classify, features, load_classifier
from tinyddpm.evaluation.metrics import frechet_digit_distance
from tinyddpm.extensions.gradient_guidance import classifier_guidance

BATCH = 200
WAYS = [("ddim", "uniform"), ("ddim", "quadratic"), ("ddim", "log-snr"), ("heun", "uniform")]
WAYS += [("dpm_solver_pp", spacing) for spacing in ("uniform", "quadratic", "log-snr")]


def drawn(ddpm: DDPM, n: int, scale: float, **how) -> tuple[torch.Tensor, torch.Tensor]:
    """n digits, with the labels of n training digits in a fixed order, and seeds from 0."""
    labels = mnist().labels[in_fixed_order(n)]
    parts = zip(labels.split(BATCH), torch.arange(n).split(BATCH))
    x = [ddpm.sample(y, scale=scale, seeds=seeds.tolist(), **how) for y, seeds in parts]
    return torch.cat(x), labels


def in_fixed_order(n: int) -> torch.Tensor:
    return torch.randperm(60_000, generator=torch.Generator().manual_seed(0))[:n]


def report(name: str, x: torch.Tensor, y: torch.Tensor, started: float) -> None:
    classifier, real = load_classifier(), mnist(train=False).tensors()[0]
    read = float((classify(classifier, x).argmax(1) == y).float().mean())
    error = (read * (1 - read) / len(x)) ** 0.5
    distance = frechet_digit_distance(features(classifier, x), features(classifier, real[: len(x)]))
    spent = (time.process_time() - started) / len(x) * 1000
    print(f"{name:36} n {len(x)}  read {read:.2%} +- {error:.2%}  distance {distance:.4f}  {spent:.0f} ms", flush=True)


def samplers(ddpm: DDPM, args: argparse.Namespace) -> None:
    started, chosen = time.process_time(), in_fixed_order(args.n)
    report("real training digits", mnist().tensors()[0][chosen], mnist().labels[chosen], started)
    for steps in (5, 10, 20):
        for sampler, spacing in WAYS:
            calls = steps if sampler != "heun" else (steps + 1) // 2  # two calls a step, one in the last
            started = time.process_time()
            x, y = drawn(ddpm, args.n, args.scale, steps=calls, sampler=sampler, spacing=spacing)
            report(f"{sampler} {spacing}, {steps} calls", x, y, started)
    started = time.process_time()
    report("ddpm uniform, 50 calls", *drawn(ddpm, args.n, args.scale, sampler="ddpm"), started)


def thousand(ddpm: DDPM, args: argparse.Namespace) -> None:
    started, steps = time.process_time(), ddpm.schedule.T
    report(f"ddpm, {steps} calls", *drawn(ddpm, args.n, args.scale, sampler="ddpm", steps=steps), started)


def seconds(ddpm: DDPM, args: argparse.Namespace) -> None:
    for steps, scale in ((10, 1.0), (10, 2.0), (20, 1.0)):
        taken = []
        for _ in range(9):
            started = time.perf_counter()
            ddpm.sample(range(10), steps=steps, sampler="dpm_solver_pp", scale=scale, seeds=range(10))
            taken.append(time.perf_counter() - started)
        print(f"ten digits, dpm_solver_pp, {steps} steps, scale {scale:g}: {statistics.median(taken):.2f} s")


def style(ddpm: DDPM, args: argparse.Namespace) -> None:
    """Test digits, each written again as another digit. The slant of a 7 is not that of a 1, whoever writes
    it: besides the plain correlation, that of what is left without each digit's mean in the training set."""
    (train, labels), (x, y) = mnist().tensors(), mnist(train=False).tensors()
    x, y, n = x[: args.n], y[: args.n], args.n
    other = (y + torch.randint(1, 10, (n,), generator=torch.Generator().manual_seed(0))) % 10
    parts = zip(x.split(BATCH), y.split(BATCH), other.split(BATCH))
    done = torch.cat([handwriting(ddpm, *part) for part in parts])
    read = classify(load_classifier(), done).argmax(1) == other
    print(f"style: n {n}  read as the new label {float(read.float().mean()):.2%}")
    for measure in (slant, stroke_width):
        mean = torch.stack([measure(train[labels == digit]).mean() for digit in range(10)])
        plain = correlation(measure(x), measure(done))
        rest = correlation(measure(x) - mean[y], measure(done) - mean[other])
        print(f"  {measure.__name__}: correlation {plain:.3f}, of what the digit does not explain {rest:.3f}")
    x, y = x[:100], y[:100]
    for steps in (20, 50, 100):
        for iterations in (1, 3, 10):
            how = ddpm.schedule, ddpm.schedule.grid(steps), iterations
            error = float(round_trip_error(ddpm.denoiser(y), x, *how).square().mean().sqrt())
            noise = last(invert(ddpm.denoiser(y), x, *how)).x_t
            print(
                f"  round trip, {steps} steps, {iterations} iterations: rms {error:.4f}, noise of variance "
                f"{float(noise.var()):.3f}",
                flush=True,
            )


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def writing(ddpm: DDPM, args: argparse.Namespace) -> None:
    """Random strings of 1 to 12 digits, cut into the windows that they were drawn in."""
    choose, classifier, right, count = random.Random(0), load_classifier(), 0, 0
    for seed in range(min(args.n, 100)):
        text = "".join(choose.choice("0123456789") for _ in range(choose.randint(1, 12)))
        found = classify(classifier, windows_of(write(text, ddpm, seed=seed), text, 32)).argmax(1)
        right, count = right + int((found == torch.tensor([int(c) for c in text])).sum()), count + len(text)
    print(f"write: {min(args.n, 100)} strings, {count} digits, read {right / count:.2%}")


def inpainting(ddpm: DDPM, args: argparse.Namespace) -> None:
    """The left half of test digits hidden, completed with and without going over it again. How well it fits
    where it meets what is known: the difference of ink across the seam, beside that in real digits."""
    x, y = mnist(train=False).tensors()
    x, y, mask = x[: args.n], y[: args.n], all_but("left", 32, 32)
    print(f"  real digits: step at the seam {seam(x):.4f}")
    for times in (1, 2, 5):
        for labels in (None, y):
            chosen = [None] * len(x) if labels is None else labels.split(BATCH)
            parts = zip(x.split(BATCH), chosen)
            done = torch.cat([complete(ddpm, part, mask, 1, label, times=times) for part, label in parts])
            read = float((classify(load_classifier(), done).argmax(1) == y).float().mean())
            told = "untold" if labels is None else "told which digit"
            print(
                f"  inpaint, {told}, times {times}: read as the real one {read:.1%}, step at the seam {seam(done):.4f}",
                flush=True,
            )


def seam(x: torch.Tensor) -> float:
    return float((x[..., 16] - x[..., 15]).abs().mean())


def guidance(ddpm: DDPM, args: argparse.Namespace) -> None:
    """Ways to steer, at 20 steps of DDIM: the first block with the labels, the last without any."""
    n, T, classifier = args.n, ddpm.schedule.T, load_classifier()
    ways = {"scale 1": {}, "scale 3": {"scale": 3.0}, "scale 8": {"scale": 8.0}}
    ways |= {f"scale 3 at t in {a}..{b}": {"scale": interval(3.0, a, b)} for a, b in ((1, T // 2), (T // 2, T))}
    ways["scale 8, dynamic threshold"] = {"scale": 8.0, "guide": dynamic_threshold}
    for name, how in ways.items():
        started = time.process_time()
        report(name, *drawn(ddpm, n, **{"scale": 1.0, "steps": 20, **how}), started)
    y = torch.arange(n) % 10
    for scale in (0.0, 1.0, 3.0):
        started, x = time.process_time(), []
        for labels, seeds in zip(y.split(BATCH), torch.arange(n).split(BATCH)):
            guide = partial(classifier_guidance, classifier=classifier, y=labels, schedule=ddpm.schedule, scale=scale)
            x.append(ddpm.sample(n=len(labels), steps=20, seeds=seeds.tolist(), guide=guide))
        report(f"no label, classifier's scale {scale:g}", torch.cat(x), y, started)
    for measure, strength in ((brightness, 300.0), (slant, 30.0), (stroke_width, 30.0)):
        means = []
        for sign in (-1, 0, 1):
            guide = partial(
                energy_guidance,
                log_weight=lambda x, t, sign=sign: sign * strength * measure(x),  # noqa: B023
                schedule=ddpm.schedule,
            )
            x = ddpm.sample(y[:100], steps=20, seeds=range(len(y[:100])), guide=guide)
            read = float((classify(classifier, x).argmax(1) == y[:100]).float().mean())
            means.append(f"{sign * strength:g}: {float(measure(x).mean()):.3f} (read {read:.0%})")
        print(f"  energy {measure.__name__}: {', '.join(means)}", flush=True)


COMMANDS = {
    "samplers": (samplers, 2000),
    "thousand": (thousand, 1000),
    "seconds": (seconds, 10),
    "style": (style, 1000),
    "write": (writing, 100),
    "inpaint": (inpainting, 200),
    "guidance": (guidance, 500),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--n", type=int)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--weights")
    args = parser.parse_args()
    command, n = COMMANDS[args.command]
    args.n = args.n or n
    command(DDPM.load(args.weights) if args.weights else load_pretrained(), args)


if __name__ == "__main__":
    main()
