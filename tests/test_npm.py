"""What pages and tests take from npm is named, locked by hash, and taken without running anything of it."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import tarfile

import fetch_widgets
import pytest
from conftest import ROOT
from fetch_widgets import PACKAGES, Package, copy, install

ASKED = json.loads((ROOT / "package.json").read_text(encoding="utf8"))
LOCKED = json.loads((ROOT / "package-lock.json").read_text(encoding="utf8"))["packages"]


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Locks one package, which lies in a file and has a script that runs at installation; gives its hash."""
    package = tmp_path / "package"
    package.mkdir()
    scripts = {"postinstall": f"touch '{tmp_path / 'ran'}'"}
    (package / "package.json").write_text(json.dumps({"name": "small", "version": "1.0.0", "scripts": scripts}))
    (package / "small.js").write_text("1;")
    with tarfile.open(tmp_path / "small.tgz", "w:gz") as archive:
        archive.add(package, "package")
    monkeypatch.setattr(fetch_widgets, "ROOT", tmp_path)

    def lock(digest: bytes) -> None:
        wanted = {"name": "book", "dependencies": {"small": f"file:{tmp_path / 'small.tgz'}"}}
        held = {"version": "1.0.0", "resolved": f"file:{tmp_path / 'small.tgz'}", "hasInstallScript": True}
        held["integrity"] = "sha512-" + base64.b64encode(digest).decode()
        (tmp_path / "package.json").write_text(json.dumps(wanted))
        packages = {"": wanted, "node_modules/small": held}
        locked = {"name": "book", "lockfileVersion": 3, "requires": True, "packages": packages}
        (tmp_path / "package-lock.json").write_text(json.dumps(locked))

    lock(hashlib.sha512((tmp_path / "small.tgz").read_bytes()).digest())
    return lock


def test_the_lock_is_of_what_is_asked_for_and_holds_a_hash_of_each_package():
    for kind in ("dependencies", "devDependencies"):
        assert LOCKED[""][kind] == ASKED[kind]
    installed = {name: package for name, package in LOCKED.items() if name}
    assert [name for name, package in installed.items() if not package["integrity"].startswith("sha512-")] == []
    asked = ASKED["dependencies"] | ASKED["devDependencies"]
    assert {package.name for package in PACKAGES} == set(asked)
    assert {name: installed[f"node_modules/{name}"]["version"] for name in asked} == asked


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
def test_an_installation_runs_nothing_and_refuses_what_has_another_hash(small, tmp_path, capfd):
    for name in ("right", "wrong"):
        (tmp_path / name).mkdir()
    installed = install(tmp_path / "right")
    assert (installed / "small" / "small.js").read_text() == "1;"
    assert not (tmp_path / "ran").exists()
    small(b"0" * 64)
    with pytest.raises(SystemExit, match="nothing was installed"):
        install(tmp_path / "wrong")
    assert "EINTEGRITY" in capfd.readouterr().err


def test_what_is_wanted_is_copied_and_nothing_else(tmp_path):
    files = {"dist/a.js": "a", "dist/b.css": "b", "dist/fonts/c.woff": "c", "d.js": "d"}
    for name, text in files.items():
        path = tmp_path / "installed" / "small" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    target = tmp_path / "served"
    target.mkdir()
    (target / "old.js").touch()
    assert copy(Package("small", target, ("*.js", "fonts/*"), inside="dist"), tmp_path / "installed") == 2
    found = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert found == {"a.js", "fonts/c.woff"}
    with pytest.raises(SystemExit, match="none of"):
        copy(Package("small", target, ("*.mjs",)), tmp_path / "installed")
    assert (target / "a.js").exists(), "what was there is kept"
