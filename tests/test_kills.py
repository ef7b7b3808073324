"""After a kill at any moment the next call goes on, and nothing is lost: tools/kill.py in short, and at every line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from ebmm.results import load_results, save_results

ROOT = Path(__file__).resolve().parent.parent
OLD = [{"experiment": "before", "model": f"model {i:02}", "about": "x" * 999} for i in range(17)]
NEW = [{"experiment": "new", "model": "hebb"}]


def test_kills_at_random_moments_lose_nothing():
    command = [sys.executable, str(ROOT / "tools" / "kill.py"), "--kills", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    for kind, line in zip(("training", "evaluation", "two writers", "cache"), sorted(lines, key=order), strict=True):
        assert line.startswith(f"{kind}: ") and re.search("nothing lost|no row lost", line), line


def order(line: str) -> int:
    return ["training", "evaluation", "two writers", "cache"].index(line.split(":")[0])


def write_in_two(path: Path, text: str, encoding: str = "utf8") -> None:
    with open(path, "w", encoding=encoding) as file:
        file.write(text[: len(text) // 2])
        file.flush()
        file.write(text[len(text) // 2 :])


def test_no_line_of_saving_results_can_lose_a_row(tmp_path, monkeypatch):
    import kill

    monkeypatch.setattr(Path, "write_text", write_in_two)
    monkeypatch.setattr(kill, "WRITING", ("ebmm/files.py", "ebmm/results.py", "tests/test_kills.py"))
    path, log = tmp_path / "results.json", tmp_path / "log"
    save_results(OLD, path)
    old = path.read_bytes()
    kill.wait_for(kill.start(lambda: save_results(NEW, path), log, line=0), log)
    new, lines = path.read_bytes(), int((tmp_path / "lines").read_text())
    assert lines > 50 and load_results(path) == OLD + NEW
    path.write_bytes(old)
    for line in range(1, lines + 1):
        assert not kill.wait_for(kill.start(lambda: save_results(NEW, path), log, line=line), log)
        found = path.read_bytes()
        assert found in (old, new), f"after a kill at line {line} of {lines}"
        assert len(list(tmp_path.glob(".*.partial"))) <= 1
        if found == new:
            path.write_bytes(old)
    assert found == new
