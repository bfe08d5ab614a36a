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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any

from sgm.study.config import Item, Study, canonical, format_number
from sgm.study.fingerprint import fingerprint
from sgm.study.variables import EXACT_LAW, GRID, Variable

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
    "floors": "cells/floors/{target}/seeds_{seeds}.npz",
    "pictures": "cells/pictures/{target}/{schedule}/{score}.npz",
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

    def has_file(self, kind: str, labels: Mapping[str, str]) -> bool:
        """Whether a kind of file exists at some labels."""
        study = self.study
        target = self.axes["target"][labels["target"]] if "target" in labels else None
        score = self.axes["score"][labels["score"]] if "score" in labels else None
        if target is None:
            return True
        if score is None:
            scores = [score for score in study.scores if study.runs(target, score)]
            match kind:
                case "exact":
                    return any(score.family != "trained" for score in scores)
                case "floors":
                    sampled = any(self.is_sampled(target, score) for score in scores)
                    return sampled and bool(self.with_floor(target))
            return True
        match kind:
            case "network" | "training":
                return score.family == "trained" and study.runs(target, score)
            case "bounds":
                known = target.entry.law_known and bool(study.bounds)
                return known and self.has_file("network", labels)
            case "samples" | "divergences":
                return self.is_sampled(target, score)
            case "pictures":
                chosen = study.pictures is not None and labels["schedule"] in (
                    study.pictures.schedules
                )
                return chosen and self.is_sampled(target, score)
        return True

    def measures(self, kind: str, target: Item) -> tuple[Item, ...]:
        """Divergences or bounds of the study that a target has what it takes for."""
        items: tuple[Item, ...] = getattr(self.study, kind)
        return tuple(item for item in items if item.entry.suits(target.entry))

    def with_floor(self, target: Item) -> tuple[Item, ...]:
        """Divergences whose floor is measured between true samples."""
        return tuple(
            item
            for item in self.measures("divergences", target)
            if any(variable.measured_floor for variable in item.entry.variables)
        )

    def along_chain(self, target: Item, score: Item) -> tuple[Item, ...]:
        """Bounds that need a network's error along the generated chain."""
        if score.family != "trained":
            return ()
        return tuple(item for item in self.measures("bounds", target) if item.entry.along_chain)

    # --- files -----------------------------------------------------------------------

    def pattern(self, kind: str) -> str:
        """Snakemake pattern of one kind of file."""
        return f"{self.root}/{PATTERNS[kind]}"

    def cells(self, kind: str) -> Iterator[dict[str, str]]:
        """Labels of every file of one kind."""
        values: dict[str, Any] = {**self.axes, "seeds": self.blocks}
        fields = _fields(kind)
        for labels in itertools.product(*(values[name] for name in fields)):
            cell = dict(zip(fields, labels, strict=True))
            if self.has_file(kind, cell):
                yield cell

    def files(self, kind: str) -> list[str]:
        """Paths of all files of one kind."""
        return [self.pattern(kind).format(**labels) for labels in self.cells(kind)]

    def figures(self) -> list[str]:
        """Stems of the study's figures, as ``kl/isotropic``."""
        study = self.study
        stems = ["schedules"]
        calibrated = False
        for target in study.targets:
            scores = [score for score in study.scores if study.runs(target, score)]
            sampled = [score for score in scores if self.is_sampled(target, score)]
            exact = target.entry.law == "gaussian" and any(s.family != "trained" for s in scores)
            for item in self.measures("divergences", target):
                for variable in item.entry.variables:
                    drawn = variable.about.get("role") == "divergence"
                    if drawn and (sampled or (exact and "exact" in variable.about)):
                        stems.append(f"{variable.about['figure']}/{target.label}")
            for item in self.measures("bounds", target):
                stems += [
                    f"{variable.name.removesuffix('_bound')}_decomposition/{target.label}"
                    for variable in item.entry.variables
                    if variable.about.get("role") == "bound"
                ]
            if sampled and len(study.schedules) > 1 and study.seeds > 1:
                stems.append(f"comparison/{target.label}")
            if sampled and study.pictures is not None:
                stems.append(f"samples/{target.label}")
            calibrated |= exact and any(score.family != "trained" for score in sampled)
        return stems + ["calibration"] * calibrated

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
            "divergences": ["samples", "data"],
            "floors": ["data"],
            "bounds": ["network"],
        }
        needed = list(kinds.get(stage, []))
        if stage == "pictures":  # of seed 0 and the first horizon
            own |= {"seeds": self.blocks[0], "horizon": next(iter(self.axes["horizon"]))}
        if "score" in own:
            target, score = self.axes["target"][own["target"]], self.axes["score"][own["score"]]
            if score.family == "trained" and stage in ("samples", "pictures"):
                needed.append("network")
            if stage == "divergences" and self.along_chain(target, score):
                needed.append("bounds")
        files: dict[str, Any] = {kind: self.pattern(kind).format(**own) for kind in needed}
        targets = [own["target"]] if "target" in own else self.axes["target"]
        source = [path for target in targets for path in self.source_files(target)]
        return files | ({"source": source} if source else {})

    # --- specs -----------------------------------------------------------------------

    @cached_property
    def variables(self) -> dict[str, Variable]:
        """Grid variables of the study's divergences and bounds, by name."""
        measures = (*self.study.divergences, *self.study.bounds)
        own = [variable for item in measures for variable in item.entry.variables]
        floors = [variable.floor for variable in own if variable.measured_floor]
        return {variable.name: variable for variable in (*own, *floors)}

    def spec(self, stage: str, labels: Any) -> str:
        """Canonical JSON of what a job must be told.

        Parameters
        ----------
        stage : str
            ``data``, ``network``, ``samples``, ``divergences``, ``bounds``, ``floors``,
            ``pictures``, ``exact`` or ``axes``.
        labels : Snakemake's wildcards or any object with the labels as attributes
        """
        leaves = getattr(self, f"_{stage}_leaves")(
            {name: getattr(labels, name) for name in _fields(stage) if name != "seeds"}
        )
        roots = [f"sgm.run.stages:{stage}", *_addresses(leaves)]
        if stage == "network":
            roots += _rows(leaves["score"]["parameters"]["recipe"])
        return canonical(leaves | {"code": fingerprint(roots)})

    def _item(self, axis: str, labels: Mapping[str, str]) -> Any:
        return self.axes[axis][labels[axis]]

    def _target(self, labels: Mapping[str, str]) -> dict[str, Any]:
        target = self._item("target", labels)
        return {
            "study_seed": self.study.study_seed,
            "target": target.spec | {"label": target.label},
        }

    def _schedule(self, labels: Mapping[str, str]) -> dict[str, Any]:
        return {
            "process": self.study.process.spec,
            "schedule": self._item("schedule", labels).spec,
            "horizon": self._item("horizon", labels),
        }

    def _solver(self, labels: Mapping[str, str]) -> dict[str, Any]:
        return {
            "time_grid": self._item("time_grid", labels).spec,
            "n_steps": self._item("n_steps", labels),
        }

    def _axes_of_all(self) -> dict[str, Any]:
        study = self.study
        return {
            "process": study.process.spec,
            "schedules": _specs(study.schedules),
            "horizons": study.horizons,
            "samplers": _specs(study.samplers),
        }

    def _data_leaves(self, labels: Mapping[str, str]) -> dict[str, Any]:
        return self._target(labels) | {"n_train": self.study.n_train}

    def _network_leaves(self, labels: Mapping[str, str]) -> dict[str, Any]:
        score = {"score": self._item("score", labels).spec}
        return self._target(labels) | self._schedule(labels) | score

    def _samples_leaves(self, labels: Mapping[str, str]) -> dict[str, Any]:
        leaves = self._network_leaves(labels) | self._solver(labels)
        leaves |= {"sampler": self._item("sampler", labels).spec}
        leaves |= {"n_samples": self.study.n_samples}
        if self.along_chain(self._item("target", labels), self._item("score", labels)):
            leaves["n_score_error"] = self.study.n_score_error
        return leaves

    def _divergences_leaves(self, labels: Mapping[str, str]) -> dict[str, Any]:
        target = self._item("target", labels)
        leaves = self._target(labels)
        leaves |= {"divergences": _specs(self.measures("divergences", target))}
        bounds = self.along_chain(target, self._item("score", labels))
        if bounds:
            leaves |= self._schedule(labels) | self._solver(labels) | {"bounds": _specs(bounds)}
        return leaves

    def _floors_leaves(self, labels: Mapping[str, str]) -> dict[str, Any]:
        target = self._item("target", labels)
        items = self.with_floor(target)
        measured = {
            variable.name: variable.floor.name
            for item in items
            for variable in item.entry.variables
            if variable.measured_floor
        }
        leaves = {"divergences": _specs(items), "floors": measured}
        return self._target(labels) | leaves | {"n_samples": self.study.n_samples}

    def _bounds_leaves(self, labels: Mapping[str, str]) -> dict[str, Any]:
        target = self._item("target", labels)
        leaves = self._target(labels) | self._schedule(labels) | self._solver(labels)
        leaves |= {"bounds": _specs(self.measures("bounds", target))}
        return leaves | {"n_score_error": self.study.n_score_error}

    def _pictures_leaves(self, labels: Mapping[str, str]) -> dict[str, Any]:
        study, pictures = self.study, self.study.pictures
        assert pictures is not None
        leaves = self._target(labels) | {"score": self._item("score", labels).spec}
        leaves |= {
            "process": study.process.spec,
            "schedule": self._item("schedule", labels).spec,
            "horizon": study.horizons[0],
            "time_grid": study.time_grids[0].spec,
            "n_steps": max(study.n_steps),
            "samplers": _specs(study.samplers),
        }
        return leaves | pictures.model_dump(mode="json", exclude={"schedules"})

    def _exact_leaves(self, labels: Mapping[str, str]) -> dict[str, Any]:
        study, target = self.study, self._item("target", labels)
        scores = [s for s in study.scores if s.family != "trained" and study.runs(target, s)]
        bounds = self.measures("bounds", target)
        divergences = [
            {"build": item.entry.exact, "parameters": item.spec["parameters"]}
            for item in self.measures("divergences", target)
            if item.entry.exact and target.entry.law == "gaussian"
        ]
        leaves = self._target(labels) | self._axes_of_all() | {"scores": _specs(scores)}
        leaves |= {"time_grids": _specs(study.time_grids), "n_steps": list(study.n_steps)}
        leaves |= {
            "divergences": divergences,
            "bounds": _specs(item for item in bounds if not item.entry.along_chain),
            "chain_bounds": _specs(item for item in bounds if item.entry.along_chain),
        }
        variables = [*EXACT_LAW, *(term for item in bounds for term in item.entry.terms)]
        for item in self.measures("divergences", target):
            variables += [v for v in item.entry.variables if item.entry.exact and v.axes == GRID]
        return leaves | {"variables": {v.name: v.axes for v in variables}}

    def _axes_leaves(self, labels: Mapping[str, str]) -> dict[str, Any]:
        study = self.study
        objections = [
            {
                "build": item.entry.objection,
                "parameters": {"total": variable.name},
                "label": variable.about["objection"],
            }
            for item in study.bounds
            for variable in item.entry.variables
            if item.entry.objection and "objection" in variable.about
        ]
        targets = _specs(study.targets)
        return self._axes_of_all() | {"targets": targets, "objections": objections}

    def view_spec(self, view: str) -> str:
        """Canonical JSON of what the gather, the figures or the tables must be told."""
        leaves: dict[str, Any] = {"code": fingerprint([f"sgm.run.views:{view}"])}
        if view == "grid":
            leaves |= {"config": self.study.model_dump(mode="json"), "root": str(self.root)}
        if view == "figures":
            leaves |= {"stems": self.figures()}
        return canonical(leaves)


def _specs(items: Iterable[Item]) -> list[dict[str, Any]]:
    """Specs in the order of the grid: a list, since canonical JSON sorts mappings."""
    return [item.spec | {"label": item.label} for item in items]


def _rows(recipe: Mapping[str, Any]) -> list[str]:
    """Addresses of the rows of the tables of choices that a recipe names."""
    tables = {
        "sgm.architectures:ARCHITECTURES": "architecture",
        "sgm.networks:FORWARD": "architecture",
        "sgm.architectures:OUTPUTS": "output",
        "sgm.architectures:TIME_INPUTS": "time_input",
        "sgm.objectives:OBJECTIVES": "objective",
        "sgm.objectives:WEIGHTS": "weight",
        "sgm.training:LEARNING_RATES": "learning_rate_schedule",
        "sgm.training:TIME_SAMPLINGS": "time_sampling",
    }
    return [f"{table}[{recipe[key]}]" for table, key in tables.items()]


def _addresses(leaves: Any) -> Iterator[str]:
    """Every address of a builder in a spec."""
    if isinstance(leaves, dict) and "build" in leaves:
        yield leaves["build"]
    elif isinstance(leaves, dict | list | tuple):
        for value in leaves.values() if isinstance(leaves, dict) else leaves:
            yield from _addresses(value)
