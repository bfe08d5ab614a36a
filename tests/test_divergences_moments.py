"""Estimators of KL and W₂ from moments: exact expectations, by Monte Carlo with derived errors."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import gammaln

from sgm import divergences
from sgm.divergences import Moments
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2

ISO = Gaussian.diagonal(np.ones(5), np.full(5, 0.5))
LAG = np.abs(np.subtract.outer(np.arange(5), np.arange(5)))
CORRELATED = Gaussian.from_covariance(np.ones(5), 1 / np.sqrt(LAG + 1))
NEAR = Gaussian(ISO.mean + 0.03, ISO.eigenvalues * 1.05, ISO.basis)
PAIRS = {
    "perfect": (CORRELATED, CORRELATED, 40),
    "near": (ISO, NEAR, 400),
    "far": (ISO, CORRELATED, 400),
    "few rows": (CORRELATED, ISO, 30),
}
REPLICATES = 1500


def replicate(
    sampled: Gaussian, n: int, seed: int = 0, number: int = REPLICATES
) -> list[divergences.Moments]:
    """Moments of independent samples, all at once."""
    rng, d = np.random.default_rng(seed), sampled.dimension
    x = sampled.sample(number * n, rng).reshape(number, n, d)
    means = x.mean(axis=1)
    x = x - means[:, None]
    covariances = np.swapaxes(x, 1, 2) @ x / (n - 1)
    return [Moments(m, s, n) for m, s in zip(means, covariances, strict=True)]


@pytest.fixture(scope="module")
def replicates() -> dict[str, list[divergences.Moments]]:
    return {name: replicate(sampled, n) for name, (_, sampled, n) in PAIRS.items()}


def assert_mean(draws: npt.ArrayLike, expected: float) -> None:
    draws = np.asarray(draws)
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert draws.mean() == pytest.approx(expected, abs=4.5 * error)


@pytest.mark.parametrize("name", PAIRS)
def test_plugin_kl_has_the_expected_mean(
    replicates: dict[str, list[divergences.Moments]], name: str
) -> None:
    law, sampled, n = PAIRS[name]
    estimates = [divergences.plugin_kl(law, moments) for moments in replicates[name]]
    assert_mean(estimates, divergences.plugin_kl_moments(law, sampled, n)[0])


@pytest.mark.parametrize("name", PAIRS)
def test_unbiased_kl_is_unbiased(
    replicates: dict[str, list[divergences.Moments]], name: str
) -> None:
    law, sampled, _ = PAIRS[name]
    estimates = [divergences.unbiased_kl(law, moments) for moments in replicates[name]]
    assert_mean(estimates, float(kl_divergence(law, sampled)))


@pytest.mark.parametrize("n", [12, 40])
def test_floor_is_the_mean_and_deviation_of_a_perfect_sampler(n: int) -> None:
    law = Gaussian.diagonal(np.zeros(2), np.ones(2))
    estimates = np.array([divergences.plugin_kl(law, m) for m in replicate(law, n, seed=3)])
    mean, sd = divergences.plugin_kl_floor(2, n)
    assert_mean(estimates, mean)
    # error of an empirical variance from the sample's own fourth moment
    squares = (estimates - mean) ** 2
    assert sd**2 == pytest.approx(
        squares.mean(), abs=4.5 * squares.std() / np.sqrt(len(estimates)) + 0.05 * sd**2
    )


@pytest.mark.parametrize(("d", "n"), [(1, 10**5), (10, 10**6), (50, 10**7)])
def test_floor_tends_to_its_leading_terms(d: int, n: int) -> None:
    mean, sd = divergences.plugin_kl_floor(d, n)
    assert mean == pytest.approx(d * (d + 3) / (4 * n), rel=1e-3)
    assert sd == pytest.approx(np.sqrt(d * (d + 3)) / (2 * n), rel=1e-3)


def test_expected_at_the_law_itself_is_the_floor() -> None:
    floor, _ = divergences.plugin_kl_floor(5, 100)
    expected = divergences.plugin_kl_moments(CORRELATED, CORRELATED, 100)[0]
    assert expected == pytest.approx(floor, rel=1e-12)


@pytest.mark.parametrize("name", ["near", "far"])
def test_standard_error_is_the_spread_of_the_estimator(
    replicates: dict[str, list[divergences.Moments]], name: str
) -> None:
    law, _, _ = PAIRS[name]
    estimates = np.array([divergences.plugin_kl(law, m) for m in replicates[name]])
    errors = np.array([divergences.kl_standard_error(law, m) for m in replicates[name]])
    # root mean square within 10 %: the empirical deviation itself is known to 4.5/√(2R) = 8 %
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(estimates.std(), rel=0.1)


def test_standard_error_of_a_perfect_sampler_is_the_floors() -> None:
    law, n = ISO, 2000
    errors = [divergences.kl_standard_error(law, m) for m in replicate(law, n, number=300)]
    _, sd = divergences.plugin_kl_floor(5, n)
    assert np.min(errors) >= sd * (1 - 1e-12)
    assert np.median(errors) == pytest.approx(sd, rel=0.05)
    # and at the far end, where the delta method is all there is
    assert np.sqrt(np.mean(np.square(errors))) < 1.25 * sd


def test_plugin_kl_is_the_divergence_of_the_fitted_gaussian() -> None:
    moments = Moments.of(CORRELATED.sample(50, np.random.default_rng(1)))
    fitted = Gaussian.from_covariance(moments.mean, moments.covariance)
    for law in (ISO, CORRELATED):
        expected = float(kl_divergence(law, fitted))
        assert divergences.plugin_kl(law, moments) == pytest.approx(expected, rel=1e-11)
        expected = float(wasserstein2(law, fitted))
        assert divergences.w2_plugin(law, moments) == pytest.approx(expected, rel=1e-9)


def test_moments_are_numpys() -> None:
    x = CORRELATED.sample(50, np.random.default_rng(1))
    moments = Moments.of(x.astype(np.float32))
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False), rtol=1e-5)
    assert (moments.n, moments.dimension) == (50, 5)


def wishart_moments(sampled: Gaussian, n: int, number: int, seed: int) -> list[divergences.Moments]:
    """Moments of samples of a Gaussian, drawn from their own law: n rows cost nothing."""
    d, rng = sampled.dimension, np.random.default_rng(seed)
    lower = np.tril(rng.standard_normal((number, d, d)), -1)  # Bartlett's decomposition
    lower[:, range(d), range(d)] = np.sqrt(rng.chisquare(n - 1 - np.arange(d), (number, d)))
    half = sampled.basis * np.sqrt(sampled.eigenvalues)
    factors = half @ lower
    covariances = factors @ np.swapaxes(factors, 1, 2) / (n - 1)
    means = sampled.mean + rng.standard_normal((number, d)) @ half.T / np.sqrt(n)
    return [Moments(m, s, n) for m, s in zip(means, covariances, strict=True)]


def shifted(d: int, shift: float, scale: float) -> tuple[Gaussian, Gaussian]:
    """A law with unequal variances, and one at a known small distance in another basis."""
    rng = np.random.default_rng(d)
    variances = np.geomspace(0.25, 2, d)
    law = Gaussian.diagonal(np.ones(d), variances)
    turn, _ = np.linalg.qr(np.eye(d) + scale * rng.standard_normal((d, d)) / np.sqrt(d))
    covariance = (turn * (variances * (1 + scale))) @ turn.T
    return law, Gaussian.from_covariance(law.mean + shift / np.sqrt(d), covariance)


# rows such that d/n is .01, .01, .02: the next order of the bias is below a per cent of it
SIZES = [(2, 200), (10, 1000), (50, 2500)]


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.2, 0.2)])
@pytest.mark.parametrize(("d", "n"), SIZES)
def test_w2_unbiased_is_unbiased_in_squares(d: int, n: int, shift: float, scale: float) -> None:
    law, sampled = shifted(d, shift, scale)
    roots = np.array(
        [divergences.w2_unbiased(law, m) for m in wishart_moments(sampled, n, 400, seed=1)]
    )
    squares = roots * np.abs(roots)
    truth = float(wasserstein2(law, sampled)) ** 2
    error = squares.std(ddof=1) / np.sqrt(len(squares))
    residual = d / n * divergences.w2_squared_bias(law, sampled.covariance, n)
    assert squares.mean() == pytest.approx(truth, abs=4.5 * error + residual)
    if not shift and not scale:
        assert truth < 1e-12
        assert 0.2 < np.mean(roots < 0) < 0.8


@pytest.mark.parametrize(("d", "n"), SIZES)
def test_w2_floor_is_the_level_of_a_perfect_sampler(d: int, n: int) -> None:
    law, _ = shifted(d, 0, 0)
    squares = [divergences.w2_plugin(law, m) ** 2 for m in wishart_moments(law, n, 400, seed=2)]
    error = np.std(squares, ddof=1) / np.sqrt(len(squares))
    floor = divergences.w2_floor(law, n)
    assert np.mean(squares) == pytest.approx(floor**2, abs=4.5 * error + d / (4 * n) * floor**2)


@pytest.mark.parametrize("n", [50, 1000])
def test_w2_floor_of_one_dimension_is_exact_to_first_order(n: int) -> None:
    """E(m_n − μ)² + E(s_n − σ)² = σ²(1/n + 2 − 2 c₄), c₄ = E s_n/σ."""
    c4 = np.sqrt(2 / (n - 1)) * np.exp(gammaln(n / 2) - gammaln((n - 1) / 2))
    law = Gaussian.diagonal([3.0], [4.0])
    exact = 4 * (1 / n + 2 * (1 - c4))
    assert divergences.w2_floor(law, n) ** 2 == pytest.approx(exact, rel=1 / n)


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1), (0.5, 0.5)])
@pytest.mark.parametrize(("d", "n"), SIZES)
def test_w2_standard_error_is_the_spread_of_the_estimator(
    d: int, n: int, shift: float, scale: float
) -> None:
    law, sampled = shifted(d, shift, scale)
    moments = wishart_moments(sampled, n, 400, seed=3)
    values = np.array([divergences.w2_plugin(law, m) for m in moments])
    errors = np.array([divergences.w2_standard_error(law, m) for m in moments])
    ratio = np.sqrt(np.mean(errors**2)) / values.std(ddof=1)
    # the empirical deviation is known to 4.5/√(2R) = 16 %; documented excess at the floor
    assert 0.84 < ratio < 1.16 * {2: 1.25, 10: 1.1, 50: 1.06}[d]


def test_w2_standard_error_of_a_shift_is_that_of_a_mean() -> None:
    """Equal covariances: W₂ ≈ |m_n − μ|, known to √(uᵀSu/n) along the shift u."""
    law, n = CORRELATED, 10**6
    for axis in range(5):
        shift = law.basis[:, axis]
        moments = Moments(law.mean + 3 * shift, law.covariance, n)
        error = divergences.w2_standard_error(law, moments)
        assert error == pytest.approx(np.sqrt(law.eigenvalues[axis] / n), rel=1e-4)


def test_degenerate_samples_are_infinitely_far_but_not_in_w2() -> None:
    x = ISO.sample(100, np.random.default_rng(0))
    x[:, 2] = 1.0
    flat = Moments.of(x)
    assert divergences.plugin_kl(ISO, flat) == np.inf
    assert divergences.unbiased_kl(ISO, flat) == np.inf
    assert np.isnan(divergences.kl_standard_error(ISO, flat))
    for function in W2_ESTIMATES:
        assert np.isfinite(function(ISO, flat))
    x[0, 0] = np.inf
    for function in (divergences.plugin_kl, divergences.unbiased_kl, *W2_ESTIMATES[:2]):
        assert function(ISO, Moments.of(x)) == np.inf
    assert np.isnan(divergences.w2_standard_error(ISO, Moments.of(x)))


W2_ESTIMATES = (divergences.w2_plugin, divergences.w2_unbiased, divergences.w2_standard_error)


def test_a_point_mass_is_at_its_known_distance() -> None:
    """KL = +∞, never −∞, and W₂² = |shift|² + tr Σ, whose error comes from no row."""
    point = Moments(ISO.mean + 2, np.zeros((5, 5)), 100)
    assert divergences.plugin_kl(ISO, point) == np.inf
    assert divergences.unbiased_kl(ISO, point) == np.inf
    expected = np.sqrt(5 * 4 + 5 * 0.5)
    assert divergences.w2_plugin(ISO, point) == pytest.approx(expected, rel=1e-14)
    assert divergences.w2_unbiased(ISO, point) == pytest.approx(expected, rel=1e-14)
    assert divergences.w2_standard_error(ISO, point) == 0


@pytest.mark.parametrize("n", [3, 7])
def test_too_few_rows_are_named(n: int) -> None:
    moments = Moments.of(ISO.sample(n, np.random.default_rng(0)))
    for call in (
        lambda: divergences.plugin_kl(ISO, moments),
        lambda: divergences.unbiased_kl(ISO, moments),
        lambda: divergences.kl_standard_error(ISO, moments),
        lambda: divergences.plugin_kl_floor(5, n),
        lambda: divergences.plugin_kl_moments(ISO, ISO, n),
    ):
        with pytest.raises(ValueError, match=f"n = {n}: must exceed d . 2 = 7 for d = 5"):
            call()


def test_deviation_is_infinite_where_the_second_moment_is() -> None:
    mean, sd = divergences.plugin_kl_floor(5, 9)
    assert np.isfinite(mean)
    assert sd == np.inf
    moments = Moments.of(ISO.sample(9, np.random.default_rng(0)))
    assert divergences.kl_standard_error(ISO, moments) == np.inf
    assert np.isfinite(divergences.plugin_kl_floor(5, 10)[1])


BATCH = Gaussian(np.zeros((3, 5)), np.ones((3, 5)), np.eye(5))
LOST = Gaussian(np.full(5, np.inf), np.full(5, np.inf), np.eye(5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Moments.of(np.zeros(4)), r"sample has shape \(4,\)"),
        (lambda: Moments.of(np.zeros((1, 4))), r"sample has shape \(1, 4\)"),
        (
            lambda: divergences.plugin_kl(ISO, Moments(np.zeros(2), np.eye(2), 50)),
            "moments are of dimension 2, law of 5",
        ),
        (
            lambda: divergences.w2_unbiased(ISO, Moments(np.zeros(2), np.eye(2), 50)),
            "moments are of dimension 2, law of 5",
        ),
        (
            lambda: divergences.plugin_kl(BATCH, Moments.of(np.eye(9, 5))),
            r"law has batch shape \(3,\): must be \(\)",
        ),
        (lambda: divergences.w2_plugin("law", Moments.of(np.eye(9, 5))), "law = 'law': must be a"),
        (lambda: divergences.w2_plugin(ISO, np.eye(9, 5)), "moments = ndarray: must be a Moments"),
        (lambda: divergences.w2_floor(LOST, 9), "law: mean and eigenvalues must be finite"),
        (lambda: divergences.w2_squared_bias(ISO, np.eye(2), 9), r"covariance has shape \(2, 2\)"),
        (lambda: divergences.w2_squared_bias(ISO, np.eye(5), 0), "n = 0: must be"),
        (lambda: divergences.w2_squared_standard_error(BATCH, Moments.of(np.eye(9, 5))), "law has"),
        (lambda: divergences.plugin_kl_floor(0, 9), "dimension = 0: must be"),
        (lambda: divergences.plugin_kl_floor(2, 9.5), r"n = 9\.5: must be an integer"),
        (lambda: divergences.plugin_kl_moments(ISO, BATCH, 50), r"sampled has batch shape \(3,\)"),
        (lambda: Moments(np.zeros(2), np.eye(3), 9), r"covariance has shape \(3, 3\): must be"),
        (lambda: Moments(np.zeros((2, 1)), np.eye(2), 9), r"mean has shape \(2, 1\): must be"),
        (lambda: Moments(np.zeros(2), np.eye(2), 1), "n = 1: must be"),
        (lambda: Moments.of([["a", "b"]] * 4), "sample = list: must be an array of real numbers"),
        (lambda: Moments.of(np.zeros((4, 0))), r"sample has shape \(4, 0\)"),
        (lambda: divergences.w2_floor(ISO, 1), "n = 1: must be an integer, at least 2"),
    ],
)
def test_values_out_of_range_are_named(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_integers_are_numbers_and_a_degenerate_law_is_infinitely_far() -> None:
    whole = np.random.default_rng(0).integers(-9, 9, (50, 2))
    found, expected = Moments.of(whole), Moments.of(whole.astype(float))
    np.testing.assert_array_equal(found.covariance, expected.covariance)
    flat = Gaussian.diagonal([0.0, 0.0], [1.0, 0.0])
    assert divergences.plugin_kl(flat, found) == divergences.unbiased_kl(flat, found) == np.inf
    plain = Gaussian.diagonal([0.0, 0.0], [1.0, 1.0])
    mean, sd = divergences.plugin_kl_moments(plain, flat, 50)
    assert mean == np.inf
    assert np.isnan(sd)
