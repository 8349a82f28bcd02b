import math

import pytest
import torch

from tinyddpm import load_pretrained
from tinyddpm.data import mnist
from tinyddpm.evaluation import (
    frechet_digit_distance,
    inception_score,
    kernel_distance,
    label_accuracy,
    load_classifier,
    memorisation,
    nearest,
    precision_recall,
    train_on_synthetic,
)
from tinyddpm.evaluation.metrics import mmd_moments


class Brightest(torch.nn.Module):
    """Reads the first row's brightest column as the label."""

    def features(self, x):
        return x[:, 0, 0, :10]

    def head(self, f):
        return f


def rows(labels):
    x = torch.full((len(labels), 1, 32, 32), -1.0)
    x[torch.arange(len(labels)), 0, 0, labels] = 1.0
    return x


def gaussian(n, d=6, mean=0.0, std=1.0, seed=0):
    return mean + std * torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_moments(n, mean, cov, seed=0):
    """Samples whose own mean and covariance are exactly these."""
    x = gaussian(n, len(mean), seed=seed)
    x = x - x.mean(0)
    x = torch.linalg.solve_triangular(torch.linalg.cholesky(x.T.cov()), x.T, upper=False).T
    return x @ torch.linalg.cholesky(cov).T + mean


def test_label_accuracy_is_the_share_that_is_read_as_asked():
    y = torch.arange(10)
    assert label_accuracy(Brightest(), rows(y), y) == 1.0
    other = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 0, 0])
    assert label_accuracy(Brightest(), rows(y), other) == pytest.approx(0.7)


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    a = with_moments(500, torch.zeros(3).double(), torch.diag(torch.tensor([1.0, 4.0, 9.0]).double()))
    b = with_moments(500, torch.tensor([1.0, 2.0, 2.0]).double(), torch.eye(3).double(), seed=1)
    # |mu|^2 = 9 and, where the covariances commute, the sum of (std_a - std_b)^2 = 0 + 1 + 4
    assert frechet_digit_distance(a, b) == pytest.approx(14, abs=1e-9)
    assert frechet_digit_distance(a, a) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_equals_the_references_formula():
    """tr((C_a C_b)^(1/2)) by the product's own eigenvalues, as pytorch-fid's matrix root has it."""
    mix = gaussian(12, 12, seed=3)
    a, b = gaussian(400, 12), gaussian(300, 12, mean=0.3, seed=1) @ mix
    ca, cb = a.T.cov(), b.T.cov()
    root = torch.linalg.eigvals(ca @ cb).real.clamp(min=0).sqrt().sum()
    expected = (a.mean(0) - b.mean(0)).square().sum() + ca.trace() + cb.trace() - 2 * root
    assert frechet_digit_distance(a, b) == pytest.approx(float(expected), rel=1e-9)
    assert frechet_digit_distance(b, a) == pytest.approx(float(expected), rel=1e-9)


def waves():
    """Features that are the same everywhere, without a random number in them."""
    i, d = torch.arange(300).double()[:, None], torch.arange(1, 9).double()
    return torch.sin(0.37 * i * d**1.5), 0.5 + 1.5 * torch.cos(0.73 * i[:200] * d**1.5) * d**0.5


def test_distances_equal_what_torchmetrics_and_pytorch_fid_found():
    a, b = waves()
    # torchmetrics 1.9.0, image.fid._compute_fid: 22.393183988720125; pytorch-fid 0.3.0: 22.39318398872011
    assert frechet_digit_distance(a, b) == pytest.approx(22.3931839887201, rel=1e-12)
    # torchmetrics 1.9.0, image.kid.poly_mmd
    assert float(mmd_moments(a[:100], b[:100])[0]) == pytest.approx(15.991011897173546, rel=1e-12)


def test_frechet_distance_of_features_that_never_vary_is_finite():
    a = torch.cat([gaussian(50, 3), torch.zeros(50, 3).double()], 1)
    assert math.isfinite(frechet_digit_distance(a, a)) and abs(frechet_digit_distance(a, a)) < 1e-6


@pytest.mark.parametrize("mean", [0.0, 0.3])
@pytest.mark.parametrize("blocks", [2, 10])
def test_kernel_distance_has_no_bias_and_knows_its_error(mean, blocks):
    pairs = [(gaussian(200, 6, mean, seed=2 * i), gaussian(200, 6, seed=2 * i + 1)) for i in range(200)]
    values, errors = torch.tensor([kernel_distance(a, b, blocks) for a, b in pairs]).T
    expected = cube(mean, mean) + cube(0, 0) - 2 * cube(mean, 0)
    assert abs(values.mean() - expected) < 3 * values.std() / 200**0.5
    assert (values < expected).any() and (values > expected).any()
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.15)
    assert errors.std() < 0.25 * errors.mean()  # the spread of 10 blocks would vary by 0.3, of 2 by 0.8
    off = (values - expected) / errors
    assert max((off < -2).float().mean(), (off > 2).float().mean()) <= 0.08


def cube(mu, nu, d=6):
    """E[(p . q / d + 1)^3] for independent p of N(mu, 1) and q of N(nu, 1) in d dimensions."""
    m = mu * nu + 1
    variance = ((mu**2 + 1) * (nu**2 + 1) - (mu * nu) ** 2) / d
    second, third = (mu**2 + 1) * (nu**2 + 1), (mu**3 + 3 * mu) * (nu**3 + 3 * nu)
    skew = (third - 3 * second * mu * nu + 2 * (mu * nu) ** 3) / d**2
    return m**3 + 3 * m * variance + skew


def test_kernel_distance_is_the_closed_form_of_two_points():
    """Samples that are all one point: k(a, a) + k(b, b) - 2 k(a, b)."""
    a, b = torch.ones(20, 4), torch.zeros(20, 4)
    value, error = kernel_distance(a, b, blocks=2)
    assert value == pytest.approx((1 + 1) ** 3 + 1 - 2 * 1) and error == 0


def test_kernel_distance_leaves_the_pairs_of_one_with_itself_out():
    a = torch.tensor([[1.0], [3.0]]).double()
    b = torch.tensor([[0.0], [2.0]]).double()

    def k(p, q):
        return (p * q + 1) ** 3

    cross = sum(k(p, q) for p in (1, 3) for q in (0, 2)) / 4
    value, _ = kernel_distance(a.repeat(2, 1), b.repeat(2, 1), blocks=2)
    assert value == pytest.approx(k(1, 3) + k(0, 2) - 2 * cross)


def test_inception_score_goes_from_one_to_the_number_of_classes():
    assert inception_score(torch.eye(10).repeat(3, 1)) == pytest.approx(10)
    assert inception_score(torch.full((7, 10), 0.1)) == pytest.approx(1)
    assert inception_score(torch.eye(10)[:1].repeat(5, 1)) == pytest.approx(1)  # one class, whatever certainty
    p = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    assert inception_score(p) == pytest.approx(math.exp(math.log(2) + 0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


def test_precision_and_recall_tell_what_is_made_up_from_what_is_missed():
    real = torch.cat([gaussian(300), gaussian(300, mean=20, seed=1)])
    half = gaussian(300, seed=2)
    precision, recall = precision_recall(half, real)
    assert precision > 0.9 and 0.4 < recall < 0.55
    precision, recall = precision_recall(torch.cat([real + 0.01, gaussian(200, mean=-20)]), real)
    assert precision == pytest.approx(0.75) and recall == 1.0


def test_precision_counts_by_the_definition():
    """Four real points on a line: with k = 1 each ball reaches to its nearest neighbour."""
    real = torch.tensor([[0.0], [1.0], [10.0], [14.0]]).double()
    samples = torch.tensor([[1.9], [2.1], [5.9], [6.1], [18.0], [18.1]]).double()
    precision, _ = precision_recall(samples, real, k=1)
    assert precision == pytest.approx(3 / 6)  # 1.9, 6.1 and 18.0 lie in a ball; 2.1, 5.9 and 18.1 do not


def test_nearest_is_the_nearest_in_pixels():
    data = rows(torch.arange(10))
    x = data[[3, 7]].clone()
    x[0, 0, 31, 31] = 0.0
    distance, index = nearest(x, data, chunk=1)
    assert index.tolist() == [3, 7]
    torch.testing.assert_close(distance, torch.tensor([1.0, 0.0]))


def test_memorisation_names_the_copies():
    generator = torch.Generator().manual_seed(0)
    train, test, fresh = (
        torch.where(torch.rand(n, 1, 32, 32, generator=generator) < 0.2, 1.0, -1.0) for n in (500, 200, 100)
    )
    assert memorisation(fresh, train, test, quantile=0.005)["copied"] <= 0.02
    found = memorisation(torch.cat([fresh[:75], train[:25]]), train, test, quantile=0.005)
    assert found["copied"] == pytest.approx(0.25, abs=0.02) and found["smallest"] == 0
    assert found["floor_median"] == pytest.approx(found["median"], rel=0.1)
    with pytest.raises(ValueError, match="needs 1 / quantile test digits, got 0.001 and 200 digits"):
        memorisation(fresh, train, test)
    with pytest.raises(ValueError, match=r"a quantile in \(0, 1\) .* got 0 and"):
        memorisation(fresh, train, test, quantile=0)


def test_a_classifier_trained_on_digits_learns_the_labels_it_is_given():
    (x, y), (x_test, y_test) = mnist()[:600], mnist(train=False)[:400]
    half = torch.cat([y_test[:200], (y_test[200:] + 1) % 10])  # right for the first half of the test digits
    assert 0.35 < train_on_synthetic(x, y, x_test, half, epochs=6) < 0.55


@pytest.mark.parametrize(("images", "labels"), [(3, 2), (0, 0)])
def test_images_and_labels_must_be_as_many(images, labels):
    x, y = rows(torch.arange(images)), torch.arange(labels)
    for ask in (lambda: label_accuracy(Brightest(), x, y), lambda: train_on_synthetic(x, y, x, y)):
        with pytest.raises(ValueError, match=f"one label in 0..9 for each of {images} images, at least 1, got tensor"):
            ask()


def test_images_that_are_not_finite_are_named_and_never_averaged():
    x = rows(torch.arange(3))
    x[1, 0, 5, 5] = torch.nan
    for ask in (
        lambda: label_accuracy(Brightest(), x, torch.arange(3)),
        lambda: memorisation(x, x, x),
        lambda: train_on_synthetic(x, torch.arange(3), x, torch.arange(3)),
    ):
        with pytest.raises(ValueError, match="1 of 3 images with NaN or infinite values"):
            ask()


def test_features_that_are_not_finite_or_too_few_are_refused():
    good, bad = gaussian(50), gaussian(50)
    bad[7] = torch.nan
    for ask in (frechet_digit_distance, kernel_distance, precision_recall):
        with pytest.raises(ValueError, match=r"and \(50, 6\) with 6 NaN or infinite values"):
            ask(good, bad)
        with pytest.raises(ValueError, match=r"got \(50, 6\) .* and \(50, 5\)"):
            ask(good, gaussian(50, 5))
    with pytest.raises(ValueError, match=r"at least 7 images a side, got \(50, 6\) .* and \(6, 6\)"):
        frechet_digit_distance(good, good[:6])
    with pytest.raises(ValueError, match=r"at least 20 images a side, got \(50, 6\) .* and \(19, 6\)"):
        kernel_distance(good, good[:19])
    with pytest.raises(ValueError, match=r"at least 4 images a side, got \(3, 6\)"):
        precision_recall(good[:3], good)


def test_invalid_labels_are_refused():
    x, good = rows(torch.arange(3)), torch.arange(3)
    for y in ([0, 1, 2], good > 1, good + 8, good - 1, good[:, None], good.float()):
        with pytest.raises(ValueError, match=r"expected one label in 0\.\.9 for each of 3 images"):
            label_accuracy(Brightest(), x, y)
        with pytest.raises(ValueError, match=r"expected one label in 0\.\.9 for each of 3 images"):
            train_on_synthetic(x, good, x, y)


def test_counts_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="blocks must be at least 2, got 1"):
        kernel_distance(gaussian(50), gaussian(50), blocks=1)
    with pytest.raises(ValueError, match="neighbours k must be at least 1, got 0"):
        precision_recall(gaussian(50), gaussian(50), k=0)


def test_probabilities_that_are_no_distributions_are_refused():
    p = torch.full((3, 10), 0.1)
    p[1, 4] = torch.nan
    for wrong in (torch.ones(3, 10), p, torch.zeros(0, 10), torch.tensor([[1.5, -0.5]]), torch.ones(3)):
        with pytest.raises(ValueError, match="expected a distribution over the classes for each image"):
            inception_score(wrong)


def test_the_shipped_weights_draw_the_digit_asked_for():
    y = torch.arange(10).repeat_interleave(5)
    x = load_pretrained().sample(y, steps=10, scale=2.0, seeds=range(50))
    assert label_accuracy(load_classifier(), x, y) > 0.95
