"""How answers are judged: right ones pass, wrong ones are told why, nobody is told the answer.

Each chapter's right and wrong answers stand in a file of its own, test_exercises_N.py.
"""

from __future__ import annotations

import importlib
import re

import pytest
import torch
from conftest import BOOK, CHAPTERS, sources

from ebmm.book.exercises import EXERCISES, check, use_variant, verdict
from ebmm.book.exercises.variant import variant_in_use
from ebmm.book.exercises.verdict import exercise, need

# What each chapter's file holds: RIGHT, (exercise, answer); WRONG, (exercise, answer, key words of the reason it must
# get); SECRET, for each exercise a pattern that no reason may contain, None for an open one.
TABLES = {chapter: importlib.import_module(f"test_exercises_{int(chapter[:2])}") for chapter in CHAPTERS}
RIGHT = [row for table in TABLES.values() for row in table.RIGHT]
WRONG = [row for table in TABLES.values() for row in table.WRONG]
SECRET = {number: pattern for table in TABLES.values() for number, pattern in table.SECRET.items()}


@pytest.fixture
def judge(monkeypatch):
    """Enters exercise 0.1, judged by the given function, until the test ends."""
    monkeypatch.setattr(verdict, "EXERCISES", {})
    return lambda function: exercise("0.1", "a number")(function)


def prose(chapter: str) -> str:
    return "\n\n".join(sources(BOOK / f"{chapter}.ipynb", "markdown"))


def test_a_right_answer_is_told_what_it_shows(judge):
    judge(lambda answer: "Two and two.")
    assert check("0.1", 4)
    assert repr(check("0.1", 4)) == str(check("0.1", 4)) == "0.1: right. Two and two."


def test_a_wrong_answer_is_told_why(judge):
    judge(lambda answer: need(answer > 3, "It is more than 3."))
    assert not check("0.1", 2)
    assert str(check("0.1", 2)) == "0.1: not yet. It is more than 3."


def test_no_answer_is_told_what_is_wanted():
    for number, asked in EXERCISES.items():
        assert str(check(number, None)) == f"{number}: not yet. Nothing was handed in. Wanted: {asked.wanted}."


def test_an_answer_that_raises_is_no_error_of_ours(judge):
    judge(lambda answer: answer() / 0)
    assert str(check("0.1", lambda: 1)) == (
        "0.1: not yet. Trying it raised ZeroDivisionError: division by zero. Wanted: a number."
    )


@pytest.mark.parametrize("answer", ["nonsense", 3.7, [], {}, object(), torch.zeros(0), lambda: None])
@pytest.mark.parametrize("number", EXERCISES)
def test_any_nonsense_gets_a_reason(number, answer):
    said = check(number, answer)
    assert not said
    assert len(said.reason) > 20


def test_an_unknown_exercise_is_named():
    with pytest.raises(ValueError, match=re.escape("no exercise '9.9': choose from 1.1, ")):
        check("9.9", 1)


def test_checking_leaves_random_numbers_alone(judge):
    judge(lambda answer: f"{torch.rand(1)}")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check("0.1", 1)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_exercise_tells_how_to_check_it(chapter):
    text = prose(chapter)
    asked = re.split(r"(?m)^#+ Exercise (\d+\.\d+)", text)[1:]
    numbers = asked[::2]
    assert len(numbers) >= 4
    assert numbers == [number for number in EXERCISES if number.startswith(f"{int(chapter[:2])}.")]
    for number, words in zip(numbers, asked[1::2], strict=True):
        assert f'check("{number}", ' in words, f"exercise {number} does not tell what to hand in"


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_solution_is_checked(chapter):
    code = sources(BOOK / f"{chapter}.ipynb", "code")
    for number in (number for number in EXERCISES if number.startswith(f"{int(chapter[:2])}.")):
        name = f"answer_{number.replace('.', '_')}"
        (solution,) = [source for source in code if re.match(rf"# @title (Solution|A start for) {number}\n", source)]
        assert re.search(rf"(?m)^{name} = ", solution)
        assert f'assert check("{number}", {name})' in solution


@pytest.mark.parametrize(("number", "answer"), RIGHT)
def test_a_right_answer_passes(number, answer):
    assert check(number, answer), check(number, answer)


@pytest.mark.slow
@pytest.mark.parametrize("setting", ["double precision", "no gradients", "another device"])
def test_what_was_set_before_does_not_matter_and_stays(setting):
    one_of_each = {number: answer for number, answer in reversed(RIGHT) if number not in ("1.5", "7.4")}
    with torch.set_grad_enabled(setting != "no gradients"), torch.device("meta" if "device" in setting else "cpu"):
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64 if "double" in setting else before)
        try:
            wrong = [said for number, answer in one_of_each.items() if not (said := check(number, answer))]
            assert torch.is_grad_enabled() == (setting != "no gradients")
            assert torch.get_default_dtype() == (torch.float64 if "double" in setting else before)
            assert torch.empty(1).device.type == ("meta" if "device" in setting else "cpu")
        finally:
            torch.set_default_dtype(before)
    assert wrong == []


@pytest.mark.filterwarnings("ignore:grey patterns")
@pytest.mark.parametrize(("number", "answer", "reason"), WRONG)
def test_a_wrong_answer_is_told_why_and_not_what(number, answer, reason):
    said = check(number, answer)
    assert not said
    assert reason.lower() in said.reason.lower()
    assert SECRET[number] is None or re.search(SECRET[number], said.reason) is None


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_every_exercise_of_a_chapter_is_tried(chapter):
    table, start = TABLES[chapter], f"{int(chapter[:2])}."
    asked = re.findall(rf"(?m)^### Exercise ({re.escape(start)}\d+)", prose(chapter))
    assert asked == [number for number in EXERCISES if number.startswith(start)]
    assert set(asked) == {number for number, _ in table.RIGHT} == {number for number, *_ in table.WRONG}
    assert set(asked) == set(table.SECRET)


def test_a_variant_lasts_for_one_check(judge):
    judge(lambda answer: need(variant_in_use() == answer, "Another one."))
    assert check("0.1", 2027, seed=2027) and check("0.1", 0)
    with pytest.raises(ValueError, match="whole number from 0 on; this is -1"):
        check("0.1", 0, seed=-1)
    use_variant(2026)
    try:
        assert check("0.1", 2026) and check("0.1", 0, seed=0)
    finally:
        use_variant(0)


@pytest.mark.parametrize("seed", ["2027", 1.0, True, None, -3])
def test_what_names_no_variant_is_refused(seed):
    with pytest.raises(ValueError, match="a variant is a whole number"):
        use_variant(seed)
