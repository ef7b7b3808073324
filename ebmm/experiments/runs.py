"""Training and evaluating contestants."""

from __future__ import annotations

import math
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ebmm.evaluation import evaluate
from ebmm.experiments.catalogue import find
from ebmm.experiments.results import data_of
from ebmm.experiments.weights import is_ready, load_contestant, owner_of, save_weights, shipped_name
from ebmm.files import check_writable, data_path
from ebmm.history import History
from ebmm.machine import describe_device, pick_device, rank_and_processes, versions
from ebmm.model import EBMM
from ebmm.tasks import Batch, Task
from ebmm.training import fit

PREPARED_FROM = 4000  # patterns that what is set before training follows from
COMPARISONS = 30  # of the own memory with another's and an empty one, while an EBMM is trained


def train(
    name: str, contestant: str, out: str | os.PathLike[str], *, device: str = "auto", seed: int = 0, **changes: Any
) -> History:
    """Train a contestant and save its weights, in half precision.

    Within :func:`ebmm.machine.process_group` all processes call it, and the first one saves.

    Args:
        out: the weights file to write. :func:`checkpoint_of` says where the state to resume from lies.
        device, seed: as for :func:`ebmm.fit`; the seed is that of the start weights, too.
        changes: keyword arguments of :func:`ebmm.fit` that replace the experiment's; ``None`` replaces nothing.

    Raises:
        ValueError: a contestant that needs no training; a file at ``out`` that holds something else; the weights that
            training starts from are missing or do not fit.
        OSError: nothing can be written to ``out``. ConnectionError: weights to start from cannot be downloaded.
    """
    experiment, _ = find(name, contestant)
    chosen = experiment.contestants[contestant]
    if chosen.training is None:
        raise ValueError(f"{contestant} of {name} needs no training")
    if (home := experiment.home_of(contestant)) != name:
        raise ValueError(f"{name} only tests {contestant}: train it in {home} instead")
    where, out = pick_device(device), Path(out)
    _check_out(out, name, contestant)
    torch.manual_seed(seed)
    model = chosen.build()
    if chosen.prepare is not None and not checkpoint_of(out).exists():
        chosen.prepare(model, experiment.task.source(PREPARED_FROM, torch.Generator().manual_seed(seed)))
    elif chosen.prepare is not None:  # other machines would prepare it a little differently
        with suppress(Exception):  # fit says what is wrong with a checkpoint
            model.load_state_dict(torch.load(checkpoint_of(out), map_location="cpu", weights_only=True)["model"])
    started_from = coders = None
    if chosen.start is not None:
        coders = _beside_or_shipped(name, chosen.start, out)
        trained, started_from = load_contestant(name, chosen.start, coders)
        _start_with_coders_of(model, trained)
    elif experiment.after is not None:
        before = _beside_or_shipped(experiment.after, contestant, out)
        trained, started_from = load_contestant(experiment.after, contestant, before)
        model.load_state_dict(trained.state_dict())
    changes = {option: value for option, value in changes.items() if value is not None}
    settings = chosen.training | changes
    compare_every = math.ceil(settings["steps"] / COMPARISONS) if isinstance(model, EBMM) else 0
    options: dict[str, Any] = {"compare_every": compare_every} | settings
    rank, processes = rank_and_processes()
    history = fit(
        model, chosen.lessons or experiment.task, device=device, seed=seed, checkpoint=checkpoint_of(out), **options
    )
    training = {
        "experiment": name,
        "model": contestant,
        "command": _command(name, contestant, processes, {"seed": seed, "device": device, "out": out} | changes),
        "seed": seed,
        "settings": settings,
        "steps": len(history.rows),
        "skipped": history.skipped,
        "returns": history.returns,
        "compared": history.compared,
        "minutes": round(history.seconds / 60, 2),
        "started from": started_from,
        "processes": processes,
        "device": describe_device(where),
        "versions": versions(),
    }
    if rank == 0:
        save_weights(model, out, training, coders)
    return history


def _command(name: str, contestant: str, processes: int, options: dict[str, Any]) -> str:
    command = ["torchrun", f"--nproc-per-node={processes}"] if processes > 1 else ["python"]
    command += ["-m", "ebmm", "train", name, "--model", contestant]
    for option in ("seed", "device", "out", "steps", "memories", "precision"):
        command += [f"--{option}", str(options[option])] if option in options else []
    if how := options.get("compile"):
        command += ["--compile", "whole"] if how == "whole" else ["--compile"]
    return shlex.join(command)


def checkpoint_of(out: str | os.PathLike[str]) -> Path:
    """Where the state lies that :func:`train` resumes from: beside the weights, under their whole name."""
    return Path(f"{out}.training")


def _check_out(out: Path, name: str, contestant: str) -> None:
    """Refuse, before training is paid for, a file that its weights could not be saved to."""
    check_writable(out)
    if out.name.endswith(".training"):
        raise ValueError(f"{out} has the name of a checkpoint to resume from: call the weights {out.stem}.safetensors")
    if out.exists() and (found := owner_of(out, name)) != contestant:
        raise ValueError(f"{out} holds weights of {found} for {name}: train into another file")


def _beside_or_shipped(name: str, contestant: str, out: Path) -> Path:
    """The weights of a trained contestant that another one's training starts from."""
    beside = out.with_name(f"{name}-{contestant}.safetensors")
    if beside == out:
        raise ValueError(f"training starts from {out}: write to another file")
    if beside.exists():
        return beside
    if not is_ready(name, contestant):
        raise ValueError(
            f"training starts from the weights of {contestant}, which are neither beside {out} nor shipped: "
            f"train {contestant} of {name} first, with --out {beside}"
        )
    return data_path(shipped_name(name, contestant))


def _start_with_coders_of(model: nn.Module, trained: nn.Module) -> None:
    """Copy another contestant's trained coders, to stay."""
    of_model = model.energy_network if isinstance(model, EBMM) else model
    for coder in ("encoder", "decoder"):
        own = of_model.get_submodule(coder)
        own.load_state_dict(trained.get_submodule(coder).state_dict())
        own.requires_grad_(False)


@dataclass(frozen=True)
class Ready:
    """A contestant with its weights on its device, ready to be asked.

    Attributes:
        model: in evaluation mode, on ``device``.
        task: what it is tested on.
        training: spent on its weights; empty for one that needs none.
        weights: the file they are from; ``None``: they are shipped, or it needs none.
    """

    name: str
    contestant: str
    model: Any
    task: Task
    clamp: bool
    training: dict[str, Any]
    device: torch.device
    weights: str | os.PathLike[str] | None

    def evaluate(self, memories: int = 1000, seed: int = 1) -> dict[str, Any]:
        """Its row of results: what :func:`ebmm.evaluate` returns, with experiment, model, training and command."""
        row = evaluate(self.model, self.task, memories, seed=seed, device=str(self.device), clamp=self.clamp)
        command = ["python", "-m", "ebmm", "evaluate", self.name, "--model", self.contestant]
        command += ["--memories", str(memories), "--seed", str(seed)]
        command += ["--weights", str(self.weights)] if self.weights else []
        return {
            "experiment": self.name,
            "model": self.contestant,
            **row,
            "steps trained": self.training.get("steps", 0),
            "data": data_of(self.task),
            "training": self.training,
            "command": shlex.join(command),
        }

    def recall(self, seed: int = 1) -> tuple[Batch, Tensor]:
        """The first memory that ``evaluate`` sees with this seed, and what is read from it, (1, N, *S)."""
        batch = self.task.sample(1, torch.Generator().manual_seed(seed)).to(self.device)
        told = {"clamp": batch.intact} if self.clamp else {}
        with torch.no_grad():
            return batch, self.model.read(batch.queries, self.model.write(batch.patterns), **told)


def ready(name: str, contestant: str, *, weights: str | os.PathLike[str] | None = None, device: str = "auto") -> Ready:
    """Load a contestant once, to evaluate and to show it: :func:`ebmm.experiments.weights.load_contestant`.

    Example:
        >>> ready("redrawn-64-8", "hebb").evaluate(memories=10)["metric"]
        'wrong bits'
    """
    experiment, _ = find(name, contestant)
    where = pick_device(device)
    model, training = load_contestant(name, contestant, weights)
    clamp = experiment.contestants[contestant].clamp
    return Ready(name, contestant, model.to(where), experiment.tested, clamp, training, where, weights)
