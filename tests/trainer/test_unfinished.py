import os
import signal

import pytest
import torch
from torch.utils.data import Dataset

from tinyddpm.cli.main import main
from tinyddpm.trainer.interrupt import Interrupted
from tinyddpm.trainer.recipes import Recipe
from tinyddpm.trainer.state import FILES, load_state, save_state
from tinyddpm.trainer.trainer import train
from tinyddpm.trainer.unfinished import unfinished_runs

MINI = Recipe(dims=(8, 16), attention=(), T=20, batch_size=4, warmup=2, epochs=2)


class Fetched(Dataset):
    """Twelve images; this process gets a SIGTERM when one has been fetched so often."""

    def __init__(self, fatal):
        self.left = fatal

    def __len__(self):
        return 12

    def __getitem__(self, i):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return torch.full((1, 32, 32), i / 6 - 1), i % 10


@pytest.fixture
def stop(monkeypatch, tmp_path):
    """A function that trains, stopped after a step, by a command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinyddpm.trainer.recipes.RECIPES", {"mini": MINI})
    monkeypatch.setattr("tinyddpm.trainer.trainer.mnist", lambda **_: Fetched(6))
    return lambda *words: main(["train", "--recipe", "mini", "--device", "cpu", *words])


def test_a_run_is_found_with_the_command_that_goes_on_with_it(stop, tmp_path, capsys):
    assert stop("--out", "runs/a", "--seed", "3", "--fresh") == 128 + signal.SIGTERM
    (tmp_path / "runs" / "empty").mkdir()
    (run,) = unfinished_runs([*(tmp_path / "runs").relative_to(tmp_path).glob("*")])
    assert str(run.folder) == "runs/a" and run.stands == "step 2, 0.0 minutes, 33% done"
    words = ["train", "--recipe", "mini", "--device", "cpu", "--out", "runs/a", "--seed", "3"]
    assert run.words == words and not run.why
    assert main(run.words) == 128 + signal.SIGTERM  # which goes on, and is stopped again
    assert "going on in runs/a: epoch 1, step 2" in capsys.readouterr().out
    assert load_state(run.folder)[0]["command"] == words


def test_a_folder_that_was_moved_is_named_where_it_is(stop, tmp_path):
    stop()
    (tmp_path / "runs" / "mini").rename(tmp_path / "elsewhere")
    (run,) = unfinished_runs([tmp_path / "elsewhere"])
    assert run.words[-2:] == ["--out", str(tmp_path / "elsewhere")]


def test_a_damaged_run_is_said_to_be_so(stop, tmp_path):
    stop()
    for name in FILES:
        (tmp_path / "runs" / "mini" / name).write_bytes(b"half")
    (run,) = unfinished_runs([tmp_path / "runs" / "mini"])
    assert run.stands == "damaged" and run.words is None and "is not as it was written" in run.why


def test_a_run_that_python_began_is_not_gone_on_with_by_a_command(tmp_path):
    with pytest.raises(Interrupted):
        train(MINI, tmp_path, Fetched(6), device="cpu")
    (run,) = unfinished_runs([tmp_path])
    assert run.words is None and "the call of train() that began it" in run.why


def test_a_run_of_two_processes_is_told_how_to_go_on(stop, tmp_path):
    stop()
    folder = tmp_path / "runs" / "mini"
    counters, tensors = load_state(folder)
    counters["settings"]["processes"] = 2
    save_state(folder, counters, tensors)
    (run,) = unfinished_runs([folder])
    assert run.words is None and "torchrun --nproc-per-node 2 -m tinyddpm train --recipe mini" in run.why
