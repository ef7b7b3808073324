"""Energy networks: modules that map patterns (B, N, *S) to one scalar each, (B, N).

Any ``torch.nn.Module`` of that kind is an energy for :class:`ebmm.EBMM`. Those here are built from
memory layers, so that all memories are computed in one batch. Each names its ``writable`` parameters
(the memory itself; everything else is static and only meta-learned) and its ``pattern_shape``. One that
is written by another loss than its energy says ``own_writing_loss = True`` and gives that loss for
``forward(x, writing=True)``.

Patterns lie in [0, 1]; every energy first maps them to the centred coordinates ``2x − 1`` of the
Hopfield network, in which a bit is ±1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.layers import LayerNorm, MemoryLinear, MemorySlots, MemorySymmetric


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


class DenseEnergy(nn.Module):
    """The dense associative memory, ``E(x) = −1/β · log Σᵢ exp(β mᵢᵀs) + ½‖s‖²`` with ``s = 2x − 1`` (chapter 2).

    From Krotov & Hopfield (2016) and Ramsauer et al. (2020). Its slots mᵢ are writable here, so it can be
    written by gradient steps; :class:`ebmm.DenseMemory` stores patterns in the slots verbatim instead.

    Args:
        features: d, size of a pattern.
        slots: how many slots. The memory holds slots · d floats.
        beta: inverse temperature, above 0.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> DenseEnergy(4, slots=3)(torch.rand(2, 5, 4)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)

    def __init__(self, features: int, slots: int, beta: float = 1.0):
        super().__init__()
        self.pattern_shape = (features,)
        self.beta = beta
        self.memory = MemoryLinear(features, slots, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        return -torch.logsumexp(self.beta * self.memory(signs), -1) / self.beta + 0.5 * signs.square().sum(-1)


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


class SignDecoder(nn.Module):
    """Finds the signs s that a linear code ``m = A s`` was made of, by a few damped descent steps.

    ``u = y + bₗ Aᵀ(m − A y)``, ``p ← aₗ u + cₗ p``, ``y = tanh(p)`` for l = 1 … L, from y = 0: descent on
    ‖m − A y‖², pushed towards ±1. The 3 L rates are learned, as in LISTA (Gregor & LeCun 2010). Random A
    with C rows can be undone in this way for C well above d/2, since s is one corner of the box [−1, 1]ᵈ.

    Args:
        steps: L, at least 1.

    Shape:
        code: (..., C). matrix: A, (C, d). returns: (..., d) in [−1, 1].

    Example:
        >>> matrix = torch.linalg.qr(torch.randn(64, 64))[0][:48]
        >>> s = torch.randn(100, 64).sign()
        >>> wrong = SignDecoder(10)(s @ matrix.T, matrix).sign() != s
        >>> bool(wrong.float().mean() < 0.01)
        True
    """

    def __init__(self, steps: int = 16):
        super().__init__()
        self.slope = nn.Parameter(torch.linspace(1.0, 2.0, steps))
        self.rate = nn.Parameter(torch.linspace(2.0, 1.1, steps))
        self.inertia = nn.Parameter(torch.linspace(0.7, 0.35, steps))

    def forward(self, code: Tensor, matrix: Tensor) -> Tensor:
        y = pulled = torch.zeros_like(code[..., :1]).expand(*code.shape[:-1], matrix.shape[1])
        for slope, rate, inertia in zip(self.slope, self.rate, self.inertia, strict=True):
            pulled = slope * (y + rate * (code - y @ matrix.T) @ matrix) + inertia * pulled
            y = torch.tanh(pulled)
        return y


class CompressedDenseEnergy(nn.Module):
    """A dense associative memory whose slots hold codes shorter than patterns (chapter 5).

    ``E(x) = ½(‖A s‖² + λ‖s‖²) − 1/β · log Σᵢ exp(β (mᵢᵀA s + λ D(mᵢ)ᵀs))`` with ``s = 2x − 1``: the pattern is
    compared with each slot both as a code and as what the code stands for. The slots mᵢ are writable; the
    encoder A and the decoder D are static. Reading descends towards the slot that agrees most.

    It has its own writing loss, ``½‖A s‖² − 1/β · log Σᵢ exp(β (mᵢᵀA s − ½‖mᵢ‖²))``, which is half the squared
    distance from the code to the nearest slot. One gradient step on it, at rate 1, puts the code into that slot.
    Patterns written one after the other find a slot each: for a new code, an empty slot at the origin is
    nearer than a slot that holds something else. Written all at once, several crowd into one.
    This energy is ours, not the paper's.

    Args:
        features: d, size of a pattern.
        slots: how many patterns there is room for. The memory holds slots · width floats.
        width: C, size of a code, at most d. Random bits can be recovered from it down to about d/2.
        decoder_steps: steps of the decoder D, a :class:`SignDecoder`.
        sharpness: β. High, so that writing chooses one slot even where two are almost as near.

    Shape:
        x: (..., d). returns: (...), the writing loss with ``writing=True``.

    Raises:
        ValueError: a code longer than a pattern.

    Example:
        >>> energy = CompressedDenseEnergy(128, slots=96, width=86)
        >>> energy(torch.rand(2, 5, 128)).shape, sum(p.numel() for p in energy.memory.parameters())
        (torch.Size([2, 5]), 8256)
    """

    writable = ("memory",)
    own_writing_loss = True

    def __init__(self, features: int, slots: int, width: int, decoder_steps: int = 16, sharpness: float = 1000.0):
        super().__init__()
        if width > features:
            raise ValueError(f"a code longer than its pattern saves nothing: width {width}, features {features}")
        self.pattern_shape = (features,)
        self.sharpness = sharpness
        self.encoder = nn.Linear(features, width, bias=False)
        nn.init.orthogonal_(self.encoder.weight)
        self.decoder = SignDecoder(decoder_steps)
        self.memory = MemorySlots(slots, width)
        self.raw_balance = nn.Parameter(torch.tensor(2.95))  # λ = softplus of it, 3 at the start

    def forward(self, x: Tensor, writing: bool = False) -> Tensor:
        signs, slots = 2 * x - 1, self.memory()
        code = self.encoder(signs)
        overlap, norm = code @ slots.mT, code.square().sum(-1)
        if writing:
            overlap = overlap - 0.5 * slots.square().sum(-1).unsqueeze(-2)
        else:
            balance = F.softplus(self.raw_balance)
            overlap = overlap + balance * signs @ self.decoder(slots, self.encoder.weight).mT
            norm = norm + balance * signs.square().sum(-1)
        return 0.5 * norm - torch.logsumexp(self.sharpness * overlap, -1) / self.sharpness


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
