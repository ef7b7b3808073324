"""What compiling gains at the small energies of the book: updates a second of contestants, one core.

    python -m benchmarks.compiling

Each way runs in a process of its own, on the contest's own task with 8 memories of 16 strings of 64 bits, and must find
the loss that the others find. Updates are told from the least time of many, of the processor; the seconds of the first
step are those that passed, with an empty cache and one compiler at a time. Rows go to data/results/compiling.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.curves import seconds_of
from benchmarks.rounds import ONE_THREAD
from ebmm.experiments import EXPERIMENTS
from ebmm.gradients import reconstruction_loss
from ebmm.machine import describe_device, versions
from ebmm.results import check_results, save_results
from ebmm.slopes import compiled

EXPERIMENT, MEMORIES = "redrawn-64-16", 8
MODELS = ["ebmm-slots", "ebmm-predictive", "ebmm-hop"]
WAYS = {"eager": nullcontext, "compiled": compiled, "whole": partial(compiled, whole=True)}


def measure(contestant: str, way: str) -> dict[str, float]:
    """Seconds of an update, of the first one, and the loss."""
    torch.manual_seed(0)
    experiment = EXPERIMENTS[EXPERIMENT]
    model = experiment.contestants[contestant].build()
    batch = experiment.task.sample(MEMORIES, torch.Generator().manual_seed(0))
    found = []

    def step() -> None:
        model.zero_grad()
        loss, _ = reconstruction_loss(model, batch)
        loss.backward()
        found.append(loss.item())

    with WAYS[way](model):
        start = time.perf_counter()
        step()
        return {"first": time.perf_counter() - start, "seconds": seconds_of(step), "loss": found[0]}


def rows_of(contestant: str) -> list[dict[str, Any]]:
    """One row a way; ValueError if they find different losses."""
    found = {}
    for way in WAYS:
        command = [sys.executable, "-m", "benchmarks.compiling", "--measure", contestant, way]
        with tempfile.TemporaryDirectory() as cache:  # so that the first step finds nothing compiled
            environment = os.environ | ONE_THREAD | {"TORCHINDUCTOR_CACHE_DIR": cache}
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        found[way] = json.loads(done.stdout)
        if not math.isclose(found[way]["loss"], found["eager"]["loss"], rel_tol=1e-4):
            raise ValueError(f"{contestant}, {way}: the loss is {found[way]['loss']}, not {found['eager']['loss']}")
    return [
        {
            "model": f"{contestant}, {way}",
            "updates a second": 1 / one["seconds"],
            "times as many": found["eager"]["seconds"] / one["seconds"],
            "first step seconds": one["first"],
        }
        for way, one in found.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--out", type=Path, default=Path("data/results/compiling.json"))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.measure:
        return print(json.dumps(measure(*given.measure)))
    check_results(given.out)
    about = {"experiment": "compiling", "command": shlex.join(["python", "-m", "benchmarks.compiling", *sys.argv[1:]])}
    about |= {"seed": 0, "device": describe_device("cpu"), "versions": versions(), "memories": MEMORIES}
    for contestant in given.models:
        for row in rows_of(contestant):
            print(f"{row['model']}: {row['updates a second']:.0f}, {row['times as many']:.1f} times", flush=True)
            save_results([about | row], given.out)


if __name__ == "__main__":
    main()
