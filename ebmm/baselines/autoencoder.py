"""The autoencoder as a memory that is told which slot to read: what the codes themselves cost."""

from __future__ import annotations

from torch import Tensor, nn

from ebmm.baselines.rival import Rival, Sizes, after_filled_slots
from ebmm.coders import packing_coders


class Autoencoder(Rival):
    """Keeps pattern n's code in slot n, and answers query n with what slot n decodes to, whatever the query is.

    It is no contestant, since it is told what the others must find out. It shows what is lost
    by encoding alone, and training it is the quickest way to coders that other memories then start from.

    Args:
        features: d, the size of a pattern, or its shape S.
        slots: how many patterns a memory holds.
        width: C, floats of a slot.
        encoder: maps patterns (M, *S) to codes (M, C); ``None``, for vectors: :func:`ebmm.coders.packing_coders`.
        decoder: maps codes (M, C) to patterns (M, *S) in [0, 1]; ``None`` as for the encoder.

    A memory is ``"codes"``, (B, filled, C). There must be as many queries as patterns were written.

    Example:
        >>> import torch
        >>> model = Autoencoder(64, 16, 64)
        >>> patterns = torch.randint(0, 2, (3, 16, 64)).float()
        >>> memory = model.write(patterns)
        >>> model.read(torch.zeros_like(patterns), memory).shape, model.memory_floats
        (torch.Size([3, 16, 64]), 1024)
    """

    settings = ("slots", "width")

    def __init__(
        self,
        features: int | tuple[int, ...],
        slots: int,
        width: int,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ):
        super().__init__(
            features, width, encoder, decoder, lambda d: packing_coders(d, width), slots=slots, width=width
        )
        self.slots, self.width = slots, width

    @property
    def memory_shapes(self) -> dict[str, Sizes]:
        return {"codes": (range(1, self.slots + 1), self.width)}

    def _write(self, codes: Tensor, held: dict[str, Tensor] | None) -> dict[str, Tensor]:
        filled = None if held is None else held["codes"]
        return {"codes": after_filled_slots(codes, filled, self.slots)}

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        filled = held["codes"].shape[1]
        if query.shape[1] != filled:
            raise ValueError(f"query n reads slot n: expected {filled} queries, got {query.shape[1]}")
        return [self._decoded(held["codes"])]
