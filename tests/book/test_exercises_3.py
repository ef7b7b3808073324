"""The judges of chapter 3: right answers pass, wrong ones are told why, nobody is told the answer."""

from __future__ import annotations

from fractions import Fraction

import torch

from ebmm.book.exercises import check

HEBB = {"energy": lambda d, n: n / (d / 2), "gradient term": lambda d, n: 0.125 * n / d}


def three_rates(a=0.6, omega=1.0, decay=1.0):
    """Of which the decay, λ₀ a / 2 at its right value, may be off by a factor."""

    def rates(d, N, lambda_0):
        second = a * N / (8 * d)
        return 16 * omega * second, second, (decay(d, N) if callable(decay) else decay) * lambda_0 * a / 2

    return rates


DECAY = {"rates": three_rates(), "best": "b"}


def heavy_ball(
    steps_for=0.01, mu=lambda chi: ((chi**0.5 - 1) / (chi**0.5 + 1)) ** 2, a=lambda chi: 4 / (chi**0.5 + 1) ** 2
):
    """Counts with matrices: C diagonal, M as well, the end is the identity."""

    def steps(chi):
        C = torch.logspace(0, float(torch.tensor(chi).log10()), 50, dtype=torch.double).diag()
        one = torch.eye(50, dtype=torch.double)
        M, before, count = torch.zeros_like(C), torch.zeros_like(C), 0
        while (M - one).norm() > steps_for * one.norm() and count < 3000:
            M, before = M + a(chi) * (one - M) @ C + mu(chi) * (M - before), M
            count += 1
        return count

    return steps


def nothing(chi):
    return 0.0


MOMENTUM = {"steps": heavy_ball(), "one step": "a"}
STARTS = {"random": (15.1, 15.1, 13.1), "another": (37.3, 30.2, 1.5), "mean": (19.9, 15.9, 1.2)}

RIGHT = [
    ("3.1", HEBB),
    ("3.1", {"energy": lambda d, n: torch.tensor(2 * n / d), "gradient term": lambda d, n: Fraction(n, 8 * d)}),
    ("3.2", DECAY),
    ("3.2", DECAY | {"rates": three_rates(a=0.3), "best": "(b)"}),
    ("3.3", lambda d: 2 / d),
    ("3.4", MOMENTUM),
    ("3.5", STARTS),
    ("3.5", {name: [28.0, 20.0, later] for name, later in (("random", 14.0), ("another", 15.0), ("mean", 16.0))}
     | {"another": torch.tensor([40.0, 31.0, 15.0])}),
]  # fmt: skip

WRONG = [
    ("3.1", HEBB | {"energy": lambda d, n: 4 * n / d}, "twice as many patterns"),
    ("3.1", HEBB | {"energy": lambda d, n: 2 / d}, "not their sum"),
    ("3.1", HEBB | {"energy": lambda d, n: n / d}, "the slope of the energy"),
    ("3.1", HEBB | {"energy": lambda d, n: 2 * d / n}, "changed places"),
    ("3.1", HEBB | {"energy": lambda d, n: -2 * n / d}, "positive rate"),
    ("3.1", HEBB | {"energy": lambda d, n: 0.25}, "the same for any d and n"),
    ("3.1", HEBB | {"energy": lambda d, n: 2 * n / d**2}, "compare one step"),
    ("3.1", HEBB | {"energy": 0.25}, "must be a function"),
    ("3.1", HEBB | {"gradient term": lambda d, n: n / d}, "not a itself"),
    ("3.1", HEBB | {"gradient term": lambda d, n: n / d / 2}, "is not ∇ₛ"),
    ("3.1", HEBB | {"gradient term": lambda d, n: 1 / d / 8}, "not their sum"),
    ("3.1", HEBB | {"gradient term": lambda d, n: d / n / 8}, "changed places"),
    ("3.1", HEBB | {"gradient term": HEBB["energy"]}, "the rate for E"),
    ("3.1", HEBB | {"gradient term": lambda d, n: n / d / 16}, "put M = 0"),
    ("3.2", DECAY | {"rates": three_rates(decay=2)}, "slope of ‖M‖²"),
    ("3.2", DECAY | {"rates": three_rates(decay=lambda d, N: N / d)}, "takes the mean"),
    ("3.2", DECAY | {"rates": three_rates(decay=5)}, "too large. At rest"),
    ("3.2", DECAY | {"rates": three_rates(decay=0.2)}, "too small. At rest"),
    ("3.2", DECAY | {"rates": three_rates(decay=1e-6)}, "the decay is not felt"),
    ("3.2", DECAY | {"rates": three_rates(decay=0)}, "above zero"),
    ("3.2", DECAY | {"rates": three_rates(omega=2)}, "another ω"),
    ("3.2", DECAY | {"rates": three_rates(omega=1e-9)}, "another ω"),
    ("3.2", DECAY | {"rates": three_rates(a=0.01)}, "not come to rest"),
    ("3.2", DECAY | {"rates": three_rates(a=1e-5)}, "hardly written"),
    ("3.2", DECAY | {"rates": three_rates(a=3)}, "without end"),
    ("3.2", DECAY | {"rates": lambda d, N, lambda_0: lambda_0}, "3 numbers"),
    ("3.2", DECAY | {"rates": (0.4, 0.02, 0.02)}, "must be a function"),
    ("3.2", DECAY | {"best": "a"}, "left end"),
    ("3.2", DECAY | {"best": "c"}, "Hebb's end"),
    ("3.2", DECAY | {"best": 0.32}, "one of the letters"),
    ("3.3", lambda d: 1 / d, "a factor is missing"),
    ("3.3", lambda d: 0.25 / d, "the rate times α"),
    ("3.3", lambda d: 0.125 / d, "products s sᵀ first"),
    ("3.3", lambda d: 8 / d, "if ∇ₓ were ∇ₛ"),
    ("3.3", lambda d: 2, "divides by d"),
    ("3.3", lambda d: -2 / d, "positive rate"),
    ("3.3", lambda d: 3 / d, "write down both gradients"),
    ("3.3", 2 / 64, "must be a function"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(mu=nothing, a=lambda chi: 2 / (1 + chi))}, "(3.9)"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(mu=nothing)}, "is added"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(a=lambda chi: 2 / (1 + chi))}, "another a is"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(mu=lambda chi: (chi**0.5 - 1) / (chi**0.5 + 1))}, "exponent of μ"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(0.01 / 50**0.5)}, "1 % of the distance at the start"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(0.1)}, "10 % of the distance"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(0.001)}, "0.1 % of the distance"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(0.03)}, "too many or too few"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(mu=lambda chi: ((chi - 1) / (chi + 1)) ** 2)}, "as they do without"),
    ("3.4", MOMENTUM | {"steps": heavy_ball(a=lambda chi: 4 / (chi**0.5 + 1))}, "fewer steps for a larger χ"),
    ("3.4", MOMENTUM | {"steps": lambda chi: 1}, "such steps know C"),
    ("3.4", MOMENTUM | {"steps": lambda chi: 3 * chi**0.5}, "whole numbers"),
    ("3.4", MOMENTUM | {"one step": "b"}, "One number for all directions"),
    ("3.4", MOMENTUM | {"one step": "c"}, "at a price"),
    ("3.5", STARTS | {"another": (14.0, 14.0, 1.5)}, "that holds other patterns"),
    ("3.5", STARTS | {"another": (16.0, 2.0, 1.0)}, "the start knew the patterns"),
    ("3.5", STARTS | {"random": (13.1, 15.1, 15.1)}, "the order 0, 5, 80"),
    ("3.5", {name: [error / 100 for error in errors] for name, errors in STARTS.items()}, "not shares"),
    ("3.5", STARTS | {"another": (373, 302, 15)}, "from 0 to 100"),
    ("3.5", STARTS | {"mean": (19.9, 1.2)}, "3 numbers"),
    ("3.5", {"random": STARTS["random"], "another": STARTS["another"]}, "'mean'"),
]

SECRET = {
    "3.1": r"2 ?\*? ?n ?/ ?d|n ?/ ?\(?8|= 1\b",
    "3.2": r"η|β|16 times|in between|0\.32",
    "3.3": r"2 ?/ ?d",
    "3.4": r"\b(17|34|65|130)\b|root|preconditio|inverse",
    "3.5": r"\d+\.\d",
}


def test_the_starts_are_told_which_is_ahead():
    assert "ahead of the random start: another and mean." in check("3.5", STARTS).reason
    behind = STARTS | {"another": (37.3, 30.2, 14.0), "mean": (19.9, 15.9, 14.0)}
    assert "Neither is ahead." in check("3.5", behind).reason
