"""The exercises of chapter 08: frames, delays, sheets and loops."""

import math

import torch

from .exercises import Exercise


def walks():
    """The log-SNRs of three walks: a straight one, one with few steps, and one that begins in the middle."""
    for low, high, n in ((-10.0, 9.0, 200), (-6.0, 6.0, 12), (-1.0, 8.0, 60)):
        log_snr = torch.linspace(low, high, n, dtype=torch.float64)
        yield torch.cat([log_snr, torch.tensor([math.inf], dtype=torch.float64)]), 20


def angles(log_snr):
    return torch.atan(torch.exp(-log_snr / 2))


def nearest(values, wanted):
    return [(values - value).abs().argmin().item() for value in wanted]


def quarter(frames):
    return torch.linspace(math.pi / 2, 0, frames, dtype=torch.float64)


def even_in_angle(log_snr, frames):
    return sorted(set(nearest(angles(log_snr), quarter(frames))))


def even_in_index(log_snr, frames):
    return [round(i) for i in torch.linspace(0, len(log_snr) - 1, frames).tolist()]


def even_in_log_snr(log_snr, frames):
    wanted = torch.linspace(float(log_snr[0]), float(log_snr[-2]), frames, dtype=torch.float64)
    return sorted({*nearest(log_snr, wanted), len(log_snr) - 1})


def of_the_library(log_snr, frames):
    return sorted({*nearest(log_snr, torch.linspace(-4, 6, frames - 1, dtype=torch.float64)), len(log_snr) - 1})


def without_the_half(log_snr, frames):
    return sorted(set(nearest(torch.atan(torch.exp(-log_snr)), quarter(frames))))


def sheets():
    frames = torch.arange(7 * 2 * 3).reshape(7, 1, 2, 3) / 50
    return [(frames, 3), (frames, 7), (frames[:4], 2)]


def sheet(frames, columns, fill=-1.0):
    n, _, h, w = frames.shape
    frames = torch.cat([frames, torch.full((-n % columns, 1, h, w), fill)]).reshape(-1, columns, h, w)
    return frames.permute(0, 2, 1, 3).reshape(1, -1, columns * w)


def cut_off(frames, columns):
    return sheet(frames[: len(frames) // columns * columns], columns)


def only_reshaped(frames, columns):
    n, _, h, w = frames.shape
    frames = torch.cat([frames, torch.full((-n % columns, 1, h, w), -1.0)])
    return frames.reshape(1, -1, columns * w)


def downwards(frames, columns):
    n, _, h, w = frames.shape
    frames = torch.cat([frames, torch.full((-n % columns, 1, h, w), -1.0)]).reshape(columns, -1, h, w)
    return frames.permute(1, 2, 0, 3).reshape(1, -1, columns * w)


EXERCISES = {
    "08a": Exercise(
        even_in_angle,
        walks,
        {
            "that is even in t: space the wanted values evenly in the angle": even_in_index,
            "that is even in the log-SNR: turn it into angles first": even_in_log_snr,
            "that is the library's rule, even in the log-SNR from -4 to 6: turn it into angles first": (of_the_library),
            "the angle is the arctangent of exp(-log_snr / 2): the ratio of amplitudes, not of variances": (
                without_the_half
            ),
            "where steps are few the same one is nearest twice: keep it once": (
                lambda log_snr, frames: nearest(angles(log_snr), quarter(frames))
            ),
            "the order is that of the walk, from noise to image: sort the indices": (
                lambda log_snr, frames: even_in_angle(log_snr, frames)[::-1]
            ),
        },
    ),
    "08b": Exercise(
        lambda n, fps, hold: [round(100 / fps)] * (n - 1) + [round(100 * hold)],
        lambda: [(5, 12.5, 1.5), (3, 24, 2.0), (2, 30, 0.25), (4, 15, 1.0)],
        {
            "these are milliseconds: GIF counts hundredths of a second": (
                lambda n, fps, hold: [round(1000 / fps)] * (n - 1) + [round(1000 * hold)]
            ),
            "these are seconds: GIF counts hundredths of a second": (lambda n, fps, hold: [1 / fps] * (n - 1) + [hold]),
            "you cut the fraction off: round to the nearest, 6.67 becomes 7": (
                lambda n, fps, hold: [int(100 / fps)] * (n - 1) + [int(100 * hold)]
            ),
            "GIF's delays are whole numbers: round them": (lambda n, fps, hold: [100 / fps] * (n - 1) + [100 * hold]),
            "the last frame is held instead of shown for 1 / fps, not after it": (
                lambda n, fps, hold: [round(100 / fps)] * (n - 1) + [round(100 / fps) + round(100 * hold)]
            ),
            "that is a frame too many: the last of the n frames is the one that is held": (
                lambda n, fps, hold: [round(100 / fps)] * n + [round(100 * hold)]
            ),
            "the last frame is not held": lambda n, fps, hold: [round(100 / fps)] * n,
        },
    ),
    "08c": Exercise(
        sheet,
        sheets,
        {
            "the frames that do not fill a row are missing: fill the row up instead": cut_off,
            "the last row is filled with 0, which is mid grey: black is -1": (
                lambda frames, columns: sheet(frames, columns, 0.0)
            ),
            "a reshape alone mixes rows of pixels: permute to (rows, h, columns, w) first": only_reshaped,
            "the frames run down the columns: left to right first, then down": downwards,
        },
    ),
    "08d": Exercise(
        lambda n: [*range(n), *range(n - 2, 0, -1)],
        lambda: [(2,), (5,), (40,)],
        {
            "both ends come twice in a row, and the film stops there": lambda n: [*range(n), *reversed(range(n))],
            "the last frame comes twice in a row: begin the way back one earlier": (
                lambda n: [*range(n), *range(n - 1, 0, -1)]
            ),
            "the first frame comes twice: the next round begins with it anyway": (
                lambda n: [*range(n), *range(n - 2, -1, -1)]
            ),
            "that goes forth only, and jumps back at its end": lambda n: [*range(n)],
        },
    ),
}
