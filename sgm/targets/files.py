"""The user's own data: a Gaussian by its moments, or rows of numbers in a file.

    .csv       a table in UTF-8; a first line of names only is a header
    .parquet   a table
    .npy       an array
    .npz       one array, or the one that is named
    .zarr      an array, or a group of one, or the one that is named

What a file says beside its numbers is heeded, or the file is refused until the config says
what is meant: a header of numbers, saved row numbers, decimal commas, packed values, chunks
that are missing. Files are data: nothing that they hold is executed.
"""

from __future__ import annotations

import csv
import inspect
import re
from collections.abc import Callable, Sequence
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from annotated_types import Ge, MinLen

from sgm.gaussian import Gaussian
from sgm.registry import Fraction, register
from sgm.targets.base import LawTarget, require_between
from sgm.targets.empirical import EmpiricalTarget

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["data_file", "gaussian_file"]

Values = npt.NDArray[Any]

DELIMITERS = (",", ";", "\t", "|", " ")
#: Attributes by which netCDF's conventions pack an array; xarray applies them.
PACKING = {"scale_factor", "add_offset", "_FillValue", "missing_value", "_Unsigned"}
#: A whole number that begins with 0 and is not the first of its line.
PADDED = re.compile(r",[ \t]*(0\d+)[ \t]*(?=,|$)", re.MULTILINE)
WHOLE = re.compile(r"\s*[+-]?\d+\s*")
#: What pandas and pyarrow call an index without a name that became a column.
SAVED_INDEX = re.compile(r"Unnamed: \d+|__index_level_\d+__")
LARGEST = 2**53  # whole numbers beyond it are not all floats


@register("target")
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
    _require_file(path)
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
            mean = _numbers(archive["mean"]).astype(np.float64)
            covariance = _numbers(archive["covariance"]).astype(np.float64)
            if mean.ndim != 1 or mean.size == 0:
                raise ValueError(f"mean has shape {mean.shape}: must be (d,)")
            return LawTarget(Gaussian.from_covariance(mean, covariance))
        except (ValueError, TypeError) as error:
            raise ValueError(f"path = {str(path)!r}: {error}") from error


@register("target", law="unknown")
def data_file(
    path: str | Path,
    heldout_fraction: Fraction,
    standardise: bool,
    dequantise: bool = False,
    array: str | None = None,
    delimiter: Literal[",", ";", "\t", "|", " "] | None = None,
    decimal: Literal[".", ","] | None = None,
    header: bool | None = None,
    columns: Annotated[Sequence[str | int], MinLen(1)] | None = None,
    image_shape: Sequence[Annotated[int, Ge(1)]] | None = None,
    levels: Annotated[int, Ge(2)] | None = None,
) -> EmpiricalTarget:
    r"""The rows of a .csv, .parquet, .npy, .npz or .zarr file.

    Parameters
    ----------
    path : str or Path
        Of a table whose columns are all numbers, or of an array of shape (n,), (n, d),
        (n, height, width) or longer: each of its n entries is one row.
    heldout_fraction : float
        In (0, 1).
    standardise, dequantise : bool
        See `EmpiricalTarget.from_rows`; dequantise what counts or codes, such as grey
        levels.
    array : str, optional
        Name of the array in an .npz or .zarr file that holds several.
    delimiter : {",", ";", "\t", "|", " "}, optional
        Between the columns of a .csv file; a blank is any run of blanks and tabs. By
        default a comma, or a semicolon where the decimal sign is a comma.
    decimal : {".", ","}, optional
        Decimal sign of a .csv file, by default a point. Where it isn't given, whole numbers
        that begin with 0 are refused: they are the digits after a decimal comma.
    header : bool, optional
        Whether the first line of a .csv file names the columns; by default it does if none
        of its cells is a number.
    columns : sequence of str or int, optional
        Those to be read, by name or by place from 0; all by default.
    image_shape : sequence of int, optional
        (height, width), or (3, height, width) for colours, if a row is a picture. By default
        that of arrays of shape (n, height, width), (n, 3, height, width) or (n, height,
        width, 3), and of those with 1 for 3.
    levels : int, optional
        L, if all values are whole numbers from 0 to L − 1: see `EmpiricalTarget.from_levels`.
        Needs `dequantise`.

    Returns
    -------
    EmpiricalTarget

    Raises
    ------
    ValueError
        If the file can't be read, isn't all finite numbers, leaves open what they are, or has
        too few rows or columns that depend on each other linearly: the covariance must have
        full rank.
    """
    require_between("heldout_fraction", heldout_fraction, 0.0, 1.0)
    if levels is not None and not dequantise:
        raise ValueError(f"levels = {levels!r}: needs dequantise = True")
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"path = {str(path)!r}: must end in one of {', '.join(READERS)}")
    said = {"array": array, "delimiter": delimiter, "decimal": decimal, "header": header}
    options = {key: value for key, value in said.items() if value is not None}
    for key in options.keys() - inspect.signature(reader).parameters:
        raise ValueError(f"{key} = {options[key]!r}: must be left out for {path.name!r}")
    _require_file(path, folder=reader in (_zarr, _parquet))
    try:
        values = reader(path, columns, **options)
        if values.size == 0 or values.ndim == 0:
            raise ValueError(f"it is an array of shape {values.shape}")
        values, image_shape = _pictures(values, image_shape)
    except Exception as error:  # on a broken file, libraries raise more than they document
        raise ValueError(
            f"path = {str(path)!r}: must be a readable {path.suffix} file of numbers: "
            f"{' '.join(str(error).split())}"
        ) from error
    try:
        if levels is not None:
            return EmpiricalTarget.from_levels(
                values, heldout_fraction, standardise, levels, image_shape
            )
        return EmpiricalTarget.from_rows(
            values, heldout_fraction, standardise, dequantise, image_shape
        )
    except ValueError as error:
        raise ValueError(f"path = {str(path)!r}: {error}") from error


def _pictures(values: Values, said: Sequence[int] | None) -> tuple[Values, tuple[int, ...] | None]:
    """Rows (n, p) of an array (n, ...), and the shape of the pictures that they are.

    Colours, or the one grey, may come before height and width or after them; rows have them
    before.
    """
    shape, image_shape = values.shape[1:], tuple(said) if said is not None else None
    if len(shape) == 2:
        image_shape = image_shape or shape
    if len(shape) == 3:
        first, last = shape, (shape[2], *shape[:2])
        found = [place for place in (first, last) if place[0] in (1, 3)]
        if image_shape is not None:
            wanted = image_shape if len(image_shape) == 3 else (1, *image_shape)
            found = [place for place in found if place == wanted][:1]
        if len(found) > 1:
            raise ValueError(
                f"it is an array of shape {values.shape}, of pictures of shape {first} or "
                f"{last}: say which as image_shape"
            )
        if found:
            values = values if found[0] == first else np.moveaxis(values, 3, 1)
            image_shape = found[0] if found[0][0] == 3 else found[0][1:]
    return values.reshape(len(values), -1), image_shape


def _csv(
    path: Path,
    columns: Sequence[str | int] | None,
    delimiter: str | None = None,
    decimal: str | None = None,
    header: bool | None = None,
) -> Values:
    sign = decimal or "."
    mark = delimiter or (";" if sign == "," else ",")
    if sign not in (".", ","):
        raise ValueError(f"decimal = {sign!r}: must be '.' or ','")
    if mark not in DELIMITERS or mark == sign:
        allowed = [other for other in DELIMITERS if other != sign]
        raise ValueError(f"delimiter = {mark!r}: must be one of {allowed}")
    try:
        text = path.read_text(encoding="utf-8-sig")
        padded = PADDED.search(text)
        if decimal is None and mark == "," and padded:
            raise ValueError(
                f"{padded[1]!r} begins with 0: if commas are decimal signs, say decimal: ','; if "
                "not, decimal: '.'"
            )
        return _delimited(text, columns, mark, sign, header)
    except UnicodeDecodeError as error:
        raise ValueError(f"must be in UTF-8: {error}") from error
    except ValueError as error:
        raise ValueError(
            f"{str(error).strip()} (read with delimiter: {mark!r}, decimal: {sign!r})"
        ) from error


def _delimited(
    text: str,
    columns: Sequence[str | int] | None,
    delimiter: str,
    decimal: str,
    header: bool | None,
) -> Values:
    import pandas as pd

    file = StringIO(text)
    lines = map(str.split, file) if delimiter == " " else csv.reader(file, delimiter=delimiter)
    first = next(filter(None, lines), [])
    if header is None:
        header = _is_header(first, decimal)
        found = not header
    else:
        found = False
    if not header:
        file.seek(0)
    # low_memory would guess a column's type piece by piece
    frame = pd.read_csv(
        file,
        header=None,
        sep=r"\s+" if delimiter == " " else delimiter,
        decimal=decimal,
        low_memory=False,
    )
    if header:
        if len(first) != frame.shape[1]:
            raise ValueError(f"the header has {len(first)} names for {frame.shape[1]} columns")
        frame.columns = pd.Index([name.strip() for name in first])
    values = _table(frame, columns)
    rest = values[1:]
    if found and all(map(WHOLE.fullmatch, first)) and np.all(rest != np.floor(rest)):
        raise ValueError(
            f"the first line {first} is whole numbers and no other is: if it names the columns, "
            "say header: true; if not, header: false"
        )
    return values


def _is_header(first: list[str], decimal: str) -> bool:
    """Whether the first line of a file is names, which is refused where it can't be told."""
    numbered = first[1:] if first and not first[0].strip() else first
    if len(first) > 1 and [cell.strip() for cell in numbered] == [*map(str, range(len(numbered)))]:
        rows = "" if numbered is first else ", and its first column the rows"
        raise ValueError(
            f"the first line {first} numbers the columns{rows}: say header: true, and in `columns` "
            "which to read; or header: false"
        )
    numbers = [_is_number(cell.replace(decimal, ".")) for cell in first]
    if all(numbers):
        return False
    if any(number and cell.strip() for number, cell in zip(numbers, first, strict=True)):
        raise ValueError(
            f"the first line mixes names and numbers: {first}; if it names the columns, say "
            "header: true"
        )
    return True


def _parquet(path: Path, columns: Sequence[str | int] | None) -> Values:
    import pandas as pd

    frame = pd.read_parquet(path)
    named = [name for name in frame.index.names if name is not None]
    if named:
        if columns is None:
            raise ValueError(
                f"it has the index {named} beside the columns {list(frame)}: say in `columns` "
                "which to read"
            )
        frame = frame.reset_index(level=named)
    return _table(frame, columns)


def _npy(path: Path, columns: Sequence[str | int] | None) -> Values:
    with path.open("rb") as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    return _columns(_numbers(values), columns)


def _npz(path: Path, columns: Sequence[str | int] | None, array: str | None = None) -> Values:
    with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
        values = np.asarray(archive[_only(archive.files, array)])
    return _columns(_numbers(values), columns)


def _zarr(path: Path, columns: Sequence[str | int] | None, array: str | None = None) -> Values:
    import zarr

    store = zarr.open(path, mode="r")
    name = ""
    if isinstance(store, zarr.Group):
        members = dict(store.members(max_depth=None))
        arrays = {
            name: member for name, member in members.items() if isinstance(member, zarr.Array)
        }
        name = _only(list(arrays), array)
        store = arrays[name]
    # before reading: only arrays of objects have codecs that execute what they decode
    _require_numbers(store.dtype)
    missing = store.nchunks - store.nchunks_initialized
    if missing > 0:
        raise ValueError(
            f"{missing} of its {store.nchunks} chunks are missing; if all their values are "
            f"{store.fill_value}, write them too (config={{'write_empty_chunks': True}} of zarr)"
        )
    named = getattr(store.metadata, "dimension_names", None) or "_ARRAY_DIMENSIONS" in store.attrs
    if name and named:
        return _columns(_unpacked(path, name), columns)
    packed = sorted(PACKING & set(store.attrs))
    if packed:
        raise ValueError(
            f"its values are packed ({', '.join(packed)}), and only an array in a group whose "
            "dimensions have names is unpacked: write it with xarray"
        )
    return _columns(_numbers(np.asarray(store[...])), columns)


def _unpacked(path: Path, name: str) -> Values:
    """The values of an array of a group as xarray reads it: scaled, shifted, NaN for fill."""
    import xarray as xr
    import zarr

    group, _, variable = f"/{name}".rpartition("/")
    arrays = zarr.open_group(path, path=group, mode="r").array_keys()
    with xr.open_zarr(
        path,
        group=group,
        chunks=None,
        consolidated=False,
        decode_times=False,
        decode_timedelta=False,
        drop_variables=[other for other in arrays if other != variable],  # nothing else is decoded
    ) as dataset:
        return _numbers(dataset[variable].to_numpy())


READERS: dict[str, Callable[..., Values]] = {
    ".csv": _csv,
    ".parquet": _parquet,
    ".npy": _npy,
    ".npz": _npz,
    ".zarr": _zarr,
}


def _table(frame: pd.DataFrame, columns: Sequence[str | int] | None) -> Values:
    """The values of a table of numbers; missing ones are NaN."""
    from pandas.api.types import is_numeric_dtype

    names = [str(name) for name in frame.columns]
    if columns is None:
        for problem, wrong in (
            ("a column has no name: place", [j for j, name in enumerate(names) if not name]),
            ("two columns have one name", sorted({n for n in names if names.count(n) > 1})),
            ("a saved index", [name for name in names if SAVED_INDEX.fullmatch(name)]),
        ):
            if wrong:
                raise ValueError(
                    f"{problem} {', '.join(map(repr, wrong))} of {_few(names)}: say in `columns` "
                    "which to read"
                )
    else:
        frame = frame.iloc[:, _places(names, columns)]
    text = [str(name) for name, dtype in frame.dtypes.items() if not is_numeric_dtype(dtype)]
    if text:
        raise ValueError(
            f"columns that are not numeric: {', '.join(map(repr, text))}; those to be read can be "
            "named in `columns`"
        )
    values = frame.to_numpy(dtype=np.float64, na_value=np.nan)
    whole = values[:, [dtype.kind in "iu" for dtype in frame.dtypes]]
    _require_exact(whole)
    if columns is None:
        _require_no_row_numbers(values, names)
    return values


def _columns(values: Values, columns: Sequence[str | int] | None) -> Values:
    """The chosen columns of an array, which have no names."""
    if columns is not None and values.ndim != 2:
        raise ValueError(f"columns: must be left out for an array of shape {values.shape}")
    if values.ndim == 2:
        names = [*map(str, range(values.shape[1]))]
        if columns is not None:
            return values[:, _places(names, columns)]
        _require_no_row_numbers(values, names)
    return values


def _places(names: list[str], columns: Sequence[str | int]) -> list[int]:
    """Places of columns that are given by name or by place."""
    places = []
    for column in columns:
        if isinstance(column, str) and names.count(column) == 1:
            places.append(names.index(column))
        elif isinstance(column, int) and 0 <= column < len(names):
            places.append(column)
        else:
            raise ValueError(
                f"columns: {column!r} must name one of its {len(names)} columns {_few(names)}, or "
                "be its place from 0"
            )
    if not places or len(set(places)) < len(places):
        raise ValueError(
            f"columns = {list(columns)}: must name at least one column, and none twice"
        )
    return places


def _only(names: list[str], array: str | None) -> str:
    if array is None and len(names) == 1:
        return names[0]
    if array not in names:
        raise ValueError(f"array = {array!r}: must name one of the arrays it holds, {names}")
    return array


def _few(names: list[str]) -> str:
    return f"[{', '.join(map(repr, names[:8]))}{', …' if len(names) > 8 else ''}]"


def _numbers(values: Values) -> Values:
    """Real numbers that float64 can tell apart; others are refused, not rounded."""
    _require_numbers(values.dtype)
    if values.dtype.kind in "iu":
        _require_exact(values)
    return values


def _require_numbers(dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "biuf":
        raise ValueError(f"its values are of type {dtype}: must be real numbers")


def _require_exact(whole: Values) -> None:
    if np.any((whole >= LARGEST) | (whole <= -LARGEST)):
        raise ValueError("it has whole numbers of 2^53 or more, which float64 can't tell apart")


def _require_no_row_numbers(values: Values, names: list[str]) -> None:
    """Refuse a column 0, 1, 2, … or 1, 2, 3, …: an index that was saved with the data."""
    counted = np.arange(len(values))
    for name, column in zip(names, values.T, strict=True):
        # fewer rows may count by accident
        if (
            len(values) >= 10
            and column[0] in (0, 1)
            and np.array_equal(column, counted + column[0])
        ):
            raise ValueError(f"column {name!r} numbers the rows: say in `columns` which to read")


def _require_file(path: Path, folder: bool = False) -> None:
    """Refuse what is not on disk, and what has no end, such as a pipe or a device."""
    if not path.exists():
        raise ValueError(
            f"path = {str(path)!r}: must be a readable {path.suffix} file; there is none"
        )
    if not (path.is_file() or (folder and path.is_dir())):
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise ValueError(
            f"path = {str(path)!r}: must be a readable {path.suffix} file; it is {kind}"
        )


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, or empty as a missing one is."""
    try:
        float(cell.strip() or "nan")
    except ValueError:
        return False
    return True
