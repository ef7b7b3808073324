"""Our energy for images: how badly a picture agrees with what it reminds of (chapters 6 and 7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.coders.images import as_planes
from ebmm.energies.slots import CompressedDenseEnergy

CELL = 4  # pixels along a side of the cells that are compared when an image reminds of another


class InpaintingEnergy(CompressedDenseEnergy):
    """How badly an image fits what it reminds of, with small misfits forgiven: ``E(x) = Σ_p ρ(u_p − b_p)``.

    - ``y = Σᵢ wᵢ yᵢ`` is what x reminds of: the decoded slots ``yᵢ`` with weights ``w = softmax(−β D(x, yᵢ))``, as in a
      dense associative memory, but with a distance that no damaged part dominates:
      ``D = Σ_c τ log(1 + d_c/τ)``, d_c being the squared distance within cell c of 4 × 4 pixels.
    - ``z = y + f(x, y)`` adds the detail that the surroundings suggest; f is a network of three convolutions.
    - ``u_p`` is half the squared misfit ``(x − z)²``, summed over colours and averaged over the 5 × 5 pixels
      around p; ``b_p`` is what is forgiven there, given by a small network of y alone.
    - ``ρ(v) = softplus(a v)/a`` is 0 for a misfit well below what is forgiven, and grows with slope 1 above.

    So the gradient is x − z where x does not fit, as in a block of noise, and 0 where it does: intact detail, for
    which a code has no room, is left alone. Both networks start as zero.

    Slots are compared with 0.4 of the code instead of half of it, and written by a step of 2.5. A slot that is taken is
    then further away than an empty one, even for the same image twice. This energy is ours, not the paper's.

    Args:
        shape, slots, width: as for :class:`ebmm.energies.slots.CompressedDenseEnergy`; sides are multiples of 8.
        encoder, decoder: such as :func:`ebmm.coders.image_coders` makes; codes must be of one length.
        hidden, forgiven: channels of the network f, and start value of b, above 0.

    Shape:
        x: (..., *S). returns: (...), the writing loss with ``writing=True``.

    Example:
        >>> from ebmm.coders import image_coders
        >>> energy = InpaintingEnergy((32, 32), 64, 72, *image_coders((32, 32), 72))
        >>> energy(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 3])
    """

    share = 0.4
    over_rows: Tensor
    over_columns: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        slots: int,
        width: int,
        encoder: nn.Module,
        decoder: nn.Module,
        hidden: int = 64,
        forgiven: float = 0.06,
    ):
        # So sharp that two empty slots hardly ever share a code: half a code in a slot attracts all that follow.
        super().__init__(shape, slots, width, encoder, decoder, inverse_temperature=1.0, sharpness=1e7)
        self.planes = as_planes(shape)
        with torch.no_grad():
            self.memory.weight.mul_(0.2)  # what an empty slot holds is left behind as an error of the code
        self.log_tolerated = nn.Parameter(torch.tensor(0.5).log())  # τ
        numbers = CELL**2 * self.planes[0]
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
        self.forgiven = forgiven
        self.slope = nn.Parameter(torch.tensor(5 / forgiven).log())
        for name, size in (("over_rows", self.planes[1]), ("over_columns", self.planes[2])):
            self.register_buffer(name, window_mean(size), persistent=False)

    def reading_energy(self, x: Tensor, slots: Tensor) -> Tensor:
        lead = x.shape[: x.dim() - len(self.pattern_shape)]
        stored = self.decoder(slots.flatten(0, -2)).reshape(*slots.shape[:-1], -1)
        images = x.reshape(-1, *self.planes)
        asked = _cells(images).unflatten(0, lead)
        kept = _cells(stored.reshape(-1, *self.planes)).unflatten(0, slots.shape[:-1])
        reminded = self.address(asked, kept) @ stored
        return self.misfit(images, reminded.reshape(images.shape)).flatten(1).sum(1).reshape(lead)

    def address(self, asked: Tensor, kept: Tensor) -> Tensor:
        """Weights w, (..., Q, slots), of slots for queries, both in cells: (..., Q or slots, cells, numbers)."""
        asked, kept = asked.transpose(-3, -2), kept.transpose(-3, -2)
        squares = asked.square().sum(-1)[..., :, None] + kept.square().sum(-1)[..., None, :]
        apart = (squares - 2 * asked @ kept.mT).clamp(min=0)  # (..., cells, Q, slots)
        tolerated = self.log_tolerated.exp()
        distance = (tolerated * torch.log1p(apart / tolerated)).sum(-3)
        return torch.softmax(-self.log_inverse_temperature.exp() * distance, -1)

    def misfit(self, x: Tensor, y: Tensor) -> Tensor:
        """ρ at each pixel, (M, 1, H, W), of images x that remind of images y, both (M, C, H, W)."""
        cells = F.pixel_unshuffle(2 * y - 1, CELL)
        detail = self.detail(torch.cat([F.pixel_unshuffle(2 * x - 1, CELL), cells], 1))
        squared = 0.5 * (x - y - F.pixel_shuffle(detail, CELL)).square().sum(1, keepdim=True)
        around = self.over_rows @ squared @ self.over_columns
        forgiven = self.forgiven * F.pixel_shuffle(self.tolerance(cells), CELL).exp()
        slope = self.slope.exp()
        return F.softplus(slope * (around - forgiven)) / slope


def window_mean(size: int, reach: int = 2) -> Tensor:
    """The symmetric matrix (size, size) that takes means over 2 · reach + 1 neighbours, mirrored past an edge."""
    matrix = torch.zeros(size, size)
    for place in range(size):
        for near in range(place - reach, place + reach + 1):
            matrix[place, min(max(near, -1 - near), 2 * size - 1 - near)] += 1 / (2 * reach + 1)
    return matrix


def _cells(images: Tensor) -> Tensor:
    """(M, C, H, W) to the cells of each image, (M, cells, numbers)."""
    return F.pixel_unshuffle(images, CELL).flatten(2).mT
