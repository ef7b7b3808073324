"""Energies that remember before they are trained, and in which any network may take part (chapter 4)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.descent import inverse_softplus
from ebmm.given import kind
from ebmm.layers import MemorySymmetric, beside_points
from ebmm.memory import check_counts


def couplings(memory: MemorySymmetric, features: int) -> tuple[Tensor, Tensor]:
    """M = 2 W/√d of the written W, (..., d, d), and its diagonal beside the points.

    In this scale one write rate serves patterns of all sizes, where gradients are summed over patterns.
    """
    matrix = memory.matrix() * (2 / math.sqrt(features))
    return matrix, beside_points(matrix.diagonal(dim1=-2, dim2=-1))


def margin_misfit(signs: Tensor, from_others: Tensor, sharpness: Tensor) -> Tensor:
    """``Σᵢ ρ(1 − sᵢ hᵢ)``, ``ρ(y) = softplus(b y)/b``: how far each bit is from being predicted with margin 1."""
    return F.softplus(sharpness * (1 - signs * from_others)).sum(-1) / sharpness


def positive(start: float, *shape: int) -> nn.Parameter:
    """A parameter whose softplus starts as this value."""
    return nn.Parameter(torch.full(shape, inverse_softplus(start)))


class MarginEnergy(nn.Module):
    """How badly each bit is predicted by the others, plus any network: ``E(x) = a Σᵢ ρ(1 − sᵢ hᵢ) + wᵀ f(s, M s)``.

    ``s = 2x − 1``, ``ρ(y) = softplus(b y)/b``, and ``hᵢ = Σⱼ Mᵢⱼ sⱼ`` over j ≠ i. M is symmetric and writable, d(d+1)/2
    floats that start at 0. The first term is a classical memory: a step of writing on it is a perceptron step for each
    bit. w starts at 0, so that whatever f is, learning begins with a memory that works, and f reshapes its energy.

    Gradients are to be summed over patterns, ``EBMM(..., reduction="sum")``, for the sake of :func:`couplings`.
    This energy is ours, not the paper's.

    Args:
        features: d, size of a pattern.
        network: f, a module that maps s and M s, both (..., d), to (..., width), such as those of
            ``ebmm.experiments.networks``. ``None``: the classical memory alone.
        width: how many features f gives.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> from ebmm.experiments.networks import Perceptron
        >>> MarginEnergy(64, Perceptron(64, width=128), width=128)(torch.rand(2, 5, 64)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)

    def __init__(self, features: int, network: nn.Module | None = None, width: int = 0):
        super().__init__()
        if (network is None) != (width == 0):
            raise ValueError(f"a network and the width of its features go together, got {kind(network)} and {width}")
        self.pattern_shape = (features,)
        self.memory = MemorySymmetric(features)
        self.raw_weight, self.raw_sharpness = positive(1.0), positive(2.0)
        self.network, self.head = network, nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        matrix, diagonal = couplings(self.memory, self.pattern_shape[0])
        answer = signs @ matrix
        misfit = margin_misfit(signs, answer - diagonal * signs, F.softplus(self.raw_sharpness))
        energy = F.softplus(self.raw_weight) * misfit
        return energy if self.network is None else energy + self.network(signs, answer) @ self.head


class SharedNetwork(nn.Module):
    """A small odd network, the same for every bit: ``Σⱼ wⱼ gⱼ tanh(Aⱼ u)`` of its ``u = (s, v, M v, diag(M) v)``.

    The gains ``gⱼ = 1 + tanh(Gⱼ q)`` belong to the pattern as a whole: q are means over its bits,
    of v Mv, (Mv)², s v and s Mv, which tell how well it agrees with what the memory says. Knowing neither the places
    nor the number of the bits, the network serves patterns of any size.

    Args:
        hidden: number of its units.

    Shape:
        u: four of (..., d). returns: (..., d).

    Example:
        >>> SharedNetwork()(*torch.rand(4, 2, 64)).shape
        torch.Size([2, 64])
    """

    def __init__(self, hidden: int = 8):
        super().__init__()
        check_counts(hidden=hidden)
        self.first = nn.Parameter(0.5 * torch.randn(hidden, 4))
        self.gains = nn.Parameter(torch.zeros(hidden, 4))
        self.last = nn.Parameter(0.05 * torch.randn(hidden, 1))

    def forward(self, *u: Tensor) -> Tensor:
        signs, hop, answer, _ = u
        pairs = ((hop, answer), (answer, answer), (signs, hop), (signs, answer))
        means = torch.stack([(a * b).mean(-1) for a, b in pairs]).reshape(4, -1)
        gains: Tensor = 1 + torch.tanh(self.gains @ means)  # (hidden, M)
        units: Tensor = torch.tanh(self.first @ torch.stack(u).reshape(4, -1)).unflatten(1, (-1, signs.shape[-1]))
        return ((self.last * gains).unsqueeze(-1) * units).sum(0).view_as(signs)


class HopEnergy(nn.Module):
    """How badly a pattern agrees with what a symmetric memory M makes of it in several hops.

    ``E(x) = a₀ Σᵢ ρ(1 − sᵢ hᵢ) + Σₗ aₗ/2 ‖s − vˡ‖²``; s, M, ρ and h are those of :class:`MarginEnergy`. The hops are
    ``v⁰ = s`` and ``vˡ = φˡ(u)``, ``φˡ(u) = w₀ tanh(1.2 A₀ u) + network(u)`` of ``u = (s, v, M v, diag(M) v)``, v from
    the hop before. At the start the network is small and A₀ takes M v: a Hopfield network, which works.

    With networks that know no size, what is trained on patterns of one size serves others. This energy is ours, not
    the paper's. It is never negative.

    Args:
        features, hops: d, size of a pattern, and how often the memory is visited.
        network: makes a network for each hop, any module that maps these four, each (..., d), to (..., d).

    Attributes:
        settings: the arguments of :class:`ebmm.EBMM` with which it learns.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> from ebmm import EBMM
        >>> EBMM(HopEnergy(64), **HopEnergy.settings).memory_floats
        2080
        >>> HopEnergy(64)(torch.rand(2, 5, 64)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)
    settings: ClassVar[dict[str, Any]] = {
        "write_steps": 6, "read_steps": 8, "reduction": "sum", "projection": "straight-through",
        "non_increasing": False, "gradient_term": False, "decay_term": False, "write_rate": 0.08, "read_rate": 0.075,
    }  # fmt: skip

    def __init__(self, features: int, hops: int = 3, network: Callable[[], nn.Module] = SharedNetwork):
        super().__init__()
        check_counts(hops=hops)
        if isinstance(network, nn.Module):
            raise TypeError("network makes one for each hop: give a class or a function, not a module")
        self.pattern_shape = (features,)
        self.memory = MemorySymmetric(features)
        self.networks = nn.ModuleList(network() for _ in range(hops))
        self.skips = nn.Parameter(torch.tensor([0.0, 0.0, 1.0, 0.0]).repeat(hops, 1))
        self.bounds = nn.Parameter(torch.full((hops,), 1.2))  # w₀
        self.raw_weight, self.raw_weights = positive(1.0), positive(0.1, hops)  # a
        self.raw_sharpness = positive(2.0)  # b

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        matrix, diagonal = couplings(self.memory, self.pattern_shape[0])
        answer, kept = signs @ matrix, diagonal * signs
        misfit = margin_misfit(signs, answer - kept, F.softplus(self.raw_sharpness))
        energy, hop = F.softplus(self.raw_weight) * misfit, signs
        for network, skip, bound, weight in zip(
            self.networks, self.skips, self.bounds, F.softplus(self.raw_weights), strict=True
        ):
            seen = (signs, hop, answer, kept)
            skipped = torch.stack([share * part for share, part in zip(skip, seen, strict=True)]).sum(0)
            hop = bound * torch.tanh(1.2 * skipped) + network(*seen)
            energy = energy + 0.5 * weight * (signs - hop).square().sum(-1)
            answer, kept = hop @ matrix, diagonal * hop
        return energy
