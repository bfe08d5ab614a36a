"""Estimates against the truth, where the law of the sampler is exact."""

from __future__ import annotations

import numpy as np
import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from sgm.plots.style import FAINT, INK, empty_page, house_style, new_figure
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
        runs = over_runs(finite(cells, name))
        points = xr.Dataset(
            {
                "x": finite(cells, divergence.exact),
                "y": runs.mean,
                "sd": runs.sd,
                "n_runs": runs.count,
            }
        )
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
    measured = set(tables[0]["target"])
    levels = levels[levels["target"].isin(measured)]
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

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn, a row a cell: `x` the exact value, `y` the mean, its band, its
        `error`, `relative_error` and `relative_sd`. An estimate at or below zero has no place on
        the upper axis; the panel's title counts them.
    """
    cells = grid.drop_dims("time_fraction", errors="ignore").load()
    chosen = [
        divergence
        for divergence in divergences_of(grid)
        if divergence.exact
        and bool((np.isfinite(cells[divergence.exact]) & np.isfinite(cells[divergence.name])).any())
    ]
    targets = [str(label) for label in grid["target"].values]
    colors = dict(zip(targets, sns.color_palette("colorblind", len(targets)), strict=True))
    if len(targets) > 10:
        colors = dict(zip(targets, sns.color_palette("viridis", len(targets)), strict=True))
    looks = {t: (colors[t], MARKERS[i % len(MARKERS)]) for i, t in enumerate(targets)}
    frame = pd.concat(
        [_rows(cells, divergence, i) for i, divergence in enumerate(chosen)] or [pd.DataFrame()],
        ignore_index=True,
    )
    columns = min(COLUMNS, max(1, len(chosen)))
    bands = -(-max(1, len(chosen)) // columns)
    with house_style():
        title = "estimates against exact values"
        if not chosen:
            return empty_page(
                title, f"nothing sampled whose law is exact: {why_empty(cells)}"
            ), frame
        figure = new_figure(max(4.4, 2.9 * columns + 0.4), 4.6 * bands + 0.8, title)
        axes = figure.subplots(
            2 * bands, columns, squeeze=False, gridspec_kw={"height_ratios": [1.5, 1] * bands}
        )
        for ax in axes.ravel()[len(chosen) :]:
            ax.set_axis_off()
        for i, divergence in enumerate(chosen):
            here = frame[frame["panel"] == i]
            row, column = 2 * (i // columns), i % columns
            for ax in axes[row : row + 2, column]:
                ax.set_axis_on()
            _draw_values(axes[row, column], here, divergence, looks)
            axes[row + 1, column].sharex(axes[row, column])
            axes[row, column].tick_params(labelbottom=False)
            _draw_errors(axes[row + 1, column], here, divergence, looks)
        _legend(figure, frame, looks, cells)
    return figure, frame


def _is_linear(rows: pd.DataFrame) -> bool:
    """Whether exact values are no positive numbers, such as an NLL's may be."""
    x = rows.loc[rows["curve"] != "floor", "x"]
    return bool((x < 0).any() or (x == 0).all())


def _draw_values(
    ax: Axes, rows: pd.DataFrame, divergence: Divergence, looks: dict[str, tuple[object, str]]
) -> None:
    points, linear = rows[rows["curve"] != "floor"], _is_linear(rows)
    points = points if linear else points[points["x"] > 0]
    shown = points if linear else points[points["y"] > 0]
    for (target, curve), part in shown.groupby(["target", "curve"], sort=False):
        color, marker = looks[str(target)]
        low = part["low"] if linear else part["low"].clip(lower=part["y"] / 1e3)  # to the edge
        ax.errorbar(
            part["x"],
            part["y"],
            yerr=np.nan_to_num([part["y"] - low, part["high"] - part["y"]]),
            fmt=marker,
            color=color,
            markersize=3.2,
            markerfacecolor="white" if curve == "unbiased" else color,
            elinewidth=0.6,
            markeredgewidth=0.8,
            zorder=4 if curve == "unbiased" else 3,
        )
    floors = rows[(rows["curve"] == "floor") & ((rows["y"] > 0) | linear)]
    for _, level in floors.iterrows():
        ax.axhline(level["y"], color=looks[str(level["target"])][0], linestyle="--", linewidth=0.8)
    ends = points["x"].min(), points["x"].max()
    ax.plot(ends, ends, color=INK, linewidth=0.8, zorder=2)
    if not linear:
        ax.set_xscale("log")
        ax.set_yscale("log", nonpositive="clip")
        values = pd.concat([points["x"], shown["y"], floors["y"]])
        ax.set_ylim(values.min() / 2, values.max() * 2)
    ax.set_ylabel(with_units("estimate", divergence.units))
    lost = len(points) - len(shown)
    note = f"\n{lost} means ≤ 0 not shown" if lost else ""
    ax.set_title(f"{divergence.label}{note}", loc="left")


def _draw_errors(
    ax: Axes, rows: pd.DataFrame, divergence: Divergence, looks: dict[str, tuple[object, str]]
) -> None:
    linear = _is_linear(rows)
    error = "error" if linear else "relative_error"
    points = rows[rows["curve"] != "floor"].dropna(subset=error)
    for (target, curve), part in points.groupby(["target", "curve"], sort=False):
        color, marker = looks[str(target)]
        ax.errorbar(
            part["x"],
            part[error],
            yerr=np.nan_to_num(part["high"] - part["y"] if linear else part["relative_sd"]),
            fmt=marker,
            color=color,
            markersize=3.2,
            markerfacecolor="white" if curve == "unbiased" else color,
            elinewidth=0.6,
            markeredgewidth=0.8,
            zorder=4 if curve == "unbiased" else 3,
        )
    ax.axhline(0, color=INK, linewidth=0.8, zorder=2)
    if not linear:
        ax.axhspan(-LINEAR, LINEAR, color=FAINT, alpha=0.08, linewidth=0)
        ax.set_yscale("symlog", linthresh=LINEAR, linscale=0.8)
        low, high = ax.get_xlim()
        if high < NARROW * low:  # too few powers of ten to read a value from
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylabel(with_units("error", divergence.units) if linear else "relative error")
    ax.set_xlabel(with_units("exact value", divergence.units))


def _legend(
    figure: Figure,
    frame: pd.DataFrame,
    looks: dict[str, tuple[object, str]],
    cells: xr.Dataset,
) -> None:
    """Targets by colour and marker; what is filled, open and dashed."""

    def mark(marker: str, color: object, label: str, **options: object) -> Line2D:
        return Line2D([], [], color=color, marker=marker, markersize=3.5, label=label, **options)  # type: ignore[arg-type]

    handles = [
        mark(marker, color, f"{target}, d = {int(cells['dimension'].sel(target=target))}", ls="")
        for target, (color, marker) in looks.items()
        if target in set(frame["target"])
    ]
    handles.append(mark("o", INK, "estimate, mean ± 1 sd over runs", ls=""))
    if (frame["curve"] == "unbiased").any():
        handles.append(mark("o", INK, "without its bias", ls="", markerfacecolor="white"))
    if (frame["curve"] == "floor").any():
        handles.append(mark("", FAINT, "noise floor of a target", ls="--"))
    handles.append(mark("", INK, "the truth", ls="-"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(len(handles), int(figure.get_figwidth() / 2.2))),
    )
