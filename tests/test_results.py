"""Files of results: rows are added to them, none is lost, and what is no such file is refused before the work."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ebmm import files
from ebmm.results import check_results, load_results, save_results


def row(experiment, model, clamped, mean):
    return {"experiment": experiment, "model": model, "clamped": clamped, "mean": mean}


def test_results_replace_rows_of_the_same_kind_and_keep_the_others(tmp_path):
    path = tmp_path / "new" / "results.json"
    save_results([row("b", "hebb", False, 1.0), row("a", "hebb", False, 2.0)], path)
    save_results([row("b", "hebb", True, 3.0), row("b", "hebb", False, 4.0), row("b", "ebmm", False, 5.0)], path)
    found = {(r["experiment"], r["model"], r["clamped"]): r["mean"] for r in load_results(path)}
    assert found == {
        ("a", "hebb", False): 2.0,
        ("b", "hebb", False): 4.0,
        ("b", "hebb", True): 3.0,
        ("b", "ebmm", False): 5.0,
    }
    assert len(load_results(path)) == 4 == len(json.loads(path.read_text()))


def test_results_keep_one_row_for_each_training_seed(tmp_path):
    path = tmp_path / "seeds.json"
    for seed, mean in ((0, 1.0), (1, 2.0), (0, 3.0)):
        save_results([row("a", "ebmm", False, mean) | {"training": {"seed": seed}}], path)
    assert [(r["training"]["seed"], r["mean"]) for r in load_results(path)] == [(0, 3.0), (1, 2.0)]


def test_results_lie_in_the_same_order_however_they_were_written(tmp_path):
    rows = [row(e, m, c, 0.0) for e in "ab" for m in "xy" for c in (True, False)]
    save_results(rows, tmp_path / "first.json")
    for r in reversed(rows):
        save_results([r], tmp_path / "second.json")
    assert (tmp_path / "first.json").read_text() == (tmp_path / "second.json").read_text()
    assert (tmp_path / "first.json").read_text().endswith("]\n")


def test_rows_that_say_only_what_they_are_of_are_taken(tmp_path):
    path = tmp_path / "operations.json"
    save_results([{"experiment": "a", "model": "hebb"}, {"experiment": "a", "model": "ebmm", "training": None}], path)
    check_results(path)
    assert [found["model"] for found in load_results(path)] == ["ebmm", "hebb"]


FOREIGN = {
    "half a file": b'[\n {\n  "experiment": "a", "mod',
    "nothing": b"",
    "bytes": b"\x93NUMPY\x01\x00\xff",
    "a dict": b'{"experiment": "a"}',
    "rows without a model": b'[{"experiment": "a"}]',
    "numbers": b"[1, 2]",
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN.keys())
def test_another_file_is_refused_by_its_name_and_kept(content, tmp_path):
    path = tmp_path / "results.json"
    path.write_bytes(content)
    for use in (check_results, load_results, lambda path: save_results([row("a", "hebb", False, 1.0)], path)):
        with pytest.raises(ValueError, match=r"results.json is no results file, or a damaged one .*: restore it, move"):
            use(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("rows", [[{"mean": 1.0}], {"experiment": "a", "model": "b"}, [{"experiment": 1, "model": ""}]])
def test_rows_that_do_not_say_what_they_are_of_are_refused(rows, tmp_path):
    with pytest.raises(ValueError, match="rows must be a list of dicts, each with the strings experiment and model"):
        save_results(rows, tmp_path / "results.json")
    assert not list(tmp_path.iterdir())


def test_rows_that_json_cannot_hold_leave_the_file_as_it_was(tmp_path):
    path = tmp_path / "results.json"
    save_results([row("a", "hebb", False, 1.0)], path)
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_results([row("b", "hebb", False, object())], path)
    assert load_results(path) == [row("a", "hebb", False, 1.0)]


def test_numbers_of_numpy_and_pytorch_become_plain(tmp_path):
    numbers = {"a": np.float32(0.5), "b": np.int64(3), "c": torch.tensor([1.0, 2.0]), "d": np.bool_(True)}
    save_results([{"experiment": "a", "model": "b"} | numbers], tmp_path / "results.json")
    (found,) = load_results(tmp_path / "results.json")
    assert (found["a"], found["b"], found["c"], found["d"]) == (0.5, 3, [1.0, 2.0], True)


def test_a_place_is_checked_before_the_work_and_nothing_is_written_there(tmp_path, monkeypatch):
    path = tmp_path / "new" / "results.json"
    check_results(path)
    assert not path.exists()
    save_results([row("a", "hebb", False, 1.0)], path)
    before = path.read_bytes()
    check_results(path)
    assert path.read_bytes() == before
    with pytest.raises(OSError, match=r"new is a folder: name a file in it"):
        check_results(tmp_path / "new")
    with pytest.raises(OSError, match=r"cannot write .*results.json.more \(.*\): give another path"):
        check_results(path / "more")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # as where the user may not write
    with pytest.raises(PermissionError, match=r"cannot write .*results.json \(no permission\): give another path"):
        check_results(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        load_results(tmp_path / "none.json")
