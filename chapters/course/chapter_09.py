"""The exercises of chapter 09, and its pictures: solvers, their orders, and the times at which they ask."""

import math

import matplotlib.pyplot as plt
import torch

import tinyddpm
from tinyddpm.evaluation import classify, load_classifier

from .exercises import Exercise, Experiment
from .figures import EXACT, NETWORK, NOISE, REST, SIGNAL, label_lines, show_figure

COSINE = tinyddpm.Schedule.named("cosine", 100)


def legible(x) -> int:
    """How many of ten drawings the library's classifier reads as the digits 0 to 9."""
    return int((classify(load_classifier(), x).argmax(1) == torch.arange(10)).sum())


def draw_orders(calls: list[int], errors: dict[str, list[float]]) -> None:
    """Errors against calls, with a triangle's worth of slopes 1 and 2 beside them."""
    names = {"ddim": "DDIM", "heun": "Heun", "dpm_solver_pp": "DPM-Solver++(2M)"}
    styles = {"ddim": (NOISE, "-"), "heun": (NETWORK, "-."), "dpm_solver_pp": (SIGNAL, "--")}
    figure, axes = plt.subplots(figsize=(5.6, 3.2))
    for name, found in errors.items():
        colour, style = styles[name]
        order = math.log(found[-2] / found[-1]) / math.log(calls[-1] / calls[-2])
        label = f"{names[name]}\n order {order:.2f}"
        axes.plot(calls, found, style, color=colour, marker="o", markersize=4, label=label)
    for order, start in ((1, errors["ddim"][-3] * 2.2), (2, errors["dpm_solver_pp"][-3] / 2.6)):
        right = [calls[-3], calls[-1]]
        axes.plot(right, [start, start * (right[0] / right[1]) ** order], ":", color=REST, label=f"_{order}")
        axes.text(right[0] * 0.95, start, f"slope {order}", color=REST, ha="right", va="center", fontsize=8)
    axes.set(xscale="log", yscale="log", xlabel="calls of the denoiser", ylabel="distance from the truth")
    axes.set_xticks(calls, [str(n) for n in calls])
    axes.minorticks_off()
    axes.set_title("The order of a solver is the slope of its line")
    label_lines(axes, gap=0.16)
    show_figure(
        "Error against calls on logarithmic axes. DDIM falls with slope 1; Heun and DPM-Solver++ with slope 2, "
        "and are over ten times nearer to the truth at 160 calls, though Heun starts worse than DDIM."
    )


def draw_grids(grids: dict[str, list], schedule) -> None:
    """The times of each grid, over log-SNR; 0, where it is infinite, at the right end."""
    figure, axes = plt.subplots(figsize=(7, 1.5))
    for row, (grid, colour, mark) in enumerate(zip(grids.values(), (NOISE, EXACT, SIGNAL), "xo|")):
        lam = [float(schedule.log_snr[t]) for t, _ in grid]
        axes.plot(lam, [-row] * len(lam), mark, color=colour, markersize=8, markeredgewidth=2)
    axes.set(xlabel="log-SNR: noise on the left, the image on the right", ylim=(-len(grids) + 0.5, 0.5))
    axes.set_yticks([-row for row in range(len(grids))], list(grids))
    axes.set_title(f"Eight times at which to ask (cosine schedule, t = {schedule.T} on the left, t = 1 on the right)")
    show_figure(
        "Eight dots in each of three rows over log-SNR. The leading grid misses the noisy end, the one even in t has "
        "no dot near the clean end, and the one even in log-SNR covers both evenly."
    )


def eta_of_beta(t, s, schedule):
    return float(((1 - schedule.alpha_bar[t]) / (1 - schedule.alpha_bar[s])) ** 0.5)


def small(t, s, schedule):
    abar_t, abar_s = schedule.alpha_bar[t], schedule.alpha_bar[s]
    return (1 - abar_s) / (1 - abar_t) * (1 - abar_t / abar_s)


def directions():
    v_hat, v_before = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    yield v_hat, v_before, -0.1, -0.3
    yield v_hat, v_before, -0.2, -0.2


def extrapolated(v_hat, v_before, turn, turn_before):
    return v_hat + (v_hat - v_before) * turn / (2 * turn_before)


def descending(T, steps):
    times = [T // steps * k for k in range(steps, -1, -1)]
    return list(zip(times, times[1:]))


def leading(T, steps, offset=1, end=()):
    times = [T // steps * k + offset for k in range(steps - 1, -1, -1)] + list(end)
    return list(zip(times, times[1:]))


EXERCISES = {
    "09a": Exercise(
        eta_of_beta,
        lambda: [(100, 50, COSINE), (40, 39, COSINE), (7, 3, COSINE)],
        {
            "that is eta squared: (9.3) has eta^2 beside the variance": lambda t, s, z: eta_of_beta(t, s, z) ** 2,
            "upside down: more noise than at eta = 1 is wanted, so eta is above 1": (
                lambda t, s, z: 1 / eta_of_beta(t, s, z)
            ),
            "that is sigma itself, the root of the variance: divide by what eta = 1 gives": (
                lambda t, s, z: float((1 - z.alpha_bar[t] / z.alpha_bar[s]) ** 0.5)
            ),
            "that is sigma at eta = 1: the variance that is wanted is larger": lambda t, s, z: float(
                small(t, s, z) ** 0.5
            ),
            "eta = 1 gives the posterior's variance, the smaller of the two": lambda t, s, z: 1.0,
            "beta of one step belongs to s = t - 1 only: the grid may skip times": (
                lambda t, s, z: float((z.beta[t] / small(t, s, z)) ** 0.5)
            ),
        },
    ),
    "09b": Exercise(
        extrapolated,
        directions,
        {
            "3/2 and -1/2 belong to equal turns: here the two may differ": lambda v, w, a, b: 1.5 * v - 0.5 * w,
            "that is the direction at the end of the step: it is wanted in the middle": (
                lambda v, w, a, b: v + (v - w) * a / b
            ),
            "the quotient of the turns is upside down: the slope is the change over the turn before": (
                lambda v, w, a, b: v + (v - w) * b / (2 * a)
            ),
            "you went back instead of on: add half a turn of the slope": lambda v, w, a, b: v - (v - w) * a / (2 * b),
            "that is first order: the direction before is not used": lambda v, w, a, b: v,
            "the mean of both is the direction between the last step and this one, half a turn too early": (
                lambda v, w, a, b: (v + w) / 2
            ),
            "a slope is a change over the turn it took: divide by the turn before": (
                lambda v, w, a, b: v + (v - w) * a / 2
            ),
            "a direction is wanted: the turn is multiplied outside": lambda v, w, a, b: a * extrapolated(v, w, a, b),
        },
    ),
    "09c": Exercise(
        lambda found, calls, order, wanted: math.ceil(calls * (found / wanted) ** (1 / order)),
        lambda: [(0.1, 10, 1, 0.0009), (0.1, 10, 2, 0.003), (0.2, 7, 3, 0.011)],
        {
            "rounded down it is not enough: the error is to be at most `wanted`": (
                lambda found, calls, order, wanted: int(calls * (found / wanted) ** (1 / order))
            ),
            "that is for order 1: the order's root of the quotient is missing": (
                lambda found, calls, order, wanted: math.ceil(calls * found / wanted)
            ),
            "take the root of the quotient, not its power: a higher order needs fewer calls": (
                lambda found, calls, order, wanted: math.ceil(calls * (found / wanted) ** order)
            ),
            "divided by the order: the calls go with the quotient's root": (
                lambda found, calls, order, wanted: math.ceil(calls * found / wanted / order)
            ),
            "that is the factor alone: multiply it by the calls you had": (
                lambda found, calls, order, wanted: math.ceil((found / wanted) ** (1 / order))
            ),
            "a whole number of calls is wanted: round up": (
                lambda found, calls, order, wanted: calls * (found / wanted) ** (1 / order)
            ),
        },
    ),
    "09d": Exercise(
        descending,
        lambda: [(1000, 5), (100, 4)],
        {
            "nothing is repaired yet: where does it start, and where does it end?": leading,
            "it ends at 0 now, but does not start at T": lambda T, steps: leading(T, steps, end=(0,)),
            "it starts at T now, but stops before 0: the image keeps noise": (
                lambda T, steps: descending(T, steps)[:-1]
            ),
            "an offset of 0 ends at 0, and starts a whole step below T": lambda T, steps: leading(T, steps, 0),
            "the offset of 1 is still there: every time is 1 too late, and the walk stops at 1": (
                lambda T, steps: [(t + 1, s + 1) for t, s in descending(T, steps)]
            ),
            "the times run upwards: a sampler goes from T down to 0": (
                lambda T, steps: [(s, t) for t, s in reversed(descending(T, steps))]
            ),
            "those are the times: a grid is a list of pairs (t, s)": (
                lambda T, steps: [T // steps * k for k in range(steps, -1, -1)]
            ),
        },
    ),
    "09e": Experiment(
        0.01,
        0.5,
        {
            "that is the even grid itself: move some times": (0.999, 1.001),
            "a little better: what about the last step? It should begin where little noise is left": (0.5, 0.999),
            "worse than the even grid: spend fewer calls near T, where the answer hardly changes": (1.001, 1000),
            "no solver is exact: is that the error itself, or a difference?": (0, 0.01),
        },
    ),
}
