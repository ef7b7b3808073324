"""How many bits of its numbers a memory needs (chapters 6 and 7)."""

from __future__ import annotations

from typing import Any

import torch

from ebmm.given import real, whole
from ebmm.memory import Memory
from ebmm.metrics import errors
from ebmm.tasks import Batch


def rounded(memory: Memory, bits: int, like: Memory) -> Memory:
    """Each number on one of 2^bits levels, evenly spaced over a range that everybody knows.

    The range of a column is that in ``like``, and a tenth more on either side.

    Args:
        memory: B memories; of each tensor (B, ..., C), numbers of one place along C are a column.
        bits: of a number, at least 1.
        like: other memories of the same model.

    Example:
        >>> memory = Memory({"slots": torch.tensor([[[0.1, -3.0], [0.8, 5.0]]])})
        >>> rounded(memory, 1, Memory({"slots": torch.tensor([[[0.0, 0.0], [1.0, 4.0]]])}))["slots"]
        tensor([[[-0.1000, -0.4000],
                 [ 1.1000,  4.4000]]])
    """
    steps = 2 ** whole(bits, "bits") - 1
    coarse = {}
    for name, held in memory.items():
        columns = like[name].reshape(-1, like[name].shape[-1])
        low, high = columns.amin(0), columns.amax(0)
        low, high = low - 0.1 * (high - low), high + 0.1 * (high - low)
        step = (high - low).clamp(min=torch.finfo(held.dtype).tiny) / steps
        coarse[name] = low + ((held - low) / step).round().clamp(0, steps) * step
    return Memory(coarse)


@torch.no_grad()
def bits_needed(model: Any, batch: Batch, others: Batch, metric: str, within: float = 0.1) -> int:
    """The fewest bits of each number with which a memory's error is at most ``1 + within`` of what it is unrounded.

    Args:
        model: any memory; on the device of the batches.
        batch, others: what is written and read, and what is written into the memories that tell the range.
        metric: "wrong bits" or "squared error".
        within: 0 or above.

    Raises:
        ValueError: not even 16 bits suffice.

    Example:
        >>> from ebmm import DenseMemory, tasks
        >>> task = tasks.Task(tasks.RandomBits(64), tasks.FlipBits(0.1), number=4)
        >>> drawn = [task.sample(5, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
        >>> bits_needed(DenseMemory(64, 4), *drawn, task.metric)
        1
    """
    memory, like = model.write(batch.patterns), model.write(others.patterns)

    def error(held: Memory) -> float:
        return errors(model.read(batch.queries, held), batch.patterns, metric).mean().item()

    most = (1 + real(within, "within", 0)) * error(memory)
    for bits in range(1, 17):
        if error(rounded(memory, bits, like)) <= most:
            return bits
    raise ValueError(f"rounded to 16 bits, {type(model).__name__} has more than {1 + within:g} times its error")
