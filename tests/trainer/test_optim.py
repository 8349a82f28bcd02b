import pytest
import torch

from tinyddpm import UNet
from tinyddpm.trainer.optim import Muon, matrices_and_rest, orthogonalize


@pytest.mark.parametrize("shape", [(8, 8), (8, 24), (24, 8)])
def test_singular_values_come_near_one(shape):
    generator = torch.Generator().manual_seed(0)
    u, _, vt = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    s = torch.logspace(-1.5, 0, 8)
    found = u.T @ orthogonalize(u * s @ vt) @ vt.T
    assert found.diagonal().min() > 0.6 and found.diagonal().max() < 1.25
    torch.testing.assert_close(found, found.diagonal().diag(), atol=1e-4, rtol=0)


def test_equals_the_reference():
    """torch.optim.Muon works in bfloat16 and on matrices only: a convolution is compared flattened."""
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this torch has no Muon to compare with")
    generator = torch.Generator().manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(16, 4, 3, 3, generator=generator))
    theirs = torch.nn.Parameter(ours.detach().clone().flatten(1))
    a = Muon([ours], lr=0.1, momentum=0.9, half=True)
    b = torch.optim.Muon([theirs], 0.1, weight_decay=0.0, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        ours.grad = torch.randn(ours.shape, generator=generator)
        theirs.grad = ours.grad.flatten(1)
        a.step(), b.step()
    torch.testing.assert_close(ours.flatten(1), theirs, atol=2e-2, rtol=0)  # bfloat16 rounds at 1e-2 of a step
    assert (ours.flatten(1) - theirs).square().mean() < 1e-5


def test_half_precision_moves_by_about_as_much():
    generator = torch.Generator().manual_seed(0)
    start, grad = torch.randn(2, 16, 64, generator=generator)
    steps = []
    for half in (False, True):
        p = torch.nn.Parameter(start.clone())
        p.grad = grad.clone()
        Muon([p], lr=1.0, half=half).step()
        steps.append(p.detach() - start)
        assert p.dtype == torch.float32
    assert (steps[0] - steps[1]).norm() < 0.05 * steps[0].norm()
    assert float(steps[0].square().mean().sqrt()) == pytest.approx(0.2, rel=0.15)  # as Adam's, of lr


def test_a_gradient_of_zero_moves_nothing():
    p = torch.nn.Parameter(torch.ones(4, 4))
    p.grad = torch.zeros(4, 4)
    Muon([p], lr=1.0).step()
    assert torch.equal(p, torch.ones(4, 4))


def test_a_state_that_was_saved_goes_on_where_it_was():
    grads = torch.randn(3, 8, 16, generator=torch.Generator().manual_seed(0))
    whole = torch.nn.Parameter(torch.zeros(8, 16))
    halves = torch.nn.Parameter(torch.zeros(8, 16))
    a, b = Muon([whole]), Muon([halves])
    for i, grad in enumerate(grads):
        whole.grad = halves.grad = grad
        a.step(), b.step()
        state, b = b.state_dict(), Muon([halves])
        b.load_state_dict(state)
    assert torch.equal(whole, halves)


def test_every_weight_goes_to_one_optimizer_and_tables_are_no_matrices():
    net = UNet((16, 32), num_classes=10, attention=(8,))
    matrices, rest = matrices_and_rest(net)
    assert {id(p) for p in matrices} | {id(p) for p in rest} == {id(p) for p in net.parameters()}
    assert len(matrices) + len(rest) == len(list(net.parameters()))
    ids = {id(p) for p in matrices}
    assert id(net.label.weight) not in ids and id(net.out[0].weight) not in ids
    assert id(net.middle1.block1.conv.weight) in ids and id(net.middle1.modulation.weight) in ids


def test_vectors_are_refused():
    with pytest.raises(ValueError, match=r"got parameters of shape \[\(3,\)\]: give them to Adam"):
        Muon([torch.nn.Parameter(torch.zeros(3))])


def test_a_closure_is_called_and_its_loss_returned():
    p = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = Muon([p], lr=0.1)

    def closure():
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 16 and (p < 1).any()
