"""The app as a web page of this machine, http://127.0.0.1:PORT."""

import importlib
import os
import runpy
import socket
import sys
from pathlib import Path

from ..cli.options import App
from ..tools.jobs import needs

HOST, FIRST = "127.0.0.1", 2718


def serve(port: int | None = None, browser: bool = True) -> None:
    """Serves the page until Ctrl-C, and opens it in a browser where there is a screen. Without a port, the first free
    one from FIRST on. Raises ValueError without marimo, and for a port that is in use."""
    needs("app", "the app", "marimo")
    free = next(n for n in range(FIRST, 2**16) if is_free(n))
    port = free if port is None else port
    if not is_free(port):
        raise ValueError(f"cannot use port {port}, perhaps because the app runs there already: try --port {free}")
    print(f"starting tinyddpm at http://{HOST}:{port} (Ctrl-C ends it)", flush=True)
    importlib.import_module(".tabs", __package__)  # torch is loaded before the page asks for it
    page = str(Path(__file__).with_name("page.py"))
    hidden = [] if browser and has_screen() else ["--headless"]
    # without -y it would ask whether Ctrl-C is meant; with -q it would end with a traceback
    sys.argv = ["marimo", "-y", "run", page, "--port", str(port), "--no-token", "--no-sandbox", *hidden]
    runpy.run_module("marimo", run_name="__main__")


def is_free(port: int) -> bool:
    try:
        with socket.create_server((HOST, port)):
            return port > 0  # 0 stands for any port
    except (OSError, OverflowError):
        return False


def has_screen() -> bool:
    """Whether a browser can show a window here."""
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def run_app(ask: App) -> None:
    """The command."""
    serve(ask.port, ask.browser)
