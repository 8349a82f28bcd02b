"""The exercises of chapter 01: how an image becomes noise."""

import torch

from .exercises import Exercise


def batch():
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 4, 1, 4, 4, generator=generator)
    yield x_0, torch.tensor([0, 2, 5, 3]), eps, torch.tensor([1.0, 0.9, 0.7, 0.5, 0.2, 0.01])


def q_sample(x_0, t, eps, alpha_bar):
    abar = alpha_bar[t].reshape(-1, 1, 1, 1)
    return abar.sqrt() * x_0 + (1 - abar).sqrt() * eps


def without_roots(x_0, t, eps, alpha_bar):
    abar = alpha_bar[t].reshape(-1, 1, 1, 1)
    return abar * x_0 + (1 - abar) * eps


def root_inside(x_0, t, eps, alpha_bar):
    root = alpha_bar[t].reshape(-1, 1, 1, 1).sqrt()
    return root * x_0 + (1 - root) * eps


def by_column(x_0, t, eps, alpha_bar):
    abar = alpha_bar[t]  # (4,), and the images happen to be 4 wide
    return abar.sqrt() * x_0 + (1 - abar).sqrt() * eps


def swapped(x_0, t, eps, alpha_bar):
    abar = alpha_bar[t].reshape(-1, 1, 1, 1)
    return (1 - abar).sqrt() * x_0 + abar.sqrt() * eps


def one_off(x_0, t, eps, alpha_bar):
    return q_sample(x_0, (t - 1).clamp(min=0), eps, alpha_bar)


def step():
    for beta in (0.01, 0.3):
        yield torch.linspace(-1, 1, 64).reshape(4, 1, 4, 4), beta, torch.Generator().manual_seed(0)


EXERCISES = {
    "01a": Exercise(
        q_sample,
        batch,
        {
            "abar and 1 - abar are variances: the factors are their square roots": (without_roots),
            "the noise's factor is sqrt(1 - abar), not 1 - sqrt(abar): the squares add up to 1": root_inside,
            "each column of pixels got a time of its own: reshape alpha_bar[t] to (b, 1, 1, 1)": by_column,
            "the factors are swapped: at t = 0 the image must be clean": swapped,
            "alpha_bar is indexed by t itself: index 0 is the clean image": one_off,
        },
    ),
    "01b": Exercise(
        lambda beta, t: (1 - beta) ** t,
        lambda: [(0.01, 459), (0.2, 7), (0.5, 1)],
        {
            "that is the amplitude, the root of alpha_bar: each step multiplies alpha_bar by 1 - beta": (
                lambda beta, t: (1 - beta) ** (t / 2)
            ),
            "factors multiply: 1 - t beta is only right while t beta is small": lambda beta, t: 1 - t * beta,
            "there are t factors for t steps, not t - 1": lambda beta, t: (1 - beta) ** (t - 1),
            "that is the noise's share, 1 - alpha_bar": lambda beta, t: 1 - (1 - beta) ** t,
        },
    ),
    "01c": Exercise(
        lambda x, beta, g: (1 - beta) ** 0.5 * x + beta**0.5 * torch.randn(x.shape, generator=g),
        step,
        {
            "the noise is still uniform in 0..1, so that its mean is not 0: take torch.randn": (
                lambda x, beta, g: (1 - beta) ** 0.5 * x + beta**0.5 * torch.rand(x.shape, generator=g)
            ),
            "the noise is normal now, but it has variance beta where its factor is sqrt(beta)": (
                lambda x, beta, g: (1 - beta) ** 0.5 * x + beta * torch.randn(x.shape, generator=g)
            ),
            "nothing is repaired yet: look at the noise's kind and at its factor": (
                lambda x, beta, g: (1 - beta) ** 0.5 * x + beta * torch.rand(x.shape, generator=g)
            ),
            "uniform noise around 0 has mean 0, but variance 1/12 and no tails: take torch.randn": (
                lambda x, beta, g: (1 - beta) ** 0.5 * x + beta**0.5 * (torch.rand(x.shape, generator=g) - 0.5)
            ),
            "the image must shrink by sqrt(1 - beta), or the variance grows for ever": (
                lambda x, beta, g: x + beta**0.5 * torch.randn(x.shape, generator=g)
            ),
        },
    ),
    "01d": Exercise(
        600,
        misconceptions={
            "at 500 it still reads 52 % correctly: the first time below half is asked": 500,
            "that is chance, one in ten: half is asked, and it is lost earlier": 900,
            "all of it is noise there, but half was lost long before": 1000,
        },
    ),
}
