"""What a memory is: the value that ``write`` returns, what every memory offers, and what all of them check.

Letters used throughout the package: B memories, N patterns, Q queries, K read steps,
T write steps, S the shape of one pattern, d its number of elements.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from numbers import Integral
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from ebmm.files import replacing


class Memory(Mapping[str, Tensor]):
    """A batch of B memories: named tensors that share a leading dimension B.

    A memory is a value: writing returns a new one and never changes the old one. What the tensors mean, the model
    knows that wrote them.

    Args:
        tensors: name to tensor, each of shape (B, ...), all on one device.

    Example:
        >>> memory = Memory({"weight": torch.zeros(3, 8, 8), "bias": torch.zeros(3, 8)})
        >>> len(memory), memory.batch_size, memory[1:].batch_size, memory["bias"].shape
        (2, 3, 2, torch.Size([3, 8]))
    """

    def __init__(self, tensors: Mapping[str, Tensor]):
        if not tensors:
            raise ValueError("a Memory needs at least one tensor, got an empty mapping")
        for name, tensor in tensors.items():
            if not all([isinstance(name, str), isinstance(tensor, Tensor)]):
                raise TypeError(f"a Memory maps names to tensors, got {name!r}: {type(tensor).__name__}")
        sizes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if any(len(size) == 0 for size in sizes.values()) or len({s[0] for s in sizes.values()}) > 1:
            raise ValueError(f"all tensors of a Memory share their leading dimension, got shapes {sizes}")
        self._tensors = dict(tensors)

    def __getitem__(self, key: Any) -> Any:
        """A tensor by its name, or a Memory of fewer memories by index, slice or index tensor."""
        if isinstance(key, str):
            return self._tensors[key]
        if isinstance(key, tuple):
            raise TypeError(f"a Memory is indexed over its leading dimension B only, got {key}")
        if isinstance(key, Integral) or (isinstance(key, Tensor) and key.dim() == 0):
            number = int(key)
            if not -self.batch_size <= number < self.batch_size:
                raise IndexError(f"memory {number} of a batch of {self.batch_size}")
            key = slice(number, number + 1 or None)
        return Memory({name: tensor[key] for name, tensor in self._tensors.items()})

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    # A mapping would compare its tensors with ==, which has no single answer.
    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(tensor.shape)}" for name, tensor in self._tensors.items())
        return f"Memory({shapes}, device={str(self.device)!r})"

    @property
    def batch_size(self) -> int:
        """How many memories, B."""
        return next(iter(self._tensors.values())).shape[0]

    @property
    def device(self) -> torch.device:
        """Where the tensors are."""
        return next(iter(self._tensors.values())).device

    def to(self, *args: Any, **kwargs: Any) -> Memory:
        """The same memory on another device or in another dtype; arguments as for ``Tensor.to``."""
        return Memory({name: tensor.to(*args, **kwargs) for name, tensor in self._tensors.items()})

    def detach(self) -> Memory:
        """The same memory without the graph of how it was written."""
        return Memory({name: tensor.detach() for name, tensor in self._tensors.items()})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the memory to a safetensors file, whole or not at all."""
        from safetensors.torch import save_file

        whole = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in self.items()}
        with replacing(path) as beside:
            save_file(whole, beside)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Memory:
        """Read a memory that ``save`` wrote; ValueError for a folder, or a file that it did not write."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if os.path.isdir(path):
            raise ValueError(f"{path} is a folder: name the file in it that Memory.save wrote")
        try:
            return cls(load_file(path, device=str(device)))
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{path} holds no memory as Memory.save writes it: {error}") from error


class AssociativeMemory(Protocol):
    """What every memory offers, whatever it is made of. Users inherit nothing: an object with these serves."""

    @property
    def memory_floats(self) -> int:
        """What one memory costs, in floats of 32 bits."""

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Patterns (B, N, *S) into B memories, new ones or those given, which stay as they are."""

    def read(self, query: Tensor, memory: Memory) -> Tensor:
        """What each query (B, Q, *S) recalls, (B, Q, *S)."""


class TrainableMemory(Protocol):
    """What :func:`ebmm.fit` needs of a memory, which is a ``torch.nn.Module`` as well."""

    def write(self, patterns: Tensor) -> Memory:
        """As of every memory."""

    def read(self, query: Tensor, memory: Memory, trajectory: Literal[True]) -> tuple[Tensor, Tensor]:
        """What is recalled, (B, Q, *S), and all K + 1 iterates, (K + 1, B, Q, *S), the query first."""


def check_memory(
    memory: Memory,
    shapes: Mapping[str, tuple[int | range, ...]],
    owner: str,
    like: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """The tensors of a memory that its owner wrote, refusing any other.

    ``shapes`` has the name of each tensor and its shape behind B, with a range where a size may vary; ``like`` has
    tensors of the dtype that each must have. Autocast mixes dtypes on purpose: under it, none is refused.
    """
    if not isinstance(memory, Memory):
        raise TypeError(f"{_wanted(owner, shapes)}, got {type(memory).__name__}")
    if memory.keys() != shapes.keys() or not all(_fits(memory[name].shape[1:], shapes[name]) for name in memory):
        raise ValueError(f"{_wanted(owner, shapes)}, got {memory}")
    for name, tensor in (like or {}).items():
        if memory[name].dtype != tensor.dtype and not torch.is_autocast_enabled(tensor.device.type):
            way_out = f"got {memory[name].dtype}: take memory.to({tensor.dtype})"
            raise TypeError(f"{_wanted(owner, shapes)}, in {tensor.dtype}, {way_out}")
    return dict(memory)


def _wanted(owner: str, shapes: Mapping[str, tuple[int | range, ...]]) -> str:
    sizes = {name: [f"up to {n.stop - 1}" if isinstance(n, range) else str(n) for n in s] for name, s in shapes.items()}
    want = ", ".join(f"{name}: ({', '.join(['B', *size])})" for name, size in sizes.items())
    return f"{owner} reads a Memory with {want}, as its write returns it"


def _fits(found: tuple[int, ...], shape: tuple[int | range, ...]) -> bool:
    sizes = [size if isinstance(size, range) else (size,) for size in shape]
    return len(found) == len(sizes) and all(one in size for one, size in zip(found, sizes, strict=True))


def floats_held(memory: Mapping[str, Tensor]) -> float:
    """How many floats of 32 bits one memory of a batch takes; a symmetric matrix counts each number once.

    Example:
        >>> weight, bias = torch.eye(8).expand(3, 8, 8), torch.zeros(3, 8)
        >>> floats_held(Memory({"weight": weight, "bias": bias}))
        44.0
    """
    held = 0.0
    for tensor in memory.values():
        size = tensor.shape[-1]
        symmetric = tensor.dim() == 3 and tensor.shape[1] == size and torch.equal(tensor, tensor.mT)
        numbers = size * (size + 1) // 2 if symmetric else tensor[0].numel()
        held += numbers * tensor.element_size() / 4
    return held


def check_points(
    x: Tensor,
    shape: tuple[int, ...] | None,
    name: str,
    low: float | None = None,
    high: float | None = None,
    like: Tensor | None = None,
    batch: int | None = None,
) -> None:
    """Refuse what cannot be patterns or queries: they are (B, N, *shape), floating point, finite, not empty.

    Args:
        x, shape: to be checked, and the pattern shape S; ``None`` accepts any.
        name: what to call ``x`` in messages, such as ``"patterns"``.
        low, high: the box that values must lie in; ``None`` for no bound.
        like, batch: a tensor whose dtype and device ``x`` must have, and how many memories it must address.
    """
    want = f"(B, N, {', '.join(map(str, shape or ['*S']))})"
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} must be a torch tensor of shape {want}, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(f"{name} must be floating point, got {x.dtype}: convert with {name}.float()")
    if x.dim() < 3 or (shape is not None and tuple(x.shape[2:]) != tuple(shape)):
        raise ValueError(f"{name} must have shape {want}, got {tuple(x.shape)}")
    if x.numel() == 0:
        raise ValueError(f"{name} must not be empty, got shape {tuple(x.shape)}")
    if like is not None and x.dtype != like.dtype:
        way_out = f"take {name}.to({like.dtype}) or model.to({x.dtype})"
        raise TypeError(f"{name} must be {like.dtype} like the model, got {x.dtype}: {way_out}")
    if like is not None and x.device != like.device:
        raise ValueError(f"{name} must be on {like.device} like the model, got {x.device}")
    if batch is not None and x.shape[0] != batch:
        raise ValueError(f"{name} addresses {x.shape[0]} memories (its leading dimension), the memory holds {batch}")
    lowest, highest = (v.item() for v in torch.aminmax(x.detach()))
    if not (lowest > float("-inf") and highest < float("inf")):
        raise ValueError(f"{name} must be finite, got NaN or infinite values")
    if (low is not None and lowest < low) or (high is not None and highest > high):
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got values from {lowest:g} to {highest:g}")


def check_counts(**counts: object) -> None:
    """Refuse sizes and numbers of steps that are not whole numbers of at least 1."""
    for name, count in counts.items():
        if not isinstance(count, Integral):
            raise TypeError(f"{name} must be a whole number, got {count!r}")
        if int(count) < 1:
            raise ValueError(f"{name} must be at least 1, got {count}")


def as_pattern_shape(size: int | tuple[int, ...], name: str) -> tuple[int, ...]:
    """The shape S of a pattern, given as such or as its size d."""
    shape: tuple[Any, ...] = tuple(size) if size and isinstance(size, tuple | list) else (size,)
    for one in shape:
        check_counts(**{name: one})
    return tuple(map(int, shape))
