"""The command: ports, browsers, a missing marimo, and the page of a real server."""

import contextlib
import os
import runpy
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from tinyddpm.apps import server
from tinyddpm.cli.main import main

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def started(monkeypatch):
    """The words with which marimo would have been started."""
    words = []
    monkeypatch.setattr(runpy, "run_module", lambda name, run_name: words.extend([name, *sys.argv[1:]]))
    monkeypatch.setattr(sys, "argv", ["tinyddpm"])
    return words


def test_a_port_in_use_is_refused_with_one_that_is_free(started, capsys):
    with socket.create_server((server.HOST, 0)) as other:
        port = other.getsockname()[1]
        assert main(["app", "--port", str(port)]) == 2
        said = capsys.readouterr().err
        assert f"cannot use port {port}" in said and len(said.splitlines()) == 1 and not started
        assert server.is_free(int(said.split("--port")[1]))


@pytest.mark.parametrize("port", ["-1", "0", "70000"])
def test_a_port_that_does_not_exist_is_refused(port, started, capsys):
    assert main(["app", "--port", port]) == 2 and not started
    said = capsys.readouterr().err
    assert f"cannot use port {port}, since a port is in 1..65535: try --port" in said and "already" not in said


def test_by_default_the_first_free_port_is_taken(started, capsys, monkeypatch):
    monkeypatch.setattr(server, "is_free", lambda port: port >= server.FIRST + 2)
    assert main(["app"]) == 0
    assert started[started.index("--port") + 1] == str(server.FIRST + 2)
    assert f"http://127.0.0.1:{server.FIRST + 2}" in capsys.readouterr().out


@pytest.mark.parametrize(("screen", "options", "opened"), [(":0", [], 1), ("", [], 0), (":0", ["--no-browser"], 0)])
def test_a_browser_is_opened_where_there_is_a_screen(screen, options, opened, started, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setenv("DISPLAY", screen)
    main(["app", *options])
    assert ("--headless" not in started) == opened


def test_without_marimo_the_extra_is_named(started, capsys, monkeypatch):
    monkeypatch.setattr("tinyddpm.tools.jobs.find_spec", lambda name: None)
    assert main(["app"]) == 2 and not started
    assert capsys.readouterr().err == "tinyddpm: the app needs marimo: pip install 'tinyddpm[app]'\n"


def test_the_page_is_served_until_ctrl_c(tmp_path):
    with socket.create_server((server.HOST, 0)) as other:
        port = other.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tinyddpm", "app", "--no-browser", "--port", str(port)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # which a job in the background inherits as ignored
    with subprocess.Popen(words, cwd=tmp_path, env=environment, preexec_fn=heard, **pipes) as process:
        page, end = "", time.monotonic() + 30
        while not page and time.monotonic() < end and process.poll() is None:
            with contextlib.suppress(OSError):
                page = urllib.request.urlopen(f"http://{server.HOST}:{port}/").read().decode()
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    assert "<title>tinyddpm</title>" in page and f"http://{server.HOST}:{port}" in out
    assert process.returncode == 0 and "Traceback" not in out
