"""Attention against three implementations of others, linear attention against a double loop."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from tinyddpm.nn import Attention, LinearAttention

BOTH = pytest.mark.parametrize("kind", [Attention, LinearAttention])


def qkv(b=2, m=3, n=6, d=4):
    return torch.randn(3, b, m, n, d, dtype=torch.float64).unbind()


def test_attend_is_scaled_dot_product_attention():
    q, k, v = qkv()
    assert_close(Attention(8).attend(q, k, v), F.scaled_dot_product_attention(q, k, v))


def test_linear_attend_is_its_naive_double_loop():  # Shen et al. 2021, equation 6, weight by weight
    q, k, v = qkv()
    expected = torch.zeros_like(v)
    key = k.exp() / k.exp().sum(dim=2, keepdim=True)  # over the pixels
    for i in range(6):
        query = q[:, :, i].exp() / q[:, :, i].exp().sum(dim=2, keepdim=True)  # over the channels
        for j in range(6):
            weight = (query * key[:, :, j]).sum(dim=-1, keepdim=True) / 4**0.5
            expected[:, :, i] += weight * v[:, :, j]
    assert_close(LinearAttention(8).attend(q, k, v), expected)


def test_attention_is_that_of_multihead_attention(randomise):
    c, heads = 8, 2
    block = randomise(Attention(c, heads, head_dim=c // heads).double(), 0.5)
    reference = torch.nn.MultiheadAttention(c, heads, bias=True, batch_first=True, dtype=torch.float64)
    reference.in_proj_weight.data = block.to_qkv.weight[:, :, 0, 0].detach()
    reference.in_proj_bias.data.zero_()
    reference.out_proj.weight.data = block.project.weight[:, :, 0, 0].detach()
    reference.out_proj.bias.data = block.project.bias.detach()
    x = torch.randn(2, c, 3, 5, dtype=torch.float64)  # not square: rows and columns must not be swapped
    normed = F.group_norm(x, 1, block.norm.weight, block.norm.bias)
    pixels = normed.flatten(2).transpose(1, 2)  # (b, h w, c)
    out, _ = reference(pixels, pixels, pixels)
    assert_close(block(x), x + out.transpose(1, 2).reshape(x.shape))


def test_attention_is_that_of_diffusers(randomise):  # trap 16: norm and residual included
    attention_processor = pytest.importorskip("diffusers.models.attention_processor")
    c, heads, head_dim = 6, 2, 5
    block = randomise(Attention(c, heads, head_dim).double(), 0.5)
    reference = attention_processor.Attention(
        c, heads=heads, dim_head=head_dim, norm_num_groups=1, residual_connection=True, out_bias=True
    ).double()
    q, k, v = block.to_qkv.weight.detach()[:, :, 0, 0].chunk(3)
    reference.to_q.weight.data, reference.to_k.weight.data, reference.to_v.weight.data = q, k, v
    reference.to_out[0].weight.data = block.project.weight[:, :, 0, 0].detach()
    reference.to_out[0].bias.data = block.project.bias.detach()
    reference.group_norm.load_state_dict(block.norm.state_dict())
    x = torch.randn(2, c, 3, 5, dtype=torch.float64)
    assert_close(block(x), reference(x))


@BOTH
def test_untrained_attention_is_the_identity(kind):  # trap 16
    x = torch.randn(2, 8, 4, 4)
    assert torch.equal(kind(8)(x), x)


@BOTH
def test_permuting_the_pixels_permutes_the_result(randomise, kind):
    block = randomise(kind(8, heads=2, head_dim=4).double(), 0.5)
    x = torch.randn(2, 8, 3, 4, dtype=torch.float64)
    order = torch.randperm(12)

    def permuted(image):
        return image.flatten(2)[:, :, order].reshape(image.shape)

    assert_close(block(permuted(x)), permuted(block(x)))


@BOTH
def test_every_pixel_looks_at_every_other(randomise, kind):
    block = randomise(kind(8, heads=2, head_dim=4).double(), 0.5)
    block.norm = torch.nn.Identity()  # which would mix the pixels too
    x = torch.randn(1, 8, 3, 3, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(block(x)[0, :, 0, 0].sum(), x)
    assert (grad.abs().sum(dim=1) > 1e-6).all()


@BOTH
def test_images_of_a_batch_never_attend_to_each_other(randomise, kind):  # trap 20
    block = randomise(kind(8).double(), 0.5)
    x = torch.randn(3, 8, 4, 4, dtype=torch.float64)
    assert_close(block(x)[1:2], block(x[1:2]))


@BOTH
def test_every_parameter_of_an_attention_block_gets_a_gradient(randomise, kind):  # trap 16
    block = randomise(kind(8))
    block(torch.randn(2, 8, 4, 4)).square().mean().backward()
    assert [name for name, p in block.named_parameters() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("kind, factor", [(Attention, 16), (LinearAttention, 4)])
def test_twice_the_side_costs_16_times_the_attention_and_4_times_the_linear_one(kind, factor):
    def flops(n):
        with FlopCounterMode(display=False) as counter:
            kind(8).attend(*qkv(n=n))
        return counter.get_total_flops()

    assert flops(4 * 16) == factor * flops(16)
