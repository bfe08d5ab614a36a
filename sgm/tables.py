"""Tables: views of one grid (the dataset of a study) as tidy frames.

`summary_table` has a row a cell, with statistics over its runs; `ranking_table` has a
row a set of comparable cells and a bound, and asks whether the bound ranks them as the error
does; `comparison_table` sets schedules against each other; `horizons_table` has a
row a horizon; `leaderboard_table` and `contests_table` rank schedules, time grids and samplers at
equal numbers of evaluations. Statistics over runs are over the finite values of the axis `seed`;
standard deviations divide by n − 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sgm.answers import answers_text
from sgm.axes import GRID
from sgm.comparison import comparison_table, comparison_text, comparisons
from sgm.horizons import horizons_table
from sgm.leaderboard import contests_table, leaderboard_table
from sgm.ranking import ranking_table
from sgm.reading import (
    Bound,
    Runs,
    bounds_of,
    divergences_of,
    finite,
    objections,
    over_runs,
    parameters,
    settings,
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
    """Write `folder`/<name>.csv for each table, comparisons and answers in words; it is made.

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
    found, ranking = list(comparisons(grid)), ranking_table(grid)
    made = {"comparison": comparison_table(grid, found), "ranking": ranking}
    texts = {
        "comparison": comparison_text(grid, found),
        "answers": answers_text(grid, str(folder.parent), ranking),
    }
    paths = [folder / f"{name}.txt" for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        with written_whole(path) as aside:
            aside.write_text(text, encoding="utf-8")
    for name in names:
        paths.append(folder / f"{name}.csv")
        with written_whole(paths[-1]) as aside:
            table = made[name] if name in made else TABLES[name](grid)
            table.to_csv(aside, index=False)
    return paths
