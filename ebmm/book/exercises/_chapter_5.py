"""Judges of the exercises of chapter 5."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ebmm.book.exercises._answers import (
    choice,
    function,
    number,
    numbers,
    parts,
    seeded,
    tensor,
    tried,
    whole,
)
from ebmm.book.exercises.variant import Drawn
from ebmm.book.exercises.verdict import exercise, need
from ebmm.experiments.strings import budget, slot_memory
from ebmm.memory import Memory, floats_held
from ebmm.metrics import wrong_bits
from ebmm.tasks import Batch, RandomBits, RedrawBits, Task


def _drawn(task: Task, memories: int) -> Batch:
    return task.sample(memories, seeded(5))


def _error(read: Tensor, batch: Batch) -> float:
    return wrong_bits(read, batch.patterns).mean().item()


def _nearest(query: Tensor, stored: Tensor, bits: Tensor | int) -> Tensor:
    """Of stored strings (B, N, d), the one that differs least from each query in these bits, (B, Q, d)."""
    apart = (query[:, :, None] - stored[:, None]).abs()
    compared = apart[..., :bits] if isinstance(bits, int) else apart * bits[:, :, None]
    return torch.take_along_dim(stored, compared.sum(-1).argmin(-1)[..., None], 1)


def _sizes(dim: int, slots: int, width: int) -> dict[str, Any]:
    floats = budget(dim)
    units = math.isqrt(floats) + 1
    return {
        "dim": dim, "floats": floats, "half": dim // 2, "slots": slots, "width": width, "own": floats // (dim // 2),
        "units": units, "squared": units**2, "over": units**2 - floats, "start": dim // 2 + 1,
    }  # fmt: skip


SIZES = Drawn(
    _sizes(128, 80, 100),
    lambda random: _sizes(random.choice((96, 104, 112, 136, 144, 160)), random.randint(83, 99), random.randint(60, 95)),
    text=(
        "$d = {dim}$ allows {floats} floats", "with {half} slots, and of one with {slots}?",
        "rows of width {width} ",
    ),
    solution=(
        "budget({dim})", "floats == {floats}", "floats // {half}, floats // {slots}", "# (a) {own} is",
        "rows of width {width} ", "if {width} * k", "# (c) {units} x {units} = {squared} would be {over} floats",
        "range({start}, 300) if only_corner({dim}, ",
        "only_corner({dim}, {half}) == 0.5 and floats // fullest == {half}",
        "{half} floats each, half of {dim}. Load {{fullest / {dim}",
    ),
)  # fmt: skip


@exercise("5.1", 'a dict with the keys "a" (two whole numbers), "b", "c" and "d" (one each)', SIZES)
def counting(answer: Any, sizes: Any) -> str:
    given = parts(answer, "a", "b", "c", "d")
    slots = [whole(value, "Part (a)") for value in numbers(given[0], 2, "Part (a)")]
    rows, units, strings = (whole(value, f"Part ({name})") for value, name in zip(given[1:], "bcd", strict=True))
    dim, width = sizes.dim, sizes.width
    floats = budget(dim)

    need(slots[0] != dim, "Part (a): that is as long as the string itself. How much does the budget leave?")
    need(
        slots == [floats // sizes.half, floats // sizes.slots],
        "Part (a): share the floats among the slots, and round down.",
    )

    within = range(1, floats)
    fewer = max(k for k in within if width * k + k * (k + 1) // 2 <= floats)
    need(rows != floats // width, "Part (b): the covariance of the rows travels with the memory, and counts.")
    need(
        rows != max(k for k in within if width * k + k * k <= floats),
        "Part (b): a covariance is symmetric, so that its two halves are the same numbers. They count once.",
    )
    need(
        rows != floats // (width + 1),
        "Part (b): that is one number a row; in U of (5.5) there is one for each pair of rows.",
    )
    need(rows != fewer + 1, "Part (b): count again what so many rows cost: that is over the budget.")
    need(rows == fewer, "Part (b): the rows R and their covariance U of (5.5) must fit together.")

    need(units != dim, "Part (c): so many fit if the trace is symmetric. This one is not.")
    need(units != math.isqrt(floats) + 1, "Part (c): count again what so many units cost: that is over the budget.")
    need(units == math.isqrt(floats), "Part (c): the trace Y of (5.4) has a number for each pair of units, both ways.")

    def corner_alone(length: int) -> float:  # (5.15)
        share: float = sum(math.comb(dim - 1, k) for k in range(length)) / 2 ** (dim - 1)
        return share

    even = next(n for n in range(dim // 2, 2 * dim) if corner_alone(floats // n) <= 0.5)
    need(strings != floats // even, "Part (d): that is the length of such a code, not the number of strings.")
    need(
        abs(strings - even) > 2 or strings == even,
        "Part (d): nearly. A slot holds whole floats; look at the number of strings just before and after.",
    )
    need(
        strings == even,
        "Part (d): find the length C at which (5.15) falls to one half, then at how many slots the budget leaves so "
        "little for each.",
    )
    return "As soon as a slot has less than half of its string's length, no descent can be sure to undo a linear code."


def _masks(redrawn: int) -> dict[str, Any]:
    task = f"Task(RandomBits(64), RedrawBits({redrawn}), 48)" if redrawn != 32 else "full_task"
    intact, wrong = 64 - redrawn, redrawn // 2
    return {
        "redrawn": redrawn, "task": task, "intact": intact, "wrong": wrong, "spread": f"{math.sqrt(redrawn) / 2:.1f}",
        "own": 64 - wrong, "by_chance": intact // 2,
    }  # fmt: skip


MASKS = Drawn(
    _masks(32),
    lambda random: _masks(random.choice((28, 30, 34, 36, 38, 40))),
    text=("{redrawn} bits redrawn",),
    solution=(
        "{task}.sample", "in all {intact} intact bits, a wrong one in {intact} with", "2^-{intact}.",
        "differs in {wrong}\n# bits, give or take {spread};", '({own}, 32), "told": ({intact}, {by_chance})',
    ),
)  # fmt: skip


@exercise(
    "5.2",
    'a dict with the keys "read" (a function), "not told", "told" (two numbers each) and "so" (a letter)',
    drawn=MASKS,
    choices={"so": "abc"},
)
def told_nearest(answer: Any, given: Any) -> str:
    read, blind, told, so = parts(answer, "read", "not told", "told", "so")
    for dim, count in ((64, 40), (19, 7)):
        _try_told(function(read, '"read"'), _drawn(Task(RandomBits(dim), RedrawBits(dim // 2), count), memories=3))

    dim, redrawn = 64, given.redrawn
    own, other = numbers(blind, 2, '"not told"')
    need(
        abs(own - (dim - redrawn)) > 0.5,
        "Not told: a bit that was drawn anew agrees with the old one every other time, so more agree in a query's own "
        "string than those that were left alone.",
    )
    need(abs(own - (dim - redrawn / 2)) < 0.5, "Not told, own string: which share of all bits is wrong in a query?")
    need(abs(other - dim / 2) < 0.5, "Not told, another string: how often do two random bits agree? All are compared.")
    own, other = numbers(told, 2, '"told"')
    need(
        abs(own - (dim - redrawn / 2)) > 0.5 and abs(other - dim / 2) > 0.5,
        "Told: only the intact bits are compared, so count among these.",
    )
    need(abs(own - (dim - redrawn)) < 0.5, "Told, own string: how many bits are compared, and how many can be wrong?")
    need(abs(other - (dim - redrawn) / 2) < 0.5, "Told, another string: how often do two random bits agree?")

    chosen = choice(so, "abc", '"so"')
    need(chosen != "a", "The clamped rows differ from the others in what they were told, not only in how they store.")
    need(chosen != "c", "Compare your counts: told, another string must agree by chance in every bit that is compared.")
    return "Told, no other string comes near; errors of clamped networks are failures of storage alone."


def _try_told(read: Any, batch: Batch) -> None:
    query, intact, stored = batch.queries, batch.intact, batch.patterns.flip(1)
    given = tensor(read(query.clone(), intact.clone(), stored.clone()), query.shape, "What read returns").float()
    need(
        (given[:, :, None] == stored[:, None]).all(-1).any(-1).all(),
        "The ceiling returns one of the stored strings, whole: no blend, and nothing of the query.",
    )

    def misfits(x: Tensor, bits: Tensor) -> Tensor:
        return ((x - query).abs() * bits).sum(-1)

    fewest = misfits(_nearest(query, stored, intact), intact)
    if torch.equal(misfits(given, intact), fewest):
        return
    for bits, mistake in (
        (torch.ones_like(intact), "It compares all bits: the mask changes nothing."),
        (~intact, "It compares the bits that were drawn anew; intact is True where a bit was left alone."),
    ):
        need(not torch.equal(misfits(given, bits), misfits(_nearest(query, stored, bits), bits)), mistake)
    need(False, "Some string that it returns differs from the query in more intact bits than another stored one.")


@exercise(
    "5.3",
    'a dict with the keys "goes to" (a letter), "holds" (a function) and "back" (a number)',
    choices={"goes to": "abcd"},
)
def too_many(answer: Any) -> str:
    goes, holds, back = parts(answer, "goes to", "holds", "back")
    chosen = choice(goes, "abcd", '"goes to"')
    need(chosen != "b", "Count the slots, and the strings that came before: is one still empty?")
    need(chosen != "c", "The order of writing plays no part in (5.10); only scores do.")
    need(chosen != "d", "The softmax of (5.11) is sharp, with β = 100: nearly 1 for one slot and 0 for the others.")
    for shape in ((64,), (5, 64), (2, 3, 7)):
        _try_overwritten(function(holds, '"holds"'), shape)

    batch = _drawn(Task(RandomBits(64), RedrawBits(32), 40), 20)
    torch.default_generator.manual_seed(5)
    places = slot_memory(64, 32)
    with torch.no_grad():
        recalled = places.read(batch.queries, places.write(batch.patterns))
    expected = (wrong_bits(recalled, batch.patterns) <= 8).float().sum(-1).mean().item()
    given = number(back, '"back"')
    need(abs(given - 40) > 0.5, "So many strings were written, more than there are slots. Something must have gone.")
    need(given < 33, "That is more than there are slots.")
    need(
        abs(given - 24) > 2,
        "That would be so if a string too many were lost together with the one in its slot. Look at what the slot "
        "holds afterwards: which of the two can be read from it?",
    )
    need(given > expected - 4, "Fewer than measured. Which slots do the last 8 leave as they were?")
    need(abs(given - expected) < 1.5, "Count those of all 40 with at most 8 wrong bits, mean over several memories.")
    return "Each string too many costs one, the stored one that is most like it. All others stay as they were."


def _try_overwritten(holds: Any, shape: tuple[int, ...]) -> None:
    generator = seeded(5)
    m, s, c = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator).sign(), 0.7
    given = tensor(holds(m.clone(), s.clone(), c), shape, "What holds(m, s, c) returns").float()
    for wrong, mistake in (
        (s, "Nothing is left of the old string only at the price c = 1. Take the step in full."),
        (m, "The winning slot moves, whether it is full or not."),
        (m + s, "The price pulls, too: look at the second part of (5.11)."),
        (s - c * m, "That is the step. It leads away from m."),
        ((m + s) / 2, "The step does not average the two: with p = 1 its size is 1."),
        (m - s + c * m, "The sign is the other way round: try it with an empty slot, m = 0."),
        (s + c * m, "Look at the sign of the price in (5.11), and at where the step begins."),
    ):
        need(not torch.allclose(given, wrong, atol=1e-4), f"What the slot holds: {mistake[0].lower()}{mistake[1:]}")
    need(
        torch.allclose(given, s + (1 - c) * m, atol=1e-4),
        "What the slot holds: take one step of size 1 along the slope that (5.11) gives, with p = 1.",
    )


@exercise("5.4", "a memory: an object with write, read and memory_floats, for strings of 32 bits")
def own_memory(answer: Any) -> str:
    dim, most = 32, 24
    batches = {count: _drawn(Task(RandomBits(dim), RedrawBits(8), count), 40) for count in (8, 16, most)}
    found = {}
    for count, batch in batches.items():
        written, read = tried(answer, batch)
        floats, held = number(getattr(answer, "memory_floats", None), "memory_floats"), floats_held(written)
        need(floats <= budget(dim), f"memory_floats says {floats:g}; the budget is {budget(dim)}.")
        need(
            held <= floats,
            f"After {count} strings a memory holds {held:g} floats of 32 bits, and memory_floats says {floats:g}. "
            "Whatever write returns is counted, and a number of 64 bits twice.",
        )
        found[count] = _error(read, batch)

    batch = batches[most]
    query, ceiling = _error(batch.queries, batch), _error(_nearest(batch.queries, batch.patterns, dim), batch)
    need(
        found[most] < 0.9 * query,
        f"At {most} strings it leaves {found[most]:.2f} wrong bits, and the queries themselves have {query:.2f}. "
        "A memory that does not improve on its queries remembers nothing: where do strings get lost?",
    )
    torch.default_generator.manual_seed(5)
    slots = _error(tried(slot_memory(dim, most), batch)[1], batch)
    said = (
        f"Wrong bits at 8, 16 and 24 strings: {', '.join(f'{error:.2f}' for error in found.values())}. At 24 the query "
        f"has {query:.2f}, slots of codes, untrained, {slots:.2f}, and the nearest string {ceiling:.2f}."
    )
    if not all(held.is_floating_point() and held.isfinite().all() for held in written.values()):
        return f"{said} Its numbers are no floats that one could round: is it fair?"
    coarse = _error(tried(_Coarse(answer, 8), batch)[1], batch)
    return f"{said} With 8 bits of each of its floats, yours would leave {coarse:.2f}: is it fair?"


class _Coarse:
    """A memory whose numbers take one of 2ᵇ levels between writing and reading."""

    def __init__(self, memory: Any, bits: int) -> None:
        self.memory, self.steps = memory, 2**bits - 1

    def write(self, patterns: Tensor) -> Memory:
        return Memory({name: self._rounded(held.float()) for name, held in self.memory.write(patterns).items()})

    def read(self, query: Tensor, memory: Memory) -> Tensor:
        recalled: Tensor = self.memory.read(query, memory)
        return recalled

    def _rounded(self, held: Tensor) -> Tensor:
        low, high = (end.view(-1, *[1] * (held.dim() - 1)) for end in held.flatten(1).aminmax(dim=1))
        step: Tensor = (high - low).clamp(min=1e-12) / self.steps
        rounded: Tensor = low + step * ((held - low) / step).round()
        return rounded


@exercise("5.5", 'a dict with the keys "memory" (one whose numbers take few values), "bits" (of each) and "task"')
def contest_in_bits(answer: Any) -> str:
    memory, bits, task = parts(answer, "memory", "bits", "task")
    each = whole(bits, '"bits"')
    need(1 <= each <= 32, '"bits" are those of one number, from 1 to 32.')
    need(isinstance(task, Task), '"task" must be an ebmm.tasks.Task, such as Task(RandomBits(64), RedrawBits(16), 5).')
    batch = _drawn(task, 60)
    number_stored, dim = batch.patterns.shape[1], batch.patterns[0, 0].numel()
    need(
        batch.patterns.dim() == 3 and torch.equal(batch.patterns, batch.patterns.round()),
        "Let the task's patterns be strings of bits, (B, N, d): the contest of this chapter.",
    )
    query = _error(batch.queries, batch)
    need(query > 0, "The queries of this task are not damaged: nothing needs to be remembered.")

    written, read = tried(memory, batch)
    most = max(len(one.unique()) for held in written.values() for one in held)
    need(
        most <= 2**each,
        f"A tensor of one memory holds {most} different numbers; {each} bits can tell {2**each} apart. Round what is "
        "written, as Rounded does.",
    )
    numbers_held = sum(floats_held({name: held.float()}) for name, held in written.items())
    tables = sum(_values_to_tell(one, each) for held in written.values() for one in held) / len(batch.patterns)
    total = int(each * numbers_held + 32 * tables)
    need(
        total - 64 * len(written) <= 32 * budget(dim),
        f"It holds {total} bits; at {dim} bits a string the contest allows {32 * budget(dim)}. Without the "
        "values that its numbers take nobody can tell what the bits stand for: they count too, 32 bits each. Evenly "
        "spaced, they are told by the two ends.",
    )
    error = _error(read, batch)
    need(
        error < 0.9 * query,
        f"It leaves {error:.2f} wrong bits, and the queries themselves have {query:.2f}: with so few bits it remembers "
        "nothing. Try more of them, or fewer strings.",
    )
    bought = min(dim, total // number_stored)
    nearest = _nearest(batch.queries, batch.patterns, bought)
    of_list = _error(torch.cat([nearest[..., :bought], batch.queries[..., bought:]], -1), batch)
    ahead = "The list is ahead" if of_list < error else "Your memory is ahead" if error < of_list else "They are level"
    return (
        f"{total} bits a memory, {error:.2f} wrong bits of {dim}. A list that buys {bought} bits of each string with "
        f"as many leaves {of_list:.2f}. {ahead}; which memories can learn to need fewer bits stays open."
    )


def _values_to_tell(held: Tensor, bits: int) -> int:
    """How many values of a tensor a reader must be told besides its bits: the ends, if they are evenly spaced."""
    values = held.double().unique()
    if set(values.tolist()) <= {-1, 0, 1}:
        return 0
    if len(values) <= 2:
        return len(values)
    place = (values - values[0]) / (values[-1] - values[0]) * (2**bits - 1)
    return 2 if (place - place.round()).abs().max() < 0.01 else len(values)
