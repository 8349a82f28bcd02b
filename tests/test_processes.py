"""Two processes: the same run as one process with the double batch."""

import csv
import os
import subprocess
import sys

import pytest
import torch

from tinyddpm import DDPM
from tinyddpm.trainer.state import load_state

RUN = """
import atexit, os, pathlib, sys
def no_thread_left():  # of gloo: one that lets go of a tensor while Python ends aborts the process
    left = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in name for name in left):
        print("at the end there still were", left, file=sys.stderr, flush=True)
        os._exit(7)
atexit.register(no_thread_left)  # first in, last out
import torch
import tinyddpm.trainer.loop, tinyddpm.trainer.log
from torch.utils.data import Subset
from tinyddpm.data import mnist
from tinyddpm.trainer.interrupt import Interrupted
from tinyddpm.trainer.recipes import Recipe
from tinyddpm.trainer.trainer import train

batch_size = int(sys.argv[2])
recipe = Recipe(dims=(8, 16), attention=(), T=20, batch_size=batch_size, warmup=2, ema_decay=0.9, epochs=2)
tinyddpm.trainer.log.EVERY = 1
stop, end = int(sys.argv[3]), tinyddpm.trainer.loop.Loop.end_of_epoch
step_of = tinyddpm.trainer.loop.Loop.step
def step(run, *arguments):
    step_of(run, *arguments)
    run.stopped_by = 2 if run.clock.steps == stop and run.accelerator.process_index == 1 else None
tinyddpm.trainer.loop.Loop.step = step
agree = tinyddpm.trainer.loop.Loop.agree
tinyddpm.trainer.loop.Loop.stopped_by = None
tinyddpm.trainer.loop.Loop.agree = lambda run, what, due: agree(run, run.stopped_by or what, due)
# the clock of one process alone says that it is time to save
tinyddpm.trainer.loop.SAVE_EVERY = -1.0 if os.environ.get("RANK") == "1" else 1e9
def end_of_epoch(run):
    end(run)
    average = torch.cat([p.flatten() for p in run.ema.model.parameters()])
    all_of_them = run.accelerator.gather(average[None])
    assert (all_of_them == average).all(), "the averages of the processes differ"
tinyddpm.trainer.loop.Loop.end_of_epoch = end_of_epoch
try:
    train(recipe, sys.argv[1], Subset(mnist(), range(48)), device="cpu", accumulate=int(sys.argv[4]))
except Interrupted as interrupted:
    print(interrupted)
"""


TORCHRUN = "torch.distributed.run --standalone --nproc-per-node 2"
ACCELERATE = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --dynamo_backend no"


def run(launcher, folder, batch, stop=0, parts=1):
    """What the first process printed last."""
    script = folder.parent / "run.py"
    script.write_text(RUN)
    launch = [sys.executable, *(["-m", *launcher.split()] if launcher else []), script]
    command = [*map(str, launch), str(folder), str(batch), str(stop), str(parts)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def weights(folder):
    return torch.cat([p.flatten() for p in DDPM.load(folder / "model.safetensors").model.parameters()])


def table(folder):
    """The rows of log.csv, without what depends on the clock: (steps, columns)."""
    with open(folder / "log.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("minutes", "images_per_s")]
    return torch.tensor([[float(row[name] or "nan") for name in names] for row in rows])


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "run"
    run(None, folder, 8)
    return table(folder), weights(folder)


def test_two_processes_are_one_with_the_double_batch(tmp_path, alone):
    rows, wanted = alone
    folder = tmp_path / "run"
    run(TORCHRUN, folder, 4)
    found = table(folder)
    assert found.shape == (12, 15) and (found[:, 0] == torch.arange(1, 13)).all()
    torch.testing.assert_close(found, rows, rtol=2e-4, atol=0, equal_nan=True)  # five digits are written
    torch.testing.assert_close(weights(folder), wanted, rtol=0, atol=1e-4)
    pictures = sorted(path.name for path in (folder / "samples").iterdir())
    assert pictures == ["epoch_001.png", "epoch_002.png"]


def test_two_processes_stop_together_and_go_on_with_each_batch_in_parts(tmp_path, alone):
    said = run(ACCELERATE, tmp_path / "run", 4, stop=4, parts=2)  # the second is told to stop, the first is not
    assert "at step 4" in said and load_state(tmp_path / "run")[0]["steps"] == 4
    run(ACCELERATE, tmp_path / "run", 4, parts=2)
    torch.testing.assert_close(table(tmp_path / "run"), alone[0], rtol=2e-4, atol=0, equal_nan=True)
    torch.testing.assert_close(weights(tmp_path / "run"), alone[1], rtol=0, atol=1e-4)
