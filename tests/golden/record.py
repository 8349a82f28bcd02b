"""Golden values: what the package computed before it was rebuilt, kept beside this file as tensors.

    python tests/golden/record.py           records all groups anew (only where a change is meant)
    python tests/golden/record.py --exact   recomputes them and compares bit for bit: a proof on one machine,
                                            since other processors round differently

tests/test_golden.py compares within tolerances. Each group is a function that returns named tensors; each
call of the package is written in as few places as possible, so that a renamed argument changes one line here.
"""

import argparse
import csv
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor
from torch.utils.data import Subset

from tinyddpm.data import mnist
from tinyddpm.diffusion import (
    LOSSES,
    PREDICTIONS,
    WEIGHTS,
    diffusion_loss,
    eps_from_x_0,
    loss_weight,
    make_denoiser,
    q_posterior,
    q_sample,
    q_step,
    v_from,
    x_0_from_eps,
    x_0_from_flow,
    x_0_from_v,
)
from tinyddpm.editing.handwriting import brightness, handwriting, morph, slant, stroke_width
from tinyddpm.editing.inpainting import complete, hide_half, inpaint, resampling_grid
from tinyddpm.editing.inversion import invert, round_trip_error, sdedit, slerp, transfer
from tinyddpm.editing.strip import windowed, write
from tinyddpm.evaluation.classifier import classify, features, load_classifier
from tinyddpm.evaluation.metrics import (
    frechet_digit_distance,
    inception_score,
    kernel_distance,
    label_accuracy,
    memorisation,
    nearest,
    precision_recall,
)
from tinyddpm.extensions.betas import zero_terminal_snr
from tinyddpm.extensions.gradient_guidance import blend, classifier_guidance, dynamic_threshold, energy_guidance
from tinyddpm.extensions.learned_variance import LearnedVariance, hybrid_loss, learned_variance, variance_tables
from tinyddpm.extensions.likelihood import bits_per_dim, denoising_error
from tinyddpm.extensions.score_sde import euler_maruyama, log_likelihood, predictor_corrector, score
from tinyddpm.extensions.self_conditioning import self_conditioned
from tinyddpm.guidance import interval
from tinyddpm.pipeline import DDPM, load_pretrained
from tinyddpm.samplers import SAMPLERS, Step, ddim, p_sample, p_sample_loop
from tinyddpm.schedules import BETAS, SPACINGS, Schedule
from tinyddpm.trainer import train
from tinyddpm.trainer.recipes import RECIPES, Recipe

VALUES = Path(__file__).with_name("values.safetensors")
GROUPS: dict[str, Callable[[], dict[str, Tensor]]] = {}

Values = dict[str, Tensor]


def group(function: Callable[[], Values]) -> Callable[[], Values]:
    GROUPS[function.__name__] = function
    return function


def seeded(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=Generator().manual_seed(seed))


def generators(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


def schedule(name: str, T: int) -> Schedule:
    with warnings.catch_warnings():  # the unscaled betas leave signal at T
        warnings.simplefilter("ignore")
        return Schedule.named(name, T)


@cache
def pretrained() -> DDPM:
    return load_pretrained()


@cache
def data(is_train: bool):
    return mnist(train=is_train)


def digits(first: int, end: int, is_train: bool = False) -> tuple[Tensor, Tensor]:
    return data(is_train)[first:end]


# ---- schedules and grids


def some(table: Tensor) -> Tensor:
    """The first and last five entries and every 25th; all of a short table."""
    if len(table) <= 100:
        return table
    kept = {*range(5), *range(0, len(table), 25), *range(len(table) - 5, len(table))}
    return table[sorted(kept)].clone()


@group
def schedules() -> Values:
    found = {}
    for name, T in product((name for name in BETAS if name != "bound"), (10, 50, 1000)):  # which came later
        if T == 10 and name in ("linear", "linear-zero-snr"):  # their betas would exceed 1
            continue
        made = schedule(name, T)
        found[f"{name} {T} beta"] = some(made.beta)
        found[f"{name} {T} alpha_bar"] = some(made.alpha_bar)
        found[f"{name} {T} log_snr"] = some(made.log_snr[made.log_snr.isfinite()])
        if name != "flow" and not name.endswith("zero-snr"):
            found[f"{name} {T} zero_terminal_snr"] = some(zero_terminal_snr(made.beta))
    return found


@group
def grids() -> Values:
    found = {}
    for name, T, spacing in product(("linear", "cosine", "flow"), (50, 1000), SPACINGS):
        made = schedule(name, T)
        for start in (None, T // 2, 9):
            counts = [steps for steps in (1, 7, 10, 50) if steps <= (start or T)]
            walked = [made.grid(steps=steps, spacing=spacing, start=start) for steps in counts]
            found[f"{name} {T} {spacing} from {start or 'T'}"] = torch.tensor(sum(walked, []), dtype=torch.int16)
    grid = schedule("cosine", 50).grid(10)
    for jump, times in product((1, 3, 10), (1, 2, 3)):
        walked = resampling_grid(grid, jump=jump, repeats=times)
        found[f"resampling jump {jump} times {times}"] = torch.tensor(walked)
    return found


# ---- the algebra at one t, with a function in place of a network

NOISE_LEVELS = (("linear", 1000), ("cosine-shifted", 1000), ("flow", 1000), ("cosine", 50))


def function_model(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    shift = 0.1 * torch.sin(t.to(x_t.dtype)) + (0 if y is None else 0.05 * y)
    return torch.sin(3 * x_t) + shift.reshape(-1, 1, 1, 1)


def small_batch(T: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images, times from 1 to T, noise and labels, six of each."""
    t = torch.tensor([1, 2, T // 4, T // 2, T - T // 10, T])
    return seeded(6, 1, 4, 4).clamp(-1, 1), t, seeded(6, 1, 4, 4, seed=1), torch.arange(6)


def predictions(made: Schedule) -> list[str]:
    return [name for name in PREDICTIONS if name != "eps" or made.alpha_bar[-1] > 0]


@group
def losses() -> Values:
    found = {}
    for name, T in NOISE_LEVELS:
        made, (x_0, t, eps, y) = schedule(name, T), small_batch(T)
        loss_of = partial(diffusion_loss, function_model, x_0, t, eps, made)
        for predicts in predictions(made):
            for loss, weights in product(LOSSES, WEIGHTS):
                how = {"predicts": predicts, "loss": loss, "weights": weights}
                found[f"{name} {T} {predicts} {loss} {weights}"] = loss_of(**how, reduction="none")
            found[f"{name} {T} {predicts} mean with labels"] = loss_of(y=y, predicts=predicts)
    return found


@group
def loss_weights() -> Values:
    found = {}
    for name, T in NOISE_LEVELS:
        made, t = schedule(name, T), torch.linspace(1, T, 50).long()
        for predicts, weights in product(predictions(made), WEIGHTS):
            found[f"{name} {T} {predicts} {weights}"] = loss_weight(
                t, torch.zeros(50, 1, 1, 1), made, predicts, weights
            )
    return found


@group
def conversions() -> Values:
    found = {}
    for name, T in NOISE_LEVELS:
        made, (x_0, t, eps, y) = schedule(name, T), small_batch(T)
        x_t = q_sample(x_0, t, eps, made)
        values = {"q_step": q_step(x_0, t, eps, made), "q_sample": x_t}
        for t_one, s in ((1, 0), (2, 1), (T // 2, T // 2 - 1), (T // 2, T // 10), (T, T // 2), (T, 0)):
            mean, variance = q_posterior(x_0, x_t, t_one, s, made)
            values |= {f"q_posterior {t_one} {s} mean": mean}
            values |= {f"q_posterior {t_one} {s} variance": torch.tensor(variance, dtype=torch.float64)}
        values["v_from"] = v_from(x_0, eps, t, made)
        values["x_0_from_v"] = x_0_from_v(eps, x_t, t, made)
        values["x_0_from_flow"] = x_0_from_flow(eps, x_t, t, made)
        values["eps_from_x_0"] = eps_from_x_0(x_0, x_t, t, made)
        if "eps" in predictions(made):
            values["x_0_from_eps"] = x_0_from_eps(eps, x_t, t, made)
        for predicts in predictions(made):
            values[f"denoiser {predicts}"] = make_denoiser(function_model, made, predicts, y)(x_t, t)
        found |= {f"{name} {T} {key}": value for key, value in values.items()}
    return found


# ---- the shipped weights

LABELS = torch.tensor([3, 7])
SEEDS = [0, 1]


def walk(name: str, steps: Iterable[Step], look_at: int = 5) -> Values:
    """The images that a sampler ends with, and what its fifth step believed."""
    for k, step in enumerate(steps, 1):
        if k == look_at:
            x_0_hat = step.x_0_hat
    return {f"{name} x": step.x_t, f"{name} x_0_hat of step {look_at}": x_0_hat}


@group
def samplers() -> Values:
    ddpm, found = pretrained(), {}
    others = {"euler_maruyama": euler_maruyama, "predictor_corrector": predictor_corrector}
    four = {"y": LABELS.repeat(2), "seeds": [*SEEDS, 1000, 1001]}
    runs = {name: {"sampler": sampler, **four} for name, sampler in (SAMPLERS | others).items()}
    runs |= {"ddim eta": {"sampler": partial(ddim, eta=0.5), **four}}
    runs |= {
        spacing: {"grid": ddpm.schedule.grid(10, spacing), "y": LABELS, "seeds": SEEDS}
        for spacing in ("quadratic", "log-snr")
    }
    for name, how in runs.items():
        found |= walk(name, ddpm.sample_steps(steps=10, scale=1.0, **how))
    loops = {
        "ddpm beta": {"grid": ddpm.schedule.grid(10), "variance": "beta"},
        "climbing": {"grid": resampling_grid(ddpm.schedule.grid(6), jump=2, repeats=2)},
    }
    x_T, denoiser = seeded(2, 1, 32, 32), ddpm.denoiser(LABELS)
    for name, how in loops.items():
        steps = p_sample_loop(denoiser, x_T, schedule=ddpm.schedule, generator=generators(1, 2), **how)
        found |= walk(name, steps)
    x_t = p_sample(x_T, x_T.sin(), 700, 300, ddpm.schedule, generator=generators(1, 2))
    return found | {"p_sample 700 300": x_t}


def ink_energy(x: Tensor, t: Tensor) -> Tensor:
    """A log-weight: images of a third ink, more strictly where there is less noise."""
    return -40 * (brightness(x) - 0.33).square() / (1 + t / 500)


@group
def guidance() -> Values:
    ddpm, known = pretrained(), digits(0, 2)[0]
    mask = hide_half("left", 32, 32)
    other = ddpm.denoiser(torch.tensor([8, 8]))
    runs = {
        "scale 2": {"scale": 2.0},
        "scale 0": {"scale": 0.0},
        "interval": {"scale": interval(3.0, 333, 667)},
        "dynamic_threshold": {"scale": 3.0, "guide": dynamic_threshold},
        "blend": {"guide": partial(blend, b=other, weight=0.3)},
        "blend shares": {"guide": partial(blend, b=other, weight=torch.tensor([0.2, 1.0]))},
        "inpaint": {"guide": partial(inpaint, known=known, mask=mask)},
    }
    found = {}
    for name, how in runs.items():
        found |= walk(name, ddpm.sample_steps(y=LABELS, steps=3, seeds=SEEDS, **how), look_at=2)
    return found | walk("no labels", ddpm.sample_steps(n=2, steps=3, seeds=SEEDS), look_at=2)


@group
def gradient_guidance() -> Values:
    ddpm, found = pretrained(), {}
    read = {"classifier": load_classifier(), "y": LABELS, "schedule": ddpm.schedule, "scale": 2.0}
    pull = {"log_weight": ink_energy, "schedule": ddpm.schedule, "scale": 3.0}
    guides = {
        "classifier": partial(classifier_guidance, **read),
        "noisy energy": partial(energy_guidance, **pull, noisy=True),
        "clean energy": partial(energy_guidance, **pull),
    }
    for name, guide in guides.items():
        steps = ddpm.sample_steps(y=LABELS, steps=3, seeds=SEEDS, guide=guide)
        found |= walk(name, steps, look_at=2)
    return found


@group
def editing() -> Values:
    ddpm = pretrained()
    x_0, y = digits(0, 2)
    own, other, grid = ddpm.denoiser(y), ddpm.denoiser(LABELS), ddpm.schedule.grid(5)
    inverted = partial(invert, own, x_0, schedule=ddpm.schedule, grid=ddpm.schedule.grid(6))
    found = walk("invert 1", inverted(iterations=1)) | walk("invert 3", inverted(iterations=3))
    found["round_trip_error"] = round_trip_error(own, x_0, ddpm.schedule, grid, iterations=2)
    back = ddpm.schedule.grid(4, start=600)
    found |= walk("sdedit", sdedit(other, x_0, ddpm.schedule, back, generator=generators(*SEEDS)), 3)
    found |= walk("transfer", transfer(own, other, x_0, ddpm.schedule, grid), 3)
    a, b = seeded(3, 1, 4, 4), seeded(3, 1, 4, 4, seed=1)
    b[2] = a[2]  # on a line
    found |= {f"slerp {share}": slerp(a, b, share) for share in (0.0, 0.3, 1.0)}
    found["slerp shares"] = slerp(a, b, torch.tensor([0.1, 0.5, 0.9]))
    return found


@group
def pictures() -> Values:
    ddpm = pretrained()
    x_0, y = digits(0, 2)
    mask = hide_half("bottom", 32, 32)
    columns = windowed(ddpm.denoiser(LABELS), places=[0, 12], width=32)
    return {
        "morph": morph(ddpm, torch.tensor([3, 8]), frames=2, steps=4),
        "morph wander": morph(ddpm, torch.tensor([3, 8]), frames=1, steps=4, wander=True),
        "complete": complete(ddpm, x_0, mask, each=2, steps=4, repeats=2),
        "handwriting": handwriting(ddpm, x_0, y, LABELS, steps=4),
        "write": write("2026 1", ddpm, steps=4),
        "windowed": columns(seeded(1, 1, 32, 46), torch.tensor([700])),
        "all_but": torch.stack([hide_half(h, 32, 32) for h in ("left", "right", "top", "bottom", "middle")]),
    }


# ---- measures


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@group
def measures() -> Values:
    judge = load_classifier()
    (x, y), (other, _), (seen, _) = digits(0, 200), digits(200, 400), digits(0, 300, is_train=True)
    f, g, p = features(judge, x), features(judge, other), classify(judge, x)
    distance, index = nearest(x, seen)
    found = {"brightness": brightness(x[:20]), "slant": slant(x[:20]), "stroke_width": stroke_width(x[:20])}
    found |= {"features": f[:20, :8].clone(), "classify": p[:20].clone(), "nearest": distance}
    found["nearest index"] = index
    found["label_accuracy"] = numbers(label_accuracy(judge, x, (y + (y == 4)) % 10))
    found["frechet_digit_distance"] = numbers(frechet_digit_distance(f, g))
    found["kernel_distance"] = numbers(*kernel_distance(f, g))
    found["inception_score"] = numbers(inception_score(p))
    found["precision_recall"] = numbers(*precision_recall(f, g))
    found["memorisation"] = numbers(*memorisation(x, seen, other, quantile=0.01).values())
    drawn = pretrained().sample(y=torch.arange(20) % 10, steps=4, seeds=range(20))
    return found | {"reading of samples": classify(judge, drawn)}


@group
def likelihood() -> Values:
    ddpm = pretrained()
    x_0, y = digits(0, 2)
    denoiser, noise, of_schedule = ddpm.denoiser(y), ddpm.schedule, {"schedule": ddpm.schedule}
    grid = of_schedule | {"grid": noise.grid(20)}
    error = denoising_error(denoiser, x_0, **grid, generator=Generator().manual_seed(0))
    bits = partial(bits_per_dim, denoiser, x_0, **grid)
    near = q_sample(x_0, 100, seeded(2, 1, 32, 32), noise)
    t, way = torch.tensor([100, 100]), noise.grid(10)[:-1]
    return {
        "denoising_error": error[error > 0],
        "bits_per_dim": bits(generator=Generator().manual_seed(1)),
        "bits_per_dim with error": bits(error_variance=error, generator=Generator().manual_seed(1)),
        "log_likelihood": log_likelihood(denoiser, near, **of_schedule, grid=way, generator=generators(0, 1)),
        "score": score(denoiser, noise)(near, t),
    }


# ---- networks of twice the channels: functions again


def double_model(x: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    x_t, beside = x.chunk(2, dim=1)
    return torch.cat([function_model(x_t, t, y) + beside / 2, torch.tanh(x_t)], dim=1)


def with_variance(x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
    return double_model(torch.cat([x_t, torch.zeros_like(x_t)], dim=1), t, y)


def with_estimate(x_t: Tensor, t: Tensor, y: Tensor | None, x_0_hat: Tensor) -> Tensor:
    return double_model(torch.cat([x_t, x_0_hat], dim=1), t, y)[:, :1]


@group
def twice_the_channels() -> Values:
    found = {}
    for name, T in NOISE_LEVELS:
        made, (x_0, t, eps, y) = schedule(name, T), small_batch(T)
        x_t, first_small = q_sample(x_0, t, eps, made), float(variance_tables(made)[0][1])
        each = [made.posterior_variance(u, u // 2) if u > 1 else (first_small, float(made.beta[1])) for u in t.tolist()]
        small, large = (torch.tensor(column, dtype=x_t.dtype).reshape(-1, 1, 1, 1) for column in zip(*each))
        values = {"learned_variance": learned_variance(eps.tanh(), small, large)}
        grid = made.grid(5)
        for predicts in predictions(made):
            both = LearnedVariance(with_variance, made, predicts, y)
            drawn = {"variance": both.variance, "generator": Generator().manual_seed(0)}
            shown = self_conditioned(with_estimate, made, predicts, y)
            values[f"{predicts} hybrid_loss"] = hybrid_loss(with_variance, x_0, t, eps, made, y, predicts).mean()
            values |= walk(f"{predicts} learned", p_sample_loop(both, x_t, made, grid, **drawn), 3)
            first, second = shown(x_t, t), shown(x_t / 2, t // 2)
            values |= {f"{predicts} first look": first, f"{predicts} second look": second}
        found |= {f"{name} {T} {key}": value for key, value in values.items()}
    return found


# ---- training

NANO = RECIPES["nano"]
SMALL = replace(NANO, network=replace(NANO.network, dims=(8, 16, 32)), warmup=2)


def trained(recipe: Recipe, images: int) -> Values:
    """One epoch: the row of its table, and of each averaged weight the mean, deviation and every 101st."""
    with tempfile.TemporaryDirectory() as folder:
        subset = Subset(data(True), range(images))
        ddpm = train(recipe, folder, subset, epochs=1, seed=0, device="cpu", precision="no")
        with open(Path(folder) / "log.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    columns = [name for name in rows[0] if name.startswith(("loss", "learning_rate", "gradient_norm"))]
    weights = [weight.detach() for weight in ddpm.model.parameters()]
    return {
        "log": numbers(*(float(row[name] or -1) for row in rows for name in columns)),
        "mean": torch.stack([weight.mean() for weight in weights]),
        "std": torch.stack([weight.std(correction=0) for weight in weights]),
        "every 101st": torch.cat([weight.flatten() for weight in weights])[::101].clone(),
    }


@group
def training_nano() -> Values:
    return trained(NANO, images=20 * NANO.batch_size)


@group
def training_adam() -> Values:
    recipe = replace(SMALL, optimizer="adam", times="half-logit-normal")
    return trained(recipe, images=6 * recipe.batch_size)


@group
def training_progressive() -> Values:
    recipe = replace(SMALL, optimizer="adam", times="progressive")
    return trained(recipe, images=6 * recipe.batch_size)


# ---- to the file and back


def load() -> dict[str, Values]:
    """The stored values of each group."""
    stored: dict[str, Values] = {}
    for key, value in load_file(VALUES).items():
        name, _, rest = key.partition("/")
        stored.setdefault(name, {})[rest] = value
    return stored


def compute(name: str) -> Values:
    """The values of a group today, on one thread: other numbers of threads round differently."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {key: value.detach().contiguous() for key, value in GROUPS[name]().items()}
    torch.set_num_threads(threads)
    return found


def difference(found: Values, stored: Values) -> str:
    """ "equal", or which tensors differ and by how much, relative to the largest entry of each."""
    if found.keys() != stored.keys():
        return f"other names: {', '.join(sorted(found.keys() ^ stored.keys()))}"
    worst = {}
    for name, value in found.items():
        if value.shape != stored[name].shape or value.dtype != stored[name].dtype:
            return f"{name} has another shape or dtype"
        if not torch.equal(value, stored[name]):
            a, b = value.double(), stored[name].double()
            worst[name] = float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
    names = sorted(worst, key=worst.get, reverse=True)
    listed = ", ".join(f"{name} {worst[name]:.1e}" for name in names[:12]) + (" ..." if names[12:] else "")
    return f"{len(worst)} of {len(found)} differ: {listed}" if worst else "equal"


def main() -> None:
    parser = argparse.ArgumentParser(description="Record the golden values, or compare with them.")
    parser.add_argument("--exact", action="store_true", help="compare bit for bit, write nothing")
    exact = parser.parse_args().exact
    stored, values, changed = load() if exact else {}, {}, 0
    for name in GROUPS:
        started = time.perf_counter()
        found = compute(name)
        told = difference(found, stored.get(name, {})) if exact else f"{len(found)} tensors"
        changed += exact and told != "equal"
        print(f"{name}: {told}, {time.perf_counter() - started:.1f} s", flush=True)
        values |= {f"{name}/{key}": value for key, value in found.items()}
    if not exact:
        save_file(values, VALUES)
        VALUES.chmod(0o644)
    raise SystemExit(changed > 0)


if __name__ == "__main__":
    main()
