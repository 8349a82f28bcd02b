"""The exercises of chapter 05: the wiring of the U-Net."""

import torch

from .exercises import Exercise


def sizes():
    return [(32, 2, 3), (64, 1, 4), (48, 2, 2)]


def sides(size, patch, levels):
    return [size // patch // 2**level for level in range(levels)]


def unfitting():
    return [(28, 2, 3), (32, 2, 3), (33, 1, 4), (50, 2, 4), (72, 1, 5)]


def padded(size, patch, levels):
    divisor = patch * 2 ** (levels - 1)
    return -(-size // divisor) * divisor


def power_of_two(size, patch, levels):
    side = patch * 2 ** (levels - 1)
    while side < size:
        side *= 2
    return side


def maps():
    h, skip = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    yield h, skip


EXERCISES = {
    "05a": Exercise(
        sides,
        sizes,
        {
            "the stem halves too: the first level works on size / patch": (
                lambda size, patch, levels: [size // 2**level for level in range(levels)]
            ),
            "the map is halved between the levels, so that the first level is not halved yet": (
                lambda size, patch, levels: [size // patch // 2 ** (level + 1) for level in range(levels)]
            ),
            "one too many: three levels have two halvings between them": (
                lambda size, patch, levels: sides(size, patch, levels + 1)
            ),
            "from the top to the bottom was asked, the largest first": (
                lambda size, patch, levels: sides(size, patch, levels)[::-1]
            ),
            "that subtracts where it should halve": (
                lambda size, patch, levels: [size // patch - 2 * level for level in range(levels)]
            ),
        },
    ),
    "05b": Exercise(
        lambda c, heads, head_dim: 3 * c + 4 * c * heads * head_dim,
        lambda: [(32, 4, 32), (64, 1, 16), (8, 2, 5)],
        {
            "queries, keys and values come without a bias": (
                lambda c, heads, head_dim: 3 * c + 4 * c * heads * head_dim + 3 * heads * head_dim
            ),
            "the norm has parameters too, a factor and an offset for each channel": (
                lambda c, heads, head_dim: c + 4 * c * heads * head_dim
            ),
            "the last convolution has a bias, one for each channel": (
                lambda c, heads, head_dim: 2 * c + 4 * c * heads * head_dim
            ),
            "queries, keys and values are three sets of weights": (
                lambda c, heads, head_dim: 3 * c + 2 * c * heads * head_dim
            ),
            "the heads are missing: each has head_dim channels of its own": (
                lambda c, heads, head_dim: 3 * c + 4 * c * head_dim
            ),
        },
    ),
    "05c": Exercise(
        lambda h, skip: torch.cat([h, torch.zeros_like(skip)], 1),
        maps,
        {
            "that is c channels, the block was built for 2 c: put zeros where the skip was": lambda h, skip: (
                h
            ),
            "this still hands the skip on": lambda h, skip: torch.cat([h, skip], 1),
            "this cuts what comes from below and keeps the skip": (
                lambda h, skip: torch.cat([torch.zeros_like(h), skip], 1)
            ),
            "the zeros stand where h belongs: h comes first": (
                lambda h, skip: torch.cat([torch.zeros_like(skip), h], 1)
            ),
            "adding is another way to let the skip through": (
                lambda h, skip: torch.cat([h + skip, torch.zeros_like(skip)], 1)
            ),
            "nothing of the skip is left, but h twice is not zeros": lambda h, skip: torch.cat([h, h], 1),
        },
    ),
    "05d": Exercise(
        padded,
        unfitting,
        {
            "that crops: the side must not get smaller": (
                lambda size, patch, levels: (
                    padded(size, patch, levels) - patch * 2 ** (levels - 1)
                    if size % (patch * 2 ** (levels - 1))
                    else size
                )
            ),
            "a power of two fits, but less is enough: a multiple of the divisor": power_of_two,
            "one halving too many: between the levels there are levels - 1": (
                lambda size, patch, levels: padded(size, patch, levels + 1)
            ),
            "the stem divides as well: patch belongs to the divisor": (
                lambda size, patch, levels: padded(size, 1, levels)
            ),
            "where the size fits already, nothing is added": (
                lambda size, patch, levels: padded(size + 1, patch, levels)
            ),
        },
    ),
}
