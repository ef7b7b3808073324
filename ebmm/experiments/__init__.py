"""Named experiments: what ``python -m ebmm train`` and ``evaluate`` run, and what the chapters read.

An experiment is a task and its contestants, the memories that compete in it; files of results and the command line
call a contestant's name ``model``. Trained weights lie in ``data/checkpoints/EXPERIMENT-MODEL.safetensors``, results
in ``data/results/EXPERIMENT.json``.
"""

from ebmm.experiments.catalogue import CONV_FLOATS, EXPERIMENTS, INK, LESSONS, LINEAR_FLOATS, find
from ebmm.experiments.contest import Contestant, Experiment
from ebmm.experiments.entries import ContractError, enter
from ebmm.experiments.results import shipped_rows
from ebmm.experiments.runs import Ready, checkpoint_of, ready, train
from ebmm.experiments.weights import is_ready, load_contestant, owner_of

__all__ = [
    "CONV_FLOATS",
    "EXPERIMENTS",
    "INK",
    "LESSONS",
    "LINEAR_FLOATS",
    "Contestant",
    "ContractError",
    "Experiment",
    "Ready",
    "checkpoint_of",
    "enter",
    "find",
    "is_ready",
    "load_contestant",
    "owner_of",
    "ready",
    "shipped_rows",
    "train",
]
