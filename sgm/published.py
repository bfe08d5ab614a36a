"""Published studies: results that come with the repository, each in ``published/<study>``.

grid.zarr.zip      the grid, zipped
provenance.json    commit, versions, processor, hours, runs
config.yaml        the study as it ran
figures/, tables/  as the workflow made them, the figures in half their resolution
SHA256SUMS         of all of these: ``sha256sum -c SHA256SUMS``
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from sgm.shipped import checkout

if TYPE_CHECKING:
    import xarray as xr  # imported where used: `import sgm` imports this module

__all__ = ["GRID", "PUBLISHED", "SUMS", "checksums", "load_published", "studies", "verified"]

#: Of the checkout; where the package is installed without one, of the current folder.
PUBLISHED = (checkout() or Path()) / "published"
#: What is to be said where neither is there.
ELSEWHERE = (
    "; the studies that come with sgm are in `published` of its repository, not in the installed "
    "package: give that folder"
)
GRID, SUMS = "grid.zarr.zip", "SHA256SUMS"
LINE = re.compile(r"(?P<sha256>[0-9a-f]{64})  (?P<name>(?!/|.*\.\.).+)")


def studies(folder: str | Path = PUBLISHED) -> list[str]:
    """Names of the studies that are published in a folder."""
    return sorted(path.parent.name for path in Path(folder).glob(f"*/{SUMS}"))


def checksums(study: str, folder: str | Path = PUBLISHED) -> dict[str, str]:
    """SHA-256 of each file of a published study, by its path below the study's folder.

    Raises
    ------
    ValueError
        If no such study is published, or a line is none of `sha256sum`'s for a file of its folder.
    """
    if study not in (known := studies(folder)):
        raise ValueError(
            f"study = {study!r}: must be one of those in {folder}, {', '.join(known) or 'none'}"
            + (ELSEWHERE if checkout() is None else "")
        )
    path = Path(folder, study, SUMS)
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if not (match := LINE.fullmatch(line)):
            raise ValueError(
                f"{path}: {line[:80]!r}: must be a SHA-256 and a path below the folder"
            )
        found[match["name"]] = match["sha256"]
    return found


def verified(study: str, name: str, folder: str | Path = PUBLISHED) -> Path:
    """Path of a file of a published study, once its bytes are found to be those published.

    Raises
    ------
    ValueError
        If no such study is published, or the file is missing or not what was published.
    """
    wanted, path = checksums(study, folder).get(name), Path(folder, study, name)
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ValueError(f"{path}: can't be read ({error.strerror})") from error
    if found != wanted:
        raise ValueError(f"{path}: damaged: its SHA-256 differs from that in {SUMS}")
    return path


def load_published(study: str, folder: str | Path = PUBLISHED) -> xr.Dataset:
    """Open the grid of a published study, read into memory.

    Parameters
    ----------
    study : str
        Such as ``"exact-kl"``; `sgm.published.studies` lists them.
    folder : path, optional
        Where they stand; by default `PUBLISHED`. An installed package has none of its own.

    Returns
    -------
    xarray.Dataset
        As `sgm.store.grid.open_grid` returns that of a study that has run.

    Raises
    ------
    ValueError
        If no such study is published, or its grid is missing or damaged.
    """
    from sgm.store.grid import open_grid

    return open_grid(verified(study, GRID, folder))
