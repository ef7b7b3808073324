"""Train and evaluate in turn, for hours, and see whether anything grows: memory, open files, threads.

    python tools/soak.py --minutes 120

Linux only. What is open is told every minute; after a tenth of the time, when all caches are full, nothing may grow any
more. The row goes to OUT; the status is 1 where something grew.
"""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
import time
from itertools import cycle
from pathlib import Path

import torch

import ebmm
from ebmm.experiments import EXPERIMENTS
from ebmm.machine import describe_device, versions
from ebmm.results import check_results, save_results

EXPERIMENT, MODELS = "redrawn-64-8", ("ebmm-slots", "ebmm-hop", "ebmm-predictive", "mann", "kanerva")
ALLOWED = {"megabytes": 20.0, "files": 0, "threads": 0}  # growth of the median from the first half to the second


def now() -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    files = len(list(Path("/proc/self/fd").iterdir()))
    return {"megabytes": int(status["VmRSS"].split()[0]) / 1024, "files": files, "threads": int(status["Threads"])}


def turn(model: str, seed: int) -> int:
    """One training, short, and one evaluation; the number of updates."""
    experiment = EXPERIMENTS[EXPERIMENT]
    chosen = experiment.contestants[model]
    torch.manual_seed(seed)
    memory = chosen.build()
    assert chosen.training is not None
    settings = chosen.training | {"steps": 20, "memories": 4, "seed": seed, "device": "cpu", "progress": False}
    history = ebmm.fit(memory, experiment.task, **settings)
    ebmm.evaluate(memory, experiment.task, memories=20, seed=seed)
    return len(history.rows)


def growth(told: list[dict[str, float]]) -> dict[str, float]:
    """By how much the medians of the second half lie above those of the first, without the first tenth."""
    steady = told[len(told) // 10 :]
    halves = steady[: len(steady) // 2], steady[len(steady) // 2 :]
    first, second = ({name: sorted(one[name] for one in half)[len(half) // 2] for name in ALLOWED} for half in halves)
    return {name: second[name] - first[name] for name in ALLOWED}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--every", type=float, default=1.0, help="minutes between looks")
    parser.add_argument("--out", type=Path, default=Path("data/results/soak.json"))
    given = parser.parse_args()
    check_results(given.out)
    torch.set_num_threads(1)
    start, updates = time.monotonic(), 0
    told: list[dict[str, float]] = []
    for seed, model in enumerate(cycle(MODELS)):
        updates += turn(model, seed)
        minutes = (time.monotonic() - start) / 60
        if minutes >= given.every * len(told):
            gc.collect()
            told.append({"minutes": round(minutes, 1), **now()})
            print(told[-1], flush=True)
        if minutes >= given.minutes and len(told) >= 4:
            break
    grown = growth(told)
    row = {"experiment": "soak", "model": ", ".join(MODELS), "turns": seed + 1, "updates": updates, "looks": told}
    row |= {"grown": grown, "allowed": ALLOWED, "seed": 0, "device": describe_device("cpu"), "versions": versions()}
    save_results([row | {"command": f"python {shlex.join(sys.argv)}"}], given.out)
    print(f"{updates} updates; grown: {grown}")
    return int(any(grown[name] > most for name, most in ALLOWED.items()))


if __name__ == "__main__":
    sys.exit(main())
