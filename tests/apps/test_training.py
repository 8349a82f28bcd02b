"""Training in the background: begun, looked at, stopped, resumed, and drawn with."""

import time

import pytest
import torch
from small_run import MINI

from tinyddpm import DDPM
from tinyddpm.apps import training
from tinyddpm.apps.training import active, start, stop, trained
from tinyddpm.apps.views import show_training
from tinyddpm.data import ImageDataset
from tinyddpm.trainer.state import is_unfinished

DATA = ImageDataset(torch.rand(400, 1, 16, 16) * 2 - 1, torch.arange(400) % 3, 16)


@pytest.fixture(autouse=True)
def alone():
    training.RUNS.clear()
    yield
    stop()


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, training.RUNS and str(training.RUNS[-1])
        time.sleep(0.02)


def steps():
    trainer = training.RUNS[-1].trainer
    return trainer.at.steps if trainer else 0


def test_a_run_is_stopped_resumed_and_drawn_with(tmp_path):
    out = tmp_path / "run"
    start(MINI, 10.0, out, data=DATA)
    until(lambda: steps() >= 30)
    assert active() and "training in" in str(training.RUNS[-1])
    assert torch.isfinite(trained(out).sample([0], steps=2)).all()  # of a network in training
    shown = show_training().text
    assert shown.count("data:image/png") == 3 + 2 and "step" in shown
    stop()
    before = steps()
    assert not active() and is_unfinished(out) and "saved" in str(training.RUNS[-1])
    start(MINI, 10.0, out, data=DATA)
    until(lambda: steps() > before)
    assert training.RUNS[-1].trainer.minutes_before > 0  # it did not begin anew
    assert len(training.RUNS[-1].trainer.log.rows) >= 3 and training.RUNS[-1].trainer.log.rows[0]["step"] == "10"
    stop()


def test_a_finished_run_leaves_its_network(tmp_path):
    start(MINI, 0.005, tmp_path, data=DATA)
    until(lambda: not active())
    assert str(training.RUNS[-1]).startswith("finished")
    x = trained(tmp_path).sample([0, 1], steps=3, seeds=[0, 1])
    assert torch.equal(x, DDPM.load(tmp_path / "model.safetensors").sample([0, 1], steps=3, seeds=[0, 1]))
    training.RUNS.clear()  # as after a restart
    assert torch.equal(x, trained(tmp_path).sample([0, 1], steps=3, seeds=[0, 1]))


def test_one_run_at_a_time(tmp_path):
    start(MINI, 10.0, tmp_path / "a", data=DATA)
    start(MINI, 10.0, tmp_path / "b", data=DATA)
    assert len(training.RUNS) == 1 and not (tmp_path / "b").exists()


def test_what_the_trainer_refuses_is_said(tmp_path):
    (tmp_path / "model.safetensors").touch()
    start(MINI, 1.0, tmp_path, data=DATA)
    until(lambda: not active())
    assert "exists: train in another folder" in str(training.RUNS[-1]) and "exists" in show_training().text
