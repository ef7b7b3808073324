"""A memory of one's own in an experiment: what it must keep to, and its row."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ebmm.evaluation import evaluate, moved
from ebmm.experiments.catalogue import find
from ebmm.experiments.results import data_of
from ebmm.given import kind
from ebmm.machine import dtype_for
from ebmm.memory import AssociativeMemory, Memory, floats_held
from ebmm.tasks import Batch


def enter(
    name: str, label: str, model: AssociativeMemory, *, memories: int = 1000, seed: int = 1, clamp: bool = False
) -> dict[str, Any]:
    """Evaluate a memory of your own in an experiment, and return its row for the tables of the others.

    Args:
        label: what the memory is called in tables, none of the contestants' names.
        model: trained or not, at most as large as the largest contestant. Copies of it write and read.
        memories, seed, clamp: as for :func:`ebmm.evaluate`; the defaults ask what the shipped rows were asked.

    Raises:
        ContractError: more than what ``write`` returns travels to ``read``. ValueError: a contestant's name as label,
            or more floats than the experiment or ``memory_floats`` allows.

    Example:
        >>> from ebmm import DenseMemory
        >>> memory = DenseMemory(64, 32, full="overwrite")
        >>> row = enter("redrawn-64-48", "a list", memory, memories=10)
        >>> row["model"], row["memory_floats"], row["mean"] < 16
        ('a list', 2048, True)

    Explained on the page "Use it".
    """
    experiment, contestants = find(name)
    task = experiment.tested
    if label in contestants:
        raise ValueError(f"{label!r} is the name of a contestant of {name}: choose another one")
    with torch.random.fork_rng(devices=[]):
        built: list[Any] = [contestant.build() for contestant in experiment.contestants.values()]
    most = max(contestant.memory_floats for contestant in built)
    if model.memory_floats > most:
        raise ValueError(f"{label!r} holds {model.memory_floats} floats, and {name} allows {most}")
    batch = task.sample(1, torch.Generator().manual_seed(seed)).to(moved(model), dtype_for(model))
    written, _ = write_and_read_apart(model, batch, **({"clamp": batch.intact} if clamp else {}))
    held = floats_held(written)
    if held > model.memory_floats:
        said = f"the memory_floats of {label!r} are {model.memory_floats}"
        raise ValueError(f"{said}, but what write returns holds {held:g}: {written}")
    row = evaluate(copy.deepcopy(model), task, memories, seed=seed, clamp=clamp)
    return {"experiment": name, "model": label, **row, "data": data_of(task)}


class ContractError(ValueError):
    """An object does not write and read as a memory does."""


def write_and_read_apart(model: Any, batch: Batch, **told: Tensor) -> tuple[Memory, Tensor]:
    """What copies of a model write and read of a batch; ContractError unless what is written travels by itself.

    One copy writes; another one, which wrote nothing, must read the same from what was written, even when
    other patterns have been written in between. What ``told`` holds is given to ``read`` as well.
    """
    if isinstance(model, type) or not all(callable(getattr(model, name, None)) for name in ("write", "read")):
        raise ContractError(
            "a memory is an object with the methods write and read: hand in the object, not its class and not a result"
        )
    try:
        writer, reader = copy.deepcopy(model), copy.deepcopy(model)
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
                f"write must return an ebmm.Memory; this is of type {kind(written)}; "
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
            found = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else f"type {kind(x)}"
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
