import lzma
import os
import re
from pathlib import Path

import pytest
import torch
from small_run import MINI, Fetched, run, send

from tinyddpm.files import TEMPORARY
from tinyddpm.trainer import train
from tinyddpm.trainer.interrupt import Interrupted
from tinyddpm.trainer.state import (
    FILES,
    Position,
    clear_state,
    differences,
    is_unfinished,
    load_state,
    resume_command,
    save_state,
)

STATE = {"steps": 3, "a": {"b": [torch.arange(6.0).reshape(2, 3), (1, None)]}}


def test_a_state_is_read_as_it_was_saved(tmp_path):
    assert load_state(tmp_path) == {}
    save_state(tmp_path, STATE)
    found = load_state(tmp_path)
    assert torch.equal(found["a"]["b"].pop(0), STATE["a"]["b"][0]) and found == {"steps": 3, "a": {"b": [(1, None)]}}


def test_a_state_that_is_cut_or_changed_anywhere_is_damaged(tmp_path):
    save_state(tmp_path, {"steps": 1})
    path = tmp_path / FILES[0]
    whole = path.read_bytes()
    for i in range(0, len(whole), 7):
        for damaged in (whole[:i], whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match="is not a state as this program writes it"):
                load_state(tmp_path)


class Evil:
    def __reduce__(self):
        return os.system, ("touch owned",)


def test_no_code_in_a_state_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_state(tmp_path, {"evil": Evil()})
    with pytest.raises(ValueError, match="not a state as this program writes it"):
        load_state(tmp_path)
    assert not (tmp_path / "owned").exists()


def test_a_state_of_the_first_edition_is_refused_with_what_to_do(tmp_path):
    """The file is a state that version 0.1 saved before its first step, a pickle."""
    (tmp_path / "run.state").write_bytes(lzma.decompress(Path(__file__).with_name("run_state_of_0.1.xz").read_bytes()))
    with pytest.raises(
        ValueError, match=r"as tinyddpm 0\.1 wrote them, and they are never run.*fresh=True \(--fresh\)"
    ):
        train(MINI, tmp_path, Fetched(), device="cpu", precision="no")
    assert not (tmp_path / "model.safetensors").exists()


@pytest.mark.parametrize("count", [{"epoch": -1}, {"steps": -5}, {"batch": -1}])
def test_a_position_with_negative_counts_is_refused(count):
    with pytest.raises(ValueError, match="no count is negative, got epoch"):
        Position(**count)


def test_the_state_before_stands_in_for_a_damaged_one(tmp_path):
    for steps in (1, 2):
        save_state(tmp_path, {"steps": steps})
    assert load_state(tmp_path) == {"steps": 2}
    (tmp_path / FILES[0]).write_bytes(b"")
    assert load_state(tmp_path) == {"steps": 1}
    (tmp_path / FILES[0]).unlink()
    assert load_state(tmp_path) == {"steps": 1}
    (tmp_path / FILES[1]).write_bytes(b"x" * 100)
    with pytest.raises(ValueError, match="not a state .* begin anew with fresh=True"):
        load_state(tmp_path)


def test_a_write_that_fails_leaves_the_state_before(tmp_path, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    save_state(tmp_path, {"steps": 1})
    monkeypatch.setattr("tinyddpm.trainer.state.write_whole", full)
    with pytest.raises(OSError):
        save_state(tmp_path, {"steps": 2})
    assert load_state(tmp_path) == {"steps": 1}


OURS = ("model.safetensors", "model.safetensors.20261121", "run.state.x7dk2m_a", "run.lock")


def test_clearing_leaves_nothing_half_written_and_no_file_of_the_user_is_touched(tmp_path):
    for name in (*FILES, f"{TEMPORARY}p0s9fk2l", *OURS):
        (tmp_path / name).touch()
    clear_state(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(OURS)


def test_differences_are_named():
    assert differences({"a": 1, "b": (1, 2), "c": None}, {"a": 2, "b": (1, 2), "d": 4}) == "a 1 -> 2, d None -> 4"
    assert differences({"arguments": {"dims": (8,)}}, {"arguments": {"dims": (9,)}}) == "dims (8,) -> (9,)"


# --- unfinished runs

WORDS = ["train", "--recipe", "mini", "--seed", "3"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """That of a run which a command began, stopped after two steps."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Interrupted):
        train(MINI, "runs/a", Fetched(6, send(15)), device="cpu", command=[*WORDS, "--out", "runs/a"])
    return tmp_path / "runs" / "a"


def test_an_interrupted_run_knows_the_command_that_resumes_it(folder):
    assert is_unfinished(folder) and not is_unfinished(folder.parent)
    position, words = resume_command(Path("runs/a"))
    assert re.fullmatch(r"epoch 1, step 2, \d\.\d minutes, 33% done", position)
    assert words == [*WORDS, "--out", "runs/a"]
    moved = folder.rename(folder.parent / "moved")
    assert resume_command(moved) == (position, [*words, "--out", str(moved)])


def test_an_interrupted_run_that_no_command_resumes_says_why(folder):
    state = load_state(folder)
    save_state(folder, state | {"settings": {"processes": 2}})
    found, words = resume_command(folder)
    assert not words and "resumed by torchrun --nproc-per-node 2 -m tinyddpm train --recipe mini" in found
    save_state(folder, state | {"command": []})
    found, words = resume_command(folder)
    assert not words and "resumed by the same call of train(), as it began in Python" in found
    for name in FILES:
        (folder / name).write_bytes(b"half")
    with pytest.raises(ValueError, match="is not a state"):
        resume_command(folder)


def test_a_finished_run_is_not_unfinished(tmp_path):
    run(tmp_path, epochs=1)
    assert not is_unfinished(tmp_path)
