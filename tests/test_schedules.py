"""How much noise at each t: against the papers' closed forms and diffusers, whose t is ours - 1."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from tinyddpm.extensions.betas import sigmoid_betas, zero_terminal_snr
from tinyddpm.schedules import BETAS, Schedule, cosine_betas, flow_betas, linear_betas

PURE_NOISE = ("linear-zero-snr", "flow")  # those whose last beta is 1
# those that end in noise at every T
FULL_LENGTH = ("linear", "cosine", "cosine-shifted", "sigmoid", *PURE_NOISE)


def quiet(name, T):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schedule.named(name, T)


def quiet_of(beta):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Schedule(beta)


def x_of(b, dtype=torch.float64):
    return torch.zeros(b, 1, 2, 2, dtype=dtype)


# Against diffusers and closed forms


@pytest.mark.parametrize("T", [50, 300, 1000])
def test_linear_betas_are_those_of_diffusers(T):
    diffusers = pytest.importorskip("diffusers")
    scaled = diffusers.DDPMScheduler(T, beta_start=0.1 / T, beta_end=20 / T, beta_schedule="linear")
    assert_close(linear_betas(T)[1:].float(), scaled.betas, rtol=1e-6, atol=1e-7)
    published = diffusers.DDPMScheduler(T, beta_schedule="linear")
    assert_close(linear_betas(T, scaled=False)[1:].float(), published.betas, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("T", [10, 50, 1000])
def test_cosine_betas_are_those_of_diffusers(T):
    # trap 9: a lower clip, as one blog has it, would differ here
    diffusers = pytest.importorskip("diffusers")
    reference = diffusers.DDPMScheduler(T, beta_schedule="squaredcos_cap_v2")
    assert_close(cosine_betas(T)[1:].float(), reference.betas, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("T", [10, 1000])
@pytest.mark.parametrize("start, end, tau", [(-3.0, 3.0, 1.0), (0.0, 3.0, 0.7), (-3.0, 3.0, 0.9)])
def test_sigmoid_alpha_bar_is_the_formula_of_its_paper(T, start, end, tau):
    def alpha_bar(t):  # the sigmoid as a tanh, in plain floats
        s, e, u = (math.tanh(a / tau / 2) for a in (start, end, start + (end - start) * t / T))
        return (e - u) / (e - s)

    expected = [min(1 - alpha_bar(t) / alpha_bar(t - 1), 0.999) for t in range(1, T + 1)]
    assert_close(sigmoid_betas(T, start, end, tau)[1:].tolist(), expected, rtol=1e-8, atol=0)


@pytest.mark.parametrize("betas", [linear_betas, cosine_betas, sigmoid_betas], ids=lambda f: f.__name__)
@pytest.mark.parametrize("T", [30, 1000])
def test_zero_terminal_snr_is_that_of_diffusers(betas, T):
    pytest.importorskip("diffusers")
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    reference = rescale_zero_terminal_snr(betas(T)[1:])
    assert_close(zero_terminal_snr(betas(T))[1:], reference, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("T", [2, 3, 30, 1000])
def test_zero_terminal_snr_keeps_the_first_beta_and_leaves_no_signal_at_T(T):
    # between them the amplitude of the signal is shifted and stretched: its steps keep their shares
    before, after = (
        quiet_of(cosine_betas(T, max_beta=0.5)),
        Schedule(zero_terminal_snr(cosine_betas(T, max_beta=0.5))),
    )
    assert after.beta.dtype == torch.float64 and len(after.beta) == T + 1
    assert float(after.beta[1]) == pytest.approx(float(before.beta[1]), rel=1e-9)
    assert after.beta[-1] == 1 and after.alpha_bar[-1] == 0 and after.sqrt_one_minus_alpha_bar[-1] == 1
    assert after.log_snr[-1] == -math.inf and after.log_snr[1:-1].isfinite().all()
    drops = [schedule.sqrt_alpha_bar[1:].diff() for schedule in (before, after)]
    assert_close(drops[1] / drops[1].sum(), drops[0] / drops[0].sum(), rtol=1e-9, atol=0)


def test_zero_terminal_snr_of_a_chain_that_ends_there_changes_nothing():
    for betas in (flow_betas(50), zero_terminal_snr(linear_betas(50))):
        before = betas.clone()
        assert_close(zero_terminal_snr(betas), before, rtol=1e-10, atol=0)
        assert torch.equal(betas, before)


def test_the_named_linear_zero_snr_is_the_linear_one_rescaled():
    assert torch.equal(Schedule.named("linear-zero-snr", 100).beta, zero_terminal_snr(linear_betas(100)))


@pytest.mark.parametrize("T", [1, 2, 50, 1000])
def test_flow_is_the_straight_line_between_image_and_noise(T):
    # signal : noise = 1 - u : u, and their squares add up to 1
    schedule = Schedule(flow_betas(T))
    u = torch.arange(T + 1, dtype=torch.float64) / T
    norm = ((1 - u) ** 2 + u**2).sqrt()
    assert_close(schedule.sqrt_alpha_bar, (1 - u) / norm, rtol=1e-10, atol=0)
    assert_close(schedule.sqrt_one_minus_alpha_bar, u / norm, rtol=1e-10, atol=0)
    assert schedule.beta[-1] == 1 and schedule.alpha_bar[-1] == 0
    assert torch.equal(Schedule.named("flow", T).beta, schedule.beta)


def test_the_cosine_ends_in_a_beta_of_one_held_at_its_maximum():
    # trap 9: eps errors are 20 000 times as large in x_0 there
    schedule = Schedule.named("cosine", 1000)
    assert schedule.beta[-1] == 0.999
    assert (schedule.beta[1:-1] < 0.999).all()
    assert float(1 / schedule.sqrt_alpha_bar[-1]) == pytest.approx(20291, abs=1)
    assert float(cosine_betas(1000, max_beta=0.5).max()) == 0.5


@pytest.mark.parametrize("shift", [0.25, 0.5, 2.0])
def test_a_shift_moves_the_log_snr_evenly(shift):
    plain, shifted = Schedule(cosine_betas(1000)), Schedule(cosine_betas(1000, shift=shift))
    moved = (shifted.log_snr - plain.log_snr)[1:-1]  # at T the beta is clipped
    assert_close(moved, torch.full_like(moved, 2 * math.log(shift)), rtol=0, atol=1e-7)


def test_the_named_cosine_shifted_has_a_quarter_of_the_snr():
    assert torch.equal(Schedule.named("cosine-shifted", 100).beta, cosine_betas(100, shift=0.5))
    assert torch.equal(Schedule.named("cosine", 100).beta, cosine_betas(100, shift=1.0))


# What every schedule keeps


@pytest.mark.parametrize("name", BETAS)
@pytest.mark.parametrize("T", [30, 1000])
def test_index_0_is_the_clean_image(name, T):
    schedule = quiet(name, T)
    assert schedule.T == T and len(schedule.beta) == len(schedule.alpha_bar) == T + 1
    assert schedule.beta[0] == 0 and schedule.alpha_bar[0] == 1
    assert schedule.sqrt_alpha_bar[0] == 1 and schedule.sqrt_one_minus_alpha_bar[0] == 0
    assert schedule.log_snr[0] == math.inf


@pytest.mark.parametrize("name", BETAS)
def test_tables_are_float64_products_of_the_betas(name):
    schedule = quiet(name, 1000)
    product, expected = 1.0, [1.0]
    for beta in schedule.beta[1:].tolist():
        product *= 1 - beta
        expected.append(product)
    alpha_bar = torch.tensor(expected, dtype=torch.float64)
    assert_close(schedule.alpha_bar, alpha_bar, rtol=1e-12, atol=0)
    assert_close(schedule.sqrt_alpha_bar**2, alpha_bar, rtol=1e-12, atol=0)
    assert_close(schedule.sqrt_one_minus_alpha_bar**2, 1 - alpha_bar, rtol=1e-12, atol=0)
    assert_close(schedule.log_snr[1:].exp(), (alpha_bar / (1 - alpha_bar))[1:], rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", FULL_LENGTH)
@pytest.mark.parametrize("T", [50, 200, 1000])
def test_a_named_schedule_ends_in_noise(name, T):
    # trap 7
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        schedule = Schedule.named(name, T)
    assert float(schedule.alpha_bar[-1]) < 1e-3


@pytest.mark.parametrize("T, amplitude", [(200, 0.364), (300, 0.219), (400, 0.132), (500, 0.080)])
def test_an_unscaled_short_chain_warns_of_what_it_leaves(T, amplitude):
    # trap 7
    with pytest.warns(UserWarning, match=rf"leaves {amplitude:.1%} of the image's amplitude at t = {T}"):
        schedule = Schedule.named("linear-unscaled", T)
    assert float(schedule.sqrt_alpha_bar[-1]) == pytest.approx(amplitude, abs=6e-4)


def test_the_published_linear_betas_are_their_own_scaling_at_1000():
    assert torch.equal(linear_betas(1000), linear_betas(1000, scaled=False))
    assert float(Schedule(linear_betas(1000)).sqrt_alpha_bar[-1]) == pytest.approx(0.0064, abs=5e-5)


@pytest.mark.parametrize("name", BETAS)
def test_a_short_chain_is_finite_or_refused(name):
    # trap 8: a line scaled by 1000 / T reaches beta = 1 at T = 20 (T = 1 is its start alone)
    for T in range(1, 51):
        if name == "linear" and 2 <= T <= 20:
            with pytest.raises(ValueError, match="betas must be in"):
                Schedule.named(name, T)
            continue
        if name == "linear-zero-snr" and T <= 20:
            with pytest.raises(ValueError, match="betas must be in|at T = 1 the last step is the first"):
                Schedule.named(name, T)
            continue
        schedule = quiet(name, T)
        inner = schedule.beta[1:-1] if name in PURE_NOISE else schedule.beta[1:]
        assert ((inner > 0) & (inner < 1)).all()
        assert (schedule.beta[-1] == 1) == (name in PURE_NOISE)
        assert (schedule.alpha_bar.diff() < 0).all() and schedule.log_snr[1 : 1 + len(inner)].isfinite().all()


def test_a_schedule_is_kept_in_float64_whatever_it_is_built_from():
    schedule = Schedule(cosine_betas(20).float())
    assert schedule.beta.dtype == schedule.alpha_bar.dtype == torch.float64


# The one gather


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_at_gathers_one_value_an_image_in_the_dtype_of_x(dtype):
    schedule = Schedule.named("cosine", 10)
    got = schedule.at(schedule.beta, torch.tensor([0, 3, 10]), x_of(3, dtype))
    assert got.shape == (3, 1, 1, 1) and got.dtype == dtype
    assert torch.equal(got.flatten(), schedule.beta[[0, 3, 10]].to(dtype))


def test_at_takes_one_t_for_all_images():
    schedule = Schedule.named("cosine", 10)
    many = schedule.at(schedule.beta, torch.tensor([7, 7]), x_of(2))
    assert torch.equal(schedule.at(schedule.beta, 7, x_of(2)), many)


def test_at_leaves_the_cpu_without_looking_at_values():
    # trap 31: meta tensors have no values, so that a look (a stall on a GPU) raises
    schedule = Schedule.named("cosine", 10)
    t = torch.ones(2, dtype=torch.long, device="meta")
    assert schedule.at(schedule.beta, t, x_of(2).to("meta")).device.type == "meta"


# The times to visit


def check_grid(grid, T, steps):
    times = [t for t, _ in grid] + [grid[-1][1]]
    assert len(grid) == steps
    assert times[0] == T and times[-1] == 0
    assert all(t > s for t, s in zip(times, times[1:]))
    assert [s for _, s in grid[:-1]] == [t for t, _ in grid[1:]]
    assert all(type(t) is int for t in times)


@pytest.mark.parametrize("T", [10, 50, 1000])
def test_a_uniform_grid_descends_from_T_to_0_for_every_number_of_steps(T):
    # trap 13; the last pair ends at s = 0, where alpha_bar is 1 (trap 11)
    schedule = Schedule.named("cosine", T)
    for steps in range(1, T + 1):
        grid = schedule.grid(steps)
        check_grid(grid, T, steps)
        strides = [t - s for t, s in grid]
        assert max(strides) - min(strides) <= 1


@pytest.mark.parametrize("name", ["linear-unscaled", "cosine", "cosine-shifted", "sigmoid", "flow"])
@pytest.mark.parametrize("T", [10, 50, 1000])
def test_a_log_snr_grid_descends_from_T_to_0_for_many_numbers_of_steps(name, T):
    # trap 13
    schedule = quiet(name, T)
    for steps in {*range(1, min(T, 50) + 1), *((77, 333, 1000) if T == 1000 else ())}:
        check_grid(schedule.grid(steps, "log-snr"), T, steps)


@settings(max_examples=60, deadline=None)
@given(
    beta=st.lists(st.floats(1e-5, 0.999), min_size=1, max_size=30),
    share=st.floats(0, 1),
    spacing=st.sampled_from(["uniform", "log-snr"]),
)
def test_a_grid_descends_on_any_schedule(beta, share, spacing):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schedule = Schedule(torch.tensor([0.0, *beta], dtype=torch.float64))
    steps = 1 + round(share * (len(beta) - 1))
    check_grid(schedule.grid(steps, spacing), len(beta), steps)


@pytest.mark.parametrize("spacing", ["uniform", "log-snr"])
def test_all_steps_visit_every_trained_time(spacing):
    # trap 4: training draws t from 1..T
    schedule = Schedule.named("cosine", 50)
    assert [t for t, _ in schedule.grid(spacing=spacing)] == list(range(50, 0, -1))


def test_a_log_snr_grid_is_even_in_log_snr():
    schedule = Schedule.named("linear", 1000)
    times = [t for t, _ in schedule.grid(10, "log-snr")]
    gaps = schedule.log_snr[times].diff()
    assert times[0] == 1000 and times[-1] == 1
    # the rest is rounding to whole times, whose log-SNR lie far apart only near t = 1
    assert_close(gaps, torch.full_like(gaps, float(gaps.mean())), rtol=0.1, atol=0)


# What is refused, and in which words


def test_a_beta_of_1_stands_at_T_and_nowhere_before():
    # there is nothing left that a later step could make noisier
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Schedule(torch.tensor([0.0, 0.5, 1.0])).alpha_bar.tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match=r"or be 1 at T, but these for T = 2 range from 0\.5 to 1: choose a"):
        Schedule(torch.tensor([0.0, 1.0, 0.5]))


def test_a_schedule_has_a_thousand_steps_by_default():
    assert Schedule.named("cosine").T == 1000
