"""Missing packages, locked folders, and how far a computation has come."""

import io
import sys
import time

import pytest
from tqdm import tqdm

from tinyddpm.tools import jobs
from tinyddpm.tools.jobs import MissingExtra, alone, count, needs, progress


def test_missing_packages_are_named_with_the_extra_that_installs_them(monkeypatch):
    needs("train", "this", "torch", "numpy")
    monkeypatch.setitem(sys.modules, "torch", None)
    for packages, named in ((("torch",), "torch"), (("numpy", "torch", "nowhere"), "torch and nowhere")):
        with pytest.raises(MissingExtra) as error:
            needs("train", "this", *packages)
        assert str(error.value) == f"this needs {named}: pip install 'tinyddpm[train]'" and error.value.name == "torch"
    assert issubclass(MissingExtra, ModuleNotFoundError) and issubclass(MissingExtra, ValueError)


def test_a_folder_is_locked_until_its_job_ends(tmp_path):
    with alone(tmp_path, "go elsewhere"):
        with pytest.raises(ValueError, match=f"another run is active in {tmp_path}: wait for it, or go elsewhere"):
            with alone(tmp_path, "go elsewhere"):
                pass
    with pytest.raises(KeyError):
        with alone(tmp_path, ""):
            raise KeyError
    with alone(tmp_path, ""):
        pass


@pytest.mark.parametrize("items", [(range(20),), (iter(range(20)), 20)], ids=["of a length", "of a total"])
def test_without_a_terminal_a_line_a_minute_says_how_far_it_is(items, monkeypatch, capsys):
    monkeypatch.setattr(jobs, "MINUTE", 0.2)
    assert [time.sleep(0.05) or k for k in progress(items[0], "counting", *items[1:])] == list(range(20))
    lines = capsys.readouterr().err.splitlines()
    assert 3 <= len(lines) <= 6 and all(line.startswith("counting: ") and line.endswith(" left") for line in lines)
    assert not any("\r" in line for line in lines)
    counts = [int(line.split()[1]) for line in lines]
    assert counts == sorted(set(counts)) and counts[-1] <= 20 and lines[0].split()[2:4] == ["of", "20"]


def test_a_line_moves_no_cursor_beside_another_bar(monkeypatch, capsys):
    monkeypatch.setattr(jobs, "MINUTE", 1e-6)
    with tqdm(total=1, file=io.StringIO()):
        assert list(progress(range(3), "counting", initial=2, total=5)) == [0, 1, 2]
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" in ")[0] for line in lines] == [f"counting: {n} of 5" for n in (3, 4, 5)]


@pytest.mark.parametrize(("n", "said"), [(0, "0 images"), (1, "1 image"), (2, "2 images")])
def test_one_of_something_is_not_several(n, said):
    assert count(n, "image") == said


def test_what_takes_less_than_a_minute_says_nothing_without_a_terminal(capsys):
    assert list(progress(range(3), "counting")) == [0, 1, 2] and capsys.readouterr().err == ""


def test_a_terminal_shows_a_bar_that_vanishes(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = progress(range(3), "counting")
    assert list(bar) == [0, 1, 2] and not bar.leave
    assert "counting:" in (shown := capsys.readouterr().err) and "\r" in shown
