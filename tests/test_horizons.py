"""The set of horizons that runs allow: its coverage; and the table of horizons."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from sgm.densities import GaussianMixture
from sgm.horizons import best_horizon, horizon_set, horizons_table, likelihood_loss
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule
from tests.grids import synthetic_grid
from tests.grids_horizon import HORIZONS, fail_runs, horizon_grid

Array = npt.NDArray[np.float64]

TOY = GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.01], [0.25]])


def runs(seed: int, reps: int, n_seeds: int, means: Array, noise: float) -> Array:
    """Losses with noise shared by a seed's runs, shape (reps, n_seeds, K)."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((reps, n_seeds, 1))
    own = rng.standard_normal((reps, n_seeds, len(means)))
    return means + 3 * noise * shared + noise * own


GRID = np.round(np.arange(0.2, 1.25, 0.1), 2)


def curve() -> Array:
    """KL(p_T ‖ π_∞) + ½ e B(T) of the toy mixture at e = 0.1, whose optimum is 0.6333."""
    at = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), 1.0)
    stops = np.minimum(GRID, 1.0)
    kl = [
        TOY.kl_to_normal(1.0, float(at.mean_scale(t)), float(at.kernel_variance(t))) for t in stops
    ]
    return np.array(kl) + 0.05 * at.schedule.integral(stops) + 0.5 * (GRID - stops)


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_the_best_horizon_is_kept(n_seeds: int) -> None:
    """Most often lost when all horizons are equal, and then at most at the nominal rate."""
    reps = 2000
    level = runs(0, reps, n_seeds, np.zeros(len(GRID)), 1.0)
    kept = np.mean([horizon_set(GRID, losses).plausible[4] for losses in level])
    assert kept > 0.95 - 4.5 * np.sqrt(0.05 * 0.95 / reps)
    assert kept < 0.995  # and not because everything is kept


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_the_set_holds_the_optimum_and_sheds_the_rest(noise: float) -> None:
    means, reps = curve(), 200
    assert GRID[np.argmin(means)] == 0.6
    sets = [horizon_set(GRID, losses) for losses in runs(1, reps, 8, means, noise)]
    assert np.mean([s.plausible[4] for s in sets]) > 0.95
    assert np.mean([s.bracket[0] <= 0.63327 <= s.bracket[1] for s in sets]) > 0.95
    assert all(s.low <= s.best <= s.high for s in sets)
    # far horizons go: a standard error of a difference is noise/2
    worse = means - means.min() > 6 * noise
    assert worse.sum() >= 2
    assert np.mean([s.plausible[worse].any() for s in sets]) < 0.05
    width = np.mean([s.plausible.sum() for s in sets])
    assert width < (3 if noise < 0.01 else 7)


def test_pairing_removes_what_the_seeds_share() -> None:
    losses = runs(2, 1, 8, curve(), 0.003)[0]
    shifted = losses + 100 * np.arange(8)[:, None]
    np.testing.assert_array_equal(
        horizon_set(GRID, losses).plausible, horizon_set(GRID, shifted).plausible
    )


def test_bracket_is_open_beyond_the_grid() -> None:
    losses = np.array([[3.0, 2.0, 1.0], [3.1, 2.2, 1.1], [3.3, 2.1, 1.0]])
    found = horizon_set([0.5, 1.0, 2.0], losses)
    assert (found.best, found.low, found.high) == (2.0, 2.0, 2.0)
    assert found.bracket == (1.0, np.inf)
    reverse = horizon_set([0.5, 1.0, 2.0], losses[:, ::-1])
    assert reverse.bracket == (0.0, 1.0)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: horizon_set([1.0, 0.5], np.zeros((2, 2))), "horizons = .*must be"),
        (lambda: horizon_set([0.0, 0.5], np.zeros((2, 2))), "horizons = .*must be"),
        (lambda: horizon_set([0.5, 1.0], np.zeros((1, 2))), r"losses has shape \(1, 2\)"),
        (lambda: horizon_set([0.5, 1.0], np.zeros((2, 3))), r"losses has shape \(2, 3\)"),
        (lambda: horizon_set([0.5, 1.0], [[np.nan, 1], [1, 2]]), "losses must be finite"),
        (lambda: horizon_set([0.5, 1.0], np.eye(2), confidence=1.0), "confidence = 1.0: must"),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_the_table_says_what_the_grid_was_built_from() -> None:
    grid = horizon_grid(a=(0.0, 5.0), cosine=True, scores=("exact", "large", "small"))
    table = horizons_table(grid)
    assert len(table) == 3 * 3 * len(HORIZONS)
    at = {"schedule": "beta_a=5", "score": "small", "horizon": 0.4}
    row = table[(table[list(at)] == pd.Series(at)).all(axis=1)].iloc[0]
    runs = grid.sel(at).squeeze(drop=True)
    for column, name in {
        "flow_log_likelihood": "flow_log_likelihood",
        "elbo": "elbo",
        "evaluations": "flow_evaluations",
        "seconds": "flow_seconds",
    }.items():
        assert row[f"{column}_mean"] == pytest.approx(runs[name].values.mean(), rel=1e-12)
        assert row[f"{column}_sd"] == pytest.approx(runs[name].values.std(ddof=1), rel=1e-9)
    assert (row["loss"], row["loss_mean"]) == ("flow_log_likelihood", -row.flow_log_likelihood_mean)
    assert (row["runs"], row["runs_compared"], row["a"]) == (6, 6, 5.0)
    assert row["optimal_horizon"] == runs.optimal_horizon.item()
    # sorted as the grid is, T increasing
    assert table["horizon"].tolist() == list(HORIZONS) * 9
    assert table["schedule"].unique().tolist() == ["beta_a=0", "beta_a=5", "cosine"]
    # a best T a (schedule, score), plausible itself; its neighbours hold the exact optimum
    for _, part in table[table["score"] != "exact"].groupby(["schedule", "score"]):
        best = part.loc[part["best"].astype(bool), "horizon"]
        assert len(best) == 1
        kept = np.flatnonzero(part["plausible"])
        padded = [0.0, *HORIZONS, np.inf]
        assert padded[kept[0]] <= part["optimal_horizon"].iloc[0] <= padded[kept[-1] + 2]
        assert part.loc[best.index, "plausible"].all()
        assert not part["plausible"].all()


def test_the_loss_is_the_first_likelihood_with_a_number() -> None:
    grid = horizon_grid(n_seeds=3)
    assert likelihood_loss(grid).name == "flow_log_likelihood"
    assert likelihood_loss(grid.assign(flow_log_likelihood=np.nan * grid.elbo)).name == "elbo"
    assert likelihood_loss(grid[["kl_terminal"]]) is None
    unknown = likelihood_loss(horizon_grid(n_seeds=3, known=False))
    assert (unknown.name, unknown.units) == ("bits_per_dimension", "bit")
    # bits rise where the likelihood falls: no sign is turned
    likelihood = horizon_grid(n_seeds=3, known=False).flow_log_likelihood
    np.testing.assert_allclose(unknown.values, 8 - likelihood / np.log(2))


def test_a_run_without_every_horizon_does_not_vote() -> None:
    grid = horizon_grid(scores=("small",), n_seeds=4).squeeze(["target", "schedule", "score"])
    whole = best_horizon(-grid.elbo)
    assert (whole.n_runs, whole.best, whole.allowed.best) == (4, 0.3, 0.3)
    # a run that lost its bad horizons would otherwise pull their mean down
    values = (-grid.elbo).copy()
    values.loc[{"seed": 0, "horizon": 0.3}] = np.nan
    values.loc[{"seed": 0, "horizon": 1.0}] = -100.0
    assert (best_horizon(values).n_runs, best_horizon(values).best) == (3, 0.3)
    np.testing.assert_array_equal(
        best_horizon(values[::-1]).allowed.plausible, best_horizon(values).allowed.plausible
    )
    one = best_horizon(values.isel(seed=[1]))
    assert (one.n_runs, one.best, one.allowed) == (1, 0.3, None)
    assert not one.plausible(HORIZONS).any()
    assert np.isnan(best_horizon(values.sel(horizon=[0.3])).best)
    lost = np.abs(values.horizon - values.seed / 10 - 0.1) < 1e-9  # another horizon each run
    none = best_horizon(values.where(~lost))
    assert none.n_runs == 0
    assert np.isnan(none.best)


def test_failed_runs_and_runs_that_are_too_few_show_in_the_table() -> None:
    grid = fail_runs(horizon_grid(scores=("small",), n_seeds=3), seed=[1], horizon=[0.8])
    table = horizons_table(grid).set_index("horizon")
    assert table["runs"].tolist() == [3] * 6 + [2, 3]
    assert (table["runs_compared"] == 2).all()
    one = horizons_table(horizon_grid(scores=("small",), n_seeds=1))
    assert one["plausible"].isna().all()
    assert one["best"].sum() == 1


def test_a_grid_without_likelihoods_has_an_empty_table_with_headers() -> None:
    table = horizons_table(synthetic_grid(a=(0, 5)))
    assert table.empty
    assert {"horizon", "bits_per_dimension_mean", "plausible"} <= set(table)
