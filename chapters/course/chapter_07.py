"""The pictures and exercises of chapter 07: labels, and guidance by them."""

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F

from .exercises import Exercise, Experiment
from .figures import EXACT, NETWORK, REST, STEERED, TEXT, label_lines, show_figure


def label_against_noise(log_snrs, exact, network, window):
    """How far the label moves the answer at each log-SNR; the window in which the class is decided is shaded."""
    figure, axes = plt.subplots(figsize=(5.6, 2.3))
    axes.plot(log_snrs, exact, "-", color=EXACT, label="exact, 2,000 digits")
    axes.plot(log_snrs, network, "--", color=NETWORK, label="the shipped network")
    axes.axvspan(*window, color=REST, alpha=0.15)
    axes.text(sum(window) / 2, 0.295, "the class\nis decided", ha="center", va="top", color=REST)
    axes.set(title="with the label minus without it, rms", xlabel="log-SNR (noise to the left)", ylim=(0, 0.3))
    label_lines(axes)
    show_figure(
        "Two falling curves, for the exact denoiser and the network: the label moves the answer by 0.2 in pure noise, "
        "and hardly at all above log-SNR 0; the network's falls later"
    )


def three_answers(x_t, exact, learned):
    """Lines: the exact denoisers of two classes and of their mixture; dots: what the bins learned."""
    figure, axes = plt.subplots(figsize=(5.6, 2.3))
    for style, line, dots, name in zip(("-", "--", "-."), exact, learned, ("told 0", "told 1", "told nothing")):
        axes.plot(x_t, line, style, color=EXACT, label=name)
        axes.plot(x_t, dots, "o", markersize=2.5, color=TEXT, zorder=3)
    axes.set(xlabel="x_t", ylabel="x_0_hat", title="lines: exact; dots: the mean x_0 of a bin")
    label_lines(axes)
    show_figure(
        "Dots on three lines: told 0, the answers lie near 1; told 1, near -1; told nothing, they climb between the two"
    )


def densities(values, samples):
    """samples: scale -> (x_0 by DDIM, x_0 by DDPM, the tilted density on values)."""
    figure, axes = plt.subplots(1, len(samples), figsize=(7, 2.2), sharey=True)
    for panel, (scale, (by_ddim, by_ddpm, tilted)) in zip(axes, samples.items()):
        panel.plot(values, tilted, ":", color=EXACT, linewidth=2.5, label="tilted density")
        for x, style, name in ((by_ddim, "-", "DDIM (line)"), (by_ddpm, "--", "DDPM (dashed)")):
            share = torch.histc(x, 40, -1, 3) / len(x) / 0.1
            panel.plot(torch.linspace(-0.95, 2.95, 40), share, style, color=STEERED, label=name)
        panel.set(title=f"scale {scale:g}", xlabel="x_0", xlim=(-1, 3))
    label_lines(axes[-1], gap=0.13)
    show_figure(
        "Three panels, at the scales 1, 2 and 4: at 1 the samples follow the tilted density, and above 1 they lie "
        "to the right of it and are narrower, DDIM's more than DDPM's"
    )


def costs(scales, curves, real):
    """curves: title -> a value for each scale; real: title -> the value of real digits, where there is one."""
    figure, axes = plt.subplots(1, len(curves), figsize=(7, 2.1))
    for panel, (title, curve) in zip(axes, curves.items()):
        panel.plot(scales, curve, "o-", color=STEERED, markersize=3)
        panel.set(title=title, xlabel="scale", ylim=(0, None))
        if title in real:
            panel.axhline(real[title], linestyle="--", color=REST)
            panel.annotate("real digits", (7.5, real[title]), (0, 2), textcoords="offset points", ha="right")
    show_figure(
        "Against the scale from 0 to 7.5: the share read as asked rises from a tenth to nearly all at 1; the distance "
        "within a class falls to that of real digits at 1, and lower; ink rises beyond that of real digits"
    )


KINDS = {"both": (1, 1), "only y": (1, 0), "only style": (0, 1), "neither": (0, 0)}


def in_rates(answer, y, style, p):
    """What dropping does to 500 batches: how often both, one, the other and none is dropped; whether images of a batch
    share a coin; whether what is kept is kept as it was, and whether one seed gives the same coins twice."""
    generator = torch.Generator().manual_seed(0)
    answers = [answer(y, style, p, generator) for _ in range(500)]
    if any(found is None or found is ... for found in answers):
        return None
    if not all(isinstance(found, (tuple, list)) and len(found) == 2 and found[0].shape == y.shape for found in answers):
        raise ValueError("return two tensors, (y, style), each of shape (b,)")
    labels, styles = (torch.stack(parts) for parts in zip(*answers))
    no_y, no_style = labels == 10, styles == 4
    rates = [((no_y == a) & (no_style == b)).double() for a, b in KINDS.values()]
    kept = (no_y | (labels == y)) & (no_style | (styles == style))
    shared = (rates[-1].mean(1).std() / (3 * p * (1 - 3 * p) / len(y)) ** 0.5 > 1.5).double()
    again = [answer(y, style, p, torch.Generator().manual_seed(1))[0] for _ in range(2)]
    return [*(rate.mean() for rate in rates), shared, kept.double().mean(), float(torch.equal(*again))]


def drop_two(y, style, p, generator, n=None):
    u = torch.rand(n or len(y), generator=generator)
    return torch.where(u < 2 * p, 10, y), torch.where((u < p) | ((u >= 2 * p) & (u < 3 * p)), 4, style)


def two_coins(y, style, p, generator, each=2):
    first, second = torch.rand(2, len(y), generator=generator)
    return torch.where(first < each * p, 10, y), torch.where(second < each * p, 4, style)


def always_both(y, style, p, generator):
    u = torch.rand(len(y), generator=generator)
    return torch.where(u < 3 * p, 10, y), torch.where(u < 3 * p, 4, style)


def only_both(y, style, p, generator):
    u = torch.rand(len(y), generator=generator)
    return torch.where(u < p, 10, y), torch.where(u < p, 4, style)


def null_of_digits(y, style, p, generator):
    labels, styles = drop_two(y, style, p, generator)
    return labels, torch.where(styles == 4, 10, styles)


def never_both(y, style, p, generator, each=1):
    u = torch.rand(len(y), generator=generator)
    return torch.where(u < each * p, 10, y), torch.where(u >= 1 - each * p, 4, style)


def one_more(y, style, p, generator):
    labels, styles = drop_two(y, style, p, generator)
    return torch.where(labels == 10, 9, labels), torch.where(styles == 4, 3, styles)


def small_world():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(17, 5, generator=generator)
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9])
    for signal in (0.9, 0.3):
        noise = (1 - signal**2) ** 0.5
        yield signal * data[::4] + noise * torch.randn(5, 5, generator=generator), signal, noise, data, labels


def posterior(x_t, signal, noise, data, labels, power=2, half=2.0, axis=1):
    weights = (-torch.cdist(x_t, signal * data).pow(power) / (half * noise**2)).softmax(axis)
    return weights @ F.one_hot(labels, 10).to(weights)


def unscaled(x_t, signal, noise, data, labels):
    return (-(torch.cdist(x_t, signal * data) ** 2) / (2 * noise**2)).exp() @ F.one_hot(labels, 10).float()


def logs_averaged(x_t, signal, noise, data, labels):
    logs = -(torch.cdist(x_t, signal * data) ** 2) / (2 * noise**2)
    return torch.stack([logs[:, labels == k].mean(1) for k in range(10)], 1).softmax(1)


def by_nearest(x_t, signal, noise, data, labels):
    return F.one_hot(labels[torch.cdist(x_t, signal * data).argmin(1)], 10).float()


def class_means(x_t, signal, noise, data, labels):
    total = posterior(x_t, signal, noise, data, labels) / F.one_hot(labels, 10).sum(0).clamp(min=1)
    return total / total.sum(1, keepdim=True)


def inverted(y, style, p, generator):
    labels, styles = drop_two(y, style, p, generator)
    return torch.where(labels == 10, y, 10), torch.where(styles == 4, style, 4)


def answers():
    generator = torch.Generator().manual_seed(0)
    for w in (1.0, 3.0):
        of_class = torch.randn(10, 4, 1, 3, 3, generator=generator)
        p = (2 * torch.randn(4, 10, generator=generator)).softmax(1)
        yield of_class, p, torch.tensor([3, 0, 9, 4]), w


def without_null(of_class, p, y, w, u=None):
    c = of_class[y, torch.arange(len(y))]
    u = torch.einsum("bk,kbchw->bchw", p, of_class) if u is None else u
    return u + w * (c - u)


def others_alone(of_class, p, y, w):
    rest = p.scatter(1, y[:, None], 0.0)
    return without_null(of_class, rest / rest.sum(1, keepdim=True), y, w)


EXERCISES = {
    "07a": Exercise(
        drop_two,
        lambda: [(torch.arange(60) % 10, torch.arange(60) % 4, 0.1)],
        {
            "two coins drop both with probability p^2 only: cut one number an image into parts": (
                lambda *a: two_coins(*a, each=1)
            ),
            "two coins drop both with probability (2p)^2 only: cut one number an image into parts": two_coins,
            "both are always dropped together: each must also be dropped alone": always_both,
            "one coin drops both, and neither is ever dropped alone": only_both,
            "the style has a null class of its own, 4: 10 is that of the digits": null_of_digits,
            "both are never dropped together, and guidance needs that answer, too": never_both,
            "each is dropped as often as it should be, and never together: let the two ranges overlap": (
                lambda *a: never_both(*a, each=2)
            ),
            "the null class is one more than the last real one: 10 and 4": one_more,
            "all images of a batch share one coin: draw a number for each image": lambda *a: drop_two(*a, n=1),
            "inverted: what is to be dropped is kept, and what is to be kept is dropped": inverted,
            "draw the coins from the generator: the same one must give the same coins": (
                lambda y, style, p, generator: drop_two(y, style, p, None)
            ),
        },
        within=0.009,
        call=in_rates,
    ),
    "07b": Exercise(
        posterior,
        small_world,
        {
            "a bell falls with the squared distance over 2 noise^2: the 2 is missing": (
                lambda *a: posterior(*a, half=1.0)
            ),
            "a bell falls with the squared distance: you took the distance itself": (lambda *a: posterior(*a, power=1)),
            "the bells stand around signal * data: the data shrink on their way to t": (
                lambda x, signal, noise, d, y: posterior(x, 1.0, noise, d, y)
            ),
            "you divide by 2 noise: the width of a bell is noise, and noise^2 stands in its exponent": (
                lambda x, signal, noise, d, y: posterior(x, signal, noise**0.5, d, y)
            ),
            "farther images are likelier: a bell falls with the distance, so a minus is missing": (
                lambda *a: posterior(*a, half=-2.0)
            ),
            "the softmax ran over the batch: the images of the data compete, along the other axis": (
                lambda *a: posterior(*a, axis=0)
            ),
            "the rows do not add up to 1: divide by the sum over all images": unscaled,
            "you averaged logarithms over a class: add up the bells themselves, then compare": logs_averaged,
            "that is the class of the nearest image: every image has a say, by its weight": by_nearest,
            "you took the mean over each class where the sum belongs: larger classes are more likely": (class_means),
        },
    ),
    "07c": Exercise(
        without_null,
        answers,
        {
            "you averaged the ten answers as if each class were as likely: weigh them by p": (
                lambda of_class, p, y, w: without_null(of_class, p, y, w, of_class.mean(0))
            ),
            "you left the asked class out of the mixture: (7.1) sums over all ten": others_alone,
            "the mixture is there, and no push: extrapolate from it by w": (
                lambda of_class, p, y, w: without_null(of_class, p, y, 0.0)
            ),
            "that is the plain conditional answer: push from the mixture to it, and beyond by w": (
                lambda of_class, p, y, w: without_null(of_class, p, y, 1.0)
            ),
            "that is the push alone: add it to the mixture": (
                lambda of_class, p, y, w: without_null(of_class, p, y, w) - without_null(of_class, p, y, 0.0)
            ),
            "the mixture is a sum with weights that add up to 1: you took the mean once more": (
                lambda of_class, p, y, w: without_null(of_class, p / 10, y, w)
            ),
            "you pushed from the answer with the label: that is Ho and Salimans' w, one more in ours": (
                lambda of_class, p, y, w: without_null(of_class, p, y, w + 1)
            ),
            "with and without the label have changed places": (
                lambda of_class, p, y, w: without_null(of_class, p, y, 1 - w)
            ),
            "the weights were summed over the batch: each image has its own": (
                lambda of_class, p, y, w: without_null(of_class, p.mean(0).expand_as(p), y, w)
            ),
        },
        within=1e-4,
    ),
    "07d": Experiment(
        52,
        82,
        {
            "that is scale 3 at every step: limit it to the times t >= 885": (95, 105),
            "that is the ink beside scale 1: take the share of what scale 3 adds everywhere": (110, 145),
            "that is the part after the window: t counts down, and before the window it is large": (3, 24),
            "that is inside the window, or scale 0 outside the interval: outside it, the scale is 1": (34, 50),
            "that is a fraction: in per cent, please": (0.4, 0.9),
        },
    ),
}
