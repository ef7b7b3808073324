"""Energies whose memory is a list of slots: the dense associative memory, of patterns or of their codes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.coders import sign_coders
from ebmm.coders.base import given_or_default
from ebmm.layers import MemoryLinear, MemorySlots
from ebmm.memory import as_pattern_shape


class DenseEnergy(nn.Module):
    """The dense associative memory, ``E(x) = −1/β · log Σᵢ exp(β mᵢᵀs) + ½‖s‖²`` with ``s = 2x − 1`` (chapter 2).

    Its slots mᵢ are written by gradient steps; :class:`ebmm.DenseMemory` stores patterns in the slots verbatim instead.

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

    ``E(x) = ½‖s‖² − 1/β · log Σⱼ exp(β κⱼ)``, ``κⱼ = mⱼᵀs − c/2 ‖mⱼ‖² (‖s‖²/d)^q`` with ``s = 2x − 1``. A new
    pattern overlaps with a full slot by about ±√d, far less than the price c d/2; an empty slot asks for nothing. So
    one gradient step, of size 1, puts the pattern into an empty slot: E is written and read by. A damaged query may
    at first prefer empty slots, too: it then shrinks, and the price of its own slot falls faster than their overlap.

    Patterns are to be written one by one, ``EBMM(..., sequential=True)``. This energy is ours, not the paper's.

    Args:
        features, slots: d, and how many patterns there is room for, d floats each.
        beta, price, power: start values of β, c and q, above 0.

    Shape:
        x: (..., d). returns: (...).

    Example:
        >>> SlotEnergy(64, slots=32)(torch.rand(2, 5, 64)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)

    def __init__(self, features: int, slots: int, beta: float = 100.0, price: float = 0.9, power: float = 2.0):
        super().__init__()
        self.pattern_shape = (features,)
        self.memory = MemorySlots(slots, features, scale=0.2)
        self.log_beta, self.price, self.power = _scalars(math.log(beta), price, power)

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        scores = slot_scores(signs, self.memory(), self.price, self.power)
        beta = self.log_beta.exp()
        return 0.5 * signs.square().sum(-1) - torch.logsumexp(beta * scores, -1) / beta


def slot_scores(code: Tensor, slots: Tensor, price: Tensor, power: Tensor) -> Tensor:
    """``κⱼ = mⱼᵀe − c/2 ‖mⱼ‖² (‖e‖²/C)^q`` for codes e (..., N, C) and slots m (..., slots, C): (..., N, slots)."""
    length = code.square().mean(-1, keepdim=True)
    return code @ slots.mT - 0.5 * price * slots.square().sum(-1).unsqueeze(-2) * (length + 1e-6) ** power


class CodedSlotEnergy(nn.Module):
    """The same where slots hold codes, which may be shorter than patterns (chapter 5).

    ``E(x) = ½‖s‖² − 1/β · log Σⱼ exp(β κⱼ)`` with ``κⱼ = gⱼ (yⱼᵀs − c/2 ‖yⱼ‖² (‖s‖²/d)^q) + a (mⱼᵀe − ½‖mⱼ‖²)``. The
    first part is the score of :class:`SlotEnergy` for the decoded slots ``yⱼ = 2 decoder(mⱼ) − 1``. The smooth step
    gⱼ of ``‖mⱼ‖²/C`` is 0 for an empty slot, which reminds of nothing, and 1 for a full one. The second part draws the
    slot that wins to the code ``e = encoder(x)``: at a rate of 1/a, one step puts the code into an empty slot.

    Args:
        features: d, the size of a pattern, or its shape S.
        slots, width: how many patterns there is room for, and C, floats of a slot.
        encoder, decoder: (M, *S) to (M, C), of about the length √C, and back, to [0, 1]; by default, for vectors,
            those of :func:`ebmm.coders.sign_coders`, for independent bits.
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
    ):
        super().__init__()
        self.pattern_shape = as_pattern_shape(features, "features")
        self.encoder, self.decoder = given_or_default(
            encoder, decoder, self.pattern_shape, lambda d: sign_coders(d, width)
        )
        self.memory = MemorySlots(slots, width, scale=0.2)
        self.log_beta, self.price, self.power, self.log_share = _scalars(math.log(beta), price, power, math.log(share))

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - len(self.pattern_shape)]
        signs = 2 * x.flatten(len(lead)) - 1
        code = self.encoder(x.reshape(-1, *self.pattern_shape)).unflatten(0, lead)
        slots, beta = self.memory(), self.log_beta.exp()
        stored = 2 * self.decoder(slots.flatten(0, -2)).reshape(*slots.shape[:-1], -1) - 1
        filled = ((slots.square().mean(-1) - 0.2) / 0.6).clamp(0, 1)
        filled = filled.square() * (3 - 2 * filled)
        drawn = code @ slots.mT - 0.5 * slots.square().sum(-1).unsqueeze(-2)
        scores = filled.unsqueeze(-2) * slot_scores(signs, stored, self.price, self.power)
        scores = scores + self.log_share.exp() * drawn
        return 0.5 * signs.square().sum(-1) - torch.logsumexp(beta * scores, -1) / beta


class CompressedDenseEnergy(nn.Module):
    """A dense associative memory whose slots hold codes, which may be shorter than patterns (chapter 5).

    ``E(x) = ½‖s‖² − 1/β · log Σᵢ exp(β yᵢᵀs)`` with ``s = 2x − 1`` and ``yᵢ = 2 decoder(mᵢ) − 1``. The slots mᵢ
    are writable; the coders and β are static. From a query, one gradient step of size 1/4 goes to the mean of the yᵢ,
    weighted by how well they agree with it.

    It has its own writing loss, ``−1/γ · log Σᵢ exp(−γ/2 ‖mᵢ − e/2‖²)`` with ``e = encoder(x)``: half the squared
    distance from *half* the code to the nearest slot. One gradient step on it, of size 2, mirrors that slot
    about e/2, so that an empty slot, close to the origin, lands on the code. A slot that holds another code is
    further away and left alone. So patterns written one after the other find a slot each; written all at once they
    share one. This energy is ours, not the paper's.

    Args:
        features: d, the size of a pattern, or its shape S.
        slots, width: how many patterns there is room for, and the size C of a code; it holds slots · C floats.
        encoder, decoder: by default, for vectors, those of :func:`ebmm.coders.sign_coders`, for independent bits.
        inverse_temperature: start value of β, above 0. Where a share p of random bits is flipped,
            ``½ ln((1 − p)/p)`` makes that mean the posterior mean: 0.55 for a quarter.
        sharpness: γ. High, so that writing chooses one slot even where two are almost as near.

    Shape:
        x: (..., *S). returns: (...), the writing loss with ``writing=True``.

    Example:
        >>> CompressedDenseEnergy(128, slots=96, width=86)(torch.rand(2, 5, 128)).shape
        torch.Size([2, 5])
    """

    writable = ("memory",)
    own_writing_loss = True
    share = 0.5  # of the code, that slots are compared with when writing

    def __init__(
        self,
        features: int | tuple[int, ...],
        slots: int,
        width: int,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        inverse_temperature: float = 0.55,
        sharpness: float = 1e5,
    ):
        super().__init__()
        self.pattern_shape = as_pattern_shape(features, "features")
        self.encoder, self.decoder = given_or_default(
            encoder, decoder, self.pattern_shape, lambda d: sign_coders(d, width)
        )
        self.memory = MemorySlots(slots, width)
        self.log_inverse_temperature = nn.Parameter(torch.tensor(math.log(inverse_temperature)))
        self.sharpness = sharpness

    def forward(self, x: Tensor, writing: bool = False) -> Tensor:
        slots = self.memory()
        return self.writing_loss(x, slots) if writing else self.reading_energy(x, slots)

    def writing_loss(self, x: Tensor, slots: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - len(self.pattern_shape)]
        part = self.share * self.encoder(x.reshape(-1, *self.pattern_shape)).unflatten(0, lead)
        overlap = part @ slots.mT - 0.5 * slots.square().sum(-1).unsqueeze(-2)
        return 0.5 * part.square().sum(-1) - torch.logsumexp(self.sharpness * overlap, -1) / self.sharpness

    def reading_energy(self, x: Tensor, slots: Tensor) -> Tensor:
        signs = 2 * x.flatten(-len(self.pattern_shape)) - 1
        stored = 2 * self.decoder(slots.flatten(0, -2)).reshape(*slots.shape[:-1], -1) - 1
        beta = self.log_inverse_temperature.exp()
        return 0.5 * signs.square().sum(-1) - torch.logsumexp(beta * signs @ stored.mT, -1) / beta


def _scalars(*values: float) -> list[nn.Parameter]:
    return [nn.Parameter(torch.tensor(value)) for value in values]
