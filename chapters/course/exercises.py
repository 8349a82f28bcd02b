"""Exercises that answer: not attempted, ok, or what went wrong, and never an exception."""

import importlib
import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .mistakes import first_difference, pattern
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


@dataclass(frozen=True)
class Experiment:
    """A number that the reader predicts, and then measures: it lies between low and high on any machine.

    misconceptions  what to say -> the range (low, high) in which the number lies after that mistake
    """

    low: float
    high: float
    misconceptions: dict[str, tuple[float, float]] = field(default_factory=dict)


def check(name: str, answer: object = ...) -> None:
    """Prints what is to be said about an answer. Never raises, whatever the answer is."""
    print(f"{name}: {verdict(find(name), answer)}")


def find(name: str) -> Exercise | Experiment:
    """The exercise of that name, such as "01a", from the module of its chapter."""
    return importlib.import_module(f".chapter_{name[:2]}", __package__).EXERCISES[name]


def verdict(exercise: Exercise | Experiment, answer: object) -> str:
    if answer is None or answer is ...:
        return NOT_ATTEMPTED
    if isinstance(exercise, Experiment):
        return verdict_of_experiment(exercise, answer)
    if exercise.arguments is not None and not callable(answer):
        return f"expected a function, got {kind(answer)}"
    found, again = (attempt(exercise, answer, seed) for seed in (0, 1))
    for each in (found, again):
        if isinstance(each, Exception):
            reason = str(each).partition("\n")[0]
            return known_mistake(exercise, found) or f"your answer stopped with {type(each).__name__}: {reason}"
    if any(value is None or value is ... for value in found):
        return NOT_ATTEMPTED
    right, right_again = (outcome(exercise, exercise.reference, seed) for seed in (0, 1))
    problem = difference(found, right, exercise)
    if not problem and not difference(again, right_again, exercise):
        return OK
    moved = difference(again, found, exercise) if exercise.arguments else ""
    if moved and "NaN" not in moved and not difference(right_again, right, exercise):
        problem = own_noise(exercise)
    return known_mistake(exercise, found) or problem


def known_mistake(exercise: Exercise, found: list | Exception) -> str:
    """What is said of this outcome; empty where no known mistake has it."""
    known = exercise.misconceptions.items()
    return next((says for says, wrong in known if alike(found, attempt(exercise, wrong), exercise)), "")


def attempt(exercise: Exercise, answer: object, seed: int = 0) -> list | Exception:
    """What an answer gives, or what stopped it."""
    try:
        return outcome(exercise, answer, seed)
    except Exception as error:  # whatever a reader's code may do
        return error


def alike(found: list | Exception, known: list | Exception, exercise: Exercise) -> bool:
    """True if both give the same values, or were stopped by the same error."""
    if isinstance(found, Exception) or isinstance(known, Exception):
        return repr(found) == repr(known)
    return not difference(found, known, exercise)


def verdict_of_experiment(experiment: Experiment, answer: object) -> str:
    if not isinstance(answer, (tuple, list)) or len(answer) != 2:
        return f"expected two numbers, (prediction, measured), got {kind(answer)}"
    if any(value is None or value is ... for value in answer):
        return NOT_ATTEMPTED
    try:
        prediction, measured = map(float, answer)
    except (TypeError, ValueError, RuntimeError):
        return f"expected two numbers, (prediction, measured), got {' and '.join(map(kind, answer))}"
    if experiment.low <= measured <= experiment.high and prediction == prediction:
        return OK
    for says, (low, high) in experiment.misconceptions.items():
        if low <= measured <= high:
            return says
    relations = {
        "upside down: it is 1 over a right value": 1 / measured if measured else 0.0,
        "that looks like a fraction: is it in per cent?": 100 * measured,
        "the sign is the other way round": -measured,
    }
    for says, value in relations.items():
        if experiment.low <= value <= experiment.high:
            return f"you measured {measured:.3g}: {says}"
    return f"you measured {measured:.3g}, and expected was {experiment.low:g} to {experiment.high:g}"


def outcome(exercise: Exercise, answer: object, seed: int = 0) -> list:
    """What an answer gives on every set of arguments, flattened to a list of values."""
    torch.manual_seed(seed)
    if exercise.arguments is None:
        results = [answer]
    else:
        results = [exercise.call(answer, *arguments) for arguments in exercise.arguments()]
    return [value for result in results for value in as_tuple(result)]


def own_noise(exercise: Exercise) -> str:
    """What is said of an answer that is another one at a second call."""
    given = [argument for arguments in exercise.arguments() for argument in arguments]
    if any(isinstance(argument, torch.Generator) for argument in given):
        return "the generator is ignored: a second call with the same seed gave other noise; hand it to torch.randn"
    return "a second call with the same arguments gave another answer: draw no noise of your own here"


def difference(found: list, wanted: list, exercise: Exercise) -> str:
    """What tells the two apart, in a sentence; empty where nothing does."""
    if len(found) != len(wanted):
        return f"{len(wanted)} values were expected, got {len(found)}"
    for number, (mine, right) in enumerate(zip(found, wanted)):
        if isinstance(right, (str, bool)):
            if type(mine) is not type(right):
                return f"expected {kind(right)}, got {kind(mine)}"
            if mine != right:
                return f"it is not {mine!r}"
            continue
        try:
            a, b = torch.as_tensor(mine).detach(), torch.as_tensor(right).detach()
        except (TypeError, ValueError, RuntimeError):
            return f"expected {kind(right)}, got {kind(mine)}"
        if a.shape != b.shape:
            return pattern(a, b, exercise.within) or f"expected {kind(right)}, got {kind(mine)}"
        gap = (a.double() - b.double()).abs().max() if b.numel() else torch.zeros(())
        if not gap <= exercise.within:  # NaN is not
            where = first_difference(a, b, exercise.within) + arguments_of(exercise, number, len(wanted))
            return pattern(a, b, exercise.within) or f"the values differ from the right ones by up to {gap:.3g}{where}"
    return ""


def arguments_of(exercise: Exercise, number: int, results: int) -> str:
    """Which call it was, by the numbers among its arguments: " with t = 3"."""
    if exercise.arguments is None or len(calls := list(exercise.arguments())) < 2 or results % len(calls):
        return ""
    names = inspect.signature(exercise.reference).parameters
    numbers = zip(names, calls[number // (results // len(calls))])
    said = [f"{name} = {value}" for name, value in numbers if isinstance(value, (int, float))]
    return f", with {', '.join(said)}" if said else ""


def kind(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"a {type(value).__name__} of {len(value)}"
    return {bool: "True or False", str: "a text", int: "a number", float: "a number"}.get(
        type(value), f"a {type(value).__name__}"
    )
