"""Coupled estimates of few rows against those of all: how far off, and how honest."""

from __future__ import annotations

from typing import Any

import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter
from scipy import stats

from sgm.plots.style import FAINT, INK, house_style, new_figure
from sgm.reading import text_of, units_of, with_units

COLUMNS = 3
LEVEL = 0.95
TRUSTED = 0.1  # a relative error that is small enough to read a value by
KINDS = ("error", "stated", "plain", "share")


def _table(grid: xr.Dataset, name: str) -> pd.DataFrame:
    """A row a network and number of rows: the truth, the errors, the share of its intervals."""
    columns = {"truth": grid[f"coverage_{name}_truth"]} | {
        kind: grid[f"coverage_{name}_{kind}"] for kind in KINDS
    }
    order = list(grid[f"coverage_{name}_error"].dims)
    table = xr.Dataset(columns).to_dataframe(dim_order=order).reset_index()
    table.insert(0, "estimate", name)
    table["dimension"] = table["target"].map(grid["dimension"].to_series())
    return table.dropna(subset="error")


def coverage_figure(grid: xr.Dataset) -> tuple[Figure, pd.DataFrame]:
    """Where each coupled estimate can be trusted, and whether it says so.

    A pair of axes an estimate. Above, its root mean square error over sets of rows, relative to
    the truth, against the truth: filled with the fewest rows of the study, open with the most;
    crosses, the plain estimate with the most. Of an NLL, which has no zero, the error is in
    nats. Below, the share of its intervals of 1.96 standard errors that hold the truth, over all
    networks of one dimension; the band is where 99 % of such shares lie if 95 % of intervals do.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    figure : Figure
    frame : DataFrame
        A row an estimate, a network and a number of rows: `truth`, the root mean square `error`,
        the one `stated`, that of the `plain` estimate, and the `share` of intervals.
    """
    ends = ("coverage_", "_truth")
    names = [
        str(name).removeprefix(ends[0]).removesuffix(ends[1])
        for name in grid.data_vars
        if str(name).startswith(ends[0]) and str(name).endswith(ends[1])
    ]
    frame = pd.concat([_table(grid, name) for name in sorted(names)], ignore_index=True)
    dimensions = sorted(frame["dimension"].unique())
    colors = dict(zip(dimensions, sns.color_palette("viridis", len(dimensions)), strict=True))
    columns = min(COLUMNS, len(names))
    bands = -(-len(names) // columns)
    with house_style():
        title = "coupled estimates of few rows against those of all rows"
        figure = new_figure(2.6 * columns + 0.4, 4.4 * bands + 0.8, title)
        axes = figure.subplots(
            2 * bands, columns, squeeze=False, gridspec_kw={"height_ratios": [1.5, 1] * bands}
        )
        for ax in axes.ravel():
            ax.set_axis_off()
        for i, name in enumerate(sorted(names)):
            row, column = 2 * (i // columns), i % columns
            here = frame[frame["estimate"] == name]
            variable = grid[f"coverage_{name}_truth"]
            for ax in axes[row : row + 2, column]:
                ax.set_axis_on()
            _draw_errors(axes[row, column], here, variable, colors)
            _draw_shares(axes[row + 1, column], here, int(variable.attrs["sets"]), colors)
        _legend(figure, frame, colors)
    return figure, frame


def _draw_errors(ax: Axes, rows: pd.DataFrame, truth: xr.DataArray, colors: dict[Any, Any]) -> None:
    relative = "nll" not in str(truth.name)
    scale = rows["truth"].abs() if relative else 1.0
    least, most = rows["rows"].min(), rows["rows"].max()
    points = rows.assign(error=rows["error"] / scale, plain=rows["plain"] / scale)
    for dimension, part in points.groupby("dimension"):
        color = colors[dimension]
        few, many = part[part["rows"] == least], part[part["rows"] == most]
        ax.plot(many["truth"], many["plain"], "x", color=color, markersize=3.5, alpha=0.7)
        ax.plot(few["truth"], few["error"], "o", color=color, markersize=3.5)
        ax.plot(many["truth"], many["error"], "o", color=color, markersize=3.5, mfc="white")
    ax.set_yscale("log")
    if (rows["truth"] > 0).all():
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    if relative:
        low, high = ax.get_ylim()
        low = min(low, TRUSTED / 2)
        ax.axhspan(low, TRUSTED, color=FAINT, alpha=0.08, linewidth=0)
        ax.set_ylim(low, high)
    ax.set_ylabel("relative error" if relative else with_units("error", units_of(truth)))
    ax.set_xlabel(with_units("truth", units_of(truth)))
    share = rows["share"].mean()
    ax.set_title(f"{text_of(truth)}\n{share:.0%} of intervals hold the truth", loc="left")


def _draw_shares(ax: Axes, rows: pd.DataFrame, sets: int, colors: dict[Any, Any]) -> None:
    for dimension, part in rows.groupby("dimension"):
        shares = part.groupby("rows")["share"].mean()
        ax.plot(shares.index, shares, "-o", color=colors[dimension], markersize=2.5, linewidth=0.9)
    n = sets * rows["seed"].nunique()  # networks of one seed meet the same noise
    low, high = (stats.binom.ppf(tail, n, LEVEL) / n for tail in (0.005, 0.995))
    ax.axhspan(low, high, color=FAINT, alpha=0.12, linewidth=0)
    ax.axhline(LEVEL, color=INK, linewidth=0.8)
    ax.set_xscale("log")
    counts = sorted(rows["rows"].unique())
    ax.set_xticks(counts, [f"{n:,}" for n in counts])
    ax.minorticks_off()
    ax.set_ylim(top=1.02)
    ax.set_ylabel("coverage")
    ax.set_xlabel("rows")


def _legend(figure: Figure, frame: pd.DataFrame, colors: dict[Any, Any]) -> None:
    least, most = frame["rows"].min(), frame["rows"].max()

    def mark(color: Any, marker: str, label: str, face: Any = None) -> Line2D:
        face = color if face is None else face
        return Line2D([], [], color=color, ls="", marker=marker, ms=3.5, mfc=face, label=label)

    handles: list[Artist] = [
        mark(color, "o", f"d = {int(dimension)}") for dimension, color in colors.items()
    ]
    handles += [
        mark(INK, "o", f"coupled, {least:,} rows"),
        mark(INK, "o", f"coupled, {most:,} rows", "white"),
        mark(INK, "x", f"not coupled, {most:,} rows"),
        Patch(color=FAINT, alpha=0.12, lw=0, label="error below 10 %; chance at 95 % coverage"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
