"""The evidence bound and its terms against the diffusion time, and the T it is largest at.

Figures 2 and 3 of Franzese et al. (arXiv 2206.05173), for every score and schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm.horizons import BOUNDS, LIKELIHOODS, best_horizon, likelihood_loss
from sgm.plots.cells import NETWORKS, make_frame, target_cells, target_title
from sgm.plots.engine import (
    MEAN_RANGE,
    MEAN_SD,
    Band,
    C,
    Look,
    Page,
    Track,
    columns_for,
    draw_page,
    draw_upright,
    wrapped,
)
from sgm.plots.over_time import (
    FRAME,
    Rows,
    cut_worst,
    runs_text,
    set_time,
    sets_note,
    shown_cells,
)

SCHEDULES, SCORES = 3, 5  # drawn at most
LOWEST = 1e-5  # of the largest cost: the end of the logarithmic axis
VARIABLES = (
    "data_log_density", "terminal_log_density", "kl_terminal", "elbo_r", "elbo_k",
    "elbo_difference", "reverse_sde_kl", "score_gap", "elbo", "denoising_elbo",
    "flow_log_likelihood", "optimal_horizon", "optimal_horizon_interior", "status",
)  # fmt: skip
SET = " and its 95% confidence set"
CURVES = {
    "truth": Look("E log p₀, exact: a perfect model", C.INK, "-", width=0.9),
    "flow": Look("log-likelihood by the probability flow", C.VERMILLION, "-", "^", band=MEAN_SD),
    "backward SDE": Look("backward SDE of the exact score, exact", C.GREEN, (0, (5, 2))),
    "elbo": Look("ELBO", C.BLUE, "-", "o", band=MEAN_SD),
    "denoising elbo": Look(
        "ELBO of X_ε by denoising losses", C.PURPLE, "-", "D", 1.0, 2.6, MEAN_SD
    ),
    "score gap": Look("G, score error", C.ORANGE, "-", "s", 1.1, 2.8, MEAN_RANGE),
    "terminal kl": Look("KL(p_T ‖ p_noise), exact", C.SKY, (0, (4, 1.5)), width=1.5),
    "loss": Look("G + KL(p_T ‖ p_noise) = E log p₀ − ELBO", C.BLUE, "-", "o", band=MEAN_RANGE),
    "terminal": Look("E log p_T, exact", C.BROWN, "-", "v", 1.1, 2.8),
    "difference": Look("R − K, limit for ε → 0, exact", C.GREEN, "-", "P", 1.1, 3.0),
    "R": Look("R from ε on", C.FAINT, "-", ">", 1.0, 2.6),
    "K": Look("K from ε on", C.FAINT, (0, (4, 2)), "<", 1.0, 2.6),
    "exact T*": Look("exact T* of the ELBO", C.INK, (0, (1, 1)), width=1.4),
    "best T": Look("best T of the runs by the ELBO", C.PINK, "-", width=1.1, band=SET),
    "best T by the flow": Look(
        "best T of the runs by the flow's likelihood", C.PINK, width=1.1, band=SET
    ),
}
CUT_OFF = {"R": "elbo_r", "K": "elbo_k", "denoising elbo": "denoising_elbo"}
PROCESS = ("terms", "truncated")  # axes that depend on the schedule alone


def _rows(rows: Rows, first: bool) -> list[pd.DataFrame]:
    """The rows of a schedule and score; those of the process alone once a schedule."""
    here = rows.here
    get = here.data_vars.get
    truth = get("data_log_density")
    rows.over_runs("likelihood", "elbo", get("elbo"))
    rows.over_runs("likelihood", "denoising elbo", get("denoising_elbo"))
    rows.over_runs("likelihood", "flow", get("flow_log_likelihood"))
    rows.over_runs("cost", "score gap", get("score_gap"), log=True)
    rows.over_runs("cost", "terminal kl", get("kl_terminal"))
    if truth is not None:
        rows.add("likelihood", "truth", np.nan, truth)
        if "elbo" in here:
            rows.over_runs("cost", "loss", truth - here["elbo"], log=True)
        if "reverse_sde_kl" in here:
            rows.over_runs("likelihood", "backward SDE", truth - here["reverse_sde_kl"])
            rows.over_runs("cost", "backward SDE", here["reverse_sde_kl"])
    if first:
        rows.over_runs("terms", "terminal", get("terminal_log_density"))
        rows.over_runs("terms", "difference", get("elbo_difference"))
        if truth is not None and any(t["axis"].iloc[0] == "terms" for t in rows.tables):
            rows.add("terms", "truth", np.nan, truth)
        rows.over_runs("truncated", "R", get("elbo_r"))
        rows.over_runs("truncated", "K", get("elbo_k"))
    if "optimal_horizon" in here and here.get("optimal_horizon_interior", 1) == 1:
        rows.add("horizon", "exact T*", np.nan, here["optimal_horizon"])
    loss = likelihood_loss(here, (*BOUNDS, *LIKELIHOODS))
    if loss is not None:
        found = best_horizon(loss.values)
        ends = (found.allowed.low, found.allowed.high) if found.allowed else (np.nan, np.nan)
        curve = "best T" if loss.name in BOUNDS else "best T by the flow"
        own = {"low": ends[0], "high": ends[1], "n_runs": found.n_runs}
        rows.add("horizon", curve, np.nan, found.best, **own)
    return rows.tables


def elbo_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """What a finite diffusion time costs: the ELBO, its terms and the likelihood against T.

    A band a schedule, a column a score. Above, log-likelihoods, with the exact one as a
    level; below, what the ELBO loses on a logarithmic axis: G rises in T,
    KL(p_T ‖ p_noise) falls, and their sum is lowest at the best T. Last, what belongs to the
    process alone, a column a schedule: E log p_T + (R − K) = E log p₀, and R and K from a time ε
    on. Vertical lines: the exact T*, and the best T of the runs with its confidence set
    (`sgm.horizons`), both by the ELBO, or by the flow where there is none. Of an unknown
    law there are the denoising ELBO and the flow alone.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn, `x` the horizon; of `axis` horizon, `y` is a T and `low`, `high`
        the ends of the set.

    Raises
    ------
    ValueError
        If the grid has no such target, or of it neither an ELBO nor the likelihood of a flow.
    """
    cells = target_cells(grid, target)
    drawn = ("elbo", "denoising_elbo", "flow_log_likelihood")
    schedules, scores, note = shown_cells(cells, drawn, SCHEDULES, SCORES)
    cells = cells[[name for name in VARIABLES if name in cells]].load().sortby("horizon")
    pairs = [(schedule, score) for schedule in schedules for score in scores]
    tables = []
    for panel, (schedule, score) in enumerate(pairs):
        labels = {"panel": panel, "schedule": schedule, "score": score}
        here = cells.sel(schedule=schedule, score=score)
        tables += _rows(Rows(here, labels, []), score == scores[0])
    frame = make_frame(tables, target, FRAME)
    # the marks stand on both axes of a panel; what belongs to the process has panels of its own
    marks = frame[frame["axis"] == "horizon"]
    shown = frame[frame["axis"].isin(("likelihood", "cost"))]
    apart = frame[frame["axis"].isin(PROCESS)]
    apart = apart.assign(panel=[len(pairs) + schedules.index(s) for s in apart["schedule"]])
    shown = pd.concat([shown, *(marks.assign(axis=a) for a in shown["axis"].unique()), apart])
    aside = tuple(marks["curve"].unique())  # they stand on the x-axis
    tracks = [
        Track(
            "likelihood", "log-likelihood, nats", 1.9, log=False, aside=aside, finish=_cut(frame)
        ),
        Track(
            "cost",
            "cost, nats",
            1.7,
            log=True,
            aside=aside,
            finish=set_bottom(frame, ("loss", "score gap")),
        ),
    ]
    below = [Track(axis, "nats", 1.0, log=False) for axis in PROCESS]
    tracks, below = ([t for t in own if (shown["axis"] == t.axis).any()] for own in (tracks, below))
    n = len(scores) if len(scores) > 2 else columns_for(len(pairs))
    bands = wrapped(range(len(pairs)), tracks, n)
    titles = {i: _title(cells, *pair, frame[frame["panel"] == i]) for i, pair in enumerate(pairs)}
    if below:
        process = [len(pairs) + i for i in range(len(schedules))]
        bands.append(Band(process, below, beside=len(process) == 1))
        titles |= {len(pairs) + i: f"{s}, terms of the process" for i, s in enumerate(schedules)}

    def look(curve: str, series: str) -> Look:
        found = CURVES[curve]
        cutoff = cells[CUT_OFF[curve]].attrs.get("cutoff") if curve in CUT_OFF else None
        if cutoff is not None:
            found = replace(found, label=f"{found.label}, ε = {float(cutoff):g}")
        return replace(found, mark=draw_upright) if curve in aside else found

    notes = [note, sets_note(marks[marks["low"].notna()])]
    title = f"{target_title(cells)}: the ELBO against T"
    page = Page(
        title, bands, look, notes, titles, set_time(cells["horizon"]), max(6.2, 2.5 * n + 0.6)
    )
    return draw_page(shown, page), frame


def _cut(frame: pd.DataFrame) -> Callable[[Axes, pd.DataFrame], None]:
    """Cut below, by the likelihoods of all panels."""
    rows = frame[frame["axis"] == "likelihood"]
    return lambda ax, own: cut_worst(ax, rows, less_is_better=False)


def set_bottom(frame: pd.DataFrame, kinds: Sequence[str]) -> Callable[[Axes, pd.DataFrame], None]:
    """KL and what the exact score loses fall like e^{−B(T)}: let them leave the axis.

    Curves of some kinds say where it ends.
    """
    kept = frame.loc[frame["curve"].isin(kinds) & (frame["y"] > 0), "y"]
    bottom = max(kept.min() / 3, kept.max() * LOWEST) if len(kept) else None

    def finish(ax: Axes, rows: pd.DataFrame) -> None:
        ax.set_ylim(bottom=bottom)

    return finish


def _title(cells: xr.Dataset, schedule: str, score: str, rows: pd.DataFrame) -> str:
    """Schedule and score, and how many runs are shown."""
    trained = cells["score_family"].sel(score=score).item() in NETWORKS
    counted = ["flow"] if not trained else ["flow", "elbo", "denoising elbo"]
    here = rows[rows["curve"].isin(counted)]
    notes = [] if trained else ["closed form"]
    if len(here):
        notes.append(("" if trained else "flow: ") + runs_text(here["n_runs"]))
    return f"{schedule}, score {score}\n{', '.join(notes)}"
