"""The processes: their coefficients solve the SDE's moment equations."""

import numpy as np
import pytest

from sgm.gaussian import Gaussian
from sgm.processes import Process, VEProcess, VPProcess
from sgm.schedules import BetaSchedule, ConstantSchedule, CosineSchedule, GeometricSchedule

VARIANCES = [0.5, 1.0, 4.0]


def process(variance: float, a: float = 2.0) -> VPProcess:
    return VPProcess(BetaSchedule(1.5, a, 0.1, 20.0), variance)


def exploding() -> VEProcess:
    return VEProcess(GeometricSchedule(1.5, 0.01, 50.0))


@pytest.mark.parametrize("vp", [*map(process, VARIANCES), exploding()], ids=[*VARIANCES, "ve"])
def test_moments_solve_the_forward_equations(vp: Process) -> None:
    """m′ = drift · m and v′ = 2 drift · v + diffusion²; so does the pure noise's variance."""
    t, h = np.linspace(0.1, 1.4, 14), 1e-6
    m_slope = (vp.mean_scale(t + h) - vp.mean_scale(t - h)) / (2 * h)
    v_slope = (vp.kernel_variance(t + h) - vp.kernel_variance(t - h)) / (2 * h)
    np.testing.assert_allclose(m_slope, vp.drift(t) * vp.mean_scale(t), rtol=1e-6, atol=1e-9)
    rate = 2 * vp.drift(t) * vp.kernel_variance(t) + vp.diffusion(t) ** 2
    np.testing.assert_allclose(v_slope, rate, rtol=1e-5, atol=1e-8)
    w_slope = (vp.noise_variance(t + h) - vp.noise_variance(t - h)) / (2 * h)
    rate = 2 * vp.drift(t) * vp.noise_variance(t) + vp.diffusion(t) ** 2
    np.testing.assert_allclose(w_slope, rate, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("variance", VARIANCES)
def test_kernel_variance_keeps_its_digits_at_small_times(variance: float) -> None:
    vp = process(variance)
    t = np.array([1e-14, 1e-10, 1e-7])
    small = vp.schedule.integral(t)
    np.testing.assert_allclose(vp.kernel_variance(t), small - small**2 / (2 * variance), rtol=1e-12)
    np.testing.assert_allclose(vp.std(t) ** 2, vp.kernel_variance(t), rtol=1e-14)


@pytest.mark.parametrize("variance", VARIANCES)
def test_the_prior_is_stationary(variance: float) -> None:
    vp = process(variance)
    later = vp.marginal(vp.prior(3), np.array([0.0, 0.4, 1.5]))
    np.testing.assert_allclose(later.eigenvalues, variance, rtol=1e-14)
    np.testing.assert_array_equal(later.mean, 0.0)


def test_perturbed_samples_have_the_marginal_law() -> None:
    vp = VPProcess(CosineSchedule(1.0, 2.0, 0.008, 20.0), 2.0)
    law = Gaussian.from_covariance([1.0, -2.0], [[1.0, 0.6], [0.6, 0.5]])
    rng, n = np.random.default_rng(0), 200_000
    x = vp.perturb(law.sample(n, rng), np.full(n, 0.3), rng.standard_normal((n, 2)))
    marginal = vp.marginal(law, 0.3)
    sd = np.sqrt(marginal.eigenvalues.max())
    np.testing.assert_allclose(x.mean(axis=0), marginal.mean, atol=4.5 * sd / np.sqrt(n))
    np.testing.assert_allclose(
        np.cov(x, rowvar=False), marginal.covariance, atol=4.5 * np.sqrt(2 / n) * sd**2
    )


def test_perturb_uses_one_time_a_row() -> None:
    vp = process(1.0)
    x0, noise, t = np.ones((3, 2)), np.zeros((3, 2)), np.array([0.0, 0.5, 1.0])
    np.testing.assert_allclose(vp.perturb(x0, t, noise)[:, 1], vp.mean_scale(t))


def test_ve_is_the_limit_of_vp() -> None:
    """At σ² = 10⁸ the two processes driven by one schedule differ by B/σ²."""
    ve = VEProcess(ConstantSchedule(2.0, 3.0))
    vp, t = VPProcess(ve.schedule, 1e8), np.array([0.0, 1e-9, 0.5, 2.0])
    np.testing.assert_allclose(ve.mean_scale(t), vp.mean_scale(t), rtol=1e-7)
    np.testing.assert_allclose(ve.kernel_variance(t), vp.kernel_variance(t), rtol=1e-7)
    np.testing.assert_allclose(ve.drift(t), vp.drift(t), atol=1e-7)
    np.testing.assert_array_equal(ve.diffusion(t), vp.diffusion(t))


def test_ve_starts_from_the_noise_of_its_horizon() -> None:
    """N(0, B(T) I): the law of X_T for data at the origin, and not of other data."""
    ve = exploding()
    point = ve.marginal(Gaussian.diagonal(np.zeros(3), np.zeros(3)), 1.5)
    np.testing.assert_array_equal(ve.prior(3).eigenvalues, point.eigenvalues)
    assert ve.prior_variance == pytest.approx(2500 - 1e-4, rel=1e-12)
    data = ve.marginal(Gaussian.diagonal([1.0], [2.0]), 1.5)
    np.testing.assert_allclose(data.mean, 1.0)
    np.testing.assert_allclose(data.eigenvalues, ve.prior_variance + 2.0)


@pytest.mark.parametrize("variance", [0.0, -1.0, np.nan, np.inf])
def test_variance_out_of_range_is_named(variance: float) -> None:
    with pytest.raises(ValueError, match=f"variance = {variance}: must be"):
        VPProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), variance)


def test_a_schedule_made_for_another_variance_is_refused() -> None:
    cosine = CosineSchedule(1.0, 2.0, 0.008, 20.0)
    with pytest.raises(ValueError, match=r"variance = 1.0: must be 2.0"):
        VPProcess(cosine, 1.0)
    with pytest.raises(ValueError, match=r"variance = inf: must be 2.0"):
        VEProcess(cosine)
