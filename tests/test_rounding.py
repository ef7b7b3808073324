"""Memories whose numbers are rounded, and how many bits they need."""

import pytest
import torch

from ebmm import DenseMemory, Memory, tasks
from ebmm.metrics import errors
from ebmm.rounding import bits_needed, rounded

TASK = tasks.Task(tasks.RandomBits(64), tasks.FlipBits(0.1), number=8)


def test_each_number_is_off_by_at_most_half_a_step_within_the_range_of_its_column():
    others, held = Memory({"slots": torch.rand(6, 9, 4) * torch.tensor([1.0, 2, 3, 4])}), torch.rand(3, 9, 4)
    span = others["slots"].flatten(0, 1).amax(0) - others["slots"].flatten(0, 1).amin(0)
    low = others["slots"].flatten(0, 1).amin(0)
    inside = low + held * span
    for bits in (1, 2, 5):
        coarse = rounded(Memory({"slots": inside}), bits, others)["slots"]
        assert ((coarse - inside).abs() <= 1.2 * span / (2**bits - 1) / 2 + 1e-6).all()
        assert max(len(coarse[..., column].unique()) for column in range(4)) <= 2**bits
    beyond = rounded(Memory({"slots": low + 2 * span + torch.zeros(1, 2, 4)}), 3, others)["slots"]
    torch.testing.assert_close(beyond, (low + 1.1 * span).expand(1, 2, 4))


def test_a_column_that_never_varies_keeps_its_number():
    like = Memory({"kept": torch.ones(2, 3)})
    assert torch.equal(rounded(Memory({"kept": torch.ones(4, 3)}), 2, like)["kept"], torch.ones(4, 3))


class TenLevels(DenseMemory):
    """Patterns scaled by numbers from 0.1 to 1, which reading needs exactly enough to tell."""

    def write(self, patterns, memory=None):
        scale = torch.linspace(0.1, 1, patterns.shape[1])[:, None]
        return Memory({"slots": patterns, "scale": scale.expand(len(patterns), -1, 1)})

    def read(self, query, memory, trajectory=False):
        true = torch.linspace(0.1, 1, query.shape[1])[:, None]
        return torch.where((memory["scale"] - true).abs() < 0.004, memory["slots"], 1 - memory["slots"])


def test_the_fewest_bits_are_found():
    batch, others = (TASK.sample(3, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    model = TenLevels(64, 8)
    bits = bits_needed(model, batch, others, TASK.metric)
    memory, like = model.write(batch.patterns), model.write(others.patterns)

    def error(bits):
        read = model.read(batch.queries, rounded(memory, bits, like))
        return errors(read, batch.patterns, TASK.metric).mean().item()

    assert error(bits) == 0 < min(error(fewer) for fewer in range(1, bits))
    assert bits_needed(model, batch, others, TASK.metric, within=1e9) == bits  # of nothing, any share is nothing


def test_a_memory_that_no_rounding_serves_is_refused():
    class Exact(TenLevels):
        def read(self, query, memory, trajectory=False):
            true = torch.linspace(0.1, 1, query.shape[1])[:, None]
            return torch.where(memory["scale"] == true, memory["slots"], 1 - memory["slots"])

    batch, others = (TASK.sample(1, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    with pytest.raises(ValueError, match="Exact has more than"):
        bits_needed(Exact(64, 8), batch, others, TASK.metric)
    with pytest.raises(ValueError, match="within must be at least 0"):
        bits_needed(TenLevels(64, 8), batch, others, TASK.metric, within=-1)
    with pytest.raises(ValueError, match="bits must be at least 1"):
        rounded(Memory({"slots": torch.ones(1, 2)}), 0, Memory({"slots": torch.ones(1, 2)}))
