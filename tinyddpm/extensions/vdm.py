"""A network trained for the bound on the likelihood of images with 256 grey values (Kingma, Salimans, Poole & Ho 2021,
"Variational diffusion models").

It returns logits over the grey values of each pixel. The likelihood of each value given x_t is added in closed form, so
that the network need not learn to round: p(v | x_t) ~ exp(logit_v - (x_t - sqrt(alpha_bar_t) v)^2 / (2 (1 -
alpha_bar_t))). The mean of p is x_0_hat, and at t = 1 p is the decoder: the bound ends at t = 1, not at t = 0.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from ..data import from_uint8, to_uint8
from ..diffusion import Denoiser, Images, q_sample
from ..nn import NETWORKS
from ..samplers import noise_like
from ..schedules import Schedule, Table, betas_from, check_T, choose, require, with_zero
from ..tools.jobs import progress
from ..training import DenoisingLoss, Losses
from .likelihood import prior_nats
from .score_sde import log_likelihood

LEVELS = 256
POWERS, WIDTH = (2, 4), 32  # of GreyLevels
# (t / T, log-SNR): every step carries equally many bits of MNIST, within a factor of two, except for the last fifth
KNOTS = ((0.0, 8.0), (0.62, 2.0), (0.88, -2.0), (0.95, -4.0), (1.0, -10.0))


def bound_betas(T: int = 1000) -> Table:
    """Log-SNR from 8 at t = 1, a noise of two grey values, to -10 at T, along KNOTS: even in the bits that a step
    carries, which keeps the variance of the bound low (Kingma et al. 2021, section 5.1 and appendix I)."""
    check_T(T)
    u = torch.linspace(0, 1, T, dtype=torch.float64)
    places, values = torch.tensor(KNOTS, dtype=torch.float64).T.contiguous()
    k = (torch.searchsorted(places, u, right=True) - 1).clamp(0, len(places) - 2)
    share = (u - places[k]) / (places[k + 1] - places[k])
    log_snr = values[k] + share * (values[k + 1] - values[k])
    return with_zero(betas_from(torch.cat([u.new_ones(1), log_snr.sigmoid()])))


def grey_values(like: Tensor) -> Float[Tensor, " levels"]:
    """v / 127.5 - 1 for v in 0..255: the pixels of data.from_uint8, on the device of another tensor."""
    return from_uint8(torch.arange(LEVELS, dtype=torch.uint8, device=like.device)[None])[0]


def fourier_features(x: Images, powers: tuple[int, ...]) -> Float[Tensor, "b features h w"]:
    """x, and sin(2^n pi x) and cos(2^n pi x) for each power n (Kingma et al. 2021, appendix C), which still resolve
    x where bfloat16 rounds x itself by up to half a grey value."""
    angles = [2.0**n * math.pi * x for n in powers]
    return torch.cat([x, *(angle.sin() for angle in angles), *(angle.cos() for angle in angles)], dim=1)


def level_logits(
    model: Callable, x_t: Images, t: Tensor, schedule: Schedule, y: Tensor | None = None
) -> Float[Tensor, "b c h w levels"]:
    """log p(v | x_t) of each pixel and grey value v, up to a constant of each pixel."""
    logits = model(x_t, t, y, *schedule.coefficients(t, x_t))
    return logits.unflatten(1, (x_t.shape[1], LEVELS)).movedim(2, -1)


def level_denoiser(model: Callable, schedule: Schedule, predicts: str = "x_0", y: Tensor | None = None) -> Denoiser:
    """(x_t, t) -> x_0_hat, the mean of p(v | x_t)."""
    return lambda x_t, t: level_logits(model, x_t, t, schedule, y).softmax(-1) @ grey_values(x_t)


class GreyLevels(nn.Module):
    """A network of Fourier features of x_t that returns 256 logits for each pixel and channel, around one of
    c (1 + 2 len(powers)) channels in and c width out: a module, or the name of its class in NETWORKS with the arguments
    of that class.

    powers  of the Fourier features
    width   outputs of the inner network for each pixel, of which the logits are a linear map, in float32
    """

    make_denoiser = staticmethod(level_denoiser)

    def __init__(self, network: nn.Module | str, powers: tuple[int, ...] = POWERS, width: int = WIDTH, **arguments):
        super().__init__()
        inner: Any = choose(NETWORKS, network, "network")(**arguments) if isinstance(network, str) else network
        self.network, self.num_classes = inner, inner.num_classes
        self.arguments = {"network": type(inner).__name__, "powers": powers, "width": width, **inner.arguments}
        self.powers, self.width = powers, width
        self.levels = nn.Linear(width, LEVELS)
        waves = torch.arange(1, width - 1) * math.pi * (grey_values(self.levels.weight)[:, None] + 1) / 2
        ends = torch.eye(LEVELS)[:, [0, -1]]  # black and white are likelier than their neighbours
        self.levels.weight.data.copy_(torch.cat([waves.cos(), ends], dim=1))
        nn.init.zeros_(self.levels.bias)

    def forward(
        self,
        x_t: Images,
        t: Tensor,
        y: Tensor | None = None,
        signal: Float[Tensor, "b 1 1 1"] | None = None,
        noise: Float[Tensor, "b 1 1 1"] | None = None,
    ) -> Float[Tensor, "b logits h w"]:
        """signal and noise: the coefficients at t, to add what x_t says of its own pixels."""
        out = self.network(fourier_features(x_t, self.powers), t, y)
        with torch.autocast(x_t.device.type, enabled=False):
            weight, v = self.levels.weight, grey_values(x_t)
            maps = out.to(weight).unflatten(1, (-1, self.width))
            if signal is not None and noise is not None:  # -(x_t - signal v)^2 / (2 noise^2), without its x_t^2
                own = torch.stack([signal * x_t, -(signal**2).expand_as(x_t) / 2], dim=2) / (noise**2)[:, :, None]
                maps, weight = torch.cat([maps, own], dim=2), torch.cat([weight, v[:, None], v[:, None] ** 2], dim=1)
            logits = nn.functional.linear(maps.movedim(2, -1), weight, self.levels.bias)
        return logits.movedim(-1, 2).flatten(1, 2)


def bound_nats(
    model: Callable, x_0: Images, t: Int[Tensor, " b"], eps: Images, schedule: Schedule, y: Tensor | None = None
) -> Float[Tensor, " b"]:
    """The bound's term at one t for each image, in nats: (SNR_{t-1} - SNR_t) / 2 |x_0 - x_0_hat|^2 (Kingma et al. 2021,
    eq. 13 to 15), and at t = 1 -log p(x_0 | x_1)."""
    logits, first = level_logits(model, q_sample(x_0, t, eps, schedule), t, schedule, y), t == 1
    snr, nats = schedule.log_snr.exp(), x_0.new_zeros(len(x_0))
    weight = schedule.at(torch.cat([snr[:2] * 0, -snr[1:].diff() / 2]), t, x_0)[~first]
    error = weight * (x_0[~first] - logits[~first].softmax(-1) @ grey_values(x_0)).square()
    nats[~first] = error.flatten(1).sum(1)
    nats[first] = level_nats(logits[first], x_0[first])
    return nats


def level_nats(logits: Float[Tensor, "b c h w levels"], x_0: Images) -> Float[Tensor, " b"]:
    """-log p(x_0) of each image."""
    nats = nn.functional.cross_entropy(logits.flatten(0, -2), to_uint8(x_0).long().flatten(), reduction="none")
    return nats.reshape(x_0.shape).flatten(1).sum(1)


@dataclass(frozen=True)
class BoundLoss(DenoisingLoss):
    """The bound itself in bits per dimension, at one t for each image: an unbiased estimate of it. A share `first` of
    the images is at t = 1, the decoder's, and the others are even over 2..T, by low-discrepancy times (Kingma et al.
    2021, appendix I.1). predicts, loss, weights and times are not used. Raises ValueError for first outside (0, 1)."""

    first: float = 0.15

    def __post_init__(self):
        require(0 < self.first < 1, "the share of images at t = 1 must be in (0, 1)", self.first)

    def __call__(self, model: nn.Module, x_0: Images, y: Tensor | None, generator: Generator) -> Losses:
        _, eps, y = self.draw(model, x_0, y, generator)
        u, T = low_discrepancy(len(x_0), generator), self.schedule.T
        later = 2 + ((u - self.first) / (1 - self.first) * (T - 1)).long().clamp(0, T - 2)
        t = torch.where(u < self.first, 1, later)
        nats = bound_nats(model, x_0, t, eps, self.schedule, y)
        nats = nats * torch.where(t == 1, 1 / self.first, (T - 1) / (1 - self.first)) + prior_nats(x_0, self.schedule)
        return nats / x_0[0].numel() / math.log(2), t


def low_discrepancy(n: int, generator: Generator) -> Float[Tensor, " n"]:
    """(k / n + r) mod 1 for k in 0..n-1 and one random r: each is uniform in [0, 1), and together they are even."""
    r = torch.rand((), generator=generator, device=generator.device)
    return (torch.arange(n, device=generator.device) / n + r) % 1


def check_grey(x_0: Images) -> None:
    """Raises ValueError for images of other than the 256 grey values, which have no likelihood here."""
    off = float((x_0 - from_uint8(to_uint8(x_0))).abs().max()) if x_0.numel() else math.nan
    found = f"pixels {off:.2g} off: round them by data.to_uint8, and back by data.from_uint8"
    require(off < 1e-3, "a likelihood is of images of the 256 grey values v / 127.5 - 1", found)


@torch.no_grad()
def bits_by_time(
    model: Callable,
    x_0: Images,
    schedule: Schedule,
    y: Tensor | None = None,
    generator: Generator | None = None,
    every: int = 1,
    first: int = 0,
) -> Float[Tensor, "times b"]:
    """The bound's terms in bits per dimension, float64: that of t in row t, and in row 0 KL(q(x_T | x_0) || N(0, 1)).

    Of the times T..2 only each `every`-th is visited, from the one with index `first` on, and counts `every` times: the
    mean over all first in 0..every-1 is unbiased. Raises ValueError for images of other than the 256 grey values.
    """
    check_grey(x_0)
    nats = torch.zeros(schedule.T + 1, len(x_0), dtype=torch.float64)
    nats[0] = prior_nats(x_0.cpu().double(), schedule)
    for t in progress([*range(schedule.T, 1, -1)[first::every], 1], "bits per dimension"):
        at, eps = torch.full((len(x_0),), t, device=x_0.device), noise_like(x_0, generator)
        nats[t] = bound_nats(model, x_0, at, eps, schedule, y).cpu() * (1 if t == 1 else every)
    return nats / x_0[0].numel() / math.log(2)


def ode_bits(
    model: Callable,
    x_0: Images,
    schedule: Schedule,
    y: Tensor | None = None,
    generator: Generator | None = None,
    steps: int = 100,
) -> Float[Tensor, " b"]:
    """Bits per dimension by the exact density of the probability-flow ODE at t = 1, (b,): log p_1(x_1) + log p(x_0 |
    x_1) - log q(x_1 | x_0) at one x_1 of q, a bound with Gaussian noise where others dequantise with uniform noise
    (Zheng et al. 2023, "Improved techniques for maximum likelihood estimation for diffusion ODEs", section 3.1).

    Uniform noise does not fit a density learned with Gaussian noise of two grey values. Raises ValueError for
    images of other than the 256 grey values.
    """
    check_grey(x_0)
    first, eps = torch.ones(len(x_0), dtype=torch.long, device=x_0.device), noise_like(x_0, generator)
    x_1, noise = q_sample(x_0, first, eps, schedule), float(schedule.sqrt_one_minus_alpha_bar[1])
    log_q = -(eps.double().square() / 2 + math.log(noise * math.sqrt(2 * math.pi))).flatten(1).sum(1)
    denoiser, grid = level_denoiser(model, schedule, y=y), schedule.grid(min(steps, schedule.T))[:-1]
    log_p = log_likelihood(denoiser, x_1, schedule, [*grid[:-1], (grid[-1][0], 1)], generator)
    with torch.no_grad():
        decoder = level_nats(level_logits(model, x_1, first, schedule, y), x_0)
    return (log_q.cpu() - log_p + decoder.cpu()) / x_0[0].numel() / math.log(2)
