"""Memories on disk and queries in parts: the same numbers as all at once, in bounded memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ebmm import EBMM, DenseMemory, Hopfield, Memory, MemoryBank, energies, read_in_parts


@pytest.fixture
def bank(tmp_path):
    return MemoryBank.create(tmp_path / "bank", Memory({"a.weight": torch.zeros(1, 2, 3), "b": torch.zeros(1)}), 7)


def filled(first, last):
    weight = torch.arange(first, last).float()[:, None, None].expand(-1, 2, 3)
    return Memory({"a.weight": weight, "b": -weight[:, 0, 0]})


def test_memories_come_back_as_they_were_kept_also_after_opening_anew(bank, tmp_path):
    bank[0:7] = filled(0, 7)
    for one in (bank, MemoryBank(tmp_path / "bank")):
        assert len(one) == 7
        for key, numbers in (([5, 1], [5, 1]), (3, [3]), (-1, [6]), (slice(2, 4), [2, 3]), (torch.tensor([0]), [0])):
            assert one[key]["a.weight"][:, 1, 2].tolist() == numbers
            assert one[key]["b"].tolist() == [-number for number in numbers]


def test_single_memories_are_replaced_and_the_others_stay(bank):
    bank[[4, 2]] = filled(8, 10)
    assert bank[:]["b"].tolist() == [0, 0, -9, 0, -8, 0, 0]


@pytest.mark.parametrize("key", [1, slice(1, 2), [1]], ids=repr)
def test_a_memory_taken_out_is_a_copy(bank, key):
    bank[key]["b"].fill_(5)
    assert bank[1]["b"].item() == 0


def test_a_bank_that_may_only_be_read_is_read(bank, tmp_path):
    for file in (tmp_path / "bank").iterdir():
        file.chmod(0o444)
    assert MemoryBank(tmp_path / "bank")[6]["b"].shape == (1,)


WRITER = """
import sys
import torch
from ebmm import Memory, MemoryBank
bank, own = MemoryBank(sys.argv[1]), int(sys.argv[2])
for turn in range(300):
    for place in range(own, 10, 2):
        bank[place] = Memory({"W": torch.full((1, 4), 10.0 * turn + place)})
"""


def test_two_processes_write_different_memories_at_the_same_time(tmp_path):
    MemoryBank.create(tmp_path, Memory({"W": torch.zeros(1, 4)}), 10)
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(own)]) for own in (0, 1)]
    assert [writer.wait() for writer in writers] == [0, 0]
    expected = (2990 + torch.arange(10.0))[:, None].expand(10, 4)
    assert torch.equal(MemoryBank(tmp_path)[:]["W"], expected)


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (lambda bank: bank[7], IndexError, "7"),
        (lambda bank: bank[[True, False]], TypeError, "whole number"),
        (lambda bank: bank["b"], TypeError, "whole number"),
        (lambda bank: bank[1.0], TypeError, "whole number"),
        (lambda bank: bank.__setitem__(0, Memory({"b": torch.zeros(1)})), ValueError, "keeps"),
        (lambda bank: bank.__setitem__(slice(0, 2), filled(0, 3)), ValueError, "must be"),
        (lambda bank: bank.__setitem__(slice(0, 2), filled(0, 1)), ValueError, "must be"),
    ],
)
def test_wrong_use_is_refused(bank, wrong, error, words):
    with pytest.raises(error, match=words):
        wrong(bank)


def test_folders_are_not_mistaken(bank, tmp_path):
    with pytest.raises(FileExistsError, match="not empty"):
        MemoryBank.create(tmp_path / "bank", filled(0, 1), 3)
    with pytest.raises(FileNotFoundError, match=r"MemoryBank\.create"):
        MemoryBank(tmp_path)
    with pytest.raises(ValueError, match="file"):
        MemoryBank.create(tmp_path / "other", Memory({"../a": torch.zeros(1)}), 3)
    np.save(tmp_path / "bank" / "c.npy", np.zeros(3))
    with pytest.raises(ValueError, match="as many memories"):
        MemoryBank(tmp_path / "bank")


@pytest.mark.parametrize("model", [DenseMemory(16, 4), Hopfield(16), EBMM(energies.PredictiveEnergy(16))])
@pytest.mark.parametrize("as_array", [False, True])
def test_parts_are_what_all_queries_read_at_once(model, as_array):
    torch.manual_seed(0)
    with torch.no_grad():
        memory = model.write(torch.randint(0, 2, (2, 3, 16)).float())
        queries = torch.randint(0, 2, (2, 11, 16)).float()
        at_once = model.read(queries, memory)
    given = queries.double().numpy() if as_array else queries
    parts = list(read_in_parts(model, given, memory, at_once=4))
    assert [part.shape[1] for part in parts] == [4, 4, 3]
    torch.testing.assert_close(torch.cat(parts, 1).float(), at_once, rtol=1e-5, atol=1e-6)


def test_parts_are_brought_to_the_dtype_of_the_model():
    model = EBMM(energies.PredictiveEnergy(8)).double()
    (part,) = read_in_parts(model, torch.zeros(1, 2, 8), model.initial_memory())
    assert part.dtype == torch.float64


def test_nothing_is_recorded_and_the_reader_may_record():
    model = EBMM(energies.PredictiveEnergy(8))
    for part in read_in_parts(model, torch.zeros(1, 2, 8), model.initial_memory()):
        assert not part.requires_grad and torch.is_grad_enabled()


@pytest.mark.parametrize(("queries", "at_once"), [([[[0.0]]], 1), (torch.zeros(1, 1, 8), 0)])
def test_wrong_queries_are_refused(queries, at_once):
    model = DenseMemory(8, 1)
    with pytest.raises((TypeError, ValueError)):
        next(read_in_parts(model, queries, model.write(torch.zeros(1, 1, 8)), at_once))


LARGE = """
import sys
import numpy as np, torch
from ebmm import EBMM, MemoryBank, energies, read_in_parts
torch.manual_seed(0)
folder, million, many = sys.argv[1], 1_000_000, 100_000
model = EBMM(energies.PredictiveEnergy(32), write_steps=1, read_steps=2)
start = model.initial_memory()
def peak():  # not ru_maxrss, which counts what started this process as well
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
list(read_in_parts(model, np.zeros((1, 20_000, 32), np.float32), start, 10_000))
before = peak()
queries = np.lib.format.open_memmap(f"{folder}/queries.npy", "w+", np.float32, (1, million, 32))
recalled = np.lib.format.open_memmap(f"{folder}/recalled.npy", "w+", np.float32, (1, million, 32))
done = 0
for part in read_in_parts(model, queries, start, 10_000):
    recalled[:, done : done + part.shape[1]] = part.numpy()
    done += part.shape[1]
    queries._mmap.madvise(4), recalled._mmap.madvise(4)  # what was mapped may go: only the loop's own room counts
bank = MemoryBank.create(f"{folder}/bank", start, many)
bank[[5, 99_999]] = model.write(torch.ones(2, 4, 32))
answer = model.read(torch.ones(2, 3, 32), bank[[99_999, 5]])
print(done, tuple(answer.shape), round(peak() - before))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is told as Linux tells it")
def test_a_million_queries_and_a_hundred_thousand_memories_need_little_room(tmp_path):
    command = [sys.executable, "-c", LARGE, str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr[-2000:]
    done, shape, grown = (
        said.stdout.strip().split(" ", 1)[0],
        said.stdout[said.stdout.index("(") :],
        said.stdout.split(),
    )
    assert done == "1000000" and shape.startswith("(2, 3, 32)")
    # All at once, queries and answers alone would take 256 MB, the bank 211 MB.
    assert int(grown[-1]) < 60, said.stdout
