"""What a training run was: its history, and the checkpoint that it goes on from."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path

import torch
from torch import Tensor


@dataclass(repr=False)
class History:
    """What happened at each training step.

    Attributes:
        rows: one dict a step: step, loss, error (the task's metric on the training batch), gradient
            norm before clipping, learning rate.
        skipped: steps whose loss or gradient was not finite and that were not applied.
        seconds: time spent, over all sittings.
        metric: what the error counts.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    skipped: int = 0
    seconds: float = 0.0
    metric: str = "wrong bits"

    def __repr__(self) -> str:
        last = f", last {self.metric}: {self.rows[-1]['error']:.3g}" if self.rows else ""
        return f"History({len(self.rows)} steps, {self.skipped} skipped, {self.seconds:.0f} seconds{last})"

    def column(self, name: str) -> list[float]:
        """All values of one column, such as ``"loss"``."""
        return [row[name] for row in self.rows]

    def save(self, path: str | os.PathLike) -> None:
        """Write as JSON."""
        Path(path).write_text(json.dumps(asdict(self)))

    def plot(self, axes=None, window: int = 25):
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


def _describe(thing) -> str:
    """What a task or a model is, told alike in every process, with a checksum in place of each tensor."""
    if isinstance(thing, Tensor):
        return f"{tuple(thing.shape)} sha256 {hashlib.sha256(thing.cpu().numpy().tobytes()).hexdigest()[:16]}"
    if is_dataclass(thing):
        parts = [f"{part.name}={_describe(getattr(thing, part.name))}" for part in fields(thing)]
        return f"{type(thing).__name__}({', '.join(parts)})"
    if inspect.isfunction(thing):
        return thing.__qualname__
    return re.sub(r" at 0x[0-9a-f]+", "", repr(thing))


def _save(path, settings, model, optimiser, drawn, history) -> None:
    """Save all that the next step depends on; the file is replaced in one stroke."""
    state = {
        "settings": settings,
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "generator": drawn,
        "torch": torch.get_rng_state(),
        "history": asdict(history),
    }
    partial = f"{path}.partial"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, partial)
    os.replace(partial, path)


def _load(path, settings, model, optimiser, generator) -> History:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        there = {"precision": "float32"} | state["settings"]  # older checkpoints do not say
    except Exception as error:  # torch.load raises whatever the damage makes it stumble over
        raise ValueError(f"{path} is no whole checkpoint of ebmm.fit ({error}): delete it to start anew") from error
    differing = {name: (there.get(name), here) for name, here in settings.items() if there.get(name) != here}
    if differing:
        raise ValueError(
            f"{path} is a checkpoint of another run; (there, here) differ in {differing}: "
            f"delete it to start anew, or give another path"
        )
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    generator.set_state(state["generator"])
    torch.set_rng_state(state["torch"])
    return History(**state["history"])
