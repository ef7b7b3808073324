"""How an answer is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from ebmm.book.exercises.variant import Drawn, variant, variant_in_use, with_letters, with_options


@dataclass(frozen=True, repr=False)
class Verdict:
    """What a check says of an answer. It is true where the answer is right, and prints as a sentence.

    Attributes:
        number: of the exercise, such as "3.2".
        right: whether the answer is right.
        reason: why, or why not.

    Example:
        >>> Verdict("3.2", False, "The slope has the wrong sign.")
        3.2: not yet. The slope has the wrong sign.
    """

    number: str
    right: bool
    reason: str

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return f"{self.number}: {'right' if self.right else 'not yet'}. {self.reason}"


class NotYet(Exception):
    """Raised by a judge; its message is the reason."""


@dataclass(frozen=True)
class Exercise:
    """An exercise whose answer can be checked.

    Attributes:
        wanted: what the answer must be, to follow the words "Wanted:".
        judge: takes the answer, and where something is drawn the values of the variant; returns what is right about
            the answer, or raises NotYet.
        drawn: what is drawn for a variant.
        choices: the choices between letters, by name, in the order in which the text lists their options.
    """

    wanted: str
    judge: Callable[..., str]
    drawn: Drawn | None = None
    choices: Mapping[str, str] = field(default_factory=dict)

    def judged(self, answer: Any) -> str:
        """What the judge says of an answer, by the variant in use."""
        return self.judge(answer, self.drawn.values(variant_in_use())) if self.drawn else self.judge(answer)

    def text_in(self, source: str, seed: int) -> str:
        """The book's text of the exercise as it is in a variant."""
        filled = self.drawn.filled(self.drawn.text, source, seed) if self.drawn else source
        return with_options(self.choices, filled, seed)

    def solution_in(self, source: str, seed: int) -> str:
        """The book's solution as it is in a variant."""
        filled = self.drawn.filled(self.drawn.solution, source, seed) if self.drawn else source
        return with_letters(self.choices, filled, seed)


EXERCISES: dict[str, Exercise] = {}
"""All exercises by number, in the order of the book."""


def exercise(
    number: str, wanted: str, drawn: Drawn | None = None, choices: Mapping[str, str] | None = None
) -> Callable[[Callable[..., str]], Callable[..., str]]:
    """Enter the decorated judge as that of an exercise."""

    def enter(judge: Callable[..., str]) -> Callable[..., str]:
        EXERCISES[number] = Exercise(wanted, judge, drawn, choices or {})
        return judge

    return enter


def need(condition: Any, reason: str) -> None:
    """Raise NotYet with the reason, where the condition does not hold."""
    if not condition:
        raise NotYet(reason)


def check(number: str | float, answer: Any, seed: int | None = None) -> Verdict:
    """Tell whether an answer to an exercise is right, and if not, why.

    Args:
        number: of the exercise, such as "1.1" or 1.1.
        answer: what the exercise says that it wants. It is not changed, and neither is the state of PyTorch's
            random numbers.
        seed: of the variant to judge by; by default the one that ``use_variant`` has set, else the book.

    Returns:
        A verdict, true where the answer is right. As the last expression of a cell it shows as a sentence.

    Raises:
        ValueError: no such exercise, or no such variant.

    Example:
        >>> check("1.1", None)
        1.1: not yet. Nothing was handed in. Wanted: the matrix W, a tensor of shape (6, 6).

    Explained at the end of each chapter.
    """
    number = str(number)
    if number not in EXERCISES:
        raise ValueError(f"no exercise {number!r}: choose from {', '.join(EXERCISES)}")
    asked = EXERCISES[number]
    if answer is None:
        return Verdict(number, False, f"Nothing was handed in. Wanted: {asked.wanted}.")
    with variant(variant_in_use() if seed is None else seed), _plain_torch():
        try:
            return Verdict(number, True, asked.judged(answer))
        except NotYet as reason:
            return Verdict(number, False, str(reason))
        except Exception as error:  # whatever a student's function may raise
            raised = f"Trying it raised {type(error).__name__}: {error}."
            return Verdict(number, False, f"{raised} Wanted: {asked.wanted}.")


@contextmanager
def _plain_torch() -> Iterator[None]:
    """PyTorch as it starts, whatever has been set before; afterwards that, and the random numbers, are as before."""
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())), torch.enable_grad(), torch.device("cpu"):
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
