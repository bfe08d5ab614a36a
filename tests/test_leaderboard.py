"""The leaderboard on grids whose answer is known, and its intervals by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from sgm import plots
from sgm.leaderboard import budgets, contests_table, leaderboard_table, rank_intervals
from sgm.reading import unbeaten
from sgm.run.check import check
from sgm.study import Plan, Study
from tests.grids import fail, synthetic_grid
from tests.workflow import tiny


def exact_grid(errors: Any, **options: Any) -> xr.Dataset:
    """Exact KL by (target, schedule, sampler, N); sampler `two` has NFE = 2N − 1."""
    errors = np.asarray(errors, dtype=float)
    targets, schedules, samplers, n = errors.shape
    grid = synthetic_grid(
        a=tuple(range(schedules)), cosine=False, scores=("exact",), n_seeds=1,
        targets=[f"t{i}" for i in range(targets)], samplers=("one", "two")[:samplers],
        n_steps=(5, 10)[:n], **options,
    )  # fmt: skip
    axes = ("target", "schedule", "sampler", "n_steps")
    values = xr.DataArray(errors, dims=axes).expand_dims(score=1, horizon=1, time_grid=1)
    values = values.transpose(*grid.kl_exact.dims)
    grid["kl_exact"] = values.assign_coords(grid.kl_exact.coords).assign_attrs(grid.kl_exact.attrs)
    steps = grid.n_steps.values
    nfe = np.stack([steps, 2 * steps - 1])[:samplers]
    return grid.assign_coords(nfe=(("sampler", "n_steps"), nfe))


#: Two targets, two schedules, two samplers: at ten evaluations `one` has N = 10 and `two` N = 5.
ERRORS = [
    [[[9.0, 1.0], [2.0, 9.0]], [[9.0, 4.0], [3.0, 9.0]]],
    [[[9.0, 8.0], [4.0, 9.0]], [[9.0, 4.0], [12.0, 9.0]]],
]


def of_kl(table: pd.DataFrame, **labels: Any) -> pd.DataFrame:
    for name, value in {"divergence": "kl", **labels}.items():
        table = table[table[name] == value]
    return table


def test_combinations_meet_at_equal_evaluations() -> None:
    grid = exact_grid(ERRORS)
    assert budgets(grid) == [10]  # at 5 `two` has no N
    table = of_kl(contests_table(grid), target="t0")
    told = table[["schedule", "sampler", "n_steps", "evaluations", "error", "regret", "rank"]]
    assert told.to_numpy().tolist() == [
        ["beta_a=0", "one", 10, 10, 1.0, 1.0, 1],
        ["beta_a=0", "two", 5, 9, 2.0, 2.0, 2],
        ["beta_a=1", "two", 5, 9, 3.0, 3.0, 3],
        ["beta_a=1", "one", 10, 10, 4.0, 4.0, 4],
    ]
    assert (table["values"] == "exact").all()
    table = of_kl(contests_table(grid), target="t1")
    assert table["regret"].tolist() == [1.0, 1.0, 2.0, 3.0]
    assert table["rank"].tolist() == [1, 1, 3, 4]


def test_the_standing_is_the_geometric_mean_of_regret() -> None:
    table = of_kl(leaderboard_table(exact_grid(ERRORS)))
    told = table[["schedule", "sampler", "geometric_mean_regret", "mean_rank", "worst_rank"]]
    root = pytest.approx(2**0.5, rel=1e-5)
    assert told.to_numpy().tolist() == [
        ["beta_a=0", "two", root, 1.5, 2],  # the better mean rank
        ["beta_a=0", "one", root, 2.0, 3],
        ["beta_a=1", "one", 2.0, 2.5, 4],
        ["beta_a=1", "two", 3.0, 3.5, 4],
    ]
    assert table["place"].tolist() == [1, 1, 3, 4]
    assert table["n_unbeaten"].tolist() == [1, 1, 1, 0]
    assert table["nfe"].tolist() == [10] * 4
    # whatever errors are divided by
    scaled = exact_grid(np.array(ERRORS) * np.array([7.0, 1e-3])[:, None, None, None])
    pd.testing.assert_frame_equal(of_kl(leaderboard_table(scaled)), table)


def test_several_budgets_are_listed_after_all_of_them() -> None:
    grid = exact_grid(np.array(ERRORS)[:, :, :1])
    assert budgets(grid) == [5, 10]
    table = of_kl(leaderboard_table(grid))
    assert table["nfe"].fillna(0).tolist() == [0, 0, 5, 5, 10, 10]
    assert table["n_contests"].tolist() == [4, 4, 2, 2, 2, 2]
    first = table.iloc[0]  # regrets 1 and 1 at N = 5, 4 and 1 at N = 10
    assert first["schedule"] == "beta_a=0"
    assert first["geometric_mean_regret"] == pytest.approx(2**0.25, rel=1e-5)
    assert pd.isna(first["n_steps"])


@pytest.mark.parametrize(("nfe", "enters"), [(8, False), (9, True), (10, True), (11, False)])
def test_who_spends_too_little_or_too_much_is_out(nfe: int, enters: bool) -> None:
    grid = exact_grid(ERRORS)
    grid = grid.assign_coords(nfe=(("sampler", "n_steps"), [[5, 10], [nfe, 21]]))
    table = of_kl(contests_table(grid), nfe=10)
    assert ("two" in set(table["sampler"])) == enters


def test_errors_within_rounding_are_ties() -> None:
    errors = np.array(ERRORS)[:1, :, :1]
    errors[0, :, 0, 1] = 0.1, 0.1 * (1 + 1e-13)
    table = of_kl(contests_table(exact_grid(errors)), nfe=10)
    assert table[["rank", "rank_low", "rank_high"]].to_numpy().tolist() == [[1, 1, 2]] * 2
    errors[0, 1, 0, 1] = 0.1 * (1 + 1e-6)
    table = of_kl(contests_table(exact_grid(errors)), nfe=10)
    assert table[["rank", "rank_low", "rank_high"]].to_numpy().tolist() == [[1, 1, 1], [2, 2, 2]]


def test_an_error_of_zero_has_no_ratio() -> None:
    errors = np.array(ERRORS)
    errors[1, 0, 0, 1] = 0.0
    grid = exact_grid(errors)
    table = of_kl(contests_table(grid), target="t1")
    assert table["regret"].isna().all()
    assert table["rank"].tolist() == [1, 2, 2, 4]
    standing = of_kl(leaderboard_table(grid))  # of the other target
    assert standing["geometric_mean_regret"].tolist() == [1.0, 2.0, 3.0, 4.0]


def test_a_missing_cell_is_left_out_and_stands_last() -> None:
    errors = np.array(ERRORS)
    errors[1, 0, 0, 1] = np.nan
    grid = exact_grid(errors)
    assert len(of_kl(contests_table(grid), target="t1")) == 3
    standing = of_kl(leaderboard_table(grid))
    last = standing.iloc[-1]
    assert (last["schedule"], last["sampler"], last["n_contests"]) == ("beta_a=0", "one", 1)
    assert pd.isna(last["place"])
    assert standing["place"].iloc[:-1].tolist() == [1, 2, 3]


def test_one_combination_alone() -> None:
    grid = exact_grid(np.array(ERRORS)[:, :1, :1, 1:])
    assert (
        of_kl(contests_table(grid))[["regret", "rank", "rank_low", "rank_high"]]
        .to_numpy(float)
        .tolist()
        == [[1.0, 1.0, 1.0, 1.0]] * 2
    )
    figure, frame = plots.leaderboard_figure(grid, "kl")
    figure.draw_without_rendering()
    assert frame["value"].tolist() == [1.0] * 3


# --- runs -------------------------------------------------------------------------------


def test_intervals_of_ranks_are_pairwise_tests() -> None:
    rng = np.random.default_rng(0)
    values = np.array([0.0, 0.1, 0.5, 3.0])[:, None] + rng.normal(0, 0.5, (4, 8))
    values += rng.normal(0, 30, 8)  # common to a seed: cancels
    low, high = rank_intervals(values)
    for j in range(4):
        tests = [stats.ttest_rel(values[j], values[k]) for k in range(4) if k != j]
        level = 1 - 0.05 / 3
        assert low[j] == 1 + sum(t.statistic > stats.t.ppf(level, 7) for t in tests)
        assert high[j] == 4 - sum(t.statistic < -stats.t.ppf(level, 7) for t in tests)
    np.testing.assert_array_equal(low == 1, unbeaten(values.T))
    assert high[0] < 4
    assert low[3] > 1


def test_intervals_hold_the_rank_as_often_as_they_say() -> None:
    """95 % of each choice's intervals, within 4 standard errors; with equal means too."""
    rng = np.random.default_rng(1)
    means = np.array([0.0, 0.0, 0.4, 0.5, 1.5])
    least = np.array([np.sum(means < m) for m in means]) + 1
    most = np.array([np.sum(means <= m) for m in means])
    held = np.zeros(5)
    for _ in range(1000):
        low, high = rank_intervals(means[:, None] + rng.normal(0, 0.5, (5, 6)))
        held += (low <= least) & (high >= most)
    assert (held / 1000 > 0.95 - 4 * np.sqrt(0.05 * 0.95 / 1000)).all()


def test_an_error_that_seeds_share_widens_intervals() -> None:
    values = np.array([[0.0, 0.01, -0.01, 0.0], [1.0, 1.01, 0.99, 1.0]])
    assert [x.tolist() for x in rank_intervals(values)] == [[1, 2], [1, 2]]
    assert [x.tolist() for x in rank_intervals(values, None, [1.0, 1.0])] == [[1, 1], [2, 2]]
    # 2 of one standard error each are told apart at 95 % from 1.645 √2 on
    assert [x.tolist() for x in rank_intervals([[0.0], [2.3]], [1.0, 1.0])] == [[1, 1], [2, 2]]
    assert [x.tolist() for x in rank_intervals([[0.0], [2.4]], [1.0, 1.0])] == [[1, 2], [1, 2]]
    assert rank_intervals([[0.0], [2.4]]) is None


def test_runs_are_ranked_by_their_means() -> None:
    grid = synthetic_grid(a=(-5, 0, 3, 5))
    trained = grid.sel(score="trained", target="isotropic").squeeze(drop=True)
    means = trained.kl_plugin.mean("seed").to_series().sort_values()
    table = of_kl(contests_table(grid), score="trained")
    assert table["schedule"].tolist() == means.index.tolist()
    np.testing.assert_allclose(table["error"], means, rtol=1e-5)
    np.testing.assert_allclose(table["regret"], means / means.min(), rtol=1e-5)
    assert (table["n_runs"] == 10).all()
    assert set(table["values"]) == {"empirical"}
    assert (of_kl(contests_table(grid), score="exact")["values"] == "exact").all()


def test_lost_runs_are_no_reward() -> None:
    grid = fail(synthetic_grid(a=(-5, 0, 3, 5)), schedule="beta_a=3", seed=[0, 1])
    table = of_kl(contests_table(grid), score="trained")
    last = table.iloc[-1]
    assert (last["schedule"], last["n_runs"], last["n_failed"]) == ("beta_a=3", 8, 2)
    assert pd.isna(last["rank"])
    assert np.isfinite(last["error"])
    assert table["rank"].iloc[:-1].notna().all()
    assert "beta_a=3" not in set(of_kl(leaderboard_table(grid), score="trained")["schedule"])


def test_an_estimate_below_zero_has_no_regret() -> None:
    grid = synthetic_grid(a=(0, 5), scores=("trained",))
    attrs = grid.kl_plugin.attrs
    grid["kl_plugin"] = (grid.kl_plugin - 1.0).assign_attrs(attrs)
    table = of_kl(leaderboard_table(grid))
    assert table["geometric_mean_regret"].isna().all()
    assert table["mean_rank"].tolist() == sorted(table["mean_rank"])
    assert table["place"].tolist() == [1, 2, 3]
    figure, _ = plots.leaderboard_figure(grid, "kl")
    figure.draw_without_rendering()


# --- the figure -------------------------------------------------------------------------


def test_the_figure_shows_the_tables_numbers() -> None:
    grid = exact_grid(ERRORS)
    figure, frame = plots.draw(grid, "leaderboard/kl")
    cells = frame[frame["curve"] == "contest"]
    table = of_kl(contests_table(grid))
    keys = ["target", "schedule", "sampler"]
    both = cells.merge(table, on=keys, suffixes=("", "_of_table"))
    assert len(both) == len(cells) == len(table)
    np.testing.assert_allclose(both["value"].astype(float), both["regret"], rtol=1e-5)
    means = frame[frame["curve"] == "all"].sort_values("y")
    standing = of_kl(leaderboard_table(grid))
    assert means["schedule"].tolist() == standing["schedule"].tolist()
    texts = [text for ax in figure.axes for text in ax.texts]
    drawn = [text.get_text() for text in texts]
    assert drawn.count("1.00") == 3
    assert drawn.count("12.0") == 0
    assert {"t0", "t1", "all"} <= set(drawn)
    assert sum(text.get_fontweight() == "bold" for text in texts) == 3  # a tie and a best
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels[0].startswith("beta_a=0  ·  two")


def test_of_many_combinations_every_label_is_shown_once_at_least() -> None:
    grid = synthetic_grid(samplers=[f"s{i}" for i in range(6)], scores=("exact",), n_seeds=1)
    figure, frame = plots.leaderboard_figure(grid, "kl")
    means = frame[frame["curve"] == "all"]
    assert 24 <= len(means) < 24 + 22 + 6
    assert set(means["schedule"]) == set(grid.schedule.values)
    assert set(means["sampler"]) == set(grid.sampler.values)
    assert means["place"].astype(int).is_monotonic_increasing
    first = of_kl(leaderboard_table(grid)).head(24)
    assert means[["schedule", "sampler"]].head(24).to_numpy().tolist() == (
        first[["schedule", "sampler"]].to_numpy().tolist()
    )
    (title,) = [ax.get_title(loc="left") for ax in figure.axes if ax.get_title(loc="left")]
    assert f"{len(means)} of 132 combinations" in title.replace("\n", " ")


def test_what_has_no_leaderboard_says_so() -> None:
    grid = synthetic_grid(a=(0, 5))
    with pytest.raises(ValueError, match="divergence = 'kll': must be one of the grid's"):
        plots.draw(grid, "leaderboard/kll")
    with pytest.raises(
        ValueError, match="divergence = 'nll': must be one for which less is better"
    ):
        plots.draw(grid, "leaderboard/nll")
    lost = fail(synthetic_grid(a=(0, 5), scores=("trained",)))
    _, frame = plots.draw(lost, "leaderboard/kl")
    assert frame.empty


def test_a_study_asks_for_kinds_of_figures() -> None:
    config = tiny(samplers=["exponential_integrator_modified", "heun"])
    stems = Plan(Study.parse(config), "results").figures()
    assert "leaderboard/kl" in stems
    assert "leaderboard/kl" not in Plan(Study.parse(tiny()), "results").figures()
    only = Study.parse(config | {"figures": {"only": ["leaderboard", "schedules"]}})
    assert set(Plan(only, "results").figures()) == {
        stem for stem in stems if stem.partition("/")[0] in ("leaderboard", "schedules")
    }
    wrong = Study.parse(tiny(figures={"only": ["leaderboard"]}))
    with pytest.raises(ValueError, match="only = 'leaderboard': must be a kind of figure"):
        check(wrong)
    with pytest.raises(ValueError, match="only"):
        Study.parse(config | {"figures": {"only": []}})
