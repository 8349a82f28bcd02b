"""Standardized weights against F.batch_norm, and the convolution block against torch's own ops."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tinyddpm.nn import ConvBlock, WeightStandardizedConv2d


def standardized_by_batch_norm(conv):
    w = conv.weight.reshape(1, conv.out_channels, -1)
    return F.batch_norm(w, None, None, training=True, momentum=0.0, eps=1e-5).reshape(conv.weight.shape)


@pytest.mark.parametrize("c_in, c_out, kernel", [(1, 4, 3), (8, 3, 3), (64, 32, 3), (6, 5, 1)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_standardized_weights_are_those_of_batch_norm(c_in, c_out, kernel, scale):  # trap 14
    conv = WeightStandardizedConv2d(c_in, c_out, kernel)
    conv.weight.data.mul_(scale).add_(scale)
    assert_close(conv.standardized_weight(), standardized_by_batch_norm(conv), rtol=1e-4, atol=1e-4)


def test_every_filter_has_mean_0_and_variance_1():  # trap 14: multiplying by the deviation gives 1e-7
    conv = WeightStandardizedConv2d(32, 16, 3, padding=1)  # as initialised: deviations of about 0.03
    var, mean = torch.var_mean(conv.standardized_weight(), dim=(1, 2, 3), unbiased=False)
    assert_close(mean, torch.zeros(16))
    assert_close(var, torch.ones(16), rtol=0, atol=0.03)  # what eps leaves to be desired


def test_loss_cannot_be_lowered_by_scaling_or_shifting_a_filter():  # the gradient runs through mean and var
    conv = WeightStandardizedConv2d(4, 3, 3).double()
    conv.weight.data.mul_(100)  # so that eps is nothing beside the variance
    conv(torch.randn(2, 4, 6, 6, dtype=torch.float64)).square().mean().backward()
    grad = conv.weight.grad
    assert grad.abs().max() > 1e-3
    for along in (grad, grad * conv.weight):
        assert along.sum(dim=(1, 2, 3)).abs().max() < 1e-6 * along.abs().sum()


def test_standardized_convolution_is_a_convolution_with_the_standardized_weights():
    conv = WeightStandardizedConv2d(3, 5, 3, stride=2, padding=1)
    x = torch.randn(2, 3, 8, 6)
    expected = F.conv2d(x, standardized_by_batch_norm(conv), conv.bias, stride=2, padding=1)
    assert_close(conv(x), expected, rtol=1e-4, atol=1e-4)


def test_stored_weights_are_left_as_they_are():
    conv = WeightStandardizedConv2d(3, 5, 3)
    before = conv.weight.detach().clone()
    conv(torch.randn(1, 3, 8, 8))
    assert torch.equal(conv.weight, before)


@pytest.mark.parametrize("c_in", [8, 64])
def test_bfloat16_autocast_stays_within_2_percent_of_float32(c_in):  # trap 15
    conv = WeightStandardizedConv2d(c_in, 16, 3, padding=1)
    # a deviation far below the mean: taken from weights rounded to bfloat16 it would be all noise
    conv.weight.data.mul_(0.1).add_(1.0)
    x = torch.randn(2, c_in, 8, 8)
    high = conv(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = conv(x)
        weight = conv.standardized_weight()
    assert low.dtype == torch.bfloat16 and weight.dtype == torch.float32
    assert (low.float() - high).norm() < 0.02 * high.norm()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_weights_are_standardized_in_float32_and_rounded_once(dtype):  # trap 15
    conv = WeightStandardizedConv2d(64, 16, 3, padding=1).to(dtype)
    var, mean = torch.var_mean(conv.weight.float(), dim=(1, 2, 3), keepdim=True, unbiased=False)
    exact = (conv.weight.float() - mean) / (var + conv.eps).sqrt()
    assert_close(conv.standardized_weight().float(), exact, rtol=torch.finfo(dtype).eps, atol=1e-4)
    assert conv(torch.randn(1, 64, 4, 4, dtype=dtype)).dtype == dtype


def test_float64_stays_float64():
    conv = WeightStandardizedConv2d(4, 4, 3).double()
    assert conv.standardized_weight().dtype == torch.float64


@pytest.mark.parametrize("c_out", [8, 16, 24])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_conv_block_is_conv_norm_scale_shift_silu(c_out, groups):  # trap 34: (1 + scale), groups grid
    block = ConvBlock(3, c_out, groups)
    block.norm.weight.data.uniform_(0.5, 2)
    block.norm.bias.data.normal_()
    x, scale, shift = torch.randn(2, 3, 6, 4), torch.randn(2, c_out), torch.randn(2, c_out)
    h = F.conv2d(x, standardized_by_batch_norm(block.conv), block.conv.bias, padding=1)
    h = F.group_norm(h, groups, block.norm.weight, block.norm.bias)
    assert_close(block(x), F.silu(h), rtol=1e-4, atol=1e-4)
    modulated = F.silu(h * (1 + scale[..., None, None]) + shift[..., None, None])
    assert_close(block(x, (scale, shift)), modulated, rtol=1e-4, atol=1e-4)


def test_zero_scale_and_shift_leave_the_block_as_it_is():  # trap 34
    block, x, zeros = ConvBlock(3, 8), torch.randn(2, 3, 6, 4), torch.zeros(2, 8)
    assert torch.equal(block(x, (zeros, zeros)), block(x))
