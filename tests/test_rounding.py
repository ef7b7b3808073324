"""Memories whose numbers are rounded, and how many bits they need."""

import pytest
import torch

from ebmm import Memory, tasks
from ebmm.rounding import bits_needed, rounded

TASK = tasks.Task(tasks.RandomBits(64), tasks.FlipBits(0.1), number=8)


def drawn(*seeds, memories=3):
    return [TASK.sample(memories, torch.Generator().manual_seed(seed)) for seed in seeds]


def test_each_number_is_off_by_at_most_half_a_step_within_the_range_of_its_column():
    others, held = Memory({"slots": torch.rand(6, 9, 4) * torch.tensor([1.0, 2, 3, 4])}), torch.rand(3, 9, 4)
    columns = others["slots"].flatten(0, 1)
    span, low = 8 * columns.std(0, correction=0), columns.mean(0) - 4 * columns.std(0, correction=0)
    inside = low + held * span
    for bits in (1, 2, 5, 16):
        coarse = rounded(Memory({"slots": inside}), bits, others)["slots"]
        assert ((coarse - inside).abs() <= span / (2**bits - 1) / 2 + 1e-6).all()
        assert max(len(coarse[..., column].unique()) for column in range(4)) <= 2**bits
    beyond = rounded(Memory({"slots": low + 2 * span + torch.zeros(1, 9, 4)}), 3, others)["slots"]
    torch.testing.assert_close(beyond, (low + span).expand(1, 9, 4))


def test_what_is_rare_is_in_the_range():
    column = torch.zeros(1, 100, 1)
    column[0, 7] = 50.0
    held = Memory({"slots": column})
    torch.testing.assert_close(rounded(held, 16, held)["slots"], column, atol=1e-3, rtol=0)


@pytest.mark.parametrize("shape", [(5,), (5, 7), (5, 2, 3, 4)])
def test_what_are_no_rows_has_one_range(shape):
    held = torch.arange(5 * 2 * 3 * 4.0)[: torch.Size(shape).numel()].reshape(shape)
    coarse = rounded(Memory({"kept": held}), 2, Memory({"kept": held}))["kept"]
    assert coarse.shape == shape and len(coarse.unique()) <= 4
    step = 8 * held.std(correction=0) / 3
    assert (coarse - held).abs().max() <= step / 2 + 1e-4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_column_that_never_varies_keeps_its_number(value, dtype):
    held = Memory({"kept": torch.full((4, 2, 3), value, dtype=dtype)})
    for bits in (1, 16):
        coarse = rounded(held, bits, held[:2])["kept"]
        assert coarse.dtype == dtype and torch.equal(coarse, held["kept"])


def test_what_is_beyond_a_column_that_never_varies_gets_its_number():
    coarse = rounded(Memory({"kept": torch.tensor([[[-4.0, 6.0]]])}), 4, Memory({"kept": torch.ones(3, 1, 2)}))["kept"]
    assert torch.equal(coarse, torch.ones(1, 1, 2))


def test_a_column_that_varies_little_is_told_from_one_that_never_does():
    held = 1 + 1e-6 * torch.rand(2, 50, 1).double()
    coarse = rounded(Memory({"kept": held}), 16, Memory({"kept": held}))["kept"]
    torch.testing.assert_close(coarse, held, atol=1e-10, rtol=0)


@pytest.mark.parametrize(
    ("bits", "like", "words"),
    [
        (0, torch.ones(1, 2), "bits must be at least 1"),
        (17, torch.ones(1, 2), "bits must be at most 16"),
        (4, torch.ones(3, 1), "like must hold tensors of the memory's shapes"),
        (4, torch.tensor([[1.0, float("nan")]]), "like must hold finite numbers"),
    ],
)
def test_what_cannot_be_rounded_is_refused(bits, like, words):
    with pytest.raises(ValueError, match=words):
        rounded(Memory({"kept": torch.ones(1, 2)}), bits, Memory({"kept": like}))


class Scaled:
    """Keeps patterns, and a number for each that tells how far off a read may be: exact to ``step``, else inverted.

    One bit of each pattern is always wrong, and a query is handed back where it does not look like its pattern.
    """

    memory_floats = 8 * 65

    def __init__(self, step, wrong=1):
        self.step, self.wrong = step, wrong

    def write(self, patterns, memory=None):
        return Memory({"scale": torch.linspace(0.1, 1, 8).expand(len(patterns), -1)[..., None], "patterns": patterns})

    def read(self, query, memory, trajectory=False):
        off = (memory["scale"] - torch.linspace(0.1, 1, 8)[:, None]).abs() >= self.step
        kept = (memory["patterns"] > 0.5).float()
        kept[..., : self.wrong] = 1 - kept[..., : self.wrong]
        like = ((query > 0.5) == (kept > 0.5)).float().mean(-1, keepdim=True) > 0.7
        return torch.where(like & ~off, kept, 1 - kept)


@pytest.mark.parametrize(("step", "bits"), [(0.2, 3), (0.02, 7), (0.0004, 12)])
def test_the_bits_from_which_on_the_error_is_about_what_it_was_are_found(step, bits):
    span = 8 * torch.linspace(0.1, 1, 8).std(correction=0).item()
    assert span / (2**bits - 1) / 2 < step  # so many suffice
    found = bits_needed(Scaled(step), *drawn(0, 1), TASK.metric)
    assert found <= bits
    model, (batch, others) = Scaled(step), drawn(0, 1)
    memory, like = model.write(batch.patterns), model.write(others.patterns)

    def wrong(bits):
        read = model.read(batch.queries, rounded(memory, bits, like))
        return (read != batch.patterns).sum(-1).float().mean().item()

    assert all(wrong(more) == 1 for more in range(found, 17)) and (found == 1 or wrong(found - 1) > 1.2)


def test_an_error_is_allowed_within_a_share():
    batch, others = drawn(0, 1)
    strict, lax = (bits_needed(Scaled(0.02), batch, others, TASK.metric, within=share) for share in (0.0, 100.0))
    assert lax == 1 < strict


def test_the_range_is_that_of_the_others():
    class Far(Scaled):
        def write(self, patterns, memory=None):
            written = dict(super().write(patterns))
            is_other = torch.equal(patterns, others.patterns)
            return Memory(written | {"scale": written["scale"] * (0.01 if is_other else 1)})

    batch, others = drawn(0, 1)
    with pytest.raises(ValueError, match="rounded to 16 bits, Far has more than 1.2 times its error"):
        bits_needed(Far(0.02), batch, others, TASK.metric)


def test_damaged_queries_are_read():
    class Judge(Scaled):
        def read(self, query, memory, trajectory=False):
            assert torch.equal(query, batch.queries) and not torch.is_grad_enabled()
            return super().read(query, memory)

    batch, others = drawn(0, 1)
    assert bits_needed(Judge(0.02), batch, others, TASK.metric) > 1


def test_what_reads_no_numbers_or_has_no_share_is_refused():
    class Broken(Scaled):
        def read(self, query, memory, trajectory=False):
            return query * float("nan")

    with pytest.raises(ValueError, match="Broken reads NaN or infinity"):
        bits_needed(Broken(0.1), *drawn(0, 1), TASK.metric)
    with pytest.raises(ValueError, match="within must be at least 0"):
        bits_needed(Scaled(0.1), *drawn(0, 1), TASK.metric, within=-1)
