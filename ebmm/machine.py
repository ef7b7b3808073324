"""What computes: devices, versions, processes that train together, precision of products."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn

from ebmm._repository import VERSION

PRECISIONS = ("float32", "tf32", "bfloat16")


def pick_device(device: str = "auto") -> torch.device:
    """The device a name means; ``"auto"`` is CUDA where there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or a torch device, got {device!r}") from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {device!r} asks for CUDA, but torch {torch.__version__} finds none here")
    if where.type == "cuda" and (where.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not here: there are {torch.cuda.device_count()}, counted from 0")
    if where.type not in ("cpu", "cuda"):
        try:
            torch.zeros(1, device=where).item()
        except (RuntimeError, AssertionError) as error:  # NotImplementedError is a RuntimeError
            raise ValueError(f"device {device!r} computes nothing here: give 'auto', 'cpu' or 'cuda'") from error
    return where


def dtype_for(model: object) -> torch.dtype | None:
    """The dtype in which a module takes patterns, that of its largest parameter; ``None`` where any will do."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    floating = [parameter for parameter in parameters if parameter.is_floating_point()]
    return max(floating, key=Tensor.numel).dtype if floating else None


def describe_device(device: str | torch.device) -> str:
    """The name of a device as results files state it."""
    where = torch.device(device)
    return torch.cuda.get_device_name(where) if where.type == "cuda" else f"cpu ({platform.machine()})"


def versions() -> dict[str, str]:
    """Versions of what computes the results."""
    return {"ebmm": VERSION, "python": platform.python_version(), "torch": str(torch.__version__)}


@contextmanager
def process_group(device: str = "auto") -> Iterator[None]:
    """Joins the processes that ``torchrun`` started, so that :func:`ebmm.fit` inside shares the work among them.

    Outside ``torchrun``, or with one process, nothing happens. PyTorch can join once in a process's life.

    Args:
        device: as for :func:`ebmm.fit`. On CUDA each process takes the GPU of its own number.

    Example:
        >>> with process_group("cpu"):
        ...     rank_and_processes()
        (0, 1)
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    cuda = pick_device(device).type == "cuda"
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if cuda else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def rank_and_processes() -> tuple[int, int]:
    """This process's number among those that train together, and how many they are: (0, 1) for one alone."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


@contextmanager
def _tf32(where: torch.device, allowed: bool) -> Iterator[None]:
    """Whether CUDA's products and convolutions may round to TF32; left as it was found."""
    if where.type != "cuda":
        yield
        return
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def shared(loss_of: nn.Module, begun: int, processes: int, checkpoint: object) -> nn.Module:
    """The loss with its gradients averaged over all processes, which must begin at the same step."""
    if processes == 1:
        return loss_of
    # All wait here for each other, so that none saves before each has looked for a checkpoint.
    starts = [0] * processes
    distributed.all_gather_object(starts, begun)
    if len(set(starts)) > 1:
        raise ValueError(f"{checkpoint} must be the same file for all processes, but they start at steps {starts}")
    # Gradients taken inside the loss do not disturb it: it averages what arrives at parameters, and only that.
    return nn.parallel.DistributedDataParallel(loss_of, static_graph=True)


def over_processes(values: Tensor, processes: int) -> list[float]:
    """The means of values that each process has its own of."""
    if processes > 1:
        distributed.all_reduce(values)
    return (values / processes).tolist()
