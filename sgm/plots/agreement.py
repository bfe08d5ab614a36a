"""How far each bound is from the error, how well it ranks schedules, what following it costs."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgm.plots.cells import evenly
from sgm.plots.engine import SERIES, Band, C, Look, Page, Track, draw_page, empty_page
from sgm.ranking import own_bounds, ranking_table
from sgm.reading import SETTING, divergence_named, divergences_of, text_of

SETTINGS = 4  # drawn at most
SPREAD = 0.62  # of the targets of a row
DECADE = 10.0  # what spans more is drawn in logarithms
#: What each axis shows: value and interval of the ranking, and its label.
MEASURES = {
    "ratio": (("ratio_median", "ratio_min", "ratio_max"), "bound / error"),
    "spearman": (("spearman", "spearman_low", "spearman_high"), "rank correlation"),
    "regret": (("regret", "regret_low", "regret_high"), "error at its pick / least"),
}
WORDS = {
    "score": "score {}",
    "sampler": "sampler {}",
    "time_grid": "{} time grid",
    "horizon": "T = {:g}",
    "n_steps": "N = {:g} steps",
}


def agreement_figure(grid: xr.Dataset) -> tuple[Figure, pd.DataFrame]:
    """The ranking of schedules by bounds (`sgm.ranking`): ratio, rank correlation, regret.

    A line a setting, in it a row each bound of each divergence of its own and a dot each target;
    of ratios the median and the range over schedules. Open dots:
    the bound is no theorem there; a cross: the error exceeds it somewhere beyond the noise.
    Intervals are those of the table. Settings where most bounds apply come first.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn: `y` the value with `low` and `high`, on the horizontal axis, `x` the row,
        `curve` the bound, `series` the target, `covered` and `violations`.
    """
    frame = _frame(grid)
    title = f"{grid.attrs.get('study', 'grid')}: do the bounds rank schedules as the error does?"
    if frame.empty:
        return empty_page(title, "no bound beside an error for two schedules or more"), frame
    targets = list(dict.fromkeys(frame["series"]))
    names = dict(zip(frame["x"], frame["row"], strict=True))
    settings = frame.drop_duplicates("panel")
    varying = [name for name in WORDS if settings[name].nunique() > 1]
    titles = {
        row["panel"]: ", ".join(WORDS[name].format(row[name]) for name in varying)
        for _, row in settings.iterrows()
    }
    first = settings.iloc[0]
    shared = ", ".join(WORDS[name].format(first[name]) for name in WORDS if name not in varying)
    left = int(frame["left_out"].iloc[0])
    notes = [shared, f"{len(settings)} of {len(settings) + left} settings shown" if left else ""]
    colors = dict(zip(targets, cycle(SERIES), strict=False))

    def paint(measure: str) -> Track:
        return Track(
            measure, height=0.5 + 0.2 * len(names) + 0.035 * len(names) * len(targets),
            paint=lambda ax, rows: _draw(ax, rows, measure, names, colors),
        )  # fmt: skip

    tracks = [paint(measure) for measure in MEASURES]
    bands = [Band([panel], tracks, beside=True) for panel in settings["panel"]]
    handles = [
        Look("", color, "none", marker, size=4).handle(target, color)
        for target, (color, marker) in colors.items()
    ]
    if not frame["covered"].all():
        handles.append(
            Look("", C.INK, "none", "o", size=4, face="white").handle(
                "theorem does not apply", C.INK
            )
        )
    if (frame["violations"] > 0).any():
        handles.append(
            Look("", C.INK, "none", "x", size=5).handle("the error exceeds it somewhere", C.INK)
        )
    page = Page(title, bands, notes=notes, titles=titles, width=9.4, loose=True, handles=handles)
    return draw_page(frame, page), frame.drop(columns="left_out")


def _frame(grid: xr.Dataset) -> pd.DataFrame:
    """A row a (setting, bound, target, measure)."""
    table: pd.DataFrame = ranking_table(grid)
    if table.empty:
        return table
    table = table[(table["varies"] == "schedule") & (table["among"] == "all") & (table["n"] > 1)]
    own = {d.name: {b.total for b in own_bounds(grid, d)} for d in divergences_of(grid)}
    bounded = [b in own[d] for d, b in zip(table["divergence"], table["bound"], strict=True)]
    table = table[np.array(bounded, dtype=bool) & np.isfinite(table["ratio_median"])]
    if table.empty:
        return table
    setting = [name for name in SETTING if name != "target"]
    covered = table.groupby(setting, sort=False)["covered"].sum()
    shown, left = evenly(list(covered.sort_values(ascending=False, kind="stable").index), SETTINGS)
    panels = {labels: panel for panel, labels in enumerate(shown)}
    labels = table[setting].itertuples(index=False, name=None)
    table = table.assign(panel=[panels.get(one, -1) for one in labels], left_out=left)
    table = table[table["panel"] >= 0]
    table["row"] = [
        f"{divergence_named(grid, divergence).figure}: {text_of(grid[bound])}"
        for divergence, bound in zip(table["divergence"], table["bound"], strict=True)
    ]
    rows = {row: i for i, row in enumerate(dict.fromkeys(table["row"]))}
    found = []
    told = ["panel", *SETTING, "divergence", "error", "bound", "row", "covered", "violations"]
    for axis, ((value, low, high), _) in MEASURES.items():
        one = table[[*told, "left_out", value, low, high]].assign(
            axis=axis, series=table["target"], x=table["row"].map(rows)
        )
        columns = {value: "y", low: "low", high: "high", "bound": "curve"}
        found.append(one.rename(columns=columns).dropna(subset="y"))
    whole: pd.DataFrame = pd.concat(found, ignore_index=True)
    return whole


def _draw(
    ax: Axes, rows: pd.DataFrame, measure: str, names: dict[float, str],
    colors: dict[str, tuple[str, str]],
) -> None:  # fmt: skip
    label = MEASURES[measure][1]
    ax.axvline(1, color=C.FAINT, linewidth=0.7)
    places = np.linspace(-SPREAD / 2, SPREAD / 2, len(colors)) if len(colors) > 1 else [0.0]
    for place, (target, (color, marker)) in zip(places, colors.items(), strict=True):
        for _, row in rows[rows["series"] == target].iterrows():
            at, face = row["x"] + place, color if row["covered"] else "white"
            if np.isfinite(row["low"]):
                ax.plot([row["low"], row["high"]], [at, at], color=color, linewidth=0.9)
            ax.plot(row["y"], at, marker, color=color, markersize=3.6, markerfacecolor=face)
            if row["violations"] > 0 and measure == "ratio":
                ax.plot(row["y"], at, "x", color=C.INK, markersize=6)
    ax.set_ylim(len(names) - 0.5, -0.5)
    for between in range(1, len(names)):
        ax.axhline(between - 0.5, color="#E6E6E6", linewidth=0.6)
    ax.set_yticks(list(names), labels=list(names.values()) if measure == "ratio" else [])
    ax.tick_params(axis="y", labelsize=7)
    if measure == "spearman":
        ax.set_xlim(-1.05, 1.05)
    elif rows["y"].min() > 0 and rows["y"].max() > DECADE * rows["y"].min():
        ax.set_xscale("log")
        label += " (log scale)"
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel(label, fontsize=7.5)
