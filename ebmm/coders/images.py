"""Coders for images: cosines, as in JPEG, and a convolutional network beside them (chapters 6 and 7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

COLOUR_VARIANCE = (1.0, 0.06, 0.02)  # of brightness and the two opponent colours in photographs, roughly


def cosine_basis(shape: tuple[int, ...], number: int) -> Tensor:
    """The cosines that tell most about a photograph: a cut of the orthonormal discrete cosine transform.

    Neighbouring pixels are alike, so that the variance of a coefficient falls with its frequency (u, v),
    about as ``1/(1 + u² + v²)``. Along the colours the transform is one of cosines too: their mean,
    red against blue, and green against both. For images of shape S, (H, W) or (3, H, W), it gives
    (number, d), orthonormal rows, the one of largest variance (the mean) first.

    Example:
        >>> basis = cosine_basis((8, 8), 10)
        >>> torch.allclose(basis @ basis.mT, torch.eye(10), atol=1e-6)
        True
    """
    channels, height, width = as_planes(shape)
    size = channels * height * width
    if not 1 <= number <= size:
        raise ValueError(f"number must lie in [1, {size}], got {number}")
    rows, columns = torch.arange(height), torch.arange(width)
    colour = torch.ones(1) if channels == 1 else torch.tensor(COLOUR_VARIANCE)
    variance = colour[:, None, None] / (1 + rows[:, None] ** 2 + columns**2)
    chosen = variance.flatten().argsort(descending=True, stable=True)[:number]
    c, u, v = torch.unravel_index(chosen, variance.shape)
    parts = _cosines(channels)[c], _cosines(height)[u], _cosines(width)[v]
    return torch.einsum("kc,kh,kw->kchw", *parts).flatten(1)


def _cosines(size: int) -> Tensor:
    """The orthonormal discrete cosine transform (DCT-II), (size, size)."""
    frequency, place = torch.arange(size)[:, None], torch.arange(size)
    matrix = torch.cos(math.pi / size * (place + 0.5) * frequency) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def as_planes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(channels, height, width) of an image of shape (H, W) or (C, H, W)."""
    planes = (1, *shape) if len(shape) == 2 else tuple(shape)
    if len(planes) != 3 or planes[0] not in (1, 3) or planes[1] % 8 or planes[2] % 8:
        raise ValueError(f"expected images (H, W) or (3, H, W) with sides that are multiples of 8, got {shape}")
    return planes


def numbers_network(planes: tuple[int, int, int], numbers: int, channels: tuple[int, int]) -> nn.Sequential:
    """Two convolutions and a linear layer, from images (M, *planes) to so many numbers, (M, numbers)."""
    colours, height, width = planes
    return nn.Sequential(
        nn.PixelUnshuffle(4),
        nn.Conv2d(16 * colours, channels[0], 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(channels[0], channels[1], 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(channels[1] * height * width // 64, numbers),
    )


class ImageEncoder(nn.Module):
    """Maps images to codes of one length: cosine coefficients plus what a convolutional network adds.

    ``e = √C · c/‖c‖`` with ``c = A [B s, ζ] + network(s)`` and ``s = 2 (x − level)``: B holds four times as many
    cosines as the code has numbers, A starts by choosing the first of them, ζ is one constant, the network starts as
    zero. All codes have the length √C, which slots ask for that are written by gradient steps (chapter 5), though not
    those that codes are copied into; the constant keeps what the length would have told.

    Args:
        shape, width: S of an image, (H, W) or (3, H, W), sides multiples of 8, and C, size of a code, 2 to d.
        level: the mean of the images, roughly: 0.5 for photographs, 0.1 for characters. Codes of images that
            share a large mean would be too much alike.
        channels: of the network's two convolutions.

    Shape:
        x: (M, *S) in [0, 1]. returns: (M, C).

    Example:
        >>> code = ImageEncoder((3, 32, 32), width=72)(torch.rand(5, 3, 32, 32))
        >>> code.shape, torch.allclose(code.square().sum(1), torch.tensor(72.0))
        (torch.Size([5, 72]), True)
    """

    basis: Tensor

    def __init__(self, shape: tuple[int, ...], width: int, level: float = 0.5, channels: tuple[int, int] = (64, 96)):
        super().__init__()
        self.level = level
        self.planes = as_planes(shape)
        self.register_buffer("basis", code_basis(shape, width), persistent=False)
        self.linear = nn.Linear(len(self.basis), width)
        self.network = numbers_network(self.planes, width, channels)
        with torch.no_grad():
            self.linear.weight.zero_().fill_diagonal_(1.0)
            self.linear.weight[-1] = 0
            self.linear.bias.zero_()
            self.linear.bias[-1] = _typical_length(shape)
            for parameter in self.network[-1].parameters():
                parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * (x.reshape(-1, *self.planes) - self.level)
        code = self.linear(signs.flatten(1) @ self.basis.mT) + self.network(signs)
        scaled: Tensor = code * (math.sqrt(code.shape[1]) / code.norm(dim=1, keepdim=True))
        return scaled


class ImageDecoder(nn.Module):
    """Maps codes of :class:`ImageEncoder` back to images: the cosines' sum plus what the transposed network adds.

    ``y = level + s/2`` with ``s = Bᵀ A c + network(e)``, ``c = ζ e/e_C``: dividing by the code's last number, which
    carries the constant, undoes the encoder's normalisation. B is the encoder's basis; A starts as the
    transpose of the encoder's. The result is clipped to [0, 1], with the gradient of the identity.

    Args:
        width, shape, level, channels: as for :class:`ImageEncoder`.

    Shape:
        code: (M, C). returns: (M, *S) in [0, 1].

    Example:
        >>> encoder, decoder = image_coders((8, 8), width=64)   # a number a pixel, but for one
        >>> x = torch.linspace(0, 1, 64).reshape(1, 8, 8)
        >>> bool((decoder(encoder(x)) - x).abs().max() < 0.01)
        True
    """

    basis: Tensor

    def __init__(self, width: int, shape: tuple[int, ...], level: float = 0.5, channels: tuple[int, int] = (64, 96)):
        super().__init__()
        self.level = level
        self.pattern_shape, (planes, height, breadth) = tuple(shape), as_planes(shape)
        self.register_buffer("basis", code_basis(shape, width), persistent=False)
        self.constant = _typical_length(shape)
        self.linear = nn.Linear(width - 1, len(self.basis))
        self.network = nn.Sequential(
            nn.Linear(width, channels[1] * height * breadth // 64),
            nn.SiLU(),
            nn.Unflatten(1, (channels[1], height // 8, breadth // 8)),
            nn.ConvTranspose2d(channels[1], channels[0], 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(channels[0], 16 * planes, 3, padding=1),
            nn.PixelShuffle(4),
            nn.Flatten(),
        )
        with torch.no_grad():
            self.linear.weight.zero_().fill_diagonal_(1.0)
            self.linear.bias.zero_()
            for parameter in self.network[-3].parameters():
                parameter.zero_()

    def forward(self, code: Tensor) -> Tensor:
        last = code[:, -1:]
        inverse = last / (last.square() + 0.1)  # 1/last, but near 0 where that is
        signs = self.linear(self.constant * inverse * code[:, :-1]) @ self.basis + self.network(code)
        y: Tensor = (self.level + signs / 2).unflatten(1, self.pattern_shape)
        return y + (y.clamp(0, 1) - y).detach()


def code_basis(shape: tuple[int, ...], width: int) -> Tensor:
    """The cosines that a code of this width is mixed from: four times as many, at most d."""
    return cosine_basis(shape, min(4 * width, math.prod(shape)))


def _typical_length(shape: tuple[int, ...]) -> float:
    """A typical length of the vector of an image's signs about their mean, ``√(d/4)``."""
    return math.sqrt(math.prod(shape) / 4)


def image_coders(
    shape: tuple[int, ...], width: int, level: float = 0.5, channels: tuple[int, int] = (64, 96)
) -> tuple[ImageEncoder, ImageDecoder]:
    """An :class:`ImageEncoder` and its decoder; before training, the best-known ``width − 1`` cosine coefficients."""
    return ImageEncoder(shape, width, level, channels), ImageDecoder(width, shape, level, channels)
