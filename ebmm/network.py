"""The energy network as a function of its weights, the layers it may be made of, and steps that are recomputed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.utils._pytree import tree_flatten, tree_unflatten

from ebmm.layers import MemoryLayer


def energies(
    network: nn.Module,
    weights: Mapping[str, Tensor],
    x: Tensor,
    writable: Sequence[str],
    batched: bool,
    plain_attention: bool = False,
    **options,
) -> Tensor:
    """Energies (B, N) of points under each memory.

    Args:
        network: the energy, (..., *S) to (...).
        weights: all its parameters; a writable one is (B, ...), one for each memory.
        x: (B, N, *S).
        writable: names of the writable parameters.
        batched: call it once for all memories, with (B, N, *S); else through ``torch.vmap``, with one memory's (N, *S).
        plain_attention: attention from products and softmax, as the fused kernels have no second derivative.
        options: given on to the network.

    Example:
        >>> network, memories = nn.Sequential(nn.Linear(4, 1), nn.Flatten(-2)), torch.zeros(2, 1, 4)
        >>> weights = dict(network.named_parameters()) | {"0.weight": memories}
        >>> energies(network, weights, torch.rand(2, 3, 4), ["0.weight"], batched=False).shape
        torch.Size([2, 3])
    """

    def of_one(weights, x):
        energy = functional_call(network, weights, (x,), options)
        if not (isinstance(energy, Tensor) and energy.is_floating_point()):
            found = energy.dtype if isinstance(energy, Tensor) else f"a {type(energy).__name__}"
            raise TypeError(f"the energy network must return one floating-point tensor of energies, got {found}")
        return energy

    try:
        with _attention_from_products() if plain_attention else nullcontext():
            if batched:
                energy = of_one(weights, x)
            else:
                own = {name: 0 if name in writable else None for name in weights}
                energy = torch.vmap(of_one, in_dims=(own, 0))(weights, x)
    except RuntimeError as error:
        called = tuple(x.shape) if batched else f"{tuple(x.shape[1:])} (under torch.vmap, one memory)"
        raise RuntimeError(f"the energy network failed on x of shape {called}: {error}") from error
    if energy.shape != x.shape[:2]:
        raise ValueError(
            f"the energy network must map (B, N, *S) to one scalar each, (B, N): for x of shape "
            f"{tuple(x.shape)} expected {tuple(x.shape[:2])}, got {tuple(energy.shape)}"
        )
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


def check_layers(network: nn.Module, gradient_term: bool) -> None:
    """Refuse layers whose derivatives PyTorch has not, or not right; no data is needed to see them."""
    if any(nn.parameter.is_lazy(parameter) for parameter in network.parameters()):
        raise ValueError("the energy has lazy layers of unknown size: call it once on a pattern before EBMM(energy)")
    if any(tensor.is_inference() for tensor in (*network.parameters(), *network.buffers())):
        raise ValueError("the energy was made under torch.inference_mode(), which keeps no gradients: make it outside")
    hooks = [hook for module in network.modules() for hook in module._forward_pre_hooks.values()]
    parts = [*network.modules(), *hooks]
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


def recordable(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one that was made under ``torch.inference_mode()`` and takes part in no gradient."""
    return tensor.clone() if tensor.is_inference() else tensor


def recomputed(step: Callable[..., tuple[Tensor, ...]], *inputs) -> tuple[Tensor, ...]:
    """``step(True, *inputs)``, of which only the inputs are kept for the backward pass; it runs once more there."""
    tensors, structure = tree_flatten(inputs)
    return _Recomputed.apply(lambda keep, *tensors: step(keep, *tree_unflatten(tensors, structure)), *tensors)


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
