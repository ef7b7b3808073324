"""The contestants of chapters 6 and 7 for few images: memories whose floats all images share, slots, and rivals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ebmm.baselines import Autoencoder, Inpainter, InpaintingMemory, MemoryNetwork
from ebmm.descent import inverse_softplus
from ebmm.energies import AssociationEnergy, PictureSlotEnergy, convolutional_association, linear_association
from ebmm.experiments.contest import Contestant
from ebmm.experiments.images import kanerva_machine, list_memory, plasticity, slotted
from ebmm.model import EBMM

Shape = tuple[int, ...]

CODES_AND_KEYS = {4616: ((72, 64), (8, 64)), 9232: ((96, 96), (16, 64))}  # of the linear memory, and of the convolution


def association(
    make: Callable[..., AssociationEnergy], shape: Shape, sizes: tuple[int, int], level: float, read_rate: float
) -> EBMM:
    """A memory whose floats all images share, written in six steps of its energy's gradient and read in four.

    Example:
        >>> sizes = (32, 32), (72, 64)
        >>> association(linear_association, *sizes, level=0.1, read_rate=0.6).memory_floats
        4608
    """
    energy = make(shape, *sizes, level)
    model = EBMM(energy, **energy.settings | {"read_rate": read_rate})
    with torch.no_grad():  # large steps first, which later ones correct
        for raw, rate in zip(model.raw_write_rates, torch.linspace(0.8, 0.4, model.write_steps), strict=True):
            raw[0] = inverse_softplus(rate.item())
    return model


def picture_slots(shape: Shape, number: int, floats: int, level: float, read_rate: float) -> EBMM:
    """A slot for each picture, written by its energy's gradient.

    Example:
        >>> picture_slots((32, 32), 16, 4616, level=0.1, read_rate=0.6).memory_floats
        4608
    """
    energy = PictureSlotEnergy(shape, number, floats // number - 1, level)
    return EBMM(energy, **energy.settings | {"read_rate": read_rate})


def start(model: EBMM, patterns: Tensor) -> None:
    """Codes are principal components, and keys, where there are some, independent for different patterns."""
    energy: Any = model.energy_network
    energy.start_with(patterns)


def sharing_contestants(
    shape: Shape, number: int, floats: int, level: float, home: str, width: int
) -> dict[str, Contestant]:
    """Every contestant for few images within ``floats``.

    Args:
        level: the images' mean grey, roughly.
        home, width: the experiment with 64 images whose slots serve here, and floats of such a slot.
    """
    linear, convolutional = CODES_AND_KEYS[floats]
    read_rate = 0.6 if len(shape) == 2 else 0.2
    trained = {"steps": 3000, "learning_rate": 2e-3, "memories": 2, "late": True, "optimiser": "muon"}
    long = {"steps": 5000, "learning_rate": 1e-3, "memories": 4}
    shared: dict[str, tuple[Callable[..., AssociationEnergy], tuple[int, int]]] = {
        "ebmm-linear": (linear_association, linear),
        "ebmm-hop": (partial(linear_association, hops=2), linear),
        "ebmm-conv": (convolutional_association, convolutional),
    }
    slots = {"slot-memory": InpaintingMemory, "memory-network": MemoryNetwork, "autoencoder": Autoencoder}
    return {
        **{
            model: Contestant(
                partial(association, make, shape, sizes, level, read_rate),
                trained, prepare=start,
            )
            for model, (make, sizes) in shared.items()
        },
        "ebmm-slots": Contestant(
            partial(picture_slots, shape, number, floats, level, read_rate),
            trained | {"steps": 1500, "learning_rate": 5e-4}, prepare=start,
        ),
        **{
            model: Contestant(partial(slotted, kind, shape, number, width, level), {}, home=home)
            for model, kind in slots.items()
        },
        "kanerva": Contestant(
            partial(kanerva_machine, shape, floats, level, number, width), long | {"learning_rate": 3e-4},
            start="autoencoder",
        ),
        "plasticity": Contestant(partial(plasticity, shape, floats, level), long),
        "dense": Contestant(partial(list_memory, shape, floats)),
        "inpainter": Contestant(partial(Inpainter, shape), trained),
    }  # fmt: skip
