"""The schedules themselves: β(t), m_t and σ_t."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgm.plots.style import BLUE, ROUND, SKY, VERMILLION, add_legend, house_style, new_figure
from sgm.reading import in_order, shapes

SCHEDULE_PANELS = {
    "schedule_beta": r"noise rate $\beta(t)$",
    "schedule_mean_scale": r"mean scale $m_t$",
    "schedule_std": r"standard deviation $\sigma_t$",
}
DASHES = ((0, (4, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))


def schedules_figure(grid: xr.Dataset) -> tuple[Figure, pd.DataFrame]:
    """β(t), m_t and σ_t of every schedule against t; one row of panels a horizon.

    The colour of a β_a schedule is its a, on a map that diverges from grey at a = 0;
    the other schedules are black and dashed.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is t = time_fraction · T, `curve` the schedule.
    """
    family, others = in_order(grid)
    a = dict(zip(map(str, grid["schedule"].values), shapes(grid), strict=True))
    horizons = [float(T) for T in grid["horizon"].values]
    rows = []
    for row, T in enumerate(horizons):
        for column, variable in enumerate(SCHEDULE_PANELS):
            for name in family + others:
                values = grid[variable].sel(horizon=T, schedule=name)
                table = {
                    "panel": row * len(SCHEDULE_PANELS) + column,
                    "horizon": T,
                    "axis": variable,
                    "curve": name,
                    "a": a[name],
                    "x": grid["time_fraction"].values * T,
                    "y": values.values,
                    "low": np.nan,
                    "high": np.nan,
                    "n_runs": pd.NA,
                }
                rows.append(pd.DataFrame(table))
    frame = pd.concat(rows, ignore_index=True)
    frame["n_runs"] = frame["n_runs"].astype("Int64")

    spread = max((abs(a[name]) for name in family), default=1.0) or 1.0
    norm = Normalize(-spread, spread)
    colors = LinearSegmentedColormap.from_list("a", [BLUE, SKY, "#8A8A8A", "#E8A23D", VERMILLION])
    with house_style():
        figure = new_figure(8.6, 2.5 * len(horizons) + 0.8, "noise schedules")
        axes = figure.subplots(len(horizons), len(SCHEDULE_PANELS), squeeze=False)
        for panel, ax in enumerate(axes.ravel()):
            for curve, points in frame[frame["panel"] == panel].groupby("curve", sort=False):
                name = str(curve)
                inside = name in family
                ax.plot(
                    points["x"],
                    points["y"],
                    color=colors(norm(a[name])) if inside else "black",
                    linestyle="-" if inside else DASHES[others.index(name) % len(DASHES)],
                    linewidth=1.0 if inside else 1.5,
                    label=None if inside else name,
                    zorder=2 if inside else 3,
                )
        for row, T in enumerate(horizons):
            for ax, label in zip(axes[row], SCHEDULE_PANELS.values(), strict=True):
                ax.set_title(label, loc="left", fontsize=8.5)
                ax.set_xlabel(f"time $t$, horizon $T$ = {T:g}")
                ax.set_xlim(0, T)
                ax.set_ylim(bottom=0)
                ax.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        if family:
            bar = figure.colorbar(
                ScalarMappable(norm, colors),
                ax=axes,
                label=r"$a$ of $\beta_a$",
                aspect=30,
                pad=0.02,
            )
            bar.outline.set_visible(False)
        add_legend(figure, axes.ravel())
    return figure, frame
