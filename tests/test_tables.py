"""Tables recover what a grid with known parabolas was built from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from sgm import tables
from sgm.comparison import comparison_text
from tests.grids import BEST_A, FLOOR, NOT_APPLICABLE, fail, synthetic_grid


def of_kl(ranking: pd.DataFrame) -> pd.DataFrame:
    return ranking[ranking["divergence"] == "kl_plugin"].set_index("score")


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


def test_ranking_recovers_the_minimisers() -> None:
    table = tables.ranking_table(synthetic_grid(samplers=("ei_modified", "em")))
    assert set(table["divergence"]) == {"kl_plugin", "w2_plugin", "sliced_w2"}
    table = table[table["divergence"] == "kl_plugin"]
    trained = table[table["score"] == "trained"]
    assert trained["objection"].tolist() == ["", "the theorem is about another sampler"]
    assert len(trained) == 2
    for _, row in trained.iterrows():
        assert row["error"] == "empirical"
        assert row["a_error"] == BEST_A["kl"]
        assert row["a_exact_score"] == BEST_A["kl_exact"]
        assert row["a_bound"] == BEST_A["bound"]
        assert row["a_kl_bound_refined"] == BEST_A["refined"]
        assert row["a_kl_path"] == BEST_A["path"]
        assert row["error_at_a_bound"] > row["error_at_a_error"]
        assert np.isnan(row["a_exact"])
    exact = table[table["score"] == "exact"].iloc[0]
    assert exact["error"] == "exact"
    assert exact["a_exact"] == BEST_A["kl_exact"]
    assert exact["a_bound"] == -10  # E1 + E3: E3 is flat in a, E1 grows


def test_the_confidence_set_of_the_best_a_holds_what_no_other_beats() -> None:
    grid = synthetic_grid(a=(-10, 0, 5, 10)).sel(score=["trained"])
    error = grid.kl_plugin.squeeze(drop=True).transpose("seed", "schedule")
    rng = np.random.default_rng(0)
    a = grid.a.values
    means = np.select([a == 0, a == 5, a == 10], [1.0, 1.001, 1.5], 3.0)  # β_a=0 and 5: a tie
    common = rng.normal(0, 1, (error.sizes["seed"], 1))  # shared by a seed's runs: cancels
    values = means + common + rng.normal(0, 0.05, error.shape)
    values = xr.DataArray(values, dims=("seed", "schedule")).broadcast_like(grid.kl_plugin)
    grid["kl_plugin"] = values.transpose(*grid.kl_plugin.dims).assign_attrs(grid.kl_plugin.attrs)
    row = of_kl(tables.ranking_table(grid)).loc["trained"]
    assert row["a_error_set"] == "0 5"
    grid["kl_plugin"] = grid.kl_plugin.where(grid.a != 5, grid.kl_plugin + 1)
    assert of_kl(tables.ranking_table(grid)).loc["trained", "a_error_set"] == "0"
    one = of_kl(tables.ranking_table(grid.isel(seed=[0])))
    assert one.loc["trained", "a_error_set"] == ""  # a run alone has no interval


def test_rank_correlations() -> None:
    grid = synthetic_grid()
    trained = grid.sel(score="trained").squeeze(drop=True)
    error = trained.kl_plugin.mean("seed").values
    refined = trained.kl_bound_refined.mean("seed")  # schedules tie but for rounding: not re-added
    table = tables.ranking_table(grid)
    row = of_kl(table).loc["trained"]
    for name, values in (
        ("bound", trained.kl_bound.mean("seed").values),
        ("kl_bound_refined", refined.values),
        ("kl_path", trained.kl_path.mean("seed").values),
    ):
        ranks = stats.rankdata(values), stats.rankdata(error)
        np.testing.assert_allclose(row[f"spearman_{name}"], np.corrcoef(*ranks)[0, 1])
    line = 2 * grid.kl_plugin.isel(sampler=0, drop=True) + 1
    perfect = grid.assign(kl_path=line.drop_attrs())
    row = of_kl(tables.ranking_table(perfect)).loc["trained"]
    assert row["spearman_kl_path"] == pytest.approx(1)


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
def test_every_study_has_its_tables(options, tmp_path: Path) -> None:
    paths = tables.write_tables(synthetic_grid(**options), tmp_path / "tables")
    assert [path.name for path in paths] == [
        "comparison.txt", "summary.csv", "ranking.csv", "comparison.csv", "horizons.csv",
        "leaderboard.csv", "leaderboard_targets.csv",
    ]  # fmt: skip
    assert paths[0].read_text() == comparison_text(synthetic_grid(**options))
    for path in paths[1:]:
        rows = pd.read_csv(path)
        empty = path.stem == "horizons" or (path.stem == "comparison" and options.get("a") == ())
        assert rows.empty == empty, path.stem


def test_a_failed_study_has_tables() -> None:
    grid = fail(synthetic_grid(a=(-5, 0, 5)))
    row = of_kl(tables.ranking_table(grid)).loc["trained"]
    assert (row["n_runs"], row["n_failed"]) == (0, 40)
    assert np.isnan(row["a_error"])
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
def test_a_study_without_a_measure_has_the_others(missing) -> None:
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


def test_no_a_is_best_for_the_runs_it_lost() -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    kl = grid.kl_plugin.copy()
    kl.loc[{"schedule": "beta_a=-5"}] = np.nan
    kl.loc[{"schedule": "beta_a=-5", "seed": 0}] = 1e-6
    row = of_kl(tables.ranking_table(grid.assign(kl_plugin=kl))).loc["trained"]
    assert row["a_error"] == 5
