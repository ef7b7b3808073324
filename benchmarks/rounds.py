"""Forms in processes of their own on one core, visited in turn: what is busy beside them slows all alike."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.forms import FORMS

ROOT = Path(__file__).resolve().parent.parent
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


class Worker:
    """A process with one form in it, which waits until it is asked to take steps."""

    def __init__(self, form: str, size: str, core: int | None, cache: str):
        command = [sys.executable, "-m", "benchmarks.worker", form, size]
        command += [] if core is None else ["--core", str(core)]
        # With a cache of its own, the first step is one that nothing was compiled before.
        environment = os.environ | ONE_THREAD | {"TORCHINDUCTOR_CACHE_DIR": f"{cache}/{FORMS.get(form, form)}"}
        self.form = form
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            self.start = self.answer()
        except BaseException:
            self.close()
            raise

    def visit(self, seconds: float) -> dict[str, float]:
        """Steps for so many seconds: the median of one, how many, and the peak of memory in bytes."""
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of {self.form} ended with {self.process.wait()}")
        return json.loads(line)

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def measured(
    forms: Sequence[str], size: str, rounds: int, seconds: float, core: int | None
) -> dict[str, tuple[dict[str, float], list[dict[str, float]]]]:
    """Of each form, what it said at its start and at each visit."""
    with ExitStack() as stack:
        cache = stack.enter_context(tempfile.TemporaryDirectory())
        workers = []
        for form in forms:
            workers.append(Worker(form, size, core, cache))
            stack.callback(workers[-1].close)
            print(f"  {form}: first step {workers[-1].start['first']:.2f} s", flush=True)
        visits = {form: [] for form in forms}
        for _ in range(rounds):
            for worker in workers:
                visits[worker.form].append(worker.visit(seconds))
        return {worker.form: (worker.start, visits[worker.form]) for worker in workers}
