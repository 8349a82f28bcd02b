import contextlib
import math
from dataclasses import replace
from types import SimpleNamespace

import imageio.v3 as iio
import pytest
import torch
from small_run import MINI, SMALL, Fetched, run, weights
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from tinyddpm import DDPM, DenoisingLoss, DiT, Schedule, UNet
from tinyddpm.data import mnist
from tinyddpm.datasets.own import as_data
from tinyddpm.nn import NETWORKS
from tinyddpm.trainer import train
from tinyddpm.trainer.batches import epoch_order
from tinyddpm.trainer.objectives import OBJECTIVES, Objective, network
from tinyddpm.trainer.optim import OPTIMIZERS
from tinyddpm.trainer.processes import PRECISIONS, SharedObjective, native_bf16, resolve_precision
from tinyddpm.trainer.recipes import RECIPES
from tinyddpm.training import uniform_times

ONE = replace(MINI, epochs=1)


def images(n=8, channels=1, size=16, classes=3):
    x = torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return TensorDataset(x, torch.arange(n) % classes)


def test_a_run_writes_weights_and_a_picture_an_epoch(tmp_path):
    ddpm = train(MINI, tmp_path, images(), device="cpu")
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["epoch_001.png", "epoch_002.png"]
    assert iio.imread(tmp_path / "samples" / "epoch_002.png").shape == (16, 3 * 4 * 16)
    loaded = DDPM.load(tmp_path / "model.safetensors")
    assert loaded.notes["seed"] == 0 and loaded.notes["arguments"]["dims"] == [8, 16] and loaded.notes["steps"] == 4
    assert loaded.notes["data"] == "unknown" and mnist(train=False).name == "mnist"
    assert torch.equal(weights(loaded), weights(ddpm))
    assert torch.equal(*(d.sample(y=[2], steps=3, seeds=[0]) for d in (ddpm, loaded)))


def test_the_same_seed_gives_the_same_weights(tmp_path):
    a, b, c = (run(tmp_path, recipe=ONE, seed=seed, fresh=True) for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_few_steps_learn_one_image(tmp_path):
    x = torch.full((1, 1, 16, 16), -1.0)
    x[:, :, 4:12, 6:10] = 1.0
    recipe = replace(ONE, T=50, batch_size=8, warmup=5, learning_rate=1e-2)
    data = TensorDataset(x.expand(480, -1, -1, -1), torch.zeros(480, dtype=torch.long))
    drawn = train(recipe, tmp_path, data, device="cpu").sample(y=[0], steps=10, seeds=[0])
    assert (drawn - x).square().mean().sqrt() < 0.35  # black is off by 0.7, an untrained network by more


@pytest.mark.parametrize(("predicts", "schedule"), [("flow", "flow"), ("v", "linear-zero-snr")])
def test_flow_matching_and_pure_noise_at_T_train_by_the_same_loop(predicts, schedule, tmp_path):
    recipe = replace(ONE, T=50, predicts=predicts, schedule=schedule, weights="none")
    ddpm = train(recipe, tmp_path, images(), device="cpu")
    loaded = DDPM.load(tmp_path / "model.safetensors")
    assert loaded.predicts == predicts and torch.equal(loaded.schedule.beta, ddpm.schedule.beta)
    for sampler in ("ddim", "ddpm", "heun", "dpm_solver_pp"):
        assert loaded.sample(y=[1, 2], steps=5, sampler=sampler).isfinite().all()


@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 16, 10), (1, 16, None), (1, 64, 3)])
def test_other_images_and_no_labels_train_as_well(tmp_path, channels, size, classes):
    data = images(4, channels, size, classes or 1)
    ddpm = train(replace(ONE, num_classes=classes), tmp_path, data, device="cpu")
    assert ddpm.image_shape == (channels, size, size)
    assert DDPM.load(tmp_path / "model.safetensors").image_shape == (channels, size, size)


@pytest.mark.parametrize("kind", ["uint8", "float", "numpy"])
def test_a_tensor_of_images_is_data(tmp_path, kind):
    x = torch.randint(0, 256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    given = {"uint8": x, "float": x / 127.5 - 1, "numpy": x.numpy()}[kind]
    assert ONE.suited(given) == replace(ONE, image_size=16, num_classes=None)
    ddpm = train(ONE.suited(given), tmp_path / "suited", given, device="cpu", precision="no")
    same = train(ONE, tmp_path / "as_it_is", given, device="cpu", precision="no")
    as_set = train(ONE.suited(given), tmp_path / "set", as_data(x), device="cpu", precision="no")
    assert ddpm.image_shape == (3, 16, 16) and ddpm.num_classes is None
    assert torch.equal(weights(ddpm), weights(same)) and torch.equal(weights(ddpm), weights(as_set))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(8, 16, 16, 3), "images are .* move the channels before the height"),
        (torch.rand(8, 1, 16, 16), "if they are in"),
        (torch.rand(8, 1, 16, 16) * 9 - 5, "or rescale"),
        (torch.zeros(8, 1, 16, 15) - 1, "square images"),
        (torch.zeros(0, 1, 16, 16) - 1, "got no images"),
    ],
)
def test_a_tensor_that_is_no_data_is_refused_with_what_to_do(tmp_path, images, message):
    with pytest.raises(ValueError, match=message):
        train(ONE, tmp_path, images, device="cpu")


def test_a_data_set_by_name_and_its_labels_are_noted(tmp_path):
    x = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    data = as_data(x, torch.arange(8) + 18, name="mine")
    train(ONE.suited(data), tmp_path, data, device="cpu")
    loaded = DDPM.load(tmp_path / "model.safetensors")
    assert loaded.notes["data"] == "mine" and loaded.model.num_classes == 26
    assert loaded.sample(y=[25], steps=2).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("objective", ["learned-variance", "self-conditioned"])
def test_the_objectives_of_the_extensions_train_save_and_sample(tmp_path, objective):
    recipe = replace(RECIPES[objective], network=SMALL, num_classes=3, batch_size=4, T=20)
    ddpm = train(recipe, tmp_path, images(), epochs=1, device="cpu", accumulate=2)
    loaded = DDPM.load(tmp_path / "model.safetensors")
    drawn = [d.sample(y=[1], steps=3, seeds=[0]) for d in (ddpm, loaded)]
    assert torch.equal(*drawn) and drawn[0].shape == (1, 1, 16, 16)


class Foreign(nn.Module):
    """Another network than a U-Net, without labels."""

    def __init__(self, width: int = 4):
        super().__init__()
        self.num_classes, self.arguments = None, {"width": width}
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.SiLU(), nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, x_t, t, y=None):
        return self.layers(x_t)


def test_any_network_trains_resumes_and_loads(tmp_path, monkeypatch):
    monkeypatch.setitem(NETWORKS, "Foreign", Foreign)
    torch.manual_seed(0)
    given = Foreign()
    before = [p.clone() for p in given.parameters()]
    whole = train(ONE, tmp_path, images(), device="cpu", network=given)
    assert torch.equal(weights(DDPM.load(tmp_path / "model.safetensors")), weights(whole))
    assert whole.notes["network"] == "Foreign" and whole.notes["arguments"] == {"width": 4}
    assert all(torch.equal(p, q) for p, q in zip(given.parameters(), before))  # a copy was trained
    assert not torch.equal(weights(whole), torch.cat([p.flatten() for p in before]))


# --- precision


def test_auto_is_bf16_only_where_it_is_native(monkeypatch):
    for found, wanted in (({"amx_bf16": True}, "bf16"), ({"avx512_bf16": True}, "bf16"), ({"avx2": True}, "no")):
        monkeypatch.setattr("torch.cpu.get_capabilities", lambda found=found: found, raising=False)
        assert resolve_precision("auto", "cpu") == wanted and native_bf16("cpu") == (wanted == "bf16")
    for native in (True, False):
        monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation=True, n=native: n)
        assert resolve_precision("auto", "cuda") == ("bf16" if native else "no")
    assert resolve_precision("auto", "mps") == "no" and next(iter(PRECISIONS)) == "auto"


def test_an_emulated_bf16_is_warned_of_with_figures(monkeypatch):
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True}, raising=False)
    with pytest.warns(UserWarning, match="emulates bf16.* 7.9 images/s in bf16 and at 148 in float32"):
        assert resolve_precision("bf16", "cpu") == "bf16"


@pytest.mark.filterwarnings("ignore:this cpu emulates bf16")
def test_bf16_and_float32_may_follow_each_other(tmp_path):
    found = []
    for precision in ("no", "bf16", "no"):
        ddpm = train(ONE, tmp_path, images(4), device="cpu", precision=precision, fresh=True)
        assert all(weight.dtype == torch.float32 for weight in ddpm.model.parameters())
        assert ddpm.notes["precision"] == precision
        found.append(weights(ddpm))
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0.1)


# --- the objective of several processes and parts


def processes(n, k):
    return SimpleNamespace(num_processes=n, process_index=k, backward=torch.Tensor.backward,
                           no_sync=lambda net: contextlib.nullcontext())  # fmt: skip


class Together(nn.Module):
    """A network as accelerate wraps it, in several processes and compiled or not: it lacks the model's attributes."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *inputs, **named):
        return self.module(*inputs, **named)


def gradients(net, objective, x, y):
    """The losses and times, what the gradient is after the mean's backward, and what the generator draws next."""
    net.zero_grad()
    generator = torch.Generator().manual_seed(3)
    losses, t = objective(net, x, y, generator)
    losses.mean().backward()
    grad = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
    return losses.detach(), t, grad, torch.rand(3, generator=generator)


@pytest.fixture(params=OBJECTIVES)
def moved(request):
    """A network whose weights are not 0, its objective, a batch, and the gradients of the undivided step."""
    torch.manual_seed(0)
    recipe = replace(MINI, predicts="v", weights="none", label_drop=0.5)
    made = OBJECTIVES[request.param]
    net = made.network(recipe, (1, 16, 16))
    objective = replace(recipe, objective=request.param).loss_of(Schedule.named("cosine", 20), uniform_times)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x, y = images().tensors
    return net, objective, x, y, gradients(net, objective, x, y)


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_a_batch_in_parts_is_the_undivided_step(moved, parts):
    net, objective, x, y, whole = moved
    found = gradients(Together(net), SharedObjective(objective, net, processes(1, 0), parts), x, y)
    for a, b in zip(found, whole):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("parts", [1, 2])
def test_the_processes_together_are_one_with_the_whole_batch(moved, parts):
    net, objective, x, y, whole = moved
    found = []
    for k, (images_of_k, labels) in enumerate(zip(x.split(4), y.split(4))):
        shared = SharedObjective(objective, net, processes(2, k), parts)
        found.append(gradients(Together(net), shared, images_of_k, labels))
    (loss_0, t_0, grad_0, next_0), (loss_1, t_1, grad_1, next_1) = found
    joined = torch.cat([loss_0, loss_1]), torch.cat([t_0, t_1]), (grad_0 + grad_1) / 2, next_0
    for a, b in zip(joined, whole):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert torch.equal(next_0, next_1) and not torch.isclose(loss_0, loss_1).any()


@pytest.mark.parametrize("parts", [1, 2])
def test_captions_are_shared_out_too(parts):
    """A batch of captions (b, k) in two processes, against the undivided one."""
    torch.manual_seed(0)
    net = DiT(dim=8, depth=1, heads=1, cross=True, num_classes=5)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    x, y = torch.randn(8, 1, 8, 8), torch.randint(5, (8, 2))
    objective = DenoisingLoss(Schedule.named("cosine", 20), "v", label_drop=0.5)
    whole = gradients(net, objective, x, y)
    halves = [
        gradients(Together(net), SharedObjective(objective, net, processes(2, k), parts), x[part], y[part])
        for k, part in enumerate((slice(4), slice(4, 8)))
    ]
    torch.testing.assert_close(torch.cat([half[0] for half in halves]), whole[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close((halves[0][2] + halves[1][2]) / 2, whole[2], rtol=1e-4, atol=1e-6)


def test_a_run_in_parts_is_the_run_of_whole_batches(tmp_path):
    whole, parts = (run(tmp_path, recipe=ONE, accumulate=n, fresh=True) for n in (1, 3))
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-4)


# --- steps


@pytest.fixture
def spied(monkeypatch):
    """What each step of the optimizer "spy" is given: its learning rate, and the norm of the gradient."""
    seen = []

    def spy(model, weight_decay, half):
        optimizer = torch.optim.SGD(model.parameters())
        grads = list(model.parameters())
        optimizer.register_step_pre_hook(
            lambda o, *_: seen.append((o.param_groups[0]["lr"], float(nn.utils.get_total_norm(
                [p.grad for p in grads if p.grad is not None]))))
        )  # fmt: skip
        return optimizer

    def steep(*settings):
        objective = DenoisingLoss(*settings)

        def loss(model, x_0, y, generator):
            losses, t = objective(model, x_0, y, generator)
            return 1e4 * losses, t

        return loss

    monkeypatch.setitem(OPTIMIZERS, "spy", spy)
    monkeypatch.setitem(OBJECTIVES, "steep", Objective(network, steep))
    return seen


@pytest.mark.parametrize("norm", [1.0, None])
def test_gradients_are_clipped_and_the_rate_is_that_of_the_warm_up(tmp_path, spied, norm):  # trap 36
    recipe = replace(ONE, optimizer="spy", objective="steep", grad_norm=norm, learning_rate=1e-9)
    run(tmp_path, recipe=recipe)
    rates, norms = zip(*spied)
    assert rates == pytest.approx([recipe.rate(k + 1, k / 3) for k in range(3)])
    assert all(found == pytest.approx(1, rel=1e-3) if norm else found > 1000 for found in norms)


def test_without_an_average_the_weights_are_the_last_ones(tmp_path):
    kept = []

    def keep(model, weight_decay, half):
        kept.append(model)
        return torch.optim.AdamW(model.parameters())

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIMIZERS, "keep", keep)
        found = run(tmp_path, recipe=replace(ONE, optimizer="keep", ema_decay=0.0))
    assert torch.equal(found, torch.cat([p.detach().flatten() for p in kept[0].parameters()]))


def test_minutes_end_a_run_by_the_clock_and_the_rate_falls_by_it(tmp_path, spied):
    now = iter(range(0, 1000, 6))  # six seconds pass at each look
    recipe = replace(MINI, optimizer="spy", learning_rate=1e-3)
    run(tmp_path, recipe=recipe, minutes=0.5, clock=lambda: next(now))
    assert [rate for rate, _ in spied] == pytest.approx([recipe.rate(k + 1, k / 5) for k in range(5)])


# --- the door


class Outside(Dataset):
    def __init__(self, low, high, label=0):
        self.image, self.label = torch.linspace(low, high, 256).reshape(1, 16, 16), label

    def __len__(self):
        return 8

    def __getitem__(self, i):
        return self.image, self.label


NO_ARGUMENTS = Foreign()
del NO_ARGUMENTS.arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(recipe="huge"), "unknown recipe 'huge': choose one of tiny, nano, "),
        (dict(device="tpu"), "there is no device 'tpu' here: choose one of cpu"),
        (dict(precision="fp8"), "unknown precision 'fp8': choose one of auto, no, bf16, fp16"),
        (dict(precision="fp16"), "cpu does not train in fp16 here: choose precision auto or no or bf16"),
        (dict(data=images(3)), "4 images for each of 1 processes, in 1 to 4 parts, but there are 3 images"),
        (dict(accumulate=0), "in 1 to 4 parts, but there are 8 images and 0 parts"),
        (dict(accumulate=5), "in 1 to 4 parts, but there are 8 images and 5 parts"),
        (dict(data=images(12, classes=12)), r"labels 0..2, but the data has 12 classes: .*num_classes=12\)"),
        (dict(data=as_data(torch.zeros(8, 16, 16, dtype=torch.uint8))), "but the data has no classes"),
        (dict(data=Outside(-1, 1, 5)), r"labels in 0..2, but a batch has .* labels in 5..5"),
        (dict(data=Outside(0, 1)), r"images \[0, 1\]|in \[0, 1\] and labels in 0..0: .* give 2 \* images - 1"),
        (dict(data=Outside(-1, 3)), r"images must be in \[-1, 1\], .* images in \[-1, 3\]"),
        (dict(data=images(8, size=30)), "that 4 divides, got 30: the nearest size that fits is 28 or 32"),
        (dict(data=images(channels=2)), "1 or 3 channels"),
        (dict(epochs=0), "expected a number of epochs above 0, got 0"),
        (dict(epochs=math.inf), "expected a number of epochs above 0, got inf"),
        (dict(minutes=0), "expected a number of minutes above 0, got 0"),
        (dict(epochs=2, minutes=1), "expected epochs or minutes, got 2 epochs and 1 minutes: leave one out"),
        (dict(network=NO_ARGUMENTS), "Foreign needs .* `arguments`"),
        (dict(network=nn.Conv2d(1, 1, 1)), "Conv2d needs .*`num_classes`"),
        (dict(network=UNet((8, 16), channels=3, attention=())), "takes images of 3 channels"),
    ],
)
def test_bad_input_is_refused(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(**{"recipe": MINI, "out": tmp_path, "data": images(), "device": "cpu", **call})
    assert not (tmp_path / "model.safetensors").exists()


def test_data_that_does_not_fit_is_refused_before_the_folder_holds_a_run(tmp_path):
    for data in (images(12, classes=12), images(size=30), images(3)):
        with pytest.raises(ValueError):
            train(MINI, tmp_path, data, device="cpu")
    assert not [path for path in tmp_path.iterdir() if path.name not in ("samples", "run.lock")]


def test_eps_is_not_trained_where_x_T_is_noise_alone(tmp_path):
    with pytest.raises(ValueError, match="predict v, x_0 or flow"):
        train(replace(MINI, T=50, predicts="eps", schedule="linear-zero-snr"), tmp_path, Fetched(), device="cpu")


def test_the_parts_of_an_epoch_are_its_whole_and_no_epoch_is_like_another():
    whole = epoch_order(23, 6, seed=1, epoch=1)
    parts = [epoch_order(23, 3, 1, 1, part, 2) for part in (0, 1)]
    assert [a + b for a, b in zip(*parts)] == whole and len(whole) == 3
    assert len({i for batch in whole for i in batch}) == 18
    assert whole == epoch_order(23, 6, 1, 1) != epoch_order(23, 6, 1, 2) != epoch_order(23, 6, 2, 1)
