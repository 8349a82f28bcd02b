"""Muon and Adam as one optimizer: momentum made orthogonal for matrices, Adam for all other weights."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


class MuonAdam(AdamW):
    """A group with muon=True holds matrices m x n, such as a convolution's (c_out, c_in kh kw), and takes the step

        w <- w - 0.2 lr sqrt(max(m, n)) orthogonalize(momentum)

    (Jordan et al. 2024, scaled to the size of Adam's step as in Liu et al. 2025, "Muon is scalable"). Any other group
    takes AdamW's (Loshchilov & Hutter 2019), which without weight_decay is Adam's.

    momentum  of Muon
    half      orthogonalizes in bfloat16: faster only where the device computes in it natively
    adam      more arguments of AdamW
    """

    def __init__(self, groups: list[dict], lr: float = 1e-3, momentum: float = 0.95, half: bool = False, **adam):
        muon = {"muon": False, "momentum": momentum, "half": half}
        super().__init__([muon | group for group in groups], lr, **{"weight_decay": 0.0, "fused": True} | adam)
        self._step_supports_amp_scaling = False  # Muon's step cannot skip a gradient that overflowed

    @torch.no_grad()
    def step(self, closure=None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        groups = self.param_groups
        for group in groups:
            for p in group["params"] if group["muon"] else ():
                if p.grad is not None:
                    self.muon(p, p.grad.flatten(1), group)
        self.param_groups = [group for group in groups if not group["muon"]]
        super().step()
        self.param_groups = groups
        return loss

    def muon(self, p: nn.Parameter, grad: Float[Tensor, "m n"], group: dict) -> None:
        state = self.state[p]
        if not state:
            state["momentum"], state["step"] = torch.zeros_like(grad), torch.zeros(())  # AdamW loads no state without
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(state["momentum"], group["momentum"])  # Nesterov's
        direction = orthogonalize(ahead.bfloat16() if group["half"] else ahead)
        size = 0.2 * max(grad.shape) ** 0.5  # an orthogonal matrix has elements of 1 / sqrt(max(m, n))
        p.add_(direction.reshape(p.shape).to(p.dtype), alpha=-group["lr"] * size)


def orthogonalize(g: Float[Tensor, "m n"], steps: int = 5) -> Float[Tensor, "m n"]:
    """About U V^T where g = U S V^T: singular values between 0.7 and 1.2 (Jordan et al. 2024). Each step applies
    3.4445 s - 4.7750 s^3 + 2.0315 s^5 to the singular values, by matrix products alone."""
    x = g.T if len(g) > g.shape[1] else g
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if len(g) > g.shape[1] else x


def muon(model: nn.Module, weight_decay: float, half: bool) -> Optimizer:
    """Muon for matrices; Adam for vectors, embeddings and maps to or from fewer than 16 channels."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    parts: tuple[list, list] = [], []
    for p in model.parameters():
        parts[p.ndim < 2 or min(len(p), p[0].numel()) < 16 or id(p) in tables].append(p)
    matrices, rest = parts
    return MuonAdam([{"params": matrices, "muon": True}, {"params": rest}], half=half, weight_decay=weight_decay)


def adam(model: nn.Module, weight_decay: float, half: bool) -> Optimizer:
    return MuonAdam([{"params": list(model.parameters())}], weight_decay=weight_decay)


OPTIMIZERS = {"muon": muon, "adam": adam}  # (model, weight_decay, half) -> optimizer
