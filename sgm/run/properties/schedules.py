"""Properties of a noise schedule: β, its integral B, the inverse of B, and sup β."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_instance
from sgm.run.build import build
from sgm.run.properties.findings import Property, PropertyError, require_where
from sgm.schedules import NoiseSchedule
from sgm.study import Item

__all__ = ["PROPERTIES", "subjects"]

Array = npt.NDArray[np.float64]

#: T and σ² of the processes that a schedule is to drive.
SETTINGS = ((1.0, 1.0), (0.3, 2.5), (10.0, 0.5))
#: Relative errors that B may have as the integral of β, and sup β as what is searched on a grid;
#: and B as what its inverse undoes.
TOLERANCE, INVERSE_TOLERANCE = 1e-6, 1e-9


def subjects(item: Item) -> Mapping[str, Callable[[], NoiseSchedule]]:
    """The schedule up to several horizons, as it stands before `full_horizon` cuts it."""

    def at(horizon: float, variance: float) -> NoiseSchedule:
        built: Any = build(item.spec, horizon=horizon, variance=variance)
        require_instance(NoiseSchedule, returned=built)
        if built.horizon != horizon:
            raise ValueError(f"returned a schedule up to {built.horizon}: must be {horizon}")
        schedule: NoiseSchedule = built
        return schedule

    return {
        f"T = {horizon:g}, σ² = {variance:g}": lambda h=horizon, v=variance: at(h, v)  # type: ignore[misc]
        for horizon, variance in SETTINGS
    }


def _fractions() -> Array:
    """Fractions of T, dense next to both ends."""
    near = np.geomspace(1e-9, 1e-2, 40)
    return np.concatenate([[0.0], near, np.linspace(0.01, 0.99, 981), 1 - near[::-1], [1.0]])


def _values(key: str, value: npt.ArrayLike, shape: tuple[int, ...]) -> Array:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != shape:
        raise PropertyError(f"{key}(t) has shape {array.shape} at t of shape {shape}")
    return array


def rate_is_positive(schedule: NoiseSchedule) -> str:
    """β is finite and at least 0, positive inside (0, T), and has the shape of t."""
    t = schedule.horizon * _fractions()
    beta = _values("beta", schedule.beta(t), t.shape)
    inside = (t > 0) & (t < schedule.horizon)
    require_where(
        np.isfinite(beta) & np.where(inside, beta > 0, beta >= 0),
        lambda k: f"β({t[k]:.6g}) = {beta[k]:.6g}",
    )
    for shape in ((), (2, 3)):
        _values("beta", schedule.beta(np.full(shape, t[7])), shape)
        _values("integral", schedule.integral(np.full(shape, t[7])), shape)
    return f"from {beta.min():.6g} to {beta.max():.6g}"


def integral_increases_from_zero(schedule: NoiseSchedule) -> str:
    """B is finite, starts at 0 and increases."""
    t = schedule.horizon * _fractions()
    integral = _values("integral", schedule.integral(t), t.shape)
    require_where(np.isfinite(integral), lambda k: f"B({t[k]:.6g}) = {integral[k]}")
    if not abs(integral[0]) <= 1e-12 * abs(integral[-1]):
        raise PropertyError(f"B(0) = {integral[0]:.6g}")
    if not integral[-1] > 0:
        raise PropertyError(f"B(T) = {integral[-1]:.6g}: must be > 0")
    rounding = 8 * np.finfo(np.float64).eps * np.abs(integral[:-1])
    require_where(
        np.diff(integral) >= -rounding,
        lambda k: (
            f"B({t[k]:.9g}) = {integral[k]:.9g}, but B({t[k + 1]:.9g}) = {integral[k + 1]:.9g}"
        ),
    )
    return f"B(T) = {integral[-1]:.6g}"


def integral_is_that_of_the_rate(schedule: NoiseSchedule) -> str:
    """B(t) − B(s) is the integral of β from s to t, by quadrature."""
    t = schedule.horizon * np.concatenate(
        [[0.0], np.geomspace(1e-4, 0.03, 4), np.arange(1, 33) / 32]
    )
    increment = np.diff(schedule.integral(t))
    values = np.stack([_quadrature(schedule, t, parts) for parts in (60, 100, 160)])
    value, doubt = values[-1], np.ptp(values, axis=0)  # of a jump of β within a part
    gap = np.abs(increment - value)
    allowed = TOLERANCE * np.abs(value) + 3 * doubt + 1e-13 * np.abs(increment).sum()
    require_where(
        gap <= allowed,
        lambda k: (
            f"B({t[k + 1]:.6g}) − B({t[k]:.6g}) = {increment[k]:.9g}, but "
            f"∫β = {value[k]:.9g} there (tolerance {allowed[k]:.1e})"
        ),
    )
    worst = float(np.max(gap / np.abs(value)))
    own = float(np.max(doubt / np.abs(value)))
    return f"off by {worst:.1e} at most (tolerance {TOLERANCE:g}), quadrature by {own:.1e}"


def _quadrature(schedule: NoiseSchedule, t: Array, parts: int) -> Array:
    """∫β between neighbouring times, by Gauss-Legendre in so many equal parts of each interval."""
    nodes, weights = np.polynomial.legendre.leggauss(8)
    inside = ((np.arange(parts)[:, None] + (nodes + 1) / 2) / parts).ravel()
    width = np.diff(t)
    beta = schedule.beta(t[:-1, None] + width[:, None] * inside)
    return np.asarray(width * (beta @ np.tile(weights, parts)) / (2 * parts))


def rate_is_the_slope_of_the_integral(schedule: NoiseSchedule) -> str:
    """B′ = β: the slope of B over a short window lies between the extremes of β there."""
    horizon = schedule.horizon
    half = 1e-4 * horizon
    middle = horizon * np.linspace(0.0013, 0.9987, 257)
    window = middle[:, None] + half * np.linspace(-1, 1, 33)
    ends = schedule.integral(window[:, [0, -1]])
    slope = (ends[:, 1] - ends[:, 0]) / (2 * half)
    beta = schedule.beta(window)
    slack = TOLERANCE * np.abs(beta).max(axis=1) + 1e-15 * np.abs(ends).max(axis=1) / half
    low, high = beta.min(axis=1) - slack, beta.max(axis=1) + slack
    require_where(
        (slope >= low) & (slope <= high),
        lambda k: (
            f"B′({middle[k]:.6g}) = {slope[k]:.9g}, but β lies between {low[k]:.9g} and "
            f"{high[k]:.9g} within {half:.1e} of it"
        ),
    )
    return f"at {len(middle)} times, within ± {half:.1e}"


def inverse_undoes_the_integral(schedule: NoiseSchedule) -> str:
    """inverse_integral finds the time t from B(t)."""
    t = schedule.horizon * np.concatenate([[0.0, 1e-6, 1e-3], np.linspace(0.01, 1.0, 100)])
    levels = schedule.integral(t)
    found = np.asarray(schedule.inverse_integral(levels))
    again = schedule.integral(found)
    gap = np.abs(again - levels)
    require_where(
        gap <= INVERSE_TOLERANCE * levels + 1e-14 * levels[-1],
        lambda k: (
            f"inverse_integral(B({t[k]:.9g})) = {found[k]:.9g}, where B = {again[k]:.9g}, "
            f"not {levels[k]:.9g}"
        ),
    )
    return f"B of it is off by {gap.max() / levels[-1]:.1e} of B(T) at most"


def times_outside_are_refused(schedule: NoiseSchedule) -> str:
    """Times outside [0, T] are a ValueError, in β and in B."""
    for name in ("beta", "integral"):
        for t in (-1e-3 * schedule.horizon, 1.001 * schedule.horizon, np.nan):
            try:
                value = float(getattr(schedule, name)(t))
            except ValueError:
                continue
            raise PropertyError(
                f"{name}({t:.6g}) = {value:.6g}: must be refused; `self.times(t)` does it"
            )
    return "t < 0, t > T and NaN"


def supremum_bounds_the_rate(schedule: NoiseSchedule) -> str:
    """`supremum` is finite, and at least every β(t)."""
    t = schedule.horizon * np.sort(np.concatenate([_fractions(), np.linspace(0, 1, 10_001)]))
    beta, supremum = schedule.beta(t), schedule.supremum
    require_where(
        beta <= supremum * (1 + TOLERANCE),
        lambda k: (
            f"supremum = {supremum:.9g}, but β({t[k]:.9g}) = {beta[k]:.9g}; a schedule that "
            "is not increasing must override `supremum`"
        ),
    )
    if not np.isfinite(supremum):
        raise PropertyError(f"supremum = {supremum}")
    return (
        f"sup β = {supremum:.6g}, {supremum / beta.max():.6g} times the largest β found "
        f"(tolerance {TOLERANCE:g})"
    )


PROPERTIES: tuple[Property, ...] = (
    rate_is_positive,
    integral_increases_from_zero,
    integral_is_that_of_the_rate,
    rate_is_the_slope_of_the_integral,
    inverse_undoes_the_integral,
    times_outside_are_refused,
    supremum_bounds_the_rate,
)
