"""The meta-step that all forms compute: sizes, start values and patterns, as plain NumPy arrays.

Three or so gradient steps write patterns into the memory layer of the gated RNN energy, a few more read corrupted
copies, and the loss is the squared distance of all read iterates. Every form computes it and its gradient in all
parameters, which have the names of :class:`ebmm.EBMM`'s without ``energy_network.``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]
ADAMW = {"lr": 1e-4, "weight_decay": 1e-6, "betas": (0.9, 0.99), "eps": 1e-8}
CLIP = 1.0  # largest norm of the gradient


class Size(NamedTuple):
    """Sizes of one problem."""

    memories: int
    patterns: int
    hidden: int
    features: int = 64
    memory_features: int = 32
    hops: int = 3
    writes: int = 3
    reads: int = 5


class Form(NamedTuple):
    """One way to compute the meta-step."""

    evaluate: Callable[[], tuple[float, Arrays]]
    """The loss and its gradient in every parameter."""
    step: Callable[[], float]
    """One update of the parameters by AdamW; the loss before it."""


SIZES = {
    "small": Size(memories=8, patterns=16, hidden=128),
    "medium": Size(memories=8, patterns=32, hidden=256),
    "paper": Size(memories=2, patterns=64, hidden=1024, features=128, memory_features=64, hops=5),
}
TINY = Size(memories=2, patterns=3, hidden=7, features=6, memory_features=3, hops=2, writes=2, reads=2)


def draw(size: Size, seed: int = 0) -> tuple[Arrays, np.ndarray, np.ndarray]:
    """Parameters, patterns (B, N, d) of bits and their copies with 15 % of bits flipped, in float64."""
    generator = np.random.default_rng(seed)

    def normal(*shape: int, mean: float = 0.0, scale: float = 0.1) -> np.ndarray:
        return mean + scale * generator.standard_normal(shape)

    d, memory, hidden = size.features, size.memory_features, size.hidden
    parameters = {
        "memory.weight": normal(memory, d, scale=d**-0.5),
        "memory.bias": normal(memory),
        "from_pattern.weight": normal(2 * hidden - memory, d, scale=d**-0.5),
        "from_pattern.bias": normal(2 * hidden - memory),
        "from_state.weight": normal(2 * hidden - memory, hidden, scale=hidden**-0.5),
        "head.weight": normal(1, hidden, scale=hidden**-0.5),
        "head.bias": normal(1),
        "raw_write_rates": normal(size.writes, 3, 1, mean=-3.0),
        "raw_read_rate": normal(mean=-1.0),
        "raw_read_rates": normal(size.reads - 1, mean=2.0),
        "raw_momentum": normal(size.reads - 1, mean=1.0),
    }
    patterns = generator.integers(0, 2, (size.memories, size.patterns, d)).astype(float)
    queries = np.where(generator.random(patterns.shape) < 0.15, 1 - patterns, patterns)
    return parameters, patterns, queries
