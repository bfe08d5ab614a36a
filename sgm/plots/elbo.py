"""The evidence bound and its terms against the diffusion time, and the T it is largest at.

Figures 2 and 3 of Franzese et al. (arXiv 2206.05173), for every score and schedule.
"""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm.horizons import BOUNDS, LIKELIHOODS, likelihood_loss
from sgm.plots.horizon_axis import (
    Curves,
    cut_worst,
    draw_marks,
    runs_text,
    set_horizon_axis,
    sets_text,
    shown_cells,
)
from sgm.plots.panels import target_cells, target_title
from sgm.plots.rows import make_frame
from sgm.plots.style import (
    BLUE,
    BROWN,
    FAINT,
    GREEN,
    INK,
    MEAN_RANGE,
    MEAN_SD,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Style,
    add_legend,
    draw_curve,
    draw_level,
    house_style,
    new_figure,
    set_scale,
)

SCHEDULES, SCORES = 3, 5  # drawn at most
LOWEST = 1e-5  # of the largest cost: the end of the logarithmic axis
VARIABLES = (
    "data_log_density", "terminal_log_density", "kl_terminal", "elbo_r", "elbo_k",
    "elbo_difference", "reverse_sde_kl", "score_gap", "elbo", "denoising_elbo",
    "flow_log_likelihood", "optimal_horizon", "optimal_horizon_interior", "status",
)  # fmt: skip
AXES = {  # label, height in inches
    "likelihood": ("log-likelihood, nats", 1.9),
    "cost": ("cost, nats", 1.8),
    "terms": ("nats", 1.25),
    "truncated": ("nats", 1.25),
}
CURVES = {
    "truth": Style("E log p₀, exact: a perfect model", INK, "-", width=0.9),
    "flow": Style("log-likelihood by the probability flow", VERMILLION, "-", "^", band=MEAN_SD),
    "backward SDE": Style("backward SDE of the exact score, exact", GREEN, (0, (5, 2))),
    "elbo": Style("ELBO", BLUE, "-", "o", band=MEAN_SD),
    "denoising elbo": Style("ELBO of X_ε by denoising losses", PURPLE, "-", "D", 1.0, 2.6, MEAN_SD),
    "score gap": Style("G, score error", ORANGE, "-", "s", 1.1, 2.8, MEAN_RANGE),
    "terminal kl": Style("KL(p_T ‖ p_noise), exact", SKY, (0, (4, 1.5)), width=1.5),
    "loss": Style("G + KL(p_T ‖ p_noise) = E log p₀ − ELBO", BLUE, "-", "o", band=MEAN_RANGE),
    "terminal": Style("E log p_T, exact", BROWN, "-", "v", 1.1, 2.8),
    "difference": Style("R − K, limit for ε → 0, exact", GREEN, "-", "P", 1.1, 3.0),
    "R": Style("R from ε on", FAINT, "-", ">", 1.0, 2.6),
    "K": Style("K from ε on", FAINT, (0, (4, 2)), "<", 1.0, 2.6),
}
CUT_OFF = {"R": "elbo_r", "K": "elbo_k", "denoising elbo": "denoising_elbo"}


def _rows(curves: Curves, first: bool) -> list[pd.DataFrame]:
    """The rows of a schedule and score; those of the process alone once a schedule."""
    here = curves.here
    get = here.data_vars.get
    truth = get("data_log_density")
    curves.add_curve("likelihood", "elbo", get("elbo"))
    curves.add_curve("likelihood", "denoising elbo", get("denoising_elbo"))
    curves.add_curve("likelihood", "flow", get("flow_log_likelihood"))
    curves.add_curve("cost", "score gap", get("score_gap"), log=True)
    curves.add_curve("cost", "terminal kl", get("kl_terminal"))
    if truth is not None:
        curves.add_level("likelihood", "truth", truth)
        if "elbo" in here:
            curves.add_curve("cost", "loss", truth - here["elbo"], log=True)
        if "reverse_sde_kl" in here:
            sde = here["reverse_sde_kl"]
            curves.add_curve("likelihood", "backward SDE", truth - sde)
            curves.add_curve("cost", "backward SDE", sde)
    if first:
        curves.add_curve("terms", "terminal", get("terminal_log_density"))
        curves.add_curve("terms", "difference", get("elbo_difference"))
        if curves.rows and "terms" in set(pd.concat(curves.rows)["axis"]) and truth is not None:
            curves.add_level("terms", "truth", truth)
        curves.add_curve("truncated", "R", get("elbo_r"))
        curves.add_curve("truncated", "K", get("elbo_k"))
    curves.add_marks(likelihood_loss(here, (*BOUNDS, *LIKELIHOODS)))
    return curves.rows


def elbo_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """What a finite diffusion time costs: the ELBO, its terms and the likelihood against T.

    A block a schedule, a column a score. Above, log-likelihoods, with the exact one as a
    level; below, what the ELBO loses on a logarithmic axis: G rises in T,
    KL(p_T ‖ p_noise) falls, and their sum is lowest at the best T. Last in the block, what
    belongs to the process alone: E log p_T + (R − K) = E log p₀, and R and K from a time ε
    on. Vertical lines: the exact T*, and the best T of the runs with its confidence set
    (`sgm.horizons`), both by the ELBO, or by the flow where there is none. Of an unknown
    law there are the denoising ELBO and the flow alone.

    Parameters
    ----------
    grid : Dataset
    target : str
        A label of the axis `target`.

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
    cells = cells[[name for name in VARIABLES if name in cells]].load()
    pairs = [(schedule, score) for schedule in schedules for score in scores]
    curves = [Curves.of(i, cells, *pair) for i, pair in enumerate(pairs)]
    frame = make_frame(
        target, (rows for c in curves for rows in _rows(c, c.panel.labels["score"] == scores[0]))
    )
    present = [axis for axis in AXES if (frame["axis"] == axis).any()]
    upper = [axis for axis in present if axis in ("likelihood", "cost")]
    lower = [axis for axis in present if axis not in upper]
    heights = [AXES[axis][1] + 0.25 for axis in upper] + [AXES[a][1] + 0.45 for a in lower[:1]]
    with house_style():
        columns, bands = len(scores), len(heights)
        title = f"{target_title(cells)}: the ELBO against T" + (f" ({note})" if note else "")
        found = frame[(frame["axis"] == "horizon") & frame["low"].notna()]
        title += sets_text(found)
        width = max(5.8, 2.5 * columns + 0.6)
        figure = new_figure(width, (sum(heights) + 0.3) * len(schedules) + 0.4, title)
        parts = figure.add_gridspec(
            bands * len(schedules), 2 * columns, height_ratios=heights * len(schedules)
        )
        axes: list[Axes] = []
        for band, schedule in enumerate(schedules):
            block = frame[frame["schedule"] == schedule]
            for row, axis in enumerate(upper):
                line: list[Axes] = []
                for k, c in enumerate(curves[band * columns : (band + 1) * columns]):
                    at = parts[bands * band + row, 2 * k : 2 * k + 2]
                    line.append(figure.add_subplot(at, sharey=line[0] if line else None))
                    _draw(line[-1], block[block["panel"] == c.panel.number], axis, cells)
                    line[-1].tick_params(labelleft=k == 0)
                    set_horizon_axis(line[-1], cells["horizon"], label=axis == upper[-1])
                    if row == 0:
                        line[-1].set_title(_title(c, block), loc="left")
                _set_values(line[0], block[block["axis"] == axis], axis)
                axes += line
            for k, axis in enumerate(lower):
                at = parts[bands * (band + 1) - 1, k * columns : (k + 1) * columns]
                axes.append(figure.add_subplot(at))
                _draw(axes[-1], block, axis, cells)
                axes[-1].set_ylabel(AXES[axis][0])
                set_horizon_axis(axes[-1], cells["horizon"])
        add_legend(figure, axes)
    return figure, frame


def _draw(ax: Axes, rows: pd.DataFrame, axis: str, cells: xr.Dataset) -> None:
    for curve, part in rows[rows["axis"] == axis].groupby("curve", sort=False):
        style = CURVES[str(curve)]
        cutoff = cells[CUT_OFF[str(curve)]].attrs.get("cutoff") if curve in CUT_OFF else None
        if cutoff is not None:
            style = replace(style, label=f"{style.label}, ε = {float(cutoff):g}")
        if part["x"].isna().all():
            draw_level(ax, part.iloc[0], style)
        else:
            draw_curve(ax, part, style)
    if axis in ("likelihood", "cost"):
        draw_marks(ax, rows)


def _set_values(ax: Axes, rows: pd.DataFrame, axis: str) -> None:
    label, _ = AXES[axis]
    if axis == "cost":
        set_scale(ax, True, label, INK)
        kept = rows[rows["curve"].isin(["loss", "score gap"])]
        positive = kept.loc[kept["y"] > 0, "y"]
        # KL and what the exact score loses fall like e^{-B(T)}: let them leave the axis
        if len(positive):
            ax.set_ylim(bottom=max(positive.min() / 3, positive.max() * LOWEST))
    else:
        ax.set_ylabel(label + cut_worst(ax, rows, less_is_better=False))


def _title(curves: Curves, rows: pd.DataFrame) -> str:
    """Schedule and score, and how many runs are shown."""
    trained = curves.here["score_family"].item() == "trained"
    counted = ["flow"] if not trained else ["flow", "elbo", "denoising elbo"]
    here = rows[(rows["panel"] == curves.panel.number) & rows["curve"].isin(counted)]
    notes = [] if trained else ["closed form"]
    if len(here):
        notes.append(("" if trained else "flow: ") + runs_text(here["n_runs"]))
    return f"{curves.schedule}\nscore {curves.panel.labels['score']}\n{', '.join(notes)}"
