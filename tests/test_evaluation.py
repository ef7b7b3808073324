import json
import random
import warnings

import numpy as np
import pytest
import torch
from torch import nn

import ebmm
from ebmm import EBMM, DenseMemory, Hopfield, Memory, Task, evaluate, fit
from ebmm.baselines import MemoryNetwork
from ebmm.energies import PredictiveEnergy
from ebmm.evaluation import compare
from ebmm.metrics import errors, squared_error, wrong_bits
from ebmm.tasks import Batch, FlipBits, GaussianNoise, ImagePatterns, RandomBits, RedrawBits

TASK = Task(RandomBits(16), FlipBits(0.2), number=3)


class Echo(nn.Module):
    """A memory that returns the query, so its errors are those of the corruption. It notes how it is called."""

    memory_floats = 7

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.calls = []

    def write(self, patterns):
        return Memory({"patterns": patterns * self.gain})

    def read(self, query, memory, **told):
        self.calls.append((query, memory, told))
        return query


def test_wrong_bits_counts_what_lies_on_the_wrong_side():
    x = torch.tensor([[[0.9, 0.2, 0.6], [0.0, 1.0, 0.5]]])
    patterns = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]]])
    assert wrong_bits(x, patterns).tolist() == [[1.0, 3.0]]
    images = torch.zeros(2, 3, 4, 5)
    assert torch.equal(wrong_bits(images + 1, images), torch.full((2, 3), 20.0))


def test_squared_error_sums_over_a_pattern():
    x, patterns = torch.tensor([[[0.5, 0.0], [1.0, 1.0]]]), torch.tensor([[[1.0, 0.25], [1.0, 0.0]]])
    assert squared_error(x, patterns).tolist() == [[0.3125, 1.0]]
    images = torch.zeros(2, 3, 4, 5)
    assert torch.equal(squared_error(images + 2, images), torch.full((2, 3), 80.0))
    assert torch.equal(errors(x, patterns, "squared error"), squared_error(x, patterns))
    assert torch.equal(errors(x, patterns, "wrong bits"), wrong_bits(x, patterns))


@pytest.mark.parametrize("metric", ["wrong bits", "squared error"])
@pytest.mark.parametrize("corruption", [FlipBits(0.2), GaussianNoise(0.6)])
def test_mean_and_percentiles_are_over_memories(metric, corruption):
    task = Task(RandomBits(16), corruption, 3, metric)
    row = evaluate(Echo(), task, 37, seed=4)
    generator = torch.Generator().manual_seed(4)
    each = []
    for _ in range(37):
        patterns = RandomBits(16)(3, generator)
        queries, _ = corruption(patterns, generator)
        x, y = queries.numpy(), patterns.numpy()
        wrong = ((x > 0.5) != (y > 0.5)).sum(1) if metric == "wrong bits" else ((x - y) ** 2).sum(1)
        each.append(wrong.mean())
    assert row["mean"] == pytest.approx(np.mean(each), rel=1e-6)
    assert row["p5"] == pytest.approx(np.percentile(each, 5), rel=1e-6)
    assert row["p95"] == pytest.approx(np.percentile(each, 95), rel=1e-6)
    assert row["p5"] < row["mean"] < row["p95"]


def trained_like():
    torch.manual_seed(0)
    return EBMM(PredictiveEnergy(16, 8), gradient_term=False, write_rate=0.03, read_rate=0.3)


@pytest.mark.parametrize("make", [trained_like, lambda: Hopfield(16), Echo], ids=["ebmm", "hopfield", "echo"])
def test_the_result_does_not_depend_on_the_batch_size(make):
    model = make()
    rows = [evaluate(model, TASK, 23, seed=2, batch_size=size) for size in (1, 7, 23, 50)]
    for row in rows[1:]:
        assert row == {**rows[0], **{key: pytest.approx(rows[0][key], abs=1e-6) for key in ("mean", "p5", "p95")}}
    assert evaluate(model, TASK, 23, seed=3)["mean"] != rows[0]["mean"]


def test_every_batch_is_as_large_as_asked_and_all_memories_are_counted():
    model = Echo()
    evaluate(model, TASK, 23, batch_size=10)
    assert [len(query) for query, *_ in model.calls] == [10, 10, 3]


def test_clamp_tells_the_memory_which_elements_are_intact():
    model = Echo()
    assert evaluate(model, TASK, 4)["clamped"] is False
    assert evaluate(model, TASK, 4, clamp=True)["clamped"] is True
    (query, memory, untold), (_, _, told) = model.calls
    assert untold == {}
    assert torch.equal(told["clamp"], query == memory["patterns"])


def test_clamping_helps_a_hopfield_network():
    task = Task(RandomBits(64), RedrawBits(32), number=8)
    free, clamped = (evaluate(Hopfield(64), task, 20, clamp=clamp)["mean"] for clamp in (False, True))
    assert clamped < 0.5 * free


def test_nothing_is_recorded_for_gradients():
    model = Echo()
    evaluate(model, TASK, 4)
    _, memory, _ = model.calls[0]
    assert not memory["patterns"].requires_grad
    assert torch.is_grad_enabled()


def test_a_row_says_what_was_measured():
    row = evaluate(Echo(), TASK, 5, seed=3)
    assert set(row) == {
        "memory_floats", "patterns", "corruption", "clamped", "metric", "mean", "p5", "p95",
        "memories", "seed", "device", "versions",
    }  # fmt: skip
    assert (row["memory_floats"], row["patterns"], row["memories"], row["seed"]) == (7, 3, 5, 3)
    assert row["corruption"] == "FlipBits(probability=0.2)" and row["metric"] == "wrong bits"
    assert row["device"].startswith("cpu")
    assert row["versions"]["torch"] == torch.__version__ and row["versions"]["ebmm"] == ebmm.__version__
    assert json.loads(json.dumps(row)) == row


def test_a_corruption_that_is_a_function_is_called_by_its_name():
    def noisy(patterns, generator):
        return 1 - patterns, torch.zeros_like(patterns, dtype=torch.bool)

    assert evaluate(Echo(), Task(RandomBits(8), noisy, 2), 1)["corruption"] == "noisy"


def test_a_row_of_images_can_be_written_as_json():
    task = Task(ImagePatterns(torch.rand(9, 4, 4)), GaussianNoise(0.1), 2, "squared error")
    assert len(json.dumps(evaluate(Echo(), task, 2))) < 1000


@pytest.mark.parametrize("given", [{"memories": 0}, {"batch_size": 0}])
def test_fewer_than_one_memory_or_batch_is_refused(given):
    (name,) = given
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        evaluate(Echo(), TASK, **given)


def test_numbers_of_numpy_are_taken_and_become_plain_in_the_row():
    row = evaluate(Echo(), TASK, np.int64(3), batch_size=np.int32(2))
    assert json.loads(json.dumps(row))["memories"] == 3


@pytest.mark.parametrize("task", [None, [torch.zeros(2, 3)], RandomBits(8)])
def test_what_is_no_task_is_refused(task):
    with pytest.raises(TypeError, match="task must be an ebmm.Task"):
        evaluate(Echo(), task, 2)


def test_a_seed_is_any_whole_number_and_plain_in_the_row():
    row = evaluate(Echo(), TASK, 3, seed=np.int64(5))
    assert row == evaluate(Echo(), TASK, 3, seed=5.0) == evaluate(Echo(), TASK, 3, seed=5)
    assert type(row["seed"]) is int and json.dumps(row)
    assert evaluate(Echo(), TASK, 3, seed=-1)["seed"] == -1
    for wrong in ("a", None, 0.5):
        with pytest.raises(TypeError, match=f"seed must be a whole number, got {wrong!r}"):
            evaluate(Echo(), TASK, 3, seed=wrong)


def test_a_class_is_refused_before_anything_is_asked_of_it():
    with pytest.raises(TypeError, match=r"got the class Hopfield: make one, such as Hopfield\(64\)"):
        evaluate(Hopfield, TASK, 3)


@pytest.mark.parametrize("make", [lambda: trained_like(), lambda: DenseMemory(16, 3), lambda: Own(lambda x: x)])
def test_only_a_memory_whose_read_takes_it_is_told_what_is_intact(make):
    model = make()
    with pytest.raises(TypeError, match=f"only Hopfield networks are told .*, got {type(model).__name__}: leave out"):
        evaluate(model, TASK, 3, clamp=True)


# Dtypes


def a_network(dtype):
    torch.manual_seed(0)
    return MemoryNetwork(16, 3, 8).to(dtype)


def only_the_energy(dtype):
    """A model whose rates stay in float32."""
    model = trained_like()
    model.energy_network.to(dtype)
    return model


@pytest.mark.parametrize("metric", ["wrong bits", "squared error"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("make", [lambda dtype: trained_like().to(dtype), a_network, only_the_energy])
def test_a_module_is_trained_and_evaluated_on_patterns_of_its_own_dtype(make, dtype, metric):
    task = Task(RandomBits(16), GaussianNoise(0.4), 3, metric)
    rows = [evaluate(make(one), task, 20) for one in (dtype, torch.float32)]
    assert rows[0]["mean"] == pytest.approx(rows[1]["mean"], rel=0.01 if dtype == torch.float64 else 0.15)
    histories = [fit(make(one), task, 2, memories=4, progress=False) for one in (dtype, torch.float32)]
    losses = [[row["loss"] for row in history.rows] for history in histories]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4 if dtype == torch.float64 else 0.05)


def test_sixteen_bits_do_not_round_the_error():
    task = Task(RandomBits(999), FlipBits(0.3), 2, "squared error")
    assert evaluate(Echo().to(torch.bfloat16), task, 3)["mean"] == evaluate(Echo(), task, 3)["mean"]


def test_float64_patterns_are_taken_by_a_float32_model():
    data = torch.rand(30, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).round()
    rows = [evaluate(trained_like(), Task(images, FlipBits(0.2), 3), 5) for images in (data, data.float())]
    assert rows[0] == rows[1]


# A memory of one's own


class Own:
    """No module, no base class: the three names that evaluate asks for."""

    memory_floats = 3

    def __init__(self, answer):
        self.answer = answer

    def write(self, patterns):
        return Memory({"patterns": patterns})

    def read(self, query, memory):
        return self.answer(memory["patterns"])


def test_a_read_of_nan_is_refused_not_counted():
    with pytest.raises(ValueError, match="read returned NaN"):
        evaluate(Own(lambda patterns: patterns / 0 * 0), TASK, 3)


def test_an_own_class_is_evaluated():
    result = evaluate(Own(lambda patterns: patterns), TASK, 3)
    assert result["mean"] == 0 and result["memory_floats"] == 3


@pytest.mark.parametrize("answer", [lambda patterns: patterns[:, :1], lambda patterns: patterns.flatten(1)])
def test_a_read_of_another_shape_is_refused_not_broadcast(answer):
    with pytest.raises(ValueError, match=r"read must return the shape of its query, \(3, \d+, \d+\), got \(3, "):
        evaluate(Own(answer), TASK, 3)


@pytest.mark.parametrize("wrong", [torch.nan, torch.inf, -torch.inf])
def test_one_nan_or_infinity_among_many_numbers_is_refused(wrong):
    def one_wrong(patterns):
        return torch.where(torch.arange(patterns.numel()).view_as(patterns) == 5, wrong, patterns)

    with pytest.raises(ValueError, match="read returned NaN or infinity"):
        evaluate(Own(one_wrong), TASK, 3)


@pytest.mark.parametrize("draw", [lambda: np.random.rand(), random.random], ids=["numpy", "python"])  # noqa: NPY002
def test_a_task_that_draws_from_a_global_generator_is_warned_of_once(draw):
    def noisy(patterns, generator):
        return (patterns + draw()) / 2, torch.zeros_like(patterns, dtype=torch.bool)

    with pytest.warns(UserWarning, match="draws from a global generator: draw from the one given") as warned:
        evaluate(Echo(), Task(RandomBits(8), noisy, 2), 9, batch_size=3)
    assert len(warned) == 1 and warned[0].filename == __file__


def test_a_task_that_draws_from_its_generator_is_not_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(Echo(), TASK, 9)


# What is set around it


class Forgetful(Echo):
    """Reads with dropout."""

    def __init__(self):
        super().__init__()
        self.outer = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))

    def read(self, query, memory):
        return self.outer(query)


def test_a_module_is_evaluated_without_dropout_and_left_in_its_modes():
    model = Forgetful()
    model.outer[0].eval()
    row = evaluate(model, TASK, 5)
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert row == evaluate(model.eval(), TASK, 5) == evaluate(Echo(), TASK, 5)
    assert not any(module.training for module in model.modules())


def test_modes_come_back_after_a_failure():
    model = Forgetful()
    model.read = lambda query, memory: query[:, :1]
    with pytest.raises(ValueError, match="must return the shape"):
        evaluate(model, TASK, 5)
    assert all(module.training for module in model.modules())


def test_a_memory_that_draws_is_evaluated_to_the_same_and_the_callers_numbers_are_left():
    noisy = Own(lambda patterns: torch.where(torch.rand_like(patterns) < 0.2, 1 - patterns, patterns))
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    rows = [evaluate(noisy, TASK, 9, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(3), expected)
    assert rows[0] == rows[1] and rows[0]["mean"] != rows[2]["mean"]


def autocast():
    return torch.autocast("cpu", torch.bfloat16)


@pytest.mark.parametrize("around", [torch.inference_mode, torch.no_grad, torch.enable_grad, autocast])
def test_it_gives_the_same_under_every_mode(around):
    model, task = trained_like(), Task(RandomBits(16), FlipBits(0.2), 3, "squared error")
    with around():
        row = evaluate(model, task, 5)
    assert row == evaluate(model, task, 5)


def test_patterns_made_under_inference_mode_are_taken():
    with torch.inference_mode():
        images = torch.eye(16)
    rows = [
        evaluate(trained_like(), Task(ImagePatterns(data), FlipBits(0.1), 3), 5) for data in (images, torch.eye(16))
    ]
    assert rows[0] == rows[1]


# Devices


def test_a_module_is_moved_and_other_objects_are_not():
    moves = []
    model = Echo()
    model.to = lambda where: moves.append(str(where))
    evaluate(model, TASK, 3)
    evaluate(model, TASK, 3, device="cpu")
    assert moves == ["cpu"]
    own = Own(lambda patterns: patterns)
    assert evaluate(own, TASK, 3, device="cpu")["device"].startswith("cpu")
    with pytest.raises(TypeError, match="Own is no module and cannot be moved to 'cuda': leave out device"):
        evaluate(own, TASK, 3, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_is_evaluated_on_the_gpu_it_is_moved_to():
    model = trained_like()
    row = evaluate(model, TASK, 9, device="cuda")
    assert next(model.parameters()).is_cuda and not row["device"].startswith("cpu")
    assert row["mean"] == pytest.approx(evaluate(trained_like(), TASK, 9)["mean"], abs=0.1)


class FirstKept:
    """A memory that keeps patterns and reads the first of them; an empty one holds zeros."""

    memory_floats = 8

    def write(self, patterns):
        return Memory({"kept": patterns})

    def read(self, query, memory):
        return memory["kept"][:, :1].expand_as(query)

    def initial_memory(self, batch_size):
        return Memory({"kept": torch.zeros(batch_size, 1, 4)})


def test_comparing_reads_the_own_another_and_an_empty_memory():
    patterns = torch.tensor([[[1.0, 0, 0, 0]], [[1.0, 1, 0, 0]], [[1.0, 1, 1, 0]]])
    batch = Batch(patterns, patterns, torch.ones_like(patterns, dtype=torch.bool))
    found = compare(FirstKept(), batch, "wrong bits")
    assert found == {"own": 0.0, "another's": pytest.approx((2 + 1 + 1) / 3), "empty": 2.0}
    alone = compare(FirstKept(), Batch(*(tensor[:1] for tensor in batch)), "wrong bits")
    assert alone == {"own": 0.0, "empty": 1.0}


def test_what_is_no_memory_of_ours_is_compared_as_far_as_it_goes():
    class Plain(FirstKept):
        def write(self, patterns):
            return patterns

        def read(self, query, memory):
            return memory["kept"][:, :1].expand_as(query) if isinstance(memory, Memory) else memory

    patterns = torch.ones(2, 1, 4)
    found = compare(Plain(), Batch(patterns, patterns, patterns.bool()), "wrong bits")
    assert found == {"own": 0.0, "empty": 4.0}
