"""All experiments by name: strings, images, lessons, and tests on other data."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from torch import nn

from ebmm import datasets, tasks
from ebmm.energies import ResNetConvEnergy, ResNetLinearEnergy, resnet_conv_energy_64
from ebmm.experiments.contest import Contestant, Experiment
from ebmm.experiments.images import image_contestants, small_paper_memory
from ebmm.experiments.sharing import sharing_contestants
from ebmm.experiments.strings import (
    budget,
    contestants,
    hopfield_contestants,
    length_contestants,
    network_contestants,
    part_contestants,
    predictive_memory,
    size_contestants,
)
from ebmm.tasks import Task


def contest(name: str, about: str, task: Task, dim: int, homes: dict[str, str]) -> Experiment:
    """All contestants of chapter 5 at one task, each within d(d+1)/2 floats."""
    about = f"{about}; {budget(dim)} floats"
    return Experiment(name, about, task, contestants(task, dim, homes))


def by_name(experiments: Iterable[Experiment]) -> dict[str, Experiment]:
    """Experiments under their own names."""
    return {experiment.name: experiment for experiment in experiments}


REDRAWN = by_name(
    contest(
        f"{kind}-{number}",
        f"{dim} bits, {number} patterns, {dim // 2} random bits redrawn (Table 1 {words})",
        Task(tasks.RandomBits(dim), tasks.RedrawBits(dim // 2), number),
        dim,
        {"ebmm-hop": "redrawn-64-16", "ebmm-gated": gated} | ({"ebmm-slots": roomy} if number <= dim // 2 else {}),
    )
    for kind, dim, words, numbers, roomy, gated in (
        ("binary", 128, "of the paper", (16, 32, 48, 64, 96), "binary-32", "binary-32"),
        ("redrawn-64", 64, "at half the size", (8, 16, 24, 32, 48), "redrawn-64-16", "networks-64-16"),
    )
    for number in numbers
)

SIZES = by_name(
    Experiment(
        f"redrawn-{dim}-{eighths * dim // 8}",
        f"{dim} bits, {eighths * dim // 8} patterns, {dim // 2} random bits redrawn; {budget(dim)} floats",
        Task(tasks.RandomBits(dim), tasks.RedrawBits(dim // 2), eighths * dim // 8),
        size_contestants(dim, REDRAWN["redrawn-64-16"].contestants["ebmm-hop"]),
    )
    for dim in (32, 256, 512, 1024)
    for eighths in (1, 2, 3, 4)
)

OTHER_TASKS = by_name(
    contest(
        f"{kind}-{dim}-{number}",
        f"{dim} bits, {number} patterns, {words}",
        Task(source, corruption, number),
        dim,
        {"ebmm-hop": f"{kind}-64-{number * 64 // dim}"},
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
)


def networks_contest(number: int) -> Experiment:
    """Any network as the energy (chapter 4): what is trained on several numbers of strings is tested on one."""
    task = Task(tasks.RandomBits(64), tasks.RedrawBits(32), number)
    about = f"64 bits, {number} patterns, 32 random bits redrawn, six networks as the energy; {budget(64)} floats"
    return Experiment(f"networks-64-{number}", about, task, network_contestants(task, 64, "networks-64-16"))


def parts_contest() -> Experiment:
    """What each part of meta-learning is worth (chapter 5)."""
    home = "redrawn-64-16"
    full = REDRAWN[home].contestants
    parts = part_contestants({model: full[model] for model in ("ebmm-hop", "ebmm-slots", "ebmm-gated")}, home)
    about = f"64 bits, 16 patterns, 32 random bits redrawn, what is learned of each memory; {budget(64)} floats"
    return Experiment("parts-64-16", about, REDRAWN[home].task, parts)


NETWORKS = by_name(map(networks_contest, (8, 16)))


def lengths_contest() -> Experiment:
    """What longer training brings (chapter 4)."""
    home = NETWORKS["networks-64-16"]
    about = f"64 bits, 16 patterns, 32 random bits redrawn, networks trained for so many updates; {budget(64)} floats"
    return Experiment("lengths-64-16", about, home.task, length_contestants(home.contestants))


BLOCK_32, BLOCK_64, BITS_32 = tasks.NoiseBlock(16), tasks.NoiseBlock(32), tasks.NoiseBlock(16, binary=True)

INK = 0.3  # the grey level from which a pixel of a character counts as ink


# What is trained on, what is tested on. The few characters there are to train on come turned and shifted.
OMNIGLOT = (
    tasks.LazyImages(partial(datasets.omniglot, "background", size=32), INK, tasks.turned_and_shifted),
    tasks.LazyImages(partial(datasets.omniglot, "evaluation", size=32), INK),
)

CIFAR10 = (
    tasks.LazyImages(partial(datasets.cifar10, "train"), variations=tasks.mirrored),
    tasks.LazyImages(partial(datasets.cifar10, "test")),
)

TINY_IMAGENET = (
    tasks.LazyImages(partial(datasets.tiny_imagenet, "train"), variations=tasks.mirrored),
    tasks.LazyImages(partial(datasets.tiny_imagenet, "val")),
)

MNIST = tasks.LazyImages(partial(datasets.mnist, "test", size=32), INK)


def omniglot_contest(name: str, floats: int, paper: Callable[..., nn.Module]) -> Experiment:
    """64 characters a memory; nobody has seen the alphabets of the test."""
    return Experiment(
        name,
        f"64 Omniglot characters of 32 x 32, a 16 x 16 block replaced by noise; {floats} floats",
        Task(OMNIGLOT[0], BLOCK_32, 64),
        image_contestants((32, 32), floats, 0.1, partial(paper, (32, 32))),
        Task(OMNIGLOT[1], BLOCK_32, 64),
    )


def photograph_contest(
    name: str,
    about: str,
    floats: int,
    paper: Callable[..., nn.Module],
    size: int,
    block: tasks.NoiseBlock,
    sources: tuple[tasks.LazyImages, tasks.LazyImages],
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
    about = f"{about}; weights of {trained}"
    return replace(IMAGES[trained], name=name, about=about, test=Task(source, block, 64), weights=trained)


CONV_FLOATS = (2308, 3462, 4616, 9232, 11540, 13848, 16156)  # 1154 for each memory channel of the paper's network

LINEAR_FLOATS = (3084, 4112, 5140, 8224, 10794, 13878, 16448)  # 257 for each memory unit

IMAGES = by_name(
    [
        *(
            omniglot_contest(f"omniglot-{kind}-{floats}", floats, partial(energy, memory_features=floats // each))
            for kind, energy, each, sizes in (
                ("conv", ResNetConvEnergy, 1154, CONV_FLOATS),
                ("fc", ResNetLinearEnergy, 257, LINEAR_FLOATS),
            )
            for floats in sizes
        ),
        *(
            photograph_contest(
                f"cifar-conv-{floats}", "CIFAR-10 photographs", floats,
                partial(ResNetConvEnergy, memory_features=floats // 1154), 32, BLOCK_32, CIFAR10,
            )
            for floats in CONV_FLOATS
        ),
        photograph_contest(
            "imagenet64-conv", "Tiny-ImageNet photographs", 18448, resnet_conv_energy_64, 64, BLOCK_64, TINY_IMAGENET
        ),
    ]
)  # fmt: skip


def sharing_contest(kind: str, number: int, floats: int, slotted: int) -> Experiment:
    """Few images a memory, whose floats all of them share; slots are those of 64 images in ``slotted`` floats."""
    characters = kind == "omniglot"
    words, metric = ("Omniglot characters", "wrong bits") if characters else ("CIFAR-10 photographs", "squared error")
    train, test = (Task(source, BLOCK_32, number, metric) for source in (OMNIGLOT if characters else CIFAR10))
    shape, level = ((32, 32), 0.1) if characters else ((3, 32, 32), 0.5)
    name = f"{kind}-{number}-shared" + ("" if floats == 4616 else f"-{floats}")
    return Experiment(
        name,
        f"{number} {words} of 32 x 32, a 16 x 16 block replaced by noise, memories that share floats; {floats} floats",
        train,
        sharing_contestants(shape, number, floats, level, f"{kind}-conv-{slotted}", slotted // 64),
        test,
    )


SHARING = by_name(
    sharing_contest(kind, *sizes)
    for kind in ("omniglot", "cifar")
    for sizes in ((16, 4616, 16156), (32, 4616, 9232), (32, 9232, 16156), (64, 9232, 9232))
)


# The paper's network at a size that a CPU can train, on ever more characters: each lesson starts from the one before.
LESSONS = by_name(
    Experiment(
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
)

TRANSFER = by_name(
    other_test(f"{kind}-{floats}", words, f"omniglot-conv-{floats}", source, block)
    for kind, words, source, block in (
        ("mnist-conv", "64 MNIST digits, never trained on", MNIST, BLOCK_32),
        ("omniglot-bits", "64 Omniglot characters, a block of random bits", OMNIGLOT[1], BITS_32),
    )
    for floats in CONV_FLOATS
)

EXPERIMENTS = {
    "flipped-64-16": Experiment(
        "flipped-64-16",
        "64 bits, 16 patterns, 15 % of the bits flipped, 2080 floats (chapter 4)",
        Task(tasks.RandomBits(64), tasks.FlipBits(0.15), 16),
        {
            "ebmm-predictive": Contestant(
                partial(predictive_memory, 64), {"steps": 10000, "learning_rate": 2e-3, "memories": 16}
            )
        }
        | hopfield_contestants(64),
    ),
    **REDRAWN,
    **SIZES,
    **OTHER_TASKS,
    **NETWORKS,
    "parts-64-16": parts_contest(),
    "lengths-64-16": lengths_contest(),
    **IMAGES,
    **SHARING,
    **LESSONS,
    **TRANSFER,
}


def find(name: str, contestant: str | None = None) -> tuple[Experiment, list[str]]:
    """An experiment by its name, such as "redrawn-64-48", and the names of all its contestants or of the one chosen.

    Raises:
        ValueError: no such experiment or contestant; the message lists those there are.
    """
    if name not in EXPERIMENTS:
        raise ValueError(f"no experiment {name!r}: choose from {', '.join(EXPERIMENTS)}")
    experiment = EXPERIMENTS[name]
    if contestant is not None and contestant not in experiment.contestants:
        raise ValueError(f"{name} has no model {contestant!r}: choose from {', '.join(experiment.contestants)}")
    return experiment, list(experiment.contestants) if contestant is None else [contestant]
