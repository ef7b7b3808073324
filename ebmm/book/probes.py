"""Memories that judges give to the functions of an answer, to see what these do with them.

They stand apart from the judges, since a student's process has to know them and not the judges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebmm.memory import Memory


class Mean(nn.Module):
    """A memory of which one can tell what was written and what was asked.

    Example:
        >>> patterns, model = torch.rand(2, 5, 4), Mean()
        >>> torch.equal(model.write(patterns)["mean"], patterns.mean(1, keepdim=True))
        True
    """

    memory_floats = 1

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        return Memory({"mean": patterns.mean(1, keepdim=True)})

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False) -> Tensor:
        x = 0.3 * query + 0.7 * memory["mean"]
        return torch.stack([query, x]) if trajectory else x


class Kept(nn.Module):
    """A memory of two tensors whose every number is known.

    Example:
        >>> Kept().write(torch.rand(2, 5, 4))
        Memory(slots: (2, 50, 50), state: (2, 100), device='cpu')
    """

    memory_floats = 2600

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.slots, self.state = torch.linspace(-1, 1, 5000).view(2, 50, 50), torch.linspace(0, 9, 200).view(2, 100)

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        return Memory({"slots": self.slots, "state": self.state})

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False) -> Tensor:
        shifted: Tensor = query + memory["slots"].mean()
        return shifted
