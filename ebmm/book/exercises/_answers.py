"""Taking what was handed in apart, and trying a memory: what the judges of several chapters need."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ebmm.book.exercises.variant import order, variant_in_use
from ebmm.book.exercises.verdict import NotYet, need
from ebmm.experiments import ContractError
from ebmm.experiments.entries import write_and_read_apart
from ebmm.memory import Memory
from ebmm.tasks import Batch


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers, the same in every variant."""
    return torch.Generator().manual_seed(seed)


def varied(seed: int) -> torch.Generator:
    """A source of random numbers, another one in each variant."""
    return torch.Generator().manual_seed(seed + 1_000_003 * variant_in_use())


def parts(answer: Any, *names: str) -> list[Any]:
    """The parts of an answer that is a dict, in the order of their names."""
    wanted = ", ".join(map(repr, names))
    need(isinstance(answer, Mapping), f"Hand in a dict with the keys {wanted}; this is a {type(answer).__name__}.")
    missing = ", ".join(repr(name) for name in names if answer.get(name) is None)
    found = ", ".join(map(repr, answer))
    need(not missing, f"Nothing stands under {missing}; the keys are {wanted}. Found: {found or 'none'}.")
    return [answer[name] for name in names]


def number(value: Any, name: str) -> float:
    """One finite number, also from a tensor or array of one element; the name is what the reason calls it."""
    if isinstance(value, Tensor | np.ndarray) and math.prod(value.shape) == 1:
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
    """So many finite numbers, from a list, a tuple, a tensor or an array."""
    arrays = Tensor | np.ndarray
    right = isinstance(values, list | tuple | arrays) and (not isinstance(values, arrays) or values.ndim == 1)
    need(right and len(values) == count, f"{name} must be {count} numbers, in a list or tuple.")
    return [number(value, name) for value in values]


def whole(value: Any, name: str) -> int:
    """One whole number."""
    found = number(value, name)
    need(found == round(found), f"{name} is a count: it must be a whole number.")
    return round(found)


def choice(value: Any, letters: str, name: str) -> str:
    """One of the letters, by the order of the book."""
    chosen = value.strip(" ()").lower() if isinstance(value, str) else ""
    need(len(chosen) == 1 and chosen in letters, f"{name} must be one of the letters {', '.join(letters)}.")
    return order(name.strip('"'), letters, variant_in_use())[letters.index(chosen)]


def function(value: Any, name: str) -> Any:
    """Something that can be called."""
    need(callable(value), f"{name} must be a function; this is of type {type(value).__name__}.")
    return value


def functions(answer: Any, *names: str) -> list[Any]:
    """The parts of an answer that is a dict of functions, in the order of their names."""
    return [function(part, f'"{name}"') for name, part in zip(names, parts(answer, *names), strict=True)]


def tensor(value: Any, shape: tuple[int, ...], name: str) -> Tensor:
    """A tensor of finite numbers of this shape, from a tensor or an array."""
    value = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
    need(isinstance(value, Tensor), f"{name} must be a tensor; this is of type {type(value).__name__}.")
    need(value.shape == shape, f"{name} must have shape {tuple(shape)}; this has shape {tuple(value.shape)}.")
    need(not value.is_floating_point() or value.isfinite().all(), f"{name} holds NaN or infinite values.")
    taken: Tensor = value.detach().cpu()
    return taken


def tried(memory: Any, batch: Batch) -> tuple[Memory, Tensor]:
    """What a memory holds of the patterns of a batch, and what another copy of it reads from that alone."""
    try:
        if isinstance(memory, nn.Module):
            memory = copy.deepcopy(memory).cpu().float()
        written, read = write_and_read_apart(memory, batch)
    except ContractError as reason:
        raise NotYet(f"{str(reason)[0].upper()}{str(reason)[1:]}.") from reason
    return written, tensor(read, batch.queries.shape, "What read returns").float()
