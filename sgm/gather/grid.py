"""The gather: from the cell files of a study to one `xarray.Dataset` over its axes."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.axes import AXES, OWN_AXES, REPLICATE
from sgm.store import DONE, FAILED, NOT_APPLICABLE, NOT_RUN
from sgm.store.cells import Arrays, seed_range
from sgm.store.grid import content_digest
from sgm.study import Plan
from sgm.study.variables import CURVES, EXACT_LAW, TRAINING

if TYPE_CHECKING:
    import xarray as xr  # imported where used: most jobs read and write cell files alone

__all__ = ["gather"]


class _Members(NamedTuple):
    """Values on one axis that both a file and the study have."""

    size: int
    in_file: list[int]
    in_grid: list[int]


class _Grid:
    """Arrays of the grid while they are filled, and where each label stands."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        study = plan.study
        labels: dict[str, list[Any]] = {axis: list(values) for axis, values in plan.axes.items()}
        labels["seed"] = list(range(study.seeds))
        labels["time_fraction"] = []
        labels |= _own_axes(plan)
        self.labels = labels
        self.position = {
            axis: {label: i for i, label in enumerate(values)} for axis, values in labels.items()
        }
        named = {variable.name: variable for variable in (*EXACT_LAW, *TRAINING)}
        self.variables = named | plan.variables
        self.values = {
            name: np.full(self.shape(variable.axes), np.nan)
            for name, variable in self.variables.items()
        }
        self.attributes: dict[str, dict[str, Any]] = {
            name: dict(variable.attributes) for name, variable in self.variables.items()
        }
        for item in study.divergences:  # how it was computed stands beside its numbers
            parameters = item.parameters.model_dump(exclude=set(item.parameters.context))
            for variable in item.entry.variables:
                self.attributes[variable.name] |= parameters
        self.status = np.zeros(self.shape(REPLICATE), dtype=np.int8)
        self.causes: dict[tuple[Any, ...], str] = {}
        self.failures: list[dict[str, Any]] = []

    def shape(self, axes: tuple[str, ...]) -> tuple[int, ...]:
        return tuple(len(self.position[axis]) for axis in axes)

    def where(self, axes: tuple[str, ...], labels: Mapping[str, str]) -> tuple[Any, ...]:
        """Index of a view: a place on the axes that have a label, all of the others."""
        places = (self.position[a][labels[a]] if a in labels else slice(None) for a in axes)
        return (*places, ...)

    def members(self, labels: Mapping[str, str]) -> dict[str, _Members]:
        """Schedules and seeds of a file that the study has."""
        block: dict[str, Sequence[Any]] = {"seed": seed_range(labels["seeds"])}
        if "schedules" in labels:
            block = {"schedule": labels["schedules"].split(","), **block}
        members = {}
        for axis, values in block.items():
            position = self.position[axis]
            own = [(i, position[value]) for i, value in enumerate(values) if value in position]
            members[axis] = _Members(len(values), *map(list, zip(*own, strict=True)))
        return members

    def add_block(self, labels: Mapping[str, str], cells: Arrays) -> None:
        """One file of a block of schedules and replicates."""
        members = self.members(labels)
        shape = tuple(own.size for own in members.values())
        from_file = np.ix_(*(own.in_file for own in members.values()))
        for name, value in cells.items():
            variable = self.variables.get(name)
            if variable is None or not {*variable.axes} <= {*labels, *members, *OWN_AXES}:
                continue  # a bound that depends on the sampler, from the file of one that doesn't
            own_shape = self.shape(tuple(axis for axis in variable.axes if axis in OWN_AXES))
            value = np.broadcast_to(value, (*shape, *own_shape))[from_file]
            for i, axis in reversed(list(enumerate(members))):
                if axis not in variable.axes:
                    value = _first_finite(value, i)
            view = self.values[name][self.where(variable.axes, labels)]
            into = np.ix_(*(own.in_grid for axis, own in members.items() if axis in variable.axes))
            if value.ndim < len(members) + len(own_shape):
                # another block may know what no replicate of this one does
                value = np.where(np.isfinite(value), value, view[into])
            view[into] = value

    def add_status(self, labels: Mapping[str, str], cells: Arrays) -> None:
        """Whether the runs of a block of schedules and replicates came to an end."""
        members = self.members(labels)
        failed = cells["failed"][np.ix_(*(own.in_file for own in members.values()))]
        view = self.status[self.where(REPLICATE, labels)]
        view[np.ix_(*(own.in_grid for own in members.values()))] = np.where(failed, FAILED, DONE)

    def add_failures(self, labels: Mapping[str, str], cells: Arrays) -> None:
        """Which runs of a block failed, and why: the cause of their network's failure first."""
        members = self.members(labels)
        from_file = np.ix_(*(own.in_file for own in members.values()))
        failed, messages = cells["failed"][from_file], cells["message"][from_file]
        for place, own in self.runs(labels, members, failed):
            cause = self.causes.get(self.network(own), str(messages[place]))
            self.failures.append({**own, "message": cause})

    def add_causes(self, labels: Mapping[str, str], cells: Arrays) -> None:
        """Why networks failed: what their cells report as the cause."""
        members = self.members(labels)
        messages = cells["message"][np.ix_(*(own.in_file for own in members.values()))]
        for place, own in self.runs(labels, members, messages != ""):
            self.causes[self.network(own)] = str(messages[place])

    def runs(
        self, labels: Mapping[str, str], members: Mapping[str, _Members], chosen: npt.NDArray[Any]
    ) -> Iterator[tuple[tuple[int, ...], dict[str, Any]]]:
        """Place and labels of some runs of a block."""
        for place in np.argwhere(chosen).tolist():
            own: dict[str, Any] = dict(labels)
            for i, (axis, found) in zip(place, members.items(), strict=True):
                own[axis] = self.labels[axis][found.in_grid[i]]
            yield tuple(place), {axis: own[axis] for axis in REPLICATE if axis in own}

    @staticmethod
    def network(run: Mapping[str, Any]) -> tuple[Any, ...]:
        """Labels of the network of a run."""
        return tuple(run.get(axis) for axis in TRAINING[0].axes)

    def add_exact(self, target: str, cells: Arrays) -> None:
        """The exact laws of one target: arrays over all other axes but `seed`."""
        row = self.position["target"][target]
        scores = [self.position["score"][label] for label in cells["score"]]
        for name, value in cells.items():
            variable = self.variables.get(name)
            if variable is None:
                continue
            if "seed" in variable.axes:
                n_seeds = len(self.position["seed"])
                value = np.broadcast_to(value[..., None], (*value.shape, n_seeds))
            if "score" in variable.axes:
                axis = variable.axes.index("score") - 1
                full = self.values[name][row]
                np.moveaxis(full, axis, 0)[scores] = np.moveaxis(value, axis, 0)
            else:
                self.values[name][row] = value

    def add_of_rows(self, labels: Mapping[str, str], cells: Arrays) -> None:
        """What the rows of a block of seeds lead to, of one target: arrays over all other axes."""
        own = self.members(labels)["seed"]
        places: dict[str, Any] = {
            "seed": own.in_grid,
            "score": [self.position["score"][label] for label in cells["score"]],
        }
        for name, value in cells.items():
            variable = self.variables.get(name)
            if variable is None:
                continue
            view = self.values[name][self.position["target"][labels["target"]]]
            axes = variable.axes[1:]
            if "seed" in axes:
                value = np.take(value, own.in_file, axis=axes.index("seed"))
            view[np.ix_(*(places.get(a, range(len(self.position[a]))) for a in axes))] = value

    def add_objections(self, axes: Arrays) -> None:
        """Where the bounds are theorems, and why they are not elsewhere."""
        for name in self.variables.keys() & axes.keys():
            codes = self.values[name][...] = axes[name]
            meanings = [str(reason).replace(" ", "_") for reason in axes[f"{name}_meanings"]]
            self.attributes[name] |= {
                "flag_values": list(range(len(meanings))),
                "flag_meanings": " ".join(meanings),
            }
            applicable = name.replace("_objection", "_applicable")
            if applicable in self.variables:
                self.values[applicable][...] = codes == 0

    def add_expected_status(self) -> None:
        """Cells that need no replicates, or have no meaning."""
        study = self.plan.study
        for i, target in enumerate(study.targets):
            for j, score in enumerate(study.scores):
                if not study.runs(target, score):
                    self.status[i, :, :, j] = NOT_APPLICABLE
                elif not self.plan.is_sampled(target, score):
                    self.status[i, :, :, j] = DONE


def _own_axes(plan: Plan) -> dict[str, list[Any]]:
    """Labels of the axes that single divergences have, empty where the study has none such."""
    labels: dict[str, list[Any]] = {axis: [] for axis in OWN_AXES}
    for item in plan.study.divergences:
        own = item.parameters
        if item.family == "histogram":
            width = (own.high - own.low) / own.bins
            labels["bin"] = [own.low + width * (i + 0.5) for i in range(own.bins)]
        elif item.family == "coverage":
            labels["rows"] = list(own.rows)
    return labels


def _first_finite(values: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """The first finite number along an axis: the same for all runs that did not fail."""
    first = np.expand_dims(np.isfinite(values).argmax(axis), axis)
    return np.take_along_axis(values, first, axis).squeeze(axis)


def gather(plan: Plan, provenance: Mapping[str, str]) -> xr.Dataset:
    """Gather all cell files of a study.

    Parameters
    ----------
    plan : Plan
    provenance : mapping of str to str
        Attributes of the root, such as versions and the commit.

    Returns
    -------
    xarray.Dataset
        Over target, schedule, horizon, score, sampler, time_grid, n_steps and seed. Every
        variable has `units` and `long_name`; `status` tells what was not run, failed or
        has no meaning from a value that is NaN.

    Raises
    ------
    ValueError
        If cell files can't be read, or were made for another config or other code; the message
        names all of them.
    """
    import xarray as xr

    grid = _Grid(plan)
    grid.add_expected_status()
    damaged = []
    for kind in (
        "floors",
        "training",
        "bounds",
        "likelihood",
        "divergences",
        "exact",
        "learned",
        "priors",
        "axes",
    ):
        for labels in plan.cells(kind):
            try:
                cells = plan.read(kind, labels)
            except ValueError as error:
                damaged.append(str(error))
                continue
            if kind == "axes":
                axes = cells
            elif kind == "exact":
                grid.add_exact(labels["target"], cells)
            elif kind in ("learned", "priors"):
                grid.add_of_rows(labels, cells)
            else:
                grid.add_block(labels, cells)
            if kind == "training":
                grid.add_causes(labels, cells)
            if kind == "divergences":
                grid.add_status(labels, cells)
            if kind in ("floors", "bounds", "divergences", "likelihood"):
                grid.add_failures(labels, cells)
    if damaged:
        raise ValueError("\n".join(damaged))
    grid.add_objections(axes)
    data: dict[str, Any] = {
        name: (variable.axes, grid.values[name], grid.attributes[name])
        for name, variable in grid.variables.items()
    }
    data |= {
        variable.name: (variable.axes, axes[variable.name], variable.attributes)
        for variable in CURVES
    }
    data["status"] = (
        REPLICATE,
        grid.status,
        {
            "long_name": "state of the cell",
            "units": "1",
            "flag_values": [NOT_RUN, DONE, FAILED, NOT_APPLICABLE],
            "flag_meanings": "not_run done failed not_applicable",
        },
    )
    dataset = xr.Dataset(data, _coordinates(plan, axes))
    study = plan.study
    dataset.attrs = {
        "title": f"sgm study {study.study}",
        "study": study.study,
        "config": study.model_dump_json(),
        "config_digest": study.digest,
        "process": study.process.family,
        **study.process.spec["parameters"],
        "transforms": axes["transforms"].item(),
        "n_train": study.n_train,
        "n_samples": study.n_samples,
        **({"x": study.figures.x} if study.figures.x else {}),
        "failures": json.dumps(grid.failures),
        "compute_seconds": _compute_seconds(plan.root / "benchmarks"),
        "content_sha256": content_digest(dataset),
        **provenance,
    }
    return dataset


def _coordinates(plan: Plan, axes: Arrays) -> dict[str, Any]:
    """Coordinates of the grid: labels, and what stands behind them."""
    study = plan.study

    def text(values: Iterable[str]) -> npt.NDArray[np.object_]:
        return np.array(list(values), dtype=object)

    def recipe(parameters: Any) -> str:
        return str(parameters.recipe.name) if hasattr(parameters, "recipe") else ""

    labels = {
        name: (name, text(items), {"long_name": AXES[name].about})
        for name, items in plan.axes.items()
    }
    numbers = {"horizon": study.horizons, "n_steps": study.n_steps, "seed": range(study.seeds)}
    for name, values in numbers.items():
        told = {"long_name": AXES[name].about, "symbol": AXES[name].symbol, "units": "1"}
        labels[name] = (name, np.array(values), told)
    return {
        **labels,
        **{
            own.name: (own.dimension, np.array(own.values), own.attributes)
            for own in study.coordinates
        },
        "nfe": (
            ("sampler", "time_grid", "n_steps"),
            axes["nfe"],
            {"long_name": "evaluations of the score", "symbol": "NFE", "units": "1"},
        ),
        "time_fraction": ("time_fraction", axes["time_fraction"], {"long_name": "t/T"}),
        "target_family": ("target", text(item.family for item in study.targets)),
        "dimension": ("target", axes["dimension"], {"long_name": "d"}),
        "law_known": ("target", np.array([t.entry.law_known for t in study.targets])),
        "family": ("schedule", text(item.family for item in study.schedules)),
        "full_horizon": (
            "schedule",
            np.array([item.parameters.full_horizon or np.nan for item in study.schedules]),
            {"long_name": "horizon of a schedule that is cut at T, NaN if it stretches to T"},
        ),
        "score_family": ("score", text(item.family for item in study.scores)),
        "recipe": ("score", text(recipe(item.parameters) for item in study.scores)),
        **{
            axis: (axis, np.array(labels), {"long_name": OWN_AXES[axis]})
            for axis, labels in _own_axes(plan).items()
            if labels
        },
    }


def _compute_seconds(folder: Path) -> float:
    """Wall time of all jobs run in this folder so far, from Snakemake's benchmark files.

    A damaged one is named and left out: no number of a cell depends on it.
    """
    total = 0.0
    for path in folder.rglob("*.tsv"):
        try:
            with path.open(newline="", encoding="utf-8") as file:
                total += sum(float(row["s"]) for row in csv.DictReader(file, delimiter="\t"))
        except (ValueError, LookupError, TypeError, csv.Error):
            print(f"{path}: not a readable benchmark file: left out of compute_seconds", flush=True)
    return round(total, 1)
