"""Weights files: half precision, and the training spent in their metadata.

Where several rivals share their coders, one file holds them. The others name it, with its SHA-256, and hold
only what is their own.
"""

from __future__ import annotations

import json
import os
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ebmm import files
from ebmm.experiments.catalogue import find
from ebmm.model import EBMM


def save_weights(
    model: nn.Module,
    path: str | os.PathLike[str],
    training: dict[str, Any],
    coders: str | os.PathLike[str] | None = None,
) -> None:
    """Write a model's weights to a safetensors file, which is replaced in one stroke.

    Args:
        training: what was spent on the model, as JSON can hold it: ``"experiment"``, ``"model"`` and more.
        coders: the weights file that the model took its coders from. If they are still the same, under the same
            names, they are not written again: ``path`` then refers to this file, which must stay beside it or be
            shipped.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    # Half precision halves what readers download; rows are evaluated from the file, so they know of it.
    state = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    if coders is not None:
        theirs = load_file(coders)
        if all(name in state and torch.equal(tensor, state[name]) for name, tensor in theirs.items()):
            state = {name: tensor for name, tensor in state.items() if name not in theirs}
            training = training | {"coders": {"file": Path(coders).name, "sha256": files.digest_of(coders, "sha256")}}
    try:
        with files.replacing(path) as beside:
            save_file(state, beside, metadata={"training": files.as_json(training)})
    except SafetensorError as error:
        raise OSError(f"the weights could not be written to {path}: {error}") from error


def load_contestant(
    name: str, contestant: str, path: str | os.PathLike[str] | None = None
) -> tuple[nn.Module, dict[str, Any]]:
    """A contestant with its weights, and the training spent on them (empty for one that needs none).

    Args:
        path: weights that ``train`` wrote; ``None`` takes those shipped with the book.

    Raises:
        ValueError: one that takes no weights, weights that are not shipped, or a file that does not hold them.
        FileNotFoundError: no file at ``path``. ConnectionError: weights that cannot be downloaded.
    """
    experiment, _ = find(name, contestant)
    chosen = experiment.contestants[contestant]
    model = chosen.build()
    if chosen.training is None:
        if path is not None:
            raise ValueError(f"{contestant} of {name} needs no training and takes no weights: leave out {path}")
        return model, {}
    home = experiment.home_of(contestant)
    if path is None and not is_ready(name, contestant):
        raise ValueError(
            f"no weights of {contestant} for {name} are shipped: train it with "
            f"python -m ebmm train {home} --model {contestant}, and name the file that it writes"
        )
    path = files.data_path(shipped_name(name, contestant)) if path is None else Path(path)
    refused = f"{path} does not hold weights of {contestant} for {name}"
    tensors, training, coders = _read(path, home, [contestant], refused)
    if coders is not None:
        beside = _coders_beside(path, coders)
        owner = home if chosen.start is None else experiment.home_of(chosen.start)
        tensors |= _read(beside, owner, list(find(owner)[0].contestants), refused)[0]
    if isinstance(model, EBMM) and home != name and not any(p.requires_grad for p in _starts(model).values()):
        tensors |= _starts(model)  # a start that is not learned may be one of another size
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{refused}: {textwrap.shorten(str(error), 240)}") from error
    return model.eval(), training


def _starts(model: EBMM) -> dict[str, nn.Parameter]:
    """The start values of the memory, by their names in the whole model."""
    return {f"energy_network.{name}": model.energy_network.get_parameter(name) for name in model.writable}


def owner_of(path: str | os.PathLike[str], name: str) -> str:
    """The contestant of an experiment whose weights a file holds; ValueError if it holds none of them."""
    owner: str = _read(Path(path), name, find(name)[1], f"{path} does not hold weights for {name}")[1]["model"]
    return owner


def is_ready(name: str, contestant: str) -> bool:
    """Whether a contestant can be evaluated as it is shipped: its weights are there, or it needs none.

    Example:
        >>> is_ready("flipped-64-16", "ebmm-predictive"), is_ready("binary-16", "lstm")
        (True, False)
    """
    experiment, _ = find(name, contestant)
    return experiment.contestants[contestant].training is None or shipped_name(name, contestant) in files.data_files()


def shipped_name(name: str, contestant: str) -> str:
    """The weights of a contestant, as :func:`ebmm.files.data_path` knows them."""
    return f"checkpoints/{find(name)[0].home_of(contestant)}-{contestant}.safetensors"


def _read(
    path: Path, name: str, contestants: list[str], refused: str
) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any] | None]:
    """Tensors of one of these contestants, the training spent on them, and which other file holds its coders."""
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        raise FileNotFoundError(f"there are no weights at {path}: name a file that python -m ebmm train wrote")
    if path.is_dir():
        raise ValueError(f"{refused}: it is a folder")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{refused}: it is damaged, or no safetensors file ({error})") from error
    training = json.loads(metadata.get("training", "{}"))
    if not {"experiment", "model"} <= training.keys():
        raise ValueError(f"{refused}: it does not say what was trained, as files do that python -m ebmm train writes")
    if training["experiment"] != (find(name)[0].weights or name) or training["model"] not in contestants:
        raise ValueError(f"{refused}: it says that it holds those of {training['model']} for {training['experiment']}")
    return tensors, training, training.pop("coders", None)


def _coders_beside(path: Path, coders: dict[str, Any]) -> Path:
    """The file that a weights file takes its coders from: beside it, or shipped, and unchanged."""
    beside, shipped = path.with_name(coders["file"]), f"checkpoints/{coders['file']}"
    if beside.is_file() and files.digest_of(beside, "sha256") == coders["sha256"]:
        return beside
    if files.data_files().get(shipped) == coders["sha256"]:
        return files.data_path(shipped)
    state = "which has changed since" if beside.is_file() else "which is not there"
    raise ValueError(
        f"{path} takes its coders from {beside}, {state}: put the file there whose SHA-256 is {coders['sha256']}, "
        f"or train again"
    )
