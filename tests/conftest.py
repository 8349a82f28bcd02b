import pytest
import torch

from tinyddpm import DDPM, Schedule, UNet


@pytest.fixture
def small():
    """An untrained model of the smallest kind, its weights moved off zero so that it draws something."""
    torch.manual_seed(0)
    unet = UNet((8, 16), num_classes=10, attention=(8,), heads=1)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return DDPM(unet, Schedule.named("cosine-shifted", 50), "v", notes={"seed": 0})
