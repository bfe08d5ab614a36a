"""Generated density against the exact one, on the line, for a few diffusion times."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sgm.plots.cells import evenly, make_frame, target_cells, target_title
from sgm.plots.engine import C, Look, Page, Track, draw_page, wrapped
from sgm.plots.over_time import (
    FRAME,
    Rows,
    at_solver,
    labels_with_numbers,
    runs_text,
    shown_cells,
    solver_text,
)
from sgm.reading import over_runs

Array = npt.NDArray[np.float64]

COLUMNS, HORIZONS = 6, 8  # drawn at most
TALLEST = 2.0  # times the exact density's maximum: what is higher leaves the axes


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
    tables = []
    for number, (t, (schedule, score)) in enumerate(product(horizons, pairs)):
        labels = {"panel": number, "horizon": t, "schedule": schedule, "score": score}
        here = density.sel({"horizon": t, "schedule": schedule, "score": score})
        tables += _rows(Rows(cells, labels, []), here, true, draws)
    frame = make_frame(tables, target, (*FRAME, "horizon"))
    top = frame.loc[frame["axis"] == "density", "y"].max()
    if np.isfinite(true).any():
        top = min(top, TALLEST * np.nanmax(true))

    def paint(ax: Axes, rows: pd.DataFrame) -> None:
        _draw(ax, rows)
        ax.set_ylim(0, 1.08 * top)
        if rows["panel"].iloc[0] % len(pairs) == 0:
            ax.set_ylabel(f"T = {rows['horizon'].iloc[0]:g}")
        else:
            ax.tick_params(labelleft=False)

    numbers = range(len(horizons) * len(pairs))
    titles = {i: _title(frame[frame["panel"] == i], len(schedules) > 1) for i in numbers}
    coordinate = f"x{int(density.attrs.get('coordinate', 0)) + 1}"

    def set_coordinate(ax: Axes, rows: pd.DataFrame, last: bool) -> None:
        last = bool(len(rows)) and rows["panel"].iloc[0] >= len(numbers) - len(pairs)
        ax.set_xlabel(coordinate if last else "")

    said = {"exact": Look(width=0.9).handle("exact density, mean of each bin", C.INK)}
    band = bool(frame.loc[frame["curve"] == "generated", "high"].notna().any())
    label = "generated" + (", mean ± 1 sd" if band else "")
    said["generated"] = Look(width=1.0).handle(label, C.BLUE)
    page = Page(
        f"{target_title(cells)}: generated density",
        wrapped(numbers, [Track("density", height=0.85, paint=paint)], len(pairs)),
        notes=[solver_text(solver), note], titles=titles, x=set_coordinate,
        width=max(6.2, 2.0 * len(pairs) + 0.8),
        handles=[said[curve] for curve in said if (frame["curve"] == curve).any()],
    )  # fmt: skip
    return draw_page(frame, page), frame


def _rows(rows: Rows, density: xr.DataArray, true: Array, draws: int) -> list[pd.DataFrame]:
    """The rows of a panel: the mean histogram, the exact density, and their distances."""
    runs, x = over_runs(density), density["bin"].values
    n_runs = int(runs.count.max())
    low, high = runs.mean - runs.sd, runs.mean + runs.sd
    rows.add("density", "generated", x, runs.mean, low=low, high=high, n_runs=n_runs)
    rows.add("density", "exact", x, true)
    if not (np.isfinite(true).all() and n_runs):
        return rows.tables
    width = float(np.ptp(x) / (len(x) - 1))
    chances = np.append(true * width, max(0.0, 1 - true.sum() * width))
    alive = density.transpose("seed", "bin").values
    alive = alive[np.isfinite(alive).all(axis=1)]
    for curve, y, n in (
        ("mean", total_variation(alive.mean(axis=0), true, width), draws * n_runs),
        ("a run", total_variation(alive, true, width).mean(), draws),
    ):
        floor = expected_variation(chances, n) if n else np.nan
        rows.add("total variation", curve, np.nan, y, low=floor, n_runs=n_runs)
    return rows.tables


def _draw(ax: Axes, rows: pd.DataFrame) -> None:
    for curve, part in rows.groupby("curve", sort=False):
        x, y = part["x"].to_numpy(), part["y"].to_numpy()
        half = np.ptp(x) / (len(x) - 1) / 2
        edges = np.append(x - half, x[-1] + half)
        if curve == "exact":
            ax.stairs(y, edges, color=C.INK, linewidth=0.9)
            continue
        low, high = part["low"].to_numpy(), part["high"].to_numpy()
        ax.stairs(y, edges, color=C.BLUE, linewidth=1.0, fill=True, alpha=0.25)
        ax.stairs(y, edges, color=C.BLUE, linewidth=1.0)
        if np.isfinite(high).any():
            ax.stairs(high, edges, baseline=low, color=C.BLUE, fill=True, alpha=0.35)


def _title(rows: pd.DataFrame, several: bool) -> str:
    """Which cell, how many runs, and the distances with their floors."""
    first = rows.iloc[0]
    cell = f"{first['schedule']}, {first['score']}" if several else str(first["score"])
    lines = [f"{cell}: {runs_text(rows['n_runs'].dropna())}"]
    for _, row in rows[rows["axis"] == "total variation"].iterrows():
        floor = f", floor {row['low']:.2g}" if np.isfinite(row["low"]) else ""
        lines.append(f"TV of {row['curve']} {row['y']:.2g}{floor}")
    return "\n".join(lines)
