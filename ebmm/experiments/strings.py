"""The contestants of chapter 5, binary strings, and their sizes: all within one budget.

The budget for patterns of d bits is d(d+1)/2 floats, what a Hopfield network's symmetric matrix holds
with its diagonal: 8256 at d = 128, as in the paper, and 2080 at d = 64. Each size below is the largest
that fits. Training settings were chosen in short trials, of which no record was kept (chapter 5).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from torch import nn

from ebmm.baselines import MANN, DifferentiablePlasticity, KanervaMachine, LSTMMemory, MemoryNetwork
from ebmm.baselines.mann import rows_and_width
from ebmm.coders import Decoder, Encoder, packing_coders
from ebmm.dense import DenseMemory
from ebmm.energies import (
    CodedSlotEnergy,
    GatedRNNEnergy,
    HopEnergy,
    MarginEnergy,
    PredictiveEnergy,
    SlotEnergy,
)
from ebmm.experiments import networks
from ebmm.experiments.contest import Contestant
from ebmm.hopfield import Hopfield
from ebmm.model import EBMM
from ebmm.tasks import CorrelatedBits, Task

RULES = ("hebb", "storkey", "pseudo-inverse")


def budget(dim: int) -> int:
    """Memory floats for patterns of ``dim`` bits, d(d+1)/2."""
    return dim * (dim + 1) // 2


def slots_and_width(dim: int, number: int) -> tuple[int, int]:
    """One slot for each pattern, as wide as the budget allows, but not wider than the pattern.

    Example:
        >>> slots_and_width(128, 64), slots_and_width(128, 96)
        ((64, 128), (96, 86))
    """
    return number, min(dim, budget(dim) // number)


def predictive_memory(dim: int, hidden: int = 128) -> EBMM:
    """A symmetric matrix that predicts, (4.12) of chapter 4: d(d+1)/2 floats written by 5 steps and read by 5."""
    return EBMM(PredictiveEnergy(dim, hidden), gradient_term=False, write_rate=(0.1, 1e-4, 1e-4), read_rate=0.3)


def hop_memory(dim: int) -> EBMM:
    """Several hops through a symmetric memory, all patterns written at once by 6 steps, read by 8."""
    model = EBMM(HopEnergy(dim), **HopEnergy.settings)
    model.energy_network.memory.requires_grad_(False)  # it starts at 0 for patterns of any size
    return model


def network_memory(dim: int, network: Callable[..., nn.Module] | None, width: int) -> EBMM:
    """Any network on a memory that works from the start, all patterns written at once by 6 steps, read by 5."""
    energy = MarginEnergy(dim, network and network(dim, width), width)
    return EBMM(energy, **HopEnergy.settings | {"read_steps": 5, "write_rate": 0.15})


def slot_memory(dim: int, number: int, correlated: bool = False) -> EBMM:
    """A place for each pattern, for its code where room is short; written one by one by one step each.

    For ``correlated`` patterns it is made for the coders of the memory network, whose codes have numbers of about 3,
    and a full slot costs more, since overlaps are larger. Price and reading were chosen on other memories of the task.

    What an energy charges for a full slot stays as it is: patterns that collide are rare, and make for gradients so
    large that training leaves them out, so that it would learn too low a price.
    """
    slots, width = slots_and_width(dim, number)
    settings = SlotEnergy.settings
    energy: SlotEnergy | CodedSlotEnergy
    if correlated:
        energy = CodedSlotEnergy(dim, slots, width, *packing_coders(dim, width), price=1.6, share=0.5, scale=3.0)
        settings = settings | {"write_rate": 2.0, "read_steps": 10, "read_rate": 0.03}
    elif width < dim:
        energy = CodedSlotEnergy(dim, slots, width, share=0.5)
        settings = settings | {"write_rate": 2.0}
    else:
        energy = SlotEnergy(dim, budget(dim) // dim)
    for fixed in (energy.price, energy.power):
        fixed.requires_grad_(False)
    return EBMM(energy, **settings)


def gated_memory(dim: int, hidden: int, hops: int) -> EBMM:
    """The paper's network: at d = 128, hidden 1024 and 5 hops it is the paper's own size."""
    energy = GatedRNNEnergy(dim, memory_features=dim // 2, hidden=hidden, hops=hops)
    return EBMM(
        energy, projection="straight-through", gradient_term=False, write_rate=(1e-2, 1e-4, 1e-4), read_rate=0.1
    )


def plain_memory_network(dim: int, number: int) -> MemoryNetwork:
    """With perceptrons before and behind the slots, which do not know from the start how to pack bits."""
    slots, width = slots_and_width(dim, number)
    return MemoryNetwork(dim, slots, width, Encoder(dim, width), Decoder(width, dim))


def kanerva_machine(dim: int, number: int) -> KanervaMachine:
    """A row for each pattern while codes stay longer than patterns, and codes as long as the rest allows."""
    rows = min(number, 3 * dim // 8)
    read_steps = 12 if number <= dim // 4 else 8
    return KanervaMachine(dim, rows, (budget(dim) - rows * (rows + 1) // 2) // rows, read_steps)


def lstm_memory(dim: int) -> LSTMMemory:
    """As many layers as keep its arithmetic bearable: 4 at d = 64, 8 at d = 128."""
    layers = dim // 16
    return LSTMMemory(dim, budget(dim) // (2 * layers), layers, width=dim)


def hopfield_contestants(dim: int) -> dict[str, Contestant]:
    """The three rules, each run freely and with the intact bits clamped."""
    free = {rule: Contestant(partial(Hopfield, dim, rule)) for rule in RULES}
    return free | {f"{rule}-clamped": Contestant(partial(Hopfield, dim, rule), clamp=True) for rule in RULES}


def lessons(task: Task, dim: int, *parts: int) -> tuple[Task, ...]:
    """The same task for so many eighths of d patterns each."""
    return tuple(replace(task, number=part * dim // 8) for part in parts)


def contestants(task: Task, dim: int, homes: dict[str, str]) -> dict[str, Contestant]:
    """Every contestant at a task with patterns of d bits: EBMMs, the rivals that are trained, those that are not.

    Args:
        homes: where contestants are trained that serve several experiments, by their names.
    """
    number = task.number
    slots, width = slots_and_width(dim, number)

    room = min(number, budget(dim) // dim)
    memories = 16 if dim <= 64 else 8
    correlated = isinstance(task.source, CorrelatedBits)
    slotted = {"steps": 2000 if dim <= 64 else 3000, "learning_rate": 5e-3, "memories": memories}
    return {
        "ebmm-hop": Contestant(
            partial(hop_memory, dim),
            {"steps": 5000, "learning_rate": 3e-3, "memories": 8, "clip": 0.5, "late": True},
            lessons=lessons(task, dim, 1, 2, 2, 3, 3, 4) if number < dim else lessons(task, dim, 2, 4, 8),
            home=homes.get("ebmm-hop"),
        ),
        "ebmm-slots": Contestant(
            partial(slot_memory, dim, number, correlated),
            # Short codes are decoded at each step of writing, which takes seconds an update.
            {"learning_rate": 1e-3, "late": True, "joining": 0.2}
            | ({"steps": 100, "memories": 2} if width < dim else {"steps": 600, "memories": 8}),
            lessons=lessons(task, dim, 1, 2, 4) if number <= dim // 2 else (), home=homes.get("ebmm-slots"),
            start="memory-network" if correlated else None,
        ),
        "ebmm-predictive": Contestant(partial(predictive_memory, dim), {"steps": 3000, "learning_rate": 2e-3}),
        "ebmm-gated": network_contestant(task, dim, "ebmm-gated", homes.get("ebmm-gated")),
        "ebmm-paper": Contestant(partial(gated_memory, dim, 2 * dim, 3), {"steps": 3000, "learning_rate": 4e-3}),
        "memory-network": Contestant(partial(MemoryNetwork, dim, slots, width), slotted),
        "memory-network-plain": Contestant(partial(plain_memory_network, dim, number), slotted),
        "mann": Contestant(
            partial(MANN, dim, *rows_and_width(budget(dim), number)), {"steps": 2000, "learning_rate": 1.5e-3}
        ),
        "kanerva": Contestant(
            partial(kanerva_machine, dim, number),
            {"steps": 2000, "learning_rate": 3e-3 if number <= dim // 4 else 5e-3},
        ),
        "plasticity": Contestant(partial(DifferentiablePlasticity, dim, dim), {"steps": 2000}),
        "lstm": Contestant(
            partial(lstm_memory, dim),
            {"steps": 500 if dim <= 64 else 200, "learning_rate": 3e-3, "memories": memories},
        ),
        "dense": Contestant(partial(DenseMemory, dim, room, beta=2.0, full="overwrite")),
    } | hopfield_contestants(dim)  # fmt: skip


def size_contestants(dim: int, hops: Contestant) -> dict[str, Contestant]:
    """What can be asked at a size that nobody was trained on: hops trained at their home, and the rules."""
    return {"ebmm-hop": replace(hops, build=partial(hop_memory, dim))} | hopfield_contestants(dim)


def learning_only(build: Callable[[], EBMM], *kinds: str) -> EBMM:
    """A memory of which only the rates, the start or the static weights are learned: ``kinds`` are some of these."""
    model = build()
    for name, parameter in model.named_parameters():
        of_energy = name.removeprefix("energy_network.")
        kind = "rates" if of_energy == name else "start" if of_energy in model.writable else "static"
        parameter.requires_grad_(kind in kinds)
    return model


def part_contestants(full: dict[str, Contestant], home: str) -> dict[str, Contestant]:
    """Of each memory: nothing learned, the rates alone, the start and the rates, and everything, trained at home."""
    parts = {"untrained": (), "rates": ("rates",), "start": ("rates", "start")}
    made = {}
    for model, whole in full.items():
        for part, kinds in parts.items():
            build = partial(learning_only, whole.build, *kinds)
            made[f"{model}-{part}"] = replace(whole, build=build, training=whole.training if kinds else None, home=None)
        made[model] = replace(whole, home=whole.home or home)
    return made


NETWORKS = {  # features that each gives, and steps of meta-training, some minutes of one core
    "ebmm-margin": (None, 0, 2000),
    "ebmm-perceptron": (networks.Perceptron, 128, 4000),
    "ebmm-residual": (networks.ResidualPerceptron, 128, 3000),
    "ebmm-gated": (networks.GatedRecurrent, 128, 3000),
    "ebmm-attention": (networks.BitAttention, 32, 1500),
    "ebmm-convolution": (networks.Convolution, 32, 2000),
    "ebmm-mixture": (networks.Mixture, 256, 4000),
}

LENGTHS = {  # other numbers of steps than in NETWORKS
    "ebmm-gated": (750, 1500, 6000),
    "ebmm-attention": (4500,),
    "ebmm-convolution": (6000,),
}


def network_contestant(task: Task, dim: int, model: str, home: str | None) -> Contestant:
    """Any network as the energy, on margins that remember before they are trained."""
    network, width, steps = NETWORKS[model]
    parts = (1, 2, 2, 3) if task.number <= dim // 4 else (1, 2, 3, 4) if task.number < dim else (2, 4, 8)
    return Contestant(
        partial(network_memory, dim, network, width),
        {"steps": steps, "learning_rate": 5e-3, "memories": 8, "clip": 0.5, "late": True, "optimiser": "muon"},
        lessons=lessons(task, dim, *parts), home=home,
    )  # fmt: skip


def network_contestants(task: Task, dim: int, home: str) -> dict[str, Contestant]:
    """The memory that all start from, and six networks on it."""
    return {model: network_contestant(task, dim, model, home) for model in NETWORKS}


def length_contestants(full: dict[str, Contestant]) -> dict[str, Contestant]:
    """Three networks of NETWORKS, the same with other numbers of steps, and one by AdamW at its own learning rate."""
    made = {}
    for model, lengths in LENGTHS.items():
        whole = made[model] = full[model]
        for steps in lengths:
            made[f"{model}-{steps}"] = replace(whole, training=dict(whole.training or {}, steps=steps), home=None)
    gated = full["ebmm-gated"]
    by_adamw = dict(gated.training or {}, optimiser="adamw", learning_rate=2e-3)
    return made | {"ebmm-gated-adamw": replace(gated, training=by_adamw, home=None)}
