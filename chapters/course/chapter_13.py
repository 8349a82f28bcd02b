"""The exercises of chapter 13: measuring."""

import math

import torch

from .exercises import Exercise, Experiment


def needed(p, q, factor=4.0):
    return math.ceil(factor * (p * (1 - p) + q * (1 - q)) / (p - q) ** 2)


def middle(p, q):
    return math.ceil(4 * (p + q) / 2 * (1 - (p + q) / 2) / (p - q) ** 2)


def tables():
    generator = torch.Generator().manual_seed(0)
    for sharpness in (1.0, 10.0):
        yield ((sharpness * torch.randn(40, 5, generator=generator)).softmax(1),)
    yield (torch.eye(4)[torch.tensor([0, 0, 0, 0, 0, 0])],)  # one class


def entropy(p):
    return torch.special.entr(p)


EXERCISES = {
    "13a": Exercise(
        needed,
        lambda: [(0.976, 0.983), (0.5, 0.63), (0.92, 0.8)],
        {
            "that is one standard error: twice is asked, and n grows with the square": lambda p, q: needed(p, q, 1.0),
            "twice the standard error is four times the variance, not two": lambda p, q: needed(p, q, 2.0),
            "both shares scatter: the variance of their difference is the sum of both": middle,
            "that is the variance of q alone: p scatters as well": (
                lambda p, q: math.ceil(4 * q * (1 - q) / (p - q) ** 2)
            ),
            "that is the variance of p alone: q scatters as well": (
                lambda p, q: math.ceil(4 * p * (1 - p) / (p - q) ** 2)
            ),
            "variances add up, standard errors do not: you squared the sum of the roots": (
                lambda p, q: math.ceil(4 * ((p * (1 - p)) ** 0.5 + (q * (1 - q)) ** 0.5) ** 2 / (p - q) ** 2)
            ),
            "a standard error falls with the root of n: the difference enters squared": (
                lambda p, q: math.ceil(4 * (p * (1 - p) + q * (1 - q)) / abs(p - q))
            ),
            "the smallest whole n that is enough: round up": lambda p, q: needed(p, q) - 1,
        },
        within=0.5,
    ),
    "13b": Exercise(
        lambda p: entropy(p.mean(0)).sum().exp(),
        tables,
        {
            "the mean over the samples comes first: entropies of single images do not see that they agree": (
                lambda p: entropy(p).sum(1).mean().exp()
            ),
            "that is the entropy itself: the number of classes is e to its power": lambda p: entropy(p.mean(0)).sum(),
            "the power does not fit the logarithm: nats go with e, bits with 2": lambda p: (
                2 ** entropy(p.mean(0)).sum()
            ),
            "the mean runs over the samples, dimension 0: yours runs over the classes": (
                lambda p: entropy(p.mean(1)).sum().exp()
            ),
            "that is the inception score: it divides by the entropy of single images": (
                lambda p: (entropy(p.mean(0)).sum() - entropy(p).sum(1).mean()).exp()
            ),
            "the sign: an entropy is -p log p, and not negative": lambda p: (-entropy(p.mean(0)).sum()).exp(),
            "counting the classes that were read most often ignores how often each was": (
                lambda p: torch.tensor(float(len(p.argmax(1).unique())))
            ),
        },
    ),
    "13c": Exercise(
        lambda nats: nats / math.log(2) / 784,
        lambda: [(2000.0,), (700.0,)],
        {
            "those are nats per pixel: divide by ln 2": lambda nats: nats / 784,
            "that is per pixel of 32 x 32": lambda nats: nats / math.log(2) / 1024,
            "a nat is 1.44 bits: divide by ln 2, do not multiply": lambda nats: nats * math.log(2) / 784,
            "per pixel, not per image": lambda nats: nats / math.log(2),
            "28 pixels are a row: an image has 28 x 28": lambda nats: nats / math.log(2) / 28,
            "the same factor twice: the bits are per image, so divide by 784 alone": (
                lambda nats: nats / math.log(2) / 784 * 1024 / 784
            ),
        },
    ),
    "13d": Experiment(
        0.22,
        0.36,
        {
            "that is about the floor at 500 or more: how many images were on each side?": (0.06, 0.2),
            "that is the sum over five pairs: take their mean": (1.1, 1.8),
            "0 is the distance of images to the same images: compare f_train with f_test": (-0.01, 0.01),
            "that is the distance times n": (60, 110),
            "a single pair scatters, and this is far off: is each part disjoint, and 300 long?": (0.37, 1.0),
        },
    ),
}
