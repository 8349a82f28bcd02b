import numpy as np
import pytest
import torch

from tinyddpm.data import mnist
from tinyddpm.evaluation import (
    Classifier,
    classify,
    features,
    label_accuracy,
    load_classifier,
    save_classifier,
    train_classifier,
)
from tinyddpm.evaluation.classifier import distort
from tinyddpm.files import asset


@pytest.fixture(scope="module")
def test_digits():
    return mnist(train=False)[:3000]


def test_the_shipped_classifier_reads_what_it_says(test_digits):
    assert label_accuracy(load_classifier(), *test_digits) >= 0.993
    assert asset("weights/digit-classifier.safetensors").stat().st_size <= 1_000_000


def test_training_is_the_same_each_time_and_learns():
    x, y = mnist()[:500]
    a, b, other = (train_classifier(x[:40], y[:40], epochs=1, batch_size=10, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters()))
    assert not torch.equal(a.head.weight, other.head.weight)
    assert label_accuracy(train_classifier(x, y, epochs=1, batch_size=10), x[:200], y[:200]) > 0.4  # chance is 0.1


def test_training_leaves_the_callers_random_state_alone():
    x, y = mnist()[:20]
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train_classifier(x, y, epochs=1, batch_size=10)
    assert torch.equal(before, torch.get_rng_state())


def test_a_saved_classifier_reads_the_same(tmp_path, test_digits):
    model, x = load_classifier(), test_digits[0][:50]
    save_classifier(model, tmp_path / "c.safetensors")
    torch.testing.assert_close(classify(load_classifier(tmp_path / "c.safetensors"), x), classify(model, x))


def test_features_and_probabilities_do_not_depend_on_the_batch(test_digits):
    model, x = load_classifier(), test_digits[0][:5]
    torch.testing.assert_close(features(model, x), features(model, x, batch_size=2))
    torch.testing.assert_close(classify(model, x), classify(model, x, batch_size=2))
    assert features(model, x).shape == (5, 128)
    torch.testing.assert_close(model.head(features(model, x)).softmax(1), classify(model, x))


def test_without_rotation_and_translation_the_scale_changes_by_a_tenth_at_most_and_keep_the_background():
    x = torch.full((64, 1, 32, 32), -1.0)
    x[:, :, 12:20, 12:20] = 1.0
    moved = distort(x, torch.Generator().manual_seed(0), degrees=0.0, pixels=0.0)
    assert moved.min() >= -1 and moved.max() <= 1
    assert (moved[:, :, 0] == -1).all()
    area = (moved + 1).sum((1, 2, 3)) / (x + 1).sum((1, 2, 3))
    assert 0.75 < area.min() and area.max() < 1.35
    assert not torch.equal(moved[0], moved[1])


def test_a_digit_is_moved_by_two_pixels_at_most_and_never_mirrored():
    x = torch.full((256, 1, 32, 32), -1.0)
    x[:, :, 10:22, 10] = 1.0  # an L that no turn of 12 degrees makes into a J
    x[:, :, 21, 10:18] = 1.0
    moved = (distort(x, torch.Generator().manual_seed(0), degrees=0.0) + 1) / 2
    side = torch.arange(32.0)
    mass = moved.sum((1, 2, 3))
    across = (moved.sum((1, 2)) * side).sum(1) / mass
    start = ((x + 1).sum((1, 2)) * side).sum(1) / (x + 1).sum((1, 2, 3))
    assert 1.5 < (across - start).abs().max() < 2.9  # two pixels, and a tenth of 4 each from scale and shear
    upper, lower = moved[:, 0, 8:16], moved[:, 0, 18:24]
    lean = (lower.sum(1) * side).sum(1) / lower.sum((1, 2)) - (upper.sum(1) * side).sum(1) / upper.sum((1, 2))
    assert (lean > 0).float().mean() > 0.95


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((2, 1, 28, 28), -1.0), r"got torch.float32 of shape \(2, 1, 28, 28\): .*pad_to"),
        (torch.full((2, 3, 32, 32), -1.0), r"shape \(2, 3, 32, 32\)"),
        (torch.full((0, 1, 32, 32), -1.0), r"shape \(0, 1, 32, 32\)"),
        (torch.full((2, 1, 32, 32), -1.0).double(), "digits are float32 tensors .*, got torch.float64"),
        (np.zeros((2, 1, 32, 32)), "digits are float32 tensors .*, got <class 'numpy.ndarray'>"),
        (torch.rand(2, 1, 32, 32), r"in \[-1, 1\] and on a background of -1, got \[.*from_uint8"),
        (torch.rand(2, 1, 32, 32) - 0.5, r"in \[-1, 1\] and on a background of -1, got \[.*from_uint8"),
        (torch.rand(2, 1, 32, 32) * 255, r"in \[-1, 1\] and on a background of -1, got \[.*from_uint8"),
        (torch.full((2, 1, 32, 32), torch.nan), "2 of 2 images with NaN or infinite values"),
    ],
)
def test_images_that_are_not_digits_are_refused(x, message):
    for ask in (classify, features):
        with pytest.raises(ValueError, match=message):
            ask(load_classifier(), x)


def test_files_that_hold_no_classifier_are_refused(tmp_path):
    with pytest.raises(ValueError, match="mnist-tiny.safetensors holds no digit classifier"):
        load_classifier(asset("weights/mnist-tiny.safetensors"))
    with pytest.raises(ValueError, match="there is no checkpoint"):
        load_classifier(tmp_path / "none.safetensors")


def test_weights_that_do_not_fit_their_description_are_refused(tmp_path):
    model = Classifier((8, 8, 8))
    model.arguments = {"dims": (8, 8, 16), "num_classes": 10}
    save_classifier(model, tmp_path / "c.safetensors")
    with pytest.raises(ValueError, match="c.safetensors holds no digit classifier .*loading state_dict"):
        load_classifier(tmp_path / "c.safetensors")


def test_less_than_a_batch_is_refused():
    x, y = torch.full((20, 1, 32, 32), -1.0), torch.zeros(20, dtype=torch.long)
    with pytest.raises(ValueError, match="for each of 20 images, at least 100"):
        train_classifier(x, y)
    assert isinstance(train_classifier(x, y, 1, batch_size=10), Classifier)
