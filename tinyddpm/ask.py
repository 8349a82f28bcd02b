"""What is asked of a model, labels and seeds, checked and brought into one form."""

from collections.abc import Sequence

import torch
from torch import Tensor


def check_labels(y: Sequence[int] | Tensor | int, classes: int | None) -> Tensor:
    """Labels as (b,) int64. Raises ValueError for what are no labels in 0..classes-1."""
    if classes is None:
        raise ValueError("this model was trained without labels: ask for n images instead of labels y")
    try:
        y = torch.as_tensor(y)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"labels are one integer an image, got {y!r}") from error
    if y.numel() and y.is_floating_point() or y.dtype == torch.bool or y.ndim > 1:
        raise ValueError(f"labels are one integer an image, got {y.dtype} of shape {tuple(y.shape)}")
    if len(y := y.reshape(-1).long()) and (y.min() < 0 or y.max() >= classes):
        raise ValueError(
            f"labels must be in 0..{classes - 1}, got {sorted(set(y.tolist()) - set(range(classes)))}"
        )
    return y


def check_seeds(seeds: Sequence[int] | int | None, n: int) -> list[int]:
    """One seed for each of n images, any where None. Raises ValueError for no images, or another number."""
    if n < 1:
        raise ValueError(f"the number of images must be at least 1, got {n}")
    if seeds is None:
        return torch.randint(2**63 - 1, (n,)).tolist()
    seeds = [seeds] if isinstance(seeds, int) else list(seeds)
    if len(seeds) != n:
        raise ValueError(f"one seed an image: got {len(seeds)} seeds for {n} images")
    if not all(float(seed).is_integer() for seed in seeds):
        raise ValueError(f"seeds are integers, got {seeds[:5]}")
    return [int(seed) for seed in seeds]
