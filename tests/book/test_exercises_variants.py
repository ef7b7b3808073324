"""Variants of the exercises: the text, the solution and the judge change together, and the book's answers fail."""

from __future__ import annotations

import ast
import importlib
import re

import pytest
from conftest import CHAPTERS

from ebmm.book.course.chapter import HEADING, SOLUTION, chapters, load, name_of, source_of
from ebmm.book.exercises import EXERCISES, check
from ebmm.book.exercises.variant import Drawn, order, variant, with_letters, with_options
from ebmm.tasks import RandomBits, RedrawBits, Task

SEEDS = (1, 7, 2027)
DRAWN = [number for number, asked in EXERCISES.items() if asked.drawn]
CHOSEN = [number for number, asked in EXERCISES.items() if asked.choices]
# Solutions that need nothing of their chapter but its imports and functions, and the solutions before them.
ALONE = ("1.1", "1.2", "1.3", "2.2", "5.1", "5.2", "6.1", "7.1", "8.1")


def cells(chapter: str) -> list[str]:
    (path,) = [path for path in chapters() if path.stem == chapter]
    return [source_of(cell) for cell in load(path)["cells"]]


def sources(kind) -> dict[str, str]:
    """Texts or solutions of all exercises, by number."""
    found = [(kind.search(source), source) for chapter in CHAPTERS for source in cells(chapter)]
    return {match[1]: source for match, source in found if match and match[1] in EXERCISES}


TEXTS, SOLUTIONS = sources(HEADING), {n: s for n, s in sources(SOLUTION).items() if SOLUTION.match(s)}


def names_of_the_chapter(number: str) -> dict:
    """What the imports of a chapter give, and those of its functions and classes that these solutions need."""
    (chapter,) = [chapter for chapter in CHAPTERS if int(chapter[:2]) == int(number.split(".")[0])]
    known: dict = {"results": {}, "FAST": True, "SEED": 0, "full_task": Task(RandomBits(64), RedrawBits(32), 48)}
    for source in cells(chapter):
        if source.startswith("# @title Imports"):
            exec(source, known)
        elif re.search(r"(?m)^(def random|def phi|class Nearest)\b", source):
            found = [node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
            exec(compile(ast.Module(found, []), chapter, "exec"), known)
    return known


def solved(number: str, seed: int):
    """The answer of the solution, as a variant has it; the solution checks itself."""
    known = names_of_the_chapter(number)
    with variant(seed):
        for earlier in ("1.2",) if number == "1.3" else ():
            exec(EXERCISES[earlier].solution_in(SOLUTIONS[earlier], seed), known)
        exec(EXERCISES[number].solution_in(SOLUTIONS[number], seed), known)
    return known[name_of(number)]


def test_the_book_itself_is_no_variant():
    assert TEXTS.keys() == SOLUTIONS.keys() == EXERCISES.keys()
    for number, asked in EXERCISES.items():
        assert asked.text_in(TEXTS[number], 0) == TEXTS[number]
        assert asked.solution_in(SOLUTIONS[number], 0) == SOLUTIONS[number]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", DRAWN)
def test_a_variant_says_its_own_numbers(number, seed):
    drawn = EXERCISES[number].drawn
    for passages, source, varied in (
        (drawn.text, TEXTS[number], EXERCISES[number].text_in),
        (drawn.solution, SOLUTIONS[number], EXERCISES[number].solution_in),
    ):
        assert passages
        told = varied(source, seed)
        assert told != source
        for passage in passages:
            assert passage.format(**vars(drawn.values(seed))) in told


@pytest.mark.parametrize("number", DRAWN)
def test_each_variant_has_other_numbers(number):
    drawn = EXERCISES[number].drawn
    values = [drawn.values(seed) for seed in range(1, 30)]
    assert drawn.values(0) not in values
    assert drawn.values(5) == drawn.values(5)
    assert any(one != values[0] for one in values)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", ALONE)
def test_the_solution_of_a_variant_is_right_and_that_of_the_book_is_not(number, seed):
    assert check(number, solved(number, seed), seed=seed)
    assert not check(number, solved(number, 0), seed=seed)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("number", CHOSEN)
def test_options_stand_in_another_order(number, seed):
    asked = EXERCISES[number]
    letters = {name: order(name, options, seed) for name, options in asked.choices.items()}
    for name, options in asked.choices.items():
        assert sorted(letters[name]) == list(options)
        assert all(new != old for new, old in zip(letters[name], options, strict=True))
    book, told = TEXTS[number], asked.text_in(TEXTS[number], seed)
    assert told != book
    assert sorted(told) == sorted(book) or asked.drawn
    assert asked.solution_in(SOLUTIONS[number], seed) != SOLUTIONS[number]


def test_a_letter_is_read_by_the_order_of_the_variant():
    listed = "Which?\n\n* (a) Red.\n* (b) Green.\n* (c) Blue."
    told = with_options({"colour": "abc"}, listed, 7)
    given = with_letters({"colour": "abc"}, 'answer = {"colour": "b"}', 7)
    letter = given.split('"')[3]
    assert f"({letter}) Green." in told


def test_a_passage_that_the_book_no_longer_has_is_named():
    sides = Drawn({"a": 3}, lambda random: {"a": 4}, text=("{a} cm",))
    assert sides.filled(sides.text, "3 cm", 1) == "4 cm"
    with pytest.raises(ValueError, match="the book no longer says '3 cm'"):
        sides.filled(sides.text, "three cm", 1)
    with pytest.raises(ValueError, match="names no letter for 'colour'"):
        with_letters({"colour": "ab"}, "answer = 3", 1)
    with pytest.raises(ValueError, match="lists 0 choices where the judge has colour"):
        with_options({"colour": "ab"}, "Which colour?", 1)


def test_rates_of_a_steeper_memory():
    k = EXERCISES["4.1"].drawn.values(7).k
    assert k > 1 and f"with ${k}E$ in the place of $E$" in EXERCISES["4.1"].text_in(TEXTS["4.1"], 7)
    assert check("4.1", {"write rate": 1 / k, "read rate": 1 / k}, seed=7)
    assert not check("4.1", {"write rate": 1.0, "read rate": 1.0}, seed=7)


def test_the_load_that_fails_first():
    from test_exercises_4 import RIGHT

    (answer,) = [answer for number, answer in RIGHT if number == "4.3"][:1]
    fewest = EXERCISES["4.3"].drawn.values(7).fewest
    assert check("4.3", answer | {"fails at": fewest}, seed=7) and not check("4.3", answer, seed=7)


@pytest.mark.parametrize("number", ["2.1", "6.2", "9.2"])
def test_functions_are_tried_on_other_data_in_each_variant(number):
    table = importlib.import_module(f"test_exercises_{number[0]}")
    answer = next(answer for other, answer in table.RIGHT if other == number)
    (name, function) = next((name, part) for name, part in answer.items() if callable(part))
    met: dict = {}

    def met_by(*given):
        met.setdefault(seed, given[0].clone())
        return function(*given)

    for seed in (0, *SEEDS):
        assert check(number, answer | {name: met_by}, seed=seed)
    assert len({tuple(one.flatten().tolist()) for one in met.values()}) == 1 + len(SEEDS)
