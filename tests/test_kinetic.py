"""The kinetic process: its kernel, its sufficient statistic, and the exact laws of its schemes."""

from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import sgm
from sgm import laws, samplers, scores, targets, timegrids
from sgm.densities import GaussianMixture
from sgm.exact import exact_law
from sgm.gaussian import Gaussian, kl_divergence, wasserstein2
from sgm.kinetic import KineticProcess
from sgm.run.check import check
from sgm.schedules import BetaSchedule
from sgm.schedules.levels import EDMSchedule
from sgm.study import Study

Array = npt.NDArray[np.float64]

PARAMETERS = [(2.0, 0.0, 2**0.5, 0.01), (0.5, 0.3, 2.8, 0.1), (1.0, 1.0, 1.0, 1.0)]
SCHEMES = {name: getattr(samplers, name) for name in samplers.kinetic.__all__}


def process(
    parameters: tuple[float, float, float, float] = PARAMETERS[1],
    a: float = 1.5,
    horizon: float = 1.3,
) -> KineticProcess:
    return KineticProcess(BetaSchedule(horizon, a, 0.1, 6.0), *parameters)


def forward(kinetic: KineticProcess) -> tuple[Array, Array]:
    """A and D, as the SDE has them."""
    a = kinetic.damping
    noise = np.diag([kinetic.position_noise**2, kinetic.velocity_noise**2])
    return np.array([[0.0, a**2], [-1.0, -2 * a]]), noise


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_kernel_solves_the_moment_equations(
    parameters: tuple[float, float, float, float],
) -> None:
    """m is a matrix exponential, C solves C′ = A C + C Aᵀ + D in the clock, from diag(0, v₀)."""
    kinetic = process(parameters)
    drift, noise = forward(kinetic)
    t = np.array([1e-3, 0.2, 1.3])
    m, covariance = kinetic.kernel(t)
    for place, clock in enumerate(kinetic.schedule.integral(t)):
        np.testing.assert_allclose(m[place], expm(clock * drift)[:, 0], rtol=1e-12)
        start = np.diag([0.0, kinetic.velocity_variance]).ravel()

        def slope(_: float, y: Array) -> Array:
            c = y.reshape(2, 2)
            return (drift @ c + c @ drift.T + noise).ravel()

        solved = solve_ivp(slope, (0, clock), start, rtol=1e-11, atol=1e-16)
        np.testing.assert_allclose(covariance[place], solved.y[:, -1].reshape(2, 2), rtol=1e-8)
    still = kinetic.stationary
    np.testing.assert_allclose(drift @ still + still @ drift.T, -noise, atol=1e-15)


def test_dockhorns_convention() -> None:
    """Mass 1/a², critical friction 2/a: positions N(0, 1), velocities N(0, mass)."""
    kinetic = process((2.0, 0.0, 2**0.5, 0.01))
    np.testing.assert_allclose(kinetic.stationary, np.diag([1.0, 0.25]), rtol=1e-15)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_reversed_stationary_process(parameters: tuple[float, float, float, float]) -> None:
    kinetic = process(parameters)
    still, (drift, _) = kinetic.stationary, forward(kinetic)
    for clock in (1e-3, 0.4, 3.0):
        flow, gained = kinetic.backward_transition(clock)
        np.testing.assert_allclose(
            flow, still @ expm(clock * drift).T @ np.linalg.inv(still), rtol=1e-10, atol=1e-14
        )
        np.testing.assert_allclose(gained, still - flow @ still @ flow.T, rtol=1e-4, atol=1e-14)


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_the_score_of_pairs_is_that_of_the_statistic(
    parameters: tuple[float, float, float, float],
) -> None:
    """Against differences of the density of the pairs, a mixture of Gaussians in the plane."""
    kinetic = process(parameters)
    weights, means, variances = np.array([0.3, 0.7]), np.array([-1.0, 1.5]), np.array([0.2, 0.5])
    law = GaussianMixture(weights, means[:, None], variances[:, None])
    t = 0.4
    m, covariance = kinetic.kernel(t)

    def log_density(u: Array) -> float:
        parts = []
        for weight, mean, variance in zip(weights, means, variances, strict=True):
            total, gap = variance * np.outer(m, m) + covariance, u - mean * m
            exponent = gap @ np.linalg.solve(total, gap)
            parts.append(np.log(weight) - (exponent + np.log(np.linalg.det(total))) / 2)
        return np.logaddexp(*parts)

    c, rest = kinetic.projection(t)
    score = scores.exact(kinetic, law)
    for u in ([0.3, -0.4], [-0.8, 0.5], [1.2, -1.0]):
        u, h = np.array(u), 1e-5
        differences = [(log_density(u + e) - log_density(u - e)) / (2 * h) for e in h * np.eye(2)]
        joint = -rest @ u + c * score(np.array([[c @ u]]), t)[0]
        np.testing.assert_allclose(joint, differences, rtol=1e-6)


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("clock", [1e-8, 1e-3, 1.0, 40.0, 900.0])
def test_the_statistic_keeps_its_digits(
    parameters: tuple[float, float, float, float], clock: float
) -> None:
    """m̃, ṽ and c against 60 digits: C is singular at first, m vanishes at last."""
    kinetic = KineticProcess(BetaSchedule(clock, 0.0, 1.0, 1.0), *parameters)
    with mpmath.workdps(600):
        a, eps, sigma, v0 = map(mpmath.mpf, parameters)
        h = kinetic.schedule.integral(clock).item()
        drift = mpmath.matrix([[0, a**2], [-1, -2 * a]])
        flow = mpmath.exp(-a * h) * (mpmath.eye(2) + h * (drift + a * mpmath.eye(2)))
        still = mpmath.matrix(
            [
                [(5 * eps**2 / a + a * sigma**2) / 4, -(eps**2) / (2 * a**2)],
                [-(eps**2) / (2 * a**2), (eps**2 / a + a * sigma**2) / (4 * a**2)],
            ]
        )
        m, g = flow[:, 0], flow[:, 1]
        covariance = still - flow * still * flow.T + v0 * g * g.T
        along = covariance**-1 * m
        level = 1 / (m.T * along)[0]
        scale = 1 / mpmath.sqrt(1 + level / still[0, 0])
        expected = [scale, level * scale**2, *(scale * level * along)]
        expected = [float(x) for x in expected]
    found = [
        kinetic.mean_scale(clock),
        kinetic.kernel_variance(clock),
        *kinetic.projection(clock)[0],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_at_time_zero_the_statistic_is_the_position() -> None:
    c, rest = process().projection(0.0)
    np.testing.assert_array_equal(c, [1.0, 0.0])
    np.testing.assert_allclose(rest, [[0.0, 0.0], [0.0, 1 / 0.1]], rtol=1e-14)
    assert (process().mean_scale(0.0), process().kernel_variance(0.0)) == (1.0, 0.0)


LAW = Gaussian.diagonal(np.array([0.8, -0.3]), np.array([0.05, 2.0]))


def test_the_mixing_error_is_that_of_two_gaussians() -> None:
    kinetic = process()
    mean, covariance = kinetic.joint_law(LAW, kinetic.horizon)
    prior = Gaussian.from_covariance([0.0, 0.0], kinetic.stationary)
    pairs = [Gaussian.from_covariance(*pair) for pair in zip(mean, covariance, strict=True)]
    expected = sum(float(kl_divergence(pair, prior)) for pair in pairs)
    assert kinetic.terminal_kl(LAW) == pytest.approx(expected, rel=1e-10)


def brute_force(kinetic: KineticProcess, name: str, times: Array) -> Gaussian:
    """The law of x by a loop over full pairs, from the SDE and the exact score alone."""
    drift, noise = forward(kinetic)
    still = kinetic.stationary
    means, variances = [], []
    for mu, lam in zip(LAW.mean, LAW.eigenvalues, strict=True):

        def score(t: float, mu: float = mu, lam: float = lam) -> tuple[Array, Array]:
            """A and b of the score of pairs."""
            m, covariance = kinetic.kernel(t)
            slope = -np.linalg.inv(lam * np.outer(m, m) + covariance)
            return slope, -slope @ m * mu  # type: ignore[return-value]

        center, covariance = np.zeros(2), still
        for start, stop in pairwise(times):
            slope, offset = score(start)
            middle = (start + stop) / 2
            first, whole = (
                float(np.subtract(*kinetic.schedule.integral([start, end])))
                for end in (middle, stop)
            )
            if name == "kinetic_euler_maruyama":
                h = (start - stop) * float(kinetic.schedule.beta(start))
                moves = [(np.eye(2) + h * (noise @ slope - drift), h * noise @ offset, h * noise)]
            elif name == "sscs":
                halves = []
                for clock in (first, whole - first):
                    flow = still @ expm(clock * drift).T @ np.linalg.inv(still)
                    halves.append((flow, np.zeros(2), still - flow @ still @ flow.T))
                kick = np.eye(2) + whole * noise @ (slope + np.linalg.inv(still))
                moves = [halves[0], (kick, whole * noise @ offset, 0 * still), halves[1]]
            else:
                (m, later), (m_next, earlier) = kinetic.kernel(start), kinetic.kernel(stop)
                flow = expm(whole * drift)
                gain = earlier @ flow.T @ np.linalg.inv(later)
                # E[X₀ | u] = λ mᵀ V⁻¹ (u − m μ) + μ
                pull = -lam * m @ slope
                towards = m_next - gain @ m
                moves = [
                    (
                        gain + np.outer(towards, pull),
                        towards * (mu - pull @ m * mu),
                        earlier - gain @ flow @ earlier,
                    )
                ]
            for factor, shift, gained in moves:
                center = factor @ center + shift
                covariance = factor @ covariance @ factor.T + gained
        means.append(center[0])
        variances.append(covariance[0, 0])
    return Gaussian.diagonal(means, variances)


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("name", SCHEMES)
def test_exact_laws_are_those_of_a_loop_over_pairs(
    name: str, parameters: tuple[float, float, float, float]
) -> None:
    kinetic, times = process(parameters), timegrids.quadratic(1.3, 15)
    steps = SCHEMES[name](kinetic, times)
    assert (steps.n_steps, steps.nfe) == (15, 15)
    law = laws.sampler_law(steps, scores.exact(kinetic, LAW), kinetic.prior(2))
    expected = brute_force(kinetic, name, times)
    np.testing.assert_allclose(law.mean, expected.mean, rtol=1e-7)
    np.testing.assert_allclose(law.eigenvalues, expected.eigenvalues, rtol=1e-7)


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_tends_to_the_backward_sde(name: str) -> None:
    """To X₀ given pairs of the stationary law at T, with weak order 1."""
    kinetic = process()
    m, covariance = kinetic.kernel(kinetic.horizon)
    means, variances = [], []
    for mu, lam in zip(LAW.mean, LAW.eigenvalues, strict=True):
        gain = lam * m @ np.linalg.inv(lam * np.outer(m, m) + covariance)
        means.append(mu - gain @ m * mu)
        variances.append(lam - lam * gain @ m + gain @ kinetic.stationary @ gain)
    limit = laws.reverse_sde_limit(kinetic, LAW)
    np.testing.assert_allclose(limit.mean, means, rtol=1e-12)
    np.testing.assert_allclose(limit.eigenvalues, variances, rtol=1e-12)
    errors = [
        float(wasserstein2(limit, exact_law(LAW, kinetic, SCHEMES[name], n))) for n in (1000, 4000)
    ]
    assert np.log(errors[0] / errors[1]) / np.log(4) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("name", SCHEMES)
def test_damping_and_clock_are_one_choice(name: str) -> None:
    """β → cβ is a → ca, σ/√c, ε√c, v₀/c²."""
    c, (a, eps, sigma, v0) = 3.0, PARAMETERS[1]
    faster = KineticProcess(BetaSchedule(1.0, 2.0, 0.1 * c, 6.0 * c), a, eps, sigma, v0)
    heavier = KineticProcess(
        BetaSchedule(1.0, 2.0, 0.1, 6.0), c * a, c**0.5 * eps, c**-0.5 * sigma, v0 / c**2
    )
    one, other = (exact_law(LAW, p, SCHEMES[name], 20) for p in (faster, heavier))
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-10)
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, rtol=1e-10)


def test_hybrid_score_matching_is_a_weighted_loss_of_the_statistic() -> None:
    """|s_v/ℓ + ε_v|² of a network of pairs, row by row, with what it says of y alone."""
    kinetic, rng = process(), np.random.default_rng(0)
    t = np.array([1e-4, 0.03, 0.5, 1.3])
    x0, noise = rng.standard_normal(4), rng.standard_normal((4, 2))
    m, covariance = kinetic.kernel(t)
    lower = np.linalg.cholesky(covariance)
    pairs = m * x0[:, None] + np.einsum("tij,tj->ti", lower, noise)
    c, rest = kinetic.projection(t)
    y = np.sum(c * pairs, axis=-1)
    learned = np.sin(3 * y)  # whatever a network says
    velocity = -np.einsum("ti,ti->t", rest[:, 1], pairs) + c[:, 1] * learned
    hybrid = (velocity * lower[:, 1, 1] + noise[:, 1]) ** 2  # 1/ℓ is the last pivot
    z = (y - kinetic.mean_scale(t) * x0) / kinetic.std(t)
    denoising = kinetic.hybrid_weight(t) * (learned + z / kinetic.std(t)) ** 2
    np.testing.assert_allclose(hybrid, denoising, rtol=1e-8)


def test_huge_and_tiny_numbers_are_laws_or_refused() -> None:
    law = targets.isotropic(dimension=2, mean=1.0, variance=0.5)
    for parameters in ((1e-6, 0.0, 1.0, 1.0), (1e6, 0.0, 1.0, 1e-15), (1.0, 1e4, 1e-4, 1e6)):
        kinetic = process(parameters)
        for scheme in SCHEMES.values():
            for n in (1, 7):
                generated = exact_law(law, kinetic, scheme, n)
                assert not np.any(np.isnan(generated.eigenvalues))
    with pytest.raises(ValueError, match="damping = 1e"):
        process((1e200, 0.0, 1.0, 1.0))


@pytest.mark.parametrize("key", ["damping", "velocity_noise", "velocity_variance"])
def test_parameters_must_be_positive(key: str) -> None:
    with pytest.raises(ValueError, match=key):
        KineticProcess(BetaSchedule(1.0, 0.0, 0.1, 20.0), **{key: 0.0})


def test_what_is_of_another_process_is_refused() -> None:
    kinetic = process()
    with pytest.raises(ValueError, match="must be kinetic"):
        samplers.sscs(sgm.processes.VPProcess(kinetic.schedule, 1.0), [1.0, 0.0])
    with pytest.raises(ValueError, match="must be a number"):
        sgm.exact_kl(LAW, kinetic)
    with pytest.raises(ValueError, match="must be a β of any process"):
        KineticProcess(EDMSchedule(1.0, 1.0, 0.002, 80.0, 7.0))
    for refused in (kinetic.drift, kinetic.diffusion):
        with pytest.raises(ValueError, match="of pairs"):
            refused(0.1)


STUDY = {
    "study": "kinetic",
    "process": {"family": "kinetic"},
    "targets": [{"family": "isotropic", "dimension": 2, "mean": 1.0, "variance": 0.5}],
    "schedules": [{"family": "beta_a", "a": [0, 5], "beta_min": 0.1, "beta_max": 20.0}],
    "scores": [{"family": "exact", "sampled": False}],
    "samplers": ["sscs"],
    "n_steps": [5],
}


PICTURES = {"schedules": ["beta_a=0"], "rows": 2, "times": [1.0], "coordinates": [0]}


def trained(**recipe: Any) -> dict[str, Any]:
    return {"scores": [{"family": "trained", "recipe": {"output": "noise"} | recipe}]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samplers": ["heun"]}, r"samplers: 'heun': must be one of .*sscs.* for the process kin"),
        ({"process": "vp"}, "samplers: 'sscs': must be a scheme of vp and ve for the process vp"),
        ({"bounds": ["kl_sde"]}, "'kl_sde' needs the stationary law of the process vp"),
        ({"bounds": ["w2_one_step"]}, "bounds: must be left out for the process kinetic"),
        ({"pictures": PICTURES}, "pictures: must be left out for the process kinetic"),
        (
            {"time_grids": [{"family": "arctangent", "scale": 1.0}]},
            "time_grids: 'arctangent.*': must be uniform",
        ),
        (trained(output="relative"), "output = 'relative' of 'trained': must be another"),
        (trained(time_input="log_noise"), "time_input = 'log_noise' of 'trained'"),
        (
            {"process": "vp", "samplers": ["heun"]} | trained(weight="hybrid"),
            "weight = 'hybrid' of 'trained': must be another for the process vp",
        ),
        ({"process": {"family": "kinetic", "damping": 0}}, "damping"),
        (
            {"schedules": [{"family": "cosine", "offset": 0.01, "clip": 20.0}]},
            "schedules: cosine: variance = inf",
        ),
    ],
)
def test_a_study_says_what_does_not_fit(change: dict[str, Any], message: str) -> None:
    check(Study.parse(STUDY))
    with pytest.raises(ValueError, match=message):
        check(Study.parse(STUDY | change))
