"""The exercises of chapter 07: labels, and guidance by them."""

import torch
import torch.nn.functional as F

from .exercises import Exercise


def in_rates(answer, y, num_classes, p):
    """What dropping does to 500 batches: the shares of null labels, of labels as they were, of the first and
    of the last class, whether batches differ no more than independent coins make them, and whether the same
    generator gives the same coins."""
    generator = torch.Generator().manual_seed(0)
    answers = [answer(y, num_classes, p, generator) for _ in range(500)]
    if any(found is None or found is ... for found in answers):
        return None
    batches = torch.stack([torch.as_tensor(found) for found in answers])
    if batches.shape != (500, len(y)) or batches.is_floating_point():
        return f"{batches.dtype} of shape {tuple(batches.shape[1:])}"
    null, kept = (batches == num_classes).double(), (batches == y).double()
    spread = (1 - kept).mean(1).std() / (p * (1 - p) / len(y)) ** 0.5
    first, last = ((batches == k).double().mean() for k in (0, num_classes - 1))
    again = [torch.as_tensor(answer(y, num_classes, p, torch.Generator().manual_seed(1))) for _ in range(2)]
    repeats = float(torch.equal(*again))
    return [null.mean(), kept.mean(), first, last, (spread < 1.5).double(), repeats]


def drop_labels(y, num_classes, p, generator):
    return torch.where(torch.rand(len(y), generator=generator) < p, num_classes, y)


def one_coin(y, num_classes, p, generator):
    return torch.where(torch.rand(1, generator=generator) < p, num_classes, y)


def inverted(y, num_classes, p, generator):
    return drop_labels(y, num_classes, 1 - p, generator)


def null_is(what):
    return lambda y, num_classes, p, generator: torch.where(
        torch.rand(len(y), generator=generator) < p, what(num_classes), y
    )


def small_world():
    generator = torch.Generator().manual_seed(0)
    data = torch.randn(17, 5, generator=generator)
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9])
    for signal in (0.9, 0.3):
        noise = (1 - signal**2) ** 0.5
        yield signal * data[::4] + noise * torch.randn(5, 5, generator=generator), signal, noise, data, labels


def posterior(x_t, signal, noise, data, labels, power=2, half=2.0):
    weights = (-torch.cdist(x_t, signal * data).pow(power) / (half * noise**2)).softmax(1)
    return weights @ F.one_hot(labels, 10).to(weights)


def logs_averaged(x_t, signal, noise, data, labels):
    logs = -(torch.cdist(x_t, signal * data) ** 2) / (2 * noise**2)
    return torch.stack([logs[:, labels == k].mean(1) for k in range(10)], 1).softmax(1)


def by_nearest(x_t, signal, noise, data, labels):
    return F.one_hot(labels[torch.cdist(x_t, signal * data).argmin(1)], 10).float()


def class_means(x_t, signal, noise, data, labels):
    total = posterior(x_t, signal, noise, data, labels) / F.one_hot(labels, 10).sum(0).clamp(min=1)
    return total / total.sum(1, keepdim=True)


def denoisers():
    x_t = torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([100, 400, 600, 900])
    interval = lambda t: torch.where((t > 300) & (t < 700), 4.0, 1.0)  # noqa: E731
    for scale in (interval, lambda t: t / 250):
        yield (lambda x, t: x.sin()), (lambda x, t: x.cos() / 2), scale, x_t, t


def guided(conditional, unconditional, scale):
    def denoiser(x_t, t):
        u = unconditional(x_t, t)
        return u + scale(t).reshape(-1, 1, 1, 1) * (conditional(x_t, t) - u)

    return denoiser


def flat(conditional, unconditional, scale):
    def denoiser(x_t, t):
        u = unconditional(x_t, t)
        return u + scale(t) * (conditional(x_t, t) - u)

    return denoiser


def put_to_use(answer, conditional, unconditional, scale, x_t, t):
    denoiser = answer(conditional, unconditional, scale)
    return denoiser if denoiser is None or denoiser is ... else denoiser(x_t, t)


EXERCISES = {
    "07a": Exercise(
        drop_labels,
        lambda: [(torch.arange(60) % 6, 6, 0.2)],
        {
            "the rate is right, but all images of a batch share one coin: draw a number for each image": (one_coin),
            "inverted: labels are kept with probability p and dropped with 1 - p": inverted,
            "what you drop becomes the class 0, a real class: the null class is num_classes": null_is(lambda k: 0),
            "num_classes - 1 is the last real class: the null class is one more": null_is(lambda k: k - 1),
            "the null class is 10 for digits only: in general it is num_classes, and here that is 6": null_is(
                lambda k: 10
            ),
            "draw the coins from the generator: the same one must give the same coins": (
                lambda y, num_classes, p, generator: drop_labels(y, num_classes, p, None)
            ),
        },
        within=0.02,
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
            "you averaged logarithms over a class: add up the bells themselves, then compare": logs_averaged,
            "that is the class of the nearest image: every image has a say, by its weight": by_nearest,
            "you took the mean over each class where the sum belongs: larger classes are more likely": (class_means),
        },
    ),
    "07c": Exercise(
        guided,
        denoisers,
        {
            "the scales, (b,), were spread over the columns of pixels: reshape them to (b, 1, 1, 1)": flat,
            "every image got the scale of the first one: each has its own t": (
                lambda c, u, scale: guided(c, u, lambda t: scale(t)[:1].expand(len(t)))
            ),
            "you have the unconditional denoiser where the scale is 1: that is the conditional one": (
                lambda c, u, scale: guided(c, u, lambda t: (scale(t) > 1).float() * scale(t))
            ),
            "conditional and unconditional are swapped": lambda c, u, scale: guided(u, c, scale),
            "you added the push to the conditional denoiser: that is one more than the scale asked for": (
                lambda c, u, scale: guided(c, u, lambda t: scale(t) + 1)
            ),
        },
        call=put_to_use,
    ),
}
