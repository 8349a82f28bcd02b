"""The exercises of chapter 05, the wiring of the U-Net, and its picture."""

import matplotlib.pyplot as plt
import torch

from .exercises import Exercise

SKIPS = ((0, 16), (1, 15), (3, 13), (6, 10))  # the rows that a skip joins, from the stem inwards
COLOURS = {"ResnetBlock": "C0", "Attention": "C1", "Downsample": "C2", "Upsample": "C2"}  # the rest is grey


def draw_the_u(rows):
    """The maps of the recipe `tiny` in the order in which they are made, each (name, (c, h, w))."""
    figure, axes = plt.subplots(figsize=(8, 3))
    middles, position = [], 0.0
    for name, (c, h, _) in rows:
        width, floor = 0.5 + c / 24, -3.2 * {8: 1, 4: 2}.get(h, 0)
        axes.add_patch(
            plt.Rectangle((position, floor - h / 16), width, h / 8, color=COLOURS.get(name, "0.6"), alpha=0.8)
        )
        middles.append((position + width / 2, floor + h / 16))
        position += width + 0.8
    for number, (source, twin) in enumerate(SKIPS):
        (left, top), (right, _) = middles[source], middles[twin]
        roof = top + (0.85 if number == 0 else 0.35)
        axes.plot([left, left, right, right], [roof - 0.25, roof, roof, roof - 0.25], "k--", linewidth=0.8)
    names = (
        ("ResnetBlock", "residual block"),
        ("Attention", "attention"),
        ("Upsample", "change of size"),
        ("out", "stem, out"),
    )
    for name, label in names:
        axes.plot([], [], "s", color=COLOURS.get(name, "0.6"), label=label)
    axes.set(xlim=(-1, position), ylim=(-8.2, 3.2))
    axes.set_yticks([0, -3.2, -6.4], ["16 x 16", "8 x 8", "4 x 4"])
    axes.set_xticks([])
    axes.legend(ncols=4, loc="lower center")
    plt.show()


def sizes():
    return [(28, 2, 3), (32, 2, 3), (33, 1, 4), (50, 2, 4), (72, 1, 5)]


def padded(size, divisor):
    return -(-size // divisor) * divisor


def sides(size, patch, levels):
    return halved(padded(size, patch * 2 ** (levels - 1)), patch, levels)


def halved(size, patch, levels):
    return [size // patch // 2**level for level in range(levels)]


def power_of_two(size, patch, levels):
    side = patch * 2 ** (levels - 1)
    while side < size:
        side *= 2
    return halved(side, patch, levels)


def cropped(size, patch, levels):
    return halved(size // (patch * 2 ** (levels - 1)) * patch * 2 ** (levels - 1), patch, levels)


def maps():
    h, skip = torch.randn(2, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    yield h, skip


EXERCISES = {
    "05a": Exercise(
        sides,
        sizes,
        {
            "the image was not padded: 28 pixels would make maps of 14, 7 and 3": halved,
            "that crops: the side must not get smaller": cropped,
            "a power of two fits, but less is enough: a multiple of the divisor": power_of_two,
            "one halving too many in the padding: between the levels there are levels - 1": (
                lambda size, patch, levels: halved(padded(size, patch * 2**levels), patch, levels)
            ),
            "the stem divides as well: pad to a multiple of patch times the halvings": (
                lambda size, patch, levels: halved(padded(size, 2 ** (levels - 1)), patch, levels)
            ),
            "where the size fits already, nothing is added": (
                lambda size, patch, levels: sides(size + 1, patch, levels)
            ),
            "the stem halves too: the first level works on the padded side / patch": (
                lambda size, patch, levels: [patch * side for side in sides(size, patch, levels)]
            ),
            "the map is halved between the levels, so that the first level is not halved yet": (
                lambda size, patch, levels: [side // 2 for side in sides(size, patch, levels)]
            ),
            "from the top to the bottom was asked, the largest first": (
                lambda size, patch, levels: sides(size, patch, levels)[::-1]
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
            "the heads are missing in the last convolution: it takes what all of them return": (
                lambda c, heads, head_dim: 3 * c + 3 * c * heads * head_dim + c * head_dim
            ),
            "the heads are missing in the first convolution: each has queries, keys and values of its own": (
                lambda c, heads, head_dim: 3 * c + 3 * c * head_dim + c * heads * head_dim
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
            "that is c channels, the block was built for 2 c: put zeros where the skip was": lambda h, skip: h,
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
            "nothing of the skip is left, but h a second time is not nothing": lambda h, skip: torch.cat([h, h], 1),
            "noise is not nothing: it is new in each call, and the blocks would have to learn to ignore it": (
                lambda h, skip: torch.cat([h, torch.randn_like(skip)], 1)
            ),
            "ones are not nothing: what adds nothing to any sum?": lambda h, skip: torch.cat(
                [h, torch.ones_like(skip)], 1
            ),
        },
    ),
}
