"""The schedules themselves: β(t), m_t and σ_t."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure

from sgm.plots.cells import evenly
from sgm.plots.engine import DASHES, LOG_RATIO, SERIES, Band, C, Look, Page, Track, draw_page
from sgm.reading import numeric_axes

VARIABLES = {
    "schedule_beta": r"noise rate $\beta(t)$",
    "schedule_mean_scale": r"mean scale $m_t$",
    "schedule_std": r"standard deviation $\sigma_t$",
}
HORIZONS = 3  # at most
PER_ROW = len(SERIES)  # schedules without a number in a row of panels, where there are many
MAP = [C.BLUE, C.SKY, "#8A8A8A", "#E8A23D", C.VERMILLION]


def schedules_figure(grid: xr.Dataset) -> tuple[Figure, pd.DataFrame]:
    """β(t), m_t and σ_t of every schedule against t; a row of panels a horizon.

    The colour of a schedule is its number, a of β_a, on a map that diverges from grey at 0; those
    without one are black and dashed; of more than can be told apart so, each row of panels has
    some, by colour, and all with a number. Of a single schedule all horizons are in one row, by
    colour. β is logarithmic where one schedule would flatten all others.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is t = time_fraction · T, `curve` the schedule.
    """
    frame, page = schedules_page(grid)
    return draw_page(frame, page), frame


def schedules_page(grid: xr.Dataset) -> tuple[pd.DataFrame, Page]:
    """Frame and page of `schedules_figure`: a track a curve, the variable in the grid."""
    alone = grid.sizes["schedule"] == 1 and grid.sizes["horizon"] > 1
    dimension = "horizon" if alone else "schedule"
    axis = next((axis for axis in numeric_axes(grid) if axis.dimension == dimension), None)
    labels = list(map(str, grid["schedule"].values))
    numbers = grid[axis.name].values if axis else np.full(grid.sizes[dimension], np.nan)
    number = dict(zip(grid[dimension].values.tolist(), map(float, numbers), strict=True))
    every = sorted(grid["horizon"].values.tolist())
    horizons, left_out = evenly(every, len(every) if alone else HORIZONS)
    table = grid[list(VARIABLES)].sel(horizon=horizons).reset_coords(drop=True).to_dataframe()
    frame = table.reset_index().melt(
        ["schedule", "horizon", "time_fraction"], list(VARIABLES), "axis", "y"
    )
    others = [name for name in labels if not alone and not np.isfinite(number[name])]
    rows = (
        {name: k // PER_ROW for k, name in enumerate(others)} if len(others) > len(DASHES) else {}
    )
    n_rows = 1 + max(rows.values(), default=0)
    frame = pd.concat(
        [frame[[rows.get(s, row) == row for s in frame["schedule"]]].assign(panel=row)
         for row in range(n_rows)]
    )  # fmt: skip
    frame["panel"] += n_rows * frame["horizon"].map(
        {t: 0 if alone else i for i, t in enumerate(horizons)}
    )
    frame["x"] = frame["time_fraction"] * frame["horizon"]
    frame["curve"] = frame["schedule"].astype(str)
    frame["series"] = frame["horizon"].map("{:g}".format) if alone else ""
    frame["number"] = frame[dimension].map(number)
    frame = frame.assign(low=np.nan, high=np.nan, n_runs=pd.array([pd.NA] * len(frame), "Int64"))
    place = {name: i for i, name in enumerate(labels)}
    variable = frame["axis"].map({name: i for i, name in enumerate(VARIABLES)})
    keys = [frame["panel"], variable, frame["number"], frame["schedule"].map(place), frame["x"]]
    frame = frame.iloc[np.lexsort([key.to_numpy() for key in keys[::-1]])].reset_index(drop=True)

    known = np.array([value for value in number.values() if np.isfinite(value)])
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    if low < 0 < high or low == high:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    norm = Normalize(low, high)
    colors = LinearSegmentedColormap.from_list(
        "a", [C.BLUE, C.SKY, "#8A8A8A", "#E8A23D", C.VERMILLION]
    )

    def look(curve: str, series: str) -> Look:
        value = number[float(series)] if alone else number[curve]
        if np.isfinite(value):
            return Look("", colors(norm(value)), width=1.0, order=2)
        if rows:
            color, _ = SERIES[others.index(curve) % PER_ROW]
            return Look(curve, color, DASHES[rows[curve] % len(DASHES)], width=1.3)
        dashes = DASHES[others.index(curve)] if len(labels) > 1 else "-"
        return Look(curve, "black", dashes, width=1.5)

    def set_time(ax: Axes, rows: pd.DataFrame, last: bool) -> None:
        T = rows["horizon"].max()
        ax.set_xlabel("time $t$" if alone else f"time $t$, horizon $T$ = {T:g}")
        ax.set_xlim(0, T)

    def add_colorbar(axes: Sequence[Axes]) -> None:
        bar = axes[0].figure.colorbar(
            ScalarMappable(norm, colors), ax=axes, label=axis.label if axis else "",
            aspect=25 * frame["panel"].nunique(), pad=0.02, use_gridspec=False,
        )  # fmt: skip
        bar.outline.set_visible(False)

    tops = frame[frame["axis"] == "schedule_beta"].groupby("curve")["y"].max()
    steep = {"schedule_beta"} if tops.max() > LOG_RATIO * tops.median() else set()
    tracks = [
        Track(name, label, 1.9, log=name in steep, zero=name not in steep)
        for name, label in VARIABLES.items()
    ]
    bands = [Band([panel], tracks, beside=True) for panel in frame["panel"].unique()]
    note = f"{len(horizons)} of {len(horizons) + left_out} horizons shown" if left_out else ""
    page = Page(
        "noise schedules", bands, look, [note], x=set_time, loose=True,
        colorbar=add_colorbar if len(known) > 1 else None,
    )  # fmt: skip
    return frame, page
