"""Energies of pictures whose memory is a layer between what a picture is known by and what it looks like."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.coders.components import ComponentDecoder, PatchDecoder
from ebmm.coders.images import as_planes
from ebmm.coders.keys import KeyEncoder, KeyMapEncoder
from ebmm.energies.margins import positive
from ebmm.layers import MemoryConv2d, MemoryLayer, MemoryLinear
from ebmm.memory import check_counts, check_points
from ebmm.misfit import PictureMisfit, softly_clipped


class AssociationEnergy(nn.Module):
    """How badly a picture fits what the memory makes of it, ``yˡ = D(θ k(xˡ))``: ``E(x) = Σₗ aₗ Σ_p ρ(u_p − b_p)``.

    k is a static network that gives a picture its key, θ a layer, the memory, that starts as zero and leads from keys
    to codes, and D a static linear decoder, whose pictures are softly clipped to (−¼, 1¼). The inner sum, that of
    :class:`ebmm.misfit.PictureMisfit`, is over the pixels of x and yˡ. The first key is that of ``x¹ = x``; each
    further hop asks for the key of xˡ⁺¹, which is x repaired by yˡ. All patterns share all floats.

    Before training, where the misfit is above what is forgiven, a step of writing is about one of the delta rule: what
    y lacks of x, coded, times the key. Gradients are to be summed over patterns. Ours, not the paper's.

    Args:
        shape: S of a picture, (H, W) or (3, H, W), sides multiples of 8.
        encoder, decoder: k, from (M, channels, H, W) to keys of length about 1, and D, back from codes, such as those
            of :mod:`ebmm.coders.keys` and :mod:`ebmm.coders.components`.
        memory: any layer of :mod:`ebmm.layers` that maps keys to codes; without a bias, which all patterns would push.
        hops, hidden: how often the memory is asked, and channels of the network that adds detail.

    Attributes:
        settings: the arguments of :class:`ebmm.EBMM` with which it learns on grey pictures; where three colours are
            summed, reading starts with a third of the rate.

    Shape:
        x: (..., *S). returns: (...).

    Example:
        >>> from ebmm import EBMM
        >>> energy = linear_association((32, 32), codes=72, keys=64)
        >>> EBMM(energy, **energy.settings).memory_floats
        4608
    """

    writable = ("memory",)
    settings: ClassVar[dict[str, Any]] = {
        "write_steps": 6, "read_steps": 4, "reduction": "sum", "projection": "straight-through",
        "non_increasing": False, "gradient_term": False, "decay_term": False, "write_rate": 0.6, "read_rate": 0.6,
    }  # fmt: skip

    def __init__(
        self,
        shape: tuple[int, ...],
        encoder: nn.Module,
        memory: MemoryLayer,
        decoder: ComponentDecoder | PatchDecoder,
        hops: int = 1,
        hidden: int = 64,
    ):
        super().__init__()
        check_counts(hops=hops, hidden=hidden)
        self.pattern_shape, self.planes = tuple(shape), as_planes(shape)
        self.encoder, self.memory, self.decoder = encoder, memory, decoder
        self.misfit = PictureMisfit(self.planes, hidden, bounded=True)
        self.raw_weights = positive(1 / hops, hops)
        for parameter in memory.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - len(self.pattern_shape)]
        pictures = x.reshape(-1, *self.planes)
        first, *further = F.softplus(self.raw_weights)
        y = self.recalled(pictures, lead)
        energy = first * self.misfit(pictures, y)
        for weight in further:
            y = self.recalled(self.misfit.repaired(pictures, y), lead)
            energy = energy + weight * self.misfit(pictures, y)
        return torch.reshape(energy, lead)

    def start_with(self, patterns: Tensor) -> None:
        """Start keys and codes from what patterns (N, *S) are like, by ``start_with`` of encoder and decoder.

        ValueError where they are of another shape, or do not vary along as many directions as keys or codes.
        """
        check_points(patterns[None], self.pattern_shape, "patterns", 0, 1, self.raw_weights)
        pictures = patterns.reshape(-1, *self.planes)
        starting: list[Any] = [self.encoder, self.decoder]
        for part in starting:
            part.start_with(pictures)

    def recalled(self, pictures: Tensor, lead: torch.Size) -> Tensor:
        """What the memory makes of pictures, both (M, channels, H, W), not clipped; M is the product of ``lead``."""
        keys = self.encoder(pictures)
        codes = self.memory(keys.reshape(*lead, *keys.shape[1:]))
        y = self.decoder(codes.reshape(len(keys), *codes.shape[len(lead) :]))
        return softly_clipped(y)


def linear_association(
    shape: tuple[int, ...], codes: int, keys: int, level: float = 0.5, hops: int = 1
) -> AssociationEnergy:
    """A fully connected memory of C · K floats, from one key of a picture to one code."""
    memory = MemoryLinear(keys, codes, bias=False)
    return AssociationEnergy(shape, KeyEncoder(shape, keys, level), memory, ComponentDecoder(codes, shape, level), hops)


def convolutional_association(
    shape: tuple[int, ...], codes: int, keys: int, level: float = 0.5, hops: int = 1
) -> AssociationEnergy:
    """A convolution of 9 K C floats, from keys at places 4 pixels apart to codes of squares of 8 × 8.

    Example:
        >>> energy = convolutional_association((32, 32), codes=8, keys=64)
        >>> sum(parameter.numel() for parameter in energy.memory.parameters())
        4608
    """
    memory = MemoryConv2d(keys, codes, 3, stride=2, padding=1, bias=False)
    return AssociationEnergy(shape, KeyMapEncoder(shape, keys, level), memory, PatchDecoder(codes, shape, level), hops)
