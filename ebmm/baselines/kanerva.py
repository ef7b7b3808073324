"""The dynamic Kanerva machine: a matrix of K rows written by Bayes' rule, one pattern at a time, read by regression."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.baselines.rival import Rival, Sizes
from ebmm.coders import Decoder, Encoder
from ebmm.coders.vectors import start_linear
from ebmm.layers import triangle, triangle_position
from ebmm.memory import Memory

LEAST_NOISE = 0.01  # keeps the regression solvable in single precision
PRIOR_SCALE = 0.1  # standard deviation of the random start of R₀


class KanervaMachine(Rival):
    """A belief about a K × C matrix M whose rows mix into the code of every stored pattern.

    A pattern's code e is taken for ``Mᵀ w`` plus noise of variance σ², with a standard normal address ``w``.
    The memory is the mean R of M and the covariance U of its rows, the same for every column.

    - Address a code by ridge regression: ``w = (R Rᵀ + σ² I)⁻¹ R e``.
    - Write pattern after pattern, by Bayes' rule for a linear model with Gaussian noise:
      ``R ← R + U w Δᵀ / (wᵀ U w + σ²)`` and ``U ← U − U w wᵀ U / (wᵀ U w + σ²)``, with ``Δ = e − Rᵀ w``.
    - Read by going round: encode the query, address the code, decode ``Rᵀ w``, and take that for the next query.

    The prior (R₀, a diagonal U₀, σ) and the two coders are static; only R and U are written. The source
    samples the addresses, the matrix and the patterns, and trains by a variational bound; here all are
    taken at their means and trained as every other memory is, by the error of what is read.

    Args:
        features, rows, width: d or S, K and C. No more than K codes can be kept apart.
        read_steps: rounds of reading. Without the coders in the round a second one would
            only shrink the code: addressing and mixing are linear, so nothing is attracted to anything.
        encoder, decoder: as of every rival; by default, for vectors, an :class:`ebmm.coders.Encoder` that starts near
            an isometry and a :class:`ebmm.coders.Decoder` near its transpose. The untrained machine is then
            much like a Hopfield network with the pseudo-inverse rule.
        noise: start value of σ, above 0.01, which it stays above.

    A memory is ``"mean"``, R, (B, K, C), and ``"covariance"``, (B, K (K + 1) / 2), the upper triangle of U row by row.

    Example:
        >>> model = KanervaMachine(64, rows=16, width=121)
        >>> patterns = torch.randint(0, 2, (3, 10, 64)).float()
        >>> memory = model.write(patterns)
        >>> memory
        Memory(mean: (3, 16, 121), covariance: (3, 136), device='cpu')
        >>> model.read(patterns, memory).shape, model.memory_floats
        (torch.Size([3, 10, 64]), 2072)

    Wu, Wayne, Gregor, Lillicrap, *Learning Attractor Dynamics for Generative Memory* (2018).
    """

    settings = ("rows", "width", "read_steps")
    position: Tensor

    def __init__(
        self,
        features: int | tuple[int, ...],
        rows: int,
        width: int,
        read_steps: int = 8,
        encoder: nn.Module | None = None,
        decoder: nn.Module | None = None,
        noise: float = 0.1,
    ):
        if noise <= LEAST_NOISE:
            raise ValueError(f"noise must be above {LEAST_NOISE}, got {noise}")
        sizes = {"rows": rows, "width": width, "read_steps": read_steps}
        super().__init__(features, width, encoder, decoder, lambda d: _isometric_coders(d, width), **sizes)
        self.rows, self.width, self.read_steps = rows, width, read_steps
        self.prior_mean = nn.Parameter(PRIOR_SCALE * torch.randn(rows, width))
        self.prior_log_variance = nn.Parameter(torch.zeros(rows))
        self.log_noise_variance = nn.Parameter(torch.tensor(math.log(noise**2 - LEAST_NOISE**2)))
        self.register_buffer("position", triangle_position(rows), persistent=False)

    @property
    def memory_shapes(self) -> dict[str, Sizes]:
        return {"mean": (self.rows, self.width), "covariance": (self.rows * (self.rows + 1) // 2,)}

    def noise_variance(self) -> Tensor:
        """σ², which is the ridge too: positive, a scalar."""
        return self.log_noise_variance.exp() + LEAST_NOISE**2

    def initial_memory(self, batch_size: int = 1) -> Memory:
        """B empty memories: the meta-learned prior R₀ and U₀, before anything is written."""
        covariance = triangle(torch.diag(self.prior_log_variance.exp()))
        mean = self.prior_mean.clone().expand(batch_size, -1, -1)
        return Memory({"mean": mean, "covariance": covariance.expand(batch_size, -1)})

    def _write(self, codes: Tensor, held: dict[str, Tensor] | None) -> dict[str, Tensor]:
        believed = self.initial_memory(len(codes)) if held is None else held
        mean, noise = believed["mean"], self.noise_variance()
        # U is carried as U = F Fᵀ, so that no rounding makes a variance negative (Potter's form of Bayes' rule).
        factor = _cholesky(believed["covariance"][:, self.position])
        for code in codes.split(1, dim=1):
            address = self._regress(mean, mean @ code.mT)
            projected = address.mT @ factor
            scale = projected.square().sum(2, keepdim=True) + noise
            gain = factor @ projected.mT / scale
            mean = torch.baddbmm(mean, gain, code - address.mT @ mean)
            factor = torch.baddbmm(factor, gain, projected / (1 + (noise / scale).sqrt()), alpha=-1)
        return {"mean": mean, "covariance": triangle(factor @ factor.mT)}

    def _read(self, query: Tensor, held: dict[str, Tensor]) -> list[Tensor]:
        mean, rounds = held["mean"], [query]
        regression = self._regress(mean, mean)  # the same for all codes, queries and rounds
        for _ in range(self.read_steps):
            address = self._encoded(rounds[-1]) @ regression.mT
            rounds.append(self._decoded(address @ mean))
        return rounds[1:]

    def _regress(self, mean: Tensor, right: Tensor) -> Tensor:
        """``(R Rᵀ + σ² I)⁻¹ right`` for right sides (B, K, ...)."""
        ridge = self.noise_variance() * torch.eye(self.rows, dtype=mean.dtype, device=mean.device)
        return _solve(torch.baddbmm(ridge, mean, mean.mT), right)


def _isometric_coders(features: int, width: int) -> tuple[Encoder, Decoder]:
    encoder, decoder = Encoder(features, width), Decoder(width, features)
    start_linear(encoder, decoder, nn.init.orthogonal_(torch.empty(width, features)))
    with torch.no_grad():
        for last in (*encoder.network[-1].parameters(), *decoder.network[-1].parameters()):
            last.mul_(0.1)
    return encoder, decoder


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """``matrix⁻¹ right`` for symmetric positive definite matrices, by Cholesky and one step of refinement.

    The refinement takes the first solution for a constant. Its own derivative is then that of the inverse,
    ``A⁻¹ (db − dA x)``, at half the price of going back through the factorisation. For first derivatives only.
    """
    with torch.no_grad():
        factor = _cholesky(matrix)
        solution = torch.cholesky_solve(right, factor)
    return solution + torch.cholesky_solve(right - matrix @ solution, factor)


def _cholesky(matrix: Tensor) -> Tensor:
    """The lower factor of matrices that may be singular but for rounding."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    jitter = torch.finfo(matrix.dtype).eps * diagonal.sum(-1, keepdim=True)
    lower: Tensor = torch.linalg.cholesky_ex(matrix + torch.diag_embed(jitter.expand_as(diagonal)))[0]
    return lower
