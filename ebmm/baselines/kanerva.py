"""The dynamic Kanerva machine: a matrix written by Bayes' rule, one pattern at a time, and read by regression.

Letters: B memories, N patterns, Q queries, S the shape of a pattern, C the size of a code, K the rows of
the matrix.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ebmm.coders import Decoder, Encoder, apply, given_or_default
from ebmm.memory import Memory, check_points

LEAST_NOISE = 0.01  # keeps the regression solvable in single precision


class KanervaMachine(nn.Module):
    """A belief about a K × C matrix M whose rows mix into the code of every stored pattern.

    A pattern's code is taken for ``z = Mᵀ w`` plus noise of variance σ², with an address ``w`` of K
    numbers, standard normal. The memory is what is believed of M: its mean R and the covariance U of
    its rows, the same for every column.

    - Address a code by ridge regression: ``w = (R Rᵀ + σ² I)⁻¹ R z``.
    - Write pattern after pattern, by Bayes' rule for a linear model with Gaussian noise:
      ``R ← R + c Δᵀ / s`` and ``U ← U − c cᵀ / s``, with ``Δ = z − Rᵀ w``, ``c = U w``, ``s = wᵀ c + σ²``.
    - Read by going round: encode the query, address the code, decode ``Rᵀ w``, and take that for the
      next query.

    The prior (R₀, a diagonal U₀, σ) and the two coders are static; only R and U are written. The source
    samples the addresses, the matrix and the patterns, and trains by a variational bound; here all are
    taken at their means and trained as every other memory is, by the error of what is read.

    The ridge is ``σ² / σ_w²`` in general. A deviation σ_w other than 1 is the same machine with R₀ and U₀ in
    other units, so there is none to learn.

    Args:
        features: d, the size of a pattern, or its shape S.
        rows: K, at least 1. No more than K codes can be kept apart.
        width: C, size of a code, at least 1.
        read_steps: rounds of reading, at least 1. Without the coders in the round a second one would
            only shrink the code: addressing and mixing are linear, so nothing is attracted to anything.
        encoder: maps patterns (M, *S) to codes (M, C); ``None``, for vectors only: an
            :class:`ebmm.coders.Encoder` that starts near an isometry. The untrained machine is then
            much like a Hopfield network with the pseudo-inverse rule.
        decoder: maps codes (M, C) to patterns (M, *S) in [0, 1]; ``None``, for vectors only: a
            :class:`ebmm.coders.Decoder` that starts near the transpose of the encoder.
        noise: start value of σ, above 0.01, which it stays above.
        prior_scale: standard deviation of the random start of R₀, above 0.

    Raises:
        ValueError: a size or ``read_steps`` below 1, start values out of range, or no coders given for
            patterns that are not vectors.

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
        prior_scale: float = 0.1,
    ):
        super().__init__()
        self.pattern_shape = (features,) if isinstance(features, int) else tuple(features)
        if min(*self.pattern_shape, rows, width, read_steps) < 1:
            raise ValueError(
                f"features, rows, width and read_steps must be at least 1, got {features}, {rows}, {width} and "
                f"{read_steps}"
            )
        if noise <= LEAST_NOISE or prior_scale <= 0:
            raise ValueError(
                f"noise must be above {LEAST_NOISE} and prior_scale above 0, got {noise} and {prior_scale}"
            )
        self.rows, self.width, self.read_steps = rows, width, read_steps
        self.encoder, self.decoder = given_or_default(
            encoder, decoder, self.pattern_shape, lambda d: _isometric_coders(d, width)
        )
        self.prior_mean = nn.Parameter(prior_scale * torch.randn(rows, width))
        self.prior_log_variance = nn.Parameter(torch.zeros(rows))
        self.log_noise_variance = nn.Parameter(torch.tensor(math.log(noise**2 - LEAST_NOISE**2)))
        # Where in the packed triangle each entry of U stands.
        position = torch.empty(rows, rows, dtype=torch.long)
        row, column = torch.triu_indices(rows, rows)
        position[row, column] = position[column, row] = torch.arange(len(row))
        self.register_buffer("position", position, persistent=False)

    def extra_repr(self) -> str:
        return f"{self.pattern_shape}, rows={self.rows}, width={self.width}, read_steps={self.read_steps}"

    @property
    def memory_floats(self) -> int:
        """What one memory costs: K C for the mean, K (K + 1) / 2 for the covariance, which is symmetric."""
        return self.rows * self.width + self.rows * (self.rows + 1) // 2

    def noise_variance(self) -> Tensor:
        """σ², which is the ridge too: positive, a scalar."""
        return self.log_noise_variance.exp() + LEAST_NOISE**2

    def initial_memory(self, batch_size: int = 1) -> Memory:
        """B empty memories: the meta-learned prior R₀ and U₀, before anything is written."""
        covariance = self._packed(torch.diag(self.prior_log_variance.exp()))
        return Memory(
            {"mean": self.prior_mean.expand(batch_size, -1, -1), "covariance": covariance.expand(batch_size, -1)}
        )

    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Write patterns one after another, each by one step of Bayes' rule.

        Args:
            patterns: (B, N, *S), the model's dtype, in [0, 1].
            memory: what an earlier ``write`` returned, left as it was; ``None`` starts from the prior.

        Returns:
            A Memory. ``"mean"``: (B, K, C), R; ``"covariance"``: (B, K (K + 1) / 2), the upper triangle of U, row
            by row.

        Raises:
            TypeError, ValueError: patterns of a wrong shape, dtype or range; an encoder that does not give
                C numbers; a foreign memory.

        Example:
            >>> model = KanervaMachine(8, rows=3, width=5)
            >>> memory = model.write(torch.rand(1, 4, 8))
            >>> model.write(torch.rand(1, 2, 8), memory)["covariance"].shape
            torch.Size([1, 6])
        """
        self._check(patterns, "patterns", memory)
        mean, covariance = self._parts_of(self.initial_memory(len(patterns)) if memory is None else memory)
        noise = self.noise_variance()
        # U is carried as U = F Fᵀ, so that no rounding makes a variance negative (Potter's form of Bayes' rule).
        factor = _cholesky(covariance[:, self.position])
        for code in self._encoded(patterns).split(1, dim=1):
            address = self._regress(mean, mean @ code.mT)
            projected = address.mT @ factor
            scale = projected.square().sum(2, keepdim=True) + noise
            gain = factor @ projected.mT / scale
            mean = torch.baddbmm(mean, gain, code - address.mT @ mean)
            factor = torch.baddbmm(factor, gain, projected / (1 + (noise / scale).sqrt()), alpha=-1)
        return Memory({"mean": mean, "covariance": self._packed(factor @ factor.mT)})

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False):
        """Go round from each query: encode, address, decode.

        Args:
            query: (B, Q, *S), the model's dtype, in [0, 1].
            memory: B memories.
            trajectory: also return what each round gave.

        Returns:
            (B, Q, *S), and with ``trajectory`` also (read_steps + 1, B, Q, *S): the query first, what is
            read last.

        Raises:
            TypeError, ValueError: as for ``write``.

        Example:
            >>> model = KanervaMachine(8, rows=3, width=5, read_steps=2)
            >>> query = torch.rand(1, 6, 8)
            >>> x, trajectory = model.read(query, model.write(query[:, :4]), trajectory=True)
            >>> x.shape, trajectory.shape
            (torch.Size([1, 6, 8]), torch.Size([3, 1, 6, 8]))
        """
        self._check(query, "query", memory)
        mean, _ = self._parts_of(memory)
        regression = self._regress(mean, mean)  # the same for all codes, queries and rounds
        iterates = [query]
        for _ in range(self.read_steps):
            address = self._encoded(iterates[-1]) @ regression.mT
            iterates.append(apply(self.decoder, address @ mean))
        return (iterates[-1], torch.stack(iterates)) if trajectory else iterates[-1]

    def _regress(self, mean: Tensor, right: Tensor) -> Tensor:
        """``(R Rᵀ + σ² I)⁻¹ right`` for right sides (B, K, ...)."""
        ridge = self.noise_variance() * torch.eye(self.rows, dtype=mean.dtype, device=mean.device)
        return _solve(torch.baddbmm(ridge, mean, mean.mT), right)

    def _encoded(self, x: Tensor) -> Tensor:
        codes = apply(self.encoder, x)
        if codes.shape[2:] != (self.width,):
            raise ValueError(
                f"the encoder must give {self.width} numbers a pattern, got shape {tuple(codes.shape[2:])}"
            )
        return codes

    def _packed(self, matrix: Tensor) -> Tensor:
        row, column = torch.triu_indices(self.rows, self.rows, device=matrix.device)
        return matrix[..., row, column]

    def _parts_of(self, memory: Memory) -> tuple[Tensor, Tensor]:
        names, triangle = ("mean", "covariance"), self.rows * (self.rows + 1) // 2
        shapes = [tuple(memory[name].shape[1:]) for name in names if isinstance(memory, Memory) and name in memory]
        if shapes != [(self.rows, self.width), (triangle,)]:
            raise ValueError(
                f"expected a Memory with mean: (B, {self.rows}, {self.width}) and covariance: (B, {triangle}), "
                f"as write returns it, got {memory!r}"
            )
        return memory["mean"], memory["covariance"]

    def _check(self, x: Tensor, name: str, memory: Memory | None) -> None:
        batch = memory.batch_size if isinstance(memory, Memory) else None
        check_points(x, self.pattern_shape, name, 0.0, 1.0, like=self.prior_mean, batch=batch)


def _isometric_coders(features: int, width: int) -> tuple[Encoder, Decoder]:
    encoder, decoder = Encoder(features, width), Decoder(width, features)
    with torch.no_grad():
        nn.init.orthogonal_(encoder.linear.weight)
        decoder.linear.weight.copy_(2 * encoder.linear.weight.mT)
        for parameter in (encoder.linear.bias, decoder.linear.bias):
            parameter.zero_()
        for parameter in (*encoder.network[-1].parameters(), *decoder.network[-1].parameters()):
            parameter.mul_(0.1)
    return encoder, decoder


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    """``matrix⁻¹ right`` for symmetric positive definite matrices, by Cholesky and one step of refinement.

    The refinement corrects the rounding of the first solution, which it takes for a constant. Its own
    derivative is then that of the inverse, ``A⁻¹ (db − dA x)``, at half the price of going back through the
    factorisation. For first derivatives only.
    """
    with torch.no_grad():
        factor = _cholesky(matrix)
        solution = torch.cholesky_solve(right, factor)
    return solution + torch.cholesky_solve(right - matrix @ solution, factor)


def _cholesky(matrix: Tensor) -> Tensor:
    """The lower factor of matrices that may be singular but for rounding."""
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    jitter = torch.finfo(matrix.dtype).eps * diagonal.sum(-1, keepdim=True)
    return torch.linalg.cholesky_ex(matrix + torch.diag_embed(jitter.expand_as(diagonal)))[0]
