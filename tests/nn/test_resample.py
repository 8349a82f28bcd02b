"""Space to depth and back, against F.pixel_unshuffle and F.pixel_shuffle."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tinyddpm.nn import DepthToSpace, Downsample, SpaceToDepth, Upsample

FACTORS = pytest.mark.parametrize("factor", [1, 2, 3])


@FACTORS
@pytest.mark.parametrize("c", [1, 3])
def test_space_to_depth_is_pixel_unshuffle(factor, c):
    x = torch.randn(2, c, 6, 12)
    assert torch.equal(SpaceToDepth(factor)(x), F.pixel_unshuffle(x, factor))


@FACTORS
@pytest.mark.parametrize("c", [1, 3])
def test_depth_to_space_is_pixel_shuffle(factor, c):
    x = torch.randn(2, c * factor**2, 4, 2)
    assert torch.equal(DepthToSpace(factor)(x), F.pixel_shuffle(x, factor))


@FACTORS
def test_depth_to_space_undoes_space_to_depth(factor):
    x = torch.randn(2, 3, 6, 12)
    assert torch.equal(DepthToSpace(factor)(SpaceToDepth(factor)(x)), x)


def test_downsample_is_unshuffle_then_a_1x1_convolution():
    down, x = Downsample(3, 5), torch.randn(2, 3, 4, 6)
    expected = F.conv2d(F.pixel_unshuffle(x, 2), down[1].weight, down[1].bias)
    assert_close(down(x), expected)
    assert down(x).shape == (2, 5, 2, 3)


def test_upsample_is_a_1x1_convolution_then_shuffle():
    up, x = Upsample(3, 5), torch.randn(2, 3, 2, 3)
    assert_close(up(x), F.pixel_shuffle(F.conv2d(x, up[0].weight, up[0].bias), 2))
    assert up(x).shape == (2, 5, 4, 6)


def test_upsample_nearest_repeats_pixels_then_convolves_3x3():
    up, x = Upsample(3, 5, mode="nearest"), torch.randn(2, 3, 2, 3)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert_close(up(x), F.conv2d(repeated, up[1].weight, up[1].bias, padding=1))
    assert up(x).shape == (2, 5, 4, 6)
