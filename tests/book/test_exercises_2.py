"""The judges of chapter 2: right answers pass, wrong ones are told why, nobody is told the answer."""

from __future__ import annotations

import math
import re

import numpy as np
import torch

import ebmm
from ebmm.book.exercises import check


def by_autograd(scale=1.0, point=lambda x: 2 * x - 1, first=0.5, second=0.5):
    """The slope of the energy of exercise 2.1, or of one with other factors."""

    def slope(x, M, c):
        x = x.requires_grad_()
        s = point(x)
        energy = -first * ((s @ M) * s).sum() + second * c * s.square().sum()
        return scale * torch.autograd.grad(energy, x)[0]

    return slope


def bowl(pick=lambda values: values[-1]):
    """The number that the curvature must exceed, of the eigenvalues of M."""
    return lambda M: pick(torch.linalg.eigvals(M).real.sort().values)


def left(kappa, power=5):
    return ((kappa - 1) / (kappa + 1)) ** power


def apart(delta, beta, start=0.1, scale=1.0):
    """Reads with the dense memory of the package."""
    m = delta / 2 * torch.tensor([0.6, -0.8])
    memory = ebmm.DenseMemory(2, capacity=2, beta=beta)
    stored = memory.write((torch.stack([m, -m])[None] + 1) / 2)
    return scale * (2 * memory.read((start * m[None, None] + 1) / 2, stored, steps=400) - 1).norm()


def noisy(size=lambda gamma, temperature: math.sqrt(2 * gamma * temperature), sign=-1.0, shared=None, clip=True):
    """A step of exercise 2.4, or one with other noise; its noise is the same along the dimension that is shared."""

    def step(x, slope, gamma, temperature):
        shape = [1 if dim == shared else length for dim, length in enumerate(x.shape)]
        x = x + sign * gamma * slope + size(gamma, temperature) * torch.randn(shape)
        return x.clamp(0, 1) if clip else x

    return step


def drawn(noise):
    """The step with noise from another distribution, given for a variance of one."""
    return lambda x, slope, gamma, temperature: (
        x - gamma * slope + math.sqrt(2 * gamma * temperature) * noise(x)
    ).clamp(0, 1)


def same_noise(x, slope, gamma, temperature):
    torch.manual_seed(1)
    return noisy()(x, slope, gamma, temperature)


def clipped_first(x, slope, gamma, temperature):
    return noisy(clip=False)((x - gamma * slope).clamp(0, 1), 0 * slope, gamma, temperature)


PARABOLA = {"slope": by_autograd(), "above": bowl(), "where": 0.5}
VALLEY = {
    "step": lambda low, high: 2 / (low + high),
    "left": [left(kappa) for kappa in (2, 10, 100)],
    "with momentum": [(0.57, 0.2), (0.13, 0.7), (0.0138, 0.95)],
}
PAIR = {"apart": apart, "bits": lambda d: 2 / d}
SAMPLE = {
    "step": noisy(),
    "shares": {0.002: (0, 0, 0, 0.5, 0.5), 0.05: (0.14, 0.02, 0.07, 0.38, 0.39), 0.2: [0.2] * 5},
}
NINE = {"steps": [0.0145, 0.0132, 0.0108, 0.0097, 0.0063], "momenta": [0, 0.64, 0.64, 0.63, 0.63]}

RIGHT = [
    ("2.1", PARABOLA),
    ("2.1", PARABOLA | {"above": lambda M: bowl()(M).item(), "where": torch.tensor(0.5)}),
    ("2.2", VALLEY),
    ("2.2", VALLEY | {"with momentum": torch.tensor(VALLEY["with momentum"]).tolist()}),
    ("2.3", PAIR),
    ("2.3", PAIR | {"apart": lambda delta, beta: float(apart(delta, beta, start=1.0))}),
    ("2.4", SAMPLE),
    ("2.4", SAMPLE | {"shares": SAMPLE["shares"] | {0.01: None}}),
    ("2.5", NINE),
    ("2.5", {name: torch.tensor(part, requires_grad=True) for name, part in NINE.items()}),
    ("2.5", {name: np.array(part) for name, part in NINE.items()}),
]


def momentum(place, pair):
    return VALLEY | {"with momentum": [pair if n == place else p for n, p in enumerate(VALLEY["with momentum"])]}


def shares(temperature, given):
    return SAMPLE | {"shares": SAMPLE["shares"] | {temperature: given}}


WRONG = [
    ("2.1", PARABOLA | {"slope": by_autograd(0.5)}, "the chain rule"),
    ("2.1", PARABOLA | {"slope": by_autograd(-1)}, "downhill"),
    ("2.1", PARABOLA | {"slope": lambda x, M, c: 2 * (c * x - x @ M)}, "not x"),
    ("2.1", PARABOLA | {"slope": by_autograd(second=0)}, "second term of the energy is missing"),
    ("2.1", PARABOLA | {"slope": by_autograd(first=0.25)}, "stands twice"),
    ("2.1", PARABOLA | {"slope": by_autograd(second=0.25)}, "for the second term as well"),
    ("2.1", PARABOLA | {"slope": by_autograd(first=0.125, second=0.25, scale=2)}, "stands twice"),
    ("2.1", PARABOLA | {"slope": by_autograd(3.0)}, "what autograd finds"),
    ("2.1", PARABOLA | {"slope": lambda x, M, c: M}, "must have shape"),
    ("2.1", PARABOLA | {"slope": 2}, "must be a function"),
    ("2.1", PARABOLA | {"above": bowl(lambda values: values[0])}, "in some directions"),
    ("2.1", PARABOLA | {"above": bowl(lambda values: values.abs().max())}, "size of an eigenvalue"),
    ("2.1", PARABOLA | {"above": lambda M: M.diagonal().max()}, "directions of the coordinates"),
    ("2.1", PARABOLA | {"above": bowl(torch.sum)}, "the trace"),
    ("2.1", PARABOLA | {"above": bowl(lambda values: 4 * values[-1])}, "before c as well"),
    ("2.1", PARABOLA | {"above": lambda M: 100}, "positive definite"),
    ("2.1", PARABOLA | {"above": lambda M: M}, "must be a number"),
    ("2.1", PARABOLA | {"where": 0}, "what is x there"),
    ("2.1", PARABOLA | {"where": 1}, "whatever M is"),
    ("2.2", VALLEY | {"step": lambda low, high: 2 / high}, "jumps across the valley"),
    ("2.2", VALLEY | {"step": lambda low, high: 1 / high}, "steepest direction alone"),
    ("2.2", VALLEY | {"step": lambda low, high: 1 / (low + high)}, "where the two cross"),
    ("2.2", VALLEY | {"left": [left(kappa, 1) for kappa in (2, 10, 100)]}, "χ = 2: that is what one step leaves"),
    ("2.2", VALLEY | {"left": [left(2), 0.2, left(100)]}, "χ = 10: five of the best single steps"),
    ("2.2", VALLEY | {"left": left(2)}, "3 numbers"),
    ("2.2", VALLEY | {"with momentum": (0.5, 0.2)}, "three pairs"),
    ("2.2", momentum(0, (0.5, 1.0)), "χ = 2: a momentum lies in"),
    ("2.2", momentum(1, (2 / 11, 0.3)), "with the step from before"),
    ("2.2", momentum(1, (2 / 11, 0.0)), "with the step from before"),
    ("2.2", momentum(2, (0.019, 0.9)), "χ = 100: (2.7) with these two leaves more"),
    ("2.2", momentum(2, (0.0138, 0.3)), "leaves more than the best step alone"),
    ("2.2", momentum(1, (0.16, 0.2)), "others help much more"),
    ("2.2", momentum(1, 0.1), "2 numbers"),
    ("2.3", PAIR | {"apart": lambda delta, beta: 0.0}, "start beside the centre"),
    ("2.3", PAIR | {"apart": lambda delta, beta: apart(delta, beta, scale=0.5)}, "distance in the box"),
    ("2.3", PAIR | {"apart": lambda delta, beta: apart(delta, beta, scale=2)}, "not from the centre"),
    ("2.3", PAIR | {"apart": lambda delta, beta: delta / 2}, "the pattern itself"),
    ("2.3", PAIR | {"apart": lambda delta, beta: apart(delta, 1.5 * beta)}, "the read ends elsewhere"),
    ("2.3", PAIR | {"apart": lambda delta, beta: apart(delta, beta) + 0.05 * (beta * delta**2 < 4)}, "too few steps"),
    ("2.3", PAIR | {"apart": lambda delta, beta: -apart(delta, beta)}, "not negative"),
    ("2.3", PAIR | {"bits": lambda d: 8 / d}, "more than 1"),
    ("2.3", PAIR | {"bits": lambda d: 4 / d}, "2 apart"),
    ("2.3", PAIR | {"bits": lambda d: 1 / d}, "differ in every bit"),
    ("2.3", PAIR | {"bits": lambda d: 1 / d**2}, "find δ² first"),
    ("2.3", PAIR | {"bits": 0.03}, "must be a function"),
    ("2.4", SAMPLE | {"step": noisy(sign=1.0)}, "uphill"),
    ("2.4", SAMPLE | {"step": noisy(clip=False)}, "leaves the box. Π"),
    ("2.4", SAMPLE | {"step": clipped_first}, "clip last"),
    ("2.4", SAMPLE | {"step": noisy(lambda gamma, temperature: 0.1)}, "without noise, τ = 0"),
    ("2.4", SAMPLE | {"step": noisy(lambda gamma, temperature: 0)}, "no noise"),
    ("2.4", SAMPLE | {"step": noisy(shared=0)}, "share their noise"),
    ("2.4", SAMPLE | {"step": noisy(shared=1)}, "share their noise"),
    ("2.4", SAMPLE | {"step": same_noise}, "the same noise at each step"),
    ("2.4", SAMPLE | {"step": noisy(lambda gamma, temperature: math.sqrt(gamma * temperature))}, "too weak"),
    ("2.4", SAMPLE | {"step": noisy(lambda gamma, temperature: 2 * gamma * temperature)}, "take the root"),
    ("2.4", SAMPLE | {"step": noisy(lambda gamma, temperature: gamma * math.sqrt(2 * temperature))}, "multiplied by γ"),
    ("2.4", SAMPLE | {"step": noisy(lambda gamma, temperature: math.sqrt(2 * temperature))}, "does not know γ"),
    ("2.4", SAMPLE | {"step": noisy(lambda gamma, temperature: 3 * math.sqrt(gamma * temperature))}, "variance 2γτ"),
    ("2.4", SAMPLE | {"step": drawn(lambda x: math.sqrt(12) * (torch.rand_like(x) - 0.5))}, "must be normal"),
    ("2.4", SAMPLE | {"step": drawn(lambda x: torch.randn_like(x).sign())}, "must be normal"),
    ("2.4", SAMPLE | {"step": lambda x, slope, gamma, temperature: 0.5}, "must be a tensor"),
    ("2.4", SAMPLE | {"shares": [0, 0, 0, 0.5, 0.5]}, "must be a dict with the temperatures"),
    ("2.4", shares(0.002, (0, 0, 0, 1, 0)), "τ = 0.002: nearly all reads end at one"),
    ("2.4", shares(0.002, (0.2, 0.2, 0.2, 0.2, 0.2)), "τ = 0.002: measured again"),
    ("2.4", shares(0.05, (0.03, 0.0, 0.0, 0.5, 0.47)), "τ = 0.05: measured again"),
    ("2.4", shares(0.2, (200, 200, 200, 200, 200)), "add up to 1"),
    ("2.4", shares(0.2, (0.5, 0.5)), "5 numbers"),
    ("2.5", NINE | {"steps": [0.02] * 4}, "5 numbers"),
    ("2.5", NINE | {"steps": [0.01, 0.01, 0.01, 0.01, -0.01]}, "must be positive"),
    ("2.5", NINE | {"momenta": [0, 0.5, 0.5, 0.5, 1.2]}, "lies in [0, 1)"),
    ("2.5", NINE | {"steps": [0.1] * 5}, "too large"),
    ("2.5", {"steps": [0.006] * 5, "momenta": [0.0] * 5}, "the best single step size"),
]

SECRET = {
    "2.1": r"0\.5|½|largest eigenvalue",
    "2.2": r"2 */ *\(|0\.004|0\.36|0\.9",
    "2.3": r"2 */ *d",
    "2.4": r"0\.(14|38|39|4)\b",
    "2.5": None,
}


def test_schedules_are_compared_and_read_on():
    said = check("2.5", NINE).reason
    distances = [float(number) for number in re.findall(r"0\.\d{4}", said)]
    own, one_size, grid, once, again = distances
    assert own < one_size and grid < one_size and again < once
    assert "it stays" in said
    wild = {"steps": [0.016, 0.014, 0.012, 0.008, 0.004], "momenta": [0, 0.7, 0.9, 0.9, 0.5]}
    assert float(re.findall(r"0\.\d{4}", check("2.5", wild).reason)[0]) != own


def test_the_shares_are_those_of_the_dense_memory():
    """The judge draws by the formulas of the chapter; here the package's memory is descended."""
    angles = torch.deg2rad(torch.tensor([105.0, 190, 275, 5, 35]))
    circle = 0.5 + 0.4 * torch.stack([angles.cos(), angles.sin()], -1)
    dense = ebmm.DenseMemory(2, capacity=5, beta=40.0)
    memory, step, counted = dense.write(circle[None]), noisy(), {}
    torch.manual_seed(3)
    for temperature in SAMPLE["shares"]:
        x = circle[3:].mean(0).expand(1, 1000, 2)
        for _ in range(100):
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(dense.energy(x, memory).sum(), x)
            x = step(x.detach(), slope, 0.02, temperature)
        ends = dense.read(x, memory, steps=50)[0]
        counted[temperature] = (torch.cdist(ends, circle).argmin(1).bincount(minlength=5) / 1000).tolist()
    assert check("2.4", SAMPLE | {"shares": counted})
