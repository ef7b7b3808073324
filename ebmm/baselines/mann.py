"""The memory-augmented neural network: a controller writes to the least recently used row of a matrix.

Letters: R rows of the matrix, W their width, H heads, U units of the controller, C the size of a code.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.baselines.rival import Rival, Sizes
from ebmm.coders import Decoder, Encoder
from ebmm.memory import Memory

START = 1e-6  # of every number in the matrix, before anything is written
GATE = -4.0  # start of the write gate: new patterns go to new rows
EMPTY = 0.01  # a row not much longer than this holds nothing


def rows_and_width(budget: int, number: int, heads: int = 4) -> tuple[int, int]:
    """R = ``number``, a row for each pattern, and the largest W with R·(W + 1 + H) at most the budget of memory floats.

    Example:
        >>> rows_and_width(2080, number=16), rows_and_width(8256, number=64, heads=1)
        ((16, 125), (64, 127))
    """
    width = budget // number - 1 - heads
    if width < 1:
        raise ValueError(f"{budget} floats are too few for {number} rows, each with {1 + heads} of bookkeeping")
    return number, width


class MANN(Rival):
    """A matrix with heads that find rows by content, and a write that goes where none has looked for long.

    A step of the controller, an LSTM, turns a code into its output ``h``. From ``h`` each head has a key
    ``k`` and a gate ``g`` in (0, 1). With ``M`` the matrix, a pattern is written in four strokes:

    - the least used row is set to zero: ``ℓ`` is 1 there and 0 elsewhere, ``M ← (1 − ℓ) M``;
    - ``w_w = g w_r + (1 − g) ℓ`` with the head's last read weights ``w_r``, then ``M ← M + Σ over heads of w_w kᵀ``;
    - the new read weights are ``w_r = softmax over rows of β cos(k, M)``;
    - the usage of the rows is ``w_u ← decay · w_u + Σ over heads of (w_r + w_w)``.

    A query is a step of the controller and a read, ``Σ over rows of w_r M``. Nothing is written, so queries
    do not see each other. The decoder sees ``h`` and what the heads read.

    Usage and last read weights are counted in the memory's floats, since writing could not go on without them.
    Four things differ from the source:

    - the sharpness β > 0, one learned number a head, as in the neural Turing machine. Without it
      no weight could exceed its neighbour's by more than e²;
    - in the cosine a row counts as 0.01 longer than it is, so that an empty row is like no key;
    - all heads write into one row. In the source each writes into the H least used: a pattern is stored H times;
    - the controller starts every step afresh, so that it has nothing to forget and nothing to recur to. Patterns are
      independent: its state would tell nothing of the next one, and would cost 2U floats.

    Args:
        features, heads, controller, code_width: d or S, H, U and C.
        rows, width: R and W, as :func:`rows_and_width` finds them. Beyond R patterns the least recently used are lost.
        encoder, decoder: as of every rival, the decoder from output and reads, (M, U + H·W); by default an
            :class:`ebmm.coders.Encoder` and a :class:`ebmm.coders.Decoder`, for vectors.
        decay, sharpness: of the usage, in [0, 1), and start value of β, above 0.

    A memory is ``"matrix"``, (B, R, W), ``"usage"``, (B, R), and ``"weights"``, (B, H, R), the last read weights.

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

    settings = ("rows", "width", "heads", "controller", "code_width", "decay")

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
    ):
        if not 0 <= decay < 1 or sharpness <= 0:
            raise ValueError(f"decay must lie in [0, 1) and sharpness above 0, got {decay} and {sharpness}")

        def default(d: int) -> tuple[Encoder, Decoder]:
            return Encoder(d, code_width), Decoder(controller + heads * width, d)

        sizes = {"rows": rows, "width": width, "heads": heads, "controller": controller, "code_width": code_width}
        super().__init__(features, code_width, encoder, decoder, default, **sizes)
        self.rows, self.width, self.heads, self.controller = rows, width, heads, controller
        self.code_width, self.decay = code_width, decay
        self.from_code = _linear(code_width, 3 * controller, scale=0.5)
        self.to_keys = _linear(controller, heads * width, scale=4.0)
        self.to_gates = _linear(controller, heads, scale=0.1)
        nn.init.constant_(self.to_gates.bias, GATE)
        self.log_sharpness = nn.Parameter(torch.full((heads, 1), math.log(sharpness)))

    @property
    def memory_shapes(self) -> dict[str, Sizes]:
        return {"matrix": (self.rows, self.width), "usage": (self.rows,), "weights": (self.heads, self.rows)}

    def initial_memory(self, batch_size: int = 1) -> Memory:
        """B empty memories: every row alike, none used, no head that has looked anywhere."""
        like = self.log_sharpness
        return Memory(
            {
                "matrix": like.new_full((batch_size, self.rows, self.width), START),
                "usage": like.new_zeros(batch_size, self.rows),
                "weights": like.new_zeros(batch_size, self.heads, self.rows),
            }
        )

    def _write(self, codes: Tensor, held: dict[str, Tensor] | None) -> dict[str, Tensor]:
        now = dict(self.initial_memory(len(codes))) if held is None else held
        # No step of the controller needs the one before, so it takes all N at once.
        keys, gates = self._keys_and_gates(self._controlled(codes))
        for key, gate in zip(keys.unbind(1), gates.unbind(1), strict=True):
            now = self._write_step(key, gate, now)
        return now

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        output = self._controlled(self._encoded(query))
        keys, _ = self._keys_and_gates(output)
        weights = self._address(keys.flatten(1, 2), held["matrix"])
        reads = (weights @ held["matrix"]).unflatten(1, keys.shape[1:3])
        return [self._decoded(torch.cat([output, reads.flatten(2)], dim=-1))]

    def _controlled(self, codes: Tensor) -> Tensor:
        """The controller's output, (..., U)."""
        admit, show, candidate = self.from_code(codes).chunk(3, dim=-1)
        return torch.sigmoid(show) * torch.tanh(torch.sigmoid(admit) * torch.tanh(candidate))

    def _keys_and_gates(self, output: Tensor) -> tuple[Tensor, Tensor]:
        """Keys (..., H, W) and write gates (..., H, 1)."""
        keys = self.to_keys(output).unflatten(-1, (self.heads, self.width))
        return keys, torch.sigmoid(self.to_gates(output)).unsqueeze(-1)

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


def _linear(inputs: int, outputs: int, scale: float) -> nn.Linear:
    """A linear layer whose outputs start ``scale`` times as large as its inputs, with biases of 0.

    With the usual small weights and random biases all keys would start alike, and no row could be found.
    """
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=scale * inputs**-0.5)
    nn.init.zeros_(layer.bias)
    return layer
