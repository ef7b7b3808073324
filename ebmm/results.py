"""Files of results: rows of what was evaluated, as JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ebmm import files


def save_results(rows: list[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Add rows to a file of results; those of the same experiment, model, clamping and training seed are replaced.

    The file is replaced whole, or stays as it was; several processes may add to it at once.

    Args:
        rows: as :func:`ebmm.evaluate` gives them, with the strings ``"experiment"`` and ``"model"``.
        path: the JSON file, which need not be there yet.

    Raises:
        ValueError: the file at ``path`` holds something else, or a row does not say what it is of.
        TypeError: a row holds what JSON cannot. OSError: the file cannot be written.
    """
    if not _are_rows(rows):
        raise ValueError("rows must be a list of dicts, each with the strings experiment and model")
    with files.locked(path):
        old = load_results(path) if os.path.exists(path) else []
        new = {_kind(row): row for row in [*old, *rows]}
        text = files.as_json([new[kind] for kind in sorted(new)], indent=1) + "\n"
        with files.replacing(path) as beside:
            beside.write_text(text, encoding="utf8")


def load_results(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Rows of a results file; ValueError for another file or a damaged one."""
    try:
        rows: list[dict[str, Any]] = json.loads(Path(path).read_text(encoding="utf8"))
        if not _are_rows(rows):
            raise ValueError("it holds no list of rows, each with experiment and model")
    except ValueError as error:
        raise ValueError(
            f"{path} is no results file, or a damaged one ({error}): restore it, move it away, or give another path"
        ) from error
    return rows


def check_results(path: str | os.PathLike[str]) -> None:
    """Raise, before the work, what :func:`save_results` would raise after it for this file."""
    files.check_writable(path)
    with files.locked(path):
        if os.path.exists(path):
            load_results(path)


def _are_rows(rows: Any) -> bool:
    return isinstance(rows, list) and all(
        isinstance(row, dict) and isinstance(row.get("experiment"), str) and isinstance(row.get("model"), str)
        for row in rows
    )


def _kind(row: dict[str, Any]) -> tuple[str, str, bool, int]:
    return row["experiment"], row["model"], bool(row.get("clamped")), (row.get("training") or {}).get("seed", -1)
