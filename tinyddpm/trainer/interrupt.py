"""Ctrl-C, SIGTERM and a closed terminal during a run: finish the step, save, and end; a second Ctrl-C ends at once."""

import os
import signal
import threading
from collections.abc import Callable

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP


def is_first() -> bool:
    """Whether this is the first of several processes, or the only one: the one that prints and writes."""
    return os.environ.get("RANK", "0") == "0"


class Interrupted(KeyboardInterrupt):
    """Raised by a run that was asked to end and has saved its state; `signal` is the number of the signal."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


class Interrupts:
    """A context in which `caught` is the number of the first of SIGNALS that was received, or None; or in which another
    handler receives them."""

    def __init__(self, handler: Callable | None = None):
        self.caught: int | None = None
        self.handler = handler or self.catch

    def __enter__(self) -> "Interrupts":
        main = threading.current_thread() is threading.main_thread()  # Python delivers signals to no other thread
        numbers = [getattr(signal, name) for name in SIGNALS if main and hasattr(signal, name)]
        self.handlers = {number: signal.signal(number, self.handler) for number in numbers}
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def catch(self, number: int, frame) -> None:
        if self.caught is not None and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.caught = self.caught or number
        if is_first():
            print("\nfinishing this step, then saving (Ctrl-C again ends at once)", flush=True)
