"""What tinyddpm.nn asks of every network that a checkpoint may name, whatever it computes."""

import importlib
import itertools

import pytest
import torch
from torch.testing import assert_close

from tinyddpm import DDPM, NETWORKS, Schedule
from tinyddpm.schedules import choose

CLASSES = 4
UNET = dict(dims=(8, 16), image_size=16, heads=1, groups=4, patch=2, attention=(4,))
DIT = dict(dim=16, depth=2, heads=2)
PAIR, LEVELS = dict(channels=2, out_channels=1), dict(channels=5, out_channels=32)


def kinds():
    """(name in NETWORKS, arguments) of small networks for images of 16x16."""
    for channels, patch, blocks, linear in itertools.product((1, 3), (1, 2), (1, 2), (False, True)):
        where = dict(patch=patch, attention=(8 // patch,))
        yield "UNet", UNET | dict(channels=channels, blocks=blocks, linear_attention=linear) | where
    for channels, patch, cross in ((1, 4, False), (3, 2, True), (1, 8, True), (3, 4, False)):
        yield "DiT", DIT | dict(channels=channels, patch=patch, cross=cross, local=patch == 4)
    for name in sorted(NETWORKS.keys() - {"UNet", "DiT"}):  # around another network, of more channels
        inner = LEVELS if name == "GreyLevels" else PAIR
        yield name, dict(network="UNet", **UNET | inner)
        yield name, dict(network="DiT", **DIT | inner)


KINDS = [(name, arguments | {"num_classes": n}) for name, arguments in kinds() for n in (None, CLASSES)]
EVERY = pytest.mark.parametrize("kind", KINDS, ids=str)
BUT_LEVELS = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[0] != "GreyLevels"], ids=str)
LABELLED = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind[1]["num_classes"]], ids=str)


@pytest.fixture
def net(kind, randomise):
    """The network, its weights moved off zero."""
    name, arguments = kind
    return randomise(choose(NETWORKS, name, "network")(**arguments))


def inputs(net, kind, b=3, dtype=torch.float32):
    """Images, a time each and a label each, the null class last."""
    arguments = kind[1]
    channels = 1 if "network" in arguments else arguments["channels"]
    x, t = torch.randn(b, channels, 16, 16, dtype=dtype), torch.linspace(1, 1000, b).long()
    return x, t, None if net.num_classes is None else torch.linspace(0, net.num_classes, b).long()


def test_every_row_is_held_to_it():
    assert {name for name, _ in KINDS} == set(NETWORKS)
    for row in filter(lambda row: isinstance(row, str), NETWORKS.values()):
        module, name = row.split(":")
        assert NETWORKS[name] == row and hasattr(importlib.import_module(module), name)


@BUT_LEVELS  # whose untrained logits say what x_t says
def test_untrained_it_predicts_exactly_0(kind):
    net = choose(NETWORKS, kind[0], "network")(**kind[1])
    x, t, y = inputs(net, kind)
    assert torch.equal(net(x, t, y), torch.zeros_like(x))


@EVERY
def test_every_parameter_gets_a_gradient(net, kind):  # trap 16
    x, t, y = inputs(net, kind)
    hidden = {"SelfConditioned": ["x_0_hat"], "TwoTimes": ["s"], "GuidedNetwork": ["scale"]}.get(kind[0], [])
    more = {"x_0_hat": torch.rand_like(x), "s": t // 2, "scale": torch.full((3,), 2.0)}  # not at their zeros
    out = net(x, t, y, **{name: more[name] for name in hidden})
    assert (len(out), *out.shape[2:]) == (3, 16, 16) and out.isfinite().all()
    assert out.shape[1] == x.shape[1] * (256 if kind[0] == "GreyLevels" else 1)
    out.square().mean().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@LABELLED
def test_an_image_comes_out_alone_as_in_a_batch(net, kind):  # traps 20, 31: own time, own label
    net = net.double()
    assert net.training  # where batch statistics would leak
    x, t, y = inputs(net, kind, dtype=torch.float64)
    together = net(x, t, y)
    for i in range(len(x)):
        assert_close(together[i : i + 1], net(x[i : i + 1], t[i : i + 1], y[i : i + 1]))


@LABELLED
def test_no_label_is_the_null_class_and_trains_its_row(net, kind):  # trap 18
    x, t, _ = inputs(net, kind)
    out = net(x, t)
    assert torch.equal(out, net(x, t, torch.full((3,), CLASSES)))
    assert not torch.allclose(out, net(x, t, torch.zeros(3, dtype=torch.long)))
    out.square().mean().backward()
    (rows,) = [p.grad for name, p in net.named_parameters() if name.endswith("label.weight")]
    assert rows.abs().sum(dim=1).ne(0).tolist() == [False] * CLASSES + [True]


@EVERY
def test_the_time_changes_the_prediction(net, kind):
    x, _, _ = inputs(net, kind, b=1)
    first, second, last = (net(x, torch.tensor([t])) for t in (1, 2, 1000))
    assert (first - last).abs().max() > 0.01 and (first - second).abs().max() > 1e-4


@LABELLED
def test_inputs_are_left_as_they_are(net, kind):  # trap 30
    given = inputs(net, kind)
    before = [tensor.clone() for tensor in given]
    net(*given)
    assert all(torch.equal(a, b) for a, b in zip(given, before))


@LABELLED
def test_a_file_gives_it_back(net, kind, tmp_path):
    given = inputs(net, kind)
    predicts = "flow" if kind[0] == "TwoTimes" else "x_0"
    DDPM(net, Schedule.named("cosine", 10), predicts, given[0].shape[1:]).save(tmp_path / "net.safetensors")
    twin = DDPM.load(tmp_path / "net.safetensors").model
    assert type(twin) is type(net) and twin.arguments == net.arguments
    assert torch.equal(twin(*given), net.eval()(*given))
