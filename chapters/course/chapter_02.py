"""The exercises of chapter 02: noise schedules."""

import math

import torch

from .exercises import Exercise

START, END = 1e-4, 0.02


def cosine(T, offset, power=2, denominator=True, divide=True):
    u = torch.arange(T + 1, dtype=torch.float64) / T + offset
    f = torch.cos(u / (1 + offset if denominator else 1) * math.pi / 2) ** power
    return f / f[0] if divide else f


def line(T):
    return torch.linspace(START, END, T, dtype=torch.float64)


def smallest(T, is_enough):
    return next(k for k in range(1, 100) if is_enough(k * line(T)))


def whole_factor(T):
    return smallest(T, lambda beta: (1 - beta).prod() < 1e-4)


EXERCISES = {
    "02a": Exercise(
        lambda T, offset: cosine(T, offset),
        lambda: [(10, 0.008), (7, 0.1)],
        {
            "the square is missing: alpha_bar is a variance, and cos alone is its root": (
                lambda T, offset: cosine(T, offset, power=1)
            ),
            "divide by f(0), so that alpha_bar_0 is 1 and the clean image is clean": (
                lambda T, offset: cosine(T, offset, divide=False)
            ),
            "divide the angle by 1 + offset: as it is, it runs past 90 degrees and alpha_bar turns back": (
                lambda T, offset: cosine(T, offset, denominator=False)
            ),
            "that is right for an offset of 0: the argument is not used": lambda T, offset: cosine(T, 0.0),
            "index 0 is missing: T + 1 values are wanted, beginning with alpha_bar_0 = 1": (
                lambda T, offset: cosine(T, offset)[1:]
            ),
            "those are the betas: alpha_bar is asked, before anything is divided": (
                lambda T, offset: 1 - cosine(T, offset)[1:] / cosine(T, offset)[:-1]
            ),
        },
    ),
    "02b": Exercise(
        whole_factor,
        lambda: [(100,), (50,)],
        {
            "1000 / T is a safe factor, and not the smallest: try smaller ones": lambda T: 1000 // T,
            "exp(-sum) is an upper bound and leaves too much: multiply the factors 1 - k beta themselves": (
                lambda T: smallest(T, lambda beta: torch.exp(-beta.sum()) < 1e-4)
            ),
            "you asked for an amplitude below 1e-4: alpha_bar is its square, and easier to bring there": (
                lambda T: smallest(T, lambda beta: (1 - beta).prod().sqrt() < 1e-4)
            ),
            "an amplitude of 1e-2 is meant, alpha_bar itself is to be below 1e-4": (
                lambda T: smallest(T, lambda beta: (1 - beta).prod() < 1e-2)
            ),
            "the factor goes the other way: a shorter chain needs larger betas": lambda T: T / 1000,
            "with these betas the chain keeps its signal: the published ones belong to T = 1000": lambda T: 1,
        },
    ),
    "02c": Exercise(
        lambda T: torch.linspace(START**0.5, END**0.5, T, dtype=torch.float64) ** 2,
        lambda: [(5,), (300,)],
        {
            "nothing is repaired yet: the endpoints are squared twice, 0.02 becomes 0.00000016": (
                lambda T: torch.linspace(START**2, END**2, T, dtype=torch.float64) ** 2
            ),
            "that is the linear schedule: quadratic means that the roots of the betas lie on a line": line,
            "one square is gone and the other is left: the endpoints must come out as 1e-4 and 0.02": (
                lambda T: torch.linspace(START**2, END**2, T, dtype=torch.float64)
            ),
            "those are the roots of the betas, on a line: square them": (
                lambda T: torch.linspace(START**0.5, END**0.5, T, dtype=torch.float64)
            ),
            "the ends are right and the middle is not: take roots first, the line, and then the square": (
                lambda T: torch.linspace(START**2, END**2, T, dtype=torch.float64) ** 0.5
            ),
            "you took the roots of a line: make a line of the roots of the two ends, and square it": (
                lambda T: line(T) ** 0.5
            ),
            "a square outside needs roots inside: linspace(start, end) ** 2 ends at 0.0004": (lambda T: line(T) ** 2),
        },
        within=1e-9,
    ),
    "02d": Exercise(
        lambda beta: (beta / (1 - beta)) ** 0.5,
        lambda: [(0.999,), (0.5,), (0.02,)],
        {
            "that is what x_t is multiplied by: eps_hat passes through sqrt(beta) as well": (
                lambda beta: (1 - beta) ** -0.5
            ),
            "that is a factor of variances: take its root": lambda beta: beta / (1 - beta),
            "the error is divided by the signal's factor, and that is a root: sqrt(1 - beta)": (
                lambda beta: 1 / (1 - beta)
            ),
            "upside down: solve (1.1) for x_{t-1}, and sqrt(1 - beta) is what one divides by": (
                lambda beta: ((1 - beta) / beta) ** 0.5
            ),
            "the noise's factor alone: it is divided by sqrt(1 - beta) as well": lambda beta: beta**0.5,
        },
    ),
}
