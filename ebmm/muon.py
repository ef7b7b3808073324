"""Muon: steps in which every direction of a matrix moves about as far."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ebmm.given import real

QUINTIC = 3.4445, -4.7750, 2.0315  # a, b, c: takes singular values from 0.01 to 1 to about 0.7 to 1.2 in five steps


def orthogonalised(matrix: Tensor) -> Tensor:
    """A matrix (n, m), float, whose singular values above about 1 % of its norm are brought near 1: (n, m).

    Five steps of ``X ← a X + (b X Xᵀ + c (X Xᵀ)²) X`` do it without a singular value decomposition. Zeros stay zeros.
    """
    a, b, c = QUINTIC
    x = matrix / matrix.abs().max().clamp(min=torch.finfo(matrix.dtype).tiny)
    x = x / (x.norm() + 1e-7)
    wide = x.shape[0] <= x.shape[1]
    x = x if wide else x.mT
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    found: Tensor = x if wide else x.mT
    return found


def matrices_of(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of two or more dimensions, but for the rates and the start of the memory of an EBMM."""
    apart: set[nn.Parameter] = set()
    for module in model.modules():
        energy = getattr(module, "energy_network", None)
        if isinstance(energy, nn.Module):
            written: tuple[str, ...] = getattr(module, "writable", ())
            apart |= {*module.parameters(recurse=False), *map(energy.get_parameter, written)}
    return [p for p in model.parameters() if p.dim() > 1 and p.numel() and p.is_floating_point() and p not in apart]


class Muon(torch.optim.AdamW):
    """Muon for the matrices of a model, AdamW for all else.

    Along a gradient few directions of a matrix are steep. Muon takes the gradient's moving average and makes its
    singular values alike, so that the flat directions move as far. A kernel is a matrix with a row for each entry of
    its first dimension. Steps have about the length of AdamW's.

    Args:
        model: its matrices are those of :func:`matrices_of`.
        lr, betas, weight_decay: of both, as for ``torch.optim.AdamW``.
        momentum: share of the moving average that stays in each step, from 0 to below 1.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> optimiser = Muon(layer, lr=0.01, betas=(0.9, 0.99), weight_decay=0.0)
        >>> before = layer.weight.detach().clone()
        >>> layer(torch.rand(4, 3)).square().sum().backward()
        >>> optimiser.step()
        >>> bool((layer.weight != before).all())
        True

    Jordan and others, *Muon: an optimizer for hidden layers in neural networks* (2024); the scale is that of Liu and
    others, *Muon is scalable for LLM training* (2025).
    """

    def __init__(
        self, model: nn.Module, lr: float, betas: tuple[float, float], weight_decay: float, momentum: float = 0.95
    ):
        momentum = real(momentum, "momentum", 0)
        if momentum >= 1:
            raise ValueError(f"momentum must be from 0 to below 1, got {momentum}")
        matrices = matrices_of(model)
        known = set(matrices)
        others = [p for p in model.parameters() if p not in known]
        groups: list[dict[str, Any]] = [{"params": others}, {"params": matrices, "momentum": momentum}]
        super().__init__(groups, lr=lr, betas=betas, weight_decay=weight_decay)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Move all parameters that have gradients; those of matrices are used up. A closure is refused: ValueError."""
        if closure is not None:
            raise ValueError("Muon takes no closure: compute the gradients first")
        matrices = self.param_groups[1]
        for parameter in matrices["params"]:
            if parameter.grad is None:
                continue
            state, rate = self.state[parameter], matrices["lr"]
            if not state:  # AdamW reads a step for each parameter that has a state
                state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(parameter))
            average = state["momentum"].lerp_(parameter.grad, 1 - matrices["momentum"])
            ahead = parameter.grad.lerp(average, matrices["momentum"]).flatten(1)
            parameter.mul_(1 - rate * matrices["weight_decay"])
            length = 0.2 * math.sqrt(max(ahead.shape))
            parameter.add_(orthogonalised(ahead).view_as(parameter), alpha=-rate * length)
            parameter.grad = None  # so that AdamW leaves it alone
        super().step()
