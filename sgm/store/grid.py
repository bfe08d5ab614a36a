"""The grid on disk: one `xarray.Dataset` over the axes of a study, as a Zarr store.

Written in one go by one job. Opening it needs `xarray.open_zarr` alone. Zipped, it is one file.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np

from sgm.store.cells import REMEDY

if TYPE_CHECKING:
    import xarray as xr  # imported where used: most jobs read and write cell files alone

__all__ = ["content_digest", "open_grid", "write_grid", "zip_grid"]

WHOLE_BYTES = 2**20  # an array of fewer is one chunk: a chunk more costs a file, a millisecond


def content_digest(dataset: xr.Dataset, with_times: bool = False) -> str:
    """SHA-256 of all that a study's config and code determine: everything but times."""
    digest = hashlib.sha256()
    for name in sorted(map(str, dataset.variables)):
        if dataset[name].attrs.get("units") == "s" and not with_times:
            continue
        values = dataset[name].values
        if values.dtype.kind in "OTU":
            plain = "\n".join(map(str, values.flat)).encode()
        elif values.dtype.kind == "f":  # Zarr does not keep the sign of a NaN
            plain = np.where(np.isnan(values), np.nan, values).tobytes()
        else:
            plain = values.tobytes()
        digest.update(f"{name}{values.shape}".encode() + plain)
    return digest.hexdigest()


def _with_checksum(dataset: xr.Dataset) -> xr.Dataset:
    """The dataset with a SHA-256 of all its values, dimensions and attributes."""
    about: dict[str, Any] = {str(name): [v.dims, v.attrs] for name, v in dataset.variables.items()}
    about[""] = {name: value for name, value in dataset.attrs.items() if name != "stored_sha256"}
    text = json.dumps(about, sort_keys=True, default=lambda value: value.tolist())
    checksum = hashlib.sha256(
        (text + content_digest(dataset, with_times=True)).encode()
    ).hexdigest()
    return dataset.assign_attrs(stored_sha256=checksum)


def _chunks(dataset: xr.Dataset) -> dict[str, dict[str, tuple[int, ...]]]:
    """Chunks of what is large: one a target, which is what a figure shows."""
    return {
        str(name): {
            "chunks": tuple(1 if axis == "target" else n for axis, n in value.sizes.items())
        }
        for name, value in dataset.data_vars.items()
        if value.nbytes > WHOLE_BYTES
    }


def write_grid(
    dataset: xr.Dataset, folder: str | Path, groups: Mapping[str, xr.Dataset] | None = None
) -> None:
    """Write the grid aside and swap it in, so that no reader meets half of one.

    Parameters
    ----------
    dataset : Dataset
    folder : path
    groups : mapping of str to Dataset, optional
        Further datasets, each in a group of the store by its name.
    """
    folder = Path(folder)
    aside, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():  # killed between the two renames below
        old.rename(folder)
    for leftover in (aside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    chunks = _chunks(dataset)
    try:
        _with_checksum(dataset).to_zarr(aside, mode="w", encoding=chunks, consolidated=False)
        for name, group in (groups or {}).items():
            _with_checksum(group).to_zarr(aside, group=name, mode="a", consolidated=False)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)  # half a grid takes room on a disk that is full
        raise
    if folder.exists():
        folder.rename(old)
    aside.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def zip_grid(folder: str | Path, path: str | Path) -> None:
    """Zip a grid, groups included; the same folder gives the same bytes, whatever its dates.

    `zarr.storage.ZipStore` reads it, but would write the time of day.
    """
    with ZipFile(path, "w") as archive:
        for file in sorted(path for path in Path(folder).rglob("*") if path.is_file()):
            entry = ZipInfo(file.relative_to(folder).as_posix())  # of 1980, which is no date
            entry.external_attr = 0o644 << 16  # what `unzip` makes of it can be read
            archive.writestr(entry, file.read_bytes(), ZIP_DEFLATED, compresslevel=9)


def open_grid(path: str | Path, group: str | None = None) -> xr.Dataset:
    """Open a grid or a group of it, read into memory; labels come as Python strings.

    Parameters
    ----------
    path : path
        The folder of the grid, or the grid zipped: ``….zip``; or the name of a study, for
        ``results/<study>/grid.zarr``.
    group : str, optional

    Raises
    ------
    ValueError
        If it can't be read, or is not what was written: Zarr takes a chunk that is missing
        for one of NaN.
    """
    import xarray as xr
    from zarr.storage import ZipStore

    if not Path(path).exists() and (named := Path("results", path, "grid.zarr")).exists():
        path = named
    zipped = Path(path).suffix == ".zip"
    try:
        with ZipStore(Path(path)) if zipped else nullcontext(path) as store:
            dataset: xr.Dataset = xr.open_zarr(store, group=group, consolidated=False).load()
        labels = [name for name, values in dataset.coords.items() if values.dtype.kind == "T"]
        dataset = dataset.assign_coords({name: dataset[name].astype(object) for name in labels})
        checksum = dataset.attrs.get("stored_sha256")  # grids of earlier versions have none
        if checksum is not None and checksum != _with_checksum(dataset).attrs["stored_sha256"]:
            raise ValueError("its SHA-256 is not that of its content")
    except MemoryError:
        raise
    except Exception as error:  # on a broken store, libraries raise more than they document
        raise ValueError(f"{path}: not a readable grid ({error}): {REMEDY}") from error
    return dataset
