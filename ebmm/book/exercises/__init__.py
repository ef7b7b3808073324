"""Checks of the exercises: whether an answer is right, and if not, why, without giving the answer away.

Each exercise of the book tells what ``check`` wants of it: a tensor, a number, a function, a memory. Functions and
memories are tried on data of the check's own, measures are measured again. Open questions have no right answer; there,
``check`` tells whether what was handed in does what it claims.

Example:
    >>> from ebmm.book.exercises import check
    >>> check("4.1", {"write rate": 0.5, "read rate": "fast"}).right
    False
"""

# Each chapter enters its exercises where it is imported, in the order of the book.
# ruff: noqa: F401
from ebmm.book.exercises import (
    _chapter_1,
    _chapter_2,
    _chapter_3,
    _chapter_4,
    _chapter_5,
    _chapter_6,
    _chapter_7,
    _chapter_8,
    _chapter_9,
)
from ebmm.book.exercises.verdict import EXERCISES, Verdict, check

__all__ = ["EXERCISES", "Verdict", "check"]
