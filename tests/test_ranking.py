"""The ranking recovers what a grid with known parabolas was built from, whatever the family."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from sgm.ranking import exceeds, ranking_table
from tests.grids import BEST_A, fail, synthetic_grid


def of_kl(grid: xr.Dataset, **chosen: object) -> pd.DataFrame:
    """Rows of the KL, by their judge."""
    table = ranking_table(grid)
    told = {"divergence": "kl_plugin", "score": "trained", "varies": "schedule", "among": "all"}
    for name, value in (told | chosen).items():
        table = table[table[name] == value]
    assert not table["bound"].duplicated().any()
    return table.set_index("bound")


def test_it_recovers_the_minimisers() -> None:
    grid = synthetic_grid(samplers=("ei_modified", "em"))
    table = ranking_table(grid)
    assert set(table["divergence"]) == {"kl_plugin", "w2_plugin", "sliced_w2"}
    assert set(table["varies"]) == {"schedule"}
    for sampler, objection in (("ei_modified", ""), ("em", "the theorem is about another sampler")):
        rows = of_kl(grid, sampler=sampler, among="beta_a")
        totals = {"kl_bound": "bound", "kl_bound_refined": "refined", "kl_path": "path"}
        assert set(rows.index) == {*totals, "exact_score"}
        for name, row in rows.iterrows():
            judge = "kl_exact" if name == "exact_score" else totals[str(name)]
            assert row["error"] == "empirical"
            assert (row["best"], row["best_at"]) == (f"beta_a={BEST_A['kl']:g}", BEST_A["kl"])
            assert (row["pick"], row["pick_at"]) == (f"beta_a={BEST_A[judge]:g}", BEST_A[judge])
            assert row["distance"] == BEST_A[judge] - BEST_A["kl"]
            assert row["parameter"] == "a"
            assert row["regret"] == pytest.approx(row["error_at_pick"] / row["error_best"])
            assert row["regret_low"] <= row["regret"] <= row["regret_high"]
            assert (row["regret_low"] < row["regret_high"]) == (row["pick"] != row["best"])
            told = objection if name in totals else "an error, no bound"
            assert (row["objection"], row["covered"]) == (told, told == "")
    exact = of_kl(grid, sampler="ei_modified", score="exact", among="beta_a")
    row = exact.loc["kl_bound"]
    assert (row["error"], row["best_at"]) == ("exact", BEST_A["kl_exact"])
    assert row["pick_at"] == -10  # E1 + E3: E3 is flat in a, E1 grows
    assert np.isnan(row["regret_low"])


def test_all_schedules_have_no_distance_beside_a_family() -> None:
    rows = of_kl(synthetic_grid(a=(0, 3, 5, 8)))
    assert rows["distance"].isna().all()
    assert (rows["n"] == 5).all()
    alone = of_kl(synthetic_grid(a=(0, 3, 5, 8), cosine=False))  # of one family: one set, "all"
    assert (alone["distance"] == alone["pick_at"] - 3).all()
    assert set(ranking_table(synthetic_grid(a=(0, 3), cosine=False))["among"]) == {"all"}


def test_any_schedules_are_ranked() -> None:
    """No number tells them apart: schedule files, or one of each family."""
    grid = synthetic_grid(a=(0, 3, 5, 8))
    grid = grid.drop_vars("a").assign_coords(
        family=("schedule", ["one", "two", "three", "four", "five"]),
        schedule=["one", "two", "three", "four", "five"],
    )
    row = of_kl(grid).loc["kl_bound"]
    assert (row["best"], row["pick"]) == ("two", "one")
    assert np.isfinite(row[["spearman", "regret", "regret_low"]].to_numpy(float)).all()
    assert row["parameter"] == ""


def test_the_horizon_and_the_steps_may_vary() -> None:
    grid = synthetic_grid(a=(0, 5), horizons=(0.5, 1.0, 2.0), n_steps=(10, 100), cosine=False)
    grid = grid.assign_coords(nfe=(("sampler", "time_grid", "n_steps"), np.array([[[20, 200]]])))
    table = ranking_table(grid)
    assert set(table["varies"]) == {"schedule", "horizon", "n_steps"}
    kl = grid.kl_plugin.sel(score="trained", schedule="beta_a=5", n_steps=10).squeeze(drop=True)
    bound = grid.kl_path.sel(score="trained", schedule="beta_a=5", n_steps=10).squeeze(drop=True)
    row = of_kl(grid, varies="horizon", schedule="beta_a=5", n_steps=10).loc["kl_path"]
    assert row["best"] == str(float(kl.horizon[kl.mean("seed").argmin("horizon")]))
    assert row["pick_at"] == float(bound.horizon[bound.mean("seed").argmin("horizon")])
    assert row["nfe"] == 20
    assert np.isnan(row["horizon"])
    steps = of_kl(grid, varies="n_steps", schedule="beta_a=5", horizon=1.0).loc["kl_bound"]
    assert (steps["pick_at"], steps["parameter"]) == (100, "n_steps")
    assert np.isnan(steps["nfe"])


def test_ratios_and_rank_correlations() -> None:
    grid = synthetic_grid()
    trained = grid.sel(score="trained").squeeze(drop=True)
    error = trained.kl_plugin.mean("seed").values
    rows = of_kl(grid)
    for name in ("kl_bound", "kl_bound_refined", "kl_path"):
        values = trained[name].mean("seed").values
        row = rows.loc[name]
        np.testing.assert_allclose(row["spearman"], stats.spearmanr(values, error).statistic)
        assert row["spearman_low"] <= row["spearman"] <= row["spearman_high"]
        ratio = values / error
        expected = [ratio.min(), np.median(ratio), ratio.max()]
        np.testing.assert_allclose(
            row[["ratio_min", "ratio_median", "ratio_max"]].to_numpy(float), expected
        )
    line = 2 * grid.kl_plugin.isel(sampler=0, drop=True) + 1
    row = of_kl(grid.assign(kl_path=line.drop_attrs())).loc["kl_path"]
    assert row["spearman"] == row["spearman_low"] == row["spearman_high"] == pytest.approx(1)
    assert of_kl(grid, score="exact")["spearman_low"].isna().all()


def _with_kl(grid: xr.Dataset, values: np.ndarray) -> xr.Dataset:
    """The grid with other runs of the trained score, shape (seed, schedule)."""
    kl = xr.DataArray(values, dims=("seed", "schedule")).broadcast_like(grid.kl_plugin)
    return grid.assign(kl_plugin=kl.transpose(*grid.kl_plugin.dims).assign_attrs(
        grid.kl_plugin.attrs
    ))  # fmt: skip


@pytest.mark.slow
def test_the_bootstrap_interval_covers_the_rank_correlation() -> None:
    """Errors that order as a bound does but for noise that swaps neighbours."""
    grid = synthetic_grid(a=tuple(range(-4, 5)), cosine=False, scores=("trained",))
    grid = grid.drop_vars([n for n in grid.data_vars if str(n).startswith(("w2", "sliced"))])
    judge = grid.kl_bound.mean("seed").squeeze(drop=True)
    truth = stats.rankdata(judge.values)
    rng, covered = np.random.default_rng(0), 0
    for _ in range(40):
        noise = 3 * rng.standard_normal((10, 1)) + 2 * rng.standard_normal((10, 9))
        row = of_kl(_with_kl(grid, 100 + truth + noise)).loc["kl_bound"]
        covered += row["spearman_low"] <= 1 - 1e-9 or row["spearman_high"] == 1
        assert row["spearman_low"] <= row["spearman"] <= row["spearman_high"]
        assert row["spearman_high"] - row["spearman_low"] > 0
    assert covered == 40


@pytest.mark.slow
def test_the_regret_of_equal_schedules_has_no_winners_curse() -> None:
    """Its interval covers 1 where no schedule is better; the least of noisy means never would."""
    grid = synthetic_grid(a=tuple(range(-6, 7)), cosine=False, scores=("trained",))
    grid = grid.drop_vars([n for n in grid.data_vars if str(n).startswith(("w2", "sliced"))])
    rng, covered, naive = np.random.default_rng(1), 0, []
    n = 60
    for _ in range(n):
        values = 10 + rng.standard_normal((10, 1)) + rng.standard_normal((10, 13))
        row = of_kl(_with_kl(grid, values)).loc["kl_bound"]
        covered += row["regret_low"] <= 1 <= row["regret_high"]
        naive.append(row["error_at_pick"] / values.mean(0).min())
    assert covered > n * 0.95 - 4 * np.sqrt(n * 0.95 * 0.05)
    assert np.mean(naive) > 1.03


def test_a_violation_is_an_error_above_its_bound_beyond_the_noise() -> None:
    exact = np.array([[1.0], [1.0], [1.0], [np.nan]])
    bound = np.array([[1.0 - 1e-12], [0.999], [2.0], [1.0]])
    np.testing.assert_array_equal(exceeds(exact, bound, exact=True), [0, 1, 0, np.nan])
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((3, 10))
    runs = np.array([[1.0], [5.0], [1.0]]) + noise
    runs[2, 1:] = np.nan  # one run has no noise to be judged by
    found = exceeds(runs, np.full((3, 10), 1.0), exact=False)
    np.testing.assert_array_equal(found, [0, 1, np.nan])
    shared = exceeds(np.array([[1.01]]) + noise[:1], 1 + noise[:1], exact=False)
    assert shared == 1  # the pairs agree on it to the last digit


def test_violations_are_counted_in_what_has_no_floor() -> None:
    """A plain estimate lies above a good bound by its floor: the estimate without bias counts."""
    grid = synthetic_grid(a=(0, 3, 5, 8), scores=("trained",))
    near = grid.kl_unbiased.isel(sampler=0, drop=True) * 1.01
    grid["kl_path"] = near.drop_attrs()
    grid["kl_bound_refined"] = (0.9999 * near.mean("seed") / 1.01).drop_attrs()
    rows = of_kl(grid)
    assert rows.loc["kl_path", "violations"] == 0
    assert rows.loc["kl_path", "ratio_max"] < 1  # of the error with its floor
    assert rows.loc["kl_bound_refined", "violations"] == 0  # within the noise
    grid["kl_bound_refined"] = (0.5 * near).drop_attrs()
    assert of_kl(grid).loc["kl_bound_refined", "violations"] == 5
    unknown = of_kl(grid.drop_vars("kl_unbiased"))
    assert unknown["violations"].isna().all()


def test_the_confidence_set_of_the_best_holds_what_no_other_beats() -> None:
    grid = synthetic_grid(a=(-10, 0, 5, 10)).sel(score=["trained"])
    rng = np.random.default_rng(0)
    a = grid.a.values
    means = np.select([a == 0, a == 5, a == 10], [1.0, 1.001, 1.5], 3.0)  # β_a=0 and 5: a tie
    common = rng.normal(0, 1, (10, 1))  # shared by a seed's runs: cancels
    grid = _with_kl(grid, means + common + rng.normal(0, 0.05, (10, 5)))
    assert of_kl(grid).loc["kl_bound", "best_set"] == "beta_a=0 beta_a=5"
    grid["kl_plugin"] = grid.kl_plugin.where(grid.a != 5, grid.kl_plugin + 1)
    assert of_kl(grid).loc["kl_bound", "best_set"] == "beta_a=0"
    one = of_kl(grid.isel(seed=[0]))
    assert one.loc["kl_bound", "best_set"] == ""  # a run alone has no interval


def test_a_failed_study_is_ranked_without_numbers() -> None:
    row = of_kl(fail(synthetic_grid(a=(-5, 0, 5)))).loc["kl_bound"]
    assert (row["n"], row["n_runs"], row["n_failed"]) == (0, 0, 40)
    assert row["best"] == row["pick"] == ""
    assert np.isnan(row["regret"])


def test_no_schedule_is_best_for_the_runs_it_lost() -> None:
    grid = synthetic_grid(a=(-5, 0, 5))
    kl = grid.kl_plugin.copy()
    kl.loc[{"schedule": "beta_a=-5"}] = np.nan
    kl.loc[{"schedule": "beta_a=-5", "seed": 0}] = 1e-6
    assert of_kl(grid.assign(kl_plugin=kl)).loc["kl_bound", "best"] == "beta_a=5"


def test_a_bound_that_names_its_divergence_is_a_judge_of_it() -> None:
    """Such as the one-step bound, in a study without the theorem that names it."""
    grid = synthetic_grid(a=(0, 3, 5))
    own = grid.w2_bound_safe.assign_attrs(role="bound", divergence="w2_plugin")
    grid = grid.drop_vars([n for n in grid.data_vars if str(n).startswith("w2_bound")])
    table = ranking_table(grid.assign(w2_own=own))
    w2 = table[(table["divergence"] == "w2_plugin") & (table["score"] == "trained")]
    assert set(w2["bound"]) == {"w2_own", "exact_score"}
    assert set(w2.loc[w2["bound"] == "w2_own", "objection"]) == {"its hypotheses are not checked"}
