"""The attacks, a few of each: `python tests/attacks/attacks.py checkpoints --n 5000` runs more of them."""

import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinyddpm.trainer.state import load_state

ROOT = Path(__file__).parent.parent.parent
PROMISES = (ROOT / "SECURITY.md").read_text()


@pytest.mark.parametrize(
    ("attack", "n"),
    [
        ("checkpoints", 150),
        ("states", 8),
        ("commands", 60),
        ("sessions", 30),
        ("calls", 200),
        ("disks", 10),
        ("writers", 2),
    ],
)
def test_an_attack_finds_nothing(attack, n):
    words = [sys.executable, Path(__file__).with_name("attacks.py"), attack, "--n", str(n)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert f"{n} {attack}: " in done.stdout


@pytest.mark.parametrize("path", sorted((ROOT / "assets/weights").glob("*.safetensors")), ids=lambda path: path.name)
def test_the_shipped_files_have_the_sums_that_are_published(path):
    assert f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" in PROMISES


def lines_of_the_docs():
    lines = re.findall(r"^((?:torchrun|accelerate) .*--recipe tiny)\b", (ROOT / "docs/training.md").read_text(), re.M)
    assert {line.split()[0] for line in lines} == {"torchrun", "accelerate"}
    return lines


@pytest.mark.parametrize("line", lines_of_the_docs())
def test_a_line_of_the_docs_starts_two_processes_as_it_stands(line, tmp_path):
    launcher, *words = shlex.split(line)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "said", "w") as said:
        run = subprocess.Popen(
            [Path(sys.executable).with_name(launcher), *words],
            cwd=tmp_path, env=environment, stdout=said, stderr=said,
        )  # fmt: skip
    state = tmp_path / "runs" / "tiny" / "run.state"
    try:
        end = time.monotonic() + 300
        while not state.exists() and run.poll() is None and time.monotonic() < end:
            time.sleep(0.2)
        assert state.exists(), (tmp_path / "said").read_text()[-3000:]
    finally:
        run.send_signal(signal.SIGTERM)  # a launcher hands it on to its processes, which save and end
        run.wait(120)

    assert load_state(state.parent)["settings"]["processes"] == 2
