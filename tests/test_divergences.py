"""Estimators against their exact expectations, by Monte Carlo with derived tolerances."""

import numpy as np
import pytest

from sgm import divergences, targets
from sgm.divergences import Moments
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2

ISO = targets.isotropic(5, 1.0, 0.5).law
CORRELATED = targets.correlated(5, 1.0, 1.0).law
NEAR = Gaussian(ISO.mean + 0.03, ISO.eigenvalues * 1.05, ISO.basis)
PAIRS = {
    "perfect": (CORRELATED, CORRELATED, 40),
    "near": (ISO, NEAR, 400),
    "far": (ISO, CORRELATED, 400),
    "few rows": (CORRELATED, ISO, 30),
}
REPLICATES = 1500


def replicate(sampled, n, seed=0, number=REPLICATES):
    """Moments of independent samples, all at once."""
    rng, d = np.random.default_rng(seed), sampled.dimension
    x = sampled.sample(number * n, rng).reshape(number, n, d)
    means = x.mean(axis=1)
    x = x - means[:, None]
    covariances = np.swapaxes(x, 1, 2) @ x / (n - 1)
    return [Moments(m, s, n) for m, s in zip(means, covariances, strict=True)]


@pytest.fixture(scope="module")
def replicates():
    return {name: replicate(sampled, n) for name, (_, sampled, n) in PAIRS.items()}


def assert_mean(draws, expected):
    draws = np.asarray(draws)
    error = draws.std(ddof=1) / np.sqrt(len(draws))
    assert draws.mean() == pytest.approx(expected, abs=4.5 * error)


@pytest.mark.parametrize("name", PAIRS)
def test_plugin_kl_has_the_expected_mean(replicates, name):
    law, sampled, n = PAIRS[name]
    estimates = [divergences.plugin_kl(law, moments) for moments in replicates[name]]
    assert_mean(estimates, divergences.plugin_kl_expected(law, sampled, n))


@pytest.mark.parametrize("name", PAIRS)
def test_unbiased_kl_is_unbiased(replicates, name):
    law, sampled, _ = PAIRS[name]
    estimates = [divergences.unbiased_kl(law, moments) for moments in replicates[name]]
    assert_mean(estimates, float(kl_divergence(law, sampled)))


@pytest.mark.parametrize("n", [12, 40])
def test_floor_is_the_mean_and_deviation_of_a_perfect_sampler(n):
    law = targets.isotropic(2, 0.0, 1.0).law
    estimates = np.array([divergences.plugin_kl(law, m) for m in replicate(law, n, seed=3)])
    mean, sd = divergences.plugin_kl_floor(2, n)
    assert_mean(estimates, mean)
    # error of an empirical variance from the sample's own fourth moment
    squares = (estimates - mean) ** 2
    assert sd**2 == pytest.approx(
        squares.mean(), abs=4.5 * squares.std() / np.sqrt(len(estimates)) + 0.05 * sd**2
    )


@pytest.mark.parametrize(("d", "n"), [(1, 10**5), (10, 10**6), (50, 10**7)])
def test_floor_tends_to_its_leading_terms(d, n):
    mean, sd = divergences.plugin_kl_floor(d, n)
    assert mean == pytest.approx(d * (d + 3) / (4 * n), rel=1e-3)
    assert sd == pytest.approx(np.sqrt(d * (d + 3)) / (2 * n), rel=1e-3)


def test_expected_at_the_law_itself_is_the_floor():
    floor, _ = divergences.plugin_kl_floor(5, 100)
    expected = divergences.plugin_kl_expected(CORRELATED, CORRELATED, 100)
    assert expected == pytest.approx(floor, rel=1e-12)


@pytest.mark.parametrize("name", ["near", "far"])
def test_standard_error_is_the_spread_of_the_estimator(replicates, name):
    law, _, _ = PAIRS[name]
    estimates = np.array([divergences.plugin_kl(law, m) for m in replicates[name]])
    errors = np.array([divergences.kl_standard_error(law, m) for m in replicates[name]])
    # root mean square within 10 %: the empirical deviation itself is known to 4.5/√(2R) = 8 %
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(estimates.std(), rel=0.1)


def test_standard_error_of_a_perfect_sampler_is_the_floors():
    law, n = ISO, 2000
    errors = [divergences.kl_standard_error(law, m) for m in replicate(law, n, number=300)]
    _, sd = divergences.plugin_kl_floor(5, n)
    assert np.min(errors) >= sd * (1 - 1e-12)
    assert np.median(errors) == pytest.approx(sd, rel=0.05)
    # and at the far end, where the delta method is all there is
    assert np.sqrt(np.mean(np.square(errors))) < 1.25 * sd


def test_plugin_kl_is_the_divergence_of_the_fitted_gaussian():
    moments = Moments.of(CORRELATED.sample(50, np.random.default_rng(1)))
    fitted = Gaussian.from_covariance(moments.mean, moments.covariance)
    for law in (ISO, CORRELATED):
        expected = float(kl_divergence(law, fitted))
        assert divergences.plugin_kl(law, moments) == pytest.approx(expected, rel=1e-11)
        expected = float(wasserstein2(law, fitted))
        assert divergences.w2_plugin(law, moments) == pytest.approx(expected, rel=1e-9)


def test_moments_are_numpys():
    x = CORRELATED.sample(50, np.random.default_rng(1))
    moments = Moments.of(x.astype(np.float32))
    np.testing.assert_allclose(moments.mean, x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments.covariance, np.cov(x, rowvar=False), rtol=1e-5)
    assert (moments.n, moments.dimension) == (50, 5)


@pytest.mark.parametrize("sampled", [CORRELATED, NEAR], ids=["correlated", "near"])
def test_w2_bias_to_first_order(sampled):
    n = 1000
    squares = [divergences.w2_plugin(ISO, m) ** 2 for m in replicate(sampled, n, seed=5)]
    bias = divergences.w2_squared_bias(ISO, sampled.covariance, n)
    error = np.std(squares) / np.sqrt(REPLICATES)
    truth = float(wasserstein2(ISO, sampled)) ** 2
    # second order in d/n: a few per cent of the bias
    assert np.mean(squares) - bias == pytest.approx(truth, abs=4.5 * error + 0.03 * bias)


def test_degenerate_samples_are_infinitely_far_but_not_in_w2():
    x = ISO.sample(100, np.random.default_rng(0))
    x[:, 2] = 1.0
    flat = Moments.of(x)
    assert divergences.plugin_kl(ISO, flat) == np.inf
    assert divergences.unbiased_kl(ISO, flat) == np.inf
    assert np.isnan(divergences.kl_standard_error(ISO, flat))
    assert np.isfinite(divergences.w2_plugin(ISO, flat))
    x[0, 0] = np.inf
    for function in (divergences.plugin_kl, divergences.unbiased_kl, divergences.w2_plugin):
        assert function(ISO, Moments.of(x)) == np.inf


@pytest.mark.parametrize("n", [3, 7])
def test_too_few_rows_are_named(n):
    moments = Moments.of(ISO.sample(n, np.random.default_rng(0)))
    for call in (
        lambda: divergences.plugin_kl(ISO, moments),
        lambda: divergences.unbiased_kl(ISO, moments),
        lambda: divergences.kl_standard_error(ISO, moments),
        lambda: divergences.plugin_kl_floor(5, n),
        lambda: divergences.plugin_kl_expected(ISO, ISO, n),
    ):
        with pytest.raises(ValueError, match=f"n = {n}: must exceed d . 2 = 7 for d = 5"):
            call()


def test_deviation_is_infinite_where_the_second_moment_is():
    mean, sd = divergences.plugin_kl_floor(5, 9)
    assert np.isfinite(mean)
    assert sd == np.inf
    moments = Moments.of(ISO.sample(9, np.random.default_rng(0)))
    assert divergences.kl_standard_error(ISO, moments) == np.inf
    assert np.isfinite(divergences.plugin_kl_floor(5, 10)[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Moments.of(np.zeros(4)), r"sample has shape \(4,\)"),
        (lambda: Moments.of(np.zeros((1, 4))), r"sample has shape \(1, 4\)"),
        (
            lambda: divergences.plugin_kl(ISO, Moments(np.zeros(2), np.eye(2), 50)),
            "moments are of dimension 2, law of 5",
        ),
        (lambda: gap(components=0), "components = 0: must lie between 1 and 50"),
        (lambda: gap(components=51), "components = 51: must lie between 1 and 50"),
        (lambda: gap(regularisation=0.0), "regularisation = 0.0: must be"),
        (lambda: gap(heldout=np.zeros((9, 3))), r"heldout has shape \(9, 3\): must be \(n, 2\)"),
        (lambda: gap(generated=np.zeros(9)), r"generated has shape \(9,\)"),
    ],
)
def test_values_out_of_range_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


MODES = np.array([[-2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])


def mixture(n, seed, modes=MODES, width=0.3):
    rng = np.random.default_rng(seed)
    return modes[rng.integers(len(modes), size=n)] + width * rng.standard_normal((n, 2))


def gap(generated=None, heldout=None, components=3, regularisation=1e-3):
    generated = mixture(200, 3) if generated is None else generated
    heldout = mixture(300, 2) if heldout is None else heldout
    return divergences.heldout_nll_gap(
        generated,
        mixture(400, 1),
        heldout,
        components=components,
        regularisation=regularisation,
    )


def test_heldout_gap_of_a_perfect_sampler_is_within_its_noise():
    result = gap(generated=mixture(400, 4))
    assert abs(result.value) < 4.5 * (result.standard_error + result.floor)
    assert 0 < result.floor < 0.1


def test_heldout_gap_sees_what_moments_do_not():
    """A Gaussian with the mixture's own moments, and a lost mode with the right mean."""
    train = mixture(400, 1)
    rng = np.random.default_rng(5)
    smooth = rng.multivariate_normal(train.mean(axis=0), np.cov(train, rowvar=False), 400)
    for wrong in (smooth, mixture(400, 6, MODES[:2]), mixture(400, 6, width=0.6)):
        result = gap(generated=wrong)
        assert result.value > 10 * result.floor
        assert result.value > 5 * result.standard_error


def test_heldout_gap_estimates_a_known_divergence():
    """One component, many rows: the gap tends to KL(data ‖ output) of Gaussian laws."""
    data, output = Gaussian.diagonal([0, 0], [1, 1]), Gaussian.diagonal([0.5, 0], [1, 2])
    rng = np.random.default_rng(0)
    train, heldout, generated = (law.sample(20_000, rng) for law in (data, data, output))
    result = divergences.heldout_nll_gap(
        generated, train, heldout, components=1, regularisation=1e-6
    )
    assert result.value == pytest.approx(
        float(kl_divergence(data, output)), abs=4.5 * (result.standard_error + result.floor)
    )


def test_heldout_gap_is_blind_to_memorisation():
    """Documented: returning the training rows scores as well as the truth."""
    assert gap(generated=mixture(400, 1)).value == 0.0


def test_heldout_gap_of_a_lost_sample_is_infinite():
    generated = mixture(200, 3)
    generated[0, 0] = np.nan
    result = gap(generated=generated)
    assert result.value == np.inf
    assert np.isfinite(result.floor)
