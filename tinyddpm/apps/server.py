"""The app as a web page of this machine, http://127.0.0.1:PORT."""

import contextlib
import importlib
import os
import runpy
import socket
import sys
from logging import getLogger
from pathlib import Path

from ..cli.options import App
from ..tools.jobs import needs
from ..trainer.interrupt import Interrupts

HOST, FIRST = "127.0.0.1", 2718


def run_app(ask: App) -> None:
    """Serves the page, in a browser where there is a screen, until a signal, on which a run in training is saved.
    Without a port, the first free one from FIRST on. Raises ValueError without marimo, and for a port in use."""
    needs("app", "the app", "marimo")
    free = next(n for n in range(FIRST, 2**16) if is_free(n))
    port = free if ask.port is None else ask.port
    if not is_free(port):
        why = "perhaps because the app runs there already" if 0 < port < 2**16 else "since a port is in 1..65535"
        raise ValueError(f"cannot use port {port}, {why}: try --port {free}")
    print(f"starting tinyddpm at http://{HOST}:{port} (Ctrl-C ends it)", flush=True)
    training = importlib.import_module(".training", __package__)  # torch is loaded before the page asks for it
    page = str(Path(__file__).with_name("page.py"))
    screen = sys.platform in ("win32", "darwin") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    hidden = [] if ask.browser and screen else ["--headless"]
    # without -y it would ask whether Ctrl-C is meant; with -q it would end with a traceback
    sys.argv = ["marimo", "-y", "run", page, "--port", str(port), "--no-token", "--no-sandbox", *hidden]
    getLogger("uvicorn.error").addFilter(lambda record: "CancelledError" not in record.getMessage())  # a second signal
    with Interrupts(lambda number, _: sys.exit(128 + number)):  # marimo itself handles Ctrl-C
        try:
            runpy.run_module("marimo", run_name="__main__")
        finally:
            training.stop()


def is_free(port: int) -> bool:
    with contextlib.suppress(OSError, OverflowError), socket.create_server((HOST, port)):
        return port > 0  # 0 stands for any port
    return False
