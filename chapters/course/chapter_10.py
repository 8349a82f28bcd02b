"""The exercises of chapter 10, and its pictures: lines that cross, paths that do not."""

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap

import tinyddpm
from tinyddpm.evaluation import classify, load_classifier

from .exercises import Exercise, Experiment
from .figures import NOISE, SIGNAL, show_figure

FLOW = tinyddpm.Schedule.named("flow", 100)


def legible(x, y) -> int:
    """How many of the drawings, of any size, the library's classifier reads as the digits y."""
    large = F.interpolate(x.clamp(-1, 1), size=(32, 32), mode="bilinear")
    return int((classify(load_classifier(), large).argmax(1) == y).sum())


def crossings(paths) -> int:
    """How often two of the paths (steps, n, ...) change places from one step to the next."""
    order = paths.flatten(1)[:, :, None] - paths.flatten(1)[:, None, :]
    return int((order[1:] * order[:-1] < -1e-12).sum()) // 2


def draw_paths(panels: dict) -> None:
    """Paths (steps, n, ...) from noise to data, one panel each, coloured by where they are on the way."""
    colours = LinearSegmentedColormap.from_list("way", [NOISE, "#bbbbbb", SIGNAL])
    figure, axes = plt.subplots(1, len(panels), figsize=(7, 2.6), sharey=True)
    for place, (name, paths) in zip(axes, panels.items()):
        tau = np.linspace(1, 0, len(paths))
        for path in paths.flatten(1).T.tolist():
            corners = np.stack([tau, path], 1)
            pieces = np.stack([corners[:-1], corners[1:]], 1)
            place.add_collection(LineCollection(pieces, array=1 - tau[:-1], cmap=colours, linewidth=0.8))
        place.plot([1] * paths.shape[1], paths[0].flatten(), ".", color=NOISE, markersize=3)
        place.plot([0] * paths.shape[1], paths[-1].flatten(), "o", color=SIGNAL, markersize=5)
        place.set(
            xlim=(1.04, -0.04),
            ylim=(-2.9, 2.9),
            xlabel="from noise ($\\tau$ = 1) to data (0)",
            title=f"{name}:\n{crossings(paths):,} crossings",
        )
    axes[0].set_ylabel("z, the one pixel")
    show_figure(
        "Three panels of paths from noise on the left to three data points on the right. Straight lines that cross "
        "often; curved paths that never cross and fan out to the points; and jagged paths that cross very often."
    )


def u_of_score(score, x_t, t, schedule):
    signal, sigma = schedule.coefficients(t, x_t)
    eps = -sigma * score
    return eps - (x_t - sigma * eps) / signal


def scores():
    score, x_t = torch.randn(2, 3, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield score, x_t, torch.tensor([20, 50, 80]), FLOW


def with_eps(eps_of):
    def wrong(score, x_t, t, schedule):
        signal, sigma = schedule.coefficients(t, x_t)
        eps = eps_of(score, sigma)
        return eps - (x_t - sigma * eps) / signal

    return wrong


def with_factors(score, x_t, signal, sigma, divide=True, shrunk=True, sign=-1):
    eps = -sigma * score
    return eps + sign * (x_t - (sigma if shrunk else 1) * eps) / (signal if divide else 1)


def fields():
    z = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    yield lambda z, s: 0.3 - z * (1 + s), z, 4
    yield lambda z, s: s * torch.ones_like(z), z, 7


def forwards(velocity, z, steps, at=lambda k, n: k / n, sign=1, first=0, last=0, size=lambda n: 1 / n):
    for k in range(first, steps + last):
        z = z + sign * size(steps) * velocity(z, at(k, steps))
    return z


def shifted(tau, side, power=1):
    k = (side / 32) ** power
    return k * tau / (1 + (k - 1) * tau)


def with_snr(eps_loss, snr, power=2):
    return float(eps_loss / snr * (snr**0.5 + 1) ** power)


EXERCISES = {
    "10a": Exercise(
        u_of_score,
        scores,
        {
            "the score is minus eps over sigma: the sign is missing": with_eps(lambda score, sigma: sigma * score),
            "the score is -eps / sigma, so eps is -sigma times it: one factor of sigma, not two": (
                with_eps(lambda score, sigma: -(sigma**2) * score)
            ),
            "the score is -eps / sigma: the factor sigma is missing": with_eps(lambda score, sigma: -score),
            "eps is the score times sigma, not over sigma": with_eps(lambda score, sigma: -score / sigma),
            "the sign of u: it points from the image to the noise, eps - x_0": lambda *a: -u_of_score(*a),
            "that is v: u has no factors in front of eps and x_0": (
                lambda score, x_t, t, schedule: tinyddpm.v_from(
                    tinyddpm.x_0_from_eps(-schedule.coefficients(t, x_t)[1] * score, x_t, t, schedule),
                    -schedule.coefficients(t, x_t)[1] * score,
                    t,
                    schedule,
                )
            ),
            "the image is still shrunk: divide x_t less its noise by the signal's factor": (
                lambda score, x_t, t, schedule: with_factors(score, x_t, *schedule.coefficients(t, x_t), divide=False)
            ),
            "the whole of eps was taken out of x_t: there it has the factor sigma": (
                lambda score, x_t, t, schedule: with_factors(score, x_t, *schedule.coefficients(t, x_t), shrunk=False)
            ),
            "u is a difference: eps minus x_0": (
                lambda score, x_t, t, schedule: with_factors(score, x_t, *schedule.coefficients(t, x_t), sign=1)
            ),
            "that is eps - x_t: the image is wanted, without its noise": (
                lambda score, x_t, t, schedule: -schedule.coefficients(t, x_t)[1] * score - x_t
            ),
        },
    ),
    "10b": Exercise(
        forwards,
        fields,
        {
            "the step goes along this velocity, not against it: it points to the image": (
                lambda velocity, z, steps: forwards(velocity, z, steps, sign=-1)
            ),
            "time runs up here: the first call is at 0, where the noise is": (
                lambda velocity, z, steps: forwards(velocity, z, steps, lambda k, n: 1 - k / n)
            ),
            "Euler asks at the start of a step, you ask at its end": (
                lambda velocity, z, steps: forwards(velocity, z, steps, lambda k, n: (k + 1) / n)
            ),
            "one step is missing: from 0 to 1 there are `steps` of them": (
                lambda velocity, z, steps: forwards(velocity, z, steps, last=-1)
            ),
            "one step too many: the last call is at 1 - 1 / steps": (
                lambda velocity, z, steps: forwards(velocity, z, steps, last=1)
            ),
            "`steps` steps from 0 to 1 are 1 / steps long": (
                lambda velocity, z, steps: forwards(velocity, z, steps, size=lambda n: 1 / (n - 1))
            ),
            "the steps have a length: multiply the velocity by 1 / steps": (
                lambda velocity, z, steps: forwards(velocity, z, steps, size=lambda n: 1)
            ),
        },
    ),
    "10c": Exercise(
        shifted,
        lambda: [(torch.linspace(0, 1, 6), 64), (torch.linspace(0, 1, 6), 128), (torch.linspace(0, 1, 6), 32)],
        {
            "that is the shift applied twice: k belongs to amplitudes, and the SNR to their squares": (
                lambda tau, side: shifted(tau, side, 2)
            ),
            "the wrong way round: a large image needs more noise, so tau' is above tau": (
                lambda tau, side: shifted(tau, side, -1)
            ),
            "that leaves the interval from 0 to 1: use the formula of the museum": lambda tau, side: tau * side / 32,
            "clipped at 1, many times become pure noise: use the formula of the museum": (
                lambda tau, side: (tau * side / 32).clamp(max=1)
            ),
            "sides are compared with 32, where nothing is to change": lambda tau, side: shifted(tau, 32 * side),
        },
    ),
    "10d": Exercise(
        lambda eps_loss, t, schedule: eps_loss * (1 + math.exp(-float(schedule.log_snr[t]) / 2)) ** 2,
        lambda: [(0.02, 50, FLOW), (0.01, 80, FLOW), (0.3, 20, FLOW)],
        {
            "that is the v loss: SNR + 1 over SNR": (
                lambda eps_loss, t, schedule: eps_loss * (1 + math.exp(-float(schedule.log_snr[t])))
            ),
            "that is the loss of x_0: the error of u has eps in it, too": (
                lambda eps_loss, t, schedule: eps_loss * math.exp(-float(schedule.log_snr[t]))
            ),
            "that is the weight of u alone: divide by that of eps, the SNR": (
                lambda eps_loss, t, schedule: eps_loss * (1 + math.exp(float(schedule.log_snr[t]) / 2)) ** 2
            ),
            "upside down: the loss of u is the larger one": (
                lambda eps_loss, t, schedule: eps_loss / (1 + math.exp(-float(schedule.log_snr[t]) / 2)) ** 2
            ),
            "the weight of u is a square: the root of SNR and 1 are added, then squared": (
                lambda eps_loss, t, schedule: with_snr(eps_loss, schedule.log_snr[t].exp(), power=1)
            ),
            "alpha_bar is not the SNR: divide it by 1 - alpha_bar": (
                lambda eps_loss, t, schedule: with_snr(eps_loss, schedule.alpha_bar[t])
            ),
            "the weight of u has the root of the SNR in it": (
                lambda eps_loss, t, schedule: (
                    eps_loss * (schedule.log_snr[t].exp() + 1) ** 2 / schedule.log_snr[t].exp()
                )
            ),
            "the weight of u has a sum: an error of x_0 moves eps the other way, and u by both": (
                lambda eps_loss, t, schedule: eps_loss * (1 - math.exp(-float(schedule.log_snr[t]) / 2)) ** 2
            ),
            "a loss is a squared error: the factor must be squared": (
                lambda eps_loss, t, schedule: eps_loss * (1 + math.exp(-float(schedule.log_snr[t]) / 2))
            ),
        },
    ),
    "10e": Experiment(
        8,
        13,
        {
            "one step suffices on a straight line: the lines are straight, the paths are not. Measure": (1, 1),
            "that is the share that has arrived: the number of steps is asked": (0, 0.999),
            "two to seven steps: do at least 95 % of them arrive, or fewer?": (2, 7),
            "that many are not needed: take the first number of steps with which 95 % arrive": (14, 1000),
        },
    ),
}
