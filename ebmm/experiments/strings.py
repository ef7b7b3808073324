"""The contestants of chapter 5, binary strings, and their sizes: all within one budget.

The budget for patterns of d bits is d(d+1)/2 floats, what a Hopfield network's symmetric matrix holds
with its diagonal: 8256 at d = 128, as in the paper, and 2080 at d = 64. Each size below is the largest
that fits. Training settings are those found best for each rival in trials of the same length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ebmm.baselines import MANN, DifferentiablePlasticity, KanervaMachine, LSTMMemory, MemoryNetwork
from ebmm.baselines.mann import rows_and_width
from ebmm.coders import Decoder, Encoder, packing_coders, sign_coders
from ebmm.dense import DenseMemory
from ebmm.energies import CompressedDenseEnergy, GatedRNNEnergy, PredictiveEnergy
from ebmm.experiments.contest import Contestant
from ebmm.hopfield import Hopfield
from ebmm.model import EBMM

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


def compressed_dense_memory(dim: int, number: int, coders: Callable = packing_coders) -> EBMM:
    """Our entry: slots of codes, written one after the other by one gradient step each, read by one."""
    slots, width = slots_and_width(dim, number)
    energy = CompressedDenseEnergy(dim, slots, width, *coders(dim, width))
    return EBMM(
        energy, write_steps=1, read_steps=1, sequential=True, gradient_term=False, decay_term=False,
        write_rate=2.0, read_rate=0.25,
    )  # fmt: skip


def predictive_memory(dim: int, hidden: int = 128) -> EBMM:
    """The memory of chapter 4: d(d+1)/2 floats written by 5 steps and read by 5."""
    return EBMM(PredictiveEnergy(dim, hidden), gradient_term=False, write_rate=(0.1, 1e-4, 1e-4), read_rate=0.3)


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


def contestants(dim: int, number: int) -> dict[str, Contestant]:
    """Every contestant for N patterns of d bits: our entries, the rivals that are trained, those that are not."""
    slots, width = slots_and_width(dim, number)
    room = min(number, budget(dim) // dim)
    memories = 16 if dim <= 64 else 8
    slotted = {"steps": 2000 if dim <= 64 else 3000, "learning_rate": 5e-3, "memories": memories}
    return {
        # Where each bit has a number of its own there is little to learn.
        "ebmm": Contestant(
            partial(compressed_dense_memory, dim, number),
            {"steps": 3000 if width < dim else 300, "learning_rate": 5e-3, "memories": 8},
        ),
        "ebmm-linear": Contestant(
            partial(compressed_dense_memory, dim, number, sign_coders),
            {"steps": 1000 if width < dim else 100, "learning_rate": 3e-3, "memories": 8},
        ),
        "ebmm-predictive": Contestant(partial(predictive_memory, dim), {"steps": 3000, "learning_rate": 2e-3}),
        "ebmm-gated": Contestant(partial(gated_memory, dim, 2 * dim, 3), {"steps": 3000, "learning_rate": 4e-3}),
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
    } | hopfield_contestants(dim)
