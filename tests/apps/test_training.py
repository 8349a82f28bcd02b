"""Training in the background: begun, looked at, stopped, resumed, and drawn with."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import torch
from small_run import MINI, Fetched

from tinyddpm import DDPM
from tinyddpm.apps import training
from tinyddpm.apps.training import active, start, stop, trained
from tinyddpm.apps.views import curves, show_training
from tinyddpm.data import ImageDataset
from tinyddpm.trainer.state import is_unfinished, load_state

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
    assert len(training.RUNS[-1].trainer.log.rows) >= 3 and training.RUNS[-1].trainer.log.rows[0]["step"] == 10
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


@pytest.mark.parametrize("error", [MemoryError(), AssertionError(), KeyboardInterrupt(), SystemExit()])
def test_a_run_that_fails_without_a_word_has_ended(error, tmp_path):
    def fail():
        raise error

    start(MINI, 10.0, tmp_path / "a", data=Fetched(9, fail))
    training.RUNS[-1].thread.join(20)
    assert not active() and str(training.RUNS[-1]) == type(error).__name__
    start(MINI, 10.0, tmp_path / "b", data=DATA)  # and another one may begin
    until(lambda: steps() >= 1)


def test_a_run_without_its_packages_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("tinyddpm.tools.jobs.find_spec", lambda name: None)
    start(MINI, 10.0, tmp_path / "run", data=DATA)
    until(lambda: not active())
    said = "training needs accelerate and matplotlib: pip install 'tinyddpm[train]'"
    assert str(training.RUNS[-1]) == said and not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"losses needs matplotlib: pip install 'tinyddpm\[train\]'"):
        curves([{"step": "1", "loss": "1"}], "loss", ["loss"])


def test_a_folder_is_not_given_the_network_of_another(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    start(MINI, 0.005, a, data=DATA)
    until(lambda: not active())
    x = partial(DDPM.sample, y=[0, 1], steps=3, seeds=[0, 1])
    start(MINI, 10.0, b, data=DATA)
    until(lambda: steps() >= 5)
    assert torch.equal(x(trained(a)), x(DDPM.load(a / "model.safetensors")))
    assert not torch.equal(x(trained(a)), x(trained(b))) and not (b / "model.safetensors").exists()
    with pytest.raises(ValueError, match="there is no checkpoint"):
        trained(tmp_path / "c")


def test_of_many_starts_at_once_one_wins_and_only_the_last_run_is_kept(tmp_path):
    gate, before = threading.Barrier(8), threading.active_count()
    names = [str(tmp_path / str(k)) for k in range(8)]
    pages = [threading.Thread(target=lambda n: (gate.wait(), start(MINI, 10.0, n, data=DATA)), args=[n]) for n in names]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    for page in pages:
        page.start()
    for page in pages:
        page.join()
    sys.setswitchinterval(switch)
    until(lambda: steps() >= 1)
    assert len(list(tmp_path.iterdir())) == 1 and threading.active_count() == before + 1
    stop()
    start(MINI, 10.0, tmp_path / "another", data=DATA)
    assert [run.out for run in training.RUNS] == [tmp_path / "another"]


SERVED = """
import sys, torch
from small_run import MINI
from tinyddpm.apps import server, training
from tinyddpm.cli.options import App
from tinyddpm.data import ImageDataset
data = ImageDataset(torch.rand(400, 1, 16, 16) * 2 - 1, torch.arange(400) % 3, 16)
training.start(MINI, 10.0, sys.argv[1], data=data)
server.run_app(App(port=int(sys.argv[2]), browser=False))
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_run_is_saved_when_the_server_is_ended(name, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    root = Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": f"{root.parent}{os.pathsep}{root}"}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    words = [sys.executable, "-c", SERVED, str(tmp_path), str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, preexec_fn=heard, **pipes) as process:
        page, end = "", time.monotonic() + 40
        while not page and time.monotonic() < end and process.poll() is None:
            with suppress(OSError):
                page = urllib.request.urlopen(f"http://127.0.0.1:{port}/").read().decode()
            time.sleep(0.1)
        time.sleep(0.5)
        process.send_signal(getattr(signal, name))
        out, _ = process.communicate(timeout=30)
    assert page and "Traceback" not in out, out
    assert load_state(tmp_path)["position"]["steps"] > 0
