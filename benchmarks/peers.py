"""Other people's code beside ours: each library by its released version, with its own network, loss, optimizer and
sampler, on our digits, for equally many minutes of one core, measured by one judge.

    pip install --no-deps diffusers==0.42.1 denoising-diffusion-pytorch==2.3.4 smalldiffusion==0.5.0 azula==0.11.1 \\
        torchcfm==1.0.7 flow_matching==1.0.10 ema-pytorch==0.8.3 torch-ema==0.3 torchdiffeq==0.2.5 POT==0.9.7.post1 \\
        scipy==1.17.1 pytorch-fid==0.3.0

    python benchmarks/peers.py run azula --minutes 10   # writes runs/peers/azula.json, and its samples as azula.npz
    python benchmarks/peers.py run                      # all that have no record yet, one after another
    python benchmarks/peers.py table                    # writes benchmarks/peers.md and assets/pictures/peers.png

The versions are those that were measured; nothing here pulls in another torch. Settings are those that each project
publishes for MNIST, or the nearest (PEERS has the links). A minute is 60 seconds of the process's CPU time on one
thread, in float32 except for tiny-bf16; imports, sampling and measuring do not count. Each epoch visits the 60,000
training digits in a new order, in [-1, 1] (or [0, 1] where a library normalises), without augmentation.

A sampler takes as many steps as published if 1,000 images then take at most five minutes, and otherwise as many as fit;
n is what fits into five minutes, from 1,000 to 10,000. Images are clipped to [-1, 1] and rounded to 256 grey values.
`tinyddpm judge runs/peers/NAME.npz` measures them again.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tinyddpm import Schedule, ddim, last, mnist
from tinyddpm.data import crop_to, from_uint8, to_uint8
from tinyddpm.datasets.named import torchvision_datasets
from tinyddpm.evaluation import Reference, judge
from tinyddpm.evaluation.classifier import not_finite
from tinyddpm.evaluation.judge import JUDGED
from tinyddpm.files import writable_folder, write_whole
from tinyddpm.oracle import local_oracle
from tinyddpm.trainer import train
from tinyddpm.trainer.recipes import RECIPES
from tinyddpm.viz import image_grid, save_picture

HERE = Path(__file__).parent
PICTURE = HERE.parent / "assets" / "pictures" / "peers.png"
SECONDS = 300  # for the samples of a row
LEAST, MOST = 1000, 10_000  # samples; with --n from JUDGEABLE on
JUDGEABLE = 129
AT_ONCE = 100
METRICS = {name: JUDGED[name] for name in JUDGED if name not in ("confusion", "train_on_synthetic")}


@dataclass
class Peer:
    """A generator: its training, minutes -> (images seen, CPU seconds); its sampler, (labels, steps) -> images in
    [-1, 1]; how many steps that takes as published, 0 if it chooses them itself; its parameters; whether it takes
    labels."""

    train: Callable[[float], tuple[int, float]]
    sample: Callable[[Tensor, int], Tensor]
    steps: int
    parameters: int
    labels: bool = True


def batches(size: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Training digits in [-1, 1] and their labels, in a new order each epoch."""
    x, y = mnist(size=size).tensors()
    while True:
        for part in torch.randperm(len(x)).split(batch_size):
            if len(part) == batch_size:
                yield x[part], y[part]


def for_minutes(step: Callable[[Tensor, Tensor], None], batch_size: int, size: int = 28):
    """Training by single steps."""

    def run(minutes: float) -> tuple[int, float]:
        data, images, started = batches(size, batch_size), 0, time.process_time()
        while time.process_time() - started < 60 * minutes:
            step(*next(data))
            images += batch_size
        return images, time.process_time() - started

    return run


def count(*models: nn.Module) -> int:
    return sum(p.numel() for model in models for p in model.parameters() if p.requires_grad)


def improve(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# --- ours --------------------------------------------------------------------------------------------


def oracle() -> Peer:
    """No network, no training: the exact denoiser of 1,500 digits, seen through windows."""
    digits, labels = mnist()[:1500]
    schedule = Schedule.named("linear")

    def sample(y: Tensor, steps: int) -> Tensor:
        denoiser = local_oracle(digits, schedule, labels, y)
        return last(ddim(denoiser, torch.randn(len(y), 1, 32, 32), schedule, schedule.grid(steps))).x_t

    return Peer(lambda minutes: (0, 0.0), sample, 16, 0)


def tiny(precision: str) -> Peer:
    """Our recipe `tiny`, sampled by DDPM."""
    trained = []

    def run(minutes: float) -> tuple[int, float]:
        recipe, started = RECIPES["tiny"], time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            how = {"minutes": minutes, "seed": 0, "device": "cpu", "precision": precision, "clock": time.process_time}
            trained.append(train(recipe, folder, **how))
        return trained[0].notes["steps"] * recipe.batch_size, time.process_time() - started

    def sample(y: Tensor, steps: int) -> Tensor:
        return trained[0].sample(y, steps=steps, sampler="ddpm", batch_size=AT_ONCE)

    return Peer(run, sample, 50, count(RECIPES["tiny"].network.build((1, 32, 32), 10)))


# --- others ------------------------------------------------------------------------------------------


def diffusers() -> Peer:
    """The class-conditioned network of the diffusion course, its scheduler and its loop."""
    from diffusers import DDPMScheduler
    from settings import CourseNet

    # linspace: of fewer than 1,000 steps, the default leaves out the noisiest, those above steps * (1000 // steps)
    how = {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "linspace"}
    network, scheduler = CourseNet(), DDPMScheduler(num_train_timesteps=1000, **how)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step(x: Tensor, y: Tensor) -> None:
        noise, t = torch.randn_like(x), torch.randint(0, 999, (len(x),))
        improve(optimizer, F.mse_loss(network(scheduler.add_noise(x, noise, t), t + 1, y), noise))

    def sample(y: Tensor, steps: int) -> Tensor:
        scheduler.set_timesteps(steps)
        x = torch.randn(len(y), 1, 28, 28)
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t.expand(len(y)) + 1, y), t, x).prev_sample
        return x

    return Peer(for_minutes(step, 128), sample, 1000, count(network))


def lucidrains() -> Peer:
    """Its Unet and GaussianDiffusion in the size of the annotated diffusion model, and its Trainer's step. Its images
    are in [0, 1]. With fewer steps it samples by DDIM."""
    torchvision_datasets()
    from denoising_diffusion_pytorch import GaussianDiffusion, Unet
    from ema_pytorch import EMA

    network = Unet(dim=28, channels=1, dim_mults=(1, 2, 4))
    how = {"image_size": 28, "timesteps": 300, "objective": "pred_noise", "beta_schedule": "linear"}
    diffusion = GaussianDiffusion(network, **how)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.9, 0.99))
    average = EMA(diffusion, beta=0.995, update_every=10)

    def step(x: Tensor, y: Tensor) -> None:
        optimizer.zero_grad()
        diffusion((x + 1) / 2).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update()

    def sample(y: Tensor, steps: int) -> Tensor:
        model = average.ema_model.eval()
        model.sampling_timesteps, model.is_ddim_sampling = steps, steps < 300
        return 2 * model.sample(batch_size=len(y)) - 1

    return Peer(for_minutes(step, 128), sample, 300, count(network), labels=False)


def smalldiffusion() -> Peer:
    """The class-conditioned transformer of its FashionMNIST example. The gradient of its batch of 1,024 is summed over
    parts of 128, for memory."""
    torchvision_datasets()
    from smalldiffusion import CondEmbedderLabel, DiT, ScheduleDDPM, generate_train_sample, samples
    from torch_ema import ExponentialMovingAverage

    embedding = CondEmbedderLabel(192, 10, 0.1)
    network = DiT(in_dim=28, channels=1, patch_size=2, depth=6, head_dim=32, num_heads=6, cond_embed=embedding)
    schedule = ScheduleDDPM(beta_start=0.0001, beta_end=0.02, N=1000)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    average = ExponentialMovingAverage(network.parameters(), decay=0.99)

    def step(x: Tensor, y: Tensor) -> None:
        network.train()
        optimizer.zero_grad()
        for part in zip(x.split(128), y.split(128)):
            x_0, sigma, eps, cond = generate_train_sample(part, schedule, conditional=True)
            (network.get_loss(x_0, sigma, eps, cond=cond) * len(x_0) / len(x)).backward()
        optimizer.step()
        average.update()

    def sample(y: Tensor, steps: int) -> Tensor:
        with average.average_parameters():
            *_, x = samples(network, schedule.sample_sigmas(steps), gam=1.6, batchsize=len(y), cond=y)
        return x

    return Peer(for_minutes(step, 1024), sample, 20, count(network))


class Embedded(nn.Module):
    """A network of azula with embeddings of the time and the label, as its tutorial has them."""

    def __init__(self, width: int = 64):
        super().__init__()
        from azula.nn.unet import UNet

        self.unet = UNet(1, 1, hid_channels=[16, 32, 64], hid_blocks=[2, 2, 2], mod_features=width)
        self.of_label = nn.Embedding(10, width)
        self.of_time = nn.Sequential(nn.Linear(1, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        return self.unet(x, self.of_label(label) + self.of_time(t[..., None]))


def azula() -> Peer:
    """Its MNIST tutorial."""
    from azula.denoise import KarrasDenoiser
    from azula.noise import VPSchedule
    from azula.sample import DDIMSampler

    denoiser = KarrasDenoiser(Embedded(), VPSchedule())
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=3e-4)

    def step(x: Tensor, y: Tensor) -> None:
        improve(optimizer, denoiser.loss(x, torch.rand(len(x)), label=y))

    def sample(y: Tensor, steps: int) -> Tensor:
        sampler = DDIMSampler(denoiser, steps=steps, silent=True)
        return sampler(sampler.init((len(y), 1, 28, 28)), label=y)

    return Peer(for_minutes(step, 64), sample, 64, count(denoiser))


def cfm_network() -> nn.Module:
    """The network of torchcfm's class-conditional MNIST example."""
    from torchcfm.models.unet import UNetModel

    return UNetModel(dim=(1, 28, 28), num_channels=32, num_res_blocks=1, num_classes=10, class_cond=True)


def torchcfm() -> Peer:
    """Its class-conditional MNIST example, solved by dopri5; by Euler's method where steps are given."""
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher
    from torchdiffeq import odeint

    network, matcher = cfm_network(), ConditionalFlowMatcher(sigma=0.0)
    optimizer = torch.optim.Adam(network.parameters())

    def step(x: Tensor, y: Tensor) -> None:
        t, x_t, velocity = matcher.sample_location_and_conditional_flow(torch.randn_like(x), x)
        improve(optimizer, (network(t, x_t, y) - velocity).square().mean())

    def sample(y: Tensor, steps: int) -> Tensor:
        times = torch.linspace(0, 1, max(2, steps + 1))
        how = {"method": "euler"} if steps else {"method": "dopri5", "atol": 1e-4, "rtol": 1e-4}
        return odeint(lambda t, x: network(t, x, y), torch.randn(len(y), 1, 28, 28), times, **how)[-1]

    return Peer(for_minutes(step, 128), sample, 0, count(network))


def flow_matching() -> Peer:
    """Its path and its solver. Its wheel has no network, so this is torchcfm's, with the optimizer of its image example
    and the midpoint steps of its first example."""
    from flow_matching.path import CondOTProbPath
    from flow_matching.solver import ODESolver
    from flow_matching.utils import ModelWrapper

    class Wrapped(ModelWrapper):
        def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
            return self.model(t, x, label)

    network, path = Wrapped(cfm_network()), CondOTProbPath()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, betas=(0.9, 0.95))

    def step(x: Tensor, y: Tensor) -> None:
        found = path.sample(x_0=torch.randn_like(x), x_1=x, t=torch.rand(len(x)))
        improve(optimizer, F.mse_loss(network(found.x_t, found.t, y), found.dx_t))

    def sample(y: Tensor, steps: int) -> Tensor:
        x, calls = torch.randn(len(y), 1, 28, 28), ODESolver(velocity_model=network)
        return calls.sample(x_init=x, step_size=1 / steps, method="midpoint", label=y)

    return Peer(for_minutes(step, 32), sample, 20, count(network))


COURSE = "https://github.com/huggingface/diffusion-models-class/blob/main/unit2/02_class_conditioned_diffusion_model_example.ipynb"
PEERS = {  # name: what makes it, its package, what it is
    "oracle": (oracle, "tinyddpm", "no network and no training: `local_oracle` of 1,500 digits, 16 steps of DDIM"),
    "tiny": (partial(tiny, "no"), "tinyddpm", "our recipe `tiny` in float32, DDPM"),
    "tiny-bf16": (partial(tiny, "bf16"), "tinyddpm", "our recipe `tiny` in bf16, DDPM"),
    "diffusers": (diffusers, "diffusers", f"the [class-conditioned network of the course]({COURSE}), DDPM"),
    "lucidrains": (
        lucidrains, "denoising-diffusion-pytorch",
        "its `Unet` and `GaussianDiffusion` with size, T, batch and learning rate of the [annotated diffusion model]"
        "(https://huggingface.co/blog/annotated-diffusion), and the optimizer, clipping and average of its `Trainer`; "
        "DDPM, or DDIM where it takes fewer steps",
    ),
    "smalldiffusion": (
        smalldiffusion, "smalldiffusion",
        "its [class-conditioned transformer for FashionMNIST]"
        "(https://github.com/yuanchenyang/smalldiffusion/blob/main/examples/fashion_mnist_dit_cond.py), "
        "batch 1,024, so that it takes few steps",
    ),
    "azula": (
        azula, "azula",
        "its [MNIST tutorial](https://github.com/probabilists/azula/blob/master/docs/tutorials/mnist.ipynb), DDIM",
    ),
    "torchcfm": (
        torchcfm, "torchcfm",
        "its [class-conditional MNIST example](https://github.com/atong01/conditional-flow-matching/blob/main/"
        "examples/images/conditional_mnist.ipynb)",
    ),
    "flow_matching": (
        flow_matching, "flow_matching",
        "its path and solver with torchcfm's network, since its package has none; the optimizer (AdamW, 1e-4) and the "
        "batch per GPU (32) of its [image example]"
        "(https://github.com/facebookresearch/flow_matching/tree/main/examples/image); a step calls the network twice",
    ),
}  # fmt: skip


# --- the table ---------------------------------------------------------------------------------------


def seconds_an_image(peer: Peer, y: Tensor, steps: int) -> float:
    peer.sample(y[:2], min(2, steps))  # what is slow the first time
    started = time.process_time()
    peer.sample(y, steps)
    return (time.process_time() - started) / len(y)


def plan(peer: Peer, y: Tensor, seconds: float) -> tuple[int, int]:
    """How many steps and how many samples fit into so many seconds."""
    most, steps, cost = seconds / LEAST, peer.steps, seconds_an_image(peer, y, min(peer.steps, 10))
    cost *= max(1, peer.steps / 10)
    if cost > most:
        step = seconds_an_image(peer, y, 10) / 10
        steps, cost = max(1, int(most / step)), step * max(1, int(most / step))
    return steps, int(min(MOST, max(LEAST, seconds / cost)))


@torch.no_grad()
def drawn(peer: Peer, y: Tensor, steps: int) -> tuple[np.ndarray, float]:
    """Samples as uint8 (n, h, w), and the CPU seconds that they took."""
    started = time.process_time()
    with contextlib.redirect_stderr(io.StringIO()):  # bars
        x = torch.cat([peer.sample(part, steps) for part in y.split(AT_ONCE)])
    seconds = time.process_time() - started
    if bad := not_finite(x):
        print(f"{bad} of {len(x)} samples have NaN or infinite values, which become grey or clipped", flush=True)
    return to_uint8(x.clamp(-1, 1).nan_to_num())[:, 0].numpy(), seconds


def run(name: str, minutes: float, out: Path, n: int | None, cheap: bool) -> None:
    """Trains, samples and judges one row; writes its record."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    make, package, _ = PEERS[name]
    peer, reference = make(), Reference()
    images, seconds = peer.train(minutes)
    with torch.no_grad():
        steps, fitting = plan(peer, reference.labels[:20], SECONDS)
    n = fitting if n is None else n
    y = reference.labels[:n]
    x, sampling = drawn(peer, y, steps)
    metrics = {name: METRICS[name] for name in METRICS if not cheap or name != "memorisation"}
    found = judge(x, y if peer.labels else None, reference, metrics, name=name)
    record = {
        "name": name, "version": version(package) if package != "tinyddpm" else "", "minutes": minutes,
        "seconds": seconds, "images": images, "parameters": peer.parameters, "published steps": peer.steps,
        "steps": steps, "n": n, "milliseconds": 1000 * sampling / n, "processor": processor(), **found,
    }  # fmt: skip
    np.savez_compressed(content := io.BytesIO(), images=x, **({"labels": y.numpy()} if peer.labels else {}))
    write_whole(writable_folder(out) / f"{name}.npz", content.getvalue())
    write_whole(out / f"{name}.json", json.dumps(record, indent=1).encode())
    print(row(record), flush=True)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), "unknown")


HEAD = (
    "| | parameters | images/s | images seen | steps | ms an image | n | read as asked | distance (real) | "
    "precision, recall (real) | coverage (real) | copies |\n" + "|---" * 12 + "|"
)


def row(record: dict) -> str:
    """A row of the table."""
    pair, rate = "{0[0]:.2f}, {0[1]:.2f}".format, record["images"] / record["seconds"] if record["seconds"] else None
    steps = f"{record['steps']}" if record["steps"] else "adaptive"
    if record["steps"] != record["published steps"]:
        steps += f" of {record['published steps']}" if record["published steps"] else " (Euler)"
    cells = [
        f"{record['name']} {record['version']}".strip(), f"{record['parameters']:,}", f"{rate:.0f}" if rate else "",
        f"{record['images']:,}", steps, f"{record['milliseconds']:.0f}", f"{record['n']:,}",
        f"{record['label_accuracy']:.1%}" if "label_accuracy" in record else "no labels",
        "{:.2f} ({:.2f})".format(*(record[f"{of}frechet_digit_distance"] for of in ("", "floor of "))),
        "{} ({})".format(*(pair(record[f"{of}precision_recall"]) for of in ("", "floor of "))),
        "{:.2f} ({:.2f})".format(*(record[f"{of}coverage"] for of in ("", "floor of "))),
        f"{record['memorisation']['copied']:.2%}" if "memorisation" in record else "not counted",
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def table(out: Path) -> None:
    """Writes peers.md and its picture, the first 20 samples of each, from the records."""
    paths = {name: out / f"{name}.json" for name in PEERS}
    records = [json.loads(path.read_text()) for path in paths.values() if path.exists()]
    if not records or len({(r["minutes"], r["processor"]) for r in records}) > 1:
        raise SystemExit(f"{out} has no records of equally many minutes on one processor: run them")
    first = [torch.from_numpy(np.load(out / f"{record['name']}.npz")["images"][:20]) for record in records]
    samples = torch.cat([crop_to(from_uint8(images[:, None])) for images in first])
    save_picture(image_grid(samples, columns=20, enlarge=2), PICTURE)
    text = [
        f"# {records[0]['minutes']:g} minutes of one core", "",
        "Each library by its released version, with its own network, loss, optimizer and sampler, on our digits and "
        "with our judge, which has seen none of them. `python benchmarks/peers.py run`, then `table`, measures it "
        f"again. Processor: {records[0]['processor']}, one thread. In brackets: as many real training digits.",
        "", HEAD, *map(row, records), "",
        "`tiny` was made for such a budget, and chosen by this judge on the same test digits. The settings of others "
        "were published for longer runs, mostly on a GPU: the table says how far they get in this time, not how good "
        "they become.", "",
        f"![The first 20 samples of each](../{PICTURE.relative_to(HERE.parent)})", "",
        f"From top to bottom: {', '.join(record['name'] for record in records)}.", "",
        "Copies: nearer to a training digit than 99.9 % of test digits are. Fewer steps than published are taken where "
        "1,000 samples would otherwise take more than five minutes. A row is one run.", "",
        *(f"- {record['name']}: {PEERS[record['name']][2]}." for record in records),
    ]  # fmt: skip
    write_whole(HERE / "peers.md", ("\n".join(text) + "\n").encode())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("command", choices=["run", "table"])
    parser.add_argument("names", nargs="*", help=f"among {', '.join(PEERS)}; by default those without a record")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--n", type=int, help="samples, instead of as many as fit into five minutes")
    parser.add_argument("--cheap", action="store_true", help="do not look for copies, which takes a minute")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    args = parser.parse_args()
    if unknown := sorted(set(args.names) - set(PEERS)):
        parser.error(f"there is no {', '.join(unknown)}: choose among {', '.join(PEERS)}")
    if args.minutes <= 0 or args.n is not None and not JUDGEABLE <= args.n <= MOST:
        parser.error(f"expected --minutes above 0 and --n in {JUDGEABLE}..{MOST}, got {args.minutes} and {args.n}")
    if args.command == "table":
        return table(args.out)
    for name in args.names or [n for n in PEERS if not (args.out / f"{n}.json").exists()]:
        run(name, args.minutes, args.out, args.n, args.cheap)


if __name__ == "__main__":
    main()
