"""Tables: views of one grid (the dataset of a study) as tidy frames.

`summary_table` has a row a cell, with statistics over its runs; `ranking_table` has a
row a set of comparable schedules and asks whether a bound ranks them as the error
does; `comparison_table` sets the best a against the other schedules; `horizons_table` has a
row a horizon; `leaderboard_table` and `contests_table` rank schedules, time grids and samplers at
equal numbers of evaluations. Statistics over runs are over the finite values of the axis `seed`;
standard deviations divide by n − 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sgm.axes import GRID
from sgm.comparison import comparison_table, comparison_text
from sgm.horizons import horizons_table
from sgm.leaderboard import contests_table, leaderboard_table
from sgm.reading import (
    Bound,
    Divergence,
    Runs,
    bound_named,
    bounds_of,
    divergences_of,
    finite,
    lowest,
    objections,
    over_runs,
    parameters,
    resolved,
    settings,
    shapes,
    unbeaten,
)
from sgm.store import DONE, FAILED, NOT_RUN
from sgm.store.cells import written_whole

__all__ = [
    "TABLES",
    "comparison_table",
    "comparison_text",
    "contests_table",
    "horizons_table",
    "leaderboard_table",
    "ranking_table",
    "summary_table",
    "write_tables",
]


def _mean(grid: xr.Dataset, name: str) -> xr.DataArray:
    values = finite(grid, name)
    return values.mean("seed") if "seed" in values.dims else values


def _statistics(prefix: str, runs: Runs) -> dict[str, xr.DataArray]:
    return {
        f"{prefix}_runs": runs.count,
        f"{prefix}_mean": runs.mean,
        f"{prefix}_sd": runs.sd,
        f"{prefix}_median": runs.median,
        f"{prefix}_standard_error": runs.sd / np.sqrt(runs.count.where(runs.count > 0)),
    }


def summary_table(grid: xr.Dataset) -> pd.DataFrame:
    """One row a cell (target, schedule, horizon, score, sampler, time grid, steps).

    Cells that the study doesn't have (not applicable, without a number) are left out.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    DataFrame
        The labels of the cell, and the parameters that are coordinates; `n_failed`,
        `n_not_run`. Of each divergence, by its figure's name such as `kl`: `kl_runs` with a
        finite value, `kl_mean`, `kl_sd`, `kl_median`, `kl_standard_error` of the mean over
        runs, and of its companions `kl_unbiased`, `kl_exact`, `kl_floor`, `kl_floor_sd` and
        `kl_within_standard_error` (of one run, from its own sample). Of each bound, such as
        `kl_bound`: `kl_bound_mean` and so on, and `kl_bound_objection`, why the theorem does
        not apply. Every other variable of the grid, under its own name. All are means over
        runs.
    """
    grid = grid.drop_dims("time_fraction", errors="ignore").load()
    status = grid["status"]
    columns: dict[str, xr.DataArray] = {
        "n_failed": (status == FAILED).sum("seed"),
        "n_not_run": (status == NOT_RUN).sum("seed"),
    }
    present = status.isin([NOT_RUN, DONE, FAILED]).any("seed")
    told = {"status"}
    for divergence in divergences_of(grid):
        columns |= _statistics(divergence.figure, over_runs(finite(grid, divergence.name)))
        companions = {
            "unbiased": divergence.unbiased,
            "coupled": divergence.coupled,
            "exact": divergence.exact,
            "floor": divergence.floor,
            "floor_sd": divergence.floor_sd,
            "within_standard_error": divergence.standard_error,
        }
        for role, name in companions.items():
            if name:
                columns[f"{divergence.figure}_{role}"] = _mean(grid, name)
        told |= {divergence.name, *companions.values()}
        present = present | columns[f"{divergence.figure}_runs"].astype(bool)
        present = present | np.isfinite(_mean(grid, divergence.exact))
    for bound in bounds_of(grid):
        columns |= _statistics(bound.name, over_runs(finite(grid, bound.name)))
        columns[f"{bound.name}_objection"] = _objection(grid, bound)
        told |= {bound.name, str(grid[bound.name].attrs.get("objection", ""))}
    columns |= {
        name: _mean(grid, name)
        for name in sorted(set(map(str, grid.data_vars)) - told)
        if grid[name].dtype.kind == "f" and set(grid[name].dims) <= {*GRID, "seed"}
    }
    numbers = [axis.name for axis in parameters(grid)]
    labels = ("family", *numbers, "score_family", "recipe", "dimension", "law_known", "nfe")
    everywhere = xr.zeros_like(status.isel(seed=0, drop=True))
    table = xr.Dataset({**columns, "_present": present | everywhere.astype(bool)})
    frame = table.to_dataframe(dim_order=list(GRID))
    frame = frame[frame.pop("_present").astype(bool)].reset_index()
    return frame[[*GRID, *(name for name in labels if name in frame), *columns]]


def _objection(grid: xr.Dataset, bound: Bound) -> xr.DataArray:
    """The reasons of `objections` over the cells."""
    reasons = xr.full_like(grid["status"].isel(seed=0, drop=True), "", dtype=object)
    for labels in settings(grid):
        reasons.loc[labels] = np.array(objections(grid.sel(labels), bound), dtype=object)
    return reasons


def ranking_table(grid: xr.Dataset) -> pd.DataFrame:
    """Does a bound rank the schedules as the error does? One row a (setting, divergence).

    A setting is a (target, horizon, score, sampler, time grid, number of steps). Its
    *error* is the mean over runs of the divergence, of its coupled estimate where there is one, or
    its exact value where nothing was sampled (column `error`). Divergences that name no bound
    are left out.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    DataFrame
        The setting; `divergence` and `bound`, and the `objection` to the bound's theorem
        there, empty where it applies; `n_schedules` with a finite error, `n_runs` and
        `n_failed` over all of them; `a_error`, `a_exact`, `a_exact_score` (the exact value
        of the exact score), `a_bound` and one for each refined total: the a of the β_a
        family at which each is lowest; `a_error_set`: the a's that the runs can't tell from
        the best, its 95 % confidence set (`sgm.reading.unbeaten`); `error_at_a_error` and
        `error_at_a_bound`, the error there; `spearman_*`: the rank correlation of each with the
        error over all schedules, empty under three schedules or for a constant.
    """
    grid = grid.drop_dims("time_fraction", errors="ignore").load()
    exact = [str(s) for s in grid["score"].values[grid["score_family"] == "exact"]]
    rows = []
    for labels in settings(grid):
        here = grid.sel(labels)
        ideal = grid.sel({**labels, "score": exact[0]}) if exact else None
        for divergence in divergences_of(grid):
            if divergence.bound:
                row = _ranking(here, ideal, divergence, bound_named(grid, divergence.bound))
                if row is not None:
                    rows.append(labels | row)
    return pd.DataFrame(rows)


def _ranking(
    here: xr.Dataset, ideal: xr.Dataset | None, divergence: Divergence, bound: Bound
) -> dict[str, Any] | None:
    """The row of one setting; `ideal` is the same setting with the exact score."""
    estimate = resolved(here, divergence)
    values = finite(here, estimate)
    empirical = _mean(here, estimate).values
    exact = _mean(here, divergence.exact).values
    sampled = bool(np.isfinite(empirical).any())
    tried = bool(here["status"].isin([NOT_RUN, DONE, FAILED]).any())
    if not (sampled or tried or np.isfinite(exact).any()):
        return None
    empirical_error = sampled or not np.isfinite(exact).any()
    error = empirical if empirical_error else exact
    a = shapes(here)
    criteria = {
        "exact": exact,
        "exact_score": np.full_like(exact, np.nan)
        if ideal is None
        else _mean(ideal, divergence.exact).values,
        "bound": _mean(here, bound.name).values,
        **{name: _mean(here, name).values for name in bound.refined},
    }
    error_kind = "coupled" if estimate != divergence.name else "empirical"
    error_kind = error_kind if empirical_error else "exact"
    family = np.isfinite(a)
    runs = values.count("seed").values if empirical_error and "seed" in values.dims else 1
    best = _lowest(error, family, runs)
    by_bound = _lowest(criteria["bound"], family)
    return {
        "recipe": str(here["recipe"].item()),
        "divergence": divergence.name,
        "bound": bound.name,
        "objection": "; ".join(dict.fromkeys(filter(None, objections(here, bound)))),
        "error": error_kind,
        "n_schedules": int(np.isfinite(error).sum()),
        "n_runs": int(np.isfinite(values).sum()),
        "n_failed": int((here["status"] == FAILED).sum()),
        "a_error": _at(a, best),
        "a_error_set": _unbeaten_a(values, a),
        **{f"a_{name}": _at(a, _lowest(v, family)) for name, v in criteria.items()},
        "error_at_a_error": _at(error, best),
        "error_at_a_bound": _at(error, by_bound),
        **{f"spearman_{name}": _spearman(v, error) for name, v in criteria.items()},
    }


def _unbeaten_a(values: xr.DataArray, a: npt.NDArray[Any]) -> str:
    """The a's of the best one's confidence set, over the seeds that lost no run of the family."""
    if "seed" not in values.dims:
        return ""
    family = np.isfinite(a) & values.notnull().any("seed").values
    losses = values.transpose("seed", "schedule").values[:, family]
    losses = losses[np.isfinite(losses).all(1)]
    if len(losses) < 2 or not losses.size:
        return ""
    return " ".join(f"{at:g}" for at in a[family][unbeaten(losses)])


def _lowest(
    values: npt.NDArray[Any], among: npt.NDArray[np.bool_], runs: npt.ArrayLike = 1
) -> int | None:
    """Index of the lowest finite value among those marked, of the most runs; None without one."""
    return lowest(np.where(among, values, np.nan), runs)


def _at(values: npt.NDArray[Any], index: int | None) -> float:
    return np.nan if index is None else float(values[index])


def _spearman(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(pd.Series(x).rank().corr(pd.Series(y).rank()))


TABLES: dict[str, Callable[[xr.Dataset], pd.DataFrame]] = {
    "summary": summary_table,
    "ranking": ranking_table,
    "comparison": comparison_table,
    "horizons": horizons_table,
    "leaderboard": leaderboard_table,
    "leaderboard_targets": contests_table,
}


def write_tables(
    grid: xr.Dataset, folder: str | Path, names: Sequence[str] = tuple(TABLES)
) -> list[Path]:
    """Write `folder`/<name>.csv for each table, and the comparisons in words; the folder is made.

    Parameters
    ----------
    grid : Dataset
    folder : path
    names : sequence of str
        Keys of `TABLES`.

    Returns
    -------
    list of Path
        The files.
    """
    folder = Path(folder)
    paths = [folder / "comparison.txt"]
    with written_whole(paths[0]) as aside:
        aside.write_text(comparison_text(grid), encoding="utf-8")
    for name in names:
        paths.append(folder / f"{name}.csv")
        with written_whole(paths[-1]) as aside:
            TABLES[name](grid).to_csv(aside, index=False)
    return paths
