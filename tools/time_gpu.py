"""Time training steps of the image experiments: memories a second, share of the matmul peak, peak memory.

    python tools/time_gpu.py --out "$OUT/results/gpu.json"                 # on a GPU
    python tools/time_gpu.py --device cpu --steps 1 --memories 1 --out data/results/operations.json

Without a GPU, operations and activations can still be counted, from which chapters 6 and 7 estimate what one needs.
Operations are counted by torch.utils.flop_counter: products and convolutions only, a multiplication and an
addition being two. The peak is measured in the same run, by products of large square matrices in float32.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ebmm.evaluation import describe_device, pick_device, versions
from ebmm.experiments import EXPERIMENTS
from ebmm.tasks import Batch, Task
from ebmm.training import reconstruction_loss

NAMES = ["omniglot-fc-4112", "omniglot-conv-4616", "cifar-conv-4616", "imagenet64-conv"]
MODELS = ["autoencoder", "ebmm", "ebmm-paper", "memory-network"]


class Operations(TorchDispatchMode):
    """Counts operations. (``FlopCounterMode`` follows modules too, which nested gradients do not allow.)"""

    total = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if operation.overloadpacket in flop_registry:
            self.total += flop_registry[operation.overloadpacket](*args, **(kwargs or {}), out_val=result)
        return result


@contextmanager
def activations():
    """Gives a function that says how many bytes were kept for the backward pass meanwhile, each tensor once."""
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield lambda: sum(kept.values())


def seconds_of(work, where: torch.device, steps: int) -> float:
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


def seconds_to_draw(task: Task, memories: int) -> float | None:
    """For one batch of the real images, which ``fit`` draws while a step runs; ``None`` where they are not at hand."""
    generator = torch.Generator().manual_seed(0)
    try:
        return seconds_of(lambda: task.sample(memories, generator), torch.device("cpu"), 5)
    except (ConnectionError, FileNotFoundError):
        return None


def matmul_peak(where: torch.device, size: int) -> float:
    """Operations a second of a product of two square matrices."""
    a, b = torch.randn(2, size, size, device=where).unbind()
    return 2 * size**3 / seconds_of(lambda: a @ b, where, 10)


def time_step(name: str, model: str, memories: int, where: torch.device, steps: int, peak: float) -> dict:
    """A row of results for one contestant."""
    experiment = EXPERIMENTS[name]
    torch.manual_seed(0)
    memory: Any = experiment.contestants[model].build().to(where).train()
    # Random images: the time does not depend on what they show, and no data set is needed.
    patterns = torch.rand(memories, experiment.task.number, *memory.pattern_shape)
    queries, intact = experiment.task.corruption(patterns.flatten(0, 1), torch.Generator().manual_seed(0))
    batch = Batch(patterns, queries.view_as(patterns), intact.view_as(patterns)).to(where)

    def step() -> None:
        memory.zero_grad()
        reconstruction_loss(memory, batch)[0].backward()

    with Operations() as counted, activations() as kept:
        step()
    if where.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = seconds_of(step, where, steps)
    return {
        "experiment": name,
        "model": model,
        "memory_floats": memory.memory_floats,
        "patterns": experiment.task.number,
        "memories": memories,
        "seconds a step": seconds,
        "memories a second": memories / seconds,
        "seconds to draw a batch": seconds_to_draw(experiment.task, memories),
        "operations a step": counted.total,
        "activation bytes": kept(),
        "share of matmul peak": counted.total / seconds / peak,
        "peak bytes": torch.cuda.max_memory_allocated() if where.type == "cuda" else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", default=NAMES)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--memories", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    where = pick_device(given.device)
    peak = matmul_peak(where, 8192 if where.type == "cuda" else 1024)
    about = {
        "command": shlex.join(["python", "tools/time_gpu.py", *sys.argv[1:]]),
        "device": describe_device(where),
        "versions": versions(),
        "matmul operations a second": peak,
    }
    rows = []
    for name in given.names:
        for model in given.models:
            rows.append(about | time_step(name, model, given.memories, where, given.steps, peak))
            print(name, model, f"{rows[-1]['seconds a step']:.3f} s, {rows[-1]['share of matmul peak']:.1%} of peak")
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
