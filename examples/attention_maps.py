"""Where the patches of a transformer look while it draws a digit:

    tinyddpm train --recipe dit --minutes 30
    python examples/attention_maps.py runs/dit/model.safetensors [digit] [picture.png]

Each row is a time, from noise to digit. Its columns are x_t, the denoised image with three patches framed, and for each
of these patches, framed again, its attention to all patches, averaged over blocks and heads. White is the most.
"""

import sys

import torch
from torch import Tensor
from torch.nn.functional import pad

from tinyddpm import DDPM, DiT, image_grid, save_picture
from tinyddpm.viz import frames_even_in_log_snr

GAP = 1  # pixels of white around each image
PATCHES = ((2, 4), (4, 2), (5, 5))  # row and column of those that are asked


def looks(model: DiT, x_t: Tensor, t: int, y: Tensor) -> list[Tensor]:
    """For each of PATCHES, an image (1, h, w) in [-1, 1] of the shares of the others."""
    maps = torch.stack(model.attention_maps(x_t, torch.tensor([t]), y)).mean((0, 2))[0]  # (n, n)
    columns = x_t.shape[-1] // model.patch
    shares = [maps[row * columns + column].reshape(1, -1, columns) for row, column in PATCHES]
    large = [part.repeat_interleave(model.patch, 1).repeat_interleave(model.patch, 2) for part in shares]
    return [2 * part / part.max() - 1 for part in large]


def framed(x: Tensor, patch: int, patches: tuple = PATCHES) -> Tensor:
    """An image (1, h, w) with a frame around each of these patches, grey, so that it is seen on black and on white."""
    x = x.clone()
    for row, column in patches:
        square = x[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        square[:, [0, -1]] = square[:, :, [0, -1]] = 0.0
    return x


def picture(ddpm: DDPM, digit: int = 7, rows: int = 5, seed: int = 0) -> Tensor:
    """The picture, (1, h, w) uint8. Raises ValueError for a network that is no DiT."""
    if not isinstance(ddpm.model, DiT):
        raise ValueError(f"only a DiT has patches that look, got a {type(ddpm.model).__name__}: train the recipe dit")
    steps = list(ddpm.sample_steps(digit, steps=50, seeds=seed))[:-1]  # at t = 0 the network is not asked
    log_snr = ddpm.schedule.log_snr[torch.tensor([step.t for step in steps])]
    images, patch = [], ddpm.model.patch
    for step in (steps[i] for i in frames_even_in_log_snr(log_snr, rows, low=-3.0, high=4.0)):
        maps = looks(ddpm.model, step.x_t, step.t, torch.tensor([digit]))
        images += [step.x_t[0], framed(step.x_0_hat[0], patch)]
        images += [framed(one, patch, (asked,)) for one, asked in zip(maps, PATCHES, strict=True)]
    images = [pad(image, (GAP, GAP, GAP, GAP), value=1.0) for image in images]  # white between them
    return image_grid(torch.stack(images), columns=2 + len(PATCHES), enlarge=4)


if __name__ == "__main__":
    weights, digit, out, *_ = [
        *sys.argv[1:],
        *["runs/dit/model.safetensors", "7", "attention.png"][len(sys.argv) - 1 :],
    ]
    save_picture(picture(DDPM.load(weights), int(digit)), out)
