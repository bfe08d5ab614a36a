"""The error budget: how much mixing, each part of the time axis and the score add to a bound."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from sgm.plots.cells import View, make_frame, panel_notes, target_title
from sgm.plots.engine import (
    MEAN_RANGE,
    C,
    Look,
    Page,
    Track,
    columns_for,
    draw_bars,
    draw_page,
    empty_page,
    width_for,
    wrapped,
)
from sgm.reading import (
    bound_named,
    divergence_named,
    objection,
    resolved,
    text_of,
    why_empty,
    with_units,
)

#: From the prior to the data: the start, then the steps, then the score, each paler towards T.
COLORS = (
    "#BDBDBD",
    "#C6DCEF", "#8DBBDD", "#4A90C4", "#0B559F",
    "#FBE0C3", "#F5B97A", "#E08A33", "#A8560B",
)  # fmt: skip


def budget_figure(
    grid: xr.Dataset, target: str, bound: str = "w2_one_step", x: str | None = None
) -> tuple[Figure, pd.DataFrame]:
    """The shares of a bound, stacked from zero: mixing, then steps and score by parts of [0, T].

    A panel a setting, a column a label of what varies; the shares add up to the bound. The error
    that it bounds is beside them: its coupled estimate, or the exact or empirical one.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.
    bound : str
        The variable of a bound of the grid that has a `budget`.
    x : str
        A numeric axis of the grid, by default the one that varies.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn: `curve` the share with `y`, and `low` and `high` its ends in the stack.

    Raises
    ------
    ValueError
        If the grid has no such target, bound or x.
    """
    total = bound_named(grid, bound)
    view = View.of(grid, target, x, stacked=True)
    tables = []
    bottom: pd.Series[float] | float = 0.0
    for name in total.budget:
        table = view.table(name, spread="none")
        top = bottom + table["y"]
        tables.append(table.assign(curve=name, low=bottom, high=top)[np.isfinite(top)])
        bottom = top
    looks = {
        name: Look(text_of(view.cells[name]), color, face=color, mark=draw_bars)
        for name, color in zip(total.budget, COLORS * 9, strict=False)
    }
    own = str(grid[bound].attrs.get("divergence", ""))
    if own in grid:
        error = divergence_named(grid, own)
        best = resolved(view.cells.sel(score=view.scores), error)
        table, kind = view.table(best, spread="range"), "coupled" if best != own else "empirical"
        if table["y"].isna().all() and error.exact:
            table, kind = view.table(error.exact, spread="none"), "exact"
        tables.append(table.assign(curve=kind).dropna(subset="y"))
        looks[kind] = Look(f"{error.label}, {kind}", C.INK, "-", "o", 1.0, band=MEAN_RANGE)
    frame = make_frame((t.assign(axis="budget") for t in tables), target, view.columns)
    title = f"{target_title(view.cells)}: error budget of the {total.label}"
    if not frame["curve"].isin(total.budget).any():
        why = "; ".join(filter(None, np.unique(objection(view.cells, total).values.astype(str))))
        return empty_page(title, why or why_empty(view.cells)), frame
    notes, titles = panel_notes(view, None, total)
    label = with_units(f"{total.label}, stacked", total.units)
    panels = view.panels["panel"].tolist()
    columns = columns_for(len(panels))
    page = Page(
        title, wrapped(panels, [Track("budget", label, 2.6, log=False, share=False)], columns),
        lambda curve, series: looks[curve], [*notes, view.note], titles, view.set_x,
        width_for(columns),
    )  # fmt: skip
    return draw_page(frame, page), frame
