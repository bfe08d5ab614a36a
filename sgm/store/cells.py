"""Cell files: small archives of plain arrays, written whole.

One .npz a job, with one entry a variable, over the schedules and the replicates of its
block, and the entry `spec`: what the job was told, as canonical JSON. It is written aside
and renamed, so that a killed job leaves nothing that could be taken for a result; equal
numbers give equal bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
import numpy.typing as npt

__all__ = [
    "Arrays",
    "canonical",
    "read_cells",
    "read_spec",
    "seed_range",
    "write_cells",
    "written_whole",
]

Arrays = dict[str, npt.NDArray[Any]]


def canonical(value: Any) -> str:
    """JSON text that is the same for equal values: sorted keys, no spaces, 1.0 as 1.0."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def seed_range(block: str) -> range:
    """Seeds of a block: ``"0-9"`` is 0, …, 9."""
    first, last = block.split("-")
    return range(int(first), int(last) + 1)


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Path to write to; renamed to `path` on success, removed on failure."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield aside
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)


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
        If it can't be read; the message names the file.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            chosen = (name for name in archive.files if name != "spec") if names is None else names
            return {name: archive[name] for name in chosen}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path}: not a readable cell file ({error})") from error


def read_spec(path: str | Path) -> str:
    """What the job was told that wrote a cell file or networks: canonical JSON, "" if not said.

    No array is read.

    Raises
    ------
    ValueError
        If it can't be read; the message names the file.
    """
    if Path(path).suffix == ".npz":
        try:
            with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
                return str(archive["spec"]) if "spec" in archive.files else ""
        except (OSError, ValueError, EOFError, BadZipFile) as error:
            raise ValueError(f"{path}: not a readable cell file ({error})") from error
    from safetensors import SafetensorError, safe_open  # slow to import, and rarely needed

    try:
        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get("spec", ""))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path}: not a readable file of networks ({error})") from error
