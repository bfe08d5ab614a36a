"""A study's numbers on axes: the user's, or new ones. `sgm.draw` makes whole figures.

import sgm

grid = sgm.load_published("exact-kl")
cells = {"target": "correlated", "score": "exact", "sampler": "exponential_integrator_modified"}
sgm.plot.divergence(grid, "kl", **cells)

Each function takes a grid and returns `matplotlib.axes.Axes` with curves, title and legend, as a
figure of the study has them in one of its panels. Cells are chosen by labels or numbers of any
coordinate along an axis of the grid, one or a list, as `n_steps=500`, `a=[0, 3]` or
`family="beta_a"`: what varies then stands on x, and all else must have one value.
"""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from sgm.axes import REPLICATE
from sgm.plots.cells import LABELS
from sgm.plots.decomposition import decomposition_page
from sgm.plots.divergence import divergence_page
from sgm.plots.engine import Page, draw_track, house_style
from sgm.plots.schedules import VARIABLES, schedules_page
from sgm.plots.theory import theory_page
from sgm.reading import bound_named, bounds_on, divergence_named, divergences_of

__all__ = ["bound", "decomposition", "divergence", "schedules", "theory"]


def divergence(
    data: xr.Dataset, name: str, *, x: str | None = None, ax: Axes | None = None, **cells: Any
) -> Axes:
    """A divergence of samples from the target: its estimate, floor and exact values.

    Parameters
    ----------
    data : Dataset
        A grid, as `sgm.open_grid` and `sgm.load_published` return it.
    name : str
        The divergence, as its figure or its variable is called: ``kl``, ``w2``.
    x : str, optional
        What stands on x: a number that varies (`sgm.reading.numeric_axes`).
    ax : Axes, optional
        By default those of a new figure of pyplot.
    **cells
        Labels or numbers of the cells; `target` may be left out where there is one.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the grid has no such divergence, cells or x, or the cells are those of several panels.
    """
    data, target = _chosen(data, cells)
    measure = divergence_named(data, name)
    return _drawn(*divergence_page(data, target, measure.name, x), measure.figure, ax)


def bound(
    data: xr.Dataset, name: str, *, x: str | None = None, ax: Axes | None = None, **cells: Any
) -> Axes:
    """A bound, grey where its theorem does not apply.

    Parameters
    ----------
    data : Dataset
    name : str
        The variable of a bound, such as ``kl_bound``.
    x, ax, **cells
        As `divergence` takes them.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        As `divergence` does; or if no divergence of the grid is bounded by it.
    """
    data, target = _chosen(data, cells)
    own = bound_named(data, name)
    bounded = [measure for measure in divergences_of(data) if own in bounds_on(data, measure)]
    if not bounded:
        raise ValueError(f"bound = {name!r}: the grid has no divergence that it bounds")
    return _drawn(*divergence_page(data, target, bounded[0].name, x), own.name, ax)


def theory(
    data: xr.Dataset, name: str, *, x: str | None = None, ax: Axes | None = None, **cells: Any
) -> Axes:
    """A divergence and all theorems that bound it, on one logarithmic axis.

    Parameters
    ----------
    data, name, x, ax, **cells
        As `divergence` takes them.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        As `divergence` does; or if the grid has no bound of it.
    """
    data, target = _chosen(data, cells)
    measure = divergence_named(data, name)
    return _drawn(*theory_page(data, target, x), measure.figure, ax)


def decomposition(
    data: xr.Dataset,
    name: str,
    *,
    stacked: bool = False,
    x: str | None = None,
    ax: Axes | None = None,
    **cells: Any,
) -> Axes:
    """A bound taken apart into its terms, beside the error of the same cells.

    Parameters
    ----------
    data : Dataset
    name : str
        The variable of a bound, such as ``kl_bound``.
    stacked : bool
        The terms alone, as a stack of bars on a linear axis, in place of lines on a logarithmic
        one.
    x, ax, **cells
        As `divergence` takes them.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        As `divergence` does.
    """
    data, target = _chosen(data, cells)
    axis = "stack" if stacked else "lines"
    return _drawn(*decomposition_page(data, target, name, x), axis, ax)


def schedules(
    data: xr.Dataset, name: str = "beta", *, ax: Axes | None = None, **cells: Any
) -> Axes:
    """A curve of every schedule against time.

    Parameters
    ----------
    data : Dataset
    name : {"beta", "mean_scale", "std"}
        The rate β(t), the scale m_t of the mean, or the standard deviation σ_t of the noise.
    ax, **cells
        As `divergence` takes them.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        As `divergence` does.
    """
    known = [variable.removeprefix("schedule_") for variable in VARIABLES]
    if name not in known:
        raise ValueError(f"name = {name!r}: must be one of {', '.join(known)}")
    data = _selected(data, cells)
    return _drawn(*schedules_page(data), f"schedule_{name}", ax)


def _chosen(data: xr.Dataset, cells: dict[str, Any]) -> tuple[xr.Dataset, str]:
    """The cells of a grid, and their target."""
    data = _selected(data, cells)
    targets = [str(label) for label in data["target"].values]
    if len(targets) != 1:
        raise ValueError(
            f"target: must be one of {', '.join(targets)}, as in target={targets[0]!r}"
        )
    return data, targets[0]


def _selected(data: xr.Dataset, cells: dict[str, Any]) -> xr.Dataset:
    """The cells of a grid by labels or numbers of its coordinates; all axes stay."""
    if lost := [axis for axis in REPLICATE if axis not in data.dims]:
        raise ValueError(
            f"data: no longer has the axis {lost[0]!r}: must be chosen by a list, as in "
            f"data.sel({lost[0]}=[…]), or in the call, as in {lost[0]}=…"
        )
    for name, value in cells.items():
        if name not in data.coords or data[name].ndim != 1:
            known = ", ".join(str(own) for own, coord in data.coords.items() if coord.ndim == 1)
            raise ValueError(f"{name}: must be a coordinate along an axis of the grid, {known}")
        wanted = list(value) if isinstance(value, list | tuple | range) else [value]
        labels = data[name].to_series()
        for label in wanted:
            if not labels.isin([label]).any():
                there = ", ".join(str(own) for own in labels.dropna().unique())
                raise ValueError(f"{name} = {label!r}: the cells have {there}")
        data = data.isel({data[name].dims[0]: labels.isin(wanted).to_numpy()})
    return data


def _drawn(frame: pd.DataFrame, page: Page, axis: str, ax: Axes | None) -> Axes:
    """The track of an axis, of a page that must have one panel."""
    if not page.bands:
        raise ValueError(f"{page.title}: {page.why}")
    if frame["panel"].nunique() > 1:
        firsts = frame.groupby("panel")[[name for name in LABELS if name in frame]].first()
        several = {name: own.unique() for name, own in firsts.items() if own.nunique() > 1}
        name, labels = next(iter(several.items()))
        known = ", ".join(map(str, labels))
        raise ValueError(f"{name}: must be one of {known}: in one panel only x may vary")
    if axis not in {track.axis for band in page.bands for track in band.tracks}:
        raise ValueError(f"{axis}: the cells have no value of it")
    if ax is None:
        with house_style():
            _, ax = plt.subplots(figsize=(6.2, 3.6), layout="constrained")
    draw_track(ax, frame, page, axis)
    return ax
