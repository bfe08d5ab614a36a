"""The best β_a against VPSDE and the other schedules, run by run [S2].

[S2] Le Corff, slides "Most times are used multiple times": comparison with the literature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgm.comparison import Comparison, compare, multiplicity, nothing_compared
from sgm.plots.panels import Panel, find_panels, panel_title, target_title
from sgm.plots.rows import Rows, make_frame
from sgm.plots.style import (
    BROWN,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SD,
    SKY,
    VERMILLION,
    Style,
    add_legend,
    draw_level,
    empty_page,
    house_style,
    is_log,
    new_figure,
)
from sgm.reading import divergences_of, with_units

COLORS = (VERMILLION, GREEN, PURPLE, BROWN, SKY, ORANGE)
FLOOR = Style("noise floor", FAINT, "--", width=0.9, band=SD)
WIDE = 10.0  # ratio of differences beyond which they are drawn on logarithmic scales
BOX, SPREAD = 0.72, 0.26  # height of a box, and of its runs, across the row of a schedule


def _places(values: npt.NDArray[Any], row: int) -> npt.NDArray[np.float64]:
    """Where the runs of a row stand: in the order of their seeds, not at random."""
    if len(values) == 1:
        return np.array([float(row)])
    return row + np.linspace(-SPREAD, SPREAD, len(values))


def _panel_rows(panel: Panel, comparisons: list[Comparison]) -> list[pd.DataFrame]:
    """Runs of the best a and of each other schedule, then their differences."""
    rows, first = Rows(panel), comparisons[0]
    axis = first.divergence.figure
    columns = [(f"best a = {first.a}", first.best), *((c.reference, c.other) for c in comparisons)]
    for row, (name, runs) in enumerate(columns):
        rows.add(axis, "runs", _places(runs, row), runs, schedule=name)
        low, median, high = np.quantile(runs[np.isfinite(runs)], [0.25, 0.5, 0.75])
        rows.add(axis, "quartiles", row, median, low=low, high=high, schedule=name)
    for row, c in enumerate(comparisons, start=1):
        d = c.best - c.other
        rows.add(f"{axis} difference", "runs", _places(d, row), d, schedule=c.reference)
        rows.add(
            f"{axis} difference", "mean", row, c.difference, low=c.low, high=c.high,
            n_runs=c.pairs, schedule=c.reference,
        )  # fmt: skip
    rows.add(axis, "floor", np.nan, first.floor, sd=first.floor_sd)
    return rows.rows


def comparison_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """β_a at its best a against VPSDE (a = 0) and the schedules outside the family.

    For each panel of `divergence_figure` and each divergence a row of two axes: left, a
    box and the runs of each schedule, with the noise floor; right, the paired differences
    best − other, a point a run, their mean and its 95 % interval. The titles say in words
    whether a difference exceeds the noise, and how many intervals would by chance. With six
    runs or more, each half of them is shown at the a that is best on the other half
    (`sgm.comparison`).

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.

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
    cells, panels = find_panels(grid, target)
    compared = {
        panel.number: [
            found
            for divergence in divergences_of(grid)
            if (found := compare(panel.here, divergence))
        ]
        for panel in panels
    }
    lost = len(panels)
    panels = [panel for panel in panels if compared[panel.number]]
    lost -= len(panels)
    frame = make_frame(
        target,
        (
            rows
            for panel in panels
            for comparisons in compared[panel.number]
            for rows in _panel_rows(panel, comparisons)
        ),
    )
    heights = [
        sum(0.75 + 0.37 * len(found) + 0.25 for found in compared[panel.number]) + 0.75
        for panel in panels
    ]
    with house_style():
        if not panels:
            why = f"nothing to compare: {nothing_compared(cells)}"
            return empty_page(target_title(cells), why), frame
        every = (c for panel in panels for found in compared[panel.number] for c in found)
        notes = [f"{lost} of {lost + len(panels)} settings have no runs to compare"] * (lost > 0)
        title = "\n".join(filter(None, [target_title(cells), multiplicity(every), *notes]))
        figure = new_figure(8.6, sum(heights) + 0.8 + 0.18 * title.count("\n"), title)
        drawn: list[Axes] = []
        blocks = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)
        for panel, block in zip(panels, blocks.ravel(), strict=True):
            measured = compared[panel.number]
            here = frame[frame["panel"] == panel.number]
            lines = panel_title(panel, grid, measured[0][0].divergence, None).splitlines()
            block.suptitle(", ".join(lines), x=0.01, ha="left", fontsize=8)
            axes = block.subplots(
                len(measured),
                2,
                squeeze=False,
                sharey="row",
                gridspec_kw={
                    "width_ratios": [1.25, 1],
                    "height_ratios": [len(comparisons) + 2 for comparisons in measured],
                },
            )
            for pair, comparisons in zip(axes, measured, strict=True):
                _draw(pair, here, comparisons)
                drawn += list(pair)
        add_legend(figure, drawn)
    return figure, frame


def _draw(pair: npt.NDArray[Any], rows: pd.DataFrame, comparisons: list[Comparison]) -> None:
    left, right = pair
    divergence = comparisons[0].divergence
    values = rows[rows["axis"] == divergence.figure]
    runs = values[values["curve"] == "runs"]
    for place, (_, part) in enumerate(runs.groupby("schedule", sort=False)):
        color = COLORS[place % len(COLORS)]
        left.plot(part["y"], part["x"], "o", color=color, markersize=2.6, alpha=0.75)
    for place, (_, box) in enumerate(values[values["curve"] == "quartiles"].iterrows()):
        color = COLORS[place % len(COLORS)]
        left.barh(
            box["x"], box["high"] - box["low"], BOX, box["low"],
            facecolor=to_rgba(color, 0.15), edgecolor=color, linewidth=0.8,
            label="quartiles and runs" if place == 0 else None,
        )  # fmt: skip
        left.vlines(box["y"], box["x"] - BOX / 2, box["x"] + BOX / 2, color=color, linewidth=1.8)
    for _, row in values[values["curve"] == "floor"].iterrows():
        draw_level(left, row, FLOOR, upright=True)
    names = list(dict.fromkeys(runs["schedule"]))
    left.set_yticks(range(len(names)), labels=[str(name) for name in names])
    left.set_ylim(len(names) - 0.5, -0.5)
    left.set_ylabel("")
    label = divergence.label + (", coupled" if comparisons[0].coupled else "")
    label = with_units(label, divergence.units)
    if is_log(values):
        left.set_xscale("log")
        left.set_xlabel(f"{label} (log scale)")
    else:
        left.xaxis.set_major_locator(MaxNLocator(5))
        left.set_xlabel(label)

    right.axvline(0, color=INK, linewidth=0.7)
    differences = rows[rows["axis"] == f"{divergence.figure} difference"]
    for place, c in enumerate(comparisons, start=1):
        mine = differences[differences["schedule"] == c.reference]
        each, mean = mine[mine["curve"] == "runs"], mine[mine["curve"] == "mean"].iloc[0]
        color = COLORS[place % len(COLORS)]
        if c.pairs > 1:
            right.plot(
                each["y"], each["x"], "o", color=color, markersize=2.6, alpha=0.5, label=None
            )
        right.plot(
            [mean["low"], mean["high"]],
            [place, place],
            color=INK,
            linewidth=1.6,
            label="mean paired difference, 95% interval",
        )
        right.plot(
            mean["y"],
            place,
            "D",
            color=INK,
            markersize=4,
            markerfacecolor=INK if c.beyond_noise or c.exact else "white",
        )
    right.tick_params(axis="y", labelleft=False)
    right.margins(x=0.12)
    reach = [max(abs(c.low), abs(c.high)) for c in comparisons if c.low < c.high]
    wide = len(reach) > 1 and max(reach) > WIDE * min(reach)
    if wide:  # or the largest difference hides the interval of the smallest
        near = min(c.high - c.low for c in comparisons if c.low < c.high)
        right.set_xscale("symlog", linthresh=10 ** np.floor(np.log10(near)), linscale=0.5)
    else:
        right.xaxis.set_major_locator(MaxNLocator(5))
    right.set_xlabel("difference, best a − other" + (" (log scales about 0)" if wide else ""))
    left.set_title(
        "\n".join(f"best a against {c.reference}: {c.verdict}" for c in comparisons), loc="left"
    )
