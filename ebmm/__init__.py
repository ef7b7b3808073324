"""Energy-based memory models: patterns written into the weights of an energy network, read by descent."""

from ebmm import baselines, coders, datasets, energies, experiments, layers, tasks
from ebmm._repository import VERSION
from ebmm.bank import MemoryBank, read_in_parts
from ebmm.dense import DenseMemory
from ebmm.evaluation import evaluate
from ebmm.gradients import check_gradients
from ebmm.history import History
from ebmm.hopfield import Hopfield
from ebmm.memory import Memory
from ebmm.model import EBMM
from ebmm.tasks import Batch, Task
from ebmm.training import TrainingError, fit

__version__ = VERSION

__all__ = [
    "EBMM",
    "Batch",
    "DenseMemory",
    "History",
    "Hopfield",
    "Memory",
    "MemoryBank",
    "Task",
    "TrainingError",
    "baselines",
    "check_gradients",
    "coders",
    "datasets",
    "energies",
    "evaluate",
    "experiments",
    "fit",
    "layers",
    "read_in_parts",
    "tasks",
]
