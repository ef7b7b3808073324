"""Named experiments: what ``python -m ebmm train`` and ``evaluate`` run, and what the chapters read.

An experiment is a task and the memories that compete in it. A trained memory's weights lie in
``data/checkpoints/EXPERIMENT-MODEL.safetensors`` with the training spent in the file's metadata;
results lie in ``data/results/EXPERIMENT.json``.
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ebmm import tasks
from ebmm.contestants import Contestant, budget, contestants, hopfield_contestants, predictive_memory
from ebmm.evaluation import describe_device, evaluate, versions
from ebmm.tasks import Task
from ebmm.training import History, fit, pick_device


@dataclass(frozen=True)
class Experiment:
    """A task and its contestants, by name."""

    name: str
    about: str
    task: Task
    contestants: dict[str, Contestant] = field(default_factory=dict)


def contest(name: str, about: str, task: Task, dim: int) -> Experiment:
    """All contestants of chapter 5 at one task, each within d(d+1)/2 floats."""
    about = f"{about}; {budget(dim)} floats"
    return Experiment(name, about, task, contestants(dim, task.number))


REDRAWN = {
    **{
        f"binary-{number}": contest(
            f"binary-{number}",
            f"128 bits, {number} patterns, 64 random bits redrawn (Table 1 of the paper)",
            Task(tasks.RandomBits(128), tasks.RedrawBits(64), number),
            128,
        )
        for number in (16, 32, 48, 64, 96)
    },
    **{
        f"redrawn-64-{number}": contest(
            f"redrawn-64-{number}",
            f"64 bits, {number} patterns, 32 random bits redrawn (Table 1 at half the size)",
            Task(tasks.RandomBits(64), tasks.RedrawBits(32), number),
            64,
        )
        for number in (8, 16, 24, 32, 48)
    },
}

OTHER_TASKS = {
    f"{kind}-{dim}-{number}": contest(
        f"{kind}-{dim}-{number}", f"{dim} bits, {number} patterns, {words}", Task(source, corruption, number), dim
    )
    for dim in (64, 128)
    for kind, number, words, source, corruption in (
        ("flipped", dim // 2, "15 % of the bits flipped", tasks.RandomBits(dim), tasks.FlipBits(0.15)),
        ("erased", dim // 2, "half of the bits erased to 0", tasks.RandomBits(dim), tasks.EraseBits(dim // 2)),
        (
            "correlated",
            dim,
            "correlated bits, half of them redrawn",
            tasks.CorrelatedBits(dim, factors=dim // 4, noise=0.05),
            tasks.RedrawBits(dim // 2),
        ),
    )
}

EXPERIMENTS = {
    "flipped-64-16": Experiment(
        "flipped-64-16",
        "64 bits, 16 patterns, 15 % of the bits flipped, 2080 floats (chapter 4)",
        Task(tasks.RandomBits(64), tasks.FlipBits(0.15), 16),
        {"ebmm": Contestant(partial(predictive_memory, 64), {"steps": 10000, "learning_rate": 2e-3, "memories": 16})}
        | hopfield_contestants(64),
    ),
    **REDRAWN,
    **OTHER_TASKS,
}


def find(name: str, model: str | None = None) -> tuple[Experiment, list[str]]:
    """An experiment and the names of its chosen contestants (all of them for ``None``).

    Raises:
        ValueError: no such experiment or contestant; the message lists those there are.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}: choose from {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    if model is not None and model not in experiment.contestants:
        raise ValueError(f"{name} has no model {model!r}: choose from {', '.join(experiment.contestants)}")
    return experiment, list(experiment.contestants) if model is None else [model]


def train(name: str, model: str, out: str | os.PathLike, *, device: str = "auto", seed: int = 0, **changes) -> History:
    """Train a contestant and save its weights, in half precision.

    Args:
        name, model: the experiment and its contestant.
        out: the safetensors file to write. The state to resume from lies beside it, with the suffix
            ``.training``.
        device: as for :func:`ebmm.fit`.
        seed: of the start weights and of the task's generator.
        changes: keyword arguments of :func:`ebmm.fit` that replace the experiment's.

    Raises:
        ValueError: no such experiment or contestant, or one that needs no training.
    """
    from safetensors.torch import save_file

    experiment, _ = find(name, model)
    contestant = experiment.contestants[model]
    if contestant.training is None:
        raise ValueError(f"{model} of {name} needs no training")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    memory = contestant.build()
    changes = {name: value for name, value in changes.items() if value is not None}
    settings = contestant.training | changes
    command = ["python", "-m", "ebmm", "train", name, "--model", model, "--seed", str(seed)]
    command += ["--device", device, "--out", str(out)]
    command += ["--steps", str(changes["steps"])] if "steps" in changes else []
    history = fit(
        memory, experiment.task, device=device, seed=seed, checkpoint=out.with_suffix(".training"), **settings
    )
    training = {
        "experiment": name,
        "model": model,
        "command": shlex.join(command),
        "seed": seed,
        "settings": settings,
        "steps": len(history.rows),
        "skipped": history.skipped,
        "minutes": round(history.seconds / 60, 2),
        "device": describe_device(pick_device(device)),
        "versions": versions(),
    }
    # Half precision halves what readers download; rows are evaluated from the file, so they know of it.
    state = {
        key: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for key, tensor in memory.state_dict().items()
    }
    save_file(state, out, metadata={"training": json.dumps(training)})
    return history


def load_contestant(name: str, model: str, path: str | os.PathLike | None = None) -> tuple[nn.Module, dict]:
    """A contestant ready for use, and the training spent on it (empty for one that needs none).

    Args:
        name, model: the experiment and its contestant.
        path: weights that :func:`train` wrote; ``None`` takes those shipped with the book.

    Raises:
        ValueError: no such experiment or contestant, or a file that does not hold its weights.
        FileNotFoundError: no such weights.
    """
    from safetensors import SafetensorError, safe_open

    from ebmm.datasets import data_path

    experiment, _ = find(name, model)
    contestant = experiment.contestants[model]
    memory = contestant.build()
    if contestant.training is None:
        return memory, {}
    path = data_path(f"checkpoints/{name}-{model}.safetensors") if path is None else path
    try:
        with safe_open(path, framework="pt") as file:
            memory.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
            training = json.loads(file.metadata()["training"])
    except (RuntimeError, SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path} does not hold weights of {model} for {name}: {error}") from error
    return memory.eval(), training


def evaluate_contestant(
    name: str, model: str, *, memories: int = 1000, seed: int = 1, device: str = "auto", weights: str | None = None
) -> dict:
    """Evaluate a contestant and return its row of results.

    Args:
        name, model: the experiment and its contestant.
        memories, seed: as for :func:`ebmm.evaluate`.
        device: as for :func:`ebmm.fit`.
        weights: as ``path`` of :func:`load_contestant`.

    Returns:
        What :func:`ebmm.evaluate` returns, with experiment, model, training and command.
    """
    experiment, _ = find(name, model)
    memory, training = load_contestant(name, model, weights)
    where = pick_device(device)
    row = evaluate(
        memory.to(where), experiment.task, memories, seed=seed, device=str(where),
        clamp=experiment.contestants[model].clamp,
    )  # fmt: skip
    command = ["python", "-m", "ebmm", "evaluate", name, "--model", model, "--memories", str(memories)]
    command += ["--seed", str(seed), *(["--weights", str(weights)] if weights else [])]
    row["steps trained"] = training.get("steps", 0)
    return {"experiment": name, "model": model, **row, "training": training, "command": shlex.join(command)}
