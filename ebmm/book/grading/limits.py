"""Runs a command and all that it starts within limits of time, memory, processes and disk, and leaves nothing of it."""

from __future__ import annotations

import ctypes
import math
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PAUSE = 0.1  # seconds between two looks at what runs
CHILD_SUBREAPER = 36  # of prctl
MANY_PROCESSES = 100
DISK_BYTES = 2**29
DEEPEST = 50  # folders within each other


@dataclass(frozen=True)
class Limits:
    """What one notebook may use, with all processes that it starts.

    Attributes:
        seconds: of the clock, from its first cell to the last verdict, above 0.
        memory: bytes, over all of its processes and that of its judge, which takes about half a gigabyte.

    Example:
        >>> Limits(seconds=60).memory == 4 * 2**30
        True
    """

    seconds: float = 600
    memory: int = 4 * 2**30

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.memory < 2**30:
            raise ValueError(f"limits must be above 0 seconds and at least 1 gigabyte, got {self}")


LIMITS = Limits()
"""What a notebook may use unless somebody says otherwise."""


def run(command: list[str], given: str, tell: Callable[[str], None], folder: Path, limits: Limits) -> str:
    """Run a command; returns why it was stopped, nothing if it ended by itself.

    Args:
        command: whose errors are shown.
        given: what it reads.
        tell: takes each line that it prints.
        folder: where what it starts may write: what lies there is limited, and removed in the end.
        limits: beyond them it is stopped.

    Example:
        >>> run([sys.executable, "-c", "print(6 * 7)"], "", print, Path("nowhere"), Limits())
        42
        ''
        >>> endless = [sys.executable, "-c", "while True: pass"]
        >>> run(endless, "", print, Path("nowhere"), Limits(seconds=1))
        'It was stopped after 1 seconds.'
    """
    with _family() as ours:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf8")
        assert process.stdin is not None and process.stdout is not None
        reader = threading.Thread(target=_read, args=(process.stdout, tell), daemon=True)
        reader.start()
        with suppress(BrokenPipeError):
            process.stdin.write(given)
            process.stdin.close()
        start, why = time.monotonic(), ""
        while process.poll() is None and not why:
            time.sleep(PAUSE)
            why = _beyond(limits, time.monotonic() - start, ours(), folder)
        while started := ours():
            _kill(started)
        process.wait()
        reader.join()
        process.stdout.close()
        _empty(folder)
    return why


def _read(lines: Iterable[str], tell: Callable[[str], None]) -> None:
    for line in lines:
        tell(line)


@contextmanager
def _family() -> Iterator[Callable[[], list[Any]]]:
    """Gives a function that lists the processes started inside. On Linux none escapes by losing its parent."""
    me = _psutil().Process()
    before = set(me.children(recursive=True))
    adopting = ctypes.CDLL(None).prctl if sys.platform.startswith("linux") else lambda *_: None
    adopting(CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield lambda: [one for one in me.children(recursive=True) if one not in before and _alive(one)]
    finally:
        adopting(CHILD_SUBREAPER, 0, 0, 0, 0)


def _psutil() -> Any:
    try:
        import psutil
    except ImportError:
        raise ImportError("grading needs psutil and IPython, which come with it: pip install ipykernel") from None
    return psutil


def _alive(process: Any) -> bool:
    """Whether it runs; one that has ended and was left to us is taken leave of."""
    psutil = _psutil()
    with suppress(psutil.NoSuchProcess):
        if process.status() != psutil.STATUS_ZOMBIE:
            return True
        with suppress(psutil.TimeoutExpired):
            process.wait(0)
    return False


def _kill(processes: list[Any]) -> None:
    psutil = _psutil()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=1)


def _beyond(limits: Limits, seconds: float, processes: list[Any], folder: Path) -> str:
    """Which limit has been passed, if any."""
    if seconds > limits.seconds:
        return f"It was stopped after {limits.seconds:g} seconds."
    if len(processes) > MANY_PROCESSES:
        return f"It was stopped with more than {MANY_PROCESSES} processes."
    if sum(map(_memory, processes)) > limits.memory:
        return f"It was stopped with more than {limits.memory / 2**30:g} gigabytes of memory."
    if _disk(folder) > DISK_BYTES:
        most = f"{DISK_BYTES // 2**20} megabytes of files, or {DEEPEST} folders within each other"
        return f"It was stopped with more than {most}."
    return ""


def _memory(process: Any) -> int:
    with suppress(_psutil().Error):
        return int(process.memory_info().rss)
    return 0


def _disk(folder: Path) -> float:
    """Bytes of the files in a folder; without end where they may lie too deep to be found."""
    used = 0
    for inside, _, names in os.walk(folder):
        if inside.count(os.sep) - str(folder).count(os.sep) > DEEPEST:
            return math.inf
        for name in names:
            with suppress(OSError):
                used += os.lstat(os.path.join(inside, name)).st_size
    return used


def _empty(folder: Path) -> None:
    """Remove what lies in a folder, however deep: what a folder holds moves up before it goes."""
    with suppress(OSError):
        while folders := [entry for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]:
            for one in folders:
                os.chmod(one, 0o700)
                for inside in list(os.scandir(one)):
                    if inside.is_dir(follow_symlinks=False):
                        os.chmod(inside, 0o700)
                    os.rename(inside, folder / uuid.uuid4().hex)
                os.rmdir(one)
        for file in list(os.scandir(folder)):
            os.unlink(file)
