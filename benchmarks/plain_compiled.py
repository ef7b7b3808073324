"""Plain, compiled as a whole: writing, reading and the loss in one graph, with nested ``torch.func.grad``."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.func import grad

from benchmarks import formula
from benchmarks.problem import Arrays, Form, Size
from benchmarks.torch_form import as_tensor, form_of, tensors


def build(size: Size, parameters: Arrays, patterns: np.ndarray, queries: np.ndarray, dtype: str) -> Form:
    p, patterns, queries = tensors(parameters, dtype), as_tensor(patterns, dtype), as_tensor(queries, dtype)

    @torch.compile(fullgraph=True, dynamic=False)
    def loss(p: formula.Parameters) -> Tensor:
        energy = partial(formula.total_energy, p, size)

        def squared(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return grad(energy)(x, weight, bias).square().sum()

        def slopes(x: Tensor, weight: Tensor, bias: Tensor) -> tuple[formula.Pair, formula.Pair]:
            return grad(energy, (1, 2))(x, weight, bias), grad(squared, (1, 2))(x, weight, bias)

        start = tuple(p[name].expand(size.memories, *p[name].shape) for name in ("memory.weight", "memory.bias"))
        weight, bias = formula.write(p, patterns, start, slopes)
        iterates = formula.read(p, queries, lambda x: grad(energy)(x, weight, bias))
        return formula.distance(iterates, patterns)

    return form_of(lambda: loss(p), p)
