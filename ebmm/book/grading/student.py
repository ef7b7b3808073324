"""The process of one student: runs the cells of a notebook, then hands over answers and tries their functions.

It is started by :mod:`ebmm.book.grading.judge`, which asks; nothing that happens here decides on a mark.
"""

from __future__ import annotations

import contextlib
import copy
import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any, BinaryIO

import torch
from torch import nn

from ebmm.book.grading import noting
from ebmm.book.grading.crossing import METHODS, pack, receive, send
from ebmm.model import EBMM

ANSWER = re.compile(r"(?m)^(?:def |class )?answer_(\d+)_(\d+) *[=(:]")


def main() -> None:
    """Talk with the judge through what were standard input and output; what students print goes nowhere."""
    questions, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nowhere:
        for stream in (0, 1, 2):
            os.dup2(nowhere.fileno(), stream)
    Notebook(**pickle.loads(receive(questions, sys.maxsize))).answer(questions, replies)


class Notebook:
    """A notebook that has run, and what it left.

    Args:
        cells: the sources of its code.
        until: when the cell at work is interrupted, and those behind it are left out, as ``time.time`` tells it.
    """

    def __init__(self, cells: list[str], until: float):
        self.kept: list[Any] = []
        self.raised: dict[str, str] = {}
        self.shell = _shell()
        with _interrupted(until):
            for cell in cells:
                if time.time() < until:
                    self._run(cell)

    def _run(self, cell: str) -> None:
        done = self.shell.run_cell(cell, store_history=False)
        error = done.error_before_exec or done.error_in_exec
        if error is not None:
            for chapter, number in ANSWER.findall(cell):
                self.raised.setdefault(f"{chapter}.{number}", f"{type(error).__name__}: {error}")
        if re.search(r"(?m)^FAST\b", cell):  # the cell of parameters
            self.shell.user_ns["FAST"] = True
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")

    def answer(self, questions: BinaryIO, replies: BinaryIO) -> None:
        """Reply to each question until there are no more."""
        while True:
            try:
                question = receive(questions, sys.maxsize)
            except EOFError:
                return
            try:
                kind, *asked = pickle.loads(question)
                reply = getattr(self, f"_{kind}")(*asked)
                content = pack(reply, self._keep)
            except BaseException as error:  # whatever an answer may raise: the judge tells it
                content = pack({"error": (type(error).__name__, str(error)[:2000])}, self._keep)
            send(replies, content)

    def _handed_in(self, number: str) -> dict[str, Any]:
        """What the notebook calls answer_3_2; where that is nothing, what it gave last to check("3.2", ...)."""
        answer = self.shell.user_ns.get(f"answer_{number.replace('.', '_')}")
        answer = noting.noted.get(number) if answer is None else answer
        return {"value": answer, "raised": self.raised.get(number, "")}

    def _call(
        self, place: int, method: str, arguments: tuple[Any, ...], named: dict[str, Any], gradients: bool, random: bytes
    ) -> dict[str, Any]:
        """A method of something that stayed here, or that itself, with PyTorch in the state that the judge's has."""
        called = getattr(self.kept[place], method) if method else self.kept[place]
        torch.set_default_dtype(torch.float32)
        torch.set_rng_state(torch.frombuffer(bytearray(random), dtype=torch.uint8))
        with torch.set_grad_enabled(gradients), torch.device("cpu"):
            return {"value": called(*arguments, **named)}

    def _copy(self, place: int) -> dict[str, Any]:
        copied = copy.deepcopy(self.kept[place])
        return {"value": copied.cpu().float() if isinstance(copied, nn.Module) else copied}

    def _keep(self, value: Any) -> dict[str, Any]:
        """Keep something that cannot cross; returns what the judge must know to stand for it."""
        self.kept.append(value)
        of_class = isinstance(value, type)
        return {
            "place": len(self.kept) - 1,
            "type": type(value).__name__,
            "callable": callable(value),
            "module": isinstance(value, nn.Module),
            "ebmm": isinstance(value, EBMM),
            "methods": [] if of_class else [name for name in METHODS if callable(getattr(value, name, None))],
            "memory_floats": None if of_class else _number(getattr(value, "memory_floats", None)),
        }


def _number(value: Any) -> int | float | None:
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, int) else float(value) if isinstance(value, float) else None


def _shell() -> Any:
    """IPython, as it runs notebooks, without its history on the disk."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    return InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))


@contextlib.contextmanager
def _interrupted(until: float) -> Iterator[None]:
    """KeyboardInterrupt when the time is up, as from a hand at the keyboard: a cell ends, and so does the notebook."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt("the notebook took too long")

    if sys.platform == "win32":  # which has no such signal: there, the whole notebook is stopped in the end
        yield
        return
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, max(until - time.time(), 0.001))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
