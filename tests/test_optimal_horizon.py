"""The optimal horizon against closed forms and the bound itself."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq

from sgm import elbo, scores
from sgm.densities import GaussianMixture
from sgm.gaussian import Gaussian, relative_fisher_information
from sgm.optimal_horizon import _loss_between, optimal_horizon, relative_information
from sgm.processes import Process, VEProcess, VPProcess
from sgm.schedules import BetaSchedule, ConstantSchedule, GeometricSchedule, TruncatedSchedule

Array = npt.NDArray[np.float64]

TOY = GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.01], [0.25]])
LAW = Gaussian.from_covariance([1.0, -0.5], [[1.0, 0.3], [0.3, 0.2]])
SCHEDULES = {"vp": BetaSchedule(1.0, 0.0, 0.1, 20.0), "ve": GeometricSchedule(1.0, 0.01, 50.0)}


def process(name: str, horizon: float = 1.0) -> Process:
    schedule = TruncatedSchedule(horizon, SCHEDULES[name])
    return VPProcess(schedule, 1.0) if name == "vp" else VEProcess(schedule)


@pytest.mark.parametrize(("name", "t", "value"), [("vp", 0.6, 0.15091), ("ve", 0.85, 1.5287e-4)])
def test_relative_information_of_the_toy_mixture(name: str, t: float, value: float) -> None:
    assert relative_information(process(name), TOY, t) == pytest.approx(value, rel=2e-5)


@pytest.mark.parametrize("name", SCHEDULES)
def test_relative_information_of_gaussians(name: str) -> None:
    at, t = process(name), np.array([[0.1, 0.4], [0.7, 1.0]])
    found = relative_information(at, LAW, t)
    for index in np.ndindex(t.shape):
        marginal = at.marginal(LAW, t[index])
        expected = relative_fisher_information(marginal, float(at.noise_variance(t[index])))
        assert found[index] == pytest.approx(float(expected), rel=1e-12)


def evidence(name: str, horizon: float, error: Callable[[Array], Array]) -> float:
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
def test_bound_is_largest_at_the_optimal_horizon(name: str, kind: str) -> None:
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


def test_ve_root_of_a_gaussian_solves_its_cubic() -> None:
    """N(0, λ) has I = λ²/((λ + v) v²) against N(0, v)."""
    law, at = Gaussian.diagonal([0.0], [0.5]), process("ve")
    best = optimal_horizon(at, law, lambda t: np.full(np.shape(t), 0.02))
    v = brentq(lambda v: 0.25 / ((0.5 + v) * v**2) - 0.02, 1e-3, 1e3, xtol=1e-14)
    assert at.kernel_variance(best.horizon) == pytest.approx(v, rel=1e-10)


def test_scaled_score_of_a_gaussian() -> None:
    """(1 + ε)s on N(0, λ), VP with σ² = 1: ε²/V = (1 − V)²/V, so V(T*) = 1 − ε."""
    law, at, eps = Gaussian.diagonal([0.0], [0.2]), process("vp"), 0.05
    score = scores.scaled(at, law, eps)
    best = optimal_horizon(at, law, lambda t: score.error_moments(law, t)[0])
    spread = at.marginal(law, best.horizon).eigenvalues[0]
    assert spread == pytest.approx(1 - eps, rel=1e-12)


def test_of_two_maxima_the_higher_is_taken() -> None:
    """A burst of error is worth crossing if it is cheap, not if it is dear."""
    found = {}
    for height in (3.0, 3000.0):

        def error(t: Array, height: float = height) -> Array:
            return 1e-3 + height * np.exp(-(((t - 0.3) / 0.06) ** 2))

        found[height] = optimal_horizon(process("vp"), TOY, error).horizon
        others = [evidence("vp", t, error) for t in (0.25, 0.3, 0.4, 0.6, 0.8, 0.95)]
        assert evidence("vp", found[height], error) > max(others)
    assert found[3.0] > 0.5 > 0.3 > found[3000.0]


def test_without_a_root_the_horizon_is_an_end() -> None:
    at = process("vp")
    perfect = optimal_horizon(at, TOY, lambda t: np.zeros(np.shape(t)))
    assert (perfect.horizon, perfect.interior) == (1.0, False)
    useless = optimal_horizon(at, TOY, lambda t: np.full(np.shape(t), 1e9))
    assert not useless.interior
    assert useless.horizon < 1e-5


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: optimal_horizon(process("vp"), LAW, lambda t: -1 + 0 * t),
            "error = -1.0: must be",
        ),
        (lambda: optimal_horizon(process("vp"), LAW, lambda t: t, n_scan=1), "n_scan = 1: must"),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("narrow", [1e-3, 1e-8])
def test_maxima_are_compared_by_an_integral_over_decades(narrow: float) -> None:
    """½ ∫ g² e dt of a scaled score, whose error grows like 1/t down to the narrow variance."""
    process = VPProcess(ConstantSchedule(1.0, 10.0), 1.0)
    law = Gaussian.diagonal([0.0, 0.0], [narrow, 1.0])
    score, ends = scores.scaled(process, law, 0.1), (1e-6, 1.0)

    def rate(u: float) -> float:
        return np.exp(u) * 10.0 * float(score.error_moments(law, np.exp(u))[0]) / 2

    gained = quad(rate, *np.log(ends), epsrel=1e-10, limit=200)[0]
    before, after = (
        law.kl_to_normal(1.0, float(process.mean_scale(t)), float(process.kernel_variance(t)))
        for t in ends
    )
    loss = _loss_between(process, law, lambda t: score.error_moments(law, t)[0], *ends)
    assert loss == pytest.approx(gained + after - before, abs=1e-9)


def test_without_its_information_a_law_has_no_optimal_horizon() -> None:
    """NaN compares as False: it would pass for an error below the information at every time."""
    law = GaussianMixture([0.5, 0.5], [[0.0] * 3, [1.0] * 3], [[0.1] * 3] * 2)
    with pytest.raises(ValueError, match="GaussianMixture: must know its Fisher information"):
        optimal_horizon(process("vp"), law, lambda t: np.zeros(np.shape(t)))
