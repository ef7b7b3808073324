"""Judges of the exercises of chapter 1."""

from __future__ import annotations

from random import Random
from typing import Any

import torch
from torch import Tensor

from ebmm.book.exercises._answers import choice, function, number, numbers, parts, seeded, tensor, varied, whole
from ebmm.book.exercises.variant import Drawn
from ebmm.book.exercises.verdict import exercise, need
from ebmm.hopfield import Hopfield
from ebmm.memory import Memory
from ebmm.metrics import wrong_bits
from ebmm.tasks import Batch, FlipBits, RandomBits, Task


def _hebb(signs: Tensor, diagonal: bool = False) -> Tensor:
    """(1.1) for patterns (N, d)."""
    W = signs.T @ signs / signs.shape[1]
    return W if diagonal else W.fill_diagonal_(0)


def _all_states(units: int) -> Tensor:
    """All states as signs, (2^d, d)."""
    return 2.0 * ((torch.arange(2**units)[:, None] >> torch.arange(units)) & 1) - 1


def _stable(W: Tensor) -> Tensor:
    """All stable states, (n, d)."""
    states = _all_states(len(W))
    field = states @ W
    return states[((field * states > 0) | (field.abs() < 1e-5)).all(1)]


def _pair(signs: tuple[int, ...], turned: tuple[int, int], asked: int) -> dict[str, Any]:
    """Two patterns that differ in two units, a query that differs in one more, and how a solution builds W."""
    second = tuple(-sign if unit in turned else sign for unit, sign in enumerate(signs))
    query = tuple(-sign if unit == asked else sign for unit, sign in enumerate(second))
    shown = [",".join("+" if sign > 0 else "-" for sign in pattern) for pattern in (signs, second, query)]
    first, other = (str([float(sign) for sign in pattern]) for pattern in (signs, second))
    return {
        "pair": (signs, second), "s_1": shown[0], "s_2": shown[1], "query": shown[2], "asked": asked + 1,
        "couplings": f"s = torch.tensor([{first}, {other}])\nW = s.T @ s / 6", "patterns": f"{first}, {other}",
        "start": str([float(sign) for sign in query]),
    }  # fmt: skip


def _draw_pair(random: Random) -> dict[str, Any]:
    units = random.sample(range(6), 3)
    return _pair(tuple(random.choice((-1, 1)) for _ in range(6)), (units[0], units[1]), units[2])


PAIR = Drawn(
    _pair((1, 1, 1, 1, 1, 1), (4, 5), 0)
    | {
        "couplings": "W = torch.zeros(6, 6)\nW[:4, :4] = W[4:, 4:] = 2 / 6",
        "patterns": "[1.0, 1, 1, 1, 1, 1], [1, 1, 1, 1, -1, -1]",
        "start": "[-1.0, 1, 1, 1, -1, -1]",
    },
    _draw_pair,
    text=("s_1 = ({s_1})", "s_2 = ({s_2})", "({query})", "unit {asked} first"),
    solution=("{couplings}", "{patterns}", "{start}"),
)


@exercise("1.1", "the matrix W, a tensor of shape (6, 6)", PAIR)
def hebb_on_paper(answer: Any, given: Any) -> str:
    W = tensor(answer, (6, 6), "W").float()
    need(torch.allclose(W, W.T), "A coupling goes both ways: W must be symmetric.")
    need(not W.diagonal().any(), "No unit is coupled to itself: the diagonal must be zero.")

    pair = torch.tensor(given.pair).float()
    right = _hebb(pair)
    for stored, mistake in (
        ((pair + 1) / 2, "These are the couplings of bits. In signs a minus counts as −1, and two of them agree."),
        (pair[:1], "Here the second pattern is missing: (1.1) adds up both."),
        (pair[1:], "Here the first pattern is missing: (1.1) adds up both."),
    ):
        need(not torch.allclose(W, _hebb(stored), atol=1e-4), mistake)
    scale = (W * right).sum() / right.square().sum()
    if torch.allclose(W, scale * right, atol=1e-4):
        need(scale != 0, "All couplings are zero: nothing is stored.")
        need(scale > 0, "All signs are turned over: units that agree are coupled by a positive number.")
        need(
            abs(scale - 1) < 1e-3,
            "The couplings stand in the right ratios to each other, but all are off by the same factor. By what does "
            "formula (1.1) divide?",
        )
    need(
        torch.allclose(W, right, atol=1e-4),
        "Some coupling is off: for each pair of units, add the products of their signs in both patterns, then divide.",
    )
    return "Units that agree in both patterns hold together; those that agree in one and not in the other do not."


@exercise(
    "1.2", 'a dict with the keys "basins" and "spurious" (functions) and "more" (a letter)', choices={"more": "abc"}
)
def every_stable_state(answer: Any) -> str:
    basins, spurious, more = parts(answer, "basins", "spurious", "more")
    function(basins, '"basins"')
    other = torch.randn(7, 7, generator=seeded(11))
    for W in (
        _hebb(2 * RandomBits(14)(3, seeded(12)) - 1),
        _hebb(2 * RandomBits(8)(4, seeded(13)) - 1),  # some fields are exactly zero
        (other + other.T).fill_diagonal_(0),
    ):
        _try_basins(basins, W)

    function(spurious, '"spurious"')
    for units, strings, seed in ((14, 3, 14), (12, 5, 15), (8, 4, 16), (14, 1, 17)):
        _try_spurious(spurious, RandomBits(units)(strings, seeded(seed)))

    chosen = choice(more, "abc", '"more"')
    need(chosen != "a", "Look for three strings that are stable themselves, and ask for the majority of the three.")
    need(chosen != "c", "Inverses are counted apart. Count for 1, 2, 3, 4 and 5 strings, a few times.")
    return "Up to two strings nothing is spurious. From three on mixtures come, and later they drive the strings out."


def _try_basins(basins: Any, W: Tensor) -> None:
    units = len(W)
    given = basins(W.clone())
    need(
        isinstance(given, list | tuple) and len(given) == 2,
        '"basins" must return two things: the stable states, and how many queries each of them attracts.',
    )
    need(
        isinstance(given[0], Tensor) and given[0].dim() == 2 and given[0].shape[1] == units,
        "The stable states must be a tensor (n, d), one state a row.",
    )
    states = given[0].float()
    attracted = tensor(torch.as_tensor(given[1]), (len(states),), "The numbers of queries, one for each state,").long()

    need((states.abs() == 1).all(), "The stable states must be given in signs, −1 and +1.")
    found = {tuple(state) for state in states.tolist()}
    need(len(found) == len(states), "A state stands among the stable ones twice.")
    aligned = states * (states @ W)
    need(not found or (aligned > 0).any(), "These are the tops of the energy: each unit goes against its field.")
    need((aligned > -1e-5).all(), "One of these states is not stable: some unit goes against its field.")

    right = _stable(W)
    missing = right[[tuple(state) not in found for state in right.tolist()]]
    need(
        not len(missing) or ((missing @ W).abs().amin(1) > 1e-5).any(),
        "The stable states in which a unit feels a field of zero are missing. Such a unit stays as it is.",
    )
    need(
        found == {tuple(state) for state in (-states).tolist()},
        "The inverse of one of these states is missing. Turn all units over, and all fields turn over with them.",
    )
    need(not len(missing), "Stable states are missing. Did you try all 2^d, or only those near what was stored?")
    _try_numbers(attracted, states, W)


def _try_numbers(attracted: Tensor, states: Tensor, W: Tensor) -> None:
    """Of queries that end in each stable state."""
    units = len(W)
    network, memory = Hopfield(units, values="signs"), Memory({"weight": W[None]})

    def counts(**settings: Any) -> Tensor:
        ends = network.read(_all_states(units)[None], memory, **settings)[0]
        return (states @ ends.T == units).sum(1)

    right = counts()
    if torch.equal(attracted, right):
        return
    for settings, mistake in (
        ({"dynamics": "synchronous"}, "These are the basins of reading all units at once. Let one move at a time."),
        ({"steps": 1}, "One sweep over the units is not enough: go on until nothing changes."),
    ):
        need(not torch.equal(attracted, counts(**settings)), mistake)
    need(
        attracted.sum() == 2**units,
        "The basins do not add up to all 2^d queries, though every walk ends in some stable state.",
    )
    need(
        not torch.equal(attracted.sort().values, right.sort().values),
        "The sizes of the basins are right, but do not stand in the order of the states.",
    )
    need(
        False,
        "The basins add up, but some query is counted for a state in which its walk does not end. Visit the units in "
        "their order, the first one first, and let each change count at once.",
    )


def _try_spurious(spurious: Any, strings: Tensor) -> None:
    signs = 2 * strings - 1

    def count(states: Tensor, *known: Tensor) -> int:
        """Of states that are none of the known ones."""
        return int((states @ torch.cat(known).T < states.shape[1]).all(1).sum())

    states = _stable(_hebb(signs))
    right = count(states, signs, -signs)
    given = whole(spurious(strings.clone()), 'What "spurious" returns')
    if given == right:
        return
    for wrong, mistake in (
        (len(states), "counts all stable states. Leave out what was stored, and the inverses."),
        (count(states, signs), "counts the inverses of stored strings. They have a name of their own."),
        (len(states) - 2 * len(strings), "takes for granted that all strings are stable. Not all need be."),
        (right // 2, "counts a state and its inverse once. They are two states."),
        (count(_stable(_hebb(signs, diagonal=True)), signs, -signs), "keeps the diagonal of W. (1.1) clears it."),
    ):
        need(given != wrong, f'"spurious" {mistake}')
    need(False, f'"spurious" is wrong for some {len(strings)} strings of {states.shape[1]} bits, stored by (1.1).')


def _counts(seed: int) -> list[int]:
    """Stable states without the diagonal, and with it, for three strings."""
    strings = 2 * RandomBits(14)(3, seeded(seed)) - 1
    return [len(_stable(_hebb(strings, diagonal))) for diagonal in (False, True)]


def _draw_strings(random: Random) -> dict[str, Any]:
    """Of strings for which the diagonal matters, and which do not have the counts of the book."""
    while (counts := _counts(seed := random.randint(300, 999)))[0] == counts[1] or counts == _counts(200):
        pass
    return {"seed": seed}


STRINGS = Drawn({"seed": 200}, _draw_strings, text=("manual_seed({seed})",), solution=("manual_seed({seed})",))


@exercise(
    "1.3",
    'a dict with the keys "change" (a function), "stable" (two numbers), "safe" and "cleared" (letters)',
    drawn=STRINGS,
    choices={"safe": "abc", "cleared": "abc"},
)
def diagonal_kept(answer: Any, given: Any) -> str:
    change, stable, safe, cleared = parts(answer, "change", "stable", "safe", "cleared")
    function(change, '"change"')
    W = _hebb(2 * RandomBits(30)(7, seeded(21)) - 1, diagonal=True)
    W = W + torch.rand(30, generator=seeded(22)).diag()  # own votes that differ
    for state in 2 * RandomBits(30)(5, seeded(23)) - 1:
        for unit in torch.nonzero(state * (W @ state) < -1e-3).flatten().tolist():
            _try_change(change, W, state, unit)

    without, kept = _counts(given.seed)
    counted = [whole(count, "A number of stable states") for count in numbers(stable, 2, '"stable"')]
    need(counted != [kept, without], "The two counts have changed places: first without the diagonal.")
    need(counted[0] == without, "The count without the diagonal is off. It is that of exercise 1.2, for these strings.")
    need(counted[1] != without, "With its diagonal a unit votes for itself. Some states that moved then move no more.")
    need(
        counted[1] == kept,
        "The count with the diagonal is off. Sums in floating point are not exact: a field that is zero but for "
        "rounding leaves its unit as it is.",
    )

    chosen = choice(safe, "abc", '"safe"')
    need(chosen != "a", "In the section 'All at once' W was symmetric as well, and the energy rose.")
    need(
        chosen != "b",
        "A diagonal of tiny positive numbers would change next to nothing. Ask when the second term of (1.6) is never "
        "positive, whatever the change of the state.",
    )
    chosen = choice(cleared, "abc", '"cleared"')
    need(
        chosen != "a",
        "What does the own vote add to the field of a stored string, along its sign? Does that make it less stable?",
    )
    need(chosen != "c", "Turn all units over. What happens to each field, its own vote included?")
    return "With the diagonal each step is safe, and the walk gets stuck early: wrong units hold on to themselves too."


def _try_change(change: Any, W: Tensor, state: Tensor, unit: int) -> None:
    """For a unit that flips."""
    after = state.clone()
    after[unit] *= -1
    right = float(0.5 * (state @ W @ state - after @ W @ after))
    h, own = (W @ state)[unit], W[unit, unit]
    given = number(change(h.clone(), own.clone()), 'What "change" returns')
    size, vote = abs(float(h)), float(own)
    for wrong, mistake in (
        (-2 * size, "That is (1.5), for a unit that does not feel itself. Take its own vote out of the field first."),
        (-2 * (size - vote), "The own vote counts with the wrong sign: the unit flips against it."),
        (-2 * size - vote, "Half of the own vote is missing: the field that the unit feels holds all of it."),
        (right / 2, "A factor is missing: the unit goes all the way from one sign to the other."),
        (-right, "Check the sign: the change is the energy after less the energy before."),
    ):
        need(abs(given - wrong) > 1e-4, mistake)
    need(
        abs(given - right) < 1e-4, "The energy changes by something else. Go through the four steps of the proof again."
    )


@exercise(
    "1.4",
    'a dict with the keys "couplings" (a function), "one mask" and "own masks" (letters)',
    choices={"one mask": "abc", "own masks": "abc"},
)
def disguised(answer: Any) -> str:
    couplings, one, own = parts(answer, "couplings", "one mask", "own masks")
    function(couplings, '"couplings"')
    for units, strings, seed in ((12, 3, 24), (7, 2, 25), (30, 9, 26)):
        bits = RandomBits(units)(strings + 1, varied(seed))
        _try_couplings(couplings, bits[:strings], mask=bits[strings])

    chosen = choice(one, "abc", '"one mask"')
    need(chosen != "a", "To look random one by one is not enough. What does the mask do to the overlap of two digits?")
    need(chosen != "c", "The query wears the same mask as what was stored. In how many pixels do the two differ now?")
    chosen = choice(own, "abc", '"own masks"')
    need(chosen != "a", "Now two digits wear different masks. What becomes of their overlap?")
    need(
        chosen != "b", "Writing is easy. Now a query comes in, and nobody says which digit it shows. Which mask is it?"
    )
    return "One mask is undone by the couplings. Many remove the overlaps, and to use them one must know the answer."


def _try_couplings(couplings: Any, bits: Tensor, mask: Tensor) -> None:
    signs, flips = 2 * bits - 1, 1 - 2 * mask
    W, right = _hebb(signs), _hebb(signs * flips)
    given = tensor(couplings(W.clone(), mask.clone()), W.shape, 'What "couplings" returns').float()
    one_end = "Only the units at one end of each coupling are turned over. It has two ends."
    for wrong, mistake in (
        (W, "That is W as it was. The mask turns the signs of some units over. What becomes of a product of two?"),
        (mask[:, None] * W * mask, "That takes couplings away. Use the mask in signs, not in bits."),
        (-right, "All signs are turned over. What becomes of a coupling if both of its units are turned over?"),
        (flips[:, None] * W, one_end),
        (flips * W, one_end),
    ):
        need(not torch.allclose(given, wrong, atol=1e-4), mistake)
    need(
        torch.allclose(given, right, atol=1e-4),
        "The disguised patterns give other couplings by (1.1). Follow one product of two units through the disguise.",
    )


@exercise("1.5", "a function that takes couplings (B, d, d) and returns them after unlearning")
def unlearned(answer: Any) -> str:
    function(answer, "The answer")
    said = [_try_unlearning(answer, strings) for strings in (38, 26)]
    return f"{said[0]}; {said[1]}. Now let it stop by itself, at any load: that is the open question."


def _try_unlearning(unlearn: Any, strings: int) -> str:
    batch = Task(RandomBits(128), FlipBits(0.1), strings).sample(2, seeded(27))
    before = Hopfield(128).write(batch.patterns)["weight"]
    torch.default_generator.manual_seed(27)
    after = tensor(unlearn(before.clone()), before.shape, "What it returns").float()
    need(torch.allclose(after, after.mT, atol=1e-5), "The couplings that it returns are not symmetric.")
    need(not after.diagonal(dim1=1, dim2=2).any(), "Clear the diagonal again: dreams have one, and W has none.")
    need(not torch.allclose(after, before), "It leaves the couplings as they were.")

    query = wrong_bits(batch.queries, batch.patterns).mean().item()
    old, new = (_error(W, batch) for W in (before, after))
    if new >= query / 2:
        shrunk = after.norm() / before.norm()
        need(shrunk < 1, "The couplings have grown: what the network dreams was strengthened, not weakened.")
        need(
            shrunk > 0.1 and new < old,
            f"Of {strings} strings hardly anything is left: unlearning reaches them too. Stop earlier, or weaken less.",
        )
        need(
            False,
            f"With {strings} strings, {old:.1f} bits were wrong after reading, and now {new:.1f} are; the queries had "
            f"{query:.1f}. Get below half of these. Are the starts random? Does each walk go on until it rests? Do "
            "more rounds help?",
        )
    projection = Hopfield(128, "pseudo-inverse")
    target = projection.weights(projection.write(batch.patterns))
    cosine = torch.cosine_similarity(after.flatten(1), target.flatten(1)).mean().item()
    return f"{strings} strings: {old:.1f} wrong bits before, {new:.2f} after, cosine with pseudo-inverse {cosine:.2f}"


def _error(W: Tensor, batch: Batch) -> float:
    read = Hopfield(128).read(batch.queries, Memory({"weight": W}))
    assert isinstance(read, Tensor)  # no trajectory was asked for
    return wrong_bits(read, batch.patterns).mean().item()
