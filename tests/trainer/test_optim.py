import pytest
import torch
from torch import nn

from tinyddpm import UNet
from tinyddpm.trainer.optim import OPTIMIZERS, MuonAdam, orthogonalize


def matrix_optimizer(p, **options):
    return MuonAdam([{"params": [p], "muon": True}], **options)


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8)])
def test_singular_values_come_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    found = u.T @ orthogonalize(u * torch.logspace(-1.5, 0, 8) @ vt) @ vt.T
    assert found.diagonal().min() > 0.6 and found.diagonal().max() < 1.25
    torch.testing.assert_close(found, found.diagonal().diag(), atol=1e-4, rtol=0)


def test_muon_equals_the_reference():
    """torch.optim.Muon works in bfloat16 and on matrices only: a convolution is compared flattened."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon to compare with")
    generator = torch.Generator().manual_seed(0)
    ours = nn.Parameter(torch.randn(16, 4, 3, 3, generator=generator))
    theirs = nn.Parameter(ours.detach().clone().flatten(1))
    a = matrix_optimizer(ours, lr=0.1, momentum=0.9, half=True)
    b = torch.optim.Muon([theirs], 0.1, weight_decay=0.0, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(ours.shape, generator=generator)
        theirs.grad = ours.grad.flatten(1)
        a.step(), b.step()
    torch.testing.assert_close(ours.flatten(1), theirs, atol=2e-2, rtol=0)  # bfloat16 rounds at 1e-2 of a step
    assert (ours.flatten(1) - theirs).square().mean() < 1e-5


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_other_groups_equal_adam_bit_for_bit(weight_decay):
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((5, 3), (7,), ())]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    a = MuonAdam([{"params": ours}], weight_decay=weight_decay)
    b = torch.optim.AdamW(theirs, weight_decay=weight_decay, fused=True) if weight_decay else torch.optim.Adam(theirs)
    for _ in range(5):
        for p, q in zip(ours[:2], theirs):  # the last one has no gradient
            p.grad = q.grad = torch.randn(p.shape)
        a.step(), b.step()
    assert all(torch.allclose(p, q, atol=0 if weight_decay else 1e-7, rtol=0) for p, q in zip(ours, theirs))


def test_half_precision_moves_by_about_as_much():
    generator = torch.Generator().manual_seed(0)
    start, grad = torch.randn(2, 16, 64, generator=generator)
    steps = []
    for half in (False, True):
        p = nn.Parameter(start.clone())
        p.grad = grad.clone()
        matrix_optimizer(p, lr=1.0, half=half).step()
        steps.append(p.detach() - start)
        assert p.dtype == torch.float32
    assert (steps[0] - steps[1]).norm() < 0.05 * steps[0].norm()
    assert float(steps[0].square().mean().sqrt()) == pytest.approx(0.2, rel=0.15)  # as Adam's, of lr


def test_a_gradient_of_zero_moves_nothing():
    p = nn.Parameter(torch.ones(4, 4))
    p.grad = torch.zeros(4, 4)
    matrix_optimizer(p, lr=1.0).step()
    assert torch.equal(p, torch.ones(4, 4))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_weight_moves_and_a_saved_state_continues(name):
    def made():
        torch.manual_seed(0)
        net = UNet((16, 32), num_classes=10, attention=(8,))
        return net, OPTIMIZERS[name](net, 0.0, False)

    (net, optimizer), (other, resumed) = made(), made()
    start = [p.detach().clone() for p in net.parameters()]
    for k in range(3):
        for p, q in zip(net.parameters(), other.parameters()):
            p.grad = q.grad = torch.full_like(p, 0.1 + k)
        optimizer.step(), resumed.step()
        state, resumed = resumed.state_dict(), OPTIMIZERS[name](other, 0.0, False)
        resumed.load_state_dict(state)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), other.parameters()))
    assert all((p != q).any() for p, q in zip(net.parameters(), start))


def test_every_weight_is_in_one_group_and_tables_are_no_matrices():
    net = UNet((16, 32), num_classes=10, attention=(8,))
    matrices, rest = (group["params"] for group in OPTIMIZERS["muon"](net, 0.0, False).param_groups)
    assert sorted(map(id, [*matrices, *rest])) == sorted(map(id, net.parameters()))
    ids = {id(p) for p in matrices}
    assert id(net.label.weight) not in ids and id(net.out[0].weight) not in ids
    assert id(net.middle1.block1.conv.weight) in ids and id(net.middle1.modulation.weight) in ids


def test_a_closure_is_called_and_its_loss_returned():
    p = nn.Parameter(torch.ones(4, 4))
    optimizer = matrix_optimizer(p, lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 16 and (p < 1).any()
