"""Gaussian divergences against matrix formulas, 50 digits and Monte Carlo."""

from collections.abc import Callable

import mpmath as mp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from sgm.gaussian import (
    Gaussian,
    kl_divergence,
    log_excess,
    relative_fisher_information,
    wasserstein2,
)

Array = npt.NDArray[np.float64]


def random_law(seed: int, d: int = 4, spread: float = 1.0) -> Gaussian:
    rng = np.random.default_rng(seed)
    root = rng.standard_normal((d, d + 2))
    return Gaussian.from_covariance(rng.standard_normal(d), spread * root @ root.T / (d + 2))


def log_density(law: Gaussian, x: Array) -> Array:
    centered = x - law.mean
    precision = np.linalg.inv(law.covariance)
    _, log_determinant = np.linalg.slogdet(2 * np.pi * law.covariance)
    return -0.5 * np.einsum("ni,ij,nj->n", centered, precision, centered) - 0.5 * log_determinant


@pytest.mark.parametrize("seed", range(5))
def test_kl_of_matrices_matches_the_textbook_formula(seed: int) -> None:
    p, q = random_law(seed), random_law(seed + 100)
    precision, shift = np.linalg.inv(q.covariance), p.mean - q.mean
    _, log_p = np.linalg.slogdet(p.covariance)
    _, log_q = np.linalg.slogdet(q.covariance)
    expected = 0.5 * (
        np.trace(precision @ p.covariance) - 4 + shift @ precision @ shift + log_q - log_p
    )
    assert kl_divergence(p, q) == pytest.approx(expected, rel=1e-11)


def test_kl_matches_monte_carlo() -> None:
    p, q = random_law(0), random_law(1)
    x = p.sample(100_000, np.random.default_rng(5))
    ratio = log_density(p, x) - log_density(q, x)
    error = ratio.std() / np.sqrt(len(x))
    assert kl_divergence(p, q) == pytest.approx(ratio.mean(), abs=4.5 * error)


@pytest.mark.parametrize("seed", range(3))
def test_two_routes_agree_when_bases_coincide(seed: int) -> None:
    p = random_law(seed)
    q = Gaussian(p.mean + 0.1, p.eigenvalues * 1.7, p.basis)
    turned = Gaussian(q.mean, q.eigenvalues[::-1], np.ascontiguousarray(q.basis[:, ::-1]))
    assert not p.shares_basis(turned)
    assert kl_divergence(p, turned) == pytest.approx(float(kl_divergence(p, q)), rel=1e-12)
    assert wasserstein2(p, turned) == pytest.approx(float(wasserstein2(p, q)), rel=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_wasserstein_matches_matrix_square_roots(seed: int) -> None:
    p, q = random_law(seed), random_law(seed + 50)
    root = sqrtm(p.covariance).real
    cross = sqrtm(root @ q.covariance @ root).real
    squared = np.sum((p.mean - q.mean) ** 2) + np.trace(p.covariance + q.covariance - 2 * cross)
    assert wasserstein2(p, q) == pytest.approx(np.sqrt(squared), rel=1e-10)


@pytest.mark.parametrize("variance", [0.5, 1.0, 4.0])
def test_fisher_information_matches_monte_carlo(variance: float) -> None:
    p = random_law(3)
    x = p.sample(100_000, np.random.default_rng(6))
    score = -(x - p.mean) @ np.linalg.inv(p.covariance) + x / variance
    squared = np.sum(score**2, axis=1)
    error = squared.std() / np.sqrt(len(x))
    value = relative_fisher_information(p, variance)
    assert value == pytest.approx(squared.mean(), abs=4.5 * error)


@given(st.floats(-0.999999, 1e6).filter(lambda r: abs(r) > 1e-150))
@settings(max_examples=200, deadline=None)
def test_log_excess_keeps_relative_precision(r: float) -> None:
    with mp.workdps(400):
        expected = float(mp.mpf(r) - mp.log1p(mp.mpf(r)))
    assert log_excess(r) == pytest.approx(expected, rel=5e-15)


def test_tiny_divergences_keep_their_digits() -> None:
    law = random_law(0)
    near = Gaussian(law.mean, law.eigenvalues * (1 + 2.0**-40), law.basis)
    r = np.expm1(-np.log1p(2.0**-40))
    assert kl_divergence(law, near) == pytest.approx(4 * r**2 / 4, rel=1e-10)


@pytest.mark.parametrize("factor", [1e-30, 1e-17, 1e17, 1e30])
def test_laws_of_very_different_scales_are_finitely_far(factor: float) -> None:
    """Σ_q = Σ/f: d (f − 1 − log f)/2, also for f below the rounding error of 1."""
    law = random_law(0)
    wide = Gaussian(law.mean, law.eigenvalues / factor, law.basis)
    turned = Gaussian(law.mean, wide.eigenvalues[::-1], np.ascontiguousarray(law.basis[:, ::-1]))
    expected = 2 * (factor - 1 - np.log(factor))
    assert kl_divergence(law, wide) == pytest.approx(expected, rel=1e-12)
    assert kl_divergence(law, turned) == pytest.approx(expected, rel=1e-12)


def test_degenerate_and_overflowed_laws_are_infinitely_far() -> None:
    law = Gaussian.diagonal(np.zeros(2), np.ones(2))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    lost = np.full(2, np.inf)
    for basis in (np.eye(2), turn):
        flat = Gaussian(np.zeros(2), np.array([1.0, 0.0]), basis)
        assert kl_divergence(law, flat) == np.inf
        assert kl_divergence(flat, law) == np.inf
        assert np.isfinite(wasserstein2(law, flat))
        assert kl_divergence(law, Gaussian(lost, lost, basis)) == np.inf
        assert kl_divergence(Gaussian(lost, lost, basis), law) == np.inf
    assert wasserstein2(law, Gaussian(lost, lost, np.eye(2))) == np.inf


@pytest.mark.parametrize("turned", [False, True])
def test_batches_equal_their_members(turned: bool) -> None:
    p, other = random_law(0), random_law(9)
    basis = other.basis if turned else p.basis
    factors = np.array([[0.5], [1.0], [3.0]])
    batch = Gaussian(p.mean + factors, p.eigenvalues * factors, basis)
    for function in (kl_divergence, wasserstein2):
        together = function(p, batch)
        for k in range(3):
            alone = function(p, Gaussian(batch.mean[k], batch.eigenvalues[k], basis))
            assert together[k] == pytest.approx(float(alone), rel=1e-12)


def test_covariance_and_sample_moments() -> None:
    law = random_law(2)
    x = law.sample(200_000, np.random.default_rng(0))
    again = Gaussian.from_covariance(law.mean, law.covariance)
    np.testing.assert_allclose(again.covariance, law.covariance, rtol=1e-12)
    error = np.sqrt(2) * np.max(law.eigenvalues) / np.sqrt(len(x))
    np.testing.assert_allclose(np.cov(x, rowvar=False), law.covariance, atol=4.5 * error)


@pytest.mark.parametrize(
    ("mean", "covariance", "message"),
    [
        ([0, 0], np.eye(3), r"covariance has shape \(3, 3\): must be \(2, 2\)"),
        ([0, np.nan], np.eye(2), "must be finite"),
        ([0, 0], [[1, 0.5], [0.4, 1]], "not symmetric"),
        ([0, 0], [[1, 2], [2, 1]], "smallest eigenvalue -1, 1 of 2 negative"),
        ([0, 0], [[1, 1], [1, 1]], "not positive definite"),
        ([0, 0], np.diag([1.0, 0.0]), "not positive definite"),
    ],
)
def test_bad_covariances_are_refused(
    mean: npt.ArrayLike, covariance: npt.ArrayLike, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Gaussian.from_covariance(mean, covariance)


@pytest.mark.parametrize(
    "basis",
    [
        2 * np.eye(3),
        np.eye(3)[[0, 0, 2]],
        [[1.0, 1e-6, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        np.diag([1.0, np.nan, 1.0]),
    ],
)
def test_a_basis_that_is_not_orthogonal_is_refused(basis: npt.ArrayLike) -> None:
    with pytest.raises(ValueError, match="basis: must be orthogonal"):
        Gaussian(np.zeros(3), np.ones(3), basis)


@pytest.mark.parametrize(("scale", "variance"), [(1.0, 0.0), (0.6, 0.7), (0.0, 2.0)])
def test_the_noised_law_is_the_gaussian_of_the_noised_moments(
    scale: float, variance: float
) -> None:
    law = random_law(4)
    noised = Gaussian(scale * law.mean, scale**2 * law.eigenvalues + variance, law.basis)
    x = np.random.default_rng(1).standard_normal((5, 4))
    expected = log_density(noised, x)
    np.testing.assert_allclose(law.log_density(x, scale, variance), expected, rtol=1e-12)
    score = -(x - noised.mean) @ np.linalg.inv(noised.covariance)
    np.testing.assert_allclose(law.score(x, scale, variance), score, rtol=1e-11, atol=1e-13)
    prior = Gaussian.diagonal(np.zeros(4), np.full(4, 2.0))
    kl = float(kl_divergence(noised, prior))
    assert law.kl_to_normal(2.0, scale, variance) == pytest.approx(kl, rel=1e-12, abs=1e-15)
    relative = float(relative_fisher_information(noised, 2.0))
    found = law.relative_fisher_information(2.0, scale, variance)
    assert found == pytest.approx(relative, rel=1e-13, abs=1e-30)
    precision = np.trace(np.linalg.inv(noised.covariance))
    assert law.fisher_information(scale, variance) == pytest.approx(precision, rel=1e-12)


def test_marginals_are_submatrices_in_the_order_asked() -> None:
    law = random_law(5)
    marginal = law.marginal([2, 0])
    np.testing.assert_allclose(marginal.mean, law.mean[[2, 0]])
    np.testing.assert_allclose(marginal.covariance, law.covariance[[2, 0]][:, [2, 0]], rtol=1e-12)
    with pytest.raises(ValueError, match=r"coordinates = \[0, 4\]: must be distinct"):
        law.marginal([0, 4])


@pytest.mark.parametrize(
    ("mean", "variances", "message"),
    [
        ([0, 0], [2.0], r"eigenvalues has shape \(1,\): must be \(2,\)"),
        ([0.0], [-1.0], "eigenvalues: -1.0: must be >= 0"),
        ([0.0], [np.nan], "eigenvalues: nan: must be >= 0"),
        ([np.nan], [1.0], "mean = nan: must be"),
        (["a"], [1.0], "mean = |could not convert"),
    ],
)
def test_laws_that_are_none_are_refused(
    mean: list[float] | list[int] | list[str], variances: list[float], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Gaussian.diagonal(mean, variances)


def test_wasserstein_has_no_floor_in_different_bases() -> None:
    p = random_law(3)
    turned = Gaussian(p.mean, p.eigenvalues[::-1], np.ascontiguousarray(p.basis[:, ::-1]))
    assert wasserstein2(p, turned) < 1e-14


@pytest.mark.parametrize("basis", [np.eye(2), np.array([[0.6, -0.8], [0.8, 0.6]])])
@pytest.mark.parametrize("which", ["mean", "eigenvalues", "both"])
def test_a_law_that_overflowed_is_infinitely_far_in_every_divergence(
    which: str, basis: Array
) -> None:
    mean = np.array([[0.0, 0.0], [0.0, np.inf if which != "eigenvalues" else 0.0]])
    spread = np.array([[1.0, 1.0], [1.0, np.inf if which != "mean" else 1.0]])
    batch, law = Gaussian(mean, spread, basis), Gaussian(np.zeros(2), np.ones(2), np.eye(2))
    for value in (
        wasserstein2(batch, law),
        wasserstein2(law, batch),
        wasserstein2(batch, batch),
        kl_divergence(batch, law),
        relative_fisher_information(batch, 1.0),
    ):
        assert value[0] == pytest.approx(0.0, abs=1e-12)
        assert value[1] == np.inf


@pytest.mark.parametrize("divergence", [kl_divergence, wasserstein2])
def test_laws_of_different_dimension_have_no_divergence(
    divergence: Callable[[Gaussian, Gaussian], Array],
) -> None:
    line, plane = (Gaussian.diagonal(np.zeros(d), np.ones(d)) for d in (1, 2))
    with pytest.raises(ValueError, match="q: dimension = 2: must be 1"):
        divergence(line, plane)
