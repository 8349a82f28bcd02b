import pytest
import torch

from tinyddpm.datasets.named import torchvision_datasets
from tinyddpm.training import EMA


def test_the_average_forgets_the_untrained_weights():  # trap 21
    torchvision_datasets()  # diffusers imports torchvision, which needs our door beside a torch for the CPU
    from diffusers.training_utils import EMAModel

    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    ema, reference = EMA(model, 0.999), EMAModel(model.parameters(), decay=0.999)
    torch.nn.init.constant_(model.weight, 0.0)
    kept = 1.0
    for step in range(1, 300):
        ema.update(model)
        kept *= reference.get_decay(step + 1)
        assert float(ema.model.weight) == pytest.approx(kept, rel=1e-4, abs=1e-30)
    assert float(ema.model.weight) < 1e-6


def test_the_average_of_constant_weights_is_those_weights_and_buffers_are_copied():  # trap 22
    model = torch.nn.BatchNorm1d(2)
    ema = EMA(model, 0.9)
    model(torch.randn(8, 2))
    ema.update(model)
    assert torch.equal(ema.model.weight, model.weight)
    assert torch.equal(ema.model.running_mean, model.running_mean)
    assert ema.model.num_batches_tracked == 1
    assert not any(p.requires_grad for p in ema.model.parameters())
