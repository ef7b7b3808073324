"""What memories that have coders share."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


def given_or_default(
    encoder: nn.Module | None,
    decoder: nn.Module | None,
    shape: tuple[int, ...],
    default: Callable[[int], tuple[nn.Module, nn.Module]],
) -> tuple[nn.Module, nn.Module]:
    """The coders a memory was given; for patterns that are vectors, its default ones in the place of missing ones.

    Args:
        encoder, decoder: what was given, or ``None``.
        shape: S, of a pattern.
        default: makes both for patterns of d elements; called only where one is missing.

    Example:
        >>> from ebmm.coders import packing_coders
        >>> def default(features):
        ...     return packing_coders(features, width=2)
        >>> encoder, decoder = given_or_default(nn.Identity(), None, (4,), default)
        >>> encoder, decoder.linear.in_features
        (Identity(), 2)
    """
    if encoder is not None and decoder is not None:
        return encoder, decoder
    if len(shape) != 1:
        raise ValueError(f"patterns of shape {shape} need an encoder and a decoder of your own")
    made = default(shape[0])
    return made[0] if encoder is None else encoder, made[1] if decoder is None else decoder


def apply(coder: nn.Module, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """A coder on (B, N, ...): all memories' patterns or codes as one batch, (B, N, ...) again.

    Args:
        coder: maps (M, ...) to (M, ...).
        x: (B, N, ...).
        shape: what the coder must give for each of the M.

    Returns:
        (B, N, *shape).

    Raises:
        ValueError: the coder gives another shape.

    Example:
        >>> import torch
        >>> from ebmm.coders import Encoder
        >>> apply(Encoder(8, width=3), torch.rand(2, 5, 8), (3,)).shape
        torch.Size([2, 5, 3])
    """
    coded = coder(x.flatten(0, 1))
    want = (x.shape[0] * x.shape[1], *shape)
    if tuple(coded.shape) != want:
        raise ValueError(
            f"{type(coder).__name__} must map {tuple(x.flatten(0, 1).shape)} to {want}, it gave {tuple(coded.shape)}"
        )
    return coded.unflatten(0, x.shape[:2])
