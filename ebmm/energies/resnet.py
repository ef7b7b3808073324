"""The paper's energies for images: residual networks in which only a small part is the memory (appendix B).

The images of all memories pass the static layers as one batch. Activations are SiLU or tanh, since the gradient term of
the writing loss needs ∇ₓE to be smooth. A memory layer and the last hidden layer are followed by tanh: however far
writing drives the memory, the energy differs from the head's bias by at most the sum of the head's absolute weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.energies.gated import GatedHops, check_memory_features
from ebmm.layers import LayerNorm, MemoryConv2d, MemoryLinear


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a 1×1 shortcut, height and width halved: ``silu(conv(silu(conv(x))) + shortcut(x))``.

    Args:
        in_channels, out_channels: channels of input and output.

    Shape:
        x: (M, in_channels, H, W). returns: (M, out_channels, ⌈H/2⌉, ⌈W/2⌉).

    Example:
        >>> ResidualBlock(3, 8)(torch.zeros(2, 3, 6, 5)).shape
        torch.Size([2, 8, 3, 3])
    """

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.first = _he(nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1))
        self.second = _he(nn.Conv2d(out_channels, out_channels, 3, padding=1), 1.0)
        self.shortcut = _he(nn.Conv2d(in_channels, out_channels, 1, stride=2, bias=False), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.second(F.silu(self.first(x))) + self.shortcut(x))


class MemoryBottleneck(nn.Module):
    """A bottleneck block whose 3×3 convolution is in part memory: ``silu(expand(h) + shortcut(x))``.

    ``h = tanh([memory(r), static(r)])``, ``r = silu(reduce(x))``. ``memory``, ``static`` and shortcut have the stride.

    Args:
        in_channels, out_channels, inside: channels of input and output, and between the 1×1 convolutions.
        memory_features: how many of those inside the memory gives, with 9 · inside + 1 floats for each.

    Shape:
        x: (M, in_channels, H, W). lead: the shape that M came from, (B, N) for memories whose weights differ.
        returns: (M, out_channels, ⌈H/stride⌉, ⌈W/stride⌉).

    Example:
        >>> block = MemoryBottleneck(8, 12, inside=6, memory_features=2, stride=2)
        >>> block(torch.zeros(10, 8, 4, 4), (2, 5)).shape
        torch.Size([10, 12, 2, 2])
    """

    def __init__(self, in_channels: int, out_channels: int, inside: int, memory_features: int, stride: int = 1):
        super().__init__()
        check_memory_features(memory_features, inside, "inside")
        self.reduce = _he(nn.Conv2d(in_channels, inside, 1))
        self.memory = MemoryConv2d(inside, memory_features, 3, stride=stride, padding=1)
        self.static = _he(nn.Conv2d(inside, inside - memory_features, 3, stride=stride, padding=1))
        self.expand = _he(nn.Conv2d(inside, out_channels, 1), 1.0)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = _he(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), 1.0)

    def forward(self, x: Tensor, lead: Sequence[int]) -> Tensor:
        reduced = F.silu(self.reduce(x))
        read = self.memory(reduced.reshape(*lead, *reduced.shape[1:]))
        inner = torch.tanh(torch.cat([read.reshape(-1, *read.shape[-3:]), self.static(reduced)], 1))
        return F.silu(self.expand(inner) + self.shortcut(x))


class ResNetLinearEnergy(nn.Module):
    """The paper's energy for characters: a residual network with a fully connected memory (appendix B).

    Three residual blocks, a linear layer and layer normalisation give the features f of the image
    ``s = 2x − 1``. With ``h = tanh([memory(f), static(f)])``, gated hops on h and two last layers give
    ``E(x) = head(tanh(hidden(hops(h))))``.

    Chosen here: the residual blocks' form and SiLU; no activation behind the normalisation of f; h is as wide as the
    hops; layer normalisation acts on the state, each time before it is read. Defaults are the paper's sizes.

    Args:
        shape, widths: S of a pattern, (H, W) or (channels, H, W), and channels of the residual blocks.
        memory_features: outputs of the writable layer, fewer than ``hidden``, with features + 1 floats for each.
        hidden, features, head: widths of h and the hops, of f, and of the last hidden layer.

    Shape:
        x: (..., *S). returns: (...).

    Example:
        >>> ResNetLinearEnergy((32, 32), memory_features=12)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3])
    """

    writable = ("memory",)

    def __init__(
        self,
        shape: Sequence[int],
        memory_features: int,
        hidden: int = 512,
        hops: int = 3,
        widths: Sequence[int] = (32, 64, 96),
        features: int = 256,
        head: int = 1024,
    ):
        super().__init__()
        self.pattern_shape, channels, height, width = _image_shape(shape)
        check_memory_features(memory_features, hidden, "hidden")
        self.blocks = _residual_blocks(channels, widths)
        self.features = _he(nn.Linear(widths[-1] * _positions(height, width, 2 ** len(widths)), features))
        self.norm = LayerNorm(features)
        self.memory = MemoryLinear(features, memory_features)
        self.static = _he(nn.Linear(features, hidden - memory_features), 1.0)
        from_input, from_state = _he(nn.Linear(hidden, 2 * hidden)), _he(nn.Linear(hidden, 2 * hidden, bias=False), 1.0)
        self.hops = GatedHops(from_input, from_state, LayerNorm(hidden), hops)
        self.hidden = _he(nn.Linear(hidden, head), 1.0)
        self.head = _he(nn.Linear(head, 1), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        images, lead = _images(x, self.pattern_shape)
        features = self.norm(self.features(self.blocks(images).flatten(1)))
        read = self.memory(features.reshape(*lead, -1))
        joined = torch.tanh(torch.cat([read.reshape(-1, read.shape[-1]), self.static(features)], 1))
        return torch.reshape(self.head(torch.tanh(self.hidden(self.hops(joined)))), lead)


class ResNetConvEnergy(nn.Module):
    """The paper's energy for characters and photographs: a residual network with a convolutional memory (appendix B).

    Two residual blocks on ``s = 2x − 1``, two bottleneck blocks, convolutional gated hops, and two last layers:
    ``E(x) = head(tanh(hidden(hops)))``.

    Chosen here: the residual blocks' form and SiLU; tanh behind the split convolution; the first bottleneck block has
    stride 2, which leads from 8×8 to the 4×4 map of the hops; the hops are 3×3 convolutions; the state is not
    normalised. Defaults are the paper's sizes.

    Args:
        shape, widths: S of a pattern, (H, W) or (channels, H, W), and channels of the residual blocks.
        memory_features: writable channels of each bottleneck block, fewer than ``inside``; 9 · inside + 1 floats each.
        inside, outside, strides: channels inside the bottleneck blocks and behind them, and their strides.
        hidden, head: channels of the hops, and width of the last hidden layer.

    Shape:
        x: (..., *S). returns: (...).

    Example:
        >>> ResNetConvEnergy((3, 32, 32), memory_features=2)(torch.rand(2, 3, 3, 32, 32)).shape
        torch.Size([2, 3])
    """

    writable = ("first.memory", "second.memory")

    def __init__(
        self,
        shape: Sequence[int],
        memory_features: int,
        hidden: int = 128,
        hops: int = 3,
        widths: Sequence[int] = (32, 64),
        inside: int = 64,
        outside: int = 128,
        head: int = 1024,
        strides: tuple[int, int] = (2, 1),
    ):
        super().__init__()
        self.pattern_shape, channels, height, width = _image_shape(shape)
        self.blocks = _residual_blocks(channels, widths)
        self.first = MemoryBottleneck(widths[-1], outside, inside, memory_features, strides[0])
        self.second = MemoryBottleneck(outside, outside, inside, memory_features, strides[1])
        # Made before the other, so that a seed gives the weights that it gave when the results were computed.
        of_state = nn.Conv2d(hidden, 2 * hidden, 3, padding=1, bias=False)
        self.hops = GatedHops(_he(nn.Conv2d(outside, 2 * hidden, 3, padding=1)), _he(of_state), nn.Identity(), hops)
        positions = _positions(height, width, 2 ** len(widths) * math.prod(strides))
        self.hidden = _he(nn.Linear(hidden * positions, head))
        self.head = _he(nn.Linear(head, 1), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        images, lead = _images(x, self.pattern_shape)
        joined = self.second(self.first(self.blocks(images), lead), lead)
        return torch.reshape(self.head(torch.tanh(self.hidden(self.hops(joined).flatten(1)))), lead)


def resnet_conv_energy_64(shape: Sequence[int] = (3, 64, 64), memory_features: int = 8, **own: Any) -> ResNetConvEnergy:
    """The paper's energy for ImageNet at 64×64: :class:`ResNetConvEnergy` with all channels doubled.

    128 channels inside the bottleneck blocks give the paper's 18448 floats. That those behind them are doubled too, and
    that both have stride 2, so that the hops see a 4×4 map, is chosen here. Other keywords replace any of these.

    Example:
        >>> sum(p.numel() for p in resnet_conv_energy_64().first.memory.parameters())
        9224
    """
    doubled = {"hidden": 256, "widths": (64, 128), "inside": 128, "outside": 256, "strides": (2, 2)}
    return ResNetConvEnergy(shape, memory_features, **{**doubled, **own})


def _he(layer: nn.Linear | nn.Conv2d, gain: float = math.sqrt(2)) -> nn.Module:
    """The layer with normal weights of standard deviation gain / √fan-in, for activations √2 (He), and a zero bias."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _residual_blocks(channels: int, widths: Sequence[int]) -> nn.Sequential:
    inputs = (channels, *widths[:-1])
    return nn.Sequential(*(ResidualBlock(old, new) for old, new in zip(inputs, widths, strict=True)))


def _positions(height: int, width: int, times: int) -> int:
    """Positions of a map whose sides were made so many times smaller, rounding up."""
    return -(-height // times) * -(-width // times)


def _image_shape(shape: Sequence[int]) -> tuple[tuple[int, ...], int, int, int]:
    """A pattern's shape, and its channels, height and width."""
    shape = tuple(shape)
    if len(shape) not in (2, 3) or min(shape) < 1:
        raise ValueError(f"shape must be (height, width) or (channels, height, width), got {shape}")
    channels, height, width = (1, *shape)[-3:]
    return shape, channels, height, width


def _images(x: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, torch.Size]:
    """x (..., *shape) as one batch of signs (M, channels, H, W), and its leading shape."""
    split = x.dim() - len(shape)
    if split < 0 or tuple(x.shape[split:]) != shape:
        raise ValueError(f"x must have shape (..., {', '.join(map(str, shape))}), got {tuple(x.shape)}")
    return 2 * x.reshape(-1, *(1, *shape)[-3:]) - 1, x.shape[:split]
