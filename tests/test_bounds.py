"""The KL theorem: its terms against quadrature, and every bound above the exact divergence."""

from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import numpy.typing as npt
import pytest

from sgm import bounds, laws, samplers, scores, targets
from sgm.densities import GaussianMixture
from sgm.gaussian import Gaussian, kl_divergence, relative_fisher_information
from sgm.measures.bounds import kl_sde
from sgm.processes import VEProcess, VPProcess
from sgm.schedules import (
    BetaSchedule,
    ConstantSchedule,
    CosineSchedule,
    NoiseSchedule,
    NumericalSchedule,
)
from sgm.timegrids import quadratic, uniform

Array = npt.NDArray[np.float64]

TARGETS = {
    "isotropic": targets.isotropic(10, 1.0, 0.5).law,
    "slides": targets.heteroscedastic_slides(10, 1.0).law,
    "blocks": targets.heteroscedastic_blocks(10, 1.0).law,
    "correlated": targets.correlated(10, 1.0, 1.0).law,
}
SCORES = {
    "exact": scores.exact,
    "scaled up": lambda vp, law: scores.scaled(vp, law, 0.3),
    "scaled down": lambda vp, law: scores.scaled(vp, law, -0.1),
    "biased": lambda vp, law: scores.biased(vp, law, -0.5),
    "plugin": lambda vp, law: scores.plugin(vp, law, 0.2),
    "other basis": lambda vp, law: scores.exact(vp, TARGETS["slides"]),
}
THEOREM = samplers.exponential_integrator_modified


def process(variance: float = 1.0, a: float = 0.0) -> VPProcess:
    return VPProcess(BetaSchedule(1.0, a, 0.1, 20.0), variance)


def bound(
    vp: VPProcess, law: Gaussian, score: scores.GaussianScore, times: Array
) -> bounds.KLBound:
    mse, cross = score.error_moments(law, times[:-1])
    return bounds.gaussian_kl_bound(vp, law, times, mse, cross)


def exact_kl(
    vp: VPProcess,
    law: Gaussian,
    score: scores.GaussianScore,
    times: Array,
    scheme: Callable[..., samplers.Steps] = THEOREM,
) -> Array:
    return kl_divergence(law, laws.sampler_law(scheme(vp, times), score, vp.prior(law.dimension)))


def assert_chain(vp: VPProcess, law: Gaussian, score: scores.GaussianScore, times: Array) -> None:
    """KL ≤ path ≤ terminal + E₂ + E₃_refined ≤ E₁ + E₂ + E₃_refined ≤ E₁ + E₂ + E₃."""
    terms = bound(vp, law, score, times)
    chain = [
        exact_kl(vp, law, score, times),
        terms.path,
        terms.terminal + terms.score_error + terms.discretization_refined,
        terms.total_refined,
        terms.total,
    ]
    assert np.all(np.isfinite(chain))
    for lower, upper in pairwise(chain):
        assert lower <= upper * (1 + 1e-11) + 1e-13


def conforti(
    vp: VPProcess, law: Gaussian, score: scores.GaussianScore, times: Array
) -> bounds.ConfortiKLBound:
    mse, _ = score.error_moments(law, times[:-1])
    return bounds.conforti_kl_bound(
        vp,
        times,
        kl_to_prior=float(kl_divergence(law, vp.prior(law.dimension))),
        information=float(relative_fisher_information(law, vp.variance)),
        score_mse=mse,
    )


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("target", TARGETS)
def test_the_bound_in_the_clock_lies_between_the_path_and_the_theorem(
    target: str, score: str
) -> None:
    """It needs no maximum; for the exact score its second term is a quarter of E₃ or less."""
    law = TARGETS[target]
    for variance, a, n in product([0.5, 1.0, 4.0], [-10.0, 0.0, 4.0], [1, 2, 5, 40, 300]):
        vp, times = process(variance, a), uniform(1.0, n)
        own = SCORES[score](vp, law)
        found, terms = conforti(vp, law, own, times), bound(vp, law, own, times)
        assert terms.path <= found.total * (1 + 1e-11)
        assert found.total <= terms.total * (1 + 1e-11)
        assert found.mixing == pytest.approx(terms.mixing, rel=1e-12)
        assert 4 * found.discretization <= terms.discretization * (1 + 1e-12)
        assert found.score_error == 0 or score != "exact"


def test_the_bound_in_the_clock_is_an_ornstein_uhlenbeck_process_s() -> None:
    """σ² = 1, β = 2: e^{−2T} KL + hI and no more for the exact score, with N steps of T/N."""
    vp, law, times = VPProcess(ConstantSchedule(1.5, 2.0)), TARGETS["isotropic"], uniform(1.5, 30)
    found = conforti(vp, law, scores.exact(vp, law), times)
    information = float(relative_fisher_information(law, 1.0))
    assert found.discretization == pytest.approx(0.05 * information, rel=1e-12)
    assert found.mixing == pytest.approx(np.exp(-3) * kl_divergence(law, vp.prior(10)), rel=1e-12)
    infinite = bounds.conforti_kl_bound(
        vp, times, kl_to_prior=1.0, information=np.inf, score_mse=np.zeros((2, 30))
    )
    assert np.all(np.isinf(infinite.total))
    assert infinite.total.shape == (2,)


@pytest.mark.parametrize("variance", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("target", TARGETS)
def test_every_bound_lies_above_the_exact_divergence(
    target: str, score: str, variance: float
) -> None:
    law = TARGETS[target]
    for a, n in product([-10.0, -3.0, 0.0, 4.0, 10.0], [1, 2, 5, 40, 300]):
        vp = process(variance, a)
        assert_chain(vp, law, SCORES[score](vp, law), uniform(1.0, n))


@pytest.mark.parametrize("n", [1, 7, 60])
@pytest.mark.parametrize("grid", [uniform, quadratic])
@pytest.mark.parametrize(
    "schedule",
    [
        CosineSchedule(2.0, 2.0, 0.008, 20.0),
        ConstantSchedule(2.0, 4.0),
        NumericalSchedule(2.0, lambda t: 8 - 3 * t),
        NumericalSchedule(2.0, lambda t: 3 + 2 * np.sin(5 * t)),
    ],
    ids=["cosine", "constant", "decreasing", "oscillating"],
)
def test_the_theorem_holds_for_other_schedules_with_the_supremum(
    schedule: NoiseSchedule, grid: Callable[[float, int], Array], n: int
) -> None:
    vp = VPProcess(schedule, 2.0)
    for law, score in product(TARGETS.values(), ("exact", "biased")):
        assert_chain(vp, law, SCORES[score](vp, law), grid(2.0, n))


def test_the_theorem_names_its_scheme() -> None:
    assert frozenset({THEOREM.__name__}) == bounds.KL_BOUND_PROVED_FOR
    law = TARGETS["correlated"]
    assert bounds.kl_objection(law, THEOREM.__name__) is bounds.KLObjection.NONE
    assert bounds.kl_objection(law, "ddim") is bounds.KLObjection.SAMPLER
    assert bounds.kl_objection(None, "ddim") is bounds.KLObjection.LAW_UNKNOWN
    solid = GaussianMixture([0.5, 0.5], [[0.0] * 3, [1.0] * 3], np.ones((2, 3)))
    assert bounds.kl_objection(solid, THEOREM.__name__) is bounds.KLObjection.INFORMATION


def test_the_theorem_fails_for_samplers_it_does_not_name() -> None:
    """The probability flow with a wrong score: why the bound is tied to a sampler."""
    vp, law, times = process(), TARGETS["blocks"], uniform(1.0, 5000)
    score = scores.biased(vp, law, 0.5)
    kl = exact_kl(vp, law, score, times, samplers.probability_flow_euler)
    assert kl > bound(vp, law, score, times).total


def direct_girsanov(
    vp: VPProcess, law: Gaussian, score: scores.GaussianScore, times: Array, nodes: int = 60
) -> float:
    """½ Σ ∫ E|s̃(τ, X_τ) − s̃_θ(τ_k, X_k)|² dB from the joint Gaussian law of (X_k, X_τ).

    Laws and scores diagonal in the standard basis. Cov(X_k, X_τ) = e^{−(B_k − B)/(2σ²)} V(τ).
    """
    s2, lam, mu = vp.variance, law.eigenvalues, law.mean
    x, w = np.polynomial.legendre.leggauss(nodes)
    slope, offset = score.coefficients(times[:-1])
    levels, total = vp.schedule.integral(times), 0.0
    for k in range(len(times) - 1):
        b = levels[k + 1] + (levels[k] - levels[k + 1]) * (x[:, None] + 1) / 2
        m, m_k = np.exp(-b / (2 * s2)), np.exp(-levels[k] / (2 * s2))
        v, v_k = m**2 * (lam - s2) + s2, m_k**2 * (lam - s2) + s2
        covariance = np.exp(-(levels[k] - b) / (2 * s2)) * v
        left, right = 1 / s2 - 1 / v, slope[k] + 1 / s2
        variance = left**2 * v - 2 * left * right * covariance + right**2 * v_k
        mean = (left * m * mu + m * mu / v) - (right * m_k * mu + offset[k])
        integrand = np.sum(variance + mean**2, axis=1)
        total += (levels[k] - levels[k + 1]) / 4 * (w @ integrand)
    return total


@pytest.mark.parametrize("variance", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("score", ["exact", "scaled up", "biased", "plugin", "other basis"])
@pytest.mark.parametrize("target", ["isotropic", "slides"])
def test_girsanov_matches_the_joint_gaussian_law(target: str, score: str, variance: float) -> None:
    law = TARGETS[target]
    for a, n in product([-3.0, 5.0], [3, 30]):
        vp, times = process(variance, a), uniform(1.0, n)
        affine = SCORES[score](vp, law)
        terms = bound(vp, law, affine, times)
        expected = direct_girsanov(vp, law, affine, times)
        assert terms.path - terms.terminal == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("n", [1, 10, 500])
def test_the_general_form_agrees_with_the_gaussian_one(n: int, score: str) -> None:
    """The route through de Bruijn's identity and the one through closed forms."""
    vp, law, times = process(2.0, 3.0), TARGETS["correlated"], quadratic(1.0, n)
    mse, cross = SCORES[score](vp, law).error_moments(law, times[:-1])
    closed = bounds.gaussian_kl_bound(vp, law, times, mse, cross)
    general = bounds.kl_bound(
        vp,
        times,
        kl_to_prior=float(kl_divergence(law, vp.prior(10))),
        fisher=lambda t: relative_fisher_information(vp.marginal(law, t), 2.0),
        terminal_kl=float(kl_divergence(vp.marginal(law, 1.0), vp.prior(10))),
        score_mse=mse,
        score_cross=cross,
    )
    for field in vars(closed):
        assert getattr(general, field) == pytest.approx(getattr(closed, field), rel=1e-10), field


@pytest.mark.parametrize("build", SCORES.values(), ids=SCORES)
@pytest.mark.parametrize("law", TARGETS.values(), ids=TARGETS)
def test_the_bound_of_the_backward_sde_is_what_the_path_tends_to(
    law: Gaussian, build: Callable[[VPProcess, Gaussian], scores.GaussianScore]
) -> None:
    """KL(p_T ‖ π_∞) + ½ ∫ β mse: the limit of `kl_path`, and above the KL of the fine sampler."""
    vp, totals, paths = process(a=2.0), [], []
    score = build(vp, law)
    for times in (quadratic(1.0, 4_000), quadratic(1.0, 8_000)):
        mse, _ = score.error_moments(law, times[:-1])
        steps = np.sum(bounds.backward_sde_kl(vp, times, mse))
        path = bound(vp, law, score, times)
        assert steps == pytest.approx(path.score_error / 2, rel=1e-12)
        totals.append(path.terminal + steps)
        paths.append(path.path)
    # both are off by O(1/N), which an extrapolation takes away
    limits = [2 * fine - coarse for coarse, fine in (totals, paths)]
    assert limits[0] == pytest.approx(limits[1], rel=5e-3)
    assert exact_kl(vp, law, score, times) <= limits[0] * (1 + 1e-3)


def test_the_bound_of_the_backward_sde_is_a_theorem_about_no_sampler() -> None:
    law = TARGETS["isotropic"]
    kind = bounds.BackwardSDEObjection
    assert bounds.backward_sde_objection(law) is kind.STEPS
    assert bounds.backward_sde_objection(None) is kind.LAW_UNKNOWN


@pytest.mark.parametrize("n", [1, 3, 100])
def test_the_shares_of_the_score_error_add_up(n: int) -> None:
    """By quarters of [0, T]: a step lies where its middle does."""
    vp, law, times = process(), TARGETS["blocks"], uniform(1.0, n)
    mse, _ = scores.scaled(vp, law, 0.3).error_moments(law, times[:-1])
    found = kl_sde(vp, law, times, np.stack([mse, 2 * mse]))
    shares = np.stack([found[f"kl_sde_score_q{q}"] for q in (1, 2, 3, 4)])
    increments = -np.diff(vp.schedule.integral(times))
    middles = (times[:-1] + times[1:]) / 2
    for q, share in enumerate(shares):
        own = (middles >= q / 4) & (middles < (q + 1) / 4)
        expected = 0.5 * np.sum(increments[own] * mse[own])
        np.testing.assert_allclose(share, [expected, 2 * expected], rtol=1e-12)
    np.testing.assert_allclose(found["kl_sde"], found["kl_terminal"] + shares.sum(0), rtol=1e-14)


def test_girsanov_keeps_its_digits_on_fine_grids() -> None:
    """With the exact score G falls as 1/N: a cancellation would show as noise at N = 10⁶."""
    vp, law = process(), targets.isotropic(1, 1.0, 0.5).law
    zero = [np.zeros(n) for n in (10_000, 1_000_000)]
    coarse, fine = (bounds.gaussian_kl_bound(vp, law, uniform(1.0, len(z)), z, z) for z in zero)
    ratio = (coarse.path - coarse.terminal) / (fine.path - fine.terminal)
    assert ratio == pytest.approx(100, rel=1e-2)
    refined = coarse.discretization_refined / fine.discretization_refined
    assert refined == pytest.approx(100, rel=1e-2)


def test_a_huge_step_over_a_tiny_variance_does_not_overflow() -> None:
    vp, law = process(0.004), Gaussian.diagonal([0.1, 0.2], [0.003, 0.01])
    assert_chain(vp, law, scores.exact(vp, law), uniform(1.0, 1))
    assert_chain(vp, law, scores.scaled(vp, law, 0.1), uniform(1.0, 3))


@pytest.mark.parametrize("error", [0.0, 0.1])
@pytest.mark.parametrize("n", [1, 3])
def test_the_general_bound_of_a_huge_step_is_that_of_the_gaussian(n: int, error: float) -> None:
    """Δ/(2σ²) = 1256 in one step: eʰ is no number, the bound is."""
    vp, law, times = process(0.004), Gaussian.diagonal([0.1, 0.2], [0.003, 0.01]), uniform(1.0, n)
    mse, cross = scores.scaled(vp, law, error).error_moments(law, times[:-1])
    general = bounds.kl_bound(
        vp,
        times,
        kl_to_prior=float(kl_divergence(law, vp.prior(2))),
        fisher=lambda t: relative_fisher_information(vp.marginal(law, t), 0.004),
        terminal_kl=float(kl_divergence(vp.marginal(law, 1.0), vp.prior(2))),
        score_mse=mse,
        score_cross=cross,
    )
    exact, closed = (
        exact_kl(vp, law, scores.scaled(vp, law, error), times),
        bound(vp, law, scores.scaled(vp, law, error), times),
    )
    assert exact <= general.path * (1 + 1e-11)
    assert np.isfinite(general.path)
    if error == 0:
        assert general.path == pytest.approx(closed.path, rel=1e-9)


def test_early_stopping_bounds_the_law_at_the_last_time() -> None:
    vp, law = process(), TARGETS["correlated"]
    times = uniform(1.0, 50)[:-3]
    score = scores.scaled(vp, law, 0.1)
    terms = bound(vp, law, score, times)
    kl = exact_kl(vp, vp.marginal(law, times[-1]), score, times)
    assert kl <= terms.path <= terms.total_refined <= terms.total
    assert terms.terminal <= terms.mixing


def test_score_error_is_batched_over_networks() -> None:
    vp, law, times = process(), TARGETS["isotropic"], uniform(1.0, 20)
    moments = [
        scores.scaled(vp, law, eps).error_moments(law, times[:-1]) for eps in (0.0, 0.1, 0.3)
    ]
    mse, cross = (np.array(rows) for rows in zip(*moments, strict=True))
    together = bounds.gaussian_kl_bound(vp, law, times, mse, cross)
    assert together.total.shape == together.path.shape == (3,)
    for k in range(3):
        alone = bounds.gaussian_kl_bound(vp, law, times, mse[k], cross[k])
        assert together.path[k] == pytest.approx(float(alone.path), rel=1e-14)
        assert together.total[k] == pytest.approx(float(alone.total), rel=1e-14)


def test_unknown_terms_are_nan_and_leave_the_others() -> None:
    vp, times = process(), uniform(1.0, 5)
    terms = bounds.kl_bound(
        vp,
        times,
        kl_to_prior=2.0,
        fisher=lambda t: np.where(t > 0, 1 / np.maximum(t, 1e-9), np.inf),
        terminal_kl=np.nan,
        score_mse=np.ones(5),
        score_cross=np.zeros(5),
    )
    assert np.isnan(terms.terminal)
    assert terms.mixing == pytest.approx(2 * np.exp(-vp.schedule.integral(1.0)))
    assert terms.score_error == pytest.approx(float(vp.schedule.integral(1.0)))
    assert terms.discretization == terms.discretization_refined == np.inf


@pytest.mark.parametrize(
    ("times", "mse", "cross", "message"),
    [
        (uniform(1.0, 3), np.zeros(4), np.zeros(3), r"score_mse has shape \(4,\).*\(..., 3\)"),
        (uniform(1.0, 3), np.zeros(3), np.zeros((3, 1)), r"score_cross has shape \(3, 1\)"),
        (np.array([1.0]), np.zeros(0), np.zeros(0), r"times has shape \(1,\)"),
        (np.array([0.0, 1.0]), np.zeros(1), np.zeros(1), "times = .*must decrease"),
    ],
)
def test_shapes_that_disagree_are_named(
    times: Array, mse: Array, cross: Array, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        bounds.gaussian_kl_bound(process(), TARGETS["isotropic"], times, mse, cross)


@pytest.mark.parametrize("rate", [1300.0, 1450.0, 3000.0])
def test_the_path_bound_of_a_step_past_the_range_of_the_exponential(rate: float) -> None:
    """Not −∞ but still a bound, with and without an error of the score."""
    vp, law = VPProcess(ConstantSchedule(1.0, rate), 1.0), Gaussian.diagonal([1.0], [0.5])
    times = uniform(1.0, 1)
    for score in ("exact", "scaled up", "biased"):
        assert_chain(vp, law, SCORES[score](vp, law), times)


def test_information_that_is_infinite_at_neighbouring_times() -> None:
    """∞ − ∞ is not a gain: the bounds that need I at these times are infinite."""
    vp, times, zero = process(), uniform(1.0, 5), np.zeros(5)
    terms = bounds.kl_bound(
        vp, times, kl_to_prior=2.0, fisher=lambda t: np.where(t < 0.3, np.inf, 1.0),
        terminal_kl=0.1, score_mse=zero, score_cross=zero,
    )  # fmt: skip
    assert terms.discretization == terms.discretization_refined == terms.path == np.inf
    assert terms.total == terms.total_refined == np.inf
    assert terms.mixing == pytest.approx(2 * np.exp(-vp.schedule.integral(1.0)))


@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_the_general_bound_of_an_unclipped_schedule_is_the_gaussian_one(eps: float) -> None:
    vp, law, times = (
        VPProcess(CosineSchedule(1.0, 1.0, 0.008, np.inf), 1.0),
        TARGETS["isotropic"],
        uniform(1.0, 5),
    )
    score = scores.scaled(vp, law, eps)
    mse, cross = score.error_moments(law, times[:-1])
    prior = vp.prior(law.dimension)
    found = bounds.kl_bound(
        vp, times, kl_to_prior=float(kl_divergence(law, prior)), terminal_kl=0.0,
        fisher=lambda t: relative_fisher_information(vp.marginal(law, t), 1.0),
        score_mse=mse, score_cross=cross,
    )  # fmt: skip
    expected = bound(vp, law, score, times)
    for key in ("mixing", "score_error", "discretization", "discretization_refined", "path"):
        assert getattr(found, key) == pytest.approx(float(getattr(expected, key)), rel=1e-10)


def test_data_that_are_the_prior_have_no_discretization_error() -> None:
    """Whatever the largest β: I = 0."""
    vp, times, zero = (
        VPProcess(CosineSchedule(1.0, 1.0, 0.008, np.inf), 1.0),
        uniform(1.0, 5),
        np.zeros(5),
    )
    assert bounds.gaussian_kl_bound(vp, vp.prior(2), times, zero, zero).total_refined == 0
    general = bounds.kl_bound(
        vp, times, kl_to_prior=0.0, fisher=np.zeros_like, terminal_kl=0.0,
        score_mse=zero, score_cross=zero,
    )  # fmt: skip
    assert general.total == general.total_refined == general.path == 0


def test_a_process_without_a_stationary_law_is_refused() -> None:
    ve, law = VEProcess(ConstantSchedule(1.0, 3.0)), Gaussian.diagonal([1.0], [0.5])
    zero = np.zeros(2)
    with pytest.raises(ValueError, match="must have a stationary law"):
        bounds.gaussian_kl_bound(ve, law, uniform(1.0, 2), zero, zero)
    with pytest.raises(ValueError, match="must have a stationary law"):
        bounds.gaussian_w2_bound(
            ve, law, uniform(1.0, 2), score_mse_generated=zero, score_mse_forward=zero
        )


def test_the_unclipped_cosine_has_no_finite_discretization_term() -> None:
    """sup β = ∞; without an error of the score E₂ is 0 whatever B(T)."""
    vp, law = VPProcess(CosineSchedule(1.0, 1.0, 0.008, np.inf), 1.0), TARGETS["isotropic"]
    terms = bound(vp, law, scores.exact(vp, law), uniform(1.0, 5))
    assert terms.discretization == terms.discretization_refined == terms.total == np.inf
    assert terms.score_error == 0
    assert not np.isnan(terms.path)
