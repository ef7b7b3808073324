"""What an experiment is: a task, and the memories that compete in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ebmm.tasks import Task


@dataclass(frozen=True)
class Contestant:
    """A memory in an experiment.

    Attributes:
        build: makes the memory, untrained.
        training: keyword arguments of :func:`ebmm.fit`, ``steps`` among them; ``None``: nothing to train.
        clamp: tell the memory which elements of a query are intact.
        start: the contestant of the same experiment whose trained coders this one starts its training with.
        prepare: sets, before the first step of training, what follows from patterns: given the memory and 4000 of them.
        lessons: what it is trained on instead of the experiment's task.
        home: the experiment in which it is trained, whose weights serve here; ``None``: this one.
    """

    build: Callable[[], Any]
    training: dict[str, Any] | None = None
    clamp: bool = False
    start: str | None = None
    prepare: Callable[[Any, Tensor], None] | None = None
    lessons: tuple[Task, ...] = ()
    home: str | None = None


@dataclass(frozen=True)
class Experiment:
    """A task and its contestants, by name.

    Attributes:
        name, about: for lists.
        task: what is trained on.
        contestants: by name.
        test: what is tested on; ``None``: the training task, whose patterns never come twice.
        weights: the experiment whose trained weights are evaluated here; ``None``: this one.
        after: the experiment whose trained weights of the same contestant training starts from; ``None``: none.
    """

    name: str
    about: str
    task: Task
    contestants: dict[str, Contestant] = field(default_factory=dict)
    test: Task | None = None
    weights: str | None = None
    after: str | None = None

    def home_of(self, contestant: str) -> str:
        """The experiment whose trained weights of a contestant are evaluated here."""
        return self.contestants[contestant].home or self.weights or self.name

    @property
    def tested(self) -> Task:
        """What is tested on, whether that is the training task or another one."""
        return self.test or self.task
