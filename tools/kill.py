"""Kills training, evaluation and the filling of a cache at random moments, starts each again, and looks for losses.

``python tools/kill.py [--kills 200] [--only training|evaluation|cache]``

One process loads PyTorch and forks all others, so that 200 kills take a minute or two. Half of the kills come by the
clock, the others at a line of Python among those that write files. Then each kind of work runs on a full disk, and two
processes write one results file in at most 30 rounds. The exit status is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch

from ebmm import EBMM, Task, fit
from ebmm.__main__ import main as command
from ebmm.datasets import folder_of_images, store
from ebmm.energies import PredictiveEnergy
from ebmm.results import load_results, save_results
from ebmm.tasks import FlipBits, RandomBits

WRITING = (  # the ends of names of files of Python that write
    "ebmm/files.py", "ebmm/results.py", "ebmm/history.py", "ebmm/datasets/store.py", "/pathlib.py",
    "pathlib/_local.py", "torch/serialization.py", "tempfile.py",
)  # fmt: skip
LEFT = ("*.partial", "tmp*", "*.part")


class Lost(Exception):
    """What was found after a kill."""


class Training:
    """A run with a checkpoint ends with the same numbers as the run that nothing broke."""

    def __init__(self, folder: Path):
        self.checkpoint = folder / "run.training"
        wait_for(start(lambda: self.train(folder / "unbroken.training"), folder / "log"), folder / "log")
        self.unbroken = torch.load(folder / "unbroken.training", weights_only=True)

    def train(self, checkpoint: Path) -> None:
        torch.manual_seed(0)
        task = Task(RandomBits(16), FlipBits(0.1), number=2)
        fit(
            EBMM(PredictiveEnergy(16)), task, steps=8, memories=2, checkpoint=checkpoint,
            save_every=2, device="cpu", progress=False,
        )  # fmt: skip

    def run(self) -> None:
        self.train(self.checkpoint)

    def look(self, finished: bool) -> None:
        if not self.checkpoint.exists():
            return
        found = torch.load(self.checkpoint, weights_only=True)
        rows = found["history"]["rows"]
        if rows != self.unbroken["history"]["rows"][: len(rows)]:
            raise Lost(f"the history went another way after {len(rows)} steps")
        if finished:
            for name, tensor in self.unbroken["model"].items():
                if not torch.equal(found["model"][name], tensor):
                    raise Lost(f"another {name} after training")
            self.checkpoint.unlink()


class Evaluation:
    """A results file keeps its rows, and has the new one in the end."""

    def __init__(self, folder: Path):
        self.file = folder / "results.json"
        self.old = [
            {"experiment": "before", "model": f"model {i:02}", "mean": i, "about": "x" * 999} for i in range(17)
        ]
        self.file.write_text(json.dumps(self.old))

    def run(self) -> None:
        arguments = "evaluate flipped-64-16 --model hebb --memories 2 --device cpu --out"
        if command([*arguments.split(), str(self.file)]):
            raise OSError("the command failed")

    def look(self, finished: bool) -> None:
        rows = load_results(self.file)
        if [row for row in rows if row["experiment"] == "before"] != self.old:
            raise Lost(f"{len(rows)} rows, the old ones are not among them")
        if finished:
            if len(rows) != len(self.old) + 1:
                raise Lost(f"{len(rows)} rows after an evaluation, not {len(self.old) + 1}")
            self.file.write_text(json.dumps(self.old))


class Cache:
    """Decoded images are those of the folder, whatever the cache held."""

    def __init__(self, folder: Path):
        self.folder, self.cache = folder / "images", folder / "cache"
        self.folder.mkdir()
        self.pixels = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)
        for number, image in enumerate(self.pixels):
            PIL.Image.fromarray(image).save(self.folder / f"{number:02}.png")

    def run(self) -> None:
        os.environ["XDG_CACHE_HOME"] = str(self.cache)
        store._verified.clear()
        self.compare(folder_of_images(self.folder, size=32).images.numpy())

    def compare(self, images: np.ndarray) -> None:
        if not np.array_equal(images.transpose(0, 2, 3, 1), self.pixels):
            raise Lost("other pictures than those in the folder")

    def look(self, finished: bool) -> None:
        for kept in self.cache.rglob("*.npy"):
            self.compare(np.load(kept))
            if finished:
                kept.unlink()


KINDS: dict[str, type] = {"training": Training, "evaluation": Evaluation, "cache": Cache}


def start(run: Callable[[], object], log: Path, line: int | None = None, largest: int | None = None) -> int:
    """Forks a process that runs this; it dies at a line of what writes, or can write no file larger than told."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with open(log, "w") as file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
            try:
                if largest is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
                lines = None if line is None else die_at(line)
                run()
                sys.settrace(None)
                if lines is not None:
                    log.with_name("lines").write_text(str(len(lines)))
                status = 0
            except BaseException:
                traceback.print_exc(file=file)
    finally:
        os._exit(status)


def die_at(last: int) -> list[int]:
    """Kills this process at the so many-th line of what writes; returns where the lines are noted as they are run."""
    lines: list[int] = []

    def enter(frame: Any, event: str, argument: object) -> Any:
        return step if frame.f_code.co_filename.endswith(WRITING) else None

    def step(frame: Any, event: str, argument: object) -> Any:
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == last:
                os.kill(os.getpid(), signal.SIGKILL)
        return step

    sys.settrace(enter)
    return lines


def wait_for(process: int, log: Path) -> bool:
    """Whether the process came to its end; False if it was killed, Lost if it failed."""
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return False
    if os.WEXITSTATUS(status):
        raise Lost(f"the next call does not go on:\n{log.read_text()[-2000:]}")
    return True


def kill(name: str, kills: int, folder: Path, chance: random.Random) -> str:
    """So many kills of one kind of work; returns what happened."""
    began, log = time.monotonic(), folder / "log"
    work = KINDS[name](folder)
    wait_for(start(work.run, log, line=0), log)
    work.look(finished=True)
    lines = int((folder / "lines").read_text())
    began_run = time.monotonic()
    wait_for(start(work.run, log), log)
    seconds = time.monotonic() - began_run
    work.look(finished=True)
    killed = finished = 0
    while killed < kills:
        if killed % 2:
            ended = wait_for(start(work.run, log, line=chance.randint(1, lines)), log)
        else:
            process = start(work.run, log)
            time.sleep(chance.uniform(0, seconds))
            os.kill(process, signal.SIGKILL)
            ended = wait_for(process, log)
        killed, finished = killed + (not ended), finished + ended
        left = [path.name for pattern in LEFT for path in folder.rglob(pattern)]
        if len(left) > (0 if ended else 1):
            raise Lost(f"{len(left)} files of killed processes are left: {left}")
        work.look(ended)
    with contextlib.suppress(Lost):  # that it fails is right
        wait_for(start(work.run, log, largest=500), log)
    work.look(finished=False)
    while not wait_for(start(work.run, log), log):
        pass
    work.look(finished=True)
    spent = time.monotonic() - began
    return (
        f"{name}: {killed} kills, {finished} runs to their end between them, a full disk: nothing lost ({spent:.0f} s)"
    )


def two_writers(rounds: int, folder: Path) -> str:
    """Two processes add rows to one file at the same time."""

    def adding(model: str) -> Callable[[], None]:
        def add() -> None:
            for number in range(5):
                save_results([{"experiment": f"number {number}", "model": model}], folder / "shared.json")

        return add

    for one_round in range(rounds):
        (folder / "shared.json").unlink(missing_ok=True)
        writers = [start(adding(model), folder / f"log of {model}") for model in ("first", "second")]
        for process, model in zip(writers, ("first", "second"), strict=True):
            wait_for(process, folder / f"log of {model}")
        if (found := len(load_results(folder / "shared.json"))) != 10:
            raise Lost(f"round {one_round} of two writers: {found} rows, not 10")
    return f"two writers: {rounds} rounds, no row lost"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status: 1 if anything was lost."""
    assert __doc__ is not None
    parser = argparse.ArgumentParser(prog="python tools/kill.py", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="of each kind of work")
    parser.add_argument("--only", choices=KINDS)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for late in ("filelock", "pooch", "torch._dynamo", "tqdm"):  # what each fork would import else
        importlib.import_module(late)
    lost = False
    for name in [given.only] if given.only else KINDS:
        with tempfile.TemporaryDirectory() as folder:
            try:
                print(kill(name, given.kills, Path(folder), random.Random(given.seed)), flush=True)
                if name == "evaluation":
                    print(two_writers(min(30, given.kills), Path(folder)), flush=True)
            except (Lost, ValueError, OSError, RuntimeError) as error:
                print(f"{name}: LOST: {error}", flush=True)
                lost = True
    return int(lost)


if __name__ == "__main__":
    sys.exit(main())
