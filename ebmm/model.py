"""The energy-based memory model: patterns are written into the weights of an energy network and read by descent.

Equations are those of Bartunov, Rae, Osindero, Lillicrap, *Meta-Learning Deep Energy-Based Memory
Models* (ICLR 2020). Letters: B memories, N patterns, Q queries, K read steps, T write steps, S the
shape of a pattern.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from ebmm.layers import MemoryLayer
from ebmm.memory import Memory, check_memory, check_points

TERMS = ("energy", "gradient", "decay")


class EBMM(nn.Module):
    """A memory in the weights of any energy network, with meta-learned writing and reading.

    The module's parameters are what is meta-learned: the static weights, the initial writable weights
    θ̄ and all rates. What is written for one set of patterns is a :class:`ebmm.Memory` that ``write``
    returns. While gradients are enabled, both loops are recorded for the meta-gradient; under
    ``torch.no_grad()`` nothing is kept.

    Args:
        energy: any module that maps (..., *S) to (...). If its writable parameters are those of whole
            layers from :mod:`ebmm.layers`, it is called once for all memories, with (B, N, *S); otherwise
            through ``torch.vmap``, with one memory's (N, *S). Count dimensions from the end, and it serves
            both: ``x.flatten(-2)``, ``x.unsqueeze(-3)``. An attribute ``pattern_shape``, where the energy has
            one, is the S that patterns are checked against. With an attribute ``own_writing_loss = True``,
            ``energy(x, writing=True)`` takes the place of the energy in the writing loss.
        writable: names of the parameters that are the memory, or of submodules whose parameters all
            are. ``None`` takes ``energy.writable``.
        write_steps: T, gradient steps of one ``write``; at least 1.
        read_steps: K, gradient steps of one ``read``; at least 1.
        sequential: write the patterns one after another, T steps each, instead of T steps on their mean.
            Then what is written already shapes where the next pattern goes (chapter 5).
        box: (low, high), where patterns and queries lie; reading is projected onto it after each
            step. ``None``: no bounds and no projection.
        projection: ``"clamp"`` passes no gradient outside the box; ``"straight-through"`` clamps the
            value and passes the gradient unchanged, so that reads which end at the walls still receive
            one, at the risk of divergence.
        momentum: use Nesterov momentum while reading.
        non_increasing: let no read step be larger than the one before.
        gradient_term: use ‖∇ₓE‖² in the writing loss. It makes the meta-gradient third order, and a
            training step about twice as long; the energy term alone is often enough.
        decay_term: use ‖θ − θ̄‖² in the writing loss.
        write_rate: start value of the write rates of the energy, gradient and decay term, above 0;
            one float, or a triple. What learns depends on the energy: for the energy term, 0.1 with
            ``PredictiveEnergy`` and 0.005 to 0.02 with networks. Too large a rate saturates the reads and
            stops learning, or diverges.
        read_rate: start value of the read step size, above 0.
        recompute: keep only what goes into each write and read step, and run the step once more for the
            meta-gradient. It is the same up to rounding, unless the energy draws random numbers;
            training holds the activations of one step instead of T + K, and takes up to half as long again.

    Raises:
        ValueError: a writable name that does not exist; steps, rates or box out of range; batch
            normalisation in the energy.
        TypeError: an energy that is not a module.

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
            raise TypeError(f"energy must be a torch.nn.Module, got {type(energy).__name__}")
        if write_steps < 1 or read_steps < 1:
            raise ValueError(f"write_steps and read_steps must be at least 1, got {write_steps} and {read_steps}")
        if box is not None and not box[0] < box[1]:
            raise ValueError(f"box must be (low, high) with low < high, got {box}")
        if projection not in ("clamp", "straight-through"):
            raise ValueError(f"projection must be 'clamp' or 'straight-through', got {projection!r}")
        write_rates = (write_rate,) * len(TERMS) if isinstance(write_rate, float | int) else tuple(write_rate)
        if len(write_rates) != len(TERMS) or min(*write_rates, read_rate) <= 0:
            raise ValueError(
                f"write_rate must be a positive float or one for each of {TERMS}, and read_rate positive, "
                f"got {write_rate} and {read_rate}"
            )
        _warn_of_wrong_gradients(energy, gradient_term)

        self.energy_network = energy
        self.write_steps, self.read_steps = write_steps, read_steps
        self.sequential, self.box, self.projection = sequential, box, projection
        self.momentum, self.non_increasing = momentum, non_increasing
        self.gradient_term, self.decay_term = gradient_term, decay_term
        self.recompute = recompute
        self._writing = {"writing": True} if getattr(energy, "own_writing_loss", False) else {}
        self.pattern_shape: tuple[int, ...] | None = getattr(energy, "pattern_shape", None)

        chosen = getattr(energy, "writable", None) if writable is None else writable
        self.writable = _writable_names(energy, chosen)
        owners = [name.rpartition(".")[0] for name in self.writable]
        self._layer = {
            name: sorted(set(owners)).index(owner) for name, owner in zip(self.writable, owners, strict=True)
        }
        self._batched = all(_takes_a_batch(energy, owner, self.writable) for owner in owners)

        # Softplus of these are the write rates, (T, terms, layers); one for each layer, term and step.
        start = torch.tensor([_inverse_softplus(rate) for rate in write_rates])
        self.raw_write_rates = nn.Parameter(start[None, :, None].repeat(write_steps, 1, len(set(owners))))
        self.raw_read_rate = nn.Parameter(torch.tensor(_inverse_softplus(read_rate)))
        # With non-increasing steps these are the logits of γ⁽ᵏ⁾/γ⁽ᵏ⁻¹⁾; else the free step sizes.
        later = 3.0 if non_increasing else _inverse_softplus(read_rate)
        self.raw_read_rates = nn.Parameter(torch.full((read_steps - 1,), later))
        if momentum:
            self.raw_momentum = nn.Parameter(torch.full((read_steps - 1,), later if non_increasing else -1.0))
            with torch.no_grad():
                self.raw_momentum[:1] = -1.0

    def extra_repr(self) -> str:
        names = [
            "writable",
            "write_steps",
            "read_steps",
            "sequential",
            "box",
            "projection",
            "momentum",
            "non_increasing",
        ]
        names += ["momentum", "non_increasing", "gradient_term", "decay_term"]
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)

    # What a memory is

    @property
    def memory_floats(self) -> int:
        """How many floats one memory holds: all writable parameters, biases included."""
        return sum(self.energy_network.get_parameter(name).numel() for name in self.writable)

    def initial_memory(self, batch_size: int = 1) -> Memory:
        """B empty memories: the meta-learned initial weights θ̄, before anything is written."""
        parameters = {name: self.energy_network.get_parameter(name) for name in self.writable}
        return Memory({name: p.expand(batch_size, *p.shape) for name, p in parameters.items()})

    # Learned rates

    def write_rates(self) -> Tensor:
        """Rates of the writing loss, positive, (T, 3, layers); terms in the order energy, gradient, decay."""
        return F.softplus(self.raw_write_rates)

    def read_rates(self) -> Tensor:
        """Step sizes γ⁽ᵏ⁾ of reading, positive, (K,)."""
        first = F.softplus(self.raw_read_rate)[None]
        if self.non_increasing:
            return torch.cat([first, first * torch.cumprod(torch.sigmoid(self.raw_read_rates), 0)])
        return torch.cat([first, F.softplus(self.raw_read_rates)])

    def momentum_rates(self) -> Tensor:
        """Momentum of each read step, in [0, 1), (K,); the first is 0, since nothing moves yet."""
        zero = self.raw_read_rate.new_zeros(1)
        if not self.momentum:
            return zero.expand(self.read_steps)
        rates = torch.sigmoid(self.raw_momentum)
        return torch.cat([zero, torch.cumprod(rates, 0) if self.non_increasing else rates])

    # Energy, writing, reading

    def energy(self, x: Tensor, memory: Memory) -> Tensor:
        """Energy ``E(x; θ)`` of points under each memory.

        Args:
            x: (B, Q, *S), the model's dtype, in the box.
            memory: B memories.

        Returns:
            (B, Q).
        """
        weights = self._weights_of(memory)
        self._check(x, "x", memory)
        return self._energy(x, weights)

    def write(self, patterns: Tensor, memory: Memory | None = None, trajectory: bool = False):
        """Write patterns by T gradient steps on the writing loss (equations 3 and 4; chapters 3 and 4).

        ``θ ← θ − mean over patterns of ∇_θ (η₁ E + η₂ ‖∇ₓE‖² + η₃ ‖θ − θ̄‖²)`` with rates learned for
        each writable layer, term and step.

        Args:
            patterns: (B, N, *S), the model's dtype, in the box; N patterns into each of B memories. They
                are constants: no gradient reaches them.
            memory: go on writing into this one; ``None`` starts from the meta-learned θ̄.
            trajectory: also return the memory after each step.

        Returns:
            B memories, and with ``trajectory`` also a list of T + 1 (``sequential``: N · T + 1), the start
            first, the result last.
            The memory given is unchanged.

        Raises:
            TypeError, ValueError: patterns of a wrong shape, dtype, device or range, NaN, or empty; an
                energy that does not give one scalar each.
        """
        given = None if memory is None else self._weights_of(memory)
        self._check(patterns, "patterns", memory)
        keep = torch.is_grad_enabled()
        initial, static = dict(self.initial_memory(patterns.shape[0])), self._static()
        memories = [Memory(initial if given is None else given)]
        with torch.enable_grad():
            for group in patterns.split(1, 1) if self.sequential else (patterns,):
                for rates in self.write_rates():
                    weights = self._run(self._write_step, keep, group, dict(memories[-1]), static, initial, rates)
                    written = Memory(dict(zip(self.writable, weights, strict=True)))
                    memories = [*memories, written] if trajectory else [written]
        memories = memories if keep else [one.detach() for one in memories]
        return (memories[-1], memories) if trajectory else memories[-1]

    def read(self, query: Tensor, memory: Memory, trajectory: bool = False):
        """Read by K steps of projected gradient descent on the energy (equation 1; chapter 2).

        Args:
            query: (B, Q, *S), the model's dtype, in the box; Q queries to each of B memories.
            memory: B memories.
            trajectory: also return all iterates.

        Returns:
            (B, Q, *S), and with ``trajectory`` also (K+1, B, Q, *S): the query first, what is read last.

        Raises:
            TypeError, ValueError: as for ``write``.
        """
        weights, static = self._weights_of(memory), self._static()
        self._check(query, "query", memory)
        keep = torch.is_grad_enabled()
        x, velocity, iterates = query, torch.zeros_like(query), [query]
        with torch.enable_grad():
            for rate, momentum in zip(self.read_rates(), self.momentum_rates(), strict=True):
                x, velocity = self._run(self._read_step, keep, x, velocity, weights, static, rate, momentum)
                if not keep:
                    x, velocity = x.detach(), velocity.detach()
                iterates.append(x)
        return (x, torch.stack(iterates)) if trajectory else x

    # Steps of the two loops

    def _energy(self, x: Tensor, weights: dict[str, Tensor], **options) -> Tensor:
        """Energies (B, N) of x (B, N, *S), each memory under its own weights."""

        def of_one(weights, x):
            return functional_call(self.energy_network, weights, (x,), options)

        try:
            if self._batched:
                energy = of_one(weights, x)
            else:
                own = {name: 0 if name in self.writable else None for name in weights}
                energy = torch.vmap(of_one, in_dims=(own, 0))(weights, x)
        except RuntimeError as error:
            called = tuple(x.shape) if self._batched else f"{tuple(x.shape[1:])} (under torch.vmap, one memory)"
            raise RuntimeError(f"the energy network failed on x of shape {called}: {error}") from error
        if energy.shape != x.shape[:2]:
            raise ValueError(
                f"the energy network must map (B, N, *S) to one scalar each, (B, N): for x of shape "
                f"{tuple(x.shape)} expected {tuple(x.shape[:2])}, got {tuple(energy.shape)}"
            )
        return energy

    def _run(self, step: Callable, keep: bool, *inputs) -> tuple[Tensor, ...]:
        """One step of a loop, recorded if ``keep``; ``recompute`` puts the recording off until it is needed."""
        if not (keep and self.recompute):
            return step(keep, *inputs)
        tensors, structure = tree_flatten(inputs)
        return _Recomputed.apply(lambda keep, *tensors: step(keep, *tree_unflatten(tensors, structure)), *tensors)

    def _write_step(
        self,
        keep: bool,
        patterns: Tensor,
        weights: dict[str, Tensor],
        static: dict[str, Tensor],
        initial: dict[str, Tensor],
        rates: Tensor,
    ) -> tuple[Tensor, ...]:
        """One gradient step on the writing loss; ``rates`` is (3, layers)."""
        # A fresh leaf each step: a leaf shared by all steps would let ∇ₓE differentiate through earlier writes.
        x = patterns.detach().requires_grad_(self.gradient_term)
        weights = {
            name: weight if keep and weight.requires_grad else weight.detach().requires_grad_()
            for name, weight in weights.items()
        }
        leaves = list(weights.values())
        energy = self._energy(x, weights | static, **self._writing)
        steps = [
            torch.autograd.grad(
                energy.mean(1).sum(), leaves, create_graph=keep, retain_graph=True, materialize_grads=True
            )
        ]
        if self.gradient_term:
            (slope,) = torch.autograd.grad(energy.sum(), x, create_graph=True)
            squared_norm = slope.flatten(2).square().sum(-1)
            steps.append(
                torch.autograd.grad(squared_norm.mean(1).sum(), leaves, create_graph=keep, materialize_grads=True)
            )
        updated = []
        for i, (name, weight) in enumerate(weights.items()):
            energy_rate, gradient_rate, decay_rate = rates[:, self._layer[name]]
            weight = weight - energy_rate * steps[0][i]
            if self.gradient_term:
                weight = weight - gradient_rate * steps[1][i]
            if self.decay_term:
                weight = weight - decay_rate * 2 * (leaves[i] - initial[name])
            updated.append(weight)
        return tuple(updated)

    def _read_step(
        self,
        keep: bool,
        x: Tensor,
        velocity: Tensor,
        weights: dict[str, Tensor],
        static: dict[str, Tensor],
        rate: Tensor,
        momentum: Tensor,
    ) -> tuple[Tensor, ...]:
        """One step down the energy from where the momentum leads, and the velocity after it."""
        ahead = x + momentum * velocity
        ahead = ahead if ahead.requires_grad and keep else ahead.detach().requires_grad_()
        (slope,) = torch.autograd.grad(self._energy(ahead, weights | static).sum(), ahead, create_graph=keep)
        velocity = momentum * velocity - rate * slope
        return self._project(x + velocity), velocity

    def _project(self, x: Tensor) -> Tensor:
        if self.box is None:
            return x
        projected = x.clamp(*self.box)
        return projected if self.projection == "clamp" else projected.detach() + (x - x.detach())

    def _weights_of(self, memory: Memory) -> dict[str, Tensor]:
        shapes = {name: tuple(self.energy_network.get_parameter(name).shape) for name in self.writable}
        held = check_memory(memory, shapes, f"EBMM with {type(self.energy_network).__name__}")
        return {name: held[name] for name in self.writable}

    def _static(self) -> dict[str, Tensor]:
        return {name: p for name, p in self.energy_network.named_parameters() if name not in self.writable}

    def _check(self, x: Tensor, name: str, memory: Memory | None) -> None:
        low, high = self.box or (None, None)
        like = self.energy_network.get_parameter(self.writable[0])
        batch = None if memory is None else memory.batch_size
        check_points(x, self.pattern_shape, name, low, high, like, batch)


class _Recomputed(torch.autograd.Function):
    """A step of which only the inputs are kept: it runs unrecorded, and once more, recorded, in the backward pass.

    ``torch.utils.checkpoint`` runs the step again for each gradient taken inside it, twice as slow in all,
    and what those runs leave unused stays: with the gradient term, half of everything.
    """

    @staticmethod
    def forward(ctx, step, *inputs):
        ctx.step = step
        ctx.save_for_backward(*inputs)
        kind = inputs[0].device.type
        ctx.autocast = {
            "device_type": kind,
            "dtype": torch.get_autocast_dtype(kind),
            "enabled": torch.is_autocast_enabled(kind),
        }
        with torch.enable_grad():
            return tuple(output.detach() for output in step(False, *inputs))

    @staticmethod
    @once_differentiable
    def backward(ctx, *slopes):
        needed = ctx.needs_input_grad[1:]
        inputs = [tensor.detach().requires_grad_(need) for tensor, need in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            outputs = ctx.step(True, *inputs)
        leaves = [tensor for tensor in inputs if tensor.requires_grad]
        gradients = iter(torch.autograd.grad(outputs, leaves, slopes, allow_unused=True))
        return None, *(next(gradients) if need else None for need in needed)


def _inverse_softplus(value: float) -> float:
    return math.log(math.expm1(value))


def _writable_names(energy: nn.Module, writable: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names of the writable parameters; a submodule's name stands for all its parameters."""
    available = [name for name, _ in energy.named_parameters()]
    if not writable:
        raise ValueError(f"name the writable parameters of the energy: writable=[...] out of {available}")
    names = []
    for wanted in [writable] if isinstance(writable, str) else writable:
        found = [name for name in available if name == wanted or name.startswith(wanted + ".")]
        if not found:
            raise ValueError(f"the energy has no parameter or submodule {wanted!r}: choose from {available}")
        names += [name for name in found if name not in names]
    return tuple(names)


def _takes_a_batch(energy: nn.Module, owner: str, writable: tuple[str, ...]) -> bool:
    """Whether a submodule is a memory layer with all of its parameters writable, none left unbatched."""
    layer = energy.get_submodule(owner)
    names = [f"{owner}.{name}" if owner else name for name, _ in layer.named_parameters(recurse=False)]
    return isinstance(layer, MemoryLayer) and set(names) <= set(writable)


def _warn_of_wrong_gradients(energy: nn.Module, gradient_term: bool) -> None:
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in energy.modules()):
        raise ValueError("batch normalisation has no right meta-gradient: use ebmm.layers.LayerNorm or nn.GroupNorm")
    wrong = (nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)
    if gradient_term and any(isinstance(module, wrong) for module in energy.modules()):
        warnings.warn(
            "torch.nn.LayerNorm and InstanceNorm give wrong third-order gradients, which the gradient term needs: "
            "use ebmm.layers.LayerNorm, nn.RMSNorm or nn.GroupNorm(1, ...), or gradient_term=False",
            stacklevel=3,
        )
