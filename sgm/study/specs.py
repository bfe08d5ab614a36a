"""What a job must be told: the leaves of the config that its stage reads, and no others.

One function a stage, from the labels of a job to a mapping in plain JSON types. What is to be built
stands as ``build``, an address, with ``parameters``, its keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sgm.store.cells import canonical
from sgm.study.composition import Composition
from sgm.study.config import Item
from sgm.study.variables import EXACT_LAW, LEARNED_LAW, PARTICLE_LIMIT, PRIORS

__all__ = ["Job", "files", "labelled", "leaves", "roots"]


#: The score of the chain that runs beside a network's.
EXACT = {"build": "sgm.scores:exact", "parameters": {}}
Leaves = dict[str, Any]


class Job(NamedTuple):
    """A job: the labels of what it makes, and what only the plan knows of its schedules.

    Parameters
    ----------
    labels : mapping of str to str
    schedules : list of dict
        Specs of the schedules of its block: the study may lack some of a block on disk.
    block : list of str
        Labels of the schedules that share the file of networks which a picture reads.
    """

    labels: Mapping[str, str]
    schedules: list[Leaves]
    block: Sequence[str] = ()


def leaves(cells: Composition, stage: str, job: Job) -> Leaves:
    """Leaves of the config that a job reads."""
    return _LEAVES[stage](cells, job)


def roots(stage: str, told: Mapping[str, Any]) -> set[str]:
    """Addresses of the code that a job runs, given its leaves."""
    addresses = {"sgm.run.__main__", f"sgm.run.jobs.stages:{stage}", *_addresses(told)}
    score = told["score"]["parameters"] if "score" in told else {}
    if stage == "network":
        addresses.update(_rows(score["recipe"]))
    if "levels" in score:  # of a finished model
        addresses.update(_rows(score | {"architecture": "module_file"} | score["levels"]))
    if "network" in told.get("score", {}):  # of a guided score
        score = told["score"]["network"]["parameters"]
    builder = score.get("recipe", score).get("builder")
    return addresses | ({builder} if builder else set())


def files(told: Any) -> set[str]:
    """The user's own files among the parameters of what a job builds.

    A parameter `path` is one, and so is any text that names a file.
    """
    if isinstance(told, dict) and "build" in told:
        parameters = told.get("parameters", {})
        options = parameters.get("recipe", parameters).get("options", {})
        nested = (part for part in parameters.values() if _is_built(part))
        return set().union(*map(files, nested)) | {
            value
            for name, value in [*parameters.items(), *options.items()]
            if isinstance(value, str) and (name == "path" or _is_file(value))
        }
    if isinstance(told, dict | list | tuple):
        parts = told.values() if isinstance(told, dict) else told
        return set().union(*(files(part) for part in parts))
    return set()


def _is_built(told: Any) -> bool:
    """Whether this says what is to be built, such as the prior of a posterior."""
    return isinstance(told, dict) and "build" in told


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


def _target(cells: Composition, job: Job) -> Leaves:
    target = cells.item("target", job.labels)
    prior = cells.study.prior_of(target) if target.entry.of_prior == "conditional" else None
    # a class shares the draws of its prior, and of a data set the rows that are held out
    spec = target.spec | {"label": (prior or target).label}
    return {"study_seed": cells.study.study_seed, "target": spec}


def _processes(cells: Composition, job: Job) -> Leaves:
    return {
        "process": cells.study.process.spec,
        "schedules": job.schedules,
        "horizon": cells.item("horizon", job.labels),
    }


def _solver(cells: Composition, job: Job) -> Leaves:
    return {
        "time_grid": cells.item("time_grid", job.labels).spec,
        "n_steps": cells.item("n_steps", job.labels),
    }


def _all_axes(cells: Composition) -> Leaves:
    study = cells.study
    return {
        "process": study.process.spec,
        "schedules": labelled(study.schedules),
        "horizons": study.horizons,
        "samplers": labelled(study.samplers),
    }


def _solvers(cells: Composition) -> Leaves:
    study = cells.study
    return {"time_grids": labelled(study.time_grids), "n_steps": list(study.n_steps)}


def _data(cells: Composition, job: Job) -> Leaves:
    return _target(cells, job) | {"n_train": cells.study.n_train}


def _network(cells: Composition, job: Job) -> Leaves:
    return _target(cells, job) | _processes(cells, job) | {"score": _score(cells, job)}


def _score(cells: Composition, job: Job) -> Leaves:
    """Spec of a score; of a guided one with that of its networks."""
    score = cells.item("score", job.labels)
    label = getattr(score.parameters, "network", None)
    networks = {"network": cells.axes["score"][label].spec} if label is not None else {}
    return {**score.spec, **networks}


def _precision(cells: Composition, job: Job) -> Leaves:
    """The type that networks are sampled in, told where it is not the usual one."""
    trained = cells.item("score", job.labels).entry.is_network
    usual = cells.study.precision == type(cells.study).model_fields["precision"].default
    return {"precision": cells.study.precision} if trained and not usual else {}


def _trained_under(cells: Composition, job: Job) -> Leaves:
    """The schedule under which all networks of a score were trained, if it names one."""
    label = cells.train_schedule(job.labels)
    if label is None:
        return {}
    return {"train_schedule": labelled([cells.axes["schedule"][label]])[0]}


def _samples(cells: Composition, job: Job) -> Leaves:
    told = _network(cells, job) | _solver(cells, job) | _precision(cells, job)
    told |= _trained_under(cells, job)
    told |= {"sampler": cells.item("sampler", job.labels).spec, "n_samples": cells.study.n_samples}
    if cells.along_chain(cells.item("target", job.labels), cells.item("score", job.labels)):
        told["n_score_error"] = cells.study.n_score_error
    if cells.is_coupled(cells.item("target", job.labels), cells.item("score", job.labels)):
        twin = cells.twin(cells.item("score", job.labels))
        own = {"parameters": told["score"]["parameters"]}
        told["control"] = EXACT if twin is None else {"build": twin} | own
    return told


def _reference(cells: Composition, job: Job) -> Leaves:
    told = _target(cells, job) | _solver(cells, job)
    return told | {
        "process": cells.study.process.spec,
        "schedule": job.schedules[0],
        "horizon": cells.item("horizon", job.labels),
        "sampler": cells.item("sampler", job.labels).spec,
        "score": EXACT,
        "n_reference": cells.study.n_reference,
    }


def _divergences(cells: Composition, job: Job) -> Leaves:
    target = cells.item("target", job.labels)
    told = _target(cells, job) | _processes(cells, job)
    told |= {"divergences": _measures(cells.measures("divergences", target))}
    bounds = cells.along_chain(target, cells.item("score", job.labels))
    if bounds:
        told |= _solver(cells, job) | {"bounds": _measures(bounds)}
        told["sampler"] = cells.item("sampler", job.labels).spec
    return told


def _floors(cells: Composition, job: Job) -> Leaves:
    items = cells.with_floor(cells.item("target", job.labels))
    measured = {
        variable.name: variable.floor.name
        for item in items
        for variable in item.entry.variables
        if variable.measured_floor
    }
    told = {"divergences": _measures(items), "floors": measured}
    return _target(cells, job) | told | {"n_samples": cells.study.n_samples}


def _bounds(cells: Composition, job: Job) -> Leaves:
    told = _target(cells, job) | _processes(cells, job) | _solver(cells, job)
    bounds = cells.measures("bounds", cells.item("target", job.labels))
    without = (item for item in bounds if not item.entry.of_sampler)
    told |= {"bounds": _measures(without), "n_score_error": cells.study.n_score_error}
    parameters = cells.item("score", job.labels).parameters
    own_module = hasattr(getattr(parameters, "recipe", parameters), "builder")
    if own_module or hasattr(parameters, "network"):
        told["score"] = _score(cells, job)
    if cells.study.score_error_tolerance is not None:
        told["score_error_tolerance"] = cells.study.score_error_tolerance
        told["largest_score_error"] = any(item.entry.along_chain for item in bounds)
    return told | _precision(cells, job) | _trained_under(cells, job)


def _likelihood(cells: Composition, job: Job) -> Leaves:
    assert cells.study.likelihood is not None
    told = _network(cells, job) | _trained_under(cells, job)
    return told | {"likelihood": cells.study.likelihood.model_dump(mode="json")}


def _pictures(cells: Composition, job: Job) -> Leaves:
    study, pictures = cells.study, cells.study.pictures
    assert pictures is not None
    score = cells.item("score", job.labels)
    told = _target(cells, job) | {
        "score": _score(cells, job),
        "process": study.process.spec,
        "schedule": cells.item("schedule", job.labels).spec,
        "horizon": study.horizons[0],
        "time_grid": study.time_grids[0].spec,
        "n_steps": max(study.n_steps),
        "samplers": labelled(study.samplers),
    }
    told |= _trained_under(cells, job)
    if score.entry.is_network and score.family != "module_file":
        place = job.block.index(job.labels["schedule"])
        told["place"] = {"schedule": place, "schedules": len(job.block)}
    told |= _precision(cells, job)
    return told | pictures.model_dump(mode="json", exclude={"schedules"})


def _exact(cells: Composition, job: Job) -> Leaves:
    target = cells.item("target", job.labels)
    scores = cells.untrained(target)
    bounds = cells.measures("bounds", target)
    divergences = [
        {
            "build": item.entry.address(item.entry.exact),
            "parameters": item.spec["parameters"],
            "variables": item.entry.promised_exactly,
        }
        for item in cells.measures("divergences", target)
        if item.entry.exact and target.entry.law == "gaussian"
    ]
    told = _target(cells, job) | _all_axes(cells) | {"scores": labelled(scores)}
    told |= _solvers(cells)
    told |= {
        "divergences": divergences,
        "bounds": _measures(item for item in bounds if not item.entry.along_chain),
        "chain_bounds": _measures(item for item in bounds if item.entry.along_chain),
    }
    terms = (term for item in bounds for term in item.entry.variables)
    exact = {variable.name: variable.axes for variable in (*EXACT_LAW, *terms)}
    for item in cells.measures("divergences", target):
        exact |= item.entry.promised_exactly
    if cells.filtered(target):
        exact |= {variable.name: variable.axes for variable in PARTICLE_LIMIT}
    return told | {"variables": exact}


def _learned(cells: Composition, job: Job) -> Leaves:
    told, target = _exact(cells, job), cells.item("target", job.labels)
    del told["divergences"]
    told["scores"] = labelled(cells.learned(target))
    bounds = cells.measures("bounds", target)
    declared = (*LEARNED_LAW, *(term for item in bounds for term in item.entry.variables))
    return told | {"variables": {variable.name: variable.axes for variable in declared}}


def _priors(cells: Composition, job: Job) -> Leaves:
    study, target = cells.study, cells.item("target", job.labels)
    assert study.priors is not None
    told = _target(cells, job) | _all_axes(cells) | _solvers(cells)
    variables = [own for name in study.priors.families for own in PRIORS[name]]
    return told | {
        "scores": labelled(cells.untrained(target)),
        "priors": study.priors.model_dump(mode="json"),
        "variables": {variable.name: variable.axes for variable in variables},
    }


def _axes(cells: Composition, job: Job) -> Leaves:
    study = cells.study
    objections = [
        {
            "build": item.entry.address(item.entry.objection),
            "parameters": {"total": variable.name},
            "label": variable.about["objection"],
        }
        for item in study.bounds
        for variable in item.entry.variables
        if item.entry.objection and "objection" in variable.about
    ]
    told = _all_axes(cells) | {"targets": labelled(study.targets), "objections": objections}
    return told | _solvers(cells)


_LEAVES: dict[str, Callable[[Composition, Job], Leaves]] = {
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
    "learned": _learned,
    "priors": _priors,
    "axes": _axes,
}


def _rows(recipe: Mapping[str, Any]) -> set[str]:
    """Addresses of the rows of the tables of choices that a recipe or a finished model names."""
    tables = {
        "sgm.architectures:ARCHITECTURES": "architecture",
        "sgm.networks:FORWARD": "architecture",
        "sgm.networks:INITIAL": "architecture",
        "sgm.architectures.base:OUTPUTS": "output",
        "sgm.architectures.base:TIME_INPUTS": "time_input",
        "sgm.architectures.modules:LEVELS": "kind",
        "sgm.architectures.modules:PREDICTS": "predicts",
        "sgm.architectures.modules:CURVES": "curve",
        "sgm.objectives:OBJECTIVES": "objective",
        "sgm.objectives:WEIGHTS": "weight",
        "sgm.objectives:PROBES": "probe",
        "sgm.training:LEARNING_RATES": "learning_rate_schedule",
        "sgm.training:TIME_SAMPLINGS": "time_sampling",
    }
    absent = {"sgm.networks:INITIAL[module_file]", "sgm.architectures.modules:PREDICTS[edm]"}
    rows = {f"{table}[{recipe[key]}]" for table, key in tables.items() if key in recipe}
    return rows - absent


def _addresses(told: Any) -> Iterator[str]:
    """Every address of a builder in a spec."""
    if isinstance(told, dict) and "build" in told:
        yield told["build"]
        yield from _addresses(list(filter(_is_built, told.get("parameters", {}).values())))
    elif isinstance(told, dict | list | tuple):
        for value in told.values() if isinstance(told, dict) else told:
            yield from _addresses(value)
