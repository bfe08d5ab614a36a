"""The user's own data: a Gaussian by its moments, or rows of numbers in a file.

    .csv       a comma between columns; a first line of names only is a header
    .parquet   a table
    .npy       an array
    .npz       one array, or the one that is named
    .zarr      an array, or a group of one, or the one that is named

Files are data: nothing that they hold is executed.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian
from sgm.targets.base import LawTarget, require_between
from sgm.targets.empirical import EmpiricalTarget

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_file", "gaussian_file"]


def gaussian_file(path: str | Path) -> LawTarget:
    """The Gaussian whose `mean` (d,) and `covariance` (d, d) an .npz file holds.

    Parameters
    ----------
    path : str or Path
        File written by ``numpy.savez(path, mean=..., covariance=...)``.

    Returns
    -------
    LawTarget

    Raises
    ------
    ValueError
        If the file can't be read as such, or the arrays are no mean and covariance.
    """
    path = Path(path)
    try:
        # from memory: np.load leaks the file it opened when the archive is broken
        archive = np.load(BytesIO(path.read_bytes()), allow_pickle=False)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"path = {str(path)!r}: must be a readable .npz file: {error}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"path = {str(path)!r}: must be an .npz file, not a single array")
    with archive:
        missing = {"mean", "covariance"} - set(archive.files)
        if missing:
            raise ValueError(
                f"path = {str(path)!r}: must hold the arrays 'mean' and 'covariance'; it has "
                f"{sorted(archive.files)} and lacks {sorted(missing)}"
            )
        try:
            mean = np.asarray(archive["mean"], dtype=np.float64)
            covariance = np.asarray(archive["covariance"], dtype=np.float64)
            if mean.ndim != 1 or mean.size == 0:
                raise ValueError(f"mean has shape {mean.shape}: must be (d,)")
            return LawTarget(Gaussian.from_covariance(mean, covariance))
        except (ValueError, TypeError) as error:
            raise ValueError(f"path = {str(path)!r}: {error}") from error


def data_file(
    path: str | Path,
    heldout_fraction: float,
    standardise: bool,
    dequantise: bool = False,
    array: str | None = None,
) -> EmpiricalTarget:
    """The rows of a .csv, .parquet, .npy, .npz or .zarr file.

    Parameters
    ----------
    path : str or Path
        Of a table whose columns are all numbers, or of an array of shape (n,), (n, d),
        (n, height, width) or longer: each of its n entries is one row. Shape (n, height,
        width) is n images, and `image_shape` is set.
    heldout_fraction : float
        In (0, 1).
    standardise, dequantise : bool
        See `EmpiricalTarget.from_rows`; dequantise what counts or codes, such as grey
        levels.
    array : str, optional
        Name of the array in an .npz or .zarr file that holds several.

    Returns
    -------
    EmpiricalTarget

    Raises
    ------
    ValueError
        If the file can't be read, isn't all finite numbers, or has too few rows or
        columns that depend on each other linearly: the covariance must have full rank.
    """
    require_between("heldout_fraction", heldout_fraction, 0.0, 1.0)
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"path = {str(path)!r}: must end in one of {', '.join(READERS)}")
    if array is not None and reader not in (_npz, _zarr):
        raise ValueError(f"array = {array!r}: must be left out for {path.name!r}, which has one")
    try:
        values = reader(path, array)
        if values.size == 0 or values.ndim == 0:
            raise ValueError(f"it is an array of shape {values.shape}")
    except Exception as error:  # on a broken file, libraries raise more than they document
        raise ValueError(
            f"path = {str(path)!r}: must be a readable {path.suffix} file of numbers: {error}"
        ) from error
    try:
        return EmpiricalTarget.from_rows(
            values.reshape(len(values), -1),
            heldout_fraction,
            standardise,
            dequantise,
            values.shape[1:] if values.ndim == 3 else None,
        )
    except ValueError as error:
        raise ValueError(f"path = {str(path)!r}: {error}") from error


def _csv(path: Path, array: str | None) -> npt.NDArray[Any]:
    import pandas as pd

    with path.open(newline="", encoding="utf-8-sig") as file:
        first = next(filter(None, csv.reader(file)), [])
        numbers = [_is_number(cell) for cell in first]
        names = None if all(numbers) else first
        if names is None:
            file.seek(0)
        elif not all(name.strip() for name in names):
            raise ValueError(f"a column has no name in the header {names}: leave out row numbers")
        elif any(numbers):
            raise ValueError(f"the first line mixes names and numbers: {names}")
        # low_memory would guess a column's type piece by piece
        frame = pd.read_csv(file, header=None, low_memory=False)
    if names is not None:
        if len(names) != frame.shape[1]:
            raise ValueError(f"the header has {len(names)} names for {frame.shape[1]} columns")
        frame.columns = pd.Index(names)
    return _table(frame)


def _parquet(path: Path, array: str | None) -> npt.NDArray[Any]:
    import pandas as pd

    return _table(pd.read_parquet(path))


def _npy(path: Path, array: str | None) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    _require_numbers(values.dtype)
    return values


def _npz(path: Path, array: str | None) -> npt.NDArray[Any]:
    with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
        values = np.asarray(archive[_only(archive.files, array)])
    _require_numbers(values.dtype)
    return values


def _zarr(path: Path, array: str | None) -> npt.NDArray[Any]:
    import zarr

    store = zarr.open(path, mode="r")
    if isinstance(store, zarr.Group):
        members = store.members(max_depth=None)
        arrays = {name: member for name, member in members if isinstance(member, zarr.Array)}
        store = arrays[_only(list(arrays), array)]
    # before reading: only arrays of objects have codecs that execute what they decode
    _require_numbers(store.dtype)
    return np.asarray(store[...])


READERS: dict[str, Callable[[Path, str | None], npt.NDArray[Any]]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".npy": _npy,
    ".npz": _npz,
    ".zarr": _zarr,
}


def _table(frame: pd.DataFrame) -> npt.NDArray[Any]:
    """The values of a table of numbers; missing ones are NaN."""
    from pandas.api.types import is_numeric_dtype

    text = [str(name) for name in frame if not is_numeric_dtype(frame[name])]
    if text:
        raise ValueError(f"columns that are not numeric: {', '.join(map(repr, text))}")
    return frame.to_numpy(dtype=np.float64, na_value=np.nan)


def _only(names: list[str], array: str | None) -> str:
    if array is None and len(names) == 1:
        return names[0]
    if array not in names:
        raise ValueError(f"array = {array!r}: must name one of the arrays it holds, {names}")
    return array


def _require_numbers(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        raise ValueError(f"its values are of type {dtype}")


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, or empty as a missing one is."""
    try:
        float(cell.strip() or "nan")
    except ValueError:
        return False
    return True
