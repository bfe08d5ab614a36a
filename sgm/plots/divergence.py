"""The paper's figure: the upper bound and, below it, a divergence against the schedule."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgm.plots.columns import column_positions, draw_by_group, set_schedule_axis
from sgm.plots.panels import Panel, find_panels, panel_title, target_title
from sgm.plots.rows import NOT_VALID, Rows, make_frame
from sgm.plots.style import (
    BLUE,
    BROWN,
    FAINT,
    GREEN,
    INK,
    LINE,
    MEAN_SD,
    ORANGE,
    PURPLE,
    SD,
    SKY,
    VERMILLION,
    LineStyle,
    Style,
    add_legend,
    draw_level,
    empty_page,
    house_style,
    is_log,
    new_figure,
    set_scale,
)
from sgm.reading import (
    Bound,
    Divergence,
    bound_named,
    divergence_named,
    finite,
    in_order,
    level,
    lowest,
    objections,
    over_runs,
    resolved,
    why_empty,
    with_units,
)
from sgm.store import FAILED

LEVEL_STYLES: tuple[
    tuple[str, LineStyle], ...
] = (  # of the schedules outside the β_a family, in the order of the grid
    (PURPLE, (0, (5, 2, 1, 2))),
    (BROWN, (0, (7, 2))),
    (SKY, (0, (3, 1, 1, 1, 1, 1))),
    (ORANGE, (0, (1, 1))),
)

CURVES = {
    "bound": Style("upper bound", BLUE, "-", "s", size=3.0, band=MEAN_SD),
    "empirical": Style("empirical", VERMILLION, "-", "o", band=MEAN_SD),
    "coupled": Style("coupled to the exact score, below the floor", SKY, "-", "D", band=MEAN_SD),
    "empirical median": Style("median over runs", VERMILLION, (0, (4, 1.5)), width=0.8),
    "exact law": Style("exact value of this score", INK, (0, (6, 2)), width=1.1),
    "exact score": Style("exact score, exact value", INK, ":", width=1.5),
    "exact score + floor": Style("exact score, raised by the floor", FAINT, ":", width=1.3),
    "exact score, empirical": Style("exact score, empirical mean", INK, "none", "x", size=3.5),
    "floor": Style("noise floor", FAINT, "--", width=0.9, band=SD),
    "minimum of bound": Style("lowest bound of β_a", BLUE, "none", "*", size=10),
    "minimum": Style("lowest error of β_a", VERMILLION, "none", "*", size=10),
    "minimum of all": Style("lowest of all schedules", INK, "none", "o", size=12),
}
VPSDE = "level a = 0"
HEIGHTS = (1.5, 2.3)  # inches, of the bound and of the divergence


def _curve_style(curve: str, others: Sequence[str]) -> Style:
    """The style of a curve; levels are told apart by their place in the grid."""
    if curve in CURVES:
        return CURVES[curve]
    if NOT_VALID in curve:
        name, reason = curve.removeprefix("level ").split(NOT_VALID)
        label = "NOT a bound: " + reason if name == "bound" else f"{name}: NOT a bound"
        return CURVES["bound"].invalid(label)
    if curve == VPSDE:
        return Style("VPSDE (a = 0)", GREEN, (0, (4, 1, 1, 1)), width=1.1, band=SD)
    name = curve.removeprefix("level ")
    color, line = LEVEL_STYLES[others.index(name) % len(LEVEL_STYLES)]
    return Style(name, color, line, width=1.1, band=SD)


def _panel_rows(panel: Panel, divergence: Divergence, bound: Bound | None) -> list[pd.DataFrame]:
    here, rows, axis = panel.here, Rows(panel), divergence.figure
    family, others = in_order(here)
    names = family or others  # without a β_a schedule: one column a schedule, no levels
    curve = here.sel(schedule=names)
    x = curve["a"].values if family else column_positions(family, others)
    failed = (curve["status"] == FAILED).sum("seed")

    if bound:
        runs = over_runs(finite(curve, bound.name))
        incomplete = runs.count < curve.sizes["seed"]
        rows.add_total(
            curve, bound, "bound", "bound", x, runs, schedule=names,
            n_failed=failed.where(incomplete, 0),
        )  # fmt: skip
        every = over_runs(finite(here, bound.name))
        reasons = dict(zip(map(str, here["schedule"].values), objections(here, bound), strict=True))
        for name in others if family else []:
            at, reason = here.sel(schedule=name), reasons[name]
            runs = over_runs(finite(at, bound.name))
            level_of = f"level {name}" + (NOT_VALID + reason if reason else "")
            rows.add(
                "bound", level_of, np.nan, runs.mean, sd=runs.sd, schedule=name, n_runs=runs.count,
            )  # fmt: skip
        valid = [reasons[str(name)] == "" for name in here["schedule"].values]
        _add_minima(rows, "bound", "minimum of bound", x, every.mean.where(valid), every.count)
    runs = over_runs(finite(curve, divergence.name))
    rows.add(
        axis, "empirical", x, runs.mean, sd=runs.sd, schedule=names,
        n_runs=runs.count, n_failed=failed, keep_empty=bool(failed.any()),
    )  # fmt: skip
    best = resolved(here, divergence)
    if best != divergence.name:
        own_runs = over_runs(finite(curve, best))
        rows.add(
            axis, "coupled", x, own_runs.mean, sd=own_runs.sd, schedule=names,
            n_runs=own_runs.count,
        )  # fmt: skip
    elif (runs.count > 2).any():
        rows.add(axis, "empirical median", x, runs.median, schedule=names, n_runs=runs.count)
    floor, floor_sd = level(here, divergence.floor, divergence.floor_sd)
    every, power = over_runs(finite(here, best)), divergence.floor_power
    main, counts = every.mean, every.count
    if divergence.exact:
        own = curve[divergence.exact]
        if panel.family != "exact":
            rows.add(axis, "exact law", x, own, schedule=names)
        if not np.isfinite(main).any():
            main, counts = here[divergence.exact], xr.ones_like(counts)
        if panel.exact is not None:
            exact = panel.exact.sel(schedule=names)
            ideal = exact[divergence.exact]
            rows.add(axis, "exact score", x, ideal, schedule=names)
            if np.isfinite(floor) and power and best == divergence.name:
                raised = (ideal**power + floor**power) ** (1 / power)
                rows.add(axis, "exact score + floor", x, raised, schedule=names)
            if panel.family != "exact":
                sampled = over_runs(finite(exact, divergence.name))
                rows.add(
                    axis, "exact score, empirical", x, sampled.mean, schedule=names,
                    n_runs=sampled.count,
                )  # fmt: skip
    rows.add(axis, "floor", np.nan, floor, sd=floor_sd)
    if divergence.ranks:
        _add_minima(rows, axis, "minimum", x, main, counts)

    vpsde = [name for name, value in zip(names, x, strict=True) if family and value == 0]
    for name in [*vpsde, *others] if family else []:
        at = here.sel(schedule=name)
        runs = over_runs(finite(at, best))
        y = runs.mean
        if divergence.exact and not np.isfinite(y):
            y = at[divergence.exact]
        rows.add(
            axis, VPSDE if name in vpsde else f"level {name}", np.nan, y, sd=runs.sd,
            schedule=name, n_runs=runs.count, n_failed=(at["status"] == FAILED).sum("seed"),
        )  # fmt: skip
    return rows.rows


def _add_minima(
    rows: Rows,
    axis: str,
    curve: str,
    x: npt.NDArray[Any],
    means: xr.DataArray,
    counts: xr.DataArray,
) -> None:
    """Append the rows that mark the lowest of the β_a family and of all schedules.

    None where there are not two different values. A schedule drawn as a level has no x.
    """
    family, others = in_order(rows.panel.here)
    places = dict(zip(family or others, x, strict=True))
    for name, among in ((curve, family), ("minimum of all", family + others)):
        values, runs = means.sel(schedule=among).values, counts.sel(schedule=among).values
        at = lowest(values, runs)
        both = name != curve and not others  # the family is all there is
        if at is None or both or np.nanmin(values) == np.nanmax(values):
            continue
        label = among[at]
        rows.add(axis, name, places.get(label, np.nan), float(values[at]), schedule=label)


def _draw_curves(ax: Axes, rows: pd.DataFrame, cells: xr.Dataset) -> None:
    _, others = in_order(cells)
    for curve, points in rows.groupby("curve", sort=False):
        style = _curve_style(str(curve), others)
        if curve == "minimum of all":
            at = points.iloc[0]
            level = np.isnan(at["x"])  # of a schedule without a place: the edge
            ax.plot(
                1.0 if level else at["x"], at["y"], style.marker, markersize=style.size,
                color=style.color, fillstyle="none", label=style.label, zorder=5, clip_on=False,
                transform=ax.get_yaxis_transform() if level else ax.transData,
            )  # fmt: skip
        elif points["x"].isna().all():
            draw_level(ax, points.iloc[0], style)
        else:
            draw_by_group(ax, points, style, cells)


def _draw_bound(ax: Axes, rows: pd.DataFrame, bound: Bound, cells: xr.Dataset) -> None:
    _draw_curves(ax, rows, cells)
    valid = (rows["curve"] == "bound").any()
    label = with_units(bound.label if valid else f"{bound.label}, NOT valid", bound.units)
    set_scale(ax, is_log(rows), textwrap.fill(label, 22), BLUE if valid else FAINT)
    ax.margins(y=0.08)


def _draw_errors(ax: Axes, rows: pd.DataFrame, divergence: Divergence, cells: xr.Dataset) -> None:
    _draw_curves(ax, rows, cells)
    # The exact value of the exact score may lie decades below what n samples can show; the
    # scale is chosen for what is compared on the axis.
    empirical = rows["curve"].str.contains("empirical").any()
    log = is_log(rows[rows["curve"] != "exact score"] if empirical else rows)
    y = rows["y"].dropna()
    # a level far from zero, such as an entropy, is drawn in its own range
    from_zero = not log and len(y) > 0 and y.min() >= 0 and y.max() > 1.25 * y.min()
    label = with_units(divergence.label, divergence.units)
    if not (log or from_zero) and len(y) and y.min() > 0:
        label += " (axis not from 0)"
    set_scale(ax, log, textwrap.fill(label, 36), VERMILLION)
    ax.margins(y=0.08)
    if from_zero:
        ax.set_ylim(bottom=0)
    if y.empty:
        ax.set_yticks([])
        ax.text(
            0.5, 0.5, why_empty(cells) if len(rows) else "not measured here",
            ha="center", va="center", transform=ax.transAxes,
        )  # fmt: skip


def divergence_figure(
    grid: xr.Dataset, target: str, divergence: str
) -> tuple[Figure, pd.DataFrame]:
    """The paper's figure: bound (above) and divergence (below) against a, mean ± 1 sd over runs.

    Each on an axis of its own: where two scales cross means nothing. Stars mark the lowest of
    the β_a family, a ring the lowest of all schedules.

    One panel a (horizon, score, sampler, time grid, number of steps): of the trained scores
    where there are any, else of the perturbed ones, else of the exact one. Where
    the divergence has an exact companion: dotted, its value for the exact score, and the
    same raised by the noise floor, which is what the estimator shows of it. The level of
    a = 0 (VPSDE) and those of the schedules outside the β_a family cross the panel as
    bands; in a grid without a β_a schedule, each schedule is a column instead. Where the grid has
    estimates coupled to the exact score, these resolve what lies below the floor: stars, ring and
    levels are theirs.

    Where the hypotheses of the bound's theorem fail, its formula is drawn in dashed grey,
    with the reason in the legend and in the panel's title.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.
    divergence : str
        The figure's name or the variable of a divergence of the grid.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is a, or the column where schedules are columns.

    Raises
    ------
    ValueError
        If the grid has no such target or no such divergence.
    """
    measure = divergence_named(grid, divergence)
    bound = bound_named(grid, measure.bound) if measure.bound else None
    cells, panels = find_panels(grid, target)
    family, _ = in_order(cells)
    frame = make_frame(
        target, (rows for panel in panels for rows in _panel_rows(panel, measure, bound))
    )
    with house_style():
        if not panels:
            return empty_page(target_title(cells), why_empty(cells)), frame
        columns = min(2, len(panels))
        bands = -(-len(panels) // columns)
        titles = [panel_title(panel, grid, measure, bound) for panel in panels]
        lines = max(title.count("\n") + 1 for title in titles)
        upper, lower = HEIGHTS if (frame["axis"] == "bound").any() else (0.0, HEIGHTS[1])
        height = (upper + lower + 0.5 + LINE * lines) * bands + 0.4
        figure = new_figure(6.0 if columns == 1 else 8.6, height, target_title(cells))
        parts = figure.add_gridspec(bands, columns)
        drawn: list[Axes] = []
        for k, (panel, title) in enumerate(zip(panels, titles, strict=True)):
            part = parts[divmod(k, columns)]
            here = frame[frame["panel"] == panel.number]
            above, measured = (here[here["axis"] == axis] for axis in ("bound", measure.figure))
            own: list[Axes] = []
            if bound and len(above):
                pair = part.subgridspec(2, 1, height_ratios=(upper, lower))
                own = [figure.add_subplot(pair[0])]
                _draw_bound(own[0], above, bound, cells)
                own.append(figure.add_subplot(pair[1], sharex=own[0]))
            else:
                own = [figure.add_subplot(part)]
            _draw_errors(own[-1], measured, measure, panel.here)
            own[0].set_title(title, loc="left")
            if family:
                _set_a_axis(own[-1], here)
            else:
                set_schedule_axis(own[-1], here, cells)
            if len(own) > 1:
                own[0].tick_params(labelbottom=False)
            drawn += own
        add_legend(figure, drawn)
    return figure, frame


def _set_a_axis(ax: Axes, rows: pd.DataFrame) -> None:
    a = rows["x"].dropna()
    ax.set_xlabel(r"$a$ of the noise schedule $\beta_a$")
    if a.empty:
        ax.set_xticks([])
    elif a.nunique() == 1 or rows["y"].isna().all():
        ax.set_xlim(a.min() - 1, a.max() + 1)
        ax.set_xticks(a.unique())
    else:
        ax.margins(x=0.03)
        ax.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
