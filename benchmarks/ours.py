"""Ours: the package, as :func:`ebmm.fit` uses it."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.problem import Arrays, Form, Size
from benchmarks.torch_form import as_tensor, form_of
from ebmm import EBMM
from ebmm.energies import GatedRNNEnergy
from ebmm.gradients import reconstruction_loss
from ebmm.tasks import Batch


def build(size: Size, parameters: Arrays, patterns: np.ndarray, queries: np.ndarray, dtype: str) -> Form:
    return form_of_model(model_with(size, parameters, dtype), patterns, queries, dtype)


def model_with(size: Size, parameters: Arrays, dtype: str) -> EBMM:
    """The package's model with these parameters."""
    energy = GatedRNNEnergy(size.features, size.memory_features, size.hidden, size.hops)
    model = EBMM(energy, write_steps=size.writes, read_steps=size.reads).to(getattr(torch, dtype))
    named = {name if name.startswith("raw") else f"energy_network.{name}": p for name, p in parameters.items()}
    model.load_state_dict({name: as_tensor(array, dtype) for name, array in named.items()})
    return model


def form_of_model(model: EBMM, patterns: np.ndarray, queries: np.ndarray, dtype: str) -> Form:
    written, asked = as_tensor(patterns, dtype), as_tensor(queries, dtype)
    batch = Batch(written, asked, written == asked)
    parameters = {name.removeprefix("energy_network."): p for name, p in model.named_parameters()}
    return form_of(lambda: reconstruction_loss(model, batch)[0], parameters)
