"""The memory network: one slot a pattern, found by its content.

Its weak side is the price, which grows with the number of patterns; its strength is that nothing written
ever disturbs what is there. Letters: B memories, N patterns, Q queries, S the shape of a pattern.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.baselines.rival import Rival, Sizes, after_filled_slots
from ebmm.coders import packing_coders
from ebmm.memory import Memory


class MemoryNetwork(Rival):
    """A list of slots, one a pattern: encoded when written, found by soft attention when read.

    Pattern ``xₙ`` is kept as ``mₙ = encoder(xₙ)``. Reading decodes the slots, ``yₙ = decoder(mₙ)``, and
    blends them by how near each comes to the query ``q``, all as signs, ``s(x) = 2x − 1``:

    ``x = Σₙ wₙ yₙ``  with  ``w = softmax over n of −β ‖s(q) − s(yₙ)‖²``,

    where β > 0 is learned: the posterior mean under Gaussian noise of variance ``1/(2β)``. With distances the
    nearest pattern wins, whatever its length; a product ``s(q)·s(yₙ)`` would favour the long ones.

    The general form (Weston and others 2015) leaves open what is compared and what is blended. Often
    both are the codes, and the decoder comes last. Here both are what the codes decode to: decoding is
    static and costs no memory, and a code narrower than its pattern may pack several bits into one
    float, so that neither distances nor blends of codes mean much.

    Args:
        features: d, the size of a pattern, or its shape S.
        slots: how many patterns a memory holds, at least 1.
        width: C, floats of a slot, at least 1.
        encoder: maps patterns (M, *S) to codes (M, C); ``None``, for vectors: that of
            :func:`ebmm.coders.packing_coders`, which suits independent bits; where neighbours
            are alike, as in images, other coders learn faster.
        decoder: maps codes (M, C) to patterns (M, *S) in [0, 1]; ``None`` as for the encoder.
        inverse_temperature: start value of β, above 0. Where a share p of random bits is flipped, signs
            ask for ``β = ¼ ln((1 − p)/p)``, 0.27 for a quarter.

    A memory is ``"slots"``, (B, filled, C).

    Example:
        >>> model = MemoryNetwork(64, slots=16, width=64)
        >>> patterns = torch.randint(0, 2, (3, 16, 64)).float()
        >>> memory = model.write(patterns[:, 10:], model.write(patterns[:, :10]))
        >>> memory["slots"].shape, model.memory_floats
        (torch.Size([3, 16, 64]), 1024)
        >>> x = model.read(patterns, memory)
        >>> bool(((x > 0.5) == patterns).all())      # room enough: no training needed
        True

    Weston, Chopra, Bordes, *Memory Networks* (2015); soft attention: Sukhbaatar and others, *End-To-End
    Memory Networks* (2015). Paper, table 1, row 7.
    """

    settings = ("slots", "width")

    def __init__(
        self,
        features: int | tuple[int, ...],
        slots: int,
        width: int,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        inverse_temperature: float = 0.25,
    ):
        if inverse_temperature <= 0:
            raise ValueError(f"inverse_temperature must be above 0, got {inverse_temperature}")
        super().__init__(
            features, width, encoder, decoder, lambda d: packing_coders(d, width), slots=slots, width=width
        )
        self.slots, self.width = slots, width
        self.log_inverse_temperature = nn.Parameter(torch.tensor(math.log(inverse_temperature)))

    @property
    def memory_shapes(self) -> dict[str, Sizes]:
        return {"slots": (range(1, self.slots + 1), self.width)}

    def address(self, query: Tensor, memory: Memory) -> Tensor:
        """How much each slot contributes to what is read: the weights ``w``.

        Args:
            query: (B, Q, *S), the model's dtype, in [0, 1].
            memory: B memories.

        Returns:
            (B, Q, filled), positive, summing to 1 over the slots.

        Raises:
            TypeError, ValueError: as for ``read``.

        Example:
            >>> model = MemoryNetwork(64, slots=3, width=64)
            >>> patterns = torch.randint(0, 2, (1, 3, 64)).float()
            >>> model.address(patterns, model.write(patterns)).argmax(-1)
            tensor([[0, 1, 2]])
        """
        held = self._checked(memory)
        self._check(query, "query", memory)
        return self._weights(query, self._decoded(held["slots"]))

    def _write(self, codes: Tensor, held: dict[str, Tensor] | None) -> dict[str, Tensor]:
        filled = None if held is None else held["slots"]
        return {"slots": after_filled_slots(codes, filled, self.slots)}

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        stored = self._decoded(held["slots"])
        x = (self._weights(query, stored) @ stored.flatten(2)).unflatten(2, self.pattern_shape)
        return [x.clamp(0, 1)]  # a blend of patterns leaves the box by rounding only

    def _weights(self, query: Tensor, stored: Tensor) -> Tensor:
        asked, kept = 2 * query.flatten(2) - 1, 2 * stored.flatten(2) - 1
        # −‖a − k‖² without ‖a‖², which all slots share.
        nearness = 2 * asked @ kept.mT - kept.square().sum(-1).unsqueeze(1)
        return torch.softmax(self.log_inverse_temperature.exp() * nearness, dim=-1)
