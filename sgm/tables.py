"""Tables: views of one grid (the dataset of a study) as tidy frames.

`summary_table` has a row a cell, with statistics over its runs; `ranking_table` has a
row a set of comparable schedules and asks whether a bound ranks them as the error
does. Statistics over runs are over the finite values of the axis `seed`; standard
deviations divide by n − 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from scipy import stats

from sgm.store import DONE, FAILED, NOT_RUN

__all__ = ["TABLES", "ranking_table", "summary_table", "write_tables"]

CELL = ("target", "schedule", "horizon", "score", "sampler", "time_grid", "n_steps")
SETTING = tuple(dim for dim in CELL if dim != "schedule")
CONFIDENCE = 0.95


def _finite(grid: xr.Dataset, name: str) -> xr.DataArray:
    """The finite values of a variable; NaN everywhere where the study has none."""
    if name not in grid:
        return xr.full_like(grid["status"], np.nan, dtype=float)
    values = grid[name]
    return values.where(abs(values) < np.inf)


def _mean(grid: xr.Dataset, name: str) -> xr.DataArray:
    values = _finite(grid, name)
    return values.mean("seed") if "seed" in values.dims else values


def summary_table(grid: xr.Dataset) -> pd.DataFrame:
    """One row a cell (target, schedule, horizon, score, sampler, time grid, steps).

    Cells that the study doesn't have (not applicable, without a number) are left out.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    DataFrame
        The labels of the cell; `n_runs` with a finite empirical KL, `n_failed`,
        `n_not_run`; of the empirical KL `kl_mean`, `kl_sd`, `kl_median`,
        `kl_standard_error` (of the mean over runs) and `kl_within_standard_error`
        (of one run, from its own sample); `kl_floor`, `kl_floor_sd`,
        `kl_unbiased_mean`; the exact divergences; the bound, its parts and
        `kl_bound_refined` = E1 + E2 + E3 refined; `kl_path`, `kl_terminal`; the
        training; the held-out gap where the grid has one.
    """
    grid = grid.drop_dims("time_fraction", errors="ignore").load()
    kl, status = _finite(grid, "kl_plugin"), grid["status"]
    n_runs = kl.count("seed")
    sd = kl.std("seed", ddof=1)
    columns: dict[str, xr.DataArray] = {
        "n_runs": n_runs,
        "n_failed": (status == FAILED).sum("seed"),
        "n_not_run": (status == NOT_RUN).sum("seed"),
        "kl_mean": kl.mean("seed"),
        "kl_sd": sd,
        "kl_median": kl.median("seed"),
        "kl_standard_error": sd / np.sqrt(n_runs.where(n_runs > 0)),
        "kl_within_standard_error": _mean(grid, "kl_standard_error"),
        "kl_floor": _mean(grid, "kl_floor"),
        "kl_floor_sd": _mean(grid, "kl_floor_sd"),
        "kl_unbiased_mean": _mean(grid, "kl_unbiased"),
        **{name: grid[name] for name in ("kl_exact", "kl_reverse_exact", "w2_exact")},
        "kl_bound": _mean(grid, "kl_bound"),
        "kl_bound_sd": _finite(grid, "kl_bound").std("seed", ddof=1),
        **{
            name: _mean(grid, name)
            for name in (
                "kl_bound_mixing",
                "kl_bound_score",
                "kl_bound_discretization",
                "kl_bound_discretization_refined",
            )
        },
        "kl_bound_refined": _refined_bound(grid),
        "kl_path": _mean(grid, "kl_path"),
        "kl_terminal": _mean(grid, "kl_terminal"),
        "train_loss_mean": _mean(grid, "train_loss"),
        "train_seconds_mean": _mean(grid, "train_seconds"),
    }
    if "heldout_nll_gap" in grid:
        gap = _finite(grid, "heldout_nll_gap")
        columns |= {
            "heldout_nll_gap_mean": gap.mean("seed"),
            "heldout_nll_gap_sd": gap.std("seed", ddof=1),
            "heldout_nll_floor": _mean(grid, "heldout_nll_floor"),
        }
    labels = ("family", "a", "score_family", "recipe", "kl_bound_proved", "dimension", "law_known")
    present = (
        status.isin([NOT_RUN, DONE, FAILED]).any("seed") | grid["kl_exact"].notnull() | (n_runs > 0)
    )
    table = xr.Dataset({**columns, "_present": present}).to_dataframe(dim_order=list(CELL))
    table = table[table.pop("_present")].reset_index()
    return table[[*CELL, *(name for name in labels if name in table), *columns]]


def _refined_bound(grid: xr.Dataset) -> xr.DataArray:
    """E1 + E2 + E3 refined, mean over runs."""
    parts = ("kl_bound_mixing", "kl_bound_score", "kl_bound_discretization_refined")
    first, *others = (_mean(grid, name) for name in parts)
    return sum(others, start=first)


def ranking_table(grid: xr.Dataset) -> pd.DataFrame:
    """Does a bound rank the schedules as the error does? One row a setting.

    A setting is a (target, horizon, score, sampler, time grid, number of steps). Its
    *error* is the mean over runs of the empirical KL, or the exact KL where nothing
    was sampled (column `error`).

    The difference between the best a and another schedule is taken run by run: the
    runs of a seed share data, initial weights and noise. The best a is chosen on the
    same runs, so its interval is somewhat optimistic.

    Parameters
    ----------
    grid : Dataset

    Returns
    -------
    DataFrame
        The setting; `n_schedules` with a finite error, `n_runs` and `n_failed` over all
        of them; `a_kl`, `a_kl_exact`, `a_kl_exact_score` (the exact KL of the exact
        score), `a_bound`, `a_bound_refined`, `a_path`: the a of the β_a family at which
        each is lowest; `kl_at_a_kl` and `kl_at_a_bound`, the
        error there; `spearman_*`: the rank correlation of each with the error over all
        schedules, empty under three schedules or for a constant;
        `vpsde_*` and `cosine_*`: the mean paired difference KL(best a) − KL(other) with
        its 95% t-interval, the number of pairs, and whether the interval excludes zero
        (both empty under two pairs; an exact error has no pairs). Of several cosine
        schedules the one with the lowest error counts.
    """
    grid = grid.drop_dims("time_fraction", errors="ignore").load()
    exact = [str(s) for s in grid["score"].values[grid["score_family"] == "exact"]]
    rows = []
    for labels in _settings(grid):
        ideal = grid.sel({**labels, "score": exact[0]}) if exact else None
        row = _ranking(grid.sel(labels), ideal, labels)
        if row is not None:
            rows.append(row)
    return pd.DataFrame(rows)


def _settings(grid: xr.Dataset) -> Iterator[dict[str, Any]]:
    for values in product(*(grid[dim].values for dim in SETTING)):
        yield {dim: np.asarray(v).item() for dim, v in zip(SETTING, values, strict=True)}


def _ranking(
    here: xr.Dataset, ideal: xr.Dataset | None, labels: dict[str, Any]
) -> dict[str, Any] | None:
    """The row of one setting; `ideal` is the same setting with the exact score."""
    kl = _finite(here, "kl_plugin").transpose("schedule", "seed").values
    exact = _finite(here, "kl_exact").values
    empirical = _mean(here, "kl_plugin").values
    sampled = bool(np.isfinite(empirical).any())
    tried = bool(here["status"].isin([NOT_RUN, DONE, FAILED]).any())
    if not (sampled or tried or np.isfinite(exact).any()):
        return None
    empirical_error = sampled or not np.isfinite(exact).any()
    error = empirical if empirical_error else exact
    a = here["a"].where(here["family"] == "beta_a").values
    criteria = {
        "kl_exact": exact,
        "kl_exact_score": np.full_like(exact, np.nan)
        if ideal is None
        else _finite(ideal, "kl_exact").values,
        "bound": _mean(here, "kl_bound").values,
        "bound_refined": _refined_bound(here).values,
        "path": _mean(here, "kl_path").values,
    }
    best = _lowest(error, np.isfinite(a))
    by_bound = _lowest(criteria["bound"], np.isfinite(a))
    row: dict[str, Any] = {
        **labels,
        "recipe": str(here["recipe"].item()),
        "kl_bound_proved": bool(here["kl_bound_proved"]),
        "error": "empirical" if empirical_error else "exact",
        "n_schedules": int(np.isfinite(error).sum()),
        "n_runs": int(np.isfinite(kl).sum()),
        "n_failed": int((here["status"] == FAILED).sum()),
        "a_kl": _at(a, _lowest(empirical, np.isfinite(a))),
        **{f"a_{name}": _at(a, _lowest(v, np.isfinite(a))) for name, v in criteria.items()},
        "kl_at_a_kl": _at(error, best),
        "kl_at_a_bound": _at(error, by_bound),
        **{f"spearman_{name}": _spearman(v, error) for name, v in criteria.items()},
    }
    others = {"vpsde": a == 0, "cosine": (here["family"] == "cosine").values}
    for name, among in others.items():
        other = _lowest(error, among)
        both = best is not None and other is not None
        differences = kl[best] - kl[other] if both else np.array([])
        paired = _paired(differences)
        if both and not empirical_error:
            paired["difference"] = float(error[best] - error[other])
        row |= {f"{name}_{key}": value for key, value in paired.items()}
    return row


def _lowest(values: npt.NDArray[Any], among: npt.NDArray[np.bool_]) -> int | None:
    """Index of the lowest finite value among those marked; None if there is none."""
    allowed = np.where(among & np.isfinite(values), values, np.inf)
    return int(np.argmin(allowed)) if np.isfinite(allowed).any() else None


def _at(values: npt.NDArray[Any], index: int | None) -> float:
    return np.nan if index is None else float(values[index])


def _spearman(x: npt.NDArray[Any], y: npt.NDArray[Any]) -> float:
    both = np.isfinite(x) & np.isfinite(y)
    x, y = x[both], y[both]
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(stats.spearmanr(x, y).statistic)


def _paired(differences: npt.NDArray[Any]) -> dict[str, Any]:
    """Mean of the paired differences, its t-interval, and whether that excludes zero."""
    d = differences[np.isfinite(differences)]
    n = len(d)
    result: dict[str, Any] = {
        "difference": float(d.mean()) if n else np.nan,
        "difference_low": np.nan,
        "difference_high": np.nan,
        "pairs": n,
        "beyond_noise": pd.NA,
    }
    if n >= 2:
        half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * d.std(ddof=1) / np.sqrt(n))
        low, high = result["difference"] - half, result["difference"] + half
        result |= {
            "difference_low": low,
            "difference_high": high,
            "beyond_noise": bool(low > 0 or high < 0),
        }
    return result


TABLES: dict[str, Callable[[xr.Dataset], pd.DataFrame]] = {
    "summary": summary_table,
    "ranking": ranking_table,
}


def write_tables(
    grid: xr.Dataset, folder: str | Path, names: Sequence[str] = tuple(TABLES)
) -> list[Path]:
    """Write `folder`/<name>.csv for each table; the folder is made.

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
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        paths.append(folder / f"{name}.csv")
        TABLES[name](grid).to_csv(paths[-1], index=False)
    return paths
