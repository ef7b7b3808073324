"""Judges of the exercises of chapter 8."""

from __future__ import annotations

import math
from functools import cache
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from ebmm.book.exercises._answers import avoid, function, functions, number, parts, seeded, tensor
from ebmm.book.exercises.variant import Drawn
from ebmm.book.exercises.verdict import exercise, need
from ebmm.experiments import ready
from ebmm.memory import Memory
from ebmm.metrics import wrong_bits
from ebmm.model import EBMM
from ebmm.tasks import RandomBits, RedrawBits

NORMAL = NormalDist()


def _close(given: float, right: float) -> bool:
    return math.isclose(given, right, rel_tol=0.01)


SIZE = Drawn(
    {"d": 1000, "area": 0.99},
    lambda random: {"d": random.randint(15, 50) * 100, "area": random.choice((0.95, 0.96, 0.97, 0.98, 0.995))},
    text=("$d = {d}$ and $A = {area}$",),
    solution=(
        "known({d}, {area}) / (0.138 * {d})",
        "phi({d} / (2 * math.sqrt(known({d}, {area})))) - {area}",
        "{{known({d}, {area}):.0f}}",
    ),
)


@exercise("8.1", 'a dict with the keys "known", a function of d and A, and "times", a number', SIZE)
def known_again(answer: Any, size: Any) -> str:
    known, times = parts(answer, "known", "times")
    function(known, '"known"')
    for dim, area in ((64, 0.95), (500, 0.999)):
        given, right = number(known(dim, area), 'What "known" returns'), _known(dim, area)
        avoid(
            given,
            (2 * right, "One energy varies around its mean, and so does the other: their variances add up."),
            (4 * right, "The gap is half of d, not d."),
            (right**0.5, "That is the root of N. (8.1) holds √N."),
        )
        need(_close(given, right), '"known": solve (8.1) with m = 1 for N. The inverse of Φ is wanted at A.')
    right = _known(size.d, size.area) / (0.138 * size.d)
    need(
        _close(number(times, '"times"'), right),
        '"times": divide what your function gives for this d and A by the number of strings it can recall.',
    )
    return "Yes or no about a string takes one bit out of the energy; all of its bits take a thousand."


def _known(dim: float, area: float) -> float:
    return (dim / (2 * NORMAL.inv_cdf(area))) ** 2


@exercise("8.2", 'a dict with the keys "hebb" and "margins", functions of m and p')
def derived_capacity(answer: Any) -> str:
    hebb, margins = functions(answer, "hebb", "margins")
    for overlap, share in ((0.8, 0.01), (0.5, 0.1)):
        found = number(hebb(overlap, share), 'What "hebb" returns')
        right = (overlap / NORMAL.inv_cdf(1 - share)) ** 2
        avoid(
            found,
            (right / overlap**2, "A query of overlap m brings a signal of m, not of 1."),
            (right**0.5, "That is the spread of the crosstalk. Its variance is the load."),
        )
        need(_close(found, right), '"hebb": signal over the spread of the crosstalk, and the chance to be below 0.')
    for overlap, share in ((0.8, 0.01), (0.5, 0.1)):
        found = number(margins(overlap, share), 'What "margins" returns')
        best = NORMAL.inv_cdf(1 - share) / overlap
        margin = best * math.sqrt(1 - overlap**2)
        right = _load_of(margin)
        avoid(
            found,
            (margin, "That is the margin that is needed. Which load allows it?"),
            (1 / right, "That is one over the load."),
            (_load_of(best), "A query of overlap m brings noise of variance 1 - m², not of 1."),
        )
        need(_close(found, right), '"margins": which margin does the second formula of (5.8) ask for at m and p?')
    return "For good queries the largest margins hold far more than Hebb's couplings, for bad ones hardly more."


def _load_of(margin: float) -> float:
    return 1 / ((1 + margin**2) * NORMAL.cdf(margin) + margin * NORMAL.pdf(margin))


@exercise(
    "8.3", 'a dict with the keys "ratio", a function of a, k and d, "oldest", of a, c and d, and "best", of c and d'
)
def decay(answer: Any) -> str:
    ratio, oldest, best = functions(answer, "ratio", "oldest", "best")
    for a, age, dim in ((0.004, 100, 500), (0.01, 20, 300)):
        found, right = number(ratio(a, age, dim), 'What "ratio" returns'), _ratio(a, age, dim)
        avoid(
            found,
            (right * math.exp(a * age), "The signal of a string decays, too, at each step since it was written."),
            (math.exp(-a * age) * math.sqrt(a * dim), "Variances decay with the square of (1 - a)."),
            (math.exp(-a * age) * 2 * a * dim, "That is by the variance of the crosstalk, not by its spread."),
        )
        need(
            math.isclose(found, right, rel_tol=0.03),
            '"ratio": what is left of the signal after k steps, by the root of the sum of all variances that decay.',
        )
    for a, level, dim in ((0.01, 2.0, 1000), (0.005, 1.5, 2000)):
        found = number(oldest(a, level, dim), 'What "oldest" returns')
        need(
            math.isclose(found, math.log(2 * a * dim / level**2) / (2 * a), rel_tol=0.03),
            '"oldest": at which age does your ratio fall to c?',
        )
    for level, dim in ((2.0, 500), (1.5, 2000)):
        found = number(best(level, dim), 'What "best" returns')
        need(
            math.isclose(found, math.e * level**2 / (2 * dim), rel_tol=0.03),
            '"best": set the derivative of the oldest age by a to zero. A faster decay is a clearer, shorter memory.',
        )
    return "What is kept is a share of d, whatever is written: such a memory never fills, and never breaks down."


def _ratio(a: float, age: float, dim: float) -> float:
    return math.exp(-a * age) * math.sqrt(2 * a * dim)


@cache
def _memory(experiment: str, contestant: str) -> EBMM:
    model: EBMM = ready(experiment, contestant, device="cpu").model
    return model


def _strings(memories: int, count: int, seed: int) -> Tensor:
    return RandomBits(64)(memories * count, seeded(seed)).view(memories, count, 64)


@exercise("8.4", "a function of a model, memories and one pattern each, that returns memories")
def without_a_trace(answer: Any) -> str:
    function(answer, "The answer")
    hops, patterns, outside = _memory("redrawn-64-16", "ebmm-hop"), _strings(10, 16, 84), _strings(10, 400, 85)
    flipped = torch.rand(patterns.shape, generator=seeded(86)).argsort(-1) < 12
    queries = torch.where(flipped, 1 - patterns, patterns)
    with torch.no_grad():
        memory = hops.write(patterns)
    given = answer(hops, memory, patterns[:, :1])
    need(isinstance(given, Memory), f"It must return memories, an ebmm.Memory; this is a {type(given).__name__}.")
    with torch.no_grad():
        before, after = (wrong_bits(hops.read(queries, held), patterns) for held in (memory, given))
        below = (hops.energy(outside, given) < hops.energy(patterns[:, :1], given)).float().mean().item()
    it, lost = after[:, 0].mean().item(), (after[:, 1:].mean() - before[:, 1:].mean()).item()
    need(it > 16, f"The string still comes back with {it:.1f} wrong bits of 64. Go on.")
    need(lost <= 0.3, f"Its neighbours leave {lost:.2f} wrong bits more. Take smaller steps, or stop sooner.")
    told = f"{below:.0%} of the strings never written lie below it"
    need(below >= 0.25, f"It is not recalled, but {told}: it is still known. Go on, with small steps.")
    need(below <= 0.75, f"{told}: it is known as missing. Stop sooner, each memory in its own time.")
    return f"It is not recalled, its neighbours leave {lost:.2f} wrong bits more, and {told}: its energy tells nothing."


@exercise("8.5", "a function of a model, memories, queries and answers, that returns a number for each answer")
def keep_silent(answer: Any) -> str:
    function(answer, "The answer")
    model, patterns = _memory("networks-64-16", "ebmm-gated"), _strings(20, 32, 87)
    queries = RedrawBits(32)(patterns.flatten(0, 1), seeded(88))[0].view(patterns.shape)
    with torch.no_grad():
        memory = model.write(patterns)
        read = model.read(queries, memory)
    wrong = wrong_bits(read, patterns)
    doubts = tensor(answer(model, memory, queries.clone(), read.clone()), wrong.shape, "What it returns").float()
    need(doubts.std() > 0, "All answers get the same number: which is surer than another?")
    kept = wrong[doubts <= doubts.quantile(0.75)].mean().item()
    everything = wrong.mean().item()
    need(
        kept < 0.97 * everything,
        f"With a quarter withheld {kept:.2f} wrong bits are left, with none {everything:.2f}. Is a low number sure?",
    )
    best = wrong.flatten().sort().values[: round(0.75 * wrong.numel())].mean().item()
    return (
        f"With a quarter withheld {kept:.2f} wrong bits are left of {everything:.2f}; an oracle would leave {best:.2f}."
    )
