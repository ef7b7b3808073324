"""What crosses from a student's process to the judge's: plain data, and numbers for what stays behind.

A message is JSON with the tensors beside it, as safetensors holds them. Reading one runs no code of the sender.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from numbers import Real
from typing import Any, BinaryIO

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ebmm import tasks
from ebmm.memory import Memory

METHODS = ("write", "read")  # of what stays behind: all that a judge calls, besides the thing itself
MOST_BYTES = 2**25  # of one message: what honest answers hold is a tenth of it
COLLECTIONS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
TASKS: dict[str, Any] = {
    name: kind for name, kind in vars(tasks).items() if is_dataclass(kind) and kind.__module__ == tasks.__name__
}


def pack(value: Any, keep: Callable[[Any], dict[str, Any]]) -> bytes:
    """A value as bytes. What is no data, such as a function, is given to ``keep``, which returns what to tell of it.

    Raises:
        ValueError: the value is nested too deeply, or larger than ``MOST_BYTES``.

    Example:
        >>> value = {"W": torch.eye(2), "f": abs}
        >>> content = pack(value, keep=lambda kept: {"name": kept.__name__})
        >>> unpack(content, kept=lambda told: told["name"])
        {'W': tensor([[1., 0.],
                [0., 1.]]), 'f': 'abs'}
    """
    tensors: dict[str, Tensor] = {}
    try:
        tree = json.dumps(_plain(value, tensors, keep)).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if len(tree) + sum(tensor.nbytes for tensor in tensors.values()) > MOST_BYTES:
        raise ValueError(f"it is larger than {MOST_BYTES // 2**20} megabytes")
    return len(tree).to_bytes(8, "big") + tree + safetensors.torch.save(tensors)


def unpack(content: bytes, kept: Callable[[dict[str, Any]], Any]) -> Any:
    """The value that was packed; ``kept`` makes of what was told of a thing that stayed behind what stands for it.

    Raises:
        ValueError: these bytes are none that ``pack`` makes.
    """
    try:
        end = 8 + int.from_bytes(content[:8], "big")
        return _value(json.loads(content[8:end]), safetensors.torch.load(content[end:]), kept)
    except Exception as error:  # whatever such bytes can lead to
        raise ValueError(f"what was handed over is no plain data ({type(error).__name__})") from error


def send(pipe: BinaryIO, content: bytes) -> None:
    """One message, after its length."""
    pipe.write(len(content).to_bytes(8, "big") + content)
    pipe.flush()


def receive(pipe: BinaryIO, most: int) -> bytes:
    """The next message; EOFError where the pipe ends, ValueError for more than ``most`` bytes."""
    length = int.from_bytes(_exactly(pipe, 8), "big")
    if length > most:
        raise ValueError(f"a message of {length} bytes, where at most {most} were awaited")
    return _exactly(pipe, length)


def _exactly(pipe: BinaryIO, length: int) -> bytes:
    content = pipe.read(length)
    if len(content) < length:
        raise EOFError
    return content


def _plain(value: Any, tensors: dict[str, Tensor], keep: Callable[[Any], dict[str, Any]]) -> Any:
    """The value as JSON; everything but None, truth values, numbers and texts is a dict that tells what it is."""

    def inner(one: Any) -> Any:
        return _plain(one, tensors, keep)

    def beside(tensor: Tensor) -> str:
        name = str(len(tensors))
        tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        return name

    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in "biuf":
        return {"array": beside(torch.from_numpy(np.array(value)))}
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Tensor):
        return {"tensor": beside(value)}
    if isinstance(value, Memory):
        return {"memory": {name: beside(held) for name, held in value.items()}}
    if isinstance(value, Mapping):
        return {"dict": [[inner(key), inner(one)] for key, one in value.items()]}
    for name, kind in COLLECTIONS.items():
        if isinstance(value, kind):
            return {name: [inner(one) for one in value]}
    if type(value) in TASKS.values():
        told = {field.name: inner(getattr(value, field.name)) for field in fields(value) if field.init}
        return {"task": type(value).__name__, "fields": told}
    return {"kept": keep(value)}


def _value(tree: Any, tensors: dict[str, Tensor], kept: Callable[[dict[str, Any]], Any]) -> Any:
    def inner(one: Any) -> Any:
        return _value(one, tensors, kept)

    if isinstance(tree, list):
        raise ValueError("a list without its kind")
    if not isinstance(tree, dict):
        return tree
    what, content = next(iter(tree.items()))
    if what == "tensor":
        return tensors[content]
    if what == "array":
        return tensors[content].numpy()[()]  # of one without dimensions, its number
    if what == "memory":
        return Memory({name: tensors[place] for name, place in content.items()})
    if what == "dict":
        return {inner(key): inner(one) for key, one in content}
    if what in COLLECTIONS:
        return COLLECTIONS[what](inner(one) for one in content)
    if what == "task":
        return TASKS[content](**{name: inner(one) for name, one in tree["fields"].items()})
    if what == "kept":
        return kept(content)
    raise ValueError(f"no such kind: {what!r}")
