"""The autoencoder as a memory that is told which slot to read: what the codes themselves cost."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebmm.coders import apply
from ebmm.memory import Memory, check_points


class Autoencoder(nn.Module):
    """Keeps pattern n's code in slot n, and answers query n with what slot n decodes to, whatever the query is.

    It takes no part in a contest, since it is told what the others must find out. It shows what is lost
    by encoding alone, and training it is the quickest way to coders that other memories then start from.

    Args:
        features: d, the size of a pattern, or its shape S.
        slots: how many patterns a memory holds.
        width: C, floats of a slot.
        encoder: maps patterns (M, *S) to codes (M, C).
        decoder: maps codes (M, C) to patterns (M, *S) in [0, 1].

    Example:
        >>> from ebmm.coders import packing_coders
        >>> model = Autoencoder(64, 16, 64, *packing_coders(64, 64))
        >>> patterns = torch.randint(0, 2, (3, 16, 64)).float()
        >>> memory = model.write(patterns)
        >>> model.read(torch.zeros_like(patterns), memory).shape, model.memory_floats
        (torch.Size([3, 16, 64]), 1024)
    """

    def __init__(self, features: int | tuple[int, ...], slots: int, width: int, encoder: nn.Module, decoder: nn.Module):
        super().__init__()
        self.pattern_shape = (features,) if isinstance(features, int) else tuple(features)
        self.slots, self.width = slots, width
        self.encoder, self.decoder = encoder, decoder

    def extra_repr(self) -> str:
        return f"{self.pattern_shape}, slots={self.slots}, width={self.width}"

    @property
    def memory_floats(self) -> int:
        """What one memory costs with all its slots filled."""
        return self.slots * self.width

    def write(self, patterns: Tensor) -> Memory:
        """Encode patterns (B, N, *S), N at most ``slots``, into a Memory of ``"codes"`` (B, N, C).

        Raises:
            TypeError, ValueError: patterns of a wrong shape, dtype or range, or more of them than slots.
        """
        self._check(patterns, "patterns", None)
        if patterns.shape[1] > self.slots:
            raise ValueError(f"the memory has {self.slots} slots, one a pattern, got {patterns.shape[1]} patterns")
        return Memory({"codes": apply(self.encoder, patterns, (self.width,))})

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False):
        """What the slots decode to, in their order, for as many queries (B, N, *S) as patterns were written.

        Returns:
            (B, N, *S), and with ``trajectory`` also (2, B, N, *S): the query first, what is read last.

        Raises:
            TypeError, ValueError: as for ``write``, or another number of queries than of patterns.
        """
        self._check(query, "query", memory)
        codes = memory["codes"]
        if query.shape[1] != codes.shape[1]:
            raise ValueError(f"query n reads slot n: expected {codes.shape[1]} queries, got {query.shape[1]}")
        x = apply(self.decoder, codes, self.pattern_shape)
        return (x, torch.stack([query, x])) if trajectory else x

    def _check(self, x: Tensor, name: str, memory: Memory | None) -> None:
        batch = None if memory is None else memory.batch_size
        check_points(x, self.pattern_shape, name, 0.0, 1.0, like=next(self.parameters()), batch=batch)
