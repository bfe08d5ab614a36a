"""Figures against the diffusion time: which cells are drawn, and their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes

from sgm.plots.cells import COLUMNS, NoNumbersError, evenly
from sgm.plots.engine import set_numbers
from sgm.reading import in_order, over_runs
from sgm.store import FAILED

SOLVER = ("sampler", "time_grid", "n_steps")
CUT = 3.0  # times the distance from the best value to the median: what is worse may be cut
FRAME = ("panel", "schedule", "score", *COLUMNS)


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
    held = [cells[name] for name in names if name in cells]
    kept, notes = [], []
    for axis, room in (("schedule", n_schedules), ("score", n_scores)):
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


def at_solver(values: xr.DataArray) -> tuple[xr.DataArray, dict[str, Any]]:
    """The first sampler and time grid with a number, at their most steps; and their labels."""
    labels: dict[str, Any] = {}
    for axis in (dim for dim in SOLVER if dim in values.dims):
        found = labels_with_numbers(values, axis) or values[axis].values.tolist()
        labels[axis] = max(found) if axis == "n_steps" else found[0]
        values = values.sel({axis: labels[axis]})
    return values, labels


def solver_text(labels: Mapping[str, Any]) -> str:
    """Sampler, time grid and steps in words."""
    words = {"sampler": "{}", "time_grid": "{} time grid", "n_steps": "{} steps"}
    return ", ".join(words[axis].format(label) for axis, label in labels.items())


@dataclass(frozen=True)
class Rows:
    """The frame in the making: one schedule and score, against T.

    Parameters
    ----------
    here : Dataset
        The grid at the schedule and score, by increasing T.
    labels : dict
        Columns of every row.
    """

    here: xr.Dataset
    labels: dict[str, Any]
    tables: list[pd.DataFrame]

    def add(self, axis: str, curve: str, x: npt.ArrayLike, y: npt.ArrayLike, **own: Any) -> None:
        """Append a curve; one without any finite number is left out."""
        values = np.atleast_1d(np.asarray(y, dtype=np.float64))
        if not np.isfinite(values).any():
            return
        columns = {"x": x, "y": np.where(np.isfinite(values), values, np.nan), **own}
        columns = {
            name: np.broadcast_to(np.asarray(v), values.shape) for name, v in columns.items()
        }
        self.tables.append(pd.DataFrame({**self.labels, "axis": axis, "curve": curve, **columns}))

    def over_runs(
        self, axis: str, curve: str, values: xr.DataArray | None, *, log: bool = False
    ) -> None:
        """Append means over runs with ± 1 sd, on a logarithmic axis their range; or an exact curve.

        A variable that the grid does not hold is None, and adds nothing.
        """
        if values is None:
            return
        x = self.here["horizon"].values
        if "seed" not in values.dims:
            self.add(axis, curve, x, values)
            return
        runs = over_runs(values)
        failed = self.here["status"] == FAILED
        failed = failed.any([dim for dim in failed.dims if dim not in values.dims])
        low, high = (
            (runs.lowest, runs.highest) if log else (runs.mean - runs.sd, runs.mean + runs.sd)
        )
        lost = (failed & ~np.isfinite(values)).sum("seed")
        self.add(axis, curve, x, runs.mean, low=low, high=high, n_runs=runs.count, n_failed=lost)


def sets_note(rows: pd.DataFrame, confidence: float = 0.95) -> str:
    """How many confidence sets may miss their T; of one, nothing."""
    marks = rows[["axis", "schedule", "score"]].drop_duplicates()
    if len(marks) < 2:
        return ""
    missed = (1 - confidence) * len(marks)
    return f"of {len(marks)} sets at 95%, up to {missed:.2g} may miss the best T by chance"


def runs_text(counts: pd.Series[int]) -> str:
    """How many runs the points of a curve average, such as "4 to 6 runs"."""
    counts = counts.dropna()
    if counts.empty:
        return "no runs"
    low, high = int(counts.min()), int(counts.max())
    return (f"{low} to " if low < high else "") + f"{high} run" + ("" if high == 1 else "s")


def set_time(horizons: npt.ArrayLike) -> Any:
    """The x-axis of a page against T."""
    return lambda ax, rows, last: set_numbers(ax, horizons, "diffusion time $T$" if last else "")


def cut_worst(ax: Axes, rows: pd.DataFrame, *, less_is_better: bool) -> None:
    """Cut a linear axis where the worst values would hide the rest, and say so at its label.

    Levels and the best value of every curve stay well inside.
    """
    sign = 1.0 if less_is_better else -1.0
    y = sign * rows["y"].dropna()
    if y.empty or ax.get_yscale() == "log":
        return
    best = y.min()
    worst_kept = y.groupby([rows[name] for name in ("panel", "score", "curve")]).min().max()
    reach = max(CUT * (y.median() - best), 1.5 * (worst_kept - best))
    if reach == 0 or y.max() <= best + 1.2 * reach:
        return
    ax.set_ylim(*sorted((sign * (best - 0.15 * reach), sign * (best + reach))))
    if ax.get_ylabel():
        ax.set_ylabel(f"{ax.get_ylabel()}\n(cut {'above' if less_is_better else 'below'})")
