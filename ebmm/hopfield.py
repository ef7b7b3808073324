"""Hopfield's network of d units, with three writing rules (chapter 1)."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ebmm.memory import Memory, as_pattern_shape, check_counts, check_memory, check_points

VALUES = {"bits": (0.0, 1.0), "signs": (-1.0, 1.0)}
DYNAMICS = ("asynchronous", "synchronous")


def _write_hebb(weight: Tensor, signs: Tensor) -> Tensor:
    return _clear_diagonal(weight + signs.mT @ signs / signs.shape[-1])


def _write_storkey(weight: Tensor, signs: Tensor) -> Tensor:
    for x in signs.unbind(1):
        x = x[..., None]
        half = (x / 2 - weight @ x) / x.shape[1]
        weight += torch.cat([x, half], dim=2) @ torch.cat([half, x], dim=2).mT
        _clear_diagonal(weight)
    return weight


def _write_projection(projection: Tensor, signs: Tensor) -> Tensor:
    nothing_left = 10 * torch.finfo(signs.dtype).eps * signs.shape[-1]
    for x in signs.unbind(1):
        r = x[..., None]
        for _ in range(2):  # the second pass removes what rounding left of the first
            r = r - projection @ r
        length = (r * r).sum(1, keepdim=True)
        r = r * torch.where(length > nothing_left, length.rsqrt(), 0)
        projection += r * r.mT
    return projection


def _clear_diagonal(matrix: Tensor) -> Tensor:
    matrix.diagonal(dim1=-2, dim2=-1).zero_()
    return matrix


RULES = {"hebb": _write_hebb, "storkey": _write_storkey, "pseudo-inverse": _write_projection}


class Hopfield(nn.Module):
    """A Hopfield network: d units, symmetric couplings, and an energy that reading lowers (Hopfield 1982).

    With ``s`` the pattern as signs, -1 or +1, the energy is ``E(s) = -1/2 s^T W s``, where ``W`` has no
    diagonal. The rules, for patterns ``s_1 ... s_N``:

    - ``"hebb"``: ``W = sum of s s^T / d``.
    - ``"storkey"`` (Storkey 1997), pattern by pattern: ``W += (s s^T - s h^T - h s^T) / d`` with
      ``h = W s``; the diagonal is cleared after each pattern, so the order of the patterns matters.
    - ``"pseudo-inverse"`` (Personnaz and others 1985): ``P = X^+ X``, the projection onto the patterns,
      reached pattern by pattern: ``P += r r^T / ||r||^2`` with ``r = s - P s``. ``W`` is ``P`` without its
      diagonal; the Memory keeps ``P``, so that writing goes on exactly.

    Args:
        dim: the number of units d, or the shape S of a pattern, such as ``(28, 28)``.
        rule: how patterns are written, one of the three.
        values: what patterns, queries and reads hold: ``"bits"``, 0 and 1, or ``"signs"``, -1 and +1.

    Example:
        >>> patterns = torch.tensor([[[1., 1, 1, 1, 0, 0, 0, 0], [1., 0, 1, 0, 1, 0, 1, 0]]])
        >>> model = Hopfield(8, rule="hebb")
        >>> memory = model.write(patterns)
        >>> memory
        Memory(weight: (1, 8, 8), device='cpu')
        >>> query = torch.tensor([[[0., 1, 1, 1, 0, 0, 0, 0]]])  # the first, one bit wrong
        >>> model.read(query, memory)
        tensor([[[1., 1., 1., 1., 0., 0., 0., 0.]]])

    Chapter 1 builds it; paper, table 1, rows 1 to 3.
    """

    def __init__(self, dim: int | tuple[int, ...], rule: str = "hebb", values: str = "bits"):
        super().__init__()
        if rule not in RULES:
            raise ValueError(f"rule must be one of {tuple(RULES)}, got {rule!r}")
        if values not in VALUES:
            raise ValueError(f"values must be one of {tuple(VALUES)}, got {values!r}")
        self.pattern_shape = as_pattern_shape(dim, "dim")
        self.dim = math.prod(self.pattern_shape)
        self.rule, self.values = rule, values

    def extra_repr(self) -> str:
        return f"{self.pattern_shape}, rule={self.rule!r}, values={self.values!r}"

    @property
    def memory_floats(self) -> int:
        """What one memory costs: ``d (d + 1) / 2`` floats; 8256 at d = 128, as in the paper's table 1.

        Only the pseudo-inverse rule needs the diagonal. The paper counts one bias a unit, and so do we in its place.
        """
        return self.dim * (self.dim + 1) // 2

    @torch.no_grad()
    def write(self, patterns: Tensor, memory: Memory | None = None) -> Memory:
        """Store patterns; writing in parts gives the same memory as writing at once in the same order.

        Args:
            patterns: (B, N, *S), floating point, each value one of the two that ``values`` names.
            memory: what an earlier ``write`` returned, left as it was; ``None`` starts an empty one.

        Returns:
            A Memory. ``"weight"``: (B, d, d), ``W``, by the rules of Hebb and Storkey;
            ``"projection"``: (B, d, d), ``P``, by the pseudo-inverse rule.
        """
        matrix = None if memory is None else self._matrix(memory)
        self._check_values(patterns, "patterns", matrix)
        signs = self._signs(patterns)
        if matrix is None:
            matrix = signs.new_zeros(signs.shape[0], self.dim, self.dim)
        return Memory({self._name: RULES[self.rule](matrix.clone(), signs)})

    def weights(self, memory: Memory) -> Tensor:
        """The couplings ``W`` that reading uses: (B, d, d), symmetric, without diagonal."""
        return _clear_diagonal(self._matrix(memory).clone())

    @torch.no_grad()
    def read(
        self,
        query: Tensor,
        memory: Memory,
        trajectory: bool = False,
        clamp: Tensor | None = None,
        steps: int = 100,
        dynamics: str = "asynchronous",
        generator: torch.Generator | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Let the network run from each query until no unit changes.

        A unit takes the sign of its field ``(W s)_i``; a field of zero leaves it as it is. Asynchronous: one
        unit after another, and a step is a sweep over all of them; the energy never rises. Synchronous: all
        units at once; the energy may rise, and the network may end in a cycle of two states.

        Args:
            query: (B, Q, *S), floating point, each value one of the two that ``values`` names.
            memory, trajectory: what ``write`` returned, and whether to return the states along the way, too.
            clamp: (B, Q, *S), bool; units where it is true are known to be right, and never updated. Only so is the
                paper's table 1 reproduced (chapter 1).
            steps, dynamics: how many steps at most, and whether they are ``"asynchronous"`` or ``"synchronous"``.
            generator: draws a new order of the units for each sweep, the same for all memories and queries.
                ``None`` takes the units in their order in the pattern.

        Returns:
            (B, Q, *S), the last states; with ``trajectory`` also (K + 1, B, Q, *S), the query first. K, at most
            ``steps``, counts the steps done; unless they ran out, the last changed nothing.
        """
        if dynamics not in DYNAMICS:
            raise ValueError(f"dynamics must be one of {DYNAMICS}, got {dynamics!r}")
        run = self._start(query, memory, clamp, steps)
        states = [run.state.clone()]
        for _ in range(steps):
            for _ in run.sweep(self._groups(dynamics, generator)):
                pass
            states = states if trajectory else states[-1:]
            states.append(run.state.clone())
            if torch.equal(states[-1], states[-2]):
                break
        x = self._values(states[-1])
        return (x, torch.stack([self._values(state) for state in states])) if trajectory else x

    def updates(
        self,
        query: Tensor,
        memory: Memory,
        clamp: Tensor | None = None,
        steps: int = 100,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """Asynchronous reading, one unit at a time: the query, then the state after each change.

        Updates that leave every state of the batch as it was yield nothing. So with one memory and one
        query each state differs from the one before in one unit, and its energy is strictly lower.
        Arguments are as for ``read``, and the last of the tensors, (B, Q, *S), is what ``read`` returns.

        Example:
            >>> model = Hopfield(6, values="signs")
            >>> memory = model.write(torch.ones(1, 1, 6))
            >>> query = torch.tensor([[[1., 1, 1, 1, -1, -1]]])
            >>> [round(model.energy(x, memory).item(), 2) for x in model.updates(query, memory)]
            [0.17, -0.83, -2.5]
        """
        run = self._start(query, memory, clamp, steps)

        def states() -> Iterator[Tensor]:
            yield self._values(run.state.clone())
            for _ in range(steps):
                still = True
                for changed in run.sweep(self._groups("asynchronous", generator)):
                    if changed.any():
                        still = False
                        yield self._values(run.state.clone())
                if still:
                    return

        return states()

    def energy(self, x: Tensor, memory: Memory) -> Tensor:
        """The energy ``E(x) = -1/2 x^T W x`` of x (B, Q, *S) as signs: (B, Q), differentiable in ``x``.

        Values between bits or signs are allowed.
        """
        weight = self.weights(memory)
        low, high = VALUES[self.values]
        check_points(x, self.pattern_shape, "x", low, high, like=weight, batch=memory.batch_size)
        signs = self._signs(x)
        return -0.5 * (signs @ weight * signs).sum(-1)

    @property
    def _name(self) -> str:
        return "projection" if self.rule == "pseudo-inverse" else "weight"

    def _matrix(self, memory: Memory) -> Tensor:
        shapes = {self._name: (self.dim, self.dim)}
        return check_memory(memory, shapes, f"Hopfield with rule={self.rule!r}")[self._name]

    def _check_values(self, x: Tensor, name: str, matrix: Tensor | None) -> None:
        check_points(x, self.pattern_shape, name, like=matrix, batch=None if matrix is None else matrix.shape[0])
        low, high = VALUES[self.values]
        other = x[(x != low) & (x != high)]
        if other.numel():
            raise ValueError(
                f"{name} must hold only {low:g} and {high:g} in a network with values={self.values!r}, "
                f"got {other[0].item():g} among them: binarise them first"
            )

    def _signs(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        return 2 * flat - 1 if self.values == "bits" else flat

    def _values(self, state: Tensor) -> Tensor:
        signs = state.transpose(1, 2).reshape(state.shape[0], state.shape[2], *self.pattern_shape)
        return (signs + 1) / 2 if self.values == "bits" else signs

    def _groups(self, dynamics: str, generator: torch.Generator | None) -> list[slice]:
        """The groups of units that a step updates one after the other: all at once, or each alone."""
        if dynamics == "synchronous":
            return [slice(None)]
        units = torch.arange(self.dim)
        if generator is not None:
            units = torch.randperm(self.dim, generator=generator, device=generator.device)
        return [slice(unit, unit + 1) for unit in units.tolist()]

    def _start(self, query: Tensor, memory: Memory, clamp: Tensor | None, steps: int) -> _Run:
        weight = self.weights(memory).detach()
        self._check_values(query, "query", weight)
        check_counts(steps=steps)
        if clamp is not None:
            if (got := getattr(clamp, "dtype", type(clamp).__name__)) is not torch.bool:
                raise TypeError(f"clamp must be a torch.bool tensor, got {got}")
            if clamp.shape != query.shape:
                raise ValueError(f"clamp must have the query's shape {tuple(query.shape)}, got {tuple(clamp.shape)}")
            if clamp.device != query.device:
                raise ValueError(f"clamp must be on {query.device} like the query, got {clamp.device}")
            clamp = clamp.flatten(2).transpose(1, 2).contiguous()
        state = self._signs(query.detach()).transpose(1, 2).clone(memory_format=torch.contiguous_format)
        return _Run(weight, state, clamp)


class _Run:
    """A network that runs: ``state`` (B, d, Q) holds signs and changes in place."""

    def __init__(self, weight: Tensor, state: Tensor, clamp: Tensor | None):
        self.weight, self.state, self.clamp = weight, state, clamp
        # A field that is zero but for rounding counts as zero. Else ties, frequent by Hebb's rule, would
        # be broken by the order of summation, and so by the batch size.
        rounding = torch.finfo(weight.dtype).eps
        self.zero = 8 * rounding * (1 + weight.abs().sum(-1, keepdim=True))

    def sweep(self, groups: list[slice]) -> Iterator[Tensor]:
        """Update group after group of units; after each, yield which of its states changed, bool."""
        for units in groups:
            field = self.weight[:, units] @ self.state
            keep = field.abs() <= self.zero[:, units]
            if self.clamp is not None:
                keep |= self.clamp[:, units]
            new = torch.where(keep, self.state[:, units], field.sign())
            changed = new != self.state[:, units]
            self.state[:, units] = new
            yield changed
