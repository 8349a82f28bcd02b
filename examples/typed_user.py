"""What a user may write with annotations: a network, a sampler, a guidance and an objective, clean under a type
checker."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Generator, Tensor, nn
from typing_extensions import assert_type

import tinyddpm
from tinyddpm import DDPM, EMA, Schedule, Step, ddim, diffusion_loss, get_recipe, image_grid, train_steps, trajectory
from tinyddpm.data import ImageDataset, mnist
from tinyddpm.diffusion import Denoiser
from tinyddpm.guidance import Scale
from tinyddpm.samplers import Generators
from tinyddpm.schedules import Grid
from tinyddpm.training import Losses, Objective


class Net(nn.Module):
    num_classes: int | None = None

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.arguments = {"width": width}
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, x_t: Tensor, t: Tensor, y: Tensor | None = None) -> Tensor:
        return self.layers(x_t)


def euler(
    denoiser: Denoiser, x_T: Tensor, schedule: Schedule, grid: Grid | None = None, generator: Generators = None
) -> Iterator[Step]:
    def update(x_t: Tensor, x_0_hat: Tensor, t: int, s: int) -> Tensor:
        ratio = schedule.signal_noise(s)[1] / schedule.signal_noise(t)[1]
        return x_0_hat + ratio * (x_t - x_0_hat)

    return trajectory(denoiser, x_T, schedule.grid() if grid is None else grid, update)


def conditional_only(conditional: Denoiser, unconditional: Denoiser, scale: Scale) -> Denoiser:
    return conditional


def middle_loss(model: nn.Module, x_0: Tensor, y: Tensor | None, generator: Generator) -> Losses:
    t = torch.full((len(x_0),), 50)
    eps = torch.randn(x_0.shape, generator=generator)
    return diffusion_loss(model, x_0, t, eps, Schedule.named("cosine", 100), reduction="none"), t


def main(images: int = 32) -> Tensor:
    data: ImageDataset = mnist()
    x, y = data[:images]
    batches = list(zip(x.split(8), y.split(8)))
    model, loss, schedule = Net(), middle_loss, Schedule.named("cosine", 100)
    objective: Objective = loss
    ema, optimizer = EMA(model, decay=0.9), torch.optim.AdamW(model.parameters())
    losses: list[float] = []
    for step in train_steps(model, batches, objective, optimizer, rate=lambda n: 1e-3, ema=ema):
        losses.append(float(step.losses.mean()))
    ddpm = DDPM(ema.model, schedule, "eps", notes={"losses": losses})
    ddpm.save("net.safetensors")
    drawn = [ddpm.sample(n=2, steps=5, sampler=sampler) for sampler in (euler, ddim, partial(ddim, eta=0.5), "heun")]
    for point in ddpm.sample_steps(n=2, seeds=[0, 1], grid=schedule.grid(5, "log-snr"), guidance=conditional_only):
        drawn.append(point.x_0_hat)
    assert_type(tinyddpm.__version__, str)  # names of the lazy face have their types, none is Any
    assert_type(tinyddpm.load_pretrained().sample(y=[3], steps=1), Tensor)
    assert_type(get_recipe("nano").suited(data), tinyddpm.trainer.Recipe)
    assert_type(image_grid(drawn[0]).shape, torch.Size)
    return torch.cat(drawn)
