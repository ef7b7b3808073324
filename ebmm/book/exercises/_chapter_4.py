"""Judges of the exercises of chapter 4."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch

from ebmm.book.exercises._answers import avoid, function, number, parts, seeded, tried, whole
from ebmm.book.exercises.variant import Drawn
from ebmm.book.exercises.verdict import exercise, need
from ebmm.energies import MarginEnergy, MLPEnergy
from ebmm.experiments.strings import budget, predictive_memory
from ebmm.memory import floats_held
from ebmm.metrics import wrong_bits
from ebmm.model import EBMM
from ebmm.tasks import Batch, FlipBits, RandomBits, RedrawBits, Task

STEEP = Drawn(
    {"steep": "", "k": 1, "rate": "1.0"},
    lambda random: _steeper(random.choice((2, 3, 4, 5, 6, 7, 8, 9))),
    text=("the scalar memory (4.1){steep}",),
    solution=('"write rate": {rate}, "read rate": {rate}',),
)


def _steeper(k: int) -> dict[str, Any]:
    return {"steep": f" with ${k}E$ in the place of $E$", "k": k, "rate": f"1 / {k}"}


@exercise("4.1", 'a dict with the keys "write rate" and "read rate", a number each', STEEP)
def no_distortion(answer: Any, given: Any) -> str:
    names = ("write rate", "read rate")
    eta, gamma = (number(value, f'"{name}"') for name, value in zip(names, parts(answer, *names), strict=True))
    need(eta != 0, "With this write rate nothing is written: θ stays at the start.")
    need(gamma != 0, "With this read rate nothing is read: x stays at the query.")
    need(abs(1 - given.k * gamma) < 1e-6, "Write 0 over a start of 0, and read from 1: something of the query is left.")
    need(abs(1 - given.k * eta) < 1e-6, "Write 0 over a start of 1, and read from 0: something of the start is left.")
    return "One step of writing copies the pattern, one step of reading copies it back. Nothing is left to learn."


@exercise("4.2", "a function that takes a model and a batch and returns the names of the parameters without a gradient")
def silent_parameters(answer: Any) -> str:
    function(answer, "The answer")
    torch.default_generator.manual_seed(4)
    predictive = predictive_memory(16, hidden=8)
    with torch.no_grad():  # f starts at zero, which would silence what is behind it
        predictive.energy_network.get_parameter("head.weight").normal_(std=0.3)
    perceptron = EBMM(MLPEnergy(12, memory_features=6, hidden=8), write_steps=2, read_steps=3, write_rate=0.02)
    for model, dim in ((predictive, 16), (perceptron, 12)):
        batch = Task(RandomBits(dim), FlipBits(0.15), 4).sample(2, seeded(4))
        _try_names(answer, model, batch)
    return "Without the graph of the write, what is learned is how to read a memory that is written as it always was."


def _try_names(silent: Any, model: EBMM, batch: Batch) -> None:
    given = silent(copy.deepcopy(model), batch)
    need(isinstance(given, list | tuple | set | frozenset), "It must return names, in a list or set.")
    given = {str(name) for name in given}
    known = {name for name, _ in model.named_parameters()}
    unknown = ", ".join(sorted(given - known))
    need(not unknown, f"This model has no parameter {unknown}. Ask the model that is given for its named_parameters().")
    need(given != known, "Not all of them are silent. Only writing goes under no_grad: reading must keep its graph.")
    need(given, "Some are silent. Is the memory written under torch.no_grad()?")
    right = _silent(model, batch)
    need(given != known - right, "These are the ones that do receive a gradient.")
    need(given <= right, "Some that you name do receive a gradient, through the read. A small gradient is not none.")
    need(given == right, "Others are silent as well. What the loss does not depend on has no gradient: None, or zero.")


def _silent(model: EBMM, batch: Batch) -> set[str]:
    """Names of the parameters that receive nothing if the write is not recorded."""
    with torch.no_grad():
        memory = model.write(batch.patterns)
    _, iterates = model.read(batch.queries, memory, trajectory=True)
    loss = (iterates[1:] - batch.patterns).square().sum()
    names, parameters = zip(*model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(loss, parameters, materialize_grads=True)
    return {name for name, slope in zip(names, slopes, strict=True) if not slope.any()}


LOADS = Drawn(
    {"fewest": 4, "few": 8, "many": 24, "most": 32},
    lambda random: {
        "fewest": random.choice((3, 5, 6)),
        "few": random.randint(8, 10),
        "many": random.randint(22, 26),
        "most": random.randint(30, 36),
    },  # fmt: skip
    text=("Write {fewest}, {few}, {many} and {most} instead", "of {fewest}, {few}, 16, {many} and {most}, at"),
    solution=("loads = ({fewest}, {few}, 16, {many}, {most})",),
)


@exercise(
    "4.3", 'a dict with the keys "fails at" (a number of strings), and "largest rate" (a function of d and N)', LOADS
)
def other_loads(answer: Any, loads: Any) -> str:
    fails, largest = parts(answer, "fails at", "largest rate")
    function(largest, '"largest rate"')
    for dim, count in ((64, 16), (64, 4), (128, 48)):
        given = number(largest(dim, count), 'What "largest rate" returns')
        value = (1 + math.sqrt(dim / count)) ** 2  # the largest eigenvalue of the mean of s sᵀ
        avoid(
            given,
            (
                1 / value,
                "That rate finishes the steepest direction at once. It may overshoot, as long as it comes back.",
            ),
            (value, "That is the eigenvalue itself. With which rate does (3.7) no longer shrink?"),
            (2 * dim / (count * value), "That is for XᵀX/d. A write step takes the mean over the patterns: XᵀX/N."),
            (
                2 / (1 - math.sqrt(dim / count)) ** 2,
                "That is the direction which is slowest. Another one breaks first.",
            ),
            (2 * count / dim, "That is for patterns that do not overlap at all. Overlaps spread the eigenvalues."),
            (2 / count, "Should it not depend on d? The eigenvalues of XᵀX/d are those of chapter 3."),
        )
        need(
            math.isclose(given, 2 / value, rel_tol=0.25),  # measured on few strings it differs as much
            "What factor does (3.7) put on what is left to learn, along an eigenvector of the mean of s sᵀ? Find the "
            "rate at which it no longer shrinks for the largest eigenvalue. The text after (3.9) tells eigenvalues.",
        )
    need(
        whole(fails, '"fails at"') == loads.fewest,
        "Look at your plot. And at your own formula: which load asks for the smallest rates?",
    )
    return "With the mean, a rate for one load is too large for a smaller one. The sum over the patterns mends that."


@exercise("4.4", "a trained ebmm.EBMM for strings of 64 bits, with at most 2080 memory floats")
def own_energy(answer: Any) -> str:
    need(
        isinstance(answer, EBMM),
        f"Hand in the trained ebmm.EBMM around your energy; this is of type {type(answer).__name__}.",
    )
    most = budget(64)
    need(answer.memory_floats <= most, f"It holds {answer.memory_floats} floats; {most} are allowed, biases included.")
    batch = Task(RandomBits(64), RedrawBits(32), 16).sample(30, seeded(44))
    written, read = tried(answer, batch)
    held = floats_held(written)
    need(held <= most, f"A memory that it writes holds {held:g} floats; {most} are allowed.")
    pairs = (batch.queries, batch.patterns), (read, batch.patterns), (read, batch.queries)
    query, error, changed = (wrong_bits(*pair).mean().item() for pair in pairs)
    measured = f"{error:.1f} bits of 64 come back wrong, and a query has {query:.1f} wrong bits."
    need(
        error < 1.5 * query,
        f"{measured} It is near chance: reads end at the walls or in the centre of the box. Try another start of the "
        "write rate, smaller if the loss stood still.",
    )
    need(
        error < 0.95 * query or changed > 0.1 * query,
        f"{measured} It leaves the query as it is. Does what is written change the energy at all? See how far training "
        "has come, or try a larger write rate.",
    )
    need(
        error < 0.95 * query,
        f"{measured} Reading turns over as many right bits as wrong ones. Is the model trained, for 16 strings with "
        "half of the bits drawn anew? If so, start from a smaller write rate.",
    )
    classical = wrong_bits(tried(_margins(), batch)[1], batch.patterns).mean().item()
    beside = "fewer than" if error < classical else "not yet fewer than"
    return (
        f"{measured} That is {beside} the margins of (4.7) leave without any training, {classical:.1f}. See where the "
        "perceptron is."
    )


def _margins() -> EBMM:
    """The memory that the perceptron of the chapter starts from."""
    return EBMM(
        MarginEnergy(64), write_steps=6, reduction="sum", projection="straight-through", non_increasing=False,
        gradient_term=False, decay_term=False, write_rate=0.08, read_rate=0.075,
    )  # fmt: skip


@exercise("4.5", 'a dict with the keys "whole" and "cut", functions of η and T, and "turns at", a number')
def two_loops(answer: Any) -> str:
    whole, cut, turns = parts(answer, "whole", "cut", "turns at")
    for given, name, right, other in (
        (whole, '"whole"', _whole_slope, _cut_slope),
        (cut, '"cut"', _cut_slope, _whole_slope),
    ):
        function(given, name)
        for rate, steps in ((0.25, 3), (0.7, 5), (1.5, 2)):
            found, wanted = number(given(rate, steps), f"What {name} returns"), right(rate, steps)
            avoid(
                found,
                (other(rate, steps), f"{name}: that is the other one. Which slopes depend on η?"),
                (-wanted, f"{name}: check the sign. A larger rate leads from θ̄ towards p."),
                ((1 - rate) ** steps, f"{name}: that is what is left, (θ - p) / (θ̄ - p). How does it change with η?"),
                (-1.0, f"{name}: that is a single step. Each of the T steps has its part."),
            )
            need(
                math.isclose(found, wanted, rel_tol=1e-3, abs_tol=1e-6),
                f"{name}: what factor does one step put on θ - p? For (a) differentiate all T of them together, for "
                "(b) add up the slopes, each where its step began.",
            )
    need(
        abs(number(turns, '"turns at"') - 1) < 1e-3,
        '"turns at": for T = 2, find the rate from which your two functions have different signs.',
    )
    return "Cut off, each slope still points to the pattern. Only second derivatives tell that a step spoils the next."


def _whole_slope(rate: float, steps: int) -> float:
    return -steps * (1 - rate) ** (steps - 1)


def _cut_slope(rate: float, steps: int) -> float:
    return -sum((1 - rate) ** step for step in range(steps))


def _entropy(q: float) -> float:
    return 0.0 if q in (0, 1) else -q * math.log2(q) - (1 - q) * math.log2(1 - q)


@exercise("4.6", "a function of wrong bits, N, d, floats and the share of flipped bits that returns bits per float")
def bits_per_float(answer: Any) -> str:
    function(answer, "The answer")

    def measured(*case: float) -> float:
        return number(answer(*case), "What it returns")

    for wrong, count, dim, floats, flipped in ((3.2, 24, 64, 2080, 0.15), (5, 40, 128, 8256, 0.3)):
        given = measured(wrong, count, dim, floats, flipped)
        query, left, each = _entropy(flipped), _entropy(wrong / dim), count * dim / floats
        right = each * (query - left)
        blind = "A wrong bit costs more than itself: nobody knows which one is wrong. Entropy counts that."
        avoid(
            given,
            (each * (1 - left), "The query has told most of it already: subtract what one knows before reading."),
            (each * (1 - wrong / dim), "Right bits are no information: half of them are right by chance."),
            (
                each * (flipped - wrong / dim),
                "Mended bits are counted. But who knows which bits are mended? See entropy.",
            ),
            (each * query, "It does not depend on the wrong bits. Those that come back wrong must count, fairly."),
            (each * (query - wrong / dim), blind),
            (each * query * (1 - wrong / dim), blind),
            (right * math.log(2), "These are nats. Bits are wanted: take the logarithm to the base 2."),
            (right / 32, "Bits a float are wanted, not bits a bit."),
            (right * floats, "That is for the whole memory. Divide by its floats."),
            (right / count, "That is one pattern. The memory holds N of them."),
            (right / dim, "That is one bit of each pattern. A pattern has d of them."),
            (-right, "Check the sign: reading makes less uncertain."),
        )
        need(
            math.isclose(given, right, rel_tol=0.01),
            "What is gained is the uncertainty before reading less that after it, for all bits of all patterns, "
            "divided by the floats.",
        )
    need(
        math.isclose(measured(0, 16, 64, 2080, 0.15), 16 * 64 / 2080 * _entropy(0.15), rel_tol=0.01),
        "If no bit comes back wrong, nothing is uncertain any more: all that the query left open is gained.",
    )
    need(abs(measured(9.6, 16, 64, 2080, 0.15)) < 1e-3, "Nothing is gained where reading mends nothing.")
    return "It bounds from below what a memory holds. How far a float can be filled, and what bounds it, stays open."
