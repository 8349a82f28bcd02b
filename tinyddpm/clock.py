"""How far a run has come: by its steps, or by the time."""

import time


class Clock:
    """How far a run has come, from 0 to 1: by its steps, or by the clock where minutes are given."""

    def __init__(self, total_steps: int, minutes: float | None):
        if minutes is None and total_steps < 1 or minutes is not None and not minutes > 0:
            raise ValueError(f"a run needs at least one step: got {total_steps} steps, {minutes} minutes")
        self.total_steps, self.minutes = total_steps, minutes
        self.steps, self.started, self.progress = 0, time.monotonic(), 0.0

    def tick(self) -> float:
        self.steps += 1
        by_steps = self.minutes is None
        self.progress = self.steps / self.total_steps if by_steps else self.elapsed() / self.minutes
        return self.progress

    def elapsed(self) -> float:
        return (time.monotonic() - self.started) / 60

    def __str__(self) -> str:
        return f"step {self.steps}, {self.elapsed():.1f} minutes, {min(self.progress, 1):.0%} done"
