"""Time training steps of the image experiments: memories a second, share of the matmul peak, peak memory.

    python tools/time_gpu.py --out "$OUT/results/gpu.json"                 # on a GPU
    python tools/time_gpu.py --device cpu --steps 0 --memories 1 --out data/results/operations.json

With no steps nothing is timed: operations and activations are counted, from which chapters 6 and 7 estimate what a
GPU needs.
Operations are counted by torch.utils.flop_counter: products and convolutions only, a multiplication and an
addition being two. The peak is measured in the same run, by products of large square matrices in float32.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ebmm.experiments import EXPERIMENTS
from ebmm.files import replacing
from ebmm.gradients import reconstruction_loss
from ebmm.machine import describe_device, pick_device, versions
from ebmm.tasks import Batch

NAMES = ["omniglot-fc-4112", "omniglot-conv-4616", "cifar-conv-4616", "imagenet64-conv"]
MODELS = ["autoencoder", "slot-memory", "ebmm-paper", "memory-network"]


class Operations(TorchDispatchMode):
    """Counts operations. (``FlopCounterMode`` follows modules too, which nested gradients do not allow.)"""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = operation(*args, **(kwargs or {}))
        if operation.overloadpacket in flop_registry:
            self.total += flop_registry[operation.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


@contextmanager
def activations() -> Iterator[Callable[[], int]]:
    """Gives a function that says how many bytes were kept for the backward pass meanwhile, each storage once.

    Parameters and data do not count: they are there anyway.
    """
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.grad_fn is not None:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(kept.values())


def seconds_of(work: Callable[[], object], where: torch.device, steps: int) -> float:
    """Mean seconds of ``work()``, after one call that does not count."""
    work()
    if where.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        work()
    if where.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / steps


def matmul_peak(where: torch.device, size: int) -> float:
    """Operations a second of a product of two square matrices."""
    a, b = torch.randn(2, size, size, device=where).unbind()
    return 2 * size**3 / seconds_of(lambda: a @ b, where, 10)


def measure(name: str, contestant: str, memories: int, where: torch.device, steps: int, peak: float) -> dict[str, Any]:
    """A row of results for one contestant; with no steps, nothing is timed."""
    experiment = EXPERIMENTS[name]
    torch.manual_seed(0)
    model: Any = experiment.contestants[contestant].build().to(where).train()
    # Random images: the time does not depend on what they show, and no data set is needed.
    patterns = torch.rand(memories, experiment.task.number, *model.pattern_shape)
    queries, intact = experiment.task.corruption(patterns.flatten(0, 1), torch.Generator().manual_seed(0))
    batch = Batch(patterns, queries.view_as(patterns), intact.view_as(patterns)).to(where)

    def step() -> None:
        model.zero_grad()
        reconstruction_loss(model, batch)[0].backward()

    step()  # an energy is tried before its first use, which is not to be counted
    with Operations() as counted, activations() as kept:
        step()
    row = {
        "experiment": name,
        "model": contestant,
        "memory_floats": model.memory_floats,
        "patterns": experiment.task.number,
        "memories": memories,
        "operations a step": counted.total,
        "activation bytes": kept(),
    }
    if steps == 0:
        return row
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(step, where, steps)
    return row | {
        "seconds a step": seconds,
        "memories a second": memories / seconds,
        "matmul operations a second": peak,
        "share of matmul peak": counted.total / seconds / peak,
        "peak bytes": torch.cuda.max_memory_allocated() if where.type == "cuda" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", default=NAMES)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--memories", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="to time; 0: only count")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    where = pick_device(given.device)
    peak = matmul_peak(where, 8192 if where.type == "cuda" else 1024) if given.steps else 0.0
    about = {
        "command": shlex.join(["python", "tools/time_gpu.py", *sys.argv[1:]]),
        "device": describe_device(where),
        "versions": versions(),
    }
    rows = []
    for name in given.names:
        for contestant in given.models:
            row = about | measure(name, contestant, given.memories, where, given.steps, peak)
            rows.append(row)
            print(name, contestant, f"{row['operations a step']:.3g} operations")
            if given.steps:
                print(f"  {row['seconds a step']:.3f} s, {row['share of matmul peak']:.1%} of the matmul peak")
            with replacing(given.out) as beside:
                beside.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
