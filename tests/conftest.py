from pathlib import Path

import pytest
import torch

from tinyddpm import DDPM, Schedule, UNet

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # apt install dataset-fashion-mnist


@pytest.fixture(scope="session")
def debian(tmp_path_factory):
    """A root for load_data with FashionMNIST in it."""
    if not DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    raw = tmp_path_factory.mktemp("fashion") / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for path in DEBIAN.glob("*.gz"):
        (raw / path.name).symlink_to(path)
    return raw.parent.parent


@pytest.fixture
def small():
    """An untrained model of the smallest kind, its weights moved off zero so that it draws something."""
    torch.manual_seed(0)
    unet = UNet((8, 16), num_classes=10, attention=(8,), heads=1)
    with torch.no_grad():
        for weight in unet.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return DDPM(unet, Schedule.named("cosine-shifted", 50), "v", notes={"seed": 0})
