"""Quality and cost against the diffusion time: how short it may be."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sgm.horizons import LIKELIHOODS, BestHorizon, Loss, best_horizon, likelihood_loss
from sgm.plots.horizon_axis import (
    Curves,
    at_solver,
    cut_worst,
    runs_text,
    set_horizon_axis,
    sets_text,
    shown_cells,
    solver_text,
)
from sgm.plots.panels import TITLE_WIDTH, target_cells, target_title
from sgm.plots.rows import make_frame
from sgm.plots.style import (
    BLUE,
    BROWN,
    FAINT,
    GREEN,
    INK,
    LINE,
    MEAN_SD,
    ORANGE,
    PURPLE,
    ROUND,
    SD,
    VERMILLION,
    Style,
    add_legend,
    draw_curve,
    draw_level,
    house_style,
    is_log,
    new_figure,
    set_scale,
)
from sgm.reading import Divergence, divergences_of, level, over_runs, with_units

SCHEDULES, SCORES, QUALITIES = 4, 6, 4  # drawn at most
COLUMN_WIDTH, LABEL_WIDTH = 38, 28  # characters: titles of several columns, labels upright
STRIP = 0.17  # inches a score, of the panels that say which T may be the best
STRIPS = "T by "  # with the name of the loss: the axis of a strip
STRIP_LOOKS = {  # marker, its size, line width, label
    "plausible": (".", 5.0, 2.5, "T of the 95% confidence set of the best"),
    "best": ("*", 7.0, 0.0, "best T of the runs"),
    "exact T*": ("|", 9.0, 0.0, "exact T* of the ELBO"),
}
LEVELS = {
    "truth": Style("minus E log p₀, exact: a perfect model", INK, "-", width=0.9),
    "floor": Style("noise floor", FAINT, "--", width=0.9, band=SD),
}
EXACT = ("flow_log_likelihood", "elbo")  # losses that a perfect model brings down to −E log p₀
LOOKS = (
    (BLUE, "o"), (VERMILLION, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (BROWN, "P"),
)  # fmt: skip
COSTS = ("flow_evaluations", "flow_seconds")
SHORTEST = "shortest plausible T"
COST_LABELS = {"flow_evaluations": "evaluations of\nthe score", "flow_seconds": "wall time, s"}


@dataclass(frozen=True)
class Quality:
    """A quantity drawn above; of a divergence of samples also what knows its floor and solver."""

    loss: Loss
    divergence: Divergence | None = None
    solver: str = ""

    @property
    def name(self) -> str:
        return self.loss.name


def _qualities(cells: xr.Dataset) -> list[Quality]:
    """The likelihood, then the divergences of samples."""
    loss = likelihood_loss(cells)
    found = [] if loss is None else [Quality(loss)]
    for divergence in divergences_of(cells):
        values, solver = at_solver(cells[divergence.name])
        if divergence.ranks and np.isfinite(values).any():
            sampled = Loss(divergence.name, divergence.label, divergence.units, values)
            found.append(Quality(sampled, divergence, solver_text(solver)))
    return found


def _rows(curves: Curves, place: int, qualities: list[Quality]) -> list[pd.DataFrame]:
    """The rows of one score; `place` is its line in the strips."""
    here, cell = curves.here, {"schedule": curves.schedule, "score": curves.panel.labels["score"]}

    def mark(axis: str, curve: str, x: npt.ArrayLike, y: npt.ArrayLike) -> None:
        curves.add(axis, curve, x, y, schedule=curves.schedule)

    for quality in qualities:
        loss, divergence = quality.loss, quality.divergence
        values = loss.values.sel(cell)
        curves.add_curve(loss.name, "runs", values)
        if place == 0 and divergence is not None:
            floor, sd = level(here, divergence.floor, divergence.floor_sd)
            curves.add_level(loss.name, "floor", floor, sd)
        elif place == 0 and "data_log_density" in here and loss.name in EXACT:
            curves.add_level(loss.name, "truth", -here["data_log_density"])
        found = best_horizon(values)
        strip = STRIPS + loss.name
        if found.allowed is not None:
            plausible = found.allowed.horizons[found.allowed.plausible]
            mark(strip, "plausible", plausible, np.full(len(plausible), place))
        if np.isfinite(found.best):
            mark(strip, "best", found.best, place)
        if quality is qualities[0]:
            if "optimal_horizon" in here and here.get("optimal_horizon_interior", 1) == 1:
                mark(strip, "exact T*", here["optimal_horizon"], place)
            _add_saving(curves, found)
    for name in COSTS:
        curves.add_curve(name, "runs", here.get(name))
    return curves.rows


def _add_saving(curves: Curves, found: BestHorizon) -> None:
    """The evaluations at the shortest plausible T, and the fraction of the longest T's it saves."""
    if found.allowed is None or COSTS[0] not in curves.here:
        return
    spent = over_runs(curves.here[COSTS[0]]).mean
    least, most = (spent.sel(horizon=t) for t in (found.allowed.low, found.allowed.horizons[-1]))
    x, longest, schedule = found.allowed.low, found.allowed.horizons[-1], curves.schedule
    curves.add(COSTS[0], SHORTEST, x, least, schedule=schedule)
    curves.add("saving", SHORTEST, x, 1 - least / most, high=longest, schedule=schedule)


def horizon_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """Quality and cost against T: how short a diffusion is as good as the best.

    A column a schedule, a colour a score. From the top: the loss, which is bits per
    dimension, else minus the log-likelihood by the probability flow, else minus an ELBO; the
    divergences of samples with their floors; the evaluations of the score by the flow, and
    its seconds. Below each loss, a line a score: the best T of the runs, the T of its 95 %
    confidence set (`sgm.horizons`), and the exact T* of the ELBO. Training takes as long for
    every T, and is left out.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn: `axis` the variable, `x` the horizon; of an axis ``T by ...``, `y`
        is the line of the score; of the axis `saving`, `y` is the fraction of the evaluations
        at the longest T, `high`, that the shortest plausible T saves.

    Raises
    ------
    ValueError
        If the grid has no such target, or of it neither a likelihood nor a divergence of samples.
    """
    cells = target_cells(grid, target).drop_dims(["time_fraction", "bin", "rows"], errors="ignore")
    cells = cells.sortby("horizon").load()
    every = _qualities(cells)
    qualities = every[:QUALITIES]
    names = [quality.name for quality in qualities] or list(LIKELIHOODS)
    schedules, scores, note = shown_cells(cells, names, SCHEDULES, SCORES)
    if len(every) > QUALITIES:
        note = f"{QUALITIES} of {len(every)} losses{', ' + note if note else ' shown'}"
    frame = make_frame(
        target,
        (
            rows
            for column, schedule in enumerate(schedules)
            for place, score in enumerate(scores)
            for rows in _rows(Curves.of(column, cells, schedule, score), place, qualities)
        ),
    )
    axes_of = [axis for name in names for axis in (name, STRIPS + name)] + list(COSTS)
    axes_of = [axis for axis in axes_of if (frame["axis"] == axis).any()]
    strip = STRIP * len(scores) + 0.1
    heights = [strip if a.startswith(STRIPS) else 1.3 if a in COSTS else 1.9 for a in axes_of]
    with house_style():
        title = f"{target_title(cells)}: quality and cost against T"
        title += f" ({note})" if note else ""
        title += sets_text(frame[frame["curve"] == "plausible"])
        width = max(5.4, 2.7 * len(schedules) + 0.8)
        letters = TITLE_WIDTH if len(schedules) == 1 else COLUMN_WIDTH
        savings = [
            textwrap.fill(_saving_note(frame[frame["panel"] == i]), letters)
            for i in range(len(schedules))
        ]
        lines = max(text.count("\n") + 1 for text in savings) + len(names)
        figure = new_figure(width, sum(heights) + LINE * lines + 1.4, title)
        axes = figure.subplots(
            len(axes_of), len(schedules), squeeze=False, sharex=True, sharey="row",
            gridspec_kw={"height_ratios": heights},
        )  # fmt: skip
        for column, schedule in enumerate(schedules):
            here = frame[frame["panel"] == column]
            runs = here.loc[(here["axis"] == names[0]) & (here["curve"] == "runs"), "n_runs"]
            axes[0, column].set_title(f"{schedule}, {runs_text(runs)}", loc="left")
            for axis, ax in zip(axes_of, axes[:, column], strict=True):
                rows = here[here["axis"] == axis]
                (_draw_strip if axis.startswith(STRIPS) else _draw)(ax, rows, scores)
                set_horizon_axis(ax, cells["horizon"], label=axis == axes_of[-1])
                if axis == COSTS[0]:
                    ax.set_title(savings[column], loc="left")
        of = {quality.name: quality for quality in qualities}
        for axis, ax in zip(axes_of, axes[:, 0], strict=True):
            if axis.startswith(STRIPS):
                ax.set_ylabel("best T", rotation=0, ha="right", va="center")
            else:
                _set_values(ax, frame[frame["axis"] == axis], of.get(axis))
        add_legend(figure, axes.ravel())
    return figure, frame


def _saving_note(rows: pd.DataFrame) -> str:
    """What each score's shortest plausible T saves, in words."""
    saving = rows[rows["axis"] == "saving"]
    if saving.empty:
        return ""
    parts = [
        f"{row['score']} {100 * row['y']:.0f}% (T = {row['x']:g} for {row['high']:g})".replace(
            " ", "\N{NO-BREAK SPACE}"
        )
        for _, row in saving.iterrows()
    ]
    return "evaluations saved by the shortest plausible T (ringed): " + ", ".join(parts)


def _draw(ax: Axes, rows: pd.DataFrame, scores: list[str]) -> None:
    for (score, curve), part in rows.groupby(["score", "curve"], sort=False):
        color, marker = LOOKS[scores.index(str(score)) % len(LOOKS)]
        if curve in LEVELS:
            draw_level(ax, part.iloc[0], LEVELS[str(curve)])
        elif curve == "runs":
            draw_curve(ax, part, Style(f"score {score}", color, "-", marker, 1.1, 3.2, MEAN_SD))
        else:
            ax.plot(
                part["x"], part["y"], "o", color=color, markersize=9, fillstyle="none",
            )  # fmt: skip


def _draw_strip(ax: Axes, rows: pd.DataFrame, scores: list[str]) -> None:
    """A line a score: the set, the best T and the exact T*."""
    for (score, curve), part in rows.groupby(["score", "curve"], sort=False):
        color, _ = LOOKS[scores.index(str(score)) % len(LOOKS)]
        marker, size, line, _ = STRIP_LOOKS[str(curve)]
        ax.plot(
            part["x"], part["y"], marker=marker, markersize=size, linewidth=line,
            color=INK if curve == "exact T*" else color, linestyle="-",
        )  # fmt: skip
    for curve in rows["curve"].unique():
        marker, size, line, label = STRIP_LOOKS[curve]
        ax.plot([], [], marker=marker, markersize=size, linewidth=line, color=INK, label=label)
    ax.set_ylim(len(scores) - 0.4, -0.6)
    ax.set_yticks([])


def _set_values(ax: Axes, rows: pd.DataFrame, quality: Quality | None) -> None:
    """The scale and label of a line of panels, and by which sampler its samples were drawn."""
    if quality is None:
        ax.set_ylabel(COST_LABELS[str(rows["axis"].iloc[0])])
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=ROUND))
        ax.set_ylim(bottom=0)
        return
    label, units, cut = quality.loss.label, quality.loss.units, ""
    label = label if units in label else with_units(label, units)  # bits per dimension
    log = quality.divergence is not None and is_log(rows)
    if not log:
        cut = cut_worst(ax, rows, less_is_better=True)
    set_scale(ax, log, label, INK)
    ax.set_ylabel(textwrap.fill(ax.get_ylabel(), LABEL_WIDTH) + cut)
    if quality.solver:
        title = ax.get_title(loc="left")
        ax.set_title("\n".join(filter(None, [title, quality.solver])), loc="left")
