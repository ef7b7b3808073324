"""An energy of pictures whose memory is a list of codes, written by its own gradient (chapters 6 and 7)."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ebmm.coders.components import ComponentDecoder
from ebmm.coders.images import as_planes
from ebmm.energies.slots import filled_slots, scalars
from ebmm.layers import MemorySlots
from ebmm.memory import check_counts, check_points
from ebmm.misfit import PictureMisfit, cells, largest_distance, robust_distances, softly_clipped

TOLERATED = 0.5  # start value of ε


class PictureSlotEnergy(nn.Module):
    """How badly a picture fits what the slots remind of, and whether a slot knows it.

    ``E(x) = Σ_p ρ(u_p − b_p) + ½ Σⱼ wⱼ (1 − gⱼ)²``, where a slot is a code θⱼ and a flag gⱼ:

    - ρ, u and b are those of :class:`ebmm.misfit.PictureMisfit`, for x and ``y = Σⱼ wⱼ ψ(θⱼ)``, ψ being a static linear
      decoder whose pictures are softly clipped to (−¼, 1¼).
    - ``w = softmaxⱼ(−β dist(x, ψ(θⱼ)) − c fⱼ − o (1 − fⱼ) Σ_{i<j} (1 − fᵢ))``, f being a smooth step of g: the likest
      slot wins, by a distance that no damaged part dominates; a full slot has its price c, and of empty ones the first
      wins.

    Which slot is written is built into w; what is written is the slope. A picture that is written, one by one, wins the
    first empty slot, and a step of size 1 raises its flag to 1 and puts there about what the picture lacks of y, coded.
    Once all slots are full, prices cancel. Before, an empty slot wins every read, and nothing is recalled: fill all
    slots before you read, with some pictures twice if there are too few. A picture too many is written over the
    likest, and blurs it. Ours, not the paper's.

    Args:
        shape: S of a picture, (H, W) or (3, H, W), sides multiples of 8.
        slots, width: how many pictures there is room for, and C, numbers of a code, at most those of a picture; a slot
            is C + 1 floats.
        level: the pictures' mean grey, roughly.
        price, order: start values of c and o; by default c is at least the largest distance that there is at the start.
        hidden: channels of the network that adds detail.

    Attributes:
        settings: the arguments of :class:`ebmm.EBMM` with which it learns on grey pictures; where three colours are
            summed, reading starts with a third of the rate.

    Shape:
        x: (..., N, *S). returns: (..., N).

    Example:
        >>> from ebmm import EBMM
        >>> energy = PictureSlotEnergy((32, 32), slots=16, width=287)
        >>> EBMM(energy, **energy.settings).memory_floats
        4608
    """

    writable = ("memory", "flags")
    settings: ClassVar[dict[str, Any]] = {
        "write_steps": 1, "read_steps": 3, "sequential": True, "projection": "straight-through",
        "non_increasing": False, "gradient_term": False, "decay_term": False, "write_rate": 1.0, "read_rate": 0.6,
    }  # fmt: skip

    def __init__(
        self,
        shape: tuple[int, ...],
        slots: int,
        width: int,
        level: float = 0.5,
        price: float | None = None,
        order: float = 8.0,
        hidden: int = 64,
    ):
        super().__init__()
        check_counts(slots=slots, width=width, hidden=hidden)
        self.pattern_shape, self.planes = tuple(shape), as_planes(shape)
        if width > math.prod(shape):
            raise ValueError(f"width must be at most {math.prod(shape)}, the numbers of a picture, got {width}")
        price = max(300.0, largest_distance(self.planes, TOLERATED)) if price is None else price
        if not (0 < price < math.inf and 0 < order < math.inf):
            raise ValueError(f"price and order must be above 0 and finite, got {price} and {order}")
        self.decoder = ComponentDecoder(width, shape, level)
        self.misfit = PictureMisfit(self.planes, hidden, bounded=True)
        self.memory, self.flags = MemorySlots(slots, width, scale=0.0), MemorySlots(slots, 1, scale=0.0)
        self.flags.weight.requires_grad_(False)  # learned starts would make some slots half full
        starts = 1.0, TOLERATED, price, order  # of β, of ε in dist, of c and o
        self.log_inverse_temperature, self.log_tolerated, self.log_price, self.log_order = scalars(
            *map(math.log, starts)
        )

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - len(self.pattern_shape)]
        slots, flags = self.memory(), self.flags().mT  # (..., slots, C) and (..., 1, slots)
        stored = softly_clipped(self.decoder(slots.flatten(0, -2))).unflatten(0, slots.shape[:-1])
        weights: Tensor = self._weights(x.reshape(*lead, *self.planes), stored, filled_slots(flags))
        y = weights @ stored.flatten(-len(self.planes))
        fits: Tensor = self.misfit(x.reshape(-1, *self.planes), y.reshape(-1, *self.planes)).reshape(lead)
        return fits + 0.5 * torch.sum(weights * (1 - flags).square(), -1)

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
