"""How far the stages of a study are, and what is left will cost.

Cells are files. One is *done* if it carries the spec that the plan wants, *stale* if it
carries another, one of its inputs will be made again or a user's file was changed after it,
*new* if it does not exist. Times are those of the benchmarks that Snakemake wrote. Nothing is
asked of Snakemake, nothing is locked or written.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import numpy as np

from sgm.store import cells
from sgm.study import Plan
from sgm.study.blocks import OUTPUTS, PATTERNS, stage_of

__all__ = ["Stage", "benchmark", "survey"]

Labels = Mapping[str, str]
State = Literal["new", "stale", "done"]


@dataclass
class Stage:
    """The jobs of one stage.

    Parameters
    ----------
    name : str
    done, new, stale : list of dict
        Labels of the files in each state.
    running, stopped : int
        Jobs left whose log was begun: an empty log is that of a job that runs, or was
        killed; any other says why the job stopped.
    failed : int
        Runs that files which are done mark as failed.
    seconds : float or None
        Times by the clock of the jobs left, added up, by those that ran; None if none did.
    """

    name: str
    done: list[Labels] = field(default_factory=list)
    new: list[Labels] = field(default_factory=list)
    stale: list[Labels] = field(default_factory=list)
    running: int = 0
    stopped: int = 0
    failed: int = 0
    seconds: float | None = None

    @property
    def left(self) -> list[Labels]:
        return [*self.new, *self.stale]

    @property
    def files(self) -> int:
        return len(self.done) + len(self.left)


def survey(plan: Plan) -> list[Stage]:
    """Where each stage of a study stands.

    Returns
    -------
    list of Stage
        In the order in which they run; those without files are left out.
    """
    again: set[str] = set()  # files that will be made
    stages = []
    for name in (kind for kind in PATTERNS if stage_of(kind) == kind):
        stage = Stage(name)
        for labels in plan.cells(name):
            state = _state(plan, name, labels, again)
            getattr(stage, state).append(labels)
            if state == "done":
                stage.failed += _failed(plan, name, labels)
                continue
            again.update(_paths(plan, name, labels))
            log = _begun(plan, name, labels)
            stage.running += log == 0
            stage.stopped += bool(log)
        if stage.files:
            _estimate(plan, stage)
            stages.append(stage)
    return stages


def _paths(plan: Plan, stage: str, labels: Labels) -> list[str]:
    return [plan.pattern(kind).format(**labels) for kind in OUTPUTS.get(stage, (stage,))]


def _state(plan: Plan, stage: str, labels: Labels, again: set[str]) -> State:
    """State of the files of a job; `again` holds those that earlier stages will make."""
    own = [Path(path) for path in _paths(plan, stage, labels)]
    places = SimpleNamespace(**labels)
    used = stage == "samples" and not own[0].exists()
    if used:  # deleted once they were evaluated, or not needed again
        state = _state(plan, "divergences", labels, again)
        if state != "done":
            return state
    elif not all(path.exists() for path in own):
        return "new"
    elif plan.is_stale(stage, places):
        return "stale"
    inputs = plan.inputs(stage, places)
    if any(path in again for path in inputs.values()):
        return "stale"
    return "done"


def _changed(path: Path) -> int:
    """When a file was last changed; 0 if there is none, or none any more."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _failed(plan: Plan, stage: str, labels: Labels) -> int:
    """Runs that failed, as a stage says of its own; or as training says, for a network."""
    own = ("floors", "bounds", "divergences", "likelihood")
    kinds = {stage: stage for stage in own} | {"network": "training"}
    if stage not in kinds:
        return 0
    marks = cells.read_cells(plan.pattern(kinds[stage]).format(**labels))
    return int(marks["failed"].sum())


def _begun(plan: Plan, stage: str, labels: Labels) -> int | None:
    """Bytes of the log of a job that was begun and has not come to its end, else None."""
    place = PATTERNS[stage].format(**labels)
    log, benchmark = plan.root / f"logs/{place}.log", plan.root / f"benchmarks/{place}.tsv"
    ends = [*map(Path, _paths(plan, stage, labels)), benchmark]
    if _changed(log) <= max(map(_changed, ends)):
        return None
    return log.stat().st_size


# --- costs ---------------------------------------------------------------------------


def _estimate(plan: Plan, stage: Stage) -> None:
    """Time of what is left, from jobs of the same target and score, else of the stage."""
    known = _costs(plan, stage.name)
    if not known and stage.left:
        return
    stage.seconds = sum(
        _seconds(
            known.get((labels.get("target"), labels.get("score"))) or known[None, None],
            _runs(labels),
        )
        for labels in stage.left
    )


def _seconds(known: Sequence[tuple[int, float]], runs: int) -> float:
    """Time of a job of some runs, from the (runs, seconds) of others.

    A job's start costs as much for one run as for ten. Jobs of two sizes tell it from the cost
    of a run; of one size alone, a smaller job is taken to last as long.
    """
    sizes, seconds = np.transpose(known)
    if np.ptp(sizes) > 0:
        slope, start = np.polyfit(sizes, seconds, 1)
        if min(slope, start) > 0:
            return float(start + slope * runs)
    return float(np.mean(seconds / sizes) * max(runs, sizes.min()))


def _costs(plan: Plan, stage: str) -> dict[tuple[str | None, str | None], list[tuple[int, float]]]:
    """Runs (seeds of schedules) and seconds of the jobs that ran, by (target, score).

    Those of the stage under (None, None).
    """
    folder = plan.root / "benchmarks"
    pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(PATTERNS[stage]))
    found: dict[tuple[str | None, str | None], list[tuple[int, float]]] = {}
    for path in folder.joinpath(PATTERNS[stage].split("{")[0]).rglob("*.tsv"):
        match = re.fullmatch(pattern + r"\.tsv", path.relative_to(folder).as_posix())
        seconds = benchmark(path)
        if match is None or seconds is None:
            continue
        labels = match.groupdict()
        for key in {(labels.get("target"), labels.get("score")), (None, None)}:
            found.setdefault(key, []).append((_runs(labels), seconds))
    return found


def _runs(labels: Labels) -> int:
    """Runs of a job: its seeds times its schedules."""
    seeds = len(cells.seed_range(labels["seeds"])) if "seeds" in labels else 1
    return seeds * len(labels.get("schedules", "").split(","))


def benchmark(path: Path, column: str = "s") -> float | None:
    """Seconds that Snakemake wrote for a job, by the clock; None before it has.

    Its `cpu_time` is that at the last look, up to 30 s before the job's end: too little.
    """
    try:
        with path.open(newline="") as file:
            return float(list(csv.DictReader(file, delimiter="\t"))[-1][column])
    except (FileNotFoundError, IndexError, KeyError, TypeError, ValueError):
        return None
