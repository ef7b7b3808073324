"""The energy-based memory model: patterns are written into the weights of an energy network and read by descent.

Equations are those of Bartunov, Rae, Osindero, Lillicrap, *Meta-Learning Deep Energy-Based Memory Models* (ICLR 2020).
Letters: B memories, N patterns, Q queries, K read steps, T write steps, S the shape of a pattern.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ebmm.descent import inverse_softplus, never_growing, recordable, velocity_after
from ebmm.given import kind, real, whole
from ebmm.memory import Memory, check_memory, check_points
from ebmm.network import energies, takes_a_batch, writable_names
from ebmm.recompute import recomputed
from ebmm.slopes import Recorded, Slopes, Weights
from ebmm.trial import check_layers, try_network

TERMS = ("energy", "gradient", "decay")


class EBMM(nn.Module):
    """A memory in the weights of any energy network, with meta-learned writing and reading.

    The module's parameters are what is meta-learned: the static weights, the initial writable weights θ̄ and all
    rates. What is written is a :class:`ebmm.Memory`, a value. While gradients are enabled, both loops are recorded
    for the meta-gradient; under ``torch.no_grad()`` and ``torch.inference_mode()`` nothing is kept.

    Args:
        energy: any module that maps (..., *S) to (...). If its writable parameters are those of whole layers from
            :mod:`ebmm.layers`, it is called once for all memories, with (B, N, *S); otherwise through
            ``torch.vmap``, with one memory's (N, *S). Count dimensions from the end, and it serves both:
            ``x.flatten(-2)``, ``x.unsqueeze(-3)``. An attribute ``pattern_shape`` is the S that patterns are checked
            against. Before its first use it is tried on a few points, and refused if it could give wrong numbers.
        writable: names of the parameters that are the memory, or of submodules whose parameters all
            are. ``None`` takes ``energy.writable``.
        write_steps, read_steps: T and K, gradient steps of one ``write`` and one ``read``; at least 1.
        sequential: write the patterns one after another, T steps each, instead of T steps on their mean.
            Then what is written already shapes where the next pattern goes (chapter 5).
        reduction: ``"mean"`` or ``"sum"`` of the gradients of the patterns that are written together. With the sum,
            each pattern moves the memory as far among many as among few.
        box: (low, high), where patterns and queries lie; reading is projected onto it after each
            step. ``None``: no bounds and no projection.
        projection: ``"clamp"`` passes no gradient outside the box; ``"straight-through"`` clamps the value and passes
            the gradient unchanged, so that reads at the walls still receive one, at the risk of divergence.
        momentum: use Nesterov momentum while reading.
        non_increasing: let no read step be larger than the one before.
        gradient_term: use ‖∇ₓE‖² in the writing loss. It makes the meta-gradient third order, and a
            training step about twice as long; the energy term alone is often enough.
        decay_term: use ‖θ − θ̄‖² in the writing loss.
        write_rate: start value of the write rates of the energy, gradient and decay term, above 0; one number, or
            three. For the energy term, 0.1 learns with ``PredictiveEnergy`` and 0.005 to 0.02 with networks. Too
            large a rate saturates the reads and stops learning, or diverges.
        read_rate: start value of the read step size, above 0.
        recompute: keep only what goes into each step, and run the step once more for the meta-gradient, the same up
            to rounding: training holds the activations of one step instead of T + K, for up to half the time more.

    Example:
        >>> from ebmm.energies import PredictiveEnergy
        >>> model = EBMM(PredictiveEnergy(64), write_steps=5, read_steps=5)
        >>> patterns = torch.randint(0, 2, (3, 16, 64)).float()
        >>> with torch.no_grad():
        ...     memory = model.write(patterns)
        ...     recalled = model.read(patterns, memory)
        >>> memory.batch_size, recalled.shape, model.memory_floats
        (3, torch.Size([3, 16, 64]), 2080)
    """

    def __init__(
        self,
        energy: nn.Module,
        writable: Sequence[str] | str | None = None,
        write_steps: int = 5,
        read_steps: int = 5,
        *,
        sequential: bool = False,
        reduction: str = "mean",
        box: tuple[float, float] | None = (0.0, 1.0),
        projection: str = "clamp",
        momentum: bool = True,
        non_increasing: bool = True,
        gradient_term: bool = True,
        decay_term: bool = True,
        write_rate: float | tuple[float, float, float] = (1e-2, 1e-4, 1e-4),
        read_rate: float = 0.1,
        recompute: bool = False,
    ):
        super().__init__()
        if not isinstance(energy, nn.Module):
            raise TypeError(f"energy must be a torch.nn.Module, got {kind(energy)}")
        if projection not in ("clamp", "straight-through"):
            raise ValueError(f"projection must be 'clamp' or 'straight-through', got {projection!r}")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"reduction must be 'mean' or 'sum', got {reduction!r}")
        check_layers(energy, gradient_term)

        self.energy_network = energy
        self.write_steps, self.read_steps = whole(write_steps, "write_steps"), whole(read_steps, "read_steps")
        self.sequential, self.reduction, self.projection = sequential, reduction, projection
        self.box = None if box is None else _box(box)
        self.momentum, self.non_increasing = momentum, non_increasing
        self.gradient_term, self.decay_term = gradient_term, decay_term
        self.recompute = recompute
        self.pattern_shape: tuple[int, ...] | None = getattr(energy, "pattern_shape", None)

        self.writable = writable_names(energy, getattr(energy, "writable", None) if writable is None else writable)
        owners = [name.rpartition(".")[0] for name in self.writable]
        layers = sorted(set(owners))
        self._layer = {name: layers.index(owner) for name, owner in zip(self.writable, owners, strict=True)}
        self._batched = all(takes_a_batch(energy, owner, self.writable) for owner in owners)
        self._plain_attention, self._tried = False, set[tuple[Any, ...]]()
        self.slopes: Slopes = Recorded()

        # Softplus of these are the write rates, (T, terms, layers); one for each layer, term and step.
        start = torch.tensor([inverse_softplus(rate) for rate in _rates("write_rate", write_rate, len(TERMS))])
        self.raw_write_rates = nn.Parameter(start[None, :, None].repeat(self.write_steps, 1, len(layers)))
        raw_read_rate = inverse_softplus(*_rates("read_rate", read_rate, 1))
        self.raw_read_rate = nn.Parameter(torch.tensor(raw_read_rate))
        # With non-increasing steps these are the logits of γ⁽ᵏ⁾/γ⁽ᵏ⁻¹⁾; else the free step sizes.
        later = 3.0 if non_increasing else raw_read_rate
        self.raw_read_rates = nn.Parameter(torch.full((self.read_steps - 1,), later))
        if momentum:
            self.raw_momentum = nn.Parameter(torch.full((self.read_steps - 1,), later if non_increasing else -1.0))
            with torch.no_grad():
                self.raw_momentum[:1] = -1.0

    def extra_repr(self) -> str:
        names = ["writable", "write_steps", "read_steps", "sequential", "reduction", "box", "projection"]
        names += ["momentum", "non_increasing", "gradient_term", "decay_term"]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    # Writing

    def write(self, patterns: Tensor, memory: Memory | None = None, trajectory: bool = False) -> Any:
        """Write patterns by T gradient steps on the writing loss (equations 3 and 4; chapters 3 and 4).

        ``θ ← θ − mean over patterns of ∇_θ (η₁ E + η₂ ‖∇ₓE‖² + η₃ ‖θ − θ̄‖²)`` with rates learned for
        each writable layer, term and step.

        Args:
            patterns: (B, N, *S), the model's dtype, in the box; they are constants that no gradient reaches.
            memory: go on writing into this one, which stays as it is; ``None`` starts from the meta-learned θ̄.
            trajectory: also return the memory after each step.

        Returns:
            B memories, and with ``trajectory`` also a list of T + 1 (``sequential``: N · T + 1), the start
            first, the result last.

        Raises:
            TypeError, ValueError, RuntimeError: wrong patterns, or an energy that cannot be written or read, at its
                first use: without gradients, or dependent on other points, on chance, or on what it keeps.
        """
        held = {} if memory is None else self._weights_of(memory)
        keep = torch.is_grad_enabled()
        with torch.inference_mode(False):  # which also enables gradients
            patterns, weights = self._taken(patterns, "patterns", held, keep)
            initial, static = dict(self.initial_memory(patterns.shape[0])), self._static()
            loop = self.slopes.loop(self._write_steps, keep)
            memories = [Memory(one) for one in loop(keep, patterns, weights or initial, static, initial, trajectory)]
        return (memories[-1], memories) if trajectory else memories[-1]

    def _write_steps(
        self, keep: bool, patterns: Tensor, weights: Weights, static: Weights, initial: Weights, all_steps: bool
    ) -> list[Weights]:
        """What the memories hold: last, or at the start and after each step."""
        held = [weights if keep else {name: weight.detach() for name, weight in weights.items()}]
        for group in patterns.split(1, 1) if self.sequential else (patterns,):
            for rates in self.write_rates():
                updated = self._run(self._write_step, keep, group, held[-1], static, initial, rates)
                held = [*(held if all_steps else ()), dict(zip(self.writable, updated, strict=True))]
        return held

    def _write_step(
        self, keep: bool, patterns: Tensor, weights: Weights, static: Weights, initial: Weights, rates: Tensor
    ) -> tuple[Tensor, ...]:
        """One gradient step on the writing loss; ``rates`` is (3, layers)."""
        of_energy, of_squared = self.slopes.of_weights(
            self._energy, patterns.detach(), weights, static, self.gradient_term, keep
        )
        share = 1 / patterns.shape[1] if self.reduction == "mean" else 1.0
        updated = []
        for name, weight in weights.items():
            energy_rate, gradient_rate, decay_rate = rates[:, self._layer[name]]
            new = torch.addcmul(weight, energy_rate, of_energy[name], value=-share)
            if of_squared is not None:
                new = torch.addcmul(new, gradient_rate, of_squared[name], value=-share)
            if self.decay_term:
                new = torch.addcmul(new, decay_rate, weight - initial[name], value=-2)
            updated.append(new)
        return tuple(updated)

    # Reading

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False) -> Any:
        """Read by K steps of projected gradient descent on the energy (equation 1; chapter 2).

        Args:
            query: (B, Q, *S), the model's dtype, in the box; Q queries to each of B memories.
            memory: B memories.
            trajectory: also return all iterates.

        Returns:
            (B, Q, *S), and with ``trajectory`` also (K+1, B, Q, *S): the query first, what is read last.
        """
        keep = torch.is_grad_enabled()
        with torch.inference_mode(False):  # which also enables gradients
            query, weights = self._taken(query, "query", self._weights_of(memory), keep)
            iterates = self.slopes.loop(self._read_steps, keep)(keep, query, weights, self._static())
        return (iterates[-1], torch.stack(iterates)) if trajectory else iterates[-1]

    def _read_steps(self, keep: bool, x: Tensor, weights: Weights, static: Weights) -> list[Tensor]:
        """All iterates, the query first."""
        iterates, velocity = [x], torch.zeros_like(x)
        for rate, momentum in zip(self.read_rates(), self.momentum_rates(), strict=True):
            x, velocity = self._run(self._read_step, keep, x, velocity, weights, static, rate, momentum)
            iterates.append(x)
        return iterates

    def _read_step(
        self, keep: bool, x: Tensor, velocity: Tensor, weights: Weights, static: Weights, rate: Tensor, momentum: Tensor
    ) -> tuple[Tensor, ...]:
        """One step down the energy from where the momentum leads, and the velocity after it."""
        slope = partial(self.slopes.of_points, self._energy, weights=weights | static, keep=keep)
        velocity = velocity_after(slope, x, velocity, rate, momentum)
        return self._project(x + velocity), velocity

    def _project(self, x: Tensor) -> Tensor:
        if self.box is None:
            return x
        projected = x.clamp(*self.box)
        return projected if self.projection == "clamp" else projected.detach() + (x - x.detach())

    def energy(self, x: Tensor, memory: Memory) -> Tensor:
        """Energy ``E(x; θ)`` of points (B, Q, *S), in the box, under each of B memories: (B, Q)."""
        keep = torch.is_grad_enabled()
        with torch.inference_mode(False):  # which also enables gradients
            x, weights = self._taken(x, "x", self._weights_of(memory), keep)
            with torch.set_grad_enabled(keep):
                return self._energy(x, weights)

    def _energy(self, x: Tensor, weights: Weights) -> Tensor:
        return energies(self.energy_network, weights, x, self.writable, self._batched, self._plain_attention)

    def _taken(self, x: Tensor, name: str, weights: Weights, keep: bool) -> tuple[Tensor, Weights]:
        """Points and weights that can be recorded; at first use, the energy is tried near these points."""
        network, twice = self.energy_network, keep or self.gradient_term
        (low, high), like = self.box or (None, None), network.get_parameter(self.writable[0])
        batch = next((len(weight) for weight in weights.values()), None)
        check_points(x, self.pattern_shape, name, low, high, like, batch)
        x = recordable(x)
        key = x.shape[2:], twice, *(module.training for module in network.modules())
        if key not in self._tried:
            with torch.autocast(x.device.type, enabled=False):
                self._batched, self._plain_attention = try_network(
                    network, self.writable, x, self.box, self._batched, twice
                )
            self._tried.add(key)
        return x, {name: recordable(weight) for name, weight in weights.items()}

    @property
    def memory_floats(self) -> int:
        """How many floats one memory holds: all writable parameters, biases included."""
        return sum(self.energy_network.get_parameter(name).numel() for name in self.writable)

    def initial_memory(self, batch_size: int = 1) -> Memory:
        """B empty memories: the meta-learned initial weights θ̄, before anything is written."""
        parameters = {name: self.energy_network.get_parameter(name) for name in self.writable}
        return Memory({name: p.clone().expand(batch_size, *p.shape) for name, p in parameters.items()})

    # Learned rates

    def write_rates(self) -> Tensor:
        """Rates of the writing loss, positive, (T, 3, layers); terms in the order energy, gradient, decay."""
        return F.softplus(self.raw_write_rates)

    def read_rates(self) -> Tensor:
        """Step sizes γ⁽ᵏ⁾ of reading, positive, (K,)."""
        first = F.softplus(self.raw_read_rate)[None]
        if self.non_increasing:
            return never_growing(first, self.raw_read_rates)
        return torch.cat([first, F.softplus(self.raw_read_rates)])

    def momentum_rates(self) -> Tensor:
        """Momentum of each read step, in [0, 1), (K,); the first is 0, since nothing moves yet."""
        zero = self.raw_read_rate.new_zeros(1)
        if not self.momentum:
            return zero.expand(self.read_steps)
        rates = torch.sigmoid(self.raw_momentum)
        return torch.cat([zero, torch.cumprod(rates, 0) if self.non_increasing else rates])

    def _run(self, step: Callable[..., tuple[Tensor, ...]], keep: bool, *inputs: Any) -> tuple[Tensor, ...]:
        """One step of a loop, recorded if ``keep``; ``recompute`` puts the recording off until it is needed."""
        if not keep:
            return tuple(tensor.detach() for tensor in step(False, *inputs))
        return recomputed(step, *inputs) if self.recompute else step(True, *inputs)

    def _weights_of(self, memory: Memory) -> Weights:
        like = {name: self.energy_network.get_parameter(name) for name in self.writable}
        shapes = {name: tuple(parameter.shape) for name, parameter in like.items()}
        held = check_memory(memory, shapes, f"EBMM with {type(self.energy_network).__name__}", like)
        return {name: held[name] for name in self.writable}

    def _static(self) -> Weights:
        return {name: p for name, p in self.energy_network.named_parameters() if name not in self.writable}


def _box(box: Any) -> tuple[float, float]:
    numbers = [float(number) for number in box] if hasattr(box, "__len__") else []
    if len(numbers) != 2 or not numbers[0] < numbers[1]:
        raise ValueError(f"box must be (low, high) with low < high, got {box}")
    return numbers[0], numbers[1]


def _rates(name: str, given: Any, number: int) -> list[float]:
    """One positive number, or as many as there are terms."""
    several = getattr(given, "ndim", isinstance(given, (list, tuple)))
    rates = [real(rate, name) for rate in given] if several else [real(given, name)] * number
    if len(rates) != number or not all(0 < rate < math.inf for rate in rates):
        each = f" or one for each of {TERMS}" if number > 1 else ""
        raise ValueError(f"{name} must be a positive number{each}, got {given!r}")
    return rates
