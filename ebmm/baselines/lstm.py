"""The long short-term memory: patterns are read one after the other into a state of fixed size.

It is what the contest is measured from: nothing in it is made for addressing by content.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebmm.baselines.rival import Rival, Sizes
from ebmm.coders import Decoder, Encoder

STORE, RECALL = 1.0, -1.0


class LSTMLayer(nn.Module):
    """One layer of long short-term memory cells: gates from the input and the layer's own last output.

    With input ``a``, output ``h`` and cells ``c``, and for each gate its own rows of ``W``, ``U``, ``b``:

    - ``i, f, o = sigmoid(W a + U h + b)``, the input, forget and output gates,
    - ``g = tanh(W a + U h + b)``, the candidate,
    - ``c ← f ⊙ c + i ⊙ g``  and  ``h ← o ⊙ tanh(c)``.

    The forget gates' biases start at 1, so that cells keep what they hold at first; all others at 0.

    Shape:
        inputs: (N, ..., A), N steps. output, cell: (..., H), or such that they broadcast to it, the state
        before. returns: the outputs of all steps, (N, ..., H), and the last cells, (..., H).

    Hochreiter and Schmidhuber, *Long Short-Term Memory* (1997); the forget gate: Gers, Schmidhuber and
    Cummins, *Learning to Forget* (2000).
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.from_input = nn.Linear(inputs, 4 * hidden)
        self.recurrent = nn.Parameter(torch.empty(hidden, 4 * hidden))  # U transposed: faster on the way back
        with torch.no_grad():
            self.from_input.bias.zero_()
            self.from_input.bias[hidden : 2 * hidden] = 1
            self.recurrent.uniform_(-(hidden**-0.5), hidden**-0.5)

    def forward(self, inputs: Tensor, output: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for from_input in self.from_input(inputs):  # W a + b depends on no state: all N at once
            admit, keep, show, candidate = (from_input + output @ self.recurrent).chunk(4, dim=-1)
            cell = torch.sigmoid(keep) * cell + torch.sigmoid(admit) * torch.tanh(candidate)
            output = torch.sigmoid(show) * torch.tanh(cell)
            outputs.append(output)
        return torch.stack(outputs), cell


class LSTMMemory(Rival):
    """A recurrent network that reads the patterns, then each query in one more step from the same state.

    An input is a pattern's code and a flag, +1 to store and −1 to recall. A query enters the gates as a pattern does,
    and the decoder sees the layers' outputs after that step, nothing else.

    Where there are several layers, each also sees the input, and the decoder all their outputs (Graves 2013):
    without these paths they learn slowly even to copy the query.

    Args:
        features, hidden, layers, width: d or S, H cells of each layer, L layers, and C, size of a code.
        encoder, decoder: as of every rival, the decoder from outputs (M, L·H); by default an
            :class:`ebmm.coders.Encoder` and a :class:`ebmm.coders.Decoder`, for vectors.

    A memory is the state after the last pattern, ``"output"`` and ``"cell"``, (B, L, H) each.

    Example:
        >>> model = LSTMMemory(64, hidden=520, layers=2)
        >>> patterns = torch.randint(0, 2, (3, 16, 64)).float()
        >>> memory = model.write(patterns)
        >>> memory["cell"].shape, model.read(patterns, memory).shape, model.memory_floats
        (torch.Size([3, 2, 520]), torch.Size([3, 16, 64]), 2080)

    Graves, *Generating Sequences With Recurrent Neural Networks* (2013). Paper, table 1, row 6.
    """

    settings = ("hidden", "width")

    def __init__(
        self,
        features: int | tuple[int, ...],
        hidden: int,
        layers: int = 1,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        width: int = 128,
    ):
        def default(d: int) -> tuple[Encoder, Decoder]:
            return Encoder(d, width), Decoder(layers * hidden, d)

        super().__init__(features, width, encoder, decoder, default, hidden=hidden, layers=layers, width=width)
        self.hidden, self.width = hidden, width
        self.layers = nn.ModuleList(LSTMLayer(width + 1 + (hidden if i else 0), hidden) for i in range(layers))

    @property
    def memory_shapes(self) -> dict[str, Sizes]:
        state = (len(self.layers), self.hidden)
        return {"output": state, "cell": state}

    def _write(self, codes: Tensor, held: dict[str, Tensor] | None) -> dict[str, Tensor]:
        if held is None:
            outputs = cells = codes.new_zeros(len(codes), len(self.layers), self.hidden)
        else:
            outputs, cells = held["output"], held["cell"]
        shown, kept = self._run(_flagged(codes, STORE).transpose(0, 1), outputs, cells)
        return {"output": torch.stack([output[-1] for output in shown], dim=1), "cell": torch.stack(kept, dim=1)}

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        """One step for all queries at once, each from the same state: (B, 1, H) beside (B, Q, H)."""
        inputs = _flagged(self._encoded(query), RECALL)[None]
        shown, _ = self._run(inputs, held["output"].unsqueeze(2), held["cell"].unsqueeze(2))
        return [self._decoded(torch.cat(shown, dim=-1)[0])]

    def _run(self, inputs: Tensor, outputs: Tensor, cells: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Each layer over all steps: its outputs (N, ..., H) and last cells; layers are dimension 1 of the state."""
        below, shown, kept = inputs, [], []
        for layer, output, cell in zip(self.layers, outputs.unbind(1), cells.unbind(1), strict=True):
            output, cell = layer(below, output, cell)
            below = torch.cat([inputs, output], dim=-1)
            shown.append(output)
            kept.append(cell)
        return shown, kept


def _flagged(codes: Tensor, flag: float) -> Tensor:
    return torch.cat([codes, torch.full_like(codes[..., :1], flag)], dim=-1)
