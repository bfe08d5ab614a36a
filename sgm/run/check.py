"""Check a study before any compute: build every closed-form object once.

The config's schema has seen names, types and ranges; here the mathematics has its say: a
covariance that is not positive definite, a schedule that is not positive, a sample too
small for its dimension.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.architectures import Architecture, Built, build_architecture, network_keys
from sgm.arguments import require_instance
from sgm.densities import Law
from sgm.elbo import time_quadrature
from sgm.gaussian import Gaussian
from sgm.guidance import ControlledScore
from sgm.learned import DescentScore
from sgm.particles import require_gaussian_steps
from sgm.processes import Process, matching_times
from sgm.registry import families, line_of
from sgm.run.build import (
    asks,
    build,
    build_process,
    build_steps,
    build_target,
    build_times,
    resolve,
)
from sgm.samplers import Steps
from sgm.schedules import NoiseSchedule
from sgm.scores import DensityScore, GaussianScore
from sgm.study import Item, Study
from sgm.study.composition import Composition
from sgm.study.document import read_config
from sgm.study.families import Recipe
from sgm.study.figures import figures
from sgm.targets import DataTarget, EmpiricalTarget, Target, class_count, observation_of

__all__ = ["check", "read_study"]

Array = npt.NDArray[np.float64]

#: Scores of known error.
SCORES = (GaussianScore, DensityScore, ControlledScore)
#: Divergences that take the covariance of the generated rows.
BY_MOMENTS = {"gaussian_kl", "gaussian_w2"}
#: How far the data of a network may be, as a factor, from what it is built for.
SCALES = 30
#: How far below the times it is trained for a network may be asked, as a factor.
EXTRAPOLATION = 5
#: The most runs of a study: a variable of its grid then takes 80 MB.
RUNS = 10**7
#: The largest array of a job, in bytes: the samples of its seeds.
LARGEST = 2**36


def check(study: Study) -> None:
    """Build targets, schedules, affine scores, time grids and samplers of a study.

    Raises
    ------
    ValueError
        One message that names the key, the value and what is allowed.
    """
    for condition in CONDITIONS:
        condition(study)
    targets = [(target, _check_target(study, target)) for target in study.targets]
    filtered = Composition(study).filtered
    _check_coordinates(study, targets)
    evaluations: dict[tuple[str, str, int], int] = {}
    architectures: dict[tuple[str, str, bool], Architecture] = {}
    for schedule in study.schedules:
        for horizon in study.horizons:
            with _named("schedules", schedule):
                process = build_process(study.process.spec, schedule.spec, horizon)
                _check_supremum(process.schedule)
            networks: list[_Network] = []
            for item, target in targets:
                for score in study.scores:
                    if not study.runs(item, score):
                        continue
                    with _named("scores", score):
                        if score.entry.learns:
                            _check_learned(study, score, target, process)
                            continue
                        if not score.entry.is_network:
                            built = build(score.spec, process=process, law=target.law)
                            require_instance(SCORES, returned=built)
                            continue
                        _check_guided(score, item, target)
                        trained, source = _trained(study, score, item)
                        rows = next(own for known, own in targets if known is source)
                        key = trained.label, source.label, score.entry.needs == "posterior"
                        if key not in architectures:
                            architectures[key] = _check_network(
                                study, trained, source, rows, process, in_float64=key[2]
                            )
                        architecture = architectures[key]
                        _check_process(trained, architecture, source, rows, process)
                        learned = _training(study, trained, schedule, process)
                        networks.append(_Network(trained, architecture, *learned))
            for time_grid in study.time_grids:
                for law in _laws_of(time_grid, targets):
                    with _named("time_grids", time_grid):
                        grids = [
                            build_times(time_grid.spec, process, n_steps, law)
                            for n_steps in sorted(study.n_steps)
                        ]
                        times, finest = grids[0], grids[-1]
                        _check_end(study, times)
                    for sampler in study.samplers:
                        with _named("samplers", sampler):
                            steps, many = (
                                build_steps(sampler.spec, process, grid) for grid in (times, finest)
                            )
                            used = many.score_time
                            for own in (steps, many):
                                _check_evaluations(evaluations, sampler, time_grid, own)
                                if any(filtered(item) for item in study.targets):
                                    require_gaussian_steps(own)
                            # networks are simulated in float32, other scores in float64
                            for score in study.scores:
                                if getattr(score.parameters, "sampled", True):
                                    kind = np.float32 if score.entry.is_network else np.float64
                                    steps.require_precision(float(np.finfo(kind).eps))
                            for network in networks:
                                with _named("scores", network.score):
                                    first = float(network.times(np.nanmin(steps.score_time)))
                                    network.architecture.require(network.process, first)
                                    _check_time_min(study, network, horizon, used)
            if networks and study.likelihood:
                nodes, cutoff = study.likelihood.nodes, study.likelihood.cutoff
                with _named("likelihood", schedule):  # of networks as `run.likelihood` calls it
                    time_quadrature(process, nodes, smallest_variance=0.0, cutoff=cutoff)


def read_study(config: str | Path, trust: bool = False) -> Study:
    """The study of a config, checked, without what the config would execute unless it is trusted.

    Snakemake executes the Python of a config that sets ``__use_yte__`` before any of our code
    runs, and `extensions` are Python by design. The former is never valid.

    Parameters
    ----------
    config : str or Path
        A file, or the name of a study that is shipped.
    trust : bool
        Whether its extensions and builders are imported.

    Raises
    ------
    ValueError
        If it is no valid config, or one that executes code.
    """
    content = read_config(config)
    if content.get("__use_yte__"):
        raise ValueError(
            f"__use_yte__ = {content['__use_yte__']!r}: executes code before it can be checked: "
            "must be left out"
        )
    executed = {
        "extensions": content.get("extensions"),
        "builder": next(_builders(content.get("scores")), None),
    }
    for key, value in executed.items():
        if value and not trust:
            raise ValueError(
                f"{key} = {value!r}: executes code; read it before you run it. Nothing else of "
                "this config was checked; with --trust it is, and what it names is executed"
            )
    study = Study.parse(content)
    check(study)
    return study


def _builders(scores: Any) -> Iterator[Any]:
    """What builds the networks of some scores, of a config that may not be valid."""
    for score in scores if isinstance(scores, list) else [scores]:
        if isinstance(score, dict):
            yield from (own for key, own in score.items() if key == "builder" and own)
            yield from _builders(score.get("recipe"))


def _runs(study: Study) -> None:
    """The grid must fit in memory."""
    axes = (
        study.targets, study.schedules, study.horizons, study.scores, study.samplers,
        study.time_grids, study.n_steps,
    )  # fmt: skip
    runs = study.seeds * math.prod(map(len, axes))
    if runs > RUNS:
        raise ValueError(
            f"seeds = {study.seeds}: the study has {runs:.3g} runs, all axes multiplied: must be "
            f"at most {RUNS:.0e}, for a grid that fits in memory"
        )


def _scored(study: Study) -> None:
    """A target without a score would vanish from the results without a word."""
    for target in study.targets:
        if not any(study.runs(target, score) for score in study.scores):
            raise ValueError(
                f"targets: {target.label!r} has no score: must be meant for one of "
                f"{', '.join(score.label for score in study.scores)}, and provide what it needs"
            )


def _kept(study: Study) -> None:
    """Filters give whole numbers of rows."""
    for score in study.scores:
        kept = getattr(score.parameters, "kept", 1) if score.entry.interacts else 1
        if study.n_samples % kept:
            raise ValueError(
                f"scores: kept = {kept} of {score.label!r}: must divide n_samples = "
                f"{study.n_samples}"
            )


def _drawn(study: Study) -> None:
    """Only kinds of figures that there are can be asked for."""
    figures(Composition(study))


def _process(study: Study) -> None:
    """What is made for another process than the study's, or has no meaning for pairs (x, v)."""
    family = study.process.family
    of_pairs = family == "kinetic"
    schemes = [row.name for row in families("sampler").values() if row.process == "kinetic"]
    for sampler in study.samplers:
        if (sampler.entry.process == "kinetic") != of_pairs:
            allowed = f"one of {', '.join(schemes)}" if of_pairs else "a scheme of vp and ve"
            raise ValueError(
                f"samplers: {sampler.label!r}: must be {allowed} for the process {family}"
            )
    for time_grid in study.time_grids if of_pairs else ():
        if asks(time_grid.spec, "process"):
            raise ValueError(
                f"time_grids: {time_grid.label!r}: must be uniform, quadratic or another that asks "
                f"for no noise levels, for the process {family}"
            )
    for score in study.scores:
        recipe = getattr(score.parameters, "recipe", None)
        for key, value in _OF_ONE if of_pairs else _OF_PAIRS:
            if getattr(recipe, key, None) == value:
                raise ValueError(
                    f"scores: {key} = {value!r} of {score.label!r}: must be another for the "
                    f"process {family}"
                )
        if of_pairs and hasattr(score.parameters, "network"):
            raise ValueError(
                f"scores: {score.label!r}: must be left out for the process {family}, which has no "
                "guided scores"
            )
        if of_pairs and getattr(score.parameters, "train_schedule", None) is not None:
            raise ValueError(
                f"scores: train_schedule of {score.label!r}: must be left out for the process "
                f"{family}"
            )
    for key in ("bounds", "likelihood", "pictures") if of_pairs else ():
        if getattr(study, key):
            raise ValueError(f"{key}: must be left out for the process {family}, which has none")


#: Choices of a recipe for the process kinetic alone, and those whose formulas are of vp and ve.
_OF_PAIRS = (("weight", "hybrid"),)
_OF_ONE = (("output", "relative"), ("time_input", "log_noise"), ("weight", "information"))

#: What settings that are valid alone must satisfy together, before anything is built.
CONDITIONS: tuple[Callable[[Study], None], ...] = (_runs, _scored, _kept, _drawn, _process)


class _Network(NamedTuple):
    """A trained score, the process it learns under, and the times there of those of a schedule."""

    score: Item
    architecture: Architecture
    process: Process
    times: Callable[[Any], Array]


def _training(
    study: Study, score: Item, schedule: Item, process: Process
) -> tuple[Process, Callable[[Any], Array]]:
    """The process under which a network learns what a schedule asks of it, and the times there."""
    label = getattr(score.parameters, "train_schedule", None)
    if label is None:
        return process, np.asarray
    (spec,) = (item.spec for item in study.schedules if item.label == label)
    learned = build_process(study.process.spec, spec, process.horizon)
    try:
        return learned, matching_times(process, learned)
    except ValueError as error:
        raise ValueError(
            f"train_schedule = {label!r} for schedule {schedule.label!r}: {error}"
        ) from error


def _laws_of(time_grid: Item, targets: list[tuple[Item, Target]]) -> list[Law | None]:
    """The laws for which a time grid is built: one is enough if it asks for none."""
    laws = [target.law for _, target in targets]
    return laws if asks(time_grid.spec, "law") else laws[:1]


def _check_end(study: Study, times: Array) -> None:
    """What stops before the data has bounds of another law than the one it is compared with."""
    if study.bounds and times[-1] > 0:
        raise ValueError(
            f"the grid ends at {times[-1]:.6g}: must end at 0 in a study with bounds "
            f"({', '.join(bound.label for bound in study.bounds)}), which are about the law at the "
            "last time"
        )


def _check_time_min(study: Study, network: _Network, horizon: float, used: Array) -> None:
    """A network must have been trained at the times at which it is asked, 0 apart."""
    recipe = getattr(network.score.parameters, "recipe", None)
    if recipe is None:
        return
    start = recipe.time_min * horizon
    if recipe.time_sampling == "start":
        _check_only_time(study, network, start, network.times(used[~np.isnan(used)]))
    smallest = network.times(used[used > 0].min(initial=horizon))
    asked = {"the sampler's smallest time": float(smallest)}
    if study.likelihood:
        asked["the likelihood's cutoff"] = float(network.times(study.likelihood.cutoff))
    for name, t in asked.items():
        if start > EXTRAPOLATION * t:
            raise ValueError(
                f"time_min = {start / horizon:g}: must be at most "
                f"{EXTRAPOLATION * t / horizon:.3g}, {EXTRAPOLATION} times {name} as a fraction "
                f"of T = {horizon:g}: no network is trained below it"
            )


def _check_only_time(study: Study, network: _Network, start: float, used: Array) -> None:
    """A network that learned one noise level knows no other."""
    wrong = used[(used > EXTRAPOLATION * start) | (EXTRAPOLATION * used < start)]
    if wrong.size:
        raise ValueError(
            f"time_sampling = 'start': the sampler asks for t = {wrong.max():.6g}: must ask only "
            f"for {start:.6g}, the time of the training, as the sampler langevin can"
        )
    if study.bounds or study.likelihood:
        raise ValueError(
            "time_sampling = 'start': must be in a study without bounds and likelihood, which "
            "evaluate the network at all times"
        )


def _check_evaluations(
    known: dict[tuple[str, str, int], int], sampler: Item, time_grid: Item, steps: Steps
) -> None:
    """The number of evaluations is a coordinate of the grid, which knows no schedule there."""
    first = known.setdefault((sampler.label, time_grid.label, steps.n_steps), steps.nfe)
    if steps.nfe != first:
        raise ValueError(
            f"{steps.n_steps} steps evaluate the score {steps.nfe} times, and under another "
            f"schedule or horizon {first} times: must be the same for all"
        )


def _check_supremum(schedule: NoiseSchedule) -> None:
    """An extension that decreases must say how large β gets: E₃ needs it."""
    rates = schedule.beta(np.linspace(0.0, schedule.horizon, 1001))
    if not rates.max() <= schedule.supremum * (1 + 1e-9):
        raise ValueError(
            f"supremum = {schedule.supremum!r}: must be at least {rates.max():.6g}, which beta "
            "reaches; a schedule that is not increasing must override `supremum`"
        )


def _trained(study: Study, score: Item, item: Item) -> tuple[Item, Item]:
    """The score whose networks a score has, and the target on which they are trained."""
    label = getattr(score.parameters, "network", None)
    if label is None:
        return score, item
    prior = study.prior_of(item)
    assert prior is not None
    return next(own for own in study.scores if own.label == label), prior


def _check_guided(score: Item, item: Item, target: Target) -> None:
    """What a guided score of networks asks of its target, as the one of the exact score does."""
    if score.entry.needs == "posterior" and hasattr(score.parameters, "network"):
        known = observation_of(target)
        if known is None:
            raise ValueError(
                f"target {item.label!r}: must not be rescaled, which loses the observation; its "
                "prior may be"
            )
        if score.family == "trained_replacement" and known.coordinates is None:
            raise ValueError(f"target {item.label!r}: observed: must be coordinates")


def _check_network(
    study: Study,
    score: Item,
    item: Item,
    target: Target,
    process: Process,
    *,
    in_float64: bool,
) -> Architecture:
    """The network of a recipe or a finished one, which must suit the target."""
    recipe = getattr(score.parameters, "recipe", None)
    keys = score.spec["parameters"] | {"architecture": score.family}
    path = keys.pop("path", None)
    if recipe is not None:
        keys = network_keys(recipe.model_dump())
    classes = 0
    try:
        if recipe is not None and recipe.label_dropout is not None:
            classes = class_count(target)
            if not classes:
                raise ValueError(
                    f"label_dropout = {recipe.label_dropout}: must be null for rows without "
                    "classes, or the score be meant for others by its `targets`"
                )
        architecture = build_architecture(keys, target.dimension, target.image_shape, classes)
        if isinstance(architecture, Built):  # torch is imported for these alone
            architecture.require(process, process.horizon)
            run = resolve("sgm.networks:require_module")
            run(architecture, process, path, in_float64=in_float64 or study.likelihood is not None)
        if recipe is not None:
            _check_weight(recipe, target)
    except ValueError as error:
        raise ValueError(f"target {item.label!r}: {error}") from error
    return architecture


def _check_learned(study: Study, score: Item, target: Target, process: Process) -> None:
    """A score that is fitted to rows, from as many as a seed has."""
    assert target.law is not None
    rows = target.law.sample(study.n_train, np.random.default_rng(0))
    generator = np.random.default_rng(0)
    built = build(score.spec, process=process, law=target.law, train=rows, generator=generator)
    require_instance((GaussianScore, DescentScore), returned=built)


def _check_process(
    score: Item, architecture: Architecture, item: Item, target: Target, process: Process
) -> None:
    """What a network says must be a score of the process, and the data of its size."""
    try:
        architecture.require(process, process.horizon)
        if hasattr(score.parameters, "recipe"):
            _check_scale(score.parameters.recipe, target, process)
    except ValueError as error:
        raise ValueError(f"target {item.label!r}: {error}") from error


def _check_weight(recipe: Recipe, target: Target) -> None:
    """The weight `information` asks for the law's Fisher information."""
    law = target.law if recipe.weight == "information" else None
    if law is not None and not np.isfinite(law.excess_information(1.0)):
        raise ValueError(
            "weight = 'information': must be another, such as 'beta': the Fisher information "
            "of the noised law is not known"
        )


def _check_scale(recipe: Recipe, target: Target, process: Process) -> None:
    """Refuse data that neither the prior nor the recipe is meant for.

    Images on disk lie in [−1, 1); nothing of them is read here.
    """
    if isinstance(target, EmpiricalTarget):
        size = float(np.sqrt(np.mean(target.rows**2)))
        prior = float(np.sqrt(process.prior(1).eigenvalues[0]))
        low, high = sorted((prior, recipe.data_std))
        if not low / SCALES <= size <= SCALES * high:
            raise ValueError(
                f"its rows have root mean square {size:.3g}: must lie between {low / SCALES:.3g} "
                f"and {SCALES * high:.3g}, for a prior of standard deviation {prior:.3g} and "
                f"data_std = {recipe.data_std:.3g}; say standardise: true, or the `levels` of "
                "grey values, or the recipe's data_std"
            )


def _check_target(study: Study, item: Item) -> Target:
    """The target, of a dimension that the study's samples can resolve."""
    with _named("targets", item):
        path = str(getattr(item.parameters, "path", ""))
        if set(path) & set("{}"):
            raise ValueError(
                f"path = {path!r}: must have no braces, which Snakemake reads as wildcards"
            )
        target = build_target(item.spec)
        _check_law(item, target)
        if target.law is not None and study.pictures:
            shown = [c for c in study.pictures.coordinates if c < target.dimension]
            target.law.marginal(shown or [0])
    d = target.dimension
    rows = max(study.n_samples, study.n_train)
    size = 8 * min(study.seeds, study.seeds_per_job) * rows * d
    if size > LARGEST:
        raise ValueError(
            f"n_samples = {study.n_samples}, n_train = {study.n_train}: a job would hold "
            f"{size / 2**30:.3g} GiB of target {item.label!r} (d = {d}): must be at most "
            f"{LARGEST / 2**30:g}; smaller seeds_per_job need less"
        )
    rows = study.n_reference or 0
    if item.entry.law == "density" and rows and not 2 * (d + 3) <= rows <= LARGEST / (8 * d):
        raise ValueError(
            f"n_reference = {rows}: must be at least 2 (d + 3) = {2 * (d + 3)} for the covariance "
            f"of target {item.label!r} (d = {d}), and at most {LARGEST // (8 * d)}, which is "
            f"{LARGEST / 2**30:g} GiB"
        )
    moments = any(divergence.family in BY_MOMENTS for divergence in study.divergences)
    if moments and study.n_samples < d + 3:
        raise ValueError(
            f"n_samples = {study.n_samples}: must be at least d + 3 = {d + 3} "
            f"for the covariance of target {item.label!r} (d = {d})"
        )
    for divergence in study.divergences:
        plugin_rows = getattr(divergence.parameters, "plugin_rows", d + 3)
        if isinstance(target.law, Gaussian) and plugin_rows < d + 3:
            raise ValueError(
                f"divergences: plugin_rows = {plugin_rows} of {divergence.label!r}: must be at "
                f"least d + 3 = {d + 3} for target {item.label!r} (d = {d})"
            )
    if study.pictures and not target.image_shape and min(study.pictures.coordinates) >= d:
        raise ValueError(
            f"pictures: coordinates = {list(study.pictures.coordinates)}: one must be below "
            f"{d}, the dimension of target {item.label!r}"
        )
    if isinstance(target, DataTarget):
        train, _ = target.partition(np.random.default_rng(0))
        rows = min(len(train), study.n_train, study.n_samples)
        for divergence in study.divergences:
            components = getattr(divergence.parameters, "components", 0)
            if components > rows // 4:
                raise ValueError(
                    f"divergences: components = {components} of {divergence.label!r}: must be at "
                    f"most {rows // 4}, a quarter of the rows that target {item.label!r} gives"
                )
    return target


def _check_coordinates(study: Study, targets: list[tuple[Item, Target]]) -> None:
    """Coordinates must be there: of a histogram in each target, of pictures in one of them."""
    for divergence in study.divergences:
        coordinate = getattr(divergence.parameters, "coordinate", None)
        if coordinate is None:
            continue
        for item, target in targets:
            if coordinate >= target.dimension:
                raise ValueError(
                    f"divergences: coordinate = {coordinate} of {divergence.label!r}: must be "
                    f"below {target.dimension}, the dimension of target {item.label!r}"
                )
            if target.law is not None:
                with _named("divergences", divergence):
                    target.law.marginal([coordinate])
    drawn = [target.dimension for _, target in targets if not target.image_shape]
    if study.pictures and drawn and max(study.pictures.coordinates) >= max(drawn):
        raise ValueError(
            f"pictures: coordinates = {list(study.pictures.coordinates)}: must be below "
            f"{max(drawn)}, the largest dimension of a target that is no image"
        )


def _check_law(item: Item, target: Target) -> None:
    """What is known of the law must be what the row of the family says."""
    found = "unknown" if target.law is None else "density"
    if isinstance(target.law, Gaussian):
        found = "gaussian"
    if found != item.entry.law:
        raise ValueError(
            f"{item.entry.build} returned a target with law={found!r}, but is registered with "
            f"law={item.entry.law!r}: must be the same"
        )


@contextmanager
def _named(key: str, item: Item) -> Iterator[None]:
    """Prefix an error with the key and the label it belongs to."""
    try:
        yield
    except (ValueError, OverflowError, MemoryError) as error:  # the last two: of huge numbers
        raise ValueError(f"{key}: {item.label}: {error}") from error
    except Exception as error:
        where = line_of(error)
        if not where:  # not a user's fault
            raise
        sentence = f"{where}: {type(error).__name__}: {error}"
        raise ValueError(f"{key}: {item.label}: {sentence}") from error
