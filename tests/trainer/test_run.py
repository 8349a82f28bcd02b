import signal

import pytest
import torch
from filelock import FileLock
from small_run import MINI, STEPS, Fetched, crash, send, weights

from tinyddpm import DDPM
from tinyddpm.cli.main import main
from tinyddpm.schedules import Schedule
from tinyddpm.trainer.interrupt import Interrupted
from tinyddpm.trainer.recipes import Recipe
from tinyddpm.trainer.state import FILES, load_state
from tinyddpm.trainer.step import batch_losses, draw_noise
from tinyddpm.trainer.trainer import make_accelerator, train


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    return {
        optimizer: weights(train(recipe(optimizer), tmp_path_factory.mktemp("run"), Fetched(), device="cpu"))
        for optimizer in ("adam", "muon")
    }


def recipe(optimizer):
    return Recipe(**{**MINI.__dict__, "optimizer": optimizer})


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("step", range(1, STEPS + 1))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_interrupted_goes_on_to_the_same_weights(tmp_path, never_stopped, optimizer, step, number):
    if step < STEPS:
        with pytest.raises(Interrupted, match=f"at step {step},") as caught:
            train(recipe(optimizer), tmp_path, Fetched(1 + 4 * step, send(number)), device="cpu")
        assert caught.value.signal == number
        ddpm = train(recipe(optimizer), tmp_path, Fetched(), device="cpu")
    else:  # nothing is left to do when the signal comes
        ddpm = train(recipe(optimizer), tmp_path, Fetched(4 * step, send(number)), device="cpu")
    assert torch.equal(weights(ddpm), never_stopped[optimizer])
    assert torch.equal(weights(DDPM.load(tmp_path / "model.safetensors")), never_stopped[optimizer])
    assert ddpm.notes["steps"] == STEPS and not any((tmp_path / name).exists() for name in FILES)


def test_a_state_from_before_a_setting_was_there_goes_on(tmp_path, never_stopped, monkeypatch):
    with pytest.raises(Interrupted):
        train(MINI, tmp_path, Fetched(1 + 4 * 2, send(signal.SIGINT)), device="cpu")

    def older(folder):
        counters, tensors = load_state(folder)
        del counters["settings"]["channels"]
        return counters, tensors

    monkeypatch.setattr("tinyddpm.trainer.run.load_state", older)
    assert torch.equal(weights(train(MINI, tmp_path, Fetched(), device="cpu")), never_stopped["muon"])


@pytest.mark.parametrize("step", [1, 3, 4, 5])
def test_a_run_that_dies_goes_on_from_its_last_state(tmp_path, never_stopped, step):
    with pytest.raises(RuntimeError, match="the power failed"):
        train(MINI, tmp_path, Fetched(4 * step, crash), device="cpu")
    assert torch.equal(weights(train(MINI, tmp_path, Fetched(), device="cpu")), never_stopped["muon"])


def test_a_state_is_saved_as_time_goes_by(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tinyddpm.trainer.loop.SAVE_EVERY", -1.0)
    with pytest.raises(RuntimeError):
        train(MINI, tmp_path, Fetched(4 * 2 + 1, crash), device="cpu")
    train(MINI, tmp_path, Fetched(), device="cpu")
    assert f"going on in {tmp_path}: epoch 1, step 1, " in capsys.readouterr().out


def test_the_second_ctrl_c_ends_at_once(tmp_path):
    def twice():
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(MINI, tmp_path, Fetched(6, twice), device="cpu")
    assert not isinstance(caught.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is before


def test_the_command_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tinyddpm.trainer.trainer.mnist", lambda **_: Fetched(6, send(signal.SIGTERM)))
    monkeypatch.setattr("tinyddpm.trainer.recipes.RECIPES", {"mini": MINI})
    ask = ["train", "--recipe", "mini", "--out", str(tmp_path / "my run"), "--device", "cpu"]
    assert main(ask) == 128 + signal.SIGTERM
    error = capsys.readouterr().err
    assert f"to go on: tinyddpm train --recipe mini --out '{tmp_path / 'my run'}' --device cpu\n" in error


def stopped(folder, **options):
    with pytest.raises(Interrupted):
        train(MINI, folder, Fetched(6, send(signal.SIGINT)), device="cpu", **options)


def test_a_run_of_other_settings_is_not_gone_on_with(tmp_path):
    stopped(tmp_path)
    other = Recipe(**{**MINI.__dict__, "learning_rate": 1.0})
    message = r"other settings \(learning_rate 0.005 -> 1.0, seed 0 -> 5\): give it the settings"
    with pytest.raises(ValueError, match=message):
        train(other, tmp_path, Fetched(), seed=5, device="cpu")
    train(other, tmp_path, Fetched(), seed=5, device="cpu", fresh=True)


def test_a_finished_run_is_not_written_over(tmp_path):
    train(MINI, tmp_path, Fetched(), device="cpu")
    good = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"of a finished run: train in another folder \(--out\), or replace"):
        train(MINI, tmp_path, Fetched(), seed=1, device="cpu")
    assert (tmp_path / "model.safetensors").read_bytes() == good


def test_a_damaged_state_is_named_and_nothing_is_lost(tmp_path):
    stopped(tmp_path)
    for name in FILES:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    with pytest.raises(ValueError, match="run.state is not as it was written"):
        train(MINI, tmp_path, Fetched(), device="cpu")
    assert (tmp_path / FILES[0]).exists()


def test_a_full_disk_is_named_with_what_is_safe(tmp_path, monkeypatch, never_stopped):
    stopped(tmp_path)

    def full(folder, *_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("tinyddpm.trainer.run.save_state", full)
        with pytest.raises(ValueError, match=r"cannot write to .*No space left.*the last good state is that of step 2"):
            train(MINI, tmp_path, Fetched(), device="cpu")
    assert torch.equal(weights(train(MINI, tmp_path, Fetched(), device="cpu")), never_stopped["muon"])


def test_a_loss_that_is_not_finite_stops_the_run_with_what_is_safe(tmp_path, monkeypatch):
    stopped(tmp_path)
    nan = lambda net, x, *_: x.flatten(1).sum(1) * sum(p.sum() for p in net.parameters()) * torch.nan  # noqa: E731
    monkeypatch.setattr("tinyddpm.trainer.step.batch_losses", nan)
    message = r"NaN or infinite at step 3, learning rate 0.0\d+: the last good state is that of step 2"
    with pytest.raises(ValueError, match=message):
        train(MINI, tmp_path, Fetched(), device="cpu")


def test_a_folder_holds_one_run_at_a_time(tmp_path):
    with FileLock(tmp_path / "run.lock"):
        with pytest.raises(ValueError, match="another run is at work in"):
            train(MINI, tmp_path, Fetched(), device="cpu")
    train(MINI, tmp_path, Fetched(), device="cpu")


def test_parts_of_a_batch_see_the_noise_of_the_whole():
    net = MINI.network()
    x, y = torch.rand(8, 1, 32, 32) * 2 - 1, torch.arange(8)
    schedule = Schedule.named("cosine", 20)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape))

        def losses(x, y, *part):
            drawn = draw_noise(x, y, MINI, torch.Generator().manual_seed(3), 1.0, *part)
            return batch_losses(net, x, *drawn, MINI, schedule)

        parts = [losses(*half, k, 2) for k, half in enumerate(zip(x.split(4), y.split(4)))]
        torch.testing.assert_close(torch.cat(parts), losses(x, y))
    assert not torch.isclose(*parts).any()


def test_a_scaler_goes_on_where_it_was(tmp_path, monkeypatch):
    """fp16 needs a GPU, its scaler does not. It grows every second step here."""
    scalers = []

    def with_scaler(*arguments):
        accelerator = make_accelerator(*arguments)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        scalers.append(accelerator.scaler)
        return accelerator

    monkeypatch.setattr("tinyddpm.trainer.trainer.make_accelerator", with_scaler)
    whole = weights(train(MINI, tmp_path / "whole", Fetched(), device="cpu"))
    with pytest.raises(Interrupted):
        train(MINI, tmp_path / "cut", Fetched(1 + 4 * 3, send(signal.SIGTERM)), device="cpu")
    assert torch.equal(weights(train(MINI, tmp_path / "cut", Fetched(), device="cpu")), whole)
    assert scalers[0].state_dict() == scalers[2].state_dict() and scalers[0].get_scale() == 8192
