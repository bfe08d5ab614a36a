"""Look at studies, and tidy up: ``python -m sgm.run.inventory.status``, which `make` calls.

    plan          what is left of a study, by stage, and the time that its jobs will take
    status        the same beside a running Snakemake: what runs, and for how long
    clean-stale   files of a study that no cell of it names; deletes them with --yes
    usage         disk space of all studies

All but `usage` import the `extensions` of the config, which is to execute them: read a stranger's
before (``python -m sgm.study`` says whether there are any, and executes nothing).

What Snakemake will do, `snakemake --dry-run` knows better: it looks at the times of all files.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sgm.run.check import check
from sgm.run.inventory import disk
from sgm.run.inventory.progress import survey
from sgm.study import Plan, Study
from sgm.study.document import read_config

__all__ = ["format_seconds", "format_table", "main", "plan_of"]


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


def _plan_text(plan: Plan) -> Iterator[str]:
    stages = survey(plan)
    counts = [(s.files, len(s.done), len(s.new), len(s.stale), s.failed) for s in stages]
    rows = [
        (s.name, *row, format_seconds(s.seconds)) for s, row in zip(stages, counts, strict=True)
    ]
    header = ("stage", "files", "done", "new", "stale", "failed runs", "time left")
    yield format_table(
        header, [*rows, ("all", *_totals(counts), _left([s.seconds for s in stages if s.left]))]
    )
    yield "Times of jobs one after the other, as long as those that ran took by the clock."
    yield "The grid, the figures and the tables follow; their time is not counted."
    yield from plan.notices()


def _status_text(plan: Plan) -> Iterator[str]:
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
        yield f"Snakemake is not running here; left: {alone}, one job after the other."
    elif not running:
        yield f"No job runs at this moment; left: {alone}, one job after the other."
    else:
        shared = [s.seconds and s.seconds / running for s in stages if s.left]
        yield f"{running} jobs at a time, as now: {_left(shared)} to the last cell."


def _totals(counts: Iterable[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*counts, strict=True)]


def _left(seconds: Sequence[float | None]) -> str:
    """The sum over the stages that have files left, of which some may be unknown."""
    known = [value for value in seconds if value is not None]
    if len(known) == len(seconds):
        return format_seconds(sum(known))
    return f"at least {format_seconds(sum(known))}" if known else "unknown"


def _clean_text(plan: Plan, delete: bool) -> Iterator[str]:
    orphans = disk.orphans(plan)
    if not orphans:
        yield f"{plan.root}: no files but those of the study."
        return
    rows = [(str(path), disk.format_bytes(disk.size(path))) for path in orphans]
    rows.append(("all", disk.format_bytes(sum(map(disk.size, orphans)))))
    yield format_table((f"{len(orphans)} files that no cell names", "size"), rows)
    if not delete:
        yield "Nothing is deleted; `make clean-stale YES=1` does it."
        return
    disk.delete(plan, orphans)
    yield "Deleted."


def _usage_text(results: Path) -> Iterator[str]:
    spaces = disk.usage(results)
    rows: list[tuple[object, ...]] = [
        (s.study, s.kind, s.files, disk.format_bytes(s.bytes)) for s in spaces
    ]
    total = disk.format_bytes(sum(s.bytes for s in spaces))
    rows.append(("all", "", sum(s.files for s in spaces), total))
    yield format_table(("study", "kind", "files", "on disk"), rows)


# --- command line --------------------------------------------------------------------


def plan_of(config: str | Path, results: str | Path = "results") -> Plan:
    """The plan of a study's config file.

    Raises
    ------
    ValueError
        If there is no such file, it is no config, or one that can't be run.
    """
    study = Study.parse(read_config(config))
    check(study)
    return Plan(study, Path(results) / study.study)


def main(arguments: list[str] | None = None) -> int:
    """Print one table; exit status 1 with one line on a config that is none."""
    parser = argparse.ArgumentParser(prog="python -m sgm.run.inventory.status", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("plan", "status", "clean-stale"):
        commands.add_parser(name).add_argument("study", help="config file")
    commands.choices["clean-stale"].add_argument("--yes", action="store_true", help="delete them")
    commands.add_parser("usage")
    options = parser.parse_args(arguments)
    try:
        match options.command:
            case "plan":
                lines = _plan_text(plan_of(options.study))
            case "status":
                lines = _status_text(plan_of(options.study))
            case "clean-stale":
                lines = _clean_text(plan_of(options.study), options.yes)
            case _:
                lines = _usage_text(Path("results"))
        for line in lines:
            print(line)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except ValueError as error:
        print(f"{options.command}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
