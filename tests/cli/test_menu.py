"""The menu: which command answers become, by typed keys; and one sitting at a terminal of its own."""

import os
import re
import select
import shlex
import signal
import struct
import sys
import time
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from tinyddpm.cli.main import COMMANDS, main
from tinyddpm.cli.menu import menu
from tinyddpm.files import writable_folder
from tinyddpm.trainer.state import clear_state, save_state

pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
ROOT = Path(__file__).parent.parent.parent
CTRL_C, UP, DOWN, ENTER = "\x03", "\x1b[A", "\x1b[B", "\r"


def play(*keys, run=lambda words: 0):
    """What the menu runs when these keys are typed, each followed by Enter, and then Ctrl-C; and what it returns."""
    done = []

    def noted(words):
        done.append(shlex.join(words))
        return run(words)

    with create_pipe_input() as keyboard, create_app_session(input=keyboard, output=DummyOutput()):
        keyboard.send_text("".join(key + ENTER for key in keys) + CTRL_C)
        return done, menu(noted)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        (["", "", "", "", ""], "sample --show --digits 7 --per-digit 2 --scale 1 --seed 0"),
        (["d", "31", "4", "2.5", "x.png"], "sample --show --digits 31 --per-digit 4 --scale 2.5 --out x.png --seed 0"),
        (["g", "", "", ""], "gif --digits 0123456789 --scale 1.5 --out gifs"),
        ([DOWN, "12", "3", "~/films"], "gif --digits 12 --scale 3 --out HOME/films"),
        (["w", "", "", ""], "write '2026 11 21' --scale 2 --out strip.png --seed 0"),
        (["w", "31 4", "3", "x.gif"], "write '31 4' --scale 3 --out x.gif --seed 0"),
        (["t", "", "", ""], "train --recipe nano --epochs 0.7 --out runs/nano"),
        (["t", DOWN, "95 minutes", "mine"], "train --recipe learned-variance --minutes 95 --out mine"),
        (["t", "", ".5m", "~nosuchuser"], "train --recipe nano --minutes .5 --out '~nosuchuser'"),
    ],
)
def test_answers_become_a_command_that_the_command_line_takes(keys, command, monkeypatch, capsys):
    taken = []
    for name, module in COMMANDS.items():
        monkeypatch.setattr(f"tinyddpm.{module}.run_{name}", taken.append)
    done, status = play(*keys, run=main)
    command = command.replace("HOME", os.environ["HOME"])
    assert done == [command] and len(taken) == 1 and status == 0
    assert f"\n$ tinyddpm {command}\n" in capsys.readouterr().out


def instead(*bad, good):
    """Bad answers, each refused and erased, and a good one."""
    return "".join(answer + ENTER + "\x7f" * len(answer) for answer in bad) + good


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        (
            [
                "d",
                instead("3x", "3 4", good="34"),
                instead("0", "1.5", good="1"),
                instead("much", "-1", "inf", "1.2.3", good="0"),
                instead("x.gif", ".png", good="x.npz"),
            ],
            "sample --show --digits 34 --per-digit 1 --scale 0 --out x.npz --seed 0",
        ),
        (
            ["w", instead("3a", good="3 1"), "", instead("x.jpg", good="x.gif")],
            "write '3 1' --scale 2 --out x.gif --seed 0",
        ),
        (["t", "", instead("5", "5 hours", "-1 m", good="5 min"), "r"], "train --recipe nano --minutes 5 --out r"),
    ],
)
def test_a_wrong_answer_is_asked_for_again(keys, command):
    assert play(*keys)[0] == [command]


def test_what_is_drawn_next_is_something_else():
    done, _ = play("d", "12", "3", "", "", "d", "7", "1", "", "", "d", "", "", "", "")
    assert [re.findall(r"--seed (\d+)", command) for command in done] == [["0"], ["6"], ["7"]]


def test_a_folder_that_is_taken_is_not_proposed(capsys):
    for name, file in (("nano", "model.safetensors"), ("nano-2", "run.state")):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, file).write_bytes(b"")
    assert play("t", "", "", "")[0] == ["train --recipe nano --epochs 0.7 --out runs/nano-3"]


def test_a_network_that_was_trained_here_can_draw():
    def train(words):
        Path("mine").mkdir(exist_ok=True)
        return Path("mine/model.safetensors").write_bytes(b"")

    done, _ = play("t", "", "", "mine", "d", "", "", "", DOWN, "", "g", "", "", "", "", run=train)
    assert "--weights mine/model.safetensors" in done[1] and "--weights" not in done[2]


def test_resume_runs_the_command_of_the_run_that_is_chosen(monkeypatch, capsys):
    def resume_command(folder):
        if folder.name == "a":
            raise ValueError("run.state was changed")  # it cannot be chosen, nor can the next one
        return ("step 7", ["train", "--out", str(folder)]) if folder.name in "bc" else ("resumed otherwise", [])

    monkeypatch.setattr("tinyddpm.cli.menu.resume_command", resume_command)
    for name in ("a", "aa", "b", "c"):
        save_state(writable_folder(f"runs/{name}"), {})
    done, _ = play("r", "", "r", DOWN, "r", DOWN + DOWN)  # the last one: back
    assert done == ["train --out runs/b", "train --out runs/c"]
    for name in "bc":
        clear_state(Path("runs", name))
    assert not play("r")[0]
    assert "there is no run to resume\n  run.state was changed\n  resumed otherwise\n" in capsys.readouterr().out


def test_back_and_a_command_that_fails_lead_to_the_menu(capsys):
    done, status = play("d", "back", "t", UP + UP, "w", "", "", "back", "g", "", "", "", "q", run=lambda _: 2)
    assert [command.split()[0] for command in done] == ["gif"] and status == 0
    assert capsys.readouterr().out.endswith("Goodbye.\n")


def test_a_terminal_too_narrow_for_a_digit_keeps_the_menu(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    done, status = play("d", "7", "g", "", "", "")
    assert [command.split()[0] for command in done] == ["gif"] and status == 0
    assert "but this terminal 20" in capsys.readouterr().out


@pytest.mark.parametrize(("number", "times"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)])
def test_a_sigterm_ends_all_of_it_and_ctrl_c_only_the_command(number, times):
    done, status = play(*["t", "", "", ""] * 2, run=lambda _: 128 + number)
    assert len(done) == times and status == (128 + number if times == 1 else 0)


@pytest.mark.parametrize("terminals", [("stdin",), ("stdout",), ("stdin", "stdout")])
def test_without_a_command_there_is_a_menu_on_a_terminal_only(terminals, monkeypatch, capsys):
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{name}.isatty", lambda name=name: name in terminals, raising=False)
    monkeypatch.setattr("tinyddpm.cli.menu.menu", lambda run: 0 if run is main else 1)
    assert main([]) == (0 if len(terminals) == 2 else 2)
    assert ("usage: tinyddpm" in capsys.readouterr().err) == (len(terminals) < 2)


class Terminal:
    """tinyddpm alone on a terminal of its own: what it has shown, and keys to press."""

    def __init__(self, folder):
        self.process, self.keys = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            for name in ("COLUMNS", "COLORTERM", "NO_COLOR"):
                os.environ.pop(name, None)
            os.environ.update(TERM="xterm", PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1", PROMPT_TOOLKIT_NO_CPR="1")
            os.execv(sys.executable, [sys.executable, "-m", "tinyddpm"])
        fcntl.ioctl(self.keys, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.shown, self.read = "", 0

    def until(self, text, seconds=120):
        """Waits for text that was not waited for yet. A terminal that hangs must not hang the tests."""
        end = time.monotonic() + seconds
        while (found := self.shown.find(text, self.read)) < 0:
            if not select.select([self.keys], [], [], max(0, end - time.monotonic()))[0] or not self.more():
                os.kill(self.process, signal.SIGKILL)
                pytest.fail(f"waited for {text!r} in vain, after {self.shown[self.read :]!r}")
        self.read = found + len(text)

    def more(self):
        try:
            part = os.read(self.keys, 65536)
        except OSError:  # as Linux says that the program has ended
            return False
        self.shown += part.decode(errors="replace")
        return bool(part)

    def answer(self, *pairs):
        """Waits for the first of each pair, and types the second."""
        for question, answer in pairs:
            self.until(question)
            os.write(self.keys, answer.encode() + b"\r")

    def end(self):
        while self.more():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def test_a_sitting_at_a_terminal(tmp_path):
    terminal = Terminal(tmp_path)
    terminal.answer(("next?", "d"), ("Which digits?", "3"), ("each?", "1"), ("scale?", ""), ("file", "three.png"))
    terminal.answer(("next?", "t"), ("recipe?", ""), ("minutes?", ""), ("folder?", ""))
    terminal.until("/1250 ")  # the progress bar
    os.write(terminal.keys, CTRL_C.encode())
    terminal.answer(("next?", "r"), ("Which run?", ""))
    terminal.until("/1250 ")
    os.write(terminal.keys, CTRL_C.encode())
    terminal.until("next?")
    os.write(terminal.keys, CTRL_C.encode())
    assert terminal.end() == 0
    shown = re.sub(r"\r+\n", "\n", terminal.shown)
    assert shown.rstrip().endswith("Goodbye.") and "Traceback" not in shown

    drawn = shown.split("--out three.png --seed 0\n")[1]
    lines = [line for line in drawn.split("\n")[:60] if "▀" in line and line.endswith("\x1b[0m")]
    cells = [re.findall("38;5;([0-9]+);48;5;([0-9]+)m(▀+)", line) for line in lines]
    assert [sum(len(same) for *_, same in line) for line in cells] == [28] * 14
    assert {n for line in cells for upper, lower, _ in line for n in (upper, lower)} >= {"16", "231"}
    assert (tmp_path / "three.png").stat().st_size > 0

    command = "tinyddpm train --recipe nano --epochs 0.7 --out runs/nano\n"
    assert shown.count(f"$ {command}") == 2 and shown.count(f"resume with: {command}") == 2
    saved = [int(n) for n in re.findall(r"saved runs/nano at .*step (\d+)", shown)]
    assert len(saved) == 2 and 0 < saved[0] < saved[1]
