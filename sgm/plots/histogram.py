"""Generated density against the exact one, on the line, for a few diffusion times."""

from __future__ import annotations

import textwrap
from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm.plots.horizon_axis import (
    at_solver,
    evenly,
    labels_with_numbers,
    runs_text,
    shown_cells,
    solver_text,
)
from sgm.plots.panels import Panel, target_cells, target_title
from sgm.plots.rows import Rows, make_frame
from sgm.plots.style import BLUE, INK, add_legend, house_style, new_figure
from sgm.reading import over_runs

Array = npt.NDArray[np.float64]

COLUMNS, HORIZONS = 6, 8  # drawn at most
TALLEST = 2.0  # times the exact density's maximum: what is higher leaves the axes
LETTER = 0.09  # inches, in the title


def total_variation(density: Array, true: Array, width: float) -> Array:
    """½ Σ |p − q| over the bins and what lies outside of them, as one bin more.

    Parameters
    ----------
    density : ndarray, shape (..., n)
    true : ndarray, shape (n,)
    width : float
        Of a bin.
    """
    gap = density - true
    within, outside = np.abs(gap).sum(-1), np.abs(gap.sum(-1))
    return np.asarray(width / 2 * (within + outside))


def expected_variation(chances: Array, n: int) -> float:
    """E of the total variation between a law on cells and n draws of it.

    ½ Σ E|X/n − p| with X ~ Binomial(n, p), whose mean absolute deviation is
    2 ν (1 − p) P(X = ν), ν = ⌊n p⌋ + 1 (De Moivre; Diaconis and Zabell, Stat. Sci. 6, 1991).

    Parameters
    ----------
    chances : ndarray, shape (n_cells,)
        p of every cell, that outside of the bins among them.
    n : int
    """
    from scipy.stats import binom

    p = np.clip(chances, 0.0, 1.0)
    nu = np.floor(n * p) + 1
    return float(np.sum(nu * (1 - p) * binom.pmf(nu, n, p)) / n)


def histogram_figure(grid: xr.Dataset, target: str) -> tuple[Figure, pd.DataFrame]:
    """Histograms of the generated rows' one coordinate, mean ± 1 sd over runs, a panel a T.

    A row a horizon, a column a schedule and score. A panel's title gives the total
    variation distance to the exact law on the bins: of the mean histogram, and the mean of
    the single runs', each with its floor, the same distance for as many true draws. The mean
    over runs mixes their laws: its distance may be far below that of a run.

    Parameters
    ----------
    grid : Dataset
        `sample_density` with an axis `bin`, the centres of equal bins; `target_density`
        where the law is known.
    target : str
        A label of the axis `target`.

    Returns
    -------
    figure : Figure
    frame : DataFrame
        The numbers drawn; of the axis ``total variation``, `y` is a distance and `low` its
        floor.

    Raises
    ------
    ValueError
        If the grid has no such target, or no histogram of it.
    """
    cells = target_cells(grid, target)
    every = shown_cells(cells, ["sample_density"], len(cells["schedule"]), COLUMNS)
    room = max(1, COLUMNS // len(every[1]))
    schedules, scores, note = shown_cells(cells, ["sample_density"], room, COLUMNS)
    density, solver = at_solver(cells["sample_density"].load())
    density = density.sortby("horizon")
    horizons, left_out = evenly(labels_with_numbers(density, "horizon"), HORIZONS)
    if left_out:
        every_t = len(horizons) + left_out
        note = f"{len(horizons)} of {every_t} horizons{', ' + note if note else ' shown'}"
    true = cells.get("target_density", xr.DataArray(np.full(density.sizes["bin"], np.nan))).values
    draws = int(grid.attrs.get("n_samples", 0))
    pairs = list(product(schedules, scores))
    rows: list[pd.DataFrame] = []
    for number, (t, (schedule, score)) in enumerate(product(horizons, pairs)):
        labels = {"horizon": t, "score": score}
        here = density.sel(labels | {"schedule": schedule})
        rows += _rows(Rows(Panel(number, labels, cells, None)), schedule, here, true, draws)
    frame = make_frame(target, rows)
    with house_style():
        width = max(5.2, 2.0 * len(pairs) + 0.8)
        figure = new_figure(width, 1.45 * len(horizons) + 1.3, "")
        lines = [f"{target_title(cells)}: generated density", solver_text(solver), note]
        title = "; ".join(filter(None, lines))
        figure.suptitle(textwrap.fill(title, int(width / LETTER)), fontweight="bold")
        axes = figure.subplots(len(horizons), len(pairs), squeeze=False, sharex=True, sharey=True)
        for number, ax in enumerate(axes.ravel()):
            _draw(ax, frame[frame["panel"] == number], schedules)
        for ax, t in zip(axes[:, 0], horizons, strict=True):
            ax.set_ylabel(f"T = {t:g}\ndensity")
        for ax in axes[-1]:
            ax.set_xlabel(f"x{int(density.attrs.get('coordinate', 0)) + 1}")
        top = frame.loc[frame["axis"] == "density", "y"].max()
        if np.isfinite(true).any():
            top = min(top, TALLEST * np.nanmax(true))
        axes[0, 0].set_ylim(0, 1.08 * top)
        add_legend(figure, axes.ravel())
    return figure, frame


def _rows(
    rows: Rows, schedule: str, density: xr.DataArray, true: Array, draws: int
) -> list[pd.DataFrame]:
    """The rows of a panel: the mean histogram, the exact density, and their distances."""
    runs, x = over_runs(density), density["bin"].values
    n_runs = int(runs.count.max())
    rows.add(
        "density", "generated", x, runs.mean, sd=runs.sd, n_runs=n_runs, schedule=schedule,
        keep_empty=True,
    )  # fmt: skip
    rows.add("density", "exact", x, true, schedule=schedule)
    if not (np.isfinite(true).all() and n_runs):
        return rows.rows
    width = float(np.ptp(x) / (len(x) - 1))
    chances = np.append(true * width, max(0.0, 1 - true.sum() * width))
    alive = density.transpose("seed", "bin").values
    alive = alive[np.isfinite(alive).all(axis=1)]
    for curve, y, n in (
        ("mean", total_variation(alive.mean(axis=0), true, width), draws * n_runs),
        ("a run", total_variation(alive, true, width).mean(), draws),
    ):
        floor = expected_variation(chances, n) if n else np.nan
        rows.add("total variation", curve, np.nan, y, low=floor, n_runs=n_runs, schedule=schedule)
    return rows.rows


def _draw(ax: Axes, rows: pd.DataFrame, schedules: list[str]) -> None:
    bins = rows[rows["axis"] == "density"]
    for curve, part in bins.groupby("curve", sort=False):
        x, y = part["x"].to_numpy(), part["y"].to_numpy()
        half = np.ptp(x) / (len(x) - 1) / 2
        edges = np.append(x - half, x[-1] + half)
        if curve == "exact":
            ax.stairs(y, edges, color=INK, linewidth=0.9, label="exact density, mean of each bin")
            continue
        low, high = part["low"].to_numpy(), part["high"].to_numpy()
        if np.isfinite(y).any():
            band = bool(np.isfinite(high).any())
            label = "generated" + (", mean ± 1 sd" if band else "")
            ax.stairs(y, edges, color=BLUE, linewidth=1.0, fill=True, alpha=0.25)
            ax.stairs(y, edges, color=BLUE, linewidth=1.0, label=label)
            if band:
                ax.stairs(high, edges, baseline=low, color=BLUE, fill=True, alpha=0.35)
    ax.set_title(_title(rows, schedules), loc="left", fontsize=6.5)


def _title(rows: pd.DataFrame, schedules: list[str]) -> str:
    """Which cell, how many runs, and the distances with their floors."""
    first = rows.iloc[0]
    cell = f"{first['schedule']}, {first['score']}" if len(schedules) > 1 else str(first["score"])
    lines = [f"{cell}: {runs_text(rows['n_runs'].dropna())}"]
    for _, row in rows[rows["axis"] == "total variation"].iterrows():
        floor = f", floor {row['low']:.2g}" if np.isfinite(row["low"]) else ""
        lines.append(f"TV of {row['curve']} {row['y']:.2g}{floor}")
    return "\n".join(lines)
