"""A trial of an energy network before it is first used: what would give wrong numbers without a word is found here."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from ebmm.network import call_with, energies

Weights = dict[str, Tensor]
ATTENTION = {"scaled_dot_product_attention", "multi_head_attention_forward"}
RECURRENT = {"lstm": "nn.LSTM", "gru": "nn.GRU", "rnn_tanh": "nn.RNN", "rnn_relu": "nn.RNN"}
PAST = (
    "the energy reaches {0!r} past its module, or keeps it from a call, so that what is written into it has no effect: "
    "take self.{0} in forward, each time, and keep it in no list, closure or other attribute"
)
DRAWS = re.compile(
    "(rand|randn|randint|randperm|random|normal|log_normal|bernoulli|multinomial|poisson|binomial|uniform|exponential|"
    "geometric|cauchy|gumbel_softmax)(_like|_)?"
)
RANDOM = (
    "the energy must be the same each time it is called: draw no random numbers in it, and use no dropout "
    "(of a rate above 0, in train() mode, which ebmm.fit sets)"
)
CHANGES = (
    "the energy must not change when it is called, but changes or assigns {}: write it without running statistics, "
    "counters and tensors kept from a call"
)


def try_network(
    network: nn.Module,
    writable: Sequence[str],
    points: Tensor,
    box: tuple[float, float] | None,
    batched: bool,
    twice: bool,
) -> tuple[bool, bool]:
    """Call an energy network on two memories of three points each: how it gives right energies, or an error why not.

    The energy of a point must depend on no other point and no other memory, be the same each time, change
    nothing in the network, and have gradients in x and in the writable weights. Where it is called for all
    memories at once and fails in this, ``torch.vmap`` is tried, under which memories cannot mix.

    Args:
        points: (B, N, *S), near which it is tried, within ``box``.
        batched: whether its layers allow calling it for all memories at once.
        twice: whether second derivatives are needed.

    Returns:
        ``batched`` and ``plain_attention`` for :func:`ebmm.network.energies`.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 1), nn.Dropout(0.5), nn.Flatten(-2))
        >>> rest = torch.rand(1, 3, 4), (0.0, 1.0), False, True
        >>> try_network(network, ["0.weight"], *rest)
        Traceback (most recent call last):
        ValueError: the energy must be the same each time it is called: draw no random numbers in it, ...
        >>> try_network(network.eval(), ["0.weight"], *rest)
        (False, False)
    """
    x = _points_near(points, box).requires_grad_()
    own: Weights = dict(network.named_parameters())
    start = {name: weight.expand(2, *weight.shape) if name in writable else weight for name, weight in own.items()}
    weights = {name: _moved(weight.detach()) for name, weight in start.items()}
    leaves, own = ({name: of[name] for name in writable} for of in (weights, own))

    def attempt(batched: bool) -> tuple[bool, bool]:
        energy = partial(energies, network, writable=writable, batched=batched)
        with _Calls(batched, own) as calls:
            _check_repeats(network, *(partial(energy, of, x, plain_attention=True) for of in (start, weights)))
        energy = partial(energy, plain_attention=calls.attention)
        every = direct = energy(weights, x)
        if not batched:  # torch.vmap hides that a function is marked once_differentiable
            first = {name: weight[0] if name in writable else weight for name, weight in weights.items()}
            direct = call_with(network, first, x[0], plain_attention=calls.attention)
        _check_gradients(direct, x, list(leaves.values()), own, twice)
        _check_independence(energy, weights, every, x, leaves, batched)
        if box and energy(weights, torch.where(_spread(x) > 0, *box).to(x)).isnan().any():
            raise ValueError(f"the energy is NaN where x is {box[0]} or {box[1]}: avoid it, as in log(x + 1e-6)")
        return batched, calls.attention

    if not batched:
        return attempt(False)
    try:
        return attempt(True)
    except Exception as error:
        try:
            way = attempt(False)
        except Exception as again:
            raise (again if isinstance(error, _MemoriesMix) else error) from None
        warnings.warn(
            f"the energy is called through torch.vmap, one memory at a time, which is right and slower: {error}",
            stacklevel=4,
        )
        return way


class _MemoriesMix(ValueError):
    """The energy under one memory's weights depends on another memory."""


def _check_gradients(every: Tensor, x: Tensor, leaves: list[Tensor], own: Weights, twice: bool) -> None:
    """First derivatives must not vanish, and second ones must exist where they are needed."""
    if not every.requires_grad:
        raise ValueError("the energy has no gradient: it depends neither on x nor on its weights, or is detached")
    for name, parameter in own.items():
        reached = parameter.requires_grad and torch.autograd.grad(every.sum(), parameter, None, True, allow_unused=True)
        if reached and reached[0] is not None:
            raise ValueError(PAST.format(name))
    # Equal weights would hide shares, which sum to a constant, and constant ones what is marked once_differentiable.
    total = (every * _spread(every).requires_grad_()).sum()
    slopes = torch.autograd.grad(total, [x, *leaves], create_graph=twice, retain_graph=True, materialize_grads=True)
    for name, parts in (("x", slopes[:1]), ("its writable weights", slopes[1:])):
        if not any(bool((part != 0).any()) for part in parts):
            raise ValueError(
                f"the gradient of the energy in {name} is exactly 0: use {name} in it, in smooth operations "
                f"(round, sign, argmax, detach and saturated functions have no gradient)"
            )
    if twice:
        try:
            torch.stack([slope.square().sum() for slope in slopes]).sum().backward(retain_graph=True)
        except RuntimeError as error:
            raise RuntimeError(
                f"the energy uses an operation without the second derivative that writing needs ({error}): "
                f"write it from products, sums and elementwise functions"
            ) from error


def _check_independence(
    energy: Callable[..., Tensor], weights: Weights, every: Tensor, x: Tensor, leaves: Weights, batched: bool
) -> None:
    """The energy of memory 0's middle point must depend on that point and that memory only."""
    one = every[0, 1]

    def slopes_of(one: Tensor, x: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The slopes in all points and memories, and in one vector those in the middle point and memory 0."""
        slopes = torch.autograd.grad(one, [x, *leaves.values()], retain_graph=True, materialize_grads=True)
        return slopes, torch.cat([slopes[0][0, 1].flatten(), *(slope[0].flatten() for slope in slopes[1:])])

    def follows(other: Tensor, x: Tensor, rounding: float) -> bool:
        unlike = _differ(other, one, rounding * _allowed(every))
        return unlike or _differ(slopes_of(other, x)[1], own, rounding * _allowed(own))  # no constant hides it there

    (slope_of_x, *slopes), own = slopes_of(one, x)
    middle = x[0, 1].detach()
    other_x = middle + 0.5 * (x.detach().flatten(0, 1).roll(1, 0).view_as(x) - middle)  # so that extremes move, too
    other_x[0, 1] = middle
    others = weights | {name: torch.stack([leaf[0], 1.5 * leaf[1]]) for name, leaf in leaves.items()}
    fewer = weights | {name: leaf[:1] for name, leaf in leaves.items()}
    follows_others = follows(energy(others, other_x.requires_grad_())[0, 1], other_x, 1)
    # Rounding depends on the shapes; how an energy depends on a number of points is no matter of rounding.
    follows_number = follows(energy(fewer, x[:1, 1:])[0, 0], x, 30)
    if batched and (follows_others or follows_number or any(_touched(slope[1]) for slope in (slope_of_x, *slopes))):
        raise _MemoriesMix(
            "for all memories at once, the energy under one memory depends on the others, as happens where a "
            "writable weight is used outside the product of its memory layer, or dimensions are counted from the front"
        )
    if follows_others or follows_number or _touched(slope_of_x[0, [0, 2]]):
        raise ValueError(
            "the energy of a point depends on the other points (a mean over them, a batch statistic?), so that what is "
            "read would depend on what is read with it: reduce over the dimensions of one point only, from the end"
        )


def _differ(a: Tensor, b: Tensor, allowed: Tensor) -> bool:
    return bool(((a - b).abs() > allowed).any())


def _allowed(energy: Tensor) -> Tensor:
    """What rounding may change in an energy."""
    allowed: Tensor = torch.finfo(energy.dtype).eps ** 0.5 * energy.detach().abs().max()
    return allowed


def _touched(slope: Tensor) -> bool:
    return bool((slope.isfinite() & (slope != 0)).any())


# What it may be made of


def check_layers(network: nn.Module, gradient_term: bool) -> None:
    """Refuse layers whose derivatives PyTorch has not, or not right; no data is needed to see them."""
    if any(nn.parameter.is_lazy(parameter) for parameter in network.parameters()):
        raise ValueError("the energy has lazy layers of unknown size: call it once on a pattern before EBMM(energy)")
    if any(tensor.is_inference() for tensor in (*network.parameters(), *network.buffers())):
        raise ValueError("the energy was made under torch.inference_mode(), which keeps no gradients: make it outside")
    hooks = [hook for module in network.modules() for hook in module._forward_pre_hooks.values()]
    parts = [*network.modules(), *hooks]
    if any(isinstance(part, torch.jit.ScriptModule) and any(True for _ in part.parameters()) for part in parts):
        raise TypeError("the energy has a part of torch.jit, whose weights cannot be replaced: give the module itself")
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in parts):
        raise ValueError("batch normalisation has no right meta-gradient: use ebmm.layers.LayerNorm or nn.GroupNorm")
    if any(isinstance(part, parametrizations._WeightNorm | WeightNorm) for part in parts):
        raise ValueError(
            "PyTorch's weight_norm has a wrong second derivative: write it as a parametrization of your own, with "
            "forward(self, g, v): return g * v / v.norm(dim=1, keepdim=True)"
        )
    if any(isinstance(part, SpectralNorm) for part in parts):
        raise ValueError("the old torch.nn.utils.spectral_norm changes its layer when called: divide by a norm instead")
    wrong = (nn.LayerNorm, nn.modules.instancenorm._InstanceNorm)
    if gradient_term and any(isinstance(part, wrong) for part in parts):
        warnings.warn(
            "torch.nn.LayerNorm and InstanceNorm give wrong third-order gradients, which the gradient term needs: "
            "use ebmm.layers.LayerNorm, nn.RMSNorm or nn.GroupNorm(1, ...), or gradient_term=False",
            stacklevel=3,
        )


# What it is tried on


def _points_near(points: Tensor, box: tuple[float, float] | None) -> Tensor:
    """Two memories of three points, all different: some of these (B, N, *S), each moved inside the box."""
    points = points.detach().flatten(0, 1)
    chosen = points[torch.arange(6, device=points.device) % len(points)]
    low, high = box or (chosen.min() - 1, chosen.max() + 1)
    anywhere = low + (high - low) * (_spread(chosen) + 1) / 2
    chosen = chosen + 0.3 * (anywhere - chosen)
    chosen[1] = 0.4 * chosen[0] + 0.6 * chosen[2]  # the point that is looked at: no extreme of its memory
    return torch.unflatten(chosen, 0, (2, 3))


def _moved(weight: Tensor) -> Tensor:
    """Weights by up to a tenth away, so that nothing is zero or equal by chance."""
    if not weight.is_floating_point():
        return weight
    return (torch.where(weight == 0, 0.01, 0.1 * weight) * _spread(weight) + weight).requires_grad_()


def _spread(like: Tensor) -> Tensor:
    """Numbers from -1 to 1 that look random and are not: the generators stay where they are."""
    number = torch.arange(like.numel(), device=like.device)
    return ((number * 40503 % 65536 + 0.5) / 32768 - 1).to(like.dtype).view(like.shape)


# What it must not do


class _Calls(TorchFunctionMode):
    """Notices attention; refuses chance, fused recurrent layers and weights passed by; other threads may draw."""

    def __init__(self, batched: bool, own: Weights):
        super().__init__()
        self.attention, self.batched = False, batched
        self.own = {id(parameter): name for name, parameter in own.items()}

    def __torch_function__(self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        self.attention |= name in ATTENTION
        if name in RECURRENT:
            raise RuntimeError(
                f"{RECURRENT[name]} is one fused operation, without second derivatives on all devices or a rule for "
                f"torch.vmap: write the recurrence from nn.Linear"
            )
        if DRAWS.fullmatch(name):
            raise ValueError(RANDOM)
        result = function(*args, **(kwargs or {}))
        if self.batched and "dropout" in name and result is not args[0]:  # torch.vmap refuses it itself
            raise ValueError(RANDOM)
        passed_by = [self.own[id(part)] for part in tree_leaves((args, kwargs)) if id(part) in self.own]
        if passed_by and any(isinstance(part, Tensor) for part in tree_leaves(result)):
            raise ValueError(PAST.format(passed_by[0]))
        return result


def _check_repeats(network: nn.Module, begin: Callable[[], Tensor], call: Callable[[], Tensor]) -> None:
    """Refuse a network that gives another energy or changes what it holds when called again, and undo the change."""
    modules = dict(network.named_modules())
    for name, module in modules.items():
        if isinstance(module, parametrizations._SpectralNorm) and module.training:
            raise RuntimeError(
                f"the energy network changes its buffers: spectral_norm of {name.partition('.parametrizations')[0]!r} "
                f"takes a step of its own at each call in train() mode. Call model.eval() where nothing is trained, or "
                f"divide by a norm of your own"
            )
    parts: list[Any] = [part for module in modules.values() for part in (vars(module), module._buffers)]
    start = [(part, dict(part)) for part in parts]
    copies = [(tensor, version, tensor.clone()) for tensor, version in _held(modules).values()]
    try:
        begin()  # with its own weights: what a first call makes once, such as a grid or a norm of weights, may stay
        first, held = call(), _held(modules)
        second, after = call(), _held(modules)
        states = [{key: (id(tensor), version) for key, (tensor, version) in one.items()} for one in (held, after)]
        changed = sorted({".".join(filter(None, key)) for key, _ in states[0].items() ^ states[1].items()})
        if changed:
            raise ValueError(CHANGES.format(" and ".join(changed)))
        if _differ(first, second, 30 * torch.finfo(first.dtype).eps * first.detach().abs().max()):
            raise ValueError(RANDOM)
    except Exception as error:
        for own, before in start:
            for name in own.keys() - before.keys():
                del own[name]
            own.update(before)
        for tensor, version, copy in copies:
            if tensor._version != version:
                with torch.no_grad():
                    tensor.copy_(copy)
        if "random operation" in str(error):  # what torch.vmap says of it
            raise ValueError(RANDOM) from error
        if "inplace arithmetic" in str(error) or "match the broadcast shape" in str(error):
            raise ValueError(CHANGES.format("a buffer, or fills a tensor in place")) from error
        raise


def _held(modules: dict[str, nn.Module]) -> dict[tuple[str, str], tuple[Tensor, int]]:
    """Buffers and other tensors of the modules, and how often each was changed in place."""
    return {
        (path, name): (value, value._version)
        for path, module in modules.items()
        for name, value in {**vars(module), **module._buffers}.items()
        if isinstance(value, Tensor)
    }
