"""A bound taken apart, with every error of the same cells beside it."""

from __future__ import annotations

from itertools import cycle

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgm.plots.columns import column_positions, draw_by_group, set_schedule_axis
from sgm.plots.panels import Panel, find_panels, panel_title, target_title
from sgm.plots.rows import NOT_VALID, Rows, make_frame
from sgm.plots.style import (
    BLUE,
    BROWN,
    GREEN,
    INK,
    LINE,
    MEAN_RANGE,
    ORANGE,
    PINK,
    PURPLE,
    SD,
    SKY,
    VERMILLION,
    LineStyle,
    Style,
    add_legend,
    draw_level,
    empty_page,
    house_style,
    new_figure,
)
from sgm.reading import (
    Bound,
    Divergence,
    bound_named,
    divergences_of,
    finite,
    in_order,
    level,
    objections,
    over_runs,
    resolved,
    text_of,
    why_empty,
    with_units,
)
from sgm.store import FAILED

# Of the terms, from the top of the stack: colour of the bar, of the line, and its marker.
# The largest term is at the bottom and pale, so that the others show on top of it.
TERMS = (
    (BLUE, BLUE, "v"),
    (ORANGE, ORANGE, "^"),
    ("#BFDCEF", SKY, "_"),
    ("#E9E2B4", "#9A8C1F", "|"),
    ("#CFE8DD", GREEN, "1"),
)
REFINED: tuple[tuple[str, LineStyle, str], ...] = (
    (INK, (0, (5, 2)), "x"),
    (PURPLE, "-", "D"),
    (GREEN, (0, (1, 1)), "*"),
)
ERRORS = ((VERMILLION, "o"), (BROWN, "P"), (PINK, "X"), (GREEN, "h"))
BOUND = Style("", INK, "-", "s", size=2.8)


def _styles(cells: xr.Dataset, bound: Bound, errors: list[Divergence]) -> dict[str, Style]:
    """The style of each curve, by its name."""
    styles = {bound.name: _named(BOUND, bound.label)}
    for name, (color, line, marker) in zip(bound.refined, cycle(REFINED), strict=False):
        styles[name] = Style(text_of(cells[name]), color, line, marker, 1.0, size=2.6)
    for name, (_, color, marker) in zip(bound.parts[::-1], cycle(TERMS), strict=False):
        styles[name] = Style(
            text_of(cells[name]), color, "-", marker, size=6 if marker in "_|1" else 3.2
        )
        for other in _refined_part(cells, name):
            styles[other] = Style(text_of(cells[other]), color, (0, (5, 2)), "x", 1.1)
    for error, (color, marker) in zip(errors, cycle(ERRORS), strict=False):
        label = error.label
        styles |= {
            error.name: Style(f"{label}, empirical", color, "-", marker, band=MEAN_RANGE),
            f"{error.name} coupled": Style(
                f"{label}, coupled", color, "-", marker, band=MEAN_RANGE
            ),
            f"{error.name} exact law": Style(
                f"{label}, exact law of this score", color, (0, (6, 2)), "d", 1.0, size=2.6
            ),
            f"{error.name} exact score": Style(
                f"{label}, exact score, exact law", color, ":", "+", 1.3, size=4
            ),
            f"{error.name} floor": Style(
                f"{label}, noise floor", color, (0, (2, 2)), width=0.8, band=SD
            ),
        }
    return styles


def _named(style: Style, label: str) -> Style:
    return Style(label, style.color, style.line, style.marker, style.width, style.size)


def _refined_part(cells: xr.Dataset, part: str) -> list[str]:
    return [name for name in str(cells[part].attrs.get("refined", "")).split() if name in cells]


def _panel_rows(panel: Panel, bound: Bound, errors: list[Divergence]) -> list[pd.DataFrame]:
    here, rows = panel.here, Rows(panel)
    family, others = in_order(here)
    names = family + others
    here = here.sel(schedule=names)
    x = column_positions(family, others)
    failed = (here["status"] == FAILED).sum("seed")
    parts = {name: over_runs(finite(here, name)) for name in bound.parts}
    reasons = np.array(objections(here, bound), dtype=object)
    valid = reasons == ""
    if parts:
        whole = xr.concat([part.mean for part in parts.values()], "part").sum("part", skipna=False)
        shown = np.isfinite(whole)
        bottom = xr.zeros_like(whole)
        for name, part in parts.items():
            top = bottom + part.mean
            for applies, curve in ((valid, name), (~valid, name + NOT_VALID)):
                rows.add(
                    "stack", curve, x, part.mean.where(shown & applies),
                    low=bottom.where(shown & applies), high=top.where(shown & applies),
                    schedule=names, n_runs=part.count,
                )  # fmt: skip
            bottom = top
    for total in bound.refined[:1]:
        rows.add_total(
            here, bound, "stack", total, x, over_runs(finite(here, total)),
            total=total, schedule=names, spread=False,
        )  # fmt: skip
    for total in (bound.name, *bound.refined):
        rows.add_total(
            here, bound, "lines", total, x, over_runs(finite(here, total)),
            total="" if total == bound.name else total, schedule=names, spread=False,
        )  # fmt: skip
    for term in bound.parts:
        for curve in (term, *_refined_part(here, term)):
            rows.add_total(
                here, bound, "lines", curve, x, over_runs(finite(here, curve)),
                schedule=names, spread=False,
            )  # fmt: skip
    for error in errors:
        estimate = resolved(here, error)
        plain = estimate == error.name  # a coupled estimate lies below the floor
        runs = over_runs(finite(here, estimate))
        # mean − sd may be negative, which a logarithmic axis can't show: the range of the runs
        several = runs.count > 1
        rows.add(
            "lines", error.name if plain else f"{error.name} coupled", x, runs.mean,
            low=runs.lowest.where(several), high=runs.highest.where(several),
            schedule=names, n_runs=runs.count, n_failed=failed, keep_empty=bool(failed.any()),
        )  # fmt: skip
        if error.exact and panel.family != "exact":
            rows.add("lines", f"{error.name} exact law", x, here[error.exact], schedule=names)
        if error.exact and panel.exact is not None:
            exact = panel.exact.sel(schedule=names)[error.exact]
            rows.add("lines", f"{error.name} exact score", x, exact, schedule=names)
        if plain:
            floor, floor_sd = level(here, error.floor, error.floor_sd)
            rows.add("lines", f"{error.name} floor", np.nan, floor, sd=floor_sd)
    return rows.rows


def decomposition_figure(
    grid: xr.Dataset, target: str, bound: str = "kl_bound"
) -> tuple[Figure, pd.DataFrame]:
    """A bound taken apart into its terms, and every error of the same cells beside it.

    A row of two panels for each panel of `divergence_figure`: left, the terms stacked on
    a linear axis from zero; right, on one logarithmic axis, the terms, the total, the
    refined totals, and each divergence that the bound is of: its coupled estimate, or the
    empirical one and its floor, and exact values. One column a schedule: the β_a family by
    increasing a, then the others. Terms are means over runs. Where the bound's theorem does
    not apply, its terms and totals are grey and hatched or dashed, and the panel's title
    says why.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.
    bound : str
        The variable of a bound of the grid.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; `x` is the column, `schedule` its label.

    Raises
    ------
    ValueError
        If the grid has no such target or no such bound.
    """
    total = bound_named(grid, bound)
    errors = [error for error in divergences_of(grid) if error.bound == total.name]
    errors.sort(key=lambda error: error.figure != total.figure)  # its own divergence first
    cells, panels = find_panels(grid, target)
    frame = make_frame(
        target, (rows for panel in panels for rows in _panel_rows(panel, total, errors))
    )
    styles = _styles(cells, total, errors)
    with house_style():
        if not panels:
            return empty_page(target_title(cells), why_empty(cells)), frame
        first = errors[0] if errors else None
        titles = [panel_title(panel, grid, first, total) for panel in panels]
        heights = [3.2 + LINE * (title.count("\n") + 1) for title in titles]
        figure = new_figure(8.6, sum(heights) + 0.4, target_title(cells))
        axes = figure.subplots(
            len(panels),
            2,
            squeeze=False,
            gridspec_kw={"width_ratios": [0.85, 1], "height_ratios": heights},
        )
        for panel, title in zip(panels, titles, strict=True):
            here = frame[frame["panel"] == panel.number]
            left, right = axes[panel.number]
            _draw_stack(left, here[here["axis"] == "stack"], cells, total, styles)
            _draw_lines(right, here[here["axis"] == "lines"], cells, total, styles)
            left.set_title(title, loc="left")
        add_legend(figure, [ax for pair in axes for ax in pair[::-1]])
    return figure, frame


def _style_of(curve: str, styles: dict[str, Style]) -> Style:
    """The style of a curve; where the theorem does not apply, the panel's title says why."""
    name, grey, _ = curve.partition(NOT_VALID)
    return styles[name].invalid(f"{styles[name].label}: NOT a bound") if grey else styles[name]


def _draw_stack(
    ax: Axes, rows: pd.DataFrame, cells: xr.Dataset, bound: Bound, styles: dict[str, Style]
) -> None:
    bars = {name: bar for name, (bar, *_) in zip(bound.parts[::-1], cycle(TERMS), strict=False)}
    for curve, part in rows.groupby("curve", sort=False):
        name, grey, _ = str(curve).partition(NOT_VALID)
        if name not in bars:
            draw_by_group(ax, part, _style_of(str(curve), styles), cells)
            continue
        shade = 0.9 - 0.3 * bound.parts.index(name) / max(1, len(bound.parts) - 1)
        ax.bar(
            part["x"],
            part["high"] - part["low"],
            bottom=part["low"],
            width=0.86,
            color=str(round(shade, 3)) if grey else bars[name],
            hatch="////" if grey else None,
            edgecolor="white" if grey else "none",
            linewidth=0,
            label=f"{styles[name].label}, stacked" + (": NOT a bound" if grey else ""),
        )
    if rows.empty:
        ax.set_axis_off()
        ax.text(
            0.5, 0.5, "no bound on these cells", ha="center", va="center", transform=ax.transAxes
        )
    else:
        ax.set_ylabel(with_units(f"{bound.label}, stacked", bound.units))
        ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    set_schedule_axis(ax, rows, cells)


def _draw_lines(
    ax: Axes, rows: pd.DataFrame, cells: xr.Dataset, bound: Bound, styles: dict[str, Style]
) -> None:
    lowest = np.inf
    present = list(dict.fromkeys(rows["curve"]))
    for curve in sorted(present, key=lambda c: list(styles).index(c.partition(NOT_VALID)[0])):
        part = rows[rows["curve"] == curve]
        positive = part.loc[part["y"] > 0, "y"]
        if positive.empty:  # nothing that a logarithm can show: E2 of an exact score
            continue
        style = _style_of(curve, styles)
        if part["x"].isna().all():
            draw_level(ax, part.iloc[0], style)
        else:
            draw_by_group(ax, part, style, cells)
        # the top of the stack, mixing, decays to e^{−B(T)}: let it leave the axis
        if not curve.startswith(bound.parts[-1:]):
            lowest = min(lowest, float(positive.min()))
    ax.set_yscale("log", nonpositive="clip")
    if np.isfinite(lowest):
        ax.set_ylim(bottom=lowest / 3)
    ax.set_ylabel(with_units("errors and bounds", bound.units) + " (log scale)")
    ax.grid(axis="y", color="#E6E6E6", linewidth=0.6)
    ax.set_axisbelow(True)
    set_schedule_axis(ax, rows, cells)
