"""Samplers, predictions and guidances in all pairs: what each promises by itself holds together."""

from functools import partial

import jaxtyping
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tinyddpm import Schedule, UNet
from tinyddpm.diffusion import PREDICTIONS, make_denoiser
from tinyddpm.editing.handwriting import slant
from tinyddpm.editing.inpainting import inpaint
from tinyddpm.extensions.gradient_guidance import blend, classifier_guidance, dynamic_threshold, energy_guidance
from tinyddpm.extensions.score_sde import euler_maruyama, predictor_corrector
from tinyddpm.guidance import classifier_free_guidance, clip_x_0, interval
from tinyddpm.samplers import ddim, dpm_solver_pp, heun, last, p_sample_loop

SCHEDULE = Schedule.named("cosine-shifted", 20)
GRID = SCHEDULE.grid(4)
SIZE = (1, 8, 8)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_weights(network, seed):
    """Moved off zero, so that an untrained network says something."""
    with torch.no_grad():
        for weight in network.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=seeded(seed)))
    return network.eval()


torch.manual_seed(0)
UNET = random_weights(UNet((8,), num_classes=3, attention=(), heads=1, patch=2, groups=4, image_size=8), seed=1)
CLASSIFIER = random_weights(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), seed=2)
Y = torch.tensor([0, 1, 2])
KNOWN = 2 * torch.rand(3, *SIZE, generator=seeded(3)) - 1
MASK = (torch.arange(8) < 4).float().expand(1, 1, 8, 8)  # the left half

SAMPLERS = {
    "ddim 0": ddim,
    "ddim 0.5": partial(ddim, eta=0.5),
    "p_sample_loop": p_sample_loop,
    "heun": heun,
    "dpm_solver_pp": dpm_solver_pp,
    "euler_maruyama": euler_maruyama,
    "predictor_corrector": predictor_corrector,
}


def plain(predicts, y=None):
    return make_denoiser(UNET, SCHEDULE, predicts, y)


# (prediction, which of the three images) -> denoiser
GUIDANCES = {
    "none": lambda predicts, k: plain(predicts, Y[k]),
    "free": lambda predicts, k: classifier_free_guidance(plain(predicts, Y[k]), plain(predicts), 2.0),
    "free in an interval": lambda predicts, k: classifier_free_guidance(
        plain(predicts, Y[k]), plain(predicts), interval(3.0, 5, 15)
    ),
    "clip": lambda predicts, k: clip_x_0(plain(predicts, Y[k])),
    "threshold": lambda predicts, k: dynamic_threshold(plain(predicts, Y[k]), 0.9),
    "energy": lambda predicts, k: energy_guidance(plain(predicts, Y[k]), lambda x, t: slant(x), SCHEDULE, 0.1),
    "classifier": lambda predicts, k: classifier_guidance(plain(predicts, Y[k]), CLASSIFIER, Y[k], SCHEDULE, 0.1),
    "inpaint": lambda predicts, k: inpaint(plain(predicts, Y[k]), KNOWN[k], MASK),
    "blend": lambda predicts, k: blend(plain(predicts, Y[k]), plain(predicts, (Y[k] + 1) % 3), 0.3),
}


def sampled(sampler, predicts, guidance, k=slice(None)):
    """The images k of a batch of three, each with its own noise and its own generator on the way."""
    x_T = torch.randn(3, *SIZE, generator=seeded(4))[k]
    generators = [seeded(seed) for seed in (11, 12, 13)[k]]
    denoiser = GUIDANCES[guidance](predicts, k)
    return last(SAMPLERS[sampler](denoiser, x_T, SCHEDULE, GRID, generator=generators)).x_t


@pytest.fixture(autouse=True)
def unchecked():
    """Shapes in signatures are checked in the tests of each part; here that would take most of the time."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


# all pairs: every sampler with every guidance, and each of them with every prediction
PAIRS = [
    (sampler, list(PREDICTIONS)[(i + j) % len(PREDICTIONS)], guidance)
    for i, sampler in enumerate(SAMPLERS)
    for j, guidance in enumerate(GUIDANCES)
]


@pytest.mark.parametrize("sampler, predicts, guidance", PAIRS)
def test_every_pair_gives_an_image_as_if_it_were_alone(sampler, predicts, guidance):
    batch = sampled(sampler, predicts, guidance)
    assert batch.shape == (3, *SIZE) and batch.dtype == torch.float32 and batch.isfinite().all()
    k = (len(sampler) + len(predicts) + len(guidance)) % 3  # one of the three, not always the same
    alone = sampled(sampler, predicts, guidance, slice(k, k + 1))
    assert_close(batch[k : k + 1], alone, rtol=0, atol=1e-5 * max(1, float(alone.abs().max())))
    if guidance == "inpaint":
        assert_close(batch[..., :4], KNOWN[..., :4], rtol=0, atol=1e-6)
        assert float((batch - KNOWN)[..., 4:].abs().max()) > 0.1
    if guidance in ("clip", "threshold"):
        assert float(batch.abs().max()) <= 1 + 1e-6
