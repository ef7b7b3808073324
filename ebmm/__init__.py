"""Energy-based memory models: patterns written into the weights of an energy network, read by descent."""

from ebmm import baselines, coders, datasets, energies, experiments, layers, tasks
from ebmm._repository import VERSION
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
    "tasks",
]
