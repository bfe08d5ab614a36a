"""The evidence bound's terms against direct quadrature, closed forms and each other."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from numpy.polynomial.legendre import leggauss

from sgm import elbo, laws, samplers, scores
from sgm.densities import GaussianMixture, Law
from sgm.gaussian import Gaussian, kl_divergence
from sgm.processes import Process, VEProcess, VPProcess
from sgm.schedules import BetaSchedule, CosineSchedule, GeometricSchedule, TruncatedSchedule

Array = npt.NDArray[np.float64]

TOY = GaussianMixture([0.3, 0.7], [[1.0], [3.0]], [[0.01], [0.25]])
LAW = Gaussian.from_covariance([1.0, -0.5], [[1.0, 0.3], [0.3, 0.2]])
PROCESSES = {
    "vp": VPProcess(TruncatedSchedule(0.6, BetaSchedule(1.0, 0.0, 0.1, 20.0)), 1.0),
    "vp_cosine": VPProcess(CosineSchedule(0.9, 2.0, 0.008, 4.0), 2.0),
    "ve": VEProcess(GeometricSchedule(1.0, 0.01, 5.0)),
}


def panels(low: float, high: float, n: int) -> tuple[Array, Array]:
    """Nodes and weights of n panels of 10."""
    nodes, weights = leggauss(10)
    edges = np.linspace(low, high, n + 1)
    half = np.diff(edges)[:, None] / 2
    return (edges[:-1, None] + half * (1 + nodes)).ravel(), (half * weights).ravel()


def moments(law: Law, m: float, v: float) -> tuple[float, float, Callable[[float], float]]:
    """E log p, J and ∫ p log p/φ₁ of a noised law on the line, straight from its density."""
    center, std = m * law.mean[0], np.sqrt(m**2 * law.covariance[0, 0] + v)
    x, weights = panels(center - 9 * std, center + 9 * std, 200)
    log_p, s = law.log_density(x[:, None], m, v), law.score(x[:, None], m, v)[:, 0]
    p = weights * np.exp(log_p)
    return (
        float(p @ log_p),
        float(p @ s**2),
        lambda variance: p @ (log_p + x**2 / (2 * variance) + np.log(2 * np.pi * variance) / 2),
    )


@pytest.mark.parametrize("name", PROCESSES)
def test_terms_are_the_integrals_over_the_density(name: str) -> None:
    process = PROCESSES[name]
    bound = elbo.evidence_bound(
        process, TOY, np.zeros(24), elbo.time_quadrature(process, 24, smallest_variance=0.01)
    )
    m, v = float(process.mean_scale(process.horizon)), process.kernel_variance(process.horizon)
    terminal, _, kl = moments(TOY, m, float(v))
    assert bound.data_log_density == pytest.approx(moments(TOY, 1.0, 0.0)[0], abs=1e-10)
    assert bound.terminal_log_density == pytest.approx(terminal, abs=1e-10)
    assert bound.terminal_kl == pytest.approx(kl(process.prior_variance), rel=1e-7, abs=1e-11)


@pytest.mark.parametrize("cutoff", [0.0, 1e-5, 0.2])
@pytest.mark.parametrize("name", PROCESSES)
def test_de_bruijn_between_two_times(name: str, cutoff: float) -> None:
    """½ ∫ (g² J + 2 d f) dt with J from the density at each time, the clock in log t."""
    process = PROCESSES[name]
    quadrature = elbo.time_quadrature(process, 48, smallest_variance=0.01, cutoff=cutoff)
    bound = elbo.evidence_bound(process, TOY, np.zeros(48), quadrature)
    if cutoff:  # an independent clock
        u, weights = panels(np.log(cutoff), np.log(process.horizon), 24)
        if name == "vp_cosine":  # a kink
            knots = np.log([cutoff, max(cutoff, process.schedule.clip_time), process.horizon])
            pieces = [panels(a, b, 12) for a, b in pairwise(knots) if b > a]
            u, weights = (np.concatenate(part) for part in zip(*pieces, strict=True))
        t = np.exp(u)
        weights = weights * t * process.schedule.beta(t)
    else:
        t, weights = quadrature.times, quadrature.weights
    pairs = zip(process.mean_scale(t).tolist(), process.kernel_variance(t).tolist(), strict=True)
    information = np.array([moments(TOY, m, v)[1] for m, v in pairs])
    scale = process.mean_scale(np.array([cutoff, process.horizon]))
    gained = weights @ information / 2 + np.log(scale[1] / scale[0])
    # the mixture's tabulated informations carry 1e-9
    assert bound.finite_difference == pytest.approx(gained, abs=1e-9)
    if cutoff:
        reference, score = elbo.denoising_terms(process, TOY, cutoff)
        growth = weights @ (1 / process.kernel_variance(t)) / 2
        assert reference == pytest.approx(growth + np.log(scale[1] / scale[0]), abs=1e-10)
        assert score == pytest.approx(growth - weights @ information / 2, abs=1e-9)


@pytest.mark.parametrize("name", PROCESSES)
def test_de_bruijn_is_exact_for_gaussians(name: str) -> None:
    """To rounding, with J in closed form, from a cutoff to the horizon."""
    process, cutoff = PROCESSES[name], 1e-3
    quadrature = elbo.time_quadrature(process, 64, smallest_variance=0.0, cutoff=cutoff)
    m, v = process.mean_scale(quadrature.times), process.kernel_variance(quadrature.times)
    kernel_less_fisher = LAW.dimension / v - LAW.fisher_information(m, v)
    _, score = elbo.denoising_terms(process, LAW, cutoff)
    assert score == pytest.approx(quadrature.integrate(kernel_less_fisher) / 2, abs=1e-11)


def test_the_terms_diverge_separately_by_half_log_ten_a_decade() -> None:
    process = PROCESSES["vp"]
    (r, k), (r_next, k_next) = (elbo.denoising_terms(process, TOY, c) for c in (1e-8, 1e-9))
    assert r_next - r == pytest.approx(np.log(10) / 2, rel=1e-6)
    assert k_next - k == pytest.approx(np.log(10) / 2, rel=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
def test_gap_of_affine_errors_is_a_closed_form(name: str) -> None:
    """s + ε 1: G = ½ ε² d B(T); (1 + ε) s: G = ½ ε² ∫ J dB, by de Bruijn."""
    process, law, eps = PROCESSES[name], LAW, 0.3
    quadrature = elbo.time_quadrature(process, 64, smallest_variance=law.eigenvalues.min())
    mse = [
        build(process, law, eps).error_moments(law, quadrature.times)[0]
        for build in (scores.biased, scores.scaled)
    ]
    bound = elbo.evidence_bound(process, law, mse, quadrature)
    total = float(process.schedule.integral(process.horizon))
    drift = 2 * np.log(process.mean_scale(process.horizon))
    expected = [eps**2 * total, eps**2 * (bound.finite_difference - drift)]
    np.testing.assert_allclose(bound.score_gap, expected, rtol=1e-11)
    np.testing.assert_allclose(
        bound.elbo, bound.data_log_density - bound.terminal_kl - bound.score_gap, rtol=1e-14
    )


@pytest.mark.parametrize("name", PROCESSES)
def test_denoising_loss_gives_the_same_bound(name: str) -> None:
    process, cutoff = PROCESSES[name], 1e-4
    quadrature = elbo.time_quadrature(process, 64, smallest_variance=0.0, cutoff=cutoff)
    score = scores.biased(process, LAW, 0.2)
    mse, _ = score.error_moments(LAW, quadrature.times)
    m, v = process.mean_scale(quadrature.times), process.kernel_variance(quadrature.times)
    loss = mse + LAW.dimension / v - LAW.fisher_information(m, v)
    found = elbo.denoising_elbo(process, 2, LAW.second_moment, loss, quadrature)
    bound = elbo.evidence_bound(process, LAW, mse, quadrature)
    assert found == pytest.approx(float(bound.elbo), abs=1e-10)


@pytest.mark.parametrize("eps", [0.0, 0.1, -0.3])
@pytest.mark.parametrize("name", PROCESSES)
def test_bound_is_below_the_likelihood_of_the_sde(name: str, eps: float) -> None:
    """Against the exact law of a fine discretisation, whose own error is 1/N."""
    process = PROCESSES[name]
    score = scores.biased(process, LAW, eps)
    quadrature = elbo.time_quadrature(process, 64, smallest_variance=LAW.eigenvalues.min())
    mse, _ = score.error_moments(LAW, quadrature.times)
    bound = elbo.evidence_bound(process, LAW, mse, quadrature)
    levels = np.linspace(process.schedule.integral(process.horizon), 0, 4001)[1:-1]
    times = np.concatenate([[process.horizon], process.schedule.inverse_integral(levels), [0.0]])
    steps = samplers.exponential_integrator(process, times)
    output = laws.sampler_law(steps, score, process.prior(2))
    gap = bound.data_log_density - float(bound.elbo)
    assert kl_divergence(LAW, output) < gap
    assert eps != 0 or kl_divergence(LAW, output) < 0.8 * gap


@pytest.mark.parametrize("name", PROCESSES)
def test_exact_score_of_the_sde_does_not_attain_the_bound(name: str) -> None:
    """KL(π_data ‖ q) from r(x₀), against the closed-form Gaussian output and the bound."""
    process = PROCESSES[name]
    law = Gaussian.diagonal([0.7], [0.3])
    expected = kl_divergence(law, laws.reverse_sde_limit(process, law))
    assert elbo.reverse_sde_kl(process, law) == pytest.approx(float(expected), rel=1e-8)
    flow = kl_divergence(law, laws.probability_flow_limit(process, law))
    ends = (float(f(process.horizon)) for f in (process.mean_scale, process.kernel_variance))
    terminal = law.kl_to_normal(process.prior_variance, *ends)
    assert flow == pytest.approx(terminal, rel=1e-11)
    assert expected < 0.9 * terminal


@pytest.mark.parametrize(
    ("horizon", "sde", "terminal"), [(0.6, 0.0020238, 0.0754560), (0.2, 1.16752, 1.92003)]
)
def test_reverse_sde_of_the_toy_mixture(horizon: float, sde: float, terminal: float) -> None:
    process = VPProcess(TruncatedSchedule(horizon, BetaSchedule(1.0, 0.0, 0.1, 20.0)), 1.0)
    assert elbo.reverse_sde_kl(process, TOY) == pytest.approx(sde, rel=3e-5)
    quadrature = elbo.time_quadrature(process, 24, smallest_variance=0.01)
    bound = elbo.evidence_bound(process, TOY, np.zeros(24), quadrature)
    assert bound.terminal_kl == pytest.approx(terminal, rel=1e-5)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda p: elbo.time_quadrature(p, 0, smallest_variance=1.0), "n_nodes = 0: must"),
        (
            lambda p: elbo.time_quadrature(p, 4, smallest_variance=1e-6),
            r"n_nodes = 4: must be larger: over 7\.6 decades",
        ),
        (lambda p: elbo.time_quadrature(p, 3, smallest_variance=-1.0), "smallest_variance = -1.0:"),
        (lambda p: elbo.time_quadrature(p, 3, smallest_variance=0.0), "smallest_variance = 0.0: m"),
        (
            lambda p: elbo.time_quadrature(p, 3, smallest_variance=1.0, cutoff=0.6),
            "cutoff = 0.6: must lie",
        ),
        (lambda p: elbo.denoising_terms(p, TOY, 0.0), "cutoff = 0.0: must lie"),
        (
            lambda p: elbo.denoising_elbo(
                p, 1, 1.0, np.zeros(3), elbo.time_quadrature(p, 3, smallest_variance=1.0)
            ),
            "cutoff = 0.0: must be > 0",
        ),
        (
            lambda p: elbo.time_quadrature(p, 3, smallest_variance=1.0).integrate(np.zeros(4)),
            r"values has shape \(4,\)",
        ),
        (lambda p: elbo.reverse_sde_kl(p, LAW), "dimension = 2: must be 1"),
    ],
)
def test_values_out_of_range_are_named(build: Callable[[Process], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(PROCESSES["vp"])


def test_a_law_too_fine_for_the_panels_is_refused() -> None:
    narrow = GaussianMixture([0.5, 0.5], [[-1.0], [1.0]], [[1e-6], [1e-6]])
    with pytest.raises(ArithmeticError, match="has mass"):
        elbo.reverse_sde_kl(PROCESSES["vp"], narrow)


def test_the_mean_over_rows_is_that_of_the_law_with_less_noise() -> None:
    """E_p log q = E log p − KL(p ‖ q), for Gaussians in closed form."""
    wide = Gaussian.from_covariance([0.9, -0.5], [[1.2, 0.3], [0.3, 0.25]])
    x = LAW.sample(4000, np.random.default_rng(0))
    exact = elbo.mean_log_density(LAW) - kl_divergence(LAW, wide)
    mean, error = elbo.mean_over_rows(LAW, x, wide.log_density(x))
    plain, plain_error = elbo.mean_over_rows(None, x, wide.log_density(x))
    assert abs(mean - exact) < 4 * error
    assert abs(plain - exact) < 4 * plain_error
    assert error < plain_error / 2
    assert elbo.mean_over_rows(LAW, x, LAW.log_density(x)) == (elbo.mean_log_density(LAW), 0.0)
