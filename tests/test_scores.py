"""Affine scores against log-densities, and their error moments against Monte Carlo."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from sgm import scores, targets
from sgm.densities import Funnel, GaussianMixture, Law
from sgm.gaussian import Gaussian
from sgm.processes import VPProcess
from sgm.schedules import BetaSchedule

Array = npt.NDArray[np.float64]

CORRELATED = targets.correlated(4, 1.0, 1.0).law
MIXTURE = GaussianMixture([0.3, 0.7], [[1.0, 0.0], [3.0, 1.0]], [[0.01, 0.2], [0.25, 0.2]])
DIAGONAL = Gaussian.diagonal([1.0, -1.0, 0.5, 0.0], [0.1, 1.0, 10.0, 0.5])


def process(variance: float = 2.0) -> VPProcess:
    return VPProcess(BetaSchedule(1.0, 1.0, 0.1, 20.0), variance)


def log_density(law: Gaussian, x: Array) -> Array:
    return -0.5 * np.sum(law.rotate(x - law.mean) ** 2 / law.eigenvalues, axis=-1)


@pytest.mark.parametrize("law", [CORRELATED, DIAGONAL], ids=["correlated", "diagonal"])
@pytest.mark.parametrize("t", [0.0, 0.2, 1.0])
def test_exact_score_is_the_gradient_of_the_log_density(law: Gaussian, t: float) -> None:
    vp, x, h = process(), np.random.default_rng(0).standard_normal((5, 4)), 1e-5
    marginal = vp.marginal(law, t)
    gradient = np.stack(
        [
            (log_density(marginal, x + h * e) - log_density(marginal, x - h * e)) / (2 * h)
            for e in np.eye(4)
        ],
        axis=1,
    )
    np.testing.assert_allclose(scores.exact(vp, law)(x, t), gradient, rtol=1e-6, atol=1e-7)


def test_perturbations_are_what_they_say() -> None:
    vp, x = process(), np.random.default_rng(0).standard_normal((5, 4))
    exact = scores.exact(vp, CORRELATED)(x, 0.3)
    np.testing.assert_allclose(scores.scaled(vp, CORRELATED, 0.1)(x, 0.3), 1.1 * exact)
    np.testing.assert_allclose(scores.biased(vp, CORRELATED, 0.1)(x, 0.3), exact + 0.1)
    wrong = Gaussian.from_covariance(0.9 * CORRELATED.mean, 1.1 * CORRELATED.covariance)
    np.testing.assert_allclose(
        scores.plugin(vp, CORRELATED, 0.1)(x, 0.3), scores.exact(vp, wrong)(x, 0.3)
    )


def test_a_time_a_row_equals_one_time_at_a_time() -> None:
    score = scores.biased(process(), CORRELATED, 0.2)
    x, t = np.random.default_rng(1).standard_normal((3, 4)), np.array([0.0, 0.4, 1.0])
    one_by_one = np.concatenate([score(x[k : k + 1], t[k]) for k in range(3)])
    np.testing.assert_allclose(score(x, t), one_by_one, rtol=1e-13)


CASES = {
    "scaled": (scores.scaled(process(), CORRELATED, 0.2), CORRELATED),
    "biased": (scores.biased(process(), CORRELATED, 0.2), CORRELATED),
    "plugin": (scores.plugin(process(), DIAGONAL, 0.2), DIAGONAL),
    "other basis": (scores.exact(process(), DIAGONAL), CORRELATED),
    "all at once": (scores.GaussianScore(process(), DIAGONAL, 1.3, -0.4), CORRELATED),
}


@pytest.mark.parametrize("name", CASES)
def test_error_moments_match_monte_carlo(name: str) -> None:
    score, law = CASES[name]
    vp, rng = score.process, np.random.default_rng(0)
    times = np.array([0.05, 0.5])
    mse, cross = score.error_moments(law, times)
    for k, t in enumerate(times):
        x = vp.marginal(law, t).sample(40_000, rng)
        exact = scores.exact(vp, law)(x, t)
        error = score(x, t) - exact
        for value, draws in [
            (mse[k], np.sum(error**2, axis=1)),
            (cross[k], np.sum((exact + x / vp.variance) * error, axis=1)),
        ]:
            assert value == pytest.approx(draws.mean(), abs=4.5 * draws.std() / 200 + 1e-12)


def test_both_routes_agree_when_the_bases_commute() -> None:
    score, law = scores.GaussianScore(process(), DIAGONAL, 1.3, -0.4), DIAGONAL
    order = [2, 0, 3, 1]
    turned = Gaussian(law.mean, law.eigenvalues[order], np.eye(4)[:, order])
    times = np.linspace(0, 1, 5).reshape(1, 5)
    fast, slow = score.error_moments(law, times), score.error_moments(turned, times)
    assert fast[0].shape == (1, 5)
    np.testing.assert_allclose(fast, slow, rtol=1e-12)


def test_exact_score_has_no_error_and_tiny_errors_keep_their_digits() -> None:
    vp, times = process(), np.linspace(0, 1, 11)
    assert np.all(np.array(scores.exact(vp, CORRELATED).error_moments(CORRELATED, times)) == 0)
    mse, cross = scores.scaled(vp, CORRELATED, 2.0**-30).error_moments(CORRELATED, times)
    marginal = vp.marginal(CORRELATED, times)
    np.testing.assert_allclose(mse, 2.0**-60 * np.sum(1 / marginal.eigenvalues, axis=-1), rtol=1e-6)
    expected = 2.0**-30 * np.sum(1 / marginal.eigenvalues - 1 / vp.variance, axis=-1)
    np.testing.assert_allclose(cross, expected, rtol=1e-6)


@pytest.mark.parametrize("law", [MIXTURE, Funnel(3)], ids=["mixture", "funnel"])
def test_density_scores_are_what_they_say(law: Law) -> None:
    vp, rng = process(), np.random.default_rng(0)
    x, t = law.sample(4, rng), np.array([0.0, 1e-3, 0.3, 1.0])
    exact = scores.exact(vp, law)
    one_by_one = [
        law.score(row, float(vp.mean_scale(time)), float(vp.kernel_variance(time)))
        for row, time in zip(x, t, strict=True)
    ]
    np.testing.assert_allclose(exact(x, t), one_by_one, rtol=1e-11)
    np.testing.assert_allclose(exact(x[2:3], 0.3)[0], one_by_one[2], rtol=1e-11)
    np.testing.assert_allclose(scores.scaled(vp, law, 0.1)(x, t), 1.1 * exact(x, t))
    np.testing.assert_allclose(scores.biased(vp, law, 0.1)(x, t), exact(x, t) + 0.1)


@pytest.mark.parametrize(
    "law", [MIXTURE, Funnel(3), CORRELATED], ids=["mixture", "funnel", "gauss"]
)
def test_density_error_moments_match_monte_carlo(law: Law) -> None:
    vp, rng, n = process(), np.random.default_rng(0), 40_000
    score, times = scores.DensityScore(vp, law, 1.3, -0.4), np.array([0.05, 0.5])
    mse, cross = score.error_moments(law, times)
    for k, t in enumerate(times):
        x = vp.mean_scale(t) * law.sample(n, rng)
        x += vp.std(t) * rng.standard_normal(x.shape)
        exact = scores.exact(vp, law)(x, t)
        error = score(x, t) - exact
        for value, draws in [
            (mse[k], np.sum(error**2, axis=1)),
            (cross[k], np.sum((exact + x / vp.variance) * error, axis=1)),
        ]:
            assert value == pytest.approx(draws.mean(), abs=4.5 * draws.std() / np.sqrt(n))


def test_both_kinds_of_score_agree_on_a_gaussian() -> None:
    affine = scores.GaussianScore(process(), CORRELATED, 1.3, -0.4)
    density = scores.DensityScore(process(), CORRELATED, 1.3, -0.4)
    x, t = np.random.default_rng(1).standard_normal((3, 4)), np.array([0.0, 0.4, 1.0])
    np.testing.assert_allclose(density(x, t), affine(x, t), rtol=1e-12, atol=1e-13)
    expected = affine.error_moments(CORRELATED, t)
    np.testing.assert_allclose(density.error_moments(CORRELATED, t), expected, rtol=1e-11)
    assert isinstance(scores.scaled(process(), CORRELATED, 0.1), scores.GaussianScore)


def test_an_exact_density_score_has_no_error() -> None:
    score = scores.exact(process(), MIXTURE)
    assert np.all(np.array(score.error_moments(MIXTURE, np.linspace(0, 1, 5))) == 0)


BATCH = Gaussian(np.zeros((3, 2)), np.ones((3, 2)), np.eye(2))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: scores.plugin(process(), DIAGONAL, -1.0), "eps = -1.0: must be"),
        (lambda: scores.plugin(process(), DIAGONAL, np.nan), "eps = nan: must be"),
        (lambda: scores.plugin(process(), DIAGONAL, "0.1"), "eps = '0.1': must be"),
        (lambda: scores.plugin(process(), targets.isotropic(2, 0.0, 1.0), 0.1), "law = LawTarget"),
        (lambda: scores.plugin("vp", DIAGONAL, 0.1), "process = 'vp': must be a Process"),
        (lambda: scores.scaled(process(), DIAGONAL, np.inf), "eps = inf: must be"),
        (lambda: scores.biased(process(), DIAGONAL, np.nan), "eps = nan: must be"),
        (lambda: scores.GaussianScore(process(), DIAGONAL, np.inf), "scale = inf: must be"),
        (lambda: scores.GaussianScore(process(), DIAGONAL, 1.0, True), "bias = True: must be"),
        (lambda: scores.GaussianScore(process(), MIXTURE), "law = GaussianMixture: must be a"),
        (
            lambda: scores.GaussianScore(process(), BATCH),
            r"law has batch shape \(3,\): must be \(\)",
        ),
        (lambda: scores.DensityScore(process(), "law"), "law = 'law': must be a Law"),
        (lambda: scores.DensityScore(None, MIXTURE), "process = None: must be a Process"),
        (
            lambda: scores.exact(process(), DIAGONAL).error_moments(BATCH, 0.5),
            r"law has batch shape \(3,\)",
        ),
        (
            lambda: scores.exact(process(), targets.isotropic(2, 0.0, 1.0)),
            "law = LawTarget: must be a Law",
        ),
        (lambda: scores.scaled(process(), MIXTURE, np.inf), "eps = inf: must be"),
        (lambda: scores.plugin(process(), MIXTURE, 0.1), "law = GaussianMixture: must be Gaussian"),
        (
            lambda: scores.exact(process(), MIXTURE).error_moments(DIAGONAL, 0.5),
            "law = Gaussian: must be the law of the score itself",
        ),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
