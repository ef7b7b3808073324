"""How badly a picture fits what it reminds of, so that only what is damaged is pulled (chapters 6 and 7)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.memory import check_counts

CELL = 4  # pixels along a side of the cells that the networks see


class PictureMisfit(nn.Module):
    """``Σ_p ρ(u_p − b_p)`` of a picture x that reminds of a picture y.

    - ``z = y + f(x, y)`` adds the detail that the surroundings suggest; f is a network of three convolutions.
    - ``u_p`` is half the squared misfit ``(x − z)²``, summed over colours and averaged over the 5 × 5 pixels
      around p; ``b_p`` is what is forgiven there, given by a small network of y alone.
    - ``ρ(t) = softplus(a t)/a`` is 0 for a misfit well below what is forgiven, and grows with slope 1 above.

    So the gradient is about x − z where x does not fit, as in a block of noise, and 0 where it does: intact detail, for
    which a code has no room, is left alone. Both networks start as zero. Ours, not the paper's.

    Args:
        planes: (channels, height, width), sides multiples of 4.
        hidden, forgiven: channels of the network f, and start value of b, above 0.
        bounded: let f add at most ½ and b change by a factor of at most e, so that y may be learned by descent on this.

    Shape:
        x, y: (M, channels, height, width). returns: (M,).

    Example:
        >>> misfit = PictureMisfit((1, 8, 8))
        >>> black, white = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
        >>> misfit(black, black).item() < 1, misfit(black, white).item() > 20
        (True, True)
    """

    over_rows: Tensor
    over_columns: Tensor

    def __init__(self, planes: tuple[int, int, int], hidden: int = 64, forgiven: float = 0.06, bounded: bool = False):
        super().__init__()
        check_counts(hidden=hidden)
        if not forgiven > 0:
            raise ValueError(f"forgiven must be above 0, got {forgiven}")
        channels, height, width = planes
        numbers = CELL**2 * channels
        self.detail = nn.Sequential(
            nn.Conv2d(2 * numbers, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, numbers, 3, padding=1),
        )
        self.tolerance = nn.Sequential(nn.Conv2d(numbers, 32, 3, padding=1), nn.SiLU(), nn.Conv2d(32, CELL**2, 1))
        for parameter in (*self.detail[-1].parameters(), *self.tolerance[-1].parameters()):
            nn.init.zeros_(parameter)
        self.forgiven, self.bounded = forgiven, bounded
        self.slope = nn.Parameter(torch.tensor(5 / forgiven).log())  # log a
        for name, size in (("over_rows", height), ("over_columns", width)):
            self.register_buffer(name, window_mean(size), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.at_pixels(x, y).flatten(1).sum(1)

    def at_pixels(self, x: Tensor, y: Tensor) -> Tensor:
        """ρ at each pixel, (M, 1, height, width)."""
        return F.softplus(self._excess(x, y)[1]) / self.slope.exp()

    def repaired(self, x: Tensor, y: Tensor) -> Tensor:
        """x with z where it does not fit: ``x + g (z − x)``, g being the slope of ρ averaged as the misfit is."""
        z, excess = self._excess(x, y)
        return x + self.over_rows @ torch.sigmoid(excess) @ self.over_columns * (z - x)

    def _excess(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """z and ``a (u − b)``."""
        cells = F.pixel_unshuffle(2 * y - 1, CELL)
        detail = self.detail(torch.cat([F.pixel_unshuffle(2 * x - 1, CELL), cells], 1))
        tolerance = self.tolerance(cells)
        if self.bounded:
            detail, tolerance = 0.5 * torch.tanh(2 * detail), torch.tanh(tolerance)
        z = y + F.pixel_shuffle(detail, CELL)
        misfit = self.over_rows @ (0.5 * (x - z).square().sum(1, keepdim=True)) @ self.over_columns
        forgiven = self.forgiven * F.pixel_shuffle(tolerance, CELL).exp()
        return z, self.slope.exp() * (misfit - forgiven)


def softly_clipped(y: Tensor) -> Tensor:
    """Numbers within (−¼, 1¼), ``½ + ¾ tanh((y − ½)/¾)``; 0 becomes 0.06 and 1 becomes 0.94."""
    return 0.5 + 0.75 * torch.tanh((y - 0.5) / 0.75)


def cells(images: Tensor) -> Tensor:
    """Images (..., C, H, W) as cells of 4 × 4 pixels, (..., cells, numbers)."""
    return F.pixel_unshuffle(images, CELL).flatten(-2).mT


def robust_distances(asked: Tensor, kept: Tensor, tolerated: Tensor) -> Tensor:
    """``dist = Σᵢ ε log(1 + dᵢ/ε)``, dᵢ being the squared distance within cell i: no damaged part dominates.

    Shape:
        asked, kept: (..., Q or slots, cells, numbers). tolerated: ε. returns: (..., Q, slots).
    """
    asked, kept = asked.transpose(-3, -2), kept.transpose(-3, -2)
    squares = asked.square().sum(-1)[..., :, None] + kept.square().sum(-1)[..., None, :]
    apart = (squares - 2 * asked @ kept.mT).clamp(min=0)  # (..., cells, Q, slots)
    return (tolerated * torch.log1p(apart / tolerated)).sum(-3)


def largest_distance(planes: tuple[int, int, int], tolerated: float) -> float:
    """The largest of :func:`robust_distances` of a picture, in [0, 1], from a softly clipped one."""
    channels, height, width = planes
    within = CELL**2 * channels * 1.25**2
    return height * width / CELL**2 * tolerated * math.log1p(within / tolerated)


def window_mean(size: int, reach: int = 2) -> Tensor:
    """The symmetric matrix (size, size) that takes means over 2 · reach + 1 neighbours, mirrored past an edge."""
    matrix = torch.zeros(size, size)
    for place in range(size):
        for near in range(place - reach, place + reach + 1):
            matrix[place, min(max(near, -1 - near), 2 * size - 1 - near)] += 1 / (2 * reach + 1)
    return matrix
