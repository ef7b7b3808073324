"""The gradients of an energy that writing and reading take, recorded as PyTorch runs or compiled, alone or in loops."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

Weights = dict[str, Tensor]
Energy = Callable[[Tensor, Weights], Tensor]  # of points and all weights
Loop = Callable[..., list[Any]]
BothSlopes = tuple[Weights, Weights | None]


class Slopes(Protocol):
    """Gradients of an energy summed over points; with ``keep`` they are recorded, to be differentiated once more."""

    def of_weights(
        self, energy: Energy, x: Tensor, weights: Weights, static: Weights, squared: bool, keep: bool
    ) -> BothSlopes:
        """Of ``E`` and, if ``squared``, of ``‖∇ₓE‖²``, in the weights: two dictionaries, the second maybe ``None``."""

    def of_points(self, energy: Energy, x: Tensor, weights: Weights, keep: bool) -> Tensor:
        """Of ``E`` in the points."""

    def loop(self, steps: Loop, keep: bool) -> Loop:
        """A function that takes all steps of writing or reading, as it is or compiled."""


class Recorded:
    """By ``torch.autograd.grad``.

    Example:
        >>> def energy(x, weights):
        ...     return (x * weights["a"]).sum(-1)
        >>> x, weights = torch.ones(1, 2), {"a": torch.tensor([3.0, 4.0])}
        >>> Recorded().of_points(energy, x, weights, keep=False)
        tensor([[3., 4.]])
        >>> Recorded().of_weights(energy, x, weights, {}, squared=True, keep=False)
        ({'a': tensor([1., 1.])}, {'a': tensor([6., 8.])})
    """

    def of_weights(
        self, energy: Energy, x: Tensor, weights: Weights, static: Weights, squared: bool, keep: bool
    ) -> BothSlopes:
        # A fresh leaf each time: one shared by all steps would let ∇ₓE differentiate through earlier writes.
        x = x.detach().requires_grad_(squared)
        weights = {
            name: weight if keep and weight.requires_grad else weight.detach().requires_grad_()
            for name, weight in weights.items()
        }
        leaves, total = list(weights.values()), energy(x, weights | static).sum()
        gradient = partial(torch.autograd.grad, materialize_grads=True)
        if not squared:
            return dict(zip(weights, gradient(total, leaves, create_graph=keep), strict=True)), None
        slope, *of_energy = gradient(total, [x, *leaves], create_graph=True)  # in one pass
        of_energy = of_energy if keep else [one.detach() for one in of_energy]
        of_squared = gradient(slope.square().sum(), leaves, create_graph=keep)
        return dict(zip(weights, of_energy, strict=True)), dict(zip(weights, of_squared, strict=True))

    def of_points(self, energy: Energy, x: Tensor, weights: Weights, keep: bool) -> Tensor:
        return recorded_slope(lambda x: energy(x, weights), x, keep)

    def loop(self, steps: Loop, keep: bool) -> Loop:
        return steps


def recorded_slope(energy: Callable[[Tensor], Tensor], x: Tensor, keep: bool) -> Tensor:
    """``∇E`` in points x, recorded if ``keep``."""
    x = x if x.requires_grad and keep else x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(energy(x).sum(), x, create_graph=keep)
    return slope


def weight_slopes(
    energy: Energy, x: Tensor, weights: Weights, static: Weights, squared: bool, keep: bool
) -> BothSlopes:
    def total(weights: Weights, x: Tensor) -> Tensor:
        return energy(x, weights | static).sum()

    def slope_squared(weights: Weights) -> Tensor:
        slope: Tensor = torch.func.grad(total, argnums=1)(weights, x)
        return slope.square().sum()

    of_energy = torch.func.grad(total)(weights, x)
    return of_energy, torch.func.grad(slope_squared)(weights) if squared else None


def point_slope(energy: Energy, x: Tensor, weights: Weights, keep: bool) -> Tensor:
    slope: Tensor = torch.func.grad(lambda x: energy(x, weights).sum())(x)
    return slope


class Compiled:
    """By ``torch.func.grad``, compiled: for the shape of the first points, at the next shape once more for all."""

    def __init__(self) -> None:
        self.of_weights, self.of_points = torch.compile(weight_slopes), torch.compile(point_slope)

    def loop(self, steps: Loop, keep: bool) -> Loop:
        return steps


class CompiledLoops:
    """The same within loops of writing and of reading that are compiled each as one graph, where they are recorded."""

    def __init__(self) -> None:
        self.of_weights, self.of_points, self._loops = weight_slopes, point_slope, dict[str, Loop]()

    def loop(self, steps: Loop, keep: bool) -> Loop:
        if keep and steps.__name__ not in self._loops:
            self._loops[steps.__name__] = torch.compile(steps, dynamic=False)
        return self._loops[steps.__name__] if keep else steps


@contextmanager
def compiled(model: Any, whole: bool = False) -> Iterator[None]:
    """Within it, a model that writes and reads by gradients takes compiled ones, or compiles each loop as a whole."""
    before = model.slopes
    model.slopes = CompiledLoops() if whole else Compiled()
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # the name up to 2.6
    try:
        with config.patch({limit: 64}):  # it counts all models of a process together
            yield
    finally:
        model.slopes = before
