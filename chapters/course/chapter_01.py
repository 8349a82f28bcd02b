"""The exercises of chapter 01: how an image becomes noise."""

import math

import torch

from .exercises import Exercise, Experiment


def batch():
    generator = torch.Generator().manual_seed(0)
    x_s, eps = torch.randn(2, 4, 1, 4, 4, generator=generator)
    yield (
        x_s,
        torch.tensor([0, 1, 2, 3]),
        torch.tensor([2, 2, 5, 4]),
        eps,
        torch.tensor([1.0, 0.9, 0.7, 0.5, 0.2, 0.01]),
    )


def shaped(factor):
    return factor.reshape(-1, 1, 1, 1)


def jump(x_s, s, t, eps, alpha_bar):
    kept = shaped(alpha_bar[t] / alpha_bar[s])
    return kept.sqrt() * x_s + (1 - kept).sqrt() * eps


def without_roots(x_s, s, t, eps, alpha_bar):
    kept = shaped(alpha_bar[t] / alpha_bar[s])
    return kept * x_s + (1 - kept) * eps


def one_root(x_s, s, t, eps, alpha_bar):
    kept = shaped(alpha_bar[t] / alpha_bar[s])
    return kept.sqrt() * x_s + (1 - kept) * eps


def signal_root_missing(x_s, s, t, eps, alpha_bar):
    kept = shaped(alpha_bar[t] / alpha_bar[s])
    return kept * x_s + (1 - kept).sqrt() * eps


def full_noise(x_s, s, t, eps, alpha_bar):
    return shaped(alpha_bar[t] / alpha_bar[s]).sqrt() * x_s + eps


def root_inside(x_s, s, t, eps, alpha_bar):
    root = shaped(alpha_bar[t] / alpha_bar[s]).sqrt()
    return root * x_s + (1 - root) * eps


def by_column(x_s, s, t, eps, alpha_bar):
    kept = alpha_bar[t] / alpha_bar[s]  # (4,), and the images happen to be 4 wide
    return kept.sqrt() * x_s + (1 - kept).sqrt() * eps


def swapped(x_s, s, t, eps, alpha_bar):
    kept = shaped(alpha_bar[t] / alpha_bar[s])
    return (1 - kept).sqrt() * x_s + kept.sqrt() * eps


def from_clean(x_s, s, t, eps, alpha_bar):
    return jump(x_s, torch.zeros_like(s), t, eps, alpha_bar)


def difference(x_s, s, t, eps, alpha_bar):
    return shaped(alpha_bar[t] / alpha_bar[s]).sqrt() * x_s + shaped(alpha_bar[s] - alpha_bar[t]).sqrt() * eps


def steps(beta, left, power=0.5):
    return math.ceil(math.log(left) / math.log((1 - beta) ** power))


def step():
    for beta in (0.01, 0.3):
        yield torch.linspace(-1, 1, 64).reshape(4, 1, 4, 4), beta, torch.Generator().manual_seed(0)


EXERCISES = {
    "01a": Exercise(
        jump,
        batch,
        {
            "the kept share and 1 minus it are variances: the factors are their square roots": without_roots,
            "one root is there, the other is forgotten: the noise's factor is sqrt(1 - kept)": one_root,
            "one root is there, the other is forgotten: the image's factor is sqrt(kept)": signal_root_missing,
            "the noise is left as it is: its factor is sqrt(1 - kept)": full_noise,
            "the noise's factor is sqrt(1 - kept), not 1 - sqrt(kept): the squares add up to 1": root_inside,
            "each column of pixels got a time of its own: reshape the factor to (b, 1, 1, 1)": by_column,
            "the factors are swapped: where t is s, the image must not change": swapped,
            "that is the jump from the clean image: x_s has lost the factors of the steps 1 to s already": from_clean,
            "that is the table at t - s, the jump of the first t - s steps: the later ones have larger betas": (
                lambda x_s, s, t, eps, alpha_bar: from_clean(x_s, s, t - s, eps, alpha_bar)
            ),
            "the signal is right; the noise of these steps has variance 1 - kept, not alpha_bar_s - alpha_bar_t": (
                difference
            ),
        },
    ),
    "01b": Exercise(
        steps,
        lambda: [(0.01, 0.1), (0.2, 0.5), (0.05, 0.01)],
        {
            "that is when alpha_bar, the variance, is at most left: the amplitude is its root": (
                lambda beta, left: steps(beta, left, 1)
            ),
            "the amplitude is the root of alpha_bar, not its square": lambda beta, left: steps(beta, left, 2),
            "one step too few: round up, since at that number the amplitude is still above left": (
                lambda beta, left: steps(beta, left) - 1
            ),
            "factors multiply: 1 - t beta / 2 is only right while t beta is small": (
                lambda beta, left: math.ceil(2 * (1 - left) / beta)
            ),
            "that is the share that is lost, not the share that is left": lambda beta, left: steps(beta, 1 - left),
        },
        within=0.5,
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
            "the noise is repaired, and the image lost its root: it shrinks by sqrt(1 - beta)": (
                lambda x, beta, g: (1 - beta) * x + beta**0.5 * torch.randn(x.shape, generator=g)
            ),
            "noise of variance 1 came in whole: its factor is sqrt(beta)": (
                lambda x, beta, g: (1 - beta) ** 0.5 * x + torch.randn(x.shape, generator=g)
            ),
            "the image must shrink by sqrt(1 - beta), or the variance grows for ever": (
                lambda x, beta, g: x + beta**0.5 * torch.randn(x.shape, generator=g)
            ),
        },
    ),
    "01d": Experiment(
        550,
        650,
        {
            "at 500 it still reads more than half: the first time below half is asked": (450, 549),
            "it still reads most digits there": (1, 449),
            "half was lost earlier: which is the first multiple of 100?": (651, 850),
            "that is chance, one in ten: half is asked, and it is lost earlier": (851, 1000),
            "a time is asked, not an accuracy": (0.0, 1.0),
        },
    ),
}
