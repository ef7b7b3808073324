"""Checks of the exercises: whether an answer is right, and if not, why, without giving the answer away.

Each exercise of the book tells what ``check`` wants of it: a tensor, a number, a function, a memory. Functions and
memories are tried on data of the check's own, measures are measured again. Open questions have no right answer; there,
``check`` tells whether what was handed in does what it claims.

Example:
    >>> from ebmm.book.exercises import check
    >>> check("4.1", {"write rate": 0.5, "read rate": "fast"}).right
    False
"""

from pathlib import Path

# In the installed package the judges lie packed beside, so that nobody reads them by chance; Python imports them there.
__path__.append(str(Path(__file__).with_name("judges.zip")))

# Each chapter enters its exercises where it is imported, in the order of the book.
# ruff: noqa: E402, F401
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
from ebmm.book.exercises.variant import use_variant
from ebmm.book.exercises.verdict import EXERCISES, Verdict, check

__all__ = ["EXERCISES", "Verdict", "check", "use_variant"]
