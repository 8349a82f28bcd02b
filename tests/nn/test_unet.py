"""The wiring of the U-Net: what reaches what, what it costs, and what it refuses."""

import inspect

import pytest
import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from tinyddpm.nn import Attention, ConvBlock, LinearAttention, UNet

CLASSES = 4


def tiny(patch=2, num_classes=CLASSES, **kwargs):
    """Two levels for images of 16x16, attention on the lower one."""
    sizes = dict(dims=(8, 16), image_size=16, attention=(8 // patch,), heads=1, groups=4)
    return UNet(patch=patch, num_classes=num_classes, **sizes | kwargs)


def inputs(net, b=3, side=16, dtype=torch.float32):
    """Images, a time each and a label each, the null class last."""
    x = torch.randn(b, net.channels, side, side, dtype=dtype)
    t = torch.linspace(1, 1000, b).long()
    return x, t, None if net.num_classes is None else torch.linspace(0, net.num_classes, b).long()


# What it computes


def test_derivatives_are_those_of_finite_differences(randomise):
    sizes = dict(dims=(4, 8), groups=2, attention=(2,), image_size=4, linear_attention=True)
    net = randomise(tiny(patch=1, **sizes).double())
    x, t, y = inputs(net, side=4, dtype=torch.float64)
    names, weights = zip(*net.named_parameters())

    def forward(x, *weights):
        return functional_call(net, dict(zip(names, weights)), (x, t, y))

    assert torch.autograd.gradcheck(forward, (x.requires_grad_(), *weights), fast_mode=True)


def test_only_the_labels_of_the_batch_are_trained(randomise):  # trap 18
    net = randomise(tiny())
    x, t, _ = inputs(net, b=2)
    net(x, t, torch.tensor([1, CLASSES])).square().mean().backward()
    assert net.label.weight.grad.abs().sum(dim=1).ne(0).tolist() == [False, True, False, False, True]


def test_bfloat16_autocast_stays_within_2_percent_of_float32(randomise):  # trap 15
    net = randomise(tiny(linear_attention=True), 0.05)
    x, t, y = inputs(net)
    with torch.no_grad():
        high = net(x, t, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = net(x, t, y)
    assert low.dtype == torch.bfloat16
    assert (low.float() - high).norm() < 0.02 * high.norm()


# How it is wired


@pytest.mark.parametrize("blocks", [1, 2])
def test_each_block_up_is_fed_what_its_twin_made_on_the_way_down(randomise, blocks):
    net = randomise(tiny(blocks=blocks, attention=(8, 4), num_classes=None))
    made, fed = [], []  # the last block of a level hands over what attention made of its output

    def collect(module, args, out):
        made.append(out)

    net.stem.register_forward_hook(collect)
    for resnets, attend, _ in net.down:
        for module in (*resnets[:-1], attend):
            module.register_forward_hook(collect)
    for resnet in (*(resnet for _, resnets, _ in net.up for resnet in resnets), net.last):
        resnet.register_forward_pre_hook(lambda module, args: fed.append(args[0]))
    net(*inputs(net))
    assert len(made) == len(fed) == 2 * blocks + 1
    for skip, h in zip(reversed(made), fed):
        below, beside = h.chunk(2, dim=1)
        assert torch.equal(beside, skip) and not torch.equal(below, skip)


@pytest.mark.parametrize("blocks", [1, 2])
def test_every_skip_counts(randomise, blocks):  # trap 36
    net = randomise(tiny(blocks=blocks))
    given = inputs(net)
    out = net(*given)

    def without_skip(module, args):
        below, beside = args[0].chunk(2, dim=1)
        return torch.cat([below, torch.zeros_like(beside)], dim=1), args[1]

    for resnet in (*(resnet for _, resnets, _ in net.up for resnet in resnets), net.last):
        hook = resnet.register_forward_pre_hook(without_skip)
        assert (net(*given) - out).abs().max() > 1e-3
        hook.remove()


def test_middle_counts(randomise):
    net = randomise(tiny())
    given = inputs(net)
    out = net(*given)
    net.middle2.register_forward_hook(lambda module, args, h: torch.zeros_like(h))
    assert (net(*given) - out).abs().max() > 1e-3


def sides_seen_by(kind, net, side=32):
    """The sides of the maps that modules of this very class see, in the order of the forward pass."""
    sides = []
    for module in net.modules():
        if type(module) is kind:
            module.register_forward_hook(lambda module, args, out: sides.append(tuple(out.shape[-2:])))
    with torch.no_grad():
        net(torch.zeros(1, net.channels, side, side), torch.tensor([1]))
    assert all(h == w for h, w in sides)
    return [h for h, _ in sides]


@pytest.mark.parametrize(
    "kwargs, full, linear",
    [
        (dict(), [8, 4, 4, 4, 8], []),
        (dict(linear_attention=True), [8, 4, 4, 4, 8], [16, 16]),
        (dict(patch=1, attention=(16, 8), linear_attention=True), [16, 8, 8, 8, 16], [32, 32]),
        (dict(attention=()), [], []),
        (dict(attention=(), linear_attention=True), [], [16, 8, 4, 4, 4, 8, 16]),
    ],
)
def test_attention_sits_on_the_maps_asked_for(kwargs, full, linear):  # trap 17: seen, not configured
    assert sides_seen_by(Attention, UNet(**kwargs)) == full
    assert sides_seen_by(LinearAttention, UNet(**kwargs)) == linear


def test_heads_and_groups_reach_every_block():
    net = tiny(heads=3, groups=2, linear_attention=True)
    blocks = [module for module in net.modules() if isinstance(module, Attention | ConvBlock)]
    assert {block.heads for block in blocks if isinstance(block, Attention)} == {3}
    assert {block.norm.num_groups for block in blocks if isinstance(block, ConvBlock)} == {2}


def test_upsampling_mode_reaches_every_level(randomise):
    net = randomise(tiny(upsample="nearest"))
    x, t, y = inputs(net)
    assert net(x, t, y).shape == x.shape
    assert sum(isinstance(module, torch.nn.Upsample) for module in net.modules()) == len(net.up) - 1


def test_larger_images_than_image_size_and_non_square_ones_work(randomise):  # trap 33
    net = randomise(UNet())
    for h, w in [(32, 64), (64, 32), (40, 24), (8, 8)]:
        x = torch.randn(1, 1, h, w)
        out = net(x, torch.tensor([5]))
        assert out.shape == x.shape and out.isfinite().all()


@pytest.mark.parametrize("dims, patch, step", [((8,), 1, 1), ((8,), 2, 2), ((8, 8), 1, 2), ((8, 8, 8), 1, 4)])
def test_sizes_go_in_steps_of_what_the_network_halves(dims, patch, step):  # trap 33: and no coarser
    net = UNet(dims=dims, patch=patch, attention=())
    t = torch.tensor([1])
    assert net(torch.zeros(1, 1, 3 * step, 5 * step), t).shape == (1, 1, 3 * step, 5 * step)
    if step > 1:
        with pytest.raises(ValueError, match=f"multiples of {step}, got 1x{3 * step + 1}x{5 * step}: pad to"):
            net(torch.zeros(1, 1, 3 * step + 1, 5 * step), t)


# What it costs


def test_default_parameters_are_those_of_the_table():  # trap 36
    cond = 4 * 32

    def resnet(c_in, c_out):
        convs = 9 * c_in * c_out + 9 * c_out * c_out + 2 * c_out
        norms = 2 * 2 * c_out
        modulation = (cond + 1) * 2 * c_out
        return convs + norms + modulation + (0 if c_in == c_out else (c_in + 1) * c_out)

    def attention(c, inner=4 * 32):
        return 2 * c + 3 * c * inner + (inner + 1) * c

    table = {
        "time": (32 + 1) * cond + (cond + 1) * cond,
        "label": (10 + 1) * cond,
        "stem": (9 * 4 + 1) * 32,
        "down": resnet(32, 32) + (4 * 32 + 1) * 64  # 16x16
        + resnet(64, 64) + attention(64) + (4 * 64 + 1) * 128  # 8x8
        + resnet(128, 128) + attention(128),  # 4x4
        "middle1": resnet(128, 128),
        "middle_attend": attention(128),
        "middle2": resnet(128, 128),
        "up": resnet(256, 128) + attention(128)  # 4x4
        + (128 + 1) * 4 * 64 + resnet(128, 64) + attention(64)  # 8x8
        + (64 + 1) * 4 * 32 + resnet(64, 32),  # 16x16
        "last": resnet(64, 32),
        "out": (32 + 1) * 4,
    }  # fmt: skip
    net = UNet(num_classes=10)
    assert {name: sum(p.numel() for p in part.parameters()) for name, part in net.named_children()} == table


def test_default_unet_needs_at_most_200_megaflop_an_image():
    net = UNet(num_classes=10)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.zeros(1, 1, 32, 32), torch.tensor([1]))
    assert 20e6 < counter.get_total_flops() <= 200e6


# How it is rebuilt


def test_arguments_rebuild_the_network(randomise):
    unlike_defaults = dict(
        dims=(8, 16),
        channels=3,
        num_classes=CLASSES,
        patch=1,
        blocks=2,
        attention=(8,),
        linear_attention=True,
        heads=2,
        groups=2,
        upsample="nearest",
        image_size=16,
        out_channels=6,
    )
    parameters = inspect.signature(UNet).parameters
    assert set(unlike_defaults) == set(parameters)
    assert all(unlike_defaults[name] != p.default for name, p in parameters.items())
    net = randomise(UNet(**unlike_defaults))
    assert net.arguments == unlike_defaults
    twin = UNet(**net.arguments)
    twin.load_state_dict(net.state_dict())
    given = inputs(net)
    assert torch.equal(twin(*given), net(*given))


def test_defaults_are_among_the_arguments():
    assert UNet().arguments == {name: p.default for name, p in inspect.signature(UNet).parameters.items()}


# What it refuses
