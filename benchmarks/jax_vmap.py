"""JAX: ``jit`` of ``value_and_grad``, with ``vmap`` over memories and the same products hoisted out of the hops."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import grad, nn
from jax import tree_util as tree

from benchmarks.problem import ADAMW, CLIP, Arrays, Form, Size

Parameters = dict[str, jax.Array]


def build(size: Size, parameters: Arrays, patterns: np.ndarray, queries: np.ndarray, dtype: str) -> Form:
    jax.config.update("jax_enable_x64", dtype == "float64")
    start, patterns, queries = tree.tree_map(lambda array: jnp.array(array, dtype), (parameters, patterns, queries))

    def loss(p: Parameters) -> jax.Array:
        return jax.vmap(lambda own, asked: loss_of_one(p, size, own, asked))(patterns, queries).mean()

    value_and_grad = jax.jit(jax.value_and_grad(loss))

    def update(p: Parameters, moments: tuple[Parameters, Parameters], count: jax.Array):
        value, gradient = jax.value_and_grad(loss)(p)
        return value, *adamw(p, gradient, moments, count)

    update = jax.jit(update, donate_argnums=(0, 1))
    zeros = tree.tree_map(jnp.zeros_like, start)
    now = [tree.tree_map(jnp.copy, start), (zeros, tree.tree_map(jnp.copy, zeros)), jnp.zeros((), dtype)]

    def evaluate() -> tuple[float, Arrays]:
        value, gradient = value_and_grad(start)
        return float(value), {name: np.asarray(one) for name, one in gradient.items()}

    def step() -> float:
        value, *now[:] = update(*now)
        jax.block_until_ready(now)
        return float(value)

    return Form(evaluate, step)


def loss_of_one(p: Parameters, size: Size, patterns: jax.Array, queries: jax.Array) -> jax.Array:
    """The loss of one memory, (N, d) patterns."""

    def energy(x: jax.Array, memory: tuple[jax.Array, jax.Array]) -> jax.Array:
        return total_energy(p, size, x, memory)

    def squared(memory: tuple[jax.Array, jax.Array]) -> jax.Array:
        return jnp.square(grad(energy)(patterns, memory)).sum()

    memory = start = p["memory.weight"], p["memory.bias"]
    for energy_rate, gradient_rate, decay_rate in nn.softplus(p["raw_write_rates"][..., 0]):
        of_energy, of_squared = grad(energy, 1)(patterns, memory), grad(squared)(memory)
        memory = tuple(
            now - (energy_rate * slope + gradient_rate * square) / len(patterns) - 2 * decay_rate * (now - first)
            for now, first, slope, square in zip(memory, start, of_energy, of_squared, strict=True)
        )
    rates = nn.softplus(p["raw_read_rate"]) * products(p["raw_read_rates"])
    momenta = products(p["raw_momentum"]).at[0].set(0)
    x, velocity, distances = queries, jnp.zeros_like(queries), []
    for rate, momentum in zip(rates, momenta, strict=True):
        velocity = momentum * velocity - rate * grad(energy)(x + momentum * velocity, memory)
        x = projected(x + velocity)
        distances.append(jnp.square(x - patterns).sum(-1).mean())
    return jnp.stack(distances).mean()


def total_energy(p: Parameters, size: Size, x: jax.Array, memory: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The sum of the energies of points (N, d)."""
    weight, bias = memory
    signs = 2 * x - 1
    of_memory = jnp.tanh(signs @ weight.T + bias)
    from_pattern = signs @ p["from_pattern.weight"].T + p["from_pattern.bias"]
    width = size.hidden - size.memory_features
    static, gate = jnp.split(from_pattern, [width], -1)
    state = nn.sigmoid(gate) * jnp.concatenate([of_memory, jnp.tanh(static)], -1)
    for _ in range(size.hops - 1):
        static, gate = jnp.split(from_pattern + state @ p["from_state.weight"].T, [width], -1)
        candidate = jnp.concatenate([of_memory, jnp.tanh(static)], -1)
        state = state + nn.sigmoid(gate) * (candidate - state)
    return (state @ p["head.weight"].T + p["head.bias"]).sum()


def products(logits: jax.Array) -> jax.Array:
    """1 and what it becomes when it is multiplied by the sigmoid of one logit after the other."""
    return jnp.concatenate([jnp.ones(1, logits.dtype), jnp.cumprod(nn.sigmoid(logits))])


def projected(x: jax.Array) -> jax.Array:
    """Onto [0, 1], with gradient 1 at the bounds, as ``torch.clamp`` has it; ``jnp.clip`` has 0.5 there."""
    return jnp.where(x < 0, 0.0, jnp.where(x > 1, 1.0, x))


def adamw(p: Parameters, gradient: Parameters, moments: tuple[Parameters, Parameters], count: jax.Array):
    """What PyTorch's does, behind a gradient whose norm is clipped."""
    norm = jnp.sqrt(sum(jnp.square(one).sum() for one in gradient.values()))
    gradient = tree.tree_map(lambda one: one * jnp.minimum(1.0, CLIP / (norm + 1e-6)), gradient)
    count, rate, (b1, b2) = count + 1, ADAMW["lr"], ADAMW["betas"]
    first = tree.tree_map(lambda m, g: b1 * m + (1 - b1) * g, moments[0], gradient)
    second = tree.tree_map(lambda v, g: b2 * v + (1 - b2) * g * g, moments[1], gradient)

    def moved(now: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        direction = m / (1 - b1**count) / (jnp.sqrt(v / (1 - b2**count)) + ADAMW["eps"])
        return now * (1 - rate * ADAMW["weight_decay"]) - rate * direction

    return tree.tree_map(moved, p, first, second), (first, second), count
