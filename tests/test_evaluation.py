"""Monte-Carlo moments of the score's error against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgm import samplers, scores, targets, timegrids
from sgm.densities import Law
from sgm.evaluation import ChainError, ScoreErrorMoments, score_error_moments
from sgm.gaussian import Gaussian
from sgm.laws import chain_error
from sgm.networks import ScoreFn, affine_score_fn, score_fn
from sgm.processes import VEProcess, VPProcess
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.scores import GaussianScore
from sgm.simulation import simulate_reverse

D, N = 3, 300
CPU = torch.device("cpu")
PROCESS = VPProcess(BetaSchedule(horizon=2.0, a=-1.0, beta_min=0.1, beta_max=10.0), 1.5)
TIMES = timegrids.uniform(2.0, 40)
LAWS = {
    "diagonal": Gaussian.diagonal(np.array([1.0, 0.0, -0.5]), np.array([1.0, 0.1, 0.5])),
    "correlated": Gaussian.from_covariance(
        np.array([1.0, 0.0, -0.5]), np.array([[1.0, 0.4, 0.1], [0.4, 0.5, 0.0], [0.1, 0.0, 0.2]])
    ),
}


def estimate(score_fn: ScoreFn, law: Gaussian, seeds: list[int], n: int = N) -> ScoreErrorMoments:
    return score_error_moments(
        score_fn, PROCESS, law, TIMES[:-1], n, 3, seeds, {}, torch.float64, CPU
    )


def torch_score(score: GaussianScore) -> ScoreFn:
    return affine_score_fn(score, torch.float64, CPU)


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize("perturb", [scores.scaled, scores.biased, scores.plugin])
def test_moments_are_the_closed_forms(perturb: object, law: Gaussian) -> None:
    score = perturb(PROCESS, law, 0.3)  # type: ignore[operator]
    moments = estimate(torch_score(score), law, [0, 1])
    mse, cross = score.error_moments(law, TIMES[:-1])
    increments = -np.diff(PROCESS.schedule.integral(TIMES))
    for value, error, exact in (
        (moments.mse, moments.mse_standard_error, mse),
        (moments.cross, moments.cross_standard_error, cross),
    ):
        slack = 1e-9 * np.abs(exact).max()  # an error that does not vary has no spread
        assert np.all(np.abs(value - exact) < 5 * error + slack)
        # the sum over the grid, as in E2, averages the errors of the times
        spread = np.sqrt(error**2 @ increments**2)
        assert np.all(np.abs((value - exact) @ increments) < 5 * spread + slack)
    assert np.all(moments.mse @ increments > 0.01)


def test_the_exact_score_has_no_error() -> None:
    law = LAWS["correlated"]
    moments = estimate(torch_score(scores.exact(PROCESS, law)), law, [0])
    assert np.all(moments.mse < 1e-22)
    assert np.all(np.abs(moments.cross) < 1e-11)


def test_moments_of_an_exploding_process_are_the_closed_forms() -> None:
    """Without a stationary law the modified score is the score: cross = E⟨s, e⟩."""
    process, law = VEProcess(GeometricSchedule(2.0, 0.01, 5.0)), LAWS["correlated"]
    score = scores.plugin(process, law, 0.3)
    moments = score_error_moments(
        torch_score(score), process, law, TIMES[:-1], N, 3, [0, 1], {}, torch.float64, CPU
    )
    mse, cross = score.error_moments(law, TIMES[:-1])
    assert np.all(np.abs(moments.mse - mse) < 5 * moments.mse_standard_error)
    assert np.all(np.abs(moments.cross - cross) < 5 * moments.cross_standard_error)
    largest = np.argmax(np.abs(cross))
    assert np.all(moments.cross_standard_error[:, largest] < 0.1 * np.abs(cross[largest]))


def test_standard_errors_are_the_spread_of_replicates() -> None:
    law = LAWS["diagonal"]
    moments = estimate(torch_score(scores.plugin(PROCESS, law, 0.3)), law, list(range(60)), n=50)
    ratio = moments.mse.std(axis=0, ddof=1) / np.sqrt((moments.mse_standard_error**2).mean(axis=0))
    # a ratio of spreads over 60 replicates has an error of about 0.1 at each of 40 times
    assert abs(ratio.mean() - 1) < 0.1


def test_a_replicate_does_not_depend_on_its_neighbours() -> None:
    law = LAWS["correlated"]
    score_fn = torch_score(scores.plugin(PROCESS, law, 0.3))
    whole = estimate(score_fn, law, [4, 5, 6], n=16)
    alone = estimate(score_fn, law, [5], n=16)
    np.testing.assert_array_equal(alone.mse[0], whole.mse[1])
    np.testing.assert_array_equal(alone.cross[0], whole.cross[1])
    assert np.all(whole.mse[0] != whole.mse[1])


def test_a_failed_score_is_nan_alone() -> None:
    law = LAWS["diagonal"]
    sound = torch_score(scores.plugin(PROCESS, law, 0.3))

    def broken(x: torch.Tensor, t: float) -> torch.Tensor:
        s = sound(x, t)
        s[0] = torch.nan
        return s

    moments = estimate(broken, law, [0, 1], n=16)
    assert np.all(np.isnan(moments.mse[0]))
    assert np.all(np.isfinite(moments.mse[1]))


def test_one_draw_has_no_standard_error() -> None:
    with pytest.raises(ValueError, match="n_samples = 1"):
        estimate(torch_score(scores.exact(PROCESS, LAWS["diagonal"])), LAWS["diagonal"], [0], n=1)


DENSITIES = {
    "funnel": targets.funnel(D, 1.0, 0.5).law,
    "mixture": targets.grid_mixture(D, 2, 0.04, 0.5).law,
}


@pytest.mark.parametrize("law", DENSITIES.values(), ids=DENSITIES)
def test_moments_of_other_laws_are_the_closed_forms(law: Law) -> None:
    score = scores.biased(PROCESS, law, 0.3)
    moments = score_error_moments(
        score_fn(score, torch.float64, CPU), PROCESS, law, TIMES[:-1], N, 3, [0, 1], {},
        torch.float64, CPU,
    )  # fmt: skip
    mse, cross = score.error_moments(law, TIMES[:-1])
    np.testing.assert_allclose(moments.mse, np.broadcast_to(mse, (2, len(mse))), rtol=1e-9)
    assert np.all(np.abs(moments.cross - cross) < 5 * moments.cross_standard_error)
    assert np.all(moments.cross_standard_error < 0.3)


def watched(score: GaussianScore, law: Gaussian, n_rows: int) -> ChainError:
    """The error along a chain of 2 replicates of 2048 rows."""
    steps = samplers.exponential_integrator_modified(PROCESS, TIMES)
    error = ChainError(PROCESS, law, steps, n_rows)
    simulate_reverse(
        steps, torch_score(score), PROCESS.variance, 2048, D, 5, [0, 1], {}, torch.float64, CPU,
        error,
    )  # fmt: skip
    return error


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_the_error_along_the_chain_is_the_closed_form(law: Gaussian) -> None:
    score = scores.plugin(PROCESS, law, 0.3)
    mse = watched(score, law, 2048).mse
    exact = chain_error(
        samplers.exponential_integrator_modified(PROCESS, TIMES), score, law, PROCESS.prior(D)
    )
    assert mse.shape == (2, len(exact))
    # squares of Gaussians: the deviation of |e|² is at most √2 times its mean
    assert np.all(np.abs(mse / exact - 1) < 5 * np.sqrt(2 / 2048))


def test_the_error_along_the_chain_is_that_of_its_first_rows() -> None:
    law = LAWS["diagonal"]
    score = scores.plugin(PROCESS, law, 0.3)
    few, more = watched(score, law, 600), watched(score, law, 2048)
    assert few.squares[0][0].shape == (2, 512)
    assert few.squares[0][1].shape == (2, 88)
    np.testing.assert_array_equal(few.squares[7][1], more.squares[7][1][:, :88])
    assert np.all(few.mse != more.mse)
