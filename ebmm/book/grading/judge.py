"""The process that judges one notebook: it starts the student's process, asks it, and prints each verdict.

What is asked, how an answer is judged and what is printed are decided here. A student's process only replies, with
data: where a judge calls a function of an answer, what it calls here stands for it, and the call is made there.
"""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import nn

from ebmm.book.exercises import Verdict, check, use_variant
from ebmm.book.grading import fence
from ebmm.book.grading.crossing import METHODS, MOST_BYTES, receive, send, unpack
from ebmm.model import EBMM

WORDS = 300  # letters of what a student's process says that are passed on


class Ended(BaseException):
    """The student's process is no more. No judge takes this for an error of an answer."""


class Student:
    """A student's process, which runs a notebook and then replies.

    Args:
        command: starts it.
        folder: where it works.
        environment: all variables that it sees.
        cells, until: as for :class:`ebmm.book.grading.student.Notebook`.
    """

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str], cells: list[str], until: float):
        self._process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
        )
        self._questions, self._replies = cast(BinaryIO, self._process.stdin), cast(BinaryIO, self._process.stdout)
        self._send({"cells": cells, "until": until})

    def ask(self, *question: Any) -> dict[str, Any]:
        """The reply to a question; what it raised there, as an error of the same name."""
        self._send(question)
        try:
            content = receive(self._replies, MOST_BYTES + 2**20)
        except EOFError:
            raise Ended(self._end()) from None
        reply: Any = unpack(content, self._standing_for)
        match reply:
            case {"error": (str(name), str(text))}:
                raise type(name if name.isidentifier() else "Error", (RuntimeError,), {})(text[:WORDS])
            case {"value": _}:
                return cast(dict[str, Any], reply)
        raise ValueError("what was handed over is no reply")

    def call(self, place: int, method: str, *arguments: Any, **named: Any) -> Any:
        """What a method of something there returns, or that itself where none is named; it draws our random numbers."""
        random = torch.get_rng_state().numpy().tobytes()
        torch.rand(1)  # the next call draws others
        return self.ask("call", place, method, arguments, named, torch.is_grad_enabled(), random)["value"]

    def end(self) -> None:
        """Ask nothing more, and let it go."""
        self._process.kill()
        self._process.wait()

    def _send(self, question: Any) -> None:
        try:
            send(self._questions, pickle.dumps(question))
        except OSError:
            raise Ended(self._end()) from None

    def _end(self) -> str:
        status = self._process.wait()
        how = f"by signal {-status}" if status < 0 else f"with exit status {status}"
        return f"The notebook ended its process {how}: nothing more could be judged."

    def _standing_for(self, told: dict[str, Any]) -> Any:
        """An object that stands here for something that stayed there, and can do as much of it as judges ask for."""
        kind = (EBMM,) if told["ebmm"] else (nn.Module,) if told["module"] else ()
        members: dict[str, Any] = {name: _called_there(name) for name in METHODS if name in told["methods"]}
        if told["callable"]:
            members["__call__"] = _called_there("")
        if told["memory_floats"] is not None:
            members["memory_floats"] = told["memory_floats"]
        return type(str(told["type"])[:WORDS], (Kept, *kind), members)(self, int(told["place"]))


class Kept:
    """Stands for something that stayed in a student's process."""

    def __init__(self, student: Student, place: int):
        if isinstance(self, nn.Module):
            nn.Module.__init__(self)
        self._student, self._place = student, place

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self._student.ask("copy", self._place)["value"]


def _called_there(name: str) -> Callable[..., Any]:
    def method(self: Kept, *arguments: Any, **named: Any) -> Any:
        return self._student.call(self._place, name, *arguments, **named)

    return method


def verdicts(student: Student, numbers: list[str]) -> Iterator[Verdict]:
    """The verdict on each exercise, one after the other; on all that are left, once the student's process has ended."""
    ended = ""
    for number in numbers:
        try:
            yield Verdict(number, False, ended) if ended else _verdict(student, number)
        except Ended as reason:
            ended = str(reason)
            yield Verdict(number, False, ended)


def _verdict(student: Student, number: str) -> Verdict:
    try:
        handed_in = student.ask("handed_in", number)
    except (RuntimeError, ValueError) as error:
        return Verdict(number, False, f"The answer could not be handed over: {error}.")
    given = check(number, handed_in["value"])
    raised = str(handed_in.get("raised", ""))[:WORDS]
    return Verdict(number, given.right, f"{given.reason} Its cell raised {raised}." if raised else given.reason)


def main() -> None:
    """Judge the notebook that standard input tells of; a line of standard output for each verdict."""
    job = json.load(sys.stdin)
    folder = Path(job["folder"])
    command = fence.fenced(
        [sys.executable, "-m", "ebmm.book.grading.student"],
        writable=[folder], readable=[folder, *map(Path, job["readable"])],
        hidden=list(map(Path, job["hidden"])), memory=job["memory"],
    )  # fmt: skip
    student = Student(command, folder, job["environment"], job["cells"], job["until"])
    if job["seed"]:
        use_variant(job["seed"])
    for one in verdicts(student, job["numbers"]):
        print(json.dumps([one.number, one.right, one.reason]), flush=True)
    student.end()
