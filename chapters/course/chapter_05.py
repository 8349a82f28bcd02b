"""The exercises of chapter 05, the wiring of the U-Net, its pictures, and what chapter 06 takes from it."""

import copy
import json
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tinyddpm
from tinyddpm.nn import Attention, Downsample, ResnetBlock, Upsample

from .exercises import Exercise, Experiment
from .figures import EXACT, NETWORK, REST, SIGNAL, TEXT, show_figure

SKIPS = ((0, 16), (1, 15), (3, 13), (6, 10))  # the rows that a skip joins, from the stem inwards
KINDS = {  # part: label, opacity, pattern
    "ResnetBlock": ("residual block", 0.85, ""),
    "Attention": ("attention", 0.85, "xxx"),
    "Downsample": ("change of size", 0.35, ""),
    "Upsample": ("", 0.35, ""),
}
OTHER = ("stem, out", 0.1, "")


def my_unet() -> type[nn.Module]:
    """The class MyUNet as it stands in the reader's notebook of chapter 05, which lies beside this folder or in the
    current one. Where there is none, tinyddpm's U-Net with the same weights and wiring."""
    for folder in (Path(__file__).parent.parent, Path.cwd()):
        if (path := folder / "05_unet.ipynb").exists():
            names: dict = {}
            for cell in json.loads(path.read_text())["cells"]:
                if "unet" in cell["metadata"].get("tags", []):
                    exec("".join(cell["source"]), names)
            return names["MyUNet"]
    return TheirUNet


class TheirUNet(tinyddpm.UNet):
    def __init__(self, dims=(32, 64, 128), num_classes=10, blocks=1, attention=True):
        low = 16 // 2 ** (len(dims) - 1)  # the side of the lowest maps, where attention is
        super().__init__(dims, num_classes=num_classes, blocks=blocks, attention=(low,) if attention else ())


def shapes_of(net, x, t):
    """(name, shape) of what each part makes, in the order of the forward pass."""
    rows, names = [], {net.stem: "stem", net.out: "out"}
    for part in net.modules():
        if isinstance(part, (ResnetBlock, Attention, Downsample, Upsample)):
            names[part] = type(part).__name__
    hooks = [
        part.register_forward_hook(lambda part, given, out: rows.append((names[part], tuple(out.shape[1:]))))
        for part in names
    ]
    with torch.no_grad():
        net(x, t)
    for hook in hooks:
        hook.remove()
    return rows


def draw_the_u(rows):
    """The maps of the recipe `tiny` in the order in which they are made, each (name, (c, h, w))."""
    figure, axes = plt.subplots(figsize=(8, 3.2))
    middles, position, seen = [], 0.0, set()
    for name, (c, h, _) in rows:
        width, floor = 0.5 + c / 24, -3.4 * {8: 1, 4: 2}.get(h, 0)
        label, opacity, pattern = KINDS.get(name, OTHER)
        style = {"facecolor": (NETWORK, opacity), "edgecolor": TEXT, "linewidth": 0.6, "hatch": pattern}
        style["label"] = "" if label in seen else label
        axes.add_patch(plt.Rectangle((position, floor - h / 16), width, h / 8, **style))
        seen.add(label)
        axes.text(position + width / 2, floor - h / 16 - 0.1, f"{c}", ha="center", va="top", fontsize=7)
        middles.append((position + width / 2, floor + h / 16))
        position += width + 0.8
    for number, (source, twin) in enumerate(SKIPS):
        (left, top), (right, _) = middles[source], middles[twin]
        roof = top + (0.85 if number == 0 else 0.35)
        axes.plot([left, left, right, right], [roof - 0.25, roof, roof, roof - 0.25], "--", color=REST, linewidth=1)
    axes.set(xlim=(-1, position), ylim=(-8.9, 3.2))
    axes.set_yticks([0, -3.4, -6.8], ["16 x 16", "8 x 8", "4 x 4"])
    axes.set_xticks([])
    axes.grid(False)
    axes.legend(ncols=4, loc="lower center")
    show_figure(
        "The maps of the U-Net in their order: 16 by 16 positions and 32 channels, down to 4 by 4 and 128, and up; "
        "dashed lines join twins of the same size."
    )


def maps(fields, alt):
    """Maps of influence, each relative to its largest value, on one logarithmic scale."""
    figure, axes = plt.subplots(1, len(fields), figsize=(8, 2.2))
    for axis, (title, influence) in zip(axes, fields.items()):
        relative = (influence / influence.max()).clamp(min=1e-6).log10()
        shown = axis.imshow(relative, cmap="magma", vmin=-4, vmax=0)
        axis.set_title(title.replace(", ", "\n"))
        axis.axis("off")
    bar = figure.colorbar(shown, ax=axes, shrink=0.8, ticks=[-4, -2, 0])
    bar.ax.set_yticklabels(["1/10,000", "1/100", "1"])
    bar.set_label("influence of a pixel")
    show_figure(alt)


def per_level(net, x, t):
    """The share of the work and that of the parameters, in per cent, on maps of side 16, 8 and 4."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x, t)
    operations = {name: sum(kinds.values()) for name, kinds in counter.get_flop_counts().items()}
    levels = {16: [0, 0], 8: [0, 0], 4: [0, 0]}
    for name, part in net.named_modules():
        if isinstance(part, (ResnetBlock, Attention)):
            levels[side_of(name)][0] += operations[f"{type(net).__name__}.{name}"]
            levels[side_of(name)][1] += sum(weight.numel() for weight in part.parameters())
    return [100 * column / column.sum() for column in torch.tensor(list(levels.values()), dtype=torch.float).T]


def side_of(name):
    """The side of the map that a part works on, from its name: down.0..., middle1, up.2..., last."""
    place, *rest = name.split(".")
    if place in ("down", "up"):
        return 16 // 2 ** (int(rest[0]) if place == "down" else 2 - int(rest[0]))
    return 16 if place == "last" else 4


def bars(work, weights):
    figure, axes = plt.subplots(figsize=(5.5, 2))
    places = torch.arange(3)
    axes.barh(places - 0.2, work, height=0.38, color=SIGNAL, label="share of the work, %")
    axes.barh(places + 0.2, weights, height=0.38, color=EXACT, hatch="//", label="share of the parameters, %")
    axes.set_yticks(places.tolist(), ["16 x 16", "8 x 8", "4 x 4"])
    axes.invert_yaxis()
    axes.legend()
    show_figure("Bars for each level: the work is spread over all three, the parameters sit at the lowest.")


def with_batch_norm(net):
    """The same network with every group norm replaced."""
    net = copy.deepcopy(net)
    for part in list(net.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(part, name, nn.BatchNorm2d(child.num_channels))
    return net


def without_norms(net):
    for part in list(net.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(part, name, nn.Identity())
    return net


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


def parts_to_wire():
    """Two U-Nets in pieces, of three levels and of two; what is joined wrongly fits all the same."""
    for levels, side in ((3, 8), (2, 4)):
        generator = torch.Generator().manual_seed(levels)

        def block(c_in, c_out, generator=generator):
            weight = torch.randn(c_out, c_in, 1, 1, generator=generator) / c_in**0.5
            return lambda h: torch.tanh(nn.functional.conv2d(h, weight))

        def smaller(h):
            return nn.functional.avg_pool2d(h, 2)

        def larger(h):
            return nn.functional.interpolate(h, scale_factor=2)

        x = torch.randn(2, 1, side, side, generator=generator)
        down, up = ([block(c, 3) for _ in range(levels)] for c in (3, 6))
        yield x, block(1, 3), down, [smaller] * (levels - 1), block(3, 3), [larger] * (levels - 1), up, block(3, 1)


def wired(join=lambda h, skip: torch.cat([h, skip], 1), skip_of=lambda skips, h: skips.pop(), kept="made"):
    """A forward pass for 05b: how it joins, which skip it takes, and what it keeps on the way down."""

    def forward(x, stem, down, smaller, middle, larger, up, out):
        h, skips = stem(x), []
        for level, block in enumerate(down):
            h = smaller[level - 1](h) if level else h
            skips.append(h)
            h = block(h)
            if kept == "made":
                skips[-1] = h
        h = middle(h)
        for level, block in enumerate(up):
            h = larger[level - 1](h) if level else h
            h = block(join(h, skip_of(skips, h)))
        return out(h)

    return forward


def first_that_fits(skips, h):
    return next(skip for skip in skips if skip.shape == h.shape)


def last_only(x, stem, down, smaller, middle, larger, up, out):
    return wired()(x, stem, down, smaller, lambda h: h, larger, up, out)


def joined_before_growing(x, stem, down, smaller, middle, larger, up, out):
    h, skips = stem(x), []
    for level, block in enumerate(down):
        h = block(smaller[level - 1](h) if level else h)
        skips.append(h)
    h = middle(h)
    for level, block in enumerate(up):
        h = block(torch.cat([h, skips.pop()], 1))
        h = larger[level](h) if level < len(larger) else h
        if level < len(larger):
            skips[-1] = larger[level](smaller[-1 - level](skips[-1]))
    return out(h)


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
        wired(),
        parts_to_wire,
        {
            "joined the other way round: h comes first, then the skip": wired(lambda h, skip: torch.cat([skip, h], 1)),
            "nothing of the skips arrives: hand on what each block made on the way down": wired(
                lambda h, skip: torch.cat([h, torch.zeros_like(skip)], 1)
            ),
            "the skip is h a second time: take the map that was made on the way down": wired(
                lambda h, skip: torch.cat([h, h], 1)
            ),
            "the skips come back in the order they were kept: the last one is wanted first": wired(
                skip_of=lambda skips, h: skips.pop(0)
            ),
            "you added the skip to h: join them side by side, along the channels": wired(lambda h, skip: h + skip),
            "you kept what each block was given: the skip is what it made": wired(kept="given"),
            "what comes from below is lost: join h and the skip": wired(lambda h, skip: torch.cat([skip, skip], 1)),
            "the middle is missing: it stands between the way down and the way up": last_only,
            "the sum of both stands there twice: join them side by side instead": wired(
                lambda h, skip: torch.cat([h + skip, h + skip], 1)
            ),
        },
        within=1e-5,
    ),
    "05c": Experiment(
        1.5,
        8,
        {
            "that is with skips over without: the other way round": (0.1, 0.65),
            "hardly a difference: was the network trained to predict x_0, or its join not replaced?": (0.65, 1.5),
        },
    ),
}
