"""Running a notebook with a cell of ours in it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

SECONDS_A_CELL = 900


def insert_after_parameters(notebook: Any, source: str) -> None:
    """Add a cell of code below the parameters."""
    import nbformat

    places = [place for place, cell in enumerate(notebook.cells) if re.search(r"(?m)^FAST\b", cell.source)]
    if not places:
        raise RuntimeError("no cell sets FAST: the cell of parameters is missing")
    notebook.cells.insert(places[0] + 1, nbformat.v4.new_code_cell(source))


def run(notebook: Any, folder: Path, allow_errors: bool = True) -> None:
    """Run all cells where the notebook lies."""
    try:
        from nbclient import NotebookClient
    except ImportError:
        raise ImportError("running notebooks needs nbclient and ipykernel: pip install nbclient ipykernel") from None
    NotebookClient(
        notebook, timeout=SECONDS_A_CELL, interrupt_on_timeout=True, kernel_name="python3", allow_errors=allow_errors,
        resources={"metadata": {"path": str(folder)}},
    ).execute()  # fmt: skip
