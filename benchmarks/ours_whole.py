"""Ours with writing and reading compiled, a graph each, as ``ebmm.fit(..., compile="whole")`` takes them."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np

from benchmarks.ours import form_of_model, model_with
from benchmarks.problem import Arrays, Form, Size
from ebmm.slopes import compiled

UNTIL_THE_END = ExitStack()


def build(size: Size, parameters: Arrays, patterns: np.ndarray, queries: np.ndarray, dtype: str) -> Form:
    model = model_with(size, parameters, dtype)
    UNTIL_THE_END.enter_context(compiled(model, whole=True))
    return form_of_model(model, patterns, queries, dtype)
