"""The exercises of chapter 12: completing, mixing and redrawing."""

import torch
import torch.nn.functional as F

import tinyddpm

from .exercises import Exercise, Experiment


def large(stamps):
    """8 x 8 pixels as 32 x 32, for tiles."""
    return F.interpolate(stamps, scale_factor=4.0, mode="nearest")


def several_noises():
    generator = torch.Generator().manual_seed(0)
    for weights in ([0.5, 0.5], [0.2, 0.3, 0.5], [1.0], [0.7, 0.1, 0.1, 0.1]):
        yield torch.randn(len(weights), 2, 1, 4, 5, generator=generator), torch.tensor(weights)


def straight(noises, weights):
    return torch.einsum("k,kbchw->bchw", weights, noises)


def mixed(noises, weights):
    return straight(noises, weights) / weights.square().sum().sqrt()


def two_witnesses():
    generator = torch.Generator().manual_seed(1)
    data, mask = torch.randn(9, 6, generator=generator) * 0.7, torch.tensor([1.0, 1, 0, 0, 1, 0])
    for signal, sigma in ((0.8, 0.5), (0.3, 0.9)):
        noise = (1 - signal**2) ** 0.5
        x_t = signal * data[:4] + noise * torch.randn(4, 6, generator=generator)
        yield x_t, signal, noise, data, data[:4] + sigma * torch.randn(4, 6, generator=generator), mask, sigma


def given_both(
    x_t,
    signal,
    noise,
    data,
    k,
    mask,
    sigma,
    half=2.0,
    shrunk=1.0,
    first=1.0,
    second=1.0,
    known=None,
    power=2,
    at_t=None,
    spread=2,
):
    known = mask if known is None else known
    at_t = signal if at_t is None else at_t
    one = -(torch.cdist(x_t, at_t * data) ** power) / (half * noise**spread)
    two = -(torch.cdist(k * known, shrunk * data * known) ** power) / (half * sigma**spread)
    return (first * one + second * two).softmax(1) @ data


def two_softmaxes(x_t, signal, noise, data, k, mask, sigma):
    one = given_both(x_t, signal, noise, data, k, mask, sigma, second=0.0)
    return (one + given_both(x_t, signal, noise, data, k, mask, sigma, first=0.0)) / 2


def to_paste():
    schedule, mask = tinyddpm.Schedule.named("cosine", 20), (torch.arange(12).reshape(3, 4) % 3 == 0).float()
    for t in (20, 8, 0):
        generator = torch.Generator().manual_seed(2)
        x_t, known = (torch.randn(2, 1, 3, 4, generator=generator) for _ in range(2))
        yield x_t, known, mask, t, schedule, torch.Generator().manual_seed(t)


def pasted(x_t, known, mask, t, schedule, generator, shape=None, power=1):
    signal, noise = (number**power for number in schedule.signal_noise(t))
    noised = signal * known + noise * torch.randn(shape or x_t.shape, generator=generator)
    return torch.where(mask.bool(), noised, x_t)


def bare(x_t, known, mask, t, schedule, generator):
    return torch.where(mask.bool(), known, x_t)


def whole_noise(x_t, known, mask, t, schedule, generator):
    noised = schedule.signal_noise(t)[0] * known + torch.randn(x_t.shape, generator=generator)
    return torch.where(mask.bool(), noised, x_t)


def unshrunk(x_t, known, mask, t, schedule, generator):
    noise = schedule.signal_noise(t)[1] * torch.randn(x_t.shape, generator=generator)
    return torch.where(mask.bool(), known + noise, x_t)


EXERCISES = {
    "12a": Exercise(
        mixed,
        several_noises,
        {
            "that is the straight mix, and its variance is below 1: divide by its standard deviation": straight,
            "you divided by the variance: the standard deviation is its root": (
                lambda n, w: straight(n, w) / w.square().sum()
            ),
            "you gave all noises the same weight": lambda n, w: n.sum(0) / len(w) ** 0.5,
            "with roots of the weights the variance is 1, but the shares are no longer those asked for": (
                lambda n, w: straight(n, w.sqrt())
            ),
            "you divided each image by its own measured deviation: noise varies a little, and may": (
                lambda n, w: straight(n, w) / straight(n, w).flatten(1).std(1).reshape(-1, 1, 1, 1)
            ),
        },
    ),
    "12b": Exercise(
        given_both,
        two_witnesses,
        {
            "that is the denoiser given x_t alone: k has not been used": lambda *a: given_both(*a, second=0.0),
            "that is the answer given k alone: x_t is a witness, too": lambda *a: given_both(*a, first=0.0),
            "k was compared at all pixels: it says something where the mask is 1": (
                lambda *a: given_both(*a, known=torch.ones(6))
            ),
            "k was compared where the mask is 0: those are the unknown pixels": (
                lambda *a: given_both(*a, known=1 - a[5])
            ),
            "k is not on its way to noise: the data are compared with it unshrunk": (
                lambda *a: given_both(*a, shrunk=a[1])
            ),
            "a bell falls with the squared distance over 2 sigma^2: the 2 is missing": lambda *a: given_both(
                *a, half=1.0
            ),
            "a bell falls with the squared distance: you took the distance itself": lambda *a: given_both(*a, power=1),
            "you divide by 2 noise and 2 sigma: variances stand in a bell's exponent": (
                lambda *a: given_both(*a, spread=1)
            ),
            "x_t is compared with the data as they were: they shrink by signal on their way to t": (
                lambda *a: given_both(*a, at_t=1.0)
            ),
            "farther images are likelier: a bell falls with the distance, so a minus is missing": (
                lambda *a: given_both(*a, half=-2.0)
            ),
            "k was pasted into the answer: it is noisy, so it has to be weighed and not believed": (
                lambda *a: torch.where(a[5].bool(), a[4], given_both(*a, second=0.0))
            ),
            "you averaged two answers: probabilities of independent witnesses multiply": two_softmaxes,
        },
    ),
    "12c": Exercise(
        pasted,
        to_paste,
        {
            "the known pixels went in without noise: x_t is noisy, and so must they be": bare,
            "the known pixels shrink on their way to t: signal * known": unshrunk,
            "the mask is the other way round: 1 is where a pixel is known": lambda x, k, m, *a: pasted(x, k, 1 - m, *a),
            "the noise came in whole: its factor is sqrt(1 - alpha_bar_t)": whole_noise,
            "one noise for the whole batch: each image has its own": (
                lambda x, *a: pasted(x, *a, shape=(1, *x.shape[1:]))
            ),
            "alpha_bar and 1 - alpha_bar are variances: signal and noise are their roots": (
                lambda *a: pasted(*a, power=2)
            ),
            "you noised the known pixels one step too little: to t, the time of x_t": (
                lambda x, k, m, t, *a: pasted(x, k, m, max(t - 1, 0), *a)
            ),
        },
    ),
    "12d": Experiment(
        10,
        27,
        {
            "that is the share of the 40: their number is asked": (0.01, 0.99),
            "that few get through at t = 400 or below: redraw from 500": (0, 9),
            "that many get through from t = 600 on: redraw from 500": (28, 38),
            "all 40: were they read as 3, or drawn from pure noise?": (39, 40),
        },
    ),
}
