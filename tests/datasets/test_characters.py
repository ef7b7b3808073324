"""Data sets: found, downloaded, verified; tested against a small server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import shutil
import subprocess
import sys
import threading
import tracemalloc
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch
from conftest import script
from PIL import Image

from ebmm import files
from ebmm.datasets import characters, digits, mnist, omniglot
from ebmm.files import data_path

ROOT = Path(__file__).resolve().parents[2]


# A small Omniglot and a small MNIST of our own, in the official formats.


def drawing(character: int, number: int) -> np.ndarray:
    """Paper with one square of ink, (105, 105), True where the paper is white."""
    paper = np.ones((105, 105), bool)
    paper[15 * character : 15 * character + 15, number : number + 30] = False
    return paper


def omniglot_zip(names: list[str], compression: int = zipfile.ZIP_DEFLATED, change: str = "") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for character, name in enumerate(names):
            for number in range(20):
                png = io.BytesIO()
                member = f"images_background/{name}/{character:04}_{number + 1:02}.png"
                Image.fromarray(drawing(character + (member == change), number)).save(png, "png")
                archive.writestr(zipfile.ZipInfo(member), png.getvalue(), compression)
    return content.getvalue()


CHARACTERS = ["Greek/character01", "Greek/character02", "Latin/character01"]
ARCHIVE = omniglot_zip(CHARACTERS)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8)
MNIST_FILES = {
    "t10k-images-idx3-ubyte": bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 28, 0, 0, 0, 28]) + PIXELS.tobytes(),
    "t10k-labels-idx1-ubyte": bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 2, 1]),
}


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


class Server:
    """Serves ``files`` by name; of a name in ``cut`` it sends half, as many times as told."""

    def __init__(self):
        self.files: dict[str, bytes] = {}
        self.cut: dict[str, int] = {}
        self.asked: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                name = self.path.rsplit("/", 1)[-1]
                server.asked.append(self.path)
                content = server.files.get(name)
                if content is None:
                    return self.send_error(404)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if server.cut.get(name, 0):
                    server.cut[name] -= 1
                    content = content[: len(content) // 2]
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}/"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch):
    server = Server()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture
def small(server, cache, monkeypatch):
    """The official places and checksums, replaced by those of the small data sets."""
    server.files = {"images_background.zip": ARCHIVE}
    server.files |= {name + ".gz": gzip.compress(content) for name, content in MNIST_FILES.items()}
    with zipfile.ZipFile(io.BytesIO(ARCHIVE)) as archive:
        lines = [f"{hashlib.sha256(archive.read(m)).hexdigest()}  {m}\n" for m in sorted(archive.namelist())]
    members = hashlib.sha256("".join(lines).encode()).hexdigest()
    official = characters._OmniglotArchive(md5(ARCHIVE), members, characters=3)
    monkeypatch.setattr(characters, "_OMNIGLOT", {"background": official})
    checksums = {n: (md5(c), md5(server.files[n + ".gz"])) for n, c in MNIST_FILES.items()}
    monkeypatch.setattr(characters, "_MNIST_MD5", characters._MNIST_MD5 | checksums)
    monkeypatch.setitem(characters._MNIST, "test", ("t10k", 3))
    addresses = {"omniglot": [server.address + "python/"], "mnist": [server.address + "mnist/"]}
    monkeypatch.setattr(characters, "_ADDRESSES", addresses)
    return server


def lay_out(folder: Path, archive: bytes = ARCHIVE) -> Path:
    (folder / "omniglot").mkdir(parents=True)
    (folder / "mnist").mkdir()
    (folder / "omniglot" / "images_background.zip").write_bytes(archive)
    for name, content in MNIST_FILES.items():
        (folder / "mnist" / name).write_bytes(content)
    return folder


# What is read.


def test_omniglot_is_read_right(small, tmp_path):
    found = omniglot("background", size=105, root=lay_out(tmp_path / "data"))
    assert found.images.shape == (60, 105, 105) and found.images.dtype == torch.float32
    expected = np.stack([~drawing(character, number) for character in range(3) for number in range(20)])
    assert torch.equal(found.images, torch.from_numpy(expected).float())
    assert found.labels.tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert found.characters == tuple(CHARACTERS)
    assert found.alphabets == ("Greek", "Greek", "Latin")
    assert found.name == "Omniglot background" and str(tmp_path / "data") in found.source
    assert len(found) == 60 and "60 images of 105 x 105, characters: 3, alphabets: 2" in repr(found)


def test_omniglot_smaller_is_the_mean_of_the_area(small, tmp_path):
    large = omniglot(size=105, root=lay_out(tmp_path / "data")).images
    for size in (7, 15, 35):
        mean = torch.nn.functional.avg_pool2d(large[:, None], 105 // size)[:, 0]
        assert torch.allclose(omniglot(size=size, root=tmp_path / "data").images, mean, atol=0.5 / 255 + 1e-6)


def test_resize_of_uneven_sizes_keeps_paper_white_ink_black_and_their_share():
    images = np.random.default_rng(1).integers(0, 256, (4, 28, 28), np.uint8)
    for size in (1, 9, 28, 32, 50):
        resized = characters._resize(images, size)
        assert resized.shape == (4, size, size) and resized.dtype == np.uint8
        assert np.allclose(resized.mean((1, 2)), images.mean((1, 2)), atol=0.5)
        assert (characters._resize(np.full((1, 28, 28), 255, np.uint8), size) == 255).all()
    assert characters._resize(np.array([[[0, 90, 240]] * 3], np.uint8), 2)[0].tolist() == [[30, 190]] * 2


def test_mnist_is_read_right(small, tmp_path):
    found = mnist("test", root=lay_out(tmp_path / "data"))
    assert torch.equal(found.images, torch.from_numpy(PIXELS) / 255)
    assert found.labels.tolist() == [7, 2, 1] and found.labels.dtype == torch.int64
    assert found.characters == tuple("0123456789")
    assert mnist("test", size=32, root=tmp_path / "data").images.shape == (3, 32, 32)


def test_zipped_mnist_files_in_a_laid_out_folder_are_read_too(small, tmp_path):
    folder = lay_out(tmp_path / "data")
    for name, content in MNIST_FILES.items():
        (folder / "mnist" / name).unlink()
        (folder / "mnist" / (name + ".gz")).write_bytes(gzip.compress(content, 1))
    assert torch.equal(mnist("test", root=folder).images, torch.from_numpy(PIXELS) / 255)


def test_an_image_set_cannot_be_changed():
    with pytest.raises(AttributeError):
        digits().images = torch.zeros(1, 28, 28)


# Where it is found.


def test_root_comes_before_the_environment_and_that_before_a_download(small, tmp_path, monkeypatch):
    lay_out(tmp_path / "root")
    lay_out(tmp_path / "environment")
    monkeypatch.setenv("EBMM_DATA", str(tmp_path / "environment"))
    for read in (omniglot, lambda **where: mnist("test", **where)):
        assert str(tmp_path / "root") in read(root=tmp_path / "root").source
        assert str(tmp_path / "environment") in read().source
    assert small.asked == []


def test_a_laid_out_folder_is_not_written_into(small, tmp_path):
    folder = lay_out(tmp_path / "data")
    before = sorted(folder.rglob("*"))
    omniglot(root=folder)
    mnist("test", root=folder)
    assert sorted(folder.rglob("*")) == before


def test_a_root_without_the_files_is_an_error_and_downloads_nothing(small, tmp_path):
    for read in (omniglot, lambda **where: mnist("test", **where)):
        with pytest.raises(FileNotFoundError, match=r"no file .* leave out root"):
            read(root=tmp_path)
    assert small.asked == []


def test_download_once_into_the_cache(small, cache):
    assert len(omniglot().images) == 60
    assert torch.equal(mnist("test").images, torch.from_numpy(PIXELS) / 255)
    assert small.asked == [
        "/python/images_background.zip",
        "/mnist/t10k-images-idx3-ubyte.gz",
        "/mnist/t10k-labels-idx1-ubyte.gz",
    ]
    omniglot(size=32)
    mnist("test")
    assert len(small.asked) == 3
    assert (cache / "downloads" / "omniglot" / "images_background.zip").read_bytes() == ARCHIVE


def test_the_cache_is_the_users(monkeypatch):
    assert files.cache_folder() == Path(pooch.os_cache("ebmm"))
    monkeypatch.delenv("EBMM_DATA", raising=False)
    assert files.downloads_folder() == files.cache_folder() / "downloads"


def test_download_into_the_environments_folder(small, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("EBMM_DATA", str(tmp_path / "new"))
    assert str(tmp_path / "new" / "downloads") in omniglot().source
    assert len(omniglot(root=tmp_path / "new" / "downloads")) == 60
    assert len(small.asked) == 1


# What is damaged.


def test_an_interrupted_download_is_fetched_again(small, cache):
    small.cut["images_background.zip"] = 1
    assert len(omniglot().images) == 60
    assert len(small.asked) == 2


def test_a_download_that_is_never_whole_is_refused_and_leaves_nothing_behind(small, cache):
    small.cut["images_background.zip"] = 99
    with pytest.raises(ConnectionError, match=r"could not download images_background.zip"):
        omniglot()
    assert not list((cache / "downloads").rglob("*.zip"))
    small.cut.clear()
    assert len(omniglot().images) == 60


def test_a_download_of_something_else_is_refused(small, cache):
    small.files["images_background.zip"] = b"a page that asks to log in"
    with pytest.raises(ConnectionError, match="does not match the known hash"):
        omniglot()


def test_a_damaged_file_in_the_cache_is_fetched_again(small, cache):
    omniglot()
    path = cache / "downloads" / "omniglot" / "images_background.zip"
    path.write_bytes(ARCHIVE[:-100])
    assert len(omniglot().images) == 60
    assert path.read_bytes() == ARCHIVE and len(small.asked) == 2


def test_the_second_address_serves_where_the_first_does_not(small, cache, monkeypatch):
    addresses = {"mnist": ["http://127.0.0.1:9/", *characters._ADDRESSES["mnist"]]}
    monkeypatch.setattr(characters, "_ADDRESSES", addresses)
    assert len(mnist("test")) == 3


def test_without_network_the_message_says_what_to_do(small, cache, monkeypatch):
    nowhere = "http://127.0.0.1:9/"
    monkeypatch.setattr(characters, "_ADDRESSES", {"omniglot": [nowhere], "mnist": [nowhere]})
    for read, file in ((omniglot, "images_background.zip"), (mnist, "train-images-idx3-ubyte.gz")):
        with pytest.raises(ConnectionError) as raised:
            read()
        for part in (nowhere + file, "EBMM_DATA", "ebmm.datasets.digits()"):
            assert part in str(raised.value)


def test_omniglot_zipped_again_is_accepted(small, tmp_path):
    again = omniglot_zip(CHARACTERS, zipfile.ZIP_STORED)
    assert md5(again) != md5(ARCHIVE)
    assert len(omniglot(root=lay_out(tmp_path / "data", again))) == 60


@pytest.mark.parametrize(
    ("archive", "reason"),
    [
        (ARCHIVE[: len(ARCHIVE) // 2], "it is not a whole zip file"),
        (ARCHIVE[:200] + bytes([ARCHIVE[200] ^ 255]) + ARCHIVE[201:], "it is not a whole zip file"),
        (omniglot_zip(CHARACTERS[:2]), "its 40 PNG files are not the official ones"),
        (
            omniglot_zip(CHARACTERS, change="images_background/Greek/character02/0001_07.png"),
            "its 60 PNG files are not the official ones",
        ),
    ],
    ids=["cut", "one byte", "missing", "one drawing"],
)
def test_a_damaged_archive_in_a_laid_out_folder_is_an_error_and_is_kept(small, tmp_path, archive, reason):
    folder = lay_out(tmp_path / "data", archive)
    path = folder / "omniglot" / "images_background.zip"
    with pytest.raises(ValueError, match=reason) as raised:
        omniglot(root=folder)
    assert f"{path} is damaged" in str(raised.value)
    assert path.read_bytes() == archive and small.asked == []


def test_a_wrong_number_of_drawings_is_noticed_even_with_the_official_checksum(small, tmp_path, monkeypatch):
    official = characters._OMNIGLOT["background"]
    fewer = characters._OmniglotArchive(official.md5, official.members_sha256, characters=4)
    monkeypatch.setattr(characters, "_OMNIGLOT", {"background": fewer})
    with pytest.raises(ValueError, match="60 drawings, not 4 characters x 20"):
        omniglot(root=lay_out(tmp_path / "data"))


def test_a_damaged_mnist_file_in_a_laid_out_folder_is_an_error_and_is_kept(small, tmp_path):
    path = lay_out(tmp_path / "data") / "mnist" / "t10k-images-idx3-ubyte"
    path.write_bytes(MNIST_FILES[path.name][:-1])
    with pytest.raises(ValueError, match=r"damaged: its content has MD5 .* the official file has"):
        mnist("test", root=tmp_path / "data")
    assert len(path.read_bytes()) == len(MNIST_FILES[path.name]) - 1
    path.unlink()
    path.with_suffix(".gz").write_bytes(gzip.compress(MNIST_FILES[path.name])[:-9])
    with pytest.raises(ValueError, match="is damaged: it is not a whole gzip file"):
        mnist("test", root=tmp_path / "data")


# What is decoded is kept.


def test_the_second_call_decodes_nothing_and_gives_the_same(small, cache, tmp_path, monkeypatch):
    folder = lay_out(tmp_path / "data")
    first = omniglot(root=folder)
    monkeypatch.setattr(Image, "open", lambda *arguments: pytest.fail("decoded again"))
    assert torch.equal(omniglot(root=folder).images, first.images)


def test_each_size_is_decoded_into_a_file_of_its_own(small, cache, tmp_path):
    folder = lay_out(tmp_path / "data")
    for size in (28, 32, 28):
        assert omniglot(size=size, root=folder).images.shape == (60, size, size)
    assert len(list((cache / "decoded").glob("*.npy"))) == 2


def test_a_cache_folder_that_cannot_be_written_only_costs_time(small, cache, tmp_path):
    cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="could not keep omniglot-background-28 in"):
        assert len(omniglot(root=lay_out(tmp_path / "data"))) == 60


# What is far larger than it may be is not unpacked.


def test_a_bomb_is_refused_before_it_is_unpacked(small, tmp_path):
    bomb, zipped = gzip.compress(bytes(1 << 25)), io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images_background/Greek/character01/0001_01.png", bytes(1 << 25))
    folder = lay_out(tmp_path / "data", zipped.getvalue())
    (folder / "mnist" / "t10k-images-idx3-ubyte").unlink()
    (folder / "mnist" / "t10k-images-idx3-ubyte.gz").write_bytes(bomb)
    tracemalloc.start()
    with pytest.raises(ValueError, match="its content has more than 2368 bytes, the official file has not"):
        mnist("test", root=folder)
    with pytest.raises(ValueError, match="its 1 PNG files are not the official ones"):
        omniglot(root=folder)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20, f"{peak >> 20} MB"


# Bad arguments.


@pytest.mark.parametrize("read", [omniglot, mnist, digits])
def test_an_unknown_split_is_refused(read):
    with pytest.raises(ValueError, match=r"split must be one of .*, got 'validation'"):
        read("validation")


@pytest.mark.parametrize("read", [omniglot, mnist])
@pytest.mark.parametrize("size", [0, -3, 28.0])
def test_a_size_that_is_none_is_refused(read, size):
    with pytest.raises(ValueError, match=f"size must be a whole number of pixels, at least 1, got {size}"):
        read(size=size)


# What comes with the package.


@pytest.mark.parametrize(("split", "each"), [("train", 100), ("test", 50)])
def test_digits_need_nothing_but_the_package(split, each, cache, monkeypatch):
    monkeypatch.setattr(files, "download", lambda *arguments: pytest.fail("asked the network"))
    found = digits(split)
    assert found.images.shape == (10 * each, 28, 28) and found.images.dtype == torch.float32
    assert found.labels.bincount().tolist() == [each] * 10
    assert found.images.min() == 0 and found.images.max() == 1
    assert found.images[:, 0].max() == 0, "paper is 0, and the first row of an MNIST image is paper"
    assert 0.05 < found.images.mean() < 0.2
    assert len({image.numpy().tobytes() for image in found.images}) == 10 * each


def test_digits_of_the_two_splits_differ():
    train, test = ({image.numpy().tobytes() for image in digits(split).images} for split in ("train", "test"))
    assert not train & test


def test_digits_file_is_small():
    assert data_path("digits.npz").stat().st_size < 400_000


def test_the_registry_is_in_step_with_the_files():
    lines = set((ROOT / "data" / "registry.txt").read_text().splitlines())
    assert set(script("make_registry").registry().splitlines()) <= lines, "run python data/make_registry.py"


NOWHERE = "http://127.0.0.1:9/owner/name"


@pytest.fixture
def installed(tmp_path, monkeypatch, server, cache):
    """As if the package were installed: data/ beside it holds less than the registry lists."""
    folder = tmp_path / "ebmm" / "data"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "data" / "digits.npz", folder)
    registry = f"digits.npz {hashlib.sha256((folder / 'digits.npz').read_bytes()).hexdigest()}\n"
    registry += f"weights/small.safetensors {hashlib.sha256(b'some weights').hexdigest()}\n"
    (folder / "registry.txt").write_text(registry)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "ebmm" / "files.py"))
    monkeypatch.setattr(files, "REPOSITORY", server.address + "owner/name")
    monkeypatch.setattr(files, "TAG", "v9.9")
    server.files["small.safetensors"] = b"some weights"
    return folder


SMALL = "weights/small.safetensors"


def test_the_first_place_is_beside_the_package(installed, server):
    assert data_path("digits.npz") == installed / "digits.npz"
    assert server.asked == []


def test_the_third_place_is_the_repository_at_the_same_tag_and_the_second_what_came_from_there(
    installed, server, cache, monkeypatch
):
    path = data_path(SMALL)
    assert path.read_bytes() == b"some weights" and cache in path.parents
    assert server.asked == [f"/owner/name/raw/v9.9/data/{SMALL}"], "one file is asked for, at the tag"
    monkeypatch.setattr(files, "REPOSITORY", NOWHERE)
    assert data_path(SMALL) == path
    (installed / "weights").mkdir()
    (installed / SMALL).write_bytes(b"some weights")
    assert data_path(SMALL) == installed / SMALL, "what is beside the package comes first"


def test_the_cache_is_in_EBMM_DATA_where_that_is_set(installed, tmp_path, monkeypatch):
    monkeypatch.setenv("EBMM_DATA", str(tmp_path / "shared"))
    assert data_path(SMALL) == tmp_path / "shared" / "downloads" / "data" / "v9.9" / SMALL


def test_weights_that_arrive_otherwise_than_the_registry_says_are_refused(installed, server, cache):
    server.files["small.safetensors"] = b"other weights"
    with pytest.raises(ConnectionError, match="does not match the known hash"):
        data_path(SMALL)
    assert not list(cache.rglob("small*"))


def test_weights_that_arrive_cut_off_are_asked_for_again(installed, server):
    server.cut["small.safetensors"] = 1
    assert data_path(SMALL).read_bytes() == b"some weights" and len(server.asked) == 2


def test_weights_that_were_damaged_in_the_cache_are_fetched_again(installed, server, monkeypatch):
    path = data_path(SMALL)
    path.write_bytes(b"some w")
    assert data_path(SMALL).read_bytes() == b"some weights" and len(server.asked) == 2
    path.write_bytes(b"some w")
    monkeypatch.setattr(files, "REPOSITORY", NOWHERE)
    with pytest.raises(ConnectionError, match=f"{re.escape(str(path))} is there, but damaged"):
        data_path(SMALL)


def test_weights_without_network_say_what_to_do_and_that_helps(installed, server, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "REPOSITORY", NOWHERE)
    with pytest.raises(ConnectionError, match=f"v9.9/data/{SMALL}: .*Connection") as raised:
        data_path(SMALL)
    (place,) = re.findall(
        rf"Without a network, put the file there as (\S+); a checkout of {NOWHERE}", str(raised.value)
    )
    Path(place).write_bytes(b"some weights")
    assert data_path(SMALL) == Path(place)


def test_a_changed_data_file_is_noticed(installed):
    (installed / "digits.npz").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"digits.npz is damaged or was made anew.*make_registry"):
        digits()


def test_an_unknown_data_file_is_refused_with_those_there_are(installed):
    with pytest.raises(ValueError, match=r"no file 'digit.npz' in .*registry.txt; similar ones there: digits.npz"):
        data_path("digit.npz")


def test_a_package_without_data_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "__file__", str(tmp_path / "ebmm" / "files.py"))
    with pytest.raises(FileNotFoundError, match=r"no registry.txt"):
        digits()


def test_importing_stays_light():
    code = "import sys, ebmm.datasets, ebmm.datasets; print({'PIL', 'pooch', 'requests'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# The real ones.


def test_the_official_omniglot(official):
    # In the size that chapter 6 shows, and in the user's own cache folder: it is decoded once for both.
    root = official("omniglot")
    background, evaluation = (omniglot(split, size=32, root=root) for split in ("background", "evaluation"))
    for found, number, alphabets in ((background, 964, 30), (evaluation, 659, 20)):
        assert found.images.shape == (20 * number, 32, 32)
        assert found.labels.bincount().tolist() == [20] * number
        assert len(found.characters) == len(found.alphabets) == number
        assert len(set(found.alphabets)) == alphabets
        assert found.images.min() == 0 and found.images.max() == 1
        assert 0.06 < found.images.mean() < 0.1, "ink is 1 and covers little of the paper"
    assert not set(background.alphabets) & set(evaluation.alphabets)
    assert "Greek" in background.alphabets and "Angelic" in evaluation.alphabets


def test_the_official_mnist(official):
    root = official("mnist")
    train, test = mnist("train", root=root), mnist("test", root=root)
    assert train.images.shape == (60000, 28, 28) and test.images.shape == (10000, 28, 28)
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9] and test.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert train.labels.bincount().min() == 5421 and test.labels.bincount().min() == 892
    assert train.images.mean().item() == pytest.approx(0.1307, abs=1e-4)


def test_the_embedded_digits_are_what_their_script_makes(official, tmp_path):
    script("make_digits").main(["--root", str(official("mnist")), "--out", str(tmp_path / "digits.npz")])
    with np.load(tmp_path / "digits.npz") as made, np.load(ROOT / "data" / "digits.npz") as kept:
        assert set(made) == set(kept)
        assert all((made[name] == kept[name]).all() for name in made)
