"""Mistakes that are known by the pattern of their numbers, whatever the exercise."""

from torch import Tensor


def close(a: Tensor, b: Tensor, within: float) -> bool:
    return a.shape == b.shape and bool(((a - b).abs() <= within * b.abs().clamp(min=1)).all())


def pattern(found: Tensor, right: Tensor, within: float) -> str:
    """What the wrong values have to do with the right ones, in a sentence; empty where no pattern is known."""
    a, b = found.double(), right.double()
    if a.isnan().any():
        return f"{int(a.isnan().sum())} of {a.numel()} values are NaN: a root of a negative number, or 0 / 0?"
    if a.shape != b.shape:
        return of_shape(a, b, within)
    if not b.numel() or not b.abs().max() > within:
        return ""
    relations = (
        ("the sign is the other way round", -b),
        ("these are the squares of the right values: a root is missing", b**2),
        ("these are the roots of the right values: one root too many", b.clamp(min=0).sqrt()),
        ("these are 1 minus the right values: signal and noise have changed places", 1 - b),
        ("upside down: these are 1 over the right values", 1 / b),
        ("these are the logarithms of the right values", b.clamp(min=1e-300).log()),
    )
    for says, wrong in relations:
        if not close(b, wrong, 10 * within) and close(a, wrong, within):
            return says
    if b.numel() == 1 and b == b.round() and a != a.round() and b in (a.floor(), a.ceil()):
        return f"a whole number is expected, got {a.item():.6g}: which way is it to be rounded?"
    return of_order(a, b, within) or of_scale(a, b, within)


def of_shape(a: Tensor, b: Tensor, within: float) -> str:
    """For values of another shape than the right ones."""
    shapes = f"shape {tuple(b.shape)} is expected, got {tuple(a.shape)}"
    if b.ndim > 1 and a.shape == b.mT.shape:
        return f"{shapes}: rows and columns have changed places"
    if a.ndim < b.ndim and a.numel() < b.numel():
        axes = range(b.ndim)
        for name, reduced in (("the mean", b.mean), ("the sum", b.sum)):
            if close(a, reduced(), within):
                return f"{shapes}: that is {name} over everything, the batch included"
            if any(close(a, reduced(axis), within) for axis in axes):
                return f"{shapes}: {name} over one axis too many"
    if a.ndim == b.ndim + 1:
        for name, reduced in (("mean", a.mean), ("sum", a.sum)):
            if any(close(reduced(axis), b, within) for axis in range(a.ndim)):
                return f"{shapes}: one axis is left, take the {name} over it"
    elif a.ndim > b.ndim and (close(a.mean(), b, within) or close(a.sum(), b, within)):
        return f"{shapes}: take the {'mean' if close(a.mean(), b, within) else 'sum'} over everything"
    if a.ndim == b.ndim and b.ndim and a.shape[1:] == b.shape[1:]:
        if len(a) == len(b) - 1 and (close(a, b[1:], within) or close(a, b[:-1], within)):
            return f"{shapes}: the {'first' if close(a, b[1:], within) else 'last'} value is missing"
        if len(a) == len(b) + 1 and (close(a[1:], b, within) or close(a[:-1], b, within)):
            return f"{shapes}: there is one value too many at the {'start' if close(a[1:], b, within) else 'end'}"
    if a.numel() == b.numel() and close(a.flatten(), b.flatten(), within):
        return f"{shapes}: the values are right, reshape them"
    return ""


def of_order(a: Tensor, b: Tensor, within: float) -> str:
    """For right values in the wrong places."""
    if not b.ndim or len(b) < 2:
        return ""
    if close(a, b.flip(0), within):
        return "the values are right and their order is reversed: does your time run the other way?"
    if b.ndim > 1 and b.shape[-1] == b.shape[-2] and close(a, b.mT, within):
        return "rows and columns have changed places"
    if len(b) > 2 and (close(a[1:], b[:-1], within) or close(a[:-1], b[1:], within)):
        return "the values are right, one place off: which index stands for which time?"
    return ""


def of_scale(a: Tensor, b: Tensor, within: float) -> str:
    """For the right values times a number, or plus one."""
    if b.numel() < 2:
        return ""
    biggest = b.abs().flatten().argmax()
    factor = float(a.flatten()[biggest] / b.flatten()[biggest])
    if factor and abs(factor - 1) > 1e-3 and close(a, factor * b, within):
        return f"every value is {factor:.3g} times the right one"
    offset = float(a.flatten()[0] - b.flatten()[0])
    if close(a, b + offset, within):
        return f"every value is {abs(offset):.3g} too {'large' if offset > 0 else 'small'}"
    return ""


def first_difference(a: Tensor, b: Tensor, within: float) -> str:
    """Where the first wrong value is: " at index (0, 3)"."""
    if not b.ndim:
        return ""
    near = (a.double() - b.double()).abs() <= within
    index = tuple((~near).nonzero()[0].tolist())  # NaN is not near
    return f", first at index {index[0] if len(index) == 1 else index}"
