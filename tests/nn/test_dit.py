"""The diffusion transformer: held to exact properties, to PyTorch's attention and to a loop, part by part."""

import inspect
import math

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call
from torch.testing import assert_close

from tinyddpm import DDPM, DiT, Schedule, drop_labels
from tinyddpm.nn.dit import DiTBlock, Neighbours, TokenAttention, axial_rotary, rms_norm, rotate
from tinyddpm.trainer.recipes import RECIPES

CLASSES = 4
BOTH = pytest.mark.parametrize("cross", [False, True])


def small(**kwargs):
    return DiT(**dict(dim=16, depth=2, heads=2, num_classes=CLASSES, local=True) | kwargs)


def inputs(net, b=3, side=16, dtype=torch.float32):
    x = torch.randn(b, net.channels, side, side, dtype=dtype)
    t = torch.linspace(1, 1000, b).long()
    return x, t, None if net.num_classes is None else torch.linspace(0, net.num_classes, b).long()


# Attention and its places


def test_scores_depend_only_on_how_far_patches_are_apart():
    q, k = torch.randn(2, 8, dtype=torch.float64)
    cos, sin = axial_rotary(6, 7, 8, q)
    turned = [rotate(x.expand(1, 1, 42, 8), (cos, sin))[0, 0] for x in (q, k)]
    score = (turned[0] @ turned[1].T).reshape(6, 7, 6, 7)  # of a query at (i, j) with a key at (k, l)
    assert_close(score[:-1, :, :-1], score[1:, :, 1:], rtol=0, atol=1e-12)  # both one row further
    assert_close(score[:, :-1, :, :-1], score[:, 1:, :, 1:], rtol=0, atol=1e-12)  # both one column further
    here, there = score[0, 0], score[2, 3]
    assert (here[1:] - here[:-1]).abs().min() > 1e-4 and (here[:, 1:] - here[:, :-1]).abs().min() > 1e-4
    assert not torch.allclose(here, there)
    assert_close(score[3, 3, 3, 3], q @ k)


@pytest.mark.parametrize(("place", "turning"), [((1, 0), 0), ((0, 1), 1)])
def test_half_of_a_head_turns_by_the_row_and_half_by_the_column(place, turning):
    cos, sin = axial_rotary(2, 2, 16, torch.zeros((), dtype=torch.float64))
    angle = torch.atan2(sin[:, 8:], cos[:, 8:]).unflatten(1, (2, 4))[2 * place[0] + place[1]]
    assert_close(angle[turning], 100.0 ** -(torch.arange(4, dtype=torch.float64) / 4))
    assert not angle[1 - turning].any()


def test_turning_keeps_lengths():
    x = torch.randn(2, 3, 12, 8, dtype=torch.float64)
    assert_close(rotate(x, axial_rotary(3, 4, 8, x)).norm(dim=-1), x.norm(dim=-1))


def test_rms_norm_is_that_of_torch():
    x = torch.randn(5, 7, dtype=torch.float64)
    assert_close(rms_norm(x), F.rms_norm(x, (7,), eps=1e-6))


@pytest.mark.parametrize("context", [None, 5])
def test_attention_is_that_of_torch_and_of_a_loop(randomise, context):
    attend = randomise(TokenAttention(12, heads=3).double())
    x = torch.randn(2, 6, 12, dtype=torch.float64)
    y = x if context is None else torch.randn(2, context, 12, dtype=torch.float64)
    rotary = axial_rotary(2, 3, 4, x) if context is None else None
    mask = None if context is None else torch.tensor([[True, False, True, True, False], [True] * 5])
    q, (k, v) = attend.to_q(x), attend.to_kv(y).chunk(2, dim=-1)
    q, k, v = (part.unflatten(2, (3, 4)).transpose(1, 2) for part in (q, k, v))
    q, k = F.rms_norm(q, (4,), eps=1e-6) * attend.scale, F.rms_norm(k, (4,), eps=1e-6)
    if rotary is not None:
        q, k = rotate(q, rotary), rotate(k, rotary)
    theirs = F.scaled_dot_product_attention(q, k, v, None if mask is None else mask[:, None, None], scale=1.0)
    loop = torch.zeros_like(theirs)
    for b, m, n in torch.cartesian_prod(*map(torch.arange, (2, 3, 6))).tolist():
        weight = torch.tensor([math.exp(q[b, m, n] @ k[b, m, i]) for i in range(k.shape[2])], dtype=torch.float64)
        weight = weight if mask is None else weight * mask[b]
        loop[b, m, n] = (weight[:, None] * v[b, m]).sum(0) / weight.sum()
    for out in (theirs, loop):
        assert_close(attend(x, y, rotary, mask), attend.project(out.transpose(1, 2).flatten(2)))


def test_qk_norm_makes_scores_independent_of_the_size_of_q_and_k():
    attend = TokenAttention(16, heads=2).double()
    x = torch.randn(1, 5, 16, dtype=torch.float64)
    shares, _ = attend.look(x, x)
    assert_close(attend.scale, torch.full_like(attend.scale, 8**-0.5))
    with torch.no_grad():
        attend.to_q.weight *= 1000
        attend.to_kv.weight[:16] *= 50
    assert_close(attend.look(x, x)[0], shares, rtol=1e-3, atol=1e-4)  # up to eps
    scores = attend.scale.new_tensor(8).sqrt()  # the largest there can be at first: |q| |k| / sqrt(d)
    assert shares.max() <= torch.tensor([scores, -scores]).softmax(0)[0]


# What it computes


@BOTH
def test_it_is_what_the_formulas_say(randomise, cross):
    """Written out with PyTorch's functions, on an image that is wider than high."""
    net = randomise(small(depth=2, cross=cross).double())
    x, t, y = inputs(net, b=2, side=24, dtype=torch.float64)
    x = x[:, :, :16]

    def norm(x):
        return F.rms_norm(x, x.shape[-1:], eps=1e-6)

    def attended(part, q, context, places=None, mask=None):
        heads = [F.linear(q, part.to_q.weight), *F.linear(context, part.to_kv.weight).chunk(2, dim=-1)]
        q, k, v = (each.unflatten(2, (2, 8)).transpose(1, 2) for each in heads)
        q, k = norm(q) * part.scale, norm(k)
        q, k = (q, k) if places is None else (rotate(q, places), rotate(k, places))
        return part.project(F.scaled_dot_product_attention(q, k, v, mask, scale=1.0).transpose(1, 2).flatten(2))

    cond, tokens, mask = net.time(t), None, None
    if cross:
        tokens = torch.stack([net.label(torch.full_like(y, CLASSES)), net.label(y)], dim=1)
        mask = torch.tensor([[True, True], [True, False]])[:, None, None]  # the second label is null
    else:
        cond = cond + net.label(y)
    cond = F.silu(cond)
    h = F.conv2d(x, net.stem[1].weight.reshape(16, 1, 4, 4), net.stem[1].bias, stride=4).flatten(2).mT
    for block in net.blocks:
        local = F.conv2d(h.mT.unflatten(2, (4, 6)), block.local.weight, block.local.bias, padding=1, groups=16)
        h = h + local.flatten(2).mT
        shift1, scale1, gate1, shift2, scale2, gate2 = block.modulation(cond)[:, None].split(16, dim=-1)
        inner = norm(h) * (1 + scale1) + shift1
        h = h + gate1 * attended(block.attend, inner, inner, axial_rotary(4, 6, 8, x))
        if cross:
            h = h + attended(block.cross, norm(h), tokens, None, mask)
        h = h + gate2 * block.mlp(norm(h) * (1 + scale2) + shift2)
    shift, scale = net.modulation(cond)[:, None].split(16, dim=-1)
    patches = F.linear(norm(h) * (1 + scale) + shift, net.out[0].weight.flatten(1), net.out[0].bias)
    assert_close(net(x, t, y), F.fold(patches.mT, (16, 24), 4, stride=4))


def test_neighbours_are_those_on_the_grid(randomise):
    """A patch adds what the eight around it and itself weigh in its own channel, and nothing beyond the border."""
    local = randomise(Neighbours(3).double())
    x = torch.randn(2, 20, 3, dtype=torch.float64)
    grid, around = x.unflatten(1, (4, 5)), torch.zeros(2, 4, 5, 3, dtype=torch.float64)
    for i, j, k, m in torch.cartesian_prod(*map(torch.arange, (4, 5, 3, 3))).tolist():
        if 0 <= i + k - 1 < 4 and 0 <= j + m - 1 < 5:
            around[:, i, j] += local.weight[:, 0, k, m] * grid[:, i + k - 1, j + m - 1]
    assert_close(local(x, 4), x + (around + local.bias).flatten(1, 2))


def test_without_attention_a_patch_reaches_the_eight_around_it(randomise):
    net = randomise(small(depth=1))
    with torch.no_grad():
        net.blocks[0].attend.project.weight.zero_()
    x, t, y = torch.randn(1, 1, 16, 24), torch.tensor([7]), torch.tensor([1])
    other = x.clone()
    other[..., 9, 13] += 1  # of the patch in row 2, column 3, of 4 rows and 6 columns
    changed = (net(other, t, y) != net(x, t, y))[0, 0].unflatten(1, (6, 4)).unflatten(0, (4, 4)).any(3).any(1)
    assert changed.nonzero().tolist() == [[i, j] for i in (1, 2, 3) for j in (2, 3, 4)]


@BOTH
def test_an_untrained_block_is_the_identity(cross):
    x, cond = torch.randn(2, 6, 16), torch.randn(2, 16)
    label = torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool)
    assert torch.equal(DiTBlock(16, 2, cross, local=True)(x, cond, axial_rotary(2, 3, 8, x), *label, 2), x)


@BOTH
def test_training_reaches_every_parameter_from_its_start(cross):
    """From zeros on: the output learns first, then the gates, then all."""
    net = small(cross=cross)
    x, t, y = inputs(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    for _ in range(4):
        optimizer.zero_grad()
        (net(x, t, y) - x).square().mean().backward()
        optimizer.step()
    assert [name for name, p in net.named_parameters() if not p.grad.any()] == []


@BOTH
def test_derivatives_are_those_of_finite_differences(randomise, cross):
    net = randomise(small(dim=8, depth=1, heads=1, cross=cross).double())
    x, t, y = inputs(net, b=2, side=8, dtype=torch.float64)
    names, weights = zip(*net.named_parameters())

    def forward(x, *weights):
        return functional_call(net, dict(zip(names, weights)), (x, t, y))

    assert torch.autograd.gradcheck(forward, (x.requires_grad_(), *weights), fast_mode=True)


def test_each_patch_is_put_back_where_it_was_taken(randomise):
    """Without blocks a pixel changes with those of its own patch, and no other."""
    net = randomise(small(depth=1, patch=4))
    net.blocks = torch.nn.ModuleList()
    x, t, y = inputs(net, b=1)
    other = x.clone()
    other[..., 5, 9] += 1
    changed = (net(other, t, y) != net(x, t, y))[0, 0].nonzero()
    assert changed.amin(0).tolist() == [4, 8] and changed.amax(0).tolist() == [7, 11]


@BOTH
def test_where_a_patch_lies_counts(randomise, cross):
    net = randomise(small(cross=cross, local=False))
    x, t, y = inputs(net)
    shifted = net(x.roll((4, 8), dims=(2, 3)), t, y).roll((-4, -8), dims=(2, 3))
    assert (shifted - net(x, t, y)).abs().max() > 1e-3


def test_images_of_any_size_that_the_patches_divide_work(randomise):
    net = randomise(small())
    for h, w in [(32, 16), (8, 40), (28, 28), (64, 64)]:
        out = net(torch.randn(1, 1, h, w), torch.tensor([5]))
        assert out.shape == (1, 1, h, w) and out.isfinite().all()


@BOTH
def test_bfloat16_autocast_stays_within_2_percent_of_float32(randomise, cross):
    net = randomise(small(dim=32, cross=cross), 0.05)
    x, t, y = inputs(net)
    with torch.no_grad():
        high = net(x, t, y)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = net(x, t, y)
    assert low.dtype == torch.bfloat16
    assert (low.float() - high).norm() < 0.02 * high.norm()


# Labels and tokens


def test_a_caption_is_a_set_of_tokens_however_it_is_padded(randomise):
    net, null = randomise(small(cross=True).double()), CLASSES
    x, t, _ = inputs(net, b=1, dtype=torch.float64)

    def draw(*tokens):
        return net(x, t, torch.tensor([tokens]))

    assert_close(draw(1, 3), draw(3, 1))
    assert_close(draw(1, 3), draw(null, 3, null, 1, null))
    assert_close(draw(2), net(x, t, torch.tensor([2])))
    assert_close(draw(2), draw(2, null))
    assert_close(draw(null, null, null), net(x, t))
    assert (draw(1, 3) - draw(1, 2)).abs().max() > 1e-4 and (draw(1, 3) - draw(1)).abs().max() > 1e-4
    assert (draw(1, 1) - draw(1)).abs().max() > 1e-4  # twice is more than once: it is a bag


@BOTH
def test_dropped_labels_and_guidance_ask_for_null(randomise, cross):
    net = randomise(small(cross=cross)).eval()
    x, t, y = inputs(net)
    assert torch.equal(net(x, t, drop_labels(y, CLASSES, p=1.0)), net(x, t))
    ddpm = DDPM(net, Schedule.named("cosine", 10), "x_0", (1, 16, 16))
    unguided = ddpm.denoiser()(x, torch.full((3,), 5))
    assert_close(ddpm.denoiser([0, 1, 2], scale=0.0)(x, torch.full((3,), 5)), unguided)


def test_a_caption_is_dropped_whole_and_a_label_as_before():
    captions = torch.arange(3000).reshape(1000, 3)
    seed = torch.Generator().manual_seed
    dropped = drop_labels(captions, 3000, 0.3, seed(0)) == 3000
    assert (dropped.all(1) | ~dropped.any(1)).all() and 250 < dropped[:, 0].sum() < 350
    assert torch.equal(dropped[:, 0], drop_labels(captions[:, 0], 3000, 0.3, seed(0)) == 3000)


# Where patches look


@BOTH
def test_attention_maps_are_the_shares_that_the_blocks_use(randomise, cross):
    net = randomise(small(cross=cross).double(), 0.5)
    x, t, y = inputs(net, dtype=torch.float64)
    out = net(x, t, y)
    maps = net.attention_maps(x, t, y)
    assert [tuple(m.shape) for m in maps] == [(3, 2, 16, 16)] * 2
    for m in maps:
        assert_close(m.sum(-1), torch.ones(3, 2, 16, dtype=torch.float64))
    if cross:
        looks = net.attention_maps(x, t, y, cross=True)
        assert [tuple(m.shape) for m in looks] == [(3, 2, 16, 2)] * 2
        assert not looks[0][2, ..., 1].any() and looks[0][:2].all()  # the last label is null
    used = []
    for block in net.blocks:
        block.attend.look, look = None, block.attend.look
        block.attend.look = lambda *args, look=look: used.append(look(*args)) or used[-1]
    assert torch.equal(net(x, t, y), out)  # and no hook is left
    assert all(torch.equal(m, shares) for m, (shares, _) in zip(maps, used, strict=True))


def test_attention_maps_refuse_what_is_not_there_and_leave_no_hook():
    net = small()
    with pytest.raises(ValueError, match="no cross-attention: build it with cross=True and num_classes"):
        net.attention_maps(*inputs(net), cross=True)
    with pytest.raises(ValueError, match="multiples of its patch"):
        net.attention_maps(torch.zeros(1, 1, 15, 16), torch.tensor([1]))
    assert not any(block.attend._forward_pre_hooks for block in net.blocks)


# What it costs, how it is rebuilt, and that it learns


@pytest.mark.parametrize("name", ["dit", "dit-cross"])
def test_the_recipe_s_parameters_are_those_of_the_table(name):
    recipe = RECIPES[name]
    c, depth, patch = recipe.network.dim, recipe.network.depth, recipe.network.patch
    attention = 3 * c * c + c + (c + 1) * c
    mlp = (c + 1) * 4 * c + (4 * c + 1) * c
    block = (c + 1) * 6 * c + (2 if recipe.network.cross else 1) * attention + mlp + (9 + 1) * c
    others = 2 * (c + 1) * c + 11 * c + (patch**2 + 1) * c + (c + 1) * 2 * c + (c + 1) * patch**2
    found = sum(p.numel() for p in recipe.build((1, 32, 32)).parameters())
    assert found == depth * block + others <= 2.2e6


def test_arguments_rebuild_the_network(randomise, tmp_path):
    unlike = dict(dim=24, depth=1, heads=2, patch=2, cross=True, local=True, channels=3)
    unlike |= dict(num_classes=CLASSES, out_channels=6)
    parameters = inspect.signature(DiT).parameters
    assert set(unlike) == set(parameters) and all(unlike[name] != p.default for name, p in parameters.items())
    net = randomise(DiT(**unlike))
    assert net.arguments == unlike and DiT().arguments == {name: p.default for name, p in parameters.items()}
    DDPM(net, Schedule.named("cosine", 10), "x_0", (3, 16, 16)).save(tmp_path / "dit.safetensors")
    twin, given = DDPM.load(tmp_path / "dit.safetensors").model, inputs(net)
    assert type(twin) is DiT and torch.equal(twin(*given), net(*given))


@BOTH
def test_it_learns_eight_images_by_heart(cross):
    net = small(dim=32, cross=cross, num_classes=8)
    x, y = torch.rand(8, 1, 16, 16).round() * 2 - 1, torch.arange(8)
    noise, t = torch.randn(8, 1, 16, 16), torch.full((8,), 1000)  # pure noise: what tells the images apart is the label
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (net(noise[torch.randperm(8)], t, y) - x).square().mean()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


# What it refuses


def called(y=None, shape=(1, 16, 16), dtype=torch.float32, **kwargs):
    net = small(**kwargs).to(torch.float16 if dtype == torch.float16 else torch.float32)
    return net(torch.zeros(1, *shape, dtype=dtype), torch.tensor([1]), None if y is None else torch.tensor(y))


REFUSED = [
    (
        dict(shape=(1, 30, 32)),
        r"multiples of its patch 4, got 1x30x32: pad to 32x32, or build it with a patch in 1, 2,",
    ),
    (dict(shape=(1, 32, 32), patch=5), "got 1x32x32: pad to 35x35, or .* with a patch in 1, 2, 4, 8, 16, 32, all"),
    (dict(shape=(3, 16, 16)), "images of 1 channels, .*, got 3x16x16"),
    (dict(dtype=torch.float64), "float32 .torch.float64, weights torch.float32"),
    (dict(dtype=torch.float16), "float32 .torch.float16, weights torch.float16"),
    (dict(y=[1], num_classes=None), "built without labels, but got some: build it with num_classes"),
    (dict(y=[[0, 5]], cross=True), r"\(b, k\), integers in 0..4, of which 4 is null, got \(1, 2\) for 1 .*\[0, 5\]"),
    (dict(y=[-1], cross=True), r"integers in 0..4, of which 4 is null, got \(1,\)"),
    (dict(y=[5]), r"labels are \(b,\), integers in 0..4"),
    (dict(y=[[0, 1]]), r"labels are \(b,\), .*, got \(1, 2\) for 1"),
    (dict(heads=3), "dim a multiple of 4 heads, got dim=16, depth=2, heads=3, patch=4"),
    (dict(patch=0), "patch of at least 1, .*patch=0"),
    (dict(dim=12, heads=2), "dim a multiple of 4 heads, got dim=12"),
]


@pytest.mark.parametrize(("kwargs", "message"), REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(kwargs, message):
    with pytest.raises(ValueError, match=message) as error:
        called(**kwargs)
    assert "\n" not in str(error.value)
