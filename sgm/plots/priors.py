"""What another start of the backward process is worth, against the diffusion time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from sgm.horizons import best_horizon
from sgm.plots.cells import make_frame, target_cells, target_title
from sgm.plots.elbo import set_bottom
from sgm.plots.engine import (
    MEAN_SD,
    C,
    Look,
    Page,
    Track,
    draw_page,
    draw_upright,
    wrapped,
)
from sgm.plots.over_time import (
    FRAME,
    Rows,
    at_solver,
    cut_worst,
    set_time,
    shown_cells,
    solver_text,
)

SCHEDULES, SCORES = 2, 4  # drawn at most
STARTS = {
    "": ("p_noise", C.BLUE, "o"),
    "moments": ("X_T's moments", C.VERMILLION, "s"),
    "mixture": ("a mixture fitted to X_T", C.GREEN, "^"),
}
CURVES = {
    "elbo": Look("ELBO, start at {}", line="-", band=MEAN_SD),
    "loss": Look("", line="-", band=MEAN_SD),
    "kl": Look("", line=(0, (4, 1.5)), width=1.1),
    "sde": Look("", line=(0, (1, 1.2)), width=1.1),
    "output": Look("", line="-"),
    "T*": Look("", line=(0, (1, 1)), width=1.4, mark=draw_upright),
}
MEANINGS = {
    "kl": "KL(p_T ‖ start)",
    "sde": "backward SDE of the exact score",
    "T*": "T* of the ELBO, of a mixture the best T of the runs",
}
TRUTH = Look("E log p₀, exact: a perfect model", C.INK, "-", width=0.9)


def _names(start: str) -> dict[str, str]:
    """The variables of a start; those of the standard prior have none in their names."""
    end = f"_{start}" if start else ""
    names = ("kl_terminal", "reverse_sde_kl", "kl_exact", "optimal_horizon")
    return {name: name + end for name in names} | {"gain": f"prior_gain{end}"}


def _rows(rows: Rows, starts: list[str], elbo: str) -> list[pd.DataFrame]:
    """The rows of a schedule and score."""
    here = rows.here
    get = here.data_vars.get
    truth = get("data_log_density")
    if truth is not None:
        rows.add("likelihood", "truth", np.nan, truth)
    for start in starts:
        names, label = _names(start), f", {start}"
        if elbo in here and np.isfinite(here[elbo]).any():
            bound = here[elbo] + (here[names["gain"]] if start else 0.0)
            rows.over_runs("likelihood", f"elbo{label}", bound)
            if truth is not None:
                rows.over_runs("cost", f"loss{label}", truth - bound)
            best = get(names["optimal_horizon"])
            interior = get(f"{names['optimal_horizon']}_interior")
            if best is not None and np.isfinite(best):
                if interior == 1:
                    rows.add("horizon", f"T*{label}", np.nan, best)
            elif np.isfinite(found := best_horizon(-bound).best):
                rows.add("horizon", f"T*{label}", np.nan, found)
        rows.over_runs("cost", f"kl{label}", get(names["kl_terminal"]))
        rows.over_runs("cost", f"sde{label}", get(names["reverse_sde_kl"]))
        output = get(names["kl_exact"])
        if output is not None:
            rows.over_runs("output", f"output{label}", at_solver(output)[0])
    return rows.tables


def priors_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """What a start at another law than N(0, w I) is worth: ELBO, cost and error against T.

    A band a schedule, a column a score, a colour a start. Above, the ELBO with its terminal term
    KL(p_T ‖ start), with E log p₀ as a level; below it what the ELBO loses on a logarithmic
    axis, its terminal term dashed, and dotted what the backward SDE of the exact score loses
    itself, on the line; then KL of the exact law of the sampler's output, of Gaussian targets.
    Vertical lines: the T of the largest ELBO of each start.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn, `x` the horizon; `curve` is what it is and the start, empty for the
        standard one; of `axis` horizon, `y` is a T.

    Raises
    ------
    ValueError
        If the grid has no such target, or of it no ELBO and no exact law.
    """
    cells = target_cells(grid, target)
    schedules, scores, note = shown_cells(
        cells, ("elbo", "denoising_elbo", "kl_exact_moments"), SCHEDULES, SCORES
    )
    starts = [name for name in STARTS if not name or f"prior_gain_{name}" in cells]
    held = {"data_log_density", "elbo", "denoising_elbo", "status"}
    for start in starts:
        names = _names(start)
        held |= {*names.values(), f"{names['optimal_horizon']}_interior"}
    cells = cells[[name for name in sorted(held) if name in cells]].load().sortby("horizon")
    pairs = [(schedule, score) for schedule in schedules for score in scores]
    elbo = "elbo" if "elbo" in cells and np.isfinite(cells["elbo"]).any() else "denoising_elbo"
    tables = []
    for panel, (schedule, score) in enumerate(pairs):
        labels: dict[str, Any] = {"panel": panel, "schedule": schedule, "score": score}
        here = cells.sel(schedule=schedule, score=score)
        tables += _rows(Rows(here, labels, []), starts, elbo)
    frame = make_frame(tables, target, FRAME)
    marks = frame[frame["axis"] == "horizon"]
    shown = frame[frame["axis"] != "horizon"]
    on = [axis for axis in ("likelihood", "cost") if (shown["axis"] == axis).any()]
    shown = pd.concat([shown, *(marks.assign(axis=axis) for axis in on)])
    aside = tuple(marks["curve"].unique())
    values = frame[frame["axis"] == "likelihood"]
    worth = frame.assign(curve=frame["curve"].str.partition(",")[0])
    tracks = [
        Track(
            "likelihood", "log-likelihood, nats", 1.9, log=False, aside=aside,
            finish=lambda ax, rows: cut_worst(ax, values, less_is_better=False),
        ),
        Track(
            "cost", "cost, nats", 1.7, log=True, aside=aside,
            finish=set_bottom(worth, ("loss", "kl") if elbo == "elbo" else ("kl",)),
        ),
        Track("output", "KL of the output, nats", 1.7, log=True),
    ]  # fmt: skip
    tracks = [track for track in tracks if (shown["axis"] == track.axis).any()]

    def look(curve: str, series: str) -> Look:
        if curve == "truth":
            return TRUTH
        kind, _, start = curve.partition(", ")
        words, color, marker = STARTS[start]
        own = CURVES[kind]
        marker = marker if own.line == "-" else ""
        named = kind == ("elbo" if "likelihood" in on else tracks[0].axis)
        label = f"start at {words}" if named else ""
        return replace(own, color=color, marker=marker, label=label)

    kinds = set(worth["curve"])
    handles = [
        replace(CURVES[kind], mark=None).handle(text, C.INK)
        for kind, text in MEANINGS.items()
        if kind in kinds
    ]
    columns = min(len(scores), 4) or 1
    title = f"{target_title(cells)}: where the backward process starts"
    notes = [note]
    if "kl_exact_moments" in cells and np.isfinite(cells["kl_exact_moments"]).any():
        notes.append(f"output of {solver_text(at_solver(cells['kl_exact_moments'])[1])}")
    page = Page(
        title, wrapped(range(len(pairs)), tracks, columns), look, notes,
        {i: ", score ".join(pair) for i, pair in enumerate(pairs)}, set_time(cells["horizon"]),
        max(6.2, 2.6 * columns + 0.6), handles=handles,
    )  # fmt: skip
    return draw_page(shown, page), frame
