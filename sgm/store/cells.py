"""Cell files: small archives of plain arrays, written whole.

One .npz a block, with one entry a variable, of length R for its R replicates. It is
written aside and renamed, so that a killed job leaves nothing that could be taken for a
result; equal numbers give equal bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

__all__ = ["Arrays", "read_cells", "seed_range", "write_cells", "written_whole"]

Arrays = dict[str, npt.NDArray[Any]]


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


def write_cells(path: str | Path, arrays: Mapping[str, npt.ArrayLike]) -> None:
    """Write a cell file.

    Parameters
    ----------
    path : path
    arrays : mapping of str to array_like
        Numbers and strings only.
    """
    plain: dict[str, Any] = {name: np.asarray(value) for name, value in arrays.items()}
    with written_whole(path) as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **plain)


def read_cells(path: str | Path) -> Arrays:
    """Read a cell file; executes nothing.

    Raises
    ------
    ValueError
        If it can't be read; the message names the file.
    """
    try:
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path}: not a readable cell file ({error})") from error
