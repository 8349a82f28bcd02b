"""Metrics of samples beside real digits, each a function of tensors.

None means anything alone: each depends on the number n of samples and has a floor, its value for n real training digits
beside the test set. Report both. (The classifier was trained on those training digits, so its accuracy on them is above
what unseen digits reach.) Features (n, d) and probabilities (n, k) are the classifier's.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..schedules import require
from .classifier import Classifier, Images, Labels, check_labels, check_readable, classify, train_classifier

Features = Float[Tensor, "n d"]


def label_accuracy(classifier: Classifier, x: Images, y: Labels) -> float:
    """The share of images that are read as the digit in y. Raises ValueError for invalid images or labels."""
    check_labels(x, y)
    return accuracy(classify(classifier, x), y)


def accuracy(probabilities: Float[Tensor, "n k"], y: Labels) -> float:
    return float((probabilities.argmax(1) == y).float().mean())


def confusion(probabilities: Float[Tensor, "n k"], y: Labels) -> list[list[int]]:
    """How often each label (row) is read as each class (column)."""
    k = probabilities.shape[1]
    return torch.bincount(y * k + probabilities.argmax(1), minlength=k * k).reshape(k, k).tolist()


def frechet_digit_distance(a: Features, b: Features) -> float:
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)), the Frechet distance between Gaussians with the features'
    means and covariances (Heusel et al. 2017, eq. 6; with other features than a FID, and not comparable with one). It
    falls with n. Raises ValueError unless there are more images than features, all finite."""
    check_features(a, b, a.shape[-1] + 1)
    a, b = a.double(), b.double()
    values, vectors = torch.linalg.eigh(a.T.cov())
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ b.T.cov() @ root).clamp(min=0).sqrt().sum()
    spread = a.var(0).sum() + b.var(0).sum() - 2 * cross
    return float((a.mean(0) - b.mean(0)).square().sum() + spread)


def kernel_distance(a: Features, b: Features, blocks: int = 10) -> tuple[float, float]:
    """The unbiased squared maximum mean discrepancy under the kernel (a . b / d + 1)^3 (Binkowski et al. 2018, section
    3), as the mean over disjoint blocks; and its standard error.

    Its expectation is 0 for samples of one distribution at any n, so that single values may be negative. The error is
    that of a U-statistic (Hoeffding 1948, eq. 5.13) with moments averaged over the blocks: the spread of a few skewed
    values would be too small where their mean is low. Raises ValueError for fewer than two blocks or two images a
    block, and for features that are not finite."""
    require(blocks >= 2, "the number of blocks must be at least 2", blocks)
    check_features(a, b, 2 * blocks)
    n = min(len(a), len(b)) // blocks
    parts = [mmd_moments(a[i * n :][:n].double(), b[i * n :][:n].double()) for i in range(blocks)]
    value, mean, square, rows = torch.stack(parts).mean(0)
    single = (square - mean.square()).clamp(min=0)  # variance of a term h_ij
    shared = ((n - 1) * rows - single).clamp(min=0)  # n - 2 times the covariance of h_ij and h_ik
    variance = (4 * shared + 2 * single) / (n * (n - 1))
    return float(value), float((variance / blocks).sqrt())


def mmd_moments(a: Features, b: Features) -> Float[Tensor, "4"]:
    """The unbiased squared discrepancy; and the mean, the mean square and the variance of the row means of its terms
    h_ij = k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(a_j, b_i), i != j."""
    n, d = a.shape
    aa, bb, ab = ((p @ q.T / d + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
    h = (aa + bb - ab - ab.T).fill_diagonal_(0)
    pairs = n * (n - 1)
    within = (aa.sum() - aa.trace() + bb.sum() - bb.trace()) / pairs
    rows = h.sum(1) / (n - 1)
    return torch.stack([within - 2 * ab.mean(), h.sum() / pairs, h.square().sum() / pairs, rows.var()])


def inception_score(probabilities: Float[Tensor, "n k"]) -> float:
    """exp(mean KL(p(y | x) || p(y))), from 1 to k (Salimans et al. 2016, section 4): high if each image is read with
    certainty and the classes are equally frequent. Raises ValueError unless each row is a distribution."""
    p = probabilities.double()
    if p.ndim != 2 or len(p) == 0 or not ((p >= 0).all() and ((p.sum(1) - 1).abs() < 1e-3).all()):
        raise ValueError(f"expected a distribution over the classes for each image, got {tuple(p.shape)}: {p!r:.200}")
    entropy = torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean()
    return float(entropy.exp())


def precision_recall(samples: Features, real: Features, k: int = 3) -> tuple[float, float]:
    """The share of samples within the region of the real data, and the share of real data within that of the samples
    (Kynkäänniemi et al. 2019, eq. 1 and 2): the union of balls that reach from each point to its k-th nearest
    neighbour. Both depend on n. Raises ValueError for k below 1, k or fewer images, and features not finite."""
    require(k >= 1, "the number of neighbours k must be at least 1", k)
    check_features(samples, real, k + 1)
    return covered(samples, real, k), covered(real, samples, k)


def covered(points: Features, centres: Features, k: int, chunk: int = 1000) -> float:
    """The share of points within the ball of at least one centre. Each centre is its own nearest: hence k + 1."""
    radii = [torch.cdist(c, centres).topk(k + 1, largest=False).values[:, k] for c in centres.split(chunk)]
    radius = torch.cat(radii)
    inside = [(torch.cdist(p, centres) <= radius).any(1) for p in points.split(chunk)]
    return float(torch.cat(inside).float().mean())


def nearest(
    x: Float[Tensor, "n c h w"], data: Float[Tensor, "m c h w"], chunk: int = 500
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """The Euclidean distance from each x to its nearest image in data, and the index of that image."""
    flat = data.flatten(1)
    square = flat.square().sum(1)
    found = [(square - 2 * part.flatten(1) @ flat.T).min(1) for part in x.split(chunk)]
    index = torch.cat([part.indices for part in found])
    return (x - data[index]).flatten(1).norm(dim=1), index


def memorisation(x: Images, train: Images, test: Images, quantile: float = 0.001) -> dict[str, float]:
    """The distances of samples to their nearest training digits, and those of test digits, the floor. "copied" is the
    share of samples nearer than this quantile of the test digits: without memorisation, about the quantile itself.
    Raises ValueError for invalid images, a quantile outside (0, 1), and too few test digits to estimate it."""
    check_readable(x)
    if not 0 < quantile < 1 or len(test) < 1 / quantile:
        raise ValueError(f"a quantile in (0, 1) needs 1 / quantile test digits, got {quantile} and {len(test)} digits")
    ours, floor = nearest(x, train)[0], nearest(test, train)[0]
    both = {"": ours, "floor_": floor}
    found = {f"{prefix}median": float(distance.median()) for prefix, distance in both.items()}
    found |= {f"{prefix}smallest": float(distance.min()) for prefix, distance in both.items()}
    return found | {"copied": float((ours < floor.quantile(quantile)).float().mean())}


def train_on_synthetic(x: Images, y: Labels, x_test: Images, y_test: Labels, epochs: int = 20, seed: int = 0) -> float:
    """The accuracy on test digits of a classifier trained on x and y alone (Ravuri & Vinyals 2019, "Classification
    Accuracy Score"); its floor takes as many real digits. Raises ValueError for invalid images or labels."""
    check_labels(x_test, y_test)
    return label_accuracy(train_classifier(x, y, epochs, seed=seed), x_test, y_test)


def check_features(a: Tensor, b: Tensor, least: int) -> None:
    """Raises ValueError unless both are finite (n, d) of one d, with n at least `least`."""
    if not all(f.ndim == 2 and f.shape[1:] == a.shape[1:] and len(f) >= least and f.isfinite().all() for f in (a, b)):
        got = (f"{tuple(f.shape)} with {int((~f.isfinite()).sum())} NaN or infinite values" for f in (a, b))
        raise ValueError(f"expected finite features (n, d) of at least {least} images a side, got {' and '.join(got)}")


METRICS = {  # a metric: a function, and the fields of ImageBatch that are its arguments
    "confusion": (confusion, "probabilities", "labels"),
    "label_accuracy": (accuracy, "probabilities", "labels"),
    "frechet_digit_distance": (frechet_digit_distance, "features", "test_features"),
    "kernel_distance": (kernel_distance, "features", "test_features"),
    "inception_score": (inception_score, "probabilities"),
    "precision_recall": (precision_recall, "features", "test_features"),
    "memorisation": (memorisation, "images", "train", "test"),
    "train_on_synthetic": (train_on_synthetic, "images", "labels", "test", "test_labels"),
}
WITHOUT_FLOOR = ("confusion", "memorisation")  # the latter brings its own


@dataclass(frozen=True)
class ImageBatch:
    """What metrics are functions of: images (n, 1, 32, 32), labels (n,) or None, the classifier's features and
    probabilities, the features of n test digits, and all training and test digits."""

    images: Tensor
    labels: Tensor | None
    features: Tensor
    probabilities: Tensor
    test_features: Tensor
    train: Tensor
    test: Tensor
    test_labels: Tensor

    def measure(self, metric: tuple):
        """The metric of these images; None if they lack one of its arguments."""
        function, *fields = metric
        arguments = [getattr(self, field) for field in fields]
        return None if any(argument is None for argument in arguments) else function(*arguments)
