"""Photographs: found, verified, decoded once, mapped; with small sets in the official formats, and the real ones."""

from __future__ import annotations

import hashlib
import os
import pickle
import tarfile
import timeit
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import script
from PIL import Image

from ebmm import Task, files
from ebmm.datasets import cifar10, folder_of_images, photographs, photos, store, tiny_imagenet
from ebmm.tasks import ImagePatterns, NoiseBlock

ROOT = Path(__file__).resolve().parents[2]
NAMES = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
PIXELS = {
    name: np.random.default_rng(place).integers(0, 256, (4, 3, 32, 32), np.uint8)
    for place, name in enumerate([*NAMES["train"], *NAMES["test"]])
}
BINARY = {name: np.c_[np.full((4, 1), 7, np.uint8), rows.reshape(4, -1)].tobytes() for name, rows in PIXELS.items()}
PYTHON = {name: pickle.dumps({b"data": rows.reshape(4, -1), b"labels": [7] * 4}) for name, rows in PIXELS.items()}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def small(cache, monkeypatch):
    """CIFAR-10 with four images a file."""
    monkeypatch.setattr(photographs, "_BATCH", 4)
    monkeypatch.setattr(photographs, "_PICKLED", 1000)
    sums = {s: {n: (md5(BINARY[n]), md5(PYTHON[n])) for n in names} for s, names in NAMES.items()}
    monkeypatch.setattr(photographs, "_CIFAR10", sums)


def lay_out(folder: Path, kind: str = "bin") -> Path:
    batches = folder / f"cifar-10-batches-{kind}"
    batches.mkdir(parents=True)
    for name in PIXELS:
        if kind == "bin":
            (batches / f"{name}.bin").write_bytes(BINARY[name])
        else:
            (batches / name).write_bytes(PYTHON[name])
    return folder


def photograph(path: Path, width: int = 64, height: int = 64, seed: int = 0, mode: str = "RGB") -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return pixels


@pytest.mark.parametrize("kind", ["bin", "py"])
def test_cifar10_is_read_from_either_official_format(kind, small, tmp_path):
    root = lay_out(tmp_path / "data", kind)
    for split, names in NAMES.items():
        found = cifar10(split, root=root)
        assert found.images.dtype == torch.uint8
        assert (found.images.numpy() == np.concatenate([PIXELS[name] for name in names])).all()
        assert repr(found).startswith(f"PhotoSet(CIFAR-10 {split}: {len(found)} images of 32 x 32, source: {root}")


def test_it_is_decoded_once(small, cache, tmp_path, monkeypatch):
    root = lay_out(tmp_path / "data")
    whole = cifar10("test", root=root).images.clone()
    monkeypatch.setattr(store, "verified", lambda *arguments: pytest.fail("decoded again"))
    assert (cifar10("test", root=root).images == whole).all()


def test_without_a_folder_the_archive_is_downloaded_and_read_without_unpacking_it(small, cache, tmp_path, monkeypatch):
    lay_out(tmp_path / "official")
    archive = tmp_path / "downloads" / "archive.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as made:
        for name in reversed(PIXELS):  # the official archive has them in another order too
            made.add(tmp_path / "official" / "cifar-10-batches-bin" / f"{name}.bin", f"cifar-10-batches-bin/{name}.bin")
    asked = []
    monkeypatch.setattr(files, "download", lambda *arguments: asked.append(arguments) or archive)
    for split, names in NAMES.items():
        assert (cifar10(split).images.numpy() == np.concatenate([PIXELS[name] for name in names])).all()
    addresses, name, checksum, _, instead = asked[0]
    assert "ebmm.datasets.photos()" in instead
    assert (addresses[0] + name).startswith("https://") and checksum.startswith("md5:")
    assert list(archive.parent.iterdir()) == [archive]


def test_what_is_wrong_with_cifar10_is_said_and_nothing_is_kept_of_it(small, cache, tmp_path):
    root = lay_out(tmp_path / "data")
    folder = root / "cifar-10-batches-bin"
    (folder / "data_batch_3.bin").write_bytes(BINARY["data_batch_3"][:-1] + b"?")
    with pytest.raises(ValueError, match=r"data_batch_3.bin is damaged: its content has MD5"):
        cifar10("train", root=root)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"data_batch_3.bin: the split is not whole"):
        cifar10("train", root=root)
    assert [path.suffix for path in (cache / "decoded").iterdir()] == [".lock"]
    (folder / "data_batch_3.bin").write_bytes(BINARY["data_batch_3"])
    assert len(cifar10("train", root=root)) == 20
    with pytest.raises(ValueError, match="split must be one of 'train', 'test', got 'val'"):
        cifar10("val", root=root)
    with pytest.raises(FileNotFoundError, match="leave out root"):
        cifar10("train", root=tmp_path)


def test_tiny_imagenet_takes_the_images_that_are_there(cache, tmp_path):
    folder = tmp_path / "tiny-imagenet-200" / "val" / "images"
    expected = [photograph(folder / f"val_{i}.PNG", seed=i) for i in range(3)]
    found = tiny_imagenet("val", root=tmp_path)
    assert (found.images.numpy() == np.stack(expected).transpose(0, 3, 1, 2)).all()
    assert found.name == "Tiny-ImageNet val, 3 of 10000 images"
    with pytest.raises(FileNotFoundError, match="train"):
        tiny_imagenet("train", root=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"cs231n.*EBMM_DATA"):
        tiny_imagenet("train")
    photograph(folder / "val_9.png", width=65)
    with pytest.raises(ValueError, match=r"val_9.png is 65 x 64, the images of this set are 64 x 64"):
        tiny_imagenet("val", root=tmp_path)


def test_any_folder_of_images_is_cut_to_squares(cache, tmp_path):
    wide = photograph(tmp_path / "mine" / "b" / "wide.png", width=48, height=16)
    photograph(tmp_path / "mine" / "a.png", 8, 8, mode="L")
    (tmp_path / "mine" / "notes.txt").write_text("no image")
    found = folder_of_images(tmp_path / "mine", size=8)
    assert found.images.shape == (2, 3, 8, 8) and found.name == "mine"
    assert (found.images[0, 0] == found.images[0, 1]).all(), "grey has three equal channels"
    middle = wide[:, 16:32].reshape(8, 2, 8, 2, 3).astype(float).mean((1, 3)).transpose(2, 0, 1)
    assert np.abs(found.images[1].numpy() - middle).max() <= 1
    photograph(tmp_path / "mine" / "c.png", 8, 8)
    assert len(folder_of_images(tmp_path / "mine", size=8)) == 3, "a new file is seen"
    times = (tmp_path / "mine" / "a.png").stat().st_mtime_ns
    new = photograph(tmp_path / "mine" / "a.png", 8, 8)
    os.utime(tmp_path / "mine" / "a.png", ns=(times, times))
    changed = folder_of_images(tmp_path / "mine", size=8).images[0]
    assert (changed.numpy() == new.transpose(2, 0, 1)).all(), "a changed file is seen"


def test_an_image_that_would_fill_the_memory_is_refused(cache, tmp_path, monkeypatch):
    photograph(tmp_path / "mine" / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 // 2 - 1)
    with pytest.raises(ValueError, match=r"a.png is damaged: it cannot be decoded \(Image size .* exceeds limit"):
        folder_of_images(tmp_path / "mine")


def test_what_is_wrong_with_a_folder_is_said(cache, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        folder_of_images(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images in"):
        folder_of_images(tmp_path / "empty")
    photograph(tmp_path / "mine" / "a.jpg")
    (tmp_path / "mine" / "b.jpg").write_bytes((tmp_path / "mine" / "a.jpg").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"b.jpg is damaged: it cannot be decoded"):
        folder_of_images(tmp_path / "mine")
    with pytest.raises(ValueError, match="size must be"):
        folder_of_images(tmp_path / "mine", size=0)


def test_the_sample_needs_nothing_but_the_package(cache, monkeypatch):
    monkeypatch.setattr(files, "download", lambda *arguments: pytest.fail("asked the network"))
    found = photos()
    assert found.images.shape == (256, 3, 32, 32) and found.images.dtype == torch.uint8
    assert found.name == "CIFAR-10 test, 256 of 10000 images"
    assert len({image.numpy().tobytes() for image in found.images}) == 256
    assert Path(found.source).stat().st_size < 800_000


@pytest.mark.filterwarnings("ignore:grey patterns")
def test_bytes_become_patterns_as_floats_do():
    images = torch.randint(0, 256, (6, 3, 8, 8), dtype=torch.uint8)
    of_bytes, of_floats = (
        Task(ImagePatterns(source), NoiseBlock(4), 4).sample(2, torch.Generator().manual_seed(0))
        for source in (images, images.float() / 255)
    )
    assert of_bytes.patterns.dtype == torch.float32 and of_bytes.patterns.shape == (2, 4, 3, 8, 8)
    assert (of_bytes.patterns == of_floats.patterns).all() and (of_bytes.queries == of_floats.queries).all()
    assert ImagePatterns(images, threshold=0.5)(3, torch.Generator()).unique().tolist() == [0, 1]


@pytest.mark.slow
def test_the_official_photographs(official, cache):
    root = official("cifar10", "tiny-imagenet")
    train, test = cifar10("train", root=root), cifar10("test", root=root)
    assert train.images.shape == (50000, 3, 32, 32) and test.images.shape == (10000, 3, 32, 32)
    mean = train.images[::10].double().mean((0, 2, 3)) / 255
    torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]).double(), atol=0.005, rtol=0)
    validation = tiny_imagenet("val", root=root)
    assert validation.images.shape[1:] == (3, 64, 64) and 0.3 < validation.images[::50].double().mean() / 255 < 0.6


@pytest.mark.slow
def test_the_sample_is_what_its_script_makes(official, cache, tmp_path):
    script("make_photos").main(["--root", str(official("cifar10")), "--out", str(tmp_path / "photos.npz")])
    with np.load(tmp_path / "photos.npz") as made, np.load(photos().source) as kept:
        assert set(made) == set(kept) == {"test_images"}
        assert (made["test_images"] == kept["test_images"]).all()


@pytest.mark.slow
def test_a_batch_is_drawn_much_faster_than_a_step_takes(official, cache):
    task = Task(ImagePatterns(cifar10("train", root=official("cifar10")).images), NoiseBlock(16), 64, "squared error")
    generator = torch.Generator().manual_seed(0)
    seconds = min(timeit.repeat(lambda: task.sample(16, generator), number=1, repeat=5))
    assert seconds < 0.5, "0.05 on a quiet core; an update of the paper's network takes a GPU longer"
