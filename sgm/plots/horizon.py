"""Quality and cost against the diffusion time: how short it may be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm.horizons import LIKELIHOODS, BestHorizon, Loss, best_horizon, likelihood_loss
from sgm.plots.cells import make_frame, target_cells, target_title
from sgm.plots.engine import MEAN_SD, SD, SERIES, Band, C, Look, Page, Track, draw_edge, draw_page
from sgm.plots.over_time import (
    FRAME,
    Rows,
    at_solver,
    cut_worst,
    runs_text,
    set_time,
    sets_note,
    shown_cells,
    solver_text,
)
from sgm.reading import Divergence, divergences_of, level, over_runs, with_units

SCHEDULES, SCORES, QUALITIES = 4, 6, 4  # drawn at most
STRIP = 0.17  # inches a score, of the panels that say which T may be the best
STRIPS = "T by "  # with the name of the loss: the axis of a strip
EXACT = ("flow_log_likelihood", "elbo")  # losses that a perfect model brings down to −E log p₀
COSTS = {"flow_evaluations": "evaluations of the score", "flow_seconds": "wall time, s"}
EVALUATIONS = "flow_evaluations"
SHORTEST = "shortest plausible T"
CURVES = {
    "runs": Look(band=MEAN_SD, width=1.1),
    "truth": Look("minus E log p₀, exact: a perfect model", C.INK, "-", width=0.9),
    "floor": Look("noise floor", C.FAINT, "--", width=0.9, band=SD),
    "plausible": Look("T of the 95% confidence set of the best", C.INK, "-", ".", 2.5, 5.0),
    "best": Look("best T of the runs", C.INK, "none", "*", size=7.0, order=4),
    "exact T*": Look("exact T* of the ELBO", C.INK, "none", "|", size=9.0),
    SHORTEST: Look(
        "shortest plausible T", C.INK, "none", "o", size=9.0, face="none", mark=draw_edge
    ),
}


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


def _rows(rows: Rows, place: int, qualities: list[Quality]) -> list[pd.DataFrame]:
    """The rows of one score; `place` is its line in the strips."""
    here, cell = rows.here, {k: rows.labels[k] for k in ("schedule", "score")}
    for quality in qualities:
        loss, divergence = quality.loss, quality.divergence
        values = loss.values.sel(cell).sortby("horizon")
        rows.over_runs(loss.name, "runs", values)
        if place == 0 and divergence is not None:
            floor, sd = level(here, divergence.floor, divergence.floor_sd)
            ends = {"low": floor - sd, "high": floor + sd, "series": ""}
            rows.add(loss.name, "floor", np.nan, floor, **ends)
        elif place == 0 and "data_log_density" in here and loss.name in EXACT:
            rows.add(loss.name, "truth", np.nan, -here["data_log_density"], series="")
        found = best_horizon(values)
        strip = STRIPS + loss.name
        if found.allowed is not None:
            plausible = found.allowed.horizons[found.allowed.plausible]
            rows.add(strip, "plausible", plausible, np.full(len(plausible), place))
        if np.isfinite(found.best):
            rows.add(strip, "best", found.best, place)
        if quality is qualities[0]:
            if "optimal_horizon" in here and here.get("optimal_horizon_interior", 1) == 1:
                rows.add(strip, "exact T*", here["optimal_horizon"], place)
            _add_saving(rows, found)
    for name in COSTS:
        rows.over_runs(name, "runs", here.get(name))
    return rows.tables


def _add_saving(rows: Rows, found: BestHorizon) -> None:
    """The evaluations at the shortest plausible T, and the fraction of the longest T's it saves."""
    if found.allowed is None or EVALUATIONS not in rows.here:
        return
    spent = over_runs(rows.here[EVALUATIONS]).mean
    low, longest = found.allowed.low, found.allowed.horizons[-1]
    least, most = (spent.sel(horizon=t) for t in (low, longest))
    rows.add(EVALUATIONS, SHORTEST, low, least)
    rows.add("saving", SHORTEST, low, 1 - least / most, high=longest)


def horizon_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """Quality and cost against T: how short a diffusion is as good as the best.

    A column a schedule, a colour a score. From the top: the loss, which is bits per
    dimension, else minus the log-likelihood by the probability flow, else minus an ELBO; the
    divergences of samples with their floors; the evaluations of the score by the flow, and
    its seconds. Below each loss, a line a score: the best T of the runs, the T of its 95 %
    confidence set (`sgm.horizons`), and the exact T* of the ELBO. Training takes as long for
    every T, and is left out.

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
    tables = []
    for panel, schedule in enumerate(schedules):
        for place, score in enumerate(scores):
            labels = {"panel": panel, "schedule": schedule, "score": score, "series": score}
            here = cells.sel(schedule=schedule, score=score)
            tables += _rows(Rows(here, labels, []), place, qualities)
    frame = make_frame(tables, target, FRAME)
    tracks = [track for q in qualities for track in _tracks(q, frame, len(scores))]
    tracks += [Track(name, label, 1.2, log=False, zero=True) for name, label in COSTS.items()]
    tracks = [track for track in tracks if (frame["axis"] == track.axis).any()]

    def look(curve: str, series: str) -> Look:
        found = CURVES[curve]
        color, marker = SERIES[scores.index(series) % len(SERIES)] if series else (found.color, "")
        if curve == "runs":
            return replace(found, label=f"score {series}", color=color, marker=marker)
        return found if curve == "exact T*" else replace(found, color=color)

    titles, notes = {}, [note, sets_note(frame[frame["curve"] == "plausible"])]
    notes += dict.fromkeys(f"samples by {q.solver}" for q in qualities if q.solver)
    for panel, schedule in enumerate(schedules):
        own = frame[frame["panel"] == panel]
        runs = own.loc[(own["axis"] == names[0]) & (own["curve"] == "runs"), "n_runs"]
        titles[panel] = f"{schedule}, {runs_text(runs)}" + _saving_note(own)
    width = max(6.2, 2.7 * len(schedules) + 0.8)
    bands = [Band(range(len(schedules)), tracks)]
    title = f"{target_title(cells)}: quality and cost against T"
    page = Page(title, bands, look, notes, titles, set_time(cells["horizon"]), width)
    return draw_page(frame, page), frame


def _tracks(quality: Quality, frame: pd.DataFrame, lines: int) -> list[Track]:
    """The loss, and the strip below it."""
    label, units = quality.loss.label, quality.loss.units
    label = label if units in label else with_units(label, units)  # bits per dimension
    rows = frame[frame["axis"] == quality.name]

    def cut(ax: Axes, own: pd.DataFrame) -> None:
        cut_worst(ax, rows, less_is_better=True)

    log = None if quality.divergence is not None else False
    strip = Track(STRIPS + quality.name, height=STRIP * lines, finish=_set_strip(lines), log=False)
    return [Track(quality.name, label, 1.8, log=log, finish=cut), strip]


def _set_strip(lines: int) -> Callable[[Axes, pd.DataFrame], None]:
    def finish(ax: Axes, rows: pd.DataFrame) -> None:
        ax.set_ylim(lines - 0.4, -0.6)
        ax.set_yticks([])
        if ax.get_subplotspec().is_first_col():  # type: ignore[union-attr]
            ax.set_ylabel("best T", rotation=0, ha="right", va="center")

    return finish


def _saving_note(rows: pd.DataFrame) -> str:
    """What each score's shortest plausible T saves, in words."""
    saving = rows[rows["axis"] == "saving"]
    parts = [
        f"{row['score']} {100 * row['y']:.0f}% (T = {row['x']:g} for {row['high']:g})".replace(
            " ", "\N{NO-BREAK SPACE}"
        )
        for _, row in saving.iterrows()
    ]
    return "\nevaluations saved by the shortest plausible T: " + ", ".join(parts) if parts else ""
