"""An inpainter without any memory: what can be guessed of a damaged picture from the rest of it (chapters 6 and 7)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.coders.images import as_planes
from ebmm.memory import Memory, check_memory, check_points
from ebmm.misfit import CELL


class Inpainter(nn.Module):
    """Answers from the query alone, ``x = q + g (z − q)``: it writes nothing, so its memory has no floats.

    A convolutional network of the query gives at each pixel what should be there, z, and where to put it, g in (0, 1).
    Its blocks look ever further around: with four of them each pixel sees all others of 64 × 64. What a memory is worth
    is what it has over this network.

    Args:
        shape: S of a picture, (H, W) or (3, H, W), sides multiples of 8.
        hidden, blocks: channels, and how many residual blocks there are.

    Example:
        >>> model = Inpainter((32, 32))
        >>> memory = model.write(torch.rand(2, 3, 32, 32))
        >>> model.read(torch.rand(2, 5, 32, 32), memory).shape, model.memory_floats
        (torch.Size([2, 5, 32, 32]), 0)
    """

    memory_floats = 0

    def __init__(self, shape: tuple[int, ...], hidden: int = 64, blocks: int = 4):
        super().__init__()
        self.pattern_shape, self.planes = tuple(shape), as_planes(shape)
        numbers = CELL**2 * self.planes[0]
        self.first = nn.Conv2d(numbers, hidden, 3, padding=1)
        self.inner = nn.ModuleList(
            nn.Conv2d(hidden, hidden, 3, padding=far, dilation=far) for far in range(1, blocks + 1)
        )
        self.outer = nn.ModuleList(nn.Conv2d(hidden, hidden, 3, padding=1) for _ in range(blocks))
        self.last = nn.Conv2d(hidden, numbers + CELL**2, 3, padding=1)

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Nothing of patterns (B, N, *S), in [0, 1]: B memories without a number."""
        if memory is not None:
            self._checked(memory)
        self._check(patterns, "patterns", memory)
        return Memory({"nothing": patterns.new_zeros(len(patterns), 0)})

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False) -> Any:
        """What queries (B, Q, *S) suggest, (B, Q, *S); with ``trajectory`` also both iterates, the query first."""
        self._checked(memory)
        self._check(query, "query", memory)
        pictures = query.reshape(-1, *self.planes)
        state = self.first(F.pixel_unshuffle(2 * pictures - 1, CELL))
        for inner, outer in zip(self.inner, self.outer, strict=True):
            state = state + outer(F.silu(inner(F.silu(state))))
        filling, gate = self.last(F.silu(state)).split([self.last.out_channels - CELL**2, CELL**2], 1)
        gate = torch.sigmoid(F.pixel_shuffle(gate, CELL))
        x = pictures + gate * (torch.sigmoid(F.pixel_shuffle(filling, CELL)) - pictures)
        x = x.view_as(query)
        return (x, torch.stack([query, x])) if trajectory else x

    def _check(self, x: Tensor, name: str, memory: Memory | None) -> None:
        batch = None if memory is None else memory.batch_size
        check_points(x, self.pattern_shape, name, 0.0, 1.0, self.first.weight, batch)

    def _checked(self, memory: Memory) -> None:
        check_memory(memory, {"nothing": (0,)}, type(self).__name__)
