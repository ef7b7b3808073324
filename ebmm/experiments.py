"""Named experiments: what ``python -m ebmm train`` and ``evaluate`` run, and what the chapters read.

An experiment is a task and the memories that compete in it. A trained memory's weights lie in
``data/checkpoints/EXPERIMENT-MODEL.safetensors`` with the training spent in the file's metadata;
results lie in ``data/results/EXPERIMENT.json``.
"""

from __future__ import annotations

import copy
import json
import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ebmm import datasets, files, photographs, tasks
from ebmm.contestants import Contestant, budget, contestants, hopfield_contestants, predictive_memory
from ebmm.evaluation import describe_device, evaluate, load_results, versions, write_and_read_apart
from ebmm.image_contestants import image_contestants, small_paper_memory
from ebmm.image_energies import ResNetConvEnergy, ResNetLinearEnergy, resnet_conv_energy_64
from ebmm.memory import floats_held
from ebmm.model import EBMM
from ebmm.tasks import Task
from ebmm.training import History, fit, pick_device, rank_and_processes


@dataclass(frozen=True)
class Experiment:
    """A task and its contestants, by name.

    Attributes:
        name, about: for lists.
        task: what is trained on.
        contestants: by name.
        test: what is evaluated on; ``None``: the training task, whose patterns never come twice.
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


def contest(name: str, about: str, task: Task, dim: int) -> Experiment:
    """All contestants of chapter 5 at one task, each within d(d+1)/2 floats."""
    about = f"{about}; {budget(dim)} floats"
    return Experiment(name, about, task, contestants(dim, task.number))


REDRAWN = {
    **{
        f"binary-{number}": contest(
            f"binary-{number}",
            f"128 bits, {number} patterns, 64 random bits redrawn (Table 1 of the paper)",
            Task(tasks.RandomBits(128), tasks.RedrawBits(64), number),
            128,
        )
        for number in (16, 32, 48, 64, 96)
    },
    **{
        f"redrawn-64-{number}": contest(
            f"redrawn-64-{number}",
            f"64 bits, {number} patterns, 32 random bits redrawn (Table 1 at half the size)",
            Task(tasks.RandomBits(64), tasks.RedrawBits(32), number),
            64,
        )
        for number in (8, 16, 24, 32, 48)
    },
}

OTHER_TASKS = {
    f"{kind}-{dim}-{number}": contest(
        f"{kind}-{dim}-{number}", f"{dim} bits, {number} patterns, {words}", Task(source, corruption, number), dim
    )
    for dim in (64, 128)
    for kind, number, words, source, corruption in (
        ("flipped", dim // 2, "15 % of the bits flipped", tasks.RandomBits(dim), tasks.FlipBits(0.15)),
        ("erased", dim // 2, "half of the bits erased to 0", tasks.RandomBits(dim), tasks.EraseBits(dim // 2)),
        (
            "correlated",
            dim,
            "correlated bits, half of them redrawn",
            tasks.CorrelatedBits(dim, factors=dim // 4, noise=0.05),
            tasks.RedrawBits(dim // 2),
        ),
    )
}

# Images

BLOCK_32, BLOCK_64, BITS_32 = tasks.NoiseBlock(16), tasks.NoiseBlock(32), tasks.NoiseBlock(16, binary=True)
INK = 0.3  # the grey level from which a pixel of a character counts as ink


# What is trained on, what is tested on. The few characters there are to train on come turned and shifted.
OMNIGLOT = (
    tasks.LazyImages(partial(datasets.omniglot, "background", size=32), INK, tasks.turned_and_shifted),
    tasks.LazyImages(partial(datasets.omniglot, "evaluation", size=32), INK),
)
CIFAR10 = (
    tasks.LazyImages(partial(photographs.cifar10, "train"), variations=tasks.mirrored),
    tasks.LazyImages(partial(photographs.cifar10, "test")),
)
TINY_IMAGENET = (
    tasks.LazyImages(partial(photographs.tiny_imagenet, "train"), variations=tasks.mirrored),
    tasks.LazyImages(partial(photographs.tiny_imagenet, "val")),
)
MNIST = tasks.LazyImages(partial(datasets.mnist, "test", size=32), INK)


def omniglot_contest(name: str, floats: int, paper: Callable) -> Experiment:
    """64 characters a memory; nobody has seen the alphabets of the test."""
    return Experiment(
        name,
        f"64 Omniglot characters of 32 x 32, a 16 x 16 block replaced by noise; {floats} floats",
        Task(OMNIGLOT[0], BLOCK_32, 64),
        image_contestants((32, 32), floats, 0.1, partial(paper, (32, 32))),
        Task(OMNIGLOT[1], BLOCK_32, 64),
    )


def photograph_contest(
    name: str, about: str, floats: int, paper: Callable, size: int, block: tasks.NoiseBlock, sources: tuple
) -> Experiment:
    """64 photographs a memory."""
    train, test = (Task(source, block, 64, "squared error") for source in sources)
    shape = (3, size, size)
    return Experiment(
        name,
        f"64 {about} of {size} x {size}, a block of half the side replaced by noise; {floats} floats",
        train,
        image_contestants(shape, floats, 0.5, partial(paper, shape)),
        test,
    )


def other_test(name: str, about: str, trained: str, source: tasks.LazyImages, block: tasks.NoiseBlock) -> Experiment:
    """Weights of another experiment, tested on other images or other noise."""
    experiment = IMAGES[trained]
    return replace(
        experiment,
        name=name,
        about=f"{about}; weights of {trained}",
        test=Task(source, block, 64),
        weights=trained,
    )


CONV_FLOATS = (2308, 3462, 4616, 9232, 11540, 13848, 16156)  # 1154 for each memory channel of the paper's network
LINEAR_FLOATS = (3084, 4112, 5140, 8224, 10794, 13878, 16448)  # 257 for each memory unit

IMAGES = {
    **{
        f"omniglot-conv-{floats}": omniglot_contest(
            f"omniglot-conv-{floats}", floats, partial(ResNetConvEnergy, dyn=floats // 1154)
        )
        for floats in CONV_FLOATS
    },
    **{
        f"omniglot-fc-{floats}": omniglot_contest(
            f"omniglot-fc-{floats}", floats, partial(ResNetLinearEnergy, dyn=floats // 257)
        )
        for floats in LINEAR_FLOATS
    },
    **{
        f"cifar-conv-{floats}": photograph_contest(
            f"cifar-conv-{floats}", "CIFAR-10 photographs", floats,
            partial(ResNetConvEnergy, dyn=floats // 1154), 32, BLOCK_32, CIFAR10,
        )
        for floats in CONV_FLOATS
    },
    "imagenet64-conv": photograph_contest(
        "imagenet64-conv", "Tiny-ImageNet photographs", 18448,
        resnet_conv_energy_64, 64, BLOCK_64, TINY_IMAGENET,
    ),
}  # fmt: skip

# The paper's network at a size that a CPU can train, on ever more characters: each lesson starts from the one before.
LESSONS = {
    f"omniglot-lesson-{number}": Experiment(
        f"omniglot-lesson-{number}",
        f"{number} Omniglot character{'s' if number > 1 else ''}, a small network of the paper's kind, 4624 floats",
        Task(OMNIGLOT[0], BLOCK_32, number),
        {"ebmm-paper": Contestant(partial(small_paper_memory, (32, 32), 8), training)},
        Task(OMNIGLOT[1], BLOCK_32, number),
        after=before,
    )
    for number, before, training in (
        (1, None, {"steps": 1200, "memories": 16}),
        (2, "omniglot-lesson-1", {"steps": 2000, "memories": 8}),
        (4, "omniglot-lesson-2", {"steps": 2000, "memories": 6}),
        (8, "omniglot-lesson-4", {"steps": 2000, "memories": 3}),
        (16, "omniglot-lesson-8", {"steps": 2000, "memories": 2}),
    )
}

TRANSFER = {
    **{
        f"mnist-conv-{floats}": other_test(
            f"mnist-conv-{floats}", "64 MNIST digits, never trained on", f"omniglot-conv-{floats}", MNIST, BLOCK_32
        )
        for floats in CONV_FLOATS
    },
    **{
        f"omniglot-bits-{floats}": other_test(
            f"omniglot-bits-{floats}", "64 Omniglot characters, a block of random bits",
            f"omniglot-conv-{floats}", OMNIGLOT[1], BITS_32,
        )
        for floats in CONV_FLOATS
    },
}  # fmt: skip

EXPERIMENTS = {
    "flipped-64-16": Experiment(
        "flipped-64-16",
        "64 bits, 16 patterns, 15 % of the bits flipped, 2080 floats (chapter 4)",
        Task(tasks.RandomBits(64), tasks.FlipBits(0.15), 16),
        {"ebmm": Contestant(partial(predictive_memory, 64), {"steps": 10000, "learning_rate": 2e-3, "memories": 16})}
        | hopfield_contestants(64),
    ),
    **REDRAWN,
    **OTHER_TASKS,
    **IMAGES,
    **LESSONS,
    **TRANSFER,
}


def find(name: str, model: str | None = None) -> tuple[Experiment, list[str]]:
    """An experiment and the names of its chosen contestants.

    Args:
        name: of the experiment, such as "redrawn-64-48"; ``python -m ebmm list`` names them all.
        model: one contestant; ``None``: all of them.

    Returns:
        The experiment and a list of names.

    Raises:
        ValueError: no such experiment or contestant; the message lists those there are.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}: choose from {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    if model is not None and model not in experiment.contestants:
        raise ValueError(f"{name} has no model {model!r}: choose from {', '.join(experiment.contestants)}")
    return experiment, list(experiment.contestants) if model is None else [model]


def train(name: str, model: str, out: str | os.PathLike, *, device: str = "auto", seed: int = 0, **changes) -> History:
    """Train a contestant and save its weights, in half precision.

    Within :func:`ebmm.training.process_group` all processes call it, and the first one saves.

    Args:
        name, model: the experiment and its contestant.
        out: the safetensors file to write. The state to resume from lies beside it, with the suffix
            ``.training``.
        device: as for :func:`ebmm.fit`.
        seed: of the start weights and of the task's generator.
        changes: keyword arguments of :func:`ebmm.fit` that replace the experiment's.

    Returns:
        What :func:`ebmm.fit` returns.

    Raises:
        ValueError: no such experiment or contestant, or one that needs no training; the weights that training
            starts from are missing or do not fit.
        ConnectionError: they must be downloaded and cannot be.
    """
    from safetensors.torch import save_file

    experiment, _ = find(name, model)
    contestant = experiment.contestants[model]
    if contestant.training is None:
        raise ValueError(f"{model} of {name} needs no training")
    if experiment.weights is not None:
        raise ValueError(f"{name} only tests: train {experiment.weights} instead")
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    memory = contestant.build()
    started_from = None
    if contestant.start is not None:
        trained, started_from = _beside_or_shipped(name, contestant.start, out)
        _start_with_coders_of(memory, trained)
    elif experiment.after is not None:
        trained, started_from = _beside_or_shipped(experiment.after, model, out)
        memory.load_state_dict(trained.state_dict())
    changes = {name: value for name, value in changes.items() if value is not None}
    settings = contestant.training | changes
    rank, processes = rank_and_processes()
    command = ["torchrun", f"--nproc-per-node={processes}"] if processes > 1 else ["python"]
    command += ["-m", "ebmm", "train", name, "--model", model, "--seed", str(seed)]
    command += ["--device", device, "--out", str(out)]
    for option in ("steps", "memories", "precision"):
        command += [f"--{option}", str(changes[option])] if option in changes else []
    history = fit(
        memory, experiment.task, device=device, seed=seed, checkpoint=out.with_suffix(".training"), **settings
    )
    training = {
        "experiment": name,
        "model": model,
        "command": shlex.join(command),
        "seed": seed,
        "settings": settings,
        "steps": len(history.rows),
        "skipped": history.skipped,
        "minutes": round(history.seconds / 60, 2),
        "started from": started_from,
        "processes": processes,
        "device": describe_device(pick_device(device)),
        "versions": versions(),
    }
    # Half precision halves what readers download; rows are evaluated from the file, so they know of it.
    state = {
        key: (tensor.half() if tensor.is_floating_point() else tensor).cpu().contiguous()
        for key, tensor in memory.state_dict().items()
    }
    if rank == 0:
        save_file(state, out, metadata={"training": json.dumps(training)})
    return history


def _beside_or_shipped(name: str, model: str, out: Path) -> tuple[nn.Module, dict]:
    """A trained contestant that another one's training starts from, and the training spent on it."""
    beside = out.with_name(f"{name}-{model}.safetensors")
    if not beside.exists() and not is_ready(name, model):
        raise ValueError(
            f"training starts from the weights of {model}, which are neither beside {out} nor shipped: "
            f"train {model} of {name} first, with --out {beside}"
        )
    return load_contestant(name, model, beside if beside.exists() else None)


def _start_with_coders_of(memory: nn.Module, trained: nn.Module) -> None:
    """Copy another contestant's trained coders, to stay."""
    owner = memory.energy_network if isinstance(memory, EBMM) else memory
    for coder in ("encoder", "decoder"):
        own = owner.get_submodule(coder)
        own.load_state_dict(trained.get_submodule(coder).state_dict())
        own.requires_grad_(False)
    if isinstance(memory, EBMM):  # which is to write these codes as they are
        owner.get_submodule("memory").requires_grad_(False)
        memory.raw_write_rates.requires_grad_(False)


def _weights_of(name: str, model: str) -> str:
    return f"checkpoints/{EXPERIMENTS[name].weights or name}-{model}.safetensors"


def is_ready(name: str, model: str) -> bool:
    """Whether a contestant can be evaluated as it is shipped: its weights are there, or it needs none.

    Example:
        >>> is_ready("flipped-64-16", "ebmm"), is_ready("binary-16", "lstm")
        (True, False)
    """
    experiment, _ = find(name, model)
    return experiment.contestants[model].training is None or _weights_of(name, model) in files.data_files()


def load_contestant(name: str, model: str, path: str | os.PathLike | None = None) -> tuple[nn.Module, dict]:
    """A contestant ready for use, and the training spent on it (empty for one that needs none).

    Args:
        name, model: the experiment and its contestant.
        path: weights that :func:`train` wrote; ``None`` takes those shipped with the book.

    Raises:
        ValueError: no such experiment or contestant, weights that are not shipped, or a file that does not hold them.
        FileNotFoundError: no file at ``path``.
        ConnectionError: the weights must be downloaded and cannot be.
    """
    from safetensors import SafetensorError, safe_open

    experiment, _ = find(name, model)
    contestant = experiment.contestants[model]
    memory = contestant.build()
    if contestant.training is None:
        return memory, {}
    path = files.data_path(_weights_of(name, model)) if path is None else path
    try:
        with safe_open(path, framework="pt") as file:
            memory.load_state_dict({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
            training = json.loads(file.metadata()["training"])
    except (RuntimeError, SafetensorError, TypeError, KeyError) as error:
        raise ValueError(f"{path} does not hold weights of {model} for {name}: {error}") from error
    return memory.eval(), training


def evaluate_contestant(
    name: str,
    model: str,
    *,
    memories: int = 1000,
    seed: int = 1,
    device: str = "auto",
    weights: str | os.PathLike | None = None,
) -> dict:
    """Evaluate a contestant and return its row of results.

    Args:
        name, model: the experiment and its contestant.
        memories, seed: as for :func:`ebmm.evaluate`.
        device: as for :func:`ebmm.fit`.
        weights: as ``path`` of :func:`load_contestant`.

    Returns:
        What :func:`ebmm.evaluate` returns, with experiment, model, training and command.

    Raises:
        ValueError, ConnectionError: as for :func:`ebmm.evaluate` and :func:`load_contestant`.
    """
    experiment, _ = find(name, model)
    task = experiment.test or experiment.task
    memory, training = load_contestant(name, model, weights)
    where = pick_device(device)
    row = evaluate(
        memory.to(where), task, memories, seed=seed, device=str(where),
        clamp=experiment.contestants[model].clamp,
    )  # fmt: skip
    command = ["python", "-m", "ebmm", "evaluate", name, "--model", model, "--memories", str(memories)]
    command += ["--seed", str(seed), *(["--weights", str(weights)] if weights else [])]
    row["steps trained"] = training.get("steps", 0)
    row["data"] = _data_of(task)
    return {"experiment": name, "model": model, **row, "training": training, "command": shlex.join(command)}


def enter(
    name: str, label: str, memory: Any, *, memories: int = 1000, seed: int = 1, clamp: bool = False
) -> dict[str, Any]:
    """Evaluate a memory of your own in an experiment, and return its row for the tables of the others.

    Args:
        name: of the experiment.
        label: what the memory is called in tables, none of the contestants' names.
        memory: any object with ``write``, ``read`` and ``memory_floats``, trained or not; a module is evaluated where
            its parameters are. It may hold as many floats as the largest contestant. Copies of it write and read.
        memories, seed, clamp: as for :func:`ebmm.evaluate`; with these memories and this seed, it is asked what the
            contestants were asked for the rows that the book ships.

    Returns:
        What :func:`ebmm.evaluate` returns, with experiment, model (the label) and data.

    Raises:
        ValueError: no such experiment, a contestant's name as label, more floats than the experiment allows, or more
            of them in what ``write`` returns than ``memory_floats`` says; a
            :class:`~ebmm.evaluation.ContractError` where more than that travels to ``read``.

    Example:
        >>> from ebmm import DenseMemory
        >>> memory = DenseMemory(64, 32, full="overwrite")
        >>> row = enter("redrawn-64-48", "a list", memory, memories=10)
        >>> row["model"], row["memory_floats"], row["mean"] < 16
        ('a list', 2048, True)

    Explained on the page "Use it".
    """
    experiment, contestants = find(name)
    task = experiment.test or experiment.task
    if label in contestants:
        raise ValueError(f"{label!r} is the name of a contestant of {name}: choose another one")
    with torch.random.fork_rng(devices=[]):
        built: list[Any] = [contestant.build() for contestant in experiment.contestants.values()]
    most = max(contestant.memory_floats for contestant in built)
    if memory.memory_floats > most:
        raise ValueError(f"{label!r} holds {memory.memory_floats} floats, and {name} allows {most}")
    parameters = memory.parameters() if isinstance(memory, nn.Module) else ()
    where = next((parameter.device for parameter in parameters), torch.device("cpu"))
    batch = task.sample(1, torch.Generator().manual_seed(seed)).to(where)
    written, _ = write_and_read_apart(memory, batch, **({"clamp": batch.intact} if clamp else {}))
    held = floats_held(written)
    if held > memory.memory_floats:
        said = f"the memory_floats of {label!r} are {memory.memory_floats}"
        raise ValueError(f"{said}, but what write returns holds {held:g}: {written}")
    row = evaluate(copy.deepcopy(memory), task, memories, seed=seed, clamp=clamp)
    return {"experiment": name, "model": label, **row, "data": _data_of(task)}


def _data_of(task: Task) -> str:
    return task.source.name if isinstance(task.source, tasks.LazyImages) else repr(task.source)


def shipped_rows(names: Iterable[str]) -> list[dict]:
    """Rows of the results files that come with the book; an experiment that has not been run has none.

    Args:
        names: of experiments.

    Raises:
        ValueError: no such experiment, or a damaged file.
        ConnectionError: a file must be downloaded and cannot be.

    Example:
        >>> rows = shipped_rows(["flipped-64-16", "flipped-128-64"])
        >>> {row["model"] for row in rows} >= {"ebmm", "hebb"}
        True
    """
    shipped = files.data_files()
    paths = [f"results/{find(name)[0].name}.json" for name in names]
    return [row for path in paths if path in shipped for row in load_results(files.data_path(path))]


def show_contestant(
    name: str,
    model: str,
    number: int,
    path: str | os.PathLike,
    *,
    seed: int = 1,
    device: str = "auto",
    weights: str | os.PathLike | None = None,
) -> None:
    """Save a picture of what a contestant recalls, beside the queries and the originals.

    Args:
        name, model: the experiment and its contestant.
        number: how many patterns to show, at least 1; they are the first of one memory, which holds all N.
        path: the PNG file to write.
        seed: of the task's generator: the memory is the first that :func:`evaluate_contestant` sees.
        device, weights: as for :func:`evaluate_contestant`.

    Raises:
        ValueError: number out of range; also as for :func:`load_contestant`.
        ConnectionError: as for :func:`load_contestant`.
    """
    import matplotlib.pyplot as plt

    from ebmm.plotting import show_patterns, use_style

    experiment, _ = find(name, model)
    task = experiment.test or experiment.task
    if not 1 <= number <= task.number:
        raise ValueError(f"a memory of {name} holds {task.number} patterns, asked to show {number}")
    memory: Any = load_contestant(name, model, weights)[0]
    where = pick_device(device)
    memory.to(where)
    batch = task.sample(1, torch.Generator().manual_seed(seed)).to(where)
    told = {"clamp": batch.intact} if experiment.contestants[model].clamp else {}
    with torch.no_grad():
        recalled = memory.read(batch.queries, memory.write(batch.patterns), **told)
    rows = {"query": batch.queries, "recalled": recalled, "original": batch.patterns}
    with plt.rc_context():
        use_style()
        figure = show_patterns({label: images[0, :number] for label, images in rows.items()})
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
        plt.close(figure)
