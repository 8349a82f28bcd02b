import math
import warnings
from dataclasses import replace

import imageio.v3 as iio
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from tinyddpm import DDPM, Schedule
from tinyddpm.data import mnist
from tinyddpm.datasets.own import as_data
from tinyddpm.trainer.clock import Clock
from tinyddpm.trainer.recipes import RECIPES, Recipe, get_recipe
from tinyddpm.trainer.step import (
    Stepper,
    draw_noise,
    draw_times,
    drop_labels,
    epoch_order,
    learning_rate,
    make_optimizers,
)
from tinyddpm.trainer.trainer import make_accelerator, train

MINI = Recipe(dims=(8, 16), attention=(), T=50, batch_size=4, warmup=2, ema_decay=0.9, epochs=1)


def images(n=8, channels=1, size=32, classes=10):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(n, channels, size, size, generator=generator) * 2 - 1
    return TensorDataset(x, torch.arange(n) % classes)


def test_a_run_writes_weights_and_a_picture_an_epoch(tmp_path):
    ddpm = train(MINI, tmp_path, images(), epochs=2, device="cpu")
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["epoch_001.png", "epoch_002.png"]
    assert iio.imread(tmp_path / "samples" / "epoch_002.png").shape == (2 * 32, 20 * 32)
    loaded = DDPM.load(tmp_path / "model.safetensors")
    assert loaded.notes["seed"] == 0 and loaded.notes["dims"] == [8, 16] and loaded.notes["steps"] == 4
    assert loaded.notes["data"] == "unknown" and mnist(train=False).name == "mnist"
    for name, weight in loaded.model.state_dict().items():
        assert torch.equal(weight, ddpm.model.state_dict()[name])


def test_the_same_seed_gives_the_same_weights(tmp_path):
    a, b, c = (train(MINI, tmp_path, images(), seed=seed, device="cpu", fresh=True) for seed in (1, 1, 2))
    first = [next(iter(ddpm.model.parameters())) for ddpm in (a, b, c)]
    assert torch.equal(first[0], first[1]) and not torch.equal(first[0], first[2])


def test_a_few_steps_learn_one_image(tmp_path):
    x = torch.full((64, 1, 32, 32), -1.0)
    x[:, :, 8:24, 12:20] = 1.0
    recipe = Recipe(dims=(8, 16), attention=(), T=50, batch_size=8, warmup=5, ema_decay=0.9, learning_rate=1e-2)
    ddpm = train(recipe, tmp_path, TensorDataset(x, torch.zeros(64, dtype=torch.long)), epochs=45, device="cpu")
    drawn = ddpm.sample(y=[0], steps=10, seeds=[0])
    assert (drawn - x[:1]).square().mean().sqrt() < 0.35  # black is off by 0.7, an untrained network by more


@pytest.mark.parametrize(
    ("predicts", "schedule"), [("flow", "flow"), ("flow", "cosine"), ("v", "linear-zero-snr"), ("x_0", "flow")]
)
def test_flow_matching_and_pure_noise_at_T_train_by_the_same_loop(predicts, schedule, tmp_path):
    recipe = replace(MINI, predicts=predicts, schedule=schedule, weights="none")
    ddpm = train(recipe, tmp_path, images(), epochs=2, device="cpu")
    loaded = DDPM.load(tmp_path / "model.safetensors")
    assert loaded.predicts == predicts and torch.equal(loaded.schedule.beta, ddpm.schedule.beta)
    for sampler in ("ddim", "ddpm", "heun", "dpm_solver_pp"):
        assert loaded.sample(y=[1, 2], steps=5, sampler=sampler).isfinite().all()


def test_eps_is_not_trained_where_x_T_is_noise_alone(tmp_path):
    with pytest.raises(ValueError, match="predict v, x_0 or flow"):
        train(replace(MINI, predicts="eps", schedule="linear-zero-snr"), tmp_path, images(), device="cpu")


@pytest.mark.parametrize(("channels", "size", "classes"), [(3, 16, 10), (1, 32, None), (1, 64, 3)])
def test_other_images_and_no_labels_train_as_well(tmp_path, channels, size, classes):
    recipe = Recipe(dims=(8, 16), attention=(), num_classes=classes, T=20, batch_size=4, channels=channels)
    ddpm = train(recipe, tmp_path, images(4, channels, size, classes or 1), epochs=1, device="cpu")
    assert ddpm.image_shape == (channels, size, size)
    assert DDPM.load(tmp_path / "model.safetensors").image_shape == (channels, size, size)


def test_bf16_and_float32_may_follow_each_other(tmp_path):
    for precision in ("no", "bf16", "no"):
        ddpm = train(MINI, tmp_path, images(4), device="cpu", precision=precision, fresh=True)
        assert all(weight.dtype == torch.float32 for weight in ddpm.model.parameters())


def test_what_is_returned_samples_as_what_was_saved(tmp_path):
    ddpm = train(MINI, tmp_path, images(4), device="cpu", precision="bf16")
    with torch.no_grad():
        ddpm.model.out[0].weight.normal_()
    ddpm.save(tmp_path / "moved.safetensors")
    loaded = DDPM.load(tmp_path / "moved.safetensors")
    assert torch.equal(*(d.sample(y=[3], steps=3, seeds=[0]) for d in (ddpm, loaded)))


@pytest.mark.parametrize("most", [1.0, None])
def test_gradients_are_held_to_the_norm_of_the_recipe(most):  # trap 36
    given, left = gradients(replace(MINI, grad_norm=most), factor=1e4)
    assert given > 1000 and left == pytest.approx(most or given, rel=1e-3)


def gradients(recipe, factor=1.0, **options):
    """The norm that a step reports, and that of the gradients which the optimizers get."""
    torch.manual_seed(0)
    net = recipe.network()
    torch.nn.init.normal_(net.out[0].weight, std=factor)
    optimizers = make_optimizers(recipe, net, half=False)
    seen = {}
    for optimizer in optimizers:
        grads = [p for group in optimizer.param_groups for p in group["params"]]
        optimizer.register_step_pre_hook(lambda *_, g=grads: seen.update((id(p), p.grad.norm()) for p in g))
    schedule = Schedule.named(recipe.schedule, recipe.T)
    accelerator = make_accelerator("cpu", "no", False)
    stepper = Stepper(net, optimizers, recipe, schedule, accelerator, **options)
    x, y = images(8).tensors
    noise = draw_noise(x, y, recipe, torch.Generator().manual_seed(1))
    _, norm = stepper(x, *noise, 1e-3)
    return float(norm), float(torch.stack(list(seen.values())).norm())


@pytest.mark.parametrize("parts", [2, 3, 8])
def test_a_batch_in_parts_is_the_same_step(parts):
    assert gradients(MINI, accumulate=parts) == pytest.approx(gradients(MINI), rel=1e-4)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_scaler_of_gradients_changes_nothing_but_their_range(optimizer):
    """fp16 needs a GPU, its scaler does not: unscaled once, for both optimizers."""
    ended = []
    for scaler in (None, torch.amp.GradScaler("cpu", init_scale=1024.0)):
        torch.manual_seed(0)
        recipe = replace(MINI, optimizer=optimizer)
        net = recipe.network()
        accelerator = make_accelerator("cpu", "no", False)
        accelerator.scaler = scaler
        schedule = Schedule.named(recipe.schedule, recipe.T)
        stepper = Stepper(net, make_optimizers(recipe, net, False), recipe, schedule, accelerator)
        x, y = images(8).tensors
        generator = torch.Generator().manual_seed(1)
        norms = [stepper(x, *draw_noise(x, y, recipe, generator), 1e-3)[1] for _ in range(3)]
        ended.append((torch.cat([p.detach().flatten() for p in net.parameters()]), torch.stack(norms)))
    torch.testing.assert_close(*ended, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("value", [math.inf, math.nan])
@pytest.mark.parametrize("most", [1.0, None])
@pytest.mark.parametrize("which", [0, 1])
def test_a_step_that_overflows_is_skipped_by_all_optimizers(which, most, value):
    torch.manual_seed(0)
    recipe = replace(MINI, grad_norm=most)
    net = recipe.network()
    optimizers = make_optimizers(recipe, net, half=False)
    accelerator = make_accelerator("cpu", "no", False)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    stepper = Stepper(net, optimizers, recipe, Schedule.named(recipe.schedule, recipe.T), accelerator)
    x, y = images(8).tensors
    generator = torch.Generator().manual_seed(1)
    stepper(x, *draw_noise(x, y, recipe, generator), 1e-3)  # the optimizers remember something
    before = [p.detach().clone() for p in net.parameters()]
    bad = optimizers[which].param_groups[0]["params"][0]
    hook = bad.register_hook(lambda grad: torch.full_like(grad, value))
    stepper(x, *draw_noise(x, y, recipe, generator), 1e-3)
    hook.remove()
    assert all(torch.equal(p, old) for p, old in zip(net.parameters(), before))
    assert accelerator.scaler.get_scale() == 512
    stepper(x, *draw_noise(x, y, recipe, generator), 1e-3)
    moved = [not torch.equal(p, old) for p, old in zip(net.parameters(), before)]
    assert sum(moved) > len(moved) / 2  # some have no gradient yet


def test_grey_images_of_any_data_set_are_refused_before_the_first_step(tmp_path):
    class ToTensor(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, i):
            return torch.rand(1, 32, 32), i

    with pytest.raises(ValueError, match=r"these never go below 0.*give 2 \* images - 1"):
        train(MINI, tmp_path, ToTensor(), device="cpu")


def test_training_begins_with_few_times_and_ends_with_all():
    recipe = Recipe(T=20, grow=(2, 5), num_classes=None)
    generator, x = torch.Generator().manual_seed(0), torch.zeros(500, 1, 2, 2)
    seen = [set(draw_noise(x, None, recipe, generator, p)[0].tolist()) for p in (0, 0.33, 0.34, 0.66, 0.67, 1)]
    few, some, all_of_them = {10, 20}, {4, 8, 12, 16, 20}, set(range(1, 21))
    assert seen == [few, few, some, some, all_of_them, all_of_them]


@pytest.mark.parametrize("plan", [(0,), (5, 5), (10, 5), (1000,), (2000,), 10, (10.5,)])
def test_a_plan_that_does_not_grow_is_refused(plan):
    with pytest.raises(ValueError, match="rising whole numbers below T = 1000"):
        Recipe(grow=plan)


@pytest.mark.parametrize(
    ("precision", "message"), [("fp16", "cpu here has no fp16 .*no or bf16"), ("half", "there is no precision")]
)
def test_a_precision_that_is_not_there_is_refused(tmp_path, precision, message):
    with pytest.raises(ValueError, match=message):
        train(MINI, tmp_path, images(4), device="cpu", precision=precision)


@pytest.mark.parametrize("parts", [0, 5])
def test_a_batch_in_too_many_parts_is_refused(tmp_path, parts):
    with pytest.raises(ValueError, match="a batch of 4 goes in 1 to as many parts, got"):
        train(MINI, tmp_path, images(4), device="cpu", accumulate=parts)


def test_the_times_of_training_are_the_times_of_sampling():  # trap 4
    generator, x = torch.Generator().manual_seed(0), torch.zeros(1000, 1, 4, 4)
    t, _, _ = draw_noise(x, torch.zeros(1000, dtype=torch.long), Recipe(T=20), generator)
    assert set(t.tolist()) == {t for t, _ in Schedule.named("cosine", 20).grid()} == set(range(1, 21))


@pytest.mark.parametrize("times, uniform", [("logit-normal", 0.0), ("half-logit-normal", 0.5)])
def test_times_are_drawn_as_their_distribution_says(times, uniform):
    generator, x = torch.Generator().manual_seed(0), torch.zeros(40_000, 1, 1, 1)
    recipe = Recipe(T=20, times=times, num_classes=None)
    t, _, _ = draw_noise(x, None, recipe, generator)
    found = torch.bincount(t, minlength=21)[1:].double() / len(t)
    edges = torch.arange(21).double() / 20
    ends = uniform * edges + (1 - uniform) * torch.special.ndtr(edges.logit())  # z below logit(t / T)
    torch.testing.assert_close(found, ends.diff(), rtol=0, atol=4 * (0.25 / 4 / len(t)) ** 0.5)
    assert len(found) == 20 and found.sum() == 1
    few = replace(recipe, T=100, grow=(4,))
    assert set(draw_noise(x, None, few, generator, progress=0.2)[0].tolist()) == {25, 50, 75, 100}


def test_times_of_another_name_are_refused():
    with pytest.raises(ValueError, match="one of uniform, logit-normal, half-logit-normal, got 'normal'"):
        draw_times(4, 20, torch.Generator(), times="normal")


def test_labels_are_dropped_one_by_one_and_as_often_as_asked():  # trap 18
    y = torch.arange(10).repeat(2000)
    dropped = drop_labels(y, 10, 0.1, torch.Generator().manual_seed(0)) == 10
    assert abs(dropped.float().mean() - 0.1) < 4 * math.sqrt(0.09 / len(y))
    by_batch = dropped.reshape(-1, 20).float().mean(1)
    assert by_batch.var() == pytest.approx(0.09 / 20, rel=0.2)  # binomial: no coin for a whole batch
    assert torch.equal(drop_labels(y, 10, 0.0), y) and (drop_labels(y, 10, 1.0) == 10).all()


def test_the_learning_rate_rises_and_falls_to_zero():
    recipe = Recipe(learning_rate=2.0, warmup=10)
    assert learning_rate(recipe, 5, 0) == pytest.approx(1.0)
    assert learning_rate(recipe, 10, 0) == pytest.approx(2.0)
    assert learning_rate(recipe, 99, 0.5) == pytest.approx(1.0)
    assert learning_rate(recipe, 99, 1) == learning_rate(recipe, 99, 1.2) == pytest.approx(0.0)
    assert learning_rate(replace(recipe, decay="linear"), 99, 0.75) == pytest.approx(0.5)
    assert learning_rate(replace(recipe, decay="none"), 99, 1) == 2.0


def test_the_first_step_has_the_rate_of_the_warm_up(tmp_path, monkeypatch):
    seen = []
    step = torch.optim.Adam.step
    spy = lambda self, *a, **k: (seen.append(self.param_groups[0]["lr"]), step(self, *a, **k))[1]  # noqa: E731
    monkeypatch.setattr(torch.optim.Adam, "step", spy)
    train(MINI, tmp_path, images(8), device="cpu")
    assert seen == pytest.approx([learning_rate(MINI, 1, 0), learning_rate(MINI, 2, 0.5)])


def test_minutes_end_a_run_by_the_clock(tmp_path, monkeypatch):
    now = iter(range(0, 1000, 6))  # six seconds pass at each look
    monkeypatch.setattr("tinyddpm.trainer.clock.time.monotonic", lambda: next(now))
    ddpm = train(MINI, tmp_path, images(40), minutes=0.5, device="cpu")
    assert ddpm.notes["steps"] == 5


def test_drawing_steps_of_a_clock_end_at_one():
    clock = Clock(4, None)
    assert [clock.tick() for _ in range(4)] == [0.25, 0.5, 0.75, 1.0]


PARAMETERS = {  # in millions
    "tiny": 2.13,
    "nano": 0.58,
    "unconditional-300": 2.13,
    "conditional-500": 1.43,
    "unconditional-1000": 2.13,
    "l1-1000": 2.13,
    "large-1000": 47.2,
}
LEFT = {"unconditional-300": "21.9%", "conditional-500": "8.0%"}  # of the amplitude, at T, where it is much


@pytest.mark.parametrize("name", RECIPES)
def test_each_recipe_builds_steps_saves_and_samples(name, tmp_path):
    recipe = replace(get_recipe(name), batch_size=2)
    size = 28 if name in LEFT else 32
    if name in LEFT:
        with pytest.warns(UserWarning, match=f"leaves {LEFT[name]}"):
            Schedule.named(recipe.schedule, recipe.T)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ddpm = train(recipe, tmp_path, images(2, size=size), epochs=1, device="cpu")
        loaded = DDPM.load(tmp_path / "model.safetensors")
    assert sum(p.numel() for p in ddpm.model.parameters()) / 1e6 == pytest.approx(PARAMETERS[name], rel=0.01)
    y, n = (None, 1) if recipe.num_classes is None else ([3], None)
    x = loaded.sample(y, n, steps=2, seeds=[0])
    assert x.shape == (1, 1, size, size) and x.isfinite().all()
    assert len(mnist(size=recipe.image_size)[0][0][0]) == size


def test_what_others_train_takes_steps_of_one_size_and_averages_nothing(tmp_path):
    recipe = replace(RECIPES["conditional-500"], dims=(8, 16), attention=(), batch_size=4, schedule="cosine")
    assert learning_rate(recipe, 1, 0) == learning_rate(recipe, 10**6, 0.9) == 1e-4
    (optimizer,) = make_optimizers(recipe, recipe.network(), half=False)
    assert isinstance(optimizer, torch.optim.AdamW) and optimizer.defaults["weight_decay"] == 1e-5
    kept = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tinyddpm.trainer.loop.Loop.end_of_epoch", lambda run: kept.append(run))
        train(recipe, tmp_path, images(8, size=28), epochs=1, device="cpu")
    for average, weight in zip(kept[0].ema.model.parameters(), kept[0].model.parameters()):
        assert torch.equal(average, weight)


class Outside(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, i):
        return torch.full((1, 32, 32), 3.0), 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (dict(recipe="huge"), "there is no recipe 'huge': choose one of tiny, nano, "),
        (dict(device="tpu"), "there is no device 'tpu' here: choose one of cpu"),
        (dict(precision="fp8"), "there is no precision 'fp8': choose one of no, bf16"),
        (dict(data=images(3)), "batch is 4 images for each of 1 processes, but the data has 3"),
        (dict(data=images(12, classes=12)), "labels 0..9, but the data has"),
        (dict(data=as_data(torch.zeros(8, 32, 32, dtype=torch.uint8))), "data has no labels"),
        (dict(data=TensorDataset(torch.rand(8, 1, 32, 32), torch.arange(8))), "never go below"),
        (dict(data=Outside()), r"images must lie in \[-1, 1\], got values in \[3, 3\]"),
        (dict(data=images(8, size=30)), "that 4 divides, got 30: the nearest size that fits is 28 or 32"),
        (dict(data=images(channels=3)), r"of 1 channels, .* has 3: take replace\(recipe, channels=3\)"),
        (dict(data=images(channels=2)), "with 1 or 3 channels"),
        (dict(epochs=0), "a run needs at least one step"),
        (dict(minutes=0), "a run needs at least one step"),
    ],
)
def test_bad_input_is_refused(call, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        train(**{"recipe": MINI, "out": tmp_path, "data": images(), "device": "cpu", **call})


def test_data_that_does_not_fit_is_refused_before_the_folder_holds_a_run(tmp_path):
    for data in (images(12, classes=12), images(channels=3), images(size=30), images(3)):
        with pytest.raises(ValueError):
            train(MINI, tmp_path, data, device="cpu")
    assert not [path for path in tmp_path.iterdir() if path.name not in ("samples", "run.lock")]


def test_a_data_set_by_name_and_its_labels_are_noted(tmp_path):
    x = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8)
    data = as_data(x, torch.arange(8) + 18, name="mine")
    ddpm = train(MINI.suited(data), tmp_path, data, device="cpu")
    loaded = DDPM.load(tmp_path / "model.safetensors")
    assert loaded.notes["data"] == "mine" and loaded.notes["channels"] == 3
    assert loaded.model.num_classes == 26 and loaded.image_shape == ddpm.image_shape == (3, 64, 64)
    assert loaded.sample(y=[25], steps=2).shape == (1, 3, 64, 64)


def test_an_optimizer_that_does_not_exist_is_refused(tmp_path):
    recipe = Recipe(dims=(8, 16), attention=(), T=50, batch_size=4, optimizer="sgd")
    with pytest.raises(ValueError, match="one of adam, muon, got 'sgd'"):
        train(recipe, tmp_path, images(), device="cpu")


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_both_optimizers_move_every_weight(optimizer):
    recipe = Recipe(dims=(16, 32), attention=(), optimizer=optimizer)
    net = recipe.network()
    before = [p.detach().clone() for p in net.parameters()]
    for optimizer in make_optimizers(recipe, net, half=False):
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    assert all((p != q).any() for p, q in zip(net.parameters(), before))


def test_a_run_has_one_end(tmp_path):
    with pytest.raises(ValueError, match="got both: 2 and 1"):
        train(MINI, tmp_path, images(), epochs=2, minutes=1, device="cpu")


def test_a_decay_that_does_not_exist_is_refused():
    recipe = Recipe(dims=(8, 16), attention=(), decay="steep")
    with pytest.raises(ValueError, match="one of cosine, linear, none, got 'steep'"):
        make_optimizers(recipe, recipe.network(), half=False)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="got 32x16: pad them first"):
        MINI.network((1, 32, 16))


def test_the_parts_of_an_epoch_are_its_whole_and_no_epoch_is_like_another():
    whole = epoch_order(23, 6, seed=1, epoch=1)
    parts = [epoch_order(23, 3, 1, 1, part, 2) for part in (0, 1)]
    assert [a + b for a, b in zip(*parts)] == whole and len(whole) == 3
    assert len({i for batch in whole for i in batch}) == 18
    assert whole == epoch_order(23, 6, 1, 1) != epoch_order(23, 6, 1, 2) != epoch_order(23, 6, 2, 1)
