import pytest
import torch
from torch.utils.data import Subset

from tinyddpm import load_pretrained
from tinyddpm.data import mnist
from tinyddpm.metrics import DigitClassifier, classify, label_accuracy, train_classifier


class Brightest(torch.nn.Module):
    """Reads the first row's brightest column as the label."""

    def forward(self, x):
        return x[:, 0, 0, :10]


def rows(labels):
    x = torch.full((len(labels), 1, 32, 32), -1.0)
    x[torch.arange(len(labels)), 0, 0, labels] = 1.0
    return x


def test_label_accuracy_is_the_share_that_is_read_as_asked():
    y = torch.arange(10)
    assert label_accuracy(Brightest(), rows(y), y) == 1.0
    assert label_accuracy(
        Brightest(), rows(y), torch.tensor([0, 1, 2, 3, 4, 5, 6, 0, 0, 0])
    ) == pytest.approx(0.7)


def test_probabilities_do_not_depend_on_the_batch():
    classifier = DigitClassifier().eval()
    x = torch.randn(5, 1, 32, 32)
    whole, parts = classify(classifier, x), classify(classifier, x, batch_size=2)
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(whole.sum(1), torch.ones(5))


def test_images_that_are_not_finite_are_named_and_never_averaged():
    x = rows(torch.arange(3))
    x[1, 0, 5, 5] = torch.nan
    with pytest.raises(ValueError, match="1 of 3 images hold NaN or infinite values"):
        label_accuracy(Brightest(), x, torch.arange(3))


@pytest.mark.parametrize(("images", "labels"), [(3, 2), (0, 0)])
def test_images_and_labels_must_be_as_many(images, labels):
    with pytest.raises(ValueError, match=f"got {images} images and {labels} labels"):
        label_accuracy(Brightest(), rows(torch.arange(images)), torch.arange(labels))


def test_the_shipped_weights_draw_the_digit_asked_for():
    """A classifier of a few seconds is no judge of the last per cent: benchmarks/accuracy.py is."""
    classifier = train_classifier(Subset(mnist(), range(12_000)), epochs=1)
    test = mnist(train=False)
    real = torch.stack([test[i][0] for i in range(1000)])
    assert label_accuracy(classifier, real, test.labels[:1000]) > 0.94
    y = torch.arange(10).repeat_interleave(10)
    x = load_pretrained().sample(y, steps=20, scale=2.0, seeds=range(100))
    assert label_accuracy(classifier, x, y) > 0.94
