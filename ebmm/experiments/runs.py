"""Training, loading, evaluating and showing a contestant."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import torch
from torch import nn

from ebmm import files
from ebmm.evaluation import evaluate
from ebmm.experiments.catalogue import EXPERIMENTS, find
from ebmm.experiments.results import _data_of
from ebmm.history import History
from ebmm.machine import describe_device, pick_device, rank_and_processes, versions
from ebmm.model import EBMM
from ebmm.training import fit


def train(name: str, model: str, out: str | os.PathLike, *, device: str = "auto", seed: int = 0, **changes) -> History:
    """Train a contestant and save its weights, in half precision.

    Within :func:`ebmm.machine.process_group` all processes call it, and the first one saves.

    Args:
        name, model: the experiment and its contestant.
        out: the safetensors file to write. The state to resume from lies beside it, with the suffix
            ``.training``.
        device: as for :func:`ebmm.fit`.
        seed: of the start weights and of the task's generator.
        changes: keyword arguments of :func:`ebmm.fit` that replace the experiment's.

    Returns:
        What :func:`ebmm.fit` returns.

    Raises:
        ValueError: no such experiment or contestant, or one that needs no training; the weights that training
            starts from are missing or do not fit.
        ConnectionError: they must be downloaded and cannot be.
    """
    from safetensors.torch import save_file

    experiment, _ = find(name, model)
    contestant = experiment.contestants[model]
    if contestant.training is None:
        raise ValueError(f"{model} of {name} needs no training")
    if experiment.weights is not None:
        raise ValueError(f"{name} only tests: train {experiment.weights} instead")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    memory = contestant.build()
    started_from = None
    if contestant.start is not None:
        trained, started_from = _beside_or_shipped(name, contestant.start, out)
        _start_with_coders_of(memory, trained)
    elif experiment.after is not None:
        trained, started_from = _beside_or_shipped(experiment.after, model, out)
        memory.load_state_dict(trained.state_dict())
    changes = {name: value for name, value in changes.items() if value is not None}
    settings = contestant.training | changes
    rank, processes = rank_and_processes()
    command = ["torchrun", f"--nproc-per-node={processes}"] if processes > 1 else ["python"]
    command += ["-m", "ebmm", "train", name, "--model", model, "--seed", str(seed)]
    command += ["--device", device, "--out", str(out)]
    for option in ("steps", "memories", "precision"):
        command += [f"--{option}", str(changes[option])] if option in changes else []
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
        "started from": started_from,
        "processes": processes,
        "device": describe_device(pick_device(device)),
        "versions": versions(),
    }
    # Half precision halves what readers download; rows are evaluated from the file, so they know of it.
    state = {
        key: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for key, tensor in memory.state_dict().items()
    }
    if rank == 0:
        save_file(state, out, metadata={"training": json.dumps(training)})
    return history


def _beside_or_shipped(name: str, model: str, out: Path) -> tuple[nn.Module, dict]:
    """A trained contestant that another one's training starts from, and the training spent on it."""
    beside = out.with_name(f"{name}-{model}.safetensors")
    if not beside.exists() and not is_ready(name, model):
        raise ValueError(
            f"training starts from the weights of {model}, which are neither beside {out} nor shipped: "
            f"train {model} of {name} first, with --out {beside}"
        )
    return load_contestant(name, model, beside if beside.exists() else None)


def _start_with_coders_of(memory: nn.Module, trained: nn.Module) -> None:
    """Copy another contestant's trained coders, to stay."""
    owner = memory.energy_network if isinstance(memory, EBMM) else memory
    for coder in ("encoder", "decoder"):
        own = owner.get_submodule(coder)
        own.load_state_dict(trained.get_submodule(coder).state_dict())
        own.requires_grad_(False)
    if isinstance(memory, EBMM):  # which is to write these codes as they are
        owner.get_submodule("memory").requires_grad_(False)
        memory.raw_write_rates.requires_grad_(False)


def _weights_of(name: str, model: str) -> str:
    return f"checkpoints/{EXPERIMENTS[name].weights or name}-{model}.safetensors"


def is_ready(name: str, model: str) -> bool:
    """Whether a contestant can be evaluated as it is shipped: its weights are there, or it needs none.

    Example:
        >>> is_ready("flipped-64-16", "ebmm"), is_ready("binary-16", "lstm")
        (True, False)
    """
    experiment, _ = find(name, model)
    return experiment.contestants[model].training is None or _weights_of(name, model) in files.data_files()


def load_contestant(name: str, model: str, path: str | os.PathLike | None = None) -> tuple[nn.Module, dict]:
    """A contestant ready for use, and the training spent on it (empty for one that needs none).

    Args:
        name, model: the experiment and its contestant.
        path: weights that :func:`train` wrote; ``None`` takes those shipped with the book.

    Raises:
        ValueError: no such experiment or contestant, weights that are not shipped, or a file that does not hold them.
        FileNotFoundError: no file at ``path``.
        ConnectionError: the weights must be downloaded and cannot be.
    """
    from safetensors import SafetensorError, safe_open

    experiment, _ = find(name, model)
    contestant = experiment.contestants[model]
    memory = contestant.build()
    if contestant.training is None:
        return memory, {}
    path = files.data_path(_weights_of(name, model)) if path is None else path
    try:
        with safe_open(path, framework="pt") as file:
            memory.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
            training = json.loads(file.metadata()["training"])
    except (RuntimeError, SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path} does not hold weights of {model} for {name}: {error}") from error
    return memory.eval(), training


def evaluate_contestant(
    name: str,
    model: str,
    *,
    memories: int = 1000,
    seed: int = 1,
    device: str = "auto",
    weights: str | os.PathLike | None = None,
) -> dict:
    """Evaluate a contestant and return its row of results.

    Args:
        name, model: the experiment and its contestant.
        memories, seed: as for :func:`ebmm.evaluate`.
        device: as for :func:`ebmm.fit`.
        weights: as ``path`` of :func:`load_contestant`.

    Returns:
        What :func:`ebmm.evaluate` returns, with experiment, model, training and command.

    Raises:
        ValueError, ConnectionError: as for :func:`ebmm.evaluate` and :func:`load_contestant`.
    """
    experiment, _ = find(name, model)
    task = experiment.test or experiment.task
    memory, training = load_contestant(name, model, weights)
    where = pick_device(device)
    row = evaluate(
        memory.to(where), task, memories, seed=seed, device=str(where),
        clamp=experiment.contestants[model].clamp,
    )  # fmt: skip
    command = ["python", "-m", "ebmm", "evaluate", name, "--model", model, "--memories", str(memories)]
    command += ["--seed", str(seed), *(["--weights", str(weights)] if weights else [])]
    row["steps trained"] = training.get("steps", 0)
    row["data"] = _data_of(task)
    return {"experiment": name, "model": model, **row, "training": training, "command": shlex.join(command)}
