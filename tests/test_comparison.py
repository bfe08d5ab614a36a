"""The best a against the other schedules: paired, cross-fitted, and said in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from sgm import comparison
from sgm.comparison import _lowest, comparison_table, cross_fitted, paired
from sgm.tables import ranking_table
from tests.grids import BEST_A, fail, synthetic_grid


def of_kl(grid: xr.Dataset, score: str = "trained", schedule: str = "beta_a") -> pd.DataFrame:
    table = comparison.comparison_table(grid)
    table = table[(table["score"] == score) & (table["divergence"] == "kl_plugin")]
    return table[table["schedule"] == schedule].set_index("reference")


def runs_of_kl(grid: xr.Dataset) -> xr.DataArray:
    return grid.kl_plugin.sel(score="trained").squeeze(drop=True)


def test_differences_are_paired_by_seed() -> None:
    grid = fail(synthetic_grid(), schedule="beta_a=0", seed=4)
    rows, kl = of_kl(grid), runs_of_kl(grid)
    for other in ("beta_a=0", "cosine"):
        d = (kl.sel(schedule="beta_a=3") - kl.sel(schedule=other)).values
        lost = np.isnan(d)
        row = rows.loc[other]
        assert row["chosen"] == "beta_a=3 beta_a=3"
        assert row["best"] == f"beta_a={BEST_A['kl']:g}"
        assert row["pairs"] == (~lost).sum()
        np.testing.assert_allclose(row["difference"], np.nanmean(d))
        # Welch's interval for the mean of two strata, weights n_h/n: each half of the runs
        # against zero, as scipy has it for the difference of two independent samples
        first, second = (d[h::2][~lost[h::2]] for h in (0, 1))
        n = len(first) + len(second)
        interval = stats.ttest_ind(
            len(first) / n * first, -len(second) / n * second, equal_var=False
        ).confidence_interval(0.95)
        np.testing.assert_allclose([row["low"], row["high"]], interval, rtol=1e-10)
        assert row["beyond_noise"] is True
    # unpaired, the same difference would drown in the noise that the schedules share
    assert abs(rows.loc["cosine", "difference"]) < kl.sel(schedule="cosine").std("seed", ddof=1)


def test_with_few_runs_a_is_chosen_on_them_and_the_sentence_says_so() -> None:
    grid = synthetic_grid(n_seeds=5)
    row, kl = of_kl(grid).loc["cosine"], runs_of_kl(grid)
    d = (kl.sel(schedule="beta_a=3") - kl.sel(schedule="cosine")).values
    interval = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    np.testing.assert_allclose([row["low"], row["high"]], interval, rtol=1e-10)
    assert not row["cross_fitted"]
    assert row["sentence"].endswith("(a chosen on the same runs: optimistic).")
    assert of_kl(synthetic_grid(n_seeds=6)).loc["cosine", "cross_fitted"]


def test_no_run_is_compared_at_an_a_that_it_chose() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        values = rng.standard_normal((8, 7))
        picks, half = cross_fitted(values)
        moved = values.copy()
        moved[:, half == 0] += 5 * rng.standard_normal((8, 1))  # one half alone sees this
        again, _ = cross_fitted(moved)
        np.testing.assert_array_equal(again[half == 0], picks[half == 0])


def test_a_schedule_is_not_chosen_for_the_runs_it_lost() -> None:
    values = np.ones((2, 8))
    values[0] = [0.1, 0.1, np.nan, np.nan, 0.1, 0.1, np.nan, np.nan]  # low where it survived
    assert _lowest(values) == 1
    assert cross_fitted(values)[0].tolist() == [1] * 8


def test_cross_fitting_removes_the_winners_curse() -> None:
    """21 schedules of equal error: the interval covers; at the a chosen on all runs it doesn't."""
    rng, n, runs = np.random.default_rng(1), 2000, 10
    hits, curse, covered, naive = [], [], 0, 0
    for _ in range(n):
        shared = 3 * rng.standard_normal(runs)
        values = shared + rng.standard_normal((21, runs))
        other = shared + rng.standard_normal(runs)
        picks, half = cross_fitted(values)
        mean, low, high, _ = paired(values[picks, np.arange(runs)] - other, half)
        hits.append(mean)
        covered += low <= 0 <= high
        best = values[_lowest(values)] - other
        mean, low, high, _ = paired(best, np.zeros(runs, dtype=np.intp))
        curse.append(mean)
        naive += low <= 0 <= high
    # the mean is within 4 of its standard errors of the truth; the winner is far below it,
    # E min of 21 normals = −1.889 standard errors of a mean of ten runs
    assert abs(np.mean(hits)) < 4 * np.std(hits) / np.sqrt(n)
    np.testing.assert_allclose(np.mean(curse), -1.889 / np.sqrt(runs), atol=4 / np.sqrt(runs * n))
    # a proportion of 2000 has a standard error of 0.005 to 0.009
    assert covered / n > 0.95 - 0.03
    assert 0.78 < naive / n < 0.86


def test_the_halves_may_choose_different_a() -> None:
    grid = synthetic_grid(a=(0, 3, 5), n_seeds=6)
    kl = grid.kl_plugin.copy()
    for a, seeds in ((3, [0, 2, 4]), (5, [1, 3, 5])):  # each lowest on one half
        kl.loc[{"schedule": f"beta_a={a}", "seed": seeds}] *= 0.5
    row = of_kl(grid.assign(kl_plugin=kl)).loc["cosine"]
    assert row["chosen"] == "beta_a=5 beta_a=3"
    chosen = runs_of_kl(grid.assign(kl_plugin=kl))
    best = [chosen.sel(schedule=f"beta_a={5 if s % 2 == 0 else 3}", seed=s) for s in range(6)]
    np.testing.assert_allclose(row["mean"], np.mean(best))
    assert "a = 5 and 3 (each chosen on the other half of the runs)" in row["sentence"]


def test_a_difference_within_the_noise_is_called_so() -> None:
    grid = synthetic_grid(a=(0, 5), cosine=True)
    noise = np.random.default_rng(3).standard_normal(grid.kl_plugin.shape)
    row = of_kl(grid.assign(kl_plugin=(1 + 0.1 * noise + 0 * grid.kl_plugin).assign_attrs(
        grid.kl_plugin.attrs
    ))).loc["cosine"]  # fmt: skip
    assert row["low"] < 0 < row["high"]
    assert row["beyond_noise"] is False
    assert row["sentence"].endswith("within the noise.")


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        (
            -0.25,
            "beta_a at a = 3 has a lower KL(data ‖ generated) than constant by 0.25 nats, "
            "95% interval [0.25, 0.25] over 8 paired runs: exceeds the noise.",
        ),
        (
            0.5,
            "beta_a at a = 3 has a higher KL(data ‖ generated) than constant by 0.5 nats, "
            "95% interval [0.5, 0.5] over 8 paired runs: exceeds the noise.",
        ),
    ],
)
def test_the_sentence(shift: float, expected: str) -> None:
    grid = synthetic_grid(a=(0, 3), cosine=False, constant=True, n_seeds=8)
    kl = grid.kl_plugin.copy()
    kl.loc[{"schedule": "beta_a=0"}] = 9.0
    kl.loc[{"schedule": "beta_a=3"}] = 1 + shift
    kl.loc[{"schedule": "constant"}] = 1.0
    kl = kl.where(grid.kl_plugin.notnull())
    grid = grid.assign(kl_plugin=kl.assign_attrs(grid.kl_plugin.attrs))
    assert of_kl(grid).loc["constant", "sentence"] == expected
    assert f"- {expected}" in comparison.comparison_text(grid).splitlines()


def test_vpsde_may_be_the_best() -> None:
    grid = synthetic_grid(a=(-5, 0, 8))
    row = of_kl(grid).loc["beta_a=0"]
    assert row["chosen"] == "beta_a=0 beta_a=0"
    assert row["difference"] == 0
    assert row["sentence"] == "By KL(data ‖ generated) the best a is 0, which is VPSDE."


def test_exact_laws_are_compared_without_noise() -> None:
    grid = synthetic_grid()
    row = of_kl(grid, "exact").loc["cosine"]
    exact = grid.kl_exact.sel(score="exact").squeeze(drop=True)
    assert row["values"] == "exact"
    assert row["best"] == f"beta_a={BEST_A['kl_exact']:g}"
    np.testing.assert_allclose(
        row["difference"], exact.sel(schedule="beta_a=2") - exact.sel(schedule="cosine")
    )
    assert np.isnan(row["low"])
    assert row["sentence"].endswith("by the exact laws.")


def test_schedules_without_a_choice_are_paired_as_they_are() -> None:
    """Schedule files and the like: no number tells them apart, each is a side of its own."""
    grid = synthetic_grid(a=(-5, 0, 3, 5), constant=True)
    files = xr.where(grid.family.isin(["cosine", "constant"]), "schedule_file", grid.family)
    grid = grid.assign_coords(family=files).isel(schedule=[4, 5, 0, 1, 2, 3])
    table = comparison.comparison_table(grid)
    kl = table[(table["score"] == "trained") & (table["divergence"] == "kl_plugin")]
    assert kl[["schedule", "reference"]].to_numpy().tolist() == [
        ["cosine", "beta_a=0"], ["cosine", "constant"], ["cosine", "beta_a"],
        ["constant", "beta_a=0"], ["constant", "beta_a"], ["beta_a", "beta_a=0"],
    ]  # fmt: skip
    runs = runs_of_kl(grid)
    row = kl.iloc[1]
    d = (runs.sel(schedule="cosine") - runs.sel(schedule="constant")).values
    interval = stats.ttest_1samp(d, 0).confidence_interval(0.95)
    np.testing.assert_allclose([row["low"], row["high"]], interval, rtol=1e-10)
    assert row["cross_fitted"] is pd.NA
    assert row["sentence"].startswith("cosine has a lower KL(data ‖ generated) than constant by ")
    assert row["sentence"].endswith("over 10 paired runs: exceeds the noise.")
    # the same pair as beta_a against cosine, seen from the other side
    behind, before = kl.iloc[2], of_kl(synthetic_grid(a=(-5, 0, 3, 5), constant=True)).loc["cosine"]
    assert behind["reference_chosen"] == before["chosen"] == "beta_a=3 beta_a=3"
    for end, other in (("low", "high"), ("high", "low"), ("difference", "difference")):
        np.testing.assert_allclose(behind[end], -before[other])
    assert "than beta_a at a = 3 by" in behind["sentence"]


def test_two_families_are_compared_at_the_best_of_each() -> None:
    grid = synthetic_grid(a=(0, 1, 3, 5, 8), cosine=False)
    # of the second family the labels with 5 and 8, in another parameter
    second = grid.a.values >= 5
    grid = grid.assign_coords(
        family=("schedule", np.where(second, "power", "beta_a")),
        exponent=(
            "schedule",
            np.where(second, grid.a.values, np.nan),
            {"parameter": "exponent", "symbol": "p", "long_name": "exponent of power"},
        ),
        a=("schedule", np.where(second, np.nan, grid.a.values)),
        schedule=[f"power_exponent={a:g}" if a >= 5 else f"beta_a={a:g}" for a in grid.a.values],
    )
    row, kl = of_kl(grid).loc["power"], runs_of_kl(grid)
    assert row["chosen"] == "beta_a=3 beta_a=3"
    assert row["reference_chosen"] == "power_exponent=5 power_exponent=5"
    d = kl.sel(schedule="beta_a=3") - kl.sel(schedule="power_exponent=5")
    np.testing.assert_allclose(row["difference"], d.mean())
    assert "beta_a at a = 3 has a lower" in row["sentence"]
    assert "than power at exponent = 5 by" in row["sentence"]
    assert of_kl(grid, schedule="power").index.tolist() == ["beta_a=0"]


def test_one_run_has_no_interval() -> None:
    row = of_kl(synthetic_grid(n_seeds=1)).loc["cosine"]
    assert row["pairs"] == 1
    assert np.isnan(row["low"])
    assert row["beyond_noise"] is pd.NA
    assert row["sentence"].endswith("over 1 paired run: too few for an interval.")


def test_every_divergence_of_every_setting_has_its_rows() -> None:
    grid = synthetic_grid(a=(-5, 0, 5), samplers=("ei_modified", "em"), unknown_targets=("digits",))
    table = comparison.comparison_table(grid)
    counted = table.groupby(["target", "score", "sampler", "divergence"])["reference"].agg(list)
    # beta_a against VPSDE and the cosine, the cosine against VPSDE
    assert (counted.map(lambda names: names == ["beta_a=0", "cosine", "beta_a=0"])).all()
    trained = counted.xs("trained", level="score")
    measured = {"kl_plugin", "mmd", "sliced_w2", "w2_plugin"}  # of the NLL less is not better
    assert set(trained.loc["isotropic", "em"].index) == measured
    assert set(trained.loc["digits", "em"].index) == {"kl_plugin", "mmd", "heldout_nll_gap"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"a": ()}, "the study has no schedule to compare cosine with."),
        (
            {"a": (3.0, 5.0), "cosine": False},
            "the study has no schedule to compare beta_a with: neither a = 0 nor another family.",
        ),
    ],
)
def test_a_study_with_nothing_to_compare_has_an_empty_table(
    options: dict[str, Any], why: str
) -> None:
    grid = synthetic_grid(**options, constant=False)
    assert comparison.comparison_table(grid).empty
    assert comparison.comparison_text(grid).startswith(f"Nothing to compare: {why}")


def test_a_study_whose_schedules_have_no_numbers_is_compared() -> None:
    grid = synthetic_grid(a=(), constant=True, scores=("exact",)).drop_vars("a")
    table = comparison.comparison_table(grid)
    assert set(table["schedule"]) == {"cosine"}
    assert set(table["reference"]) == {"constant"}


def test_runs_that_failed_are_no_lack_of_schedules() -> None:
    grid = fail(synthetic_grid(a=(0, 3), scores=("trained",)))
    text = comparison.comparison_text(grid)
    assert text.startswith("Nothing to compare: all 30 runs failed")
    # of two samplers one: the other's comparisons stand, and this one says why it has none
    grid = fail(
        synthetic_grid(a=(0, 3), scores=("trained",), samplers=("one", "two")), sampler="two"
    )
    lines = comparison.comparison_text(grid).splitlines()
    assert any(line.startswith("- Nothing to compare: all 30 runs failed") for line in lines)
    assert sum(line.startswith("- beta_a at a = ") for line in lines) >= 4


def test_schedules_without_a_common_seed_are_not_compared() -> None:
    """The mean of no differences is NaN, which is not below zero, hence was called higher."""
    grid = synthetic_grid(a=(0, 3), n_seeds=4)
    for schedule, seeds in (("beta_a=3", [0, 1]), ("beta_a=0", [0, 1]), ("cosine", [2, 3])):
        grid = fail(grid, schedule=schedule, seed=seeds)
    assert set(of_kl(grid).index) == {"beta_a=0"}


def test_the_text_says_how_many_intervals_would_exclude_zero_by_chance() -> None:
    grid = synthetic_grid(samplers=("one", "two"))
    table = comparison.comparison_table(grid)
    judged = table.dropna(subset=["beyond_noise"])
    judged = judged[~judged["sentence"].str.contains("the best a is 0")]
    first = comparison.comparison_text(grid).splitlines()[0]
    excluding = int(((judged["low"] > 0) | (judged["high"] < 0)).sum())
    chance = f"{0.05 * len(judged):.2g}"
    assert first.startswith(f"Of {len(judged)} intervals at 95%, {excluding} exclude zero; ")
    assert f"about {chance} would by chance" in first


def test_coupled_estimates_are_compared_where_there_are_any() -> None:
    """They resolve what the plain estimate's floor hides, and have no floor themselves."""
    grid = synthetic_grid(a=(0, 5))
    grid["kl_coupled"] = grid["kl_plugin"].drop_attrs() * 0.01
    grid["kl_plugin"].attrs["coupled"] = "kl_coupled"
    table = comparison_table(grid)
    kl = table[(table["divergence"] == "kl_plugin") & (table["score"] == "trained")]
    assert set(kl["values"]) == {"coupled"}
    assert kl["floor"].isna().all()
    plain = comparison_table(grid.drop_vars("kl_coupled"))
    plain = plain[(plain["divergence"] == "kl_plugin") & (plain["score"] == "trained")]
    np.testing.assert_allclose(kl["difference"], plain["difference"] * 0.01)
    ranking = ranking_table(grid).set_index(["divergence", "score"])
    assert set(ranking.loc[("kl_plugin", "trained"), "error"]) == {"coupled"}


def test_an_error_that_all_seeds_share_widens_the_interval() -> None:
    """That of two reference runs, which pairs of one seed don't show; none of a run and itself."""
    grid = synthetic_grid(a=(0, 5))
    grid["kl_coupled"] = grid["kl_plugin"].drop_attrs() * 0.01
    grid["kl_coupled"].attrs["shared_error"] = "kl_coupled_reference_error"
    grid["kl_plugin"].attrs["coupled"] = "kl_coupled"

    def intervals(error: float) -> np.ndarray:
        grid["kl_coupled_reference_error"] = xr.full_like(grid["kl_coupled"], error)
        table = comparison_table(grid)
        kl = table[(table["divergence"] == "kl_plugin") & (table["score"] == "trained")]
        same = (kl["best"] == kl["reference"]) & (kl["difference"] == 0)
        return kl.loc[~same, ["difference", "low", "high"]].to_numpy().T

    without, wide = intervals(0.0), intervals(10.0)
    np.testing.assert_array_equal(wide[0], without[0])
    np.testing.assert_allclose(wide[2] - wide[0], 1.96 * 10 * np.sqrt(2), rtol=1e-3)
    assert (wide[2] - wide[1] > without[2] - without[1]).all()
