"""How well a memory recalls: wrong bits or squared error, with percentiles over many memories."""

from __future__ import annotations

import torch

from ebmm.machine import describe_device, pick_device, versions
from ebmm.metrics import errors
from ebmm.tasks import Task


def evaluate(
    model,
    task: Task,
    memories: int = 1000,
    *,
    seed: int = 0,
    batch_size: int = 50,
    device: str | None = None,
    clamp: bool = False,
) -> dict:
    """Write and read many fresh memories; mean error and its 5th and 95th percentiles over memories.

    Args:
        model: any object with ``write``, ``read`` and ``memory_floats``.
        task: what to store and how to corrupt; its ``metric`` is reported.
        memories: how many memories, each with ``task.number`` patterns of its own.
        seed: of the task's generator. The result does not depend on ``batch_size``.
        device: as for :func:`ebmm.fit`; ``None``: where the model's parameters are.
        clamp: tell the memory which elements are intact (Hopfield networks only).

    Returns:
        A dict: memory_floats, patterns, corruption, clamped, metric, mean, p5, p95, memories, seed,
        device, versions. A memory's error is the mean over its patterns.

    Raises:
        ValueError: fewer than one memory or batch, or a read that returns NaN or another shape than its query's.

    Example:
        >>> from ebmm import Hopfield, tasks
        >>> task = Task(tasks.RandomBits(32), tasks.FlipBits(0.1), number=2)
        >>> evaluate(Hopfield(32), task, memories=4)["metric"]
        'wrong bits'
    """
    if min(memories, batch_size) < 1:
        raise ValueError(f"memories and batch_size must be at least 1, got {memories} and {batch_size}")
    parameters = model.parameters() if isinstance(model, torch.nn.Module) else ()
    where = pick_device(device) if device else next((p.device for p in parameters), torch.device("cpu"))
    memory_floats = model.memory_floats
    generator = torch.Generator().manual_seed(seed)
    per_memory = []
    with torch.no_grad():
        for done in range(0, memories, batch_size):
            batch = task.sample(min(batch_size, memories - done), generator).to(where)
            memory = model.write(batch.patterns)
            told = {"clamp": batch.intact} if clamp else {}
            recalled = model.read(batch.queries, memory, **told)
            if recalled.isnan().any():
                raise ValueError("read returned NaN; in an EBMM, smaller write or read rates may help")
            per_memory.append(errors(recalled, batch.patterns, task.metric).mean(1).cpu())
    error = torch.cat(per_memory).double()
    p5, p95 = torch.quantile(error, torch.tensor([0.05, 0.95], dtype=torch.double)).tolist()
    return {
        "memory_floats": memory_floats,
        "patterns": task.number,
        "corruption": getattr(task.corruption, "__name__", None) or repr(task.corruption),
        "clamped": clamp,
        "metric": task.metric,
        "mean": error.mean().item(),
        "p5": p5,
        "p95": p95,
        "memories": memories,
        "seed": seed,
        "device": describe_device(where),
        "versions": versions(),
    }
