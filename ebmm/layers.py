"""Layers whose weights may differ from memory to memory, and a layer norm that can be differentiated thrice.

A memory layer is an ordinary layer until its parameters are replaced (``torch.func.functional_call``) by tensors with
a leading dimension B. It then applies memory b's weights to the inputs of memory b, all in one batched product: the
fast path of :class:`ebmm.EBMM`. A writable parameter of any other layer is served by ``vmap``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MemoryLayer(nn.Module):
    """Base class: the promise that ``forward`` understands parameters with a leading dimension B."""


class MemoryLinear(MemoryLayer):
    """Affine map ``y = x Wᵀ + b`` whose weights may differ by memory (paper, appendix B).

    Args:
        in_features, out_features, bias: sizes of each input and output, and whether to add ``b``.

    Shape:
        x: (B, N, in_features), or any leading shape while the weights are not batched.
        weight, bias: (out_features, in_features) and (out_features,), or both behind B. returns: (B, N, out_features).

    Example:
        >>> layer = MemoryLinear(3, 2)
        >>> weights = {"weight": torch.zeros(4, 2, 3), "bias": torch.ones(4, 2)}
        >>> torch.func.functional_call(layer, weights, torch.zeros(4, 5, 3)).shape
        torch.Size([4, 5, 2])
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / math.sqrt(in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 2:
            return F.linear(x, self.weight, self.bias)
        if self.bias is None:
            return torch.bmm(x, self.weight.mT)
        return torch.baddbmm(self.bias.unsqueeze(1), x, self.weight.mT)


def beside_points(of_memory: Tensor) -> Tensor:
    """What a memory has for all its points, (n,), or each of B memories, (B, n): as it goes with theirs, (B, N, n)."""
    return of_memory.unsqueeze(-2) if of_memory.dim() > 1 else of_memory


def triangle(matrix: Tensor) -> Tensor:
    """The upper triangle, (..., n(n+1)/2), of symmetric matrices (..., n, n), row by row."""
    rows, columns = torch.triu_indices(*matrix.shape[-2:], device=matrix.device)
    return matrix[..., rows, columns]


def triangle_position(size: int) -> Tensor:
    """Where in that triangle each entry of the matrix stands, (n, n): ``triangle(matrix)[..., position]`` undoes it."""
    position = torch.empty(size, size, dtype=torch.long)
    rows, columns = torch.triu_indices(size, size)
    position[rows, columns] = position[columns, rows] = torch.arange(len(rows))
    return position


class MemorySymmetric(MemoryLayer):
    """Product with a symmetric matrix, ``y = M x``, stored as its upper triangle.

    Each off-diagonal entry is stored as √2 times its value in M, so that a gradient step on the stored
    triangle is the same step on the full matrix, symmetrised.

    Args:
        features: d, the size of input and output.

    Shape:
        x: (B, N, d), or any leading shape while the weights are not batched.
        weight: (d(d+1)/2,) or (B, d(d+1)/2), row by row. returns: (B, N, d).

    Example:
        >>> MemorySymmetric(64).weight.numel()
        2080
    """

    position: Tensor
    scale: Tensor

    def __init__(self, features: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(features * (features + 1) // 2))
        self.register_buffer("position", triangle_position(features), persistent=False)
        scale = torch.full((features, features), math.sqrt(0.5)).fill_diagonal_(1.0)
        self.register_buffer("scale", scale, persistent=False)

    def matrix(self, weight: Tensor | None = None) -> Tensor:
        """The full matrix M, (..., d, d), of stored weights (..., d(d+1)/2); ``None``: of the layer's own."""
        return (self.weight if weight is None else weight)[..., self.position] * self.scale

    def forward(self, x: Tensor) -> Tensor:
        matrix = self.matrix()
        return x @ matrix if matrix.dim() == 2 else torch.bmm(x, matrix)


class MemorySlots(MemoryLayer):
    """Slots that hold codes: a matrix that is the memory itself. It starts random, so that no two slots are alike.

    Args:
        slots, width, scale: how many, size C of a code, and standard deviation of the start values.

    Shape:
        weight: (slots, width) or (B, slots, width). returns: the same.

    Example:
        >>> MemorySlots(8, 20)().shape
        torch.Size([8, 20])
    """

    def __init__(self, slots: int, width: int, scale: float = 0.05):
        super().__init__()
        self.weight = nn.Parameter(scale * torch.randn(slots, width))

    def forward(self) -> Tensor:
        return self.weight


class MemoryConv2d(MemoryLayer):
    """Two-dimensional convolution whose kernels may differ by memory (paper, appendix B).

    Args:
        in_channels, out_channels, kernel_size, stride, padding, bias: as for ``torch.nn.Conv2d``.

    Shape:
        x: (B, N, in_channels, height, width), or (N, ...) while the weights are not batched.
        weight, bias: (out, in, k, k) and (out,), or both behind B. returns: (B, N, out_channels, height', width').

    Example:
        >>> MemoryConv2d(3, 8, 3, padding=1)(torch.zeros(2, 5, 3, 6, 6)).shape
        torch.Size([2, 5, 8, 6, 6])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ):
        super().__init__()
        fan_in = in_channels * kernel_size**2
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size) / math.sqrt(fan_in))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dim() == 4:
            y = F.conv2d(x.reshape(-1, *x.shape[-3:]), self.weight, self.bias, self.stride, self.padding)
            return y.reshape(*x.shape[:-3], *y.shape[1:])
        # One group a memory: the B memories lie side by side in the channel dimension.
        memories, patterns, channels = x.shape[:3]
        y = F.conv2d(
            x.transpose(0, 1).reshape(patterns, memories * channels, *x.shape[3:]),
            self.weight.flatten(0, 1),
            None if self.bias is None else self.bias.flatten(),
            self.stride,
            self.padding,
            groups=memories,
        )
        return y.reshape(patterns, memories, -1, *y.shape[2:]).transpose(0, 1)


class LayerNorm(nn.Module):
    """Layer normalisation over the last dimension, with gradients that are right at any order (Ba et al. 2016).

    Those of ``torch.nn.LayerNorm`` are silently wrong at third order, which the gradient term of the writing loss
    needs (PyTorch issue 175754).

    Args:
        features, eps: size of the last dimension, and what is added to the variance.

    Shape:
        x and returned tensor: (..., features).

    Example:
        >>> y = LayerNorm(8)(torch.randn(2, 8))
        >>> bool(y.mean(-1).abs().max() < 1e-6)
        True
    """

    def __init__(self, features: int, eps: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred * torch.rsqrt(variance + self.eps) * self.weight + self.bias
