"""The judges of chapter 8: right answers pass, wrong ones are told why, nobody is told the answer."""

from __future__ import annotations

import math
from statistics import NormalDist

import torch

from ebmm import Memory
from ebmm.tasks import RandomBits


def inverse(p):
    return NormalDist().inv_cdf(p)


def known(factor=1.0):
    return lambda d, A: factor * (d / (2 * inverse(A))) ** 2


KNOWN = {"known": known(), "times": known()(1000, 0.99) / 138}


def load_of(margin):
    normal = NormalDist()
    return 1 / ((1 + margin**2) * normal.cdf(margin) + margin * normal.pdf(margin))


def margin(m, p):
    return inverse(1 - p) * math.sqrt(1 - m * m) / m


CAPACITY = {
    "hebb": lambda m, p: (m / inverse(1 - p)) ** 2,
    "margins": lambda m, p: load_of(margin(m, p)),
}
DECAY = {
    "ratio": lambda a, k, d: (1 - a) ** k * math.sqrt(d * (1 - (1 - a) ** 2)),
    "oldest": lambda a, c, d: math.log(2 * a * d / c**2) / (2 * a),
    "best": lambda c, d: math.e * c * c / (2 * d),
}


def uphill(steps, rate=0.1, until=None):
    def forget(model, memory, x):
        strings = RandomBits(64)(len(x) * 300, torch.Generator().manual_seed(1)).view(len(x), 300, 64)
        done = torch.zeros(len(x), 1, dtype=torch.bool)
        for _ in range(steps):
            held = {name: value.detach().requires_grad_() for name, value in memory.items()}
            energy = model.energy(x, Memory(held))
            slopes = torch.autograd.grad(energy.sum(), list(held.values()))
            if until is not None:
                below = model.energy(strings, memory) < energy.detach()
                done |= below.float().mean(1, keepdim=True) >= until
            memory = Memory(
                {
                    name: torch.where(done, value, value + rate * slope).detach()
                    for (name, value), slope in zip(held.items(), slopes, strict=True)
                }
            )
        return memory

    return forget


def energy(model, memory, query, answer):
    with torch.no_grad():
        return model.energy((answer > 0.5).float(), memory)


RIGHT = [
    ("8.1", KNOWN),
    ("8.2", CAPACITY),
    ("8.3", DECAY),
    ("8.4", uphill(80, 0.02, until=0.5)),
    ("8.5", energy),
]

WRONG = [
    ("8.1", KNOWN | {"known": known(2)}, "variances add up"),
    ("8.1", KNOWN | {"known": known(4)}, "half of d"),
    ("8.1", KNOWN | {"known": lambda d, A: d / (2 * inverse(A))}, "holds √N"),
    ("8.1", KNOWN | {"known": lambda d, A: 0.138 * d}, "solve (8.1)"),
    ("8.1", KNOWN | {"times": 46195}, "divide what your function gives"),
    ("8.2", CAPACITY | {"hebb": lambda m, p: (1 / inverse(1 - p)) ** 2}, "a signal of m"),
    ("8.2", CAPACITY | {"hebb": lambda m, p: m / inverse(1 - p)}, "Its variance is the load"),
    ("8.2", CAPACITY | {"hebb": lambda m, p: 0.138}, "signal over the spread"),
    ("8.2", CAPACITY | {"margins": margin}, "Which load allows it"),
    ("8.2", CAPACITY | {"margins": lambda m, p: 1 / load_of(margin(m, p))}, "one over the load"),
    ("8.2", CAPACITY | {"margins": lambda m, p: load_of(inverse(1 - p) / m)}, "noise of variance"),
    ("8.2", CAPACITY | {"margins": lambda m, p: 2}, "which margin does"),
    ("8.3", DECAY | {"ratio": lambda a, k, d: math.sqrt(2 * a * d)}, "decays, too"),
    ("8.3", DECAY | {"ratio": lambda a, k, d: math.exp(-a * k) * math.sqrt(a * d)}, "square of (1 - a)"),
    ("8.3", DECAY | {"ratio": lambda a, k, d: math.exp(-a * k) * 2 * a * d}, "not by its spread"),
    ("8.3", DECAY | {"ratio": lambda a, k, d: math.exp(-a * k)}, "sum of all variances"),
    ("8.3", DECAY | {"oldest": lambda a, c, d: 1 / a}, "fall to c"),
    ("8.3", DECAY | {"best": lambda c, d: c / d}, "derivative of the oldest age"),
    ("8.4", lambda model, memory, x: memory, "still comes back"),
    ("8.4", lambda model, memory, x: x, "must return memories"),
    ("8.4", uphill(4), "it is still known"),
    ("8.4", uphill(7), "known as missing"),
    ("8.4", uphill(6, 0.3), "Its neighbours leave"),
    ("8.5", lambda *given: -energy(*given), "Is a low number sure"),
    ("8.5", lambda model, memory, query, answer: torch.zeros(query.shape[:2]), "the same number"),
    ("8.5", lambda model, memory, query, answer: torch.zeros(3), "must have shape"),
]

SECRET = {
    "8.1": r"46195|335",
    "8.2": r"inv_cdf|Φ⁻¹|m / ",
    "8.3": r"ln|log|exp|√|\be\b c",
    "8.4": None,
    "8.5": None,
}
