"""What samples are worth: figures that compare them with real digits, each a function on tensors.

No figure means anything alone: each depends on the number of samples n, and each has a floor, which is
what as many real training digits score against the test set. Give both. (The classifier was trained on those
training digits, so that the floor of its accuracy is above what digits that it has not seen can reach.) The
features are those of the classifier (n, d); `features` and `classify` in classifier.py make them from images.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .classifier import check_digits, check_labels, classify, train_classifier

Features = Float[Tensor, "n d"]


def label_accuracy(classifier: nn.Module, x: Float[Tensor, "n 1 h w"], y: Int[Tensor, " n"]) -> float:
    """The share of images that the classifier reads as the digit in y.

    Raises ValueError when images and labels differ in number, and for what are no digits.
    """
    check_labels(x, y)
    return float((classify(classifier, x).argmax(1) == y).float().mean())


def frechet_digit_distance(a: Features, b: Features) -> float:
    """The Frechet distance between the Gaussians that have the features' means and covariances (Heusel
    et al. 2017, equation 6, there with Inception's features: the figures do not compare with any FID).

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)). Falls with n: compare at the same n only.
    Raises ValueError for fewer samples than features, and for NaN.
    """
    check_features(a, b, more_than=a.shape[-1])
    a, b = a.double(), b.double()
    root = matrix_root(a.T.cov())
    cross = torch.linalg.eigvalsh(root @ b.T.cov() @ root).clamp(min=0).sqrt().sum()
    spread = a.var(0).sum() + b.var(0).sum() - 2 * cross
    return float((a.mean(0) - b.mean(0)).square().sum() + spread)


def matrix_root(c: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    values, vectors = torch.linalg.eigh(c)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def kernel_distance(a: Features, b: Features, blocks: int = 10) -> tuple[float, float]:
    """The squared maximum mean discrepancy under the kernel (a . b / d + 1)^3, without bias (Binkowski
    et al. 2018, section 3), as the mean over disjoint blocks; and its standard error.

    0 is expected of two samples of one distribution, whatever n; single values fall below it, too. The
    error is that of a U-statistic (Hoeffding 1948, equation 5.13), its moments averaged over the blocks: the
    spread of so few values, skewed as they are, would be too small wherever their mean is low.
    Raises ValueError for fewer than two blocks or two samples a block, and for NaN.
    """
    if blocks < 2:
        raise ValueError(f"an error needs at least 2 blocks, got {blocks}")
    check_features(a, b, more_than=2 * blocks - 1)
    n = min(len(a), len(b)) // blocks
    parts = [mmd_moments(a[i * n :][:n].double(), b[i * n :][:n].double()) for i in range(blocks)]
    value, mean, square, rows = torch.stack(parts).mean(0)
    single = (square - mean.square()).clamp(min=0)  # variance of a term h_ij
    shared = ((n - 1) * rows - single).clamp(min=0)  # n - 2 times the covariance of h_ij and h_ik
    variance = (4 * shared + 2 * single) / (n * (n - 1))
    return float(value), float((variance / blocks).sqrt())


def mmd_moments(a: Features, b: Features) -> Float[Tensor, "4"]:
    """The squared discrepancy without bias; and of its terms h_ij = k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) -
    k(a_j, b_i), i unlike j: mean, mean square, and the variance of the means over j."""
    n, d = a.shape
    aa, bb, ab = ((p @ q.T / d + 1) ** 3 for p, q in ((a, a), (b, b), (a, b)))
    h = (aa + bb - ab - ab.T).fill_diagonal_(0)
    pairs = n * (n - 1)
    within = (aa.sum() - aa.trace() + bb.sum() - bb.trace()) / pairs
    rows = h.sum(1) / (n - 1)
    return torch.stack([within - 2 * ab.mean(), h.sum() / pairs, h.square().sum() / pairs, rows.var()])


def inception_score(probabilities: Float[Tensor, "n k"]) -> float:
    """exp(mean KL(p(y | x) || p(y))) of the classifier's probabilities, from 1 to k (Salimans et al. 2016,
    section 4): high where each image is read with certainty and all classes are as frequent.

    Raises ValueError unless each row is a distribution.
    """
    p = probabilities.double()
    if p.ndim != 2 or len(p) == 0 or not is_distribution(p).all():
        wrong = "" if p.ndim != 2 else f", {int((~is_distribution(p)).sum())} of whose rows are none"
        raise ValueError(f"one distribution over the classes an image, got shape {tuple(p.shape)}{wrong}")
    entropy = torch.special.entr(p.mean(0)).sum() - torch.special.entr(p).sum(1).mean()
    return float(entropy.exp())


def is_distribution(p: Float[Tensor, "n k"]) -> Tensor:
    """Which rows are none below 0 and have the sum 1; those with NaN are not."""
    return (p >= 0).all(1) & ((p.sum(1) - 1).abs() < 1e-3)


def precision_recall(samples: Features, real: Features, k: int = 3) -> tuple[float, float]:
    """How much of the samples lies where real data are, and how much of the real data where samples are
    (Kynkaanniemi et al. 2019, equations 1 and 2: a region is the union of balls that reach from each
    point to its k-th nearest neighbour). Both fall and rise with n: compare at the same n.

    Raises ValueError for k or fewer samples, a k below 1, and for NaN.
    """
    if k < 1:
        raise ValueError(f"k counts neighbours, from 1, got {k}")
    check_features(samples, real, more_than=k)
    return covered(samples, real, k), covered(real, samples, k)


def covered(points: Features, centres: Features, k: int, chunk: int = 1000) -> float:
    """The share of points within the k-th neighbour's distance of at least one centre."""
    # the point itself is the nearest of all: so one more is looked for
    radius = [torch.cdist(c, centres).topk(k + 1, largest=False).values[:, k] for c in centres.split(chunk)]
    radius = torch.cat(radius)
    inside = [(torch.cdist(p, centres) <= radius).any(1) for p in points.split(chunk)]
    return float(torch.cat(inside).float().mean())


def nearest(
    x: Float[Tensor, "n c h w"], data: Float[Tensor, "m c h w"], chunk: int = 500
) -> tuple[Float[Tensor, " n"], Int[Tensor, " n"]]:
    """The distance in pixels (root of the summed squares) from each x to its nearest image in data, and
    which one that is."""
    flat = data.flatten(1)
    square = flat.square().sum(1)
    found = [(square - 2 * part.flatten(1) @ flat.T).min(1) for part in x.split(chunk)]
    index = torch.cat([part.indices for part in found])
    return (x - data[index]).flatten(1).norm(dim=1), index


def memorisation(
    x: Float[Tensor, "n 1 h w"], train: Float[Tensor, "m 1 h w"], test: Float[Tensor, "l 1 h w"], share: float = 0.001
) -> dict[str, float]:
    """How near the samples come to training digits, beside how near test digits do.

    "copied" is the share of samples nearer to a training digit than all but that share of test digits are, so
    that a model which copies nothing scores about as much; "median" and "floor_median" are the distances.
    Raises ValueError for what are no digits, a share outside (0, 1), and for fewer test digits than the share
    takes to be found.
    """
    for images in (x, train, test):
        check_digits(images)
    if not 0 < share < 1:
        raise ValueError(f"a share of the test digits lies between 0 and 1, got {share}")
    if len(test) < (least := math.ceil(1 / share)):
        raise ValueError(
            f"that all but {share:g} of test digits are farther off takes at least {least} of them to say, "
            f"got {len(test)}: take more, or a larger share"
        )
    ours, floor = nearest(x, train)[0], nearest(test, train)[0]
    return {
        "median": float(ours.median()),
        "floor_median": float(floor.median()),
        "smallest": float(ours.min()),
        "floor_smallest": float(floor.min()),
        "copied": float((ours < floor.quantile(share)).float().mean()),
    }


def train_on_synthetic(
    x: Float[Tensor, "n 1 h w"],
    y: Int[Tensor, " n"],
    x_test: Float[Tensor, "m 1 h w"],
    y_test: Int[Tensor, " m"],
    epochs: int = 20,
    seed: int = 0,
) -> float:
    """The accuracy on real test digits of a classifier that has seen the given images only (Ravuri &
    Vinyals 2019, "Classification Accuracy Score"). Its floor is the same with as many real ones.

    Raises ValueError when images and labels differ in number, and for what are no digits.
    """
    for images, labels in ((x, y), (x_test, y_test)):
        check_labels(images, labels)
        check_digits(images)
    return label_accuracy(train_classifier(x, y, epochs, seed=seed), x_test, y_test)


def check_features(a: Tensor, b: Tensor, more_than: int) -> None:
    for f in (a, b):
        if f.ndim != 2 or f.shape[1] != a.shape[1]:
            raise ValueError(f"features are (n, d) with one d, got {tuple(a.shape)} and {tuple(b.shape)}")
        if len(f) <= more_than:
            raise ValueError(f"this figure needs at least {more_than + 1} samples on each side, got {len(f)}")
        if not f.isfinite().all():
            raise ValueError(f"{int((~f.isfinite().all(1)).sum())} of {len(f)} features are NaN or infinite")
