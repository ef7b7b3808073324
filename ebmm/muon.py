"""Muon: steps in which every direction of a matrix moves about as far."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """A matrix (n, m) with its singular values brought to between about 0.7 and 1.2, by a polynomial of it.

    Five steps of ``X ← a X + (b X Xᵀ + c (X Xᵀ)²) X`` do what a singular value decomposition would, without one.
    """
    x = matrix / (matrix.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.mT
    for _ in range(steps):
        square = x @ x.mT
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x if wide else x.mT


class Muon(torch.optim.AdamW):
    """Muon for the matrices of a model, AdamW for all else.

    Along a gradient few directions of a matrix are steep. Muon takes the gradient's moving average and makes its
    singular values alike, so that the flat directions move as far; kernels of convolutions are matrices with a row for
    each output. Steps are scaled to the length of AdamW's, so that one learning rate serves both.

    Args:
        model: its matrices are the parameters of two or more dimensions; in an :class:`ebmm.EBMM`, those of the energy
            that are not written.
        lr, betas, weight_decay: as for ``torch.optim.AdamW``.
        momentum: share of the moving average that stays in each step.

    Jordan and others, *Muon: an optimizer for hidden layers in neural networks* (2024); the scale is that of Liu and
    others, *Muon is scalable for LLM training* (2025).
    """

    def __init__(self, model: nn.Module, momentum: float = 0.95, **options):
        inner, written = getattr(model, "energy_network", model), getattr(model, "writable", ())
        matrices = [p for name, p in inner.named_parameters() if p.dim() > 1 and name not in written]
        known = set(matrices)
        others = [p for p in model.parameters() if p not in known]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": matrices, "momentum": momentum}]
        super().__init__(groups, **options)

    @torch.no_grad()
    def step(self, closure=None):
        matrices = self.param_groups[1]
        for parameter in matrices["params"]:
            if parameter.grad is None:
                continue
            state, rate = self.state[parameter], matrices["lr"]
            average = state.setdefault("momentum", torch.zeros_like(parameter))
            average.lerp_(parameter.grad, 1 - matrices["momentum"])
            ahead = parameter.grad.lerp(average, matrices["momentum"]).flatten(1)
            parameter.mul_(1 - rate * matrices["weight_decay"])
            length = 0.2 * math.sqrt(max(ahead.shape))
            parameter.add_(orthogonalised(ahead).view_as(parameter), alpha=-rate * length)
            parameter.grad = None  # so that AdamW leaves it alone
        return super().step(closure)
