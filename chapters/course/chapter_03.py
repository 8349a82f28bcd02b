"""The exercises and the figures of chapter 03: from noise back to an image."""

import functools

import matplotlib.pyplot as plt
import torch

import tinyddpm

from .exercises import Exercise, Experiment
from .figures import EXACT, REST, SIGNAL, TEXT, label_lines

COSINE = tinyddpm.Schedule.named("cosine", 10)


def noisy():
    for t in (10, 6, 2):
        x_t, eps_hat = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(t))
        yield x_t, eps_hat, t, COSINE


def mean_over_x_0(x_t, eps_hat, t, schedule):
    x_0_hat = tinyddpm.x_0_from_eps(eps_hat, x_t, t, schedule)
    return tinyddpm.q_posterior(x_0_hat, x_t, t, t - 1, schedule)[0]


def mean(x_t, eps_hat, t, schedule, root=False, bar=True, abar_outside=False, outside=0.5, power=0.5, sign=-1):
    beta, abar = schedule.beta[t], schedule.alpha_bar[t]
    factor = (beta.sqrt() if root else beta) / (1 - (abar if bar else 1 - beta)) ** power
    scale = (abar if abar_outside else 1 - beta) ** outside
    return (x_t + sign * factor * eps_hat) / scale


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


def loop(denoiser, x_T, schedule, generator, noise_at=lambda t, T: t > 1, to=0, power=0.5):
    x = x_T
    for t in range(schedule.T, to, -1):
        x_0_hat = denoiser(x, torch.full((len(x),), t))
        x, _ = tinyddpm.q_posterior(x_0_hat, x, t, t - 1, schedule)
        if noise_at(t, schedule.T):
            x = x + schedule.beta[t] ** power * torch.randn(x.shape, generator=generator)
    return x


def two_numbers(x_t, alpha_bar_t):
    """By Bayes' rule, the long way."""
    d = torch.stack([(x_t - alpha_bar_t**0.5 * x) ** 2 for x in (-1, 1)]) / (2 * (1 - alpha_bar_t))
    minus, plus = (-d).softmax(0)
    return plus - minus


def whole(sampler):
    """The sampler as a function that returns all images of its walk, its noise from one seed: (times, b, c, h, w)."""

    @functools.wraps(sampler)
    def walk(*arguments):
        return torch.stack([step.x_t for step in sampler(*arguments, generator=torch.Generator().manual_seed(4))])

    return walk


def log_snr_of(t: int, schedule) -> str:
    return f"t = {t}, log-SNR {float(schedule.log_snr[t]):.1f}"


def three_walks(runs: dict, schedule, shown: int = 7) -> None:
    """The paths of a pixel that is -1 in three images of four, +1 in the fourth, on the density that belongs to it."""
    values = torch.linspace(-3, 3, 200, dtype=torch.float64)[:, None]
    abar = schedule.alpha_bar[1:]
    bells = [(-((values - sign * abar.sqrt()) ** 2) / (2 * (1 - abar))).exp() for sign in (-1, 1)]
    q = (0.75 * bells[0] + 0.25 * bells[1]) / (2 * torch.pi * (1 - abar)).sqrt()
    figure, axes = plt.subplots(1, 3, figsize=(6.7, 2.4), sharey=True)
    for panel, (name, run) in zip(axes, runs.items()):
        paths = torch.stack([step.x_t.flatten() for step in run])  # (T + 1, n)
        levels = torch.linspace(0, 1, 11)
        image = panel.contourf(range(1, schedule.T + 1), values[:, 0], q.clamp(max=0.999), levels, cmap="magma")
        chosen = paths[0].argsort()[[round(len(paths[0]) * (k + 0.5) / shown) for k in range(shown)]]
        panel.plot([step.t for step in run][::3], paths[::3, chosen], color="1", linewidth=0.6, linestyle="-")
        end = 100 * (paths[-1] > 0).double().mean()
        panel.set(xlim=(schedule.T, 0), ylim=(-3, 3), title=f"{name}: {end:.0f} % at +1")
        times = [200, 150, 100, 50, 1]
        panel.set_xticks(times, [f"{t}\n{float(schedule.log_snr[t]):.0f}" for t in times])
        panel.grid(False)
    axes[0].set(ylabel="the pixel")
    figure.supxlabel("t, and below it the log-SNR: from noise (left) to the pixel (right)", fontsize=8.5)
    figure.colorbar(image, ax=axes, label="density of the data's pixel", ticks=[0, 0.5, 1], aspect=14)


def noise_levels(runs: dict, schedule, data, labels) -> None:
    """Left: the noise level on the way. Right: how far each class lies from the average of all images."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.1, 1.8))
    for (name, levels), colour, style in zip(runs.items(), (EXACT, REST), ("-", "--")):
        left.plot(range(schedule.T, 0, -schedule.T // len(levels)), levels, style, color=colour, label=name)
    left.set(xlim=(schedule.T, 1), ylim=(0, 1.3), title="noise level of $x_t$, where 1 is right")
    times = [200, 150, 100, 50, 1]
    left.set_xticks(times, [f"{t}\n{float(schedule.log_snr[t]):.0f}" for t in times])
    left.set_xlabel("t, and below it the log-SNR")
    label_lines(left)
    distance = (data - data.mean(0)).flatten(1).square().mean(1).sqrt()
    of_class = torch.stack([distance[labels == k].mean() for k in range(10)])
    right.bar(range(10), of_class, color=[SIGNAL if k == of_class.argmin() else "0.75" for k in range(10)])
    right.set(xlabel="class", title="rms distance from the average image", xticks=range(10))


def open_questions(log_snr, image_bits, class_bits, window) -> None:
    """How open the choice of the image and of the class is, in bits, at each log-SNR."""
    figure, axes = plt.subplots(figsize=(4.8, 1.8))
    axes.plot(log_snr, image_bits, "--", color=REST)
    axes.plot(log_snr, class_bits, "-", color=SIGNAL)
    axes.axvspan(*window, color=SIGNAL, alpha=0.12)
    axes.set(xlabel="log-SNR", ylabel="bits", xlim=(log_snr[0], log_snr[-1]), ylim=(0, 11.5))
    axes.text(sum(window) / 2 + 0.35, 11, "the class\nis decided", ha="center", va="top", color=SIGNAL)
    axes.text(-6.6, 8.0, "which image", color=REST)
    axes.text(-6.6, 2, "which class", color=SIGNAL)


def witnesses(x_s, experiment, past, future, bayes, log_snr) -> None:
    """The experiment as bars, and on them the two witnesses and what Bayes' rule makes of them."""
    figure, axes = plt.subplots(figsize=(5.2, 1.9))
    axes.bar(x_s, experiment, 0.1, color="0.87")
    for name, density, style, colour in (
        ("the past", past, "--", SIGNAL),
        ("the future", future, ":", REST),
        ("Bayes", bayes, "-", EXACT),
    ):
        axes.plot(x_s, density, style, color=colour)
        side = {"the past": (8, 1, "left"), "the future": (-8, 1, "right"), "Bayes": (4, 3, "left")}[name]
        peak = int(density.argmax()) + side[0] // 2
        axes.text(x_s[peak], density[peak] + 0.02 * side[1], name, ha=side[2], color=colour)
    axes.set(xlabel=f"$x_s$, s = 60, log-SNR {log_snr:.1f}", ylabel="density", ylim=(0, 0.82))


def game(named, paid, m, curve, schedule, guess_of) -> None:
    """Left: what each number costs. Right: the best number for each x_t, at three times."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(6.1, 1.8))
    left.plot(named, curve, "-", color=EXACT)
    left.plot(named, paid, "o", color=TEXT, markersize=3)
    left.axvline(m, color=EXACT, linestyle=":")
    left.set(xlabel="the number named", title="mean squared error")
    seen = torch.linspace(-3, 3, 200, dtype=torch.float64)
    for t, style in ((150, ":"), (75, "--"), (20, "-")):
        right.plot(seen, guess_of(seen, schedule.alpha_bar[t]), style, color=EXACT, label=log_snr_of(t, schedule))
    right.set(xlabel="$x_t$", title="best guess of $x_0$")
    label_lines(right, gap=0.12)


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
                lambda *arguments: mean(*arguments, outside=0)
            ),
            "the noise in x_t has the factor sqrt(1 - alpha_bar_t), and its root is missing": (
                lambda *arguments: mean(*arguments, power=1)
            ),
            "the root outside is missing: divide by sqrt(1 - beta_t)": lambda *arguments: mean(*arguments, outside=1),
            "the noise was added once more: it is to be subtracted": lambda *arguments: mean(*arguments, sign=1),
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
            "beta[t] is the variance of the noise: its factor is the root of that": (
                lambda *arguments: loop(*arguments, power=1)
            ),
            "noise of variance 1 came in whole: its factor is sqrt(beta_t)": (
                lambda *arguments: loop(*arguments, power=0)
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
            "the signal is missing: x_t lies around -sqrt(alpha_bar_t) and sqrt(alpha_bar_t)": (
                lambda x_t, alpha_bar_t: torch.tanh(x_t / (1 - alpha_bar_t))
            ),
            "the signal's factor is the root of alpha_bar_t": (
                lambda x_t, alpha_bar_t: torch.tanh(alpha_bar_t * x_t / (1 - alpha_bar_t))
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
            "that is a walk without noise: all steps but the last add 1 - a": (
                lambda V, alpha_bar: variance_of_samples(V, alpha_bar, lambda a, v, t: 0.0)
            ),
            "noise of variance 1 - a adds 1 - a, not its root, which is the standard deviation": (
                lambda V, alpha_bar: variance_of_samples(V, alpha_bar, lambda a, v, t: (1 - a) ** 0.5 if t > 1 else 0.0)
            ),
            "that is the variance of the data: the chain comes close to it but does not reach it": (
                lambda V, alpha_bar: V
            ),
        },
    ),
    "03e": Experiment(
        5.5,
        9.5,
        {
            "that is a share: give it in per cent": (0.05, 0.1),
            "that is what half the variance gives: the standard deviation, the factor of the noise, is to be halved": (
                13.5,
                18,
            ),
            "that is the right sampler, with all of its noise: multiply the noise in the step by 0.5": (22.5, 28),
            "that is without any noise: multiply it by 0.5, not by 0": (-0.01, 0.04),
            "these are the samples that end at -1: count those at +1": (90, 95),
        },
    ),
}
