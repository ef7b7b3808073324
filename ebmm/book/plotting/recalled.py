"""Pictures of what a contestant of an experiment recalls."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from ebmm.book.plotting.patterns import show_patterns
from ebmm.book.plotting.style import use_style
from ebmm.experiments import find, load_contestant
from ebmm.machine import pick_device


def show_contestant(
    name: str,
    model: str,
    number: int,
    path: str | os.PathLike,
    *,
    seed: int = 1,
    device: str = "auto",
    weights: str | os.PathLike | None = None,
) -> None:
    """Save a picture of what a contestant recalls, beside the queries and the originals.

    Args:
        name, model: the experiment and its contestant.
        number: how many patterns to show, at least 1; they are the first of one memory, which holds all N.
        path: the PNG file to write.
        seed: of the task's generator: the memory is the first that :func:`evaluate_contestant` sees.
        device, weights: as for :func:`evaluate_contestant`.

    Raises:
        ValueError: number out of range; also as for :func:`load_contestant`.
        ConnectionError: as for :func:`load_contestant`.
    """
    import matplotlib.pyplot as plt

    experiment, _ = find(name, model)
    task = experiment.test or experiment.task
    if not 1 <= number <= task.number:
        raise ValueError(f"a memory of {name} holds {task.number} patterns, asked to show {number}")
    memory: Any = load_contestant(name, model, weights)[0]
    where = pick_device(device)
    memory.to(where)
    batch = task.sample(1, torch.Generator().manual_seed(seed)).to(where)
    told = {"clamp": batch.intact} if experiment.contestants[model].clamp else {}
    with torch.no_grad():
        recalled = memory.read(batch.queries, memory.write(batch.patterns), **told)
    rows = {"query": batch.queries, "recalled": recalled, "original": batch.patterns}
    with plt.rc_context():
        use_style()
        figure = show_patterns({label: images[0, :number] for label, images in rows.items()})
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        plt.close(figure)
