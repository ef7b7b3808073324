"""The notebook to start from runs where nothing but it is at hand, and its marked cells may be changed."""

from __future__ import annotations

import json
import re
import shutil

import conftest
import pytest
from conftest import BOOK, Execution, cells_of, run_chapter, source
from test_notebooks import slowness

SECONDS = 30  # run FAST, on the machine that slowness() compares with
RULES = ("hebb", "storkey", "pseudo-inverse")
MARK = "# Change this.\n"

OTHERS = {
    "starter-energy-code": """
from ebmm.layers import MemorySymmetric

class MyEnergy(torch.nn.Module):
    writable = ("memory",)

    def __init__(self, dim):
        super().__init__()
        self.memory = MemorySymmetric(dim)

    def forward(self, x):
        signs = 2 * x - 1
        return 0.5 * (self.memory(signs) - signs).square().sum(-1)

model = ebmm.EBMM(MyEnergy(64), gradient_term=False, write_rate=(0.1, 1e-4, 1e-4), read_rate=0.3)
""",
    "starter-data-code": """
from ebmm.tasks import ImagePatterns

bits = torch.randint(0, 2, (500, 64), generator=torch.Generator().manual_seed(0)).float()
source = ImagePatterns(bits)
number = 16
""",
    "starter-corruption-code": """
def corruption(patterns, generator):
    hit = torch.rand(patterns.shape, generator=generator) < 0.15
    return torch.where(hit, 1 - patterns, patterns), ~hit

task = Task(source, corruption, number)
""",
}


def cell_of(identity: str) -> str:
    return next(source(cell) for cell in cells_of(BOOK / "starter.ipynb") if cell["id"] == identity)


def run_alone(folder, changes: dict[str, str] | None = None) -> Execution:
    """Run the notebook in a folder that holds nothing else, with the sources of some cells changed."""
    (folder / "book").mkdir()
    alone = folder / "book" / "starter.ipynb"
    shutil.copy(BOOK / "starter.ipynb", alone)
    notebook = json.loads(alone.read_text(encoding="utf8"))
    for cell in notebook["cells"]:
        cell["source"] = (changes or {}).get(cell["id"], cell["source"])
    alone.write_text(json.dumps(notebook), encoding="utf8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conftest, "ROOT", folder)
        execution = run_chapter("starter", folder)
    assert list((folder / "book").iterdir()) == [alone], "it leaves files behind"
    return execution


@pytest.fixture(scope="module")
def executed(tmp_path_factory) -> Execution:
    return run_alone(tmp_path_factory.mktemp("starter"))


def test_the_cells_to_change_are_marked_below_a_heading_that_says_so():
    cells = cells_of(BOOK / "starter.ipynb")
    marked = [place for place, cell in enumerate(cells) if source(cell).startswith(MARK)]
    headings = [source(cells[place - 1]).splitlines()[0] for place in marked]
    assert headings == [f"## Change this: the {part}" for part in ("energy", "data", "corruption")]
    assert [cells[place]["id"] for place in marked] == list(OTHERS)


def test_it_runs_in_time_with_results_within_bounds(executed):
    assert not executed.error, executed.error
    assert executed.seconds <= SECONDS * slowness()
    results = executed.results
    assert 3.5 < results["my task: mine"] < 6.7
    assert results["my task: mine"] < results["my task: mine, untrained"] - 0.5
    assert results["contest: mine"] == pytest.approx(results["my task: mine"], abs=0.5)
    assert results["contest: rank"] <= 6 and results["contest: memories"] == 19


@pytest.mark.parametrize("rule", RULES)
def test_its_own_energy_beats_the_rules_and_holds_no_more_floats(rule, executed):
    assert executed.results["mine: floats"] <= executed.results[f"{rule}: floats"] == 2080
    assert executed.results["my task: mine"] < 0.5 * executed.results[f"my task: {rule}"]


def test_every_figure_has_alternative_text(executed):
    drawn = [
        cell
        for cell in cells_of(executed.path)
        if any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
    ]
    assert len(drawn) == 3
    assert all(len(cell["metadata"]["mystnb"]["image"]["alt"]) > 20 for cell in drawn)


def test_it_reports_all_that_a_repetition_needs(executed):
    cells = cells_of(executed.path)
    (report,) = ["".join(c["outputs"][0]["text"]) for c in cells if c["id"] == "starter-report-code"]
    named = ("2064 floats", "RandomBits(dim=64)", "RedrawBits(count=32)", "percentile", "seed 1", "steps", "torch")
    for words in named:
        assert words in report
    (entered,) = ["".join(c["outputs"][0]["text"]) for c in cells if c["id"] == "starter-contest-code"]
    for words in ("redrawn-64-48", "wrong bits", "percentile", "seed 1"):
        assert words in entered


def test_every_marked_cell_may_be_changed(tmp_path):
    changed = run_alone(tmp_path, OTHERS)
    assert not changed.error, changed.error
    results = changed.results
    assert results["mine: floats"] == 2080
    assert results["my task: mine"] < results["my task: hebb"]
    assert results["contest: mine"] != pytest.approx(results["my task: mine"], abs=0.5)


def test_own_grey_images_do_without_the_rules_for_bits_and_the_contest(tmp_path):
    grey = {
        "starter-energy-code": OTHERS["starter-energy-code"].replace(
            "signs = 2 * x - 1", "signs = 2 * x.flatten(-2) - 1"
        ),
        "starter-data-code": """
from ebmm.tasks import ImagePatterns

images = torch.rand(500, 8, 8, generator=torch.Generator().manual_seed(0))
source, number = ImagePatterns(images), 4
""",
        "starter-corruption-code": """
corruption = ebmm.tasks.GaussianNoise(0.2)
task = Task(source, corruption, number, metric="squared error")
""",
        "starter-evaluate-code": re.sub("rules = .*", "rules = ()", cell_of("starter-evaluate-code")),
        "starter-contest-code": "",
        "starter-bars": "",
    }
    changed = run_alone(tmp_path, grey)
    assert not changed.error, changed.error
    assert changed.results.keys() == {
        f"{first}{name}{last}"
        for name in ("mine", "mine, untrained")
        for first, last in (("my task: ", ""), ("", ": floats"))
    }
