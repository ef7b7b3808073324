"""What users give, taken as they mean it: data of all kinds as tensors, numbers of all kinds as float or int."""

from __future__ import annotations

import pickle
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor


def numbers(data: Any, must: str) -> Tensor:
    """A tensor, an array or a list of either as a tensor on the CPU, without a graph.

    Bytes stay bytes, and float64 tensors float64: they were made on purpose. All else becomes float32, float64
    arrays too, since arrays are float64 when nobody thinks of it.

    ``must`` begins the messages, such as ``"images must be"``: a TypeError for what holds no numbers, a ValueError
    for a list of things of several shapes.

    Example:
        >>> numbers(np.eye(2), "images must be").dtype
        torch.float32
    """
    if not isinstance(data, (Tensor, list)) and not hasattr(data, "__array__"):
        raise TypeError(f"{must} a tensor or an array of numbers, got {kind(data)}")
    if any(np.ma.is_masked(part) for part in (data if isinstance(data, list) else [data])):
        raise TypeError(f"{must} numbers throughout, got some that are masked: say what they are, as x.filled(0) does")
    try:
        if isinstance(data, list) and data and isinstance(data[0], Tensor):
            data = torch.stack(data)
        array = data if isinstance(data, Tensor) else np.asarray(data)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{must} a tensor or an array, got a {kind(data)} that makes none: {error}") from error
    if isinstance(array, np.ndarray):
        if array.dtype.kind not in "biuf":
            raise TypeError(f"{must} a tensor or an array of numbers, got {kind(data)} of {array.dtype}")
        array = array if array.dtype == np.uint8 else array.astype(np.float32, copy=False)
        array = torch.from_numpy(np.require(array, requirements=["C", "W"]))
    if array.is_complex() or array.layout != torch.strided:
        raise TypeError(f"{must} a tensor or an array of numbers, got a tensor of {array.dtype}, {array.layout}")
    kept = array.dtype in (torch.float32, torch.float64, torch.uint8)
    return array.detach().to("cpu", array.dtype if kept else torch.float32)


def real(value: Any, name: str, least: float | None = None, must: str = "a number") -> float:
    """A number of Python's, NumPy's or PyTorch's as a float; where there is a ``least``, it is no NaN."""
    if isinstance(value, bool) or not hasattr(value, "__float__") or getattr(value, "ndim", 0) > 0:
        raise TypeError(f"{name} must be {must}, got {value!r}")
    if least is not None and not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return float(value)


def whole(value: Any, name: str, least: float = 1) -> int:
    """A whole number as an int, given as any kind of number, 2.0 too."""
    if not real(value, name, least, "a whole number").is_integer():
        raise TypeError(f"{name} must be a whole number, got {value!r}")
    return int(value)


def check_shares(**given: float) -> None:
    """Refuse with a ValueError what does not lie in [0, 1]."""
    for name, value in given.items():
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must lie in [0, 1], got {value}")


def is_function(given: object) -> TypeGuard[Callable[..., Any]]:
    """Something to call; a class that somebody forgot to make an object of is none."""
    return callable(given) and not isinstance(given, type)


def kind(given: object) -> str:
    """What to call something in a message."""
    return f"the class {given.__name__}" if isinstance(given, type) else type(given).__name__


def name_of(function: object) -> str:
    """What to call a source or a corruption: a function by its name, an object as it shows itself."""
    return getattr(function, "__name__", None) or repr(function)


@contextmanager
def warned_of_global_draws() -> Iterator[None]:
    """Warns where what is done inside draws from a generator of PyTorch's, NumPy's or Python's that all share."""
    before = _global_states()
    yield
    if _global_states() != before:
        warnings.warn(
            "the task draws from a global generator: draw from the one given, or the same seed, and a run that goes "
            "on from a checkpoint, gives other numbers",
            stacklevel=4,
        )


def _global_states() -> bytes:
    return pickle.dumps((torch.get_rng_state().numpy(), np.random.get_state(), random.getstate()))  # noqa: NPY002
