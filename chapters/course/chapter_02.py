"""The exercises and pictures of chapter 02: noise schedules."""

import math

import matplotlib.pyplot as plt
import torch

from .exercises import Exercise, Experiment
from .figures import NOISE, REST, SIGNAL, TEXT, label_lines, show_figure

START, END = 1e-4, 0.02
TABLE = torch.tensor([1, 0.9, 0.5, 0.1, 0.001], dtype=torch.float64)


def histograms(at_T: dict, noise) -> None:
    """The brightness of pure noise and of x_T, one panel a chain."""
    figure, axes = plt.subplots(1, len(at_T), figsize=(7.5, 2.1), sharey=True)
    bins = torch.linspace(-0.45, 0.15, 61).numpy()
    for axis, (name, brightness) in zip(axes, at_T.items()):
        axis.hist(noise.numpy(), bins, color=NOISE, alpha=0.35)
        axis.hist(brightness.numpy(), bins, color=SIGNAL, histtype="step", linewidth=1.3)
        axis.set(title=name, xlabel="brightness", yticks=[])
        axis.grid(False)
    axes[0].text(0.02, 0.9, "x_T", color=SIGNAL, transform=axes[0].transAxes)
    axes[0].text(0.98, 0.9, "pure\nnoise", color=NOISE, ha="right", va="center", transform=axes[0].transAxes)
    show_figure(
        "Histograms of brightness: at T = 200 and 300, unscaled, x_T lies left of pure noise and apart from it, at 500"
        " it overlaps, and with scaled betas both are the same"
    )


def classes_figure(counts: dict, ink) -> None:
    """How many samples of each class each run drew, from little ink to much."""
    order = ink.argsort()
    figure, axes = plt.subplots(figsize=(7, 2.4))
    for i, (name, count) in enumerate(counts.items()):
        place, look = torch.arange(10) + 0.27 * (i - 1), ((NOISE, ""), (SIGNAL, "///"), (REST, "..."))[i]
        axes.bar(place, count[order], width=0.25, color=look[0], hatch=look[1], edgecolor="white", label=name)
    axes.axhline(30, color=TEXT, linestyle="--", linewidth=1)
    axes.set(xticks=range(10), xticklabels=order.tolist(), xlabel="class, from little ink to much", ylabel="of 300")
    axes.legend(ncols=3, loc="upper left")
    axes.set_ylim(0, 72)
    axes.grid(False)
    show_figure(
        "Bars for the ten classes: started from noise the unscaled chain draws 4 ones and 55 zeros; the other two runs"
        " draw about 30 of each"
    )


def accuracy_figure(read: dict) -> None:
    """What a classifier reads at twenty times of two schedules: over time, and over log-SNR."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(7.5, 2.6), sharey=True)
    for (schedule, percent), line, colour in zip(read.items(), ("o-", "x--"), (SIGNAL, NOISE)):
        times = [schedule.T * i // 20 for i in range(1, 21)]
        share = [t / schedule.T for t in times]
        left.plot(share, percent, line, color=colour, markersize=4, label=f"T = {schedule.T}")
        right.plot(schedule.log_snr[times], percent, line[0], color=colour, markersize=4)
    left.set(title="the betas of (2.1), over time", xlabel="t / T", ylabel="read correctly, %")
    right.set(title="the same over log-SNR", xlabel="log-SNR, from clean to noisy", xlim=(4, -12))
    label_lines(left)
    show_figure("Over t / T two chains have two curves of accuracy; over log-SNR all points lie on one falling curve")


def curves():
    yield (torch.tensor([4.0, 1.0, -1.5, -9.5], dtype=torch.float64),)
    yield (torch.linspace(8, -9.5, 20, dtype=torch.float64),)


def betas(lam, alpha_bar=torch.sigmoid, start=1.0, zero=True, divide=True):
    table = torch.cat([torch.tensor([start], dtype=torch.float64), alpha_bar(lam)])
    beta = 1 - table[1:] / table[:-1] if divide else table[:-1] - table[1:]
    return torch.cat([beta.new_zeros(1), beta]) if zero else beta


def without_first(lam):
    table = lam.sigmoid()
    return torch.cat([table.new_zeros(1), 1 - table[1:] / table[:-1]])


def line(T):
    return torch.linspace(START, END, T, dtype=torch.float64)


def smallest(T, is_enough):
    return next(k for k in range(1, 200) if is_enough(k * line(T)))


def larger(alpha_bar, k, power=2, sign=-1):
    return ((alpha_bar / (1 - alpha_bar)).log() + sign * power * math.log(k)).sigmoid()


EXERCISES = {
    "02a": Exercise(
        betas,
        curves,
        {
            "exp(lam) is the SNR, not alpha_bar: alpha_bar / (1 - alpha_bar) is solved by the sigmoid": (
                lambda lam: betas(lam, alpha_bar=torch.exp)
            ),
            "sigmoid(-lam) is the share of the noise: alpha_bar is sigmoid(lam)": (
                lambda lam: betas(lam, alpha_bar=lambda x: torch.sigmoid(-x))
            ),
            "betas are shares of variances: divide alpha_bar, not its root, the amplitude": (
                lambda lam: betas(lam, alpha_bar=lambda x: x.sigmoid().sqrt())
            ),
            "those are the alpha_bars: a beta is 1 minus alpha_bar over the one before it": (
                lambda lam: torch.cat([torch.ones(1, dtype=torch.float64), lam.sigmoid()])
            ),
            "the first step is missing: alpha_bar_0 = 1 comes before lam_1": without_first,
            "two of the T + 1 are missing: beta[0] = 0, and the step from alpha_bar_0 = 1 to lam_1": (
                lambda lam: without_first(lam)[1:]
            ),
            "1 - alpha_bar is the noise of all steps so far: for that of one, divide by the alpha_bar before": (
                lambda lam: torch.cat([lam.new_zeros(1), 1 - lam.sigmoid()])
            ),
            "beta[0] = 0 is missing: a Schedule has one beta for each t in 0..T": lambda lam: betas(lam, zero=False),
            "alpha_bar is a product, so its steps are quotients, not differences": (
                lambda lam: betas(lam, divide=False)
            ),
        },
    ),
    "02b": Exercise(
        lambda T: smallest(T, lambda beta: (1 - beta).prod().sqrt() < 0.01),
        lambda: [(100,), (50,)],
        {
            "1000 / T is a safe factor, and not the smallest: try smaller ones": lambda T: 1000 // T,
            "exp(-sum) is an upper bound and leaves too much: multiply the factors 1 - k beta themselves": (
                lambda T: smallest(T, lambda beta: torch.exp(-beta.sum()) < 1e-4)
            ),
            "you asked for an amplitude below 1e-4: alpha_bar is its square, and easier to bring there": (
                lambda T: smallest(T, lambda beta: (1 - beta).prod().sqrt() < 1e-4)
            ),
            "the amplitude is the root of alpha_bar: at 1 % of it, alpha_bar is 1e-4 and not 1e-2": (
                lambda T: smallest(T, lambda beta: (1 - beta).prod() < 1e-2)
            ),
            "one too few: at that factor more than 1 % is left": (
                lambda T: smallest(T, lambda beta: (1 - beta).prod() < 1e-4) - 1
            ),
            "the factor goes the other way: a shorter chain needs larger betas": lambda T: T / 1000,
            "with these betas the chain keeps its signal: the published ones belong to T = 1000": lambda T: 1,
        },
    ),
    "02c": Exercise(
        larger,
        lambda: [(TABLE, 2), (TABLE, 4)],
        {
            "a block has k pixels in each direction, k * k in all: the SNR is divided by k ** 2": (
                lambda alpha_bar, k: larger(alpha_bar, k, power=1)
            ),
            "the other way round: the larger image needs more noise, so its log-SNR is lower": (
                lambda alpha_bar, k: larger(alpha_bar, k, sign=1)
            ),
            "the SNR is divided by k ** 2, not alpha_bar: the clean image must stay at 1": (
                lambda alpha_bar, k: alpha_bar / k**2
            ),
            "dividing the SNR means subtracting from its logarithm, not dividing it": (
                lambda alpha_bar, k: ((alpha_bar / (1 - alpha_bar)).log() / k**2).sigmoid()
            ),
            "that is the share of the noise: alpha_bar is sigmoid(lam), not sigmoid(-lam)": (
                lambda alpha_bar, k: 1 - larger(alpha_bar, k)
            ),
            "the SNR is a ratio of variances already: its log drops by log(k ** 2), not by that of k ** 4": (
                lambda alpha_bar, k: larger(alpha_bar, k, power=4)
            ),
        },
    ),
    "02d": Experiment(
        80,
        130,
        {
            "that is the share of the 300: their number is asked": (0.01, 0.99),
            "that is what pure noise draws: the start is not darker yet, or brighter": (0, 9),
            "the brightness that is left is sqrt(alpha_bar_T) times that of the data, not alpha_bar_T times": (10, 20),
            "did you add the mean image, or start from x_T? One number for all pixels is asked": (21, 60),
            "too dark: only sqrt(alpha_bar_T) of the data's brightness is left at T": (150, 300),
        },
    ),
}
