"""Stands in the place of ebmm.book.exercises while a notebook is graded: here, check only notes what it is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

noted: dict[str, Any] = {}
"""The last answer given to each exercise."""


@dataclass(frozen=True, repr=False)
class Noted:
    """What check returns while a notebook is graded. It is true, so that the rest of a cell runs.

    Example:
        >>> Noted("3.2")
        3.2: noted. It is judged when the notebook has run.
    """

    number: str

    def __repr__(self) -> str:
        return f"{self.number}: noted. It is judged when the notebook has run."


def check(number: str | float, answer: Any, seed: int | None = None) -> Noted:
    """Note an answer, unless it is None; the variant is known to the judge.

    Example:
        >>> check("3.2", 7), noted.pop("3.2")
        (3.2: noted. It is judged when the notebook has run., 7)
    """
    if answer is not None:
        noted[str(number)] = answer
    return Noted(str(number))


def use_variant(seed: int) -> None:
    """Nothing: the variant is known to the judge."""
