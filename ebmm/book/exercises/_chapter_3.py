"""Judges of the exercises of chapter 3."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ebmm.book.exercises._answers import avoid, choice, function, number, numbers, parts, seeded
from ebmm.book.exercises.verdict import exercise, need
from ebmm.energies import QuadraticEnergy
from ebmm.model import EBMM
from ebmm.tasks import RandomBits


@exercise("3.1", 'a dict with the keys "energy" and "gradient term", each a function of d and n that returns a rate')
def hebbs_rates(answer: Any) -> str:
    energy, term = parts(answer, "energy", "gradient term")
    sizes = ((64, 8), (50, 5), (30, 12))
    for rate, name in ((energy, "energy"), (term, "gradient term")):
        function(rate, f'"{name}"')
        given = [number(rate(dim, count), f'What "{name}" returns') for dim, count in sizes]
        need(min(given) > 0, f'"{name}": down the loss is a positive rate.')
        need(len(set(given)) > 1, f'"{name}" returns the same for any d and n. The rate depends on both.')
        for rated, (dim, count) in zip(given, sizes, strict=True):
            (_try_energy if name == "energy" else _try_gradient_term)(rated, dim, count)
    return "From M = 0 both terms take the same first step. At the second, the gradient term has something to subtract."


def _try_energy(rate: float, dim: int, count: int) -> None:
    avoid(
        rate,
        (
            4 * count / dim,
            '"energy": that would be right for twice as many patterns. A step takes the mean of its own.',
        ),
        (2 / dim, '"energy": a step takes the mean of its patterns, not their sum; see (3.1).'),
        (count / dim, '"energy": the slope of the energy in M is not quite s sᵀ. See (3.2).'),
        (2 * dim / count, '"energy": d and n have changed places.'),
    )
    need(math.isclose(rate, 2 * count / dim, rel_tol=1e-3), '"energy": compare one step (3.3) with Hebb\'s rule.')


def _try_gradient_term(rate: float, dim: int, count: int) -> None:
    avoid(
        rate,
        (count / dim, '"gradient term": for which a is the first step of (3.6) Hebb\'s? The rate is not a itself.'),
        (count / (2 * dim), '"gradient term": ∇ₓ is not ∇ₛ, since s = 2x − 1. See (3.5).'),
        (1 / (8 * dim), '"gradient term": a step takes the mean of its patterns, not their sum; see (3.5).'),
        (dim / (8 * count), '"gradient term": d and n have changed places.'),
        (2 * count / dim, '"gradient term": that is the rate for E. This term has a first step of its own, (3.6).'),
    )
    need(
        math.isclose(rate, count / (8 * dim), rel_tol=1e-3),
        '"gradient term": put M = 0 into (3.6). For which a is that Hebb\'s rule, and for which rate is it a?',
    )


@exercise(
    "3.2",
    'a dict with the keys "rates" (a function of d, N and λ₀ that returns three) and "best" (a letter)',
    choices={"best": "abc"},
)
def decay(answer: Any) -> str:
    rates, best = parts(answer, "rates", "best")
    function(rates, '"rates"')
    for dim, count, decayed in ((64, 16, 0.05), (40, 5, 0.5)):
        three = numbers(rates(dim, count, decayed), 3, 'What "rates" returns')
        need(min(three) > 0, "Rates must be above zero, all three.")
        need(
            math.isclose(three[0], 16 * three[1], rel_tol=0.02),
            f"With d = {dim}, N = {count} it would end at (3.10) with another ω. By (3.8), which two rates "
            "decide on it, for c = 0?",
        )
        _try_end(three, dim, count, decayed)

    letter = choice(best, "abc", '"best"')
    need(letter != "a", "Look at your curve again, at its left end and to the right of it.")
    need(letter != "c", "A large λ₀ is Hebb's end of the curve.")
    return "A little decay leaves the directions unwritten that few patterns share, and with them some of the noise."


def _try_end(rates: list[float], dim: int, count: int, lambda_0: float) -> None:
    """Where 300 steps with these rates end."""
    patterns = RandomBits(dim)(count, seeded(3))
    X = 2 * patterns - 1
    written = _written(rates, patterns)
    values, directions = torch.linalg.eigh(X @ X.T / dim)
    directions = X.T @ directions / (dim * values).sqrt()  # of XᵀX/d, those with these eigenvalues
    nu = (directions * (written @ directions)).sum(0)
    case = f"d = {dim}, N = {count}, λ₀ = {lambda_0:g}"

    need(
        written.isfinite().all() and written.norm() < 100,
        f"With {case} the steps grow without end: too large for the steepest direction. Take all three rates smaller, "
        "in the same ratio.",
    )
    need(nu.min() > 0.02, f"With {case} the slowest direction is hardly written after 300 steps. Take larger rates.")
    # (3.10) is ν = ω λᵢ / (λᵢ + λ₀) along each direction: 1/ν is a straight line over 1/λᵢ.
    line = torch.stack([torch.ones(count), 1 / values], 1)
    fit = torch.linalg.lstsq(line, 1 / nu[:, None]).solution
    need(
        torch.allclose(line @ fit, 1 / nu[:, None], rtol=0.02),
        f"With {case} it has not come to rest after 300 steps. Take all three rates larger, in the same ratio.",
    )
    found = (fit[1] / fit[0]).item()
    need(found > 0.02 * lambda_0, f"With {case} it ends at the projection: the decay is not felt.")
    ratio = found / lambda_0
    _avoid_factor(ratio, 2, f"With {case} λ₀ comes out wrong by a factor of 2. What is the slope of ‖M‖² in M?")
    _avoid_factor(
        ratio,
        dim / count,
        f"With {case} λ₀ comes out wrong by a factor of d/N. It stands beside XᵀX/d in (3.10), and a step takes the "
        "mean of N patterns.",
    )
    need(
        math.isclose(ratio, 1, rel_tol=0.02),
        f"With {case} it ends at (3.10), but with a λ₀ that is too {'large' if ratio > 1 else 'small'}. At rest a step "
        "of (3.8) and one of the decay add up to nothing: solve that for M.",
    )


def _avoid_factor(ratio: float, factor: float, mistake: str) -> None:
    need(not any(math.isclose(ratio, wrong, rel_tol=0.02) for wrong in (factor, 1 / factor)), mistake)


def _written(rates: list[float], patterns: Tensor) -> Tensor:
    """M after 300 steps of the package."""
    energy = QuadraticEnergy(patterns.shape[1])
    model = EBMM(energy, write_steps=300, write_rate=(rates[0], rates[1], rates[2]))
    with torch.no_grad():
        return energy.memory.matrix(model.write(patterns[None])["memory.weight"])[0]


@exercise("3.3", "a function of d that returns the rate η of the step")
def storkeys_rate(answer: Any) -> str:
    function(answer, "The answer")
    dims = (10, 64, 33)
    given = [number(answer(dim), "What it returns") for dim in dims]
    need(len(set(given)) > 1, "It returns the same for any d. Storkey's rule divides by d.")
    for rate, dim in zip(given, dims, strict=True):
        need(rate > 0, "Down the loss is a positive rate: M moves against the gradient.")
        avoid(
            rate,
            (
                1 / dim,
                "A factor is missing. The energy (3.2) has one of its own, and a gradient made symmetric is halved.",
            ),
            (1 / (4 * dim), "That is the rate times α₂. Which is the rate of the whole loss?"),
            (1 / (8 * dim), "Compare the products s sᵀ first, they alone tell the rate. Then see that α₂ fits."),
            (8 / dim, "From the products s hᵀ you get that only if ∇ₓ were ∇ₛ. But s = 2x − 1."),
        )
        need(
            math.isclose(rate, 2 / dim, rel_tol=1e-3),
            "Write down both gradients in M, make them symmetric, and compare the products s sᵀ with Storkey's.",
        )
    return "Storkey's rule, made for its capacity, is one gradient step on the writing loss."


@exercise(
    "3.4",
    'a dict with the keys "steps" (a function of χ that returns a count) and "one step" (a letter)',
    choices={"one step": "abc"},
)
def acceleration(answer: Any) -> str:
    steps, one = parts(answer, "steps", "one step")
    function(steps, '"steps"')
    conditions = (30, 100, 300, 1000)
    given = [number(steps(chi), 'What "steps" returns') for chi in conditions]
    need(all(count == round(count) and count >= 1 for count in given), "Steps are whole numbers, at least 1.")

    def same(**setting: Any) -> bool:
        return all(abs(_steps(chi, **setting) - count) <= 1 for chi, count in zip(conditions, given, strict=True))

    for setting, mistake in (
        ({"a": _plain, "mu": _none}, "That is (3.9), the steps without momentum."),
        ({"mu": _none}, "That is Polyak's a without its momentum: check that μ (M(t) − M(t−1)) is added."),
        ({"a": _plain}, "That is the rate which is best without momentum. With it, another a is."),
        ({"mu": _root}, "Look at the exponent of μ."),
        (
            {"left": 0.01 / math.sqrt(50)},
            "These are too many: 1 % of the distance at the start, not a distance of 0.01.",
        ),
        ({"left": 0.1}, "These are too few: that is 10 % of the distance."),
        ({"left": 0.001}, "These are too many: that is 0.1 % of the distance."),
    ):
        need(not same(**setting), mistake)
    slope = math.log(given[-1] / given[0]) / math.log(conditions[-1] / conditions[0])
    need(slope > -0.05, "Fewer steps for a larger χ? Check the squares in a and μ.")
    need(slope > 0.2, f"Your steps grow as χ to the power {slope:.2f}: such steps know C. Use the momentum alone.")
    need(slope < 0.8, f"Your steps grow as χ to the power {slope:.2f}, as they do without momentum. Check a and μ.")
    need(
        all(abs(_steps(chi) - count) <= 2 + 0.05 * count for chi, count in zip(conditions, given, strict=True)),
        "They grow as they should, but are too many or too few. Start from M = 0 with no momentum yet, and count until "
        "1 % of the distance to the end is left, with eigenvalues between 1 and χ.",
    )

    letter = choice(one, "abc", '"one step"')
    need(
        letter != "b",
        "One number for all directions: by (3.7), what does it leave of the direction with the smallest eigenvalue?",
    )
    need(letter != "c", "It can be done, at a price: what if each direction had its own rate?")
    return "Momentum takes the root of the condition number. One step takes the inverse of C, and who knows C?"


def _polyak(chi: float) -> float:
    return 4 / (math.sqrt(chi) + 1) ** 2


def _plain(chi: float) -> float:
    return 2 / (1 + chi)


def _root(chi: float) -> float:
    return (math.sqrt(chi) - 1) / (math.sqrt(chi) + 1)


def _square(chi: float) -> float:
    return _root(chi) ** 2


def _none(chi: float) -> float:
    return 0.0


def _steps(chi: float, a: Any = _polyak, mu: Any = _square, left: float = 0.01) -> int:
    """Until so much of the distance is left, by a(χ) and μ(χ). Each direction is followed by its 1 − ν, from 1 to 0."""
    values = torch.logspace(0, math.log10(chi), 50, dtype=torch.double)
    rate, momentum, count = a(chi), mu(chi), 0
    gap = before = torch.ones_like(values)
    while gap.norm() > left * math.sqrt(50):
        gap, before, count = gap - rate * values * gap + momentum * (gap - before), gap, count + 1
    return count


@exercise("3.5", 'a dict with the keys "random", "another" and "mean": wrong bits in % after 0, 5 and 80 steps')
def other_starts(answer: Any) -> str:
    names = ("random", "another", "mean")
    random, another, mean = (
        numbers(values, 3, f'"{name}"') for name, values in zip(names, parts(answer, *names), strict=True)
    )
    everything = random + another + mean
    need(min(everything) >= 0 and max(everything) <= 100, "Wrong bits in percent are wanted, from 0 to 100.")
    need(max(everything) > 1, "Wrong bits in percent are wanted, not shares.")
    need(
        another[0] > random[0],
        "Before any step a network that holds other patterns recalls those: it should do worse than one that holds "
        "none. Was it asked with the queries of the memory that is to be written?",
    )
    need(
        min(random[1], another[1], mean[1]) > 5,
        "So good after five steps? Then the start knew the patterns already: write others than it holds.",
    )
    need(
        random[2] < random[0] and another[2] < another[0],
        "After 80 steps something should have been stored. Do the three numbers stand in the order 0, 5, 80?",
    )
    ahead = [name for name, errors in (("another", another), ("mean", mean)) if errors[2] < random[2]]
    told = f"After 80 steps ahead of the random start: {' and '.join(ahead)}." if ahead else "Neither is ahead."
    return f"After five steps nothing is stored, from any of the three. {told} What five steps need stays open."
