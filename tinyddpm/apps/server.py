"""The app as a web page of this machine, http://127.0.0.1:PORT."""

import importlib
import importlib.util
import os
import runpy
import socket
import sys
from pathlib import Path

HOST, FIRST = "127.0.0.1", 2718


def serve(port: int | None = None, browser: bool = True) -> None:
    """Serves the page until Ctrl-C, and opens it in a browser where there is a screen. Without a port, the first free
    one from FIRST on. Exits with status 2 after a message on stderr without marimo, and for a port that is in use."""
    free = next(n for n in range(FIRST, 2**16) if is_free(n))
    problem = "needs marimo: pip install 'tinyddpm[app]'" if importlib.util.find_spec("marimo") is None else ""
    if not problem and port is not None and not is_free(port):
        problem = f"cannot use port {port}, maybe because it runs there already: try --port {free}"
    if problem:
        print(f"tinyddpm app {problem}", file=sys.stderr)
        sys.exit(2)
    port = free if port is None else port
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
