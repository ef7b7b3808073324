"""How many bits of its numbers a memory needs (chapters 6 and 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ebmm.given import real, whole
from ebmm.memory import Memory
from ebmm.metrics import errors
from ebmm.tasks import Batch

MOST_BITS = 16


@torch.no_grad()
def rounded(memory: Memory, bits: int, like: Memory) -> Memory:
    """Each number on one of 2^bits levels, evenly spaced over a range that everybody knows.

    Rows of numbers, tensors (B, rows, C), have a range for each of the C columns, other tensors one for all. It is
    what the numbers of ``like`` take, and at least four standard deviations around their mean; numbers outside are
    moved to its ends. Symmetric matrices do not stay symmetric, and no gradient passes.

    Args:
        memory: B memories.
        bits: of a number, 1 to 16.
        like: other memories of the same model, any number of them.

    Raises:
        ValueError: bits out of range; ``like`` has other tensors or shapes, or numbers that are not finite.

    Example:
        >>> memory = Memory({"slots": torch.tensor([[[0.1, -3.0], [0.8, 5.0]]])})
        >>> others = Memory({"slots": torch.tensor([[[0.0, 0.0], [1.0, 4.0]]])})
        >>> rounded(memory, 1, others)["slots"]
        tensor([[[-1.5000, -6.0000],
                 [ 2.5000, 10.0000]]])
    """
    if whole(bits, "bits") > MOST_BITS:
        raise ValueError(f"bits must be at most {MOST_BITS}, got {bits}")
    shapes, theirs = ({name: tuple(held.shape[1:]) for name, held in of.items()} for of in (memory, like))
    if shapes != theirs:
        raise ValueError(f"like must hold tensors of the memory's shapes {shapes}, got {theirs}")
    return Memory({name: _on_levels(held, 2 ** int(bits) - 1, like[name]) for name, held in memory.items()})


def _on_levels(held: Tensor, steps: int, like: Tensor) -> Tensor:
    columns = like.double().reshape(-1, like.shape[-1] if like.dim() == 3 else 1)
    if not columns.isfinite().all():
        raise ValueError("like must hold finite numbers")
    mean, reach = columns.mean(0), 4 * columns.std(0, correction=0)
    low, high = torch.minimum(columns.amin(0), mean - reach), torch.maximum(columns.amax(0), mean + reach)
    step = torch.where(high > low, (high - low) / steps, 1.0)
    level = ((held.double() - low) / step).round().clamp(0, steps)
    return torch.minimum(low + level * step, high).to(held.dtype)


@torch.no_grad()
def bits_needed(model: Any, batch: Batch, others: Batch, metric: str, within: float = 0.2) -> int:
    """The bits of each number from which on a memory's error is at most ``1 + within`` of what it is unrounded.

    Where a wrong slot costs much, few memories tell little: take so many that one such query more is within.

    Args:
        model: any memory; on the device of the batches.
        batch, others: what is written and read, and what is written into the memories that tell the range.
        metric: "wrong bits" or "squared error".
        within: 0 or above.

    Raises:
        ValueError: not even 16 bits suffice, or a read is not finite; and what :func:`rounded` raises.

    Example:
        >>> from ebmm import DenseMemory, tasks
        >>> task = tasks.Task(tasks.RandomBits(64), tasks.FlipBits(0.1), number=4)
        >>> drawn = [task.sample(5, torch.Generator().manual_seed(seed)) for seed in (0, 1)]
        >>> bits_needed(DenseMemory(64, 4), *drawn, task.metric)
        1
    """
    memory, like = model.write(batch.patterns), model.write(others.patterns)

    def error(held: Memory) -> Tensor:
        read = model.read(batch.queries, held)
        if not read.isfinite().all():
            raise ValueError(f"{type(model).__name__} reads NaN or infinity")
        return errors(read, batch.patterns, metric).mean()

    most = (1 + real(within, "within", 0)) * error(memory)
    needed = MOST_BITS + 1
    while needed > 1 and error(rounded(memory, needed - 1, like)) <= most:
        needed -= 1
    if needed > MOST_BITS:
        raise ValueError(
            f"rounded to {MOST_BITS} bits, {type(model).__name__} has more than {1 + within:g} times its error"
        )
    return needed
