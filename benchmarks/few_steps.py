"""One call as good as fifty: what was tried, and how mnist-onestep was trained.

    python benchmarks/few_steps.py pairs                   # 8 core-minutes: noise, and where the teacher's ODE leads
    python benchmarks/few_steps.py run [NAME ...] [--minutes 6] [--seeds 0]         # each objective for as long
    python benchmarks/few_steps.py train [NAME] --minutes 100 [--out FILE]     # the weights that ship; resumes
    python benchmarks/few_steps.py table                   # of all runs, as markdown
    python benchmarks/few_steps.py gif                     # assets/pictures/few_steps.gif

Minutes are CPU time of one thread, without the time of measuring. bfloat16 where the processor has it natively.
"""

import argparse
import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from tinyddpm import (
    DDPM,
    EMA,
    ConsistencyLoss,
    MeanFlowLoss,
    ReflowLoss,
    TwoTimes,
    UNet,
    consistency_sampling,
    dpm_solver_pp,
    image_grid,
    load_pretrained,
    mean_flow,
    mnist,
    reflow_pairs,
    save_gif,
    train_steps,
)
from tinyddpm.evaluation import score
from tinyddpm.evaluation.metrics import METRICS
from tinyddpm.extensions.distillation import Critic, DistributionMatchingLoss, GuidedNetwork
from tinyddpm.files import write_whole
from tinyddpm.samplers import ddim
from tinyddpm.trainer.optim import muon
from tinyddpm.trainer.processes import native_bf16

HERE, RUNS = Path(__file__).parent, Path("runs/few-steps")
SHIPPED = HERE.parent / "assets" / "weights" / "mnist-onestep.safetensors"
BATCH, N = 64, 4000  # images of a step, and those that are judged
SCALE = 1.15  # of guidance, chosen for the shipped student: see the model card
TIMES = (750, 500, 500, 500, 500, 250)  # after T; the second of two calls, at 500, is practised most


# --- pairs ---------------------------------------------------------------------------------------------------------


def half(device: str = "cpu") -> contextlib.AbstractContextManager:
    return torch.autocast(device, torch.bfloat16, enabled=native_bf16(device))


def make_pairs(n: int, batch: int = 200) -> None:
    """Noise and the image that 8 steps of DPM-Solver++ make of it. Uniform in t: in 6 steps, even in log-SNR, they
    have a distance of 0.125 from real digits, and uniform ones 0.03."""
    teacher, generator = load_pretrained(), Generator().manual_seed(1)
    teacher.model = torch.compile(teacher.model)
    parts, labels, started = [], [], time.process_time()
    with torch.no_grad(), half():
        for _ in range(n // batch):
            y = torch.randint(10, (batch,), generator=generator)
            noise = torch.randn(batch, 1, 32, 32, generator=generator)
            grid = teacher.schedule.grid(8)
            parts.append(reflow_pairs(teacher.denoiser(y), noise, teacher.schedule, grid, dpm_solver_pp).float())
            labels.append(y)
    RUNS.mkdir(parents=True, exist_ok=True)
    torch.save({"x": torch.cat(parts), "y": torch.cat(labels)}, RUNS / "pairs.pt")
    print(f"{n} pairs in {(time.process_time() - started) / 60:.1f} core-minutes")


def pairs(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    data, generator = torch.load(RUNS / "pairs.pt"), Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(len(data["x"]), (BATCH,), generator=generator)
        yield data["x"][chosen], data["y"][chosen]


def digits(seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    (x, y), generator = mnist().tensors(), Generator().manual_seed(seed)
    while True:
        chosen = torch.randint(len(x), (BATCH,), generator=generator)
        yield x[chosen], y[chosen]


# --- what is tried: a student, its objective, its batches, and how it is sampled ------------------------------------


class AsVelocity(nn.Module):
    """A network that predicts x_0 as one that predicts v, which leaves a clean image as it is."""

    def __init__(self, network: nn.Module, schedule):
        super().__init__()
        self.network, self.schedule, self.num_classes = network, schedule, network.num_classes

    def forward(self, x_t, t, y=None):
        signal, noise = self.schedule.coefficients(t.clamp(min=1), x_t)
        return (signal * x_t - self.network(x_t, t, y)) / noise


def first_time(n: int, T: int, generator: Generator) -> Tensor:
    return torch.full((n,), T)


def regression(teacher: DDPM):
    loss = ReflowLoss(teacher.schedule, "x_0", "huber", label_drop=0.0, times=first_time)
    return GuidedNetwork.of(teacher.model, 4), loss, pairs, "x_0", ddim


def reflow(teacher: DDPM):
    return copy_of(teacher), ReflowLoss(teacher.schedule, "x_0", label_drop=0.0), pairs, "x_0", ddim


def consistency(teacher: DDPM, distil: bool):
    own = teacher.denoiser if distil else None
    loss = ConsistencyLoss(teacher.schedule, "v", "huber", "clamped-snr", 0.0, teacher=own, gap=50)
    return AsVelocity(copy_of(teacher), teacher.schedule), loss, digits, "v", consistency_sampling


def average_velocity(teacher: DDPM):
    network = UNet(**teacher.model.arguments | {"channels": 2, "out_channels": 1})
    return TwoTimes(network), MeanFlowLoss(teacher.schedule, "flow"), digits, "flow", mean_flow


def matching(teacher: DDPM, **settings):
    """Distribution matching, after regression for a fifteenth of the time."""
    follower = GuidedNetwork.of(teacher.model).train()
    loss = DistributionMatchingLoss(teacher, follower, muon(follower, 0.0, native_bf16("cpu")), TIMES, **settings)
    return regression(teacher)[0], loss, pairs, "x_0", ddim


def criticised(teacher: DDPM, weight: float = 0.1, **settings):
    """Distribution matching, and a critic that has seen the 60,000 real digits."""
    critic = Critic(teacher, *mnist().tensors(), weight=weight)
    return matching(teacher, **{"critic": critic, "regress": 0.003, "first": 0.7} | settings)


def copy_of(teacher: DDPM) -> UNet:
    network = UNet(**teacher.model.arguments)
    network.load_state_dict(teacher.model.state_dict())
    return network


SHIPPED_BY = "distribution matching and a critic"
METHODS = {
    "regression": regression,
    "reflow": reflow,
    "consistency distillation": partial(consistency, distil=True),
    "consistency training": partial(consistency, distil=False),
    "MeanFlow, from nothing": average_velocity,
    "distribution matching": matching,
    SHIPPED_BY: criticised,
    "distribution matching and a critic of twice the weight": partial(criticised, weight=0.2),
    "distribution matching, first call alone": partial(matching, first=1.0),
    "distribution matching, no regression to the pairs": partial(matching, regress=0.0),
    "distribution matching, scale 1 alone": partial(matching, plain=1.0),
}


# --- one run -------------------------------------------------------------------------------------------------------


class Run:
    """The training of one student for some minutes of CPU time, without the time of measuring."""

    def __init__(self, name: str, minutes: float, seed: int, rate: float = 1e-3):
        torch.manual_seed(seed)
        self.name, self.minutes, self.seed, self.rate, self.spent = name, minutes, seed, rate, 0.0
        self.teacher = load_pretrained()
        self.teacher.model.requires_grad_(False)
        self.student, self.loss, self.batches, self.predicts, self.sampler = METHODS[name](self.teacher)
        self.optimizer = muon(self.student.train(), 0.0, native_bf16("cpu"))
        self.matches = isinstance(self.loss, DistributionMatchingLoss)
        self.ema = EMA(self.student, (0.9993 if self.matches else 0.998) if minutes > 20 else 0.99)
        self.generator, self.steps = Generator().manual_seed(seed), 0
        self.stages = [(0.0, self.loss)]
        if self.matches:  # a critic of a student that is far off teaches it tricks
            alone = replace(self.loss, critic=None)
            later = self.loss if self.loss.first == 1 else replace(self.loss, first=0.5)  # calls after the first lag
            self.stages = [(0.0, regression(self.teacher)[1]), (1 / 15, alone), (0.35, self.loss), (0.5, later)]

    @property
    def progress(self) -> float:
        return self.spent / (60 * self.minutes)

    def objective(self, model, x_0, y, generator):
        loss = [stage for start, stage in self.stages if start <= self.progress][-1]
        with contextlib.nullcontext() if isinstance(loss, MeanFlowLoss) else half():  # no jvp under autocast
            losses, t = loss(model, x_0, y, generator)
        return losses.float(), t

    def decayed(self, number: int) -> float:
        """Constant after a short rise, then falling to 0 over the last 40 %. In distribution matching only to a fifth,
        after the regression: the second network learns at the whole rate and keeps up with the student. A rate that
        fell to 0 made one run worse (distance 0.0207 at 54 minutes, 0.0276 at 62), and averages of its earlier states
        were better (0.017). There the averaged weights take the place of a fall."""
        if self.matches:
            fall = 1.0 if self.progress < self.stages[1][0] else 0.2
        else:
            fall = min(1, (1 - min(self.progress, 1)) / 0.4)
        return self.rate * min(1, number / 30) * fall

    def train(self, keep: Path | None = None) -> None:
        started, saved = time.process_time(), self.spent
        parts = self.student, self.batches(self.seed + self.steps), self.objective, self.optimizer, self.decayed
        before = self.spent
        for step in train_steps(*parts, self.ema, self.generator, start=self.steps):
            self.spent, self.steps = before + time.process_time() - started, step.number
            if keep is not None and self.spent - saved > 300:
                torch.save(self.state(), keep.with_suffix(".new"))
                keep.with_suffix(".new").replace(keep)
                saved, paused = self.spent, time.process_time()
                now = score(self.ddpm(), 500, 1, self.sampler, seed=10**6)  # to see, off the clock, that it still draws
                started += time.process_time() - paused
                where = f"{self.name}: step {self.steps}, {self.spent / 60:.1f} of {self.minutes:g} minutes"
                print(f"{where}, {now.accuracy:.1%} of 500 read in one call, distance {now.distance:.3f}", flush=True)
            if self.progress >= 1:
                return

    def parts(self) -> dict:
        parts = {"student": self.student, "average": self.ema.model, "optimizer": self.optimizer}
        if self.matches:
            parts |= {"follower": self.loss.follower, "its optimizer": self.loss.optimizer}
            if self.loss.critic is not None:
                parts |= {"critic": self.loss.critic, "its own optimizer": self.loss.critic.optimizer}
        return parts

    def state(self) -> dict:
        own = {"spent": self.spent, "steps": self.steps, "generator": self.generator.get_state()}
        return own | {name: part.state_dict() for name, part in self.parts().items()}

    def restore(self, state: dict) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
        self.spent, self.steps, self.ema.updates = state["spent"], state["steps"], state["steps"]
        self.generator.set_state(state["generator"])
        if self.matches and self.loss.critic is not None:
            self.loss.critic.steps = self.steps

    def ddpm(self) -> DDPM:
        how = {"objective": self.name, "core minutes": round(self.minutes), "seed": self.seed, "steps": self.steps}
        notes = {"schedule": "cosine-shifted", "data": "MNIST", "teacher": "mnist-tiny", "batch_size": BATCH, **how}
        return DDPM(self.ema.model, self.teacher.schedule, self.predicts, notes=notes)

    def measured(self, scale: float = 1.0) -> dict:
        """Of N images in 1, 2 and 4 calls."""
        found: dict = {"name": self.name, "minutes": self.minutes, "seed": self.seed, "steps": self.steps, "n": N}
        ddpm = self.ddpm()
        for calls in (1, 2, 4):
            result = score(ddpm, N, calls, self.sampler, scale, seed=10**6)
            more = result.samples.measure(METRICS["precision_recall"])
            found[str(calls)] = [result.accuracy, result.distance, *more]
        return found


def run(names: list[str], minutes: float, seeds: list[int]) -> None:
    for name in names or list(METHODS):
        for seed in seeds:
            path = RUNS / f"{name.replace(' ', '-')}-{minutes:g}-{seed}.json"
            if not path.exists():
                trial = Run(name, minutes, seed)
                trial.train()
                write_whole(path, json.dumps(found := trial.measured()).encode())
                print(found, flush=True)


def train(minutes: float, out: Path, name: str = SHIPPED_BY) -> None:
    trial, state = Run(name, minutes, 0), RUNS / f"{name.replace(' ', '-')}.pt"
    if state.exists():
        trial.restore(torch.load(state))
    trial.train(state)
    trial.ddpm().save(out)
    for scale in (1.0, SCALE):
        print(f"scale {scale}: {json.dumps(trial.measured(scale))}")
    print(out)


def table() -> None:
    rows = ["| objective | minutes of one core | seeds | 1 call | 2 calls | 4 calls |", "|---|---|---|---|---|---|"]
    found = [json.loads(path.read_text()) for path in sorted(RUNS.glob("*.json"))]
    for name in METHODS:
        for minutes in sorted({one["minutes"] for one in found if one["name"] == name}):
            same = [one for one in found if (one["name"], one["minutes"]) == (name, minutes)]
            cells = []
            for calls in "124":
                means = torch.tensor([one[calls] for one in same]).mean(0).tolist()
                cells.append("{:.1%}, **{:.3f}**, {:.2f} / {:.2f}".format(*means))
            rows.append(f"| {name} | {minutes:g} | {len(same)} | {' | '.join(cells)} |")
    print("\n".join(rows))


def gif(out: Path) -> None:
    """Ten digits from the same noise in 1, 2 and 4 calls, side by side; a frame is a call."""
    draw = partial(load_pretrained("mnist-onestep").sample_steps, range(10), scale=SCALE, seeds=range(10))
    paths, frames = [[step.x_t for step in draw(steps=steps)] for steps in (1, 2, 4)], []
    for call in (4, 0, 1, 2, 3, 4):  # what it ends with first: a page that plays no GIF shows the first frame
        now = [image_grid(path[min(call, len(path) - 1)], columns=2, enlarge=2) for path in paths]
        gap = torch.zeros(1, now[0].shape[1], 16, dtype=now[0].dtype)
        frames.append(torch.cat([now[0], gap, now[1], gap, now[2]], dim=2))
    save_gif(frames, out, fps=1.25, hold=2.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pairs", "run", "train", "table", "gif"])
    parser.add_argument("names", nargs="*", help=", ".join(METHODS))
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n", type=int, default=72_000, help="pairs")
    parser.add_argument("--out", type=Path, help="of train; without a NAME, the weights that ship")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.what == "pairs":
        make_pairs(args.n)
    elif args.what == "run":
        run(args.names, args.minutes, args.seeds)
    elif args.what == "train":
        train(args.minutes, args.out or (RUNS / "student.safetensors" if args.names else SHIPPED), *args.names)
    elif args.what == "table":
        table()
    else:
        gif(HERE.parent / "assets" / "pictures" / "few_steps.gif")


if __name__ == "__main__":
    main()
