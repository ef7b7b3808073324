"""The continuous dense associative memory, or modern Hopfield network (chapter 2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebmm.memory import Memory, _check_steps, _pattern_shape, _size, _written, check_points

FULL = ("error", "overwrite")


class DenseMemory(nn.Module):
    """A continuous dense associative memory, or modern Hopfield network, that keeps its patterns whole.

    With the stored patterns as the rows of ``X``, the energy is ``E(x) = -lse(beta, X x) + 1/2 ||x||^2``,
    where ``lse(beta, z) = log(sum_n exp(beta z_n)) / beta``. One read step, ``x <- X^T softmax(beta X x)``,
    is one gradient step of size 1, and never raises the energy (Krotov and Hopfield 2016; Ramsauer and
    others 2020). It is also attention with the patterns as keys and values. A large ``beta`` returns the
    pattern with the greatest overlap, a small one a blend of many.

    Args:
        dim: the size d of a pattern, or its shape S, such as ``(28, 28)``.
        capacity: the number of patterns that one memory has room for.
        beta: inverse temperature, above 0.
        centred: ``True``: patterns lie in the box [0, 1], and ``x`` in the formulas is ``2 x - 1``. Then
            bits, taken to signs, all have the same length: the greatest overlap is the nearest pattern.
            ``False``: ``x`` is taken as it comes, any real number, as in the papers; there a
            long pattern can win over a nearer, shorter one.
        full: what becomes of more patterns than the capacity: ``"error"`` refuses them, ``"overwrite"`` keeps
            the last ones written, and the oldest give way.
        encoder, decoder: modules from patterns (M, *S) to codes (M, C) and back, such as those of
            :mod:`ebmm.coders`, to be meta-learned with :func:`ebmm.fit`. Codes are then what is
            stored and compared, the ``x`` of all formulas, and ``beta`` may stay 1: the codes' lengths say the
            same. ``None``, both: patterns themselves, as ``centred`` says.

    Raises:
        ValueError: capacity or a dimension below 1, beta not above 0, an unknown ``full``, an encoder without
            a decoder or a decoder without an encoder, an encoder that does not give codes (M, C).
        TypeError: ``dim`` or ``capacity`` is not a whole number.

    Example:
        >>> patterns = torch.tensor([[[1., 1, 1, 0, 0, 0], [0., 1, 0, 1, 0, 1]]])
        >>> model = DenseMemory(6, capacity=2)
        >>> memory = model.write(patterns)
        >>> query = torch.tensor([[[1., 1, 1, 0, 0, 1]]])
        >>> model.read(query, memory).round(decimals=2)
        tensor([[[1., 1., 1., 0., 0., 0.]]])

    Chapter 2 draws its landscape.
    """

    def __init__(
        self,
        dim: int | tuple[int, ...],
        capacity: int,
        beta: float = 1.0,
        centred: bool = True,
        full: str = "error",
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
    ):
        super().__init__()
        if not isinstance(capacity, int):
            raise TypeError(f"capacity must be a whole number of patterns, got {capacity!r}")
        if capacity < 1:
            raise ValueError(f"capacity must be at least 1 pattern, got {capacity}")
        if not 0 < beta < float("inf"):
            raise ValueError(f"beta must be a number above 0, got {beta}")
        if full not in FULL:
            raise ValueError(f"full must be one of {FULL}, got {full!r}")
        if (encoder is None) != (decoder is None):
            raise ValueError("an encoder needs its decoder, and a decoder its encoder: give both or neither")
        self.shape = _pattern_shape(dim)
        self.dim = _size(self.shape)
        self.capacity = capacity
        self.beta = beta
        self.centred = centred
        self.full = full
        self.encoder, self.decoder = encoder, decoder
        self.width = self.dim if encoder is None else _code_size(encoder, self.shape)

    def extra_repr(self) -> str:
        settings = f"capacity={self.capacity}, beta={self.beta:g}, centred={self.centred}, full={self.full!r}"
        return f"{_written(self.shape)}, {settings}"

    @property
    def memory_floats(self) -> int:
        """What one memory costs: ``capacity * d`` floats (``C`` for ``d`` with coders), full or not."""
        return self.capacity * self.width

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Store patterns beside those already stored.

        Args:
            patterns: (B, N, *S), floating point; within [0, 1] if ``centred``.
            memory: what an earlier ``write`` returned, left as it was; ``None`` starts an empty one.

        Returns:
            A Memory with ``"patterns"``: (B, all N so far, d), as the formulas use them, or (B, all N so
            far, C), their codes. Where the oldest gave way, the last ``capacity`` are left.

        Raises:
            TypeError: not a floating-point tensor.
            ValueError: wrong shape, outside the box, more patterns than the capacity, a foreign memory.

        Example:
            >>> model = DenseMemory(2, capacity=3)
            >>> memory = model.write(torch.tensor([[[0., 1]]]))
            >>> model.write(torch.tensor([[[1., 1], [0.5, 0]]]), memory)["patterns"]
            tensor([[[-1.,  1.],
                     [ 1.,  1.],
                     [ 0., -1.]]])
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
        """Repeat ``x <- X^T softmax(beta X x)`` from each query; differentiable in query and memory.

        With coders the query is encoded once, the steps are taken on codes, and what is returned is decoded.

        Args:
            query: (B, Q, *S), floating point; within [0, 1] if ``centred``.
            memory: what ``write`` returned.
            trajectory: also return the states along the way.
            steps: how many times, K.

        Returns:
            ``x``: (B, Q, *S); with ``trajectory=True`` also the trajectory, (K + 1, B, Q, *S), the query
            first and ``x`` last.

        Raises:
            TypeError: not a floating-point tensor, ``steps`` not a whole number.
            ValueError: wrong shape, outside the box, steps below 1, a foreign memory.

        Example:
            >>> model = DenseMemory(1, capacity=2, beta=4.0, centred=False)
            >>> memory = model.write(torch.tensor([[[-1.], [1.]]]))
            >>> query = torch.tensor([[[0.1]]])
            >>> x, trajectory = model.read(query, memory, trajectory=True, steps=3)
            >>> trajectory.flatten()                              # here a step is tanh(4 x)
            tensor([0.1000, 0.3799, 0.9087, 0.9986])

        Ramsauer and others 2020, equation 3; chapter 2.
        """
        stored = self._stored(memory)
        self._check(query, "query", stored)
        _check_steps(steps)
        states = [self._inner(query)]
        for _ in range(steps):
            states.append(torch.softmax(self.beta * states[-1] @ stored.mT, dim=-1) @ stored)
        x = self._outer(states[-1])
        if not trajectory:
            return x
        return x, torch.stack([query, *(self._outer(state) for state in states[1:-1]), x])

    def energy(self, x: Tensor, memory: Memory) -> Tensor:
        """The energy ``E(x) = -lse(beta, X x) + 1/2 ||x||^2``; differentiable in ``x`` and memory.

        If ``centred``, the ``x`` of the formula is ``2 x - 1``: then a read step is a gradient step of
        size 1/4 in the box, 1 in the formula's own coordinates. With coders it is the energy of the code of
        ``x``; reading lowers it from code to code, which is no promise for what they decode to.

        Args:
            x: (B, Q, *S), floating point; within [0, 1] if ``centred``.
            memory: what ``write`` returned.

        Returns:
            (B, Q).

        Raises:
            TypeError: not a floating-point tensor.
            ValueError: wrong shape, outside the box, a foreign memory.

        Example:
            >>> model = DenseMemory(2, capacity=1, centred=False)
            >>> memory = model.write(torch.tensor([[[1., 2]]]))
            >>> model.energy(torch.tensor([[[1., 2], [1, 0]]]), memory)
            tensor([[-2.5000, -0.5000]])

        Ramsauer and others 2020, equation 1 without its constants; chapter 2.
        """
        stored = self._stored(memory)
        self._check(x, "x", stored)
        x = self._inner(x)
        return 0.5 * x.square().sum(-1) - torch.logsumexp(self.beta * x @ stored.mT, dim=-1) / self.beta

    def _check(self, x: Tensor, name: str, stored: Tensor | None) -> None:
        low, high = (0.0, 1.0) if self.centred else (None, None)
        batch = None if stored is None else stored.shape[0]
        like = next(self.parameters(), None) if stored is None else stored
        check_points(x, self.shape, name, low, high, like=like, batch=batch)

    def _stored(self, memory: Memory) -> Tensor:
        want = f"patterns: (B, N, {self.width})"
        if not isinstance(memory, Memory):
            raise TypeError(f"memory must be a Memory with {want}, got {type(memory).__name__}")
        stored = memory["patterns"] if tuple(memory) == ("patterns",) else None
        if stored is None or stored.dim() != 3 or stored.shape[2] != self.width:
            raise ValueError(f"a dense memory of size {self.width} expects a Memory with {want}, got {memory}")
        return stored

    def _inner(self, x: Tensor) -> Tensor:
        if self.encoder is not None:
            return self.encoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        flat = x.flatten(2)
        return 2 * flat - 1 if self.centred else flat

    def _outer(self, x: Tensor) -> Tensor:
        if self.decoder is not None:
            return self.decoder(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        x = x.unflatten(2, self.shape)
        if not self.centred:
            return x
        x = (x + 1) / 2
        return x + (x.clamp(0, 1) - x).detach()  # a blend of patterns leaves the box by rounding only


@torch.no_grad()
def _code_size(encoder: nn.Module, shape: tuple[int, ...]) -> int:
    like = next(encoder.parameters(), torch.zeros(()))
    code = encoder(torch.zeros(1, *shape, dtype=like.dtype, device=like.device))
    if code.dim() != 2 or len(code) != 1:
        want = f"(M, {', '.join(map(str, shape))}) to codes (M, C)"
        raise ValueError(f"the encoder must map patterns {want}, but one pattern gave shape {tuple(code.shape)}")
    return code.shape[1]
