"""The exercises and the figures of chapter 04: the parts of the network."""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from einops import rearrange
from matplotlib.patches import Rectangle

import tinyddpm

from .exercises import Exercise, Experiment
from .figures import BLINKERED, NETWORK, REST, SIGNAL, STEERED, TEXT, label_lines


def filters():
    generator = torch.Generator().manual_seed(0)
    yield (
        0.3 * torch.randn(3, 2, 2, 3, generator=generator) + torch.tensor([0.1, -1.0, 2.0])[:, None, None, None],
        1e-5,
    )
    yield 0.5 * torch.randn(2, 4, 1, 1, generator=generator), 0.1


def standardized(weight, eps, dim=(1, 2, 3), unbiased=False):
    var, mean = torch.var_mean(weight, dim=dim, keepdim=True, unbiased=unbiased)
    return (weight - mean) / (var + eps).sqrt()


def multiplied(weight, eps):
    var, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
    return (weight - mean) * (var + eps).sqrt()


def outside_the_root(weight, eps):
    var, mean = torch.var_mean(weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
    return (weight - mean) / (var.sqrt() + eps)


def all_multiplied(weight, eps):
    return (weight - weight.mean()) * (weight.var(unbiased=False) + eps).sqrt()


def folded():
    for p, c in ((2, 3), (3, 2)):
        x = torch.arange(2.0 * c * 4 * p * 5 * p).reshape(2, c, 4 * p, 5 * p)
        yield rearrange(x, "b c (h p1) (w p2) -> b (p1 p2 c) h w", p1=p, p2=p), p


def unfold(pattern):
    return lambda y, r: rearrange(y, pattern, r1=r, r2=r)


def questions():
    query, key = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0))
    yield query, key, 0
    yield 2 * query, key, 4


def shares_of(query, key, i, divide=lambda d: d**0.5):
    return (query[:, i, None] @ key.mT / divide(query.shape[-1]))[:, 0].softmax(-1).mean(0)


def times():
    yield torch.tensor([0.0, 1.0, 10.0, -10.0, 500.0]), 32
    yield torch.tensor([3.0, 77.0]), 8


def similarity(difference, dim):
    n = dim // 2
    speed = 10_000.0 ** (-torch.arange(n) / (n - 1))
    return torch.cos(difference[:, None] * speed).mean(1)


def spaced_by_n(difference, dim):
    n = dim // 2
    return torch.cos(difference[:, None] * 10_000.0 ** (-torch.arange(n) / n)).mean(1)


def with_sines(difference, dim):
    n = dim // 2
    angle = difference[:, None] * 10_000.0 ** (-torch.arange(n) / (n - 1))
    return torch.cat([angle.sin(), angle.cos()], 1).sum(1) / n


def curves(panels: dict, styles: dict, log: bool = False) -> None:
    """A panel for each title -> (x, {label: y}), side by side; each line's style is (colour, line style)."""
    figure, axes = plt.subplots(1, len(panels), figsize=(3.4 * len(panels) + 1.2, 2.1), squeeze=False)
    for place, (title, (x, lines)) in zip(axes[0], panels.items()):
        for name, y in lines.items():
            colour, style = styles[name]
            place.plot(x, y, style, color=colour, label=name or "_")
        place.set(title=title, yscale="log" if log else "linear")
        label_lines(place)


def table_of_hands(table) -> None:
    """The embedding as a picture: a row for each component, a column for each time."""
    figure, axes = plt.subplots(figsize=(7, 2.2))
    image = axes.imshow(table, aspect="auto", cmap="RdBu", vmin=-1, vmax=1)
    names = [f"{function}, {speed}" for function in ("sin", "cos") for speed in ("fast", "slow")]
    axes.set_yticks([2, 12, 18, 28], names)
    axes.set_xlabel("t")
    axes.grid(False)
    figure.colorbar(image, label="emb(t)", ticks=[-1, 0, 1])


def looks(pictures: dict, crosses: dict, shares, time: str) -> None:
    """The pictures, and between the second and the third what the pixels with a cross look at."""
    figure, axes = plt.subplots(1, 6, figsize=(8.4, 2.3))
    for place, name in zip(axes[[0, 1, 4, 5]], pictures):
        place.imshow(pictures[name][0, 0], vmin=-1, vmax=1)
        place.set_title(f"noisy\n{time}" if name == "noisy" else name, fontsize=8)
    for place, (marker, (row, column)) in zip(axes[2:4], crosses.items()):
        seen = shares[row, column]
        top = float(seen.flatten().topk(2).values[1])  # the pixel itself is brighter still
        image = place.imshow(seen, cmap="magma", vmax=top)
        place.set_title(f"what {marker} looks at", fontsize=8)
        for panel in (axes[1], place):
            panel.plot(column, row, marker, color=BLINKERED, markersize=7)
        below = {"cax": place.inset_axes((0, -0.16, 1, 0.07)), "orientation": "horizontal"}
        figure.colorbar(image, ticks=[0, top], format="%.2f", **below)
    for place in axes:
        place.axis("off")


@torch.no_grad()
def maps_of(network, names: list[str], *arguments) -> dict:
    """What each named module of the network returns (c, h, w), with its number of input channels, found by hooks."""
    found, hooks = {}, []
    for name in names:

        def keep(module, given, out, name=name):
            found[name] = out[0], given[0].shape[1], type(module).__name__

        hooks.append(network.get_submodule(name).register_forward_hook(keep))
    network(*arguments)
    for hook in hooks:
        hook.remove()
    return found


def liveliest(x):
    """The channel of a feature map that varies most over the image."""
    return x[x.flatten(1).std(1).argmax()]


# module: the column and the row of its picture in the diagram
PLACES = {
    "stem": (1.65, 0),
    "down.0.0.0": (3.15, 0),
    "down.0.2": (3.15, 1),
    "down.1.0.0": (4.65, 1),
    "down.1.2": (4.65, 2),
    "down.2.0.0": (6.05, 2),
    "middle2": (7.45, 2),
    "up.0.1.0": (8.85, 2),
    "up.1.0": (8.85, 1),
    "up.1.1.0": (10.35, 1),
    "up.2.0": (10.35, 0),
    "up.2.1.0": (11.85, 0),
    "last": (13.35, 0),
    "out": (15.0, 0),
}
SIZES = {32: 1.16, 16: 1.02, 8: 0.82, 4: 0.62}  # of a picture, by the side of its map
ROWS = (0.0, -2.05, -3.9)
ALSO = {"down.2.0.0": "Attention", "middle2": "Attention\nResnetBlock", "up.0.1.0": "Attention"}  # in the same place
COPIES = {"stem": ("last", 0.5), "down.0.0.0": ("up.2.1.0", 0.26), "down.1.0.0": ("up.1.1.0", 0.26)}
COPIES["down.2.0.0"] = "up.0.1.0", 0.26


def unet_diagram(ddpm, x_0, t: int, y: int) -> None:
    """The U-Net at work on a noisy digit: one channel of each feature map, the part that made it, and its size."""
    eps = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(0))
    x_t, time, label = tinyddpm.q_sample(x_0, t, eps, ddpm.schedule), torch.tensor([t]), torch.tensor([y])
    maps = maps_of(ddpm.model, list(PLACES), x_t, time, label)
    figure, axes = plt.subplots(figsize=(9.4, 4.05))
    axes.set(xlim=(-0.75, 15.75), ylim=(-5.45, 1.35), aspect="equal")
    axes.axis("off")
    frame(axes, x_t[0, 0], 0, 0, TEXT, f"$x_t$, log-SNR {float(ddpm.schedule.log_snr[t]):.1f}\n1 × 32²", cards=0)
    for name, (out, c_in, kind) in maps.items():
        (column, row), (c, side, _) = PLACES[name], out.shape
        colour = NETWORK if kind == "ResnetBlock" else TEXT
        kind = {"Sequential": name, "out": "prediction"}.get(kind, kind)
        size = f"{c_in} → {c} × {side}²" if c_in != c and colour == NETWORK else f"{c} × {side}²"
        text = "\n".join(filter(None, ("prediction of $x_0$" if kind == "out" else kind, ALSO.get(name), size)))
        frame(axes, liveliest(out), column, ROWS[row], colour, text, cards=0 if c == 1 else 2)
        if colour == NETWORK:
            half = SIZES[side] / 2
            axes.plot(column + half, ROWS[row] + half, "o", color=STEERED, markersize=6, zorder=9)
    way(axes, {"": (0.0, 0.0, SIZES[32])} | {n: corners(n, maps) for n in PLACES})
    copies(axes, {n: corners(n, maps) for n in PLACES})
    condition(axes, t, y)


def corners(name: str, maps: dict) -> tuple[float, float, float]:
    return PLACES[name][0], ROWS[PLACES[name][1]], SIZES[maps[name][0].shape[-1]]


def frame(axes, picture, x: float, y: float, colour: str, text: str, cards: int) -> None:
    """A picture around (x, y), with cards behind it that stand for its other channels, and a text below."""
    half, z = SIZES[len(picture)] / 2, 5
    low, high = picture.quantile(0.01), picture.quantile(0.99)
    for card in range(cards, 0, -1):
        corner, edge = (x - half - 0.06 * card, y - half + 0.06 * card), {"facecolor": "0.93", "edgecolor": colour}
        axes.add_patch(Rectangle(corner, 2 * half, 2 * half, linewidth=0.8, zorder=z - card, **edge))
    extent = (x - half, x + half, y - half, y + half)
    axes.imshow(picture, cmap="gray", extent=extent, vmin=low, vmax=high, zorder=z)
    edge = Rectangle((x - half, y - half), 2 * half, 2 * half, fill=False, edgecolor=colour, linewidth=1.5, zorder=z)
    axes.add_patch(edge)
    axes.text(x, y - half - 0.1, text, ha="center", va="top", fontsize=7, color=colour, linespacing=1.2, zorder=7)


def way(axes, places: dict) -> None:
    """An arrow from each picture to the next."""
    style = {"arrowstyle": "-|>", "color": REST, "linewidth": 1.3}
    for (x, y, size), (x2, y2, size2) in zip(list(places.values()), list(places.values())[1:]):
        if x2 > x:
            start, end = (x + size / 2 + 0.06, y), (x2 - size2 / 2 - 0.18, y2)
        elif y2 < y:  # below the text, which is half a unit high
            start, end = (x, y - size / 2 - 0.62), (x2, y2 + size2 / 2 + 0.16)
        else:
            start, end = (x + 0.16, y + size / 2 + 0.16), (x2 + 0.16, y2 - size2 / 2 - 0.66)
        axes.annotate("", end, start, arrowprops=style, zorder=3)


def copies(axes, places: dict) -> None:
    """Dashed, over the heads: what the right side gets of the left."""
    for source, (target, above) in COPIES.items():
        (x, y, size), (x2, _, _) = places[source], places[target]
        foot, top, x2 = y + size / 2 + 0.15, y + size / 2 + 0.15 + above, x2 - 0.2
        axes.plot([x, x, x2], [foot, top, top], "--", color=SIGNAL, linewidth=1.2, zorder=2)
        style = {"arrowstyle": "-|>", "color": SIGNAL, "linewidth": 1.2, "shrinkA": 0}
        axes.annotate("", (x2, foot - 0.06), (x2, top), arrowprops=style, zorder=2)
    says = "copied and appended: 32 + 32 = 64 channels"
    axes.text(6.7, ROWS[0] + 0.76, says, ha="center", va="top", fontsize=7, color=SIGNAL)


def condition(axes, t: int, y: int) -> None:
    """Where time and label come in."""
    text = f"time {t} → SinusoidalEmbedding → Linear, SiLU, Linear\nlabel {y} → LabelEmbedding"
    axes.text(
        6.75, -0.35, f"{text}\nadded: cond, 128 numbers, to each", ha="center", va="center", fontsize=7, linespacing=1.6
    )
    axes.plot([8.55], [-0.67], "o", color=STEERED, markersize=6)


EXERCISES = {
    "04a": Exercise(
        standardized,
        filters,
        {
            "this still multiplies by the deviation: a / b.rsqrt() is a * b.sqrt()": multiplied,
            "the division is right now, but all filters are standardized together: each needs its own mean "
            "and variance, over dimensions 1, 2 and 3": lambda weight, eps: standardized(weight, eps, (0, 1, 2, 3)),
            "nothing is repaired yet: look at what rsqrt does and what the mean runs over": all_multiplied,
            "that is a mean for each input channel: a filter is all that makes one output channel": (
                lambda weight, eps: standardized(weight, eps, (0, 2, 3))
            ),
            "that is a mean for each kernel: a filter takes all input channels, and has one mean": (
                lambda weight, eps: standardized(weight, eps, (2, 3))
            ),
            "the mean is 0 now and the variance as it was: multiply by (var + eps).rsqrt()": (
                lambda weight, eps: weight - weight.mean((1, 2, 3), keepdim=True)
            ),
            "dimension 0 counts the filters: mean and variance run over the other three": (
                lambda weight, eps: standardized(weight, eps, 0)
            ),
            "the variance divides by n - 1: take unbiased=False, as the norms do": (
                lambda weight, eps: standardized(weight, eps, unbiased=True)
            ),
            "eps stands under the root, beside the variance, not outside": outside_the_root,
        },
    ),
    "04b": Exercise(
        unfold("b (r1 r2 c) h w -> b c (h r1) (w r2)"),
        folded,
        {
            "that undoes the other order, (c r1 r2): here the channel came last": F.pixel_shuffle,
            "r1 and r2 are exchanged: every little square comes back mirrored at its diagonal": (
                unfold("b (r2 r1 c) h w -> b c (h r1) (w r2)")
            ),
            "h and r1 are exchanged: each square's pixels are spread over the whole image and must stay "
            "neighbours": unfold("b (r1 r2 c) h w -> b c (r1 h) (r2 w)"),
            "the numbers are only counted off anew: reshape alone cannot move pixels between channels": (
                lambda y, r: y.reshape(len(y), -1, y.shape[2] * r, y.shape[3] * r)
            ),
        },
    ),
    "04c": Exercise(
        shares_of,
        questions,
        {
            "the scores are not divided by sqrt(d)": lambda query, key, i: shares_of(query, key, i, lambda d: 1),
            "divide by the root of d, not by d: it is the deviation of the scores that shall become 1": (
                lambda query, key, i: shares_of(query, key, i, lambda d: d)
            ),
            "that asks with the key and answers with the query: pixel i's question is query[:, i]": (
                lambda query, key, i: shares_of(key, query, i)
            ),
            "that is column i: how much each pixel looks at i. What i looks at is row i": (
                lambda query, key, i: (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)[:, :, i].mean(0)
            ),
            "the softmax runs over the questions: of one question, the shares of all pixels add up to 1": (
                lambda query, key, i: (query @ key.mT / query.shape[-1] ** 0.5).softmax(1)[:, i].mean(0)
            ),
            "that is the sum over the heads: their mean is asked": (
                lambda query, key, i: shares_of(query, key, i) * len(query)
            ),
            "these are scores, not shares: the softmax is missing": (
                lambda query, key, i: (query @ key.mT / query.shape[-1] ** 0.5)[:, i].mean(0)
            ),
            "average the shares of the heads, not their scores: each head decides by itself": (
                lambda query, key, i: (query @ key.mT / query.shape[-1] ** 0.5)[:, i].mean(0).softmax(-1)
            ),
        },
    ),
    "04d": Exercise(
        similarity,
        times,
        {
            "that is the inner product: divide by both lengths, sqrt(m) each": (
                lambda difference, dim: similarity(difference, dim) * (dim // 2)
            ),
            "divided by one length only: the two vectors have the length sqrt(m) each": (
                lambda difference, dim: similarity(difference, dim) * (dim // 2) ** 0.5
            ),
            "divided by dim, though sines and cosines come in pairs: the squared length is m = dim / 2": (
                lambda difference, dim: similarity(difference, dim) / 2
            ),
            "the speeds end at 1 / 10,000: the exponent is i / (m - 1), not i / m": spaced_by_n,
            "dim numbers are half sines, half cosines: there are dim / 2 speeds, not dim": (
                lambda difference, dim: similarity(difference, 2 * dim)
            ),
            "no sine survives: sin a sin b + cos a cos b = cos(a - b)": with_sines,
        },
    ),
    "04e": Experiment(
        26,
        35,
        {
            "that is with the times themselves: divide them by 1000 before the embedding": (96, 100),
            "that is a line in t: put times / 1000 into the embedding first": (17, 21),
            "that is a share: give it in per cent": (0.25, 0.36),
            "that is what is not explained": (65, 74),
            "these are times divided by 100: divide by 1000": (88, 94),
        },
    ),
}
