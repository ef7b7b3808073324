"""An energy of pictures whose memory is a list of codes, written by its own gradient (chapters 6 and 7)."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from ebmm.coders.components import ComponentDecoder
from ebmm.coders.images import as_planes
from ebmm.energies.slots import filled_slots, scalars
from ebmm.layers import MemorySlots
from ebmm.memory import check_counts, check_points
from ebmm.misfit import PictureMisfit, cells, robust_distances, softly_clipped


class PictureSlotEnergy(nn.Module):
    """How badly a picture fits what the slots remind of, and whether a slot knows it.

    ``E(x) = Σ_p ρ(u_p − b_p) + ½ Σⱼ wⱼ (1 − φⱼ)²``, where a slot is a code mⱼ and a flag φⱼ:

    - ρ, u and b are those of :class:`ebmm.misfit.PictureMisfit`, for x and ``y = Σⱼ wⱼ D(mⱼ)``, D being a static linear
      decoder whose pictures are softly clipped to (−¼, 1¼).
    - ``w = softmaxⱼ(−β d(x, D(mⱼ)) − c gⱼ − o (1 − gⱼ) Σ_{i<j} (1 − gᵢ))``, g being a smooth step of φ: the likest slot
      wins, by a distance d that no damaged part dominates; a full slot has its price c, and of empty ones the first
      wins.

    So a picture that is written, one by one, wins the first empty slot. A step of size 1 along the slope raises the
    flag to 1, and puts there about what the picture lacks of y, coded: :class:`ebmm.EBMM` needs no other rule to write
    it. Once all slots are full, prices cancel. Before, an empty slot answers queries, too: made for as many pictures as
    there are slots. Ours, not the paper's.

    Args:
        shape: S of a picture, (H, W) or (3, H, W), sides multiples of 8.
        slots, width: how many pictures there is room for, and C, numbers of a code; a slot is C + 1 floats.
        level: the pictures' mean grey, roughly.
        price, order: start values of c, above the distances of any two pictures, and of o.
        hidden: channels of the network that adds detail.

    Attributes:
        settings: the arguments of :class:`ebmm.EBMM` with which it learns on grey pictures; where three colours are
            summed, reading starts with a third of the rate.

    Shape:
        x: (..., *S). returns: (...).

    Example:
        >>> from ebmm import EBMM
        >>> EBMM(PictureSlotEnergy((32, 32), slots=16, width=287), **PictureSlotEnergy.settings).memory_floats
        4608
    """

    writable = ("memory", "flags")
    settings: ClassVar[dict] = {
        "write_steps": 1, "read_steps": 3, "sequential": True, "projection": "straight-through",
        "non_increasing": False, "gradient_term": False, "decay_term": False, "write_rate": 1.0, "read_rate": 0.6,
    }  # fmt: skip

    def __init__(
        self,
        shape: tuple[int, ...],
        slots: int,
        width: int,
        level: float = 0.5,
        price: float = 300.0,
        order: float = 8.0,
        hidden: int = 64,
    ):
        super().__init__()
        check_counts(slots=slots, width=width, hidden=hidden)
        if not (price > 0 and order > 0):
            raise ValueError(f"price and order must be above 0, got {price} and {order}")
        self.pattern_shape, self.planes = tuple(shape), as_planes(shape)
        self.decoder = ComponentDecoder(width, shape, level)
        self.misfit = PictureMisfit(self.planes, hidden, bounded=True)
        self.memory, self.flags = MemorySlots(slots, width, scale=0.0), MemorySlots(slots, 1, scale=0.0)
        self.flags.weight.requires_grad_(False)  # learned starts would make some slots half full
        starts = 1.0, 0.5, price, order  # of β, of τ in d, of c and o
        self.log_inverse_temperature, self.log_tolerated, self.log_price, self.log_order = scalars(
            *map(math.log, starts)
        )

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - len(self.pattern_shape)]
        slots, flags = self.memory(), self.flags().mT  # (..., slots, C) and (..., 1, slots)
        stored = softly_clipped(self.decoder(slots.flatten(0, -2))).unflatten(0, slots.shape[:-1])
        weights = self._weights(x.reshape(*lead, *self.planes), stored, filled_slots(flags))
        y = weights @ stored.flatten(-len(self.planes))
        fits = self.misfit(x.reshape(-1, *self.planes), y.reshape(-1, *self.planes)).reshape(lead)
        return fits + 0.5 * (weights * (1 - flags).square()).sum(-1)

    def start_with(self, patterns: Tensor) -> None:
        """Start the decoder with the principal components of patterns (N, *S), more than C different ones."""
        check_points(patterns[None], self.pattern_shape, "patterns", 0, 1, self.log_price)
        self.decoder.start_with(patterns)

    def _weights(self, x: Tensor, stored: Tensor, full: Tensor) -> Tensor:
        """w, (..., N, slots), of pictures (..., N, channels, H, W) for what the slots decode to."""
        apart = robust_distances(cells(x), cells(stored), self.log_tolerated.exp())
        before = (1 - full).cumsum(-1) - (1 - full)  # empty slots, for each
        scores = -self.log_inverse_temperature.exp() * apart - self.log_price.exp() * full
        return torch.softmax(scores - self.log_order.exp() * (1 - full) * before, -1)
