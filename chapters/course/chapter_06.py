"""The exercises of chapter 06, training; its pictures, and the bookkeeping of chains of normal distributions."""

import math

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch.distributions import MultivariateNormal, Normal

from tinyddpm.evaluation import classify, load_classifier

from .exercises import Exercise, Experiment
from .figures import EXACT, NETWORK, NOISE, REST, SIGNAL, TEXT, label_lines, show_figure


def read(x, y) -> int:
    """How many of the drawings (n, 1, h, w) the library's classifier reads as y."""
    large = F.interpolate(x.clamp(-1, 1), size=(32, 32), mode="bilinear")
    return int((classify(load_classifier(), large).argmax(1) == y).sum())


def normal_chain(links, offset, variances):
    """The normal vector x with links @ x = offset + noise of these variances."""
    return MultivariateNormal(
        torch.linalg.solve(links, offset), precision_matrix=links.T @ (links / variances[:, None])
    )


def p_chain(p_step, schedule):
    """p(x_0, ..., x_T): every step is x_{t-1} = slope x_t + offset + noise, so all of it is one normal vector."""
    points = torch.tensor([0.0, 1.0], dtype=torch.float64).reshape(2, 1, 1, 1)
    rows = []
    for t in range(1, schedule.T + 1):
        step = p_step(points, t)
        at_0, at_1 = step.mean.flatten().tolist()
        rows.append([at_1 - at_0, at_0, float(step.variance.flatten()[0])])
    slope, offset, variances = torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64).T
    links = torch.eye(schedule.T + 1, dtype=torch.float64) - torch.diag(slope[:-1], 1)
    return normal_chain(links, offset, variances)


def log_p(x_0, p):
    """The exact log-density of x_0 under the chain p: its first entry, taken by itself."""
    return Normal(p.mean[0], p.variance[0].sqrt()).log_prob(torch.tensor(x_0, dtype=torch.float64))


def q_chain(x_0, schedule):
    """q(x_1, ..., x_T | x_0), one normal vector."""
    keep = (1 - schedule.beta[1:]).sqrt()
    offset = torch.zeros(schedule.T, dtype=torch.float64)
    offset[0] = keep[0] * x_0
    links = torch.eye(schedule.T, dtype=torch.float64) - torch.diag(keep[1:], -1)
    return normal_chain(links, offset, schedule.beta[1:])


def given_x_0(x_0, p):
    """p(x_1, ..., x_T | x_0), from p(x_0, ..., x_T)."""
    precision = p.precision_matrix
    shift = torch.linalg.solve(precision[1:, 1:], precision[1:, 0] * (x_0 - p.mean[0]))
    return MultivariateNormal(p.mean[1:] - shift, precision_matrix=precision[1:, 1:])


def loss_curve(losses, levels):
    figure, axes = plt.subplots(figsize=(7, 2.4))
    axes.plot(losses, "-", color=NETWORK, linewidth=0.8)
    for name, level in levels.items():
        axes.axhline(float(level), color=REST, linestyle="--", linewidth=0.8)
        below = "top" if "label" in name else "bottom"
        axes.text(len(losses), float(level), f"always {name}", ha="right", va=below, color=REST)
    axes.set(
        xlabel="step",
        ylabel="loss",
        yscale="log",
        ylim=(0.04, 1.3),
        title="a fast fall, and then nothing seems to happen",
    )
    show_figure("The loss falls within 100 steps far below the mean image of the label, and is almost flat afterwards.")


STYLES = {
    "ceiling": (REST, "--"),
    "no noise": (NOISE, ":"),
    "network, test": (NETWORK, "-"),
    "network, training": (NETWORK, "-."),
    "exact, test": (EXACT, "-"),
    "floor": (EXACT, "--"),
}


def anatomy(curves, times, schedule):
    """The errors of six denoisers by noise level, in x_0 and in eps, from much noise to little."""
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.6))
    log_snr = schedule.log_snr[times]
    for axes, factor, limits in zip(panels, (torch.ones(len(times)), log_snr.exp()), ((1e-4, 2), (1e-4, 30))):
        for name, values in curves.items():
            colour, style = STYLES[name]
            axes.semilogy(log_snr, torch.tensor(values) * factor, style, color=colour, label=name)
        labels = [f"{float(log_snr[k]):.1f}\nt = {times[k]}" for k in range(0, len(times), 3)]
        axes.set(xticks=log_snr[::3].tolist(), xticklabels=labels, xlabel="log-SNR", ylim=limits)
    panels[0].set_title("error in x_0, of a pixel")
    panels[1].set_title("the same error, in eps")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=6)
    show_figure(
        "Errors by noise level. They meet at high noise; in the middle the network lies between ceiling and floor; at "
        "low noise the exact denoiser does well on its own digits only."
    )


def weight_curves(weights):
    figure, axes = plt.subplots(figsize=(6, 2.6))
    styles = {"bound": (TEXT, "-"), "eps": (NOISE, "--"), "v": (NETWORK, "-."), "x_0": (SIGNAL, ":")}
    for name, weight in weights.items():
        colour, style = styles[name]
        axes.semilogy(range(2, 952), (weight / weight.sum())[:950], style, color=colour, label=name)
    axes.set(title="share of the loss's weight on errors in x_0", xlabel="t", ylim=(1e-9, 2), xlim=(0, 960))
    label_lines(axes)
    show_figure("The weight of an error by time: that of the bound falls from 1 to a billionth, that of x_0 is flat.")


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


def error_of(model, x_0, t, eps, alpha_bar):
    signal, noise, x_t = parts(x_0, t, eps, alpha_bar)
    return model(x_t, t) - (signal * eps - noise * x_0)


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


def gradients():
    generator = torch.Generator().manual_seed(0)
    weight, grad, mean = torch.randn(3, 5, generator=generator)
    square = mean**2 + torch.rand(5, generator=generator)
    yield weight, 0.01 * grad, torch.zeros(5), torch.zeros(5), 1, 1e-2
    yield weight, grad, mean, square, 4, 0.1


def adam(bias=True, root=True, square=True, kept="plain", sign=-1, decays=(0.9, 0.99), new=True, swapped=False):
    """An answer to 06b, with one thing changed."""

    def step(weight, grad, mean, second, n, lr):
        a, b = decays
        before = mean, second
        mean = a * mean + (1 - a) * grad
        second = b * second + (1 - b) * (grad**2 if square else grad)
        if swapped:
            mean, second = (1 - a) * before[0] + a * grad, (1 - b) * before[1] + b * grad**2
        m, s = (mean / (1 - a**n), second / (1 - b**n)) if bias else (mean, second)
        if kept == "corrected":
            mean, second = m, s
        if not new:
            m = grad
        return weight + sign * lr * m / ((s.abs() ** 0.5 if root else s) + 1e-8), mean, second

    return step


def half_corrected(weight, grad, mean, second, n, lr):
    mean, second = 0.9 * mean + 0.1 * grad, 0.99 * second + 0.01 * grad**2
    return weight - lr * mean / (1 - 0.9**n) / (second.sqrt() + 1e-8), mean, second


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
            "errors of both signs cancel: square them before the mean": lambda model, *a: error_of(model, *a).mean(),
            "that is the mean of the absolute errors: the mean of their squares is asked": (
                lambda model, *a: error_of(model, *a).abs().mean()
            ),
            "the model was shown the clean image: it has to see x_t": sees_the_image,
            "that is the sum over all pixels: the mean stays the same size for any batch": summed,
        },
    ),
    "06b": Exercise(
        adam(),
        gradients,
        {
            "the bias of the start is not divided away: at n = 1 the mean is a tenth of the gradient": adam(bias=False),
            "the mean's bias is divided away, and the square's is not": half_corrected,
            "the root is missing: divide by the root of the mean square": adam(root=False),
            "what is averaged in square is the gradient's square": adam(square=False),
            "the corrected values were kept: they serve for the step alone": adam(kept="corrected"),
            "that goes uphill: the step is against the gradient": adam(sign=1),
            "the decays are exchanged: 0.9 is the mean's, 0.99 the square's": adam(decays=(0.99, 0.9)),
            "you stepped along this gradient: the running mean is the direction": adam(new=False),
            "the shares are exchanged: the old mean keeps 0.9, the new gradient adds 0.1": adam(swapped=True),
        },
        within=1e-5,
    ),
    "06c": Exercise(
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
    "06e": Experiment(
        1.4,
        1.7,
        {
            "no difference: did the images and the denoiser get the other schedule?": (0.95, 1.05),
            "that is your loss over the colleague's: the other way round": (0.6, 0.7),
            "the other schedule spoiled the images, and your own restored them": (1.72, 1.85),
            "your own schedule spoiled the images, and the other restored them": (1.06, 1.2),
            "that is the colleague's loss itself: divide it by yours": (0.055, 0.065),
        },
    ),
}
