"""Taking what was handed in apart, and trying a memory: what the judges of several chapters need."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from ebmm.exercises.verdict import NotYet, need
from ebmm.memory import Memory
from ebmm.tasks import Batch

HIDDEN = (
    "Write kept something in the object: another copy of it, which wrote nothing, does not read the same from what "
    "write returned. A memory is what travels from writing to reading, and nothing else."
)


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers."""
    return torch.Generator().manual_seed(seed)


def parts(answer: Any, *names: str) -> list:
    """The parts of an answer that is a dict, in the order of their names."""
    wanted = ", ".join(map(repr, names))
    need(isinstance(answer, Mapping), f"Hand in a dict with the keys {wanted}; this is a {type(answer).__name__}.")
    missing = ", ".join(repr(name) for name in names if answer.get(name) is None)
    found = ", ".join(map(repr, answer))
    need(not missing, f"Nothing stands under {missing}; the keys are {wanted}. Found: {found or 'none'}.")
    return [answer[name] for name in names]


def number(value: Any, name: str) -> float:
    """One finite number, also from a tensor of one element; the name is what the reason calls it."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    need(
        isinstance(value, Real) and not isinstance(value, bool),
        f"{name} must be a number; this is of type {type(value).__name__}.",
    )
    need(math.isfinite(value), f"{name} must be finite.")
    return float(value)


def avoid(given: float, *mistakes: tuple[float, str]) -> None:
    """Tell what leads to a wrong number, where that is what was given."""
    for wrong, mistake in mistakes:
        need(not math.isclose(given, wrong, rel_tol=1e-3, abs_tol=1e-9), mistake)


def numbers(values: Any, count: int, name: str) -> list[float]:
    """So many finite numbers, from a list, a tuple or a tensor."""
    right = isinstance(values, list | tuple | Tensor) and (not isinstance(values, Tensor) or values.dim() == 1)
    need(right and len(values) == count, f"{name} must be {count} numbers, in a list or tuple.")
    return [number(value, name) for value in values]


def whole(value: Any, name: str) -> int:
    """One whole number."""
    found = number(value, name)
    need(found == round(found), f"{name} is a count: it must be a whole number.")
    return round(found)


def choice(value: Any, letters: str, name: str) -> str:
    """One of the letters."""
    chosen = value.strip(" ()").lower() if isinstance(value, str) else ""
    need(len(chosen) == 1 and chosen in letters, f"{name} must be one of the letters {', '.join(letters)}.")
    return chosen


def function(value: Any, name: str) -> Any:
    """Something that can be called."""
    need(callable(value), f"{name} must be a function; this is of type {type(value).__name__}.")
    return value


def tensor(value: Any, shape: tuple[int, ...], name: str) -> Tensor:
    """A tensor of finite numbers of this shape."""
    need(isinstance(value, Tensor), f"{name} must be a tensor; this is of type {type(value).__name__}.")
    need(value.shape == shape, f"{name} must have shape {tuple(shape)}; this has shape {tuple(value.shape)}.")
    need(not value.is_floating_point() or value.isfinite().all(), f"{name} holds NaN or infinite values.")
    return value.detach()


def tried(memory: Any, batch: Batch) -> tuple[Memory, Tensor]:
    """What a memory holds of the patterns of a batch, and what another copy of it reads from that alone."""
    need(
        all(callable(getattr(memory, name, None)) for name in ("write", "read")) and not isinstance(memory, type),
        "A memory is an object with the methods write and read: hand in the object, not its class and not a result.",
    )
    writer, reader = copy.deepcopy(memory), copy.deepcopy(memory)
    with torch.no_grad():
        written = writer.write(batch.patterns.clone())
        need(isinstance(written, Memory), f"write must return an ebmm.Memory; this is a {type(written).__name__}.")
        need(
            written.batch_size == len(batch.patterns),
            "The tensors that write returns must begin with B, the number of memories.",
        )
        torch.manual_seed(0)
        by_writer = writer.read(batch.queries.clone(), written)
        torch.manual_seed(0)
        try:
            read = reader.read(batch.queries.clone(), written)
        except Exception as error:
            raise NotYet(HIDDEN) from error
    tensor(by_writer, batch.queries.shape, "What read returns")
    read = tensor(read, batch.queries.shape, "What read returns")
    need(torch.allclose(read.float(), by_writer.float(), atol=1e-3), HIDDEN)
    return written, read.float()
