"""The continuous dense associative memory, or modern Hopfield network (chapter 2)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.memory import Memory, as_pattern_shape, check_counts, check_memory, check_points

FULL = ("error", "overwrite")


class DenseMemory(nn.Module):
    """A continuous dense associative memory, or modern Hopfield network, that keeps its patterns whole.

    With the stored patterns as the rows of ``X``, the energy is ``E(s) = -lse(beta, X s) + 1/2 ||s||^2``,
    where ``lse(beta, z) = log(sum_n exp(beta z_n)) / beta``. One read step, ``s <- X^T softmax(beta X s)``,
    is one gradient step of size 1, and never raises the energy (Krotov and Hopfield 2016; Ramsauer and
    others 2020, equations 1 and 3). It is also attention with the patterns as keys and values (chapter 2).

    Args:
        dim, capacity: the size d of a pattern, or its shape S, and how many patterns one memory has room for.
        beta: inverse temperature, above 0: large, it returns the pattern of greatest overlap; small, a blend.
        centred: ``True``: patterns lie in the box [0, 1], and ``s`` in the formulas is ``2 x - 1``. Then
            bits, taken to signs, all have the same length: the greatest overlap is the nearest pattern.
            ``False``: ``s`` is ``x``, any real numbers, as in the papers; a long pattern can win over a nearer,
            shorter one.
        full: what becomes of more patterns than the capacity: ``"error"`` refuses them, ``"overwrite"`` keeps
            the last ones written, and the oldest give way.

    Example:
        >>> patterns = torch.tensor([[[1., 1, 1, 0, 0, 0], [0., 1, 0, 1, 0, 1]]])
        >>> model = DenseMemory(6, capacity=2)
        >>> memory = model.write(patterns)
        >>> query = torch.tensor([[[1., 1, 1, 0, 0, 1]]])
        >>> model.read(query, memory).round(decimals=2)
        tensor([[[1., 1., 1., 0., 0., 0.]]])
    """

    def __init__(
        self, dim: int | tuple[int, ...], capacity: int, beta: float = 1.0, centred: bool = True, full: str = "error"
    ):
        super().__init__()
        if not 0 < beta < float("inf"):
            raise ValueError(f"beta must be a number above 0, got {beta}")
        if full not in FULL:
            raise ValueError(f"full must be one of {FULL}, got {full!r}")
        check_counts(capacity=capacity)
        self.pattern_shape = as_pattern_shape(dim, "dim")
        self.dim = math.prod(self.pattern_shape)
        self.capacity, self.beta, self.centred, self.full = capacity, beta, centred, full

    def extra_repr(self) -> str:
        settings = f"capacity={self.capacity}, beta={self.beta}, centred={self.centred}, full={self.full!r}"
        return f"{self.pattern_shape}, {settings}"

    @property
    def memory_floats(self) -> int:
        """What one memory costs: ``capacity * d`` floats, full or not."""
        return self.capacity * self.dim

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Store patterns (B, N, *S) beside those already stored; a memory that is given is left as it was.

        Returned is a Memory with ``"patterns"``: (B, all N so far, d), as the formulas use them.
        """
        stored = None if memory is None else self._stored(memory)
        self._check(patterns, "patterns", stored)
        new = self._inner(patterns)
        held = 0 if stored is None else stored.shape[1]
        if self.full == "error" and held + new.shape[1] > self.capacity:
            raise ValueError(
                f"capacity is {self.capacity} patterns: the memory holds {held}, it has no room for {new.shape[1]} "
                f"more (full='overwrite' lets the oldest give way)"
            )
        together = new if stored is None else torch.cat([stored, new], dim=1)
        return Memory({"patterns": together[:, -self.capacity :]})

    def read(
        self, query: Tensor, memory: Memory, trajectory: bool = False, steps: int = 5
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Repeat ``s <- X^T softmax(beta X s)`` from each query; differentiable in query and memory.

        Args:
            query: (B, Q, *S), floating point; within [0, 1] if ``centred``.
            memory, trajectory: what ``write`` returned, and whether to return the states along the way, too.
            steps: how many times, K.

        Returns:
            (B, Q, *S); with ``trajectory`` also (K + 1, B, Q, *S), the query first, what is read last.

        Example:
            >>> model = DenseMemory(1, capacity=2, beta=4.0, centred=False)
            >>> memory = model.write(torch.tensor([[[-1.], [1.]]]))
            >>> _, trajectory = model.read(torch.tensor([[[0.1]]]), memory, True, steps=3)
            >>> trajectory.flatten()                              # here a step is tanh(4 x)
            tensor([0.1000, 0.3799, 0.9087, 0.9986])
        """
        stored = self._stored(memory)
        self._check(query, "query", stored)
        check_counts(steps=steps)
        x, iterates = self._inner(query), [query]
        for _ in range(steps):
            x = torch.softmax(self.beta * x @ stored.mT, dim=-1) @ stored
            iterates.append(self._outer(x))
        return (iterates[-1], torch.stack(iterates)) if trajectory else iterates[-1]

    def energy(self, x: Tensor, memory: Memory) -> Tensor:
        """The energy of x (B, Q, *S): (B, Q), differentiable in ``x`` and memory.

        If ``centred``, the formula's ``x`` is ``2 x - 1``, and a read step a gradient step of size 1/4 in the box.
        """
        stored = self._stored(memory)
        self._check(x, "x", stored)
        x = self._inner(x)
        return 0.5 * x.square().sum(-1) - torch.logsumexp(self.beta * x @ stored.mT, dim=-1) / self.beta

    def _check(self, x: Tensor, name: str, stored: Tensor | None) -> None:
        low, high = (0.0, 1.0) if self.centred else (None, None)
        batch = None if stored is None else stored.shape[0]
        check_points(x, self.pattern_shape, name, low, high, like=stored, batch=batch)

    def _stored(self, memory: Memory) -> Tensor:
        shapes = {"patterns": (range(1, self.capacity + 1), self.dim)}
        return check_memory(memory, shapes, "DenseMemory")["patterns"]

    def _inner(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return 2 * flat - 1 if self.centred else flat

    def _outer(self, x: Tensor) -> Tensor:
        x = x.unflatten(2, self.pattern_shape)
        if not self.centred:
            return x
        x = (x + 1) / 2
        return x + (x.clamp(0, 1) - x).detach()  # a blend of patterns leaves the box by rounding only
