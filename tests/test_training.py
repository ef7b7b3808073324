import contextlib
import copy
import json
import math
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ebmm import EBMM, Batch, History, Hopfield, Memory, Task, TrainingError, evaluate, fit
from ebmm.baselines import KanervaMachine
from ebmm.energies import GatedRNNEnergy, MLPEnergy, PredictiveEnergy
from ebmm.experiments import EXPERIMENTS
from ebmm.machine import _tf32, pick_device
from ebmm.steady import Steady
from ebmm.tasks import FlipBits, RandomBits
from ebmm.training import _Loss, reconstruction_loss

matplotlib.use("Agg")
TASK = Task(RandomBits(8), FlipBits(0.1), number=2)
QUIET = {"progress": False, "device": "cpu"}


def small_model(dim=8, hidden=6, seed=0, **options):
    torch.manual_seed(seed)
    energy = PredictiveEnergy(dim, hidden)
    return EBMM(energy, write_steps=2, read_steps=3, write_rate=(2e-2, 1e-4, 1e-4), read_rate=0.3, **options)


class Scripted(nn.Module):
    """A memory whose loss or gradient is not finite at the steps named; reads the query times a parameter."""

    def __init__(self, loss=(), gradient=()):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))
        self.bad_loss, self.bad_gradient, self.step = set(loss), set(gradient), -1
        self.gains = []  # before each step

    def write(self, patterns):
        self.step += 1
        self.gains.append(self.gain.item())
        return Memory({"patterns": patterns})

    def read(self, query, memory, trajectory=False):
        x = query * self.gain
        if self.step in self.bad_loss:
            x = x * math.nan
        if self.step in self.bad_gradient:  # of value 0 and slope infinity
            x = x + (self.gain - self.gain.detach()).abs().sqrt()
        return (x, torch.stack([query, x])) if trajectory else x


class Noisy(nn.Module):
    """A memory that draws from PyTorch's global generator while it reads."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def write(self, patterns):
        return Memory({"patterns": patterns})

    def read(self, query, memory, trajectory=False):
        x = query * self.gain * (1 + torch.randn_like(query))
        return (x, torch.stack([query, x])) if trajectory else x


class Stops:
    """A corruption that is interrupted when it is called for the given time."""

    def __init__(self, at):
        self.at, self.calls = at, 0

    def __call__(self, patterns, generator):
        self.calls += 1
        if self.calls == self.at:
            raise KeyboardInterrupt
        return FlipBits(0.1)(patterns, generator)

    def __getstate__(self):  # whether it stops, and where it stands, is no part of the run
        return {}


def same_weights(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# The loss


def test_the_loss_is_the_squared_error_over_a_pattern_averaged_over_all_iterates():
    class Given(nn.Module):
        def write(self, patterns):
            return Memory({"patterns": patterns})

        def read(self, query, memory, trajectory):
            steps = torch.stack([query, query + 1, query + 3])
            return steps[-1], steps

    zeros = torch.zeros(2, 5, 3, 4)
    loss, recalled = reconstruction_loss(Given(), Batch(zeros, zeros, zeros.bool()))
    assert loss.item() == pytest.approx((1 * 12 + 9 * 12) / 2)
    assert torch.equal(recalled, zeros + 3)


# The loop


def test_late_iterates_count_more_on_demand():
    model = small_model()
    batch = TASK.sample(2, torch.Generator().manual_seed(0))
    found, _ = reconstruction_loss(model, batch, late=True)
    _, along = model.read(batch.queries, model.write(batch.patterns), trajectory=True)
    each = [(x - batch.patterns).square().sum(-1).mean().item() for x in along[1:]]
    assert found.item() == pytest.approx(sum(k * error for k, error in enumerate(each, 1)) / 6)
    early, later = small_model(), small_model()
    fit(early, TASK, 1, **QUIET)
    fit(later, TASK, 1, late=True, **QUIET)
    assert not same_weights(early.state_dict(), later.state_dict())


def test_training_reaches_a_sensible_error():
    """A few seconds of learning at d = 16; the pseudo-inverse rule, run freely, has 0.4 wrong bits here."""
    task = Task(RandomBits(16), FlipBits(0.1), number=4)
    torch.manual_seed(0)
    model = EBMM(PredictiveEnergy(16, 32), gradient_term=False, write_rate=(2e-2, 1e-4, 1e-4), read_rate=0.3)
    before = evaluate(model, task, 100)["mean"]
    history = fit(model, task, 600, memories=8, learning_rate=5e-3, **QUIET)
    after = evaluate(model, task, 100)["mean"]
    rule = evaluate(Hopfield(16, "pseudo-inverse"), task, 100)["mean"]
    assert history.skipped == 0
    assert after < 0.8 * rule and after < 0.15 * before
    loss = history.column("loss")
    assert sum(loss[-20:]) < 0.3 * sum(loss[:20])


def test_the_own_memory_is_compared_with_others_and_an_empty_one_and_nothing_changes_by_that():
    models = [small_model(), small_model()]
    plain, history = (
        fit(m, TASK, 5, memories=3, compare_every=n, **QUIET) for m, n in zip(models, (0, 2), strict=True)
    )
    assert plain.compared == [] and [row["step"] for row in history.compared] == [0, 2, 4]
    assert set(history.compared[0]) == {"step", "own", "another's", "empty"}
    assert history.rows == plain.rows and same_weights(models[0].state_dict(), models[1].state_dict())
    for row in history.compared:
        assert row["own"] == pytest.approx(history.rows[row["step"]]["error"])
    alone = fit(small_model(), TASK, 1, memories=1, compare_every=1, **QUIET)
    assert set(alone.compared[0]) == {"step", "own", "empty"}


def test_comparing_a_memory_that_draws_leaves_its_numbers():
    rows = []
    for every in (0, 1):
        torch.manual_seed(0)
        rows.append(fit(Noisy(), TASK, 4, memories=3, compare_every=every, **QUIET).rows)
    assert rows[0] == rows[1]


def test_comparisons_go_on_from_a_checkpoint(tmp_path):
    run, path = {"memories": 2, "compare_every": 2, **QUIET}, tmp_path / "run.pt"
    whole, stops = fit(small_model(), TASK, 8, **run), Task(TASK.source, Stops(11), TASK.number)
    with pytest.raises(KeyboardInterrupt):
        fit(small_model(), stops, 8, checkpoint=path, save_every=1, **run)
    done = len(torch.load(path, weights_only=True)["history"]["rows"])
    assert 2 < done < 8 and done % 2
    stops.corruption.at = -1
    again = fit(small_model(), stops, 8, checkpoint=path, **run)
    assert again.compared == whole.compared and [row["step"] for row in again.compared] == [0, 2, 4, 6]


def test_history_has_a_row_for_each_step():
    model = small_model()
    history = fit(model, TASK, 12, memories=3, **QUIET)
    assert history.column("step") == list(range(12))
    assert set(history.rows[0]) == {"step", "loss", "error", "gradient norm", "learning rate"}
    assert all(0 <= error <= 8 for error in history.column("error")) and any(history.column("error"))
    assert all(norm > 0 for norm in history.column("gradient norm"))
    assert history.metric == "wrong bits" and history.skipped == 0 and history.seconds > 0
    assert not model.training


def test_the_same_seed_trains_to_the_same_weights_and_another_does_not():
    states = []
    for seed in (3, 3, 4):
        model = small_model()
        fit(model, TASK, 5, seed=seed, **QUIET)
        states.append(model.state_dict())
    assert same_weights(states[0], states[1]) and not same_weights(states[0], states[2])


def numbers_seen(**options):
    """How many patterns each of 300 steps wrote, of lessons of 1, 2 and 3."""
    numbers = []

    class Notes(Scripted):
        def write(self, patterns):
            numbers.append(patterns.shape[1])
            return super().write(patterns)

    fit(Notes(), [Task(RandomBits(8), FlipBits(0.1), number) for number in (1, 2, 3)], 300, **options, **QUIET)
    return numbers


def test_lessons_are_all_there_from_the_first_step():
    numbers = numbers_seen()
    assert set(numbers[:20]) == {1, 2, 3} and min(numbers.count(number) for number in (1, 2, 3)) > 70


def test_lessons_join_one_after_the_other_over_a_share_of_the_steps():
    numbers = numbers_seen(joining=0.2)
    first = [numbers.index(number) for number in (1, 2, 3)]
    assert first[0] == 0 and 20 <= first[1] < 30 and 40 <= first[2] < 55
    late = [numbers[60:].count(number) for number in (1, 2, 3)]
    assert min(late) > 50 and set(numbers[:20]) == {1}


def test_steadiness_is_told_of_lessons(monkeypatch):
    drawn, accepted, joined = [], [], []

    def lesson(number):
        def source(patterns, generator):
            drawn.append(number)
            return RandomBits(8)(patterns, generator)

        return Task(source, FlipBits(0.1), number=2)

    monkeypatch.setattr(Steady, "accepts", lambda steady, loss, norm, lesson=0: accepted.append(lesson) or True)
    monkeypatch.setattr(Steady, "new_lesson", lambda steady: joined.append(len(accepted)))
    fit(Scripted(), [lesson(0), lesson(1), lesson(2)], 30, memories=1, joining=0.6, **QUIET)
    assert accepted == drawn and set(accepted) == {0, 1, 2}
    assert joined == [7, 13]  # a third of 18 steps each


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_lessons_resume_to_the_same_numbers(tmp_path, optimiser):
    lessons = [Task(RandomBits(8), FlipBits(0.1), number) for number in (1, 2)]
    whole, broken = small_model(), small_model()
    options = QUIET | {"joining": 0.5, "optimiser": optimiser}
    fit(whole, lessons, 12, **options)
    stops = [Task(RandomBits(8), Stops(100), 1), lessons[1]]  # in about the ninth step
    with pytest.raises(KeyboardInterrupt):
        fit(broken, stops, 12, checkpoint=tmp_path / "run", save_every=1, **options)
    saved = torch.load(tmp_path / "run", weights_only=False)
    assert saved["optimiser"]["state"]
    stops[0].corruption.at = -1
    history = fit(broken, stops, 12, checkpoint=tmp_path / "run", save_every=1, **options)
    assert len(history.rows) == 12 and same_weights(broken.state_dict(), whole.state_dict())


@pytest.mark.parametrize(
    "lessons", [[], [TASK, Task(RandomBits(8), FlipBits(0.1), 2, "squared error")]], ids=["none", "two metrics"]
)
def test_lessons_that_are_none_or_of_two_metrics_are_refused(lessons):
    with pytest.raises(ValueError, match="lessons are tasks, at least one, all of one metric"):
        fit(Scripted(), lessons, 2, **QUIET)


def test_what_is_no_task_among_lessons_is_refused():
    with pytest.raises(TypeError, match="task must be an ebmm.Task"):
        fit(Scripted(), [TASK, "another"], 2, **QUIET)


@pytest.mark.parametrize("joining", [-0.1, 1.1])
def test_lessons_that_would_never_all_join_are_refused(joining):
    with pytest.raises(ValueError, match="joining"):
        fit(Scripted(), TASK, 2, joining=joining, **QUIET)


@pytest.mark.parametrize("averaging", [1.0, -0.1, 2])
def test_an_average_that_never_moves_is_refused(averaging):
    with pytest.raises(ValueError, match="averaging"):
        fit(Scripted(), TASK, 2, averaging=averaging, **QUIET)


def test_an_outlying_gradient_is_skipped_and_counted():
    class Jumps(Scripted):
        def read(self, query, memory, trajectory=False):
            x, iterates = super().read(query, memory, True)
            far = 1e4 if self.step == 30 else 1.0
            return (x, query + far * (iterates - query)) if trajectory else x

    model = Jumps()
    history = fit(model, TASK, 40, averaging=0, **QUIET)
    assert history.skipped == 1 and model.gains[31] == model.gains[30]


def test_the_metric_of_the_task_is_what_the_history_reports():
    task = Task(RandomBits(8), FlipBits(0.1), number=2, metric="squared error")
    model = Scripted()
    history = fit(model, task, 1, memories=2, **QUIET)
    batch = task.sample(2, torch.Generator().manual_seed(0))
    expected = (0.5 * batch.queries - batch.patterns).square().sum(-1).mean().item()
    assert history.metric == "squared error"
    assert history.rows[0]["error"] == pytest.approx(expected)
    assert history.rows[0]["loss"] == pytest.approx(expected)


def test_the_learning_rate_warms_up_and_cools_down():
    rates = fit(Scripted(), TASK, 100, learning_rate=0.1, warmup=20, **QUIET).column("learning rate")
    assert rates[0] == pytest.approx(0.1 / 20, rel=0.01)
    assert all(b > a for a, b in zip(rates[:18], rates[1:19], strict=True))
    assert max(rates) == pytest.approx(0.1, rel=0.1)
    assert all(b < a for a, b in zip(rates[20:], rates[21:], strict=False))
    assert rates[60] == pytest.approx(0.1 * (0.01 + 0.99 * 0.5 * (1 + math.cos(0.6 * math.pi))))
    assert 0.001 <= rates[-1] < 0.0013
    assert fit(Scripted(), TASK, 3, learning_rate=0.1, warmup=0, **QUIET).rows[0]["learning rate"] == 0.1


def test_the_global_gradient_norm_is_clipped():
    """Gradients far below Adam's epsilon move the weights far less than the learning rate."""
    moves = []
    for clip in (1.0, 1e-14):
        model = Scripted()
        history = fit(model, TASK, 1, clip=clip, weight_decay=0.0, warmup=0, learning_rate=0.1, averaging=0, **QUIET)
        moves.append(abs(model.gain.item() - 0.5))
        assert history.rows[0]["gradient norm"] > 0.01
    assert moves[0] == pytest.approx(0.1, rel=1e-3) and moves[1] < 1e-5


def test_weight_decay_is_applied():
    start, ends = 0.5, []
    for decay in (0.0, 0.5):
        model = Scripted()
        fit(model, TASK, 1, weight_decay=decay, clip=1e-14, warmup=0, learning_rate=0.1, averaging=0, **QUIET)
        ends.append(model.gain.item())
    assert ends[0] - ends[1] == pytest.approx(start * 0.1 * 0.5, rel=1e-3)


def test_the_optimiser_is_adamw_that_forgets_large_gradients_within_a_hundred_steps():
    model, generator = Scripted(), torch.Generator().manual_seed(0)
    rates = fit(model, TASK, 6, memories=2, clip=1e9, learning_rate=0.1, averaging=0, **QUIET).column("learning rate")
    gain, mean, square = 0.5, 0.0, 0.0
    for step, rate in enumerate(rates, 1):
        patterns, queries, _ = TASK.sample(2, generator)
        slope = (2 * (gain * queries - patterns) * queries).sum(-1).mean().item()
        mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope**2
        gain -= rate * 1e-6 * gain + rate * (mean / (1 - 0.9**step)) / ((square / (1 - 0.99**step)) ** 0.5 + 1e-8)
    assert model.gain.item() == pytest.approx(gain, abs=1e-6)


class Modes(Scripted):
    def write(self, patterns):
        self.seen = self.training, torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        return super().write(patterns)


@pytest.mark.parametrize("around", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_training_depends_on_no_mode_set_around_it(around):
    model = Modes().eval()
    with around():
        fit(model, TASK, 2, **QUIET)
    assert model.seen == (True, True, False) and not model.training


def test_a_model_built_under_inference_mode_is_refused():
    with torch.inference_mode():
        model = KanervaMachine(8, 3, 4)
    with pytest.raises(ValueError, match="KanervaMachine was built under torch.inference_mode and cannot be trained"):
        fit(model, TASK, 1, **QUIET)


def test_the_next_batch_is_drawn_while_a_step_is_computed():
    drawn = threading.Event()

    class Waits(Scripted):
        def write(self, patterns):
            assert self.step >= 1 or drawn.wait(timeout=30)
            return super().write(patterns)

    class Tells:
        def __init__(self):
            self.calls = 0

        def __call__(self, patterns, generator):
            self.calls += 1
            if self.calls == 2:
                drawn.set()
            return FlipBits(0.1)(patterns, generator)

    corruption = Tells()
    fit(Waits(), Task(RandomBits(8), corruption, number=2), 3, memories=1, **QUIET)
    assert corruption.calls == 3


def test_the_generator_saved_stands_after_the_batch_of_the_last_step(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        fit(
            Scripted(), Task(RandomBits(8), Stops(at=10), number=2), 9,
            memories=2, save_every=1, checkpoint=tmp_path / "run.training", **QUIET,
        )  # fmt: skip
    state = torch.load(tmp_path / "run.training", weights_only=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        TASK.sample(2, generator)
    assert len(state["history"]["rows"]) == 4
    assert torch.equal(state["generator"], generator.get_state())


# Precision


class EmulatedTF32(TorchDispatchMode):
    """Rounds what products multiply to 11 bits, as CUDA does with TF32, in the backward pass too."""

    products = ("aten::mm", "aten::bmm", "aten::addmm", "aten::baddbmm")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func._schema.name in self.products:
            args = tuple((arg.contiguous().view(torch.int32) + 4096 & ~8191).view(torch.float32) for arg in args)
        return func(*args, **kwargs or {})


def meta_gradient(model, batch, precision="float32", device="cpu"):
    loss, _ = _Loss(model, torch.device(device), precision)(batch)
    gradients = torch.autograd.grad(loss, list(model.parameters()), materialize_grads=True)
    return torch.cat([gradient.flatten() for gradient in gradients]).double().cpu()


def gradient_in(model, batch, precision):
    """The meta-gradient on the CPU, where TF32 is emulated."""
    with EmulatedTF32() if precision == "tf32" else contextlib.nullcontext():
        return meta_gradient(model, batch, precision)


def exact_gradient(model, batch):
    patterns, queries, intact = batch
    return meta_gradient(copy.deepcopy(model).double(), Batch(patterns.double(), queries.double(), intact))


SMOOTH = {
    "predictive": lambda **options: EBMM(PredictiveEnergy(32), write_rate=(0.1, 1e-4, 1e-4), read_rate=0.3, **options),
    "mlp": lambda **options: EBMM(MLPEnergy(32, 16), write_rate=(0.02, 1e-4, 1e-4), **options),
    "gated": lambda **options: EBMM(GatedRNNEnergy(32, 16, 64), projection="straight-through", **options),
}


@pytest.mark.parametrize("gradient_term", [True, False])
@pytest.mark.parametrize("energy", SMOOTH)
@pytest.mark.parametrize(("precision", "least"), [("tf32", 0.999), ("bfloat16", 0.998)])
def test_meta_gradients_stay_true_in_less_precision(energy, precision, least, gradient_term):
    torch.manual_seed(0)
    model = SMOOTH[energy](gradient_term=gradient_term)
    task, generator = Task(RandomBits(32), FlipBits(0.15), number=8), torch.Generator().manual_seed(1)
    for _ in range(3):
        batch = task.sample(8, generator)
        exact, rounded = exact_gradient(model, batch), gradient_in(model, batch, precision)
        assert not torch.equal(rounded, meta_gradient(model, batch))
        assert torch.cosine_similarity(rounded, exact, 0) > least
        assert rounded.norm().item() == pytest.approx(exact.norm().item(), rel=0.01)


def test_bfloat16_is_wrong_where_equations_are_solved():
    torch.manual_seed(0)
    model = KanervaMachine(32, 8, 16)
    batch = Task(RandomBits(32), FlipBits(0.15), number=8).sample(8, torch.Generator().manual_seed(1))
    exact = exact_gradient(model, batch)
    assert torch.cosine_similarity(meta_gradient(model, batch), exact, 0) > 0.999
    assert torch.cosine_similarity(gradient_in(model, batch, "bfloat16"), exact, 0) < 0.9


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("precision", "least"), [("float32", 0.9999), ("tf32", 0.999), ("bfloat16", 0.998)])
def test_meta_gradients_stay_true_on_the_gpu(precision, least):
    torch.manual_seed(0)
    model = SMOOTH["gated"]()
    batch = Task(RandomBits(32), FlipBits(0.15), number=8).sample(8, torch.Generator().manual_seed(1))
    exact = exact_gradient(model, batch)
    with _tf32(torch.device("cuda"), precision == "tf32"):
        rounded = meta_gradient(model.cuda(), batch.to("cuda"), precision, "cuda")
    assert torch.cosine_similarity(rounded, exact, 0) > least
    assert rounded.norm().item() == pytest.approx(exact.norm().item(), rel=0.01)


def test_training_rounds_as_precision_says():
    states = {}
    for precision in ("float32", "tf32", "bfloat16"):
        model = small_model()
        history = fit(model, TASK, 5, precision=precision, **QUIET)
        states[precision] = model.state_dict()
        assert history.skipped == 0
        assert {tensor.dtype for tensor in states[precision].values() if tensor.is_floating_point()} == {torch.float32}
    assert same_weights(states["tf32"], states["float32"])  # a matter of CUDA alone
    assert not same_weights(states["bfloat16"], states["float32"])


@pytest.mark.parametrize("allowed", [True, False])
def test_tf32_is_left_as_it_was_found(allowed, request):
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn

    def flags():
        return products.allow_tf32, convolutions.allow_tf32

    def set_flags(before):
        products.allow_tf32, convolutions.allow_tf32 = before

    request.addfinalizer(partial(set_flags, flags()))
    for before in ((True, False), (False, True)):
        set_flags(before)
        with _tf32(torch.device("cpu"), allowed):
            assert flags() == before
        with pytest.raises(KeyboardInterrupt), _tf32(torch.device("cuda"), allowed):
            assert flags() == (allowed, allowed)
            raise KeyboardInterrupt
        assert flags() == before


def test_a_precision_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"one of \('float32', 'tf32', 'bfloat16'\), got 'float16'"):
        fit(small_model(), TASK, 1, precision="float16", **QUIET)


# Steps that are not finite


@pytest.mark.parametrize("kind", ["loss", "gradient"])
def test_steps_that_are_not_finite_are_counted_and_not_applied(kind):
    bad = {2, 5, 6}
    model = Scripted(**{kind: bad})
    history = fit(model, TASK, 10, warmup=0, max_skipped=3, **QUIET)
    assert history.skipped == 3 and len(history.rows) == 10
    gains = [*model.gains, model.gain.item()]
    for step in range(10):
        assert (gains[step + 1] == gains[step]) is (step in bad)
        assert math.isfinite(gains[step + 1])
        assert math.isfinite(history.rows[step]["loss"]) is (step not in bad or kind == "gradient")


def test_a_loss_that_is_not_finite_counts_where_its_gradient_is():
    model = Scripted(loss={1, 3})
    model.gain.register_hook(lambda gradient: gradient.nan_to_num(0.5))
    history = fit(model, TASK, 5, warmup=0, **QUIET)
    assert history.skipped == 2
    gains = [*model.gains, model.gain.item()]
    assert [a == b for a, b in zip(gains, gains[1:], strict=False)] == [False, True, False, True, False]
    assert all(map(math.isfinite, history.column("gradient norm")))


def test_too_many_in_a_row_stop_training_and_say_what_to_do():
    model = Scripted(loss={2, 3, 5, 6, 7})
    said = r"3 steps in a row .* the last at step 7: lower the learning rate \(0.002\)"
    with pytest.raises(TrainingError, match=said):
        fit(model, TASK, 20, max_skipped=3, **QUIET)
    assert model.step == 7


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"steps": -3}, "steps must be at least 1, got -3"),
        ({"memories": 0}, "memories must be at least 1, got 0"),
        ({"save_every": 0}, "save_every must be at least 1, got 0"),
        ({"max_skipped": 0}, "max_skipped must be at least 1, got 0"),
        ({"warmup": -1}, "warmup must be at least 0, got -1"),
        ({"learning_rate": -1e-3}, "learning_rate must be at least 0, got -0.001"),
        ({"clip": math.nan}, "clip must be at least 0, got nan"),
    ],
)
def test_settings_out_of_range_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        fit(small_model(), TASK, **{"steps": 1} | arguments, **QUIET)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"steps": 2.5}, "steps must be a whole number, got 2.5"),
        ({"warmup": True}, "warmup must be a whole number, got True"),
        ({"seed": "0"}, "seed must be a whole number, got '0'"),
        ({"learning_rate": "0.1"}, "learning_rate must be a number, got '0.1'"),
        ({"clip": None}, "clip must be a number, got None"),
    ],
)
def test_settings_that_are_no_numbers_are_refused(arguments, words):
    with pytest.raises(TypeError, match=words):
        fit(small_model(), TASK, **{"steps": 1} | arguments, **QUIET)


def test_whole_numbers_and_rates_of_all_kinds_are_the_same_run():
    rows = fit(small_model(), TASK, 2, learning_rate=0.25, warmup=1, **QUIET).rows
    given = {"steps": 2.0, "learning_rate": torch.tensor(0.25), "warmup": np.float32(1)}
    assert fit(small_model(), TASK, **given, **QUIET).rows == rows


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="fit trains a torch.nn.Module with write and read, got FlipBits"):
        fit(FlipBits(0.1), TASK, 1, **QUIET)


@pytest.mark.parametrize(("task", "got"), [(small_model(), "EBMM"), (EXPERIMENTS["flipped-64-16"], "Experiment")])
def test_what_is_no_task_is_refused_with_where_one_is(task, got):
    words = f"task must be an ebmm.Task, .* or experiment.task, and the model comes before it, got {got}"
    for model in (TASK, small_model()):
        with pytest.raises(TypeError, match=words):
            fit(model, task, 1, **QUIET)


def test_a_task_of_another_size_than_the_model_is_refused():
    with pytest.raises(ValueError, match=r"patterns must have shape \(B, N, 9\), got \(16, 2, 8\)"):
        fit(small_model(9), TASK, 1, **QUIET)


# Device, progress, history


def test_auto_picks_the_accelerator_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert pick_device() == pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == torch.device("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_training_on_the_gpu_moves_the_model_there():
    model = small_model()
    history = fit(model, TASK, 3, progress=False)
    assert next(model.parameters()).is_cuda and len(history.rows) == 3


def test_the_progress_bar_shows_loss_and_wrong_bits(capsys):
    fit(Scripted(loss={1}), TASK, 3, progress=True, device="cpu")
    shown = capsys.readouterr().err
    assert "loss=" in shown and "wrong bits=" in shown and "skipped=1" in shown and "3/3" in shown
    fit(Scripted(), TASK, 3, **QUIET)
    assert capsys.readouterr().err == ""


def test_a_history_is_saved_as_json_and_comes_back(tmp_path):
    history = fit(Scripted(gradient={1}), TASK, 4, **QUIET)
    history.save(tmp_path / "history.json")
    back = History(**json.loads((tmp_path / "history.json").read_text()))
    assert back.skipped == 1 and back.metric == history.metric and back.seconds == history.seconds
    for mine, theirs in zip(history.rows, back.rows, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(mine[k] == theirs[k] or math.isnan(mine[k]) and math.isnan(theirs[k]) for k in mine)


def test_a_history_plots_itself():
    import matplotlib.pyplot as plt

    history = fit(Scripted(), TASK, 30, **QUIET)
    axes = history.plot(window=5)
    assert [ax.get_ylabel() for ax in axes] == ["loss", "wrong bits"]
    for ax, name in zip(axes, ("loss", "error"), strict=True):
        drawn, smooth = ax.lines
        assert list(drawn.get_ydata()) == history.column(name)
        window = sorted(history.column(name)[-5:])
        assert smooth.get_ydata()[-1] == pytest.approx(window[2])
        assert "step" in ax.get_xlabel()
    mine = plt.subplots(1, 2)[1]
    assert history.plot(mine) is mine and mine[0].lines
    plt.close("all")


# Checkpoints


GLOBAL = {
    "torch": lambda shape, generator: torch.rand(shape),
    "numpy": lambda shape, generator: torch.from_numpy(np.random.rand(*shape).astype("f")),  # noqa: NPY002
    "python": lambda shape, generator: torch.full(shape, random.random()),
    "the one given": lambda shape, generator: torch.rand(shape, generator=generator),
}


@pytest.mark.parametrize("kind", GLOBAL)
def test_draws_from_global_generators_are_told_where_a_run_may_go_on(kind, tmp_path):
    task = Task(lambda number, generator: GLOBAL[kind]((number, 8), generator).round(), FlipBits(0.1), number=2)
    for checkpoint in (None, tmp_path / "run.training"):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            fit(Scripted(), task, 2, checkpoint=checkpoint, **QUIET)
        told = [(str(one.message), one.filename) for one in told if "global generator" in str(one.message)]
        expected = checkpoint is not None and kind != "the one given"
        assert len(told) == expected and all(file == __file__ for _, file in told)


KILLED = {"steps": 60, "memories": 4, "save_every": 7, "seed": 5, **QUIET}


def run_to_be_killed(folder):
    """What the subprocess below does: the same training, with all it must reproduce written at the end."""
    torch.set_num_threads(1)
    model = small_model(12, seed=1)
    task = Task(RandomBits(12), FlipBits(0.15), number=3)
    history = fit(model, task, checkpoint=Path(folder) / "run.training", **KILLED)
    torch.save({"model": model.state_dict(), "rows": history.rows}, Path(folder) / "end.pt")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_kill_9_and_resume_give_the_weights_of_an_unbroken_run_bit_for_bit(tmp_path):
    command = [sys.executable, "-c", f"import test_training; test_training.run_to_be_killed({str(tmp_path)!r})"]
    places = os.pathsep.join([str(Path(__file__).parent), str(Path(sys.modules["ebmm"].__file__).parents[1])])
    environment = os.environ | {"PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    checkpoint, end = tmp_path / "run.training", tmp_path / "end.pt"

    process = subprocess.Popen(command, env=environment)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not end.exists()
    done = len(torch.load(checkpoint, weights_only=True)["history"]["rows"])
    assert 7 <= done < 60 and done % 7 == 0

    subprocess.run(command, env=environment, check=True, timeout=120)
    resumed = torch.load(end, weights_only=True)

    (tmp_path / "unbroken").mkdir()
    run_to_be_killed(tmp_path / "unbroken")
    unbroken = torch.load(tmp_path / "unbroken" / "end.pt", weights_only=True)
    assert same_weights(resumed["model"], unbroken["model"])
    assert resumed["rows"] == unbroken["rows"] and len(unbroken["rows"]) == 60
    assert not same_weights(unbroken["model"], small_model(12, seed=1).state_dict())


@pytest.mark.parametrize("at", [1, 40, 65, 100])
def test_a_memory_that_draws_at_random_resumes_to_the_same_numbers(tmp_path, at):
    """Interrupted within a step: all generators must stand where the checkpoint left them."""
    results = []
    for stop in (at, None):
        torch.manual_seed(1)
        model, checkpoint = Noisy(), tmp_path / f"{stop}.training"
        arguments = {"steps": 12, "memories": 4, "save_every": 3, "checkpoint": checkpoint} | QUIET
        if stop is not None:
            with pytest.raises(KeyboardInterrupt):
                fit(model, Task(RandomBits(8), Stops(at), number=2), **arguments | {"memories": 9})
            model = Noisy()
            torch.manual_seed(1 if not checkpoint.exists() else 99)
        task = Task(RandomBits(8), Stops(None), number=2)
        results.append((fit(model, task, **arguments | {"memories": 9}).rows, model.gain.item()))
    assert results[0] == results[1]


def test_a_finished_run_is_not_trained_again_and_its_history_comes_back(tmp_path):
    arguments = {"steps": 5, "checkpoint": tmp_path / "deep" / "run.training"} | QUIET
    first = small_model()
    history = fit(first, TASK, **arguments)
    second = small_model()
    again = fit(second, TASK, **arguments)
    assert same_weights(first.state_dict(), second.state_dict())
    assert not same_weights(first.state_dict(), small_model().state_dict())
    assert again.rows == history.rows and again.seconds == pytest.approx(history.seconds, abs=0.5)
    assert [path.name for path in (tmp_path / "deep").iterdir() if path.suffix != ".lock"] == ["run.training"]


def test_time_and_skipped_steps_add_up_over_sittings(tmp_path, monkeypatch):
    monkeypatch.setattr("ebmm.training.time", SimpleNamespace(monotonic=count().__next__))  # one second a step
    arguments = {"steps": 6, "memories": 1, "save_every": 3, "checkpoint": tmp_path / "run.training"} | QUIET
    with pytest.raises(KeyboardInterrupt):
        fit(Scripted(loss={1}), Task(RandomBits(8), Stops(5), number=2), **arguments)
    history = fit(Scripted(loss={1}), Task(RandomBits(8), Stops(None), number=2), **arguments)
    assert history.skipped == 2 and len(history.rows) == 6 == history.seconds
    assert history.column("step") == list(range(6))


@pytest.mark.parametrize("device", ["nonsense", "cuda"])
def test_a_device_that_is_not_there_is_refused(device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=f"got '{device}'|device '{device}' asks for CUDA"):
        pick_device(device)


def test_a_memory_without_parameters_cannot_be_trained():
    with pytest.raises(ValueError, match="Hopfield has no parameters: there is nothing to train"):
        fit(Hopfield(8), TASK, 2, **QUIET)


def test_a_history_tells_itself_in_a_line():
    history = fit(small_model(), TASK, 2, **QUIET)
    assert re.fullmatch(r"History\(2 steps, 0 skipped, \d+ seconds, last wrong bits: [\d.e-]+\)", repr(history))
    assert repr(History()) == "History(0 steps, 0 skipped, 0 seconds)"


def test_a_callback_gets_each_row_and_cannot_change_it():
    given = []

    def callback(row):
        given.append(dict(row))
        row.clear()

    history = fit(small_model(), TASK, 3, callback=callback, **QUIET)
    assert given == history.rows and [row["step"] for row in given] == [0, 1, 2]


def test_what_a_callback_raises_ends_training():
    with pytest.raises(ZeroDivisionError):
        fit(small_model(), TASK, 3, callback=lambda row: 1 / row["step"], **QUIET)
