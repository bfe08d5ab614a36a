"""A bound taken apart, with the error of the same cells beside it."""

from __future__ import annotations

from dataclasses import replace
from itertools import cycle

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm.plots.cells import NOT_VALID, View, bound_notes, make_frame, panel_notes, target_title
from sgm.plots.engine import (
    GREY,
    MEAN_RANGE,
    Band,
    C,
    LineStyle,
    Look,
    Page,
    Track,
    draw_bars,
    draw_line,
    draw_page,
)
from sgm.reading import (
    Bound,
    Divergence,
    bound_named,
    divergences_of,
    resolved,
    text_of,
    why_empty,
    with_units,
)

# Of the terms, from the top of the stack: colour of the line, of the bar, and the marker.
# The largest term is at the bottom and pale, so that the others show on top of it.
TERMS = (
    (C.BLUE, C.BLUE, "v"), (C.ORANGE, C.ORANGE, "^"), (C.SKY, "#BFDCEF", "_"),
    ("#9A8C1F", "#E9E2B4", "|"), (C.GREEN, "#CFE8DD", "1"),
)  # fmt: skip
REFINED: tuple[tuple[str, LineStyle, str], ...] = (
    (C.INK, (0, (5, 2)), "x"),
    (C.PURPLE, "-", "D"),
    (C.GREEN, (0, (1, 1)), "*"),
    (C.BLUE, (0, (6, 2)), "P"),
)


def decomposition_figure(
    grid: xr.Dataset, target: str, bound: str = "kl_bound", x: str | None = None
) -> tuple[Figure, pd.DataFrame]:
    """A bound taken apart into its terms, and the error of the same cells beside it.

    A row a setting, of those where the bound's theorem applies; where it applies to none, all.
    Left, the terms stacked on a linear axis from zero, with the first refined total; right, on a
    logarithmic axis, the terms, the totals, and the divergence that the bound is of: its coupled
    estimate, or the empirical one and its floor, and exact values. One column a label of
    what varies. Terms are means over runs. Where the theorem does not apply, terms and totals are
    grey and hatched or dashed, and the title says why.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.
    bound : str
        The variable of a bound of the grid.
    x : str
        A numeric axis of the grid, by default the one that varies.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is the column.

    Raises
    ------
    ValueError
        If the grid has no such target, bound or x.
    """
    frame, page = decomposition_page(grid, target, bound, x)
    return draw_page(frame, page), frame


def decomposition_page(
    grid: xr.Dataset, target: str, bound: str, x: str | None = None
) -> tuple[pd.DataFrame, Page]:
    """Frame and page of `decomposition_figure`: the tracks ``stack`` and ``lines``."""
    total = bound_named(grid, bound)
    own = str(grid[bound].attrs.get("divergence", ""))
    errors = [e for e in divergences_of(grid) if total.name == e.bound or e.name == own]
    errors.sort(key=lambda error: error.figure != total.figure)  # its own divergence first
    errors = errors[:1]  # the others have figures of their own, the bound above them
    view = View.of(grid, target, x, stacked=True)
    view, note = _where_it_applies(view, total)
    tables = [*_terms(view, total), *(t for error in errors for t in _error(view, error))]
    frame = make_frame(tables, target, view.columns)
    title = f"{target_title(view.cells)}: the terms of the {total.label}"
    if view.panels.empty:
        return frame, Page(title, why=why_empty(view.cells))
    looks = _looks(view.cells, total, errors)

    def look(curve: str, series: str) -> Look:
        name, grey, _ = curve.partition(NOT_VALID)
        if not grey:
            return looks[name]
        greyed = looks[name].greyed(looks[name].label)
        if name not in total.parts:
            return greyed
        shade = 0.9 - 0.4 * total.parts.index(name) / len(total.parts)
        return replace(greyed, face=str(round(shade, 3)))

    notes, titles = panel_notes(view, errors[0] if errors else None, total)
    stack = Track("stack", with_units(f"{total.label}, stacked", total.units), 2.6, log=False,
                  share=False, finish=_say_none)  # fmt: skip
    lines = Track("lines", with_units("errors and bounds", total.units), 2.6, log=True,
                  share=False, finish=lambda ax, rows: _set_bottom(ax, rows, total))  # fmt: skip
    bands = [Band([panel], [stack, lines], beside=True) for panel in view.panels["panel"]]
    grey = frame["curve"].str.contains(NOT_VALID).any()
    handles = [Look("", C.GREY_OUT, (0, (3, 2))).handle(GREY, C.GREY_OUT)] if grey else []
    return frame, Page(title, bands, look, [*notes, note], titles, view.set_x, handles=handles)


def _where_it_applies(view: View, bound: Bound) -> tuple[View, str]:
    """The view without panels where the theorem applies nowhere, if it applies in others."""
    texts = bound_notes(view, bound)
    table = view.table(bound.name, spread="none").dropna(subset="y")
    valid = set(table.loc[view.objection(table, bound) == "", "panel"])
    lost = [panel for panel in view.panels["panel"] if panel not in valid]
    if not valid or not lost:
        return view, ""
    kept = view.panels[view.panels["panel"].isin(valid)].reset_index(drop=True)
    reasons = "; ".join(dict.fromkeys(texts[panel].rpartition(": ")[2] for panel in lost))
    kept = kept.assign(panel=range(len(kept)))
    count = f"{len(lost)} of {len(lost) + len(kept)} settings"
    note = f"{count} left out, where it does not apply: {reasons}"
    return replace(view, panels=kept), note


def _refined_part(cells: xr.Dataset, part: str) -> list[str]:
    return [name for name in str(cells[part].attrs.get("refined", "")).split() if name in cells]


def _terms(view: View, bound: Bound) -> list[pd.DataFrame]:
    """The stack, and on the other axes the terms and totals, split where they are no bound."""
    parts = {name: view.table(name, spread="none") for name in bound.parts}
    names = [n for part in bound.parts for n in (part, *_refined_part(view.cells, part))]
    lines = [(name, "") for name in names]
    totals = [(bound.name, ""), *((name, name) for name in bound.refined)]
    found = []
    if parts:
        whole = sum(table["y"] for table in parts.values())
        bottom = 0 * whole
        for name, table in parts.items():
            top = bottom + table["y"]
            bar = table.assign(axis="stack", low=bottom, high=top)[np.isfinite(whole)]
            found.append((bar, name, ""))
            bottom = top
    found += [(view.table(n, spread="none").assign(axis="stack"), n, n) for n in bound.refined[:1]]
    for name, total in (*totals, *lines):
        table = parts[name] if name in parts else view.table(name, spread="none")
        found.append((table.assign(axis="lines"), name, total))
    tables = []
    for table, name, total in found:
        reason = view.objection(table, bound, total)
        curve = name + reason.where(reason == "", NOT_VALID + reason)
        tables.append(table.assign(curve=curve).dropna(subset="y"))
    return tables


def _error(view: View, error: Divergence) -> list[pd.DataFrame]:
    """A divergence: its best estimate, or the plain one with its floor; and exact values."""
    best = resolved(view.cells.sel(score=view.scores), error)
    plain = best == error.name  # a coupled estimate lies below the floor
    # mean − sd may be negative, which a logarithmic axis can't show: the range of the runs
    own = view.table(best, spread="range")
    shown = own[own["y"].notna() | (own["n_failed"] > 0)]
    found = [shown.assign(curve=error.name if plain else f"{error.name} coupled")]
    if error.exact:
        found.append(view.table(error.exact, spread="none").assign(curve=f"{error.name} exact law"))
        if view.exact:
            ideal = view.table(error.exact, score=view.exact, spread="none")
            found.append(ideal.assign(curve=f"{error.name} exact score"))
    found = [found[0], *(table.dropna(subset="y") for table in found[1:])]
    if plain:
        found.append(view.level("lines", f"{error.name} floor", error.floor, error.floor_sd))
    return [table.assign(axis="lines") for table in found if len(table)]


def _looks(cells: xr.Dataset, bound: Bound, errors: list[Divergence]) -> dict[str, Look]:
    """The look of each curve, by its name."""
    looks = {bound.name: Look(bound.label, C.INK, "-", "s", size=2.8)}
    for name, (color, line, marker) in zip(bound.refined, cycle(REFINED), strict=False):
        looks[name] = Look(text_of(cells[name]), color, line, marker, 1.0, size=2.6)
    for name, (color, bar, marker) in zip(bound.parts[::-1], cycle(TERMS), strict=False):
        size = 6 if marker in "_|1" else 3.2
        looks[name] = Look(
            text_of(cells[name]), color, "-", marker, size=size, face=bar, mark=_draw_term
        )
        for other in _refined_part(cells, name):
            looks[other] = Look(text_of(cells[other]), color, (0, (5, 2)), "x", 1.1)
    for error in errors:
        label, color, marker = error.label, C.VERMILLION, "o"
        looks |= {
            error.name: Look(f"{label}, empirical", color, "-", marker, band=MEAN_RANGE),
            f"{error.name} coupled": Look(f"{label}, coupled", color, "-", marker, band=MEAN_RANGE),
            f"{error.name} exact law": Look(f"{label}, exact", color, (0, (6, 2)), "d", 1.0, 2.6),
            f"{error.name} exact score": Look(f"{label}, exact score", color, ":", "+", size=4),
            f"{error.name} floor": Look(f"{label}, noise floor", color, (0, (2, 2)), width=0.8),
        }
    return looks


def _draw_term(ax: Axes, rows: pd.DataFrame, look: Look) -> None:
    """A bar of the stack, or a line on the other axes, which has nothing at zero."""
    if rows["axis"].iloc[0] == "stack":
        draw_bars(ax, rows, look)
    else:
        draw_line(ax, rows, replace(look, face=None))


def _say_none(ax: Axes, rows: pd.DataFrame) -> None:
    if rows.empty:
        ax.set_axis_off()
        text = "no bound on these cells"
        ax.text(0.5, 0.5, text, ha="center", va="center", transform=ax.transAxes)


def _set_bottom(ax: Axes, rows: pd.DataFrame, bound: Bound) -> None:
    """The top of the stack, mixing, decays to e^{−B(T)}: let it leave the axis."""
    kept = rows[~rows["curve"].str.startswith(bound.parts[-1:]) & (rows["y"] > 0)]
    if len(kept):
        ax.set_ylim(bottom=kept["y"].min() / 3)
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
