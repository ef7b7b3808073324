"""Energies whose memory is a list of slots: the dense associative memory, of patterns or of their codes."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ebmm.coders import sign_coders
from ebmm.coders.base import given_or_default
from ebmm.given import real
from ebmm.layers import MemoryLinear, MemorySlots, beside_points
from ebmm.memory import as_pattern_shape


class DenseEnergy(nn.Module):
    """The dense associative memory, ``E(x) = −1/β · log Σⱼ exp(β θⱼᵀs) + ½‖s‖²`` with ``s = 2x − 1`` (chapter 2).

    Its slots θⱼ are written by gradient steps; :class:`ebmm.DenseMemory` stores patterns in the slots verbatim instead.

    Args:
        features, slots, beta: d, how many slots, of d floats each, and the inverse temperature, above 0.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> DenseEnergy(4, slots=3)(torch.rand(2, 5, 4)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)

    def __init__(self, features: int, slots: int, beta: float = 1.0):
        super().__init__()
        self.pattern_shape = (features,)
        self.beta = beta
        self.memory = MemoryLinear(features, slots, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        return -torch.logsumexp(self.beta * self.memory(signs), -1) / self.beta + 0.5 * signs.square().sum(-1)


class SlotEnergy(nn.Module):
    """A dense associative memory that writes by its own energy: a slot that is full has its price (chapter 5).

    ``E(x) = ½‖s‖² − 1/β · log Σⱼ exp(β zⱼ)``, ``zⱼ = θⱼᵀs − c/2 ‖θⱼ‖² (‖s‖²/d)^q`` with ``s = 2x − 1``. A new
    pattern overlaps with a full slot by about ±√d, far less than the price c d/2; an empty slot asks for nothing. So
    one gradient step, of size 1, puts the pattern into an empty slot: E is written and read by. A damaged query may
    at first prefer empty slots, too: it then shrinks, and the price of its own slot falls faster than their overlap.

    Patterns are to be written one by one, ``EBMM(..., sequential=True)``. This energy is ours, not the paper's.

    Args:
        features, slots: d, and how many patterns there is room for, d floats each.
        beta, price, power: start values of β, c and q, above 0.

    Attributes:
        settings: the arguments of :class:`ebmm.EBMM` with which it works before it is trained.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> from ebmm import EBMM
        >>> EBMM(SlotEnergy(64, slots=32), **SlotEnergy.settings).memory_floats
        2048
        >>> SlotEnergy(64, slots=32)(torch.rand(2, 5, 64)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)
    settings: ClassVar[dict[str, Any]] = {
        "write_steps": 1, "read_steps": 5, "sequential": True, "projection": "straight-through",
        "gradient_term": False, "decay_term": False, "write_rate": 1.0, "read_rate": 0.07,
    }  # fmt: skip

    def __init__(self, features: int, slots: int, beta: float = 100.0, price: float = 0.9, power: float = 2.0):
        super().__init__()
        self.pattern_shape = (features,)
        self.memory = MemorySlots(slots, features, scale=0.2)
        self.log_beta, self.price, self.power = scalars(math.log(beta), price, power)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        scores = slot_scores(signs, self.memory(), self.price, self.power)
        beta = self.log_beta.exp()
        return 0.5 * signs.square().sum(-1) - torch.logsumexp(beta * scores, -1) / beta


def slot_scores(code: Tensor, slots: Tensor, price: Tensor, power: Tensor) -> Tensor:
    """``zⱼ = θⱼᵀe − c/2 ‖θⱼ‖² (‖e‖²/C)^q`` for codes e (..., N, C) and slots m (..., slots, C): (..., N, slots)."""
    length = code.square().mean(-1, keepdim=True)
    return code @ slots.mT - 0.5 * price * beside_points(slots.square().sum(-1)) * (length + 1e-6) ** power


def filled_slots(sign: Tensor) -> Tensor:
    """A smooth step of a sign that a slot is in use: 0 up to 0.2, 1 from 0.8 on, with slope 0 there."""
    step = ((sign - 0.2) / 0.6).clamp(0, 1)
    return step.square() * (3 - 2 * step)


class CodedSlotEnergy(nn.Module):
    """The same where slots hold codes, which may be shorter than patterns (chapter 5).

    ``E(x) = ½‖s‖² − 1/β · log Σⱼ exp(β zⱼ)`` with ``zⱼ = gⱼ (yⱼᵀs − c/2 ‖yⱼ‖² (‖s‖²/d)^q) + a (θⱼᵀe − ½‖θⱼ‖²)``. The
    first part is the score of :class:`SlotEnergy` for the decoded slots ``yⱼ = 2 decoder(θⱼ) − 1``. The smooth step
    gⱼ of ``‖θⱼ‖²/C`` is 0 for an empty slot, which reminds of nothing, and 1 for a full one. The second part draws the
    slot that wins to the code ``e = encoder(x)``: at a rate of 1/a, one step puts the code into an empty slot.

    Args:
        features: d, the size of a pattern, or its shape S.
        slots, width: how many patterns there is room for, and C, floats of a slot.
        encoder, decoder: (M, *S) to (M, C) and back, to [0, 1]; by default, for vectors, those of
            :func:`ebmm.coders.sign_coders`, for independent bits.
        scale: root mean square of the numbers that ``encoder`` gives, above 0; slots hold codes divided by it.
        beta, price, power, share: start values of β, c, q and a, above 0.

    Shape:
        x: (..., *S). returns: (...).

    Example:
        >>> CodedSlotEnergy(128, slots=96, width=86)(torch.rand(2, 5, 128)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)

    def __init__(
        self,
        features: int | tuple[int, ...],
        slots: int,
        width: int,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        beta: float = 100.0,
        price: float = 0.9,
        power: float = 2.0,
        share: float = 0.1,
        scale: float = 1.0,
    ):
        super().__init__()
        self.pattern_shape = as_pattern_shape(features, "features")
        self.encoder, self.decoder = given_or_default(
            encoder, decoder, self.pattern_shape, lambda d: sign_coders(d, width)
        )
        self.scale = real(scale, "scale", 0)
        if scale == 0:
            raise ValueError("scale must be above 0, got 0")
        self.memory = MemorySlots(slots, width, scale=0.2)
        self.log_beta, self.price, self.power, self.log_share = scalars(math.log(beta), price, power, math.log(share))

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - len(self.pattern_shape)]
        signs = 2 * x.flatten(len(lead)) - 1
        code = self.encoder(x.reshape(-1, *self.pattern_shape)).reshape(*lead, -1) / self.scale
        slots, beta = self.memory(), self.log_beta.exp()
        stored = 2 * self.decoder(self.scale * slots.flatten(0, -2)).reshape(*slots.shape[:-1], -1) - 1
        filled = beside_points(filled_slots(slots.square().mean(-1)))
        drawn = code @ slots.mT - 0.5 * beside_points(slots.square().sum(-1))
        scores = filled * slot_scores(signs, stored, self.price, self.power)
        scores = scores + self.log_share.exp() * drawn
        return 0.5 * signs.square().sum(-1) - torch.logsumexp(beta * scores, -1) / beta


def scalars(*values: float) -> list[nn.Parameter]:
    """Parameters of one number each."""
    return [nn.Parameter(torch.tensor(value)) for value in values]
