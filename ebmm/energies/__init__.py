"""Energy networks: modules that map patterns (..., *S) to one scalar each, (...).

Any ``torch.nn.Module`` of that kind is an energy for :class:`ebmm.EBMM`. Those here are built from memory layers, so
that all memories are computed in one batch. Each names its ``writable`` parameters (the memory; all else is only
meta-learned) and its ``pattern_shape``.

Patterns lie in [0, 1]; every energy first maps them to the coordinates ``2x − 1``, in which a bit is ±1.
"""

from ebmm.energies.association import AssociationEnergy, convolutional_association, linear_association
from ebmm.energies.gated import GatedRNNEnergy
from ebmm.energies.margins import HopEnergy, MarginEnergy, SharedNetwork
from ebmm.energies.picture_slots import PictureSlotEnergy
from ebmm.energies.resnet import ResNetConvEnergy, ResNetLinearEnergy, resnet_conv_energy_64
from ebmm.energies.slots import CodedSlotEnergy, DenseEnergy, SlotEnergy
from ebmm.energies.vectors import MLPEnergy, PredictiveEnergy, QuadraticEnergy

__all__ = [
    "AssociationEnergy",
    "CodedSlotEnergy",
    "DenseEnergy",
    "GatedRNNEnergy",
    "HopEnergy",
    "MLPEnergy",
    "MarginEnergy",
    "PictureSlotEnergy",
    "PredictiveEnergy",
    "QuadraticEnergy",
    "ResNetConvEnergy",
    "ResNetLinearEnergy",
    "SharedNetwork",
    "SlotEnergy",
    "convolutional_association",
    "linear_association",
    "resnet_conv_energy_64",
]
