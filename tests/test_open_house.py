"""The house is open: a network, a schedule, a data set, an objective, a sampler and a guidance that a user defines,
all in this file, are trained, sampled, saved, loaded and evaluated with. No table needs a row but NETWORKS, for files.
"""

import inspect
import runpy
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, Dataset

import tinyddpm
from tinyddpm import DDPM, EMA, DenoisingLoss, Schedule, ddim, q_sample, train_steps, trajectory
from tinyddpm.data import ImageDataset, mnist
from tinyddpm.evaluation import Reference, score
from tinyddpm.nn import NETWORKS, LabelEmbedding, SinusoidalEmbedding
from tinyddpm.samplers import noise_like
from tinyddpm.trainer import train
from tinyddpm.trainer.recipes import RECIPES

SIZE = (1, 32, 32)
SEEDS = range(6)


class PatchTransformer(nn.Module):
    """A transformer over patches (Peebles & Xie 2023): no convolution, no levels, no U-Net."""

    def __init__(self, num_classes=None, patch=8, dim=32, depth=2, image_shape=SIZE):
        super().__init__()
        self.arguments = dict(num_classes=num_classes, patch=patch, dim=dim, depth=depth, image_shape=image_shape)
        self.num_classes, self.patch = num_classes, patch
        channels, height, width = image_shape
        inside, patches = channels * patch**2, height * width // patch**2
        self.embed, self.place = nn.Linear(inside, dim), nn.Parameter(0.02 * torch.randn(patches, dim))
        self.time = nn.Sequential(SinusoidalEmbedding(dim), nn.Linear(dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.label = None if num_classes is None else LabelEmbedding(num_classes, dim)
        layer = partial(nn.TransformerEncoderLayer, dim, 4, 2 * dim, 0.0, batch_first=True, norm_first=True)
        self.blocks = nn.Sequential(*(layer() for _ in range(depth)))
        self.out = nn.Linear(dim, inside)
        nn.init.zeros_(self.out.weight)

    def forward(self, x_t, t, y=None):
        condition = self.time(t)
        if self.label is not None:
            condition = condition + self.label(torch.full_like(t, self.num_classes) if y is None else y)
        fold = dict(kernel_size=self.patch, stride=self.patch)
        tokens = self.embed(nn.functional.unfold(x_t, **fold).mT) + self.place + condition[:, None]
        return nn.functional.fold(self.out(self.blocks(tokens)).mT, x_t.shape[-2:], **fold)


def laplace_betas(T, scale=2.5):
    """Log-SNR with the quantiles of a Laplace distribution (Hang et al. 2024): most times near log-SNR 0."""
    u = torch.arange(1, T + 1, dtype=torch.float64) / (T + 1)
    log_snr = -scale * (0.5 - u).sign() * torch.log(1 - 2 * (0.5 - u).abs())
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), log_snr.sigmoid()])
    return torch.cat([torch.zeros(1, dtype=torch.float64), 1 - alpha_bar[1:] / alpha_bar[:-1]])


class Shapes(Dataset):
    """Squares, discs and crosses, (1, 32, 32) in [-1, 1], with their label."""

    num_classes = 3

    def __len__(self):
        return 480

    def __getitem__(self, i):
        generator = torch.Generator().manual_seed(i)
        row, column = torch.randint(10, 22, (2, 1, 1), generator=generator)
        dy, dx = (torch.arange(32)[:, None] - row).abs(), (torch.arange(32)[None] - column).abs()
        inside = [dy.maximum(dx) < 7, dy**2 + dx**2 < 64, dy.minimum(dx) < 2][i % 3]
        return inside[None].float() * 2 - 1, i % 3


def logit_normal(n, T, generator):
    return (torch.randn(n, generator=generator).sigmoid() * T).long() + 1


@dataclass(frozen=True)
class ContrastiveFlowLoss(DenoisingLoss):
    """The velocity of the image's own path, and not that of its neighbour's in the batch (Stoica et al. 2025), at
    times that are logit-normal (Esser et al. 2024)."""

    times: Callable = logit_normal
    weight: float = 0.05

    def __call__(self, model, x_0, y, generator):
        t, eps, y = self.draw(model, x_0, y, generator)
        out = model(q_sample(x_0, t, eps, self.schedule), t, y)
        own, other = eps - x_0, (eps - x_0).roll(1, 0)
        return ((out - own).square() - self.weight * (out - other).square()).flatten(1).mean(1), t


def renoise(denoiser, x_T, schedule, grid=None, generator=None, temperature=1.0):
    """A sampler: denoise, add fresh noise, repeat (Song et al. 2023, algorithm 1)."""
    if temperature < 0:
        raise ValueError(f"a temperature cannot be negative, got {temperature}")

    def update(x_t, x_0_hat, t, s):
        return x_0_hat if s == 0 else q_sample(x_0_hat, s, temperature * noise_like(x_t, generator), schedule)

    return trajectory(denoiser, x_T, grid or schedule.grid(), update)


def projected_guidance(conditional, unconditional, scale):
    """A guidance that needs both branches: of their difference only what is orthogonal to the conditional image, which
    keeps it from saturating (Sadat et al. 2025, "APG", section 4)."""

    def guided(x_t, t):
        without = unconditional(x_t, t)  # first: both branches then are one call of the network
        x_0_hat = conditional(x_t, t)
        direction = nn.functional.normalize(x_0_hat.flatten(1)).reshape(x_0_hat.shape)
        change = x_0_hat - without
        along = (change * direction).sum((1, 2, 3), keepdim=True) * direction
        return x_0_hat + (scale - 1) * (change - along)

    return guided


def batches(data, size=16):
    """Shuffled batches without end."""
    loader = DataLoader(data, size, shuffle=True, drop_last=True, generator=torch.Generator().manual_seed(0))
    while True:
        yield from loader


def train_30_steps(model, data, objective):
    """The model's average and the losses of 30 steps."""
    ema, optimizer = EMA(model, 0.9), torch.optim.AdamW(model.parameters())
    steps = train_steps(model, batches(data), objective, optimizer, rate=lambda n: 3e-3, ema=ema)
    return ema, torch.stack([step.losses.mean() for _, step in zip(range(30), steps)])


@pytest.fixture(scope="module")
def trained():
    """(what is sampled from, the network that was trained, its losses)"""
    torch.manual_seed(0)
    model, schedule = PatchTransformer(Shapes.num_classes), Schedule(laplace_betas(50))
    ema, losses = train_30_steps(model, Shapes(), ContrastiveFlowLoss(schedule))
    return DDPM(ema.model, schedule, "flow", SIZE), model, losses


def test_thirty_steps_train_every_weight_and_its_average(trained):
    ddpm, model, losses = trained
    assert len(losses) == 30 and losses[-5:].mean() < 0.75 * losses[0]
    torch.manual_seed(0)
    untrained = PatchTransformer(Shapes.num_classes)
    for start, weight, average in zip(*(m.parameters() for m in (untrained, model, ddpm.model))):
        assert not torch.equal(start, weight) and not torch.equal(weight, average)


@pytest.mark.parametrize("sampler", [*tinyddpm.samplers.SAMPLERS, renoise, partial(renoise, temperature=0.5)])
def test_every_sampler_draws_from_it_and_each_image_from_its_own_seed(trained, sampler):
    ddpm = trained[0]
    images = ddpm.sample([0, 1, 2] * 2, steps=5, sampler=sampler, scale=2.0, seeds=SEEDS, guidance=projected_guidance)
    assert images.shape == (6, *SIZE) and images.isfinite().all()
    alone = ddpm.sample([1], steps=5, sampler=sampler, scale=2.0, seeds=[4], guidance=projected_guidance)
    assert_close(images[4:5], alone, rtol=0, atol=1e-5)
    assert float((images[1] - images[4]).abs().max()) > 0.1


def test_the_sampler_returns_the_images_of_an_exact_denoiser(trained):
    schedule = trained[0].schedule
    data = torch.stack([Shapes()[i][0] for i in range(12)])
    x_T = torch.randn(20, *SIZE, generator=torch.Generator().manual_seed(0))
    oracle = tinyddpm.dataset_oracle(data, schedule)
    x_0 = tinyddpm.last(renoise(oracle, x_T, schedule, generator=torch.Generator().manual_seed(1))).x_t
    distance = torch.cdist(x_0.flatten(1), data.flatten(1)).amin(1)
    assert float(distance.max()) < 0.01


def test_a_sampler_s_bad_argument_is_found_when_it_is_called(trained):
    with pytest.raises(ValueError, match="temperature"):
        trained[0].sample_steps(n=1, sampler=partial(renoise, temperature=-1.0))


@pytest.mark.parametrize("sampler", [ddim, renoise])
def test_a_guidance_of_both_branches_calls_the_network_once_a_step_on_the_joined_batch(trained, sampler):
    ddpm, calls = trained[0], []
    hook = ddpm.model.register_forward_hook(lambda model, inputs, out: calls.append(len(out)))
    ddpm.sample([0, 1, 2], steps=7, sampler=sampler, scale=2.0, seeds=range(3), guidance=projected_guidance)
    hook.remove()
    assert calls == [6] * 7


def test_the_guidance_is_the_conditional_model_at_scale_1_and_none_of_ours_above(trained):
    draw = partial(trained[0].sample, [0, 1, 2], steps=5, seeds=range(3))
    assert_close(draw(guidance=projected_guidance), draw(), rtol=0, atol=1e-4)
    own, free = draw(scale=4.0, guidance=projected_guidance), draw(scale=4.0)
    assert float((own - free).abs().max()) > 0.01 < float((own - draw()).abs().max())


def test_saving_and_loading_needs_one_row_in_networks_and_says_so(trained, tmp_path, monkeypatch):
    ddpm, path = trained[0], tmp_path / "model.safetensors"
    ddpm.save(path)
    with pytest.raises(ValueError, match=r"'PatchTransformer'.* knows UNet.*NETWORKS\['PatchTransformer'\]"):
        DDPM.load(path)
    monkeypatch.setitem(NETWORKS, "PatchTransformer", PatchTransformer)
    loaded = DDPM.load(path)
    assert isinstance(loaded.model, PatchTransformer) and torch.equal(loaded.schedule.beta, ddpm.schedule.beta)
    draw = dict(y=[0, 1, 2], steps=5, sampler=renoise, scale=2.0, seeds=range(3), guidance=projected_guidance)
    assert torch.equal(loaded.sample(**draw), ddpm.sample(**draw))


# --- digits: evaluation reads nothing else ---------------------------------------------------------


def test_its_digits_are_evaluated():
    torch.manual_seed(0)
    model, schedule = PatchTransformer(10), Schedule(laplace_betas(50))
    ema, _ = train_30_steps(model, mnist(), ContrastiveFlowLoss(schedule))
    real = [ImageDataset(digits.images[:600], digits.labels[:600]) for digits in (mnist(), mnist(train=False))]
    ddpm, own = DDPM(ema.model, schedule, "flow", SIZE), dict(sampler=renoise, reference=Reference(*real))
    found = score(ddpm, 200, steps=5, scale=2.0, **own)
    assert found.samples.images.shape == (200, *SIZE) and 0 <= found.accuracy < found.floor_accuracy
    assert found.distance > 2 * found.floor_distance  # thirty steps are not enough


# --- the resumable trainer -------------------------------------------------------------------------


def test_the_trainer_takes_the_network_and_the_data(tmp_path, monkeypatch):
    recipe = replace(RECIPES["nano"], num_classes=3, T=20, batch_size=48, epochs=1)
    monkeypatch.setitem(NETWORKS, "PatchTransformer", PatchTransformer)
    ddpm = train(recipe, tmp_path, Shapes(), network=PatchTransformer(3), precision="no", device="cpu")
    loaded = DDPM.load(tmp_path / "model.safetensors")
    assert isinstance(loaded.model, PatchTransformer)
    draw = dict(y=[0, 1, 2], steps=3, seeds=range(3))
    assert torch.equal(loaded.sample(**draw), ddpm.sample(**draw))


# --- the examples ----------------------------------------------------------------------------------

EXAMPLES = Path(__file__).parent.parent / "examples"


def test_the_script_of_twenty_lines_trains_and_draws_ten_digits(tmp_path, capsys):
    torch.manual_seed(0)
    script, path = runpy.run_path(str(EXAMPLES / "train_in_20_lines.py")), tmp_path / "digits.png"
    ddpm = script["main"](50, 4, rows=1, path=str(path))
    assert iio.imread(path).shape == (64, 640) and "step 50 of 50: loss" in capsys.readouterr().out
    x, y = mnist(train=False)[:32]
    eps, t = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), torch.full((32,), 300)
    loss = tinyddpm.diffusion_loss(ddpm.model, x, t, eps, ddpm.schedule, y, "x_0")
    assert loss < 0.8 * (x + 1).square().mean()  # that of an empty image


def test_the_script_with_types_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images = runpy.run_path(str(EXAMPLES / "typed_user.py"))["main"](16)
    assert images.shape == (20, 1, 32, 32) and images.isfinite().all() and Path("net.safetensors").exists()


def test_the_example_of_attention_shows_where_patches_look():
    example = runpy.run_path(str(EXAMPLES / "attention_maps.py"))
    torch.manual_seed(0)
    model = tinyddpm.DiT(dim=16, depth=1, heads=2, num_classes=10)
    ddpm = DDPM(model, Schedule.named("cosine-shifted", 60), "x_0")
    picture = example["picture"](ddpm, digit=3, rows=2)
    assert picture.shape[0] == 1 and picture.shape[2] == 5 * 34 * 4 and picture.shape[1] % (34 * 4) == 0
    assert (picture[0, :4] == 255).all() and (picture[0, :, :4] == 255).all()  # white around each image
    for k, (row, column) in enumerate(example["PATCHES"]):  # in each map, the patch that asks has a grey frame
        at = picture[0, 4 * (1 + 4 * row) :, 4 * (34 * (2 + k) + 1 + 4 * column) :][:16, :16]
        assert (at[[0, -1]] == 128).all() and (at[:, [0, -1]] == 128).all()
    x = torch.full((1, 1, 32, 32), 0.3)
    framed = example["framed"](x[0], 4)[0] == 0
    maps = torch.eye(64).roll(1, dims=1)[None, None]  # each patch looks at the next one, row by row
    model.attention_maps = lambda *call: [maps, maps]
    for image, (row, column) in zip(example["looks"](model, x, 30, torch.tensor([3])), example["PATCHES"], strict=True):
        there = (image[0] == 1).nonzero()
        assert image.shape == (1, 32, 32) and image.min() == -1 and len(there) == 16
        assert there.amin(0).tolist() == [4 * row, 4 * column + 4]
        assert framed[4 * row, 4 * column : 4 * column + 4].all() and framed.sum() == 3 * 12
    with pytest.raises(ValueError, match="only a DiT has patches that look, got a UNet: train the recipe dit"):
        example["picture"](tinyddpm.load_pretrained())


# --- and nothing was touched -----------------------------------------------------------------------


def test_no_module_or_table_of_the_package_holds_anything_of_this_file():
    ours = {id(value) for value in globals().values() if getattr(value, "__module__", None) == __name__}
    assert len(ours) > 10
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "tinyddpm" and inspect.ismodule(module):
            held = dict(vars(module))
            tables = [(key, table) for key, table in held.items() if type(table) is dict]
            held |= {(key, row): value for key, table in tables for row, value in table.items()}
            assert not [key for key, value in held.items() if id(value) in ours], name
