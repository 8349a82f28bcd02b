import pytest

from tinyddpm.data import ImageDataset, mnist
from tinyddpm.evaluation import Reference


def few(train: bool, n: int) -> ImageDataset:
    digits = mnist(train)
    return ImageDataset(digits.images[:n], digits.labels[:n])


@pytest.fixture(scope="session")
def reference():
    """600 training and 1,000 test digits."""
    return Reference(few(True, 600), few(False, 1000))
