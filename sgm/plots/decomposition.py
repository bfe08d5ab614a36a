"""The bound taken apart, with every error of the same cells beside it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgm.plots.columns import column_positions, draw_by_group, set_schedule_axis
from sgm.plots.panels import (
    Panel,
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
    FAINT,
    INK,
    MEAN_RANGE,
    ORANGE,
    PURPLE,
    SD,
    SKY,
    VERMILLION,
    Style,
    add_legend,
    draw_level,
    house_style,
    new_figure,
)
from sgm.store import FAILED

STACK = {  # from the bottom: the flat term first, so that the others show on top of it
    "E3 discretization": ("kl_bound_discretization", "#BFDCEF"),
    "E2 score error": ("kl_bound_score", ORANGE),
    "E1 mixing": ("kl_bound_mixing", BLUE),
}
LINES = {
    "bound": Style("upper bound E1 + E2 + E3", INK, "-", "s", size=2.8),
    "refined bound": Style("refined bound E1 + E2 + E3 refined", INK, (0, (5, 2)), "x", 1.0),
    "E3 discretization": Style("E3 discretization", SKY, "-", "_", 1.8, size=6),
    "E3 refined": Style("E3 refined", SKY, (0, (5, 2)), "x", 1.3),
    "E2 score error": Style("E2 score error", ORANGE, "-", "^"),
    "E1 mixing": Style("E1 mixing", BLUE, "-", "v"),
    "path KL": Style("path KL (Girsanov)", PURPLE, "-", "D", size=2.6),
    "empirical": Style("empirical KL", VERMILLION, "-", "o", band=MEAN_RANGE),
    "exact law": Style("exact KL of this score", INK, (0, (6, 2)), "d", 1.0),
    "exact score": Style("exact score, exact KL", INK, ":", "+", 1.4, size=4),
    "floor": Style("noise floor", FAINT, "--", width=0.9, band=SD),
}


def _decomposition_rows(panel: Panel) -> list[pd.DataFrame]:
    here, rows = panel.here, Rows(panel)
    family, others = in_order(here)
    names = family + others
    here = here.sel(schedule=names)
    x = column_positions(family, others)
    failed = (here["status"] == FAILED).sum("seed")
    parts = {curve: over_runs(here[name]) for curve, (name, _) in STACK.items()}
    whole = xr.concat([part.mean for part in parts.values()], "part").sum("part", skipna=False)
    bottom = xr.zeros_like(whole)
    for curve, part in parts.items():
        top = bottom + part.mean
        rows.add(
            "stack", curve, x, part.mean.where(np.isfinite(whole)),
            low=bottom.where(np.isfinite(whole)), high=top.where(np.isfinite(whole)),
            schedule=names, n_runs=part.count,
        )  # fmt: skip
        bottom = top
    for axis in ("stack", "lines"):
        refined = (
            whole
            - parts["E3 discretization"].mean
            + over_runs(here["kl_bound_discretization_refined"]).mean
        )
        rows.add(axis, "refined bound", x, refined, schedule=names)
    for curve, variable in (
        ("bound", "kl_bound"),
        ("E3 discretization", "kl_bound_discretization"),
        ("E3 refined", "kl_bound_discretization_refined"),
        ("E2 score error", "kl_bound_score"),
        ("E1 mixing", "kl_bound_mixing"),
        ("path KL", "kl_path"),
    ):
        runs = over_runs(here[variable])
        rows.add("lines", curve, x, runs.mean, schedule=names, n_runs=runs.count)
    runs = over_runs(here["kl_plugin"])
    # mean − sd may be negative, which a logarithmic axis can't show: the range of the runs
    several = runs.count > 1
    rows.add(
        "lines", "empirical", x, runs.mean,
        low=runs.lowest.where(several), high=runs.highest.where(several),
        schedule=names, n_runs=runs.count, n_failed=failed, keep_empty=bool(failed.any()),
    )  # fmt: skip
    if panel.family != "exact":
        rows.add("lines", "exact law", x, here["kl_exact"], schedule=names)
    if panel.exact is not None:
        exact = panel.exact.sel(schedule=names)["kl_exact"]
        rows.add("lines", "exact score", x, exact, schedule=names)
    rows.add("lines", "floor", np.nan, float(here["kl_floor"]), sd=float(here["kl_floor_sd"]))
    return rows.rows


def decomposition_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """The bound taken apart, E1 + E2 + E3, and every error of the same cells beside it.

    A row of two panels for each panel of `kl_figure`: left, the terms stacked on a
    linear axis from zero; right, on one logarithmic axis, the terms, the refined bound,
    the path KL, the exact KL and the empirical KL. One column a schedule: the β_a
    family by increasing a, then the others. Terms are means over runs.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is the column, `schedule` its label.

    Raises
    ------
    ValueError
        If the grid has no such target.
    """
    cells, panels = find_panels(grid, target)
    frame = make_frame(target, (rows for panel in panels for rows in _decomposition_rows(panel)))
    with house_style():
        figure = new_figure(8.6, 3.5 * max(1, len(panels)) + 1.3, target_title(cells))
        axes = figure.subplots(
            max(1, len(panels)), 2, squeeze=False, gridspec_kw={"width_ratios": [0.85, 1]}
        )
        for panel in panels:
            here = frame[frame["panel"] == panel.number]
            left, right = axes[panel.number]
            _draw_stack(left, here[here["axis"] == "stack"], cells)
            _draw_lines(right, here[here["axis"] == "lines"], cells)
            left.set_title(panel_title(panel, grid, "kl_plugin"), loc="left")
        if not panels:
            axes[0, 0].text(0.5, 0.5, "no run of this target in the grid", ha="center")
        add_legend(figure, [ax for pair in axes for ax in pair[::-1]])
    return figure, frame


def _draw_stack(ax: Axes, rows: pd.DataFrame, cells: xr.Dataset) -> None:
    for curve, (_, color) in STACK.items():
        part = rows[rows["curve"] == curve]
        if len(part):
            ax.bar(
                part["x"],
                part["high"] - part["low"],
                bottom=part["low"],
                width=0.86,
                color=color,
                linewidth=0,
                label=f"{curve}, stacked",
            )
    refined = rows[rows["curve"] == "refined bound"]
    if len(refined):
        draw_by_group(ax, refined, LINES["refined bound"], cells)
    if rows.empty:
        ax.set_axis_off()
        ax.text(
            0.5, 0.5, "no bound on these cells", ha="center", va="center", transform=ax.transAxes
        )
    else:
        ax.set_ylabel(with_units("upper bound, stacked", cells["kl_bound"]))
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    set_schedule_axis(ax, rows, cells)


def _draw_lines(ax: Axes, rows: pd.DataFrame, cells: xr.Dataset) -> None:
    lowest = np.inf
    for curve, style in LINES.items():
        part = rows[rows["curve"] == curve]
        positive = part.loc[part["y"] > 0, "y"]
        if positive.empty:  # nothing that a logarithm can show: E2 of an exact score
            continue
        if part["x"].isna().all():
            draw_level(ax, part.iloc[0], style)
        else:
            draw_by_group(ax, part, style, cells)
        if curve != "E1 mixing":  # it decays to e^{-B(T)}: let it leave the axis
            lowest = min(lowest, float(positive.min()))
    ax.set_yscale("log", nonpositive="clip")
    if np.isfinite(lowest):
        ax.set_ylim(bottom=lowest / 3)
    ax.set_ylabel(with_units("errors and bounds", cells["kl_bound"]) + " (log scale)")
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    set_schedule_axis(ax, rows, cells)
