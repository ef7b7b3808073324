"""How far what was read lies from what was written: wrong bits and squared error."""

from __future__ import annotations

from torch import Tensor


def wrong_bits(x: Tensor, patterns: Tensor) -> Tensor:
    """How many elements of what was recalled, x (B, N, *S), lie on the wrong side of ½: (B, N), in [0, d].

    Example:
        >>> import torch
        >>> wrong_bits(torch.tensor([[[0.9, 0.2, 0.6]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
        tensor([[1.]])
    """
    return ((x > 0.5) != (patterns > 0.5)).flatten(2).sum(-1).float()


def squared_error(x: Tensor, patterns: Tensor) -> Tensor:
    """Squared error summed over a pattern's elements, (B, N)."""
    return (x - patterns).flatten(2).square().sum(-1)


METRICS = {"wrong bits": wrong_bits, "squared error": squared_error}


def errors(x: Tensor, patterns: Tensor, metric: str) -> Tensor:
    """Errors (B, N) of what was recalled, by the name of the metric."""
    if x.shape != patterns.shape:
        raise ValueError(f"read must return the shape of its query, {tuple(patterns.shape)}, got {tuple(x.shape)}")
    return METRICS[metric](x, patterns)
