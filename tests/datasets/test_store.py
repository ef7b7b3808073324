"""What is decoded once: kept whole, compared with its digest when taken, made again where it was changed."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ebmm import files
from ebmm.datasets import store

SHAPE = (40, 3, 16, 16)
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
calls: list[int] = []


def parts():
    calls.append(1)
    return (PIXELS[first : first + 7] for first in range(0, len(PIXELS), 7))


def take(shape: tuple[int, ...] = SHAPE, source: str = "a source") -> torch.Tensor:
    return store.decoded("photographs", source, shape, parts)


@pytest.fixture(autouse=True)
def fresh(cache):
    calls.clear()
    store._verified.clear()


@pytest.fixture
def kept(cache) -> Path:
    """A decoded file, as an earlier run left it."""
    take()
    (kept,) = (cache / "decoded").glob("*.npy")
    calls.clear()
    return kept


def test_the_file_is_an_ordinary_npy_file_that_is_mapped(kept):
    assert (np.load(kept) == PIXELS).all()
    found = take()
    assert found.dtype == torch.uint8 and (found.numpy() == PIXELS).all() and not calls
    found[0] = 0
    assert (take().numpy() == PIXELS).all(), "who writes into the images writes into a copy"


def zeroed(content: bytes) -> bytes:
    return content[:8192] + bytes(4096) + content[12288:]


@pytest.mark.parametrize(
    "damage",
    [
        zeroed,
        lambda content: content[:-100],
        lambda content: content + b"more",
        lambda content: b"",
        lambda content: content[:-1] + bytes([content[-1] ^ 1]),
        lambda content: bytes([content[0] ^ 1]) + content[1:],
    ],
    ids=["4 kB zeroed", "cut", "longer", "empty", "another digest", "another head"],
)
@pytest.mark.parametrize("seen", [False, True], ids=["in a new process", "in the same process"])
def test_a_file_that_is_not_what_was_written_is_made_again(damage, seen, kept):
    if seen:
        take()
        time.sleep(0.01)  # for another time of change
    whole = kept.read_bytes()
    kept.write_bytes(damage(whole))
    assert (take().numpy() == PIXELS).all() and len(calls) == 1
    assert kept.read_bytes() == whole


@pytest.mark.parametrize("shape", [(5, 3, 16, 16), (40, 3, 8, 32), (40, 768)])
def test_images_of_another_shape_are_made_again(shape, kept, monkeypatch):
    monkeypatch.setattr(sys.modules[__name__], "PIXELS", PIXELS.reshape(-1)[: np.prod(shape)].reshape(shape))
    assert take(shape).shape == shape and len(calls) == 1


def test_another_number_of_images_than_said_is_refused(cache):
    with pytest.raises(ValueError, match=r"bytes of images, which are no uint8 of shape \(41, 3, 16, 16\)"):
        take((41, 3, 16, 16))
    assert not list((cache / "decoded").glob("*.npy"))


def test_a_file_is_compared_with_its_digest_once_in_a_process(kept):
    take()
    times = kept.stat()
    kept.write_bytes(zeroed(kept.read_bytes()))
    os.utime(kept, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not (take().numpy() == PIXELS).all(), "a change that hides itself from this process"
    store._verified.clear()
    assert (take().numpy() == PIXELS).all(), "is found by the next one"


def test_another_source_of_the_same_name_takes_its_place(kept):
    kept.with_name("photographs-of-others-0123456789abcdef.npy").write_bytes(b"")
    take(source="a changed source")
    left = sorted(path.name for path in kept.parent.glob("*.npy"))
    assert len(left) == 2 and kept.name not in left and "photographs-of-others-0123456789abcdef.npy" in left


def test_what_killed_processes_left_is_swept_whatever_it_was_of(cache):
    left = cache / "decoded" / ".folder-0123456789abcdef-0123456789abcdef.npy.0123abcd.partial"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(1000))
    take()
    assert not left.exists()


def test_an_error_of_the_source_is_not_laid_at_the_cache(cache, recwarn):
    def missing():
        yield PIXELS[:3]
        raise FileNotFoundError("the second batch")

    with pytest.raises(FileNotFoundError, match="the second batch"):
        store.decoded("photographs", "a source", SHAPE, missing)
    assert not recwarn and not list((cache / "decoded").glob("*[ly]"))


def full_disk(folder: Path, out: Path) -> None:
    files.cache_folder = lambda: folder
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, most))
    with pytest.warns(UserWarning, match=r"could not keep photographs .*too large.*Make room"):
        found = take()
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    out.write_bytes(found.numpy().tobytes())


def test_a_full_disk_is_said_and_the_images_come_all_the_same(cache, tmp_path):
    process = multiprocessing.get_context("fork").Process(target=full_disk, args=(cache, tmp_path / "images"))
    process.start()
    process.join(20)
    assert process.exitcode == 0 and (tmp_path / "images").read_bytes() == PIXELS.tobytes()
    assert not [path for path in (cache / "decoded").iterdir() if not re.search(r"\.lock$", path.name)]
    take()
    assert len(list((cache / "decoded").glob("*.npy"))) == 1


def slowly(folder: Path, out: Path) -> None:
    files.cache_folder = lambda: folder

    def parts():
        out.with_suffix(".decoded").touch()
        for first in range(0, 40, 10):
            time.sleep(0.05)
            yield PIXELS[first : first + 10]

    out.write_bytes(store.decoded("photographs", "a source", SHAPE, parts).numpy().tobytes())


def test_of_two_processes_at_once_one_decodes_and_both_get_the_images(cache, tmp_path):
    fork = multiprocessing.get_context("fork")
    both = [fork.Process(target=slowly, args=(cache, tmp_path / str(number))) for number in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(20)
        assert process.exitcode == 0
    assert (tmp_path / "0").read_bytes() == (tmp_path / "1").read_bytes() == PIXELS.tobytes()
    assert len(list(tmp_path.glob("*.decoded"))) == 1
