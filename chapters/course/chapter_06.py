"""The exercises of chapter 06: training."""

import math

import torch

from .exercises import Exercise


def batch():
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 1, 4, 4, generator=generator)
    alpha_bar = torch.tensor([1.0, 0.9, 0.7, 0.5, 0.2, 0.01])
    yield model, x_0, torch.tensor([1, 2, 5]), eps, alpha_bar


def model(x_t, t):
    return 0.3 * x_t + 0.1 * t.reshape(-1, 1, 1, 1)


def parts(x_0, t, eps, alpha_bar):
    signal = alpha_bar[t].reshape(-1, 1, 1, 1).sqrt()
    noise = (1 - signal**2).sqrt()
    return signal, noise, signal * x_0 + noise * eps


def v_loss(model, x_0, t, eps, alpha_bar):
    signal, noise, x_t = parts(x_0, t, eps, alpha_bar)
    return (model(x_t, t) - (signal * eps - noise * x_0)).square().mean()


def other_sign(model, x_0, t, eps, alpha_bar):
    signal, noise, x_t = parts(x_0, t, eps, alpha_bar)
    return (model(x_t, t) - (noise * x_0 - signal * eps)).square().mean()


def not_exchanged(model, x_0, t, eps, alpha_bar):
    signal, noise, x_t = parts(x_0, t, eps, alpha_bar)
    return (model(x_t, t) - (signal * x_0 - noise * eps)).square().mean()


def of_noise(model, x_0, t, eps, alpha_bar):
    _, _, x_t = parts(x_0, t, eps, alpha_bar)
    return (model(x_t, t) - eps).square().mean()


def sees_the_image(model, x_0, t, eps, alpha_bar):
    signal, noise, _ = parts(x_0, t, eps, alpha_bar)
    return (model(x_0, t) - (signal * eps - noise * x_0)).square().mean()


def summed(model, x_0, t, eps, alpha_bar):
    return v_loss(model, x_0, t, eps, alpha_bar) * x_0.numel()


def table():
    alpha_bar = torch.tensor([1.0, 0.9, 0.7, 0.5, 0.2, 0.1])
    for t in (1, 2, 4):
        yield 0.05, t, alpha_bar


def errors(error, t, alpha_bar):
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    return error / snr, error * (snr + 1) / snr


def upside_down(error, t, alpha_bar):
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    return error * snr, error * (snr + 1)


def rooted(error, t, alpha_bar):
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    return error / snr.sqrt(), error * ((snr + 1) / snr).sqrt()


def v_from_eps_alone(error, t, alpha_bar):
    snr = alpha_bar[t] / (1 - alpha_bar[t])
    return error / snr, error / (snr + 1)


def signal_for_snr(error, t, alpha_bar):
    return error / alpha_bar[t], error * (alpha_bar[t] + 1) / alpha_bar[t]


def draws(answer, n, T):
    """What can be said about times that are random: the kind, the ends, and whether a batch mixes them."""
    generator = torch.Generator().manual_seed(0)
    t = answer(n, T, generator)
    if t is None or t is ...:
        return None
    t = torch.as_tensor(t)
    again = torch.cat([torch.as_tensor(answer(n, T, generator)).flatten() for _ in range(200)])
    whole = not (t.is_floating_point() or t.dtype == torch.bool)
    return whole, tuple(t.shape) == (n,), int(again.min()), int(again.max()), len(t.unique()) > 1


EXERCISES = {
    "06a": Exercise(
        v_loss,
        batch,
        {
            "the sign is turned: v = sqrt(abar) eps - sqrt(1 - abar) x_0, noise with the plus": other_sign,
            "exchange the factors: v has sqrt(abar) at the noise, where x_t has it at the image": (
                not_exchanged
            ),
            "that is the loss of a network that predicts the noise: the target is v here": of_noise,
            "the model was shown the clean image: it has to see x_t": sees_the_image,
            "that is the sum over all pixels: the mean stays the same size for any batch": summed,
        },
    ),
    "06b": Exercise(
        lambda n, decay: math.prod(min(decay, (1 + k) / (10 + k)) for k in range(1, n + 1)),
        lambda: [(1, 0.999), (3, 0.9), (4, 0.3)],
        {
            "that is without warm-up: in the first steps d_n is (1 + n) / (10 + n)": lambda n, decay: (
                decay**n
            ),
            "that is the decay of the last update alone: each update multiplies once more": (
                lambda n, decay: min(decay, (1 + n) / (10 + n))
            ),
            "the minimum is taken, not the maximum: the warm-up lets the average follow faster": (
                lambda n, decay: math.prod(max(decay, (1 + k) / (10 + k)) for k in range(1, n + 1))
            ),
            "updates count from 1: the first one has d_1 = 2 / 11": (
                lambda n, decay: math.prod(min(decay, (1 + k) / (10 + k)) for k in range(n))
            ),
            "that is the share of everything since: what is left of the beginning is asked": (
                lambda n, decay: 1 - math.prod(min(decay, (1 + k) / (10 + k)) for k in range(1, n + 1))
            ),
        },
        within=1e-6,
    ),
    "06c": Exercise(
        errors,
        table,
        {
            "upside down: at low noise an error in eps is small in x_0, so divide by the SNR": upside_down,
            "errors are squared, so their factor is the SNR itself and not its root": rooted,
            "x_0 is right; go to v from there: multiply the error in x_0 by SNR + 1": v_from_eps_alone,
            "the SNR is abar / (1 - abar), not abar": signal_for_snr,
        },
    ),
    "06d": Exercise(
        lambda n, T, generator: torch.randint(1, T + 1, (n,), generator=generator),
        lambda: [(64, 5), (8, 20)],
        {
            "each image has its own time now, but times go from 1 to T: 0 is the clean image": (
                lambda n, T, generator: torch.randint(0, T, (n,), generator=generator)
            ),
            "the range is right, but all images of the batch still share one time": (
                lambda n, T, generator: torch.randint(1, T + 1, (1,), generator=generator).expand(n)
            ),
            "randint leaves its upper end out: T itself is never drawn": (
                lambda n, T, generator: torch.randint(1, T, (n,), generator=generator)
            ),
            "0 is among them: there is no noise at t = 0, and nothing to learn": (
                lambda n, T, generator: torch.randint(0, T + 1, (n,), generator=generator)
            ),
            "nothing is repaired yet: draw n numbers, and look at both ends of the range": (
                lambda n, T, generator: torch.randint(0, T, (1,), generator=generator).expand(n)
            ),
        },
        call=draws,
    ),
}
