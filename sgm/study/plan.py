"""The plan of a study: its cells, their files, and what each job must be told.

A cell is one point of the grid. Jobs work on *blocks*: the replicates of one chain
(target, schedule, horizon, score, …) whose seeds lie in one range. Blocks that are
already on disk stay as they are and new seeds go to new blocks, so that a study grows
without recomputing; the numbers of a cell don't depend on its block.

A job's *spec* is one canonical JSON string: exactly the leaves of the config that the
stage reads, addresses of what to build, and the fingerprint of the code it can reach.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

from sgm.study.config import Item, Study, canonical, format_number
from sgm.study.fingerprint import fingerprint
from sgm.study.registry import EXACT_LAW, Variable

__all__ = ["PATTERNS", "Plan"]

#: Files of a study below its results folder, by kind; the fields are labels.
PATTERNS = {
    "data": "data/{target}/seeds_{seeds}.npz",
    "network": "networks/{target}/{schedule}/T={horizon}/{score}/seeds_{seeds}.safetensors",
    "training": "cells/training/{target}/{schedule}/T={horizon}/{score}/seeds_{seeds}.npz",
    "samples": "samples/{target}/{schedule}/T={horizon}/{score}"
    "/{sampler}/{time_grid}-{n_steps}/seeds_{seeds}.npz",
    "divergences": "cells/divergences/{target}/{schedule}/T={horizon}/{score}"
    "/{sampler}/{time_grid}-{n_steps}/seeds_{seeds}.npz",
    "bounds": "cells/bounds/{target}/{schedule}/T={horizon}/{score}"
    "/{time_grid}-{n_steps}/seeds_{seeds}.npz",
    "exact": "cells/exact/{target}.npz",
    "axes": "cells/axes.npz",
    "grid": "grid.zarr/zarr.json",
}

_BLOCK = re.compile(r"^seeds_(\d+)-(\d+)\.(npz|safetensors)$")


def _fields(kind: str) -> list[str]:
    return [name for _, name, _, _ in Formatter().parse(PATTERNS[kind]) if name]


@dataclass(frozen=True)
class Plan:
    """Cells, files and specs of a study.

    Parameters
    ----------
    study : Study
    root : Path
        Folder of the study's results, such as ``results/quick``.
    """

    study: Study
    root: Path

    # --- axes ------------------------------------------------------------------------

    @cached_property
    def axes(self) -> dict[str, dict[str, Any]]:
        """Label → value on each axis of the grid but `seed`, in the order of the config."""
        study = self.study
        items = {
            "target": study.targets,
            "schedule": study.schedules,
            "score": study.scores,
            "sampler": study.samplers,
            "time_grid": study.time_grids,
        }
        labelled: dict[str, dict[str, Any]] = {
            axis: {item.label: item for item in values} for axis, values in items.items()
        }
        labelled["horizon"] = {format_number(value): value for value in study.horizons}
        labelled["n_steps"] = {str(value): value for value in study.n_steps}
        return labelled

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Seed ranges that cover the study: those on disk first, new ones for the rest.

        The choice does not change when the new blocks are written, so that every stage
        of a run sees the same blocks.
        """
        on_disk = {
            match.group(1, 2)
            for _, _, files in os.walk(self.root)
            for match in map(_BLOCK.match, files)
            if match
        }
        wanted = set(range(self.study.seeds))
        chosen = []
        for first, last in sorted((int(a), int(b)) for a, b in on_disk):
            covered = wanted & set(range(first, last + 1))
            if covered:
                chosen.append((first, last))
                wanted -= covered
        while wanted:
            first = last = min(wanted)
            while last + 1 in wanted and last + 1 - first < self.study.seeds_per_job:
                last += 1
            chosen.append((first, last))
            wanted -= set(range(first, last + 1))
        return tuple(f"{first}-{last}" for first, last in sorted(chosen))

    def is_sampled(self, target: Item, score: Item) -> bool:
        """Whether replicates of a score are simulated for a target."""
        return self.study.runs(target, score) and getattr(score.parameters, "sampled", True)

    def has_file(self, kind: str, target: Item, score: Item) -> bool:
        """Whether a (target, score) has files of one kind."""
        match kind:
            case "network" | "training":
                return score.family == "trained" and self.study.runs(target, score)
            case "bounds":
                known = target.entry.law_known and bool(self.study.bounds)
                return known and self.has_file("network", target, score)
            case "samples" | "divergences":
                return self.is_sampled(target, score)
            case "exact":
                return score.family != "trained" and self.study.runs(target, score)
        return True

    # --- files -----------------------------------------------------------------------

    def pattern(self, kind: str) -> str:
        """Snakemake pattern of one kind of file."""
        return f"{self.root}/{PATTERNS[kind]}"

    def cells(self, kind: str) -> Iterator[dict[str, str]]:
        """Labels of every file of one kind."""
        fields = _fields(kind)
        seen = set()
        for target, score in itertools.product(self.study.targets, self.study.scores):
            if not self.has_file(kind, target, score):
                continue
            values: dict[str, Any] = {
                **self.axes,
                "target": [target.label],
                "score": [score.label],
                "seeds": self.blocks,
            }
            for labels in itertools.product(*(values[name] for name in fields)):
                if labels not in seen:
                    seen.add(labels)
                    yield dict(zip(fields, labels, strict=True))

    def files(self, kind: str) -> list[str]:
        """Paths of all files of one kind."""
        return [self.pattern(kind).format(**labels) for labels in self.cells(kind)]

    def figures(self) -> list[str]:
        """Stems of the study's figures, as ``kl/isotropic``."""
        known = [target.label for target in self.study.targets if target.entry.law_known]
        stems = ["schedules"]
        stems += [f"kl/{label}" for label in self.axes["target"]]
        stems += [f"decomposition/{label}" for label in known if self.study.bounds]
        return stems

    def source_files(self, target: str) -> list[str]:
        """The user's own files that a target reads."""
        path = getattr(self.axes["target"][target].parameters, "path", None)
        return [path] if path else []

    def inputs(self, stage: str, labels: Any) -> dict[str, Any]:
        """Input files of a job, by name.

        Parameters
        ----------
        stage : str
        labels : mapping or Snakemake's wildcards
            Labels of its output.
        """
        own = {name: getattr(labels, name) for name in _fields(stage)}
        kinds: dict[str, list[str]] = {
            "network": ["data"],
            "samples": [],
            "divergences": ["samples", "data"],
            "bounds": ["network"],
        }
        needed = list(kinds.get(stage, []))
        if stage == "samples" and self.axes["score"][own["score"]].family == "trained":
            needed.append("network")
        files: dict[str, Any] = {kind: self.pattern(kind).format(**own) for kind in needed}
        targets = [own["target"]] if "target" in own else self.axes["target"]
        source = [path for target in targets for path in self.source_files(target)]
        return files | ({"source": source} if source else {})

    # --- specs -----------------------------------------------------------------------

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """Grid variables of the study's divergences and bounds, by name."""
        measures = (*self.study.divergences, *self.study.bounds)
        return {variable.name: variable for item in measures for variable in item.entry.variables}

    def spec(self, stage: str, labels: Any) -> str:
        """Canonical JSON of what a job must be told.

        Parameters
        ----------
        stage : str
            ``data``, ``network``, ``samples``, ``divergences``, ``bounds``, ``exact``
            or ``axes``.
        labels : Snakemake's wildcards or any object with the labels as attributes
        """
        study = self.study

        def item(axis: str) -> Any:
            return self.axes[axis][getattr(labels, axis)]

        def specs(items: tuple[Item, ...]) -> list[dict[str, Any]]:
            return [item.spec | {"label": item.label} for item in items]  # in the grid's order

        def of_target() -> dict[str, Any]:
            target = item("target")
            return {"study_seed": study.study_seed, "target": target.spec | {"label": target.label}}

        def of_schedule() -> dict[str, Any]:
            process, schedule = study.process.spec, item("schedule").spec
            return {"process": process, "schedule": schedule, "horizon": item("horizon")}

        def of_grid() -> dict[str, Any]:
            return {"time_grid": item("time_grid").spec, "n_steps": item("n_steps")}

        def of_study() -> dict[str, Any]:
            return {
                "process": study.process.spec,
                "schedules": specs(study.schedules),
                "horizons": study.horizons,
                "samplers": specs(study.samplers),
            }

        leaves: dict[str, Any]
        match stage:
            case "data":
                leaves = of_target() | {"n_train": study.n_train}
            case "network":
                leaves = of_target() | of_schedule() | {"score": item("score").spec}
            case "samples":
                leaves = of_target() | of_schedule() | of_grid()
                leaves |= {"score": item("score").spec, "sampler": item("sampler").spec}
                leaves |= {"n_samples": study.n_samples}
            case "divergences":
                leaves = of_target() | {"divergences": specs(study.divergences)}
            case "bounds":
                leaves = of_target() | of_schedule() | of_grid() | {"bounds": specs(study.bounds)}
                leaves |= {"n_score_error": study.n_score_error}
            case "exact":
                affine = [score for score in study.scores if score.family != "trained"]
                scores = tuple(score for score in affine if study.runs(item("target"), score))
                leaves = of_target() | of_study() | {"scores": specs(scores)}
                leaves |= {"time_grids": specs(study.time_grids), "bounds": specs(study.bounds)}
                leaves |= {"n_steps": list(study.n_steps)}
                bounds = [variable for bound in study.bounds for variable in bound.entry.variables]
                leaves |= {"variables": {v.name: v.axes for v in (*EXACT_LAW, *bounds)}}
            case "axes":
                leaves = of_study() | {"targets": specs(study.targets)}
            case _:
                raise ValueError(f"stage = {stage!r}: unknown")
        roots = [f"sgm.run.stages:{stage}", *_addresses(leaves)]
        return canonical(leaves | {"code": fingerprint(roots)})

    def view_spec(self, view: str) -> str:
        """Canonical JSON of what the gather, the figures or the tables must be told."""
        leaves: dict[str, Any] = {"code": fingerprint([f"sgm.run.views:{view}"])}
        if view == "grid":
            leaves |= {"config": self.study.model_dump(mode="json"), "root": str(self.root)}
        return canonical(leaves)


def _addresses(leaves: Any) -> Iterator[str]:
    """Every address of a builder in a spec."""
    if isinstance(leaves, dict) and "build" in leaves:
        yield leaves["build"]
    elif isinstance(leaves, dict | list | tuple):
        for value in leaves.values() if isinstance(leaves, dict) else leaves:
            yield from _addresses(value)
