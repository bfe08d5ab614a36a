"""Estimates against the truth, where the law of the sampler is exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from sgm.plots.cells import OWN_AXES
from sgm.plots.engine import C, Look, Page, Track, draw_page, empty_page, wrapped
from sgm.reading import Divergence, divergences_of, finite, over_runs, why_empty, with_units

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "h")
NARROW = 50.0  # ratio of the ends of a logarithmic axis
COLUMNS = 3
LINEAR = 0.1  # relative errors below this are drawn on a linear scale


def _rows(cells: xr.Dataset, divergence: Divergence, panel: int) -> pd.DataFrame:
    """A row a cell and estimate: the exact value, the mean over runs, its band, its error."""
    tables = []
    for curve, name in (("estimate", divergence.name), ("unbiased", divergence.unbiased)):
        if not name:
            continue
        runs, exact = over_runs(finite(cells, name)), finite(cells, divergence.exact)
        points = xr.Dataset({"x": exact, "y": runs.mean, "sd": runs.sd, "n_runs": runs.count})
        order = [axis for axis in cells[divergence.name].dims if axis in points.sizes]
        table = points.to_dataframe(dim_order=order)  # xarray's own order may be that of a set
        table = table[["x", "y", "sd", "n_runs"]].dropna(subset=["x", "y"]).reset_index()
        table["low"], table["high"] = table["y"] - table["sd"], table["y"] + table["sd"]
        table["error"] = table["y"] - table["x"]
        table["relative_error"] = table["y"] / table["x"].where(table["x"] > 0) - 1
        table["relative_sd"] = table["sd"] / table["x"].where(table["x"] > 0)
        tables.append(table.assign(curve=curve).drop(columns="sd"))
    floor = finite(cells, divergence.floor)
    floor = floor.mean([dim for dim in floor.dims if dim != "target"])
    levels = floor.to_dataframe("y").reset_index()[["target", "y"]].dropna()
    levels = levels[levels["target"].isin(set(tables[0]["target"]))]
    frame = pd.concat([*tables, levels.assign(curve="floor")], ignore_index=True)
    frame.insert(0, "axis", divergence.figure)
    frame.insert(0, "panel", panel)
    return frame


def calibration_figure(grid: xr.Dataset) -> tuple[Figure, pd.DataFrame]:
    """Every divergence whose exact value is known: its estimate against that value.

    A pair of axes a divergence. Above, mean ± 1 sd over runs against the exact
    value of the sampler's law, on logarithmic axes; filled, the estimate; open, the same
    without its bias; dashed, the noise floor of each target; the diagonal is the truth.
    Below, the relative error, linear within ± 10 % and logarithmic beyond. Of a divergence
    that may be negative, such as an NLL, axes are linear, and the error is the difference.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn, a row a cell: `x` the exact value, `y` the mean, its band, its
        `error`, `relative_error` and `relative_sd`. An estimate at or below zero has no place on
        the upper axis; the panel's title counts them.
    """
    cells = grid.drop_dims(OWN_AXES, errors="ignore").load()
    chosen = [
        divergence
        for divergence in divergences_of(grid)
        if divergence.exact
        and bool((np.isfinite(cells[divergence.exact]) & np.isfinite(cells[divergence.name])).any())
    ]
    tables = [_rows(cells, divergence, i) for i, divergence in enumerate(chosen)]
    frame = pd.concat(tables or [pd.DataFrame()], ignore_index=True)
    title = "estimates against exact values"
    if not chosen:
        return empty_page(title, f"no sampled cell has an exact law: {why_empty(cells)}"), frame
    targets = [str(label) for label in grid["target"].values]
    palette = sns.color_palette("colorblind" if len(targets) <= 10 else "viridis", len(targets))
    looks = {
        target: Look(
            f"{target}, d = {int(cells['dimension'].sel(target=target))}", color, "none",
            MARKERS[i % len(MARKERS)], alpha=0.9,
        )
        for i, (target, color) in enumerate(zip(targets, palette, strict=True))
    }  # fmt: skip
    # what is drawn on the axes below is what the frame says of the same points
    below = frame.assign(axis="error")
    drawn = pd.concat([frame.assign(axis="value"), below], ignore_index=True)
    tracks = [
        Track(
            "value", "estimate", 2.1, paint=lambda ax, rows: _draw_values(ax, rows, chosen, looks)
        ),
        Track("error", "error", 1.4, paint=lambda ax, rows: _draw_errors(ax, rows, chosen, looks)),
    ]
    titles = {}
    for i, divergence in enumerate(chosen):
        own = frame[(frame["panel"] == i) & (frame["curve"] != "floor")]
        lost = 0 if _is_linear(own) else int(((own["x"] > 0) & (own["y"] <= 0)).sum())
        titles[i] = divergence.label + (f"\n{lost} means ≤ 0 not shown" if lost else "")
    kinds = {
        "estimate": Look("estimate, mean ± 1 sd over runs", C.INK, "none", "o"),
        "unbiased": Look("without its bias", C.INK, "none", "o", face="white"),
        "floor": Look("noise floor of a target", C.FAINT, "--"),
    }
    kinds = {k: look for k, look in kinds.items() if (frame["curve"] == k).any()}
    shown = [looks[target] for target in targets if target in set(frame["target"])]
    legend = [*shown, *kinds.values(), Look("the truth", C.INK)]
    columns = min(COLUMNS, len(chosen))
    page = Page(
        title, wrapped(range(len(chosen)), tracks, columns), titles=titles,
        width=max(4.8, 2.9 * columns + 0.4),
        handles=[look.handle(look.label, look.color) for look in legend],
    )  # fmt: skip
    return draw_page(drawn, page), frame


def _is_linear(rows: pd.DataFrame) -> bool:
    """Whether exact values are no positive numbers, such as an NLL's may be."""
    x = rows.loc[rows["curve"] != "floor", "x"]
    return bool((x < 0).any() or (x == 0).all())


def _draw_points(ax: Axes, rows: pd.DataFrame, y: str, low: Any, high: Any, looks: Any) -> None:
    parts = rows.assign(_low=low, _high=high).groupby(["target", "curve"], sort=False)
    for (target, curve), part in parts:
        look = looks[str(target)]
        ax.errorbar(
            part["x"], part[y], yerr=np.nan_to_num([part["_low"], part["_high"]]), fmt=look.marker,
            color=look.color, markersize=3.2, elinewidth=0.6, markeredgewidth=0.8,
            markerfacecolor="white" if curve == "unbiased" else look.color,
            zorder=4 if curve == "unbiased" else 3,
        )  # fmt: skip


def _draw_values(ax: Axes, rows: pd.DataFrame, chosen: list[Divergence], looks: Any) -> None:
    divergence, linear = chosen[rows["panel"].iloc[0]], _is_linear(rows)
    points = rows[rows["curve"] != "floor"]
    points = points if linear else points[points["x"] > 0]
    shown = points if linear else points[points["y"] > 0]
    low = shown["low"] if linear else shown["low"].clip(lower=shown["y"] / 1e3)  # to the edge
    _draw_points(ax, shown, "y", shown["y"] - low, shown["high"] - shown["y"], looks)
    floors = rows[(rows["curve"] == "floor") & ((rows["y"] > 0) | linear)]
    for _, level in floors.iterrows():
        color = looks[str(level["target"])].color
        ax.axhline(level["y"], color=color, linestyle="--", linewidth=0.8)
    ends = points["x"].min(), points["x"].max()
    ax.plot(ends, ends, color=C.INK, linewidth=0.8, zorder=2)
    if not linear:
        ax.set_xscale("log")
        ax.set_yscale("log", nonpositive="clip")
        values = pd.concat([points["x"], shown["y"], floors["y"]])
        ax.set_ylim(values.min() / 2, values.max() * 2)
    ax.set_ylabel(with_units("estimate", divergence.units))


def _draw_errors(ax: Axes, rows: pd.DataFrame, chosen: list[Divergence], looks: Any) -> None:
    divergence, linear = chosen[rows["panel"].iloc[0]], _is_linear(rows)
    error = "error" if linear else "relative_error"
    points = rows[rows["curve"] != "floor"].dropna(subset=error)
    reach = points["high"] - points["y"] if linear else points["relative_sd"]
    _draw_points(ax, points, error, reach, reach, looks)
    ax.axhline(0, color=C.INK, linewidth=0.8, zorder=2)
    if not linear:
        ax.axhspan(-LINEAR, LINEAR, color=C.FAINT, alpha=0.08, linewidth=0)
        ax.set_yscale("symlog", linthresh=LINEAR, linscale=0.8)
        low, high = ax.get_xlim()
        if high < NARROW * low:  # too few powers of ten to read a value from
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel(with_units("error", divergence.units) if linear else "relative error")
    ax.set_xlabel(with_units("exact value", divergence.units))
