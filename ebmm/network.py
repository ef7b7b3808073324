"""The energy network as a function of its weights and of x, and which of its weights are the memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrize

from ebmm.given import kind
from ebmm.layers import MemoryLayer


def energies(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    x: Tensor,
    writable: Sequence[str],
    batched: bool,
    plain_attention: bool = False,
) -> Tensor:
    """Energies (B, N) of points under each memory.

    Args:
        network: the energy, (..., *S) to (...).
        weights: all its parameters; a writable one is (B, ...), one for each memory.
        x: (B, N, *S).
        writable: names of the writable parameters.
        batched: call it once for all memories, with (B, N, *S); else through ``torch.vmap``, with one memory's (N, *S).
        plain_attention: attention from products and softmax, as the fused kernels have no second derivative.

    Example:
        >>> network = nn.Sequential(nn.Linear(4, 1), nn.Flatten(-2))
        >>> memories = torch.zeros(2, 1, 4)
        >>> weights = dict(network.named_parameters()) | {"0.weight": memories}
        >>> energies(network, weights, torch.rand(2, 3, 4), ["0.weight"], batched=False).shape
        torch.Size([2, 3])
    """
    call = partial(call_with, network, plain_attention=plain_attention)
    try:
        if batched:
            energy = call(weights, x)
        else:
            own = {name: 0 if name in writable else None for name in weights}
            energy = torch.vmap(call, in_dims=(own, 0))(weights, x)
    except RuntimeError as error:
        called = tuple(x.shape) if batched else f"{tuple(x.shape[1:])} (under torch.vmap, one memory)"
        raise RuntimeError(f"the energy network failed on x of shape {called}: {error}") from error
    if energy.shape != x.shape[:2]:
        raise ValueError(
            f"the energy network must map (B, N, *S) to one scalar each, (B, N): for x of shape "
            f"{tuple(x.shape)} expected {tuple(x.shape[:2])}, got {tuple(energy.shape)}"
        )
    return energy


def call_with(network: nn.Module, weights: Mapping[str, Tensor], x: Tensor, *, plain_attention: bool) -> Tensor:
    """What the network itself returns for these weights and points."""
    if parametrize._cache_enabled and any(map(parametrize.is_parametrized, network.modules())):
        raise ValueError(
            "parametrize.cached() keeps the first weights that the energy is called with: write and read outside it"
        )
    with _attention_from_products() if plain_attention else nullcontext():
        energy = functional_call(network, dict(weights), (x,))
    if not (isinstance(energy, Tensor) and energy.is_floating_point()):
        found = energy.dtype if isinstance(energy, Tensor) else f"a {kind(energy)}"
        raise TypeError(f"the energy network must return one floating-point tensor of energies, got {found}")
    return energy


def writable_names(network: nn.Module, writable: Sequence[str] | str | None) -> tuple[str, ...]:
    """Names of the writable parameters; a submodule's name stands for all its parameters."""
    available = [name for name, _ in network.named_parameters()]
    if not writable:
        raise ValueError(f"name the writable parameters of the energy: writable=[...] out of {available}")
    names: list[str] = []
    for wanted in [writable] if isinstance(writable, str) else writable:
        found = [name for name in available if name == wanted or name.startswith(wanted + ".")]
        if not found:
            raise ValueError(f"the energy has no parameter or submodule {wanted!r}: choose from {available}")
        names += [name for name in found if name not in names]
    return tuple(names)


def takes_a_batch(network: nn.Module, owner: str, writable: Sequence[str]) -> bool:
    """Whether a submodule is a memory layer with all of its parameters writable, none left unbatched."""
    layer = network.get_submodule(owner)
    names = [f"{owner}.{name}" if owner else name for name, _ in layer.named_parameters(recurse=False)]
    return isinstance(layer, MemoryLayer) and set(names) <= set(writable)


@contextmanager
def _attention_from_products() -> Iterator[None]:
    """Attention without fused kernels, which have no second derivative, nor the fast paths of the modules."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
