"""Energies of vectors: Hopfield's, a perceptron, a prediction, and the paper's gated recurrent network."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.layers import LayerNorm, MemoryLinear, MemorySymmetric


class QuadraticEnergy(nn.Module):
    """The continuous Hopfield energy, ``E(x) = −½ sᵀ M s + c/2 ‖s‖²`` with ``s = 2x − 1`` (chapters 2 and 3).

    M is symmetric and writable; c, the curvature, is a constant that keeps the energy from falling
    without end in directions that M does not store (inside the box it is bounded for any c).
    One gradient step of writing on this energy, from M = 0, is Hebb's rule.

    Args:
        features: d, bits of a pattern. The memory holds d(d+1)/2 floats.
        curvature: c, at least 0.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> energy = QuadraticEnergy(4, curvature=1.0)
        >>> energy(torch.ones(2, 3, 4))
        tensor([[2., 2., 2.],
                [2., 2., 2.]], grad_fn=<AddBackward0>)
    """

    writable = ("memory",)

    def __init__(self, features: int, curvature: float = 0.0):
        super().__init__()
        self.pattern_shape = (features,)
        self.curvature = curvature
        self.memory = MemorySymmetric(features)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        interaction = (signs * self.memory(signs)).sum(-1)
        return -0.5 * interaction + 0.5 * self.curvature * signs.square().sum(-1)


class MLPEnergy(nn.Module):
    """A multilayer perceptron with a bounded head, ``E(x) = wᵀ tanh(A tanh([memory(s), static(s)]))`` (chapter 4).

    ``s = 2x − 1``. The memory is one linear layer that reads the pattern, as in the paper's networks;
    the static layers are only meta-learned. tanh throughout keeps the energy bounded and its gradient smooth.

    Args:
        features: d, size of a pattern.
        memory_features: outputs of the writable layer. The memory holds (d + 1) · memory_features floats.
        hidden: width of the static layers.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> MLPEnergy(64, memory_features=32)(torch.rand(2, 5, 64)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)

    def __init__(self, features: int, memory_features: int, hidden: int = 128):
        super().__init__()
        self.pattern_shape = (features,)
        self.memory = MemoryLinear(features, memory_features)
        self.static = nn.Linear(features, hidden)
        self.hidden = nn.Linear(memory_features + hidden, hidden)
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        features = torch.tanh(torch.cat([self.memory(signs), self.static(signs)], -1))
        return self.head(torch.tanh(self.hidden(features))).squeeze(-1)


class PredictiveEnergy(nn.Module):
    """How badly a symmetric matrix predicts the pattern: ``E(x) = ½‖M s − s − f(s, M s)‖²``, ``s = 2x − 1``.

    M is writable and costs d(d+1)/2 floats, what a Hopfield network costs. The static network f, with one
    hidden layer, sees the pattern and its prediction, and starts as zero. With f = 0, writing is the
    delta rule and tends to the pseudo-inverse memory, and reading projects onto the span of the stored
    patterns. Meta-learning adds to it what a linear memory cannot do (chapter 4).
    This energy is ours, not the paper's. It is never negative.

    Args:
        features: d, size of a pattern.
        hidden: width of the static network f.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> energy = PredictiveEnergy(64)
        >>> bool((energy(torch.rand(2, 5, 64)) >= 0).all())
        True
    """

    writable = ("memory",)

    def __init__(self, features: int, hidden: int = 128):
        super().__init__()
        self.pattern_shape = (features,)
        self.memory = MemorySymmetric(features)
        self.from_pattern = nn.Linear(features, hidden)
        self.from_prediction = nn.Linear(features, hidden, bias=False)
        self.head = nn.Linear(hidden, features)
        for parameter in (self.from_prediction.weight, self.head.weight, self.head.bias):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        prediction = self.memory(signs)
        correction = self.head(torch.tanh(self.from_pattern(signs) + self.from_prediction(prediction)))
        return 0.5 * (prediction - signs - correction).square().sum(-1)


class GatedRNNEnergy(nn.Module):
    """The paper's energy for binary strings: a gated recurrent network over the pattern (appendix B).

    For each hop, with ``z = [s, state]`` and ``s = 2x − 1``: the candidate is
    ``c = tanh([memory(s), static(z)])``, the gate ``u = sigmoid(gate(z))`` and the new state
    ``u · c + (1 − u) · state``; the energy is a linear function of the last state. Hops refine the
    *gradient* together with the energy.

    What does not depend on the hop (the pattern's part of every layer) is computed once; the first
    hop, whose state is zero, needs no product with the state.

    Args:
        features: d, size of a pattern; the paper uses 128.
        memory_features: outputs of the writable layer, fewer than ``hidden``; the paper uses 64.
            The memory holds (d + 1) · memory_features floats, 8256 in the paper.
        hidden: size of the state; the paper uses 1024.
        hops: how many recurrent steps; the paper uses 5.
        normalise: apply layer normalisation to the state before the energy is read off.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> energy = GatedRNNEnergy(128, memory_features=64, hidden=256, hops=3)
        >>> sum(p.numel() for p in energy.memory.parameters())
        8256
    """

    writable = ("memory",)

    def __init__(self, features: int, memory_features: int, hidden: int = 256, hops: int = 3, normalise: bool = False):
        super().__init__()
        if memory_features >= hidden:
            raise ValueError(f"memory_features must be fewer than hidden, got {memory_features} and {hidden}")
        if hops < 1:
            raise ValueError(f"hops must be at least 1, got {hops}")
        self.pattern_shape = (features,)
        self.hops = hops
        self.memory = MemoryLinear(features, memory_features)
        self.from_pattern = nn.Linear(features, 2 * hidden - memory_features)
        self.from_state = nn.Linear(hidden, 2 * hidden - memory_features, bias=False)
        self.norm = LayerNorm(hidden) if normalise else nn.Identity()
        self.head = nn.Linear(hidden, 1)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        # One product gives [memory(s), static(s), gate(s)], the pattern's part of candidate and gate.
        hoisted = torch.cat([self.memory(signs), self.from_pattern(signs)], -1)
        candidate, gate = hoisted.chunk(2, -1)
        state = torch.sigmoid(gate) * torch.tanh(candidate)
        memory_features = hoisted.shape[-1] - self.from_state.out_features
        for _ in range(self.hops - 1):
            recurrent = F.pad(self.from_state(state), (memory_features, 0))
            candidate, gate = (hoisted + recurrent).chunk(2, -1)
            update = torch.sigmoid(gate)
            state = update * torch.tanh(candidate) + (1 - update) * state
        return self.head(self.norm(state)).squeeze(-1)
