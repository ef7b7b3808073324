"""The method once more, as slowly and plainly as possible: the twin that the fast code is compared with.

One memory at a time, one pattern at a time, every gradient by ``torch.autograd.grad``, straight
from equations 1, 3 and 4 of the paper.
"""

import torch
from torch.func import functional_call


def write(model, patterns):
    """Write each memory's patterns (B, N, *S) in a loop; a list of B dicts of weights."""
    return [write_one(model, patterns[b]) for b in range(len(patterns))]


def write_one(model, patterns):
    names = model.writable
    initial = {name: model.energy_network.get_parameter(name) for name in names}
    weights = dict(initial)
    groups = [pattern[None] for pattern in patterns] if model.sequential else [patterns]
    for group, rates in ((group, rates) for group in groups for rates in model.write_rates()):
        parts = len(group) if model.reduction == "mean" else 1
        energy_step = dict.fromkeys(names, 0.0)
        gradient_step = dict.fromkeys(names, 0.0)
        for pattern in group:
            x = pattern.clone().requires_grad_()
            energy = energy_of(model, weights, x)
            for name in names:
                g = torch.autograd.grad(energy, weights[name], create_graph=True, allow_unused=True)[0]
                energy_step[name] += (0.0 if g is None else g) / parts
            if model.gradient_term:
                slope = torch.autograd.grad(energy, x, create_graph=True)[0]
                squared_norm = (slope * slope).sum()
                for name in names:
                    g = torch.autograd.grad(squared_norm, weights[name], create_graph=True, allow_unused=True)[0]
                    gradient_step[name] += (0.0 if g is None else g) / parts
        layers = sorted({name.rpartition(".")[0] for name in names})
        updated = {}
        for name in names:
            energy_rate, gradient_rate, decay_rate = rates[:, layers.index(name.rpartition(".")[0])]
            updated[name] = weights[name] - energy_rate * energy_step[name]
            if model.gradient_term:
                updated[name] = updated[name] - gradient_rate * gradient_step[name]
            if model.decay_term:
                updated[name] = updated[name] - decay_rate * 2 * (weights[name] - initial[name])
        weights = updated
    return weights


def read(model, queries, memories):
    """Read each query (B, Q, *S) in a loop; the iterates, (K+1, B, Q, *S)."""
    return torch.stack(
        [
            torch.stack([read_one(model, q, memory) for q in query], 1)
            for query, memory in zip(queries, memories, strict=True)
        ],
        1,
    )


def read_one(model, query, weights):
    x, velocity, iterates = query, torch.zeros_like(query), [query]
    for rate, momentum in zip(model.read_rates(), model.momentum_rates(), strict=True):
        ahead = x + momentum * velocity
        if not ahead.requires_grad:
            ahead = ahead.clone().requires_grad_()
        slope = torch.autograd.grad(energy_of(model, weights, ahead), ahead, create_graph=True)[0]
        velocity = momentum * velocity - rate * slope
        x = x + velocity
        if model.box is not None:
            x = x.clamp(*model.box)
        iterates.append(x)
    return torch.stack(iterates)


def energy_of(model, weights, x, **options):
    """The energy of one point under unbatched weights, a scalar."""
    return functional_call(model.energy_network, weights, (x[None, None],), options).reshape(())


def loss(model, patterns, queries):
    """The reconstruction loss, averaged over iterates, memories and queries."""
    iterates = read(model, queries, write(model, patterns))
    return (iterates[1:] - patterns).flatten(3).square().sum(-1).mean()


def moved(module, seed=0, scale=0.5):
    """The module in float64 with every parameter moved off its start value, so that nothing is zero by chance."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double()
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn(p.shape, generator=generator, dtype=torch.double))
    return module


def central_difference(loss, parameter, direction, step):
    """Slope of ``loss()`` where a parameter moves in a direction; the parameter ends where it was, up to rounding."""
    with torch.no_grad():
        parameter.add_(step * direction)
        above = loss()
        parameter.sub_(2 * step * direction)
        below = loss()
        parameter.add_(step * direction)
    return ((above - below) / (2 * step)).item()
