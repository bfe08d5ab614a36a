"""The paper's figure: the upper bound and the KL against the schedule."""

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
from sgm.plots.panels import (
    HELDOUT,
    KL,
    Panel,
    Quantity,
    find_panels,
    in_order,
    over_runs,
    panel_title,
    target_title,
    with_units,
)
from sgm.plots.rows import Rows, make_frame
from sgm.plots.style import (
    BLUE,
    BROWN,
    FAINT,
    GREEN,
    INK,
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
    "exact law": Style("exact KL of this score", INK, (0, (6, 2)), width=1.1),
    "exact score": Style("exact score, exact KL", INK, ":", width=1.5),
    "exact score + floor": Style("exact score, KL + noise floor", FAINT, ":", width=1.3),
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
    if curve == VPSDE:
        return Style("VPSDE (a = 0)", GREEN, (0, (4, 1, 1, 1)), width=1.1, band=SD)
    name = curve.removeprefix("level ")
    color, line = LEVEL_STYLES[others.index(name) % len(LEVEL_STYLES)]
    return Style(name, color, line, width=1.1, band=SD)


def _quantity_rows(panel: Panel, quantity: Quantity) -> list[pd.DataFrame]:
    here, rows, axis = panel.here, Rows(panel), quantity.axis
    family, others = in_order(here)
    names = family or others  # without a β_a schedule: one column a schedule, no levels
    curve = here.sel(schedule=names)
    x = curve["a"].values if family else column_positions(family, others)
    failed = (curve["status"] == FAILED).sum("seed")

    if quantity.bound:
        bound = over_runs(curve[quantity.bound])
        incomplete = bound.count < curve.sizes["seed"]
        rows.add(
            "bound", "bound", x, bound.mean, sd=bound.sd, schedule=names,
            n_runs=bound.count, n_failed=failed.where(incomplete, 0),
        )  # fmt: skip
        rows.rows += _minimum(rows, "bound", "minimum of bound", x, bound.mean, names)
    runs = over_runs(curve[quantity.empirical])
    rows.add(
        axis, "empirical", x, runs.mean, sd=runs.sd, schedule=names,
        n_runs=runs.count, n_failed=failed, keep_empty=bool(failed.any()),
    )  # fmt: skip
    if (runs.count > 2).any():
        rows.add(axis, "empirical median", x, runs.median, schedule=names, n_runs=runs.count)
    draws = over_runs(here[quantity.floor])
    floor = float(draws.mean)
    floor_sd = float(here[quantity.floor_sd] if quantity.floor_sd else draws.sd)
    main = runs.mean
    if quantity.exact:
        own = curve[quantity.exact]
        if panel.family != "exact":
            rows.add(axis, "exact law", x, own, schedule=names)
        if not np.isfinite(main).any():
            main = own
        if panel.exact is not None:
            exact = panel.exact.sel(schedule=names)
            rows.add(axis, "exact score", x, exact[quantity.exact], schedule=names)
            if np.isfinite(floor):
                rows.add(
                    axis, "exact score + floor", x, exact[quantity.exact] + floor, schedule=names
                )
            if panel.family != "exact":
                sampled = over_runs(exact[quantity.empirical])
                rows.add(
                    axis, "exact score, empirical", x, sampled.mean, schedule=names,
                    n_runs=sampled.count,
                )  # fmt: skip
    rows.add(axis, "floor", np.nan, floor, sd=floor_sd)
    rows.rows += _minimum(rows, axis, "minimum", x, main, names)

    vpsde = [name for name, value in zip(names, x, strict=True) if family and value == 0]
    for name in [*vpsde, *others] if family else []:
        at = here.sel(schedule=name)
        level = over_runs(at[quantity.empirical])
        y = level.mean
        if quantity.exact and not np.isfinite(y):
            y = at[quantity.exact]
        rows.add(
            axis, VPSDE if name in vpsde else f"level {name}", np.nan, y, sd=level.sd,
            schedule=name, n_runs=level.count, n_failed=(at["status"] == FAILED).sum("seed"),
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


def _draw_quantity(
    left: Axes, rows: pd.DataFrame, quantity: Quantity, label: str, cells: xr.Dataset
) -> list[Axes]:
    """One panel: the bound on the left axis if there is one, the divergence on the right."""
    bound, divergence = rows[rows["axis"] == "bound"], rows[rows["axis"] == quantity.axis]
    right = left.twinx() if len(bound) else left
    _, others = in_order(cells)
    for ax, part in ((left, bound), (right, divergence)):
        for curve, points in part.groupby("curve", sort=False):
            style = _curve_style(str(curve), others)
            if points["x"].isna().all():
                draw_level(ax, points.iloc[0], style)
            else:
                draw_by_group(ax, points, style, cells)
    # The exact KL of the exact score may lie decades below what n samples can show; the
    # scale is chosen for what is compared on the axis.
    empirical = divergence["curve"].str.contains("empirical").any()
    compared = divergence[divergence["curve"] != "exact score"] if empirical else divergence
    log = is_log(compared)
    if right is left:
        right.yaxis.set_label_position("right")
        right.yaxis.tick_right()
        right.spines["left"].set_visible(False)
    else:
        set_scale(
            left, is_log(bound), with_units("upper bound E1 + E2 + E3", cells["kl_bound"]), BLUE
        )
        left.margins(y=0.08)
    right.spines["right"].set_visible(True)
    set_scale(right, log, label, VERMILLION)
    right.margins(y=0.08)
    y = divergence["y"].dropna()
    if not log and len(y) and y.min() >= 0:
        right.set_ylim(bottom=0)
    return [left, right] if right is not left else [left]


def kl_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """The paper's figure: upper bound (left) and KL (right) against a, mean ± 1 sd over runs.

    One panel a (horizon, score, sampler, time grid, number of steps): of the trained
    scores where there are any, else of the perturbed ones, else of the exact one. The
    KL is the plug-in estimate; dotted, the exact KL of the exact score, and the same
    raised by the noise floor, which is what the estimator shows of it. The level of
    a = 0 (VPSDE) and those of the schedules outside the β_a family cross the panel as
    bands; in a grid without a β_a schedule, each schedule is a column instead. A target
    without a known law has no bound, and a second panel with the gap of the held-out
    negative log-likelihood.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is a, or the column where schedules are columns.

    Raises
    ------
    ValueError
        If the grid has no such target.
    """
    cells, panels = find_panels(grid, target)
    family, _ = in_order(cells)
    quantities = [KL]
    if not bool(cells["law_known"]):
        measured = [q for q in (KL, HELDOUT) if np.isfinite(cells[q.empirical]).any()]
        quantities = measured or quantities
    frame = make_frame(
        target,
        (rows for panel in panels for kind in quantities for rows in _quantity_rows(panel, kind)),
    )
    columns = min(2, max(1, len(panels)))
    bands = -(-max(1, len(panels)) // columns)
    with house_style():
        width = 6.0 if columns == 1 else 8.6
        height = 3.3 * bands * len(quantities) + 1.3
        figure = new_figure(width, height, target_title(cells))
        axes = figure.subplots(bands * len(quantities), columns, squeeze=False)
        drawn: list[Axes] = []
        for ax in axes.ravel():
            ax.set_axis_off()
        for panel in panels:
            for row, quantity in enumerate(quantities):
                ax = axes[(panel.number // columns) * len(quantities) + row, panel.number % columns]
                ax.set_axis_on()
                here = frame[frame["panel"] == panel.number]
                label = quantity.label
                if quantity is KL and not bool(cells["law_known"]):
                    label = "KL between Gaussian fits"
                label = with_units(label, cells[quantity.empirical])
                drawn += _draw_quantity(ax, here, quantity, label, cells)
                title = panel_title(panel, grid, quantity.empirical)
                ax.set_title(title if row == 0 else title.splitlines()[-1], loc="left")
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
