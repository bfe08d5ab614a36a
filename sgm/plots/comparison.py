"""A family at its best against VPSDE and the other schedules, run by run [S2].

[S2] Le Corff, slides "Most times are used multiple times": comparison with the literature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from sgm.comparison import Comparison, compare, multiplicity, nothing_compared
from sgm.plots.cells import View, make_frame, panel_notes, target_title
from sgm.plots.engine import (
    SD,
    Band,
    C,
    Look,
    Page,
    Track,
    draw_level,
    draw_page,
    empty_page,
    spans_decades,
    wrap,
)
from sgm.reading import divergences_of, with_units

COLORS = (C.VERMILLION, C.GREEN, C.PURPLE, C.BROWN, C.SKY, C.ORANGE)
FLOOR = Look("noise floor", C.FAINT, "--", width=0.9)
WIDE = 10.0  # ratio of differences beyond which they are drawn on logarithmic scales
LABEL_WIDTH = 32  # characters below an axis, beside another one
BOX, SPREAD = 0.72, 0.26  # height of a box, and of its runs, across the row of a schedule


@dataclass(frozen=True)
class Pair:
    """A setting and a divergence: a line of two axes."""

    setting: pd.Series[Any]
    comparisons: list[Comparison]

    @property
    def axis(self) -> str:
        return self.comparisons[0].divergence.figure

    @property
    def label(self) -> str:
        first = self.comparisons[0]
        label = first.divergence.label + (", coupled" if first.coupled else "")
        return with_units(label, first.divergence.units)


def _rows(panel: int, pair: Pair) -> list[pd.DataFrame]:
    """Runs of the best of the family and of each other schedule, then their differences."""
    first = pair.comparisons[0]
    labels: dict[Any, Any] = pair.setting.drop("panel").to_dict()
    tables = []

    def add(axis: str, curve: str, x: Any, y: Any, **columns: Any) -> None:
        own = {"axis": axis, "curve": curve, "x": x, "y": y, **columns}
        tables.append(pd.DataFrame({"panel": panel, **labels, **own}))

    others = [(c.reference, c.other_values) for c in pair.comparisons]
    for row, (name, runs) in enumerate([(first.name, first.values), *others]):
        add(pair.axis, "runs", _places(len(runs), row), runs, schedule=name)
        low, median, high = np.quantile(runs[np.isfinite(runs)], [0.25, 0.5, 0.75])
        add(pair.axis, "quartiles", [row], [median], low=low, high=high, schedule=name)
    for row, c in enumerate(pair.comparisons, start=1):
        axis, d = f"{pair.axis} difference", c.values - c.other_values
        add(axis, "runs", _places(len(d), row), d, schedule=c.reference)
        own = {"low": c.low, "high": c.high, "n_runs": c.pairs, "schedule": c.reference}
        add(axis, "mean", [row], [c.difference], **own)
    if np.isfinite(first.floor):
        ends = {"low": first.floor - first.floor_sd, "high": first.floor + first.floor_sd}
        add(pair.axis, "floor", [np.nan], [first.floor], **ends)
    return tables


def _of_first(comparisons: list[Comparison]) -> list[Comparison]:
    """Those of the first side that has any."""
    return [c for c in comparisons if c.side == comparisons[0].side]


def _what(c: Comparison) -> str:
    return f"best {c.side.parameters}" if c.side.parameters else c.side.name


def _places(n: int, row: int) -> Any:
    """Where the runs of a row stand: in the order of their seeds, not at random."""
    return row + (np.linspace(-SPREAD, SPREAD, n) if n > 1 else np.zeros(n))


def comparison_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """The study's first family at its best, or its first schedule, against all others.

    The others are VPSDE (β_a with a = 0), each further family at its best and each schedule that
    is of none; `comparison.csv` has all pairs. For each setting and each divergence two axes:
    left, a box and the runs of each schedule, with
    the noise floor; right, the paired differences, a point a run, their mean and its
    95 % interval. The titles say in words whether a difference exceeds the noise, and how many
    intervals would by chance. With six runs or more, each half of them is shown at the label that
    is best on the other half (`sgm.comparison`).

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn: `y` is the value, on the horizontal axis, and `x` the row.

    Raises
    ------
    ValueError
        If the grid has no such target.
    """
    view = View.of(grid, target, settings=True)
    pairs = []
    for _, setting in view.panels.iterrows():
        here = view.cells.sel(setting.drop("panel").to_dict())
        found = [_of_first(compare(here, divergence)) for divergence in divergences_of(grid)]
        pairs += [Pair(setting, comparisons) for comparisons in found if comparisons]
    tables = [table for i, pair in enumerate(pairs) for table in _rows(i, pair)]
    frame = make_frame(tables, target, view.columns)
    title = target_title(view.cells)
    if not pairs:
        why = f"nothing to compare: {nothing_compared(view.cells)}"
        return empty_page(f"{title}: comparison of schedules", why), frame
    side = pairs[0].comparisons[0].side
    what = f"the best {side.parameters}" if side.parameters else side.name
    title += f": {what} against other schedules"
    lost = len(view.panels) - len({pair.setting["panel"] for pair in pairs})
    shared, own = panel_notes(view, pairs[0].comparisons[0].divergence, None)
    notes = [*shared, multiplicity(c for pair in pairs for c in pair.comparisons)]
    notes += [f"{lost} of {len(view.panels)} settings have no runs to compare"] * (lost > 0)
    titles = {}
    for i, pair in enumerate(pairs):
        lines = [f"against {c.reference}: {c.verdict}" for c in pair.comparisons]
        titles[i] = "\n".join(filter(None, [own[pair.setting["panel"]], *lines]))
    differ = frame["axis"].str.endswith(" difference")
    drawn = frame.assign(axis=np.where(differ, "difference", "values"))
    abreast = 2 if len(pairs) > 3 else 1  # so many pairs beside each other
    bands = []
    for k in range(0, len(pairs), abreast):
        panels = range(k, min(k + abreast, len(pairs)))
        height = 0.45 + 0.3 * (1 + max(len(pairs[i].comparisons) for i in panels))
        tracks = [
            Track("values", height=height, paint=lambda ax, rows: _draw_values(ax, rows, pairs)),
            Track(
                "difference",
                height=height,
                paint=lambda ax, rows: _draw_difference(ax, rows, pairs),
            ),
        ]
        bands.append(Band(panels, tracks, beside=True))
    if len(bands) > 1 and len(bands[-1].panels) < abreast:  # a page has columns of one width
        bands[-1] = Band([*bands[-1].panels, len(pairs)], bands[-1].tracks, beside=True)
    handles = [
        Patch(
            facecolor=to_rgba(C.VERMILLION, 0.15),
            edgecolor=C.VERMILLION,
            label="quartiles and runs",
        ),
        Look(width=1.6, marker="D").handle("mean paired difference, 95% interval", C.INK),
        Look(width=1.6, marker="D", face="white").handle(
            "paired difference within the noise", C.INK
        ),
    ]
    if (frame["curve"] == "floor").any():
        handles.append(FLOOR.handle(FLOOR.label + SD, C.FAINT))
    page = Page(
        title, bands, notes=notes, titles=titles, width=8.6 if abreast == 1 else 11.5, loose=True,
        handles=handles,
    )  # fmt: skip
    return draw_page(drawn, page), frame


def _draw_values(ax: Axes, rows: pd.DataFrame, pairs: list[Pair]) -> None:
    runs = rows[rows["curve"] == "runs"]
    names = list(dict.fromkeys(runs["schedule"]))
    for color, (_, part) in zip(COLORS * 9, runs.groupby("schedule", sort=False), strict=False):
        ax.plot(part["y"], part["x"], "o", color=color, markersize=2.6, alpha=0.75)
    boxes = rows[rows["curve"] == "quartiles"]
    for color, (_, box) in zip(COLORS * 9, boxes.iterrows(), strict=False):
        ax.barh(
            box["x"], box["high"] - box["low"], BOX, box["low"],
            facecolor=to_rgba(color, 0.15), edgecolor=color, linewidth=0.8,
        )  # fmt: skip
        ax.vlines(box["y"], box["x"] - BOX / 2, box["x"] + BOX / 2, color=color, linewidth=1.8)
    for _, row in rows[rows["curve"] == "floor"].iterrows():
        draw_level(ax, row, FLOOR, upright=True)
    ax.set_yticks(range(len(names)), labels=names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    label = pairs[rows["panel"].iloc[0]].label
    if spans_decades(rows["y"]):
        ax.set_xscale("log")
        label += " (log scale)"
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.set_xlabel(wrap(label, LABEL_WIDTH), fontsize=7.5)


def _draw_difference(ax: Axes, rows: pd.DataFrame, pairs: list[Pair]) -> None:
    comparisons = pairs[rows["panel"].iloc[0]].comparisons
    ax.axvline(0, color=C.INK, linewidth=0.7)
    for place, c in enumerate(comparisons, start=1):
        mine = rows[rows["schedule"] == c.reference]
        each, mean = mine[mine["curve"] == "runs"], mine[mine["curve"] == "mean"].iloc[0]
        color = COLORS[place % len(COLORS)]
        if c.pairs > 1:
            ax.plot(each["y"], each["x"], "o", color=color, markersize=2.6, alpha=0.5)
        ax.plot([mean["low"], mean["high"]], [place, place], color=C.INK, linewidth=1.6)
        face = C.INK if c.beyond_noise or c.exact else "white"
        ax.plot(mean["y"], place, "D", color=C.INK, markersize=4, markerfacecolor=face)
    ax.set_ylim(len(comparisons) + 0.5, -0.5)
    ax.set_yticks(range(len(comparisons) + 1), labels=[])
    ax.margins(x=0.12)
    reach = [max(abs(c.low), abs(c.high)) for c in comparisons if c.low < c.high]
    wide = len(reach) > 1 and max(reach) > WIDE * min(reach)
    if wide:  # or the largest difference hides the interval of the smallest
        near = min(c.high - c.low for c in comparisons if c.low < c.high)
        ax.set_xscale("symlog", linthresh=10 ** np.floor(np.log10(near)), linscale=0.5)
        ax.tick_params(axis="x", labelsize=6)
    else:
        ax.xaxis.set_major_locator(MaxNLocator(4))
    label = f"difference, {_what(comparisons[0])} − other" + (
        " (log scales about 0)" if wide else ""
    )
    ax.set_xlabel(wrap(label, LABEL_WIDTH), fontsize=7.5)
