"""Gaussian divergences of a sample's first two moments: KL and W₂, with floors and errors.

A sample of n rows from N(μ_h, S_h) is summarised by its mean m_n and unbiased covariance S_n;
ν = n − 1. Whitened by the known law N(μ, Σ), with κ the eigenvalues of Σ^{-½} S_n Σ^{-½} and
δ = Σ^{-½}(m_n − μ) in its eigenbasis,

    KL(N(μ, Σ) ‖ N(m_n, S_n)) = ½ Σ [1/κ − 1 + log κ + δ²/κ].

This plug-in estimator, the paper's, is biased upwards by about d(d + 3)/(4n): it does not
vanish for a perfect sampler, and a smaller divergence can't be seen through it. With
e = E log(|S_n|/|S_h|) = Σ_i ψ((n − i)/2) + d log(2/ν) and E S_n⁻¹ = ν/(ν − d − 1) S_h⁻¹ the
mean of the plug-in is a closed form, and so is an unbiased estimator.

The plug-in W₂ has a bias too, known to first order in d/n. With k the eigenvalues of
M = Σ^½ S_h Σ^½ and E = Σ^½ (S_n − S_h) Σ^½, whose entries in the eigenbasis of M are
independent of variance k_i k_j (1 + δ_ij)/ν, Bures' square changes in second order by
½ Σ_ij E_ij²/(√k_i √k_j (√k_i + √k_j)): its mean is the bias, its variance the noise of a
perfect sampler. In first order it changes by tr (I − T)(S_n − S_h), T the optimal map.

All of them see two moments and nothing else. Standard errors and biases suppose a Gaussian
output; each costs O(d³).

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650), the plug-in estimator; moments
of (inverse) Wishart laws: Muirhead, Aspects of Multivariate Statistical Theory, ch. 3; the
exact null variance, the unbiased estimator and the expansion of W₂ are derived here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array, require_instance, require_integer
from sgm.divergences.samples import rows
from sgm.gaussian import Gaussian, kl_divergence, log_ratio_gap, require_single

__all__ = [
    "Moments",
    "kl_standard_error",
    "plugin_kl",
    "plugin_kl_floor",
    "plugin_kl_moments",
    "unbiased_kl",
    "w2_floor",
    "w2_plugin",
    "w2_squared_bias",
    "w2_squared_standard_error",
    "w2_standard_error",
    "w2_unbiased",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of a sample.

    Parameters
    ----------
    mean : ndarray, shape (d,)
    covariance : ndarray, shape (d, d)
        Unbiased (division by n − 1).
    n : int
        Number of rows.
    """

    mean: Array
    covariance: Array
    n: int

    def __post_init__(self) -> None:
        for key in ("mean", "covariance"):
            object.__setattr__(self, key, real_array(key, getattr(self, key)))
        require_integer(2, n=self.n)
        if self.mean.ndim != 1 or not self.mean.size:
            raise ValueError(f"mean has shape {self.mean.shape}: must be (d,)")
        _require_square(self.covariance, len(self.mean))

    @classmethod
    def of(cls, sample: npt.ArrayLike) -> Moments:
        """Moments of a sample of shape (n, d), n ≥ 2, accumulated in float64.

        A sample with entries that are not finite has moments that are not finite, and is
        infinitely far from every law.
        """
        (x,) = rows(sample=sample)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = x.mean(axis=0)
            centered = x - mean
            covariance = centered.T @ centered / (len(x) - 1)
        return cls(mean, covariance, len(x))

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.mean.shape[0])

    @property
    def finite(self) -> bool:
        """Whether the sample stayed in the range of float64."""
        return bool(np.all(np.isfinite(self.mean)) and np.all(np.isfinite(self.covariance)))


def _require_square(covariance: Array, dimension: int) -> None:
    if covariance.shape != (dimension, dimension):
        raise ValueError(
            f"covariance has shape {covariance.shape}: must be ({dimension}, {dimension})"
        )


def _require_rows(dimension: int, n: int) -> None:
    require_integer(2, n=n)
    if n <= dimension + 2:
        raise ValueError(
            f"n = {n}: must exceed d + 2 = {dimension + 2} for d = {dimension}, else the "
            "plug-in KL has no finite mean"
        )


def _require_target(law: Gaussian) -> None:
    """Refuse as π_data what is not one finite law."""
    require_single(law=law)
    if not (np.isfinite(law.mean).all() and np.isfinite(law.eigenvalues).all()):
        raise ValueError("law: mean and eigenvalues must be finite")


def _require_dimension(law: Gaussian, moments: Moments) -> None:
    _require_target(law)
    require_instance(Moments, moments=moments)
    if moments.dimension != law.dimension:
        raise ValueError(f"moments are of dimension {moments.dimension}, law of {law.dimension}")


def _whitened(law: Gaussian, moments: Moments) -> tuple[Array, Array] | None:
    """(κ, δ), each of shape (d,); None if a covariance is singular or the sample's not finite."""
    _require_dimension(law, moments)
    _require_rows(law.dimension, moments.n)
    if not (moments.finite and np.all(law.eigenvalues > 0)):
        return None
    scale = 1 / np.sqrt(law.eigenvalues)
    whitened = scale[:, None] * (law.basis.T @ moments.covariance @ law.basis) * scale
    kappa, turn = np.linalg.eigh((whitened + whitened.T) / 2)
    if kappa[0] <= law.dimension * np.finfo(np.float64).eps * kappa[-1]:
        return None
    return kappa, (scale * law.rotate(moments.mean - law.mean)) @ turn


def plugin_kl(law: Gaussian, moments: Moments) -> float:
    """KL(law ‖ N(m_n, S_n)), the paper's estimator of KL(π_data ‖ output).

    Biased: its mean for a perfect sampler is `plugin_kl_floor`.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    moments : Moments
        Of the generated sample.

    Returns
    -------
    float
        In nats; +∞ if the sample covariance is singular or not finite.

    Raises
    ------
    ValueError
        If n ≤ d + 2.
    """
    whitened = _whitened(law, moments)
    if whitened is None:
        return np.inf
    kappa, delta = whitened
    return float(np.sum(log_ratio_gap(1.0, kappa)) / 2 + np.sum(delta**2 / kappa) / 2)


def _log_determinant_bias(dimension: int, n: int) -> float:
    """e = E log(|S_n|/|S_h|) ≤ 0."""
    from scipy.special import digamma

    index = np.arange(1, dimension + 1)
    return float(np.sum(digamma((n - index) / 2) + np.log(2 / (n - 1))))


def plugin_kl_floor(dimension: int, n: int) -> tuple[float, float]:
    """Exact mean and standard deviation of `plugin_kl` for a perfect sampler.

    Mean ½[e − d + ν d/(ν − d − 1) (1 + 1/n)], about d(d + 3)/(4n); the standard deviation, of
    `plugin_kl_moments`, is about √(d(d + 3))/(2n).

    Parameters
    ----------
    dimension, n : int
        d and the number of rows.

    Returns
    -------
    mean, sd : float
        The latter is infinite for n ≤ d + 4.

    Raises
    ------
    ValueError
        If n ≤ d + 2.
    """
    require_integer(1, dimension=dimension)
    standard = Gaussian.diagonal(np.zeros(dimension), np.ones(dimension))
    return plugin_kl_moments(standard, standard, n)


def plugin_kl_moments(law: Gaussian, sampled: Gaussian, n: int) -> tuple[float, float]:
    """Exact mean and standard deviation of `plugin_kl` over samples of a Gaussian law.

    In coordinates where S_h = I, with K = S_n, A = Σ and δ = μ_h − μ there,

        KL = ½[tr A K⁻¹ + (δ + ε)ᵀK⁻¹(δ + ε) − d + log|K| − log|A|],    ε ~ N(0, I/n),

    ε independent of K, which is Wishart of ν = n − 1 degrees over ν. With c = ν − d − 1,
    C = A + δδᵀ + I/n and the inverse Wishart's moments,

        E KL = ½[ν tr C/c + e − d − log|A|],
        4 Var = Var tr CK⁻¹ + 2 Cov(tr CK⁻¹, log|K|) + Var log|K| + E(4 δᵀK⁻²δ/n + 2 tr K⁻²/n²),

    Var tr CK⁻¹ = 2ν²((tr C)² + c tr C²)/((c + 1)c²(c − 2)), Cov = −2ν tr C/c² (derivative of
    E tr CK⁻¹ in ν), Var log|K| = Σ ψ′((n − i)/2), E K⁻² = ν²(c + d + 1)/((c + 1)c(c − 2)) I.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    sampled : Gaussian
        Law of the sampler's output, of batch shape ().
    n : int
        Number of rows.

    Returns
    -------
    mean, sd : float
        The latter is infinite for n ≤ d + 4. Both are +∞ and NaN where the KL of the laws is +∞.

    Raises
    ------
    ValueError
        If n ≤ d + 2.
    """
    from scipy.special import polygamma

    require_single(law=law, sampled=sampled)
    d, nu = law.dimension, n - 1
    _require_rows(d, n)
    exact = float(kl_divergence(law, sampled))
    if np.isinf(exact):
        return np.inf, np.nan
    c = nu - d - 1
    scale = 1 / np.sqrt(sampled.eigenvalues)
    whitened = scale[:, None] * (sampled.basis.T @ law.basis) * np.sqrt(law.eigenvalues)
    shift = scale * sampled.rotate(sampled.mean - law.mean)
    spread = whitened @ whitened.T + np.outer(shift, shift) + np.eye(d) / n
    trace, square = float(np.trace(spread)), float(np.sum(spread**2))
    distance = float(shift @ shift)
    # KL is ½[tr A + |δ|² − d − log|A|]; the rest is what a finite sample adds
    added = (d + 1) / c * trace + d / n + _log_determinant_bias(d, n)
    mean = exact + added / 2
    if c <= 2:
        return mean, np.inf
    inverse = nu**2 / ((c + 1) * c * (c - 2))  # of E K⁻² and of the variance of the trace
    variance = 2 * inverse * (trace**2 / c + square) - 4 * nu * trace / c**2
    variance += float(np.sum(polygamma(1, (n - np.arange(1, d + 1)) / 2)))
    variance += inverse * (c + d + 1) * (4 * distance / n + 2 * d / n**2)
    return mean, float(np.sqrt(max(variance, 0.0)) / 2)


def unbiased_kl(law: Gaussian, moments: Moments) -> float:
    """Unbiased estimator of KL(law ‖ N(μ_h, S_h)) from a sample of N(μ_h, S_h).

    ½[log|S_n|/|Σ| − e − d + (ν − d − 1)/ν (tr S_n⁻¹Σ + |m_n − μ|²) − d/n], the norm in the
    metric S_n⁻¹. It can be negative.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    moments : Moments
        Of the generated sample.

    Returns
    -------
    float
        In nats; +∞ if the sample covariance is singular or not finite.

    Raises
    ------
    ValueError
        If n ≤ d + 2.
    """
    whitened = _whitened(law, moments)
    if whitened is None:
        return np.inf
    kappa, delta = whitened
    d, n = law.dimension, moments.n
    # the plug-in, less its excess: (ν − d − 1)/ν = 1 − (d + 1)/ν
    excess = (d + 1) / (n - 1) * np.sum((1 + delta**2) / kappa)
    bias = _log_determinant_bias(d, n) + d / n
    return plugin_kl(law, moments) - float(excess + bias) / 2


def kl_standard_error(law: Gaussian, moments: Moments) -> float:
    """Standard error of `plugin_kl` (and, for d ≪ n, of `unbiased_kl`).

    The delta method for KL as a function of (m_n, S_n), with g = S_n^{-½}δ,

        Var₁ = |g|²/n + ½ (1/ν) |I − K⁻¹ − g gᵀ|²_F,

    plus the variance V₀ that remains when the first order vanishes, that of
    `plugin_kl_floor`. Var₁ is itself estimated, and too large by 2V₀ on average when the
    sampler is perfect; this is taken off first: max(Var₁ − 2V₀, 0) + V₀.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    moments : Moments
        Of the generated sample.

    Returns
    -------
    float
        In nats; NaN where `plugin_kl` is infinite.

    Raises
    ------
    ValueError
        If n ≤ d + 2.
    """
    whitened = _whitened(law, moments)
    if whitened is None:
        return np.nan
    kappa, delta = whitened
    n = moments.n
    g2 = delta**2 / kappa
    loss = (kappa - 1) / kappa
    frobenius = np.sum(loss**2) - 2 * np.sum(loss * g2) + np.sum(g2) ** 2
    first = np.sum(g2) / n + frobenius / (2 * (n - 1))
    _, floor_sd = plugin_kl_floor(law.dimension, n)
    if np.isinf(floor_sd):
        return np.inf
    return float(np.sqrt(max(first - 2 * floor_sd**2, 0.0) + floor_sd**2))


def _fidelity_spectrum(law: Gaussian, covariance: Array) -> Array:
    """√ of the eigenvalues of Σ^½ S Σ^½, shape (d,)."""
    root = np.sqrt(law.eigenvalues)
    product = root[:, None] * (law.basis.T @ covariance @ law.basis) * root
    return np.asarray(np.sqrt(np.maximum(np.linalg.eigvalsh((product + product.T) / 2), 0.0)))


def w2_plugin(law: Gaussian, moments: Moments) -> float:
    """W₂(law, N(m_n, S_n)), biased upwards: see `w2_squared_bias`.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    moments : Moments
        Of the generated sample; its covariance may be singular.

    Returns
    -------
    float
        +∞ if the sample is not finite.
    """
    _require_dimension(law, moments)
    if not moments.finite:
        return np.inf
    shift = np.sum((moments.mean - law.mean) ** 2)
    traces = np.sum(law.eigenvalues) + np.trace(moments.covariance)
    fidelity = np.sum(_fidelity_spectrum(law, moments.covariance))
    return float(np.sqrt(max(shift + traces - 2 * fidelity, 0.0)))


def w2_squared_bias(law: Gaussian, covariance: Array, n: int) -> float:
    """First-order bias of `w2_plugin` squared, over samples of `n` rows.

    tr S_h/n + (1/2ν) Σ_ij √(k_i k_j) (1 + δ_ij)/(√k_i + √k_j), k the eigenvalues of
    Σ^½ S_h Σ^½. For d/n below .05; S_n may stand for S_h.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    covariance : ndarray, shape (d, d)
        S_h, the covariance of the law sampled from.
    n : int
        At least 2.

    Returns
    -------
    float
        NaN if the covariance is not finite.
    """
    _require_target(law)
    require_integer(2, n=n)
    covariance = real_array("covariance", covariance)
    _require_square(covariance, law.dimension)
    if not np.isfinite(covariance).all():
        return np.nan
    curvature = _curvature(law, covariance)
    return float(np.trace(covariance) / n + np.sum(curvature) / (2 * (n - 1)))


def _curvature(law: Gaussian, covariance: Array) -> Array:
    """(1 + δ_ij) √k_i √k_j/(√k_i + √k_j), shape (d, d)."""
    root = _fidelity_spectrum(law, covariance)
    total = root[:, None] + root
    harmonic = np.divide(root[:, None] * root, total, out=np.zeros_like(total), where=total > 0)
    return harmonic + np.diag(np.diag(harmonic))


def w2_floor(law: Gaussian, n: int) -> float:
    """Root of the expected squared `w2_plugin` of a perfect sampler, to first order in d/n.

    √(tr Σ/n + (1/2ν) Σ_ij λ_i λ_j (1 + δ_ij)/(λ_i + λ_j)): √(λ (d/n + d(d + 1)/(4ν))) for
    Σ = λI. The next order is about d/(8n) of the square, positive for large d: 0.6 % at
    d/n = .05.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    n : int
        Number of rows, at least 2.

    Returns
    -------
    float
        In units of the data.
    """
    _require_target(law)
    return float(np.sqrt(w2_squared_bias(law, law.covariance, n)))


def w2_unbiased(law: Gaussian, moments: Moments) -> float:
    """Signed root of the squared `w2_plugin` less its first-order bias at S_n.

    The square is what is unbiased, to first order in d/n (for d/n below .05; near a perfect
    sampler about ⅜ d/n of the bias remains): average u|u| over runs, or the signed roots u,
    never |u|. A perfect sampler has either sign with like odds.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    moments : Moments
        Of the generated sample; its covariance may be singular.

    Returns
    -------
    float
        In units of the data; +∞ if the sample is not finite.
    """
    value = w2_plugin(law, moments)
    if np.isinf(value):
        return value
    square = value**2 - w2_squared_bias(law, moments.covariance, moments.n)
    return float(np.copysign(np.sqrt(abs(square)), square))


def w2_standard_error(law: Gaussian, moments: Moments) -> float:
    """Standard error of `w2_plugin`.

    That of the square over twice the root, or over twice the root of the bias where the sample
    happens to lie nearer than a perfect one. Near a perfect sampler it errs on the safe side:
    by a quarter in d = 2, a tenth in d = 10, 2 % in d = 50.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    moments : Moments
        Of the generated sample; its covariance may be singular.

    Returns
    -------
    float
        In units of the data; NaN where `w2_plugin` is infinite.
    """
    value = w2_plugin(law, moments)
    if np.isinf(value):
        return np.nan
    bias = w2_squared_bias(law, moments.covariance, moments.n)
    return w2_squared_standard_error(law, moments) / (2 * max(value, float(np.sqrt(bias))))


def w2_squared_standard_error(law: Gaussian, moments: Moments) -> float:
    """Standard error of the square of `w2_plugin`.

    The delta method for W₂² as a function of (m_n, S_n), with T the optimal map from S to Σ,
    for which S^½(I − T)S^½ = S − (S^½ΣS^½)^½,

        Var₁ = 4 (m_n − μ)ᵀ S (m_n − μ)/n + (2/ν) |S − (S^½ΣS^½)^½|²_F,

    plus the variance that remains when the first order vanishes, with k as in
    `w2_squared_bias`,

        V₀ = 2 tr S²/n² + (1/ν²) Σ_ij k_i k_j (1 + δ_ij)/(√k_i + √k_j)².

    Var₁ at S_n is too large by 2V₀ on average, which is taken off: max(Var₁ − 2V₀, 0) + V₀.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    moments : Moments
        Of the generated sample; its covariance may be singular.

    Returns
    -------
    float
        In squared units of the data; NaN if the sample is not finite.
    """
    _require_dimension(law, moments)
    if not moments.finite:
        return np.nan
    n = moments.n
    shift = law.rotate(moments.mean - law.mean)
    covariance = law.basis.T @ moments.covariance @ law.basis
    half = _root(covariance)
    gap = covariance - _root((half * law.eigenvalues) @ half)
    first = float(4 * shift @ covariance @ shift / n + 2 * np.sum(gap**2) / (n - 1))
    curvature = _curvature(law, moments.covariance)
    # curvature² has (1 + δ_ij)² where the variance has 1 + δ_ij
    spread = np.sum(curvature**2) - np.sum(np.diag(curvature) ** 2) / 2
    floor = float(2 * np.sum(covariance**2) / n**2 + spread / (n - 1) ** 2)
    return float(np.sqrt(max(first - 2 * floor, 0.0) + floor))


def _root(matrix: Array) -> Array:
    """Square root of a symmetric matrix with eigenvalues ≥ 0, up to rounding."""
    eigenvalues, basis = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray((basis * np.sqrt(np.maximum(eigenvalues, 0.0))) @ basis.T)
