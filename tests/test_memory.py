import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ebmm import Memory
from ebmm.memory import check_points, floats_held


def three_memories():
    return Memory({"weight": torch.arange(36.0).view(3, 4, 3), "bias": torch.arange(12.0).view(3, 4)})


def same(first, second):
    return set(first) == set(second) and all(
        torch.equal(first[name], second[name]) and first[name].dtype == second[name].dtype for name in first
    )


def test_a_memory_is_a_mapping_of_names_to_tensors():
    memory = three_memories()
    assert list(memory) == ["weight", "bias"] and len(memory) == 2 and "bias" in memory
    assert memory.batch_size == 3 and memory.device == torch.device("cpu")
    assert dict(memory)["weight"] is memory["weight"]
    assert repr(memory) == "Memory(weight: (3, 4, 3), bias: (3, 4), device='cpu')"
    with pytest.raises(KeyError, match="missing"):
        memory["missing"]


def test_a_memory_keeps_its_tensors_when_the_given_mapping_changes():
    tensors = {"weight": torch.zeros(2, 3)}
    memory = Memory(tensors)
    tensors["weight"] = torch.ones(5, 3)
    tensors["other"] = torch.ones(2)
    assert list(memory) == ["weight"] and memory.batch_size == 2


@pytest.mark.parametrize(
    ("key", "chosen"),
    [
        (0, [0]),
        (2, [2]),
        (-1, [2]),
        (-3, [0]),
        (np.int64(1), [1]),
        (torch.tensor(1), [1]),
        (torch.tensor(-1), [2]),
        (slice(1, None), [1, 2]),
        (slice(None, None, 2), [0, 2]),
        (slice(-2, -1), [1]),
        ([2, 0], [2, 0]),
        (torch.tensor([2, 0, 0, 1]), [2, 0, 0, 1]),
        (torch.tensor([True, False, True]), [0, 2]),
    ],
    ids=repr,
)
def test_indexing_picks_memories_and_keeps_the_leading_dimension(key, chosen):
    memory = three_memories()
    picked = memory[key]
    assert isinstance(picked, Memory) and picked.batch_size == len(chosen)
    for name in memory:
        assert torch.equal(picked[name], torch.stack([memory[name][b] for b in chosen]))


@pytest.mark.parametrize("key", [3, -4, torch.tensor(3), np.int64(-4)], ids=repr)
def test_an_index_out_of_range_says_so(key):
    with pytest.raises(IndexError, match=rf"memory {int(key)} of a batch of 3"):
        three_memories()[key]


def test_only_the_leading_dimension_is_indexed():
    with pytest.raises(TypeError, match=r"leading dimension B only, got \(slice\(None, None, None\), 0\)"):
        three_memories()[:, 0]


def test_save_and_load(tmp_path):
    shared = torch.arange(6.0).view(2, 3)
    memory = Memory(
        {
            "plain": torch.rand(2, 3, requires_grad=True),
            "expanded": torch.rand(4, 5).expand(2, 4, 5),
            "transposed": torch.rand(2, 3, 4).mT,
            "part of a larger one": torch.rand(5, 3)[2:4],
            "double": torch.rand(2, dtype=torch.double),
            "whole numbers": torch.arange(2),
            "shared": shared,
            "shared again": shared,
        }
    )
    for path in (tmp_path / "memory.safetensors", str(tmp_path / "again.safetensors")):
        memory.save(path)
        loaded = Memory.load(path)
        assert same(loaded, memory)
        assert not any(tensor.requires_grad for tensor in loaded.values())


def test_loading_what_is_not_there_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        Memory.load(tmp_path / "absent.safetensors")


def test_loading_what_is_no_memory_names_the_file(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "torch.pt")
    (tmp_path / "cut").write_bytes(b"")
    save_file({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "weights")
    save_file({"a": torch.tensor(1.0)}, tmp_path / "scalar")
    with pytest.raises(ValueError, match=rf"{tmp_path} is a folder: name the file"):
        Memory.load(tmp_path)
    for name in ("torch.pt", "cut", "weights", "scalar"):
        with pytest.raises(ValueError, match=rf"{name} holds no memory as Memory.save writes it"):
            Memory.load(tmp_path / name)


def test_saving_that_fails_leaves_the_file_before(tmp_path, monkeypatch):
    three_memories().save(tmp_path / "folder" / "memory")

    def fail(tensors, path):
        path.write_bytes(b"a part")
        raise OSError("no space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", fail)
    with pytest.raises(OSError, match="no space"):
        three_memories()[:1].save(tmp_path / "folder" / "memory")
    assert same(Memory.load(tmp_path / "folder" / "memory"), three_memories())
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["memory"]


def test_to_and_detach_return_new_memories():
    memory = Memory({"weight": torch.ones(2, 3, requires_grad=True) * 2})
    assert memory.to(torch.double)["weight"].dtype == torch.double
    assert memory.to("meta").device.type == "meta"
    assert memory.to(device="cpu", dtype=torch.half)["weight"].dtype == torch.half
    assert not memory.detach()["weight"].requires_grad
    assert memory["weight"].requires_grad and memory["weight"].dtype == torch.float


def test_gradients_flow_through_indexing_and_to():
    leaf = torch.ones(3, 2, requires_grad=True)
    Memory({"weight": leaf})[1].to(torch.double)["weight"].sum().backward()
    assert leaf.grad.tolist() == [[0, 0], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "at least one tensor, got an empty mapping"),
        ({"a": torch.zeros(2, 3), "b": torch.zeros(3)}, r"leading dimension, got shapes {'a': \(2, 3\), 'b': \(3,\)}"),
        ({"a": torch.tensor(1.0)}, r"leading dimension, got shapes {'a': \(\)}"),
    ],
)
def test_what_cannot_be_a_memory_is_refused(tensors, words):
    with pytest.raises(ValueError, match=words):
        Memory(tensors)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({0: torch.ones(2, 3)}, "maps names to tensors, got 0: Tensor"),
        ({"a": torch.ones(2), ("b",): torch.ones(2)}, r"maps names to tensors, got \('b',\): Tensor"),
        ({"a": np.ones((2, 3))}, "maps names to tensors, got 'a': ndarray"),
        ({"a": [1.0]}, "maps names to tensors, got 'a': list"),
    ],
)
def test_a_memory_of_other_things_is_refused(tensors, words):
    with pytest.raises(TypeError, match=words):
        Memory(tensors)


def test_check_points_accepts_what_is_right():
    check_points(torch.rand(2, 3, 4, 5), (4, 5), "patterns", 0, 1, like=torch.zeros(1), batch=2)
    check_points(torch.rand(2, 3, 4, 5), None, "patterns")
    check_points(torch.full((1, 1, 1), -7.5, dtype=torch.double), (1,), "patterns", low=-8)
    check_points(torch.tensor([[[0.0, 1.0]]], requires_grad=True), (2,), "patterns", 0, 1)


@pytest.mark.parametrize(
    ("x", "options", "error", "words"),
    [
        (torch.zeros(2, 3), {"shape": None}, ValueError, r"x must have shape \(B, N, \*S\), got \(2, 3\)"),
        (torch.zeros(2, 3, 4), {"shape": (4, 1)}, ValueError, r"\(B, N, 4, 1\), got \(2, 3, 4\)"),
        (torch.zeros(2, 3, 1, 4), {"shape": (4, 1)}, ValueError, r"\(B, N, 4, 1\), got \(2, 3, 1, 4\)"),
        (torch.zeros(2, 3, 0), {"shape": None}, ValueError, r"must not be empty, got shape \(2, 3, 0\)"),
        (torch.zeros(2, 3, 4, dtype=torch.bool), {"shape": None}, TypeError, r"got torch.bool: convert with x.float"),
        (np.zeros((2, 3, 4)), {"shape": (4,)}, TypeError, r"torch tensor of shape \(B, N, 4\), got ndarray"),
        (torch.zeros(2, 3, 4), {"shape": None, "like": torch.zeros(1).double()}, TypeError, "torch.float64 like"),
        (torch.zeros(2, 3, 4), {"shape": None, "like": torch.zeros(1, device="meta")}, ValueError, "on meta like"),
        (torch.zeros(2, 3, 4), {"shape": None, "batch": 5}, ValueError, "2 memories .* the memory holds 5"),
        (torch.tensor([[[0.0, 2.5]]]), {"shape": None, "low": -1, "high": 1}, ValueError, r"\[-1, 1\].* 0 to 2.5"),
        (torch.tensor([[[0.0, -1.5]]]), {"shape": None, "low": -1, "high": 1}, ValueError, r"\[-1, 1\].* -1.5 to 0"),
        (torch.tensor([[[0.0, float("nan")]]]), {"shape": None}, ValueError, "x must be finite"),
        (torch.tensor([[[0.0, float("-inf")]]]), {"shape": None}, ValueError, "x must be finite"),
    ],
)
def test_check_points_says_what_was_given_and_what_was_expected(x, options, error, words):
    with pytest.raises(error, match=words):
        check_points(x, name="x", **options)


def test_memories_compare_by_identity():
    memory = Memory({"weight": torch.zeros(2, 3)})
    assert memory == memory and memory != Memory({"weight": torch.zeros(2, 3)})
    assert len({memory, memory}) == 1


@pytest.mark.parametrize(
    ("tensor", "floats"),
    [
        (torch.zeros(3, 3), 3),
        (torch.eye(4).expand(3, 4, 4), 10),
        (torch.arange(16.0).view(1, 4, 4), 16),
        (torch.zeros(2, 4).half(), 2),
        (torch.eye(4).double()[None], 20),
    ],
    ids=["as many memories as numbers", "symmetric", "not symmetric", "16 bits", "64 bits"],
)
def test_floats_held_are_those_of_one_memory_in_32_bits(tensor, floats):
    assert floats_held({"held": tensor}) == floats
