"""The memory network: one slot a pattern, found by its content.

Its weak side is the price, which grows with the number of patterns; its strength is that nothing written
ever disturbs what is there. Letters: B memories, N patterns, Q queries, S the shape of a pattern.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.coders import apply, given_or_default, packing_coders
from ebmm.memory import Memory, check_points


class MemoryNetwork(nn.Module):
    """A list of slots, one a pattern: encoded when written, found by soft attention when read.

    Pattern ``xₙ`` is kept as ``mₙ = encoder(xₙ)``. Reading decodes the slots, ``yₙ = decoder(mₙ)``, and
    blends them by how near each comes to the query ``q``:

    ``x = Σₙ wₙ yₙ``  with  ``w = softmax over n of −β ‖φ(q) − φ(yₙ)‖²``,

    where φ is the query encoder and β > 0 is learned: the posterior mean under Gaussian noise of
    variance ``1/(2β)``. With distances the nearest pattern wins, whatever its length; a product
    ``φ(q)·φ(yₙ)`` would favour the long ones.

    The general form (Weston and others 2015) leaves open what is compared and what is blended. Often
    both are the codes, and the decoder comes last. Here both are what the codes decode to: decoding is
    static and costs no memory, and a code narrower than its pattern may pack several bits into one
    float, so that neither distances nor blends of codes mean much. For the same reason one φ serves
    queries and slots: both are patterns, and what is asked for intact is nearest to its own slot,
    whatever φ has learned.

    Args:
        features: d, the size of a pattern, or its shape S.
        slots: how many patterns a memory holds, at least 1.
        width: C, floats of a slot, at least 1.
        encoder: maps patterns (M, *S) to codes (M, C); ``None``, for vectors: that of
            :func:`ebmm.coders.packing_coders`, which suits independent bits; where neighbours
            are alike, as in images, other coders learn faster.
        decoder: maps codes (M, C) to patterns (M, *S) in [0, 1]; ``None`` as for the encoder.
        query_encoder: φ, maps patterns (M, *S) to (M, ...); ``None``: ``φ(x) = 2x − 1``.
        inverse_temperature: start value of β, above 0. Where a share p of random bits is flipped, signs
            ask for ``β = ¼ ln((1 − p)/p)``, 0.27 for a quarter.

    Raises:
        ValueError: a size below 1, β not above 0, or no coders given for patterns that are not vectors.

    Example:
        >>> model = MemoryNetwork(64, slots=16, width=64)
        >>> patterns = torch.randint(0, 2, (3, 16, 64)).float()
        >>> memory = model.write(patterns)
        >>> memory["slots"].shape, model.memory_floats
        (torch.Size([3, 16, 64]), 1024)
        >>> x = model.read(patterns, memory)
        >>> bool(((x > 0.5) == patterns).all())      # room enough: no training needed
        True

    Weston, Chopra, Bordes, *Memory Networks* (2015); soft attention: Sukhbaatar and others, *End-To-End
    Memory Networks* (2015). Paper, table 1, row 7.
    """

    def __init__(
        self,
        features: int | tuple[int, ...],
        slots: int,
        width: int,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        query_encoder: nn.Module | None = None,
        inverse_temperature: float = 0.25,
    ):
        super().__init__()
        self.pattern_shape = (features,) if isinstance(features, int) else tuple(features)
        if min(*self.pattern_shape, slots, width) < 1:
            raise ValueError(f"features, slots and width must be at least 1, got {features}, {slots} and {width}")
        if inverse_temperature <= 0:
            raise ValueError(f"inverse_temperature must be above 0, got {inverse_temperature}")
        self.slots, self.width = slots, width
        self.encoder, self.decoder = given_or_default(
            encoder, decoder, self.pattern_shape, lambda d: packing_coders(d, width)
        )
        self.query_encoder = query_encoder
        self.log_inverse_temperature = nn.Parameter(torch.tensor(math.log(inverse_temperature)))

    def extra_repr(self) -> str:
        return f"{self.pattern_shape}, slots={self.slots}, width={self.width}"

    @property
    def memory_floats(self) -> int:
        """What one memory costs with all its slots filled; how many are is told by the tensor's shape."""
        return self.slots * self.width

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Put each pattern's code into a slot of its own, after those already filled.

        Args:
            patterns: (B, N, *S), the model's dtype, in [0, 1].
            memory: what an earlier ``write`` returned, left as it was; ``None`` starts with no slot filled.

        Returns:
            A Memory. ``"slots"``: (B, filled, C).

        Raises:
            TypeError, ValueError: patterns of a wrong shape, dtype or range; more patterns than slots; an
                encoder that does not give C numbers; a foreign memory.

        Example:
            >>> model = MemoryNetwork(8, slots=3, width=4)
            >>> memory = model.write(torch.rand(1, 2, 8))
            >>> model.write(torch.rand(1, 1, 8), memory)["slots"].shape
            torch.Size([1, 3, 4])
        """
        old = None if memory is None else self._slots_of(memory)
        self._check(patterns, "patterns", memory)
        filled = 0 if old is None else old.shape[1]
        if filled + patterns.shape[1] > self.slots:
            raise ValueError(
                f"the memory has {self.slots} slots, one a pattern: {filled} are filled, "
                f"{patterns.shape[1]} more patterns do not fit"
            )
        codes = apply(self.encoder, patterns, (self.width,))
        return Memory({"slots": codes if old is None else torch.cat([old, codes], dim=1)})

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False):
        """Blend what the slots decode to, each by how near it is to the query.

        Args:
            query: (B, Q, *S), the model's dtype, in [0, 1].
            memory: B memories.
            trajectory: also return the query and what was read, as one tensor.

        Returns:
            (B, Q, *S), and with ``trajectory`` also (2, B, Q, *S): the query first, what is read last.

        Raises:
            TypeError, ValueError: as for ``write``.

        Example:
            >>> model = MemoryNetwork(2, slots=2, width=2, inverse_temperature=10.0)
            >>> memory = model.write(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
            >>> (model.read(torch.tensor([[[0.3, 0.9]]]), memory) > 0.5).float()
            tensor([[[0., 1.]]])
        """
        stored = self._decoded(memory)
        self._check(query, "query", memory)
        x = (self._weights(query, stored) @ stored.flatten(2)).unflatten(2, self.pattern_shape)
        x = x.clamp(0, 1)  # a blend of patterns leaves the box by rounding only
        return (x, torch.stack([query, x])) if trajectory else x

    def address(self, query: Tensor, memory: Memory) -> Tensor:
        """How much each slot contributes to what is read: the weights ``w``.

        Args:
            query: (B, Q, *S), the model's dtype, in [0, 1].
            memory: B memories.

        Returns:
            (B, Q, filled), positive, summing to 1 over the slots.

        Raises:
            TypeError, ValueError: as for ``write``.

        Example:
            >>> model = MemoryNetwork(64, slots=3, width=64)
            >>> patterns = torch.randint(0, 2, (1, 3, 64)).float()
            >>> model.address(patterns, model.write(patterns)).argmax(-1)
            tensor([[0, 1, 2]])
        """
        stored = self._decoded(memory)
        self._check(query, "query", memory)
        return self._weights(query, stored)

    def _decoded(self, memory: Memory) -> Tensor:
        return apply(self.decoder, self._slots_of(memory), self.pattern_shape)

    def _weights(self, query: Tensor, stored: Tensor) -> Tensor:
        asked, kept = self._view(query), self._view(stored)
        # −‖a − k‖² without ‖a‖², which all slots share.
        nearness = 2 * asked @ kept.mT - kept.square().sum(-1).unsqueeze(1)
        return torch.softmax(self.log_inverse_temperature.exp() * nearness, dim=-1)

    def _view(self, x: Tensor) -> Tensor:
        return 2 * x.flatten(2) - 1 if self.query_encoder is None else apply(self.query_encoder, x).flatten(2)

    def _slots_of(self, memory: Memory) -> Tensor:
        want = f"slots: (B, up to {self.slots}, {self.width})"
        if not isinstance(memory, Memory):
            raise TypeError(f"memory must be a Memory with {want}, got {type(memory).__name__}")
        slots = memory["slots"] if tuple(memory) == ("slots",) else None
        if slots is None or slots.dim() != 3 or slots.shape[1] > self.slots or slots.shape[2] != self.width:
            raise ValueError(f"this memory network expects a Memory with {want}, got {memory}")
        return slots

    def _check(self, x: Tensor, name: str, memory: Memory | None) -> None:
        batch = None if memory is None else memory.batch_size
        check_points(x, self.pattern_shape, name, 0.0, 1.0, like=self.log_inverse_temperature, batch=batch)
