"""The contestants of chapters 6 and 7, images, and their sizes: all within the budget in the experiment's name.

Coders are those of :func:`ebmm.coders.image_coders` throughout; contestants whose codes are as wide as those of our
slot memory start from the same autoencoder, trained beforehand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch import nn

from ebmm.baselines import (
    MANN,
    Autoencoder,
    DifferentiablePlasticity,
    InpaintingMemory,
    KanervaMachine,
    LSTMMemory,
    MemoryNetwork,
)
from ebmm.coders import image_coders
from ebmm.dense import DenseMemory
from ebmm.energies import ResNetConvEnergy
from ebmm.experiments.contest import Contestant
from ebmm.model import EBMM

NUMBER = 64  # patterns in a memory, as in the paper

LABELS = {  # for tables and figures, in their order
    "ebmm-linear": "EBMM, linear memory",
    "ebmm-hop": "EBMM, linear memory, two hops",
    "ebmm-conv": "EBMM, convolutional memory",
    "ebmm-slots": "EBMM, a slot each",
    "slot-memory": "Slot memory, ours (codes copied)",
    "memory-network": "Memory network, same coders",
    "autoencoder": "Autoencoder, told the slot",
    "ebmm-paper": "EBMM, the paper's network",
    "mann": "MANN",
    "kanerva": "Kanerva machine",
    "plasticity": "Plasticity",
    "lstm": "LSTM",
    "dense": "List of as many as fit",
    "inpainter": "Inpainter, no memory at all",
}

Shape = tuple[int, ...]


def paper_memory(energy: Callable[[], nn.Module]) -> EBMM:
    """The paper's own network: all patterns written at once by 5 steps, read by 5."""
    return EBMM(energy(), projection="straight-through", write_rate=(1e-2, 1e-4, 1e-4), read_rate=0.1)


def small_paper_memory(shape: Shape, memory_features: int) -> EBMM:
    """The same with half of all channels, 3 steps each, no gradient term, and 578 floats a memory feature.

    Example:
        >>> small_paper_memory((32, 32), 8).memory_floats
        4624
    """
    energy = ResNetConvEnergy(shape, memory_features, hidden=64, widths=(16, 32), inside=32, outside=64, head=256)
    return EBMM(
        energy, projection="straight-through", gradient_term=False, decay_term=False, write_steps=3, read_steps=3,
        write_rate=(0.03, 1e-4, 1e-4), read_rate=3.0,
    )  # fmt: skip


def slotted(kind: Callable[..., nn.Module], shape: Shape, number: int, width: int, level: float) -> nn.Module:
    """A memory with one slot a pattern: :class:`InpaintingMemory`, :class:`Autoencoder` or :class:`MemoryNetwork`."""
    return kind(shape, number, width, *image_coders(shape, width, level))


def list_memory(shape: Shape, floats: int) -> DenseMemory:
    """As many images as fit, at least one."""
    return DenseMemory(shape, max(1, floats // math.prod(shape)), beta=2.0, full="overwrite")


def mann(shape: Shape, floats: int, level: float, heads: int = 4, controller: int = 200) -> MANN:
    """A row a pattern, with what is left after each row's bookkeeping."""
    width = floats // NUMBER
    row = width - 1 - heads
    encoder, _ = image_coders(shape, width, level)
    _, decoder = image_coders(shape, controller + heads * row, level)
    return MANN(shape, NUMBER, row, heads, controller, encoder, decoder, code_width=width)


def kanerva_machine(shape: Shape, floats: int, level: float, number: int, width: int) -> KanervaMachine:
    """As many rows of our code's width as the budget allows beside their covariance, at most one for each image."""
    rows = int((math.sqrt((2 * width + 1) ** 2 + 8 * floats) - (2 * width + 1)) / 2)
    encoder, decoder = image_coders(shape, width, level)
    return KanervaMachine(shape, min(rows, number), width, encoder=encoder, decoder=decoder)


def lstm_memory(shape: Shape, floats: int, level: float, width: int = 128) -> LSTMMemory:
    """Four layers, whose outputs and cells are the memory."""
    hidden = floats // 8
    encoder, _ = image_coders(shape, width, level)
    _, decoder = image_coders(shape, 4 * hidden, level)
    return LSTMMemory(shape, hidden, 4, encoder, decoder, width)


def plasticity(shape: Shape, floats: int, level: float) -> DifferentiablePlasticity:
    """A symmetric trace of n(n + 1)/2 floats."""
    units = int((math.sqrt(8 * floats + 1) - 1) / 2)
    return DifferentiablePlasticity(shape, units, 3, *image_coders(shape, units, level))


def image_contestants(shape: Shape, floats: int, level: float, paper: Callable[[], nn.Module]) -> dict[str, Contestant]:
    """Every contestant for 64 images of shape S within ``floats``.

    Args:
        level: the images' mean grey, roughly.
        paper: makes the paper's energy at this budget.
    """
    same, sizes = (shape, floats, level), (NUMBER, floats // NUMBER)
    long = {"learning_rate": 1e-3, "memories": 4}
    return {
        "autoencoder": Contestant(
            partial(slotted, Autoencoder, shape, *sizes, level), {"steps": 6000, "learning_rate": 2e-3, "memories": 1}
        ),
        "slot-memory": Contestant(
            partial(slotted, InpaintingMemory, shape, *sizes, level),
            {"steps": 1200, "learning_rate": 2e-3, "memories": 1},
            start="autoencoder",
        ),
        "ebmm-paper": Contestant(
            partial(paper_memory, paper), {"steps": 20000, "learning_rate": 3e-4, "memories": 16, "clip": 0.3}
        ),
        "memory-network": Contestant(
            partial(slotted, MemoryNetwork, shape, *sizes, level), {"steps": 300, "learning_rate": 1e-2, "memories": 1},
            start="autoencoder",
        ),
        "mann": Contestant(partial(mann, *same), {"steps": 5000, **long}),
        "kanerva": Contestant(partial(kanerva_machine, *same, *sizes), {"steps": 3000, **long}, start="autoencoder"),
        "plasticity": Contestant(partial(plasticity, *same), {"steps": 5000, **long}),
        "lstm": Contestant(partial(lstm_memory, *same), {"steps": 3000, **long}),
        "dense": Contestant(partial(list_memory, shape, floats)),
    }  # fmt: skip
