"""The table of all cells: a row a cell and divergence, its numbers as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sgm.axes import GRID
from sgm.comparison import cross_fitted
from sgm.ranking import bounding
from sgm.reading import (
    SETTING,
    Divergence,
    bounds_of,
    divergences_of,
    finite,
    objection,
    text_of,
)
from sgm.rounding import rounded, significant
from sgm.store import DONE, FAILED, NOT_RUN

__all__ = ["Column", "Table", "table_of_cells"]

Array = npt.NDArray[np.float64]

#: The columns that are not bounds, as they stand in the table: key, title, whether it is a number.
BEFORE = (
    ("target", "target", False),
    ("schedule", "schedule", False),
    ("horizon", "T", True),
    ("score", "score", False),
    ("sampler", "sampler", False),
    ("time_grid", "time grid", False),
    ("n_steps", "N", True),
    ("nfe", "NFE", True),
    ("divergence", "divergence", False),
    ("error", "error", True),
    ("standard_error", "standard error", True),
    ("values", "estimate", False),
    ("regret", "regret", True),
    ("floor", "floor", True),
    ("exact", "exact law", True),
)
AFTER = (("objection", "where a bound does not apply", False), ("status", "status", False))

NOTES = {
    "horizon": "the diffusion time",
    "n_steps": "steps in time",
    "nfe": "evaluations of the score",
    "error": "mean over runs; exact where nothing was sampled",
    "standard_error": "of the mean over runs, including the error that all runs share",
    "values": "coupled: below the noise floor; empirical: the plain estimator; exact: no sampling",
    "regret": "error divided by the least error of the schedules in the same setting (cross-fitted "
    "with six runs or more, so it may be a little below 1)",
    "floor": "what the plain estimator shows for true samples",
    "exact": "value for the sampler's exact law, where that is known",
    "objection": "why the hypotheses of a bound fail here",
}


@dataclass(frozen=True)
class Column:
    """A column: its key, title, whether it holds numbers, and a note on what it is."""

    key: str
    title: str
    number: bool
    note: str


@dataclass(frozen=True)
class Table:
    """The cells of a study as text.

    Parameters
    ----------
    columns : tuple of Column
        Those that differ between rows.
    common : tuple of (str, str)
        Title and text of those that are the same in all rows.
    cells : DataFrame of str
        Empty texts where there is no number.
    """

    columns: tuple[Column, ...]
    common: tuple[tuple[str, str], ...]
    cells: pd.DataFrame

    @property
    def data(self) -> dict[str, Any]:
        """For JSON: texts of a column by their numbers, since most come often."""
        columns = []
        for column in self.columns:
            codes, texts = pd.factorize(self.cells[column.key], sort=False)
            columns.append(
                {
                    "key": column.key, "title": column.title, "number": column.number,
                    "note": column.note, "texts": list(map(str, texts)), "codes": codes.tolist(),
                }
            )  # fmt: skip
        return {"columns": columns, "rows": len(self.cells)}


def table_of_cells(grid: xr.Dataset) -> Table:
    """One row a cell and divergence of which it has a number, or lost runs.

    Returns
    -------
    Table
        Labels; the `error`, as figures and rankings take it (`sgm.answers.errors_of`), its standard
        error, regret, floor and exact value; each bound of the divergence; where a bound is no
        theorem; what became of the runs.
    """
    grid = grid.drop_dims([d for d in grid.dims if d not in (*GRID, "seed")]).load()
    # what bounds are of comes first
    measures = sorted(divergences_of(grid), key=lambda d: not bounding(grid, d))
    frames = [_rows(grid, divergence) for divergence in measures]
    frames = [frame for frame in frames if len(frame)]
    totals = [str(name) for bound in bounds_of(grid) for name in (bound.name, *bound.refined)]
    bounds = [(name, name, True) for name in dict.fromkeys(totals)]
    columns = [*BEFORE, *bounds, *AFTER]
    keys = [key for key, _, _ in columns]
    whole = pd.concat(frames) if frames else pd.DataFrame(columns=keys)
    targets = {target: i for i, target in enumerate(grid["target"].values.tolist())}
    whole = whole.sort_values("target", key=lambda own: own.map(targets), kind="stable")
    whole = whole.reindex(columns=keys).astype(object)
    cells = whole.where(whole.notna(), "").astype(str).reset_index(drop=True)
    shown, common = [], []
    for key, title, number in columns:
        values = cells[key].unique()
        if len(values) > 1 or key in ("target", "schedule", "error", "status"):
            note = NOTES.get(key, text_of(grid[key]) if key in grid.data_vars else "")
            shown.append(Column(key, title, number, note))
        elif len(values) and values[0]:
            common.append((title, str(values[0])))
    return Table(tuple(shown), tuple(common), cells)


def _cube(grid: xr.Dataset, name: str) -> Array:
    """A variable over the axes of the cells, schedules and runs last; NaN without it."""
    variable = finite(grid, name).variable
    sizes = {dim: grid.sizes[dim] for dim in (*SETTING, "schedule", "seed")}
    if "seed" not in variable.dims:
        sizes["seed"] = 1
    # `DataArray.broadcast_like` aligns coordinates first, which takes most of a page's time
    return np.asarray(variable.set_dims(sizes).transpose(*sizes).values)  # type: ignore[no-untyped-call]


def _mean(values: Array) -> Array:
    count = np.isfinite(values).sum(-1)
    return np.asarray(np.nansum(values, -1) / np.where(count, count, np.nan))


def _rows(grid: xr.Dataset, divergence: Divergence) -> pd.DataFrame:
    """The rows of one divergence."""
    order = [*SETTING, "schedule"]
    status = np.asarray(grid["status"].transpose(*order, "seed").values)
    error, deviation, regret, kind = _errors(grid, divergence, status.shape[:-1])
    tried = np.isin(status, [NOT_RUN, DONE, FAILED]).any(-1)
    lost = np.isin(status, [NOT_RUN, FAILED]).any(-1) & bool((kind != "exact").any())
    shown = tried & (np.isfinite(error) | lost)
    floor, exact = (_mean(_cube(grid, name)) for name in (divergence.floor, divergence.exact))
    floor, exact = (
        np.where(kind == "empirical", floor, np.nan),
        np.where(kind == "exact", np.nan, exact),
    )
    columns: dict[str, Any] = {
        "error": [rounded(*pair) for pair in zip(error[shown], deviation[shown], strict=True)],
        "standard_error": _texts(deviation[shown], 2),
        "values": kind[shown],
        "regret": _texts(regret[shown], 3),
        "floor": _texts(floor[shown], 3),
        "exact": _texts(exact[shown], 3),
        "status": list(map(_fate, status[shown], np.isfinite(error[shown]))),
        "divergence": divergence.label,
    }
    bounds = {bound.name: bound for bound in bounds_of(grid)}
    cells = grid["status"].isel(seed=0, drop=True)
    told = [""] * int(shown.sum())
    for judge in bounding(grid, divergence):
        columns[judge.total] = _texts(_mean(_cube(grid, judge.total))[shown], 3)
        why = objection(grid, bounds[judge.bound], judge.total).broadcast_like(cells)
        for i, reason in enumerate(np.asarray(why.transpose(*order).values)[shown]):
            if reason and columns[judge.total][i]:
                told[i] += f"{'; ' * bool(told[i])}{judge.total}: {reason}"
    labels = pd.MultiIndex.from_product([grid[axis].values.tolist() for axis in order], names=order)
    frame: pd.DataFrame = labels.to_frame(index=False)[shown.ravel()].assign(
        **columns, objection=told
    )
    if "nfe" in grid.coords:
        frame["nfe"] = grid["nfe"].broadcast_like(cells).transpose(*order).values[shown]
    frame["horizon"] = [f"{value:g}" for value in frame["horizon"]]
    return frame


def _errors(
    grid: xr.Dataset, divergence: Divergence, shape: tuple[int, ...]
) -> tuple[Array, Array, Array, npt.NDArray[Any]]:
    """Error, standard error and regret of each cell, and which estimate its setting has."""
    known = {
        "coupled": _cube(grid, divergence.coupled),
        "empirical": _cube(grid, divergence.name),
        "exact": _cube(grid, divergence.exact)[..., :1],
    }
    coupled = grid[divergence.coupled].attrs if divergence.coupled else {}
    shared = np.nan_to_num(_mean(_cube(grid, str(coupled.get("shared_error", "")))))
    own = _mean(_cube(grid, divergence.standard_error))
    error, deviation, regret = (np.full(shape, np.nan) for _ in range(3))
    kinds = np.full(shape, "", dtype=object)
    for place in np.ndindex(*shape[:-1]):
        kind = next((k for k, values in known.items() if np.isfinite(values[place]).any()), "")
        if not kind:
            continue
        runs = known[kind][place]
        kinds[place], error[place] = kind, _mean(runs)
        if divergence.ranks:
            regret[place] = _regret(runs)
        if kind != "exact":
            common = shared[place] * (kind == "coupled")
            deviation[place] = _standard_error(runs, common, own[place])
    return error, deviation, regret, kinds


def _texts(values: Array, digits: int) -> list[str]:
    return [significant(float(value), digits) for value in values]


def _standard_error(runs: Array, shared: Array, own: Array) -> Array:
    """Of the means over runs, with what all runs share; of a single run its own."""
    count = np.isfinite(runs).sum(-1)
    deviation = np.full(len(runs), np.nan)
    several = count > 1
    deviation[several] = np.nanstd(runs[several], axis=-1, ddof=1)
    return np.where(several, np.hypot(deviation / np.sqrt(np.maximum(count, 1)), shared), own)


def _regret(runs: Array) -> Array:
    """The error of each schedule over the least, on the seeds that have both."""
    if np.isfinite(runs).any(-1).sum() < 2:
        return np.full(len(runs), np.nan)
    rows, _ = cross_fitted(runs)
    least = runs[rows, np.arange(runs.shape[1])]
    there = np.isfinite(runs) & np.isfinite(least)
    top, bottom = (
        _mean(np.where(there, x, np.nan)) for x in (runs, np.broadcast_to(least, runs.shape))
    )
    return np.where(bottom > 0, top / np.where(bottom > 0, bottom, np.nan), np.nan)


def _fate(states: npt.NDArray[Any], known: bool) -> str:
    """What became of the runs of a cell."""
    failed, missing = int((states == FAILED).sum()), int((states == NOT_RUN).sum())
    parts = [f"{failed} of {len(states)} failed"] * (failed > 0)
    parts += [f"{missing} of {len(states)} not run"] * (missing > 0)
    return ", ".join(parts) or ("done" if known else "no finite value")
