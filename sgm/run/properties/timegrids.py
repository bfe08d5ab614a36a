"""Properties of a time grid, T = τ₀ > τ₁ > … > τ_N ≥ 0."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array
from sgm.gaussian import Gaussian
from sgm.processes import VPProcess
from sgm.run.build import build
from sgm.run.properties.findings import InapplicableError, Property, PropertyError, require_where
from sgm.schedules import BetaSchedule
from sgm.study import Item

__all__ = ["PROPERTIES", "Grid", "subjects"]

HORIZONS = (1.0, 0.3, 10.0)
COUNTS = (500, 20, 2, 1)
#: More steps than these a family may refuse.
MANY = 20


class Grid(NamedTuple):
    """What a family returned for T and N."""

    times: npt.NDArray[np.float64]
    horizon: float
    n_steps: int


def subjects(item: Item) -> Mapping[str, Callable[[], Grid]]:
    """The grid of few and many steps up to several horizons."""

    def at(horizon: float, n_steps: int) -> Grid:
        process = VPProcess(BetaSchedule(horizon, 1.5, 0.1, 10.0), 1.0)
        law, stop = Gaussian.diagonal([1.0, -0.5], [0.1, 2.0]), item.spec.get("early_stop", 0.0)
        context = {"process": process, "horizon": horizon, "law": law, "stop": stop}
        try:
            returned = build(item.spec, n_steps=n_steps, **context)
        except ValueError as error:
            if n_steps > MANY:
                raise InapplicableError(str(error)) from error
            raise
        return Grid(real_array("returned", returned), horizon, n_steps)

    return {
        f"T = {horizon:g}, N = {n}": lambda h=horizon, n=n: at(h, n)  # type: ignore[misc]
        for horizon in HORIZONS
        for n in COUNTS
    }


def has_n_steps(grid: Grid) -> str:
    """There are N + 1 times."""
    if grid.times.shape != (grid.n_steps + 1,):
        raise PropertyError(f"returned shape {grid.times.shape}: must be ({grid.n_steps} + 1,)")
    return f"{len(grid.times)}"


def starts_at_the_horizon(grid: Grid) -> str:
    """The first time is T."""
    if not abs(grid.times[0] - grid.horizon) <= 1e-12 * grid.horizon:
        raise PropertyError(f"τ₀ = {float(grid.times[0])!r}: must be T = {grid.horizon!r}")
    return f"τ₀ = {grid.times[0]:.12g}"


def decreases(grid: Grid) -> str:
    """Times are finite, at least 0, and decrease strictly."""
    times = grid.times
    require_where(np.isfinite(times) & (times >= 0), lambda k: f"τ_{k} = {times[k]:.6g}")
    require_where(
        np.diff(times) < 0,
        lambda k: f"τ_{k} = {times[k]:.9g}, but τ_{k + 1} = {times[k + 1]:.9g}",
    )
    step = -np.diff(times)
    end = "0" if times[-1] == 0 else f"{times[-1]:.6g}: bounds are about the law there"
    return f"steps from {step.min():.3g} to {step.max():.3g}, ends at {end}"


PROPERTIES: tuple[Property, ...] = (has_n_steps, starts_at_the_horizon, decreases)
