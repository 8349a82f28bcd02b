"""What samplers and steering are worth on the shipped weights; each result is printed as it is found.

    python benchmarks/steering.py samplers [--n 2000] [--scale 1] [--weights FILE]
    python benchmarks/steering.py thousand [--n 1000]    # DDPM with all 1000 steps: 20 minutes
    python benchmarks/steering.py seconds                # ten digits, the median of nine
    python benchmarks/steering.py style [--n 1000]
    python benchmarks/steering.py write [--n 100]
    python benchmarks/steering.py inpaint [--n 200]
    python benchmarks/steering.py guidance [--n 500]

Read: the share that the shipped classifier reads as asked. Distance: Frechet digit distance to as many test digits.
Both, and those of real digits, are what tinyddpm.evaluation.score finds.
"""

import argparse
import random
import statistics
import time
from functools import partial

import torch

from tinyddpm import DDPM, dynamic_threshold, energy_guidance, interval, invert, last, load_pretrained, p_sample_loop
from tinyddpm.data import mnist
from tinyddpm.editing.handwriting import brightness, handwriting, slant, stroke_width
from tinyddpm.editing.inpainting import complete, hide_half
from tinyddpm.editing.inversion import round_trip_error
from tinyddpm.editing.strip import STRIDE, write
from tinyddpm.evaluation import Score, classify, load_classifier, reference_for, score
from tinyddpm.extensions.gradient_guidance import classifier_guidance

WAYS = [("ddim", "uniform"), ("ddim", "quadratic"), ("ddim", "log-snr"), ("heun", "uniform")]
WAYS += [("dpm_solver_pp", spacing) for spacing in ("uniform", "quadratic", "log-snr")]


def report(name: str, found: Score) -> None:
    n, error = len(found.samples.images), (found.accuracy * (1 - found.accuracy) / len(found.samples.images)) ** 0.5
    print(
        f"{name:36} n {n}  read {found.accuracy:.2%} +- {error:.2%}  distance {found.distance:.4f}  "
        f"{found.milliseconds:.0f} ms  (real: {found.floor_accuracy:.2%}, {found.floor_distance:.4f})",
        flush=True,
    )


def samplers(ddpm: DDPM, args: argparse.Namespace) -> None:
    for steps in (5, 10, 20):
        for sampler, spacing in WAYS:
            calls = steps if sampler != "heun" else (steps + 1) // 2  # two calls a step, one in the last
            grid = ddpm.schedule.grid(calls, spacing)
            report(
                f"{sampler} {spacing}, {steps} calls", score(ddpm, args.n, sampler=sampler, scale=args.scale, grid=grid)
            )
    report("ddpm uniform, 50 calls", score(ddpm, args.n, sampler=p_sample_loop, scale=args.scale))


def thousand(ddpm: DDPM, args: argparse.Namespace) -> None:
    steps = ddpm.schedule.T
    report(f"ddpm, {steps} calls", score(ddpm, args.n, steps, p_sample_loop, args.scale))


def seconds(ddpm: DDPM, args: argparse.Namespace) -> None:
    for steps, scale in ((10, 1.0), (10, 2.0), (20, 1.0)):
        taken = []
        for _ in range(9):
            started = time.perf_counter()
            ddpm.sample(range(10), steps=steps, sampler="dpm_solver_pp", scale=scale, seeds=range(10))
            taken.append(time.perf_counter() - started)
        print(f"ten digits, dpm_solver_pp, {steps} steps, scale {scale:g}: {statistics.median(taken):.2f} s")


def style(ddpm: DDPM, args: argparse.Namespace) -> None:
    """Test digits, each rewritten as another digit. A 7 slants otherwise than a 1 in any handwriting: hence the plain
    correlation, and that of what remains without each digit's mean in the training set."""
    (train, labels), (x, y), n = mnist()[:], mnist(train=False)[: args.n], args.n
    other = (y + torch.randint(1, 10, (n,), generator=torch.Generator().manual_seed(0))) % 10
    parts = zip(x.split(200), y.split(200), other.split(200))
    done = torch.cat([handwriting(ddpm, *part) for part in parts])
    print(f"style: n {n}  read as the new label {read(done, other):.2%}")
    for measure in (slant, stroke_width):
        mean = torch.stack([measure(train[labels == digit]).mean() for digit in range(10)])
        plain = correlation(measure(x), measure(done))
        rest = correlation(measure(x) - mean[y], measure(done) - mean[other])
        print(f"  {measure.__name__}: correlation {plain:.3f}, of what the digit does not explain {rest:.3f}")
    x, denoiser = x[:100], ddpm.denoiser(y[:100])
    for steps in (20, 50, 100):
        for iterations in (1, 3, 10):
            how = ddpm.schedule, ddpm.schedule.grid(steps), iterations
            error = float(round_trip_error(denoiser, x, *how).square().mean().sqrt())
            variance = float(last(invert(denoiser, x, *how)).x_t.var())
            print(
                f"  round trip, {steps} steps, {iterations} iterations: rms {error:.4f}, noise variance {variance:.3f}"
            )


def read(x: torch.Tensor, y: torch.Tensor) -> float:
    """The share of any 32x32 images that is read as y."""
    return float((classify(load_classifier(), x).argmax(1) == y).float().mean())


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])


def writing(ddpm: DDPM, args: argparse.Namespace) -> None:
    """Random strings of 1 to 12 digits, cut into the windows that they were drawn in."""
    choose, windows, digits = random.Random(0), [], ""
    for seed in range(args.n):
        text = "".join(choose.choice("0123456789") for _ in range(choose.randint(1, 12)))
        windows.append(write(text, ddpm, seed=seed).unfold(3, 32, STRIDE)[0].permute(2, 0, 1, 3))
        digits += text
    right = read(torch.cat(windows), torch.tensor([int(digit) for digit in digits]))
    print(f"write: {args.n} strings, {len(digits)} digits, read {right:.2%}")


def inpainting(ddpm: DDPM, args: argparse.Namespace) -> None:
    """The left half of test digits hidden, completed with and without repeating steps. The fit at the seam: the
    difference of ink across it, beside that in real digits."""
    (x, y), mask = mnist(train=False)[: args.n], hide_half("left", 32, 32)
    print(f"  real digits: step at the seam {seam(x):.4f}")
    for repeats in (1, 2, 5):
        for labels in (None, y):
            done = complete(ddpm, x, mask, 1, labels, repeats=repeats)
            known = "without labels" if labels is None else "with labels"
            print(
                f"  inpaint, {known}, repeats {repeats}: read as the real one {read(done, y):.1%}, step at the seam "
                f"{seam(done):.4f}",
                flush=True,
            )


def seam(x: torch.Tensor) -> float:
    return float((x[..., 16] - x[..., 15]).abs().mean())


def guidance(ddpm: DDPM, args: argparse.Namespace) -> None:
    """Ways to steer, at 20 steps of DDIM: first with labels, then by the classifier alone, then by measures."""
    n, T, labels = args.n, ddpm.schedule.T, reference_for(ddpm).labels[: args.n]
    ways = {"scale 1": {}, "scale 3": {"scale": 3.0}, "scale 8": {"scale": 8.0}}
    ways |= {f"scale 3 at t in {a}..{b}": {"scale": interval(3.0, a, b)} for a, b in ((1, T // 2), (T // 2, T))}
    ways["scale 8, dynamic threshold"] = {"scale": 8.0, "guide": dynamic_threshold}
    for s in (0.0, 1.0, 3.0):
        read_as = {"classifier": load_classifier(), "y": labels, "schedule": ddpm.schedule, "scale": s}
        guide = partial(classifier_guidance, **read_as)
        ways[f"no label, classifier's scale {s:g}"] = {"scale": 0.0, "guide": guide, "batch_size": n}
    for name, how in ways.items():
        report(name, score(ddpm, n, steps=20, **how))
    for measure, strength in ((brightness, 300.0), (slant, 30.0), (stroke_width, 30.0)):
        means = []
        for scale in (-strength, 0.0, strength):
            guide = partial(energy_guidance, log_weight=partial(of_image, measure), schedule=ddpm.schedule, scale=scale)
            x = ddpm.sample(labels[:100], steps=20, seeds=range(len(labels[:100])), guide=guide)
            means.append(f"{scale:g}: {float(measure(x).mean()):.3f} (read {read(x, labels[:100]):.0%})")
        print(f"  energy {measure.__name__}: {', '.join(means)}", flush=True)


def of_image(measure, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return measure(x)


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
