"""Train and evaluate many contestants, one after the other, picking up what an earlier visit left.

    python tools/run_contest.py redrawn-64-32 redrawn-64-48 --models memory-network mann
    python tools/run_contest.py 'binary-*' --device cuda --out "$OUT"

Weights go to OUT/checkpoints/EXPERIMENT-MODEL.safetensors, results to OUT/results/EXPERIMENT.json.
Weights that are there are not trained again: delete them to start anew. Contestants that serve several experiments
are trained in the one where they are at home. An interrupted training resumes. This is `python -m ebmm train` and
`python -m ebmm evaluate`, in a loop.
"""

from __future__ import annotations

import argparse
import time
from fnmatch import fnmatch
from pathlib import Path

from ebmm.experiments import EXPERIMENTS, checkpoint_of, ready, train
from ebmm.results import check_results, save_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", help="experiments, or patterns such as 'redrawn-64-*'")
    parser.add_argument("--models", nargs="*", help="default: all")
    parser.add_argument("--memories", type=int, default=1000)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--out", type=Path, default=Path("data"))
    given = parser.parse_args()
    experiments = {
        name: experiment
        for name, experiment in EXPERIMENTS.items()
        if any(fnmatch(name, pattern) for pattern in given.names)
    }
    if not experiments:
        parser.error(f"no experiment is called {' or '.join(given.names)}")
    for name in experiments:
        check_results(given.out / "results" / f"{name}.json")
    for name, experiment in experiments.items():
        for contestant, chosen in experiment.contestants.items():
            if given.models and contestant not in given.models:
                continue
            weights = None
            if chosen.training is not None:
                home = experiment.home_of(contestant)
                weights = given.out / "checkpoints" / f"{home}-{contestant}.safetensors"
                if not weights.exists():
                    train(home, contestant, weights, device=given.device, seed=given.seed)
                    checkpoint_of(weights).unlink()
            start = time.monotonic()
            trained = ready(name, contestant, device=given.device, weights=weights and str(weights))
            row = trained.evaluate(given.memories)
            save_results([row], given.out / "results" / f"{name}.json")
            print(
                f"{name:<20} {contestant:<22} {row['memory_floats']:>6} floats  wrong {row['mean']:7.3f}"
                f"  [{row['p5']:.3f}, {row['p95']:.3f}]  trained {row['training'].get('minutes', 0)} min,"
                f" evaluated {time.monotonic() - start:.0f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
