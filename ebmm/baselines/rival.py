"""What all rivals share, so that each of them holds its mathematics only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ebmm.coders import packing_coders
from ebmm.coders.base import apply, given_or_default
from ebmm.memory import Memory, as_pattern_shape, check_counts, check_memory, check_points

Sizes = tuple[int | range, ...]


class Rival(nn.Module):
    """A memory between an encoder and a decoder, with patterns in [0, 1].

    A subclass says of which tensors its memory consists (``memory_shapes``), how codes are written (``_write``),
    what is read (``_read``), and which attributes describe it (``settings``).

    Args:
        features, code_size: d, the size of a pattern, or its shape S; and C.
        encoder, decoder: map patterns (M, *S) to codes (M, C), and what is read (M, ...) to patterns (M, *S) in [0, 1].
        default: makes both for vectors of d elements; it serves where one is ``None``.
        sizes: further ones to be checked.
    """

    settings: tuple[str, ...] = ()

    def __init__(
        self,
        features: int | tuple[int, ...],
        code_size: int,
        encoder: nn.Module | None,
        decoder: nn.Module | None,
        default: Callable[[int], tuple[nn.Module, nn.Module]],
        **sizes: int,
    ):
        super().__init__()
        self.pattern_shape = as_pattern_shape(features, "features")
        check_counts(**sizes)
        self._code_shape = (code_size,)
        self.encoder, self.decoder = given_or_default(encoder, decoder, self.pattern_shape, default)

    def extra_repr(self) -> str:
        return ", ".join([str(self.pattern_shape), *(f"{name}={getattr(self, name)}" for name in self.settings)])

    @property
    def memory_shapes(self) -> dict[str, Sizes]:
        """The name of each tensor of a memory and its shape behind B; a range where it grows with the patterns."""
        raise NotImplementedError

    @property
    def memory_floats(self) -> int:
        """What one memory costs: all that travels from write to read, with all its places filled."""
        shapes = self.memory_shapes.values()
        return sum(math.prod(n.stop - 1 if isinstance(n, range) else n for n in shape) for shape in shapes)

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Write patterns (B, N, *S), the model's dtype, in [0, 1], one after another.

        Returned are B memories, of the tensors that ``memory_shapes`` names; those given are left as they were.
        """
        held = None if memory is None else self._checked(memory)
        self._check(patterns, "patterns", memory)
        return Memory(self._write(self._encoded(patterns), held))

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False) -> Any:
        """What queries (B, Q, *S) recall, (B, Q, *S); nothing is written, so that they do not see each other.

        With ``trajectory`` also what each round of reading gave, (K + 1, B, Q, *S): the query first, what is read last.
        """
        held = self._checked(memory)
        self._check(query, "query", memory)
        iterates = [query, *self._read(query, held)]
        return (iterates[-1], torch.stack(iterates)) if trajectory else iterates[-1]

    def _write(self, codes: Tensor, held: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """The tensors of memories into which codes (B, N, C) were written, after what they held."""
        raise NotImplementedError

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        """What each round of reading gave, (B, Q, *S) each."""
        raise NotImplementedError

    def _encoded(self, x: Tensor) -> Tensor:
        return apply(self.encoder, x, self._code_shape)

    def _decoded(self, x: Tensor) -> Tensor:
        return apply(self.decoder, x, self.pattern_shape)

    def _checked(self, memory: Memory) -> dict[str, Tensor]:
        shapes, first = self.memory_shapes, next(self.parameters(), None)
        return check_memory(memory, shapes, type(self).__name__, {} if first is None else dict.fromkeys(shapes, first))

    def _check(self, x: Tensor, name: str, memory: Memory | None) -> None:
        batch = None if memory is None else memory.batch_size
        check_points(x, self.pattern_shape, name, 0.0, 1.0, next(self.parameters(), None), batch)


class OneSlotEach(Rival):
    """A rival that keeps the code of each pattern in a slot of its own, in the order of writing.

    Args:
        features, encoder, decoder: as of every rival; the default is :func:`ebmm.coders.packing_coders`.
        slots, width: how many patterns a memory holds, and C, floats of a slot.

    A memory is ``"slots"``, (B, filled, C). More patterns than free slots are a ``ValueError``.

    Example:
        >>> model = OneSlotEach(8, slots=5, width=4)
        >>> model.write(torch.rand(2, 3, 8)), model.memory_floats
        (Memory(slots: (2, 3, 4), device='cpu'), 20)
    """

    settings: tuple[str, ...] = ("slots", "width")

    def __init__(
        self,
        features: int | tuple[int, ...],
        slots: int,
        width: int,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ):
        sizes = {"slots": slots, "width": width}
        super().__init__(features, width, encoder, decoder, lambda d: packing_coders(d, width), **sizes)
        self.slots, self.width = slots, width

    @property
    def memory_shapes(self) -> dict[str, Sizes]:
        return {"slots": (range(1, self.slots + 1), self.width)}

    def _write(self, codes: Tensor, held: dict[str, Tensor] | None) -> dict[str, Tensor]:
        filled = 0 if held is None else held["slots"].shape[1]
        if filled + codes.shape[1] > self.slots:
            raise ValueError(
                f"the memory has {self.slots} slots, one a pattern: {filled} are filled, "
                f"{codes.shape[1]} more patterns do not fit"
            )
        return {"slots": codes if held is None else torch.cat([held["slots"], codes], dim=1)}
