"""The training loop. What to train, the recipes say."""

import itertools
import math
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .clock import Clock
from .data import mnist, writable_folder
from .device import find_device
from .diffusion import diffusion_loss
from .ema import EMA
from .muon import Muon, matrices_and_rest
from .pipeline import DDPM
from .recipes import Recipe, get_recipe
from .schedules import Schedule
from .viz import image_grid, save_picture

PRECISIONS = ("no", "bf16")
OPTIMIZERS = ("adam", "muon")


def drop_labels(y: Tensor, num_classes: int, p: float, generator: Generator | None = None) -> Tensor:
    """Each label by itself becomes the null class with probability p (Ho & Salimans 2022, algorithm 1).

    Raises ValueError for labels outside 0..num_classes-1 (looked at on the CPU only).
    """
    if y.device.type == "cpu" and (y.min() < 0 or y.max() >= num_classes):
        raise ValueError(
            f"the recipe has labels 0..{num_classes - 1}, but the data has {y.min()}..{y.max()}: "
            "set the recipe's num_classes to that of the data"
        )
    dropped = torch.rand(y.shape, generator=generator, device=y.device) < p
    return torch.where(dropped, num_classes, y)


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """Rises over the warm-up's steps, then falls to 0 on half a cosine; progress from 0 to 1."""
    rise = min(1, step / max(1, recipe.warmup))
    return recipe.learning_rate * rise * (1 + math.cos(math.pi * min(progress, 1))) / 2


def make_optimizers(recipe: Recipe, model: nn.Module, half: bool) -> list[torch.optim.Optimizer]:
    """Adam for all weights, or Muon for the matrices and Adam for the rest.

    Raises ValueError for the name of another optimizer.
    """
    if recipe.optimizer not in OPTIMIZERS:
        raise ValueError(f"the optimizer is one of {', '.join(OPTIMIZERS)}, got {recipe.optimizer!r}")
    matrices, rest = matrices_and_rest(model) if recipe.optimizer == "muon" else ([], model.parameters())
    adam = torch.optim.Adam(rest, fused=next(model.parameters()).device.type != "mps")
    return [Muon(matrices, half=half), adam] if matrices else [adam]


def draw_times(n: int, T: int, generator: Generator) -> Tensor:
    """n times, each uniform in 1..T: (n,)."""
    return torch.randint(1, T + 1, (n,), generator=generator, device=generator.device)


def batch_loss(
    net: nn.Module, x_0: Tensor, y: Tensor, recipe: Recipe, schedule: Schedule, generator: Generator
) -> Tensor:
    """The loss of one batch at random times, under random noise (Ho et al. 2020, algorithm 1)."""
    t = draw_times(len(x_0), schedule.T, generator)
    eps = torch.randn(x_0.shape, generator=generator, device=x_0.device)
    labels = None
    if recipe.num_classes is not None:
        labels = drop_labels(y, recipe.num_classes, recipe.label_drop, generator)
    return diffusion_loss(net, x_0, t, eps, schedule, labels, recipe.predicts, recipe.loss, recipe.weights)


def train(
    recipe: Recipe | str = "tiny",
    out: str | Path = "runs/tiny",
    data: Dataset | None = None,
    epochs: float | None = None,
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

    Raises ValueError before any work for a recipe, device or precision that does not exist, for epochs and
    minutes at once, for data of less than a batch and for an output folder that cannot be written.
    """
    recipe = get_recipe(recipe)
    if epochs is not None and minutes is not None:
        raise ValueError(f"a run ends after epochs or after minutes, got both: {epochs} and {minutes}")
    if epochs is not None and not 0 < epochs < math.inf:
        raise ValueError(f"a run needs at least one step and an end, got {epochs} epochs")
    out = writable_folder(out)
    writable_folder(out / "samples")
    accelerator = make_accelerator(device, precision, compile)
    processes = accelerator.num_processes
    if minutes is not None and processes > 1:
        raise ValueError("minutes are for one process, since each has its own clock: give epochs instead")
    data = mnist() if data is None else data
    if len(data) < recipe.batch_size * processes:
        raise ValueError(
            f"the recipe's batch is {recipe.batch_size} images for each of {processes} processes, but the "
            f"data has {len(data)}: take more data or a recipe of smaller batches"
        )
    torch.manual_seed(seed)
    image_shape = tuple(data[0][0].shape)
    model, schedule = recipe.network(image_shape), Schedule.named(recipe.schedule, recipe.T)
    ema = EMA(model.to(accelerator.device), recipe.ema_decay)  # before prepare puts autocast into forward
    shuffle = Generator().manual_seed(seed)
    loader = DataLoader(data, recipe.batch_size, shuffle=True, drop_last=True, generator=shuffle)
    optimizers = make_optimizers(recipe, model, half=precision == "bf16")
    net, loader, *optimizers = accelerator.prepare(model, loader, *optimizers)
    ddpm = DDPM(ema.model, schedule, recipe.predicts, image_shape)
    noise = Generator(accelerator.device).manual_seed(seed + accelerator.process_index)
    clock = Clock(round(len(loader) * (recipe.epochs if epochs is None else epochs)), minutes)
    for epoch in itertools.count(1):
        total = torch.zeros((), device=accelerator.device)
        quiet = None if accelerator.is_main_process else True
        bar = tqdm(loader, f"epoch {epoch}", unit="images", unit_scale=recipe.batch_size, disable=quiet)
        for batch, (x_0, y) in enumerate(bar, 1):
            for group in itertools.chain(*(optimizer.param_groups for optimizer in optimizers)):
                group["lr"] = learning_rate(recipe, clock.steps + 1, clock.progress)
            loss = batch_loss(net, x_0, y, recipe, schedule, noise)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(net.parameters(), recipe.grad_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            ema.update(model)
            total += loss.detach()
            if batch % 50 == 0:
                bar.set_postfix(loss=f"{float(total) / batch:.4f}")
            if clock.tick() >= 1:
                break
        if accelerator.is_main_process:
            print(f"epoch {epoch}: loss {float(total) / batch:.4f}, {clock}", flush=True)
            made = {
                "data": getattr(data, "name", "unknown"),
                "seed": seed,
                "steps": clock.steps,
                "minutes": round(clock.elapsed(), 1),
            }
            ddpm.notes = {**asdict(recipe), **made}
            picture = epoch_picture(ddpm)  # refuses NaN: what diverges must not replace a good file
            ddpm.save(out / "model.safetensors")
            save_picture(picture, out / "samples" / f"epoch_{epoch:03d}.png")
        if clock.progress >= 1:
            return ddpm


def epoch_picture(ddpm: DDPM) -> Tensor:
    """Four images a class, or 40 without classes, from the same noise each time."""
    classes = ddpm.model.num_classes
    if classes is None:
        return image_grid(ddpm.sample(n=40, steps=20, seeds=range(40)), columns=20)
    y = torch.arange(classes).repeat_interleave(4)
    return image_grid(ddpm.sample(y, steps=20, seeds=range(len(y))), columns=20)


def make_accelerator(device: str | None, precision: str, compile: bool):
    """accelerate's Accelerator: where to train, how precisely, and with how many processes."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    find_device(device or "cpu")
    # one process may train twice, differently, but accelerate remembers the first time
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    backend = "inductor" if compile else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=device == "cpu", dynamo_backend=backend)
    if device not in (None, accelerator.device.type):
        raise ValueError(
            f"training can be asked for on {accelerator.device.type} or cpu here, got {device!r}: choose "
            "among several GPUs with CUDA_VISIBLE_DEVICES"
        )
    return accelerator
