"""The formula in PyTorch, as directly as it is fast: no class, no check, nothing computed twice.

What does not depend on the hop is hoisted out of the hops: x's part of candidate and gate, in one product, and the
memory's part of the candidate with its tanh. ``weight`` and ``bias`` are those of the memory layer, of one memory or,
with a leading dimension, of B.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.problem import Size

Parameters = dict[str, Tensor]
Pair = tuple[Tensor, Tensor]  # of the memory layer: something for its weight and for its bias
Energy = Callable[[Tensor, Tensor, Tensor], Tensor]  # of x, weight and bias, summed over points


def total_energy(p: Parameters, size: Size, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The sum of the energies of points under one memory, (N, d), or under B, (B, N, d)."""
    signs = 2 * x - 1
    if weight.dim() == 2:
        memory = F.linear(signs, weight, bias)
    else:
        memory = torch.baddbmm(bias.unsqueeze(1), signs, weight.mT).flatten(0, 1)
        signs = signs.flatten(0, 1)
    from_pattern = F.linear(signs, p["from_pattern.weight"], p["from_pattern.bias"])
    of_memory, widths = torch.tanh(memory), [size.hidden - size.memory_features, size.hidden]
    static, gate = from_pattern.split(widths, -1)
    state = torch.sigmoid(gate) * torch.cat([of_memory, torch.tanh(static)], -1)
    for _ in range(size.hops - 1):
        static, gate = torch.addmm(from_pattern, state, p["from_state.weight"].T).split(widths, -1)
        candidate = torch.cat([of_memory, torch.tanh(static)], -1)
        state = state + torch.sigmoid(gate) * (candidate - state)
    return F.linear(state, p["head.weight"], p["head.bias"]).sum()


def write_rates(p: Parameters) -> Tensor:
    """Of the energy, gradient and decay term at each step, (T, 3)."""
    return F.softplus(p["raw_write_rates"])[..., 0]


def write(
    p: Parameters, patterns: Tensor, start: Pair, slopes: Callable[[Tensor, Tensor, Tensor], tuple[Pair, Pair]]
) -> Pair:
    """The written memory; ``slopes`` are those of E and of ‖∇ₓE‖² in weight and bias."""
    share = 1 / patterns.shape[-2]
    weight, bias = start
    for energy_rate, gradient_rate, decay_rate in write_rates(p):
        of_energy, of_squared = slopes(patterns, weight, bias)
        weight, bias = (
            now - share * (energy_rate * slope + gradient_rate * squared) - 2 * decay_rate * (now - first)
            for now, first, slope, squared in zip((weight, bias), start, of_energy, of_squared, strict=True)
        )
    return weight, bias


def writing_loss(
    energy: Energy,
    patterns: Tensor,
    memory: Pair,
    start: Pair,
    rates: Tensor,
    slope: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """A loss whose gradient is the step of :func:`write`, for optimisers that take one; the rates are (3,)."""
    if slope is None:
        slope = partial(recorded_slope, energy)
    energy_rate, gradient_rate, decay_rate = rates
    squared = slope(patterns, *memory).square().sum()
    away = sum((now - first).square().sum() for now, first in zip(memory, start, strict=True))
    share = 1 / patterns.shape[-2]
    return share * (energy_rate * energy(patterns, *memory) + gradient_rate * squared) + decay_rate * away


def read(p: Parameters, queries: Tensor, slope: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """All iterates but the query; ``slope`` is ∇ₓE under what was written."""
    rates = F.softplus(p["raw_read_rate"]) * _products(p["raw_read_rates"])
    momenta = torch.cat([rates.new_zeros(1), _products(p["raw_momentum"])[1:]])
    x, velocity, iterates = queries, torch.zeros_like(queries), []
    for rate, momentum in zip(rates, momenta, strict=True):
        velocity = momentum * velocity - rate * slope(x + momentum * velocity)
        x = (x + velocity).clamp(0, 1)
        iterates.append(x)
    return iterates


def _products(logits: Tensor) -> Tensor:
    """1 and what it becomes when it is multiplied by the sigmoid of one logit after the other."""
    return torch.cat([logits.new_ones(1), torch.cumprod(torch.sigmoid(logits), 0)])


def distance(iterates: list[Tensor], patterns: Tensor) -> Tensor:
    """The loss: the squared distance, averaged over iterates, memories and patterns."""
    return (torch.stack(iterates) - patterns).square().sum(-1).mean()


def recorded_slopes(energy: Energy, x: Tensor, weight: Tensor, bias: Tensor) -> tuple[Pair, Pair]:
    """What :func:`write` takes, by ``torch.autograd.grad``."""
    x = x.detach().requires_grad_()  # a new leaf at each step: ∇ₓE must not differentiate through earlier writes
    slope, *of_energy = torch.autograd.grad(energy(x, weight, bias), (x, weight, bias), create_graph=True)
    of_squared = torch.autograd.grad(slope.square().sum(), (weight, bias), create_graph=True)
    return (of_energy[0], of_energy[1]), (of_squared[0], of_squared[1])


def recorded_slope(energy: Energy, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What :func:`read` takes, by ``torch.autograd.grad``."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    return torch.autograd.grad(energy(x, weight, bias), x, create_graph=True)[0]
