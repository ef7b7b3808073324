"""The memory-augmented neural network: a controller writes to the least recently used row of a matrix.

Letters: B memories, N patterns, Q queries, S the shape of a pattern, C the size of a code, R rows of the
matrix, W their width, H heads, U units of the controller.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.coders import Decoder, Encoder, apply, given_or_default
from ebmm.memory import Memory, check_points

START = 1e-6  # of every number in the matrix, before anything is written
GATE = -4.0  # start of the write gate: new patterns go to new rows
EMPTY = 0.01  # a row not much longer than this holds nothing


def rows_and_width(budget: int, number: int, heads: int = 4) -> tuple[int, int]:
    """The widest rows that a budget allows, with one row for each pattern.

    Args:
        budget: memory floats, all in all.
        number: N, patterns in a memory, at least 1.
        heads: H, at least 1.

    Returns:
        R and W, with R·(W + 1 + H) at most the budget.

    Raises:
        ValueError: a budget that leaves no float for a row.

    Example:
        >>> rows_and_width(2080, number=16), rows_and_width(8256, number=64, heads=1)
        ((16, 125), (64, 127))
    """
    width = budget // number - 1 - heads
    if width < 1:
        raise ValueError(f"{budget} floats are too few for {number} rows, each with {1 + heads} of bookkeeping")
    return number, width


class MANN(nn.Module):
    """A matrix with heads that find rows by content, and a write that goes where none has looked for long.

    A step of the controller, an LSTM, turns a code into its output ``h``. From ``h`` each head has a key
    ``k`` and a gate ``g`` in (0, 1). With ``M`` the matrix, a pattern is written in four strokes:

    - the least used row is set to zero: ``ℓ`` is 1 there and 0 elsewhere, ``M ← (1 − ℓ) M``;
    - ``w_w = g w_r + (1 − g) ℓ`` with the head's last read weights ``w_r``, then ``M ← M + Σ over heads of w_w kᵀ``;
    - the new read weights are ``w_r = softmax over rows of β cos(k, M)``;
    - the usage of the rows is ``w_u ← decay · w_u + Σ over heads of (w_r + w_w)``.

    A query is a step of the controller and a read, ``Σ over rows of w_r M``. Nothing is written, so queries
    do not see each other. The decoder sees ``h`` and what the heads read.

    What travels from write to read, and is counted: the matrix, and usage and last read weights, without
    which writing could not go on. Four things differ from the source:

    - the sharpness β > 0, one learned number a head, as in the neural Turing machine. Without it
      no weight could exceed its neighbour's by more than e²;
    - in the cosine a row counts as 0.01 longer than it is, so that an empty row is like no key;
    - all heads write into one row. The source marks the H least used rows for every head, which stores a
      pattern H times; a row for each head leaves a pattern H short rows;
    - ``carry_state=False``: the controller starts every step afresh. The patterns are independent, so that
      its state and the last reads tell nothing of the next one, and would cost 2U floats. A cell that
      starts from zero has nothing to forget and nothing to recur to; both parts are left out.

    Args:
        features: d, the size of a pattern, or its shape S.
        rows: R, at least 1. Beyond R patterns, the least recently used are lost.
        width: W, at least 1; :func:`rows_and_width` finds it.
        heads: H, at least 1.
        controller: U, at least 1.
        encoder: maps patterns (M, *S) to codes (M, C); ``None``, for vectors only: an
            :class:`ebmm.coders.Encoder`.
        decoder: maps (M, U + H·W), output and reads, to patterns (M, *S) in [0, 1]; ``None``, for vectors
            only: a :class:`ebmm.coders.Decoder`.
        code_width: C, size of a code, at least 1.
        decay: of the usage, in [0, 1).
        sharpness: start value of β, above 0.
        carry_state: the controller's state, output and cells, goes from pattern to pattern and on to the
            queries, and its gates also see what the heads last read, as in the source.

    Raises:
        ValueError: a size below 1, decay or sharpness out of range, or no coders given for patterns that
            are not vectors.

    Example:
        >>> model = MANN(64, rows=16, width=125)
        >>> patterns = torch.randint(0, 2, (3, 16, 64)).float()
        >>> memory = model.write(patterns)
        >>> memory
        Memory(matrix: (3, 16, 125), usage: (3, 16), weights: (3, 4, 16), device='cpu')
        >>> model.read(patterns, memory).shape, model.memory_floats
        (torch.Size([3, 16, 64]), 2080)

    Santoro and others, *Meta-Learning with Memory-Augmented Neural Networks* (2016), equations 2 to 8;
    paper, table 1, row 5.
    """

    def __init__(
        self,
        features: int | tuple[int, ...],
        rows: int,
        width: int,
        heads: int = 4,
        controller: int = 200,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        code_width: int = 128,
        decay: float = 0.95,
        sharpness: float = 20.0,
        carry_state: bool = False,
    ):
        super().__init__()
        self.pattern_shape = (features,) if isinstance(features, int) else tuple(features)
        if min(*self.pattern_shape, rows, width, heads, controller, code_width) < 1:
            raise ValueError(
                f"features, rows, width, heads, controller and code_width must be at least 1, got {features}, {rows}, "
                f"{width}, {heads}, {controller} and {code_width}"
            )
        if not 0 <= decay < 1 or sharpness <= 0:
            raise ValueError(f"decay must lie in [0, 1) and sharpness above 0, got {decay} and {sharpness}")
        self.rows, self.width, self.heads, self.controller = rows, width, heads, controller
        self.code_width, self.decay, self.carry_state = code_width, decay, carry_state
        self.encoder, self.decoder = given_or_default(
            encoder,
            decoder,
            self.pattern_shape,
            lambda d: (Encoder(d, code_width), Decoder(controller + heads * width, d)),
        )

        gates = 4 if carry_state else 3
        self.from_code = _linear(code_width, gates * controller, scale=0.5)
        if carry_state:
            self.recurrent = _linear(controller + heads * width, gates * controller, scale=0.3)
            with torch.no_grad():
                self.recurrent.bias[3 * controller :] = 1  # at first cells keep what they hold
        self.to_keys = _linear(controller, heads * width, scale=4.0)
        self.to_gates = _linear(controller, heads, scale=0.1)
        nn.init.constant_(self.to_gates.bias, GATE)
        self.log_sharpness = nn.Parameter(torch.full((heads, 1), math.log(sharpness)))

    def extra_repr(self) -> str:
        names = ["rows", "width", "heads", "controller", "code_width", "decay", "carry_state"]
        return f"{self.pattern_shape}, " + ", ".join(f"{name}={getattr(self, name)}" for name in names)

    @property
    def memory_floats(self) -> int:
        """What one memory costs: R·(W + 1 + H) floats, and 2U more if the controller's state travels."""
        return self.rows * (self.width + 1 + self.heads) + (2 * self.controller if self.carry_state else 0)

    def initial_memory(self, batch_size: int = 1) -> Memory:
        """B empty memories: every row alike, none used, no head that has looked anywhere."""
        like = self.log_sharpness
        tensors = {
            "matrix": like.new_full((batch_size, self.rows, self.width), START),
            "usage": like.new_zeros(batch_size, self.rows),
            "weights": like.new_zeros(batch_size, self.heads, self.rows),
        }
        if self.carry_state:
            tensors |= {name: like.new_zeros(batch_size, self.controller) for name in ("output", "cell")}
        return Memory(tensors)

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Write patterns one after another, each into the row that was least recently used.

        Args:
            patterns: (B, N, *S), the model's dtype, in [0, 1].
            memory: what an earlier ``write`` returned, left as it was; ``None`` starts with an empty one.

        Returns:
            A Memory. ``"matrix"``: (B, R, W); ``"usage"``: (B, R); ``"weights"``: (B, H, R), the last read weights;
            with ``carry_state`` also ``"output"`` and ``"cell"``: (B, U).

        Raises:
            TypeError, ValueError: patterns of a wrong shape, dtype or range; an encoder that does not give
                C numbers; a foreign memory.

        Example:
            >>> model = MANN(8, rows=3, width=5, heads=1)
            >>> memory = model.write(torch.rand(1, 2, 8))
            >>> (memory["matrix"].abs().sum(-1) > 0.01).tolist()     # the third row is free
            [[True, True, False]]
        """
        self._check(patterns, "patterns", memory)
        now = dict(self.initial_memory(len(patterns)) if memory is None else self._tensors_of(memory))
        from_codes = self.from_code(self._encoded(patterns))
        if self.carry_state:
            for from_code in from_codes.unbind(1):
                now["output"], now["cell"] = self._step(from_code, now)
                now |= self._write_step(*self._keys_and_gates(now["output"]), now)
        else:  # no step needs the one before, so the controller takes all N at once
            keys, gates = self._keys_and_gates(self._step(from_codes)[0])
            for key, gate in zip(keys.unbind(1), gates.unbind(1), strict=True):
                now |= self._write_step(key, gate, now)
        return Memory(now)

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False):
        """Take a step of the controller with each query, look up its keys, and decode what they find.

        Args:
            query: (B, Q, *S), the model's dtype, in [0, 1].
            memory: B memories.
            trajectory: also return the query and what was read, as one tensor.

        Returns:
            (B, Q, *S), and with ``trajectory`` also (2, B, Q, *S): the query first, what is read last.

        Raises:
            TypeError, ValueError: as for ``write``.

        Example:
            >>> model = MANN(8, rows=3, width=5)
            >>> model.read(torch.rand(2, 6, 8), model.write(torch.rand(2, 3, 8))).shape
            torch.Size([2, 6, 8])
        """
        self._check(query, "query", memory)
        now = self._tensors_of(memory)
        from_codes = self.from_code(self._encoded(query))
        if self.carry_state:
            now = {name: tensor.unsqueeze(1) for name, tensor in now.items()}  # the same for all queries
        output, _ = self._step(from_codes, now)
        keys, _ = self._keys_and_gates(output)
        weights = self._address(keys.flatten(1, 2), memory["matrix"])
        reads = (weights @ memory["matrix"]).unflatten(1, keys.shape[1:3])
        x = apply(self.decoder, torch.cat([output, reads.flatten(2)], dim=-1))
        return (x, torch.stack([query, x])) if trajectory else x

    # The controller

    def _step(self, from_code: Tensor, now: dict[str, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Output and cells, (..., U), given the code's part of all gates."""
        if not self.carry_state or now is None:
            admit, show, candidate = from_code.chunk(3, dim=-1)
            cell = torch.sigmoid(admit) * torch.tanh(candidate)
        else:
            reads = (now["weights"] @ now["matrix"]).flatten(-2)
            from_state = self.recurrent(torch.cat([now["output"], reads], dim=-1))
            admit, show, candidate, keep = (from_code + from_state).chunk(4, dim=-1)
            cell = torch.sigmoid(keep) * now["cell"] + torch.sigmoid(admit) * torch.tanh(candidate)
        return torch.sigmoid(show) * torch.tanh(cell), cell

    def _keys_and_gates(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (..., H, W) and write gates (..., H, 1)."""
        keys = self.to_keys(output).unflatten(-1, (self.heads, self.width))
        return keys, torch.sigmoid(self.to_gates(output)).unsqueeze(-1)

    # The matrix

    def _write_step(self, keys: Tensor, gates: Tensor, now: dict[str, Tensor]) -> dict[str, Tensor]:
        """Write the keys (B, H, W) of one pattern (equations 5 to 8)."""
        least = F.one_hot(now["usage"].argmin(-1), self.rows).to(keys.dtype).unsqueeze(1)
        written = least + gates * (now["weights"] - least)
        matrix = torch.baddbmm(now["matrix"] * (1 - least.mT), written.mT, keys)
        weights = self._address(keys, matrix)
        # Usage only ranks the rows, and no gradient passes through a rank.
        usage = self.decay * now["usage"] + (weights + written).detach().sum(1)
        return {"matrix": matrix, "usage": usage, "weights": weights}

    def _address(self, keys: Tensor, matrix: Tensor) -> Tensor:
        """Read weights (B, any number of keys, R): softmax of the scaled cosines (equations 2 and 3)."""
        sharpness = self.log_sharpness.exp().repeat(keys.shape[1] // self.heads, 1)
        # The cosine with a row of length 1e-6 has slopes of a million: some runs never recovered from the first step.
        lengths = torch.linalg.vector_norm(matrix, dim=-1).unsqueeze(1) + EMPTY
        return torch.softmax((sharpness * F.normalize(keys, dim=-1)) @ matrix.mT / lengths, dim=-1)

    # The door

    def _encoded(self, x: Tensor) -> Tensor:
        codes = apply(self.encoder, x)
        if codes.shape[2:] != (self.code_width,):
            raise ValueError(
                f"the encoder must give {self.code_width} numbers a pattern, got shape {tuple(codes.shape[2:])}"
            )
        return codes

    def _tensors_of(self, memory: Memory) -> dict[str, Tensor]:
        want = {name: tuple(tensor.shape[1:]) for name, tensor in self.initial_memory().items()}
        got = {name: tuple(tensor.shape[1:]) for name, tensor in memory.items()} if isinstance(memory, Memory) else {}
        if got != want:
            raise ValueError(f"expected a Memory with {want}, each behind B, as write returns it, got {memory!r}")
        return dict(memory)

    def _check(self, x: Tensor, name: str, memory: Memory | None) -> None:
        batch = memory.batch_size if isinstance(memory, Memory) else None
        check_points(x, self.pattern_shape, name, 0.0, 1.0, like=self.log_sharpness, batch=batch)


def _linear(inputs: int, outputs: int, scale: float) -> nn.Linear:
    """A linear layer whose outputs start ``scale`` times as large as its inputs, without biases.

    With the usual small weights and random biases all keys would start alike, and no row could be found.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=scale * inputs**-0.5)
    nn.init.zeros_(layer.bias)
    return layer
