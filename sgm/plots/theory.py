"""Theory against error: each theorem's bound of a divergence and, below it, the error."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from sgm.plots.cells import NOT_VALID, View, make_frame, panel_notes, target_title
from sgm.plots.engine import (
    MEAN_RANGE,
    C,
    LineStyle,
    Look,
    Page,
    Track,
    columns_for,
    draw_page,
    width_for,
    wrapped,
)
from sgm.ranking import Bounding, own_bounds, violations
from sgm.reading import (
    Divergence,
    bound_named,
    divergences_of,
    resolved,
    text_of,
    why_empty,
    with_units,
)

GREY = "grey: theorem does not apply, see above"
VIOLATION = Look("the error exceeds it", C.INK, "none", "x", size=6, order=6)
BOUNDS: tuple[tuple[str, LineStyle, str], ...] = (
    (C.BLUE, "-", "s"), (C.GREEN, (0, (5, 2)), "D"), (C.PURPLE, (0, (1, 1.2)), "^"),
    (C.SKY, (0, (5, 2, 1, 2)), "v"), (C.BROWN, "-", "P"), (C.ORANGE, (0, (7, 2)), "h"),
    (C.PINK, "-", "<"),
)  # fmt: skip


def theory_figure(
    grid: xr.Dataset, target: str, x: str | None = None
) -> tuple[Figure, pd.DataFrame]:
    """Each divergence and all theorems that bound it, on one logarithmic axis.

    A panel a setting, in it an axis for each divergence of which the grid has a bound: the error
    (exact, coupled or empirical) and each total. One column a label of what varies. Where a
    theorem does not apply, as for a sampler that it is not about, its bound is grey, and a cross
    on a bound marks where the error exceeds it beyond the noise (`sgm.ranking.violations`).

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.
    x : str
        A numeric axis of the grid, by default the one that varies.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is the column, `axis` the divergence, `curve` the error or the
        variable of a total, with the objection to it; curve ``violation``: a bound that the
        error exceeds.

    Raises
    ------
    ValueError
        If the grid has no such target or x.
    """
    frame, page = theory_page(grid, target, x)
    return draw_page(frame, page), frame


def theory_page(grid: xr.Dataset, target: str, x: str | None = None) -> tuple[pd.DataFrame, Page]:
    """Frame and page of `theory_figure`: a track a divergence."""
    view = View.of(grid, target, x, stacked=True)
    measures = {d: own_bounds(grid, d) for d in divergences_of(grid)}
    measures = {d: judges for d, judges in measures.items() if judges}
    tables, shown = [], []
    for divergence, judges in measures.items():
        found = _divergence(view, divergence, judges)
        if found:
            tables += found
            shown.append(divergence)
    frame = make_frame(tables, target, view.columns)
    title = f"{target_title(view.cells)}: theory against error"
    if not shown:
        return frame, Page(title, why=why_empty(view.cells))
    looks = _looks(view.cells, {d: measures[d] for d in shown})

    def look(curve: str, series: str) -> Look:
        name, grey, _ = curve.partition(NOT_VALID)
        return looks[name].greyed(looks[name].label) if grey else looks[name]

    shared, own = panel_notes(view, shown[0], None)
    reasons = _reasons(frame)
    if len(reasons) == len(own) and len(set(reasons.values())) == 1:  # the same in all panels
        shared += next(iter(reasons.values())).splitlines()
        reasons = {}
    for panel, text in reasons.items():
        own[panel] = "\n".join(filter(None, (own[panel], text)))
    tracks = [
        Track(d.figure, with_units(d.label, d.units), 2.3, log=True, share=False) for d in shown
    ]
    grey = frame["curve"].str.contains(NOT_VALID).any()
    handles = [Look("", C.GREY_OUT, (0, (3, 2))).handle(GREY, C.GREY_OUT)] if grey else []
    panels = view.panels["panel"].tolist()
    columns = columns_for(len(panels))
    page = Page(
        title, wrapped(panels, tracks, columns), look, [*shared, view.note], own, view.set_x,
        width_for(columns), handles=handles,
    )  # fmt: skip
    return frame, page


def _divergence(view: View, divergence: Divergence, judges: list[Bounding]) -> list[pd.DataFrame]:
    """The error, the totals and where the error exceeds them; empty without an error."""
    best = resolved(view.cells.sel(score=view.scores), divergence)
    error, kind = view.table(divergence.exact, spread="none"), "exact"
    if error["y"].isna().all():
        error = view.table(best, spread="range")
        kind = "coupled" if best != divergence.name else "empirical"
    if error["y"].isna().all():
        return []
    tables, crossed = [], []
    for judge in judges:
        table = view.table(judge.total, spread="none")
        reason = view.objection(table, bound_named(view.cells, judge.bound), judge.total)
        curve = judge.total + reason.where(reason == "", NOT_VALID + reason)
        tables.append(table.assign(curve=curve).dropna(subset="y"))
        beyond = violations(view.cells, divergence, judge.total)
        marks = replace(view, cells=view.cells.assign(beyond=beyond)).table("beyond", spread="none")
        crossed.append(table.assign(curve="violation", n_failed=0)[marks["y"].to_numpy() == 1])
    tables = [table for table in (*tables, *crossed) if len(table)]
    tables.append(error.assign(curve=f"{kind} {divergence.figure}").dropna(subset="y"))
    return [table.assign(axis=divergence.figure) for table in tables]


def _looks(cells: xr.Dataset, measures: dict[Divergence, list[Bounding]]) -> dict[str, Look]:
    """The look of each curve: of the bounds of one divergence, each its own."""
    looks = {"violation": VIOLATION}
    for divergence, judges in measures.items():
        for kind in ("coupled", "empirical", "exact"):
            looks[f"{kind} {divergence.figure}"] = Look(
                f"{divergence.label}, {kind}", C.VERMILLION, "-", "o", band=MEAN_RANGE
            )
        for judge, (color, line, marker) in zip(judges, cycle(BOUNDS), strict=False):
            label = text_of(cells[judge.total])
            looks[judge.total] = Look(label, color, line, marker, 1.1, size=2.6)
    return looks


def _reasons(frame: pd.DataFrame) -> dict[int, str]:
    """Why bounds of a panel are grey, one line a divergence."""
    grey = frame[frame["curve"].str.contains(NOT_VALID)]
    found: dict[int, list[str]] = {}
    for _, rows in grey.groupby(["panel", "axis"], sort=False):
        whys = dict.fromkeys(curve.partition(NOT_VALID)[2] for curve in rows["curve"])
        first = rows.iloc[0]
        found.setdefault(int(first["panel"]), []).append(f"{first['axis']}: {'; '.join(whys)}")
    return {panel: "\n".join(lines) for panel, lines in found.items()}
