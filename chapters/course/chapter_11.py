"""Chapter 11: the figure of an invented digit and its sources, and the exercises."""

import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from matplotlib.colors import to_rgb

from tinyddpm.data import crop_to

from .exercises import Exercise, Experiment
from .figures import BLINKERED, EXACT, GREY, GROUND, NETWORK, NOISE, STEERED

COLOURS = [EXACT, BLINKERED, NETWORK, STEERED, NOISE]  # as hues alone: five sources


def mosaic(finished, sources, data) -> None:
    """An invented digit (1, h, w), its ink in the colours of its sources (h, w); and the five sources that gave most of
    it, each with the part that was taken in its colour. What other sources gave is white."""
    ink = ((crop_to(finished[0]) + 1) / 2).clamp(0, 1)
    sources = crop_to(sources)
    given = torch.zeros(len(data)).index_add(0, sources.flatten(), ink.flatten() * (ink > 0.25).flatten())
    most = given.topk(len(COLOURS)).indices.tolist()
    figure, axes = plt.subplots(1, 6, figsize=(7.2, 1.75), width_ratios=[1.5, 1, 1, 1, 1, 1], facecolor=(GROUND,) * 3)
    whole = torch.ones(28, 28, 3)
    for place, source, colour in zip(axes[1:], most, COLOURS):
        part, rgb = sources == source, torch.tensor(to_rgb(colour))
        whole[part] = rgb
        theirs = ((crop_to(data[source, 0]) + 1) / 2).clamp(0, 1)[..., None]
        place.imshow(theirs * torch.where(part[..., None], rgb, torch.tensor(to_rgb(GREY)) * 0.35))
        share = float((ink * part).sum() / ink.sum())
        place.set_title(f"{share:.0%} of its ink", color=colour, fontsize=8)
    axes[0].imshow(ink[..., None] * whole)
    axes[0].set_title("invented", color=GREY, fontsize=9)
    for place in axes:
        place.axis("off")


def pictures():
    """Data of black and white pixels in which some never vary."""
    generator = torch.Generator().manual_seed(0)
    for n, h, w, fixed in ((2, 2, 2, 0), (3, 3, 4, 5), (7, 4, 4, 3)):
        data = torch.where(torch.rand(n, h, w, generator=generator) < 0.5, -1.0, 1.0)
        data.flatten(1)[:, :fixed] = -1
        yield (data,)


def possible(data):
    return 2 ** int((data.amax(0) != data.amin(0)).sum())


def noisy_patches():
    generator = torch.Generator().manual_seed(1)
    data = torch.rand(4, 1, 8, 7, generator=generator).mul(4).sub(2).clamp(-1, 1) * 0.5
    for radius, signal in ((1, 0.6), (2, 0.8), (0, 0.5)):
        sigma = math.sqrt(1 - signal**2)
        yield signal * data[:1] + sigma * torch.randn(1, 1, 8, 7, generator=generator), signal, sigma, data, radius


def anywhere(x, signal, sigma, data, radius, shrunk=None, half=2.0, power=2, middle=None):
    side, (h, w) = 2 * radius + 1, x.shape[-2:]
    known = F.unfold(data, side).transpose(1, 2).flatten(0, 1)
    distance = torch.cdist(F.unfold(x, side)[0].T, (shrunk or signal) * known)
    weights = (-(distance**power) / (half * sigma**2)).softmax(1)
    centres = known[:, side**2 // 2] if middle is None else middle(known)
    return (weights @ centres).reshape(h - 2 * radius, w - 2 * radius)


def same_place(x, signal, sigma, data, radius):
    side, (h, w) = 2 * radius + 1, x.shape[-2:]
    gaps = F.unfold(x, side) - signal * F.unfold(data, side)  # (n, side^2, places)
    weights = (-gaps.square().sum(1) / (2 * sigma**2)).softmax(0)
    return (weights * F.unfold(data, side)[:, side**2 // 2]).sum(0).reshape(h - 2 * radius, w - 2 * radius)


def softmax_in_each_image(x, signal, sigma, data, radius):
    return torch.stack([anywhere(x, signal, sigma, one[None], radius) for one in data]).mean(0)


def lazy_artist():
    generator = torch.Generator().manual_seed(2)
    data = torch.full((30, 1, 12, 12), -1.0)
    data[..., 3:-3, 3:-3] = torch.rand(30, 1, 6, 6, generator=generator) * 2 - 1
    x = torch.cat([data[7:13], data[3:5] * 0.5 - 0.5, data[20:22]])
    for k, shift in enumerate(((1, 0), (0, -1), (1, 1), (-1, 1), (0, 0), (-1, -1))):
        x[k] = data[7 + k].roll(shift, (1, 2))
    off = torch.randn(1, 12, 12, generator=generator)
    x[5] += 1.35 * off / off.norm()  # not an exact copy
    x[-2:] = data[20:22].roll((2, 0), (2, 3))  # too far
    yield x, data, 1.5
    yield x.roll(1, 0) + 0.02, data, 1.5


def detective(x, data, threshold, reach=1, diagonal=True):
    shifts = [(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1) if diagonal or not i * j]
    moved = torch.stack([x.roll(shift, (2, 3)).flatten(1) for shift in shifts])
    distance, index = torch.cdist(moved, data.flatten(1)).amin(0).min(1)
    return torch.where(distance < threshold, index, -1)


def squared(x, data, threshold):
    return detective(x, data, math.sqrt(threshold))


EXERCISES = {
    "11a": Exercise(
        possible,
        pictures,
        {
            "that many pictures of this size exist: a pixel that is the same in all images has no choice": (
                lambda data: 2 ** data[0].numel()
            ),
            "that is the exact denoiser, which chooses among whole images": lambda data: len(data),
            "you added up the choices of the pixels: they choose independently, so that choices multiply": (
                lambda data: 2 * int((data.amax(0) != data.amin(0)).sum())
            ),
            "you counted the pixels that vary: each of them doubles the number of pictures": (
                lambda data: int((data.amax(0) != data.amin(0)).sum())
            ),
            "each pixel has two choices, black and white, however many images there are": (
                lambda data: len(data) ** int((data.amax(0) != data.amin(0)).sum())
            ),
        },
    ),
    "11b": Exercise(
        anywhere,
        noisy_patches,
        {
            "the windows are still compared at the same place: put the windows of all places in one list": same_place,
            "you made a softmax in each image and took the mean: one softmax runs over all windows of all images": (
                softmax_in_each_image
            ),
            "the data shrink on their way to t: compare with signal * data": (lambda *a: anywhere(*a, shrunk=1.0)),
            "a bell falls with the squared distance over 2 sigma^2: the 2 is missing": (
                lambda *a: anywhere(*a, half=1.0)
            ),
            "a bell falls with the squared distance: you took the distance itself": lambda *a: anywhere(*a, power=1),
            "you divide by 2 sigma: the variance sigma^2 stands in a bell's exponent": (
                lambda x, signal, sigma, *a: anywhere(x, signal, sigma**0.5, *a, shrunk=signal)
            ),
            "farther windows are likelier: a bell falls with the distance, so a minus is missing": (
                lambda *a: anywhere(*a, half=-2.0)
            ),
            "you averaged the first pixel of each window: the answer is about its middle": (
                lambda *a: anywhere(*a, middle=lambda known: known[:, 0])
            ),
            "you averaged whole windows: each window votes for its middle pixel alone": (
                lambda *a: anywhere(*a, middle=lambda known: known.mean(1))
            ),
        },
    ),
    "11c": Exercise(
        detective,
        lazy_artist,
        {
            "you looked at the unshifted images only": lambda *a: detective(*a, reach=0),
            "you tried four directions: the diagonal ones are missing": lambda *a: detective(*a, diagonal=False),
            "you shifted by two pixels as well: one is the limit": lambda *a: detective(*a, reach=2),
            "you compared squared distances with the threshold: it is a distance": squared,
            "an image with no copy near it was given an index: the threshold was not used": (
                lambda x, data, threshold: detective(x, data, 1e9)
            ),
        },
    ),
    "11d": Experiment(
        4,
        18,
        {
            "that is the share of the 50: their number is asked": (0.01, 0.99),
            "that is the number with all 150 digits of each kind: give the denoisers digits[:, :15]": (0, 3),
            "that is the number with about 5 digits of each kind, not 15": (19, 34),
            "nearly all are copies: is it the exact denoiser, or only one digit of each kind?": (40, 50),
        },
    ),
}
