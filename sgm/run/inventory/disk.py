"""The files of studies on disk: their sizes, and those that no study names any more.

Only files in the folders that jobs write to are looked at; symbolic links are neither
followed nor touched.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from sgm.study import Plan
from sgm.study.plan import PATTERNS

__all__ = ["Space", "date_back", "delete", "format_bytes", "locks", "orphans", "size", "usage"]

LOCKS = Path(".snakemake/locks")
FIGURE = re.compile(r"\.(png|pdf|csv)$")


class Space(NamedTuple):
    """Disk space of one kind of files of one study."""

    study: str
    kind: str
    files: int
    bytes: int


def locks() -> Iterator[Path]:
    """What Snakemake holds while it runs in this folder, or leaves behind if it is killed."""
    return LOCKS.glob("*") if LOCKS.is_dir() else iter(())


def walk(folder: Path) -> Iterator[Path]:
    """All files below a folder but symbolic links; what vanishes meanwhile is left out."""
    for here, _, names in os.walk(folder):
        for name in sorted(names):
            path = Path(here, name)
            if not path.is_symlink():
                yield path


def size(path: Path) -> int:
    """Bytes that a file takes on the disk; 0 if it has vanished."""
    try:
        return path.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def date_back(plan: Plan) -> None:
    """Date files of a study that are dated in the future: now, as if they were just made."""
    now = time.time()
    for path in walk(plan.root):
        if path.stat().st_mtime > now:
            os.utime(path, (now, now))


def usage(results: Path) -> list[Space]:
    """Disk space by study and kind, in alphabetical order."""
    found: dict[tuple[str, str], list[int]] = {}
    for path in walk(results):
        parts = path.relative_to(results).parts
        if len(parts) > 1:
            depth = 3 if parts[1] == "cells" and len(parts) > 3 else 2
            kind = "/".join(parts[1:depth]) if len(parts) > 2 else "other"
            found.setdefault((parts[0], kind), []).append(size(path))
    return [Space(*key, len(sizes), sum(sizes)) for key, sizes in sorted(found.items())]


def orphans(plan: Plan) -> list[Path]:
    """Files where jobs and figures are written that no cell of the study names.

    What a killed job was writing is among them.
    """
    cells = {place for kind in PATTERNS for place in _places(plan, kind)}
    figures = set(plan.figures())
    folders = {pattern.split("/")[0] for pattern in PATTERNS.values()}
    found = []
    for folder in sorted(folders | {"logs", "benchmarks", "figures"}):
        if (plan.root / folder).is_symlink():
            continue
        for path in walk(plan.root / folder):
            place = path.relative_to(plan.root).as_posix()
            match folder:
                case "figures":
                    named = FIGURE.sub("", place).removeprefix("figures/") in figures
                case "logs":
                    place = place.removeprefix("logs/").removesuffix(".log")
                    named = place in cells or "/" not in place  # of a view
                case "benchmarks":
                    named = place.removeprefix("benchmarks/").removesuffix(".tsv") in cells
                case _:
                    named = place in cells
            if not named:
                found.append(path)
    return found


def _places(plan: Plan, kind: str) -> Iterator[str]:
    return (PATTERNS[kind].format(**labels) for labels in plan.cells(kind))


def delete(plan: Plan, paths: Iterable[Path]) -> None:
    """Delete files of a study, and the folders that this empties.

    Raises
    ------
    ValueError
        If Snakemake runs in this folder: it may be writing them.
    """
    if any(locks()):
        raise ValueError(
            "Snakemake is running here: wait until it ends, or `snakemake --unlock` if it was "
            "killed"
        )
    root = plan.root.resolve()
    for path in paths:
        folder = path.parent
        # the folder may have become a link since it was listed
        if not folder.resolve().is_relative_to(root) or path.is_symlink():
            continue
        path.unlink(missing_ok=True)
        while folder != plan.root and not any(folder.iterdir()):
            folder.rmdir()
            folder = folder.parent


def format_bytes(number: float) -> str:
    """A size to three digits at most: ``12.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
