"""Plausible wrong answers to the exercises of the course: the exercise, a program that sets `answer`, and words that
its diagnosis must contain. Written from the notebooks alone, without the course's own list of mistakes."""

WRONG_ANSWERS: list[tuple[str, str, str]] = []
