"""Pictures of what a contestant of an experiment recalls."""

from __future__ import annotations

import os
from pathlib import Path

from ebmm.book.plotting.patterns import show_patterns
from ebmm.book.plotting.style import use_style
from ebmm.experiments import Ready


def show_contestant(ready: Ready, number: int, path: str | os.PathLike[str], *, seed: int = 1) -> None:
    """Save a picture of what a contestant recalls, beside the queries and the originals.

    Args:
        ready: the contestant, as :func:`ebmm.experiments.ready` loads it.
        number: how many patterns to show, at least 1; they are the first of one memory, which holds all N.
        path: the PNG file to write.
        seed: of the task's generator: the memory is the first that is evaluated with this seed.

    Raises:
        ValueError: number out of range.
    """
    import matplotlib.pyplot as plt

    if not 1 <= number <= ready.task.number:
        raise ValueError(f"a memory of {ready.name} holds {ready.task.number} patterns, asked to show {number}")
    batch, recalled = ready.recall(seed)
    rows = {"query": batch.queries, "recalled": recalled, "original": batch.patterns}
    with plt.rc_context():
        use_style()
        figure = show_patterns({label: images[0, :number] for label, images in rows.items()})
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        plt.close(figure)
