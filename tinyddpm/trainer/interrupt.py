"""Ctrl-C and SIGTERM during a run: finish the step, save, and end; the second Ctrl-C ends at once."""

import os
import signal
import threading


def is_first() -> bool:
    """Whether this is the first of several processes, which speaks for all, or the only one."""
    return os.environ.get("RANK", "0") == "0"


class Interrupted(KeyboardInterrupt):
    """A run that was asked to end, and has saved where it was. `signal` says by what."""

    def __init__(self, message: str, signal: int):
        super().__init__(message)
        self.signal = signal


class Interrupts:
    """While it is open, `caught` is the number of the first SIGINT or SIGTERM that came, or None."""

    def __init__(self):
        self.caught: int | None = None

    def __enter__(self) -> "Interrupts":
        self.handlers = {}
        if threading.current_thread() is threading.main_thread():  # Python hands signals to no other
            for number in (signal.SIGINT, signal.SIGTERM):
                self.handlers[number] = signal.signal(number, self.catch)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def catch(self, number: int, frame) -> None:
        if self.caught is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.caught = self.caught or number
        if is_first():
            print("\nfinishing this step, then saving (Ctrl-C again ends at once)", flush=True)
