"""Two processes: the same run as one process with the double batch."""

import os
import subprocess
import sys

import pytest
import torch
from small_run import SMALL, steady, weights
from torch.utils.data import Subset

from tinyddpm import DDPM
from tinyddpm.data import mnist
from tinyddpm.trainer import train
from tinyddpm.trainer.recipes import Recipe
from tinyddpm.trainer.state import load_state

RECIPE = Recipe(SMALL, T=20, batch_size=8, warmup=2, ema_decay=0.9, epochs=2)
RUN = """
import atexit, os, pathlib, signal, sys
def no_thread_left():  # of gloo: one that frees a tensor while Python exits aborts the process
    left = [path.read_text().strip() for path in pathlib.Path("/proc/self/task").glob("*/comm")]
    if any("gloo" in name for name in left):
        print("at the end there still were", left, file=sys.stderr, flush=True)
        os._exit(7)
atexit.register(no_thread_left)  # first in, last out
from dataclasses import replace
import torch
from torch.utils.data import Dataset, Subset
from test_processes import RECIPE
from tinyddpm.data import mnist
from tinyddpm.trainer.interrupt import Interrupted
from tinyddpm.trainer import train

folder, stop, parts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
second = os.environ["RANK"] == "1"

class Stopping(Dataset):  # the second process alone is asked to stop
    data, fetched = Subset(mnist(), range(48)), 0
    def __len__(self):
        return 48
    def __getitem__(self, i):
        self.fetched += 1
        if second and stop and self.fetched == 1 + 4 * stop:
            os.kill(os.getpid(), signal.SIGINT)
        return self.data[i]

try:  # the clock of the second process alone says that it is time to save
    ddpm = train(replace(RECIPE, batch_size=4), folder, Stopping(), device="cpu", precision="no", accumulate=parts,
                 save_every=-1.0 if second else 1e9, log_every=1)
except Interrupted as interrupted:
    print(interrupted)
else:
    average = torch.cat([p.flatten() for p in ddpm.model.parameters()])
    both = [torch.empty_like(average) for _ in range(2)]
    torch.distributed.all_gather(both, average)
    assert torch.equal(*both), "the averages of the processes differ"
"""
TORCHRUN = "torch.distributed.run --standalone --nproc-per-node 2"
ACCELERATE = "accelerate.commands.launch --multi_gpu --num_processes 2 --num_machines 1 --dynamo_backend no"


def launch(launcher, folder, stop=0, parts=1):
    """What the first process printed last."""
    script = folder.parent / "run.py"
    script.write_text(RUN)
    command = [sys.executable, "-m", *launcher.split(), *map(str, (script, folder, stop, parts))]
    paths = [os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The weights and the table of one process."""
    folder = tmp_path_factory.mktemp("one")
    ddpm = train(RECIPE, folder, Subset(mnist(), range(48)), device="cpu", precision="no", log_every=1)
    return weights(ddpm), numbers(folder)


def numbers(folder):
    return torch.tensor([[float(value or "nan") for value in row.values()] for row in steady(folder)])


def check(folder, alone):
    """The same weights and the same table of 12 steps; five digits are written."""
    found = numbers(folder)
    assert found.shape == (12, 15) and (found[:, 0] == torch.arange(1, 13)).all()
    torch.testing.assert_close(found, alone[1], rtol=2e-4, atol=0, equal_nan=True)
    torch.testing.assert_close(weights(DDPM.load(folder / "model.safetensors")), alone[0], rtol=0, atol=1e-4)


def test_two_processes_are_one_with_the_double_batch(tmp_path, alone):
    launch(TORCHRUN, tmp_path / "run")
    check(tmp_path / "run", alone)
    pictures = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert pictures == ["epoch_001.png", "epoch_002.png"]


def test_two_processes_stop_together_and_resume_with_each_batch_in_parts(tmp_path, alone):
    said = launch(ACCELERATE, tmp_path / "run", stop=4, parts=2)
    assert "step 4," in said and load_state(tmp_path / "run")["position"]["steps"] == 4
    launch(ACCELERATE, tmp_path / "run", parts=2)
    check(tmp_path / "run", alone)
