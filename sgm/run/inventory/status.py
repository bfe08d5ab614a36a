"""Look at studies, and tidy up: what the commands `plan`, `status`, `clean-stale`, `usage` print.

All but `usage` import the `extensions` of the config, which is to execute them: read a stranger's
before (`sgm validate` says whether there are any, and executes nothing).

What Snakemake will do, `snakemake --dry-run` knows better: it looks at the times of all files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sgm.run.check import read_study
from sgm.run.inventory import disk
from sgm.run.inventory.progress import survey
from sgm.study import Plan

__all__ = [
    "clean_text",
    "format_seconds",
    "format_table",
    "plan_of",
    "plan_text",
    "status_text",
    "usage_text",
]


def format_seconds(seconds: float | None) -> str:
    """A time in two units at most, rounded up: ``2 h 5 min``; ``unknown`` for None."""
    if seconds is None:
        return "unknown"
    total = math.ceil(seconds)
    units = {"d": 86400, "h": 3600, "min": 60, "s": 1}
    words: list[str] = []
    for unit, size in units.items():
        count, total = divmod(total, size)
        if count or words or unit == "s":
            words.append(f"{count} {unit}")
    return " ".join(words[:2])


def format_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Aligned columns of plain text: the first to the left, the others to the right."""
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def plan_text(plan: Plan) -> Iterator[str]:
    """What is left of a study, by stage, and the time that its jobs will take."""
    stages = survey(plan)
    counts = [(s.files, len(s.done), len(s.new), len(s.stale), s.failed) for s in stages]
    rows = [
        (s.name, *row, format_seconds(s.seconds)) for s, row in zip(stages, counts, strict=True)
    ]
    header = ("stage", "files", "done", "new", "stale", "failed runs", "time left")
    yield format_table(
        header, [*rows, ("all", *_totals(counts), _left([s.seconds for s in stages if s.left]))]
    )
    yield "Times are for one job after the other, estimated from the wall time of past jobs."
    yield "The grid, the figures and the tables come last; their time is not counted."
    yield from plan.notices()


def status_text(plan: Plan) -> Iterator[str]:
    """The same beside a running Snakemake: what runs, and for how long."""
    stages = survey(plan)
    locked = any(disk.locks())
    counts = [
        (s.files, len(s.done), len(s.left), s.running if locked else 0, s.stopped, s.failed)
        for s in stages
    ]
    totals = _totals(counts)
    rows = [(s.name, *row) for s, row in zip(stages, counts, strict=True)]
    header = ("stage", "files", "done", "left", "running", "stopped", "failed runs")
    yield format_table(header, [*rows, ("all", *totals)])
    _, _, left, running, *_ = totals
    alone = _left([s.seconds for s in stages if s.left])
    if not left:
        yield "No cell is left."
    elif not locked:
        yield f"Snakemake is not running here. Time left: {alone}, one job after the other."
    elif not running:
        yield f"No job is running at the moment. Time left: {alone}, one job after the other."
    else:
        shared = [s.seconds and s.seconds / running for s in stages if s.left]
        yield f"Time to the last cell: {_left(shared)}, with {running} jobs at a time as now."


def _totals(counts: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]


def _left(seconds: Sequence[float | None]) -> str:
    """The sum over the stages that have files left, of which some may be unknown."""
    known = [value for value in seconds if value is not None]
    if len(known) == len(seconds):
        return format_seconds(sum(known))
    return f"at least {format_seconds(sum(known))}" if known else "unknown"


def clean_text(plan: Plan, delete: bool) -> Iterator[str]:
    """Files of a study that no cell of it names; they are deleted if so asked.

    Raises
    ------
    ValueError
        If Snakemake runs in this folder: it may be writing them.
    """
    orphans = disk.orphans(plan)
    if not orphans:
        yield f"{plan.root}: all files belong to the study."
        return
    rows = [(str(path), disk.format_bytes(disk.size(path))) for path in orphans]
    rows.append(("all", disk.format_bytes(sum(map(disk.size, orphans)))))
    yield format_table((f"{len(orphans)} files that no cell refers to", "size"), rows)
    if not delete:
        yield "Nothing was deleted. To delete: `sgm clean-stale --yes` or `make clean-stale YES=1`."
        return
    disk.delete(plan, orphans)
    yield "Deleted."


def usage_text(results: Path) -> Iterator[str]:
    """Disk space of all studies."""
    spaces = disk.usage(results)
    rows: list[tuple[object, ...]] = [
        (s.study, s.kind, s.files, disk.format_bytes(s.bytes)) for s in spaces
    ]
    total = disk.format_bytes(sum(s.bytes for s in spaces))
    rows.append(("all", "", sum(s.files for s in spaces), total))
    yield format_table(("study", "kind", "files", "on disk"), rows)


def plan_of(config: str | Path, results: str | Path = "results") -> Plan:
    """The plan of a study by its config file, or by its name if it is shipped.

    Raises
    ------
    ValueError
        If there is no such file, it is no config, or one that can't be run.
    """
    study = read_study(config, trust=True)
    return Plan(study, Path(results) / study.study)
