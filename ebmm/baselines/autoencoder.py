"""The autoencoder as a memory that is told which slot to read: what the codes themselves cost."""

from __future__ import annotations

from torch import Tensor

from ebmm.baselines.rival import OneSlotEach


class Autoencoder(OneSlotEach):
    """Keeps pattern n's code in slot n, and answers query n with what slot n decodes to, whatever the query is.

    It is no contestant, since it is told what the others must find out. It shows what is lost
    by encoding alone, and training it is the quickest way to coders that other memories then start from.
    Arguments are those of :class:`ebmm.baselines.rival.OneSlotEach`; there must be as many queries as patterns written.

    Example:
        >>> import torch
        >>> model = Autoencoder(64, 16, 64)
        >>> patterns = torch.randint(0, 2, (3, 16, 64)).float()
        >>> memory = model.write(patterns)
        >>> model.read(torch.zeros_like(patterns), memory).shape, model.memory_floats
        (torch.Size([3, 16, 64]), 1024)
    """

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        filled = held["slots"].shape[1]
        if query.shape[1] != filled:
            raise ValueError(f"query n reads slot n: expected {filled} queries, got {query.shape[1]}")
        return [self._decoded(held["slots"])]
