"""What every test of the ground floor gets: a fixed seed, and weights that are nowhere zero."""

import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def randomise():
    """Zero-initialised projections block signal and gradient: this moves every weight off its start."""

    def move(module, scale=0.1):
        with torch.no_grad():
            for p in module.parameters():
                p.add_(scale * torch.randn_like(p))
        return module

    return move
