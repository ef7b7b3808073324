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
from ebmm.misfit import PictureMisfit, cells, robust_distances
from ebmm.slopes import recorded_slope


class InpaintingMemory(OneSlotEach):
    """A list of codes, read by descent on how badly an image fits what it reminds of: ``E(x) = Σ_p ρ(u_p − b_p)``.

    - ``y = Σⱼ wⱼ yⱼ`` is what x recalls: the decoded slots ``yⱼ`` with weights ``w = softmax(−β dist(x, yⱼ))``, as in a
      dense associative memory, but with a distance that no damaged part dominates:
      ``dist = Σᵢ ε log(1 + dᵢ/ε)``, dᵢ being the squared distance within cell i of 4 × 4 pixels.
    - ρ, u and b are those of :class:`ebmm.misfit.PictureMisfit`: where x does not fit, as in a block of noise, it is
      pulled to y with detail added, and left alone where it does.

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
        self.log_tolerated = nn.Parameter(torch.tensor(0.5).log())  # log ε
        self.misfit = PictureMisfit(self.planes, hidden, forgiven)

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
        asked = cells(images).unflatten(0, x.shape[:2])
        kept = cells(stored.unflatten(-1, self.planes))
        reminded = self.weights(asked, kept) @ stored
        return torch.unflatten(self.misfit(images, reminded.reshape(images.shape)), 0, x.shape[:2])

    def weights(self, asked: Tensor, kept: Tensor) -> Tensor:
        """Weights w, (B, Q, slots), of slots for queries, both in cells: (B, Q or slots, cells, numbers)."""
        distance = robust_distances(asked, kept, self.log_tolerated.exp())
        return torch.softmax(-self.log_inverse_temperature.exp() * distance, -1)
