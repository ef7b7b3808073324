"""Our slot memory for images: codes are copied, and read by descent on how badly a picture fits (chapters 6 and 7)."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.baselines.rival import OneSlotEach
from ebmm.coders.images import as_planes
from ebmm.descent import inverse_softplus, never_growing, recordable, velocity_after
from ebmm.memory import Memory, check_counts
from ebmm.slopes import recorded_slope

CELL = 4  # pixels along a side of the cells that are compared when an image reminds of another


class InpaintingMemory(OneSlotEach):
    """A list of codes, read by descent on how badly an image fits what it reminds of: ``E(x) = Σ_p ρ(u_p − b_p)``.

    - ``y = Σᵢ wᵢ yᵢ`` is what x reminds of: the decoded slots ``yᵢ`` with weights ``w = softmax(−β D(x, yᵢ))``, as in a
      dense associative memory, but with a distance that no damaged part dominates:
      ``D = Σ_c τ log(1 + d_c/τ)``, d_c being the squared distance within cell c of 4 × 4 pixels.
    - ``z = y + f(x, y)`` adds the detail that the surroundings suggest; f is a network of three convolutions.
    - ``u_p`` is half the squared misfit ``(x − z)²``, summed over colours and averaged over the 5 × 5 pixels
      around p; ``b_p`` is what is forgiven there, given by a small network of y alone.
    - ``ρ(v) = softplus(a v)/a`` is 0 for a misfit well below what is forgiven, and grows with slope 1 above.

    So the gradient is x − z where x does not fit, as in a block of noise, and 0 where it does: intact detail, for
    which a code has no room, is left alone. Both networks start as zero.

    Reading takes K steps of projected gradient descent with momentum, as :class:`ebmm.EBMM` does. Writing does not
    descend: it copies the code of each pattern into a slot, so this is no energy-based memory model. It is ours, not
    the paper's.

    Args:
        shape, slots, width: of images, (H, W) or (3, H, W), sides multiples of 8; how many, and C, floats of a slot.
        encoder, decoder: such as :func:`ebmm.coders.image_coders` makes.
        hidden, forgiven: channels of the network f, and start value of b, above 0.
        read_steps, read_rate: K, and start value of the size of a step, above 0.

    Example:
        >>> from ebmm.coders import image_coders
        >>> model = InpaintingMemory((32, 32), 64, 72, *image_coders((32, 32), 72))
        >>> memory = model.write(torch.rand(2, 3, 32, 32))
        >>> model.energy(torch.rand(2, 5, 32, 32), memory).shape, model.memory_floats
        (torch.Size([2, 5]), 4608)
    """

    settings = ("slots", "width", "read_steps")
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
        read_steps: int = 2,
        read_rate: float = 0.9,
    ):
        super().__init__(shape, slots, width, encoder, decoder)
        check_counts(hidden=hidden, read_steps=read_steps)
        if not (forgiven > 0 and read_rate > 0):
            raise ValueError(f"forgiven and read_rate must be above 0, got {forgiven} and {read_rate}")
        self.planes = as_planes(shape)
        self.log_inverse_temperature = nn.Parameter(torch.tensor(0.0))  # log β
        self.log_tolerated = nn.Parameter(torch.tensor(0.5).log())  # log τ
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
        self.slope = nn.Parameter(torch.tensor(5 / forgiven).log())  # log a
        for name, size in (("over_rows", self.planes[1]), ("over_columns", self.planes[2])):
            self.register_buffer(name, window_mean(size), persistent=False)

        # Softplus of the first is the first step size; the others are the logits of γ⁽ᵏ⁾/γ⁽ᵏ⁻¹⁾ and of the momenta's.
        self.read_steps = read_steps
        self.raw_read_rate = nn.Parameter(torch.tensor(inverse_softplus(read_rate)))
        self.raw_read_rates = nn.Parameter(torch.full((read_steps - 1,), 3.0))
        self.raw_momentum = nn.Parameter(torch.tensor([-1.0, *[3.0] * (read_steps - 1)])[: read_steps - 1])

    def energy(self, x: Tensor, memory: Memory) -> Tensor:
        """How badly each of the images (B, Q, *S) fits what it reminds of in each of B memories: (B, Q)."""
        held = self._checked(memory)
        self._check(x, "x", memory)
        return self._energy(x, self._decoded(held["slots"]).flatten(2))

    def read_rates(self) -> Tensor:
        """Step sizes γ⁽ᵏ⁾ of reading, positive and never growing, (K,)."""
        return never_growing(F.softplus(self.raw_read_rate)[None], self.raw_read_rates)

    def momentum_rates(self) -> Tensor:
        """Momentum of each read step, in [0, 1) and never growing, (K,); the first is 0, since nothing moves yet."""
        return torch.cat([self.raw_momentum.new_zeros(1), torch.cumprod(torch.sigmoid(self.raw_momentum), 0)])

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        keep = torch.is_grad_enabled()
        stored = self._decoded(held["slots"]).flatten(2)
        with torch.inference_mode(False):  # which also enables gradients
            x, stored = recordable(query), recordable(stored)
            slope = partial(recorded_slope, partial(self._energy, stored=stored), keep=keep)
            velocity, iterates = torch.zeros_like(x), []
            for rate, momentum in zip(self.read_rates(), self.momentum_rates(), strict=True):
                velocity = velocity_after(slope, x, velocity, rate, momentum)
                x = (x + velocity).clamp(0, 1)
                if not keep:
                    x, velocity = x.detach(), velocity.detach()
                iterates.append(x)
        return iterates

    def _energy(self, x: Tensor, stored: Tensor) -> Tensor:
        images = x.reshape(-1, *self.planes)
        asked = _cells(images).unflatten(0, x.shape[:2])
        kept = _cells(stored.reshape(-1, *self.planes)).unflatten(0, stored.shape[:2])
        reminded = self.weights(asked, kept) @ stored
        return self.misfit(images, reminded.reshape(images.shape)).flatten(1).sum(1).unflatten(0, x.shape[:2])

    def weights(self, asked: Tensor, kept: Tensor) -> Tensor:
        """Weights w, (B, Q, slots), of slots for queries, both in cells: (B, Q or slots, cells, numbers)."""
        asked, kept = asked.transpose(-3, -2), kept.transpose(-3, -2)
        squares = asked.square().sum(-1)[..., :, None] + kept.square().sum(-1)[..., None, :]
        apart = (squares - 2 * asked @ kept.mT).clamp(min=0)  # (B, cells, Q, slots)
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
