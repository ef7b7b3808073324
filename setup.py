"""The wheel is built without solutions and tools, with its judges packed and whole links; else see pyproject.toml."""

import json
import re
import runpy
import shutil
import zipfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

TITLE = re.compile(r"# ?@title (?:Solution|A start for) \d+\.\d+\n")
INSTEAD = "# Solutions are not in the installed package: they are in the repository, in the folder book/."


class BuildWithoutSolutions(build_py):
    """Copies the package, then leaves out what students should not find there and what nobody needs there."""

    def run(self) -> None:
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # what an earlier build left would travel too
        super().run()
        if not self.editable_mode:
            package = Path(self.build_lib, "ebmm")
            for chapter in package.glob("chapters/*.ipynb"):
                take_out_solutions(chapter)
            pack(sorted(package.glob("book/exercises/_chapter_*.py")), package / "book" / "exercises" / "judges.zip")
            for script in package.glob("data/*.py"):
                script.unlink()


def take_out_solutions(chapter: Path) -> None:
    """Leave of each solution its title; ``python -m ebmm course`` puts an empty answer there."""
    notebook = json.loads(chapter.read_text(encoding="utf8"))
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code" and (title := TITLE.match("".join(cell["source"]))):
            cell["source"] = [title[0], INSTEAD]
    chapter.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf8", newline="\n")


def pack(files: list[Path], archive: Path) -> None:
    """Move files into an archive, which is the same at each build."""
    with zipfile.ZipFile(archive, "w") as packed:
        for file in files:
            packed.writestr(zipfile.ZipInfo(file.name), file.read_bytes())
            file.unlink()


def readme() -> str:
    """README.md as PyPI needs it, where a link to a file of the repository must name the repository."""
    told = runpy.run_path("ebmm/_repository.py")
    text = Path("README.md").read_text(encoding="utf8")
    for link, kind in ((r"(!\[[^]]*\]\()", "raw"), (r"((?<!!)\[[^]]*\]\()", "blob")):
        text = re.sub(rf"{link}(?!https?:|#)", rf"\1{told['REPOSITORY']}/{kind}/{told['TAG']}/", text)
    return text


setup(
    cmdclass={"build_py": BuildWithoutSolutions},
    long_description=readme(),
    long_description_content_type="text/markdown",
)
