"""The horizon T as the x axis: which cells are drawn, the ticks, the marks of the best T."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from sgm.horizons import BOUNDS, Loss, best_horizon
from sgm.plots.panels import Panel
from sgm.plots.rows import Rows
from sgm.plots.style import INK, PINK, SET, Style, draw_level
from sgm.reading import in_order, over_runs
from sgm.store import FAILED

T = TypeVar("T")


class NoNumbersError(ValueError):
    """The grid has no number of what a figure draws."""


SOLVER = ("sampler", "time_grid", "n_steps")
APART = 0.1  # ticks of a logarithmic axis, as a fraction of it: their labels must not touch
CUT = 3.0  # times the distance from the best value to the median: what is worse may be cut
MARKS = {
    "exact T*": Style("exact T* of the ELBO", INK, (0, (1, 1)), width=1.4),
    "best T": Style("best T of the runs by the ELBO", PINK, "-", width=1.1, band=SET),
    "best T by the flow": Style(
        "best T of the runs by the flow's likelihood", PINK, "-", width=1.1, band=SET
    ),
}


def shown_cells(
    cells: xr.Dataset, names: Sequence[str], n_schedules: int, n_scores: int
) -> tuple[list[str], list[str], str]:
    """Schedules and scores with a number, evenly thinned, and what is left out.

    Parameters
    ----------
    cells : Dataset
        The grid at one target.
    names : sequence of str
        Variables with the axes `schedule` and `score`; those absent don't count.
    n_schedules, n_scores : int
        At most so many.

    Returns
    -------
    schedules, scores : list of str
        β_a by increasing a, then the others; scores in the order of the grid.
    note : str
        For the title; empty if nothing is left out.

    Raises
    ------
    NoNumbersError
        If there is no number.
    ValueError
        If there is not even one of the variables.
    """
    family, others = in_order(cells)
    orders = {"schedule": [*family, *others], "score": cells["score"].values.tolist()}
    kept, notes = [], []
    for axis, room in (("schedule", n_schedules), ("score", n_scores)):
        held = [cells[name] for name in names if name in cells]
        found = {label for values in held for label in labels_with_numbers(values, axis)}
        labels = [label for label in orders[axis] if label in found]
        if not labels:
            target = str(cells["target"].item())
            refusal = NoNumbersError if held else ValueError
            raise refusal(
                f"target = {target!r}: must have numbers of {' or '.join(names)} in the grid"
            )
        shown, left_out = evenly(labels, room)
        kept.append(shown)
        if left_out:
            notes.append(f"{room} of {len(labels)} {axis}s")
    return kept[0], kept[1], f"{', '.join(notes)} shown" if notes else ""


def labels_with_numbers(values: xr.DataArray, axis: str) -> list[Any]:
    """The labels of an axis at which there is a number."""
    there = (abs(values) < np.inf).any([dim for dim in values.dims if dim != axis])
    return list(there[axis].values[there.values].tolist())


def evenly(labels: Sequence[T], room: int) -> tuple[list[T], int]:
    """At most `room` of some labels, evenly spread with both ends; and how many are left out."""
    n = len(labels)
    places = np.linspace(0, n - 1, min(n, room)) if room > 1 else np.zeros(min(n, 1))
    return [labels[int(i)] for i in np.round(places)], max(0, n - room)


def at_solver(values: xr.DataArray) -> tuple[xr.DataArray, dict[str, Any]]:
    """The first sampler and time grid with a number, at their most steps; and their labels."""
    labels: dict[str, Any] = {}
    for axis in (dim for dim in SOLVER if dim in values.dims):
        found = labels_with_numbers(values, axis) or values[axis].values.tolist()
        labels[axis] = max(found) if axis == "n_steps" else found[0]
        values = values.sel({axis: labels[axis]})
    return values, labels


def solver_text(labels: dict[str, Any]) -> str:
    """Sampler, time grid and steps in words."""
    words = {"sampler": "{}", "time_grid": "{} time grid", "n_steps": "{} steps"}
    return ", ".join(words[axis].format(label) for axis, label in labels.items())


@dataclass
class Curves(Rows):
    """The frame in the making of one schedule and score, against T."""

    schedule: str = ""

    @classmethod
    def of(cls, number: int, cells: xr.Dataset, schedule: str, score: str) -> Curves:
        here = cells.sel(schedule=schedule, score=score).sortby("horizon")
        return cls(Panel(number, {"score": score}, here, None), schedule=schedule)

    @property
    def here(self) -> xr.Dataset:
        return self.panel.here

    def add_curve(
        self, axis: str, curve: str, values: xr.DataArray | None, *, log: bool = False
    ) -> None:
        """Append means over runs with ± 1 sd, on a logarithmic axis their range; or an exact curve.

        A variable that the grid does not hold is None, and adds nothing.
        """
        if values is None:
            return
        x = self.here["horizon"]
        if "seed" not in values.dims:
            self.add(axis, curve, x, values, schedule=self.schedule)
            return
        runs = over_runs(values)
        status = self.here["status"] == FAILED
        status = status.any([dim for dim in status.dims if dim not in values.dims])
        self.add(
            axis, curve, x, runs.mean, sd=None if log else runs.sd,
            low=runs.lowest if log else np.nan, high=runs.highest if log else np.nan,
            n_runs=runs.count, n_failed=(status & ~np.isfinite(values)).sum("seed"),
            schedule=self.schedule,
        )  # fmt: skip

    def add_level(self, axis: str, curve: str, y: npt.ArrayLike, sd: float = np.nan) -> None:
        self.add(axis, curve, np.nan, y, sd=sd, schedule=self.schedule)

    def add_marks(self, loss: Loss | None) -> None:
        """Append the exact T*, where it is interior, and the best T of the runs with its set."""
        if "optimal_horizon" in self.here and self.here.get("optimal_horizon_interior", 1) == 1:
            self.add_level("horizon", "exact T*", self.here["optimal_horizon"])
        if loss is None:
            return
        found = best_horizon(loss.values)
        curve = "best T" if loss.name in BOUNDS else "best T by the flow"
        low, high = np.nan, np.nan
        if found.allowed is not None:
            low, high = found.allowed.low, found.allowed.high
        self.add(
            "horizon", curve, np.nan, found.best, low=low, high=high, n_runs=found.n_runs,
            schedule=self.schedule,
        )  # fmt: skip


def sets_text(rows: pd.DataFrame, confidence: float = 0.95) -> str:
    """How many confidence sets may miss their T, with a line break before; of one, nothing."""
    marks = rows[["axis", "schedule", "score"]].drop_duplicates()
    if len(marks) < 2:
        return ""
    missed = (1 - confidence) * len(marks)
    return f"\nof {len(marks)} sets at 95%, up to {missed:.2g} may miss the best T by chance"


def runs_text(counts: pd.Series[int]) -> str:
    """How many runs the points of a curve average, such as "4 to 6 runs"."""
    counts = counts.dropna()
    if counts.empty:
        return "no runs"
    low, high = int(counts.min()), int(counts.max())
    return (f"{low} to " if low < high else "") + f"{high} run" + ("" if high == 1 else "s")


def draw_marks(ax: Axes, rows: pd.DataFrame) -> None:
    """The vertical lines of `Curves.add_marks`."""
    for _, row in rows[rows["axis"] == "horizon"].iterrows():
        style = MARKS[row["curve"]]
        if row["low"] == row["high"]:
            style = replace(style, label=f"{style.label}, alone in its 95% confidence set")
        draw_level(ax, row, style, upright=True)
        if row["high"] > row["low"]:  # faint behind curves
            ax.axvspan(row["low"], row["high"], color=style.color, alpha=0.12, lw=0, zorder=0.4)


def is_geometric(horizons: npt.ArrayLike) -> bool:
    """Whether the horizons are nearer to a geometric than to an even grid."""
    at = np.unique(np.asarray(horizons, dtype=np.float64))
    steps = [np.diff(values) for values in (at, np.log(at))]
    even, geometric = (np.ptp(step) / step.mean() if len(step) else 0.0 for step in steps)
    return bool(geometric < even)


def _ticks(horizons: npt.ArrayLike) -> list[float]:
    """The horizons from the longest down, less those too near to their neighbour's label."""
    at = np.unique(np.asarray(horizons, dtype=np.float64))
    shortest, *others, longest = at.tolist()
    gap = (longest / shortest) ** APART
    ticks = [longest]
    for t in reversed(others):
        if t * gap <= ticks[-1] and shortest * gap <= t:
            ticks.append(t)
    return [shortest, *reversed(ticks)]


def set_horizon_axis(ax: Axes, horizons: npt.ArrayLike, label: bool = True) -> None:
    """Logarithmic where the horizons are geometric; `label` at the bottom of a column."""
    if is_geometric(horizons):
        ax.set_xscale("log")
        ticks = _ticks(horizons)
        ax.set_xticks(ticks, labels=[f"{t:g}" for t in ticks])
        ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("diffusion time T" if label else "")
    ax.tick_params(labelbottom=label)


def cut_worst(ax: Axes, rows: pd.DataFrame, *, less_is_better: bool) -> str:
    """Cut a linear axis where the worst values would hide the rest; what to add to its label.

    Levels and the best value of every curve stay well inside.
    """
    sign = 1.0 if less_is_better else -1.0
    y = sign * rows["y"].dropna()
    if y.empty:
        return ""
    best = np.fmin(y.min(), (sign * rows["low" if less_is_better else "high"]).min())
    worst_kept = y.groupby([rows[name] for name in ("panel", "score", "curve")]).min().max()
    reach = max(CUT * (y.median() - best), 1.5 * (worst_kept - best))
    if reach == 0 or y.max() <= best + 1.2 * reach:
        return ""
    ends = sorted((sign * (best - 0.08 * reach), sign * (best + reach)))
    ax.set_ylim(*ends)
    return f"\n(cut {'above' if less_is_better else 'below'})"
