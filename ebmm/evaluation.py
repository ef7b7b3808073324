"""How well a memory recalls: wrong bits or squared error, with percentiles over many memories."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from ebmm.given import kind, name_of, warned_of_global_draws, whole
from ebmm.machine import describe_device, dtype_for, pick_device, versions
from ebmm.memory import AssociativeMemory, Memory
from ebmm.metrics import errors
from ebmm.tasks import Batch, Task, check_task


def evaluate(
    model: AssociativeMemory,
    task: Task,
    memories: int = 1000,
    *,
    seed: int = 0,
    batch_size: int = 50,
    device: str | None = None,
    clamp: bool = False,
) -> dict[str, Any]:
    """Write and read many fresh memories; mean error and its 5th and 95th percentiles over memories.

    Args:
        model: any object with ``write``, ``read`` and ``memory_floats``. A module is evaluated without dropout and
            left in the mode it had; it is given patterns of its own dtype.
        memories: how many, each with ``task.number`` patterns of its own; ``batch_size`` of them at once.
        seed: of the task's generator, and of PyTorch's while a memory draws from it; that is left as it was.
        device: as for :func:`ebmm.fit`; a module is moved there. ``None``: where its parameters are.
        clamp: tell the memory which elements are intact (Hopfield networks only).

    Returns:
        A dict: memory_floats, patterns, corruption, clamped, metric, mean, p5, p95, memories, seed,
        device, versions. A memory's error is the mean over its patterns. It does not depend on ``batch_size``.

    Raises:
        ValueError: a read that returns NaN, infinity or another shape than its query's.

    Example:
        >>> from ebmm import Hopfield, tasks
        >>> task = Task(tasks.RandomBits(32), tasks.FlipBits(0.1), number=2)
        >>> evaluate(Hopfield(32), task, memories=4)["metric"]
        'wrong bits'
    """
    check_task(task)
    if isinstance(model, type):
        raise TypeError(f"model must be a memory, got {kind(model)}: make one, such as Hopfield(64)")
    if clamp and not _is_told(model):
        raise TypeError(
            f"only Hopfield networks are told which elements are intact, got {kind(model)}: leave out clamp"
        )
    seed = whole(seed, "seed", -math.inf)
    memories, batch_size = whole(memories, "memories"), whole(batch_size, "batch_size")
    where = moved(model, device)
    memory_floats = model.memory_floats
    generator = torch.Generator().manual_seed(seed)
    per_memory = []
    with _in_evaluation(model, where, seed):
        for done in range(0, memories, batch_size):
            with nullcontext() if done else warned_of_global_draws():
                batch = task.sample(min(batch_size, memories - done), generator)
            patterns, queries, intact = batch.to(where, dtype_for(model))
            memory = model.write(patterns)
            recalled = model.read(queries, memory, **({"clamp": intact} if clamp else {}))
            if not recalled.isfinite().all():
                raise ValueError("read returned NaN or infinity; in an EBMM, smaller write or read rates may help")
            # Against the patterns as drawn: differences in 16 bits would be rounded.
            per_memory.append(errors(recalled, batch.patterns.to(where), task.metric).mean(1).cpu())
    error = torch.cat(per_memory).double()
    p5, p95 = torch.quantile(error, torch.tensor([0.05, 0.95], dtype=torch.double)).tolist()
    return {
        "memory_floats": memory_floats,
        "patterns": task.number,
        "corruption": name_of(task.corruption),
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


def compare(model: Any, batch: Batch, metric: str) -> dict[str, float]:
    """Mean errors of what queries read from their own memory, from another's, and from an empty one.

    Another's is one of the batch's other memories, where there are several; an empty one is read where a model has
    ``initial_memory``, as an EBMM has. Patterns and queries are on the model's device.

    Example:
        >>> from ebmm import EBMM, energies, tasks
        >>> task = Task(tasks.RandomBits(32), tasks.FlipBits(0.1), number=2)
        >>> model = EBMM(energies.HopEnergy(32), **energies.HopEnergy.settings)
        >>> batch = task.sample(8, torch.Generator().manual_seed(0))
        >>> errors = compare(model, batch, task.metric)
        >>> errors["own"] < 0.5 < errors["empty"] < errors["another's"]
        True
    """
    with torch.no_grad():
        memory = model.write(batch.patterns)
        memories = {"own": memory}
        number = len(batch.patterns)
        if number > 1 and isinstance(memory, Memory):
            memories["another's"] = memory[torch.arange(number).roll(1)]
        empty = getattr(model, "initial_memory", None)
        if empty is not None:
            memories["empty"] = empty(number)
        read = {name: model.read(batch.queries, held) for name, held in memories.items()}
    return {name: errors(x, batch.patterns, metric).mean().item() for name, x in read.items()}


def moved(model: AssociativeMemory, device: str | None = None) -> torch.device:
    """Where a model is, once a module is moved to the device named."""
    if isinstance(model, nn.Module):
        if device is not None:
            model.to(pick_device(device))
        return next((parameter.device for parameter in model.parameters()), pick_device(device or "cpu"))
    if device not in (None, "auto", "cpu"):
        raise TypeError(f"{kind(model)} is no module and cannot be moved to {device!r}: leave out device")
    return torch.device("cpu")


def _is_told(model: AssociativeMemory) -> bool:
    """Whether ``read`` takes ``clamp``."""
    taken = inspect.signature(model.read).parameters.values()
    return any(parameter.name == "clamp" or parameter.kind == parameter.VAR_KEYWORD for parameter in taken)


@contextmanager
def _in_evaluation(model: AssociativeMemory, where: torch.device, seed: int) -> Iterator[None]:
    """Nothing recorded, no dropout, no autocast, random numbers of its own; afterwards all is as it was."""
    modules = {module: module.training for module in model.modules()} if isinstance(model, nn.Module) else {}
    gpus = [where] if where.type == "cuda" else []
    unrounded = torch.autocast(where.type, enabled=False)
    with torch.inference_mode(False), torch.no_grad(), unrounded, torch.random.fork_rng(gpus):
        torch.manual_seed(seed)
        if isinstance(model, nn.Module):
            model.eval()
        try:
            yield
        finally:
            for module, training in modules.items():
                module.training = training
