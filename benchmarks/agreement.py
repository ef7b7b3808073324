"""Whether all forms compute the same, in float64: no time counts before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.forms import build
from benchmarks.problem import TINY, Arrays

TOLERANCE = 1e-9
UPDATES = 3


def check_agreement(names: Sequence[str]) -> float:
    """Compare loss, every gradient and the losses of the first updates with those of the first form.

    Returns:
        The largest difference, relative to the largest entry of what is compared.

    Raises:
        ValueError: it is above 1e-9.
    """
    expected, worst = numbers(names[0]), 0.0
    for name in names[1:]:
        found = numbers(name)
        if found.keys() != expected.keys():
            raise ValueError(f"{name} and {names[0]} have gradients in other parameters: {found.keys()}")
        for key, value in found.items():
            difference = np.abs(value - expected[key]).max() / (np.abs(expected[key]).max() or 1.0)
            if not difference <= TOLERANCE:
                raise ValueError(f"{name} and {names[0]} differ in {key} by {difference:.1g} in float64")
            worst = max(worst, float(difference))
    return worst


def numbers(name: str) -> Arrays:
    """All that is compared of a form."""
    form = build(name, TINY, "float64")
    loss, gradients = form.evaluate()
    losses = [form.step() for _ in range(UPDATES)]
    return {"the loss": np.array(loss), **gradients, "the losses of the first updates": np.array(losses)}
