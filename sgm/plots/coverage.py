"""Coupled estimates of few rows against those of all: how far off, and how honest."""

from __future__ import annotations

import pandas as pd
import seaborn as sns
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter
from scipy import stats

from sgm.plots.engine import C, Look, Page, Track, draw_page, wrapped
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

    Returns
    -------
    figure : Figure
    frame : DataFrame
        A row an estimate, a network and a number of rows: `truth`, the root mean square `error`,
        the one `stated`, that of the `plain` estimate, and the `share` of intervals.
    """
    ends = ("coverage_", "_truth")
    names = sorted(
        str(name).removeprefix(ends[0]).removesuffix(ends[1])
        for name in grid.data_vars
        if str(name).startswith(ends[0]) and str(name).endswith(ends[1])
    )
    frame = pd.concat([_table(grid, name) for name in names], ignore_index=True)
    dimensions = sorted(frame["dimension"].unique())
    colors = dict(zip(dimensions, sns.color_palette("viridis", len(dimensions)), strict=True))
    least, most = frame["rows"].min(), frame["rows"].max()
    variables = [grid[f"coverage_{name}_truth"] for name in names]

    def draw_errors(ax: Axes, rows: pd.DataFrame) -> None:
        truth = variables[rows["panel"].iloc[0]]
        relative = "nll" not in str(truth.name)
        scale = rows["truth"].abs() if relative else 1.0
        points = rows.assign(error=rows["error"] / scale, plain=rows["plain"] / scale)
        for dimension, part in points.groupby("dimension"):
            few, many = part[part["rows"] == least], part[part["rows"] == most]
            own = {"color": colors[dimension], "markersize": 3.5}
            ax.plot(many["truth"], many["plain"], "x", alpha=0.7, **own)
            ax.plot(few["truth"], few["error"], "o", **own)
            ax.plot(many["truth"], many["error"], "o", mfc="white", **own)
        ax.set_yscale("log")
        if (rows["truth"] > 0).all():
            ax.set_xscale("log")
            ax.xaxis.set_minor_formatter(NullFormatter())
        if relative:
            low, high = ax.get_ylim()
            low = min(low, TRUSTED / 2)
            ax.axhspan(low, TRUSTED, color=C.FAINT, alpha=0.08, linewidth=0)
            ax.set_ylim(low, high)
        ax.set_ylabel("relative error" if relative else with_units("error", units_of(truth)))
        ax.set_xlabel(with_units("truth", units_of(truth)))

    def draw_shares(ax: Axes, rows: pd.DataFrame) -> None:
        for dimension, part in rows.groupby("dimension"):
            shares = part.groupby("rows")["share"].mean()
            own = {"color": colors[dimension], "markersize": 2.5, "linewidth": 0.9}
            ax.plot(shares.index, shares, "-o", **own)
        sets = int(variables[rows["panel"].iloc[0]].attrs["sets"])
        n = sets * rows["seed"].nunique()  # networks of one seed meet the same noise
        low, high = (stats.binom.ppf(tail, n, LEVEL) / n for tail in (0.005, 0.995))
        ax.axhspan(low, high, color=C.FAINT, alpha=0.12, linewidth=0)
        ax.axhline(LEVEL, color=C.INK, linewidth=0.8)
        ax.set_xscale("log")
        counts = sorted(rows["rows"].unique())
        ax.set_xticks(counts, [f"{count:,}" for count in counts])
        ax.minorticks_off()
        ax.set_ylim(top=1.02)
        ax.set_ylabel("coverage")
        ax.set_xlabel("rows")

    number = {name: i for i, name in enumerate(names)}
    drawn = frame.assign(panel=frame["estimate"].map(number))
    drawn = pd.concat([drawn.assign(axis=axis) for axis in ("errors", "shares")])
    shares = frame.groupby("estimate")["share"].mean()
    titles = {
        i: f"{text_of(variables[i])}\n{shares[name]:.0%} of intervals contain the truth"
        for name, i in number.items()
    }
    legend = [Look(f"d = {int(d)}", color, "none", "o") for d, color in colors.items()]
    legend += [
        Look(f"coupled, {least:,} rows", C.INK, "none", "o"),
        Look(f"coupled, {most:,} rows", C.INK, "none", "o", face="white"),
        Look(f"not coupled, {most:,} rows", C.INK, "none", "x"),
    ]
    handles = [look.handle(look.label, look.color) for look in legend]
    band = "error below 10 %; chance at 95 % coverage"
    columns = min(COLUMNS, len(names))
    tracks = [
        Track("errors", height=2.0, paint=draw_errors),
        Track("shares", height=1.3, paint=draw_shares),
    ]
    page = Page(
        "coupled estimates from few rows against those from all rows",
        wrapped(range(len(names)), tracks, columns), titles=titles, width=2.6 * columns + 0.4,
        handles=[*handles, Patch(color=C.FAINT, alpha=0.12, lw=0, label=band)], loose=True,
    )  # fmt: skip
    return draw_page(drawn, page), frame
