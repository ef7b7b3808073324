"""The paper's energies for images: residual networks in which only a small part is the memory (appendix B).

A static network of residual blocks turns an image into features, a memory layer reads them side by side
with a static layer, gated hops refine the result, and a bounded head gives the energy. All memories'
images pass the static layers as one batch; only the memory layers tell the memories apart.

Every activation is SiLU or tanh, since the gradient term of the writing loss needs ∇ₓE to be smooth.
A memory layer is always followed by tanh, and so is the last hidden layer: however far writing
drives the memory, the energy differs from the head's bias by at most the sum of the head's absolute weights.

Static weights start normal with He's variance, ``2 / fan-in``, where a layer reads activations; the two layers
that a residual block adds up have half of it each, and so has a layer that reads normalised values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.layers import LayerNorm, MemoryConv2d, MemoryLinear

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions and a 1×1 shortcut, height and width halved: ``silu(conv(silu(conv(x))) + shortcut(x))``.

    The first convolution and the shortcut have the stride. An odd height or width is rounded up.

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

    ``h = tanh([memory(r), static(r)])`` with ``r = silu(reduce(x))``. ``reduce`` and ``expand`` are 1×1 convolutions,
    ``memory`` and ``static`` 3×3 convolutions that read the same ``inside`` channels. The 3×3 convolutions have
    the stride, and so has the shortcut, a 1×1 convolution; where nothing changes size, it is the identity.

    Args:
        in_channels, out_channels: channels of input and output.
        inside: channels between the 1×1 convolutions.
        dyn: how many of these the memory gives, fewer than ``inside``. It holds (9 · inside + 1) · dyn floats.
        stride: of the block.

    Shape:
        x: (M, in_channels, H, W), with M the product of ``lead``.
        lead: leading shape of the memory's input, (B, N) for memories whose weights differ.
        returns: (M, out_channels, ⌈H/stride⌉, ⌈W/stride⌉).

    Raises:
        ValueError: ``dyn`` is not in [1, inside).

    Example:
        >>> block = MemoryBottleneck(8, 12, inside=6, dyn=2, stride=2)
        >>> block(torch.zeros(10, 8, 4, 4), (2, 5)).shape
        torch.Size([10, 12, 2, 2])
        >>> sum(p.numel() for p in block.memory.parameters())
        110
    """

    def __init__(self, in_channels: int, out_channels: int, inside: int, dyn: int, stride: int = 1):
        super().__init__()
        _check_dyn(dyn, inside, "inside")
        self.reduce = _he(nn.Conv2d(in_channels, inside, 1))
        self.memory = MemoryConv2d(inside, dyn, 3, stride=stride, padding=1)
        self.static = _he(nn.Conv2d(inside, inside - dyn, 3, stride=stride, padding=1))
        self.expand = _he(nn.Conv2d(inside, out_channels, 1), 1.0)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = _he(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), 1.0)

    def forward(self, x: Tensor, lead: Sequence[int]) -> Tensor:
        reduced = F.silu(self.reduce(x))
        read = self.memory(reduced.reshape(*lead, *reduced.shape[1:]))
        inner = torch.tanh(torch.cat([read.reshape(-1, *read.shape[-3:]), self.static(reduced)], 1))
        return F.silu(self.expand(inner) + self.shortcut(x))


class GatedHops(nn.Module):
    """The gated hops of :class:`ebmm.energies.GatedRNNEnergy` without its memory, on vectors or maps.

    ``state ← u · c + (1 − u) · state`` with ``c = tanh(C [x, n(state)])`` and ``u = sigmoid(U [x, n(state)])``;
    n is a layer normalisation or nothing. C and U are affine and the same in all hops. The first hop starts
    from the state 0 and reads ``[x, 0]``. What does not depend on the hop is computed once.

    Args:
        from_input: affine layer that gives the input's part of C and of U, (M, 2 · width, ...).
        from_state: linear layer that gives the state's part, of the same shape.
        norm: n, applied to each state before it is read, the last one included.
        hops: how many, at least 1.

    Shape:
        x: (M, features) or (M, channels, H, W). returns: n of the last state, (M, width) or (M, width, H, W).

    Raises:
        ValueError: no hops.

    Example:
        >>> from_input, from_state = nn.Linear(5, 6), nn.Linear(3, 6, bias=False)
        >>> hops = GatedHops(from_input, from_state, nn.Identity(), hops=2)
        >>> hops(torch.zeros(4, 5)).shape
        torch.Size([4, 3])
    """

    def __init__(self, from_input: nn.Module, from_state: nn.Module, norm: nn.Module, hops: int):
        super().__init__()
        if hops < 1:
            raise ValueError(f"hops must be at least 1, got {hops}")
        self.from_input, self.from_state, self.norm, self.hops = from_input, from_state, norm, hops

    def forward(self, x: Tensor) -> Tensor:
        hoisted = self.from_input(x)
        candidate, gate = hoisted.chunk(2, 1)
        state = torch.sigmoid(gate) * torch.tanh(candidate)
        for _ in range(self.hops - 1):
            candidate, gate = (hoisted + self.from_state(self.norm(state))).chunk(2, 1)
            update = torch.sigmoid(gate)
            state = update * torch.tanh(candidate) + (1 - update) * state
        return self.norm(state)


class ResNetLinearEnergy(nn.Module):
    """The paper's energy for characters: a residual network with a fully connected memory (appendix B).

    Three residual blocks, a linear layer and layer normalisation give the features f of the image
    ``s = 2x − 1``. With ``h = tanh([memory(f), static(f)])``, gated hops on h and two last layers give
    ``E(x) = head(tanh(hidden(hops(h))))``.

    What the paper leaves open, and is chosen here: SiLU in the residual blocks, whose form is
    :class:`ResidualBlock`'s; no activation behind the normalisation of f; h is as wide as the hops; layer
    normalisation acts on the state, each time before it is read (:class:`GatedHops`).

    Args:
        shape: S, of a pattern: (H, W) or (channels, H, W).
        dyn: outputs of the writable layer, fewer than ``hidden``. The memory holds (features + 1) · dyn
            floats; in the paper 257 · dyn.
        hidden: width of h and of the hops; the paper uses 512.
        hops: how many; the paper uses 3.
        widths: channels of the residual blocks; the paper uses 32, 64 and 96.
        features: size of f; the paper uses 256.
        head: width of the last hidden layer; the paper uses 1024.

    Shape:
        x: (..., *S). returns: (...).

    Raises:
        ValueError: a shape that is no image's, ``dyn`` not in [1, hidden), or no hops; x of another shape.

    Example:
        >>> energy = ResNetLinearEnergy((32, 32), dyn=12)
        >>> sum(p.numel() for p in energy.memory.parameters())
        3084
        >>> energy(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3])
    """

    writable = ("memory",)

    def __init__(
        self,
        shape: Sequence[int],
        dyn: int,
        hidden: int = 512,
        hops: int = 3,
        widths: Sequence[int] = (32, 64, 96),
        features: int = 256,
        head: int = 1024,
    ):
        super().__init__()
        self.pattern_shape, channels, height, width = _image_shape(shape)
        _check_dyn(dyn, hidden, "hidden")
        self.blocks = _residual_blocks(channels, widths)
        positions = _halved(height, len(widths)) * _halved(width, len(widths))
        self.features = _he(nn.Linear(widths[-1] * positions, features))
        self.norm = LayerNorm(features)
        self.memory = MemoryLinear(features, dyn)
        self.static = _he(nn.Linear(features, hidden - dyn), 1.0)
        self.hops = GatedHops(
            _he(nn.Linear(hidden, 2 * hidden)),
            _he(nn.Linear(hidden, 2 * hidden, bias=False), 1.0),
            LayerNorm(hidden),
            hops,
        )
        self.hidden = _he(nn.Linear(hidden, head), 1.0)
        self.head = _he(nn.Linear(head, 1), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        images, lead = _images(x, self.pattern_shape)
        features = self.norm(self.features(self.blocks(images).flatten(1)))
        read = self.memory(features.reshape(*lead, -1))
        joined = torch.tanh(torch.cat([read.reshape(-1, read.shape[-1]), self.static(features)], 1))
        return self.head(torch.tanh(self.hidden(self.hops(joined)))).reshape(lead)


class ResNetConvEnergy(nn.Module):
    """The paper's energy for characters and photographs: a residual network with a convolutional memory (appendix B).

    Two residual blocks with stride 2 on ``s = 2x − 1``, two bottleneck blocks whose 3×3 convolution is in part
    memory, convolutional gated hops, and two last layers: ``E(x) = head(tanh(hidden(hops)))``.

    What the paper leaves open, and is chosen here: SiLU in the residual blocks, whose form is
    :class:`ResidualBlock`'s; tanh behind the split convolution, which bounds what the memory can do; the
    first bottleneck block has stride 2, which leads from 8×8 to the 4×4 map of the hops; the hops are 3×3
    convolutions; the state is normalised only on demand.

    Args:
        shape: S, of a pattern: (H, W) or (channels, H, W).
        dyn: writable channels of each bottleneck block, fewer than ``inside``. The memory holds
            2 · (9 · inside + 1) · dyn floats; in the paper 1154 · dyn.
        hidden: channels of the hops; the paper uses 128.
        hops: how many; the paper uses 3.
        widths: channels of the residual blocks; the paper uses 32 and 64.
        inside: channels inside the bottleneck blocks; the paper uses 64.
        outside: channels they give; the paper uses 128.
        head: width of the last hidden layer; the paper uses 1024.
        strides: of the bottleneck blocks.
        normalise: apply layer normalisation (over channels and positions) to the state, each time
            before it is read.

    Shape:
        x: (..., *S). returns: (...).

    Raises:
        ValueError: a shape that is no image's, ``dyn`` not in [1, inside), or no hops; x of another shape.

    Example:
        >>> energy = ResNetConvEnergy((3, 32, 32), dyn=2)
        >>> parameters = energy.named_parameters()
        >>> sum(p.numel() for name, p in parameters if name.startswith(energy.writable))
        2308
        >>> energy(torch.rand(2, 3, 3, 32, 32)).shape
        torch.Size([2, 3])
    """

    writable = ("first.memory", "second.memory")

    def __init__(
        self,
        shape: Sequence[int],
        dyn: int,
        hidden: int = 128,
        hops: int = 3,
        widths: Sequence[int] = (32, 64),
        inside: int = 64,
        outside: int = 128,
        head: int = 1024,
        strides: tuple[int, int] = (2, 1),
        normalise: bool = False,
    ):
        super().__init__()
        self.pattern_shape, channels, height, width = _image_shape(shape)
        self.blocks = _residual_blocks(channels, widths)
        self.first = MemoryBottleneck(widths[-1], outside, inside, dyn, strides[0])
        self.second = MemoryBottleneck(outside, outside, inside, dyn, strides[1])
        of_state = nn.Conv2d(hidden, 2 * hidden, 3, padding=1, bias=False)
        self.hops = GatedHops(
            _he(nn.Conv2d(outside, 2 * hidden, 3, padding=1)),
            _he(of_state, 1.0 if normalise else math.sqrt(2)),
            nn.GroupNorm(1, hidden) if normalise else nn.Identity(),
            hops,
        )
        positions = 1
        for size in (height, width):
            size = _halved(size, len(widths))
            for stride in strides:
                size = -(-size // stride)
            positions *= size
        self.hidden = _he(nn.Linear(hidden * positions, head), 1.0 if normalise else math.sqrt(2))
        self.head = _he(nn.Linear(head, 1), 1.0)

    def forward(self, x: Tensor) -> Tensor:
        images, lead = _images(x, self.pattern_shape)
        joined = self.second(self.first(self.blocks(images), lead), lead)
        return self.head(torch.tanh(self.hidden(self.hops(joined).flatten(1)))).reshape(lead)


def resnet_conv_energy_64(shape: Sequence[int] = (3, 64, 64), dyn: int = 8, **options) -> ResNetConvEnergy:
    """The paper's energy for ImageNet at 64×64: :class:`ResNetConvEnergy` with all channels doubled.

    Residual blocks of 64 and 128 channels, 128 inside the bottleneck blocks, which fixes the paper's 18448
    floats, and 256 in the hops. That the channels they give are doubled as well, and that both bottleneck
    blocks have stride 2, so that the hops see a 4×4 map here too, is chosen here.

    Args:
        shape: S, of a pattern.
        dyn: writable channels of each bottleneck block. The memory holds 2306 · dyn floats.
        options: further arguments of :class:`ResNetConvEnergy`.

    Example:
        >>> energy = resnet_conv_energy_64()
        >>> parameters = energy.named_parameters()
        >>> sum(p.numel() for name, p in parameters if name.startswith(energy.writable))
        18448
    """
    doubled = {"hidden": 256, "widths": (64, 128), "inside": 128, "outside": 256, "strides": (2, 2)}
    return ResNetConvEnergy(shape, dyn, **{**doubled, **options})


def _he(layer: Layer, gain: float = math.sqrt(2)) -> Layer:
    """The layer with normal weights of standard deviation gain / √fan-in and a zero bias."""
    nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.weight[0].numel()))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _residual_blocks(channels: int, widths: Sequence[int]) -> nn.Sequential:
    inputs = (channels, *widths[:-1])
    return nn.Sequential(*(ResidualBlock(old, new) for old, new in zip(inputs, widths, strict=True)))


def _halved(size: int, times: int) -> int:
    """A height or width after so many blocks with stride 2."""
    return -(-size // 2**times)


def _check_dyn(dyn: int, limit: int, name: str) -> None:
    if not 1 <= dyn < limit:
        raise ValueError(f"dyn must be at least 1 and less than {name}, got {dyn} and {limit}")


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
        want = ", ".join(map(str, shape))
        raise ValueError(f"x must have shape (..., {want}), got {tuple(x.shape)}")
    return 2 * x.reshape(-1, *(1, *shape)[-3:]) - 1, x.shape[:split]
