"""Time a meta-step of the gated RNN energy in all forms, beside each other on one core.

    make bench
    python -m benchmarks.run --sizes small --forms ours plain --rounds 5

No time counts before all forms agree in float64: loss, every gradient and the first updates. Ratios are those of one
round, in which each form is visited once; given are their median and spread. Seconds are those of the core. The peak is
that of a product of square matrices, measured in the same rounds. Compiling takes minutes a form and size.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import math
import os
import shlex
import statistics
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.agreement import check_agreement
from benchmarks.forms import COMPILED, FORMS, LIBRARIES, build, missing
from benchmarks.problem import SIZES, TINY
from benchmarks.rounds import measured
from benchmarks.worker import SQUARE
from ebmm.machine import describe_device, versions
from ebmm.results import check_results, save_results
from tools.time_gpu import Operations

REFERENCES = ("plain", "jax")
SEED = 0
OUT = Path("data/results/speed.json")
ROUNDING = 1e-3  # by how much the first losses may differ in float32


def main(arguments: Sequence[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each visit to a form")
    parser.add_argument("--core", type=int, default=last_core(), help="that all are pinned to, where that can be done")
    parser.add_argument("--quick", action="store_true", help="a tiny size, to see that all works; no file unless asked")
    parser.add_argument("--out", type=Path, help=f"the file of results; {OUT} if not given")
    given = parser.parse_args(arguments)
    sizes, rounds, seconds, core, out = given.sizes, given.rounds, given.seconds, given.core, given.out or OUT
    if given.quick:
        sizes, rounds, seconds, core, out = ["tiny"], 2, 0.05, None, given.out
    if out:
        check_results(out)

    forms = []
    for form in given.forms:
        if lacking := missing(form):
            print(f"{form}: left out, {lacking} is not here")
        else:
            forms.append(form)
    print(f"{', '.join(forms)} agree in float64 to {check_agreement(forms):.0e}", flush=True)

    about = {
        "command": shlex.join(["python", "-m", "benchmarks.run", *(sys.argv[1:] if arguments is None else arguments)]),
        "seed": SEED,
        "device": describe_device("cpu"),
        "versions": versions() | libraries(),
        "rounds": rounds,
    }
    found = []
    for size in sizes:
        print(f"{size}: {SIZES.get(size, TINY)}", flush=True)
        rows = rows_of(size, measured([*forms, "product"], size, rounds, seconds, core))
        if out:
            save_results([about | row for row in rows], out)
        print(table(rows), flush=True)
        found += rows
    return found


def last_core() -> int | None:
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def libraries() -> dict[str, str]:
    """Versions of the libraries that are here."""
    found = {}
    for name in sorted(LIBRARIES):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def operations_of(size: str) -> int:
    """What the plain form multiplies and adds in products, which is what the meta-step needs."""
    form = build("plain", SIZES.get(size, TINY), "float32")
    with Operations() as counted:
        form.evaluate()
    return counted.total


def rows_of(size: str, found: dict) -> list[dict]:
    """Rows of results, one a form; ValueError if the forms compute different losses in float32."""
    _, products = found.pop("product")
    peaks = [2 * SQUARE**3 / visit["seconds"] for visit in products]
    operations = operations_of(size)
    seconds = {form: [visit["seconds"] for visit in visits] for form, (_, visits) in found.items()}
    first = next(iter(found.values()))[0]["loss"]
    rows = []
    for form, (start, visits) in found.items():
        if not math.isclose(start["loss"], first, rel_tol=ROUNDING):
            raise ValueError(f"{form} has the loss {start['loss']} in float32, and others {first}")
        row = {
            "experiment": f"speed-{size}",
            "model": form,
            "seconds": statistics.median(seconds[form]),
            "steps": sum(visit["steps"] for visit in visits),
            "operations": operations,
            "matmul operations a second": statistics.median(peaks),
            "share of matmul peak": statistics.median(
                operations / one / peak for one, peak in zip(seconds[form], peaks, strict=True)
            ),
            "peak bytes": visits[-1]["bytes"],
            "bytes before the first step": start["bytes_before"],
            "first step seconds": start["first"],
        }
        for reference in REFERENCES:
            if reference in seconds:
                ratios = [one / other for one, other in zip(seconds[form], seconds[reference], strict=True)]
                row[f"ratio to {reference}"] = {
                    "median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)
                }  # fmt: skip
        if COMPILED.get(form) in seconds:
            saved = statistics.median(seconds[COMPILED[form]]) - row["seconds"]
            row["instead of"] = COMPILED[form]
            row["pays after steps"] = math.ceil(start["first"] / saved) if saved > 0 else None
        rows.append(row)
    return rows


def table(rows: list[dict]) -> str:
    """What a reader looks at first."""
    ratios = [f"ratio to {reference}" for reference in REFERENCES if f"ratio to {reference}" in rows[0]]
    heads = ["form", "seconds", *(f"{ratio} (min to max)" for ratio in ratios), "of peak", "MiB", "first step", "pays"]
    lines = [heads]
    for row in rows:
        after = row.get("pays after steps", "")
        lines.append(
            [
                row["model"],
                f"{row['seconds']:.4f}",
                *(
                    f"{row[ratio]['median']:.2f} ({row[ratio]['min']:.2f} to {row[ratio]['max']:.2f})"
                    for ratio in ratios
                ),
                f"{row['share of matmul peak']:.0%}",
                f"{row['peak bytes'] / 2**20:.0f}",
                f"{row['first step seconds']:.1f} s",
                "never" if after is None else f"after {after} steps" if after else "",
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


if __name__ == "__main__":
    main()
