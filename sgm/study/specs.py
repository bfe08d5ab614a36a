"""What a job must be told: the leaves of the config that its stage reads, and no others.

One function a stage, from the labels of a job to a mapping in plain JSON types. What is to be built
stands as ``build``, an address, with ``parameters``, its keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgm.store.cells import canonical
from sgm.study.config import Item
from sgm.study.variables import EXACT_LAW

if TYPE_CHECKING:
    from sgm.study.plan import Plan

__all__ = ["files", "labelled", "leaves", "roots"]

Labels = Mapping[str, str]

#: The score of the chain that runs beside a network's.
EXACT = {"build": "sgm.scores:exact", "parameters": {}}
Leaves = dict[str, Any]


def leaves(plan: Plan, stage: str, labels: Labels) -> Leaves:
    """Leaves of the config that a job reads."""
    return _LEAVES[stage](plan, labels)


def roots(stage: str, told: Mapping[str, Any]) -> set[str]:
    """Addresses of the code that a job runs, given its leaves."""
    addresses = {"sgm.run.__main__", f"sgm.run.stages:{stage}", *_addresses(told)}
    if stage == "network":
        addresses.update(_rows(told["score"]["parameters"]["recipe"]))
    return addresses


def files(told: Any) -> set[str]:
    """The user's own files among the parameters of what a job builds.

    A parameter `path` is one, and so is any text that names a file.
    """
    if isinstance(told, dict) and "build" in told:
        return {
            value
            for name, value in told.get("parameters", {}).items()
            if isinstance(value, str) and (name == "path" or _is_file(value))
        }
    if isinstance(told, dict | list | tuple):
        parts = told.values() if isinstance(told, dict) else told
        return set().union(*(files(part) for part in parts))
    return set()


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # a text that no file can have for its name
        return False


def labelled(items: Iterable[Item]) -> list[Leaves]:
    """Specs in the order of the grid: a list, since canonical JSON sorts mappings."""
    return [item.spec | {"label": item.label} for item in items]


def _measures(items: Iterable[Item]) -> list[Leaves]:
    """Divergences or bounds: neither their names in the study nor their order make a number."""
    return sorted((item.spec for item in items), key=canonical)


def _item(plan: Plan, axis: str, labels: Labels) -> Any:
    return plan.axes[axis][labels[axis]]


def _target(plan: Plan, labels: Labels) -> Leaves:
    target = _item(plan, "target", labels)
    spec = target.spec | {"label": target.label}
    return {"study_seed": plan.study.study_seed, "target": spec}


def _processes(plan: Plan, labels: Labels) -> Leaves:
    return {
        "process": plan.study.process.spec,
        "schedules": plan.schedules(labels),
        "horizon": _item(plan, "horizon", labels),
    }


def _solver(plan: Plan, labels: Labels) -> Leaves:
    return {
        "time_grid": _item(plan, "time_grid", labels).spec,
        "n_steps": _item(plan, "n_steps", labels),
    }


def _all_axes(plan: Plan) -> Leaves:
    study = plan.study
    return {
        "process": study.process.spec,
        "schedules": labelled(study.schedules),
        "horizons": study.horizons,
        "samplers": labelled(study.samplers),
    }


def _solvers(plan: Plan) -> Leaves:
    study = plan.study
    return {"time_grids": labelled(study.time_grids), "n_steps": list(study.n_steps)}


def _data(plan: Plan, labels: Labels) -> Leaves:
    return _target(plan, labels) | {"n_train": plan.study.n_train}


def _network(plan: Plan, labels: Labels) -> Leaves:
    score = {"score": _item(plan, "score", labels).spec}
    return _target(plan, labels) | _processes(plan, labels) | score


def _precision(plan: Plan, labels: Labels) -> Leaves:
    """The type that networks are sampled in, told where it is not the usual one."""
    trained = _item(plan, "score", labels).family == "trained"
    usual = plan.study.precision == type(plan.study).model_fields["precision"].default
    return {"precision": plan.study.precision} if trained and not usual else {}


def _samples(plan: Plan, labels: Labels) -> Leaves:
    told = _network(plan, labels) | _solver(plan, labels) | _precision(plan, labels)
    told |= {"sampler": _item(plan, "sampler", labels).spec, "n_samples": plan.study.n_samples}
    if plan.along_chain(_item(plan, "target", labels), _item(plan, "score", labels)):
        told["n_score_error"] = plan.study.n_score_error
    if plan.is_coupled(_item(plan, "target", labels), _item(plan, "score", labels)):
        told["control"] = EXACT
    return told


def _reference(plan: Plan, labels: Labels) -> Leaves:
    told = _target(plan, labels) | _solver(plan, labels)
    return told | {
        "process": plan.study.process.spec,
        "schedule": plan.schedule(labels),
        "horizon": _item(plan, "horizon", labels),
        "sampler": _item(plan, "sampler", labels).spec,
        "score": EXACT,
        "n_reference": plan.study.n_reference,
    }


def _divergences(plan: Plan, labels: Labels) -> Leaves:
    target = _item(plan, "target", labels)
    told = _target(plan, labels) | _processes(plan, labels)
    told |= {"divergences": _measures(plan.measures("divergences", target))}
    bounds = plan.along_chain(target, _item(plan, "score", labels))
    if bounds:
        told |= _solver(plan, labels) | {"bounds": _measures(bounds)}
    return told


def _floors(plan: Plan, labels: Labels) -> Leaves:
    items = plan.with_floor(_item(plan, "target", labels))
    measured = {
        variable.name: variable.floor.name
        for item in items
        for variable in item.entry.variables
        if variable.measured_floor
    }
    told = {"divergences": _measures(items), "floors": measured}
    return _target(plan, labels) | told | {"n_samples": plan.study.n_samples}


def _bounds(plan: Plan, labels: Labels) -> Leaves:
    told = _target(plan, labels) | _processes(plan, labels) | _solver(plan, labels)
    bounds = plan.measures("bounds", _item(plan, "target", labels))
    told |= {"bounds": _measures(bounds), "n_score_error": plan.study.n_score_error}
    if plan.study.score_error_tolerance is not None:
        told["score_error_tolerance"] = plan.study.score_error_tolerance
        told["largest_score_error"] = any(item.entry.along_chain for item in bounds)
    return told | _precision(plan, labels)


def _likelihood(plan: Plan, labels: Labels) -> Leaves:
    assert plan.study.likelihood is not None
    return _network(plan, labels) | {"likelihood": plan.study.likelihood.model_dump(mode="json")}


def _pictures(plan: Plan, labels: Labels) -> Leaves:
    study, pictures = plan.study, plan.study.pictures
    assert pictures is not None
    score = _item(plan, "score", labels)
    told = _target(plan, labels) | {
        "score": score.spec,
        "process": study.process.spec,
        "schedule": _item(plan, "schedule", labels).spec,
        "horizon": study.horizons[0],
        "time_grid": study.time_grids[0].spec,
        "n_steps": max(study.n_steps),
        "samplers": labelled(study.samplers),
    }
    if score.family == "trained":
        block = plan.place(labels)["schedules"].split(",")
        told["place"] = {"schedule": block.index(labels["schedule"]), "schedules": len(block)}
    told |= _precision(plan, labels)
    return told | pictures.model_dump(mode="json", exclude={"schedules"})


def _exact(plan: Plan, labels: Labels) -> Leaves:
    study, target = plan.study, _item(plan, "target", labels)
    scores = [s for s in study.scores if s.family != "trained" and study.runs(target, s)]
    bounds = plan.measures("bounds", target)
    divergences = [
        {
            "build": item.entry.exact,
            "parameters": item.spec["parameters"],
            "variables": item.entry.promised_exactly,
        }
        for item in plan.measures("divergences", target)
        if item.entry.exact and target.entry.law == "gaussian"
    ]
    told = _target(plan, labels) | _all_axes(plan) | {"scores": labelled(scores)}
    told |= _solvers(plan)
    told |= {
        "divergences": divergences,
        "bounds": _measures(item for item in bounds if not item.entry.along_chain),
        "chain_bounds": _measures(item for item in bounds if item.entry.along_chain),
    }
    terms = (term for item in bounds for term in item.entry.terms)
    exact = {variable.name: variable.axes for variable in (*EXACT_LAW, *terms)}
    for item in plan.measures("divergences", target):
        exact |= item.entry.promised_exactly
    return told | {"variables": exact}


def _axes(plan: Plan, labels: Labels) -> Leaves:
    study = plan.study
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
    told = _all_axes(plan) | {"targets": labelled(study.targets), "objections": objections}
    return told | _solvers(plan)


_LEAVES: dict[str, Callable[[Plan, Labels], Leaves]] = {
    "data": _data,
    "network": _network,
    "reference": _reference,
    "samples": _samples,
    "divergences": _divergences,
    "floors": _floors,
    "bounds": _bounds,
    "likelihood": _likelihood,
    "pictures": _pictures,
    "exact": _exact,
    "axes": _axes,
}


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


def _addresses(told: Any) -> Iterator[str]:
    """Every address of a builder in a spec."""
    if isinstance(told, dict) and "build" in told:
        yield told["build"]
    elif isinstance(told, dict | list | tuple):
        for value in told.values() if isinstance(told, dict) else told:
            yield from _addresses(value)
