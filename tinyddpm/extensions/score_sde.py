"""The continuous view: the denoiser as a score, the reverse process as an SDE, and as an ODE with exact likelihoods.

The forward SDE is dx = -beta/2 x dt + sqrt(beta) dw (Song et al. 2021, "Score-based generative modeling through SDEs",
eq. 11). Over a step of the grid beta integrates to -log(alpha_bar_t / alpha_bar_s), whatever its course.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from ..diffusion import Denoiser, Images, eps_from_x_0
from ..samplers import Generators, Step, angle, check_arguments, noise_like, p_sample, times, trajectory, velocity
from ..schedules import Grid, Schedule, require


def score(denoiser: Denoiser, schedule: Schedule) -> Callable[[Tensor, Tensor], Tensor]:
    """The denoiser as (x_t, t) -> grad log p_t(x_t), t > 0, the gradient of the noisy images' log-density:
    (sqrt(alpha_bar_t) x_0_hat - x_t) / (1 - alpha_bar_t) = -eps_hat / sqrt(1 - alpha_bar_t) (Tweedie's formula: Efron
    2011, eq. 1.4; Vincent 2011)."""
    return lambda x_t, t: -eps_from_x_0(denoiser(x_t, t), x_t, t, schedule) / schedule.coefficients(t, x_t)[1]


def euler_maruyama(
    denoiser: Denoiser, x_T: Images, schedule: Schedule, grid: Grid | None = None, generator: Generators = None
) -> Iterator[Step]:
    """The reverse SDE dx = -beta (x/2 + score) dt + sqrt(beta) dw by the Euler-Maruyama method (Song et al. 2021,
    "SDEs", eq. 6 and appendix E): x_s = x_t + B (x_t / 2 + score) + sqrt(B) z, B = -log(alpha_bar_t / alpha_bar_s).

    It needs small B, unlike p_sample_loop, which solves the linear part exactly. The step to 0 returns x_0_hat. Raises
    ValueError for invalid arguments, and for a grid that starts from pure noise, where B is infinite.
    """
    grid = check_arguments(x_T, schedule, grid, generator)
    if schedule.alpha_bar[grid[0][0]] == 0:
        raise ValueError("this schedule ends in pure noise, where the SDE's beta is infinite: use p_sample_loop")

    def update(x_t: Images, x_0_hat: Images, t: int, s: int) -> Images:
        if s == 0:
            return x_0_hat
        B = math.log(schedule.alpha_bar[s] / schedule.alpha_bar[t])
        slope = score(lambda *_: x_0_hat, schedule)(x_t, times(t, x_t))
        return x_t + B * (x_t / 2 + slope) + B**0.5 * noise_like(x_t, generator)

    return trajectory(denoiser, x_T, grid, update)


def predictor_corrector(
    denoiser: Denoiser,
    x_T: Images,
    schedule: Schedule,
    grid: Grid | None = None,
    generator: Generators = None,
    snr: float = 0.16,
) -> Iterator[Step]:
    """p_sample_loop as the predictor, and after each step one of Langevin dynamics at s, the corrector (Song et al.
    2021, "SDEs", algorithm 5): x_s + e score + sqrt(2 e) z. Two calls of the denoiser a step.

    e = 2 snr^2 (1 - alpha_bar_s): without the paper's factor 1 - beta_s, and with the expected norm of eps, so that an
    image does not depend on its batch. Where p_s is standard normal the variance comes out 1 / (1 - e / 2) times too
    large, 2.6 % at the default. Raises ValueError for invalid arguments, and for snr outside (0, 1).
    """
    require(0 < snr < 1, "snr, the signal-to-noise ratio of the corrector, must be in (0, 1)", snr)

    def update(x_t: Images, x_0_hat: Images, t: int, s: int) -> Images:
        x_s = p_sample(x_t, x_0_hat, t, s, schedule, generator=generator)
        if s == 0:
            return x_s
        e = 2 * snr**2 * (1 - float(schedule.alpha_bar[s]))
        slope = score(denoiser, schedule)(x_s, times(s, x_s))
        return x_s + e * slope + (2 * e) ** 0.5 * noise_like(x_s, generator)

    return trajectory(denoiser, x_T, check_arguments(x_T, schedule, grid, generator), update)


def log_likelihood(
    denoiser: Denoiser,
    x: Images,
    schedule: Schedule,
    grid: Grid | None = None,
    generator: Generators = None,
    probes: int = 1,
) -> Float[Tensor, " b"]:
    """log p_s(x) = log N(x_T; 0, 1) + integral of div v_hat d phi along the probability-flow ODE, in nats, (b,) float64
    (Song et al. 2021, "SDEs", eq. 39). s >= 1 is where the grid, by default T..1, ends; Heun's method solves the ODE.

    The divergence is the mean of z . grad(v_hat . z) over `probes` random signs z, the same all the way (Hutchinson
    1990; Grathwohl et al. 2019, eq. 7): unbiased, and exact for independent pixels.

    Raises ValueError for fewer than 1 probe, and unless the grid goes from T down to 1 or above: the data themselves
    have no density, so noise them first, by q_sample.
    """
    grid = check_arguments(x, schedule, schedule.grid()[:-1] if grid is None else grid, generator)
    if grid[0][0] != schedule.T or grid[-1][1] < 1 or probes < 1:
        wanted = f"a grid from T = {schedule.T} down to 1 or above such as schedule.grid(steps)[:-1]"
        found = f"{probes=} and {grid[0][0]}..{grid[-1][1]}"
        raise ValueError(f"a likelihood needs at least 1 probe, and {wanted}, got {found}")
    signs = [noise_like(x, generator).sign() for _ in range(probes)]

    @torch.enable_grad()
    def slope_and_divergence(x: Images, t: int) -> tuple[Images, Tensor]:
        """v_hat at (x, t), and Hutchinson's estimate of its divergence over the pixels, (b,) float64."""
        x = x.detach().requires_grad_()
        v = velocity(denoiser(x, times(t, x)), x, t, schedule)
        divs = [(torch.autograd.grad((v * z).sum(), x, retain_graph=True)[0] * z).flatten(1).sum(1) for z in signs]
        return v.detach(), torch.stack(divs).mean(0).cpu().double()

    x = x.detach()
    expansion = torch.zeros(len(x), dtype=torch.float64)
    for t, s in reversed(grid):
        turn = angle(t, schedule) - angle(s, schedule)
        slope, div = slope_and_divergence(x, s)
        slope_t, div_t = slope_and_divergence(x + turn * slope, t)
        x = x + turn * (slope + slope_t) / 2
        expansion += turn * (div + div_t) / 2
    return expansion - (x.cpu().double().square() + math.log(2 * math.pi)).flatten(1).sum(1) / 2
