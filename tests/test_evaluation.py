"""Monte-Carlo moments of the score's error against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgm import samplers, scores, targets, timegrids
from sgm.densities import Law
from sgm.evaluation import (
    ChainError,
    ScoreErrorMoments,
    score_error_moments,
    score_error_within,
)
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
    score = perturb(PROCESS, law, 0.3)
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


INCREMENTS = -np.diff(PROCESS.schedule.integral(TIMES))


def within(
    score_fn: ScoreFn, law: Gaussian, seeds: list[int], tolerance: float, most: int = 5000,
    largest: bool = False,
) -> ScoreErrorMoments:  # fmt: skip
    return score_error_within(
        score_fn, PROCESS, law, TIMES[:-1], INCREMENTS, tolerance, most, 3, seeds, {},
        torch.float64, CPU, largest=largest,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("smallest", "tolerance", "largest"),
    [(0.1, 0.03, False), (0.001, 0.02, False), (0.1, 0.1, True)],
)
def test_the_sum_is_as_sharp_as_asked_and_covered(
    smallest: float, tolerance: float, largest: bool
) -> None:
    """Where a variance is small the error sits in the last times, which get most of the draws."""
    law = Gaussian.diagonal(np.array([1.0, 0.0, -0.5]), np.array([1.0, smallest, 0.5]))
    score = scores.plugin(PROCESS, law, 0.3)
    replicates = 200
    moments = within(torch_score(score), law, list(range(replicates)), tolerance, largest=largest)
    mse, _ = score.error_moments(law, TIMES[:-1])
    error = np.sqrt(moments.mse_standard_error**2 @ INCREMENTS**2)
    assert np.mean(error / (moments.mse @ INCREMENTS) < 1.2 * tolerance) > 0.95
    z = (moments.mse - mse) @ INCREMENTS / error
    assert abs(z.mean()) < 5 / np.sqrt(replicates)
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * replicates)
    if largest:
        peak = np.argmax(mse)
        relative = moments.mse_standard_error[:, peak] / (2 * mse[peak])
        assert np.mean(relative < 1.5 * tolerance) > 0.95
    elif smallest < 0.01:
        assert np.mean(moments.draws[:, -1] > 100) > 0.9
        assert np.all(moments.draws[:, 0] == 20)


def test_scores_that_need_more_draws_see_those_of_the_others_first() -> None:
    """Common random numbers across schedules, scores and tolerances."""
    law = LAWS["diagonal"]
    score_fn = torch_score(scores.plugin(PROCESS, law, 0.3))

    def states(tolerance: float) -> list[torch.Tensor]:
        seen = []

        def watched(x: torch.Tensor, t: float) -> torch.Tensor:
            if t == TIMES[30]:
                seen.append(x)
            return score_fn(x, t)

        within(watched, law, [0, 1], tolerance, most=1280)
        return seen

    rounds = {tolerance: states(tolerance) for tolerance in (1.0, 0.03, 1e-9)}
    sizes = [[x.shape[1] for x in seen] for seen in rounds.values()]
    assert sizes[0] == [20]
    assert sizes[2] == [20, 60, 240, 960]
    assert sizes[1] in (sizes[2][:2], sizes[2][:3])
    for seen in rounds.values():
        for few, many in zip(seen, rounds[1e-9], strict=False):
            assert torch.equal(few, many)
    assert len({float(x[0, 0, 0]) for x in rounds[1e-9]}) == 4


def test_pooled_moments_are_those_of_all_draws() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(2, 3, 4, 50))  # of mse and cross

    def of(part: np.ndarray) -> ScoreErrorMoments:
        n = part.shape[-1]
        mean, error = part.mean(axis=-1), part.std(axis=-1, ddof=1) / np.sqrt(n)
        return ScoreErrorMoments(*mean, *error, draws=np.full(mean.shape[1:], float(n)))

    pooled = of(values[..., :20]).pooled(of(values[..., 20:]), np.array([True, False, True]))
    for name, value in vars(pooled).items():
        whole, first = getattr(of(values), name), getattr(of(values[..., :20]), name)
        np.testing.assert_allclose(value[::2], whole[::2], rtol=1e-12)
        np.testing.assert_array_equal(value[1], first[1])


def test_how_many_draws_a_replicate_gets_does_not_depend_on_its_neighbours() -> None:
    law = LAWS["correlated"]
    sound = torch_score(scores.plugin(PROCESS, law, 0.3))
    exact = torch_score(scores.exact(PROCESS, law))

    def mixed(x: torch.Tensor, t: float) -> torch.Tensor:
        s = sound(x, t)
        s[0] = exact(x[:1], t)[0]
        s[1] = torch.nan
        return s

    whole = within(mixed, law, [3, 4, 5], 0.02, most=90)
    alone = within(sound, law, [5], 0.02, most=90)
    for name, value in vars(alone).items():
        np.testing.assert_array_equal(value[0], getattr(whole, name)[2])
    assert np.all(whole.draws[1] == 20)  # a failed score: the pilot
    assert np.isnan(whole.mse[1]).all()
    assert set(whole.draws[2]) <= {20.0, 90.0}  # 80 would leave a round of 10
    assert whole.draws[2].max() == 90
    with pytest.raises(ValueError, match="tolerance = 0"):
        within(sound, law, [5], 0.0)


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


STEPS = samplers.exponential_integrator_modified(PROCESS, TIMES)


def watched(
    score: GaussianScore, law: Gaussian, n_rows: int, steps: samplers.Steps = STEPS
) -> ChainError:
    """The error along a chain of 2 replicates of 2048 rows."""
    error = ChainError(PROCESS, law, steps, n_rows)
    simulate_reverse(
        steps, torch_score(score), PROCESS.variance, 2048, D, 5, [0, 1], {}, torch.float64, CPU,
        error,
    )  # fmt: skip
    return error


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize(
    "steps",
    [STEPS, samplers.edm(PROCESS, TIMES, s_churn=6.0), samplers.unipc(PROCESS, TIMES)],
    ids=["modified", "edm", "unipc"],
)
def test_the_error_along_the_chain_is_the_closed_form(law: Gaussian, steps: samplers.Steps) -> None:
    """At the points of all evaluations, of which a step may have several."""
    score = scores.plugin(PROCESS, law, 0.3)
    mse = watched(score, law, 2048, steps).mse
    exact = chain_error(steps, score, law, PROCESS.prior(D))[steps.evaluated]
    assert mse.shape == (2, steps.nfe)
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
