"""What a training step costs as one of its sizes grows, and how much room it takes.

    python -m benchmarks.curves

The gated RNN energy with the gradient term, float32, one core. Time is that of the processor, so that other work on the
machine counts less. Room is what a process of its own takes at its peak beyond what it had before the step. Rows go to
data/results/costs.json.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.worker import peak_bytes
from ebmm import EBMM
from ebmm.energies import GatedRNNEnergy
from ebmm.gradients import reconstruction_loss
from ebmm.machine import describe_device, versions
from ebmm.results import check_results, save_results
from ebmm.tasks import Batch

BASE = {"B": 4, "N": 16, "T": 3, "K": 5, "d": 64, "recompute": False}
GROWN = {
    "B": (1, 2, 4, 8, 16),
    "N": (4, 8, 16, 32, 64),
    "T": (1, 2, 3, 4, 6),
    "K": (1, 3, 5, 7, 10),
    "d": (32, 64, 96, 128),
}
HELD = (32, 64, 128, 256)  # memories of 32 strings, kept and recomputed, whose room is measured
HOPS, SECONDS = 3, 2.0


def products(N: int, T: int, K: int, d: int, **_) -> int:
    """Multiplications in the products of one memory's step, with m = d/2 memory features and h = 2 d hidden units."""
    m, h = d // 2, 2 * d
    of_memory, of_pattern, of_state = d * m, d * (2 * h - m), (HOPS - 1) * h * (2 * h - m)
    write = 18 * of_memory + 9 * of_pattern + 12 * of_state + 3 * h
    read = 6 * (of_memory + of_pattern + of_state) + 3 * h
    return N * (T * write + K * read)


class Step:
    """One meta-gradient at given sizes."""

    def __init__(self, B: int, N: int, T: int, K: int, d: int, recompute: bool):
        torch.manual_seed(0)
        energy = GatedRNNEnergy(d, memory_features=d // 2, hidden=2 * d, hops=HOPS)
        self.model = EBMM(energy, write_steps=T, read_steps=K, recompute=recompute)
        patterns = torch.randint(0, 2, (B, N, d)).float()
        self.batch = Batch(patterns, patterns.clone(), torch.ones_like(patterns, dtype=torch.bool))

    def __call__(self) -> None:
        loss, _ = reconstruction_loss(self.model, self.batch)
        loss.backward()


def seconds_of(step: Step) -> float:
    """The least of many, of the processor."""
    step()
    each, end = [], time.process_time() + SECONDS
    while len(each) < 3 or time.process_time() < end:
        start = time.process_time()
        step()
        each.append(time.process_time() - start)
    return min(each)


def room_of(sizes: dict) -> int:
    """Bytes, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.curves", "--room", json.dumps(sizes)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_room(sizes: dict) -> None:
    """What that process does: a small step first, so that libraries are loaded, then the one that counts."""
    Step(**sizes | {"B": 1, "N": 1})()
    step = Step(**sizes)
    before = peak_bytes()
    step()
    print(peak_bytes() - before)


def rows() -> Iterator[dict]:
    for name, values in GROWN.items():
        for value in values:
            sizes = BASE | {name: value}
            needed = sizes["B"] * products(**sizes)
            yield {"model": f"{name} = {value}", **sizes, "products": needed, "seconds": seconds_of(Step(**sizes))}
    for recompute in (False, True):
        for memories in HELD:
            sizes = BASE | {"B": memories, "N": 32, "recompute": recompute}
            kept = "recomputed" if recompute else "kept"
            yield {"model": f"room of {memories}, {kept}", **sizes, "bytes": room_of(sizes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("data/results/costs.json"))
    parser.add_argument("--room", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.room:
        return measure_room(json.loads(given.room))
    check_results(given.out)
    command = shlex.join(["python", "-m", "benchmarks.curves", *sys.argv[1:]])
    about = {"experiment": "costs", "command": command, "seed": 0, "device": describe_device("cpu")}
    for row in rows():
        print(row["model"], row.get("seconds") or row["bytes"], flush=True)
        save_results([about | {"versions": versions()} | row], given.out)


if __name__ == "__main__":
    main()
