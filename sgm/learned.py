"""Affine scores learnt from rows: by least squares, exactly, and by stochastic gradient descent.

The loss of denoising over affine scores s(t, x) = A_t x + b_t and n rows x_i,

    E |A_t X_t + b_t + Z/√v|²,   X_t = m x_I + √v Z,   I uniform on the rows,

has one minimiser at each t, the score of the noised N(μ̂, Σ̂) of the rows' own mean and covariance
(divided by n):  A_t = −(m² Σ̂ + v)⁻¹,  b_t = −m A_t μ̂. So what n rows leave unknown is an
error of the law that the score believes in, and the law of a sampler's output is exact, given the
rows: in the eigenbasis of Σ̂ (`sgm.laws.sampler_law`), or in none after stochastic gradient descent
(`sgm.laws.affine_law`). Hurault, Terris, Moreau and Peyré (2025, arXiv 2503.11615) expand the same
errors of both for small steps; here they are computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array, require_instance, require_integer, require_positive
from sgm.gaussian import Gaussian, require_single
from sgm.processes import Process
from sgm.registry import Count, NonNegative, Positive, register
from sgm.scores import GaussianScore

__all__ = ["DescentScore", "FittedScore", "affine", "affine_sgd", "expected_fit_kl"]

Array = npt.NDArray[np.float64]


def expected_fit_kl(dimension: int, n_rows: int) -> float:
    """E KL(N(μ, Σ) ‖ N(μ̂, Σ̂)) over n rows of N(μ, Σ), Σ̂ divided by n; about d(d + 3)/(4n).

    n Σ^−½ Σ̂ Σ^−½ is Wishart of ν = n − 1 degrees of freedom, independent of μ̂, so that
    E tr Σ̂⁻¹Σ = n d/(ν − d − 1), the shift adds (1/n) of that, and log |Σ̂| has the mean
    log |Σ| + Σ_{i ≤ d} ψ((n − i)/2) + d log(2/n) (Muirhead 1982, section 3.2).

    Parameters
    ----------
    dimension, n_rows : int

    Returns
    -------
    float
        In nats; +∞ for n ≤ d + 2.
    """
    from scipy.special import digamma

    require_integer(1, dimension=dimension, n_rows=n_rows)
    d, n = dimension, n_rows
    if n <= d + 2:
        return np.inf
    log_ratio = np.sum(digamma((n - np.arange(1, d + 1)) / 2) + np.log(2 / n))
    return float(0.5 * (log_ratio - d + (n + 1) * d / (n - d - 2)))


@dataclass(frozen=True, eq=False)
class FittedScore(GaussianScore):
    """The score of the Gaussian with the moments of some rows.

    Parameters
    ----------
    n_rows : int
    ridge : float
    """

    n_rows: int = 0
    ridge: float = 0.0

    @property
    def expected_kl(self) -> float:
        """Mean of KL(data ‖ `law`) over samples of a Gaussian; NaN with a ridge."""
        return np.nan if self.ridge else expected_fit_kl(self.law.dimension, self.n_rows)


def _first_rows(train: npt.ArrayLike, n_rows: int) -> Array:
    """The first `n_rows` rows, so that samples of a seed are nested."""
    rows = real_array("train", train)
    if rows.ndim != 2:
        raise ValueError(f"train has shape {rows.shape}: must be (n, d)")
    if not 2 <= n_rows <= len(rows):
        raise ValueError(
            f"n_rows = {n_rows}: must be at least 2, and at most n_train = {len(rows)}, the rows "
            "of a seed"
        )
    return rows[:n_rows]


@register("score", axes={"n_rows": "n"}, needs="gaussian")
def affine(process: Process, train: Array, n_rows: Count, ridge: NonNegative = 0.0) -> FittedScore:
    """The affine score that minimises the loss of denoising on n rows of a seed, exactly.

    Parameters
    ----------
    process : Process
    train : ndarray, shape (n_train, d)
    n_rows : int
        n: the first of the training rows of a seed, 2 to n_train.
    ridge : float
        Added to the fitted variances, as if each row came with Gaussian noise of that variance;
        0 is least squares. With n of at most d rows the fitted law is degenerate without it.

    Returns
    -------
    FittedScore

    Raises
    ------
    ValueError
        If there are fewer rows than `n_rows`.
    """
    rows = _first_rows(train, n_rows)
    centered = rows - rows.mean(axis=0)
    # singular values: the eigenvalues of the product would lose half of their digits
    few = n_rows < rows.shape[1]  # else the n × n factor would fill the memory
    _, roots, basis = np.linalg.svd(centered / np.sqrt(n_rows), full_matrices=few)
    lost = roots[0] * max(rows.shape) * np.finfo(np.float64).eps
    variances = np.full(rows.shape[1], float(ridge))
    variances[: len(roots)] += np.where(roots > lost, roots, 0.0) ** 2  # of n rows, n − 1 at most
    return FittedScore(
        process, Gaussian(rows.mean(axis=0), variances, basis.T), n_rows=n_rows, ridge=ridge
    )


@dataclass(frozen=True, eq=False)
class DescentScore:
    """The affine score that stochastic gradient descent arrives at, at every time for itself.

    The noise is predicted as ε = W_t (x, 1), s = −ε/√v. From W = 0, each step takes `batch_size`
    rows and noises, the same at all times,

        W ← W − η (W G − H),   G = mean of (X_t, 1)(X_t, 1)ᵀ,   H = mean of Z (X_t, 1)ᵀ,

    whose mean has its fixed point at the least-squares solution; about it the iterates
    spread by O(η/`batch_size`).

    Parameters
    ----------
    process : Process
    rows : ndarray, shape (n, d)
    steps : int
    learning_rate : float
        η.
    batch_size : int
    seed : int
        Of the draws of rows and noises.
    """

    process: Process
    rows: Array
    steps: int
    learning_rate: float
    batch_size: int
    seed: int

    def __post_init__(self) -> None:
        require_instance(Process, process=self.process)
        require_integer(1, steps=self.steps, batch_size=self.batch_size)
        require_positive(learning_rate=self.learning_rate)

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.rows.shape[1])

    def matrices(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        """A and b of s(t, x) = A x + b.

        Parameters
        ----------
        t : array_like, shape (k,)
            Times with v > 0.

        Returns
        -------
        A : ndarray, shape (k, d, d)
        b : ndarray, shape (k, d)
            Infinite or NaN where the descent diverges: of η above 2/λ, λ the largest
            eigenvalue of G.

        Raises
        ------
        ValueError
            At a time without noise, where nothing can be learnt from it.
        """
        t = np.asarray(t, dtype=np.float64)
        if np.any(self.process.kernel_variance(t) <= 0):
            raise ValueError(
                f"t = {float(t[self.process.kernel_variance(t) <= 0][0])!r}: must be a time with "
                "noise, of which the score is learnt; another sampler or time grid asks at none "
                "without"
            )
        m = self.process.mean_scale(t)[:, None, None]
        std = np.sqrt(self.process.kernel_variance(t))[:, None, None]
        generator, d = np.random.default_rng(self.seed), self.dimension
        weights = np.zeros((len(t), d, d + 1))
        second, cross = np.empty((len(t), d + 1, d + 1)), np.empty((len(t), d, d + 1))
        with np.errstate(over="ignore", invalid="ignore"):
            for _ in range(self.steps):
                x = self.rows[generator.integers(len(self.rows), size=self.batch_size)]
                z = generator.standard_normal(x.shape)
                xx, zx, zz = (a.T @ b / self.batch_size for a, b in ((x, x), (z, x), (z, z)))
                second[:, :d, :d] = m**2 * xx + m * std * (zx + zx.T) + std**2 * zz
                mean = m[..., 0] * x.mean(axis=0) + std[..., 0] * z.mean(axis=0)
                second[:, :d, d] = second[:, d, :d] = mean
                second[:, d, d] = 1.0
                cross[:, :, :d] = m * zx + std * zz
                cross[:, :, d] = z.mean(axis=0)
                weights -= self.learning_rate * (weights @ second - cross)
            scores = -weights / std
        return scores[:, :, :d], scores[:, :, d]

    def __call__(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Array:
        """s(t, x) at one time for all rows, or one a row; shapes (n, d) and () or (n,)."""
        rows = np.asarray(x, dtype=np.float64)
        times, place = np.unique(np.broadcast_to(t, len(rows)), return_inverse=True)
        slope, offset = self.matrices(times)
        return np.asarray(np.einsum("nij,nj->ni", slope[place], rows) + offset[place])

    def error_moments(self, law: Gaussian, t: npt.ArrayLike) -> tuple[Array, Array]:
        """Moments of the error e = s_θ − s under p_t, as `GaussianScore.error_moments`.

        With e = E x + f and X_t ~ N(mμ, V): mse = tr E V Eᵀ + |E mμ + f|², and since
        E⟨s, e⟩ = −tr E, cross = (E⟨x, e⟩ − σ² tr E)/σ².

        Parameters
        ----------
        law : Gaussian
            True law of X₀, of batch shape ().
        t : array_like, shape (k,)

        Returns
        -------
        mse, cross : ndarray, shape (k,)
        """
        require_single(law=law)
        marginal = self.process.marginal(law, t)
        slope, offset = self.matrices(t)
        # in the basis of the law, where V is diagonal
        v, center = marginal.eigenvalues, law.rotate(marginal.mean)
        error = law.basis.T @ slope @ law.basis
        error[:, range(law.dimension), range(law.dimension)] += 1 / v
        shift = law.rotate(offset) - center / v
        mean_error = (error @ center[..., None])[..., 0] + shift
        with np.errstate(over="ignore", invalid="ignore"):
            mse = np.sum(v[:, None, :] * error**2, axis=(-2, -1)) + np.sum(mean_error**2, axis=-1)
            # V/σ² − 1 = m² (λ − σ²)/σ², which does not cancel at large times
            variance = self.process.variance
            gap = self.process.mean_scale(t)[:, None] ** 2 * (law.eigenvalues / variance - 1)
            cross = np.sum(gap * np.diagonal(error, axis1=-2, axis2=-1), axis=-1)
            cross += np.sum(center / variance * mean_error, axis=-1)
        return mse, cross


@register("score", axes={"n_rows": "n"}, needs="gaussian")
def affine_sgd(
    process: Process,
    train: Array,
    generator: np.random.Generator,
    n_rows: Count,
    steps: Count,
    learning_rate: Positive,
    batch_size: Count = 64,
) -> DescentScore:
    """The affine score after stochastic gradient descent on the same loss and rows.

    Parameters
    ----------
    process : Process
    train : ndarray, shape (n_train, d)
    generator : numpy.random.Generator
    n_rows : int
        n: the first of the training rows of a seed, 2 to n_train.
    steps : int
        Of the descent, from the score 0.
    learning_rate : float
        Of the noise's prediction; it diverges above 2/(largest eigenvalue of E X_t X_tᵀ), sooner
        with small batches.
    batch_size : int
        Rows and noises of a step.

    Returns
    -------
    DescentScore

    Raises
    ------
    ValueError
        If there are fewer rows than `n_rows`.
    """
    rows = _first_rows(train, n_rows)
    seed = int(generator.integers(2**63))
    return DescentScore(process, rows, steps, learning_rate, batch_size, seed)
