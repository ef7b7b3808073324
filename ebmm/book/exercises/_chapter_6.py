"""Judges of the exercises of chapter 6."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor

from ebmm.book.exercises._answers import choice, function, number, numbers, parts, seeded, tensor, varied, whole
from ebmm.book.exercises.variant import Drawn
from ebmm.book.exercises.verdict import exercise, need
from ebmm.datasets import glyphs
from ebmm.tasks import ImagePatterns, NoiseBlock, Task

PIXELS = 32 * 32


def _counts(random: Random) -> dict[str, Any]:
    """Some units come nearest to the floats from above."""
    units = random.randint(12, 30)
    return {"dyn": random.choice((6, 7, 8, 9, 10, 11, 12, 13, 15)), "floats": 257 * units - random.randint(5, 100)} | {
        "cost": 257 * units,
        "part": "of its own",
    }


COUNTS = Drawn(
    {"dyn": 14, "floats": 4616, "cost": 4626, "part": "a quarter of the 1024 pixels"},
    _counts,
    text=("dyn = {dyn}", "nearest to {floats} floats"),
    solution=(
        "* {dyn}  # (a)",
        "# (b), {part}",
        "round({floats} / 257)  # (c), {cost} floats",
        "memory_features={dyn})",
    ),
)


@exercise("6.1", 'a dict with the keys "a", "b", "c" and "d", a whole number each', COUNTS)
def counting(answer: Any, given: Any) -> str:
    held, width, units, all_writable = (
        whole(value, f"Part ({name})") for name, value in zip("abcd", parts(answer, *"abcd"), strict=True)
    )
    channel, layers = 9 * 64 + 1, 2  # a kernel over 64 channels, and its bias (6.2)
    right = layers * channel * given.dyn
    need(held != right // layers, "Part (a): two layers are split, and each has so many writable channels.")
    need(held != right - layers * given.dyn, "Part (a): the biases travel with the memory, and count.")
    need(held == right, "Part (a): a channel has a kernel of 3 x 3 over 64 channels, and a bias (6.2).")
    need(width == right // 64, "Part (b): share what (a) holds among the 64 characters, and round down.")

    unit, floats = 257, given.floats
    nearest = min(range(1, 64), key=lambda count: abs(count * unit - floats))
    need(units != floats // unit, "Part (c): the question is which number comes nearest, from below or from above.")
    need(
        units == nearest,
        f"Part (c): a unit has 256 weights and a bias. How far from {floats} are the floats of so many?",
    )

    right = layers * channel * 64
    need(all_writable != right // layers, "Part (d): both layers are to be writable.")
    need(all_writable != right - layers * 64, "Part (d): each channel has a bias as well.")
    need(all_writable == right, "Part (d): as (a), but with every one of the 64 channels of a layer.")
    return (
        "A quarter of a character's pixels at the largest size of the book; all channels would cost more than the list."
    )


@exercise("6.2", 'a dict with the keys "put back" (a function), "errors" (three numbers) and "worth more" (a word)')
def mask_again(answer: Any) -> str:
    put_back, errors, more = parts(answer, "put back", "errors", "worth more")
    generator = varied(6)
    for shape in ((2, 5, 32, 32), (1, 3, 8, 24)):
        recalled, query = (torch.rand(shape, generator=generator) for _ in range(2))
        intact = torch.rand(shape, generator=generator) < 0.7
        given = function(put_back, '"put back"')(recalled.clone(), query.clone(), intact.clone())
        given = tensor(given, shape, "What put_back returns").float()
        need(
            not torch.equal(given, torch.where(intact, recalled, query)),
            "It takes the damage from the query and the rest from the memory: intact is True where a pixel was left "
            "alone.",
        )
        need(not torch.equal(given, recalled), "It returns what was recalled as it was: nothing is put back.")
        need(
            torch.equal(given, torch.where(intact, query, recalled)),
            "Where a pixel is intact, the picture must be exactly the query's, and everywhere else what was recalled.",
        )

    network, ours, slot = numbers(errors, 3, '"errors"')
    need(min(network, ours, slot) > 1, "Wrong pixels of 1024 are wanted, not a share of them.")
    need(
        max(network, ours) <= 256,
        "With the intact pixels put back only the block can be wrong. Take the mean over pictures, not their sum.",
    )
    need(
        max(network, ours) < slot,
        "Told the block, either memory should have fewer wrong pixels than the slot's picture as it is. Were the "
        "pixels put back, and is the third error that of what the autoencoder returns, with nothing put back?",
    )
    need(slot < 40, "The third error is too large: the autoencoder reads the slot that it is told, at 4616 floats.")
    need(abs(network - ours) < 3, "The two memories have the same coders. Ask both the same queries, put back in both.")
    need(more in ("block", "slot"), '"worth more" must be "block" or "slot".')
    need(more == "block", "Compare your own errors: which secret leaves fewer wrong pixels?")
    return "Told where the block is, any memory with these coders is good: what ours learned is mostly to find it."


@exercise(
    "6.3",
    'a dict with the keys "half", "block", "flips" (errors, ours first) and "because" (a letter)',
    choices={"because": "abcd"},
)
def other_damage(answer: Any) -> str:
    *measured, because = parts(answer, "half", "block", "flips", "because")
    names = '"half"', '"block"', '"flips"'
    half, block, flips = (numbers(pair, 2, name) for pair, name in zip(measured, names, strict=True))
    need(
        all(max(pair) > 1 for pair in (half, block, flips)) and max(*half, *block, *flips) < PIXELS / 2,
        "Wrong pixels of 1024 are wanted, the mean over pictures: no share, and no sum.",
    )
    ahead = [ours < network for ours, network in (half, block, flips)]
    need(
        ahead != [True, False, True],
        "All three are the other way round. Is the first number of each pair that of our slot memory?",
    )
    need(
        max(flips) < min(block),
        "A block of 24 covers more than half of the picture, and a slot is hard to find by the rest; flips leave most "
        "of it. Which of your errors belong to which damage?",
    )
    for first, name, expected in zip(ahead, names, (False, True, False), strict=True):
        need(
            first == expected,
            f"{name}: the other one was ahead when we measured. Write the same patterns into both, train nothing, "
            "compare what was read with the patterns, and take the mean over more memories.",
        )
    chosen = choice(because, "abcd", '"because"')
    need(
        chosen != "a",
        "Count: 15 % of all pixels are fewer than a block of 24 x 24, where our slot memory is the better one.",
    )
    need(
        chosen != "c", "Nothing in (6.6) looks at grey. A block of random bits was read nearly as well as one of grey."
    )
    need(chosen != "d", "Both memories find the slot nearly always when pixels are flipped: look at the small errors.")
    return "Who keeps what fits must be able to rely on it: scattered flips are forgiven, and stay."


@exercise(
    "6.4",
    'a dict with the keys "alarm" (a function), "caught", "false alarms" (shares) and "because" (a letter)',
    choices={"because": "abc"},
)
def alarm(answer: Any) -> str:
    raised, caught, false_alarms, because = parts(answer, "alarm", "caught", "false alarms", "because")
    for scale, start in ((1.0, 3.0), (40.0, 500.0)):
        _try_alarm(function(raised, '"alarm"'), scale, start)
    shares = number(caught, '"caught"'), number(false_alarms, '"false alarms"')
    need(all(0 <= share <= 1 for share in shares), "Shares are wanted, from 0 to 1.")
    need(
        shares[0] > shares[1],
        "More strangers should be caught than friends accused. Which are above the threshold, and which half is which?",
    )
    need(shares[0] > 0.9, "Too few are caught. Undamaged strangers are wanted here, with the energy before reading.")
    need(shares[1] < 0.06, "Too many stored characters raise it. Are they undamaged, and is the threshold a quantile?")
    chosen = choice(because, "abc", '"because"')
    need(chosen != "c", "The energy is taken before reading: nothing has been pulled anywhere yet.")
    need(chosen != "b", "More memories move the threshold by little. Where do damaged friends lie, against strangers?")
    return "The energy tells how much does not fit, and not where: noise and strokes count alike."


def _try_alarm(raised: Any, scale: float, start: float) -> None:
    generator = seeded(6)
    stored = start + scale * torch.randn(2000, generator=generator).exp()
    strangers = start + 80 * scale + 5 * scale * torch.rand(3, 40, generator=generator)

    def ask(energies: Tensor) -> Tensor:
        return tensor(raised(stored.clone(), energies.clone()), energies.shape, "What alarm returns").bool()

    need(
        ask(strangers).any(), "It is silent for energies far above all stored ones: is the sign right, or is it typed?"
    )
    need(
        not ask(stored - 100 * scale).any(),
        "It is raised by low energies, which are those of stored characters: the sign is the wrong way round.",
    )
    accused = ask(stored).float().mean().item()
    need(
        accused <= 0.011,
        f"The threshold is too low: of the characters it is chosen on, a share of {accused:.3f} raise it, and one in a "
        "hundred may.",
    )
    need(
        accused >= 0.008,
        f"The threshold is higher than it need be, and misses strangers: only a share of {accused:.4f} of the "
        "characters that it is chosen on raise it, and one in a hundred may.",
    )
    few = stored.topk(9).values
    need(
        torch.equal(ask(torch.cat([few, strangers[0]]))[:9], ask(few)),
        "What it says of one query depends on the others. Choose the threshold on the stored characters alone.",
    )


@exercise("6.5", "a function of queries and of what was read from them, both (B, Q, 32, 32), that returns (B, Q)")
def says_no(answer: Any) -> str:
    grey, bits = (_separated(function(answer, "The statistic"), binary) for binary in (False, True))
    need(max(grey, bits) > 0.3, "It is larger for damaged friends than for strangers: try it with the sign changed.")
    need(
        bits > 0.75 or bits > grey - 0.3,
        f"With a block of random bits in the place of grey noise it tells friends and strangers apart with {bits:.2f} "
        "only: it sees the grey or the amount of damage, not where it is.",
    )
    need(
        min(grey, bits) > 0.75,
        f"A damaged friend has the smaller statistic with a probability of {min(grey, bits):.2f}; the sum over the map "
        "does as well. What does a block of 16 x 16 have that strokes all over the picture have not?",
    )
    return (
        "On invented characters and a memory that is hardly ever wrong, a damaged friend has the smaller statistic "
        f"with probability {grey:.3f}, and {bits:.3f} if the block is of random bits. How an energy could contain it "
        "stays open."
    )


def _separated(statistic: Any, binary: bool) -> float:
    """How surely it tells damaged friends from undamaged strangers, if either comes back as the nearest stored one."""
    generator = seeded(6)
    drawings = glyphs(alphabets=16, characters=8, drawings=1, size=32, seed=6).images
    batch = Task(ImagePatterns(drawings, 0.3), NoiseBlock(16, binary), 128).sample(1, generator)
    stored, friends, strangers = batch.patterns[:, :64], batch.queries[:, :64], batch.patterns[:, 64:]
    like = torch.cdist(strangers.flatten(2), stored.flatten(2)).argmin(-1)

    def recalled(x: Tensor) -> Tensor:  # one pixel of a thousand is off, as outside of the block with our memory
        return (x - (torch.rand(x.shape, generator=generator) < 0.001).float()).abs()

    small, large = (
        tensor(statistic(x.clone(), recalled(truth)), (1, 64), "What the statistic returns").flatten()
        for x, truth in ((friends, stored), (strangers, stored[:, like[0]]))
    )
    return (small[:, None] < large).float().mean().item()
