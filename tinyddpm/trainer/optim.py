"""Muon: momentum whose matrices are made orthogonal, so that every direction moves by as much."""

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Muon(torch.optim.Optimizer):
    """w <- w - 0.2 lr sqrt(max(m, n)) orthogonal(momentum) for each m x n matrix (Jordan et al. 2024, with
    Adam's size of step as in Liu et al. 2025, "Muon is scalable"). A convolution's weight is the
    matrix (c_out, c_in kh kw).

    half: orthogonalize in bfloat16: faster where the device has it, far slower where it has not.
    Raises ValueError for vectors: give those to another optimizer.
    """

    def __init__(self, parameters: Iterable, lr: float = 2e-3, momentum: float = 0.95, half: bool = False):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "half": half})

    def add_param_group(self, param_group: dict) -> None:
        super().add_param_group(param_group)
        if vectors := [tuple(p.shape) for p in self.param_groups[-1]["params"] if p.ndim < 2]:
            raise ValueError(f"Muon is for matrices, got parameters of shape {vectors}: give them to Adam")

    @torch.no_grad()
    def step(self, closure: Callable | None = None):
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad, state = p.grad.flatten(1), self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(grad)
                state["momentum"].lerp_(grad, 1 - group["momentum"])
                ahead = grad.lerp(state["momentum"], group["momentum"])  # Nesterov's
                direction = orthogonalize(ahead.bfloat16() if group["half"] else ahead)
                size = 0.2 * max(grad.shape) ** 0.5  # an orthogonal matrix has elements of 1 / sqrt(max(m, n))
                p.add_(direction.reshape(p.shape).to(p.dtype), alpha=-group["lr"] * size)
        return loss


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
    """The weights that Muon is for, and all others: vectors, embeddings and maps to or from few channels."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    matrices, rest = [], []
    for p in model.parameters():
        wide = p.ndim > 1 and min(len(p), p[0].numel()) >= smallest and id(p) not in tables
        (matrices if wide else rest).append(p)
    return matrices, rest
