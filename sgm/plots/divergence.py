"""The paper's figure: the upper bounds and, below them, a divergence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm.plots.cells import (
    NOT_VALID,
    View,
    count_text,
    lowest_rows,
    make_frame,
    panel_notes,
    target_title,
)
from sgm.plots.engine import (
    DASHES,
    GREY,
    MEAN_SD,
    SD,
    SERIES,
    C,
    Look,
    Page,
    Track,
    columns_for,
    draw_edge,
    draw_page,
    width_for,
    wrapped,
)
from sgm.reading import (
    NFE,
    Bound,
    Divergence,
    bounds_on,
    divergence_named,
    divergences_of,
    finite,
    resolved,
    why_empty,
    with_units,
)
from sgm.store import DONE, NOT_APPLICABLE

CURVES = {
    "bound": Look("upper bound", C.BLUE, "-", "s", size=3.0, band=MEAN_SD),
    "empirical": Look("empirical", C.VERMILLION, "-", "o", band=MEAN_SD),
    "closed": Look("exact of each run", C.VERMILLION, "-", "o", band=MEAN_SD),
    "coupled": Look("estimate coupled to the exact score", C.VERMILLION, "-", "o", band=MEAN_SD),
    "expected": Look("", C.ORANGE, (0, (5, 2)), width=1.1, order=2),
    "plain": Look("plain estimate of the same rows", C.ORANGE, (0, (5, 2)), width=1.1),
    "exact law": Look("exact value of this score", C.INK, (0, (6, 2)), width=1.1),
    "exact score": Look("exact score, exact value", C.INK, ":", width=1.5),
    "exact score + floor": Look("exact score plus the floor", C.FAINT, ":", width=1.3),
    "exact score, empirical": Look("exact score, empirical mean", C.INK, ":", "x", size=3.5),
    "floor": Look("noise floor", C.FAINT, "--", width=0.9, band=SD),
    "minimum of bound": Look("lowest bound", C.BLUE, "none", "*", size=10, order=4),
    "minimum": Look("lowest error", C.VERMILLION, "none", "*", size=10, order=4),
    "minimum of all": Look(
        "lowest of all schedules", C.INK, "none", "o", size=12, face="none", mark=draw_edge
    ),
}
#: Rates in N without constants, by divergence: whose, and the exponent. Up to logarithms a KL of ε²
#: takes d/ε² steps for Benton et al. (2308.03686), d/ε for Jain and Zhang (2508.16306); Li and Yan
#: (2409.18959) have d/N for the total variation, whose square KL bounds (Pinsker).
RATES = {
    "kl": {
        "Benton et al.: 1/N": -1.0,
        "Jain and Zhang (Li and Yan: TV²): 1/N²": -2.0,
    }
}
VPSDE = "level a = 0"
LEVELS = (C.PURPLE, C.BROWN, C.SKY, C.ORANGE)


def divergence_figure(
    grid: xr.Dataset, target: str, divergence: str, x: str | None = None
) -> tuple[Figure, pd.DataFrame]:
    """The paper's figure: bounds (above) and divergence (below) against a, mean ± 1 sd over runs.

    On x stands the number that varies, else the labels of what varies. A panel for each setting of
    what is left; without the number on x a schedule is a level across the panel, or, if they are
    more than can be told apart, all are columns. Stars mark
    the lowest of the axis, a ring the lowest of all. The estimate that resolves most comes first:
    the coupled one, with what the paper's estimator would show of its 10,000 rows, or with the
    plain one and its floor. Where the bound's theorem does not apply its curve is dashed grey,
    with the reason in the panel's title. Against N, rates that theorems give without constants are
    slopes from the first of the highest curve (`RATES`).

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.
    divergence : str
        The figure's name or the variable of a divergence of the grid.
    x : str
        A numeric axis of the grid (`sgm.reading.numeric_axes`); by default the one that varies.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is the number or the column, empty for a level.

    Raises
    ------
    ValueError
        If the grid has no such target, divergence or x.
    """
    frame, page = divergence_page(grid, target, divergence, x)
    return draw_page(frame, page), frame


def divergence_page(
    grid: xr.Dataset, target: str, divergence: str, x: str | None = None
) -> tuple[pd.DataFrame, Page]:
    """Frame and page of `divergence_figure`: a track the divergence, and one a bound above it."""
    measure = divergence_named(grid, divergence)
    bounds = bounds_on(grid, measure)
    view = View.of(_measured(grid, target, measure), target, x)
    main, errors = _errors(view, measure)
    tables = [*(table for bound in bounds for table in _bound(view, bound)), *errors]
    frame = make_frame(tables, target, view.columns)
    title = f"{target_title(view.cells)}: {measure.label}"
    if view.panels.empty:
        return frame, Page(title, why=why_empty(view.cells))
    notes, titles = panel_notes(view, measure, *bounds)
    slopes = RATES.get(measure.figure, {})
    tracks = [
        Track(
            measure.figure, with_units(measure.label, measure.units), 2.1, C.VERMILLION, zero=True,
            aside=(*(["exact score"] if main in ("empirical", "coupled") else []), *slopes),
            finish=lambda ax, rows: _say_empty(ax, rows, view.cells),
        )
    ]  # fmt: skip
    for bound in reversed(bounds):
        own_rows = frame[frame["axis"] == bound.name]
        if len(own_rows):
            valid = (own_rows["curve"] == "bound").any()
            label = bound.label if valid else f"{bound.label}, NOT valid"
            color = C.BLUE if valid else C.FAINT
            units = with_units(label, bound.units)
            tracks.insert(0, Track(bound.name, units, 1.3, color, share=False))
    panels = view.panels["panel"].tolist()
    columns = columns_for(len(panels))
    series = list(dict.fromkeys(frame.loc[frame["curve"].isin([main, "bound"]), "series"]))
    series = series if view.axis and not view.in_columns else []
    levels = [
        c for c in dict.fromkeys(frame["curve"]) if c.startswith("level") and NOT_VALID not in c
    ]
    rows = int(
        view.cells.get(f"{measure.name}_expected", xr.DataArray(0)).attrs.get("plugin_rows", 0)
    )

    placed = set(frame.loc[frame["x"].notna(), "curve"]) if view.axis is None else set()

    def look(curve: str, own: str) -> Look:
        found = _look(curve, own, main, series, levels, rows)
        if curve == VPSDE and view.cells.attrs.get("process", "vp") != "vp":
            found = replace(found, label="linear β (a = 0)")
        lone = curve in placed and found.line != "none"  # labels are not joined by a line
        return replace(found, line="none", marker=found.marker or "D") if lone else found

    page = Page(
        title, wrapped(panels, tracks, columns), look, [*notes, view.note], titles, view.set_x,
        width_for(columns),
    )  # fmt: skip
    return frame, page


def _measured(grid: xr.Dataset, target: str, measure: Divergence) -> xr.Dataset:
    """Without the scores that the divergence says nothing of.

    Those are the ones that only a closed form measures where another divergence is drawn, and the
    ones whose runs are done and have no number, be it infinite.
    """
    if target not in grid.indexes["target"]:
        return grid
    grid = _told(grid, target, measure)
    closed = [own for own in divergences_of(grid) if own.closed]
    if not closed:
        return grid
    cells = grid.sel(target=target)

    def numbers(*names: str) -> xr.DataArray:
        found = [finite(cells, name).notnull() for name in names if name]
        return xr.concat(
            [own.any([d for d in own.dims if d != "score"]) for own in found], "n"
        ).any("n")

    here = numbers(measure.name, measure.exact)
    elsewhere = numbers(*(own.name for own in closed if own != measure))
    kept = here if measure.closed else here | ~elsewhere
    return grid.sel(score=kept.values) if kept.any() else grid


def _told(grid: xr.Dataset, target: str, measure: Divergence) -> xr.Dataset:
    """The scores that have a number of a divergence, or a run that might."""
    cells = grid.sel(target=target)
    undone = ~cells["status"].isin([DONE, NOT_APPLICABLE])
    numbers = [cells[name].notnull() for name in (measure.name, measure.exact) if name]
    kept = np.any(
        [own.any([d for d in own.dims if d != "score"]).values for own in (undone, *numbers)],
        axis=0,
    )
    return grid.sel(score=kept) if kept.any() else grid


def _bound(view: View, bound: Bound) -> list[pd.DataFrame]:
    """The bound, split by why it is none."""
    table = view.table(bound.name).assign(axis=bound.name)
    reason = view.objection(table, bound)
    valid = table[reason == ""]
    name = pd.Series("bound", index=table.index)
    level = table["x"].isna()
    name[level] = "level " + table["series"][level]
    table["curve"] = name + reason.where(reason == "", NOT_VALID + reason)
    return [table.dropna(subset="y"), *_minima(valid, "minimum of bound")]


def _minima(table: pd.DataFrame, curve: str) -> list[pd.DataFrame]:
    """The stars, and the rings where there are levels beside what has a place."""
    blank: dict[str, Any] = {"low": np.nan, "high": np.nan, "n_failed": pd.NA}
    family, every = lowest_rows(table)
    every = every if table["x"].isna().any() else every.iloc[:0]
    return [family.assign(curve=curve, **blank), every.assign(curve="minimum of all", **blank)]


def _errors(view: View, measure: Divergence) -> tuple[str, list[pd.DataFrame]]:
    """What the main curve is called, and all curves of the divergence."""
    cells, axis = view.cells.sel(score=view.scores), measure.figure
    best = resolved(cells, measure)
    coupled = best != measure.name
    main, curve = view.table(best), "coupled" if coupled else "empirical"
    curve = "closed" if measure.closed else curve
    if main["y"].isna().all() and measure.exact and not (main["n_failed"] > 0).any():
        perfect = set(cells["score_family"].values.tolist()) == {"exact"}
        main, curve = view.table(measure.exact), "exact score" if perfect else "exact law"
    levels = main["x"].isna()
    shown = main[main["y"].notna() | (main["n_failed"] > 0)]
    level = shown["x"].isna()
    own = shown[~level].assign(curve=curve)
    found = [own, shown[level].assign(curve="level " + shown["series"][level])]
    expected = f"{measure.name}_expected"
    if coupled:
        second = expected if finite(cells, expected).notnull().any() else measure.name
        table = view.table(second, spread="none")
        table = table[~levels.to_numpy()]
        found.append(table.assign(curve="expected" if second == expected else "plain"))
    plain = curve == "empirical" or (coupled and found[-1]["curve"].eq("plain").any())
    if curve == "empirical" and measure.exact:
        found.append(view.table(measure.exact)[~levels.to_numpy()].assign(curve="exact law"))
    floor = view.level(axis, "floor", measure.floor, measure.floor_sd)
    if view.exact and not view.several:
        ideal = view.table(measure.exact, score=view.exact) if measure.exact else own.iloc[:0]
        if ideal["y"].notna().any():
            ideal = ideal[ideal["x"].notna() | (view.dimension == "score")]
            found.append(ideal.assign(curve="exact score"))
            power = measure.floor_power
            if len(floor) and power and curve == "empirical":
                raised = ideal.merge(floor[["panel", "y"]], on="panel", suffixes=("", "_floor"))
                raised["y"] = (raised["y"] ** power + raised["y_floor"] ** power) ** (1 / power)
                found.append(raised.assign(curve="exact score + floor", low=np.nan, high=np.nan))
        else:
            table = view.table(measure.name, score=view.exact, spread="none")
            found.append(table[table["x"].notna()].assign(curve="exact score, empirical"))
    found.append(floor if plain else floor.iloc[:0])
    family = view.axis is not None and view.axis.name == "a" and not view.in_columns
    if family and own["x"].nunique() > 1:
        zero = own[(own["x"] == 0) & own["y"].notna()]
        found.append(zero.assign(curve=VPSDE, x=np.nan, low=np.nan, high=np.nan))
    if view.axis is not None and view.axis.name in ("n_steps", NFE.name) and not view.in_columns:
        found += _rates(own, RATES.get(axis, {}))
    if measure.ranks:
        found += _minima(main, "minimum")
    found = [
        table.dropna(subset="y") if i > 1 else table for i, table in enumerate(found) if len(table)
    ]
    return curve, [table.assign(axis=axis) for table in found]


def _rates(table: pd.DataFrame, rates: Mapping[str, float]) -> list[pd.DataFrame]:
    """Slopes from the highest value at the least N of each panel."""
    held = table[table["y"] > 0].sort_values("y", ascending=False, kind="stable")
    found = []
    for _, own in held.groupby("panel"):
        highest = own[own["x"] == own["x"].min()].iloc[0]
        along = own.drop_duplicates("x").sort_values("x").drop(columns=["n_runs", "n_failed"])
        for curve, exponent in rates.items():
            y = highest["y"] * (along["x"] / highest["x"]) ** exponent
            found.append(along.assign(curve=curve, series="", y=y, low=np.nan, high=np.nan))
    return found


def _look(curve: str, own: str, main: str, series: list[str], levels: list[str], rows: int) -> Look:
    """The look of a curve; series are told apart by colour, levels by their place."""
    if NOT_VALID in curve:
        return replace(CURVES["bound"].greyed(GREY), band="")
    if curve == VPSDE:
        return Look("VPSDE (a = 0)", C.GREEN, (0, (4, 1, 1, 1)), width=1.1)
    if curve.startswith("level "):
        k = [name for name in levels if name != VPSDE].index(curve) % len(LEVELS)
        return Look(curve.removeprefix("level "), LEVELS[k], DASHES[k], width=1.1, band=SD)
    slopes = [name for rates in RATES.values() for name in rates]
    if curve in slopes:
        k = slopes.index(curve)
        return Look(f"slope of {curve}", C.GREY_OUT, DASHES[k], width=0.9, order=1.5)
    look = CURVES[curve]
    if curve == main:
        look = replace(look, color=C.VERMILLION, line="-", marker="o", width=1.3)
    if curve == "expected":
        return replace(look, label=f"what the plain estimate shows of {count_text(rows)} rows")
    if len(series) > 1 and own in series and not curve.startswith("minimum"):
        color, marker = SERIES[series.index(own) % len(SERIES)]
        if curve in (main, "bound"):
            return replace(look, color=color, label=own, marker=marker)
        return replace(look, color=color)
    return look


def _say_empty(ax: Axes, rows: pd.DataFrame, cells: xr.Dataset) -> None:
    if rows["y"].isna().all():
        text = why_empty(cells) if len(rows) else "not measured here"
        ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)
