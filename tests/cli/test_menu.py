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

from tinyddpm.cli.main import main
from tinyddpm.cli.menu import interact
from tinyddpm.trainer.state import save_state

pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
ROOT = Path(__file__).parent.parent.parent


def play(monkeypatch, answers, run=lambda words: 0):
    """What the menu runs, given these answers, and Ctrl-D after them; and what it returns."""
    left, done = iter(answers), []

    def answer(question):
        print(question)
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    def noted(words):
        done.append(shlex.join(words))
        return run(words)

    monkeypatch.setattr("builtins.input", answer)
    monkeypatch.setenv("COLUMNS", "80")
    return done, interact(noted)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("answers", "command"),
    [
        (["", "", "", "", ""], "sample --show --digits 7 --per-digit 2"),
        (["draw", "31", "4", "2.5", "x.png"], "sample --show --digits 31 --per-digit 4 --scale 2.5 --out x.png"),
        (["gif", "", "", ""], "gif"),
        (["g", "12", "3", "films"], "gif --digits 12 --scale 3 --out films"),
        (["write", "", "", ""], "write '2026 11 21'"),
        (["w", "3a", "31 4", "3", "x.jpg", "x.gif"], "write '31 4' --scale 3 --out x.gif"),
        (["train", "", "", ""], "train --recipe nano"),
        (["t", "tiny", "95 minutes", "mine"], "train --recipe tiny --minutes 95 --out mine"),
        (["train", "nano", "0.70 epochs", ""], "train --recipe nano"),
    ],
)
def test_answers_become_a_command(answers, command, monkeypatch, capsys):
    done, status = play(monkeypatch, answers)
    assert done == [command] and status == 0
    assert f"\n$ tinyddpm {command}\n" in capsys.readouterr().out


def test_what_is_drawn_next_is_something_else(monkeypatch):
    done, _ = play(monkeypatch, ["draw", "12", "3", "", "", "draw", "7", "1", "", "", "draw", "", "", "", ""])
    assert [re.findall(r"--seed (\d+)", command) for command in done] == [[], ["6"], ["7"]]


def test_a_folder_that_is_taken_is_not_trained_in(monkeypatch, capsys):
    for name in ("nano", "nano-2", "mine"):
        Path("runs", name).mkdir(parents=True)
    Path("runs/nano/model.safetensors").write_bytes(b"")
    Path("runs/nano-2/run.state").write_bytes(b"")
    done, _ = play(monkeypatch, ["train", "", "", "runs/nano", "runs/nano-2", ""])
    assert done == ["train --recipe nano --out runs/nano-3"]
    out = capsys.readouterr().out
    assert "runs/nano holds a trained network: say another folder" in out
    assert "runs/nano-2 holds a run that was stopped: say another folder" in out


def test_a_network_that_was_trained_here_can_draw(monkeypatch):
    answers = ["train", "", "", "mine", "draw", "", "", "", "mine", "", "gif", "", "", "", ""]
    train = lambda words: Path("mine/model.safetensors").write_bytes(b"") * 0  # noqa: E731
    done, _ = play(monkeypatch, answers, train)
    assert done[1].endswith("--weights mine/model.safetensors") and done[2] == "gif"


def stopped(folder, command):
    Path(folder).mkdir(parents=True)
    counters = {"settings": {"processes": 1}, "steps": 7, "minutes": 1.25, "progress": 0.5}
    save_state(Path(folder), {**counters, "command": command}, {})


def test_resume_shows_what_was_stopped_and_goes_on_with_the_one_chosen(monkeypatch, capsys):
    stopped("runs/b", ["train", "--recipe", "tiny", "--out", "runs/b"])
    stopped("runs/long-name", ["train", "--out", "runs/long-name"])
    Path("runs/a").mkdir()
    Path("runs/a/run.state").write_bytes(b"x")
    done, _ = play(monkeypatch, ["resume", "1", "4", "", "resume", "3", "resume", "runs/b"])
    assert done == ["train --recipe tiny --out runs/b", "train --out runs/long-name", done[0]]
    out = capsys.readouterr().out
    assert "  1  runs/a          damaged\n  2  runs/b          step 7, 1.2 minutes, 50% done\n" in out
    assert "run.state is not as it was written" in out and "choose one of 1, 2, 3, got '4'" in out


def test_where_nothing_can_go_on_the_menu_says_so(monkeypatch, capsys):
    done, _ = play(monkeypatch, ["resume", "resume"])
    assert not done and capsys.readouterr().out.count("There is no run in runs to go on with.") == 2
    Path("runs/a").mkdir(parents=True)
    Path("runs/a/run.state").write_bytes(b"x")
    play(monkeypatch, ["resume", "quit"])
    assert "run.state is not as it was written" in capsys.readouterr().out


def test_back_and_what_cannot_be_lead_to_the_menu(monkeypatch, capsys):
    def stop(words):
        if words[0] == "gif":
            raise SystemExit
        return 128 + signal.SIGINT

    answers = ["draw", "back", "draw", "", "", "", "", "gif", "", "", "", "nonsense", "quit", "never asked"]
    done, status = play(monkeypatch, answers, stop)
    assert [command.split()[0] for command in done] == ["sample", "gif"] and status == 0
    out = capsys.readouterr().out
    assert (
        "resume" not in out.split("quit\n", 1)[1].split("choose")[0]
        and "choose one of draw, gif, write, train, resume, quit, got 'nonsense'" in out
    )
    assert out.endswith("Goodbye.\n")


def test_a_terminal_too_narrow_for_a_digit_keeps_the_menu(monkeypatch, capsys):
    monkeypatch.setattr("tinyddpm.cli.commands.shutil.get_terminal_size", lambda: os.terminal_size((20, 9)))
    done, status = play(monkeypatch, ["draw", "7", "gif", "", "", ""])
    assert done == ["gif"] and status == 0
    assert "but this terminal 20" in " ".join(capsys.readouterr().out.split())


def test_a_sigterm_ends_all_of_it_and_ctrl_c_only_the_training(monkeypatch):
    train = ["train", "", "", ""]
    for number, times in ((signal.SIGTERM, 1), (signal.SIGINT, 2)):
        done, status = play(monkeypatch, [*train, *train], lambda _: 128 + number)  # noqa: B023
        assert len(done) == times and status == (128 + number if times == 1 else 0)


@pytest.mark.parametrize("terminals", [("stdin",), ("stdout",), ("stdin", "stdout")])
def test_without_a_command_there_is_a_menu_on_a_terminal_only(terminals, monkeypatch, capsys):
    for name in ("stdin", "stdout"):
        monkeypatch.setattr(f"sys.{name}.isatty", lambda name=name: name in terminals, raising=False)
    monkeypatch.setattr("tinyddpm.cli.menu.interact", lambda run: 0 if run is main else 1)
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
            os.environ.update(TERM="xterm", PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
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

    def answer(self, *answers):
        for answer in answers:
            self.until("] ")
            os.write(self.keys, answer.encode() + b"\n")

    def press(self, key):
        os.write(self.keys, key)

    def end(self):
        while self.more():
            pass
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """One sitting at a real terminal, from the first digit to Ctrl-D: what was shown, and where."""
    folder = tmp_path_factory.mktemp("session")
    terminal = Terminal(folder)
    terminal.until("Ctrl-C out.")
    terminal.answer("dance", "draw", "3x", "3", "1", "", "three.png")
    terminal.answer("train", "nano", "0.002 epochs", "")
    terminal.answer("train", "", "", "")
    terminal.until("/1250 ")  # the progress bar
    terminal.press(b"\x03")
    terminal.answer("resume", "2", "")
    terminal.until("going on")
    terminal.until("/1250 ")
    terminal.press(b"\x03")
    terminal.answer("gif", "5", "1", "runs/nano", "films")
    terminal.until("[draw] ")
    terminal.press(b"\x04")
    status = terminal.end()
    return re.sub(r"\r+\n", "\n", terminal.shown), folder, status


def test_a_digit_is_drawn_in_colours_and_into_a_file(session):
    shown, folder, _ = session
    drawn = shown.split("$ tinyddpm sample --show --digits 3 --per-digit 1 --out three.png\n")[1]
    lines = [line for line in drawn.split("\n")[:60] if "▀" in line and line.endswith("\x1b[0m")]
    cells = [re.findall("38;5;([0-9]+);48;5;([0-9]+)m(▀+)", line) for line in lines]
    assert [sum(len(same) for *_, same in line) for line in cells] == [28] * 14
    assert {n for line in cells for upper, lower, _ in line for n in (upper, lower)} >= {"16", "231"}
    assert "1 image in three.png" in drawn and (folder / "three.png").stat().st_size > 0


def test_wrong_answers_are_asked_for_again(session):
    shown = session[0]
    assert "[draw] dance\n  -> choose one of draw, gif, write, train, resume, quit, got 'dance'\n  What" in shown
    assert "[7] 3x\n  -> say digits, such as 7 or 2026, got '3x'\n  Which" in shown


def test_a_training_run_ends_stops_and_goes_on(session):
    shown, folder, _ = session
    assert "$ tinyddpm train --recipe nano --epochs 0.002\n" in shown
    assert "the trained network is runs/nano/model.safetensors" in shown
    assert (folder / "runs/nano/model.safetensors").exists()
    assert "[runs/nano-2] \n" in shown  # the folder of the first is not offered again
    saved = [int(n) for n in re.findall(r"saved runs/nano-2 at step (\d+), ", shown)]
    assert len(saved) == 2 and 0 < saved[0] < saved[1]
    command = "tinyddpm train --recipe nano --out runs/nano-2\n"
    assert shown.count(f"to go on: {command}or here:  resume\n") == 2
    assert f"  1  runs/nano-2  step {saved[0]}, " in shown and "choose one of 1, got '2'" in shown
    assert f"$ {command}" in shown.split("[1] ")[-1]
    assert f"going on in runs/nano-2: epoch 1, step {saved[0]}, " in shown


def test_gifs_are_made_of_the_network_just_trained(session):
    shown, folder, _ = session
    assert "Networks: shipped, runs/nano\n" in shown
    weights = "--weights runs/nano/model.safetensors"
    assert f"$ tinyddpm gif --digits 5 --scale 1 {weights} --out films\n" in shown
    assert re.search(r"\r1 image, \d+ frames each, in films\n", shown)
    assert sorted(path.name for path in (folder / "films").iterdir()) == ["digit_5.gif", "digits.gif"]


def test_ctrl_d_at_a_question_ends_politely(session):
    shown, _, status = session
    assert status == 0 and shown.endswith("[draw] \nGoodbye.\n") and "Traceback" not in shown
