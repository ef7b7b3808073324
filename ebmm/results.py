"""Files of results: rows of what was evaluated, as JSON."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path


def save_results(rows: list[dict], path: str | os.PathLike) -> None:
    """Write result rows as JSON; rows of the same experiment, model, clamping and training seed are replaced."""
    path = Path(path)
    old = load_results(path) if path.exists() else []

    def key(row):
        return row["experiment"], row["model"], row["clamped"], row.get("training", {}).get("seed", -1)

    new = {key(row): row for row in [*old, *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([new[k] for k in sorted(new)], indent=1) + "\n")


def check_results(path: str | os.PathLike) -> None:
    """Refuse a file that rows could not be added to, before they are paid for.

    Raises:
        ValueError: a folder, a file that holds no rows, or a place that nothing can be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder: name a file of results, such as {path / 'results.json'}")
    if path.exists():
        try:
            load_results(path)
        except ValueError as error:
            raise ValueError(f"{path} is no file of results ({error}): name another one") from error
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"nothing can be written into {path.parent} ({error.strerror}): name another place") from error


def load_results(path: str | os.PathLike) -> list[dict]:
    """Rows of a results file."""
    return json.loads(Path(path).read_text())
