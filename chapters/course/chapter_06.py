"""The exercises of chapter 06: training."""

import math

import torch

from .exercises import Exercise


def batch():
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 4, 1, 4, 4, generator=generator)  # as many images as columns: see not_reshaped
    alpha_bar = torch.tensor([1.0, 0.9, 0.7, 0.5, 0.2, 0.01])
    yield model, x_0, torch.tensor([1, 2, 4, 5]), eps, alpha_bar


def model(x_t, t):
    return 0.3 * x_t + 0.1 * t.reshape(-1, 1, 1, 1)


def parts(x_0, t, eps, alpha_bar):
    signal = alpha_bar[t].reshape(-1, 1, 1, 1).sqrt()
    noise = (1 - signal**2).sqrt()
    return signal, noise, signal * x_0 + noise * eps


def v_loss(model, x_0, t, eps, alpha_bar):
    return loss_of(lambda signal, noise, x_0, eps: signal * eps - noise * x_0)(model, x_0, t, eps, alpha_bar)


def loss_of(target):
    def loss(model, x_0, t, eps, alpha_bar):
        signal, noise, x_t = parts(x_0, t, eps, alpha_bar)
        return (model(x_t, t) - target(signal, noise, x_0, eps)).square().mean()

    return loss


def not_reshaped(model, x_0, t, eps, alpha_bar):
    signal, noise = alpha_bar[t].sqrt(), (1 - alpha_bar[t]).sqrt()
    return (model(signal * x_0 + noise * eps, t) - (signal * eps - noise * x_0)).square().mean()


def without_roots(model, x_0, t, eps, alpha_bar):
    signal = alpha_bar[t].reshape(-1, 1, 1, 1)
    x_t = signal * x_0 + (1 - signal) * eps
    return (model(x_t, t) - (signal * eps - (1 - signal) * x_0)).square().mean()


def sees_the_image(model, x_0, t, eps, alpha_bar):
    signal, noise, _ = parts(x_0, t, eps, alpha_bar)
    return (model(x_0, t) - (signal * eps - noise * x_0)).square().mean()


def summed(model, x_0, t, eps, alpha_bar):
    return v_loss(model, x_0, t, eps, alpha_bar) * x_0.numel()


def table():
    alpha_bar = torch.tensor([1.0, 0.9, 0.7, 0.5, 0.2, 0.1])
    for t in (1, 2, 4):
        yield 0.05, t, alpha_bar


def errors_by(from_eps, from_x_0):
    """An answer to 06c: how to go from the error in eps to that in x_0, and from there to that in v."""

    def answer(error, t, alpha_bar):
        snr = alpha_bar[t] / (1 - alpha_bar[t])
        in_x_0 = from_eps(error, snr)
        return in_x_0, from_x_0(in_x_0, snr)

    return answer


def divided(error, snr):
    return error / snr


def times_snr_and_one(error, snr):
    return error * (snr + 1)


errors = errors_by(divided, times_snr_and_one)


def signal_for_snr(error, t, alpha_bar):
    return error / alpha_bar[t], error * (alpha_bar[t] + 1) / alpha_bar[t]


def draws(answer, n, T):
    """What can be said about times that are random: the kind, the ends, and whether a batch mixes them."""
    generator = torch.Generator().manual_seed(0)
    t = answer(n, T, generator)
    if t is None or t is ...:
        return None
    t = torch.as_tensor(t)
    repeated = torch.as_tensor(answer(n, T, torch.Generator().manual_seed(0)))
    again = torch.cat([torch.as_tensor(answer(n, T, generator)).flatten() for _ in range(200)])
    whole = not (t.is_floating_point() or t.dtype == torch.bool)
    ends = int(again.min()), int(again.max())
    return whole, tuple(t.shape) == (n,), *ends, len(t.unique()) > 1, torch.equal(t, repeated)


EXERCISES = {
    "06a": Exercise(
        v_loss,
        batch,
        {
            "the sign is turned: v = sqrt(abar) eps - sqrt(1 - abar) x_0, noise with the plus": loss_of(
                lambda signal, noise, x_0, eps: noise * x_0 - signal * eps
            ),
            "exchange the factors: v has sqrt(abar) at the noise, where x_t has it at the image": loss_of(
                lambda signal, noise, x_0, eps: signal * x_0 - noise * eps
            ),
            "the signs are right, the factors are not: sqrt(abar) belongs to the noise": loss_of(
                lambda signal, noise, x_0, eps: noise * eps - signal * x_0
            ),
            "v is a difference: the image enters it with a minus": loss_of(
                lambda signal, noise, x_0, eps: signal * eps + noise * x_0
            ),
            "the factors are the roots of abar and of 1 - abar, in x_t and in v": without_roots,
            "alpha_bar[t] has the shape (b,) and was spread along the width of the images, without an error, "
            "since there are as many images as columns: reshape it to (b, 1, 1, 1)": not_reshaped,
            "that is the loss of a network that predicts the noise: the target is v here": loss_of(
                lambda signal, noise, x_0, eps: eps
            ),
            "that is the loss of a network that predicts the image: the target is v here": loss_of(
                lambda signal, noise, x_0, eps: x_0
            ),
            "the model was shown the clean image: it has to see x_t": sees_the_image,
            "that is the sum over all pixels: the mean stays the same size for any batch": summed,
        },
    ),
    "06b": Exercise(
        lambda n, decay: math.prod(min(decay, (1 + k) / (10 + k)) for k in range(1, n + 1)),
        lambda: [(1, 0.999), (3, 0.9), (4, 0.3)],
        {
            "that is without warm-up: in the first steps d_n is (1 + n) / (10 + n)": lambda n, decay: decay**n,
            "that is the decay of the last update alone: each update multiplies once more": (
                lambda n, decay: min(decay, (1 + n) / (10 + n))
            ),
            "the minimum is taken, not the maximum: the warm-up lets the average follow faster": (
                lambda n, decay: math.prod(max(decay, (1 + k) / (10 + k)) for k in range(1, n + 1))
            ),
            "updates count from 1: the first one has d_1 = 2 / 11": (
                lambda n, decay: math.prod(min(decay, (1 + k) / (10 + k)) for k in range(n))
            ),
            "one factor too many: the first update is k = 1, there is none with k = 0": (
                lambda n, decay: math.prod(min(decay, (1 + k) / (10 + k)) for k in range(n + 1))
            ),
            "that is d_n to the power n: each update has a d_k of its own, the early ones smaller": (
                lambda n, decay: min(decay, (1 + n) / (10 + n)) ** n
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
            "the error in x_0 is upside down: at low noise an error in eps is small in x_0, so divide by the "
            "SNR. From x_0 to v you went rightly": errors_by(lambda e, snr: e * snr, times_snr_and_one),
            "the error in v is right, that in x_0 is upside down: divide by the SNR": lambda e, t, abar: (
                e * abar[t] / (1 - abar[t]),
                errors(e, t, abar)[1],
            ),
            "both are upside down: eps to x_0 divides by the SNR, x_0 to v multiplies by SNR + 1": errors_by(
                lambda e, snr: e * snr, lambda e, snr: e / (snr + 1)
            ),
            "x_0 is right; from there to v multiply by SNR + 1, do not divide": errors_by(
                divided, lambda e, snr: e / (snr + 1)
            ),
            "both are upside down: (6.7) divides the error in eps by the SNR": lambda e, t, abar: (
                e * abar[t] / (1 - abar[t]),
                e / (1 - abar[t]),
            ),
            "x_0 is right; SNR + 1 leads from x_0 to v, not from eps to v": lambda e, t, abar: (
                errors(e, t, abar)[0],
                e * (1 - abar[t]),
            ),
            "x_0 is right; for v multiply that by SNR + 1, not the error in eps": lambda e, t, abar: (
                errors(e, t, abar)[0],
                e / (1 - abar[t]),
            ),
            "x_0 is right; the error in v is not that in eps, it is larger": lambda e, t, abar: (
                errors(e, t, abar)[0],
                e,
            ),
            "the error in x_0 is divided by the SNR, not by SNR + 1": errors_by(
                lambda e, snr: e / (snr + 1), times_snr_and_one
            ),
            "the two are swapped: x_0 first, then v": lambda e, t, abar: errors(e, t, abar)[::-1],
            "errors are squared, so their factor is the SNR itself and not its root": errors_by(
                lambda e, snr: e / snr.sqrt(), lambda e, snr: e * (snr + 1).sqrt()
            ),
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
            "the generator is not used: without it the run cannot be repeated": (
                lambda n, T, generator: torch.randint(1, T + 1, (n,))
            ),
            "nothing is repaired yet: draw n numbers, and look at both ends of the range": (
                lambda n, T, generator: torch.randint(0, T, (1,), generator=generator).expand(n)
            ),
        },
        call=draws,
    ),
}
