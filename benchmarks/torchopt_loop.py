"""TorchOpt in a loop over memories: its differentiable SGD writes, ``torch.autograd.grad`` reads."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torchopt

from benchmarks import formula
from benchmarks.problem import Arrays, Form, Size
from benchmarks.torch_form import as_tensor, form_of, tensors


def build(size: Size, parameters: Arrays, patterns: np.ndarray, queries: np.ndarray, dtype: str) -> Form:
    p, patterns, queries = tensors(parameters, dtype), as_tensor(patterns, dtype), as_tensor(queries, dtype)
    energy = partial(formula.total_energy, p, size)

    def loss_of_one(patterns, queries):
        memory = start = p["memory.weight"], p["memory.bias"]
        optimiser = torchopt.FuncOptimizer(torchopt.sgd(lr=1.0))  # the rates are in the loss
        for rates in formula.write_rates(p):
            memory = optimiser.step(formula.writing_loss(energy, patterns, memory, start, rates), memory)
        slope = partial(formula.recorded_slope, energy, weight=memory[0], bias=memory[1])
        return formula.distance(formula.read(p, queries, slope), patterns)

    def loss():
        return torch.stack([loss_of_one(*of_one) for of_one in zip(patterns, queries, strict=True)]).mean()

    return form_of(loss, p)
