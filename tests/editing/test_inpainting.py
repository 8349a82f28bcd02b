"""Known pixels: that they stay, and how well what is drawn around them fits them.

THE KNOWN ANSWER. Two pixels are jointly Gaussian with mean m, variance 1 and correlation rho, and the first
is known to be k. The second is then N(m_2 + rho (k - m_1), 1 - rho^2). The denoiser is exact and affine, and
so is a whole run: its end is linear in k, in x_T and in every draw of noise. `response` runs the real sampler
once on a batch of unit impulses, one for each of these, and reads off mean and variance: nothing is sampled.
"""

import itertools
import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from tinyddpm.editing.inpainting import inpaint, resampling_grid
from tinyddpm.extensions.gradient_guidance import energy_guidance
from tinyddpm.extensions.score_sde import euler_maruyama, predictor_corrector
from tinyddpm.guidance import classifier_free_guidance, clip_x_0
from tinyddpm.oracle import gaussian_oracle
from tinyddpm.samplers import ddim, dpm_solver_pp, heun, last, p_sample_loop
from tinyddpm.schedules import Schedule

COSINE = Schedule.named("cosine", 50)
ANCESTRAL = {"posterior": p_sample_loop, "beta": partial(p_sample_loop, variance="beta")}
IMPLICIT = {f"ddim {eta:g}": partial(ddim, eta=eta) for eta in (0.0, 0.3, 1.0)}
NOISY = {**ANCESTRAL, **IMPLICIT, "sde": euler_maruyama, "predictor-corrector": predictor_corrector}
del NOISY["ddim 0"]
SAMPLERS = {**NOISY, "ddim 0": ddim, "heun": heun, "dpm": dpm_solver_pp}
FIRST = torch.tensor([1.0, 0.0])  # the mask: the first of two pixels is known


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=seeded(seed), dtype=dtype)


def images(*shape, dtype=torch.float64, seed=0):
    """Grey values as they come from a file: multiples of 1 / 127.5."""
    return torch.randint(0, 256, shape, generator=seeded(seed)).to(dtype) / 127.5 - 1


def denoiser(x_t, t):
    """Stands for a network: each pixel sees all others of its image."""
    return (1.3 * x_t + x_t.mean((1, 2, 3), keepdim=True) + 0.1 * t.reshape(-1, 1, 1, 1) / 50).sin()


def half(*shape, seed=3):
    return (torch.rand(*shape, generator=seeded(seed)) < 0.5).double()


def run(name, known, mask, x_T=None, grid=None, seed=1):
    sampler = SAMPLERS[name]
    x_T = randn(*known.shape, dtype=known.dtype) if x_T is None else x_T
    return last(sampler(inpaint(denoiser, known, mask), x_T, COSINE, grid or COSINE.grid(10), seeded(seed))).x_t


# The known answer


def correlated(rho, schedule, mean=(0.0, 0.0)):
    """E[x_0 | x_t] = m + sqrt(abar) C (abar C + (1 - abar) I)^-1 (x_t - sqrt(abar) m)."""
    C, m = torch.tensor([[1, rho], [rho, 1]], dtype=torch.float64), torch.tensor(mean, dtype=torch.float64)

    def oracle(x_t, t):
        abar = float(schedule.alpha_bar[t[0]])
        K = math.sqrt(abar) * C @ (abar * C + (1 - abar) * torch.eye(2, dtype=torch.float64)).inverse()
        return (m + (x_t.flatten(1) - math.sqrt(abar) * m) @ K.T).reshape(x_t.shape)

    return oracle


def response(sampler, rho, monkeypatch, schedule=COSINE, grid=None, mean=(0.0, 0.0), mask=FIRST):
    """Of every Step: (t, at 0, slope in k, covariance) of the two pixels over x_T and all noise."""
    n = 2 * (1 + len(grid or schedule.grid()))
    impulse = torch.zeros(n + 2, 1, 1, 2, dtype=torch.float64)  # the last two: all 0, and k = 1
    place = itertools.count(2, step=2)

    def one_for_each(x, generator=None):
        noise, k = torch.zeros_like(x), next(place)
        noise[k, ..., 0] = noise[k + 1, ..., 1] = 1
        return noise

    monkeypatch.setattr("tinyddpm.samplers.noise_like", one_for_each)
    x_T, known = impulse.clone(), impulse.clone()
    x_T[0, ..., 0] = x_T[1, ..., 1] = known[-1, ..., 0] = 1
    believed = inpaint(correlated(rho, schedule, mean), known, mask)
    out = []
    for step in sampler(believed, x_T, schedule, grid):
        x = step.x_t.reshape(n + 2, 2)
        A = x[:n] - x[n]
        out.append((step.t, x[n], x[-1] - x[n], A.T @ A))
    assert next(place) <= n  # every draw had its own
    return out


def drawn(sampler, rho, monkeypatch, schedule=COSINE, grid=None):
    """Slope in k and variance of the pixel that is not known, at the end."""
    _, _, slope, cov = response(sampler, rho, monkeypatch, schedule, grid)[-1]
    assert slope[0] == pytest.approx(1, abs=1e-12) and cov[0].abs().max() < 1e-24  # the known one is k
    return torch.stack([slope[1], cov[1, 1]])


def test_the_correlated_oracle_is_bayes_rule_in_precisions():
    # prior C^-1 and likelihood abar / (1 - abar) add up; pixel by pixel where rho = 0
    C = torch.tensor([[1, 0.6], [0.6, 1]], dtype=torch.float64)
    m, x_t, t = torch.tensor([0.3, -0.2], dtype=torch.float64), randn(3, 1, 1, 2), torch.full((3,), 30)
    abar = float(COSINE.alpha_bar[30])
    precision = C.inverse() + abar / (1 - abar) * torch.eye(2, dtype=torch.float64)
    pulls = C.inverse() @ m + math.sqrt(abar) / (1 - abar) * x_t.reshape(3, 2)
    expected = torch.linalg.solve(precision, pulls.T).T.reshape(x_t.shape)
    assert_close(correlated(0.6, COSINE, (0.3, -0.2))(x_t, t), expected, rtol=1e-10, atol=1e-10)
    by_pixel = gaussian_oracle(m, 1.0, COSINE)
    assert_close(correlated(0.0, COSINE, (0.3, -0.2))(x_t, t), by_pixel(x_t, t), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["posterior", "beta", "ddim 0"])
def test_where_nothing_is_known_the_two_pixels_are_drawn_with_their_correlation(name, monkeypatch):
    # the error that is left is the sampler's own, of first order in its steps
    errors = []
    for T in (50, 200):
        schedule = Schedule.named("cosine", T)
        _, _, slope, cov = response(SAMPLERS[name], 0.8, monkeypatch, schedule, mask=torch.zeros(2))[-1]
        assert slope.abs().max() == 0
        exact = torch.tensor([[1, 0.8], [0.8, 1]], dtype=torch.float64)
        errors.append(float((cov - exact).abs().max()))
    assert errors[1] < 0.03 and errors[0] > 3 * errors[1]


@pytest.mark.parametrize("name, repeats", [("posterior", 1), ("posterior", 4), *[(d, 1) for d in IMPLICIT]])
def test_on_the_way_the_known_pixels_are_as_noisy_as_the_rest(name, repeats, monkeypatch):
    # N(sqrt(abar_t) k, 1 - abar_t) at every t, also after each climb; "beta" has more noise by intent
    grid = resampling_grid(COSINE.grid(12), jump=3, repeats=repeats)
    for t, zero, slope, cov in response(SAMPLERS[name], 0.9, monkeypatch, grid=grid)[1:]:
        abar = float(COSINE.alpha_bar[t])
        assert zero[0] == 0 and float(slope[0]) == pytest.approx(math.sqrt(abar), abs=1e-3)
        assert float(cov[0, 0]) == pytest.approx(1 - abar, abs=1e-6)


def without_resampling(rho):
    """Slope and variance in the limit of many steps, by solving the reverse SDE. With z = alpha_bar from 0 to
    1, and the known pixel on its bridge to k, the other one follows
        dx = ((rho x_known - rho^2 z x) / (1 - rho^2 z^2) - x / (2 z)) dz + dw / sqrt(z).
    """
    q = math.sqrt(1 - rho**2)
    return torch.tensor([(1 - q) / rho, 2 * q**2 * (math.atanh(rho) / rho - 1 / (1 + q))])


def without_noise(rho, n=4000):
    """The same for the ODE, dx / dz = (rho x_known - rho^2 z x) / (2 (1 - rho^2 z^2)), by the midpoint rule
    over the angle; x_known = sqrt(z) k + sqrt(1 - z) of the first pixel of x_T."""
    phi = (torch.arange(n, dtype=torch.float64) + 0.5) / n * math.pi / 2
    z = phi.sin() ** 2
    pull = ((1 - rho**2) / (1 - rho**2 * z**2)) ** 0.25 * rho / (2 * (1 - rho**2 * z**2))
    pull = pull * 2 * phi.sin() * phi.cos() * math.pi / 2 / n
    return torch.stack([(pull * z.sqrt()).sum(), (1 - rho**2) ** 0.5 + (pull * (1 - z).sqrt()).sum() ** 2])


@pytest.mark.parametrize("rho", [0.9, 0.1, -0.9])
@pytest.mark.parametrize(
    "name, limit",
    [
        ("posterior", without_resampling),
        ("beta", without_resampling),
        ("ddim 0", without_noise),
        ("heun", without_noise),
    ],
)
def test_many_steps_do_not_mend_the_bias_but_come_to_its_closed_form(name, limit, rho, monkeypatch):
    # first order in the steps: one Richardson extrapolation leaves little
    schedules = [Schedule.named("flow", T) for T in (50, 100)]
    coarse, fine = (drawn(SAMPLERS[name], rho, monkeypatch, schedule) for schedule in schedules)
    assert_close(2 * fine - coarse, limit(rho).double(), rtol=0, atol=5e-3)
    # too little of k, and too much of a spread of its own
    slope, variance = limit(rho).tolist()
    assert abs(slope) < 0.7 * abs(rho) and variance - (1 - rho**2) > 0.2 * rho**2


@pytest.mark.parametrize("name, share", [("posterior", 1 / 2), ("ddim 0", 1 / 3)])
def test_of_a_weak_correlation_ancestral_sampling_keeps_half_and_the_ode_a_third(name, share, monkeypatch):
    schedules = [Schedule.named("flow", T) for T in (50, 100)]
    coarse, fine = (drawn(SAMPLERS[name], 0.01, monkeypatch, schedule)[0] for schedule in schedules)
    assert float(2 * fine - coarse) / 0.01 == pytest.approx(share, abs=0.01)


def test_ddim_with_all_its_noise_has_the_bias_of_ancestral_sampling(monkeypatch):
    grid = COSINE.grid(17)
    ours = [drawn(SAMPLERS[name], 0.9, monkeypatch, grid=grid) for name in ("ddim 1", "posterior")]
    assert_close(*ours, rtol=1e-10, atol=1e-10)


# 25 steps in jumps of 1, walked 1, 2, 5 and 20 times: the slope comes to rho
SLOPES = [(0.9, [0.600, 0.740, 0.836, 0.877]), (0.5, [0.255, 0.338, 0.418, 0.473])]


@pytest.mark.parametrize("rho, slopes", SLOPES)
def test_resampling_brings_the_mean_to_the_known_answer(rho, slopes, monkeypatch):
    for repeats, slope in zip((1, 2, 5, 20), slopes):
        grid = resampling_grid(COSINE.grid(25), jump=1, repeats=repeats)
        assert float(drawn(p_sample_loop, rho, monkeypatch, grid=grid)[0]) == pytest.approx(slope, abs=1e-3)
    assert rho - slopes[0] > 0.24 and rho - slopes[-1] < 0.03


@pytest.mark.parametrize("rho, once, often", [(0.9, 0.396, 0.207), (0.5, 0.852, 0.756)])
def test_resampling_brings_the_variance_to_the_known_answer(rho, once, often, monkeypatch):
    # with "beta": "posterior" takes a little off at every step, and so too much where there are many
    for repeats, expected in ((1, once), (20, often)):
        grid = resampling_grid(COSINE.grid(25), jump=1, repeats=repeats)
        found = float(drawn(ANCESTRAL["beta"], rho, monkeypatch, grid=grid)[1])
        assert found == pytest.approx(expected, abs=1e-3)
    assert once - (1 - rho**2) > 0.1 and abs(often - (1 - rho**2)) < 0.02
    assert float(drawn(p_sample_loop, rho, monkeypatch, grid=grid)[1]) < 0.8 * (1 - rho**2)


def test_long_jumps_help_less_than_short_ones_for_as_many_calls(monkeypatch):
    # each of 25 steps is walked 10 times; a jump over all of them begins again from nothing but noise
    left, calls = [], set()
    for jump in (1, 5, 10, 25):
        grid = resampling_grid(COSINE.grid(25), jump, repeats=10)
        calls.add(sum(t > s for t, s in grid))
        left.append(0.9 - float(drawn(p_sample_loop, 0.9, monkeypatch, grid=grid)[0]))
    assert calls == {241}
    assert left == sorted(left) and left[0] < 0.04 and left[2] < 0.06
    once = 0.9 - float(drawn(p_sample_loop, 0.9, monkeypatch, grid=COSINE.grid(25))[0])
    assert left[3] == pytest.approx(once, abs=1e-3)


def test_a_known_value_at_its_mean_draws_the_other_one_s_mean(monkeypatch):
    # the bias lies in the slope alone
    mean = (0.4, -0.3)
    for name in ("posterior", "ddim 0"):
        _, zero, slope, _ = response(SAMPLERS[name], 0.9, monkeypatch, mean=mean)[-1]
        assert float(zero[1] + 0.4 * slope[1]) == pytest.approx(-0.3, abs=1e-3)


# Known pixels stay


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", SAMPLERS)
def test_known_pixels_end_exactly_as_they_are_and_the_rest_is_drawn(name, dtype):
    known, mask = images(4, 1, 8, 8, dtype=dtype), half(4, 1, 8, 8)
    end = run(name, known, mask)
    assert end.dtype == dtype and torch.equal(end[mask == 1], known[mask == 1])
    assert (end[mask == 0] - known[mask == 0]).abs().min() > 1e-6
    other = run(name, known, mask, x_T=randn(4, 1, 8, 8, dtype=dtype, seed=5))
    assert (other[mask == 0] - end[mask == 0]).abs().min() > 1e-6


def test_known_pixels_end_exactly_as_they_are_where_the_grid_climbs():
    known, mask = images(4, 1, 8, 8, dtype=torch.float32), half(4, 1, 8, 8)
    end = run("posterior", known, mask, grid=resampling_grid(COSINE.grid(10), 3, 4))
    assert torch.equal(end[mask == 1], known[mask == 1])


def test_what_is_drawn_sees_what_is_known():
    mask, x_T = half(1, 1, 4, 4), randn(1, 1, 4, 4)
    a, b = (run("ddim 0", torch.full_like(x_T, grey), mask, x_T) for grey in (-0.9, 0.9))
    assert (a - b)[mask == 0].abs().min() > 0.01


def test_the_filled_x_0_is_the_known_pixels_and_the_denoiser_s_others():
    x_t, known, mask, t = randn(3, 2, 4, 4), images(3, 2, 4, 4), half(3, 2, 4, 4), torch.tensor([3, 20, 50])
    filled = inpaint(denoiser, known, mask)(x_t, t)
    assert torch.equal(filled, mask * known + (1 - mask) * denoiser(x_t, t))
    assert torch.equal(inpaint(denoiser, known, torch.zeros(4, 4))(x_t, t), denoiser(x_t, t))
    assert torch.equal(inpaint(denoiser, known, torch.ones(4, 4))(x_t, t), known)


@pytest.mark.parametrize("shape", [(4, 4), (1, 4), (4, 1), (1,), (1, 4, 4), (1, 1, 4, 4), (3, 1, 1, 1)])
def test_a_mask_broadcasts_to_the_images(shape):
    x_t, known, t = randn(3, 2, 4, 4), images(3, 2, 4, 4), torch.tensor([3, 20, 50])
    mask = half(*shape)
    wide = mask.expand(3, 2, 4, 4).contiguous()
    expected = inpaint(denoiser, known, wide)(x_t, t)
    for kind in (torch.float32, torch.float64, torch.bool, torch.uint8, torch.long):
        assert torch.equal(inpaint(denoiser, known, mask.to(kind))(x_t, t), expected)


def test_pixels_that_are_not_known_may_hold_anything():
    known, mask = images(2, 1, 4, 4), half(4, 4)
    spoilt = torch.where(mask == 1, known, math.nan)
    assert torch.equal(run("ddim 0", spoilt, mask), run("ddim 0", known, mask))


@pytest.mark.parametrize("name", NOISY)
def test_an_inpainted_image_is_the_one_that_its_seed_gives_alone(name):
    known, mask, x_T = images(3, 1, 4, 4), half(3, 1, 4, 4), randn(3, 1, 4, 4)
    grid = COSINE.grid(8)

    def end(which):
        believed = inpaint(denoiser, known[which], mask[which])
        return last(NOISY[name](believed, x_T[which], COSINE, grid, generator=[seeded(k) for k in which])).x_t

    together = end([0, 1, 2])
    for k in range(3):
        assert_close(end([k]), together[k : k + 1], rtol=1e-12, atol=1e-12)
    assert torch.equal(end([0, 1, 2]), together)


def test_inpainting_goes_outside_guidance_and_clipping():
    x_t, t, known, mask = randn(2, 1, 4, 4), torch.tensor([3, 20]), images(2, 1, 4, 4), half(4, 4)
    guided = classifier_free_guidance(denoiser, lambda x_t, t: 0.5 * x_t, 5.0)
    steered = energy_guidance(guided, lambda x, t: x.square().flatten(1).sum(1), COSINE, 0.1)
    filled = inpaint(clip_x_0(steered), known, mask)(x_t, t)
    assert torch.equal(filled[..., mask == 1], known[..., mask == 1])
    assert torch.equal(filled[..., mask == 0], clip_x_0(steered)(x_t, t)[..., mask == 0])


# What is refused, and in which words


@pytest.mark.parametrize(
    "mask, found",
    [
        (torch.tensor([[0.0, 0.5]]), r"shape \(1, 2\) with values in \[0, 0.5\]"),
        (torch.tensor([[0, 255]]), r"shape \(1, 2\) with values in \[0, 255\]"),
        (torch.tensor([[0.0, math.nan]]), r"shape \(1, 2\) with values in \[nan, nan\]"),
        (torch.ones(3, 4), r"shape \(3, 4\) with values in \[1, 1\]"),
        (torch.ones(3, 1, 4, 4), r"shape \(3, 1, 4, 4\) with values"),
        (torch.ones(1, 2, 1, 4, 2), r"shape \(1, 2, 1, 4, 2\) with values"),
    ],
    ids=str,
)
def test_a_mask_of_other_values_or_another_shape_is_refused(mask, found):
    with pytest.raises(ValueError, match=rf"broadcasts to \(2, 1, 4, 2\), got {found}.*mask > 0.5"):
        inpaint(denoiser, images(2, 1, 4, 2), mask)


def test_one_image_of_known_pixels_serves_a_batch():
    known, x_t, t = images(1, 1, 4, 4), randn(3, 1, 4, 4), torch.tensor([3, 20, 50])
    filled = inpaint(denoiser, known, half(4, 4))(x_t, t)
    assert torch.equal(filled, inpaint(denoiser, known.expand(3, 1, 4, 4), half(4, 4))(x_t, t))


@pytest.mark.parametrize("shape", [(2, 1, 4, 4), (1, 3, 4, 4), (3, 3, 4, 4), (3, 1, 1, 4), (3, 1, 1, 1)], ids=str)
def test_known_pixels_of_another_shape_than_the_images_are_refused(shape):
    # torch would broadcast the last four in silence
    filled = inpaint(denoiser, images(*shape), torch.ones(1))
    with pytest.raises(ValueError, match=r"do not fit images of \(3, 1, 4, 4\)"):
        filled(randn(3, 1, 4, 4), torch.tensor([3, 20, 50]))


def test_two_known_images_are_not_known_for_one():
    with pytest.raises(ValueError, match=r"\(2, 1, 4, 4\) do not fit images of \(1, 1, 4, 4\)"):
        inpaint(denoiser, images(2, 1, 4, 4), half(4, 4))(randn(1, 1, 4, 4), torch.tensor([3]))
