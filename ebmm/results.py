"""Files of results: rows of what was evaluated, as JSON."""

from __future__ import annotations

import json
import os
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


def load_results(path: str | os.PathLike) -> list[dict]:
    """Rows of a results file."""
    return json.loads(Path(path).read_text())
