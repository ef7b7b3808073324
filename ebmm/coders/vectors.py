"""Coders for vectors: perceptrons, codes that pack several bits into a number, linear codes of signs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class Sine(nn.Module):
    """The sine of each element, as an activation: it folds a line many times, where others bend it once.

    Sitzmann and others, *Implicit Neural Representations with Periodic Activation Functions* (2020).
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Encoder(nn.Module):
    """A linear map plus a perceptron with one hidden layer, from the signs ``2x − 1`` of x (M, d) to codes (M, C).

    Args:
        features, width, hidden: d, C, and width of the hidden layer.
    """

    def __init__(self, features: int, width: int, hidden: int = 256):
        super().__init__()
        self.linear = nn.Linear(features, width)
        self.network = nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        signs = 2 * x - 1
        code: Tensor = self.linear(signs) + self.network(signs)
        return code


class Decoder(nn.Module):
    """A linear map plus a perceptron with one hidden layer, and a sigmoid: from codes (M, C) to (M, d) in [0, 1].

    Args:
        width, features, hidden: C, d, and width of the hidden layer.
        activation: makes the hidden layer's activation, such as ``nn.SiLU`` or :class:`Sine`.
    """

    def __init__(self, width: int, features: int, hidden: int = 256, activation: Callable[[], nn.Module] = nn.SiLU):
        super().__init__()
        self.linear = nn.Linear(width, features)
        self.network = nn.Sequential(nn.Linear(width, hidden), activation(), nn.Linear(hidden, features, bias=False))

    def forward(self, code: Tensor) -> Tensor:
        return torch.sigmoid(self.linear(code) + self.network(code))


def packing_coders(features: int, width: int) -> tuple[Encoder, Decoder]:
    """An encoder of d bits and its decoder that can put several of them into each of the C numbers of a code.

    They start as a positional notation: element ``i`` goes to number ``i mod C``, and the elements that
    share a number have weights 1, ½, ¼ …; with C ≥ d each has its own. The decoder starts with the
    transpose, which reads the first of them; the others lie in folds of the number, so its
    perceptron is of sines. From other starts, or with other activations, training finds this packing
    late or not at all.

    Example:
        >>> encoder, decoder = packing_coders(3, width=2)
        >>> encoder.linear.weight.data
        tensor([[1.0000, 0.0000, 0.5000],
                [0.0000, 1.0000, 0.0000]])
        >>> bits = torch.tensor([[1.0, 0.0, 1.0]])
        >>> (decoder(encoder(bits)) > 0.5).float()               # the start suffices for so few
        tensor([[1., 0., 1.]])
    """
    weight, element = torch.zeros(width, features), torch.arange(features)
    weight[element % width, element] = 0.5 ** (element // width)
    encoder, decoder = start_linear(Encoder(features, width), Decoder(width, features, activation=Sine), weight)
    with torch.no_grad():
        for last in encoder.network[-1].parameters():
            last.mul_(0.1)
    return encoder, decoder


def start_linear(encoder: Encoder, decoder: Decoder, weight: Tensor) -> tuple[Encoder, Decoder]:
    """Both, with the encoder's linear part starting as ``weight``, (C, d), and the decoder's as twice the transpose."""
    with torch.no_grad():
        encoder.linear.weight.copy_(weight)
        decoder.linear.weight.copy_(2 * weight.mT)
        for linear in (encoder.linear, decoder.linear):
            linear.bias.zero_()
    return encoder, decoder


class SignEncoder(nn.Module):
    """The linear code ``e = A s``, (M, C), of the signs ``s = 2x − 1`` of x (M, d); A starts as ``matrix``."""

    def __init__(self, matrix: Tensor):
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, x: Tensor) -> Tensor:
        return (2 * x - 1) @ self.matrix.mT


class SignDecoder(nn.Module):
    """Finds the signs s that a linear code ``e = A s`` was made of, by a few damped descent steps.

    ``u = y + bₗ Aᵀ(e − A y)``, ``p ← aₗ u + cₗ p``, ``y = tanh(p)`` for l = 1 … L, from y = 0: descent on
    ``‖e − A y‖²``, pushed towards ±1. A and the 3 L rates are learned, as in LISTA (Gregor & LeCun 2010).
    Random A with C rows can be undone in this way for C well above d/2, since s is one corner of
    the box [−1, 1]ᵈ. Codes (M, C) give ``(y + 1)/2``, (M, d) in [0, 1].

    Args:
        matrix, steps: start value of A, (C, d), and L, at least 1.
    """

    def __init__(self, matrix: Tensor, steps: int = 24):
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())
        self.slope = nn.Parameter(torch.linspace(0.6, 2.2, steps))
        self.rate = nn.Parameter(torch.linspace(2.7, 2.3, steps))
        self.inertia = nn.Parameter(torch.full((steps,), 0.4))

    def forward(self, code: Tensor) -> Tensor:
        y = pulled = torch.zeros_like(code[..., :1]).expand(*code.shape[:-1], self.matrix.shape[1])
        for slope, rate, inertia in zip(self.slope, self.rate, self.inertia, strict=True):
            pulled = slope * (y + rate * (code - y @ self.matrix.mT) @ self.matrix) + inertia * pulled
            y = torch.tanh(pulled)
        return (y + 1) / 2


def sign_coders(features: int, width: int, steps: int = 24) -> tuple[SignEncoder, SignDecoder]:
    """A linear code, of d bits in C ≤ d numbers, and the L steps of descent inside the box that undo it.

    Both start with the same random A of orthonormal rows and hardly need training.

    Example:
        >>> encoder, decoder = sign_coders(64, width=48)
        >>> bits = torch.randint(0, 2, (100, 64)).float()
        >>> wrong = (decoder(encoder(bits)) > 0.5) != (bits > 0.5)
        >>> bool(wrong.float().mean() < 0.01)
        True
    """
    if width > features:
        raise ValueError(f"a code longer than its pattern saves nothing: width {width}, features {features}")
    matrix = nn.init.orthogonal_(torch.empty(width, features))
    return SignEncoder(matrix), SignDecoder(matrix, steps)
