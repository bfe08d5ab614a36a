"""Scores learnt from rows: what the rows, the start and the steps cost, on one scale."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm.plots.cells import COLUMNS, NoNumbersError, evenly, make_frame, target_cells, target_title
from sgm.plots.engine import (
    MEAN_SD,
    SERIES,
    C,
    Look,
    Page,
    Track,
    columns_for,
    draw_page,
    set_numbers,
    width_for,
    wrapped,
)
from sgm.reading import (
    NFE,
    NumericAxis,
    along,
    finite,
    in_order,
    numbers_of,
    numeric_axes,
    over_runs,
    text_of,
    units_of,
    with_units,
)

MEASURES = ("kl_learned", "w2_learned")
CURVES = {
    "": Look("output of the sampler", line="-", marker="o", band=MEAN_SD),
    "_limit": Look("backward SDE without steps", line=(0, (5, 2)), width=1.1),
    "_fit": Look("law fitted to the rows", line=(0, (1, 1.2)), width=1.1),
    "_expected": Look("its mean, by the Wishart law", C.INK, (0, (5, 2, 1, 2)), width=0.9),
}


def learned_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """Error of learnt affine scores against each number that varies, from the rows to the steps.

    A panel a number: n, with a curve a schedule; a parameter of the schedules, T or N, with a
    curve a score. What is neither on x nor a curve is that of the lowest mean KL. Three curves
    of a colour, from below where the errors add up: the law that was fitted to the rows, the output
    of the backward SDE without steps, and that of the sampler; of a descent the last alone.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `axis` the variable of the output, `curve` what follows it in the name
        of the variable drawn, `series` the schedule or the score.

    Raises
    ------
    ValueError
        If the grid has no such target, or of it no score that is learnt without a network.
    """
    cells = target_cells(grid, target)
    totals = finite(cells, MEASURES[0]).load()
    if not totals.notnull().any():
        raise NoNumbersError(f"target = {target!r}: must have numbers of {MEASURES[0]} in the grid")
    cells = cells[_drawn(cells)].load()
    best = _lowest(totals)
    scores = totals["score"].values[
        totals.notnull().any([d for d in totals.dims if d != "score"]).values
    ]
    cells = cells.sel(score=scores)
    axes = [axis for axis in numeric_axes(cells) if axis != NFE]
    axes.sort(key=lambda axis: axis.dimension != "score")  # n first
    tables, titles, notes = [], {}, []
    for panel, axis in enumerate(axes):
        held = {d: v for d, v in best.items() if d not in (axis.dimension, "score")}
        of_scores = axis.dimension == "score"
        if of_scores:  # the schedules are the curves
            del held["schedule"]
        here = cells.sel(held)
        found, left = _panel(here, axis, "schedule" if of_scores else "score")
        tables += [table.assign(panel=panel) for table in found]
        titles[panel] = _held_text(held, cells)
        notes += [left] if left else []
    if not axes:
        raise NoNumbersError(f"target = {target!r}: must have a number that varies in the grid")
    frame = make_frame(tables, target, ("panel", *COLUMNS))
    order = {name: i for i, name in enumerate(dict.fromkeys(frame["series"]))}

    def look(curve: str, series: str) -> Look:
        own = CURVES[curve]
        if not series:
            return own
        color, marker = SERIES[order[series] % len(SERIES)]
        if curve:  # the legend says once what they are
            return replace(own, color=color, label="")
        return replace(own, color=color, marker=marker, label=series)

    def set_x(ax: Axes, rows: pd.DataFrame, last: bool) -> None:
        axis = axes[int(rows["panel"].iloc[0])] if len(rows) else axes[0]
        set_numbers(ax, rows["x"].dropna(), axis.label if last else "")

    handles = [
        replace(CURVES[c], color=C.INK).handle(CURVES[c].label, C.INK) for c in ("_limit", "_fit")
    ]
    tracks = [
        Track(name, with_units(text_of(grid[name]), units_of(grid[name])), 2.0, log=True)
        for name in MEASURES
    ]
    columns = columns_for(len(axes))
    page = Page(
        f"{target_title(cells)}: affine scores learnt from n rows, exact given the rows",
        wrapped(range(len(axes)), tracks, columns), look, list(dict.fromkeys(notes)), titles, set_x,
        width_for(columns), handles=handles, loose=True,
    )  # fmt: skip
    return draw_page(frame, page), frame


def _drawn(cells: xr.Dataset) -> list[str]:
    names = [m + curve for m in MEASURES for curve in CURVES]
    return [name for name in names if name in cells]


def _lowest(totals: xr.DataArray) -> dict[str, Any]:
    """The place of the lowest mean over runs."""
    means = over_runs(totals).mean
    place = means.where(means.notnull(), np.inf).argmin(...)
    return {str(d): means[d].values[int(i)] for d, i in place.items()}


def _held_text(held: dict[str, Any], cells: xr.Dataset) -> str:
    """What a panel shares, where the grid has several of it."""
    words = {"schedule": "{}", "horizon": "T = {:g}", "n_steps": "N = {}"}
    return ", ".join(
        words.get(name, "{}").format(value)
        for name, value in held.items()
        if cells.sizes.get(name, 1) > 1
    )


def _panel(here: xr.Dataset, axis: NumericAxis, dimension: str) -> tuple[list[pd.DataFrame], str]:
    """The rows of a panel, and how many of its series they show."""
    curves = along(here, axis).curves  # label without the number → labels along it
    numbers = {name: own for name, own in curves.items() if len(own) > 1}
    labels = here[dimension].values.tolist()
    if dimension == "schedule":
        family, others = in_order(here)
        labels = [*family, *others]
    shown, left = evenly(labels, len(SERIES) // len(numbers) or 1)
    note = f"{len(shown)} of {len(labels)} {dimension}s shown" if left else ""
    tables = []
    for name, own in numbers.items():
        part = here.sel({axis.dimension: own})
        x = numbers_of(part, axis).values
        for label in shown:
            one = part.sel({dimension: label})
            both = f"{label}, {name}" if len(numbers) > 1 else str(label)
            for measure in MEASURES:
                tables += _curves(one, measure, x, axis.dimension, both)
    known = [m for m in MEASURES if axis.dimension == "score" and f"{m}_expected" in here]
    for measure in known:
        for own in numbers.values():
            part = here.sel(score=own)
            table = {"x": numbers_of(part, axis).values, "y": part[f"{measure}_expected"].values}
            frame = pd.DataFrame(table).assign(axis=measure, curve="_expected", series="")
            tables.append(frame[np.isfinite(frame["y"])])
    return tables, note


def _curves(
    one: xr.Dataset, measure: str, x: Any, dimension: str, series: str
) -> list[pd.DataFrame]:
    """The output and, where they are known, the limit without steps and the fitted law."""
    tables = []
    for curve in ("", "_limit", "_fit"):
        values = finite(one, measure + curve)
        if dimension not in values.dims:
            values = values.expand_dims({dimension: one[dimension].values})
        runs = over_runs(values)
        y, sd = runs.mean.values, runs.sd.values
        low, high = (y - sd, y + sd) if curve == "" else (np.nan * y, np.nan * y)
        frame = pd.DataFrame(
            {"x": x, "y": y, "low": low, "high": high, "n_runs": runs.count.values}
        )
        tables.append(frame.dropna(subset="y").assign(axis=measure, curve=curve, series=series))
    return tables
