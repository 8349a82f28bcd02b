"""How far a run has come: by its steps, or by the time."""

import time


class Clock:
    """How far a run has come, from 0 to 1: by its steps, or by the clock where minutes are given."""

    def __init__(self, total_steps: int, minutes: float | None):
        if minutes is None and total_steps < 1 or minutes is not None and not minutes > 0:
            raise ValueError(f"a run needs at least one step: got {total_steps} steps, {minutes} minutes")
        self.total_steps, self.minutes = total_steps, minutes
        self.steps, self.progress = 0, 0.0
        self.spent = self.before = 0.0  # minutes until the last tick; those of the runs this one goes on with
        self.started = time.monotonic()

    def tick(self) -> float:
        self.steps += 1
        self.spent = self.before + self.elapsed()
        by_steps = self.minutes is None
        self.progress = self.steps / self.total_steps if by_steps else self.spent / self.minutes
        return self.progress

    def go_on(self, steps: int, progress: float, spent: float) -> None:
        """From where another clock stopped."""
        self.steps, self.progress, self.spent, self.before = steps, progress, spent, spent

    def elapsed(self) -> float:
        return (time.monotonic() - self.started) / 60

    def __str__(self) -> str:
        return f"step {self.steps}, {self.spent:.1f} minutes, {min(self.progress, 1):.0%} done"
