"""The exercises of chapter 04: the parts of the network."""

import torch
import torch.nn.functional as F
from einops import rearrange

from .exercises import Exercise


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
    return lambda y, p: rearrange(y, pattern, p1=p, p2=p)


def questions():
    q, k = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    yield q, k, 0
    yield 2 * q, k, 4


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
        unfold("b (p1 p2 c) h w -> b c (h p1) (w p2)"),
        folded,
        {
            "that undoes the other order, (c p1 p2): here the channel came last": F.pixel_shuffle,
            "p1 and p2 are exchanged: every little square comes back mirrored at its diagonal": (
                unfold("b (p2 p1 c) h w -> b c (h p1) (w p2)")
            ),
            "h and p1 are exchanged: each square's pixels are spread over the whole image and must stay "
            "neighbours": unfold("b (p1 p2 c) h w -> b c (p1 h) (p2 w)"),
            "the numbers are only counted off anew: reshape alone cannot move pixels between channels": (
                lambda y, p: y.reshape(len(y), -1, y.shape[2] * p, y.shape[3] * p)
            ),
        },
    ),
    "04c": Exercise(
        lambda q, k, i: (k @ q[i] / q.shape[1] ** 0.5).softmax(0),
        questions,
        {
            "the scores are not divided by sqrt(d)": lambda q, k, i: (k @ q[i]).softmax(0),
            "divide by the root of d, not by d: it is the deviation of the scores that shall become 1": (
                lambda q, k, i: (k @ q[i] / q.shape[1]).softmax(0)
            ),
            "that asks with k and answers with q: pixel i's question is q[i]": (
                lambda q, k, i: (q @ k[i] / q.shape[1] ** 0.5).softmax(0)
            ),
            "that is column i: how much each pixel looks at i. What i looks at is row i": (
                lambda q, k, i: (q @ k.T / q.shape[1] ** 0.5).softmax(1)[:, i]
            ),
            "the softmax runs over the questions: of one question, the shares of all pixels add up to 1": (
                lambda q, k, i: (q @ k.T / q.shape[1] ** 0.5).softmax(0)[i]
            ),
            "these are scores, not shares: the softmax is missing": lambda q, k, i: k @ q[i] / q.shape[1] ** 0.5,
        },
    ),
    "04d": Exercise(
        similarity,
        times,
        {
            "that is the inner product: divide by both lengths, sqrt(n) each": (
                lambda difference, dim: similarity(difference, dim) * (dim // 2)
            ),
            "divided by one length only: the two vectors have the length sqrt(n) each": (
                lambda difference, dim: similarity(difference, dim) * (dim // 2) ** 0.5
            ),
            "divided by dim, though sines and cosines come in pairs: the squared length is n = dim / 2": (
                lambda difference, dim: similarity(difference, dim) / 2
            ),
            "the speeds end at 1 / 10,000: the exponent is i / (n - 1), not i / n": spaced_by_n,
            "no sine survives: sin a sin b + cos a cos b = cos(a - b)": with_sines,
        },
    ),
}
