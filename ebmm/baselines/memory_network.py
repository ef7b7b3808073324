"""The memory network: one slot a pattern, found by its content.

Its weak side is the price, which grows with the number of patterns; its strength is that nothing written
ever disturbs what is there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.baselines.rival import OneSlotEach
from ebmm.memory import Memory


class MemoryNetwork(OneSlotEach):
    """A list of slots, one a pattern: encoded when written, found by soft attention when read.

    Pattern ``xₙ`` is kept as ``mₙ = encoder(xₙ)``. Reading decodes the slots, ``yₙ = decoder(mₙ)``, and
    blends them by how near each comes to the query ``q``, all as signs, ``s(x) = 2x − 1``:

    ``x = Σₙ wₙ yₙ``  with  ``w = softmax over n of −β ‖s(q) − s(yₙ)‖²``,

    where β > 0 is learned: the posterior mean under Gaussian noise of variance ``1/(2β)``. With distances the
    nearest pattern wins, whatever its length; a product ``s(q)·s(yₙ)`` would favour the long ones.

    The general form (Weston and others 2015) often compares and blends the codes, and decodes last. Here both are
    done with what the codes decode to: a code narrower than its pattern may pack several bits into one
    float, so that neither distances nor blends of codes mean much.

    Args:
        features, slots, width, encoder, decoder: as for :class:`ebmm.baselines.rival.OneSlotEach`.
        inverse_temperature: start value of β, above 0. Where a share p of random bits is flipped, signs
            ask for ``β = ¼ ln((1 − p)/p)``, 0.27 for a quarter.

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
        super().__init__(features, slots, width, encoder, decoder)
        self.log_inverse_temperature = nn.Parameter(torch.tensor(math.log(inverse_temperature)))

    def address(self, query: Tensor, memory: Memory) -> Tensor:
        """The weights ``w`` of the slots, (B, Q, filled), for queries and memories as of ``read``."""
        held = self._checked(memory)
        self._check(query, "query", memory)
        return self._weights(query, self._decoded(held["slots"]))

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        stored = self._decoded(held["slots"])
        x = (self._weights(query, stored) @ stored.flatten(2)).unflatten(2, self.pattern_shape)
        return [x.clamp(0, 1)]  # a blend of patterns leaves the box by rounding only

    def _weights(self, query: Tensor, stored: Tensor) -> Tensor:
        asked, kept = 2 * query.flatten(2) - 1, 2 * stored.flatten(2) - 1
        # −‖a − k‖² without ‖a‖², which all slots share.
        nearness = 2 * asked @ kept.mT - kept.square().sum(-1).unsqueeze(1)
        return torch.softmax(self.log_inverse_temperature.exp() * nearness, dim=-1)
