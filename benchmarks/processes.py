"""How many more updates a second two processes make than one, on the cores of one machine.

    python -m benchmarks.processes

Each run trains the same contestant by `torchrun`, for two numbers of steps, so that what a start costs drops out. Runs
with one and two processes take turns. Rows go to data/results/processes.json.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from ebmm.machine import describe_device, versions
from ebmm.results import check_results, save_results

EXPERIMENT, MODEL, MEMORIES = "redrawn-64-32", "ebmm-paper", 16
STEPS = (10, 60)


def seconds_of_training(processes: int, steps: int) -> float:
    """As the training itself tells it."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "weights.safetensors"
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            f"--nproc-per-node={processes}",
            "-m",
            "ebmm",
            "train",
        ]
        command += [EXPERIMENT, "--model", MODEL, "--steps", str(steps), "--memories", str(MEMORIES)]
        command += ["--device", "cpu", "--out", str(out)]
        subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, check=True)
        return torch.load(f"{out}.training", weights_only=True)["history"]["seconds"]


def seconds_of_an_update(processes: int) -> float:
    few, many = (seconds_of_training(processes, steps) for steps in STEPS)
    return (many - few) / (STEPS[1] - STEPS[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("data/results/processes.json"))
    given = parser.parse_args()
    check_results(given.out)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(given.rounds):
        for processes, found in seconds.items():
            found.append(seconds_of_an_update(processes))
            print(f"{processes}: {found[-1]:.4f} seconds an update", flush=True)
    about = {"experiment": "processes", "command": shlex.join(["python", "-m", "benchmarks.processes", *sys.argv[1:]])}
    about |= {"seed": 0, "device": describe_device("cpu"), "versions": versions(), "memories": MEMORIES}
    for processes, found in seconds.items():
        row = {"model": f"{MODEL}, {processes}", "processes": processes, "seconds": statistics.median(found)}
        save_results([about | row | {"least": min(found), "most": max(found)}], given.out)


if __name__ == "__main__":
    main()
