"""Monte-Carlo moments of the score's error against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgm import scores, timegrids
from sgm.evaluation import ScoreErrorMoments, score_error_moments
from sgm.gaussian import Gaussian
from sgm.networks import ScoreFn, affine_score_fn
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule
from sgm.scores import GaussianScore

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
