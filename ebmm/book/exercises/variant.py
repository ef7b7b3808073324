"""Variants of the exercises: other numbers, and answers in another order, so that last year's answers do not serve.

A variant is named by a whole number above zero, such as the year. 0 names the book itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from types import SimpleNamespace
from typing import Any

LISTED = re.compile(r"(?m)^\* \(([a-d])\) (.+)$")
WITHIN = re.compile(r"\(([a-d])\) ([^,.?]+)")

_in_use = 0


def whole_seed(seed: Any) -> int:
    """The number of a variant, if it is one; raises ValueError if not."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ValueError(f"a variant is a whole number from 0 on; this is {seed!r}")
    return seed


def use_variant(seed: int) -> None:
    """Let ``check`` judge by the numbers of a variant from now on.

    Args:
        seed: what the course was exported with, at least 0.

    Raises:
        ValueError: it is no such number.

    Example:
        >>> use_variant(2027)
        >>> variant_in_use()
        2027
        >>> use_variant(0)
    """
    global _in_use
    _in_use = whole_seed(seed)


def variant_in_use() -> int:
    """The variant that ``check`` judges by; 0 is the book."""
    return _in_use


@contextmanager
def variant(seed: int) -> Iterator[None]:
    """The same for a while."""
    before = _in_use
    use_variant(seed)
    try:
        yield
    finally:
        use_variant(before)


@dataclass(frozen=True)
class Drawn:
    """What of an exercise is drawn for a variant.

    Attributes:
        book: the book's own values, by name.
        draw: takes a source of random numbers and returns other values, by the same names.
        text: passages of the exercise's text, with names in braces as ``str.format`` takes them. With the book's values
            each is what the book says; with others it is what a variant says.
        solution: the same of its solution.

    Example:
        >>> draw = lambda random: {"a": random.randint(4, 9)}
        >>> sides = Drawn({"a": 3}, draw, text=("a side of {a} cm",))
        >>> sides.values(0).a
        3
        >>> sides.values(2027).a > 3
        True
    """

    book: Mapping[str, Any]
    draw: Callable[[Random], Mapping[str, Any]]
    text: tuple[str, ...] = ()
    solution: tuple[str, ...] = ()

    def values(self, seed: int) -> SimpleNamespace:
        """The values of a variant; none but the book itself has those of the book."""
        values, random = self.book, Random(f"{seed}: {sorted(self.book)}")
        while seed and values == self.book:
            values = self.draw(random)
        return SimpleNamespace(**values)

    def filled(self, passages: tuple[str, ...], source: str, seed: int) -> str:
        """A text of the book with these passages as they are in a variant.

        Raises:
            ValueError: the text lacks one of them.
        """
        book, values = self.values(0), self.values(seed)
        instead = {passage.format(**vars(book)): passage.format(**vars(values)) for passage in passages}
        if missing := [passage for passage in instead if passage not in source]:
            raise ValueError(f"the book no longer says {missing[0]!r}: bring the exercise and its judge together")
        one_of_them = "|".join(re.escape(passage) for passage in sorted(instead, key=len, reverse=True))
        return re.sub(one_of_them, lambda found: instead[found[0]], source) if instead else source


def order(name: str, letters: str, seed: int) -> str:
    """In which order a variant lists the options of a choice: none stands where it does in the book.

    Example:
        >>> order("more", "abc", 0)
        'abc'
        >>> order("more", "abc", 2027) in ("bca", "cab")
        True
    """
    chosen, random = letters, Random(f"{seed}: {name}")
    while seed and any(new == old for new, old in zip(chosen, letters, strict=True)):
        chosen = "".join(random.sample(letters, len(letters)))
    return chosen


def with_options(choices: Mapping[str, str], source: str, seed: int) -> str:
    """A text with the options of its choices as a variant lists them: on lines of their own, or within a sentence.

    Raises:
        ValueError: it has more or fewer choices.

    Example:
        >>> with_options({"like": "ab"}, "Is it (a) large, (b) small?", 2027)
        'Is it (a) small, (b) large?'
    """
    option = LISTED if LISTED.search(source) else WITHIN
    lists: list[list[re.Match[str]]] = []
    for found in option.finditer(source) if choices else ():
        lists += [[]] if found[1] == "a" else []
        lists[-1].append(found)
    if len(lists) != len(choices):
        raise ValueError(f"the book lists {len(lists)} choices where the judge has {', '.join(choices)}")
    for name, options in reversed(list(zip(choices, lists, strict=True))):
        texts = {found[1]: found[2] for found in options}
        listed = order(name, choices[name], seed)
        for found, letter in reversed(list(zip(options, listed, strict=True))):
            source = source[: found.start(2)] + texts[letter] + source[found.end(2) :]
    return source


def with_letters(choices: Mapping[str, str], source: str, seed: int) -> str:
    """A solution with the letters that a variant's right options have.

    Raises:
        ValueError: it names no letter for some choice.

    Example:
        >>> with_letters({"like": "ab"}, 'answer = {"like": "a"}', 2027)
        'answer = {"like": "b"}'
    """
    for name, letters in choices.items():
        given = re.search(rf'"{name}"(?::|\] =) "([a-d])"', source)
        if given is None:
            raise ValueError(f"the book's solution names no letter for {name!r}")
        letter = letters[order(name, letters, seed).index(given[1])]
        source = source[: given.start(1)] + letter + source[given.end(1) :]
    return source
