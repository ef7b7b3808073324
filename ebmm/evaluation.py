"""How well a memory recalls: wrong bits or squared error, with percentiles over many memories."""

from __future__ import annotations

import copy
import json
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ebmm.memory import Memory
from ebmm.tasks import Batch, Task


def wrong_bits(x: Tensor, patterns: Tensor) -> Tensor:
    """How many elements lie on the wrong side of ½.

    Args:
        x: what was recalled, (..., N, *S), in [0, 1]; leading shape (B, N) for memories.
        patterns: what was stored, the same shape, of 0s and 1s.

    Returns:
        (B, N), a count in [0, d].

    Example:
        >>> wrong_bits(torch.tensor([[[0.9, 0.2, 0.6]]]), torch.tensor([[[1.0, 0.0, 0.0]]]))
        tensor([[1.]])
    """
    return ((x > 0.5) != (patterns > 0.5)).flatten(2).sum(-1).float()


def squared_error(x: Tensor, patterns: Tensor) -> Tensor:
    """Squared error summed over a pattern's elements, (B, N) for arguments of shape (B, N, *S)."""
    return (x - patterns).flatten(2).square().sum(-1)


METRICS = {"wrong bits": wrong_bits, "squared error": squared_error}


def errors(x: Tensor, patterns: Tensor, metric: str) -> Tensor:
    """Errors (B, N) of what was recalled, by the name of the metric."""
    if x.shape != patterns.shape:
        raise ValueError(f"read must return the shape of its query, {tuple(patterns.shape)}, got {tuple(x.shape)}")
    return METRICS[metric](x, patterns)


def pick_device(device: str = "auto") -> torch.device:
    """The device a name means; ``"auto"`` is CUDA where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or a torch device, got {device!r}") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} asks for CUDA, but torch {torch.__version__} finds none here")
    return where


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


class ContractError(ValueError):
    """An object is no memory, or more than what its ``write`` returns travels to its ``read``."""


def write_and_read_apart(memory: Any, batch: Batch, **told: Tensor) -> tuple[Memory, Tensor]:
    """Write and read a batch with copies of a memory, and make sure that what is written travels by itself.

    One copy writes; another one, which wrote nothing, must read the same from what was written, even when
    other patterns have been written in between.

    Args:
        memory: any object with ``write`` and ``read``; it stays as it is.
        batch: patterns and queries, where the memory's parameters are.
        told: given to ``read`` as well, such as ``clamp``.

    Returns:
        What was written, and what was read, of the queries' shape. Random numbers of the caller are not touched.

    Raises:
        ContractError: no such methods, a copy cannot be made, ``write`` returns no :class:`ebmm.Memory` of B
            memories, ``read`` returns no tensor of the queries' shape, or the copy reads something else.
    """
    if isinstance(memory, type) or not all(callable(getattr(memory, name, None)) for name in ("write", "read")):
        raise ContractError(
            "a memory is an object with the methods write and read: hand in the object, not its class and not a result"
        )
    try:
        writer, reader = copy.deepcopy(memory), copy.deepcopy(memory)
    except RuntimeError as error:
        raise ContractError(f"the memory cannot be copied; detach the tensors that it keeps ({error})") from error
    hidden = (
        "write kept something in the object: another copy of it, which wrote nothing, does not read the same from what "
        "write returned. A memory is what travels from writing to reading, and nothing else"
    )
    with torch.no_grad():
        written = writer.write(batch.patterns.clone())
        if not isinstance(written, Memory):
            raise ContractError(
                f"write must return an ebmm.Memory; this is of type {type(written).__name__}; "
                'wrap what is written, as in Memory({"name": tensor})'
            )
        if written.batch_size != len(batch.patterns):
            raise ContractError("the tensors that write returns must begin with B, the number of memories")
        with _same_noise():
            by_writer = writer.read(batch.queries.clone(), written, **told)
        writer.write(1 - batch.patterns)  # what copies share holds these now
        try:
            with _same_noise():
                read = reader.read(batch.queries.clone(), written, **told)
        except Exception as error:
            raise ContractError(hidden) from error
    for x in (by_writer, read):
        if not isinstance(x, Tensor) or x.shape != batch.queries.shape:
            found = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {type(x).__name__}"
            raise ContractError(f"read must return the shape of its query, {tuple(batch.queries.shape)}, not {found}")
    if not torch.allclose(read.float(), by_writer.float(), atol=1e-3, equal_nan=True):
        raise ContractError(hidden)
    return written, read


@contextmanager
def _same_noise() -> Iterator[None]:
    """The same random numbers of PyTorch each time; afterwards they go on as if nothing had been."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.default_generator.manual_seed(0)
        torch.cuda.manual_seed_all(0)
        yield


def describe_device(device: str | torch.device) -> str:
    """The name of a device as results files state it."""
    where = torch.device(device)
    return torch.cuda.get_device_name(where) if where.type == "cuda" else f"cpu ({platform.machine()})"


def versions() -> dict[str, str]:
    """Versions of what computes the results."""
    from ebmm import __version__

    return {"ebmm": __version__, "python": platform.python_version(), "torch": str(torch.__version__)}


def save_results(rows: list[dict], path: str | os.PathLike) -> None:
    """Write result rows as JSON; rows of the same experiment, model, clamping and training seed are replaced."""
    path = Path(path)
    old = load_results(path) if path.exists() else []

    def key(row):
        return row["experiment"], row["model"], row["clamped"], row.get("training", {}).get("seed", -1)

    new = {key(row): row for row in [*old, *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([new[k] for k in sorted(new)], indent=1) + "\n")


def load_results(path: str | os.PathLike) -> list[dict]:
    """Rows of a results file."""
    return json.loads(Path(path).read_text())
