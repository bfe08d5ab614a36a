"""Tables recover what a grid with known parabolas was built from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sgm import tables
from sgm.answers import answers_text
from sgm.comparison import comparison_text
from tests.grids import FLOOR, NOT_APPLICABLE, fail, synthetic_grid


def test_summary_rows_are_statistics_over_the_runs() -> None:
    grid = fail(synthetic_grid(a=(-5, 0, 5)), schedule="beta_a=5", seed=[2, 7])
    table = tables.summary_table(grid)
    assert len(table) == 4 * 2
    row = table[(table["schedule"] == "beta_a=5") & (table["score"] == "trained")].iloc[0]
    cell = grid.sel(schedule="beta_a=5", score="trained").squeeze(drop=True)
    runs = cell.kl_plugin.dropna("seed").values
    assert (row["kl_runs"], row["n_failed"], row["n_not_run"]) == (8, 2, 0)
    expected = {
        "kl_mean": runs.mean(),
        "kl_sd": runs.std(ddof=1),
        "kl_median": np.median(runs),
        "kl_standard_error": runs.std(ddof=1) / np.sqrt(8),
        "kl_unbiased": runs.mean() - FLOOR,
        "kl_floor": FLOOR,
        "kl_bound_mean": np.nanmean(cell.kl_bound),
        "kl_bound_sd": np.nanstd(cell.kl_bound, ddof=1),
        "kl_within_standard_error": 0.0026,
        "w2_mean": np.nanmean(cell.w2_plugin),
        "w2_floor": grid.w2_plugin_floor.mean(),
        "sliced_w2_mean": np.nanmean(cell.sliced_w2),
        "w2_bound_mean": np.nanmean(cell.w2_bound),
        "train_loss": 1.5,
        "kl_bound_score": np.nanmean(cell.kl_bound_score),
        "kl_bound_mixing": float(cell.kl_bound_mixing),
        "kl_bound_refined": np.nanmean(cell.kl_bound_score)
        + float(cell.kl_bound_mixing + cell.kl_bound_discretization_refined),
        "kl_path": np.nanmean(cell.kl_path),
        "a": 5.0,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(row[name], value, rtol=1e-12, err_msg=name)
    assert row["recipe"] == "default"
    exact = table[(table["schedule"] == "beta_a=5") & (table["score"] == "exact")].iloc[0]
    assert exact["kl_runs"] == 0
    assert (table["kl_bound_objection"] == "").all()
    np.testing.assert_array_equal(
        exact["kl_exact"], grid.kl_exact.sel(schedule="beta_a=5", score="exact").item()
    )


def test_summary_leaves_out_cells_that_do_not_exist() -> None:
    grid = synthetic_grid(a=(0, 5), unknown_targets=("digits",))
    assert (grid.status.sel(target="digits", score="exact") == NOT_APPLICABLE).all()
    table = tables.summary_table(grid)
    digits = table[table["target"] == "digits"]
    assert set(digits["score"]) == {"trained"}
    assert digits["heldout_nll_mean"].notna().all()
    assert digits["kl_bound_mean"].isna().all()
    assert (digits["kl_bound_objection"] == "the law of the data is unknown").all()


@pytest.mark.parametrize(
    "options",
    [
        {"a": (0.0,), "n_seeds": 1, "cosine": False},
        {"a": (), "constant": True},
        {"scores": ("exact",)},
        {"scores": ("scaled",), "a": (0, 5)},
        {"a": (-5, 0, 5), "unknown_targets": ("digits",)},
    ],
)
def test_every_study_has_its_tables(options: dict[str, Any], tmp_path: Path) -> None:
    paths = tables.write_tables(synthetic_grid(**options), tmp_path / "tables")
    assert [path.name for path in paths] == [
        "comparison.txt", "answers.txt", "summary.csv", "ranking.csv", "comparison.csv",
        "horizons.csv", "leaderboard.csv", "leaderboard_targets.csv",
    ]  # fmt: skip
    assert paths[0].read_text() == comparison_text(synthetic_grid(**options))
    assert paths[1].read_text() == answers_text(synthetic_grid(**options), str(tmp_path))
    for path in paths[2:]:
        rows = pd.read_csv(path)
        alone = len(options.get("a", ())) == 1  # one schedule
        empty = path.stem == "horizons" or (path.stem == "comparison" and alone)
        assert rows.empty == empty, path.stem


def test_a_failed_study_has_tables() -> None:
    grid = fail(synthetic_grid(a=(-5, 0, 5)))
    assert (tables.ranking_table(grid).query("score == 'trained'")["n_runs"] == 0).all()
    assert (tables.summary_table(grid)["n_failed"].sum()) == 40


def test_a_stored_grid_gives_the_same_tables(tmp_path: Path) -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    grid = grid.assign_coords(
        {name: c.astype(object) for name, c in grid.coords.items() if c.dtype.kind == "U"}
    )
    grid.to_zarr(tmp_path / "grid.zarr", consolidated=False)
    stored = xr.open_zarr(tmp_path / "grid.zarr", consolidated=False)
    first = tables.write_tables(grid, tmp_path / "a")
    for one, two in zip(first, tables.write_tables(stored, tmp_path / "b"), strict=True):
        assert one.read_text() == two.read_text()


@pytest.mark.parametrize("missing", ["kl_bound", "kl_plugin", "heldout", "w2"])
def test_a_study_without_a_measure_has_the_others(missing: str) -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    grid = grid.drop_vars([n for n in grid.data_vars if str(n).startswith(missing)])
    assert len(tables.summary_table(grid)) == 8
    left = {"kl_plugin", "w2_plugin", "sliced_w2"} - {
        "kl_bound": {"kl_plugin"},
        "kl_plugin": {"kl_plugin"},
        "heldout": set(),
        "w2": {"w2_plugin", "sliced_w2"},
    }[missing]
    assert set(tables.ranking_table(grid)["divergence"]) == left
