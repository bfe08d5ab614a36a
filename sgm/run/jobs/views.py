"""The gather, and the views of the grid: figures and tables. No torch, no mathematics."""

from __future__ import annotations

import json
import multiprocessing
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgm import __version__
from sgm.shipped import checkout

if TYPE_CHECKING:
    import xarray as xr  # imported where used: the command line of every job imports this module

    from sgm.study import Plan

__all__ = ["VIEWS", "figures", "grid", "tables"]

Files = Mapping[str, Path]


def grid(spec: Mapping[str, Any], inputs: Files, outputs: Files) -> list[Path]:
    """Gather all cell files of a study into its grid; sweep up after writers that were killed."""
    from sgm.gather import gather, gather_pictures
    from sgm.store.cells import remove_leftovers
    from sgm.store.grid import write_grid
    from sgm.study import Plan, Study

    plan = Plan(Study.parse(spec["config"]), Path(spec["root"]))
    gathered = gather(plan, _provenance())
    write_grid(gathered.assign_attrs(_cell_versions(plan)), outputs["grid"], gather_pictures(plan))
    remove_leftovers(plan.root, seconds=24 * 3600)  # younger ones may be a running job's
    return [outputs["grid"] / "zarr.json"]  # it holds a checksum of the rest


def figures(spec: Mapping[str, Any], inputs: Files, outputs: Files) -> list[Path]:
    """Draw all figures of a study, each with a CSV of the numbers drawn."""
    from sgm import plots  # imported once, before the processes are forked
    from sgm.reading import x_axis

    folder, store = outputs["figures"], inputs["grid"]
    formats = spec.get("formats", tuple(plots.FORMATS))
    x = spec.get("x")
    jobs = [(store, stem, folder / stem, formats, x) for stem in spec["stems"]]
    processes = min(spec.get("processes", 1), len(jobs))
    _opened.cache_clear()  # another grid may have stood there
    # before the processes are forked: none of them reads it again, or meets an x that is none
    x_axis(_opened(store, None), x)
    if processes == 1:
        drawn = [_draw(*job) for job in jobs]
    else:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            drawn = pool.starmap(_draw, jobs, chunksize=1)
    return [path for paths in drawn for path in paths]


def _draw(store: Path, stem: str, path: Path, formats: Sequence[str], x: str | None) -> list[Path]:
    """One figure; pictures of samples stand in a group of the grid of their own."""
    from sgm import plots

    group = stem.replace("samples/", "pictures/", 1) if stem.startswith("samples/") else None
    return plots.save(*plots.draw(_opened(store, group), stem, x), path, formats)


@cache
def _opened(store: Path, group: str | None) -> xr.Dataset:
    from sgm.store.grid import open_grid

    return open_grid(store, group)


def tables(spec: Mapping[str, Any], inputs: Files, outputs: Files) -> list[Path]:
    """Write the summary and the ranking of a study as CSV."""
    from sgm.store.grid import open_grid
    from sgm.tables import write_tables

    return write_tables(open_grid(inputs["grid"]), outputs["tables"])


def _cell_versions(plan: Plan) -> dict[str, str]:
    """Versions that the cells were computed with, and what differs if they are several."""
    from sgm.store.cells import canonical, read_versions
    from sgm.study.blocks import CELLS

    files = [path for kind in CELLS for path in plan.files(kind)]
    found = {canonical(read_versions(path)) for path in files}
    sets = [json.loads(text) for text in sorted(found)]
    told = {"cell_versions": canonical(sets)}
    if len(sets) > 1:
        differ = {
            name: sorted({own.get(name, "unknown") for own in sets})
            for name in sorted({name for own in sets for name in own})
        }
        words = [f"{name} {', '.join(v)}" for name, v in differ.items() if len(v) > 1]
        note = f"the cells were computed with several versions: {'; '.join(words)}"
        print(note, flush=True)
        told["cell_versions_note"] = note
    return told


def _provenance() -> dict[str, str]:
    """When, from which commit and with which versions the grid was gathered."""
    libraries = ("numpy", "scipy", "torch", "xarray", "zarr", "snakemake", "scikit-learn", "pot")
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "sgm_version": __version__,
        "python_version": platform.python_version(),
        **{f"{library}_version": version(library) for library in libraries},
    }


def _commit() -> str:
    """Commit of the code, with ``-dirty`` if files differ from it; empty outside git.

    The version alone says which code an installed package is, though it may stand below a
    repository of the user's.
    """
    here = checkout()
    if here is None:
        return ""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return described.stdout.strip()


#: Each returns the files that it wrote.
VIEWS: dict[str, Callable[[Mapping[str, Any], Files, Files], list[Path]]] = {
    "grid": grid,
    "figures": figures,
    "tables": tables,
}
