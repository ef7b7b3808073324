"""Energies of vectors: Hopfield's, a perceptron, and a prediction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebmm.layers import MemoryLinear, MemorySymmetric


class QuadraticEnergy(nn.Module):
    """The continuous Hopfield energy, ``E(x) = −½ sᵀ M s + c/2 ‖s‖²`` with ``s = 2x − 1`` (chapters 2 and 3).

    M is symmetric and writable, d(d+1)/2 floats; c is a constant that keeps the energy from falling without end in
    directions that M does not store. One gradient step of writing on this energy, from M = 0, is Hebb's rule.

    Args:
        features, curvature: d, bits of a pattern, and c, at least 0.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> QuadraticEnergy(4, curvature=1.0)(torch.ones(3, 4)).tolist()
        [2.0, 2.0, 2.0]
    """

    writable = ("memory",)

    def __init__(self, features: int, curvature: float = 0.0):
        super().__init__()
        self.pattern_shape = (features,)
        self.curvature = curvature
        self.memory = MemorySymmetric(features)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        interaction: Tensor = (signs * self.memory(signs)).sum(-1)
        return -0.5 * interaction + 0.5 * self.curvature * signs.square().sum(-1)


class MLPEnergy(nn.Module):
    """A multilayer perceptron with a bounded head, ``E(x) = wᵀ tanh(A tanh([memory(s), static(s)]))`` (chapter 4).

    ``s = 2x − 1``. tanh throughout keeps the energy bounded and its gradient smooth.

    Args:
        features, hidden: d, size of a pattern, and width of the static layers.
        memory_features: outputs of the writable layer. The memory holds (d + 1) · memory_features floats.

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
        return torch.squeeze(self.head(torch.tanh(self.hidden(features))), -1)


class PredictiveEnergy(nn.Module):
    """How badly a symmetric matrix predicts the pattern: ``E(x) = ½‖M s − s − f(s, M s)‖²``, ``s = 2x − 1``.

    M is writable, d(d+1)/2 floats. The static network f, with one hidden layer, sees the pattern and its prediction,
    and starts as zero. With f = 0, writing is the delta rule and tends to the pseudo-inverse memory, and reading
    projects onto the span of the stored patterns. Meta-learning adds to it what a linear memory cannot do (chapter 4).
    This energy is ours, not the paper's. It is never negative.

    Args:
        features, hidden: d, size of a pattern, and width of the static network f.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> bool((PredictiveEnergy(64)(torch.rand(2, 5, 64)) >= 0).all())
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
        prediction: Tensor = self.memory(signs)
        correction: Tensor = self.head(torch.tanh(self.from_pattern(signs) + self.from_prediction(prediction)))
        return 0.5 * (prediction - signs - correction).square().sum(-1)
