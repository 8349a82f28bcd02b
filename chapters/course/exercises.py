"""Exercises that answer: not attempted, ok, or what went wrong, and never an exception."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .proofs import as_tuple

NOT_ATTEMPTED = "not attempted"
OK = "ok"


@dataclass(frozen=True)
class Exercise:
    """What a right answer does, and the wrong ones that are known.

    reference       the right answer: a function, or a value
    arguments       on what to call it: called anew each time; None where the answer is a value
    misconceptions  what to say -> the wrong answer that deserves it, itself a function or a value
    within          how far numbers may differ
    call            how an answer is put to use on its arguments: called with them
    """

    reference: object
    arguments: Callable[[], Iterable[tuple]] | None = None
    misconceptions: dict[str, object] = field(default_factory=dict)
    within: float = 1e-4
    call: Callable = lambda answer, *arguments: answer(*arguments)


def check(name: str, answer: object = ...) -> None:
    """Prints what is to be said about an answer. Never raises, whatever the answer is."""
    print(f"{name}: {verdict(find(name), answer)}")


def find(name: str) -> Exercise:
    """The exercise of that name, such as "01a", from the module of its chapter."""
    return importlib.import_module(f".chapter_{name[:2]}", __package__).EXERCISES[name]


def verdict(exercise: Exercise, answer: object) -> str:
    if answer is None or answer is ...:
        return NOT_ATTEMPTED
    if exercise.arguments is not None and not callable(answer):
        return f"expected a function, got {kind(answer)}"
    try:
        found = outcome(exercise, answer)
    except Exception as error:  # whatever a reader's code may do
        reason = str(error).partition("\n")[0]
        return f"your answer stopped with {type(error).__name__}: {reason}"
    if any(value is None or value is ... for value in found):
        return NOT_ATTEMPTED
    wanted = outcome(exercise, exercise.reference)
    if problem := difference(found, wanted, exercise.within):
        for says, wrong in exercise.misconceptions.items():
            if not difference(found, outcome(exercise, wrong), exercise.within):
                return says
        return problem
    return OK


def outcome(exercise: Exercise, answer: object) -> list:
    """What an answer gives on every set of arguments, flattened to a list of values."""
    torch.manual_seed(0)
    if exercise.arguments is None:
        results = [answer]
    else:
        results = [exercise.call(answer, *arguments) for arguments in exercise.arguments()]
    return [value for result in results for value in as_tuple(result)]


def difference(found: list, wanted: list, within: float) -> str:
    """What tells the two apart, in a sentence; empty where nothing does."""
    if len(found) != len(wanted):
        return f"{len(wanted)} values were expected, got {len(found)}"
    for mine, right in zip(found, wanted):
        if isinstance(right, (str, bool)):
            if type(mine) is not type(right):
                return f"expected {kind(right)}, got {kind(mine)}"
            if mine != right:
                return f"it is not {mine!r}"
            continue
        try:
            a, b = torch.as_tensor(mine), torch.as_tensor(right)
        except (TypeError, ValueError, RuntimeError):
            return f"expected {kind(right)}, got {kind(mine)}"
        if a.shape != b.shape:
            return f"expected {kind(right)}, got {kind(mine)}"
        gap = (a.detach().double() - b.detach().double()).abs().max() if b.numel() else torch.zeros(())
        if not gap <= within:  # NaN is not
            return f"the values differ from the right ones by up to {float(gap):.3g}"
    return ""


def kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return {bool: "True or False", str: "a text", int: "a number", float: "a number"}.get(
        type(value), f"a {type(value).__name__}"
    )
