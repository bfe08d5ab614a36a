"""Cell files: small archives of plain arrays, written whole and read with suspicion.

One .npz a job, with one entry a variable, over the schedules and the replicates of its
block, and the entries `spec`, what the job was told, and `versions`, the libraries that
computed it, both as canonical JSON. It is written aside
and renamed, so that a killed job leaves nothing that could be taken for a result; equal
numbers give equal bytes. Every entry that is read is checked against its CRC-32, and a file
makes a reader allocate no more than its own size.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from struct import Struct
from typing import Any
from uuid import uuid4
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt

from sgm.processor import fastest_products

__all__ = [
    "REMEDY",
    "Arrays",
    "canonical",
    "cell_names",
    "check_made_for",
    "digest",
    "read_cells",
    "read_spec",
    "read_versions",
    "remove_leftovers",
    "seed_range",
    "write_cells",
    "written_whole",
]

Arrays = dict[str, npt.NDArray[Any]]

_LEFTOVER = re.compile(r"^\..+\.\w+\.[0-9a-f]{32}$")
_END = Struct("<4s6xH10x")  # the archive's last record: its mark, …, number of entries, …

# Of an entry's header, at most: ours have 120, and very long ones exhaust Python's parser.
_HEADER_CHARACTERS = 1000

#: Entries of a cell file that are no numbers of it.
ABOUT = ("spec", "versions")

REMEDY = "delete it, and the next run makes it again"
"""What to do about a damaged file: a job never deletes its input."""


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces, 1.0 as 1.0."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(spec: str) -> str:
    """Sixteen hexadecimal digits that stand for a spec where it is too long."""
    return hashlib.sha256(spec.encode()).hexdigest()[:16]


def seed_range(block: str) -> range:
    """Seeds of a block: ``"0-9"`` is 0, …, 9."""
    first, last = block.split("-")
    return range(int(first), int(last) + 1)


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Path to write to; renamed to `path` on success, removed on failure.

    The bytes reach the disk before the name does. The temporary name is random: process
    numbers of two nodes may be equal.

    Raises
    ------
    OSError
        If it can't be written; the error names `path`.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        with aside.open("rb") as file:
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        with suppress(OSError):  # what went wrong before is the error to tell
            aside.unlink(missing_ok=True)


def remove_leftovers(root: str | Path, seconds: float) -> list[Path]:
    """Remove what killed writers left below a folder, if it is older than some seconds."""
    found = [
        Path(folder) / name
        for folder, _, names in os.walk(root)
        for name in names
        if _LEFTOVER.match(name)
    ]
    old = [path for path in found if path.stat().st_mtime < time.time() - seconds]
    for path in old:
        path.unlink(missing_ok=True)
    return old


def write_cells(
    path: str | Path,
    arrays: Mapping[str, npt.ArrayLike] | Iterable[tuple[str, npt.ArrayLike]],
    spec: Mapping[str, Any],
) -> None:
    """Write a cell file.

    Parameters
    ----------
    path : path
    arrays : mapping of str to array_like, or its items
        Numbers and strings only. Items are taken one at a time: those of a generator need
        not fit into memory together.
    spec : mapping
        What the job was told.

    Raises
    ------
    OSError
        If it can't be written; the error names the file.
    """
    items = arrays.items() if isinstance(arrays, Mapping) else arrays
    with written_whole(path) as aside, ZipFile(aside, "w") as archive:

        def write(name: str, value: npt.ArrayLike) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)

        for name, value in items:
            write(name, value)
            del value  # before a generator makes the next one
        write("spec", canonical(spec))
        write("versions", _versions())


def read_cells(path: str | Path, names: Iterable[str] | None = None) -> Arrays:
    """Read the arrays of a cell file; executes nothing.

    Parameters
    ----------
    path : path
    names : iterable of str, optional
        The arrays to read, all by default. The others cost neither time nor memory.

    Raises
    ------
    ValueError
        If it can't be read or is damaged; the message names the file.
    """
    with _refused(path, "cell file"), _opened(path) as archive:
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        chosen = [name for name in entries if name not in ABOUT] if names is None else names
        return {name: _array(archive, entries[name]) for name in chosen}


def cell_names(path: str | Path) -> list[str]:
    """Names of the arrays of a cell file.

    Raises
    ------
    ValueError
        If it can't be read; the message names the file.
    """
    with _refused(path, "cell file"), _opened(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        return [name for name in names if name not in ABOUT]


def read_spec(path: str | Path) -> str:
    """What the job was told that wrote a cell file or networks: canonical JSON, "" if not said.

    No array is read.

    Raises
    ------
    ValueError
        If it can't be read; the message names the file.
    """
    if Path(path).suffix == ".npz":
        return _text(path, "spec", "result file")
    from safetensors import safe_open  # slow to import, and rarely needed

    with _refused(path, "result file"), safe_open(path, framework="numpy") as networks:
        return str((networks.metadata() or {}).get("spec", ""))


def _text(path: str | Path, name: str, kind: str) -> str:
    """A text that a cell file carries beside its arrays; "" if it does not."""
    with _refused(path, kind), _opened(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            return ""
        return str(_array(archive, archive.getinfo(f"{name}.npy")))


@contextmanager
def _refused(path: str | Path, kind: str) -> Iterator[None]:
    """On a broken file, libraries raise more than they document: one error that names it."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path}: not a readable {kind} ({error}): {REMEDY}") from error


@cache
def _versions() -> str:
    """Versions of Python and of the libraries that make numbers, and whose products they take."""
    libraries = ("numpy", "scipy", "torch", "pandas", "scikit-learn", "pot")
    own = {library: version(library) for library in libraries}
    own |= {"python": platform.python_version(), "products": fastest_products()}
    return canonical(own)


def check_made_for(path: str | Path, wanted: str) -> None:
    """Refuse a result file that a job wrote which was told something else.

    Parameters
    ----------
    path : path
    wanted : str
        Digest of the spec that the file must carry.

    Raises
    ------
    ValueError
        If it carries another, or can't be read; the message names the file.
    """
    if digest(read_spec(path)) != wanted:
        raise ValueError(f"{path}: made for another config or other code: {REMEDY}")


def read_versions(path: str | Path) -> dict[str, str]:
    """Versions of the libraries that computed a cell file; empty if it does not say.

    Raises
    ------
    ValueError
        If it can't be read; the message names the file.
    """
    found: dict[str, str] = json.loads(_text(path, "versions", "cell file") or "{}")
    return found


@contextmanager
def _opened(path: str | Path) -> Iterator[ZipFile]:
    """The archive of a cell file, whose directory is sound."""
    with Path(path).open("rb") as file, ZipFile(file) as archive:
        entries = archive.infolist()
        if sum(entry.file_size for entry in entries) > os.fstat(file.fileno()).st_size:
            raise ValueError("its entries claim more bytes than it has")
        file.seek(-_END.size, os.SEEK_END)
        if _END.unpack(file.read()) != (b"PK\5\6", len(entries)):  # zipfile takes what it finds
            raise ValueError("it has not as many entries as it says")
        yield archive


def _array(archive: ZipFile, entry: ZipInfo) -> npt.NDArray[Any]:
    """The array of an entry, of which every byte is read.

    `numpy.load` reads as much as the header's shape asks for. If damage makes it smaller, the
    CRC-32 is never compared; if larger, the memory is taken before the data is missed.
    """
    if entry.compress_type != ZIP_STORED:
        raise ValueError(f"entry {entry.filename!r} is compressed")
    with archive.open(entry) as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"entry {entry.filename!r} is not of version 1.0")
        header = np.lib.format.read_array_header_1_0(file, _HEADER_CHARACTERS)
        shape, fortran, dtype = header
        flat = np.frombuffer(file.read(), dtype)
    return flat.reshape(shape, order="F" if fortran else "C").copy(order="K")
