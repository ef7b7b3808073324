"""What keeps meta-training steady: outliers left out, a way back from collapse, averaged weights."""

from __future__ import annotations

import copy
import math
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

RECENT = 100  # gradient norms that a new one is compared with
OUTLIER = 10.0  # times their median
LOOK = 25  # steps between two looks at the loss
FEW, MANY = 2, 10  # updates left out between two looks; in a row
WINDOW = 50  # steps that the running loss is an average over
GOOD, COLLAPSED = 1.3, 2.5  # times the least running loss


class Steady:
    """Watches the updates of a model.

    An update is left out if its loss or gradient is not finite, or its gradient's norm is more than ten times the
    median of the last hundred of the same lesson. Every 25 steps the running loss is looked at. While it is near its
    least value and updates are hardly left out, the weights are kept. When it is 2.5 times as large, or ten updates
    in a row are left out, they come back, the optimiser forgets, and all further steps are half as long. The weights'
    moving average is what a run ends with.

    Args:
        model, optimiser: what is trained, with what.
        averaging: share of the old average that stays in each step, from 0, for none, to below 1.

    Attributes:
        skipped, returns: updates left out, and how often the weights came back.
        factor: what the learning rate is to be multiplied with.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> steady = Steady(model, torch.optim.AdamW(model.parameters()), averaging=0.99)
        >>> [steady.accepts(loss, norm=0.5) for loss in (1.0, math.nan)], steady.skipped
        ([True, False], 1)
    """

    def __init__(self, model: nn.Module, optimiser: torch.optim.Optimizer, averaging: float):
        self.model, self.optimiser, self.averaging = model, optimiser, averaging
        self.skipped = self.skipped_in_a_row = self.skipped_before = self.returns = self.seen = self.heard = 0
        self.factor, self.running, self.least = 1.0, 0.0, math.inf
        self.norms: dict[int, list[float]] = {}
        self.kept_norms: dict[int, list[float]] = {}
        self.kept, self.average = self._weights(), self._weights()

    def _weights(self) -> list[Tensor]:
        with torch.inference_mode(False):
            return [parameter.detach().clone() for parameter in self.model.parameters()]

    def accepts(self, loss: float, norm: float, lesson: int = 0) -> bool:
        """Whether an update is to be applied, which a batch of this lesson gave."""
        accepted = math.isfinite(loss) and math.isfinite(norm)
        if accepted:
            known = self.norms.get(lesson, [])
            if len(known) >= RECENT // 5:
                accepted = norm <= OUTLIER * median(known)
            self.norms = self.norms | {lesson: [*known[1 - RECENT :], norm]}
        self.skipped += not accepted
        self.skipped_in_a_row = 0 if accepted else self.skipped_in_a_row + 1
        return accepted

    def new_lesson(self) -> None:
        """Losses are other ones from here on."""
        self.heard, self.running, self.least = 0, 0.0, math.inf

    @torch.no_grad()
    def after(self, loss: float) -> None:
        """Look at the model after a step of this loss."""
        if math.isfinite(loss):
            self.heard += 1
            self.running += (loss - self.running) / min(self.heard, WINDOW)
        self.seen += 1
        if self.averaging:
            share = min(self.averaging, self.seen / (self.seen + 10))
            torch._foreach_lerp_(self.average, list(self.model.parameters()), 1 - share)
        if self.skipped_in_a_row and self.skipped_in_a_row % MANY == 0:
            self._return()
        if self.seen % LOOK:
            return
        steadily = self.skipped - self.skipped_before <= FEW and not self.skipped_in_a_row
        self.skipped_before = self.skipped
        if self.heard < WINDOW:  # few losses say little
            return
        if self.running > COLLAPSED * self.least:
            self._return()
        elif self.running < GOOD * self.least and steadily:
            self.kept, self.kept_norms = self._weights(), self.norms
        self.least = min(self.least, self.running)

    def _return(self) -> None:
        """To the weights that were kept."""
        self._give(self.kept)
        self.average = [weight.clone() for weight in self.kept]
        self.optimiser.state.clear()
        self.factor, self.returns, self.norms = self.factor / 2, self.returns + 1, self.kept_norms
        self.running = min(self.running, self.least)

    def finish(self) -> None:
        """Leave the model with the averaged weights."""
        if self.averaging:
            self._give(self.average)

    @torch.no_grad()
    def _give(self, weights: list[Tensor]) -> None:
        for parameter, weight in zip(self.model.parameters(), weights, strict=True):
            parameter.copy_(weight)

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on."""
        names = (
            "skipped", "skipped_in_a_row", "skipped_before", "returns", "seen", "heard", "factor", "running", "least",
            "norms", "kept_norms", "kept", "average",
        )  # fmt: skip
        return {name: copy.copy(getattr(self, name)) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        device = next(self.model.parameters()).device
        for name, value in state.items():
            held = [weight.to(device) for weight in value] if name in ("kept", "average") else value
            setattr(self, name, held)
