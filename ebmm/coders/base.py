"""What memories that have coders share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def given_or_default(
    encoder: nn.Module | None,
    decoder: nn.Module | None,
    shape: tuple[int, ...],
    default: Callable[[int], tuple[nn.Module, nn.Module]],
) -> tuple[nn.Module, nn.Module]:
    """The coders that a memory of patterns of this shape was given, and in the place of ``None`` its default ones.

    ``default`` makes both for vectors of d elements, and is called only where one is missing; other patterns have none.
    """
    if encoder is not None and decoder is not None:
        return encoder, decoder
    if len(shape) != 1:
        raise ValueError(f"patterns of shape {shape} need an encoder and a decoder of your own")
    made = default(shape[0])
    return made[0] if encoder is None else encoder, made[1] if decoder is None else decoder


def apply(coder: nn.Module, x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """What a coder makes of all memories' patterns or codes x (B, N, ...), as one batch: (B, N, *shape).

    Example:
        >>> import torch
        >>> from ebmm.coders import Encoder
        >>> apply(Encoder(8, width=3), torch.rand(2, 5, 8), (3,)).shape
        torch.Size([2, 5, 3])
    """
    batch = x.flatten(0, 1)
    coded = coder(batch)
    want = (len(batch), *shape)
    if tuple(coded.shape) != want:
        raise ValueError(
            f"{type(coder).__name__} must map {tuple(batch.shape)} to {want}, it gave {tuple(coded.shape)}"
        )
    return torch.unflatten(coded, 0, x.shape[:2])
