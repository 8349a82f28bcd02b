"""The training loop, and the recipes that say what to train."""

import copy
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .data import mnist
from .diffusion import diffusion_loss
from .nn import UNet
from .pipeline import DDPM
from .schedules import Schedule
from .viz import image_grid, save_picture


@dataclass(frozen=True)
class Recipe:
    """All that decides what the weights become, save the data, the seed and the length of the run."""

    dims: tuple[int, ...] = (32, 64, 128)
    patch: int = 2
    blocks: int = 1
    attention: tuple[int, ...] = (8, 4)
    num_classes: int | None = 10
    schedule: str = "cosine-shifted"
    T: int = 1000
    predicts: str = "v"
    loss: str = "mse"
    weights: str = "none"
    label_drop: float = 0.1  # share of images trained without their label, for guidance
    batch_size: int = 64
    learning_rate: float = 2e-3
    warmup: int = 500  # steps over which the learning rate rises
    grad_norm: float = 1.0
    ema_decay: float = 0.999
    epochs: int = 60

    def network(self) -> UNet:
        return UNet(self.dims, num_classes=self.num_classes, patch=self.patch, blocks=self.blocks, attention=self.attention)


RECIPES = {
    "tiny": Recipe(),  # the shipped weights
    "nano": Recipe(dims=(16, 32, 64), batch_size=32, learning_rate=4e-3, warmup=50, ema_decay=0.99, epochs=1),
}


class EMA:
    """A copy of the network whose weights are a running average of the trained one's.

    average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)) after n updates, so
    that the first, untrained weights are soon forgotten. Buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for average, buffer in zip(self.model.buffers(), model.buffers()):
            average.copy_(buffer)


def drop_labels(y: Tensor, num_classes: int, p: float, generator: Generator | None = None) -> Tensor:
    """Each label by itself becomes the null class with probability p (Ho & Salimans 2022, algorithm 1)."""
    dropped = torch.rand(y.shape, generator=generator, device=y.device) < p
    return torch.where(dropped, num_classes, y)


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """Rises over the warm-up's steps, then falls to 0 on half a cosine; progress from 0 to 1."""
    return recipe.learning_rate * min(1, step / max(1, recipe.warmup)) * (1 + math.cos(math.pi * progress)) / 2


def train(
    recipe: Recipe | str = "tiny",
    out: str | Path = "runs/tiny",
    data: Dataset | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    seed: int = 0,
    device: str | None = None,
    precision: str = "no",
    compile: bool = False,
) -> DDPM:
    """Trains a network on images with labels and returns it with its averaged weights.

    After each epoch, out/model.safetensors and out/samples/epoch_001.png are written.

    data       items (image (c, h, w) in [-1, 1], label); MNIST where None
    epochs     how often to see all of it; the recipe's number where None
    minutes    stop by the clock instead: the learning rate then falls by the clock, too
    device     "cpu", "cuda" or "mps"; the fastest there is where None
    precision  "no" (float32) or "bf16" where the device has it
    compile    through torch.compile: slow to start, then faster

    Raises ValueError for a recipe or device that does not exist, OSError for an output folder that
    cannot be written: both before any work.
    """
    from accelerate import Accelerator

    recipe = get_recipe(recipe)
    samples = Path(out) / "samples"
    samples.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision=precision, cpu=device == "cpu", dynamo_backend="inductor" if compile else "no")
    torch.manual_seed(seed)
    model, schedule = recipe.network(), Schedule.named(recipe.schedule, recipe.T)
    loader = DataLoader(mnist() if data is None else data, recipe.batch_size, shuffle=True, drop_last=True, generator=Generator().manual_seed(seed))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    net, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    ema = EMA(accelerator.unwrap_model(net, keep_torch_compile=False), recipe.ema_decay)
    ddpm = DDPM(ema.model, schedule, recipe.predicts)
    noise = Generator(accelerator.device).manual_seed(seed + accelerator.process_index)
    epochs = recipe.epochs if epochs is None else epochs
    started, step, progress, epoch = time.monotonic(), 0, 0.0, 0
    while progress < 1:
        epoch += 1
        total = 0.0
        bar = tqdm(loader, f"epoch {epoch}", unit="images", unit_scale=recipe.batch_size, disable=None)
        for batch, (x_0, y) in enumerate(bar, 1):
            t = torch.randint(1, schedule.T + 1, y.shape, generator=noise, device=y.device)
            eps = torch.randn(x_0.shape, generator=noise, device=x_0.device)
            y = drop_labels(y, recipe.num_classes, recipe.label_drop, noise)
            loss = diffusion_loss(net, x_0, t, eps, schedule, y, recipe.predicts, recipe.loss, recipe.weights)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(net.parameters(), recipe.grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            ema.update(model)
            total += loss.detach()
            elapsed = (time.monotonic() - started) / 60
            progress = elapsed / minutes if minutes else step / (epochs * len(loader))
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, step, min(progress, 1))
            if step % 50 == 0:
                bar.set_postfix(loss=f"{float(total) / batch:.4f}")
            if progress >= 1:
                break
        print(f"epoch {epoch} step {step} loss {float(total) / batch:.4f} images/s {step * recipe.batch_size / elapsed / 60:.0f} minutes {elapsed:.1f}", flush=True)
        if accelerator.is_main_process:
            ddpm.save(Path(out) / "model.safetensors", {"steps": step, "minutes": round(elapsed, 1), "seed": seed})
            y = torch.arange(10).repeat_interleave(4)
            picture = image_grid(ddpm.sample(y, steps=20, seeds=range(len(y))), columns=20)
            save_picture(picture, samples / f"epoch_{epoch:03d}.png")
    return ddpm


def get_recipe(recipe: Recipe | str) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe not in RECIPES:
        raise ValueError(f"there is no recipe {recipe!r}: choose one of {', '.join(RECIPES)}")
    return RECIPES[recipe]
