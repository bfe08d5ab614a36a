"""What a page is written from: a study's folder, of one that has run or of a published one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import xarray as xr

from sgm.published import GRID, PUBLISHED, verified
from sgm.store.grid import open_grid
from sgm.tables import TABLES

__all__ = ["Hours", "Source", "of_published", "of_results", "python_text"]


#: Columns of tables that may be empty throughout, which would be read as numbers.
TEXTS = ("best", "best_set", "pick", "objection", "parameter", "recipe", "loss")


def python_text(text: str) -> str:
    """A text as a literal of Python, in double quotes: the shell's are single."""
    return json.dumps(text, ensure_ascii=False)


@dataclass(frozen=True)
class Hours:
    """Jobs of a stage, and their hours by the clock and of the processor, added up."""

    stage: str
    jobs: int
    clock: float
    cpu: float


@dataclass(frozen=True, eq=False)
class Source:
    """A study whose page is to be written.

    Parameters
    ----------
    study : str
    grid : Dataset
    folder : Path
        Holds ``figures/`` and ``tables/``.
    opens : str
        Python that opens the grid.
    store : str
        Python text of the path of the grid, of which groups can be opened.
    redraw, redraw_note : str
        The command that draws all figures, and a sentence before it.
    hours : tuple of Hours
    processor : str
        Empty if it is not known.
    notes : tuple of str
        What a reader must know before the numbers.
    """

    study: str
    grid: xr.Dataset
    folder: Path
    opens: str
    store: str
    redraw: str
    redraw_note: str
    hours: tuple[Hours, ...] = ()
    processor: str = ""
    notes: tuple[str, ...] = ()

    @cached_property
    def figures(self) -> list[tuple[str, Path]]:
        """Stems and files of the figures."""
        root = self.folder / "figures"
        paths = sorted(root.rglob("*.png"))
        return [(path.relative_to(root).with_suffix("").as_posix(), path) for path in paths]

    def table(self, name: str) -> pd.DataFrame:
        """A table of the study, from its file if there is one; texts that are empty are ""."""
        path = self.folder / f"tables/{name}.csv"
        packed = path.with_suffix(".csv.gz")  # of a published study
        try:
            table = pd.read_csv(
                packed if packed.exists() else path,
                low_memory=False,
                dtype=dict.fromkeys(TEXTS, str),
            )
        except (OSError, pd.errors.EmptyDataError):
            table = TABLES[name](self.grid)
        numbers = pd.api.types.is_numeric_dtype
        texts = [str(column) for column in table if not numbers(table[column])]
        return table.assign(**{column: table[column].fillna("") for column in texts})

    @cached_property
    def config(self) -> dict[str, Any]:
        """The study's config with every default."""
        found: dict[str, Any] = json.loads(self.grid.attrs.get("config", "{}"))
        return found

    @cached_property
    def failures(self) -> list[dict[str, Any]]:
        """Labels and message of each run that failed."""
        found: list[dict[str, Any]] = json.loads(self.grid.attrs.get("failures", "[]"))
        return found


def of_results(root: Path) -> Source:
    """A study that has run, in ``results/<study>``.

    Raises
    ------
    ValueError
        If it has no grid, or one that can't be read.
    """
    store = root / "grid.zarr"
    if not store.exists():
        raise ValueError(f"study = {root.name!r}: has no grid in {root}: `make study` makes it")
    return Source(
        study=root.name,
        grid=open_grid(store),
        folder=root,
        opens=f"sgm.open_grid({python_text(root.name)})",
        store=python_text(store.as_posix()),
        redraw="make study STUDY=study.yaml",
        redraw_note="With the config below in study.yaml, this redraws figures that are missing or "
        "out of date:",
        hours=tuple(_benchmarks(root / "benchmarks")),
        notes=tuple(_out_of_date(root)),
    )


def _out_of_date(root: Path) -> list[str]:
    """Views that are not of this grid."""
    dates = {}
    for view in ("grid", "figures", "tables"):
        stamp = root / f"views/{view}.json"
        dates[view] = stamp.stat().st_mtime_ns if stamp.exists() else None
    made = dates.pop("grid") or 0
    old = [view for view, date in dates.items() if date is None or date < made]
    if not old:
        return []
    return [f"The {' and '.join(old)} do not belong to this grid: `make study` makes them again."]


def _benchmarks(folder: Path) -> list[Hours]:
    """Times of all jobs whose results stand in the folder, from Snakemake's benchmarks."""
    found: dict[str, list[tuple[float, float]]] = {}
    for path in sorted(folder.rglob("*.tsv")):
        parts = path.relative_to(folder).parts
        stage = parts[1] if parts[0] == "cells" else parts[0]
        try:
            row = pd.read_csv(path, sep="\t", nrows=1).iloc[0]
            times = float(row["s"]), float(row.get("cpu_time", 0.0))
        except (OSError, ValueError, LookupError):
            continue
        found.setdefault(stage, []).append(times)
    return [
        Hours(stage, len(own), sum(s for s, _ in own) / 3600, sum(c for _, c in own) / 3600)
        for stage, own in found.items()
    ]


def of_published(study: str, folder: Path = PUBLISHED) -> Source:
    """A published study.

    Raises
    ------
    ValueError
        If no such study is published, or a file that is read is missing or damaged.
    """
    path = verified(study, GRID, folder)
    about = json.loads(verified(study, "provenance.json", folder).read_text(encoding="utf-8"))
    place = "" if folder.resolve() == PUBLISHED.resolve() else f", {python_text(folder.as_posix())}"
    return Source(
        study=study,
        grid=open_grid(path),
        folder=Path(folder, study),
        opens=f"sgm.load_published({python_text(study)}{place})",
        store=python_text(path.as_posix() if place else f"published/{study}/{GRID}"),
        redraw=f"make figures STUDY={study}" + (f" FROM={folder}" if place else ""),
        redraw_note="In a checkout, this redraws all of them in full resolution:",
        hours=tuple(_published_hours(about.get("hours", {}))),
        processor=str(about.get("processor", "")),
    )


def _published_hours(hours: Mapping[str, Mapping[str, float]]) -> list[Hours]:
    return [
        Hours(stage, int(own["jobs"]), float(own["clock"]), float(own["cpu"]))
        for stage, own in hours.items()
    ]
