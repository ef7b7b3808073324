"""Energy-based memory models: patterns written into the weights of an energy network, read by descent."""

from ebmm import baselines, datasets, energies, exercises, experiments, glyphs, layers, plotting, tasks, widgets
from ebmm.evaluation import evaluate
from ebmm.hopfield import DenseMemory, Hopfield
from ebmm.memory import Memory
from ebmm.model import EBMM
from ebmm.tasks import Batch, Task
from ebmm.training import History, TrainingError, fit

__version__ = "0.1.0"

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
    "datasets",
    "energies",
    "evaluate",
    "exercises",
    "experiments",
    "fit",
    "glyphs",
    "layers",
    "plotting",
    "tasks",
    "widgets",
]
