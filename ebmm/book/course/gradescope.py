"""Gradescope: students' notebooks, and the archive that its autograder is made of.

Gradescope unpacks the archive into ``/autograder/source``, runs ``setup.sh`` once, and ``run_autograder`` for each
submission, which lies in ``/autograder/submission``. The results are expected in ``/autograder/results/results.json``.
"""

from __future__ import annotations

import io
import json
import zipfile

from ebmm._repository import REPOSITORY, TAG, VERSION
from ebmm.book.course import plain
from ebmm.book.course.assignment import Course
from ebmm.book.course.chapter import chapter_of, exercises_of

AUTOGRADER = "autograder.zip"

SETUP = f"""\
#!/usr/bin/env bash
# Runs once, when the autograder is built: makes a Python environment that holds ebmm.
set -euo pipefail
root="${{AUTOGRADER_ROOT:-/autograder}}"

python=""
for version in 3.13 3.12 3.11; do
    if command -v "python$version" > /dev/null; then
        python="python$version"
        break
    fi
done
if [ -z "$python" ] || ! "$python" -m venv "$root/environment"; then
    python="${{python:-python3.11}}"
    apt-get update
    apt-get install -y "$python" "$python-venv"
    "$python" -m venv "$root/environment"
fi
pip="$root/environment/bin/pip"

wheels="$root/source/wheelhouse"
if ls "$wheels"/torch-*.whl > /dev/null 2>&1; then
    "$pip" install --no-index --find-links "$wheels" "ebmm[course]=={VERSION}"
else
    "$pip" install torch --index-url https://download.pytorch.org/whl/cpu
    if [ -d "$wheels" ]; then
        "$pip" install --no-index --find-links "$wheels" "ebmm[course]=={VERSION}"
    else
        "$pip" install "ebmm[course]=={VERSION}" || "$pip" install "ebmm[course] @ git+{REPOSITORY}@{TAG}"
    fi
fi
"""

RUN = """\
#!/usr/bin/env bash
# Runs for each submission: grades it and leaves results.json.
set -euo pipefail
root="${{AUTOGRADER_ROOT:-/autograder}}"
python="${{AUTOGRADER_PYTHON:-$root/environment/bin/python}}"

"$python" -m ebmm grade "$root/submission" --gradescope "$root/results/results.json" \\
    --points "$root/source/points.json" --chapters {chapters} --seed {seed} "$@"
"""


def files(course: Course) -> dict[str, str | bytes]:
    """Students' notebooks, and the autograder as an archive."""
    points = {number: course.worth(number) for path in course.chapters for number in exercises_of(path)}
    numbers = " ".join(str(chapter_of(path)) for path in course.chapters)
    contents: dict[str, str | bytes] = {
        "setup.sh": SETUP,
        "run_autograder": RUN.format(chapters=numbers, seed=course.seed),
        "points.json": json.dumps(points, indent=1) + "\n",
    }
    wheels: dict[str, str | bytes] = {f"wheelhouse/{wheel.name}": wheel.read_bytes() for wheel in course.wheels}
    archive = packed(contents | wheels, executable=("setup.sh", "run_autograder"))
    return {**plain.files(course.for_students()), AUTOGRADER: archive}


def packed(contents: dict[str, str | bytes], executable: tuple[str, ...]) -> bytes:
    """An archive that is the same each time it is made.

    Example:
        >>> texts = {"setup.sh": "true"}
        >>> packed(texts, ("setup.sh",)) == packed(texts, ("setup.sh",))
        True
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as into:
        for name, content in contents.items():
            entry = zipfile.ZipInfo(name)
            entry.create_system = 3  # Unix, whose permissions follow
            entry.external_attr = (0o100755 if name in executable else 0o100644) << 16
            into.writestr(entry, content)
    return archive.getvalue()
