"""Write environment.yml, for conda users, from requirements.lock and requirements-torch.txt.

make lock        (or: python tools/conda.py, with any Python)
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKED = ("requirements.lock", "requirements-torch.txt")

HEAD = """\
# The same versions for conda users, written by `make lock`: do not edit.
#     conda env create --file environment.yml && conda activate ebmm && pip install --no-deps --editable .
name: ebmm
channels:
  - conda-forge
dependencies:
  - python=3.11
  - make
  - nodejs=22
  - pip
  - pip:
"""


def environment(*locked: str) -> str:
    """environment.yml with the requirements of these texts, markers kept and hashes left out.

    >>> environment("tqdm==4.70.1 ; os_name == 'nt' \\\\\\n    --hash=sha256:aa\\n").splitlines()[-1]
    "      - tqdm==4.70.1 ; os_name == 'nt'"
    """
    lines = [line.removesuffix("\\").rstrip() for text in locked for line in text.splitlines()]
    return HEAD + "".join(f"      - {line}\n" for line in lines if re.match(r"\w", line))


if __name__ == "__main__":
    texts = [(ROOT / name).read_text(encoding="utf8") for name in LOCKED]
    (ROOT / "environment.yml").write_text(environment(*texts), encoding="utf8")
    print("written: environment.yml")
