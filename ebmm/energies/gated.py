"""The gated hops of the paper's energies (appendix B), and the energy for binary strings that is made of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.layers import MemoryLinear
from ebmm.memory import check_counts


def gated_hops(from_input: Tensor, from_state: Callable[[Tensor], Tensor], hops: int, dim: int) -> Tensor:
    """The last state of ``state ← u · c + (1 − u) · state``, from the state 0.

    ``c = tanh(a)`` is the candidate and ``u = sigmoid(b)`` the gate, ``[a, b] = from_input + from_state(state)``,
    side by side in dimension ``dim``. The first hop needs no product with the state.
    """
    candidate, gate = from_input.chunk(2, dim)
    state = torch.sigmoid(gate) * torch.tanh(candidate)
    for _ in range(hops - 1):
        candidate, gate = (from_input + from_state(state)).chunk(2, dim)
        update = torch.sigmoid(gate)
        state = update * torch.tanh(candidate) + (1 - update) * state
    return state


def check_memory_features(memory_features: int, limit: int, name: str) -> None:
    """Refuse a memory layer that leaves the static one beside it no outputs."""
    if not 1 <= memory_features < limit:
        raise ValueError(f"memory_features must be at least 1 and fewer than {name}, got {memory_features} and {limit}")


class GatedHops(nn.Module):
    """:func:`gated_hops` on vectors (M, features) or maps (M, channels, H, W), with a normalisation of the state.

    ``from_input`` and ``from_state`` give the parts of candidate and gate, (M, 2 · width, ...) each; ``norm`` is
    applied to each state before it is read, the last one included.
    """

    def __init__(self, from_input: nn.Module, from_state: nn.Module, norm: nn.Module, hops: int):
        super().__init__()
        check_counts(hops=hops)
        self.from_input, self.from_state, self.norm, self.hops = from_input, from_state, norm, hops

    def forward(self, x: Tensor) -> Tensor:
        state = gated_hops(self.from_input(x), lambda state: self.from_state(self.norm(state)), self.hops, dim=1)
        return self.norm(state)


class GatedRNNEnergy(nn.Module):
    """The paper's energy for binary strings: a gated recurrent network over the pattern (appendix B).

    The hops of :func:`gated_hops` read ``z = [s, state]`` with ``s = 2x − 1``: the candidate is
    ``tanh([memory(s), static(z)])``, the gate ``sigmoid(gate(z))``; the energy is a linear function of the last
    state. Hops refine the *gradient* together with the energy.

    Args:
        features: d, size of a pattern; the paper uses 128.
        memory_features: outputs of the writable layer, fewer than ``hidden``; d + 1 floats each; the paper uses 64.
        hidden, hops: size of the state and number of steps; the paper uses 1024 and 5.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> GatedRNNEnergy(128, memory_features=64)(torch.rand(2, 5, 128)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)

    def __init__(self, features: int, memory_features: int, hidden: int = 256, hops: int = 3):
        super().__init__()
        check_memory_features(memory_features, hidden, "hidden")
        check_counts(hops=hops)
        self.pattern_shape = (features,)
        self.memory_features, self.hops = memory_features, hops
        self.memory = MemoryLinear(features, memory_features)
        self.from_pattern = nn.Linear(features, 2 * hidden - memory_features)
        self.from_state = nn.Linear(hidden, 2 * hidden - memory_features, bias=False)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        # One product gives [memory(s), static(s), gate(s)]; the memory reads no state.
        hoisted = torch.cat([self.memory(signs), self.from_pattern(signs)], -1)

        def from_state(state: Tensor) -> Tensor:
            return F.pad(self.from_state(state), (self.memory_features, 0))

        return self.head(gated_hops(hoisted, from_state, self.hops, dim=-1)).squeeze(-1)
