"""The forms that `make bench` times agree, and it says so when they do not."""

import json
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import agreement, compiling, curves, formula, run
from benchmarks.problem import TINY, draw
from ebmm.results import load_results
from tools import quality, soak
from tools.time_gpu import Operations

HERE = ["ours", "plain", "loop"]  # what needs nothing but PyTorch, and no compiler


@pytest.mark.slow
def test_all_forms_are_timed_in_turn_and_a_missing_library_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jax", None)
    monkeypatch.delitem(sys.modules, "benchmarks.jax_vmap", raising=False)
    out = tmp_path / "speed.json"
    rows = run.main(["--quick", "--forms", "ours", "plain", "jax", "--out", str(out)])
    said = capsys.readouterr().out
    assert "jax: left out, jax is not here" in said and "ours, plain agree in float64" in said
    assert [row["model"] for row in rows] == ["ours", "plain"]
    for row in rows:
        assert row["seconds"] > 0 and row["steps"] >= 4 and row["peak bytes"] > 2**24
        assert row["operations"] > 5e4 and 0 < row["share of matmul peak"] < 1
        ratio = row["ratio to plain"]
        assert ratio["min"] <= ratio["median"] <= ratio["max"]
    assert rows[1]["ratio to plain"] == {"median": 1, "min": 1, "max": 1}
    saved = {row["model"]: row for row in json.loads(out.read_text())}
    assert saved.keys() == {"ours", "plain"}
    assert saved["ours"]["seconds"] == rows[0]["seconds"] and saved["ours"]["seed"] == 0
    assert "--quick" in saved["ours"]["command"] and saved["ours"]["versions"]["torch"] == torch.__version__


def test_forms_agree():
    assert agreement.check_agreement(HERE) < 1e-12


def test_the_agreement_is_of_a_problem_where_all_terms_and_parameters_count():
    loss = agreement.numbers("plain")["the loss"]
    parameters, *_ = draw(TINY)
    gradients = {name: abs(agreement.numbers("plain")[name]).max() for name in parameters}
    assert gradients.pop("head.bias") == 0  # it moves no slope
    assert min(gradients.values()) > 1e-6 * loss


def one_leaf_for_all_steps(energy, x, weight, bias):
    """The trap: later slopes in x differentiate through the writes before."""
    slope, *of_energy = torch.autograd.grad(
        energy(x.requires_grad_(), weight, bias), (x, weight, bias), create_graph=True
    )
    return tuple(of_energy), torch.autograd.grad(slope.square().sum(), (weight, bias), create_graph=True)


def constant_slopes(energy, x, weight, bias, whole=formula.recorded_slopes):
    """The right loss, and a gradient that does not pass through the written slopes."""
    return [[slope.detach() for slope in pair] for pair in whole(energy, x, weight, bias)]


@pytest.mark.parametrize(
    ("name", "broken", "where"),
    [
        ("recorded_slopes", one_leaf_for_all_steps, "the loss"),
        ("recorded_slopes", constant_slopes, "memory.weight"),
        ("write_rates", lambda p: 1.001 * torch.nn.functional.softplus(p["raw_write_rates"])[..., 0], "the loss"),
    ],
)
def test_a_broken_form_is_found(name, broken, where, monkeypatch):
    monkeypatch.setattr(formula, name, broken)
    with pytest.raises(ValueError, match=f"plain and ours differ in {where}"):
        agreement.check_agreement(HERE)


def visits(seconds):
    return [{"seconds": one, "steps": 3, "bytes": 2**26} for one in seconds]


def started(first=1.0, loss=2.0):
    return {"first": first, "loss": loss, "bytes_before": 2**25}


def test_ratios_are_those_of_one_round_and_compiling_pays_after_its_seconds_are_saved():
    found = {
        "ours": (started(), visits([4.0, 2.0, 6.0])),
        "plain": (started(), visits([2.0, 2.0, 5.0])),
        "ours compiled": (started(first=100.0), visits([1.0, 1.0, 4.0])),
        "plain compiled": (started(first=100.0), visits([3.0, 3.0, 3.0])),
        "product": (started(), visits([1.0, 1.0, 1.0])),
    }
    ours, plain, compiled, slower = run.rows_of("tiny", found)
    assert ours["ratio to plain"] == {"median": 1.2, "min": 1.0, "max": 2.0}
    assert compiled["pays after steps"] == 34 and compiled["instead of"] == "ours"
    assert slower["pays after steps"] is None and "pays after steps" not in plain
    lines = run.table([ours, plain, compiled, slower]).splitlines()
    assert "after 34 steps" in lines[3] and "never" in lines[4]
    assert all(len(line) == len(other) for line, other in pairwise(lines))


def test_another_loss_in_float32_stops_it():
    found = {name: (started(), visits([1.0])) for name in ("plain", "product")}
    with pytest.raises(ValueError, match="loop has the loss 2.1 in float32"):
        run.rows_of("tiny", {**found, "loop": (started(loss=2.1), visits([1.0]))})


@pytest.mark.parametrize("grown", [{}, {"B": 3}, {"N": 5}, {"T": 2}, {"K": 4}, {"d": 12}])
def test_the_formula_of_products_is_what_is_counted(grown):
    sizes = {"B": 1, "N": 2, "T": 1, "K": 1, "d": 8} | grown
    step = curves.Step(**sizes, recompute=False)
    step()  # the first use tries the energy
    with Operations() as counted:
        step()
    assert counted.total == 2 * sizes["B"] * curves.products(**sizes)


def test_costs_are_measured_and_recomputing_takes_less_room(tmp_path, monkeypatch):
    monkeypatch.setattr(curves, "SECONDS", 0.0)
    monkeypatch.setattr(curves, "GROWN", {"B": (1, 2)})
    monkeypatch.setattr(curves, "HELD", (16,))
    monkeypatch.setattr(sys, "argv", ["curves", "--out", str(tmp_path / "costs.json")])
    curves.main()
    rows = {row["model"]: row for row in json.loads((tmp_path / "costs.json").read_text())}
    assert rows.keys() == {"B = 1", "B = 2", "room of 16, kept", "room of 16, recomputed"}
    assert 0 < rows["B = 1"]["seconds"] < 60
    assert rows["room of 16, recomputed"]["bytes"] < 0.7 * rows["room of 16, kept"]["bytes"]


def test_what_compiling_gains_is_asked_of_the_same_loss(tmp_path, monkeypatch):
    losses = {"eager": 5.0, "compiled": 5.0, "whole": 5.1}
    caches = []

    def run(command, env, **options):
        way = command[-1]
        caches.append(env["TORCHINDUCTOR_CACHE_DIR"])
        assert not list(Path(caches[-1]).iterdir()) and env["TORCHINDUCTOR_COMPILE_THREADS"] == "1"
        said = {"first": 1.0, "seconds": {"eager": 0.6, "compiled": 0.3, "whole": 0.2}[way], "loss": losses[way]}
        return SimpleNamespace(stdout=json.dumps(said))

    monkeypatch.setattr(compiling.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["compiling", "--models", "ebmm-slots", "--out", str(tmp_path / "rows.json")])
    with pytest.raises(ValueError, match="ebmm-slots, whole: the loss is 5.1, not 5.0"):
        compiling.main()
    losses["whole"] = 5.0
    compiling.main()
    rows = {row["model"]: row["times as many"] for row in json.loads((tmp_path / "rows.json").read_text())}
    assert len(set(caches)) == 6, "none finds what another compiled"
    assert rows == {"ebmm-slots, eager": 1.0, "ebmm-slots, compiled": 2.0, "ebmm-slots, whole": pytest.approx(3.0)}


def test_a_way_is_measured_with_the_contestant_of_the_contest(monkeypatch):
    monkeypatch.setattr(curves, "SECONDS", 0.0)
    found = compiling.measure("ebmm-predictive", "eager")
    assert 0 < found["seconds"] < 5 and 0 < found["loss"] < 30


def test_the_cost_of_an_update_is_told_whatever_a_start_costs(monkeypatch):
    clock, starts = [0.0], iter([5.0, 0.6, 0.1, 0.1, 0.9, 0.7, 0.2] + 20 * [0.5])

    def fit(model, task, steps):
        clock[0] += next(starts) + 0.01 * steps

    monkeypatch.setattr(quality, "ebmm", SimpleNamespace(fit=fit))
    monkeypatch.setattr(quality, "time", SimpleNamespace(process_time=lambda: clock[0]))
    assert quality.cost_of_an_update(None, None, {}) == pytest.approx(0.01, rel=0.2)


def test_a_memory_is_trained_for_its_minutes_once(tmp_path, monkeypatch):
    monkeypatch.setattr(quality, "cost_of_an_update", lambda *_: 0.1)
    command = ["quality.py", "redrawn-64-16", "--models", "memory-network-plain", "--memories", "2"]
    monkeypatch.setattr("sys.argv", [*command, "--minutes", "0.05", "--out", str(tmp_path)])
    quality.main()
    (row,) = load_results(tmp_path / "minutes-0.05.json")
    assert row["training"]["steps"] == 30 and row["training"]["minutes"] == 0.05
    assert 0 <= row["training"]["minutes spent"] < 0.5
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == ["minutes-0.05.json"]
    monkeypatch.setattr(quality, "row_of", lambda *_: pytest.fail("it is there"))
    quality.main()


@pytest.mark.parametrize(
    ("a_minute", "once", "grown"), [(0.0, 60.0, 0.0), (0.1, 0.0, 5.4), (0.5, 60.0, 27.0)], ids=["none", "slow", "leak"]
)
def test_a_soak_tells_what_grew_after_the_caches_are_full(a_minute, once, grown):
    def look(minute):
        return {"megabytes": 300 + a_minute * minute + (once if minute >= 10 else 0), "files": 6, "threads": 2}

    assert soak.growth([look(minute) for minute in range(120)]) == {
        "megabytes": pytest.approx(grown), "files": 0, "threads": 0
    }  # fmt: skip
