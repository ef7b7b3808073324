"""The gated hops of the paper's energies (appendix B), and the energy for binary strings that is made of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ebmm.layers import MemoryLinear
from ebmm.memory import check_counts


def gated_hops(
    first: Tensor, following: Callable[[Tensor], Tensor], hops: int, dim: int, of_memory: Tensor | None = None
) -> Tensor:
    """The last state of ``state ← u · c + (1 − u) · state``, from the state 0.

    ``c = [of_memory, tanh(a)]`` is the candidate, in part the same at each hop, and ``u = sigmoid(b)`` the gate.
    ``[a, b]``, side by side in dimension ``dim``, is ``first`` at the first hop, and ``following(state)`` at others.
    """
    kept = 0 if of_memory is None else of_memory.shape[dim]
    width = (first.shape[dim] + kept) // 2

    def candidate_and_gate(parts: Tensor) -> tuple[Tensor, Tensor]:
        a, b = parts.split([width - kept, width], dim)
        candidate = torch.tanh(a) if of_memory is None else torch.cat([of_memory, torch.tanh(a)], dim)
        return candidate, torch.sigmoid(b)

    candidate, gate = candidate_and_gate(first)
    state = gate * candidate
    for _ in range(hops - 1):
        candidate, gate = candidate_and_gate(following(state))
        state = state + gate * (candidate - state)
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
        first = self.from_input(x)
        norm: Callable[[Tensor], Tensor] = self.norm
        return norm(gated_hops(first, lambda state: first + self.from_state(norm(state)), self.hops, dim=1))


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
        of_memory = torch.tanh(self.memory(signs)).reshape(-1, self.memory_features)  # it reads no state
        first = self.from_pattern(signs.reshape(-1, x.shape[-1]))  # one product gives [static(s), gate(s)]
        weight = self.from_state.weight.mT
        state = gated_hops(first, lambda state: torch.addmm(first, state, weight), self.hops, -1, of_memory)
        return torch.reshape(self.head(state), x.shape[:-1])
