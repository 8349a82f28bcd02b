"""Equations that are executed, and pieces that are compared with the library's."""

import copy

import torch
from torch import Tensor, nn


def holds(name: str, left, right, within: float = 1e-6) -> None:
    """Says that both sides of equation `name` agree, element by element, to within `within`.

    Raises AssertionError with the largest difference where they do not.
    """
    left, right = as_tensor(left), as_tensor(right)
    if left.shape != right.shape:
        raise AssertionError(f"({name}): the sides have shapes {tuple(left.shape)} and {tuple(right.shape)}")
    gap = largest_gap(left, right)
    if not gap <= within:  # NaN is not
        raise AssertionError(f"({name}) does not hold: the sides differ by up to {gap:.3g}, not {within:g}")
    print(f"({name}) holds to within {within:g}")


def same(mine, theirs, *arguments, within: float = 1e-5, **named) -> None:
    """Calls what you built and the library's piece with the same arguments and compares the values.

    Networks are given the library's weights first, in the order in which they were made.
    Raises AssertionError where shapes, numbers of weights or values differ.
    """
    if isinstance(theirs, nn.Module):
        mine = with_weights_of(mine, theirs)
    label = getattr(theirs, "__name__", type(theirs).__name__)
    ours, library = (as_tuple(piece(*arguments, **named)) for piece in (mine, theirs))
    if len(ours) != len(library):
        raise AssertionError(f"{label} returns {len(library)} things, yours {len(ours)}")
    for left, right in zip(map(as_tensor, ours), map(as_tensor, library)):
        if left.shape != right.shape:
            raise AssertionError(f"{label} returns shape {tuple(right.shape)}, yours {tuple(left.shape)}")
        gap = largest_gap(left, right)
        if not gap <= within:
            raise AssertionError(f"yours and {label} differ by up to {gap:.3g}, allowed is {within:g}")
    shapes = " and ".join(str(tuple(as_tensor(part).shape)) for part in library)
    print(f"same as tinyddpm's {label}: shape {shapes}, equal to within {within:g}")


def guess(yours: float | None, truth: float, what: str = "") -> None:
    """Prints your number beside the measured one; without a number, only that one is wanted first."""
    if yours is None:
        return print("write down a number first")
    print(f"your guess: {yours:g}{what}, measured: {truth if isinstance(truth, int) else format(truth, '.3g')}{what}")


def band(found: float, low: float, high: float, what: str) -> None:
    """Prints a measured number beside the range for other machines. Notebooks are compared by the range alone.

    Raises AssertionError where the number is outside it.
    """
    if not low <= found <= high:  # NaN is not
        raise AssertionError(f"{found:.3g} {what}: expected {low:g} to {high:g}")
    print(f"{found:.3g} {what} (other machines: {low:g} to {high:g})")


def with_weights_of(mine: nn.Module, theirs: nn.Module) -> nn.Module:
    """A copy of mine that holds the weights of theirs, matched by order."""
    mine = copy.deepcopy(mine)
    ours, library = list(mine.parameters()), list(theirs.parameters())
    shapes = [[tuple(p.shape) for p in parameters] for parameters in (ours, library)]
    if shapes[0] != shapes[1]:
        raise AssertionError(f"your weights have shapes {shapes[0]}, the library's {shapes[1]}")
    with torch.no_grad():
        for a, b in zip(ours, library):
            a.copy_(b)
    return mine


def as_tensor(x) -> Tensor:
    if isinstance(x, (list, tuple)):
        return torch.stack([as_tensor(part) for part in x])
    return torch.as_tensor(x, dtype=None if isinstance(x, Tensor) else torch.float64).detach().double().cpu()


def as_tuple(x) -> tuple:
    """What a piece returns, part by part; a list of numbers is one part."""
    several = isinstance(x, (tuple, list)) and not all(isinstance(part, (int, float)) for part in x)
    return tuple(x) if several else (x,)


def largest_gap(left: Tensor, right: Tensor) -> float:
    return float((left - right).abs().max()) if left.numel() else 0.0
