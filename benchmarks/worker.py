"""One form in a process of its own: it prints a line of JSON when it is ready, and one for each line it is sent.

    python -m benchmarks.worker plain small --core 1

The first line has the seconds of the first step; a line ``2.5`` asks it to take steps for so many seconds. A step's
seconds are those that its core computed for it, so that what else runs there counts less; those of the first step,
for which compilers run, are those that passed.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

SQUARE = 2048  # rows and columns of the matrices whose product is the peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("form")
    parser.add_argument("size")
    parser.add_argument("--core", type=int)
    given = parser.parse_args()
    if given.core is not None:
        os.sched_setaffinity(0, {given.core})  # before any library counts the cores
    step = product() if given.form == "product" else step_of(given.form, given.size)
    before = peak_bytes()
    start = time.perf_counter()
    loss = step()
    answer(first=time.perf_counter() - start, loss=loss, bytes_before=before)
    step()
    for line in sys.stdin:
        end, taken = time.perf_counter() + float(line), [seconds_of(step)]
        while len(taken) < 3 or time.perf_counter() < end:
            taken.append(seconds_of(step))
        counted = taken[1:]  # the first found the caches cold, after others ran
        answer(seconds=statistics.median(counted), steps=len(counted), bytes=peak_bytes())


def step_of(form: str, size: str) -> Callable[[], float]:
    """One update of a form in float32, on one thread."""
    from benchmarks.forms import build
    from benchmarks.problem import SIZES, TINY

    if form != "jax":
        import torch

        torch.set_num_threads(1)
    return build(form, SIZES.get(size, TINY), "float32").step


def product() -> Callable[[], float]:
    """The product of two square matrices in float32, on one thread."""
    import torch

    torch.set_num_threads(1)
    a, b = torch.randn(2, SQUARE, SQUARE).unbind()
    return lambda: (a @ b)[0, 0].item()


def seconds_of(step: Callable[[], float]) -> float:
    """What the core computed for it."""
    start = time.process_time()
    step()
    return time.process_time() - start


def peak_bytes() -> int:
    """The largest memory of this process so far. (Linux counts in ``ru_maxrss`` what started this process, too.)"""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def answer(**what: float) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
