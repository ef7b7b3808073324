"""``higher`` in a loop over memories: its differentiable SGD writes, ``torch.autograd.grad`` reads."""

from __future__ import annotations

from functools import partial

import higher
import numpy as np
import torch
from torch import nn

from benchmarks import formula
from benchmarks.problem import Arrays, Form, Size
from benchmarks.torch_form import as_tensor, form_of, tensors


class Memory(nn.Module):
    """The memory layer's weights as a module, which is what ``higher`` takes."""

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter):
        super().__init__()
        self.weight, self.bias = weight, bias


def build(size: Size, parameters: Arrays, patterns: np.ndarray, queries: np.ndarray, dtype: str) -> Form:
    p, patterns, queries = tensors(parameters, dtype), as_tensor(patterns, dtype), as_tensor(queries, dtype)
    start = nn.Parameter(p["memory.weight"]), nn.Parameter(p["memory.bias"])
    p["memory.weight"], p["memory.bias"] = start
    module = Memory(*start)
    sgd = torch.optim.SGD(start, lr=1.0)  # the rates are in the loss
    energy = partial(formula.total_energy, p, size)

    def loss_of_one(patterns, queries):
        with higher.innerloop_ctx(module, sgd, copy_initial_weights=False) as (written, optimiser):
            for rates in formula.write_rates(p):
                memory = written.weight, written.bias
                optimiser.step(formula.writing_loss(energy, patterns, memory, start, rates))
            slope = partial(formula.recorded_slope, energy, weight=written.weight, bias=written.bias)
            return formula.distance(formula.read(p, queries, slope), patterns)

    def loss():
        return torch.stack([loss_of_one(*of_one) for of_one in zip(patterns, queries, strict=True)]).mean()

    return form_of(loss, p)
