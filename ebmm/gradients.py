"""The loss that meta-training descends, and whether its gradient is right: PyTorch's own of some layers is not."""

from __future__ import annotations

import copy
import dataclasses
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.overrides import TorchFunctionMode

from ebmm.given import kind
from ebmm.memory import TrainableMemory
from ebmm.model import EBMM
from ebmm.tasks import Batch, Task

SMALL = 200_000  # parameters up to which fit asks by itself
TOLERANCE = 1e-5  # right gradients come to 1e-7
WRONG_IN_THIRD_DERIVATIVES = {"layer_norm", "instance_norm"}
ALL_THE_SAME = "If it is meant so, as in straight-through estimates: fit(..., check_gradients=False)"


class GradientError(ValueError):
    """A model's meta-gradient is not the slope of its loss."""


def reconstruction_loss(model: TrainableMemory, batch: Batch, late: bool = False) -> tuple[Tensor, Tensor]:
    """Distortion after writing and reading, averaged over all read iterates (equations 2 and 5; chapter 4).

    The paper sums over the K iterates; the mean differs by the factor K only. With ``late`` the k-th of them has
    weight k: what reading passes through on the way counts less than where it ends.

    Args:
        model: any memory with ``write`` and ``read(..., trajectory=True)``.
        batch: patterns and queries, (B, N, *S).

    Returns:
        The loss, a scalar, and what was read, (B, N, *S).
    """
    memory = model.write(batch.patterns)
    recalled, trajectory = model.read(batch.queries, memory, trajectory=True)
    squared = (trajectory[1:] - batch.patterns).flatten(3).square().sum(-1)
    if not late:
        return squared.mean(), recalled
    of_iterates = squared.mean((1, 2))
    weights = torch.arange(1.0, len(of_iterates) + 1).to(squared)
    return (weights * of_iterates).sum() / weights.sum(), recalled


def check_gradients(model: TrainableMemory, task: Task, *, seed: int = 0) -> float:
    """Compare the meta-gradient with difference quotients of the loss along random directions, in float64.

    Some of PyTorch's derivatives of higher order are wrong, and training then follows a wrong slope without a word
    (chapter 4). A copy is asked on the CPU, and :func:`ebmm.fit` asks by itself where an energy has layers of your own.

    Args:
        model: any module that :func:`ebmm.fit` trains; its parameters are a little changed in the copy, since the start
            may be special.
        task: to draw two memories of at most three patterns from.
        seed: of patterns and directions.

    Returns:
        The relative error where it is least; at kinks of the loss, such as those of ReLU, it says nothing.

    Raises:
        GradientError: it is above 0.00001. The message names what in the model is known to be wrong.

    Example:
        >>> from ebmm import EBMM, energies, tasks
        >>> task = tasks.Task(tasks.RandomBits(8), tasks.FlipBits(0.1), number=2)
        >>> check_gradients(EBMM(energies.PredictiveEnergy(8)), task) < 1e-5
        True
    """
    few = dataclasses.replace(task, number=min(task.number, 3))
    return _error_on(model, few.sample(2, torch.Generator().manual_seed(seed)), seed)


def check_before_training(model: TrainableMemory, batch: Batch, asked: bool | None) -> None:
    """What :func:`ebmm.fit` does with its first batch; ``None`` asks models with layers of a user's own.

    Large ones, and those whose error is not to be had, are asked which functions they call.
    """
    if asked is False or not isinstance(model, nn.Module) or (asked is None and _is_known(model)):
        return
    few = Batch(*(tensor[:2, :3] for tensor in batch))
    if asked or _is_small(model, batch):
        try:
            _error_on(model, few)
            return
        except Exception as error:  # such as constants of float32: no fault, or one that training runs into as well
            if asked or isinstance(error, GradientError):
                raise
    with torch.random.fork_rng([]), _Spy() as spy, suppress(Exception):
        reconstruction_loss(copy.deepcopy(model).to("cpu").train(), few.to("cpu"))
    if getattr(model, "gradient_term", True) and (fault := _known_fault(spy)):
        raise GradientError(f"the meta-gradient of {kind(model)} is wrong: {fault}. {ALL_THE_SAME}")


def _is_small(model: nn.Module, batch: Batch) -> bool:
    return sum(parameter.numel() for parameter in model.parameters()) <= SMALL and batch.patterns[0, 0].numel() <= 1024


def _is_known(model: object) -> bool:
    """Whether our tests cover its gradients: all but those of energies with layers of a user's own."""
    if not isinstance(model, EBMM):
        return True
    if not type(model.energy_network).__module__.startswith("ebmm."):
        return False
    return all(
        type(module).__module__.startswith(("ebmm.", "torch."))
        and not isinstance(module, (nn.LayerNorm, nn.modules.instancenorm._InstanceNorm))
        and not (module._forward_pre_hooks or module._forward_hooks or "forward" in vars(module))
        for module in model.energy_network.modules()
    )


def _error_on(model: TrainableMemory, batch: Batch, seed: int = 0) -> float:
    if not isinstance(model, nn.Module):
        raise TypeError(f"only a torch.nn.Module has gradients to check, got {kind(model)}")
    with torch.random.fork_rng([]), torch.inference_mode(False), torch.enable_grad():
        twin = copy.deepcopy(model).to("cpu", torch.float64).train()
        if hasattr(twin, "projection"):
            vars(twin)["projection"] = "clamp"  # straight-through is no slope, on purpose
        batch = Batch(batch.patterns.cpu().double(), batch.queries.cpu().double(), batch.intact)
        trained = [parameter for parameter in twin.parameters() if parameter.requires_grad]
        generator = torch.Generator().manual_seed(seed)

        def loss_at(point: Tensor) -> Tensor:
            vector_to_parameters(point, trained)
            torch.manual_seed(seed)  # dropout draws the same each time
            return reconstruction_loss(twin, batch)[0]

        def random_step(widths: list[Tensor]) -> Tensor:
            each = torch.cat([width.expand(p.numel()) for width, p in zip(widths, trained, strict=True)])
            return each * torch.randn(len(each), generator=generator, dtype=each.dtype)

        start = parameters_to_vector(trained).detach()
        start += random_step([0.01 * (parameter.detach().abs().mean() + 0.1) for parameter in trained])
        slopes = torch.autograd.grad(loss_at(start), trained, allow_unused=True, materialize_grads=True)
        slope, norms = torch.cat([one.flatten() for one in slopes]), torch.stack([one.norm() for one in slopes])
        if not norms.isfinite().all():
            raise ValueError("the gradient cannot be checked, it is not finite: try smaller write and read rates")
        # Each parameter is to count, however small its gradient is beside the others'.
        widths = (1e-3 * norms.max() / norms.clamp(min=1e-3 * norms.max().item())).nan_to_num(1.0)
        found: list[float] = []
        for _ in range(3):
            step = random_step([*widths])
            for length in (1e-6, 1e-5, 1e-7, 1e-4):  # a kink of the loss may lie within some of them
                with torch.no_grad():
                    ahead, behind = (loss_at(start + length * sign * step).item() for sign in (1, -1))
                quotient = (ahead - behind) / (2 * length)
                size = max(abs(quotient), (slope * step).norm().item(), 1e-12)
                found.append(abs((slope * step).sum().item() - quotient) / size)
                if found[-1] < TOLERANCE:
                    return found[-1]
        with _Spy() as spy:
            loss_at(start)
    if spy.rounded:
        raise ValueError("the gradient cannot be checked: the energy rounds to float32, and float64 is needed")
    cause = _known_fault(spy) or "look for detach() and autograd functions of your own in the energy"
    raise GradientError(
        f"the meta-gradient of {kind(model)} differs from difference quotients by {min(found):.1g} of its "
        f"size: {cause}. {ALL_THE_SAME}"
    )


def _known_fault(spy: _Spy) -> str:
    wrong = " and ".join(sorted(WRONG_IN_THIRD_DERIVATIVES & spy.called))
    way_out = "ebmm.layers.LayerNorm, nn.RMSNorm or nn.GroupNorm(1, ...), or gradient_term=False"
    return wrong and f"{wrong} of PyTorch is wrong in third derivatives: use {way_out}"


class _Spy(TorchFunctionMode):
    """Notes which functions of PyTorch are called, and whether one rounds."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.rounded = set[str](), False

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        self.called.add(func.__name__)
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.is_floating_point() and result.dtype != torch.float64:
            self.rounded |= any(isinstance(one, Tensor) and one.dtype == torch.float64 for one in args)
        return result
