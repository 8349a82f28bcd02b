"""Muon and Adam as one optimizer: momentum made orthogonal for matrices, Adam for all other weights."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw


class MuonAdam(Optimizer):
    """A group with muon=True holds matrices m x n, such as a convolution's (c_out, c_in kh kw), and takes the step

        w <- w - 0.2 lr sqrt(max(m, n)) orthogonalize(momentum)

    (Jordan et al. 2024, scaled to the size of Adam's step as in Liu et al. 2025, "Muon is scalable"). Any other group
    takes AdamW's (Loshchilov & Hutter 2019), which without weight_decay is Adam's.

    momentum                  of Muon
    half                      orthogonalizes in bfloat16: faster only where the device computes in it natively
    betas, eps, weight_decay  of Adam
    """

    def __init__(
        self,
        groups: list[dict],
        lr: float = 1e-3,
        momentum: float = 0.95,
        half: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        adam = {"betas": betas, "eps": eps, "weight_decay": weight_decay, "fused": True}
        super().__init__(groups, {"muon": False, "lr": lr, "momentum": momentum, "half": half, **adam})
        for group in self.param_groups:
            group["fused"] = all(p.device.type != "mps" for p in group["params"])

    @torch.no_grad()
    def step(self, closure=None) -> Tensor | None:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if group["muon"]:
                for p in parameters:
                    self.muon(p, group)
            elif parameters:
                self.adam(parameters, group)
        return loss

    def muon(self, p: nn.Parameter, group: dict) -> None:
        grad, state = p.grad.flatten(1), self.state[p]
        if not state:
            state["momentum"] = torch.zeros_like(grad)
        state["momentum"].lerp_(grad, 1 - group["momentum"])
        ahead = grad.lerp(state["momentum"], group["momentum"])  # Nesterov's
        direction = orthogonalize(ahead.bfloat16() if group["half"] else ahead)
        size = 0.2 * max(grad.shape) ** 0.5  # an orthogonal matrix has elements of 1 / sqrt(max(m, n))
        p.add_(direction.reshape(p.shape).to(p.dtype), alpha=-group["lr"] * size)

    def adam(self, parameters: list[nn.Parameter], group: dict) -> None:
        for p in parameters:
            if not self.state[p]:
                step = torch.zeros((), device=p.device if group["fused"] else "cpu")
                self.state[p].update(step=step, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        columns = [[self.state[p][name] for p in parameters] for name in ("exp_avg", "exp_avg_sq", "step")]
        adamw(
            parameters, [p.grad for p in parameters], *columns[:2], [], columns[2], fused=group["fused"], amsgrad=False,
            beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"], weight_decay=group["weight_decay"],
            eps=group["eps"], maximize=False,
        )  # fmt: skip


def orthogonalize(g: Float[Tensor, "m n"], steps: int = 5) -> Float[Tensor, "m n"]:
    """About U V^T where g = U S V^T: singular values between 0.7 and 1.2 (Jordan et al. 2024).

    Each step applies 3.4445 s - 4.7750 s^3 + 2.0315 s^5 to the singular values, by matrix products alone.
    """
    x = g.T if len(g) > g.shape[1] else g
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = torch.addmm(x, torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if len(g) > g.shape[1] else x


def matrices_and_rest(model: nn.Module, smallest: int = 16) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights for Muon, and the others: vectors, embeddings and maps to or from fewer than `smallest` channels."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices, rest = [], []
    for p in model.parameters():
        wide = p.ndim > 1 and min(len(p), p[0].numel()) >= smallest and id(p) not in tables
        (matrices if wide else rest).append(p)
    return matrices, rest


def muon(model: nn.Module, weight_decay: float, half: bool) -> Optimizer:
    matrices, rest = matrices_and_rest(model)
    return MuonAdam([{"params": matrices, "muon": True}, {"params": rest}], half=half, weight_decay=weight_decay)


def adam(model: nn.Module, weight_decay: float, half: bool) -> Optimizer:
    return MuonAdam([{"params": list(model.parameters())}], weight_decay=weight_decay)


OPTIMIZERS = {"muon": muon, "adam": adam}  # (model, weight_decay, half) -> optimizer
