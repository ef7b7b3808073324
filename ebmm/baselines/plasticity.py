"""Differentiable plasticity: a recurrent network whose connections change while it runs.

Letters: B memories, N patterns, Q queries, K read steps, S the shape of a pattern, n units.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.coders import Decoder, Encoder, apply, given_or_default
from ebmm.memory import Memory, check_points

SPREAD = 0.01  # standard deviation of the random start of w and a
HELD_GAIN, FREE_GAIN = 10.0, 3.0


class DifferentiablePlasticity(nn.Module):
    """A network of n units, each connection with a fixed part ``w`` and a plastic part ``a ∘ H``.

    The units take ``y = tanh(y₋ (w + a ∘ H) + input)``, where ``y₋`` is what they were one step earlier and
    the input is a code. While patterns are shown, the Hebbian trace follows: ``H ← (1 − η) H + η y₋ᵀ y``.
    The trace is the memory; ``w``, ``a``, ``η`` and the two coders are only meta-learned.

    How a pattern is shown. In the source's own experiment with patterns, one unit stands for each bit, a
    shown bit dominates what its unit takes, and a pause without input wipes out the state before the
    next pattern. Here this is done outright: each pattern starts from its own input, ``tanh(code)``, and
    nothing of the state goes from pattern to pattern or on to the queries.

    - ``write_steps=None``: the input holds the units, so that ``y₋ = y = tanh(code)``. Then the trace is
      symmetric, n(n + 1)/2 floats, which is a Hopfield network with a learned Hebbian rule; more steps
      would only raise η. As many units as bits fit into a Hopfield network's budget.
    - ``write_steps=1`` or more: so many steps run freely under the input, each changing the trace, which
      then is not symmetric: n² floats. While it is shown a new pattern such a network recalls old ones, and
      stores the mixture. It was worse wherever it was tried.

    A query starts from ``tanh(code)`` likewise and runs K steps with its input on and the trace fixed;
    each step is decoded.

    Args:
        features: d, the size of a pattern, or its shape S.
        units: n, at least 1.
        write_steps: free steps a pattern, at least 1, or ``None``: the units are held.
        read_steps: K, at least 1.
        encoder: maps patterns (M, *S) to codes (M, n); ``None``, for vectors only: an
            :class:`ebmm.coders.Encoder` that starts with unit i standing for bit i.
        decoder: maps units (M, n) to patterns (M, *S) in [0, 1]; ``None``, for vectors only: a
            :class:`ebmm.coders.Decoder` that starts with bit i read from unit i.
        rate: start value of η, in (0, 1), where it stays.
        gain: start value of n·η·a, at which Hebb's rule of Hopfield networks is 1; ``None``: 10 for held
            units, 3 for free ones, which more would saturate. At 0, the source's start, it takes long until
            the trace is of any use.

    Raises:
        ValueError: a size or number of steps below 1, a rate outside (0, 1), or no coders given for
            patterns that are not vectors.

    Example:
        >>> model = DifferentiablePlasticity(64, units=64)
        >>> patterns = torch.randint(0, 2, (3, 8, 64)).float()
        >>> memory = model.write(patterns)
        >>> memory["trace"].shape, model.read(patterns, memory).shape, model.memory_floats
        (torch.Size([3, 2080]), torch.Size([3, 8, 64]), 2080)

    Miconi, Clune, Stanley, *Differentiable Plasticity: Training Plastic Neural Networks with
    Backpropagation* (2018), equations 1 and 2; paper, table 1, row 4.
    """

    position: Tensor

    def __init__(
        self,
        features: int | tuple[int, ...],
        units: int,
        write_steps: int | None = None,
        read_steps: int = 3,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        rate: float = 0.01,
        gain: float | None = None,
    ):
        super().__init__()
        self.pattern_shape = (features,) if isinstance(features, int) else tuple(features)
        if min(*self.pattern_shape, units, read_steps, 1 if write_steps is None else write_steps) < 1:
            raise ValueError(
                f"features, units, write_steps and read_steps must be at least 1, got {features}, {units}, "
                f"{write_steps} and {read_steps}"
            )
        if not 0 < rate < 1:
            raise ValueError(f"rate must lie in (0, 1), got {rate}")
        self.units, self.write_steps, self.read_steps = units, write_steps, read_steps
        self.encoder, self.decoder = given_or_default(
            encoder,
            decoder,
            self.pattern_shape,
            lambda d: (_start_as(1.0, Encoder(d, units)), _start_as(2.0, Decoder(units, d))),
        )
        if gain is None:
            gain = HELD_GAIN if write_steps is None else FREE_GAIN
        self.fixed = nn.Parameter(SPREAD * torch.randn(units, units))
        self.plastic = nn.Parameter(gain / (units * rate) + SPREAD * torch.randn(units, units))
        self.rate_logit = nn.Parameter(torch.tensor(math.log(rate / (1 - rate))))
        # Where in the packed triangle each entry of a symmetric trace stands.
        position = torch.empty(units, units, dtype=torch.long)
        row, column = torch.triu_indices(units, units)
        position[row, column] = position[column, row] = torch.arange(len(row))
        self.register_buffer("position", position, persistent=False)

    def extra_repr(self) -> str:
        names = ["units", "write_steps", "read_steps"]
        return f"{self.pattern_shape}, " + ", ".join(f"{name}={getattr(self, name)}" for name in names)

    @property
    def memory_floats(self) -> int:
        """What one memory costs: the trace, n(n + 1)/2 floats where it is symmetric, else n²."""
        return self.units * (self.units + 1) // 2 if self.write_steps is None else self.units**2

    def rate(self) -> Tensor:
        """η, how fast the trace follows and forgets: a scalar in (0, 1)."""
        return torch.sigmoid(self.rate_logit)

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Show the patterns one after another, and let the trace follow.

        Args:
            patterns: (B, N, *S), the model's dtype, in [0, 1].
            memory: what an earlier ``write`` returned, left as it was; ``None`` starts from a trace of zeros.

        Returns:
            A Memory. ``"trace"``: (B, n(n + 1)/2), its upper triangle row by row, or with ``write_steps`` the
            whole, (B, n, n).

        Raises:
            TypeError, ValueError: patterns of a wrong shape, dtype or range; an encoder that does not give
                n numbers; a foreign memory.

        Example:
            >>> model = DifferentiablePlasticity(4, units=4)
            >>> patterns = torch.rand(1, 3, 4)
            >>> at_once, half = model.write(patterns), model.write(patterns[:, :2])
            >>> in_two = model.write(patterns[:, 2:], half)
            >>> torch.allclose(in_two["trace"], at_once["trace"], atol=1e-6)
            True
        """
        self._check(patterns, "patterns", memory)
        codes = self._encoded(patterns)
        if self.write_steps is None:
            trace = self._held(codes)
            if memory is not None:
                trace = trace + (1 - self.rate()) ** codes.shape[1] * self._trace_of(memory)
            return Memory({"trace": trace})
        trace = codes.new_zeros(len(codes), self.units, self.units) if memory is None else self._trace_of(memory)
        return Memory({"trace": self._free(codes, self.write_steps, trace)})

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False):
        """Run the network from each query, which stays on as its input, and decode the units.

        Args:
            query: (B, Q, *S), the model's dtype, in [0, 1].
            memory: B memories.
            trajectory: also return what each step gave.

        Returns:
            (B, Q, *S), and with ``trajectory`` also (K + 1, B, Q, *S): the query first, what is read last.

        Raises:
            TypeError, ValueError: as for ``write``.

        Example:
            >>> model = DifferentiablePlasticity(64, units=64)
            >>> patterns = torch.randint(0, 2, (1, 2, 64)).float()
            >>> queries = torch.where(torch.rand(patterns.shape) < 0.1, 1 - patterns, patterns)
            >>> x, trajectory = model.read(queries, model.write(patterns), trajectory=True)
            >>> trajectory.shape
            torch.Size([4, 1, 2, 64])
            >>> bool(((x > 0.5) == patterns).float().mean() > 0.9)   # starts as a Hopfield net
            True
        """
        self._check(query, "query", memory)
        trace = self._trace_of(memory)
        plastic = self.plastic * (trace[:, self.position] if self.write_steps is None else trace)
        codes = self._encoded(query)
        connections, y, iterates = self.fixed + plastic, torch.tanh(codes), [query]
        for _ in range(self.read_steps):
            y = torch.tanh(torch.baddbmm(codes, y, connections))
            iterates.append(apply(self.decoder, y))
        return (iterates[-1], torch.stack(iterates)) if trajectory else iterates[-1]

    def _held(self, codes: Tensor) -> Tensor:
        """The packed trace of codes (B, N, n) alone: ``Σ η (1 − η)^age yᵀ y``, all patterns at once."""
        y = torch.tanh(codes)
        age = torch.arange(codes.shape[1] - 1, -1, -1, device=codes.device).unsqueeze(-1)
        trace = (self.rate() * (1 - self.rate()) ** age * y).mT @ y
        row, column = torch.triu_indices(self.units, self.units, device=codes.device)
        return trace[:, row, column]

    def _free(self, codes: Tensor, steps: int, trace: Tensor) -> Tensor:
        """The trace (B, n, n) after codes (B, N, n) were shown to the running network, one after another."""
        rate = self.rate()
        for code in codes.split(1, dim=1):
            y = torch.tanh(code)
            for _ in range(steps):
                before, y = y, torch.tanh(torch.baddbmm(code, y, self.fixed + self.plastic * trace))
                trace = (1 - rate) * trace + rate * before.mT @ y
        return trace

    def _encoded(self, x: Tensor) -> Tensor:
        codes = apply(self.encoder, x)
        if codes.shape[2:] != (self.units,):
            raise ValueError(
                f"the encoder must give {self.units} numbers a pattern, got shape {tuple(codes.shape[2:])}"
            )
        return codes

    def _trace_of(self, memory: Memory) -> Tensor:
        n = self.units
        shape = (n * (n + 1) // 2,) if self.write_steps is None else (n, n)
        trace = memory["trace"] if isinstance(memory, Memory) and tuple(memory) == ("trace",) else None
        if trace is None or tuple(trace.shape[1:]) != shape:
            want = ", ".join(map(str, ("B", *shape)))
            raise ValueError(f"expected a Memory with trace: ({want}), as write returns it, got {memory!r}")
        return trace

    def _check(self, x: Tensor, name: str, memory: Memory | None) -> None:
        batch = memory.batch_size if isinstance(memory, Memory) else None
        check_points(x, self.pattern_shape, name, 0.0, 1.0, like=self.fixed, batch=batch)


def _start_as(scale: float, coder):
    """The coder with its linear part set to ``scale`` times the identity, as far as that goes."""
    with torch.no_grad():
        nn.init.eye_(coder.linear.weight).mul_(scale)
        nn.init.zeros_(coder.linear.bias)
    return coder
