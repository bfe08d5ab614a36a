"""Affine scores learnt from rows: least squares, descent, and what they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgm import laws, samplers, timegrids
from sgm.gather import gather
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.learned import DescentScore, FittedScore, affine, affine_sgd, expected_fit_kl
from sgm.plots import draw
from sgm.processes import VPProcess
from sgm.registry import register
from sgm.run.check import check
from sgm.schedules import BetaSchedule
from sgm.store import DONE
from sgm.store.cells import read_cells
from sgm.study import Plan, Study
from tests.workflow import run_jobs, tiny

D = 3
BASIS = np.linalg.qr(np.random.default_rng(5).standard_normal((D, D)))[0]
LAW = Gaussian(np.array([1.0, -0.5, 0.2]), np.array([0.2, 0.7, 2.0]), BASIS)
PROCESS = VPProcess(BetaSchedule(1.0, 2.0, 0.1, 20.0), 1.0)
ROWS = LAW.sample(40, np.random.default_rng(1))
TIMES = np.array([0.02, 0.3, 1.0])


def normal_equations(t: float) -> tuple[Any, Any]:
    """G and H of the loss of denoising on `ROWS`, its noise integrated: from their definition."""
    m, v = float(PROCESS.mean_scale(t)), float(PROCESS.kernel_variance(t))
    second = np.zeros((D + 1, D + 1))
    for row in ROWS:
        extended = np.append(m * row, 1.0)
        second += np.outer(extended, extended) / len(ROWS)
    second[:D, :D] += v * np.eye(D)
    return second, np.sqrt(v) * np.eye(D, D + 1)


@pytest.mark.parametrize("n", [20, 80])
def test_the_mean_cost_of_n_rows_is_that_of_the_wishart_law(n: int) -> None:
    generator = np.random.default_rng(n)
    found = [
        float(kl_divergence(LAW, affine(PROCESS, LAW.sample(n, generator), n).law))
        for _ in range(500)
    ]
    error = np.std(found) / np.sqrt(len(found))
    assert abs(np.mean(found) - expected_fit_kl(D, n)) < 4 * error


def test_the_mean_cost_of_n_rows_is_of_first_order_in_1_over_n() -> None:
    order = np.log2(expected_fit_kl(D, 4000) / expected_fit_kl(D, 8000))
    assert abs(order - 1) < 5e-3
    assert 1e6 * expected_fit_kl(D, 10**6) == pytest.approx(D * (D + 3) / 4, rel=1e-4)
    assert np.isinf(expected_fit_kl(D, D + 2))
    assert np.isfinite(expected_fit_kl(D, D + 3))


@pytest.mark.parametrize("t", TIMES)
def test_least_squares_solves_the_normal_equations(t: float) -> None:
    second, cross = normal_equations(t)
    weights = -(cross @ np.linalg.inv(second)) / np.sqrt(PROCESS.kernel_variance(t))
    score = affine(PROCESS, ROWS, len(ROWS))
    slope, offset = score.coefficients(t)
    basis = score.law.basis
    assert np.allclose((basis * slope) @ basis.T, weights[:, :D], rtol=1e-10, atol=1e-10)
    assert np.allclose(basis @ offset, weights[:, D], rtol=1e-10, atol=1e-10)


def test_a_ridge_is_noise_on_the_rows() -> None:
    score = affine(PROCESS, ROWS, 30, ridge=0.3)
    centered = ROWS[:30] - ROWS[:30].mean(axis=0)
    expected = centered.T @ centered / 30 + 0.3 * np.eye(D)
    assert np.allclose(score.law.covariance, expected, atol=1e-12)
    assert np.isnan(score.expected_kl)


def test_few_rows_believe_in_a_degenerate_law() -> None:
    for n in (2, 3):
        score = affine(PROCESS, ROWS, n)
        assert np.sum(score.law.eigenvalues > 0) == n - 1
        assert np.isinf(kl_divergence(LAW, score.law))
        assert np.isfinite(wasserstein2(LAW, score.law))
        assert np.isfinite(score.coefficients(TIMES)[0]).all()


def test_descent_is_on_average_gradient_descent_to_the_least_squares_solution() -> None:
    steps, eta, n_seeds = 15, 0.2, 500
    t = TIMES[1]
    second, cross = normal_equations(t)
    fixed = cross @ np.linalg.inv(second)
    shrinking = np.linalg.matrix_power(np.eye(D + 1) - eta * second, steps)
    expected = -(fixed - fixed @ shrinking) / np.sqrt(PROCESS.kernel_variance(t))
    found = []
    for seed in range(n_seeds):
        slope, offset = DescentScore(PROCESS, ROWS, steps, eta, 8, seed).matrices(np.array([t]))
        found.append(np.column_stack([slope[0], offset[0]]))
    error = np.std(found, axis=0) / np.sqrt(n_seeds)
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 5 * error)
    assert np.max(np.abs(expected - found[0])) > 10 * error.max()  # one descent is not its mean


def test_descent_spreads_about_its_fixed_point_in_proportion_to_its_rate() -> None:
    rows = ROWS[:, :1]
    score = affine(PROCESS, rows, len(rows))
    t = TIMES[1:2]
    squares = []
    for eta in (0.2, 0.05):
        ends = [
            DescentScore(PROCESS, rows, int(15 / eta), eta, 4, seed).matrices(t)[0][0, 0, 0]
            for seed in range(60)
        ]
        squares.append(np.mean((np.array(ends) - score.coefficients(t)[0][0, 0]) ** 2))
    order = np.log(squares[0] / squares[1]) / np.log(4)
    assert abs(order - 1) < 0.5  # 3 standard errors of a ratio of two means of 60 squares


@dataclass(frozen=True, eq=False)
class Turned(DescentScore):
    """A fitted score, its eigenbasis forgotten."""

    fitted: Any = None

    def matrices(self, t: Any) -> tuple[Any, Any]:
        slope, offset = self.fitted.coefficients(t)
        basis = self.fitted.law.basis
        return (basis * slope[:, None, :]) @ basis.T, offset @ basis.T


def turned(fitted: FittedScore) -> Turned:
    return Turned(PROCESS, ROWS, 1, 1.0, 1, 1, fitted)


@pytest.mark.parametrize("name", ["exponential_integrator_modified", "ddim", "heun", "unipc"])
def test_the_law_without_an_eigenbasis_is_that_in_one(name: str) -> None:
    steps = getattr(samplers, name)(PROCESS, timegrids.uniform(1.0, 12))
    fitted = affine(PROCESS, ROWS, 30)
    prior = PROCESS.prior(D)
    found = laws.affine_law(steps, turned(fitted).matrices, prior)
    assert kl_divergence(laws.sampler_law(steps, fitted, prior), found) < 1e-20


def test_its_error_moments_are_those_in_an_eigenbasis() -> None:
    fitted = affine(PROCESS, ROWS, 30)
    expected, found = (s.error_moments(LAW, TIMES) for s in (fitted, turned(fitted)))
    assert np.allclose(found, expected, rtol=1e-9)
    x = ROWS[:3]
    assert np.allclose(turned(fitted)(x, TIMES), fitted(x, TIMES), rtol=1e-10)


def test_short_steps_tend_to_the_limit_without_steps_in_first_order() -> None:
    fitted, prior = affine(PROCESS, ROWS, 30), PROCESS.prior(D)
    limit = laws.reverse_sde_limit(PROCESS, fitted.law)
    gaps = []
    for n in (400, 800):
        steps = samplers.exponential_integrator_modified(PROCESS, timegrids.uniform(1.0, n))
        gaps.append(float(wasserstein2(limit, laws.sampler_law(steps, fitted, prior))))
    assert abs(np.log2(gaps[0] / gaps[1]) - 1) < 0.05


def test_a_descent_that_diverges_is_infinitely_far() -> None:
    score = DescentScore(PROCESS, ROWS, 400, 50.0, 8, 0)
    steps = samplers.exponential_integrator_modified(PROCESS, timegrids.uniform(1.0, 4))
    law = laws.affine_law(steps, score.matrices, PROCESS.prior(D))
    assert np.isinf(kl_divergence(LAW, law))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: affine(PROCESS, ROWS, 41), "n_rows = 41: must be at least 2, and at most n_train"),
        (lambda: affine(PROCESS, ROWS, 1), "n_rows = 1: must be at least 2"),
        (lambda: affine(PROCESS, ROWS[0], 2), r"train has shape \(3,\): must be \(n, d\)"),
        (
            lambda: affine_sgd(PROCESS, ROWS, np.random.default_rng(0), 10, 5, -1.0),
            "learning_rate = -1.0",
        ),
        (
            lambda: DescentScore(PROCESS, ROWS, 3, 0.1, 4, 0).matrices(np.array([0.5, 0.0])),
            "t = 0.0: must be a time with noise",
        ),
        (lambda: expected_fit_kl(0, 5), "dimension = 0"),
    ],
)  # fmt: skip
def test_it_refuses(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_family_that_learns_is_for_gaussian_targets() -> None:
    with pytest.raises(ValueError, match="needs = '' of a score that learns from `train`"):

        @register("score")
        def learner(process: Any, train: Any) -> None: ...


CONFIG = {
    "scores": [
        {"family": "exact", "sampled": False},
        {"family": "affine", "n_rows": [20, 200]},
        {"family": "affine_sgd", "n_rows": 200, "steps": 20, "learning_rate": 0.1},
    ],
    "n_steps": [4, 8],
}


def test_a_study_has_the_exact_law_of_each_seed(tmp_path: Path) -> None:
    grids = []
    for size in (2, 1):  # seeds in a job
        study = Study.parse(tiny(**CONFIG, seeds_per_job=size))
        check(study)
        plan = Plan(study, tmp_path / str(size))
        run_jobs(plan)
        grids.append(gather(plan, {}))
    grid, other = grids
    assert (grid.status == DONE).all()
    for name in ("kl_learned", "w2_learned", "kl_learned_fit", "kl_learned_limit", "kl_bound"):
        np.testing.assert_array_equal(grid[name], other[name])
    rows = read_cells(plan.files("data")[1])["train"][0].astype(float)  # of seed 1
    target = study.targets[0].entry.builder(dimension=3, mean=1.0, variance=0.5)
    process = VPProcess(BetaSchedule(1.0, -2.0, 0.1, 20.0), 1.0)
    score = affine(process, rows, 20)
    steps = samplers.exponential_integrator_modified(process, timegrids.uniform(1.0, 8))
    here = {"target": "isotropic", "horizon": 1.0, "score": "affine_n_rows=20", "seed": 1}
    own = grid.sel(here | {"schedule": "beta_a=-2"}).squeeze()
    generated = laws.sampler_law(steps, score, process.prior(3))
    assert own.kl_learned.sel(n_steps=8) == kl_divergence(target.law, generated)
    assert own.kl_learned_fit == kl_divergence(target.law, score.law)
    assert own.kl_learned_expected == expected_fit_kl(3, 20)
    # the theorem bounds what it is about, with the score's own error
    learnt = grid.sel(score=[s for s in grid.score.values if s != "exact"])
    assert (learnt.kl_learned.squeeze() <= learnt.kl_bound.squeeze()).all()
    assert np.isnan(grid.kl_learned.sel(score="exact")).all()
    assert np.isnan(grid.kl_learned_fit.sel(score="affine_sgd_n_rows=200")).all()
    assert np.isfinite(grid.kl_exact.sel(score="exact")).all()
    _, frame = draw(grid, "learned/isotropic")
    drawn = frame[(frame["axis"] == "kl_learned") & (frame["curve"] == "") & (frame["x"] == 20)]
    means = grid.kl_learned.mean("seed").sel(score="affine_n_rows=20").values
    assert set(np.round(drawn["y"], 12)) <= set(np.round(means.ravel(), 12))
    assert len(drawn)
    _, frame = draw(grid, "kl_learned/isotropic")
    assert "closed" in set(frame["curve"])


def test_a_study_refuses_more_rows_than_a_seed_has() -> None:
    study = Study.parse(tiny(scores=[{"family": "affine", "n_rows": 300}]))
    with pytest.raises(ValueError, match=r"scores: affine_n_rows=300: n_rows = 300.*n_train = 200"):
        check(study)
