import math

import pytest
import torch

from tinyddpm import Schedule, gaussian_oracle
from tinyddpm.data import from_uint8
from tinyddpm.extensions.likelihood import bits_per_dim, denoising_error, log_bin

SCHEDULE = Schedule.named("cosine", 100)


def gaussian_pixels(mean, variance, n):
    """Images of 8-bit grey values, and the exact cross-entropy of N(mean, variance) over the 256 bins."""
    x = mean + variance**0.5 * torch.randn(n, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x = from_uint8(((x + 1) * 127.5).round().clamp(0, 255).to(torch.uint8))
    return x, -log_bin(x.double(), torch.tensor(mean), variance**0.5).flatten(1).mean(1) / math.log(2)


def gaussian_error(variance):
    """E (x_0 - x_0_hat)^2 of the exact denoiser: the variance of x_0 given x_t."""
    abar = SCHEDULE.alpha_bar
    return variance * (1 - abar) / (abar * variance + 1 - abar)


@pytest.mark.parametrize(("mean", "variance"), [(0.0, 0.04), (-0.3, 0.01)])
def test_the_bound_is_exact_on_gaussian_data(mean, variance):
    """With the exact denoiser and its own error as variance, each p(x_s | x_t) is the true one."""
    x, exact = gaussian_pixels(mean, variance, 2000)
    oracle = gaussian_oracle(mean, variance, SCHEDULE)
    error = gaussian_error(variance)
    bits = bits_per_dim(oracle, x, SCHEDULE, None, error, torch.Generator().manual_seed(1))
    assert float(bits.mean()) == pytest.approx(float(exact.mean()), abs=0.01)
    assert float(bits.mean()) == pytest.approx(entropy(variance), abs=0.05)


def entropy(variance):
    return math.log2(127.5) + 0.5 * math.log2(2 * math.pi * math.e * variance)


@pytest.mark.parametrize("steps", [1, 7])
def test_with_the_right_variance_any_grid_is_as_tight(steps):
    x, exact = gaussian_pixels(0.0, 0.04, 1000)
    oracle, error = gaussian_oracle(0.0, 0.04, SCHEDULE), gaussian_error(0.04)
    bits = bits_per_dim(oracle, x, SCHEDULE, SCHEDULE.grid(steps), error, torch.Generator().manual_seed(1))
    assert float(bits.mean()) == pytest.approx(float(exact.mean()), abs=0.02)


def test_the_posterior_variance_costs_what_it_must():
    """Without error_variance, each step's expected KL has a closed form: error / 2 of the SNR it gains."""
    x, _ = gaussian_pixels(0.0, 0.04, 2000)
    oracle, abar = gaussian_oracle(0.0, 0.04, SCHEDULE), SCHEDULE.alpha_bar
    snr = abar / (1 - abar)
    error = gaussian_error(0.04)
    kl = (error[2:] * (snr[1:-1] - snr[2:])).sum() / 2  # Kingma et al. 2021, eq. 13
    prior = (abar[-1] * (0.04 - 1) - torch.log(1 - abar[-1])) / 2
    bits = bits_per_dim(oracle, x, SCHEDULE, generator=torch.Generator().manual_seed(1)).mean()
    last = bits * math.log(2) - kl - prior  # the step to s = 0: between the bin's own entropy and a bit more
    std = float((1 - abar[1]) ** 0.5)
    q = torch.distributions.Normal(0, 1)
    z = q.sample((200_000,)) * float(error[1]) ** 0.5
    grid = torch.randint(0, 256, (200_000,)) / 127.5 - 1
    inner = grid.abs() < 0.6
    expected = -log_bin(grid[inner].double(), (grid + z)[inner].double(), std).mean()
    assert float(last) == pytest.approx(float(expected), abs=0.02)
    assert bits > bits_per_dim(oracle, x, SCHEDULE, None, error, torch.Generator().manual_seed(1)).mean()


def test_a_worse_denoiser_pays():
    x, _ = gaussian_pixels(0.0, 0.04, 200)
    good, bad = (gaussian_oracle(0.0, v, SCHEDULE) for v in (0.04, 0.4))
    a, b = (bits_per_dim(d, x, SCHEDULE, generator=torch.Generator().manual_seed(1)).mean() for d in (good, bad))
    assert b > a + 0.05


def test_bins_are_a_distribution():
    grid = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, std in [(0.0, 0.1), (-1.0, 0.01), (0.99, 0.5), (3.0, 1.0)]:
        total = log_bin(grid, torch.tensor(mean, dtype=torch.float64), std).exp().sum()
        assert float(total) == pytest.approx(1, abs=1e-9)


def test_a_bin_far_from_the_mean_costs_what_it_must():
    """Twenty deviations off, where a difference of probabilities in float64 is 0."""
    for x, mean in ((0.0, 0.2), (0.2, 0.0), (1.0, 0.8), (-1.0, -0.8)):
        found = log_bin(torch.tensor(x).double(), torch.tensor(mean).double(), 0.01)
        nearest = (abs(x - mean) - 1 / 255) / 0.01
        assert float(found) == pytest.approx(-(nearest**2) / 2 - math.log(nearest * (2 * math.pi) ** 0.5), abs=0.02)


def test_denoising_error_of_the_exact_denoiser_is_the_closed_form():
    x = 0.2 * torch.randn(2000, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = denoising_error(gaussian_oracle(0.0, 0.04, SCHEDULE), x, SCHEDULE, SCHEDULE.grid(10))
    times = [t for t, _ in SCHEDULE.grid(10)]
    torch.testing.assert_close(found[times], gaussian_error(0.04)[times], rtol=0.05, atol=0)
    assert found[0] == 0 and (found > 0).sum() == 10


def test_grids_and_images_that_do_not_fit_are_refused():
    x, oracle = torch.zeros(1, 1, 4, 4), gaussian_oracle(0.0, 1.0, SCHEDULE)
    for grid in ([(50, 0)], [(100, 10)]):
        with pytest.raises(ValueError, match=rf"from T = 100 to 0, .*, got {grid[0][0]}\.\.{grid[0][1]}"):
            bits_per_dim(oracle, x, SCHEDULE, grid)
    for bad in (x + 255, x * torch.nan):
        with pytest.raises(ValueError, match=r"images must be in \[-1, 1\], got"):
            bits_per_dim(oracle, bad, SCHEDULE)


ONES = torch.ones(101)


@pytest.mark.parametrize("error", [ONES[1:], ONES[:1], ONES[:, None], -ONES, ONES * math.inf, ONES * math.nan])
def test_an_error_variance_that_is_not_one_finite_number_for_each_t_is_refused(error):
    with pytest.raises(ValueError, match="a finite error_variance for each t, got"):
        bits_per_dim(gaussian_oracle(0.0, 1.0, SCHEDULE), torch.zeros(1, 1, 4, 4), SCHEDULE, None, error)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_denoiser_that_returns_nan_or_infinity_is_refused(value):
    def broken(x_t, t):
        return torch.where((t == 40).reshape(-1, 1, 1, 1), value, x_t)

    for measure in (bits_per_dim, denoising_error):
        with pytest.raises(ValueError, match="returns NaN or infinity at t = 40"):
            measure(broken, torch.zeros(3, 1, 4, 4), SCHEDULE)


@pytest.mark.parametrize("measure", [bits_per_dim, denoising_error])
def test_a_list_of_generators_has_one_for_each_image(measure):
    with pytest.raises(ValueError, match="one for each of 3 images"):
        measure(gaussian_oracle(0.0, 1.0, SCHEDULE), torch.zeros(3, 1, 4, 4), SCHEDULE, generator=[torch.Generator()])
