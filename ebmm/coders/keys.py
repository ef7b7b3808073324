"""Encoders that give pictures the keys by which a memory finds what it knows of them (chapter 6)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ebmm.coders.components import spread
from ebmm.coders.images import as_planes, numbers_network
from ebmm.given import real


class KeyEncoder(nn.Module):
    """What a picture is known by: two convolutions and a linear layer, ``tanh(network(2 (x − level)))/√K``.

    Args:
        shape, keys: S of a picture, and K, size of a key.
        level: the pictures' mean grey, roughly.
        channels: of the two convolutions.

    Shape:
        x: (M, channels, H, W). returns: (M, K).

    Example:
        >>> KeyEncoder((32, 32), keys=64)(torch.rand(5, 1, 32, 32)).shape
        torch.Size([5, 64])
    """

    def __init__(self, shape: tuple[int, ...], keys: int, level: float = 0.5, channels: tuple[int, int] = (64, 96)):
        super().__init__()
        self.level = real(level, "level")
        self.network = numbers_network(as_planes(shape), keys, channels)

    def forward(self, x: Tensor) -> Tensor:
        numbers = torch.tanh(self.network(2 * (x - self.level)))
        return numbers / math.sqrt(numbers.shape[1])

    @torch.no_grad()
    def start_with(self, pictures: Tensor) -> None:
        """Choose the last layer so that the keys of pictures (N, channels, H, W) are independent.

        ValueError where the pictures are too few, or too much alike, for K keys.
        """
        last: Any = self.network[-1]
        _whiten(last, self.network[:-1](2 * (pictures - self.level)))


class KeyMapEncoder(nn.Module):
    """What each place of a picture is known by: its :class:`KeyEncoder`'s key times signs of the place.

    So keys of different places are nearly orthogonal, as those of different pictures are.

    Args:
        shape, keys, level: as for :class:`KeyEncoder`; K numbers at each place.

    Shape:
        x: (M, channels, H, W). returns: (M, K, H/4, W/4); nine neighbours together have length below 1.

    Example:
        >>> KeyMapEncoder((32, 32), keys=64)(torch.rand(5, 1, 32, 32)).shape
        torch.Size([5, 64, 8, 8])
    """

    def __init__(self, shape: tuple[int, ...], keys: int, level: float = 0.5):
        super().__init__()
        _, height, width = as_planes(shape)
        self.whole = KeyEncoder(shape, keys, level)
        self.places = nn.Parameter(torch.randint(0, 2, (keys, height // 4, width // 4)) * 2.0 - 1)

    def forward(self, x: Tensor) -> Tensor:
        whole: Tensor = self.whole(x)
        return whole[..., None, None] * self.places / 3

    def start_with(self, pictures: Tensor) -> None:
        """As for :class:`KeyEncoder`."""
        self.whole.start_with(pictures)


def _whiten(layer: nn.Linear, features: Tensor) -> None:
    """Let a layer map features (N, C) to numbers that are independent, of mean 0 and variance 1."""
    mean = features.mean(0)
    lengths, directions = spread(features - mean, len(layer.bias))
    layer.weight.copy_(directions * math.sqrt(len(features)) / lengths[:, None])
    layer.bias.copy_(-layer.weight @ mean)
