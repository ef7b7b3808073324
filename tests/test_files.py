"""Files are written whole or not at all, one process at a time; downloads too."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import resource
import signal
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ebmm import files
from ebmm.files import locked, replacing

FORK = multiprocessing.get_context("fork")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def in_a_process(run, *arguments) -> int:
    """The exit code of a forked process that runs this."""
    process = FORK.Process(target=run, args=arguments)
    process.start()
    process.join(20)
    return process.exitcode


@pytest.fixture
def path(tmp_path) -> Path:
    """A file with something to lose."""
    path = tmp_path / "a [draft].txt"
    path.write_text("old")
    return path


# Replacing.


def test_a_file_is_replaced_and_nothing_else_is_left(path):
    with replacing(path) as beside:
        beside.write_text("new")
        assert path.read_text() == "old" and beside.parent == path.parent
    assert path.read_text() == "new" and names(path.parent) == [path.name]


def test_missing_folders_are_made(tmp_path):
    with replacing(tmp_path / "a" / "b" / "new.txt") as beside:
        beside.write_text("new")
    assert (tmp_path / "a" / "b" / "new.txt").read_text() == "new"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt(), ValueError("no")])
def test_whatever_stops_it_leaves_what_was_there(error, path):
    with pytest.raises(type(error)), replacing(path) as beside:
        beside.write_text("ne")
        raise error
    assert path.read_text() == "old" and names(path.parent) == [path.name]


def test_a_failure_to_sync_or_rename_leaves_what_was_there(path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    for step in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, step, full)
            with pytest.raises(OSError, match="No space left"), replacing(path) as beside:
                beside.write_text("new")
        assert path.read_text() == "old" and names(path.parent) == [path.name]


def fill(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    with pytest.raises(OSError, match="too large"), replacing(path) as beside:
        beside.write_text("new" * 1000)


def test_a_full_disk_leaves_what_was_there(path):
    assert in_a_process(fill, path) == 0
    assert path.read_text() == "old" and names(path.parent) == [path.name]


def test_the_content_is_on_the_disk_before_it_takes_its_place_and_the_folder_after(path, monkeypatch):
    happened = []
    fsync, replace = os.fsync, os.replace

    def sync(handle):
        happened.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"{os.fstat(handle).st_size} bytes")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", lambda *paths: happened.append("renamed") or replace(*paths))
    with replacing(path) as beside:
        beside.write_text("newer")
    assert happened == ["5 bytes", "renamed", "folder"]


def test_a_folder_that_cannot_be_synced_is_no_error(path, monkeypatch):
    fsync = os.fsync

    def sync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not here")
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)
    with replacing(path) as beside:
        beside.write_text("new")
    assert path.read_text() == "new"


def test_a_new_file_may_be_read_by_whom_any_new_file_may_be_and_an_old_one_by_whom_it_was(tmp_path, path):
    path.chmod(0o640)
    for target in (path, tmp_path / "new.txt"):
        with replacing(target) as beside:
            beside.write_text("new")
    (tmp_path / "ordinary.txt").write_text("new")
    modes = {file: stat.S_IMODE((tmp_path / file).stat().st_mode) for file in (path.name, "new.txt", "ordinary.txt")}
    assert modes[path.name] == 0o640 and modes["new.txt"] == modes["ordinary.txt"]


def test_a_link_stays_a_link(path):
    link = path.parent / "there" / "link.txt"
    link.parent.mkdir()
    link.symlink_to(path)
    with replacing(link) as beside:
        beside.write_text("new")
    assert link.is_symlink() and path.read_text() == link.read_text() == "new"


def test_where_nothing_can_be_written_is_said_before_the_work(path, monkeypatch):
    for place, reason in (
        (path.parent, "is a folder: name a file in it"),
        (path / "more.txt", r"cannot write .*more.txt \((Not a directory|File exists)\): give another path"),
    ):
        with pytest.raises(OSError, match=reason), replacing(place):
            pytest.fail("began")
    readable, access = [path], os.access
    monkeypatch.setattr(os, "access", lambda file, mode: file not in readable and access(file, mode))
    with pytest.raises(PermissionError, match="no permission"), replacing(path):
        pytest.fail("began")
    readable[:] = [path.parent]
    with pytest.raises(PermissionError, match="no permission"), replacing(path):
        pytest.fail("began")
    assert path.read_text() == "old"


# What killed processes leave.


def die_while_replacing(path: Path) -> None:
    with replacing(path) as beside:
        beside.write_text("n")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_a_killed_process_left_is_swept_by_the_next_one(path):
    for _ in range(3):
        assert in_a_process(die_while_replacing, path) == -signal.SIGKILL
        assert path.read_text() == "old"
        assert len(names(path.parent)) == 2, "each sweeps what the last one left"
    with replacing(path) as beside:
        beside.write_text("new")
    assert path.read_text() == "new" and names(path.parent) == [path.name]


def test_what_a_living_process_writes_is_not_swept(path):
    with replacing(path) as first:
        first.write_text("first")
        with replacing(path) as second:
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_what_others_called_alike_is_not_swept(path):
    others = [f".{path.name}.partial", f".{path.name}.12345678.part", ".b.txt.12345678.partial", "12345678.partial"]
    for other in others:
        (path.parent / other).write_text("theirs")
    with replacing(path) as beside:
        beside.write_text("new")
    assert names(path.parent) == sorted([path.name, *others])


def test_many_writers_at_once_leave_one_whole_file(path):
    texts = [letter * 10_000 for letter in "abcdefgh"]

    def write(text):
        for _ in range(5):
            with replacing(path) as beside:
                beside.write_text(text)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, texts))
    assert path.read_text() in texts and names(path.parent) == [path.name]


# Locks.


def test_one_at_a_time_is_inside_and_the_other_is_told_which_file(path):
    for place in (path, path.parent):  # a folder can be locked too
        with locked(place):
            told = pytest.raises(TimeoutError, match="is in use by another process: wait until it ends")
            with told as raised, locked(place, seconds=0.05):
                pytest.fail("two at once")
            assert str(place) in str(raised.value)
        with locked(place, seconds=0.05):
            pass


def test_a_link_and_what_it_shows_are_the_same_file(path):
    link = path.parent / "link.txt"
    link.symlink_to(path)
    with locked(link), pytest.raises(TimeoutError), locked(path, seconds=0.05):
        pytest.fail("two at once")


def test_an_error_inside_frees_the_lock(path):
    with pytest.raises(ValueError, match="inside"), locked(path):
        raise ValueError("inside")
    with locked(path, seconds=0.05):
        pass


def die_inside(path: Path) -> None:
    with locked(path):
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_frees_its_lock(path):
    assert in_a_process(die_inside, path) == -signal.SIGKILL
    with locked(path, seconds=0.05):
        pass


def test_all_that_a_lock_leaves_is_one_hidden_file(path):
    for _ in range(2):
        with locked(path):
            pass
    assert set(names(path.parent)) <= {path.name, f".{path.name}.lock"}


def test_a_lock_that_cannot_be_made_says_where(path):
    with pytest.raises(OSError, match=r"cannot write .*: give another path"), locked(path / "more.txt"):
        pytest.fail("began")


# Digests and downloads.


def test_a_damaged_line_of_the_registry_is_shown(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "registry.txt").write_text("a.npz 12ab\nb.npz\n")
    monkeypatch.setattr(files, "__file__", str(tmp_path / "ebmm" / "files.py"))
    with pytest.raises(ValueError, match=r"line 2 of .*registry.txt is no name and SHA-256: 'b.npz'; restore the file"):
        files.data_files()


def test_the_digest_of_a_large_file_is_taken_in_pieces(tmp_path):
    import tracemalloc

    (tmp_path / "large").write_bytes(bytes(1 << 25))
    expected = hashlib.sha256(bytes(1 << 25)).hexdigest()
    tracemalloc.start()
    assert files.digest_of(tmp_path / "large", "sha256") == expected
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 21


@pytest.fixture
def network(monkeypatch):
    """Stands for pooch's way to the network: counts what is asked, and serves slowly, in a file tmp… beside."""
    import pooch

    asked = []

    def serve(self, url, output_file, pooch):
        asked.append(url)
        threading.Event().wait(0.05)
        Path(output_file).write_bytes(b"official")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", serve)
    return asked


def fetch(folder: Path) -> Path:
    checksum = f"md5:{hashlib.md5(b'official').hexdigest()}"
    return files.download(["http://127.0.0.1:9/"], "set.zip", checksum, folder, "do without")


def test_two_downloads_at_once_both_succeed_and_one_asks_the_network(network, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(fetch, [tmp_path / "downloads"] * 2))
    assert found == [tmp_path / "downloads" / "set.zip"] * 2
    assert found[0].read_bytes() == b"official" and len(network) == 1


def test_what_a_killed_download_left_is_swept(network, tmp_path):
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "tmp0a1b2c3d").write_bytes(b"offi")
    fetch(tmp_path / "downloads")
    assert names(tmp_path / "downloads") == ["set.zip"]


def test_a_download_that_is_there_is_taken_where_nothing_can_be_written(network, tmp_path, monkeypatch):
    fetch(tmp_path)
    monkeypatch.setattr(files, "locked", lambda *arguments, **options: pytest.fail("wanted to write"))
    assert fetch(tmp_path).read_bytes() == b"official" and len(network) == 1
