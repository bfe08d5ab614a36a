"""Images in a local folder, in the formats in which they are published; π_data is unknown.

    mnist      train-images-idx3-ubyte and t10k-images-idx3-ubyte, each also as .gz,
               where they are published or where torchvision puts them
    cifar10    data_batch_1.bin, …, data_batch_5.bin and test_batch.bin

An image is a row of d bytes p, and dequantised: x = (p + u)/128 − 1 with u uniform on [0, 1)ᵈ,
in [−1, 1). The noise of an image is the same in every study. The published test files are
the held-out rows.

Building a target reads headers and sizes alone, of a .gz by decompressing it; images are read
when rows are asked for, as float32.

Sources
-------
Y. LeCun, C. Cortes, C. Burges, The MNIST database of handwritten digits (the idx format);
A. Krizhevsky, Learning multiple layers of features from tiny images (2009), binary version;
Theis, van den Oord, Bethge (arXiv 1511.01844, section 3.1), the noise.
"""

from __future__ import annotations

import gzip
import struct
import sys
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian
from sgm.random import stream
from sgm.registry import Count, register
from sgm.targets.base import Transform
from sgm.targets.empirical import DataTarget, Numbers

__all__ = ["ImageFile", "ImageTarget", "Images", "cifar10", "mnist"]

Pixels = npt.NDArray[np.uint8]

LEVELS = 256
NOISE = 2**16  # values of u, in the middle of as many bins: x is then exact in float32
CHUNK = 1024  # rows in float64 at a time
IDX_MAGIC = 2051  # two zero bytes, 8 for unsigned bytes, 3 for axes
IDX_HEADER = struct.Struct(">4I")
CIFAR_SHAPE = (3, 32, 32)


@dataclass(frozen=True, eq=False)
class ImageFile:
    """Records of one file, each of `label` bytes and then the d bytes of an image.

    Parameters
    ----------
    path : Path
        Compressed if it ends in .gz.
    header, label : int
        Bytes before the first record, and before the image within each.
    count, dimension : int
        Number of images, and d.
    """

    path: Path
    header: int
    label: int
    count: int
    dimension: int

    @cached_property
    def records(self) -> Pixels:
        """All records, shape (count, label + d): of the disk, or decompressed."""
        shape = (self.count, self.label + self.dimension)
        if self.path.suffix != ".gz":
            return np.memmap(self.path, np.uint8, "r", self.header, shape)
        try:
            with gzip.open(self.path) as file:
                content = file.read()
            return np.frombuffer(content, np.uint8, offset=self.header).reshape(shape)
        except (OSError, EOFError, ValueError, zlib.error) as error:
            raise ValueError(f"{self.path}: must be a readable .gz file: {error}") from error

    def read(self, numbers: Numbers) -> Pixels:
        """Images of some numbers (n,), shape (n, d)."""
        return self.records[numbers, self.label :]


class Source(Protocol):
    """Where images are read from."""

    @property
    def count(self) -> int:
        """Number of images."""

    @property
    def dimension(self) -> int:
        """d."""

    def read(self, numbers: Numbers) -> Pixels:
        """Images of some numbers (n,), shape (n, d)."""


@dataclass(frozen=True, eq=False)
class Images:
    """The first `count` images of some files, and their noise.

    Parameters
    ----------
    part : {"train", "heldout"}
        Names the stream of the noise.
    files : tuple of Source
    count : int
    """

    part: Literal["train", "heldout"]
    files: tuple[Source, ...]
    count: int

    def pixels(self, numbers: Numbers) -> Pixels:
        """Images of some numbers (n,) below `count`, shape (n, d)."""
        pixels = np.empty((len(numbers), self.files[0].dimension), dtype=np.uint8)
        first = 0
        for file in self.files:
            here = (numbers >= first) & (numbers < first + file.count)
            if here.any():
                pixels[here] = file.read(numbers[here] - first)
            first += file.count
        return pixels

    def dequantised(self, numbers: Numbers) -> npt.NDArray[np.float64]:
        """p + u of some images, shape (n, d); the noise of an image depends on nothing else."""
        values = self.pixels(numbers).astype(np.float64)
        generator = stream(0, "dequantise", part=self.part)
        bits, dimension = generator.bit_generator, values.shape[1]
        assert isinstance(bits, np.random.PCG64)
        place = 0  # in the stream, one step a pixel
        for number, row in zip(map(int, numbers), values, strict=True):
            bits.advance(number * dimension - place)
            row += (np.floor(generator.random(dimension) * NOISE) + 0.5) / NOISE
            place = (number + 1) * dimension
        return values


@dataclass(frozen=True, eq=False)
class ImageTarget(DataTarget):
    """Images on disk, those of the test files held out; π_data is unknown.

    Parameters
    ----------
    train, heldout : Images
        Rows 0, 1, …, and the rows after them.
    coordinates : Transform
        From working coordinates to p + u.
    image_shape : tuple of int
    """

    train: Images
    heldout: Images
    coordinates: Transform
    image_shape: tuple[int, ...]
    law: None = field(default=None, init=False)
    levels = LEVELS
    heldout_fixed = True

    @property
    def dimension(self) -> int:
        return self.train.files[0].dimension

    @property
    def n_rows(self) -> int:
        return self.train.count + self.heldout.count

    def partition(self, generator: np.random.Generator) -> tuple[Numbers, Numbers]:
        train = generator.permutation(self.train.count)
        return train, np.arange(self.train.count, self.n_rows)

    def take(self, numbers: Numbers) -> npt.NDArray[np.float32]:
        flat = np.ravel(numbers)
        rows = np.empty((len(flat), self.dimension), dtype=np.float32)
        for images, first in ((self.train, 0), (self.heldout, self.train.count)):
            here = np.flatnonzero((flat >= first) & (flat < first + images.count))
            for start in range(0, len(here), CHUNK):
                chunk = here[start : start + CHUNK]
                rows[chunk] = self.standardise(images.dequantised(flat[chunk] - first))
        return rows.reshape(*np.shape(numbers), self.dimension)

    @cached_property
    def reference(self) -> Gaussian:
        """The Gaussian with the mean and covariance of all rows, over images and noise.

        With m, S of the pixels and independent noise of variance 1/12, p + u has mean m + 1/2
        and covariance S + I/12: of full rank, however few the images.
        """
        n, d = self.n_rows, self.dimension
        total, products = np.zeros(d), np.zeros((d, d))
        for images in (self.train, self.heldout):
            for start in range(0, images.count, CHUNK):
                numbers = np.arange(start, min(start + CHUNK, images.count))
                pixels = images.pixels(numbers).astype(np.float64)
                total += pixels.sum(axis=0)
                products += pixels.T @ pixels  # whole numbers: exact
        covariance = (products - np.outer(total, total) / n) / (n - 1) + np.eye(d) / 12
        scale = self.coordinates.scale
        return Gaussian.from_covariance(
            self.standardise(total / n + 0.5), covariance / np.outer(scale, scale)
        )


@register("target", law="unknown")
def mnist(
    path: str | Path, rows: Count | None = None, heldout_rows: Count | None = None
) -> ImageTarget:
    """MNIST, or another data set in its format, such as Fashion-MNIST.

    Parameters
    ----------
    path : str or Path
        Folder with the two files of images, as published or decompressed; a name may have
        ``.idx3`` for ``-idx3``. They may lie in its ``raw`` or ``MNIST/raw``, as torchvision
        puts them. Labels are not read.
    rows, heldout_rows : int, optional
        The first so many of the training and of the test images; all by default.

    Returns
    -------
    ImageTarget
        Of image shape (28, 28), which the files say themselves.

    Raises
    ------
    ValueError
        If a file is missing, no idx file of images, or not as long as it says.
    """
    folder = _folder(path, "train-images-idx3-ubyte and t10k-images-idx3-ubyte, or these .gz")
    # torchvision's layout, of a data set and of the folder of them
    inner = [folder, folder / "raw", folder / "MNIST" / "raw"]
    folder = next((place for place in inner if any(place.glob("train-images?idx3*"))), folder)
    found = [_idx(folder, f"{part}-images-idx3-ubyte") for part in ("train", "t10k")]
    shapes = [shape for _, shape in found]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"path = {str(path)!r}: images must be of one shape; those of the training file are "
            f"of {shapes[0]}, of the test file {shapes[1]}"
        )
    (train, _), (test, _) = found
    return ImageTarget(
        _images("train", (train,), "rows", rows),
        _images("heldout", (test,), "heldout_rows", heldout_rows),
        Transform.symmetric(LEVELS, train.dimension),
        shapes[0],
    )


@register("target", law="unknown")
def cifar10(
    path: str | Path, rows: Count | None = None, heldout_rows: Count | None = None
) -> ImageTarget:
    """CIFAR-10, from the folder that its binary version unpacks to.

    Parameters
    ----------
    path : str or Path
        Folder ``cifar-10-batches-bin``, or the one that holds it. Labels are not read.
    rows, heldout_rows : int, optional
        The first so many of the training and of the test images; all by default.

    Returns
    -------
    ImageTarget
        Of image shape (3, 32, 32).

    Raises
    ------
    ValueError
        If a file is missing or no whole number of records long, or if the folder holds the
        python version: its files are pickles, which execute code when they are read.
    """
    names = [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]
    folder = _folder(path, "data_batch_1.bin, …, data_batch_5.bin and test_batch.bin")
    inner = folder / "cifar-10-batches-bin"
    folder = inner if inner.is_dir() else folder
    pickled = [folder / "data_batch_1", folder / "cifar-10-batches-py"]
    if not (folder / names[0]).is_file() and any(file.exists() for file in pickled):
        raise ValueError(
            f"path = {str(path)!r}: must hold the binary version of CIFAR-10 "
            "(cifar-10-binary.tar.gz, which unpacks to cifar-10-batches-bin); this is the python "
            "version, of pickles, which execute code when they are read"
        )
    *train, test = (_cifar(folder / name) for name in names)
    return ImageTarget(
        _images("train", tuple(train), "rows", rows),
        _images("heldout", (test,), "heldout_rows", heldout_rows),
        Transform.symmetric(LEVELS, test.dimension),
        CIFAR_SHAPE,
    )


def _images(
    part: Literal["train", "heldout"], files: tuple[ImageFile, ...], key: str, limit: int | None
) -> Images:
    """All images of some files, or the first `limit`, a parameter named `key`."""
    count = sum(file.count for file in files)
    if limit is not None and not 1 <= limit <= count:
        raise ValueError(f"{key} = {limit!r}: must lie between 1 and {count}, the images")
    return Images(part, files, count if limit is None else limit)


def _folder(path: str | Path, names: str) -> Path:
    folder = Path(path)
    if not folder.is_dir():
        raise ValueError(f"path = {str(path)!r}: must be a folder that holds {names}")
    return folder


def _idx(folder: Path, name: str) -> tuple[ImageFile, tuple[int, int]]:
    """A file of images by its published name, and their (height, width)."""
    stems = [name, name.replace("-idx3", ".idx3")]
    files = [folder / f"{stem}{suffix}" for stem in stems for suffix in ("", ".gz")]
    path = next((file for file in files if file.is_file()), None)
    if path is None:
        raise ValueError(
            f"path = {str(folder)!r}: must hold {name} or {name}.gz, itself or in raw or MNIST/raw"
        )
    compressed = path.suffix == ".gz"
    size = path.stat().st_size
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            header = file.read(IDX_HEADER.size)
            if compressed:
                # what its end says is of the last member alone: there may be several
                *_, count, height, width = IDX_HEADER.unpack(header.ljust(IDX_HEADER.size))
                size = file.seek(min(len(header) + count * height * width + 1, sys.maxsize))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: must be a readable idx file: {error}") from error
    if len(header) < IDX_HEADER.size:
        raise ValueError(f"{path}: must be an idx file; it ends within the header")
    magic, count, height, width = IDX_HEADER.unpack(header)
    if magic != IDX_MAGIC:
        raise ValueError(
            f"{path}: its magic number is {magic}: must be {IDX_MAGIC}, of images of bytes"
        )
    expected = len(header) + count * height * width
    if size != expected or expected == len(header):
        raise ValueError(
            f"{path}: must be {expected} bytes long for the {count} images of {height}×{width} "
            f"pixels that its header announces; it is {size}"
        )
    return ImageFile(path, len(header), 0, count, height * width), (height, width)


def _cifar(path: Path) -> ImageFile:
    """A batch of the binary version."""
    if not path.is_file():
        raise ValueError(
            f"path = {str(path.parent)!r}: must hold {path.name}, of the binary version of "
            "CIFAR-10 (cifar-10-binary.tar.gz, unpacked)"
        )
    dimension = prod(CIFAR_SHAPE)
    count, rest = divmod(path.stat().st_size, 1 + dimension)
    if rest or not count:
        raise ValueError(
            f"{path}: must be whole records of 1 + {dimension} bytes; it is {count} records and "
            f"{rest} bytes"
        )
    return ImageFile(path, 0, 1, count, dimension)
