"""Linear decoders of codes, which start as the principal components of pictures or of their patches (chapter 6)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ebmm.coders.images import as_planes, code_basis, cosine_basis
from ebmm.given import real


class ComponentDecoder(nn.Module):
    """Pictures of codes, ``y = level + Bᵀ (Aᵀ v + m)``: components and a mean, both mixed from cosines B.

    B holds four times as many as a code has numbers; where that would be all of them, components are of pixels: B = 1.

    Args:
        width, shape: C, size of a code, and S of a picture, (H, W) or (3, H, W), sides multiples of 8.
        level: the pictures' mean grey, roughly.

    Shape:
        code: (M, C). returns: (M, channels, H, W), not clipped.

    Example:
        >>> decoder = ComponentDecoder(8, (16, 16))
        >>> decoder.start_with(torch.rand(20, 16, 16))
        >>> rows = decoder.components
        >>> decoder(torch.rand(5, 8)).shape
        torch.Size([5, 1, 16, 16])
        >>> torch.allclose(rows @ rows.mT, torch.eye(8), atol=1e-5)
        True
    """

    basis: Tensor | None

    def __init__(self, width: int, shape: tuple[int, ...], level: float = 0.5):
        super().__init__()
        self.planes, self.level = as_planes(shape), real(level, "level")
        basis = code_basis(shape, width)
        mixed, pixels = basis.shape
        self.register_buffer("basis", basis if mixed < pixels else None, persistent=False)
        first = torch.eye(width, mixed) if mixed < pixels else basis[:width].clone()
        self.components, self.mean = nn.Parameter(first), nn.Parameter(torch.zeros(mixed))

    def forward(self, code: Tensor) -> Tensor:
        mixed = code @ self.components + self.mean
        pixels = mixed if self.basis is None else mixed @ self.basis
        return self.level + torch.unflatten(pixels, 1, self.planes)

    @torch.no_grad()
    def start_with(self, pictures: Tensor) -> None:
        """Take A and m from pictures (N, *S), more than C different ones: their principal components and their mean."""
        rows = (pictures.reshape(-1, *self.planes) - self.level).flatten(1)
        rows = rows if self.basis is None else rows @ self.basis.mT
        self.mean.copy_(rows.mean(0))
        self.components.copy_(principal_components(rows - self.mean, len(self.components)))


class PatchDecoder(nn.Module):
    """Pictures of maps of codes: in each square of 8 × 8 pixels the same components, and a mean for the whole picture.

    Args:
        width, shape, level: C, size of a square's code, and as for :class:`ComponentDecoder`.

    Shape:
        code: (M, C, H/8, W/8). returns: (M, channels, H, W), not clipped.

    Example:
        >>> decoder = PatchDecoder(8, (3, 16, 16))
        >>> decoder.start_with(torch.rand(20, 3, 16, 16))
        >>> decoder(torch.rand(5, 8, 2, 2)).shape
        torch.Size([5, 3, 16, 16])
    """

    SIDE = 8

    def __init__(self, width: int, shape: tuple[int, ...], level: float = 0.5):
        super().__init__()
        self.planes = as_planes(shape)
        channels = self.planes[0]
        self.components = nn.Parameter(cosine_basis((channels, self.SIDE, self.SIDE), width))
        self.mean = nn.Parameter(torch.full(self.planes, real(level, "level")))

    def forward(self, code: Tensor) -> Tensor:
        kernels = self.components.unflatten(1, (self.planes[0], self.SIDE, self.SIDE))
        return self.mean + nn.functional.conv_transpose2d(code, kernels, stride=self.SIDE)

    @torch.no_grad()
    def start_with(self, pictures: Tensor) -> None:
        """Take the components and the mean from pictures (N, *S), several different ones."""
        pictures = pictures.reshape(-1, *self.planes)
        self.mean.copy_(pictures.mean(0))
        patches = nn.functional.unfold(pictures - self.mean, self.SIDE, stride=self.SIDE).mT.flatten(0, 1)
        self.components.copy_(principal_components(patches, len(self.components)))


def principal_components(rows: Tensor, number: int) -> Tensor:
    """The orthonormal directions (number, C) along which centred rows (N, C) vary most; errors as of :func:`spread`."""
    return spread(rows, number)[1]


def spread(rows: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The ``number`` largest singular values of centred rows (N, C), and their directions, (number, C).

    ValueError where the rows do not vary along so many directions.
    """
    _, lengths, directions = torch.linalg.svd(rows, full_matrices=False)
    least = 1e-5 * lengths[0]
    if len(lengths) < number or not lengths[number - 1] > least:
        varied = int((lengths > least).sum())
        raise ValueError(f"{number} directions need more different pictures: these {len(rows)} vary along {varied}")
    return lengths[:number], directions[:number]
