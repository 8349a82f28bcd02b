"""A run ends with the same weights however often it was stopped, and refuses what would lose work."""

import re
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from filelock import FileLock
from small_run import MINI, STEPS, Fetched, crash, run, send, steady, table, weights

from tinyddpm import DDPM, DenoisingLoss
from tinyddpm.trainer.interrupt import Interrupted
from tinyddpm.trainer.objectives import OBJECTIVES, Objective, network
from tinyddpm.trainer.processes import make_accelerator
from tinyddpm.trainer.state import FILES, load_state, save_state


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The weights and the table of runs that were not stopped."""
    folders = {optimizer: tmp_path_factory.mktemp("run") for optimizer in ("adam", "muon")}
    return {k: (run(folder, recipe=replace(MINI, optimizer=k)), steady(folder)) for k, folder in folders.items()}


def stop(out, step=2, number=signal.SIGINT, **options):
    with pytest.raises(Interrupted) as caught:
        run(out, Fetched(1 + 4 * step, send(number)), **options)
    assert f"step {step}," in str(caught.value) and caught.value.signal == number


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_an_interrupted_run_resumes_to_the_same_weights_and_table(tmp_path, whole, step):
    optimizer, number = ("adam", signal.SIGINT) if step % 2 else ("muon", signal.SIGTERM)
    recipe = replace(MINI, optimizer=optimizer)
    if step < STEPS:
        stop(tmp_path, step, number, recipe=recipe)
        with open(tmp_path / "log.csv", "a") as file:  # as a crash leaves it: steps not saved, half a row
            file.write(",".join(["9", "9", *["1"] * 15]) + "\n7,3,0.1")
        found = run(tmp_path, recipe=recipe)
    else:  # nothing is left to do when the signal comes
        found = run(tmp_path, Fetched(4 * step, send(number)), recipe=recipe)
    assert torch.equal(found, whole[optimizer][0]) and steady(tmp_path) == whole[optimizer][1]
    ddpm = DDPM.load(tmp_path / "model.safetensors")
    assert torch.equal(weights(ddpm), found) and ddpm.notes["steps"] == STEPS
    assert not any((tmp_path / name).exists() for name in FILES)


@pytest.mark.parametrize("found", [None, b"", b"\xff\xfestep;epoch"])
def test_a_lost_or_changed_table_is_written_again_from_the_state(tmp_path, whole, found):
    stop(tmp_path, 4)
    (tmp_path / "log.csv").unlink() if found is None else (tmp_path / "log.csv").write_bytes(found)
    run(tmp_path)
    assert steady(tmp_path) == whole["muon"][1]


def test_a_state_with_another_table_is_refused(tmp_path):
    stop(tmp_path)
    state = load_state(tmp_path)
    for row in ({}, {"step": 1}, ["1"] * 17, "row", state["rows"][0] | {"loss": "low"}):
        save_state(tmp_path, state | {"rows": [row]})
        with pytest.raises(ValueError, match="is of another program"):
            run(tmp_path)


@pytest.mark.parametrize("step", [1, 4, 5])
def test_a_run_that_dies_resumes_from_its_last_state(tmp_path, whole, step):
    with pytest.raises(RuntimeError, match="the power failed"):
        run(tmp_path, Fetched(4 * step, crash))
    assert torch.equal(run(tmp_path), whole["muon"][0])


def test_a_state_is_saved_every_few_minutes(tmp_path):
    minutes = iter(range(1000))
    with pytest.raises(RuntimeError):
        run(tmp_path, Fetched(4 * 3, crash), clock=lambda: 60 * next(minutes), save_every=1.5)
    assert load_state(tmp_path)["position"]["steps"] == 2


def test_each_state_is_resumed_if_a_newer_one_is_damaged(tmp_path, whole):
    with pytest.raises(RuntimeError):
        run(tmp_path, Fetched(4 * 3, crash), save_every=-1.0)
    newest = tmp_path / FILES[0]
    newest.write_bytes(newest.read_bytes()[:-1])
    assert load_state(tmp_path)["position"]["steps"] == 1
    assert torch.equal(run(tmp_path), whole["muon"][0])


def test_a_second_ctrl_c_ends_at_once(tmp_path):
    def twice():
        send(signal.SIGINT)()
        send(signal.SIGINT)()

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as caught:
        run(tmp_path, Fetched(6, twice))
    assert not isinstance(caught.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_run_of_other_settings_is_not_resumed(tmp_path):
    stop(tmp_path)
    other = replace(MINI, learning_rate=1.0, network=replace(MINI.network, groups=4))
    message = r"learning_rate 0.005 -> 1.0, seed 0 -> 5, accumulate 1 -> 2, groups 8 -> 4\): give it the same"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, recipe=other, seed=5, accumulate=2)
    run(tmp_path, recipe=other, seed=5, epochs=1, fresh=True)
    assert [row["step"] for row in table(tmp_path)] == ["1", "2", "3"]


def test_a_finished_run_is_not_overwritten(tmp_path):
    run(tmp_path, epochs=1)
    good = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"exists: train in another folder \(--out\), or replace") as refused:
        run(tmp_path, seed=1)
    assert str(refused.value).endswith("or replace it (--fresh, fresh=True)")
    assert (tmp_path / "model.safetensors").read_bytes() == good


def test_a_damaged_state_is_named_and_nothing_is_lost(tmp_path):
    stop(tmp_path)
    for name in FILES:
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    with pytest.raises(ValueError, match="run.state is not a state .*sha256.*begin anew with fresh=True"):
        run(tmp_path)
    assert (tmp_path / FILES[0]).exists()


def file_for_a_folder(path):
    shutil.rmtree(path, ignore_errors=True)
    path.touch()


def folder_for_a_file(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("what", "name", "undo"), [(folder_for_a_file, FILES[1], "rmdir"), (file_for_a_folder, "samples", "unlink")]
)
def test_a_failing_disk_is_named_with_what_is_safe(tmp_path, whole, what, name, undo):
    stop(tmp_path, 1)
    with pytest.raises(ValueError, match="cannot write to .*: the last good state is that of step 1"):
        run(tmp_path, Fetched(3, lambda: what(tmp_path / name)))
    getattr(tmp_path / name, undo)()
    assert torch.equal(run(tmp_path), whole["muon"][0])


def nan_loss(*settings):
    objective = DenoisingLoss(*settings)
    calls = []

    def broken(model, x_0, y, generator):
        calls.append(0)
        losses, t = objective(model, x_0, y, generator)
        return losses * (torch.nan if len(calls) == 2 else 1), t

    return broken


def test_a_loss_that_is_not_finite_stops_the_run_with_what_is_safe(tmp_path, monkeypatch):
    monkeypatch.setitem(OBJECTIVES, "broken", Objective(network, nan_loss))
    stop(tmp_path, 1, recipe=replace(MINI, objective="broken"))
    message = r"NaN or infinite at step 3, learning rate 0.0\d+: the last good state is that of step 1"
    with pytest.raises(ValueError, match=message):
        run(tmp_path, recipe=replace(MINI, objective="broken"))


def test_a_folder_holds_one_run_at_a_time(tmp_path):
    with FileLock(tmp_path / "run.lock"):
        with pytest.raises(ValueError, match="another run is active in"):
            run(tmp_path)
    run(tmp_path, epochs=1)


# --- fp16: it needs a GPU to be fast, but not to be tested


@pytest.fixture
def fp16(monkeypatch):
    """Lets train() use fp16 on the CPU, and returns the scalers of its runs; they grow at every second step."""
    scalers = []

    def accelerator(*_):
        made = make_accelerator("cpu", "no")
        made.state._mixed_precision, made.native_amp = "fp16", True
        made.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
        scalers.append(made.scaler)
        return made

    monkeypatch.setattr("tinyddpm.trainer.run.make_accelerator", accelerator)
    return scalers


def test_a_scaler_of_gradients_resumes(tmp_path, fp16):
    whole = run(tmp_path / "whole")
    stop(tmp_path / "cut", 3)
    assert torch.equal(run(tmp_path / "cut"), whole)
    assert fp16[0].state_dict() == fp16[2].state_dict() and fp16[0].get_scale() == 8192


@pytest.mark.parametrize("norm", [1.0, None])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_a_step_whose_gradient_overflows_is_skipped(tmp_path, fp16, monkeypatch, norm, value):
    def overflows_at_step_3(*settings):
        objective, calls = DenoisingLoss(*settings), []

        def loss(model, x_0, y, generator):
            calls.append(0)
            if len(calls) == 3:
                middle = model.middle1.register_forward_hook(lambda m, x, out: overflow(out))
            found = objective(model, x_0, y, generator)
            if len(calls) == 3:
                middle.remove()
            return found

        return loss

    def overflow(out):
        out.register_hook(lambda grad: torch.full_like(grad, value))

    monkeypatch.setitem(OBJECTIVES, "overflow", Objective(network, overflows_at_step_3))
    recipe = replace(MINI, objective="overflow", grad_norm=norm)
    with pytest.raises(RuntimeError):
        run(tmp_path, Fetched(4 * 5, crash), recipe=recipe, save_every=-1.0)
    after = load_state(tmp_path)
    (tmp_path / FILES[0]).unlink()
    before = load_state(tmp_path)
    assert (before["position"]["steps"], after["position"]["steps"]) == (3, 4)
    assert [row["gradient_norm"] == "" for row in table(tmp_path)] == [False, False, True, False]
    assert before["scaler"]["scale"] == 1024 and before["updates"] == 3


@pytest.mark.parametrize(("length", "said"), [(dict(epochs=2), "6 steps"), (dict(minutes=0.25), "0.25 minutes")])
def test_without_a_terminal_a_run_says_at_once_that_it_begins_and_how_far_it_is(
    tmp_path, length, said, monkeypatch, capsys
):
    monkeypatch.setattr("tinyddpm.tools.jobs.MINUTE", 1e-6)  # a line at each step
    before = []
    now = (2.5 * step for step in range(100))
    data = Fetched(2, lambda: before.append(capsys.readouterr().out))  # of the first step
    run(tmp_path, data, clock=lambda: next(now), **length)
    assert before == [f"training in {tmp_path} for {said}\n"]
    lines = capsys.readouterr().err.splitlines()
    assert re.match(r"epoch 1: 2 of 3 in 00:0\d, 00:0\d left, loss=\d", lines[1]), lines
    assert len(lines) >= 5 and all(line.startswith(("epoch 1: ", "epoch 2: ", "epoch 3: ")) for line in lines)
    monkeypatch.undo()
    run(tmp_path / "short", epochs=1)
    assert capsys.readouterr().err == ""  # less than a minute
