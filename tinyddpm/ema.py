"""A running average of a network's weights: what is sampled from and shipped."""

import copy

import torch
from torch import nn


class EMA:
    """A copy of the network whose weights are a running average of the trained one's.

    average <- d average + (1 - d) weights, with d = min(decay, (1 + n) / (10 + n)) after n updates, so
    that the first, untrained weights are soon forgotten. Buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.updates = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.model.parameters()), list(model.parameters()), 1 - decay)
        for average, buffer in zip(self.model.buffers(), model.buffers()):
            average.copy_(buffer)
