"""Named experiments: what ``python -m ebmm train`` and ``evaluate`` run, and what the chapters read.

An experiment is a task and the memories that compete in it. A trained memory's weights lie in
``data/checkpoints/EXPERIMENT-MODEL.safetensors`` with the training spent in the file's metadata;
results lie in ``data/results/EXPERIMENT.json``.
"""

from ebmm.experiments.catalogue import CONV_FLOATS, EXPERIMENTS, INK, LESSONS, LINEAR_FLOATS, find
from ebmm.experiments.contest import Contestant, Experiment
from ebmm.experiments.entries import ContractError, enter
from ebmm.experiments.results import shipped_rows
from ebmm.experiments.runs import evaluate_contestant, is_ready, load_contestant, train

__all__ = [
    "CONV_FLOATS",
    "EXPERIMENTS",
    "INK",
    "LESSONS",
    "LINEAR_FLOATS",
    "Contestant",
    "ContractError",
    "Experiment",
    "enter",
    "evaluate_contestant",
    "find",
    "is_ready",
    "load_contestant",
    "shipped_rows",
    "train",
]
