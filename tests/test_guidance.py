"""Posteriors and scores that approximate theirs: closed forms, quadrature, draws, mechanics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from scipy import integrate

from sgm import guidance, laws, samplers, scores, targets, timegrids
from sgm.gaussian import Gaussian, kl_divergence
from sgm.processes import Process, VEProcess, VPProcess
from sgm.run.build import build, build_target
from sgm.run.check import check
from sgm.schedules import BetaSchedule, GeometricSchedule
from sgm.study import Study
from sgm.study.config import json_schema
from sgm.study.specs import _addresses, files
from sgm.targets import LawTarget

Array = npt.NDArray[np.float64]

PRIOR = targets.correlated(dimension=4, mean=1.0, offset=1.0)
MIXED = [[1.0, 0.5, 0.0, -0.3], [0.0, 1.0, 2.0, 0.7]]
PROCESSES = {
    "vp": VPProcess(BetaSchedule(1.0, 1.0, 0.1, 20.0), 1.3),
    "ve": VEProcess(GeometricSchedule(1.0, 0.01, 20.0)),
}
RING = targets.ring_mixture(modes=5, radius=2.0, variance=0.1)
METHODS = {
    "dps": guidance.dps,
    "pigdm": guidance.pigdm,
    "moment_guidance": guidance.moment_guidance,
    "replacement": guidance.replacement,
    "classifier_free": partial(guidance.classifier_free, weight=1.5),
}


def posterior(observed: Any = (0, 2), **keys: Any) -> targets.LawTarget:
    return targets.posterior(PRIOR, list(observed), noise=0.2, **keys)


# --- the target --------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [[0, 2], MIXED], ids=["coordinates", "matrix"])
def test_a_gaussian_posterior_is_that_of_the_joint_precision(
    observed: list[int] | list[list[float]],
) -> None:
    y = [0.3, -1.2]
    law = posterior(observed, observation=y).law
    h = np.eye(4)[observed] if np.ndim(observed) == 1 else np.array(observed)
    precision = np.linalg.inv(PRIOR.law.covariance) + h.T @ h / 0.2
    covariance = np.linalg.inv(precision)
    mean = covariance @ (np.linalg.solve(PRIOR.law.covariance, PRIOR.law.mean) + h.T @ y / 0.2)
    np.testing.assert_allclose(law.covariance, covariance, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(law.mean, mean, rtol=1e-10)


@pytest.mark.parametrize("observed", [[1], [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]])
def test_a_mixture_posterior_is_prior_times_likelihood(
    observed: list[int] | list[list[float]],
) -> None:
    mixture = targets.mixture(
        [0.3, 0.5, 0.2], [[0, 1, 2, 3], [1, 0, 1, 0], [2, 2, 2, 2]], [0.2, 1.0, 0.5]
    )
    law = targets.posterior(mixture, observed, 0.3, [0.4] * len(observed)).law
    h = np.eye(4)[observed] if np.ndim(observed) == 1 else np.array(observed)
    x = np.random.default_rng(0).standard_normal((20, 4))
    bayes = mixture.law.log_density(x) - np.sum((0.4 - x @ h.T) ** 2, axis=1) / 0.6
    np.testing.assert_allclose(np.ptp(law.log_density(x) - bayes), 0.0, atol=1e-10)


def test_one_observation_after_another_is_both_at_once() -> None:
    y = [0.3, -1.2]
    at_once = posterior(observation=y).law
    first = targets.posterior(PRIOR, [0], 0.2, y[:1])
    after = targets.posterior(first, [2], 0.2, y[1:]).law
    np.testing.assert_allclose(after.mean, at_once.mean, rtol=1e-10)
    np.testing.assert_allclose(after.covariance, at_once.covariance, rtol=1e-10, atol=1e-14)


def test_products_and_rescaled_mixtures_are_mixtures() -> None:
    grid = targets.grid_mixture(dimension=4, side=3, variance=0.02, rest_variance=0.3)
    small = grid.rescaled(center=True, scale=2.0)
    law = targets.posterior(small, [0, 3], 0.1, [0.2, 0.1]).law
    x = 0.5 * np.random.default_rng(0).standard_normal((20, 4))
    bayes = small.law.log_density(x) - np.sum((x[:, [0, 3]] - [0.2, 0.1]) ** 2, axis=1) / 0.2
    np.testing.assert_allclose(np.ptp(law.log_density(x) - bayes), 0.0, atol=1e-9)


def test_what_is_drawn_is_an_observation_of_the_prior() -> None:
    """Over many seeds, y has mean Hμ and covariance HΣHᵀ + r."""
    drawn = np.array([posterior(observation_seed=k).law.observation.value for k in range(400)])
    spread = PRIOR.law.covariance[np.ix_([0, 2], [0, 2])] + 0.2 * np.eye(2)
    whitened = np.linalg.solve(np.linalg.cholesky(spread), (drawn - 1.0).T)
    assert np.all(np.abs(whitened.mean(axis=1)) < 5 / 20)
    assert np.max(np.abs(np.cov(whitened) - np.eye(2))) < 5 * np.sqrt(2 / 400)
    np.testing.assert_array_equal(drawn[0], posterior().law.observation.value)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"prior": targets.funnel(2, 1.0, 0.5), "observed": [0]}, "prior: law = Funnel: must be"),
        ({"observed": [0, 4]}, r"observed = \[0, 4\]: must be distinct coordinates from 0 to 3"),
        ({"observed": [1, 1]}, "must be distinct"),
        ({"observed": [0.5]}, "must be distinct"),
        ({"observed": []}, "must be distinct"),
        ({"observed": [[1.0, 2.0]]}, "lists of 4 numbers"),
        ({"observed": [[0.0] * 4]}, "none all zero"),
        ({"noise": 0.0}, "noise = 0.0: must be"),
        ({"noise": 1e-18}, "noise = 1e-18: must leave a posterior"),
        ({"observation": [1.0]}, r"observation = \[1.0\]: must be 2 finite numbers"),
        ({"observation": [1.0, np.nan]}, "must be 2 finite numbers"),
        ({"prior": RING, "observed": [[1.0, 1.0]]}, "must be coordinates, or lists with a single"),
    ],
)
def test_what_is_no_observation_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        targets.posterior(**{"prior": PRIOR, "observed": [0, 2], "noise": 0.1} | keys)


# --- the scores --------------------------------------------------------------------------


@pytest.mark.parametrize("observed", [[0, 2], MIXED], ids=["coordinates", "matrix"])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_moment_guidance_is_exact_for_a_gaussian_prior(
    process: Process, observed: list[int] | list[list[float]]
) -> None:
    law = posterior(observed).law
    guided, exact = guidance.moment_guidance(process, law), scores.exact(process, law)
    x = 3 * np.random.default_rng(0).standard_normal((7, 4))
    for t in (0.0, 1e-6, 0.01, 0.4, 1.0):
        expected = exact(x, t)
        np.testing.assert_allclose(guided(x, t), expected, atol=1e-10 * np.abs(expected).max())
    mse, cross = guided.error_moments(law, np.array([0.0, 0.3, 1.0]))
    assert np.all(mse < 1e-20)
    assert np.all(np.abs(cross) < 1e-9)


@pytest.mark.parametrize("prior", [PRIOR, RING], ids=["gaussian", "mixture"])
@pytest.mark.parametrize("t", [0.02, 0.3, 0.9])
def test_dps_is_the_gradient_of_the_likelihood_of_the_denoised(prior: LawTarget, t: float) -> None:
    """Differences of log N(y; H x̂₀(x), r), x̂₀ by Tweedie from the prior's score alone."""
    law = targets.posterior(prior, [0], 0.2, [0.7]).law
    vp, h = PROCESSES["vp"], 1e-4
    m, v = vp.mean_scale(t), vp.kernel_variance(t)

    def likelihood(x: Array) -> Array:
        denoised = (x + v * prior.law.score(x, m, v)) / m
        return -((0.7 - denoised[..., 0]) ** 2) / 0.4

    x = 2 * np.random.default_rng(1).standard_normal((6, prior.dimension))
    step = h * np.eye(prior.dimension)
    gradient = (likelihood(x[:, None] + step) - likelihood(x[:, None] - step)) / (2 * h)
    found = guidance.dps(vp, law, weight=1.7)(x, t) - prior.law.score(x, m, v)
    np.testing.assert_allclose(found, 1.7 * gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("t", [0.05, 0.5])
def test_the_covariance_of_a_denoised_mixture_is_that_by_quadrature(t: float) -> None:
    """`moment_guidance` = ∇log p_t + J Hᵀ(H C Hᵀ + r)⁻¹(y − H x̂₀), moments on a grid of x₀."""
    vp, y, r = PROCESSES["vp"], 0.7, 0.2
    law = targets.posterior(RING, [0], r, [y]).law
    m, v = float(vp.mean_scale(t)), float(vp.kernel_variance(t))
    x = np.array([0.4, -0.9])
    axis = np.linspace(-4.5, 4.5, 241)
    nodes = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    weight = RING.law.log_density(nodes) - np.sum((x - m * nodes) ** 2, axis=1) / (2 * v)
    weight = np.exp(weight - weight.max())
    weight /= weight.sum()
    mean = weight @ nodes
    covariance = (weight * (nodes - mean).T) @ (nodes - mean)
    score = (m * mean - x) / v
    gain = m / v * covariance[:, 0] / (covariance[0, 0] + r)
    found = guidance.moment_guidance(vp, law)(x, t)
    np.testing.assert_allclose(found, score + gain * (y - mean[0]), rtol=1e-7)


def test_pigdm_is_exact_for_an_isotropic_prior() -> None:
    """Its own assumption: the paper's r_t² = σ²/(1 + σ²) at s = 1, for any s here."""
    law = targets.posterior(targets.isotropic(3, 0.5, 2.0), MIXED_3, 0.2).law
    vp, x = PROCESSES["vp"], np.random.default_rng(0).standard_normal((5, 3))
    for t in (0.0, 0.2, 1.0):
        expected = scores.exact(vp, law)(x, t)
        np.testing.assert_allclose(guidance.pigdm(vp, law)(x, t), expected, rtol=1e-9)


MIXED_3 = [[1.0, 0.5, -0.3]]


def test_replacement_is_exact_where_coordinates_are_independent() -> None:
    law = targets.posterior(targets.isotropic(3, 0.5, 2.0), [1], 0.2).law
    vp, x = PROCESSES["vp"], np.random.default_rng(0).standard_normal((5, 3))
    found, exact = guidance.replacement(vp, law), scores.exact(vp, law)
    np.testing.assert_allclose(found(x, 0.3)[:, [0, 2]], exact(x, 0.3)[:, [0, 2]], rtol=1e-12)
    # the observed one follows N(y, r), which knows nothing of its prior
    m, v = vp.mean_scale(0.3), vp.kernel_variance(0.3)
    y = law.observation.value
    np.testing.assert_allclose(found(x, 0.3)[:, 1], -(x[:, 1] - m * y) / (m**2 * 0.2 + v))
    correlated = posterior().law
    assert guidance.replacement(vp, correlated).error_moments(correlated, np.array(0.3))[0] > 0.1


def test_weight_zero_samples_the_prior() -> None:
    law, vp = posterior(MIXED).law, PROCESSES["vp"]
    x = np.random.default_rng(0).standard_normal((5, 4))
    for method in ("dps", "pigdm", "moment_guidance"):
        np.testing.assert_array_equal(
            METHODS[method](vp, law, weight=0.0)(x, 0.3),
            METHODS["dps"](vp, law, weight=0.0)(x, 0.3),
        )
    expected = scores.exact(vp, PRIOR.law)(x, 0.3)
    np.testing.assert_allclose(guidance.dps(vp, law, weight=0.0)(x, 0.3), expected, rtol=1e-10)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_affine_scores_are_their_coefficients_at_all_times(process: Process, method: str) -> None:
    score = METHODS[method](process, posterior().law)
    times = np.array([0.0, 1e-9, 0.2, 1.0])
    matrix, offset = score.coefficients(times)
    x = np.random.default_rng(0).standard_normal((6, 4))
    for a, b, t in zip(matrix, offset, times, strict=True):
        found = score(x, t)
        np.testing.assert_allclose(x @ a.T + b, found, atol=1e-11 * np.abs(found).max())
    together = score(np.repeat(x[:1], 4, axis=0), times)  # a time a row
    np.testing.assert_allclose(together, (matrix @ x[0]) + offset, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("prior", [PRIOR, RING], ids=["gaussian", "mixture"])
def test_scores_stay_finite_where_no_signal_is_left(method: str, prior: LawTarget) -> None:
    """m = e^{-1000} is 0 in float64, v/m infinite; the score is that of the noise."""
    far = VPProcess(BetaSchedule(1.0, 0.0, 0.1, 2000.0), 1.0)
    law = targets.posterior(prior, [0], 0.2).law
    x = np.random.default_rng(0).standard_normal((4, prior.dimension))
    np.testing.assert_allclose(METHODS[method](far, law)(x, 1.0), -x, rtol=1e-12)


@pytest.mark.parametrize("method", ["dps", "replacement", "classifier_free"])
@pytest.mark.parametrize("process", PROCESSES.values(), ids=PROCESSES)
def test_error_moments_are_those_of_draws(process: Process, method: str) -> None:
    law, times = posterior([0] if method == "replacement" else MIXED[:1]).law, [0.05, 0.6]
    rng = np.random.default_rng(0)
    score, exact = METHODS[method](process, law), scores.exact(process, law)
    for t, mse, cross in zip(times, *score.error_moments(law, np.array(times)), strict=True):
        x = process.marginal(law, t).sample(40_000, rng)
        error, modified = score(x, t) - exact(x, t), exact(x, t) + x / process.variance
        for stated, drawn in (
            (mse, np.sum(error**2, axis=1)),
            (cross, np.sum(error * modified, axis=1)),
        ):
            assert abs(stated - drawn.mean()) < 5 * drawn.std() / 200


def test_the_error_of_a_guided_mixture_is_not_known() -> None:
    law = targets.posterior(RING, [0], 0.2).law
    score = guidance.dps(PROCESSES["vp"], law)
    assert np.isnan(score.error_moments(law, np.array([0.1, 0.2]))[0]).all()
    with pytest.raises(ValueError, match="must be Gaussian"):
        score.coefficients(0.1)


@pytest.mark.parametrize(
    ("score", "said"),
    [
        (lambda: guidance.dps(PROCESSES["vp"], PRIOR.law), "law = Gaussian: must be that of a"),
        (
            lambda: guidance.dps(PROCESSES["vp"], posterior().rescaled(True, 2.0).law),
            "not rescaled",
        ),
        (lambda: guidance.dps(PROCESSES["vp"], posterior().law, np.inf), "weight = inf"),
        (
            lambda: guidance.replacement(PROCESSES["vp"], posterior(MIXED).law),
            "must be coordinates",
        ),
        (
            lambda: guidance.dps(PROCESSES["vp"], posterior().law).error_moments(PRIOR.law, 0.1),
            "must be the law of the score itself",
        ),
    ],
)
def test_what_is_no_guidance_is_refused(score: Callable[[], object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        score()


# --- classifier-free guidance ------------------------------------------------------------


@pytest.mark.parametrize("prior", [PRIOR, RING], ids=["gaussian", "mixture"])
def test_guidance_claims_the_target_whatever_its_weight(prior: LawTarget) -> None:
    """At t = 0 its score is the target's; at w = 0 at all times; in between it is not."""
    law, vp = targets.posterior(prior, [0], 0.2, [0.7]).law, PROCESSES["vp"]
    x = np.random.default_rng(0).standard_normal((5, prior.dimension))
    exact = scores.exact(vp, law)
    for weight in (0.0, 0.5, 3.0):
        guided = guidance.classifier_free(vp, law, weight)
        np.testing.assert_allclose(guided(x, 0.0), exact(x, 0.0), rtol=1e-9, atol=1e-9)
        gap = np.max(np.abs(guided(x, 0.2) - exact(x, 0.2)))
        assert gap < 1e-12 if weight == 0 else gap > 0.05


@pytest.mark.parametrize("gamma", [1.0, 2.0, 3.5])
def test_guided_variances_are_those_of_bradley_and_nakkiran(gamma: float) -> None:
    """arXiv 2408.09000: x ~ N(0, 2), x | c = 0 ~ N(0, 1), VE with no end to the noise.

    The flow ends at variance 2^{1−γ}, the SDE at (2 − 2^{2−2γ})/(2γ − 1), the tilted law has
    2/(γ + 1): derived from the affine score γ/(1 + τ) − (γ − 1)/(2 + τ) as integrals over τ.
    """
    ve = VEProcess(GeometricSchedule(1.0, 1e-3, 300.0))
    # N(0, 2) observed with variance 2 is N(0, 1); the target sees y with 2/γ
    law = targets.posterior(targets.isotropic(1, 0.0, 2.0), [0], 2 / gamma, [0.0]).law
    np.testing.assert_allclose(law.covariance, [[2 / (gamma + 1)]])
    score = guidance.classifier_free(ve, law, gamma - 1)
    times = timegrids.uniform(1.0, 600)

    def variance(steps: samplers.Steps) -> float:
        return laws.affine_law(steps, score.coefficients, ve.prior(1)).eigenvalues[0]

    flow = variance(samplers.heun(ve, times))
    np.testing.assert_allclose(flow, 2 ** (1 - gamma), rtol=5e-3)
    sde = variance(samplers.ddim(ve, times, eta=1.0))
    np.testing.assert_allclose(sde, (2 - 2 ** (2 - 2 * gamma)) / (2 * gamma - 1), rtol=4e-2)


@pytest.mark.parametrize("weight", [0.0, 1.0, 5.0])
def test_a_tilted_class_is_its_density_noised_by_quadrature(weight: float) -> None:
    """p(x | c) p(c | x)^w of two modes, convolved with the noise of every size, by `quad`."""
    prior = targets.two_modes()
    law = targets.tilted(prior, 0, weight).law
    component = targets.isotropic(1, 1.0, 0.01).law

    def tilted(x: float) -> float:
        own = component.log_density(np.array([[x]]))[0]
        mixture = prior.law.log_density(np.array([[x]]))[0]
        return np.exp(own + weight * (np.log(0.3) + own - mixture))

    def integral(f: Callable[[float], float], *points: float) -> float:
        limits = {"epsabs": 1e-14, "epsrel": 1e-11, "limit": 400}
        return integrate.quad(f, 0.0, 2.2, points=sorted({0.8, 1.0, 1.2, *points}), **limits)[0]

    mass = integral(tilted)
    assert law.acceptance == pytest.approx(mass, rel=1e-10)
    mean = integral(lambda x: x * tilted(x)) / mass
    assert law.mean[0] == pytest.approx(mean, rel=1e-10)
    variance = integral(lambda x: (x - mean) ** 2 * tilted(x)) / mass
    assert law.covariance[0, 0] == pytest.approx(variance, rel=1e-9)
    switch = (0.8 * law._step) ** 2  # from nearby sums to those of the grid

    def joint(z: float, y: float, m: float, v: float) -> float:
        return tilted(z) * np.exp(-((y - m * z) ** 2) / (2 * v))

    for m, v in ((1.0, 1e-6), (0.8, 0.99 * switch), (0.8, 1.01 * switch), (0.5, 0.3), (1e-3, 1.0)):
        x = np.array([[m * 0.9], [m * 1.1 + np.sqrt(v)]])
        noised = [
            integral(partial(joint, y=y, m=m, v=v), float(np.clip(y / m, 0.1, 2.1)))
            for y in x[:, 0]
        ]
        expected = np.array(noised) / mass / np.sqrt(2 * np.pi * v)
        np.testing.assert_allclose(np.exp(law.log_density(x, m, v)), expected, rtol=1e-7)
        h = 1e-3 * np.sqrt(v + 0.01 * m**2)
        slope = (law.log_density(x + h, m, v) - law.log_density(x - h, m, v)) / (2 * h)
        np.testing.assert_allclose(law.score(x, m, v)[:, 0], slope, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(law.score(x, np.full(2, m), np.full(2, v)), law.score(x, m, v))


def test_a_tilted_class_without_a_rival_along_one_axis_is_its_product() -> None:
    """In the plane: two modes that differ in x₁ alone leave x₂ as it is, and independent."""
    line = targets.mixture([0.5, 0.5], [-1.0, 1.0], [0.25, 0.25])
    plane = targets.mixture([0.5, 0.5], [[-1.0, 0.3], [1.0, 0.3]], [0.25, 0.25])
    one, two = (targets.tilted(prior, 1, 3.0).law for prior in (line, plane))
    rest = targets.isotropic(1, 0.3, 0.25).law
    x = np.random.default_rng(0).standard_normal((6, 2))
    for m, v in ((1.0, 1e-5), (0.7, 0.5)):
        apart = one.log_density(x[:, :1], m, v) + rest.log_density(x[:, 1:], m, v)
        np.testing.assert_allclose(two.log_density(x, m, v), apart, rtol=1e-7)
        scores_apart = [one.score(x[:, :1], m, v), rest.score(x[:, 1:], m, v)]
        np.testing.assert_allclose(two.score(x, m, v), np.hstack(scores_apart), rtol=1e-6)
    # of equal variances r_c is logistic in x₁: the tilt moves the mean outwards
    assert 1.0 < two.mean[0] < 1.5
    np.testing.assert_allclose(two.mean, [one.mean[0], 0.3], rtol=1e-9)


def test_class_guidance_is_the_target_at_the_start_alone() -> None:
    law, vp = targets.tilted(targets.two_modes(), 1, 2.0).law, PROCESSES["vp"]
    guided, exact = guidance.class_guidance(vp, law), scores.exact(vp, law)
    x = np.array([[2.0], [2.7], [3.4]])
    np.testing.assert_allclose(guided(x, 0.0), exact(x, 0.0), rtol=1e-9)
    assert np.max(np.abs(guided(x, 0.3) - exact(x, 0.3))) > 0.05
    assert np.isnan(guided.error_moments(law, np.array([0.1]))[0]).all()
    unguided = targets.tilted(targets.two_modes(), 1, 0.0).law
    found = guidance.class_guidance(vp, unguided)(x, 0.3)
    np.testing.assert_allclose(found, scores.exact(vp, unguided)(x, 0.3), rtol=1e-9)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"prior": PRIOR}, "prior: law = Gaussian: must be a mixture of Gaussians"),
        ({"prior": targets.grid_mixture(3, 2, 0.1, 1.0)}, "dimension = 3: must be 1 or 2"),
        ({"component": 2}, "component = 2: must be from 0 to 1"),
        ({"weight": -1.0}, "weight = -1.0: must be a number >= 0"),
        (
            {"prior": targets.mixture([1, 1e-6], [0.0, 0.0], [1.0, 1.0]), "component": 1},
            "weight = 1.0: must leave",
        ),
        (
            {"prior": targets.mixture([1, 1], [0.0, 0.0], [1.0, 1e-8])},
            "must be at most 4000 grid steps",
        ),
    ],
)
def test_what_is_no_tilted_class_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        targets.tilted(**{"prior": targets.two_modes(), "component": 0, "weight": 1.0} | keys)
    with pytest.raises(ValueError, match="must be that of a target `tilted`"):
        guidance.class_guidance(PROCESSES["vp"], posterior().law)


# --- the exact law of what they produce --------------------------------------------------


@pytest.mark.parametrize("scheme", ["exponential_integrator_modified", "heun", "unipc", "ddim"])
def test_the_affine_law_is_that_of_a_score_with_a_basis(scheme: str) -> None:
    vp, law = PROCESSES["vp"], posterior(MIXED).law
    times = timegrids.uniform(horizon=1.0, n_steps=12)
    keys = {"eta": 0.5} if scheme == "ddim" else {}
    steps = getattr(samplers, scheme)(vp, times, **keys)
    score = scores.scaled(vp, law, 0.1)

    def coefficients(t: Array) -> tuple[Array, Array]:
        slope, offset = score.coefficients(t)
        return (law.basis * slope[:, None, :]) @ law.basis.T, offset @ law.basis.T

    found = laws.affine_law(steps, coefficients, vp.prior(4))
    expected = laws.sampler_law(steps, score, vp.prior(4))
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-9)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", ["dps", "replacement"])
def test_the_affine_law_is_that_of_simulated_rows(method: str) -> None:
    torch = pytest.importorskip("torch")
    from sgm import networks, simulation

    vp, target = PROCESSES["vp"], posterior()
    score = METHODS[method](vp, target.law)
    steps = samplers.exponential_integrator_modified(vp, timegrids.uniform(1.0, 40))
    law = laws.affine_law(steps, score.coefficients, vp.prior(4))
    cpu, n = torch.device("cpu"), 4000
    fn = networks.score_fn(score, torch.float64, cpu)
    (rows,) = simulation.simulate_reverse(
        steps, fn, 1.3, n, 4, 0, [0], {"target": "t"}, torch.float64, cpu
    )
    z = law.rotate(rows.numpy() - law.mean) / np.sqrt(law.eigenvalues)
    assert np.max(np.abs(z.mean(axis=0))) < 5 / np.sqrt(n)
    assert np.max(np.abs(np.cov(z, rowvar=False) - np.eye(4))) < 5 * np.sqrt(2 / n)


def test_laws_without_variance_or_bounds_are_infinitely_far() -> None:
    vp, law = PROCESSES["vp"], posterior().law
    steps = samplers.ddim(vp, timegrids.uniform(1.0, 5), eta=0.0)

    def law_of(slope: float) -> Gaussian:
        def coefficients(t: Array) -> tuple[Array, Array]:
            first = np.diag([slope, 0.0, 0.0, 0.0])
            return np.broadcast_to(first, (len(t), 4, 4)), np.zeros((len(t), 4))

        return laws.affine_law(steps, coefficients, vp.prior(4))

    assert np.isfinite(kl_divergence(law, law_of(-1.0)))
    assert kl_divergence(law, law_of(-1e9)) == np.inf  # directions lost beside a huge one
    assert kl_divergence(law, law_of(-1e200)) == np.inf  # out of range
    score = guidance.dps(vp, law)
    with pytest.raises(ValueError, match="must be isotropic"):
        laws.affine_law(steps, score.coefficients, Gaussian.diagonal(np.zeros(4), [1.0, 2, 1, 1]))


# --- the mechanics -----------------------------------------------------------------------

CONFIG = """
study: posterior
targets:
  - {family: posterior, name: half, observed: [0, 2], noise: 0.2,
     prior: {family: correlated, dimension: 4, mean: 1, offset: 1}}
  - {family: posterior, name: ring, observed: [0], noise: 0.2,
     prior: {family: ring_mixture, modes: 5, radius: 2, variance: 0.1}}
  - {family: isotropic, dimension: 2, mean: 1, variance: 0.5}
schedules: [{family: constant, rate: 3}]
scores:
  - {family: exact, sampled: false}
  - {family: dps, sampled: false, weight: [0.5, 1]}
n_steps: [20]
"""


def test_a_nested_target_goes_from_the_config_to_the_job() -> None:
    study = Study.parse(yaml.safe_load(CONFIG))
    check(study)
    half = study.targets[0]
    assert [item.entry.law for item in study.targets] == ["gaussian", "density", "gaussian"]
    assert [score.label for score in study.scores] == ["exact", "dps_weight=0.5", "dps_weight=1"]
    assert [study.runs(item, study.scores[1]) for item in study.targets] == [True, True, False]
    built = build_target(half.spec)
    np.testing.assert_array_equal(built.law.mean, posterior().law.mean)
    assert {"sgm.targets:posterior", "sgm.targets:correlated"} <= set(_addresses(half.spec))
    vp = PROCESSES["vp"]
    assert build(study.scores[1].spec, process=vp, law=built.law).weight == 0.5
    again = Study.parse(study.model_dump(mode="json"))
    assert again.digest == study.digest


def test_the_schema_of_a_nested_target_is_that_of_targets_each_time_it_is_asked_for() -> None:
    for schema in (json_schema(), json_schema()):
        prior = schema["$defs"]["target_posterior"]["properties"]["prior"]
        assert prior["$ref"] == "#/$defs/target"
        assert "type" not in prior


def test_files_and_mistakes_of_a_nested_target_are_found(tmp_path: Path) -> None:
    path = tmp_path / "law.npz"
    np.savez(path, mean=np.zeros(2), covariance=np.eye(2))
    config = yaml.safe_load(CONFIG)
    config["targets"] = [
        {
            "family": "posterior",
            "prior": {"family": "gaussian_file", "path": str(path)},
            "observed": [0],
            "noise": 0.1,
        }
    ]
    study = Study.parse(config)
    check(study)
    assert files(study.targets[0].spec) == {str(path)}
    for prior, said in (
        (
            {"family": "isotropic", "dimension": 2, "mean": 0},
            "prior.variance: this key is required",
        ),
        ({"family": "nonsense"}, "unknown target"),
        ("wine", "prior.heldout_fraction: this key is required"),
        (3, "must be the name of a target or a mapping"),
    ):
        config["targets"][0]["prior"] = prior
        with pytest.raises(ValueError, match=said):
            Study.parse(config)
    config["targets"][0]["prior"] = {"family": "wine", "heldout_fraction": 0.3, "standardise": True}
    with pytest.raises(ValueError, match="prior: law = None: must be Gaussian or a mixture"):
        check(Study.parse(config))
