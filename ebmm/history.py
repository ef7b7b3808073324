"""What a training run was: its history, and the checkpoint that it goes on from."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import torch
from torch import Generator, Tensor, nn
from torch.utils._pytree import tree_leaves

from ebmm import files
from ebmm._repository import VERSION
from ebmm.given import kind
from ebmm.identity import differences, digest, identity_of
from ebmm.steady import Steady


@dataclass(repr=False)
class History:
    """What happened at each training step.

    Attributes:
        rows: one dict a step: step, loss, error (the task's metric on the training batch), gradient
            norm before clipping, learning rate.
        skipped, returns: updates that were not applied, since loss or gradient was not finite or outlying, and how
            often training had collapsed and came back to weights from before.
        seconds: time spent, over all sittings.
        metric: what the error counts.
        compared: one dict every so many steps: step, and the errors on the training batch of what is read from the
            queries' own memory, from another's and from an empty one. Where the three agree, nothing is remembered.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    skipped: int = 0
    returns: int = 0
    seconds: float = 0.0
    metric: str = "wrong bits"
    compared: list[dict[str, float]] = field(default_factory=list)

    def __repr__(self) -> str:
        last = f", last {self.metric}: {self.rows[-1]['error']:.3g}" if self.rows else ""
        return f"History({len(self.rows)} steps, {self.skipped} skipped, {self.seconds:.0f} seconds{last})"

    def column(self, name: str) -> list[float]:
        """All values of one column, such as ``"loss"``."""
        return [row[name] for row in self.rows]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON."""
        with files.replacing(path) as beside:
            beside.write_text(files.as_json(asdict(self)), encoding="utf8")

    def plot(self, axes: Any = None, window: int = 25) -> Any:
        """Plot loss and error against the step, each with its running median over ``window`` steps.

        Args:
            axes: two matplotlib axes; ``None`` makes a figure.
            window: steps of the running median, at least 1.

        Returns:
            The two axes.
        """
        import matplotlib.pyplot as plt
        import pandas

        axes = plt.subplots(1, 2, figsize=(8, 3))[1] if axes is None else axes
        table = pandas.DataFrame(self.rows)
        for ax, name, label in zip(axes, ("loss", "error"), ("loss", self.metric), strict=True):
            (line,) = ax.plot(table["step"], table[name], alpha=0.25, linewidth=0.8)
            smooth = table[name].rolling(window, min_periods=1).median()
            ax.plot(table["step"], smooth, color=line.get_color())
            ax.set(xlabel="meta-training step", ylabel=label, ylim=(0, None))
        return axes


class Checkpoint:
    """The file that a run is saved to and goes on from; without a path nothing is saved."""

    # Where each model of this session is saved, what it began with, and what it was left with: it may go on with its
    # own run where nobody has changed it since.
    begun: ClassVar[WeakKeyDictionary[nn.Module, tuple[Path, dict[str, str], dict[str, str]]]] = WeakKeyDictionary()

    def __init__(
        self,
        path: str | os.PathLike[str] | None,
        settings: Mapping[str, object],
        task: object,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        steady: Steady,
        generator: Generator,
    ):
        self.path = None if path is None else Path(path).resolve()
        self.model, self.optimiser, self.steady, self.generator = model, optimiser, steady, generator
        self.holds_run = False
        if self.path is not None:
            if self.path.is_dir():
                raise ValueError(f"checkpoint {self.path} is a folder: name a file")
            now = _digests_of(model)
            where, start, left = self.begun.get(model, (None, {}, {}))
            if where != self.path or left != now or not self.path.exists():
                start = now
            torch_version, python = torch.__version__.partition("+")[0], "{}.{}".format(*sys.version_info)
            versions = {"ebmm": VERSION, "torch": torch_version, "python": python}
            self.run = {"identity": identity_of(**settings, task=task, model=model, **versions), "start": start}

    @contextmanager
    def sitting(self, alone: bool) -> Iterator[None]:
        """Keeps the file from other runs, and notes at the end what the model is left with."""
        with files.locked(self.path) if alone and self.path is not None else nullcontext():
            try:
                yield
            finally:
                if self.path is not None and self.holds_run:
                    self.begun[self.model] = self.path, self.run["start"], _digests_of(self.model)

    def load(self) -> History | None:
        """Set everything to where it was saved, and return the history; ``None`` where nothing is saved yet."""
        if self.path is None or not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            if state.pop("digest") != _digest_of_all(state):
                raise ValueError("bytes in it have changed")
            history, different = History(**state["history"]), differences(state["identity"], self.run["identity"])
            started = [name for name, value in self.run["start"].items() if state["start"].get(name) != value]
            model, optimiser, steady = (state[name] for name in ("model", "optimiser", "steady"))
            generator, drawn = state["generator"], state["torch"]
        except Exception as error:  # torch.load raises whatever the damage makes it stumble over
            told = f"{type(error).__name__}: {error}".splitlines()[0]
            raise ValueError(
                f"{self.path} is no whole checkpoint of ebmm.fit ({told}): put back a copy of it, or give another path"
            ) from error
        if started and self.run["start"] != {name: digest(value) for name, value in model.items()}:
            different.append(
                f"start values of {', '.join(started[:4])} are others, as from another seed; to go on all the same, "
                f'first load its weights: model.load_state_dict(torch.load({str(self.path)!r})["model"])'
            )
        if different:
            more = f"; and {len(different) - 5} more" if len(different) > 5 else ""
            raise ValueError(
                f"{self.path} is a checkpoint of another run ({'; '.join(different[:5])}{more}): give another path, "
                f"or call fit as it was called there, with a model built as there"
            )
        self.run["start"] = state["start"]
        self.holds_run = True
        self.model.load_state_dict(model)
        self.optimiser.load_state_dict(optimiser)
        self.steady.load_state_dict(steady)
        self.generator.set_state(generator)
        torch.set_rng_state(drawn)
        return history

    def save(self, drawn: Tensor, history: History) -> None:
        """Save all that the next step depends on, with the state ``drawn`` of the generator."""
        if self.path is None:
            return
        state = self.run | {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "steady": self.steady.state_dict(),
            "generator": drawn,
            "torch": torch.get_rng_state(),
            "history": asdict(history),
        }
        packed = io.BytesIO()  # written at once: torch.save to a full disk does not say that it is full
        torch.save(state | {"digest": _digest_of_all(state)}, packed)
        try:
            with files.replacing(self.path) as beside:
                beside.write_bytes(packed.getbuffer())
            self.holds_run = True
        except OSError as error:
            raise OSError(
                f"{self.path} could not be saved ({error.strerror or error}); what was saved there before is kept, "
                f"and the same call goes on from it"
            ) from error


def _digest_of_all(state: dict[str, Any]) -> str:
    """PyTorch looks for no damage in the tensors of a file."""
    return digest([digest(leaf) if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves(state)])


def _digests_of(model: nn.Module) -> dict[str, str]:
    state = model.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"only tensors can be saved, but {name} of the state_dict is of type {kind(value)}")
    return {name: digest(value) for name, value in state.items()}
