"""More than fits at once: memories that lie on disk, and queries that are read in parts."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ebmm.given import kind, whole
from ebmm.machine import dtype_for
from ebmm.memory import AssociativeMemory, Memory


class MemoryBank:
    """Many memories in a folder, a NumPy file for each of their tensors, mapped: only those asked for are read.

    ``bank[3]``, ``bank[10:20]`` and ``bank[[7, 70_000]]`` are a :class:`ebmm.Memory`; ``bank[10:20] = memory`` keeps
    ten. What is kept is on disk when the bank is gone. Two processes may read, and write different memories.

    Args:
        folder: one that :meth:`create` made.

    Raises:
        FileNotFoundError: nothing of a bank lies there. IndexError: a memory beyond the last one.

    Example:
        >>> import tempfile
        >>> from ebmm import EBMM, energies
        >>> model = EBMM(energies.PredictiveEnergy(16))
        >>> with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        ...     bank = MemoryBank.create(folder, model.initial_memory(), number=100_000)
        ...     bank[70_000:70_002] = model.write(torch.ones(2, 3, 16))
        ...     recalled = model.read(torch.ones(2, 5, 16), bank[[70_001, 70_000]])
        >>> len(bank), recalled.shape
        (100000, torch.Size([2, 5, 16]))
    """

    def __init__(self, folder: str | os.PathLike[str]):
        files = sorted(Path(folder).glob("*.npy"))
        if not files:
            raise FileNotFoundError(f"no bank of memories lies in {folder}: MemoryBank.create makes one")
        self._maps = {
            file.name.removesuffix(".npy"): np.load(file, mmap_mode="r+" if os.access(file, os.W_OK) else "r")
            for file in files
        }
        if len({len(held) for held in self._maps.values()}) > 1:
            shapes = {name: held.shape for name, held in self._maps.items()}
            raise ValueError(f"all tensors of a bank hold as many memories, got {shapes}")

    @classmethod
    def create(cls, folder: str | os.PathLike[str], like: Memory, number: int) -> MemoryBank:
        """A bank for so many memories like this one, full of zeros, in a folder that is new or empty.

        A file system that knows holes takes up room for what is written only. FileExistsError where files lie already;
        TypeError for tensors that NumPy does not know, such as bfloat16.
        """
        folder, number = Path(folder), whole(number, "number")
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError(f"{folder} is not empty: a bank needs a folder of its own")
        kept = {name: tensor[:0].detach().cpu().numpy() for name, tensor in like.items()}
        for name, tensor in kept.items():
            path = folder / f"{name}.npy"
            if path.parent != folder:
                raise ValueError(f"a bank names files after tensors, got the name {name!r}")
            np.lib.format.open_memmap(path, "w+", tensor.dtype, (number, *tensor.shape[1:]))
        return cls(folder)

    def __len__(self) -> int:
        return len(next(iter(self._maps.values())))

    def __getitem__(self, key: Any) -> Memory:
        at = self._index(key)
        return Memory({name: torch.from_numpy(np.array(held[at])) for name, held in self._maps.items()})

    def __setitem__(self, key: Any, memory: Memory) -> None:
        at, names = self._index(key), set(self._maps)
        if set(memory) != names:
            raise ValueError(f"this bank keeps {sorted(names)}, got {sorted(memory)}")
        for name, held in self._maps.items():
            shape, given = held[at].shape, tuple(memory[name].shape)
            if given != shape:
                raise ValueError(f"{name} must be {shape}, got {given}")
            held[at] = memory[name].detach().cpu().numpy()

    def _index(self, key: Any) -> slice | np.ndarray:
        """As NumPy takes it, the leading dimension kept."""
        if isinstance(key, slice):
            return key
        places = np.atleast_1d(np.asarray(key))
        if places.dtype.kind not in "iu" or places.ndim != 1:
            raise TypeError(f"a bank is indexed by a whole number, a slice, or a list of whole numbers, got {key!r}")
        return places


def read_in_parts(
    model: AssociativeMemory, queries: Tensor | np.ndarray, memory: Memory, at_once: int = 1000
) -> Iterator[Tensor]:
    """What many queries recall, part by part, so that no more than one part's room is needed.

    Nothing is recorded for gradients. Each part is brought to the dtype of the model and to where the memory is.

    Args:
        queries: (B, Q, *S); a mapped NumPy array need not fit into memory.
        memory: B memories.
        at_once: queries of each memory in a part.

    Yields:
        (B, q, *S) with ``q = at_once``, fewer in the last part.

    Example:
        >>> from ebmm import DenseMemory
        >>> model = DenseMemory(8, capacity=3)
        >>> memory = model.write(torch.eye(8)[None, :3])
        >>> parts = read_in_parts(model, torch.rand(1, 2500, 8), memory)
        >>> [part.shape[1] for part in parts]
        [1000, 1000, 500]
    """
    at_once = whole(at_once, "at_once")
    if not isinstance(queries, Tensor | np.ndarray):
        raise TypeError(f"queries must be a tensor or a NumPy array, got {kind(queries)}")
    for start in range(0, queries.shape[1], at_once):
        part = queries[:, start : start + at_once]
        part = part if isinstance(part, Tensor) else torch.from_numpy(np.array(part))
        with torch.no_grad():
            recalled = model.read(part.to(memory.device, dtype_for(model) or torch.float32), memory)
        yield recalled
