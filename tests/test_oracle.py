"""Exact denoisers, against Bayes' rule by brute force and by quadrature, and by sampling with them."""

import math

import pytest
import torch
from torch.testing import assert_close

from tinyddpm.data import mnist
from tinyddpm.diffusion import q_sample
from tinyddpm.evaluation import classify, load_classifier, nearest
from tinyddpm.oracle import dataset_oracle, gaussian_oracle, local_oracle, shrinking
from tinyddpm.samplers import ddim, last, p_sample_loop
from tinyddpm.schedules import Schedule

COSINE = Schedule.named("cosine", 50)
LONG = Schedule.named("cosine", 1000)


def digits(n, size=6, dtype=torch.float32):
    """n images that are far from each other, with values at both ends of the range as digits have."""
    g = torch.Generator().manual_seed(3)
    return torch.rand(n, 1, size, size, generator=g, dtype=dtype).mul(4).sub(2).clamp(-1, 1)


def randn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# Of a finite data set


def test_the_oracle_of_a_data_set_is_bayes_rule_by_brute_force():
    data = digits(5, size=2, dtype=torch.float64) / 3  # close together, so that no weight is 0 or 1
    denoiser = dataset_oracle(data, COSINE)
    for t in (1, 5, 20, 35, 50):
        x_t = q_sample(data[:3], t, randn(3, 1, 2, 2), COSINE)
        abar = float(COSINE.alpha_bar[t])
        expected = torch.zeros_like(x_t)
        for k in range(3):
            logs = [-float((x_t[k] - math.sqrt(abar) * x).square().sum()) / (2 * (1 - abar)) for x in data]
            weights = [math.exp(log - max(logs)) for log in logs]
            for weight, x in zip(weights, data):
                expected[k] += weight / sum(weights) * x
        assert_close(denoiser(x_t, torch.full((3,), t)), expected, rtol=1e-10, atol=1e-10)


def test_the_oracle_of_many_gaussian_draws_is_the_gaussian_oracle():
    data = 0.3 + 0.4 * randn(200_000, 1, 1, 1)
    x_t, t = (torch.tensor([-0.8, 0.1, 0.9], dtype=torch.float64).reshape(3, 1, 1, 1), torch.tensor([10, 25, 40]))
    expected = gaussian_oracle(0.3, 0.16, COSINE)(x_t, t)
    assert_close(dataset_oracle(data, COSINE)(x_t, t), expected, rtol=0, atol=0.01)


@pytest.mark.parametrize("variant", ["ddim", "ddim eta=1", "posterior", "beta"])
def test_sampling_with_the_oracle_of_a_data_set_draws_its_images(variant):
    data, x_T = digits(6), randn(24, 1, 6, 6, dtype=torch.float32)
    denoiser, g = dataset_oracle(data, COSINE), torch.Generator().manual_seed(1)
    if variant.startswith("ddim"):
        run = ddim(denoiser, x_T, COSINE, eta=float("eta=1" in variant), generator=g)
    else:
        run = p_sample_loop(denoiser, x_T, COSINE, variance=variant, generator=g)
    rms = (last(run).x_t[:, None] - data).square().flatten(2).mean(2).sqrt()  # (24, 6)
    nearest, which = rms.min(1)
    assert float(nearest.max()) < 1e-3
    assert len(which.unique()) >= 4


def test_the_image_drawn_depends_on_the_noise_alone():
    data, x_T = digits(6), randn(4, 1, 6, 6, dtype=torch.float32)
    batch = last(ddim(dataset_oracle(data, COSINE), x_T, COSINE)).x_t
    for k in range(4):
        alone = last(ddim(dataset_oracle(data, COSINE), x_T[k : k + 1], COSINE)).x_t
        assert_close(batch[k : k + 1], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("t", [1, 25, 50])
def test_a_data_set_of_one_image_is_that_image_at_every_time(t):
    data = digits(1)
    x_t = randn(3, 1, 6, 6, dtype=torch.float32)
    assert_close(dataset_oracle(data, COSINE)(x_t, torch.full((3,), t)), data.expand(3, -1, -1, -1))


def test_the_oracle_is_finite_in_float32_where_there_is_hardly_any_noise():
    # 1 / (2 (1 - alpha_bar_1)) is above 10 000 here, and so are the exponents
    data = digits(20, size=32)
    x_1 = q_sample(data, 1, randn(20, 1, 32, 32, dtype=torch.float32), LONG)
    got = dataset_oracle(data, LONG)(x_1, torch.ones(20, dtype=torch.long))
    assert got.isfinite().all()
    assert_close(got, data, rtol=0, atol=1e-5)


@pytest.mark.parametrize("make", ["data set", "gaussian"])
def test_mixed_times_in_a_batch_are_those_of_each_image(make):
    # trap 31
    data = digits(5, size=2, dtype=torch.float64) / 3
    denoiser = dataset_oracle(data, COSINE) if make == "data set" else gaussian_oracle(data[:1], 0.1, COSINE)
    x_t, t = randn(3, 1, 2, 2), torch.tensor([45, 20, 30])
    batch = denoiser(x_t, t)
    for k in range(3):
        assert_close(batch[k : k + 1], denoiser(x_t[k : k + 1], t[k : k + 1]), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(batch, denoiser(x_t, torch.full((3,), 45)), atol=1e-3)


# Of a Gaussian


@pytest.mark.parametrize("mean, variance", [(0.0, 1.0), (0.4, 0.05), (-0.7, 2.0)])
@pytest.mark.parametrize("t", [1, 20, 49])
def test_the_gaussian_oracle_is_bayes_rule_by_quadrature(mean, variance, t):
    abar = float(COSINE.alpha_bar[t])
    x_0 = torch.linspace(-12, 12, 200_001, dtype=torch.float64)
    for x_t in (-1.1, 0.3):
        log_p = -((x_0 - mean) ** 2) / (2 * variance) - (x_t - math.sqrt(abar) * x_0) ** 2 / (2 * (1 - abar))
        expected = float((log_p.softmax(0) * x_0).sum())
        got = gaussian_oracle(mean, variance, COSINE)(torch.full((1, 1, 1, 1), x_t).double(), torch.tensor([t]))
        assert float(got) == pytest.approx(expected, abs=1e-6)


def test_a_gaussian_without_variance_is_its_mean():
    mean = digits(1, dtype=torch.float64)
    got = gaussian_oracle(mean, 0.0, COSINE)(randn(3, 1, 6, 6), torch.tensor([1, 20, 50]))
    assert_close(got, mean.expand(3, -1, -1, -1), rtol=0, atol=0)


def test_each_pixel_of_a_gaussian_may_have_its_own_mean_and_variance():
    mean, variance = randn(1, 1, 2, 2), randn(1, 1, 2, 2, seed=1).square()
    x_t, t = randn(2, 1, 2, 2, seed=2), torch.tensor([10, 40])
    got = gaussian_oracle(mean, variance, COSINE)(x_t, t)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        pixel = gaussian_oracle(float(mean[0, 0, i, j]), float(variance[0, 0, i, j]), COSINE)
        assert_close(got[:, :, i : i + 1, j : j + 1], pixel(x_t[:, :, i : i + 1, j : j + 1], t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_oracles_keep_dtype_and_inputs(dtype):
    # trap 30
    data, x_t, t = digits(4, dtype=dtype), randn(3, 1, 6, 6, dtype=dtype), torch.tensor([1, 20, 50])
    before = data.clone(), x_t.clone(), t.clone()
    oracles = dataset_oracle(data, COSINE), local_oracle(data, COSINE), gaussian_oracle(data[:1], 0.2, COSINE)
    for denoiser in oracles:
        got = denoiser(x_t, t)
        assert got.dtype == dtype and got.shape == x_t.shape
    assert all(torch.equal(a, b) for a, b in zip((data, x_t, t), before))


def test_oracles_do_not_look_at_values_on_a_device():
    # trap 31: meta tensors have no values, so that a look (a stall on a GPU) raises
    data, x_t = digits(4).to("meta"), torch.zeros(2, 1, 6, 6, device="meta")
    t = torch.ones(2, dtype=torch.long, device="meta")
    for denoiser in (dataset_oracle(data, COSINE), gaussian_oracle(data[:1], 0.2, COSINE)):
        assert denoiser(x_t, t).device.type == "meta"


# Through windows

T_EACH = torch.tensor([3, 20, 44])  # a time for each of three images


def colours(n=7, h=5, w=6):
    """n images that are close together, so that no weight is 0 or 1, of three channels and not square."""
    return randn(n, 3, h, w, seed=4).mul(0.3)


def through_windows(data, x, t, radius):
    """The local oracle at one image x (c, h, w), pixel by pixel, straight from its definition."""
    abar, (_, h, w) = float(COSINE.alpha_bar[t]), x.shape
    expected = torch.zeros_like(x)
    for i in range(h):
        for j in range(w):
            rows = [k for k in range(h) if abs(k - i) <= radius]
            columns = [k for k in range(w) if abs(k - j) <= radius]
            logs = []
            for x_i in data:
                gaps = [(x[:, k, m] - math.sqrt(abar) * x_i[:, k, m]).square().sum() for k in rows for m in columns]
                logs.append(-float(sum(gaps)) / (2 * (1 - abar)))
            weights = [math.exp(log - max(logs)) for log in logs]
            expected[:, i, j] = sum(weight * x_i[:, i, j] for weight, x_i in zip(weights, data)) / sum(weights)
    return expected


@pytest.mark.parametrize("radius", [0, 1, 2, 4])
def test_the_local_oracle_is_bayes_rule_in_the_window_of_each_pixel(radius):
    data = colours()
    x_t = q_sample(data[:3], T_EACH, randn(3, 3, 5, 6), COSINE)
    got = local_oracle(data, COSINE, radius=radius)(x_t, T_EACH)
    for k in range(3):
        assert_close(got[k], through_windows(data, x_t[k], int(T_EACH[k]), radius), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("radius", [5, 31])
def test_through_a_window_as_large_as_the_image_it_is_the_oracle_of_the_data_set(radius):
    data = colours()
    x_t = q_sample(data[:3], T_EACH, randn(3, 3, 5, 6), COSINE)
    expected = dataset_oracle(data, COSINE)(x_t, T_EACH)
    assert_close(local_oracle(data, COSINE, radius=radius)(x_t, T_EACH), expected, rtol=1e-10, atol=1e-10)
    smaller = local_oracle(data, COSINE, radius=4)(x_t, T_EACH)  # the far columns no longer see each other
    assert float((smaller - expected).abs().max()) > 1e-3


def test_through_a_window_of_one_pixel_each_pixel_is_the_posterior_of_its_own_values():
    # a pixel that is 1 with probability p and -1 else: E[x_0 | x] = tanh(sqrt(abar) x / (1 - abar) + log odds / 2)
    p = torch.tensor([[0.25, 0.5], [0.75, 0.5]], dtype=torch.float64)
    data = torch.where(torch.tensor([0.125, 0.375, 0.625, 0.875])[:, None, None] < p, 1.0, -1.0).double()[:, None]
    x_t = randn(3, 1, 2, 2)
    abar = COSINE.alpha_bar[T_EACH].reshape(-1, 1, 1, 1)
    expected = torch.tanh(abar.sqrt() * x_t / (1 - abar) + (p / (1 - p)).log() / 2)
    assert_close(local_oracle(data, COSINE, radius=0)(x_t, T_EACH), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("chunk", [1, 3, 7])
def test_how_much_is_seen_at_a_time_does_not_matter(chunk):
    data, x_t = colours(), randn(3, 3, 5, 6)
    whole = local_oracle(data, COSINE, radius=1)(x_t, T_EACH)
    assert_close(local_oracle(data, COSINE, radius=1, chunk=chunk)(x_t, T_EACH), whole, rtol=1e-12, atol=1e-12)


def test_an_image_with_a_label_sees_the_data_of_that_label_alone():
    data, x_t = colours(), randn(3, 3, 5, 6)
    labels, y = torch.tensor([0, 2, 0, 5, 2, 2, 5]), torch.tensor([2, 0, 5])
    got = local_oracle(data, COSINE, labels, y, radius=1)(x_t, T_EACH)
    for k in range(3):
        alone = local_oracle(data[labels == y[k]], COSINE, radius=1)(x_t[k : k + 1], T_EACH[k : k + 1])
        assert_close(got[k : k + 1], alone, rtol=1e-12, atol=1e-12)


def test_the_window_may_depend_on_the_noise():
    data, x_t, asked = colours(), randn(3, 3, 5, 6), []

    def radius(log_snr):
        asked.append(log_snr)
        return 1 if log_snr > 0 else 3

    got = local_oracle(data, COSINE, radius=radius)(x_t, T_EACH)
    assert asked == [pytest.approx(float(COSINE.log_snr[t])) for t in T_EACH]
    for k, r in enumerate((1, 1, 3)):
        fixed = local_oracle(data, COSINE, radius=r)(x_t, T_EACH)
        assert torch.equal(got[k], fixed[k])


def test_the_window_shrinks_as_the_noise_does():
    snr = [-math.inf, -3.5, -2.0, -1.0, 0.0, 1.0, math.inf]
    assert [shrinking(value) for value in snr] == [31, 9, 6, 5, 4, 3, 3]
    assert [shrinking(value - 1e-6) for value in snr[1:]] == [31, 9, 6, 5, 4, 3]


def test_a_local_oracle_invents_digits_that_can_be_read():
    # measured with seeds 0 to 3: 50, 49, 50 and 49 of 50 read as asked, and at most 2 near a digit that it holds
    images, labels = mnist()[:3000]
    chosen = torch.cat([(labels == k).nonzero()[:150, 0] for k in range(10)])
    data, y = images[chosen], torch.arange(10).repeat(5)
    x_T = randn(50, 1, 32, 32, dtype=torch.float32)
    x_0 = last(ddim(local_oracle(data, LONG, labels[chosen], y), x_T, LONG, LONG.grid(16))).x_t.clamp(-1, 1)
    assert int((classify(load_classifier(), x_0).argmax(1) == y).sum()) >= 45
    distance, _ = nearest(x_0, data)
    assert int((distance < 3).sum()) <= 5 and float(distance.median()) > 8  # 1 in 1,000 unseen digits is nearer than 3


# What is refused, and in which words


def test_a_local_oracle_without_data_to_see_is_refused():
    data, labels, y = colours(), torch.arange(7) % 2, torch.tensor([0, 1, 1])
    for arguments, said in (
        ({"data": data[:0]}, "got 0 images"),
        ({"y": y}, r"0 labels, none of them in \[0, 1\]"),
        ({"labels": labels, "y": y + 1}, r"7 labels, none of them in \[2\]"),
        ({"radius": -1}, "radius >= 0, got 7 images .*radius -1"),
    ):
        with pytest.raises(ValueError, match=said):
            local_oracle(**{"data": data, "schedule": COSINE, **arguments})
    with pytest.raises(ValueError):  # one label for three images
        local_oracle(data, COSINE, labels, y[:1])(randn(3, 3, 5, 6), T_EACH)
