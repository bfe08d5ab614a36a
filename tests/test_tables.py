"""Tables recover what a grid with known parabolas was built from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from sgm import tables
from tests.grids import BEST_A, FLOOR, NOT_APPLICABLE, fail, synthetic_grid


def test_summary_rows_are_statistics_over_the_runs() -> None:
    grid = fail(synthetic_grid(a=(-5, 0, 5)), schedule="beta_a=5", seed=[2, 7])
    table = tables.summary_table(grid)
    assert len(table) == 4 * 2
    row = table[(table["schedule"] == "beta_a=5") & (table["score"] == "trained")].iloc[0]
    cell = grid.sel(schedule="beta_a=5", score="trained").squeeze(drop=True)
    runs = cell.kl_plugin.dropna("seed").values
    assert (row["n_runs"], row["n_failed"], row["n_not_run"]) == (8, 2, 0)
    expected = {
        "kl_mean": runs.mean(),
        "kl_sd": runs.std(ddof=1),
        "kl_median": np.median(runs),
        "kl_standard_error": runs.std(ddof=1) / np.sqrt(8),
        "kl_unbiased_mean": runs.mean() - FLOOR,
        "kl_floor": FLOOR,
        "kl_bound": np.nanmean(cell.kl_bound),
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
    assert exact["n_runs"] == 0
    np.testing.assert_array_equal(
        exact["kl_exact"], grid.kl_exact.sel(schedule="beta_a=5", score="exact").item()
    )


def test_summary_leaves_out_cells_that_do_not_exist() -> None:
    grid = synthetic_grid(a=(0, 5), unknown_targets=("digits",))
    assert (grid.status.sel(target="digits", score="exact") == NOT_APPLICABLE).all()
    table = tables.summary_table(grid)
    digits = table[table["target"] == "digits"]
    assert set(digits["score"]) == {"trained"}
    assert digits["heldout_nll_gap_mean"].notna().all()
    assert digits["kl_bound"].isna().all()


def test_ranking_recovers_the_minimisers() -> None:
    table = tables.ranking_table(synthetic_grid(samplers=("ei_modified", "em")))
    trained = table[table["score"] == "trained"]
    assert len(trained) == 2
    for _, row in trained.iterrows():
        assert row["error"] == "empirical"
        assert row["a_kl"] == BEST_A["kl"]
        assert row["a_kl_exact_score"] == BEST_A["kl_exact"]
        assert row["a_bound"] == BEST_A["bound"]
        assert row["a_bound_refined"] == BEST_A["refined"]
        assert row["a_path"] == BEST_A["path"]
        assert row["kl_at_a_bound"] > row["kl_at_a_kl"]
        assert np.isnan(row["a_kl_exact"])
    exact = table[table["score"] == "exact"].iloc[0]
    assert exact["error"] == "exact"
    assert exact["a_kl_exact"] == BEST_A["kl_exact"]
    assert exact["a_bound"] == -10  # E1 + E3: E3 is flat in a, E1 grows


def test_rank_correlations() -> None:
    grid = synthetic_grid()
    trained = grid.sel(score="trained").squeeze(drop=True)
    error = trained.kl_plugin.mean("seed").values
    refined = (
        trained.kl_bound_mixing
        + trained.kl_bound_score.mean("seed")
        + trained.kl_bound_discretization_refined
    )
    table = tables.ranking_table(grid)
    row = table[table["score"] == "trained"].iloc[0]
    for name, values in (
        ("bound", trained.kl_bound.mean("seed").values),
        ("bound_refined", refined.values),
        ("path", trained.kl_path.mean("seed").values),
    ):
        ranks = stats.rankdata(values), stats.rankdata(error)
        np.testing.assert_allclose(row[f"spearman_{name}"], np.corrcoef(*ranks)[0, 1])
    perfect = grid.assign(kl_path=2 * grid.kl_plugin.isel(sampler=0, drop=True) + 1)
    row = tables.ranking_table(perfect).set_index("score").loc["trained"]
    assert row["spearman_path"] == pytest.approx(1)


def test_paired_differences_use_common_random_numbers() -> None:
    grid = fail(synthetic_grid(), schedule="beta_a=0", seed=4)
    row = tables.ranking_table(grid).set_index("score").loc["trained"]
    kl = grid.kl_plugin.sel(score="trained").squeeze(drop=True)
    for name, other in (("vpsde", "beta_a=0"), ("cosine", "cosine")):
        d = (kl.sel(schedule="beta_a=3") - kl.sel(schedule=other)).dropna("seed").values
        interval = stats.ttest_1samp(d, 0).confidence_interval(0.95)
        assert row[f"{name}_pairs"] == len(d)
        np.testing.assert_allclose(row[f"{name}_difference"], d.mean())
        np.testing.assert_allclose(row[f"{name}_difference_low"], interval.low)
        np.testing.assert_allclose(row[f"{name}_difference_high"], interval.high)
        assert row[f"{name}_beyond_noise"] is True
    # unpaired, the same difference would drown in the noise that the schedules share
    spread = kl.sel(schedule="cosine").std("seed", ddof=1).item()
    assert abs(row["cosine_difference"]) < spread


def test_a_difference_within_the_noise_is_called_so() -> None:
    grid = synthetic_grid(a=(0, 5), cosine=True)
    noise = np.random.default_rng(3).standard_normal(grid.kl_plugin.shape)
    row = tables.ranking_table(grid.assign(kl_plugin=1 + 0.1 * noise + 0 * grid.kl_plugin))
    row = row.set_index("score").loc["trained"]
    assert row["cosine_difference_low"] < 0 < row["cosine_difference_high"]
    assert row["cosine_beyond_noise"] is False


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
    assert [path.name for path in paths] == ["summary.csv", "ranking.csv"]
    for path in paths:
        assert len(pd.read_csv(path))


def test_one_run_has_no_interval() -> None:
    table = tables.ranking_table(synthetic_grid(n_seeds=1))
    row = table.set_index("score").loc["trained"]
    assert row["cosine_pairs"] == 1
    assert np.isnan(row["cosine_difference_low"])
    assert row["cosine_beyond_noise"] is pd.NA


def test_a_failed_study_has_tables() -> None:
    grid = fail(synthetic_grid(a=(-5, 0, 5)))
    row = tables.ranking_table(grid).set_index("score").loc["trained"]
    assert (row["n_runs"], row["n_failed"]) == (0, 40)
    assert np.isnan(row["a_kl"])
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


@pytest.mark.parametrize("missing", ["kl_bound", "kl_plugin", "heldout"])
def test_a_study_without_a_measure_has_the_others(missing) -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    grid = grid.drop_vars([n for n in grid.data_vars if str(n).startswith(missing)])
    assert len(tables.summary_table(grid)) == 8
    assert len(tables.ranking_table(grid)) == 2
