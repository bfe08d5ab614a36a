"""The optimal horizon against closed forms and the bound itself; the set's coverage."""

import numpy as np
import pytest
from scipy.optimize import brentq

from sgm import elbo, scores
from sgm.densities import GaussianMixture
from sgm.gaussian import Gaussian, relative_fisher_information
from sgm.optimal_horizon import horizon_set, optimal_horizon, relative_information
from sgm.processes import VEProcess, VPProcess
from sgm.schedules import BetaSchedule, GeometricSchedule, TruncatedSchedule

TOY = GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.01], [0.25]])
LAW = Gaussian.from_covariance([1.0, -0.5], [[1.0, 0.3], [0.3, 0.2]])
SCHEDULES = {"vp": BetaSchedule(1.0, 0.0, 0.1, 20.0), "ve": GeometricSchedule(1.0, 0.01, 50.0)}


def process(name, horizon=1.0):
    schedule = TruncatedSchedule(horizon, SCHEDULES[name])
    return VPProcess(schedule, 1.0) if name == "vp" else VEProcess(schedule)


@pytest.mark.parametrize(("name", "t", "value"), [("vp", 0.6, 0.15091), ("ve", 0.85, 1.5287e-4)])
def test_relative_information_of_the_toy_mixture(name, t, value):
    assert relative_information(process(name), TOY, t) == pytest.approx(value, rel=2e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_relative_information_of_gaussians(name):
    at, t = process(name), np.array([[0.1, 0.4], [0.7, 1.0]])
    found = relative_information(at, LAW, t)
    for index in np.ndindex(t.shape):
        marginal = at.marginal(LAW, t[index])
        expected = relative_fisher_information(marginal, float(at.noise_variance(t[index])))
        assert found[index] == pytest.approx(float(expected), rel=1e-12)


def evidence(name, horizon, error):
    """ELBO of the process stopped at a horizon, by its own quadrature."""
    at = process(name, horizon)
    quadrature = elbo.time_quadrature(at, 96, smallest_variance=0.01)
    return float(elbo.evidence_bound(at, TOY, error(quadrature.times), quadrature).elbo)


ERRORS = {
    "constant": lambda t: np.full(np.shape(t), 0.1),
    "early": lambda t: 3 * np.exp(-5 * t),
    "late": lambda t: 0.01 + t**4,
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_bound_is_largest_at_the_optimal_horizon(name, kind):
    """I falls by dKL = −½ g² I dt, whatever the process: the root is the maximum."""
    error = ERRORS[kind]
    best = optimal_horizon(process(name), TOY, error)
    assert best.interior
    value = evidence(name, best.horizon, error)
    for factor in (0.3, 0.9, 0.99, 1.01, 1.1):
        if factor * best.horizon <= 1:
            assert evidence(name, factor * best.horizon, error) < value
    steps = best.horizon * np.array([1 - 1e-3, 1 + 1e-3])
    early, late = (evidence(name, horizon, error) for horizon in steps)
    rate = float(process(name).schedule.beta(best.horizon)) * float(error(best.horizon)) / 2
    assert abs(late - early) / np.diff(steps)[0] < 1e-2 * rate


def test_ve_root_of_a_gaussian_solves_its_cubic():
    """N(0, λ) has I = λ²/((λ + v) v²) against N(0, v)."""
    law, at = Gaussian.diagonal([0.0], [0.5]), process("ve")
    best = optimal_horizon(at, law, lambda t: np.full(np.shape(t), 0.02))
    v = brentq(lambda v: 0.25 / ((0.5 + v) * v**2) - 0.02, 1e-3, 1e3, xtol=1e-14)
    assert at.kernel_variance(best.horizon) == pytest.approx(v, rel=1e-10)


def test_scaled_score_of_a_gaussian():
    """(1 + ε)s on N(0, λ), VP with σ² = 1: ε²/V = (1 − V)²/V, so V(T*) = 1 − ε."""
    law, at, eps = Gaussian.diagonal([0.0], [0.2]), process("vp"), 0.05
    score = scores.scaled(at, law, eps)
    best = optimal_horizon(at, law, lambda t: score.error_moments(law, t)[0])
    spread = at.marginal(law, best.horizon).eigenvalues[0]
    assert spread == pytest.approx(1 - eps, rel=1e-12)


def test_of_two_maxima_the_higher_is_taken():
    """A burst of error is worth crossing if it is cheap, not if it is dear."""
    found = {}
    for height in (3.0, 3000.0):

        def error(t, height=height):
            return 1e-3 + height * np.exp(-(((t - 0.3) / 0.06) ** 2))

        found[height] = optimal_horizon(process("vp"), TOY, error).horizon
        others = [evidence("vp", t, error) for t in (0.25, 0.3, 0.4, 0.6, 0.8, 0.95)]
        assert evidence("vp", found[height], error) > max(others)
    assert found[3.0] > 0.5 > 0.3 > found[3000.0]


def test_without_a_root_the_horizon_is_an_end():
    at = process("vp")
    perfect = optimal_horizon(at, TOY, lambda t: np.zeros(np.shape(t)))
    assert (perfect.horizon, perfect.interior) == (1.0, False)
    useless = optimal_horizon(at, TOY, lambda t: np.full(np.shape(t), 1e9))
    assert not useless.interior
    assert useless.horizon < 1e-5


def runs(seed, reps, n_seeds, means, noise):
    """Losses with noise shared by a seed's runs, shape (reps, n_seeds, K)."""
    rng = np.random.default_rng(seed)
    shared = rng.standard_normal((reps, n_seeds, 1))
    own = rng.standard_normal((reps, n_seeds, len(means)))
    return means + 3 * noise * shared + noise * own


GRID = np.round(np.arange(0.2, 1.25, 0.1), 2)


def curve():
    """KL(p_T ‖ π_∞) + ½ e B(T) of the toy mixture at e = 0.1, whose optimum is 0.6333."""
    at = process("vp")
    stops = np.minimum(GRID, 1.0)
    kl = [
        TOY.kl_to_normal(1.0, float(at.mean_scale(t)), float(at.kernel_variance(t))) for t in stops
    ]
    return np.array(kl) + 0.05 * at.schedule.integral(stops) + 0.5 * (GRID - stops)


@pytest.mark.parametrize("n_seeds", [3, 5, 10])
def test_the_best_horizon_is_kept(n_seeds):
    """Most often lost when all horizons are equal, and then at most at the nominal rate."""
    reps = 2000
    level = runs(0, reps, n_seeds, np.zeros(len(GRID)), 1.0)
    kept = np.mean([horizon_set(GRID, losses).plausible[4] for losses in level])
    assert kept > 0.95 - 4.5 * np.sqrt(0.05 * 0.95 / reps)
    assert kept < 0.995  # and not because everything is kept


@pytest.mark.parametrize("noise", [0.003, 0.03])
def test_the_set_holds_the_optimum_and_sheds_the_rest(noise):
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


def test_pairing_removes_what_the_seeds_share():
    losses = runs(2, 1, 8, curve(), 0.003)[0]
    shifted = losses + 100 * np.arange(8)[:, None]
    np.testing.assert_array_equal(
        horizon_set(GRID, losses).plausible, horizon_set(GRID, shifted).plausible
    )


def test_bracket_is_open_beyond_the_grid():
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
        (
            lambda: optimal_horizon(process("vp"), LAW, lambda t: -1 + 0 * t),
            "error = -1.0: must be",
        ),
        (lambda: optimal_horizon(process("vp"), LAW, lambda t: t, n_scan=1), "n_scan = 1: must"),
    ],
)
def test_values_out_of_range_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()
