"""What each exercise is worth."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ebmm.book.exercises import EXERCISES


def read_points(path: str | Path) -> dict[str, float]:
    """Points by exercise, from a JSON file such as ``{"3.2": 2, "3.5": 0.5}``. All others are worth 1.

    Raises:
        ValueError: it holds anything else.
        OSError: it cannot be read.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "points.json")
        ...     _ = path.write_text('{"3.2": 2}')
        ...     read_points(path)
        {'3.2': 2}
    """
    try:
        points: dict[str, float] = json.loads(Path(path).read_text(encoding="utf-8-sig"))
        check_points(points)
    except ValueError as error:
        raise ValueError(f"{path}: it must hold points by exercise; {error}") from None
    return points


def check_points(points: Any) -> None:
    """Raise ValueError where these are not points by exercise."""
    if not isinstance(points, Mapping):
        raise ValueError('points are given as {"3.2": 2, ...}')
    for number, worth in points.items():
        if number not in EXERCISES:
            raise ValueError(f"no exercise {number!r}: choose from {', '.join(EXERCISES)}")
        if isinstance(worth, bool) or not isinstance(worth, int | float) or not (math.isfinite(worth) and worth >= 0):
            raise ValueError(f"points are numbers from 0 on; exercise {number} has {worth!r}")


def in_words(worth: float) -> str:
    """Points as they stand beside an exercise.

    Example:
        >>> in_words(1), in_words(0.5), in_words(2.0)
        ('1 point', '0.5 points', '2 points')
    """
    return "1 point" if worth == 1 else f"{worth:g} points"
