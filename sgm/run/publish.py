"""Publish studies that have run (see `sgm.published`), and draw published ones."""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import re
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import yaml

from sgm.published import GRID, PUBLISHED, SUMS, checksums, verified
from sgm.run.inventory.progress import benchmark, survey
from sgm.run.inventory.status import plan_of
from sgm.run.jobs import stamps, views
from sgm.store import DONE, FAILED
from sgm.store.grid import open_grid, zip_grid
from sgm.study.blocks import PATTERNS
from sgm.study.document import read_config

if TYPE_CHECKING:
    import xarray as xr

    from sgm.study import Plan

__all__ = ["publish", "redraw"]

#: Where published figures are drawn: not over those of a study that runs here.
DRAWN = Path("results/published")

#: A figure of lines and text looks the same in so many colours, and takes a fifth of the bytes.
COLOURS = 64

#: A row a cell, all of which stand in the grid: megabytes of text.
LEFT_OUT = "summary.csv"

#: Bytes; a larger table is left out too.
LARGEST = 10**6

#: Bytes; a larger table is compressed, to a tenth: libraries open it as it is.
COMPRESSED = 50_000


def publish(config: str | Path, folder: Path, results: Path = Path("results")) -> Path:
    """Write ``<folder>/<study>`` from a study that has run to its end.

    Parameters
    ----------
    config : str or Path
        The study's file, or its name if it is shipped.
    folder : Path
        A study of that name that is published there already is replaced.
    results : Path

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    ValueError
        If a cell or a view of the study is missing, stale or damaged, or something else has
        the name of what would be written.
    """
    plan = plan_of(config, results)
    _check_finished(plan)
    target = folder / plan.study.study
    if target.exists() and not (target / SUMS).exists():
        raise ValueError(
            f"folder = {str(folder)!r}: {target} is not a published study: delete it first"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".") as aside:
        new = Path(aside, "new")
        new.mkdir()
        zip_grid(plan.root / "grid.zarr", new / GRID)
        about = _provenance(plan, open_grid(new / GRID))
        (new / "provenance.json").write_text(json.dumps(about, indent=1) + "\n")
        text = yaml.safe_dump(read_config(config), sort_keys=False, allow_unicode=True)
        (new / "config.yaml").write_text(text, encoding="utf-8")
        for stem in plan.figures():
            _reduce(plan.root / f"figures/{stem}.png", new / f"figures/{stem}.png")
        _write_tables(plan.root / "tables", new / "tables")
        files = sorted(path for path in new.rglob("*") if path.is_file())
        lines = [f"{_sha256(path)}  {path.relative_to(new).as_posix()}\n" for path in files]
        (new / SUMS).write_text("".join(lines))
        shutil.rmtree(target, ignore_errors=True)
        new.rename(target)
    return target


def _check_finished(plan: Plan) -> None:
    """Refuse a study whose grid, figures and tables are not those of its config and code."""
    missing = [
        f"{kind} {count} of {stage.files} files {state}"
        for stage in survey(plan)
        for kind, state in ((stage.name, "new"), (stage.name, "stale"))
        if (count := len(getattr(stage, state)))
    ]
    missing += [
        view
        for view in views.VIEWS
        if not Path(plan.stamp(view)).exists() or stamps.is_stale(plan, view)
    ]
    if missing:
        raise ValueError(
            f"study = {plan.study.study!r}: must have run to its end, with this config and this "
            f"code; still to be made: {', '.join(missing)}"
        )


def _provenance(plan: Plan, grid: xr.Dataset) -> dict[str, Any]:
    """What made the grid, from its attributes and from Snakemake's benchmarks."""
    versions = [name for name in grid.attrs if name.endswith("_version")]
    states = grid["status"].values
    return {
        "study": plan.study.study,
        **{name: grid.attrs[name] for name in ("created", "commit", *versions)},
        "cell_versions": json.loads(grid.attrs["cell_versions"]),
        "published": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": _processor(),
        **_gpu(plan.study.device),
        "runs": {"done": int((states == DONE).sum()), "failed": int((states == FAILED).sum())},
        "failures": json.loads(grid.attrs["failures"]),
        "hours": _hours(plan),
        "hours_note": "of the jobs, added up: by the clock, and of the processor at Snakemake's "
        "last look, which is up to 30 s before a job's end",
    }


def _processor() -> str:
    """Name of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.machine()


def _gpu(device: str) -> dict[str, str]:
    """Names of this machine's GPUs, where networks may have run on one."""
    pattern = r"Model:\s+(.+)"
    reports = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    names = [found[1] for path in reports if (found := re.search(pattern, path.read_text()))]
    return {"gpu": ", ".join(names)} if names and device != "cpu" else {}


def _hours(plan: Plan) -> dict[str, dict[str, float]]:
    """Jobs of each stage, their hours by the clock and those of the processor."""
    found = {}
    for stage in PATTERNS:
        paths = [
            plan.root / f"benchmarks/{PATTERNS[stage].format(**labels)}.tsv"
            for labels in plan.cells(stage)
        ]
        times = {
            name: [seconds for path in paths if (seconds := benchmark(path, column)) is not None]
            for name, column in (("clock", "s"), ("cpu", "cpu_time"))
        }
        if times["clock"]:
            hours = {name: round(sum(seconds) / 3600, 5) for name, seconds in times.items()}
            found[stage] = {"jobs": len(times["clock"]), **hours}
    return found


def _reduce(source: Path, path: Path) -> None:
    """A figure in half its resolution and few colours: a tenth of the bytes."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(source) as image:
        small = image.convert("RGB").reduce(2)
    # without k-means rare colours win: large grey areas turn pink
    few = small.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=8, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def _write_tables(source: Path, folder: Path) -> None:
    """Copy the tables that a reader of the study wants, in few bytes."""
    folder.mkdir()
    for path in sorted(source.iterdir()):
        content = path.read_bytes()
        if path.name == LEFT_OUT or len(content) > LARGEST:
            continue
        if len(content) > COMPRESSED:
            (folder / f"{path.name}.gz").write_bytes(gzip.compress(content, mtime=0))
        else:
            (folder / path.name).write_bytes(content)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def redraw(
    study: str,
    results: Path,
    folder: Path = PUBLISHED,
    formats: Sequence[str] = ("png",),
    processes: int = 1,
    x: str | None = None,
) -> list[Path]:
    """Draw the figures of a published study into ``<results>/<study>/figures``.

    Parameters
    ----------
    study : str
    results, folder : Path
        Where to draw, and where the study is published.
    formats : sequence of str
    processes : int
    x : str, optional
        The number on the x-axis (`sgm.reading.numeric_axes`); by default the study's.

    Returns
    -------
    list of Path
        Each figure that is published, in each format, and the CSV of its numbers.

    Raises
    ------
    ValueError
        If no such study is published, its grid is missing or damaged, or `x` does not vary in it.
    """
    grid = verified(study, GRID, folder)
    figures = [Path(name).with_suffix("") for name in checksums(study, folder)]
    stems = [str(Path(*path.parts[1:])) for path in figures if path.parts[0] == "figures"]
    spec = {"stems": stems, "formats": formats, "processes": processes, "x": x}
    return views.figures(spec, {"grid": grid}, {"figures": results / study / "figures"})
