"""The judges of chapter 9: right answers pass, wrong ones are told why, nobody is told the answer."""

from __future__ import annotations

import math

import torch
from torch import nn

HEBB = {"causal": lambda k, v: torch.tril(k @ k.T) @ v, "diagonal": lambda N, d: N / d}
STEP = {
    "exact": lambda k: 1 / (k @ k),
    "limit": lambda k: (2 / (k @ k)).item(),
    "harm": lambda m, error: abs(m) * error,
}
REST = {
    "share": lambda eta, a, mu: eta / (eta + a * (1 - mu)),
    "length": lambda eta, mu, g: eta * g / (1 - mu),
    "half life": lambda a: math.log(2) / -math.log(1 - a),
}


def recalls(count, sigma, steps=3000):
    angle = 2 * math.pi * torch.arange(count) / count
    points = torch.stack([angle.cos(), angle.sin()], -1)
    x = torch.tensor([[math.cos(0.9 * math.pi / count), math.sin(0.9 * math.pi / count)]])
    for _ in range(steps):
        weights = torch.softmax(-torch.cdist(x, points).square() / (2 * sigma**2), -1)
        x = x + 0.5 * (weights @ points - x)
    return bool(torch.cdist(x, points).min() < 0.02)


STORAGE = {"pair": lambda N: math.sin(math.pi / N), "recalls": recalls}


class Squares(nn.Module):
    """Steps down the squared error of all pairs."""

    def __init__(self, steps=6, rate=0.2, rows=32, right=True):
        super().__init__()
        self.steps, self.rate, self.rows, self.right = steps, rate, rows, right

    def write(self, k, v):
        M = k.new_zeros(len(k), self.rows, 32)
        for _ in range(self.steps):
            M[:, :32] += self.rate * (v - k @ M[:, :32].mT).mT @ k
        return M

    def forward(self, k, v, q):
        y = q @ self.write(k, v)[:, :32].mT
        return y if self.right else -y


RIGHT = [
    ("9.1", HEBB),
    ("9.2", STEP),
    ("9.3", REST),
    ("9.4", STORAGE),
    ("9.5", Squares()),
]

WRONG = [
    ("9.1", HEBB | {"causal": lambda k, v: k @ k.T @ v}, "those of the future too"),
    ("9.1", HEBB | {"causal": lambda k, v: torch.tril(k @ k.T, -1) @ v}, "sees pair n itself"),
    ("9.1", HEBB | {"causal": lambda k, v: torch.triu(k @ k.T) @ v}, "That is the future"),
    ("9.1", HEBB | {"causal": lambda k, v: torch.softmax(k @ k.T, -1) @ v}, "no softmax"),
    ("9.1", HEBB | {"causal": lambda k, v: v}, "weigh the values"),
    ("9.1", HEBB | {"diagonal": lambda N, d: 1}, "Each of the N patterns"),
    ("9.1", HEBB | {"diagonal": lambda N, d: N}, "division by d"),
    ("9.1", HEBB | {"diagonal": lambda N, d: d}, "agrees with itself"),
    ("9.2", STEP | {"exact": lambda k: 1.0}, "any length"),
    ("9.2", STEP | {"exact": lambda k: 1 / k.norm()}, "squared length"),
    ("9.2", STEP | {"exact": lambda k: 0.5 / (k @ k)}, "what factor"),
    ("9.2", STEP | {"limit": lambda k: 1 / (k @ k)}, "overshoots"),
    ("9.2", STEP | {"limit": lambda k: 3 / (k @ k)}, "with the other sign"),
    ("9.2", STEP | {"harm": lambda m, error: m * error}, "not negative"),
    ("9.2", STEP | {"harm": lambda m, error: m * m * error}, "once, not twice"),
    ("9.2", STEP | {"harm": lambda m, error: error}, "as far as it overlaps"),
    ("9.2", STEP | {"harm": lambda m, error: 0}, "what does the old key read"),
    ("9.3", REST | {"share": lambda eta, a, mu: 1}, "must make up for it"),
    ("9.3", REST | {"share": lambda eta, a, mu: eta / (eta + a)}, "without momentum"),
    ("9.3", REST | {"share": lambda eta, a, mu: a * (1 - mu) / (eta + a * (1 - mu))}, "that is missing"),
    ("9.3", REST | {"share": lambda eta, a, mu: 1 - a}, "equals what decays"),
    ("9.3", REST | {"length": lambda eta, mu, g: eta * g}, "the first step"),
    ("9.3", REST | {"length": lambda eta, mu, g: g / (1 - mu)}, "come to rest"),
    ("9.3", REST | {"half life": lambda a: 0.5 / a}, "is left"),
    ("9.4", STORAGE | {"pair": lambda N: 2 * math.sin(math.pi / N)}, "their distance"),
    ("9.4", STORAGE | {"pair": lambda N: math.sin(math.pi / N) ** 2}, "That is σ²"),
    ("9.4", STORAGE | {"pair": lambda N: 2 * math.pi / N}, "along the circle"),
    ("9.4", STORAGE | {"pair": lambda N: 1}, "half of the distance"),
    ("9.4", STORAGE | {"recalls": lambda N, sigma: True}, "are not recalled"),
    ("9.4", STORAGE | {"recalls": lambda N, sigma: False}, "are recalled"),
    ("9.4", STORAGE | {"recalls": lambda N, sigma: 1}, "True or False"),
    ("9.5", Squares(rows=33), "1056 floats"),
    ("9.5", Squares(right=False), "near chance"),
    ("9.5", 3, "Hand in a module"),
]

SECRET = {
    "9.1": r"tril|N ?/ ?d",
    "9.2": r"[12] ?/ ?\(?k",
    "9.3": r"eta ?/ ?\(|/ ?\(1",
    "9.4": r"sin",
    "9.5": None,
}
