"""From a spec to objects: addresses are imported, keyword arguments passed on."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.densities import Law
from sgm.processes import Process
from sgm.samplers import Steps
from sgm.schedules import NoiseSchedule, TruncatedSchedule
from sgm.targets import LawTarget, Target

__all__ = [
    "build",
    "build_process",
    "build_steps",
    "build_target",
    "build_times",
    "known_law",
    "measured",
    "resolve",
]


def resolve(address: str) -> Any:
    """The object at ``"module:name"`` or ``"file.py:name"``."""
    place, name = address.rsplit(":", 1)
    if place.endswith(".py"):
        from sgm.study.registry import load_extension  # slow to import, and rarely needed

        return getattr(load_extension(place), name)
    return getattr(importlib.import_module(place), name)


def build(spec: Mapping[str, Any], **context: Any) -> Any:
    """Call a builder with the config's parameters and what it asks of the context.

    Parameters
    ----------
    spec : mapping
        ``build``, an address, and ``parameters``, the config's keyword arguments.
    **context
        Objects that the builder may name among its arguments, such as ``horizon``.
    """
    builder = resolve(spec["build"])
    asked = inspect.signature(builder).parameters
    given = {name: value for name, value in context.items() if name in asked}
    return builder(**given, **spec["parameters"])


def build_target(spec: Mapping[str, Any]) -> Target:
    """The target of a spec, in the coordinates that it asks for."""
    target: Target = build(spec)
    if "rescale" in spec:
        if not isinstance(target, LawTarget):
            raise ValueError("rescale: must be null for a target whose law is unknown")
        target = target.rescaled(**spec["rescale"])
    return target


def build_process(
    process: Mapping[str, Any], schedule: Mapping[str, Any], horizon: float
) -> Process:
    """The forward process that a schedule drives up to a horizon.

    A schedule with a `full_horizon` is built for that one, and stopped at `horizon`.
    """
    full_horizon = schedule.get("full_horizon", horizon)
    variance = process["parameters"].get("variance", np.inf)
    rate: NoiseSchedule = build(schedule, horizon=full_horizon, variance=variance)
    if full_horizon != horizon:
        rate = TruncatedSchedule(horizon, rate)
    built: Process = build(process, schedule=rate)
    return built


def build_times(spec: Mapping[str, Any], horizon: float, n_steps: int) -> npt.NDArray[np.float64]:
    """Decreasing times of the solver, shape (n_steps + 1,)."""
    return np.asarray(build(spec, horizon=horizon, n_steps=n_steps), dtype=np.float64)


def build_steps(spec: Mapping[str, Any], process: Process, times: npt.NDArray[np.float64]) -> Steps:
    """Coefficients of a sampler on a time grid."""
    steps: Steps = build(spec, process=process, times=times)
    return steps


def known_law(spec: Mapping[str, Any]) -> Law:
    """Law of the spec's target, which planning has checked to be known."""
    law = build_target(spec["target"]).law
    assert law is not None
    return law


def measured(measures: Sequence[Mapping[str, Any]], context: Mapping[str, Any]) -> dict[str, Any]:
    """All variables of some divergences or bounds."""
    values: dict[str, Any] = {}
    for measure in measures:
        values |= build(measure, **context)
    return values
