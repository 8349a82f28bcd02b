"""The exercises of chapter 03: from noise back to an image."""

import torch

import tinyddpm

from .exercises import Exercise

COSINE = tinyddpm.Schedule.named("cosine", 10)


def noisy():
    for t in (10, 6, 2):
        x_t, eps_hat = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(t))
        yield x_t, eps_hat, t, COSINE


def mean_over_x_0(x_t, eps_hat, t, schedule):
    x_0_hat = tinyddpm.x_0_from_eps(eps_hat, x_t, t, schedule)
    return tinyddpm.q_posterior(x_0_hat, x_t, t, t - 1, schedule)[0]


def mean(x_t, eps_hat, t, schedule, root=False, bar=True, abar_outside=False, outside=True):
    beta, abar = schedule.beta[t], schedule.alpha_bar[t]
    factor = (beta.sqrt() if root else beta) / (1 - (abar if bar else 1 - beta)).sqrt()
    scale = (abar if abar_outside else 1 - beta).sqrt() if outside else 1
    return (x_t - factor * eps_hat) / scale


def variance_of_samples(V, alpha_bar, sigma2=lambda a, v, t: 1 - a if t > 1 else 0.0, power=2):
    variance = 1.0
    for t in range(len(alpha_bar) - 1, 0, -1):
        abar_t, abar_s = float(alpha_bar[t]), float(alpha_bar[t - 1])
        a = abar_t / abar_s
        k = abar_t**0.5 * V / (abar_t * V + 1 - abar_t)
        A = (abar_s**0.5 * (1 - a) * k + a**0.5 * (1 - abar_s)) / (1 - abar_t)
        variance = A**power * variance + sigma2(a, (1 - abar_s) * (1 - a) / (1 - abar_t), t)
    return variance


def chains():
    yield 0.25, tinyddpm.Schedule.named("linear", 50).alpha_bar
    yield 1.0, COSINE.alpha_bar
    yield 2.0, COSINE.alpha_bar


def loops():
    x_T = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(1))
    denoiser = tinyddpm.gaussian_oracle(0.3, 0.25, COSINE)
    yield denoiser, x_T, COSINE, torch.Generator().manual_seed(2)


def loop(denoiser, x_T, schedule, generator, noise_at=lambda t, T: t > 1, to=0):
    x = x_T
    for t in range(schedule.T, to, -1):
        x_0_hat = denoiser(x, torch.full((len(x),), t))
        x, _ = tinyddpm.q_posterior(x_0_hat, x, t, t - 1, schedule)
        if noise_at(t, schedule.T):
            x = x + schedule.beta[t].sqrt() * torch.randn(x.shape, generator=generator)
    return x


def two_numbers(x_t, alpha_bar_t):
    """By Bayes' rule, the long way."""
    d = torch.stack([(x_t - alpha_bar_t**0.5 * x) ** 2 for x in (-1, 1)]) / (2 * (1 - alpha_bar_t))
    minus, plus = (-d).softmax(0)
    return plus - minus


EXERCISES = {
    "03a": Exercise(
        mean_over_x_0,
        noisy,
        {
            "the noise in x_t has standard deviation sqrt(1 - alpha_bar_t): beta_t is one step's only": (
                lambda *arguments: mean(*arguments, bar=False)
            ),
            "divide by sqrt(1 - beta_t) outside: sqrt(alpha_bar_t) would jump to the size of x_0": (
                lambda *arguments: mean(*arguments, abar_outside=True)
            ),
            "beta_t has no root here: it comes from 1 - a in (3.5), which is a variance's share": (
                lambda *arguments: mean(*arguments, root=True)
            ),
            "noise is taken away, but the image keeps its smaller size: divide by sqrt(1 - beta_t)": (
                lambda *arguments: mean(*arguments, outside=False)
            ),
            "that is x_0_hat itself: the step goes to t - 1 only, so put it into (3.5)": (
                lambda x_t, eps_hat, t, schedule: tinyddpm.x_0_from_eps(eps_hat, x_t, t, schedule)
            ),
        },
    ),
    "03b": Exercise(
        loop,
        loops,
        {
            "noise is still added at the last step: t is never 0 in this loop, it is t - 1 that gets there": (
                lambda *arguments: loop(*arguments, noise_at=lambda t, T: True)
            ),
            "the loop stops at x_1: the last step must be taken, and only its noise left out": (
                lambda *arguments: loop(*arguments, to=1)
            ),
            "the noise is left out at the first step, t = T, where it belongs: time runs backwards here": (
                lambda *arguments: loop(*arguments, noise_at=lambda t, T: t < T)
            ),
            "now there is no noise at all, and the samples collapse: only the last step goes without": (
                lambda *arguments: loop(*arguments, noise_at=lambda t, T: False)
            ),
        },
    ),
    "03c": Exercise(
        two_numbers,
        lambda: [(torch.linspace(-2, 2, 9), alpha_bar_t) for alpha_bar_t in (0.1, 0.4, 0.8)],
        {
            "that takes the nearer number, always: the best guess weighs both by how likely they are": (
                lambda x_t, alpha_bar_t: x_t.sign()
            ),
            "that only undoes the shrinking: it can leave [-1, 1], where no average of the two can lie": (
                lambda x_t, alpha_bar_t: x_t / alpha_bar_t**0.5
            ),
            "divide by the noise's variance, 1 - alpha_bar_t, and not by its standard deviation": (
                lambda x_t, alpha_bar_t: torch.tanh(alpha_bar_t**0.5 * x_t / (1 - alpha_bar_t) ** 0.5)
            ),
            "twice too steep: 2u is what the sigmoid takes for p, and 2 p - 1 is the tanh of u": (
                lambda x_t, alpha_bar_t: torch.tanh(2 * alpha_bar_t**0.5 * x_t / (1 - alpha_bar_t))
            ),
            "not steep enough: the exponents differ by 2u, p is the sigmoid of 2u, 2 p - 1 the tanh of u": (
                lambda x_t, alpha_bar_t: torch.tanh(alpha_bar_t**0.5 * x_t / (1 - alpha_bar_t) / 2)
            ),
            "twice not there yet: p is the sigmoid of 2u, and x_0_hat is not p but the average, 2 p - 1": (
                lambda x_t, alpha_bar_t: torch.sigmoid(alpha_bar_t**0.5 * x_t / (1 - alpha_bar_t))
            ),
            "that is the probability of +1: x_0_hat is the average, 2 p - 1": (
                lambda x_t, alpha_bar_t: torch.sigmoid(2 * alpha_bar_t**0.5 * x_t / (1 - alpha_bar_t))
            ),
        },
    ),
    "03d": Exercise(
        variance_of_samples,
        chains,
        {
            "the last step added noise, too: it arrives at s = 0, where there must be none": (
                lambda V, alpha_bar: variance_of_samples(V, alpha_bar, lambda a, v, t: 1 - a)
            ),
            'that is the variance "posterior", (3.4): "beta" adds 1 - a': (
                lambda V, alpha_bar: variance_of_samples(V, alpha_bar, lambda a, v, t: v)
            ),
            "a factor A multiplies a variance by A squared": (
                lambda V, alpha_bar: variance_of_samples(V, alpha_bar, power=1)
            ),
            "noise of variance 1 - a adds 1 - a, not its root, which is the standard deviation": (
                lambda V, alpha_bar: variance_of_samples(V, alpha_bar, lambda a, v, t: (1 - a) ** 0.5 if t > 1 else 0.0)
            ),
            "that is the variance of the data: the chain comes close to it but does not reach it": (
                lambda V, alpha_bar: V
            ),
        },
    ),
}
