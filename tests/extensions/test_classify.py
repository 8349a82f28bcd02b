"""The network as a classifier, held to Bayes' rule where each label's distribution is a known Gaussian."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from tinyddpm import DDPM, Schedule, classify, load_pretrained, mnist
from tinyddpm.extensions.classify import label_errors, times_at

SCHEDULE = Schedule.named("cosine", 200)
MEANS = torch.tensor([-0.3, 0.0, 0.25]).reshape(3, 1, 1, 1) * torch.linspace(0.5, 1, 16).reshape(1, 1, 4, 4)
VARIANCE = 0.05


class Exact(nn.Module):
    """The exact denoiser of N(mean of the label, VARIANCE), which remembers what it was asked; no label is label 0."""

    num_classes = 3

    def __init__(self):
        super().__init__()
        self.nothing, self.asked = nn.Parameter(torch.zeros(1)), []

    def forward(self, x_t, t, y=None):
        y = torch.zeros_like(t) if y is None else y % 3
        self.asked.append((x_t, t, y))
        signal, noise = SCHEDULE.coefficients(t, x_t)
        shrink = signal * VARIANCE / (signal**2 * VARIANCE + noise**2)
        return MEANS[y] + shrink * (x_t - signal * MEANS[y])


def exact():
    ddpm = DDPM(Exact(), SCHEDULE, "x_0", (1, 4, 4))
    ddpm.model.asked.clear()
    return ddpm


def images(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(3, (n,), generator=generator)
    return (MEANS[y] + VARIANCE**0.5 * torch.randn(n, 1, 4, 4, generator=generator)).clamp(-1, 1), y


def bound():
    """All times, and the weights of the bound: half the integral over SNR, by the trapezoidal rule."""
    snr = torch.cat([SCHEDULE.log_snr[1:].exp(), torch.zeros(1, dtype=torch.float64)])  # of t = 1..T, and of no signal
    gains = snr[:-1] - snr[1:]
    weights = torch.zeros(SCHEDULE.T + 1, dtype=torch.float64)
    weights[1:] += gains / 4
    weights[2:] += gains[:-1] / 4
    return list(range(1, SCHEDULE.T + 1)), weights


def bayes(x):
    return (-(x[:, None] - MEANS).double().square().flatten(2).sum(2) / (2 * VARIANCE)).softmax(1)


def test_with_the_exact_denoisers_the_probabilities_are_those_of_bayes_rule():
    x, _ = images(80)
    times, weights = bound()
    found = classify(exact(), x, times, weights, rounds=2, margin=torch.inf)
    assert_close(found, bayes(x), atol=0.01, rtol=0)
    assert (bayes(x).amax(1) < 0.6).any() and (bayes(x).amax(1) > 0.99).any()


def test_dropping_labels_saves_calls_and_changes_no_clear_verdict():
    x, _ = images(300)
    clear = x[bayes(x).amax(1) > 0.99][:20]
    times, weights = bound()
    everyone, few = exact(), exact()
    how = dict(times=times[::20], weights=20 * weights, rounds=4, batch_size=10)
    every = classify(everyone, clear, margin=torch.inf, **how)
    found = classify(few, clear, margin=8, **how)
    assert (found.argmax(1) == every.argmax(1)).all() and (every.argmax(1) == bayes(clear).argmax(1)).all()
    assert len(everyone.model.asked) == 6 * 10 * 4  # batches of 10 of 60 pairs, times, rounds
    assert len(few.model.asked) < 0.6 * len(everyone.model.asked)
    assert_close(found.sum(1), torch.ones(20).double())


def test_a_label_that_is_dropped_keeps_the_distance_that_it_had():
    x, _ = images(1)
    times, weights = bound()
    once = classify(exact(), x, times, weights, rounds=1, margin=0)  # the best alone is left
    assert_close(classify(exact(), x, times, weights, rounds=3, margin=0), once)


def test_all_labels_and_images_see_the_same_noise():
    ddpm, (x, _) = exact(), images(4)
    classify(ddpm, x, [20, 90], rounds=2, margin=torch.inf, batch_size=12)
    noises = []
    for x_t, t, y in ddpm.model.asked:
        assert y.tolist() == [0, 1, 2] * 4
        signal, noise = SCHEDULE.coefficients(t, x_t)
        eps = (x_t - signal * x.repeat_interleave(3, 0)) / noise
        assert_close(eps, eps[:1].expand_as(eps), atol=1e-4, rtol=0)
        noises.append(eps[0])
    assert len(noises) == 4 and all((a - b).abs().max() > 0.1 for i, a in enumerate(noises) for b in noises[:i])


def test_a_verdict_does_not_depend_on_the_other_images():
    x, _ = images(30)
    x = x[(x < 0).flatten(1).any(1)]  # alone, the others look like [0, 1]
    together = classify(exact(), x, [20, 60, 120], rounds=3)
    alone = torch.cat([classify(exact(), part, [20, 60, 120], rounds=3) for part in x.split(1)])
    assert_close(together, alone, atol=1e-5, rtol=0)


def test_the_errors_are_those_of_the_pairs_asked_for():
    ddpm, (x, _) = exact(), images(3)
    pairs = torch.tensor([[2, 1], [0, 0], [2, 2]])
    found = label_errors(ddpm, x, pairs, 50, torch.zeros(1, 4, 4), batch_size=2)
    assert [len(y) for _, _, y in ddpm.model.asked] == [2, 1]
    x_t = SCHEDULE.sqrt_alpha_bar[50].float() * x[pairs[:, 0]]
    x_0_hat = ddpm.model(x_t, torch.full((3,), 50), pairs[:, 1])
    expected = (x[pairs[:, 0]] - x_0_hat).square().flatten(1).sum(1).double()
    assert_close(found, expected, atol=1e-5, rtol=0)


def test_times_are_those_of_the_nearest_log_snr():
    values = [float(SCHEDULE.log_snr[t]) + 1e-6 for t in (1, 77, 200)]
    assert times_at(SCHEDULE, values) == [1, 77, 200] and times_at(SCHEDULE, [99.0, -99.0]) == [1, 200]


def test_the_shipped_network_reads_digits():
    x, y = mnist(train=False)[:10]
    probabilities = classify(load_pretrained(), x, rounds=1)
    assert (probabilities.argmax(1) == y).sum() >= 9


def without_labels():
    ddpm = exact()
    ddpm.num_classes = None
    return ddpm


def diverged():
    ddpm = exact()
    ddpm.model.forward = lambda x_t, t, y: x_t * torch.nan
    return ddpm


X = images(2)[0]
SHAPE = r"images are float32 \(n, 1, 4, 4\), got"
RANGE = r"finite and in \[-1, 1\], and some pixel below 0 .*, got \["


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"ddpm": without_labels()}, "a classifier needs a network with labels, got one with num_classes None"),
        ({"ddpm": diverged()}, r"a network that returns numbers, got NaN at t = \d+"),
        ({"x": torch.zeros(2, 1, 8, 8)}, SHAPE + r" torch.float32 of shape \(2, 1, 8, 8\)"),
        ({"x": X.expand(2, 3, 4, 4)}, SHAPE),
        ({"x": X[0]}, SHAPE),
        ({"x": X[:0]}, SHAPE),
        ({"x": X.double()}, SHAPE + " torch.float64"),
        ({"x": "digits"}, SHAPE + " <class 'str'>"),
        ({"x": 100 * X}, RANGE),
        ({"x": X.abs()}, RANGE),  # [0, 1]
        ({"x": X * torch.nan}, RANGE + "nan"),
        ({"x": X * torch.inf}, RANGE),
        ({"times": []}, r"times must be in 1\.\.200, at least one, got \[\]"),
        ({"times": [0, 3]}, r"got \[0, 3\]"),
        ({"times": [201]}, r"got \[201\]"),
        ({"times": [2.5]}, r"times must be in 1\.\.200, at least one, got \[2.5\]"),
        ({"weights": torch.ones(7)}, r"a table of finite weights, one for each t in 0\.\.200, got"),
        ({"weights": [0.5] * 201}, r"a table of finite weights, one for each t in 0\.\.200, got"),
        ({"weights": torch.full((201,), torch.nan)}, r"a table of finite weights"),
        ({"rounds": 0}, "rounds must be an integer of at least 1, got 0"),
        ({"margin": -1.0}, "margin must be at least 0, got -1.0"),
    ],
)
def test_what_cannot_be_classified_is_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        classify(**{"ddpm": exact(), "x": X} | arguments)
