"""How good a memory is after so many minutes of training: every contestant that learns, on one core.

    python tools/quality.py redrawn-64-16 --minutes 1 10 60

Each is trained anew for the experiment's own task, in as many updates as should fit into the minutes by the cost of
the first ones: its schedule ends with them. Then it is evaluated as in the contest. Minutes are those of the
processor; beside those that were asked for stands what a training in one sitting spent. Rows go to
OUT/minutes-M.json; those that are there are not made again.
"""

from __future__ import annotations

import argparse
import copy
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

import ebmm
from ebmm.experiments import EXPERIMENTS
from ebmm.results import check_results, load_results, save_results

LEAST, TOLD = 10, 2.0  # updates, and seconds for them from which the cost of one is told


def cost_of_an_update(model: Any, task: ebmm.Task, settings: dict[str, Any]) -> float:
    """Seconds of the processor, without what a training costs once."""

    def seconds_of(steps: int) -> float:
        start = time.process_time()
        ebmm.fit(copy.deepcopy(model), task, **settings | {"steps": steps})
        return time.process_time() - start

    steps = LEAST
    seconds_of(steps)  # the first training of a process takes longer
    while (spent := seconds_of(2 * steps) - seconds_of(steps)) < TOLD:
        steps *= 2
    return spent / steps


def row_of(name: str, contestant: str, minutes: float, memories: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train and evaluate one; a training that was interrupted goes on, in as many updates as it was to have."""
    experiment = EXPERIMENTS[name]
    chosen = experiment.contestants[contestant]
    torch.manual_seed(seed)
    model = chosen.build()
    assert chosen.training is not None
    settings = chosen.training | {"seed": seed, "device": "cpu", "progress": False}
    begun = f".{name}-{contestant}-{minutes:g}-"
    checkpoint = next(folder.glob(f"{begun}*.training"), None)
    goes_on = checkpoint is not None
    if checkpoint is None:
        steps = max(LEAST, round(60 * minutes / cost_of_an_update(model, experiment.task, settings)))
        checkpoint = folder / f"{begun}{steps}.training"
    steps = int(checkpoint.stem.rpartition("-")[2])
    start = time.process_time()
    history = ebmm.fit(model, experiment.task, **settings | {"steps": steps, "checkpoint": checkpoint})
    spent = round((time.process_time() - start) / 60, 2)
    checkpoint.unlink()
    return {
        "experiment": name,
        "model": contestant,
        **ebmm.evaluate(model, experiment.task, memories, seed=1),
        "training": {
            "minutes": minutes,
            "minutes spent": None if goes_on else spent,
            "steps": steps,
            "skipped": history.skipped,
            "returns": history.returns,
            "seed": seed,
            "settings": chosen.training,
        },
        "command": f"python {shlex.join(sys.argv)}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="an experiment with strings")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1.0, 10.0])
    parser.add_argument("--models", nargs="*", help="default: all that learn")
    parser.add_argument("--memories", type=int, default=1000, help="that each is evaluated on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("data/results"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    contestants = EXPERIMENTS[given.name].contestants
    models = given.models or [model for model, chosen in contestants.items() if chosen.training]
    for minutes in given.minutes:
        out = given.out / f"minutes-{minutes:g}.json"
        check_results(out)
        for model in models:
            there = load_results(out) if out.exists() else []
            if any((row["experiment"], row["model"]) == (given.name, model) for row in there):
                continue
            row = row_of(given.name, model, minutes, given.memories, given.seed, given.out)
            save_results([row], out)
            print(f"{model:<22} {row['training']['steps']:>6} updates {row['mean']:7.3f}", flush=True)


if __name__ == "__main__":
    main()
