"""What all forms in PyTorch share: their parameters as tensors, and the update."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from benchmarks.problem import ADAMW, CLIP, Arrays, Form


def tensors(parameters: Arrays, dtype: str) -> dict[str, Tensor]:
    """Parameters to be trained."""
    return {name: as_tensor(array, dtype).requires_grad_() for name, array in parameters.items()}


def as_tensor(array: np.ndarray, dtype: str) -> Tensor:
    """A copy of an array."""
    return torch.tensor(array, dtype=getattr(torch, dtype))


def form_of(loss: Callable[[], Tensor], parameters: Mapping[str, Tensor]) -> Form:
    """The form of a loss, whose gradient is taken by ``backward``, as in :func:`ebmm.fit`."""
    optimiser = torch.optim.AdamW(parameters.values(), **ADAMW)

    def descend() -> Tensor:
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    def evaluate() -> tuple[float, Arrays]:
        value = descend().item()
        gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters.items()}
        return value, {name: gradient.numpy().copy() for name, gradient in gradients.items()}

    def step() -> float:
        value = descend()
        torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimiser.step()
        return value.item()

    return Form(evaluate, step)
