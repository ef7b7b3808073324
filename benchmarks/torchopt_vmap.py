"""TorchOpt under ``torch.vmap``: its functional SGD writes, ``torch.func.grad`` reads."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torchopt
from torch.func import grad

from benchmarks import formula
from benchmarks.problem import Arrays, Form, Size
from benchmarks.torch_form import as_tensor, form_of, tensors


def build(size: Size, parameters: Arrays, patterns: np.ndarray, queries: np.ndarray, dtype: str) -> Form:
    p, patterns, queries = tensors(parameters, dtype), as_tensor(patterns, dtype), as_tensor(queries, dtype)
    energy = partial(formula.total_energy, p, size)

    def loss_of_one(patterns, queries):
        memory = start = p["memory.weight"], p["memory.bias"]
        optimiser = torchopt.sgd(lr=1.0)  # the rates are in the loss
        state = optimiser.init(memory)

        def writing_loss(memory, rates):
            return formula.writing_loss(energy, patterns, memory, start, rates, grad(energy))

        for rates in formula.write_rates(p):
            updates, state = optimiser.update(grad(writing_loss)(memory, rates), state, inplace=False)
            memory = torchopt.apply_updates(memory, updates, inplace=False)
        iterates = formula.read(p, queries, lambda x: grad(energy)(x, *memory))
        return formula.distance(iterates, patterns)

    return form_of(lambda: torch.vmap(loss_of_one)(patterns, queries).mean(), p)
