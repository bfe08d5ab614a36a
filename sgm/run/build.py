"""From a spec to objects: addresses are imported, keyword arguments passed on.

What a user's file returns is held against what its kind promises (docs/extend.md); what it
raises becomes one line that names the family and the file.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array, require_instance, shown
from sgm.axes import OWN_AXES
from sgm.bounds.objection import Objection
from sgm.densities import Law
from sgm.processes import Process
from sgm.registry import line_of, load_extension
from sgm.samplers import Steps
from sgm.schedules import NoiseSchedule, TruncatedSchedule
from sgm.targets import LawTarget, Target

__all__ = [
    "MeasureError",
    "asks",
    "build",
    "build_objection",
    "build_process",
    "build_steps",
    "build_target",
    "build_times",
    "known_law",
    "measured",
    "resolve",
]


class MeasureError(ValueError):
    """A divergence or a bound that raised, or did not return what it promised."""


def resolve(address: str) -> Any:
    """The object at ``"module:name"`` or ``"file.py:name"``."""
    place, name = address.rsplit(":", 1)
    if place.endswith(".py"):
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
    parameters = dict(spec["parameters"])
    for name, value in parameters.items():
        if isinstance(value, Mapping) and "build" in value:  # such as the prior of a posterior
            try:
                parameters[name] = build_target(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from error
    with _named(spec):
        return builder(**given, **parameters)


def asks(spec: Mapping[str, Any], name: str) -> bool:
    """Whether a builder names something of the context among its arguments."""
    return name in inspect.signature(resolve(spec["build"])).parameters


@contextmanager
def _named(spec: Mapping[str, Any]) -> Iterator[None]:
    """Name the family and the file of a user's code that fails, or breaks a promise."""
    place, name = spec["build"].rsplit(":", 1)
    try:
        yield
    except (MemoryError, OSError):
        raise
    except Exception as error:
        if not place.endswith(".py"):
            raise
        raise ValueError(f"{name} of {place}: {_sentence(error)}") from error


def _sentence(error: Exception) -> str:
    """What went wrong, in one line; a `ValueError` is a sentence of its own."""
    text = " ".join(str(error).split())
    if type(error) is ValueError:
        return text
    where = line_of(error)
    return f"{type(error).__name__}: {text}" + (f" ({where})" if where else "")


def build_target(spec: Mapping[str, Any]) -> Target:
    """The target of a spec, in the coordinates that it asks for."""
    target: Target = build(spec)
    with _named(spec):
        require_instance(Target, returned=target)
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
    if schedule["build"].partition(":")[0].endswith(".py"):
        with _named(schedule):
            _require_rate(rate, full_horizon)
    if full_horizon != horizon:
        rate = TruncatedSchedule(horizon, rate)
    built: Process = build(process, schedule=rate)
    return built


def _require_rate(rate: NoiseSchedule, horizon: float) -> None:
    """Refuse a schedule whose β or B is none; the built-in ones are tested to be."""
    require_instance(NoiseSchedule, returned=rate)
    if rate.horizon != horizon:
        raise ValueError(f"returned a schedule up to {shown(rate.horizon)}: must be {horizon}")
    times = np.linspace(0.0, horizon, 101)
    values = {"beta": rate.beta(times), "integral": rate.integral(times)}
    for key, value in values.items():
        values[key] = value = real_array(key, value)
        if value.shape != times.shape:
            raise ValueError(
                f"{key}(t) has shape {value.shape} at t of shape {times.shape}: must be the same"
            )
        if not np.all(value >= 0):
            place = int(np.argmin(value >= 0))
            raise ValueError(f"{key}({times[place]:.6g}) = {value[place]:.6g}: must be >= 0")
    integral = values["integral"]
    if not (integral[0] <= 1e-9 * integral[-1] and np.all(np.diff(integral) >= 0)):
        raise ValueError(
            f"integral(0) = {integral[0]:.6g}, integral({horizon:.6g}) = {integral[-1]:.6g}: "
            "must increase from 0"
        )


def build_times(
    spec: Mapping[str, Any], process: Process, n_steps: int, law: Law | None
) -> npt.NDArray[np.float64]:
    """Decreasing times of the solver, shape (n_steps + 1,).

    `law` is that of the data, None where it is unknown. With `early_stop` they end there.
    """
    horizon, stop = process.horizon, float(spec.get("early_stop", 0.0))
    if stop and not asks(spec, "stop"):
        raise ValueError(
            f"early_stop = {stop!r}: must be left out for {spec['build']}, which does not ask for "
            "`stop`"
        )
    if not stop < horizon:
        raise ValueError(f"early_stop = {stop!r}: must be below T = {horizon!r}")
    returned = build(spec, process=process, horizon=horizon, n_steps=n_steps, law=law, stop=stop)
    with _named(spec):
        times = real_array("returned", returned)
        if times.shape != (n_steps + 1,):
            raise ValueError(f"returned shape {times.shape}: must be ({n_steps} + 1,)")
        if not (np.all(np.diff(times) < 0) and times[-1] >= 0):
            raise ValueError(
                f"returned times from {times[0]:.6g} to {times[-1]:.6g}: must decrease strictly "
                "and stay >= 0"
            )
        if not abs(times[0] - horizon) <= 1e-12 * horizon:
            raise ValueError(f"returned times from {times[0]!r} on: must start at T = {horizon}")
        if stop and times[-1] != stop:
            raise ValueError(f"returned times down to {times[-1]!r}: must end at stop = {stop!r}")
    return times


def build_steps(spec: Mapping[str, Any], process: Process, times: npt.NDArray[np.float64]) -> Steps:
    """Coefficients of a sampler on a time grid."""
    steps: Steps = build(spec, process=process, times=times)
    with _named(spec):
        require_instance(Steps, returned=steps)
        if steps.n_steps != len(times) - 1:
            raise ValueError(
                f"returned {steps.n_steps} steps: must be the {len(times) - 1} of the time grid; "
                "`starts` says where each begins"
            )
        latest = float(np.nanmax(steps.score_time))
        if not latest <= process.horizon * (1 + 1e-12):
            raise ValueError(f"score_time = {latest!r}: must be at most T = {process.horizon}")
    return steps


def build_objection(spec: Mapping[str, Any], **context: Any) -> Objection:
    """Why a bound is no theorem for a target and a sampler, if so."""
    objection = build(spec, **context)
    with _named(spec):
        require_instance(Objection, returned=objection)
    return objection  # type: ignore[no-any-return]


def known_law(spec: Mapping[str, Any]) -> Law:
    """Law of the spec's target, which planning has checked to be known."""
    law = build_target(spec["target"]).law
    assert law is not None
    return law


def measured(
    measures: Sequence[Mapping[str, Any]],
    context: Mapping[str, Any],
    replicates: tuple[int, ...] = (),
) -> dict[str, Any]:
    """All variables of some divergences or bounds, of shape `replicates` or ().

    Raises
    ------
    MeasureError
        If one of them raises, or returns other names or shapes than its row promises. Too
        little memory is no fault of a measure.
    """
    values: dict[str, Any] = {}
    for measure in measures:
        try:
            found = build(measure, **context)
            with _named(measure):
                _require_promised(found, measure["variables"], replicates)
        except (MemoryError, OSError):
            raise
        except Exception as error:
            place, name = measure["build"].rsplit(":", 1)
            own = place.endswith(".py")  # named already
            raise MeasureError(str(error) if own else f"{name}: {_sentence(error)}") from error
        values |= found
    return values


def _require_promised(
    found: Any, promised: Mapping[str, Sequence[str]], replicates: tuple[int, ...]
) -> None:
    """Refuse other names than the declared ones, and arrays where numbers are due."""
    if not isinstance(found, Mapping):
        raise ValueError(f"returned {shown(found)}: must be a dict of its variables")
    if found.keys() != promised.keys():
        raise ValueError(
            f"returned {', '.join(map(str, found)) or 'nothing'}: must be the variables that it "
            f"declares, NaN where one is not known: {', '.join(promised)}"
        )
    for name, value in found.items():
        shape = real_array(name, value).shape
        allowed = {(), replicates} if "seed" in promised[name] else {()}
        own = [axis for axis in promised[name] if axis in OWN_AXES]
        if own:
            allowed = {shape[:1]} - {()}
        if shape not in allowed:
            raise ValueError(
                f"{name} has shape {shape}: must be "
                + (f"one number a {own[0]}" if own else "a number")
                + (f", or of shape {replicates}" if len(allowed) > 1 else "")
            )
