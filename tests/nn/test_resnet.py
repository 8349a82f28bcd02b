"""The residual block, against the same block wired by hand from torch's own ops."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from tinyddpm.nn import ResnetBlock


def conv_norm(block, x):
    conv = block.conv
    w = conv.weight.reshape(1, conv.out_channels, -1)
    w = F.batch_norm(w, None, None, training=True, momentum=0.0, eps=1e-5).reshape(conv.weight.shape)
    h = F.conv2d(x, w, conv.bias, padding=1)
    return F.group_norm(h, block.norm.num_groups, block.norm.weight, block.norm.bias)


@pytest.mark.parametrize("c_in, c_out", [(8, 8), (4, 8), (16, 8)])
@pytest.mark.parametrize("groups", [1, 4, 8])
def test_resnet_block_is_its_formula(randomise, c_in, c_out, groups):
    resnet = randomise(ResnetBlock(c_in, c_out, cond_dim=6, groups=groups).double())
    x = torch.randn(2, c_in, 6, 4, dtype=torch.float64)
    cond = torch.randn(2, 6, dtype=torch.float64)
    modulation = F.linear(F.silu(cond), resnet.modulation.weight, resnet.modulation.bias)
    scale, shift = modulation[:, :c_out, None, None], modulation[:, c_out:, None, None]
    h = F.silu(conv_norm(resnet.block1, x) * (1 + scale) + shift)
    h = F.silu(conv_norm(resnet.block2, h))
    shortcut = x if c_in == c_out else F.conv2d(x, resnet.shortcut.weight, resnet.shortcut.bias)
    assert_close(resnet(x, cond), h + shortcut)


def test_untrained_resnet_block_ignores_its_condition():  # trap 34: scale and shift start at zero
    resnet, x = ResnetBlock(4, 8, cond_dim=6), torch.randn(2, 4, 6, 6)
    assert torch.equal(resnet(x, torch.randn(2, 6)), resnet(x, torch.randn(2, 6)))


def test_untrained_resnet_block_can_learn_its_condition():
    resnet = ResnetBlock(4, 8, cond_dim=6)
    resnet(torch.randn(2, 4, 6, 6), torch.randn(2, 6)).square().sum().backward()
    scale, shift = resnet.modulation.weight.grad.chunk(2)
    assert scale.abs().sum() > 0 and shift.abs().sum() > 0


def test_each_image_is_modulated_by_its_own_condition(randomise):
    resnet = randomise(ResnetBlock(8, 8, cond_dim=6).double())
    x = torch.randn(1, 8, 6, 6, dtype=torch.float64).expand(2, -1, -1, -1)
    cond = torch.randn(2, 6, dtype=torch.float64)
    both = resnet(x, cond)
    assert (both[0] - both[1]).abs().max() > 0.01
    assert_close(both[1:], resnet(x[1:], cond[1:]))


@pytest.mark.parametrize("cond_dim", [None, 6])
def test_every_parameter_of_a_resnet_block_gets_a_gradient(randomise, cond_dim):  # trap 16
    resnet = randomise(ResnetBlock(4, 8, cond_dim))
    cond = None if cond_dim is None else torch.randn(2, cond_dim)
    resnet(torch.randn(2, 4, 6, 6), cond).square().mean().backward()
    assert [name for name, p in resnet.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_shortcut_has_weights_only_where_the_channels_change():
    assert not list(ResnetBlock(8, 8).shortcut.parameters())
    assert ResnetBlock(8, 16).shortcut.weight.shape == (16, 8, 1, 1)
