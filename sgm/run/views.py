"""The gather, and the views of the grid: figures and tables. No torch, no mathematics."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sgm import __version__

__all__ = ["VIEWS", "figure", "grid", "tables"]

Files = Mapping[str, Path]


def grid(spec: Mapping[str, Any], inputs: Files, outputs: Files) -> None:
    """Gather all cell files of a study into its grid."""
    from sgm.store.grid import gather, write_grid
    from sgm.study import Plan, Study

    plan = Plan(Study.parse(spec["config"]), Path(spec["root"]))
    write_grid(gather(plan, _provenance()), outputs["grid"].parent)


def figure(spec: Mapping[str, Any], inputs: Files, outputs: Files) -> None:
    """Draw one figure, with a CSV of the numbers drawn; its path says which it is."""
    from sgm import plots
    from sgm.store.grid import open_grid

    dataset = open_grid(inputs["grid"].parent)
    stem = outputs["png"].with_suffix("")
    if stem.parent.name in plots.FIGURES:
        drawn, frame = plots.FIGURES[stem.parent.name].draw(dataset, stem.name)
    else:
        drawn, frame = plots.FIGURES[stem.name].draw(dataset)
    plots.save(drawn, frame, stem)


def tables(spec: Mapping[str, Any], inputs: Files, outputs: Files) -> None:
    """Write the summary and the ranking of a study as CSV."""
    from sgm.store.grid import open_grid
    from sgm.tables import write_tables

    write_tables(open_grid(inputs["grid"].parent), outputs["tables"])


def _provenance() -> dict[str, str]:
    """When, from which commit and with which versions the grid was gathered."""
    libraries = ("numpy", "scipy", "torch", "xarray", "zarr", "snakemake", "scikit-learn")
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "sgm_version": __version__,
        "python_version": platform.python_version(),
        **{f"{library}_version": version(library) for library in libraries},
    }


def _commit() -> str:
    """Commit of the code, with ``-dirty`` if files differ from it; empty outside git."""
    here = Path(__file__).parent
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


VIEWS: dict[str, Callable[[Mapping[str, Any], Files, Files], None]] = {
    "grid": grid,
    "figure": figure,
    "tables": tables,
}
