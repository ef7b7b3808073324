"""Differentiable plasticity: a recurrent network of n units whose connections change while it runs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.baselines.rival import Rival, Sizes
from ebmm.coders import Decoder, Encoder
from ebmm.coders.vectors import start_linear
from ebmm.layers import triangle, triangle_position

SPREAD = 0.01  # standard deviation of the random start of V and V′


class DifferentiablePlasticity(Rival):
    """A network of n units, each connection with a fixed part ``V`` and a plastic part ``V′ ∘ Y``.

    The units take ``y = tanh(y₋ (V + V′ ∘ Y) + input)``, where ``y₋`` is what they were one step earlier and
    the input is a code. While patterns are shown, the Hebbian trace follows: ``Y ← (1 − η) Y + η y₋ᵀ y``.
    The trace is the memory; ``V``, ``V′``, ``η`` and the two coders are only meta-learned.

    In the source's own experiment a shown bit dominates what its unit takes, and a pause wipes out the state before
    the next pattern. Here the input holds the units outright, ``y₋ = y = tanh(code)``, and nothing of the state goes
    from pattern to pattern or on to the queries. The trace is then symmetric: a Hopfield network with a learned Hebbian
    rule. Units that ran freely would store a mixture of old patterns and new; that was worse wherever it was tried.

    A query starts from ``tanh(code)`` and runs K steps with its input on and the trace fixed; each step is decoded.

    Args:
        features, units, read_steps: d or S, n and K.
        encoder, decoder: as of every rival, for codes (M, n); by default, for vectors, an :class:`ebmm.coders.Encoder`
            and a :class:`ebmm.coders.Decoder` that start with unit i standing for bit i.
        rate: start value of η, in (0, 1), where it stays.
        gain: start value of n·η·V′. Hebb's rule of Hopfield networks has 1; at 0, the source's start, learning is slow.

    A memory is ``"trace"``, (B, n(n + 1)/2), its upper triangle row by row.

    Example:
        >>> model = DifferentiablePlasticity(64, units=64)
        >>> patterns = torch.randint(0, 2, (3, 8, 64)).float()
        >>> memory = model.write(patterns)
        >>> memory["trace"].shape, model.read(patterns, memory).shape, model.memory_floats
        (torch.Size([3, 2080]), torch.Size([3, 8, 64]), 2080)

    Miconi, Clune, Stanley, *Differentiable Plasticity: Training Plastic Neural Networks with
    Backpropagation* (2018), equations 1 and 2; paper, table 1, row 4.
    """

    settings = ("units", "read_steps")
    position: Tensor

    def __init__(
        self,
        features: int | tuple[int, ...],
        units: int,
        read_steps: int = 3,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        rate: float = 0.01,
        gain: float = 10.0,
    ):
        if not 0 < rate < 1:
            raise ValueError(f"rate must lie in (0, 1), got {rate}")

        def default(d: int) -> tuple[Encoder, Decoder]:
            return start_linear(Encoder(d, units), Decoder(units, d), torch.eye(units, d))

        super().__init__(features, units, encoder, decoder, default, units=units, read_steps=read_steps)
        self.units, self.read_steps = units, read_steps
        self.fixed = nn.Parameter(SPREAD * torch.randn(units, units))
        self.plastic = nn.Parameter(gain / (units * rate) + SPREAD * torch.randn(units, units))
        self.rate_logit = nn.Parameter(torch.tensor(math.log(rate / (1 - rate))))
        self.register_buffer("position", triangle_position(units), persistent=False)

    @property
    def memory_shapes(self) -> dict[str, Sizes]:
        return {"trace": (self.units * (self.units + 1) // 2,)}

    def rate(self) -> Tensor:
        """η, how fast the trace follows and forgets: a scalar in (0, 1)."""
        return torch.sigmoid(self.rate_logit)

    def _write(self, codes: Tensor, held: dict[str, Tensor] | None) -> dict[str, Tensor]:
        """``Σ η (1 − η)^age yᵀ y``, all patterns at once, on what is left of an older trace."""
        y = torch.tanh(codes)
        age = torch.arange(codes.shape[1] - 1, -1, -1, device=codes.device).unsqueeze(-1)
        trace = triangle((self.rate() * (1 - self.rate()) ** age * y).mT @ y)
        if held is not None:
            trace = trace + (1 - self.rate()) ** codes.shape[1] * held["trace"]
        return {"trace": trace}

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        connections = self.fixed + self.plastic * held["trace"][:, self.position]
        codes, rounds = self._encoded(query), []
        y = torch.tanh(codes)
        for _ in range(self.read_steps):
            y = torch.tanh(torch.baddbmm(codes, y, connections))
            rounds.append(self._decoded(y))
        return rounds
