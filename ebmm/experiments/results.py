"""The rows that come with the book."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ebmm import files, tasks
from ebmm.experiments.catalogue import find
from ebmm.results import load_results
from ebmm.tasks import Task


def data_of(task: Task) -> str:
    """The name of the data that a task draws from, as rows state it."""
    return task.source.loaded.name if isinstance(task.source, tasks.LazyImages) else repr(task.source)


def shipped_rows(names: Iterable[str]) -> list[dict[str, Any]]:
    """Rows of the results files that come with the book, for the named experiments; one that has not run has none.

    Errors as for :func:`find <ebmm.experiments.catalogue.find>` and :func:`ebmm.files.data_path`.

    Example:
        >>> rows = shipped_rows(["flipped-64-16", "flipped-128-64"])
        >>> {row["model"] for row in rows} >= {"ebmm-predictive", "hebb"}
        True
    """
    shipped = files.data_files()
    paths = [f"results/{find(name)[0].name}.json" for name in names]
    return [row for path in paths if path in shipped for row in load_results(files.data_path(path))]
