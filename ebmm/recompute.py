"""Steps of a recorded loop that keep only what goes into them, and run once more for the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._pytree import tree_flatten, tree_unflatten


def recomputed(step: Callable[..., tuple[Tensor, ...]], *inputs: Any) -> tuple[Tensor, ...]:
    """``step(True, *inputs)``, of which only the inputs are kept for the backward pass; it runs once more there.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> recomputed(lambda keep, weight: (weight * weight,), weight)[0].sum().backward()
        >>> weight.grad
        tensor([2., 2.])
    """
    tensors, structure = tree_flatten(inputs)
    apply: Callable[..., tuple[Tensor, ...]] = _Recomputed.apply
    return apply(lambda keep, *tensors: step(keep, *tree_unflatten(tensors, structure)), *tensors)


class _Recomputed(torch.autograd.Function):
    """A step of which only the inputs are kept: it runs unrecorded, and once more, recorded, in the backward pass.

    ``torch.utils.checkpoint`` runs the step again for each gradient taken inside it, twice as slow in all,
    and what those runs leave unused stays: with the gradient term, half of everything.
    """

    @staticmethod
    def forward(ctx: Any, step: Callable[..., tuple[Tensor, ...]], *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.step = step
        ctx.save_for_backward(*inputs)
        kind = inputs[0].device.type
        ctx.autocast = {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
        }
        with torch.enable_grad():
            return tuple(output.detach() for output in step(False, *inputs))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        inputs = [tensor.detach().requires_grad_(need) for tensor, need in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            outputs = ctx.step(True, *inputs)
        leaves = [tensor for tensor in inputs if tensor.requires_grad]
        gradients = iter(torch.autograd.grad(outputs, leaves, slopes, allow_unused=True))
        return None, *(next(gradients) if need else None for need in needed)
