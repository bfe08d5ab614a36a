"""The paper's figure: the upper bound and a divergence against the schedule."""

from __future__ import annotations

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
    over_runs,
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
    "bound": Style("upper bound (left axis)", BLUE, "-", "s", size=3.0, band=MEAN_SD),
    "empirical": Style("empirical", VERMILLION, "-", "o", band=MEAN_SD),
    "empirical median": Style("median over runs", VERMILLION, (0, (4, 1.5)), width=0.8),
    "exact law": Style("exact value of this score", INK, (0, (6, 2)), width=1.1),
    "exact score": Style("exact score, exact value", INK, ":", width=1.5),
    "exact score + floor": Style("exact score, raised by the floor", FAINT, ":", width=1.3),
    "exact score, empirical": Style("exact score, empirical mean", INK, "none", "x", size=3.5),
    "floor": Style("noise floor", FAINT, "--", width=0.9, band=SD),
    "minimum of bound": Style("lowest bound", BLUE, "none", "*", size=10),
    "minimum": Style("lowest error", VERMILLION, "none", "*", size=10),
}
VPSDE = "level a = 0"


def _curve_style(curve: str, others: Sequence[str]) -> Style:
    """The style of a curve; levels are told apart by their place in the grid."""
    if curve in CURVES:
        return CURVES[curve]
    if NOT_VALID in curve:
        reason = curve.split(NOT_VALID)[1]
        return CURVES["bound"].invalid(f"NOT a bound: {reason} (left axis)")
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
        valid = rows.add_total(
            curve, bound, "bound", "bound", x, runs, schedule=names,
            n_failed=failed.where(incomplete, 0),
        )  # fmt: skip
        rows.rows += _minimum(rows, "bound", "minimum of bound", x, runs.mean.where(valid), names)
    runs = over_runs(finite(curve, divergence.name))
    rows.add(
        axis, "empirical", x, runs.mean, sd=runs.sd, schedule=names,
        n_runs=runs.count, n_failed=failed, keep_empty=bool(failed.any()),
    )  # fmt: skip
    if (runs.count > 2).any():
        rows.add(axis, "empirical median", x, runs.median, schedule=names, n_runs=runs.count)
    floor, floor_sd = level(here, divergence.floor, divergence.floor_sd)
    main, power = runs.mean, divergence.floor_power
    if divergence.exact:
        own = curve[divergence.exact]
        if panel.family != "exact":
            rows.add(axis, "exact law", x, own, schedule=names)
        if not np.isfinite(main).any():
            main = own
        if panel.exact is not None:
            exact = panel.exact.sel(schedule=names)
            ideal = exact[divergence.exact]
            rows.add(axis, "exact score", x, ideal, schedule=names)
            if np.isfinite(floor) and power:
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
        rows.rows += _minimum(rows, axis, "minimum", x, main, names)

    vpsde = [name for name, value in zip(names, x, strict=True) if family and value == 0]
    for name in [*vpsde, *others] if family else []:
        at = here.sel(schedule=name)
        runs = over_runs(finite(at, divergence.name))
        y = runs.mean
        if divergence.exact and not np.isfinite(y):
            y = at[divergence.exact]
        rows.add(
            axis, VPSDE if name in vpsde else f"level {name}", np.nan, y, sd=runs.sd,
            schedule=name, n_runs=runs.count, n_failed=(at["status"] == FAILED).sum("seed"),
        )  # fmt: skip
    return rows.rows


def _minimum(
    rows: Rows, axis: str, curve: str, x: npt.NDArray[Any], y: xr.DataArray, names: list[str]
) -> list[pd.DataFrame]:
    """The row that marks where a curve is lowest, unless it is a point or a constant."""
    values = y.values
    if np.isfinite(values).sum() < 2 or np.ptp(values[np.isfinite(values)]) == 0:
        return []
    at, mark = int(np.nanargmin(values)), Rows(rows.panel)
    mark.add(axis, curve, x[at], float(values[at]), schedule=names[at])
    return mark.rows


def _draw_panel(
    left: Axes, rows: pd.DataFrame, divergence: Divergence, bound: Bound | None, cells: xr.Dataset
) -> list[Axes]:
    """One panel: the bound on the left axis if there is one, the divergence on the right."""
    above, measured = rows[rows["axis"] == "bound"], rows[rows["axis"] == divergence.figure]
    right = left.twinx() if len(above) else left
    _, others = in_order(cells)
    for ax, part in ((left, above), (right, measured)):
        for curve, points in part.groupby("curve", sort=False):
            style = _curve_style(str(curve), others)
            if points["x"].isna().all():
                draw_level(ax, points.iloc[0], style)
            else:
                draw_by_group(ax, points, style, cells)
    # The exact value of the exact score may lie decades below what n samples can show; the
    # scale is chosen for what is compared on the axis.
    empirical = measured["curve"].str.contains("empirical").any()
    compared = measured[measured["curve"] != "exact score"] if empirical else measured
    log = is_log(compared)
    if right is left:
        right.yaxis.set_label_position("right")
        right.yaxis.tick_right()
        right.spines["left"].set_visible(False)
    elif bound:
        valid = (above["curve"] == "bound").any()
        label = bound.label if valid else f"{bound.label}, NOT valid"
        set_scale(left, is_log(above), with_units(label, bound.units), BLUE if valid else FAINT)
        left.margins(y=0.08)
    right.spines["right"].set_visible(True)
    y = measured["y"].dropna()
    # a level far from zero, such as an entropy, is drawn in its own range
    from_zero = not log and len(y) > 0 and y.min() >= 0 and y.max() > 1.25 * y.min()
    label = with_units(divergence.label, divergence.units)
    if not (log or from_zero) and len(y) and y.min() > 0:
        label += " (axis not from 0)"
    set_scale(right, log, label, VERMILLION)
    right.margins(y=0.08)
    if from_zero:
        right.set_ylim(bottom=0)
    if measured.empty:
        right.set_yticks([])
        right.text(
            0.5, 0.5, "not measured here", ha="center", va="center", transform=right.transAxes
        )
    return [left, right] if right is not left else [left]


def divergence_figure(
    grid: xr.Dataset, target: str, divergence: str
) -> tuple[Figure, pd.DataFrame]:
    """The paper's figure: bound (left) and divergence (right) against a, mean ± 1 sd over runs.

    One panel a (horizon, score, sampler, time grid, number of steps): of the trained
    scores where there are any, else of the perturbed ones, else of the exact one. Where
    the divergence has an exact companion: dotted, its value for the exact score, and the
    same raised by the noise floor, which is what the estimator shows of it. The level of
    a = 0 (VPSDE) and those of the schedules outside the β_a family cross the panel as
    bands; in a grid without a β_a schedule, each schedule is a column instead.

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
    columns = min(2, max(1, len(panels)))
    bands = -(-max(1, len(panels)) // columns)
    with house_style():
        width = 6.0 if columns == 1 else 8.6
        titles = [panel_title(panel, grid, measure, bound) for panel in panels]
        lines = max((title.count("\n") + 1 for title in titles), default=0)
        height = (2.7 + LINE * lines) * bands + 0.4
        figure = new_figure(width, height, target_title(cells))
        axes = figure.subplots(bands, columns, squeeze=False)
        drawn: list[Axes] = []
        for ax in axes.ravel()[len(panels) :]:
            ax.set_axis_off()
        for panel, title, ax in zip(panels, titles, axes.ravel(), strict=False):
            here = frame[frame["panel"] == panel.number]
            drawn += _draw_panel(ax, here, measure, bound, cells)
            ax.set_title(title, loc="left")
            if family:
                _set_a_axis(ax, here)
            else:
                set_schedule_axis(ax, here, cells)
        if not panels:
            axes[0, 0].text(0.5, 0.5, "no run of this target in the grid", ha="center")
        add_legend(figure, drawn)
    return figure, frame


def _set_a_axis(ax: Axes, rows: pd.DataFrame) -> None:
    a = rows["x"].dropna()
    ax.set_xlabel(r"$a$ of the noise schedule $\beta_a$")
    if a.empty:
        ax.set_xticks([])
    elif a.nunique() == 1:
        ax.set_xlim(a.iloc[0] - 1, a.iloc[0] + 1)
        ax.set_xticks([a.iloc[0]])
    else:
        ax.margins(x=0.03)
        ax.xaxis.set_major_locator(MaxNLocator(10, steps=[1, 2, 5, 10]))
