"""Networks of other libraries through a wrapper of a few lines, and our weights in another library's hands."""

import itertools

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tinyddpm import DDPM, EMA, DenoisingLoss, Schedule, load_pretrained, train_steps
from tinyddpm.data import mnist
from tinyddpm.datasets.named import torchvision_datasets
from tinyddpm.evaluation import classify, load_classifier
from tinyddpm.nn import NETWORKS

SCHEDULE = Schedule.named("cosine", 1000)


@pytest.fixture(scope="module")
def diffusers():
    torchvision_datasets()  # declares what torchvision's import needs beside a torch without CUDA
    return pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def deepinv():
    torchvision_datasets()
    return pytest.importorskip("deepinv")


def batches(size):
    """The first batches of MNIST, over and over."""
    x, y = mnist()[: 4 * size]
    return itertools.cycle(zip(x.split(size), y.split(size)))


def losses_of(model, steps, batch_size, ema=None, rate=1e-3):
    optimizer = torch.optim.Adam(model.parameters())
    trained = train_steps(model, batches(batch_size), DenoisingLoss(SCHEDULE), optimizer, lambda n: rate, ema)
    return torch.stack([step.losses.mean() for step in itertools.islice(trained, steps)])


# --- diffusers -------------------------------------------------------------------------------------


class DiffusersUNet(nn.Module):
    """diffusers' UNet2DModel: its t is ours - 1, and its last class is our null class."""

    def __init__(self, num_classes=None, **arguments):
        from diffusers import UNet2DModel

        super().__init__()
        self.num_classes, self.arguments = num_classes, {"num_classes": num_classes, **arguments}
        self.unet = UNet2DModel(num_class_embeds=num_classes and num_classes + 1, **arguments)

    def forward(self, x_t, t, y=None):
        if self.num_classes is not None and y is None:
            y = torch.full_like(t, self.num_classes)
        return self.unet(x_t, t - 1, y).sample


SMALL = dict(
    sample_size=32,
    in_channels=1,
    out_channels=1,
    layers_per_block=1,
    block_out_channels=(8, 16),
    down_block_types=("DownBlock2D", "AttnDownBlock2D"),
    up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    attention_head_dim=8,
    norm_num_groups=4,
)


@pytest.mark.parametrize("num_classes", [None, 10])
def test_the_unet_of_diffusers_is_trained_sampled_saved_and_loaded(diffusers, num_classes, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = DiffusersUNet(num_classes, **SMALL)
    ema = EMA(model, 0.9)
    losses = losses_of(model, 12, 8, ema)
    assert losses[-3:].mean() < 0.9 * losses[:3].mean()
    ddpm = DDPM(ema.model, SCHEDULE, "eps")
    what = dict(n=2) if num_classes is None else dict(y=[3, 7], scale=2.0)
    draw = dict(steps=3, seeds=[0, 1], **what)
    images = ddpm.sample(**draw)
    assert images.shape == (2, 1, 32, 32) and images.isfinite().all()
    ddpm.save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="DiffusersUNet"):
        DDPM.load(tmp_path / "model.safetensors")
    monkeypatch.setitem(NETWORKS, "DiffusersUNet", DiffusersUNet)
    assert torch.equal(DDPM.load(tmp_path / "model.safetensors").sample(**draw), images)


def test_the_wrapper_gives_diffusers_its_own_time_and_classes(diffusers):
    torch.manual_seed(0)
    model, x = DiffusersUNet(10, **SMALL).eval(), torch.randn(2, 1, 32, 32)
    t, y = torch.tensor([1, 500]), torch.tensor([3, 7])
    with torch.no_grad():
        assert torch.equal(model(x, t, y), model.unet(x, torch.tensor([0, 499]), y).sample)
        assert torch.equal(model(x, t), model(x, t, torch.tensor([10, 10])))
        assert not torch.equal(model(x, t), model(x, t, y))


# --- deepinv ---------------------------------------------------------------------------------------


class DeepinvUNet(nn.Module):
    """deepinv's DiffUNet, which predicts eps: its t is ours - 1, and it has no labels."""

    num_classes = None

    def __init__(self, channels=1):
        import deepinv

        super().__init__()
        self.arguments = {"channels": channels}
        self.unet = deepinv.models.DiffUNet(channels, channels, pretrained=None)

    def forward(self, x_t, t, y=None):
        return self.unet(x_t, t - 1, type_t="timestep")


def test_the_unet_of_deepinv_is_trained_and_sampled(deepinv):
    torch.manual_seed(0)
    model = DeepinvUNet()
    losses = losses_of(model, 4, 2, rate=3e-4)
    assert 0.9 < losses[0] < 1.1  # its last layer begins at zero, and eps has variance 1
    assert losses[-1] < 0.9 * losses[0]
    images = DDPM(model, SCHEDULE, "eps").sample(n=1, steps=2, seeds=[0])
    assert images.shape == (1, 1, 32, 32) and images.isfinite().all()


def as_deepinv(deepinv, ddpm, y):
    """Our weights as a denoiser of deepinv: x = x_0 + sigma eps in [0, 1], where ours has x_t in [-1, 1]."""
    schedule, denoiser = ddpm.schedule, ddpm.denoiser(y)

    class Denoiser(deepinv.models.Denoiser):
        def forward(self, x, sigma, **_):
            log_snr = -2 * torch.as_tensor(2 * sigma, dtype=torch.float64).log()  # [-1, 1] is twice as wide
            t = 1 + int((schedule.log_snr[1:] - log_snr).abs().argmin())
            x_t = (2 * x - 1) * schedule.signal_noise(t)[0]
            return (denoiser(x_t, torch.full((len(x),), t)) + 1) / 2

    return Denoiser()


def test_diffpir_of_deepinv_completes_the_lower_half_of_digits_with_our_weights(deepinv):
    data, classifier = mnist(train=False), load_classifier()
    x, y = data[[int((data.labels == k).nonzero()[0]) for k in range(10)]]
    known = torch.ones(1, 32, 32)
    known[:, 16:] = 0
    physics = deepinv.physics.Inpainting((1, 32, 32), mask=known)
    halves = physics((x + 1) / 2)
    torch.manual_seed(0)
    denoiser, fidelity = as_deepinv(deepinv, load_pretrained(), y), deepinv.optim.data_fidelity.L2()
    whole = deepinv.sampling.DiffPIR(denoiser, fidelity, sigma=0.01, max_iter=20, zeta=1.0)(halves, physics)
    whole, halves = (2 * whole - 1).clamp(-1, 1), 2 * halves - 1
    assert_close(whole * known, x * known, rtol=0, atol=0.1)  # DiffPIR ends with noise of 0.01
    assert float(((whole - x).abs() * (1 - known)).sum()) < 0.9 * float(((halves - x).abs() * (1 - known)).sum())
    read = [int((classify(classifier, z).argmax(1) == y).sum()) for z in (halves, whole)]
    assert read[0] <= 6 and read[1] >= 9
