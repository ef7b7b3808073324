"""A plain loop over memories, one after the other, by ``torch.autograd.grad``."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch

from benchmarks import formula
from benchmarks.problem import Arrays, Form, Size
from benchmarks.torch_form import as_tensor, form_of, tensors


def build(size: Size, parameters: Arrays, patterns: np.ndarray, queries: np.ndarray, dtype: str) -> Form:
    p, patterns, queries = tensors(parameters, dtype), as_tensor(patterns, dtype), as_tensor(queries, dtype)
    energy = partial(formula.total_energy, p, size)

    def loss_of_one(patterns, queries):
        start = p["memory.weight"], p["memory.bias"]
        weight, bias = formula.write(p, patterns, start, partial(formula.recorded_slopes, energy))
        slope = partial(formula.recorded_slope, energy, weight=weight, bias=bias)
        return formula.distance(formula.read(p, queries, slope), patterns)

    def loss():
        return torch.stack([loss_of_one(*of_one) for of_one in zip(patterns, queries, strict=True)]).mean()

    return form_of(loss, p)
