"""Judges of the exercises of chapter 7."""

from __future__ import annotations

from collections.abc import Mapping
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
    varied,
    whole,
)
from ebmm.book.exercises.variant import Drawn
from ebmm.book.exercises.verdict import exercise, need
from ebmm.book.probes import Kept, Mean
from ebmm.datasets import photos
from ebmm.files import data_path
from ebmm.memory import Memory, floats_held
from ebmm.metrics import squared_error
from ebmm.results import load_results
from ebmm.tasks import Batch, ImagePatterns, NoiseBlock, Task


def _photographs() -> Batch:
    """Memories of 64 photographs of the sample that comes with the package, with a block of noise."""
    generator = seeded(7)
    return Task(ImagePatterns(photos().images), NoiseBlock(16), 64, "squared error").sample(2, generator)


def _error(read: Tensor, batch: Batch) -> float:
    return squared_error(read, batch.patterns).mean().item()


def _holdings(each: int, held: int, dyn: int) -> dict[str, Any]:
    split = 2 * (9 * 128 + 1) * dyn
    least = 3 * 64 * 64 // (split // 64)
    return {"floats": each, "held": held, "dyn": dyn, "split": split, "least": least}


HOLDINGS = Drawn(
    _holdings(9232, 16156, 8),
    lambda random: _holdings(
        random.randint(5000, 15000), random.randint(7000, 30000), random.choice((5, 6, 7, 9, 10, 11))
    ),
    text=("memory of {floats} floats", "fit into {held} floats", "hold {split} floats"),
    solution=(
        "each = {floats} //", "fit = {held} //", "* n == {split})", "code, photograph = {split} //",
        "photograph / code > {least}",
    ),
)  # fmt: skip


@exercise("7.1", 'a dict with the keys "a", "b", "c" (whole numbers) and "d" (a number)', HOLDINGS)
def counting(answer: Any, given: Any) -> str:
    *counts, fewer = parts(answer, *"abcd")
    each, fit, dyn = (whole(value, f"Part ({name})") for name, value in zip("abc", counts, strict=True))
    need(each == given.floats // 64, "Part (a): share the floats among 64 photographs, and round down.")

    numbers_each = 3 * 32 * 32
    need(fit != given.held // (32 * 32), "Part (b): a pixel of a photograph has three numbers, one for each colour.")
    need(fit != given.held // numbers_each + 1, "Part (b): so many would not fit.")
    need(fit == given.held // numbers_each, "Part (b): each takes a float for every colour of every pixel.")

    channel = 9 * 128 + 1
    need(dyn != given.split // channel, "Part (c): that would be right for one layer. Two of them are split.")
    need(
        2 * channel * dyn == given.split,
        "Part (c): as (6.2), with kernels of 3 x 3 over 128 channels, and a bias each.",
    )

    ratio, right = number(fewer, "Part (d)"), 3 * 64 * 64 / (given.split // 64)
    need(abs(ratio - right / 3) > 0.5, "Part (d): the photograph has three colours.")
    need(abs(ratio - 1 / right) > 0.01, "Part (d): the other way round. How many of its numbers are there to one?")
    need(abs(ratio - right) < 0.7, "Part (d): divide the numbers of a photograph of 64 x 64 by those of its code.")
    return "Each number of the code stands for a patch of pixels in three colours."


@exercise(
    "7.2",
    'a dict with the keys "elsewhere" (a function), "errors" (three numbers) and "because" (a letter)',
    choices={"because": "abc"},
)
def is_it_the_memory(answer: Any) -> str:
    elsewhere, errors, because = parts(answer, "elsewhere", "errors", "because")
    generator = varied(7)
    patterns, queries = (torch.rand(2, 10, 3, 4, 4, generator=generator) for _ in range(2))
    model = Mean()
    given = function(elsewhere, '"elsewhere"')(model, patterns.clone(), queries.clone())
    given = tensor(given, queries[:, :5].shape, "What elsewhere returns").float()

    def reads(asked: Tensor, written: Tensor) -> bool:
        return torch.allclose(given, model.read(asked, model.write(written)), atol=1e-5)

    asked, others = queries[:, :5], patterns[:, 5:]
    need(not reads(asked, patterns[:, :5]), "That is what their own memory gives: other photographs are to be written.")
    need(not reads(asked, patterns), "The photographs asked for are among those written. Write the others alone.")
    need(
        not reads(queries[:, 5:], others) and not reads(queries[:, 5:], patterns[:, :5]),
        "It asks for the second half. Ask for the first.",
    )
    need(not reads(patterns[:, :5], others), "It asks with the photographs as they were, not with the damaged queries.")
    need(reads(asked, others), "Write the second half of the patterns, and read the first half of the queries from it.")

    own, another, painted = numbers(errors, 3, '"errors"')
    need(
        max(own, another, painted) > 3 and max(own, another, painted) < 1500,
        "Squared errors are wanted, summed over the numbers of a photograph, mean over photographs.",
    )
    need(own < painted, "The own memory should be better than any guess. Compare each answer with its own photograph.")
    need(
        another > painted,
        "Another memory gives back other photographs: it should be worse than painting. Compare with the photographs "
        "that were asked for, not with those that were written.",
    )
    chosen = choice(because, "abc", '"because"')
    need(chosen != "a", "If only the block were wrong, the error could not exceed that of a query. Split it, as above.")
    need(chosen != "b", "Look at what comes back: is it noise? A memory returns what stands in its slots.")
    return "What fits nothing is replaced as a whole: what came back sharp was in the query, the rest was remembered."


@exercise(
    "7.3",
    'a dict with the keys "ours", "network" (four errors each), "meet" (two sizes), "forge" and "so"',
    choices={"so": "abc"},
)
def other_blocks(answer: Any) -> str:
    ours, network, meet, forge, so = parts(answer, "ours", "network", "meet", "forge", "so")
    ours, network = numbers(ours, 4, '"ours"'), numbers(network, 4, '"network"')
    need(
        all(small < large for errors in (ours, network) for small, large in zip(errors, errors[1:], strict=False)),
        "A larger block leaves less to find the photograph by: errors should rise from 8 over 16 and 24 to 28.",
    )
    ahead = [mine < theirs for mine, theirs in zip(ours, network, strict=True)]
    need(
        ahead[0],
        "With a block of 8 nearly everything is in the query. Who keeps it? Look whether the two are exchanged.",
    )
    need(not all(ahead), "They meet somewhere. Are both asked with the same queries, up to a block of 28?")
    sizes = (8, 16, 24, 28)
    crossing = next(place for place in range(1, 4) if not ahead[place])
    given = sorted(whole(value, '"meet"') for value in numbers(meet, 2, '"meet"'))
    need(given == list(sizes[crossing - 1 : crossing + 1]), "Between which two sizes do your own errors change places?")

    _try_forged(function(forge, '"forge"'))
    chosen = choice(so, "abc", '"so"')
    need(chosen != "b", "Then the forged block would stay. Compare the error of what was read with that of the query.")
    need(chosen != "c", "Then everything would come from the other photograph, and the error be as large as in 7.2.")
    return "What does not fit its surroundings in the slot is replaced, noise or not; a likeness is forgiven."


def _try_forged(forge: Any) -> None:
    generator = seeded(7)
    patterns = torch.rand(3, 5, 3, 12, 8, generator=generator)
    _, intact = NoiseBlock(5)(patterns.flatten(0, 1), generator)
    intact = intact.view_as(patterns)
    given = tensor(forge(patterns.clone(), intact.clone()), patterns.shape, "What forge returns").float()
    outside = torch.where(intact, given, patterns)
    need(
        torch.equal(outside, patterns),
        "Outside of the block, where intact is True, each photograph must stay as it is.",
    )
    block = ~intact
    need(
        not ((given == patterns) | intact).flatten(2).all(-1).any(),
        "The block of some photograph is its own still: nothing was forged there.",
    )

    def taken_from(others: Tensor) -> Tensor:
        """Which photographs (B, N) have the block of one of the others (B, M, ...), at the same place."""
        same = (given[:, :, None] == others[:, None]) | ~block[:, :, None]
        return same.flatten(3).all(-1).any(-1)

    elsewhere = patterns.flatten(0, 1)[None].expand(3, -1, -1, -1, -1)
    here = taken_from(patterns)
    need(
        here.all() or not taken_from(elsewhere).all(),
        "Some block comes from another memory. Take it from a photograph that this one holds as well.",
    )
    need(here.all(), "The block must be cut from one other photograph of the same memory, at the same place.")


@exercise("7.4", "a memory of at most 4616 floats: an object with write, read and memory_floats")
def file_format(answer: Any) -> str:
    batch = _photographs()
    written, read = tried(answer, batch)
    floats, held = number(getattr(answer, "memory_floats", None), "memory_floats"), floats_held(written)
    need(floats <= 4616, f"memory_floats says {floats:g}; 4616 are allowed.")
    need(
        held <= floats,
        f"A memory holds {held:g} floats of 32 bits, and memory_floats says {floats:g}. What travels from writing to "
        "reading must be the compressed bytes, not what they decode to.",
    )
    error, query = _error(read, batch), _error(batch.queries, batch)
    need(
        error < query / 2,
        f"It leaves a squared error of {error:.0f}, and the query has {query:.0f}. Does it find the right photograph, "
        "and does it compress all 64?",
    )
    rows = load_results(data_path("results/cifar-conv-4616.json"))
    ours = next(row["mean"] for row in rows if row["model"] == "slot-memory")
    need(
        error < ours,
        f"It leaves a squared error of {error:.1f}, more than our slot memory with {ours:.1f}. So much is left if a "
        "float holds one byte. Fill the floats: four go into each.",
    )
    return (
        f"{held:g} floats, squared error {error:.1f}; our slot memory leaves {ours:.1f}. It needs every bit of every "
        "float. Is it fair, and what if one of them were noisy?"
    )


@exercise("7.5", 'a dict with the keys "shaken" (a class) and "curve" (errors by σ), later also "before" and "after"')
def mind_the_bits(answer: Any) -> str:
    shaken, curve = parts(answer, "shaken", "curve")
    _try_shaken(function(shaken, '"shaken"'))
    need(isinstance(curve, Mapping) and len(curve) >= 4, '"curve" must be a dict of four or more errors by their σ.')
    sigmas = sorted(number(sigma, "σ") for sigma in curve)
    need(sigmas[0] == 0, "Measure without noise as well: σ = 0.")
    errors = [number(curve[sigma], "An error") for sigma in sigmas]
    need(
        all(large > 0.97 * small for small, large in zip(errors, errors[1:], strict=False)) and errors[-1] > errors[0],
        "More noise should leave a larger error. Is it the error of what was read, with the same queries for each σ?",
    )
    if answer.get("before") is None or answer.get("after") is None:
        return (
            "The measure is ready. Train coders with the noise, and hand in the memory before and after that training, "
            'under "before" and "after": they will be compared at 4 bits a number.'
        )
    batch = _photographs()
    held = [floats_held(tried(answer[name], batch)[0]) for name in ("before", "after")]
    need(held[1] <= held[0], "Let both hold as many floats: more of them would be better without any training.")
    old, new = (_error(tried(_FourBits(answer[name]), batch)[1], batch) for name in ("before", "after"))
    return (
        f"At 4 bits a number the error was {old:.1f} before, and is {new:.1f} after. "
        + ("The training helped. " if new < old else "The training did not help yet. ")
        + "How an energy would decide on the bits of each number stays open."
    )


def _try_shaken(shaken: Any) -> None:
    model, patterns = Kept(), torch.zeros(2, 50, 3, 8, 8)
    clean = {name: held.clone() for name, held in model.write(patterns).items()}

    def noise(sigma: float) -> dict[str, Tensor]:
        with torch.no_grad():
            written = shaken(model, sigma).write(patterns.clone())
        need(isinstance(written, Memory) and set(written) == set(clean), "Its write must return the memory's tensors.")
        off = {name: tensor(written[name], held.shape, "A tensor") - held for name, held in clean.items()}
        need(
            all(torch.equal(kept, clean[name]) for name, kept in model.write(patterns).items()),
            "It changes the numbers of the memory that it wraps. A memory is a value: add the noise to a copy.",
        )
        return off

    need(not any(off.any() for off in noise(0.0).values()), "With σ = 0 every number must stay as it is.")
    torch.default_generator.manual_seed(7)
    for sigma in (0.5, 3.0):
        off = noise(sigma)
        need(
            any(part.any() for part in off.values()),
            "What its write returns is exact. The noise belongs between writing and reading, on what travels.",
        )
        need(all(part.any() for part in off.values()), "Some tensor of the memory got no noise. All of them travel.")
        slots = off["slots"]
        need(
            slots.mean(-1).std() < 0.4 * sigma and slots.mean(-2).std() < 0.4 * sigma,
            "Numbers share their noise. Draw some for each of them.",
        )
        need(
            abs(slots.std() - sigma) < 0.05 * sigma and abs(slots.mean()) < 0.05 * sigma,
            "The noise must be normal with mean 0, and σ its standard deviation: not its variance, nor a range.",
        )
    need(
        not torch.equal(noise(1.0)["slots"], noise(1.0)["slots"]),
        "It draws the same noise at each writing. In training, a memory would learn to undo that one.",
    )


class _FourBits:
    """A memory whose numbers take one of 16 levels, within the range that each place of a slot has in all slots."""

    def __init__(self, memory: Any) -> None:
        self.memory = memory

    def write(self, patterns: Tensor) -> Memory:
        return Memory({name: self._rounded(held) for name, held in self.memory.write(patterns).items()})

    def read(self, query: Tensor, memory: Memory) -> Tensor:
        recalled: Tensor = self.memory.read(query, memory)
        return recalled

    def _rounded(self, held: Tensor) -> Tensor:
        places = tuple(range(held.dim() - 1)) if held.dim() > 1 else (0,)
        low, high = held.amin(places, keepdim=True), held.amax(places, keepdim=True)
        step = (high - low).clamp(min=1e-12) / 15
        return low + step * ((held - low) / step).round()
