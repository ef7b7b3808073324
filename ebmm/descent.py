"""Steps down an energy: what all memories that are read by descent share."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def velocity_after(
    slope: Callable[[Tensor], Tensor], x: Tensor, velocity: Tensor, rate: Tensor, momentum: Tensor
) -> Tensor:
    """``μ v − γ ∇E(x + μ v)``: the velocity after one step with Nesterov momentum (chapter 2).

    Args:
        slope: ∇E, for example of :mod:`ebmm.slopes`.

    Example:
        >>> x, rest, one = torch.ones(2), torch.zeros(2), torch.tensor(1.0)
        >>> velocity_after(lambda x: x, x, rest, 0.1 * one, one)
        tensor([-0.1000, -0.1000])
    """
    return momentum * velocity - rate * slope(x + momentum * velocity)


def never_growing(first: Tensor, logits: Tensor) -> Tensor:
    """``first``, (1,), and what it becomes when it is multiplied by the sigmoid of one logit after the other, (K,)."""
    return torch.cat([first, first * torch.cumprod(torch.sigmoid(logits), 0)])


def inverse_softplus(value: float) -> float:
    """The number whose softplus is ``value``, above 0."""
    return math.log(math.expm1(value)) if value < 30 else value + math.log1p(-math.exp(-value))


def recordable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that was made under ``torch.inference_mode()`` and takes part in no gradient."""
    return tensor.clone() if tensor.is_inference() else tensor
