"""The memories that EBMM is compared with, and our slot memory for images: each from its equations, one contract."""

from ebmm.baselines.autoencoder import Autoencoder
from ebmm.baselines.inpainter import Inpainter
from ebmm.baselines.inpainting import InpaintingMemory
from ebmm.baselines.kanerva import KanervaMachine
from ebmm.baselines.lstm import LSTMMemory
from ebmm.baselines.mann import MANN
from ebmm.baselines.memory_network import MemoryNetwork
from ebmm.baselines.plasticity import DifferentiablePlasticity

__all__ = [
    "MANN",
    "Autoencoder",
    "DifferentiablePlasticity",
    "Inpainter",
    "InpaintingMemory",
    "KanervaMachine",
    "LSTMMemory",
    "MemoryNetwork",
]
