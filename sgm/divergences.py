"""Divergences estimated from finite samples, with their noise floors and standard errors.

A sample of n rows from N(μ_h, S_h) is summarised by its mean m_n and unbiased covariance S_n;
ν = n − 1. Whitened by the known law N(μ, Σ), with κ the eigenvalues of Σ^{-½} S_n Σ^{-½} and
δ = Σ^{-½}(m_n − μ) in its eigenbasis,

    KL(N(μ, Σ) ‖ N(m_n, S_n)) = ½ Σ [1/κ − 1 + log κ + δ²/κ].

This plug-in estimator, the paper's, is biased upwards by about d(d + 3)/(4n): it does not
vanish for a perfect sampler, and a smaller divergence can't be seen through it. With
e = E log(|S_n|/|S_h|) = Σ_i ψ((n − i)/2) + d log(2/ν) and E S_n⁻¹ = ν/(ν − d − 1) S_h⁻¹ the
mean of the plug-in is a closed form, and so is an unbiased estimator.

A law that is not Gaussian is compared by held-out likelihood, in `heldout_nll_gap`; never by
nearest neighbours, whose KL estimates are useless in these dimensions.

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650), the plug-in estimator; moments
of (inverse) Wishart laws: Muirhead, Aspects of Multivariate Statistical Theory, ch. 3; the
exact null variance and the unbiased estimator are derived from them.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian, kl_divergence, log_ratio_gap

__all__ = [
    "HeldoutGap",
    "Moments",
    "heldout_nll_gap",
    "kl_standard_error",
    "plugin_kl",
    "plugin_kl_expected",
    "plugin_kl_floor",
    "unbiased_kl",
    "w2_plugin",
    "w2_squared_bias",
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

    @classmethod
    def of(cls, sample: npt.ArrayLike) -> Moments:
        """Moments of a sample of shape (n, d), n ≥ 2, accumulated in float64.

        A sample with entries that are not finite has moments that are not finite, and is
        infinitely far from every law.
        """
        sample = np.asarray(sample, dtype=np.float64)
        if sample.ndim != 2 or len(sample) < 2:
            raise ValueError(f"sample has shape {sample.shape}: must be (n, d) with n >= 2")
        with np.errstate(over="ignore", invalid="ignore"):
            mean = sample.mean(axis=0)
            centered = sample - mean
            covariance = centered.T @ centered / (len(sample) - 1)
        return cls(mean, covariance, len(sample))

    @property
    def dimension(self) -> int:
        """d."""
        return int(self.mean.shape[0])

    @property
    def finite(self) -> bool:
        """Whether the sample stayed in the range of float64."""
        return bool(np.all(np.isfinite(self.mean)) and np.all(np.isfinite(self.covariance)))


def _require_rows(dimension: int, n: int) -> None:
    if n <= dimension + 2:
        raise ValueError(
            f"n = {n}: must exceed d + 2 = {dimension + 2} for d = {dimension}, else the "
            "plug-in KL has no finite mean"
        )


def _whitened(law: Gaussian, moments: Moments) -> tuple[Array, Array] | None:
    """(κ, δ), each of shape (d,); None if the sample covariance is singular or not finite."""
    if moments.dimension != law.dimension:
        raise ValueError(f"moments are of dimension {moments.dimension}, law of {law.dimension}")
    _require_rows(law.dimension, moments.n)
    if not moments.finite:
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

    Mean ½[e − d + ν d/(ν − d − 1) (1 + 1/n)], about d(d + 3)/(4n). With K = S_n whitened,
    KL = ½[(tr K⁻¹ + δᵀK⁻¹δ) − d + log|K|] and δ ~ N(0, I/n) independent of K,

        4 Var = (1 + 1/n)² Var tr K⁻¹ + 2(1 + 1/n) Cov(tr K⁻¹, log|K|)
                + Var log|K| + 2 E tr K⁻² / n²,

    all known for a Wishart matrix: with c = ν − d − 1, Var tr K⁻¹ =
    2ν²d(c + d)/((c + 1)c²(c − 2)), E tr K⁻² = ν²d(c + d + 1)/((c + 1)c(c − 2)) by
    the inverse Wishart's second moments, Cov = −2νd/c² (derivative of E tr K⁻¹ in ν),
    Var log|K| = Σ ψ′((n − i)/2). The standard deviation is about √(d(d + 3))/(2n).

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
    from scipy.special import polygamma

    _require_rows(dimension, n)
    d, nu = dimension, n - 1
    c = nu - d - 1
    mean = (_log_determinant_bias(d, n) + d * (d + 1) / c + nu * d / (c * n)) / 2
    if c <= 2:
        return mean, np.inf
    trace = 2 * nu**2 * d * (c + d) / ((c + 1) * c**2 * (c - 2))
    square = nu**2 * d * (c + d + 1) / ((c + 1) * c * (c - 2))
    logarithm = float(np.sum(polygamma(1, (n - np.arange(1, d + 1)) / 2)))
    weight = 1 + 1 / n
    variance = weight**2 * trace - 4 * weight * nu * d / c**2 + logarithm + 2 * square / n**2
    return mean, float(np.sqrt(max(variance, 0.0)) / 2)


def plugin_kl_expected(law: Gaussian, sampled: Gaussian, n: int) -> float:
    """Exact mean of `plugin_kl` over samples of `n` rows of a Gaussian law.

    KL(law ‖ sampled) + floor + ½ (d + 1)/(ν − d − 1) (Q − d), with
    Q = tr S_h⁻¹Σ + |μ − μ_h|² in the metric S_h⁻¹.

    Parameters
    ----------
    law : Gaussian
        π_data, of batch shape ().
    sampled : Gaussian
        Law of the sampler's output, of batch shape ().
    n : int

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If n ≤ d + 2.
    """
    floor, _ = plugin_kl_floor(law.dimension, n)
    turned = (sampled.basis.T @ law.basis) ** 2
    spread = (turned @ law.eigenvalues - sampled.eigenvalues) / sampled.eigenvalues
    shift = sampled.rotate(law.mean - sampled.mean) ** 2 / sampled.eigenvalues
    d = law.dimension
    inflation = (d + 1) / (n - d - 2)
    return float(kl_divergence(law, sampled) + floor + inflation * np.sum(spread + shift) / 2)


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

    Returns
    -------
    float
    """
    root = _fidelity_spectrum(law, covariance)
    total = root[:, None] + root
    harmonic = np.divide(root[:, None] * root, total, out=np.zeros_like(total), where=total > 0)
    curvature = np.sum(harmonic) + np.trace(harmonic)
    return float(np.trace(covariance) / n + curvature / (2 * (n - 1)))


@dataclass(frozen=True)
class HeldoutGap:
    """A difference of held-out likelihoods, with what it can resolve.

    Parameters
    ----------
    value : float
        Nats a row; positive if the generated sample is the worse training set.
    standard_error : float
        Of `value`, from the finite held-out part alone.
    floor : float
        Root mean square of `value` between two disjoint halves of the true training rows:
        below it the gap means nothing.
    """

    value: float
    standard_error: float
    floor: float


def heldout_nll_gap(
    generated: npt.ArrayLike,
    train: npt.ArrayLike,
    heldout: npt.ArrayLike,
    *,
    components: int,
    regularisation: float,
    random_state: int = 0,
) -> HeldoutGap:
    """How much worse a density fitted to generated rows predicts true rows.

    The same Gaussian mixture (full covariances) is fitted to n generated rows and to n true
    training rows, n the smaller of the two numbers, and the mean negative log-likelihood of
    the held-out rows under the second is taken from that under the first. The two fits share
    their estimation error and their misfit to π_data, so a perfect sampler has a gap near
    zero. The floor is the gap between two halves of the training rows, root mean square over
    the three ways to pair its quarters; halves, hence it errs on the safe side.

    It sees what a mixture of this size can model: means, covariances, main modes, spread. It
    doesn't see detail within a component, nor memorisation: a sampler that returns the
    training rows has a gap of zero. A generated sample smoother than the data can have a
    small negative gap, since it regularises the fit.

    Parameters
    ----------
    generated : array_like, shape (n_generated, d)
    train, heldout : array_like, shape (n_train, d) and (n_heldout, d)
        Disjoint parts of the true data, in random order.
    components : int
        Of the mixture, at least 1 and at most n/4.
    regularisation : float
        Added to the diagonal of the covariances, in squared units of the data; > 0.
    random_state : int
        Seed of the mixture's initialisation, the same for all fits.

    Returns
    -------
    HeldoutGap
        Of value +∞ if a generated row is not finite.

    Raises
    ------
    ValueError
        If an array has another dimension, or a parameter is out of range.
    """
    parts = {"generated": generated, "train": train, "heldout": heldout}
    arrays = {key: np.asarray(rows, dtype=np.float64) for key, rows in parts.items()}
    d = arrays["train"].shape[-1]
    for key, rows in arrays.items():
        if rows.ndim != 2 or rows.shape[1] != d or len(rows) < 2:
            raise ValueError(f"{key} has shape {rows.shape}: must be (n, {d}) with n >= 2")
    n = min(len(arrays["generated"]), len(arrays["train"]))
    if not 1 <= components <= n // 4:
        raise ValueError(
            f"components = {components!r}: must lie between 1 and {n // 4}, a quarter of the "
            "rows that are fitted"
        )
    if not (np.isfinite(regularisation) and regularisation > 0):
        raise ValueError(f"regularisation = {regularisation!r}: must be a positive finite number")

    def negative_log_likelihood(rows: Array) -> Array:
        return _mixture_nll(rows, arrays["heldout"], components, regularisation, random_state)

    quarters = np.array_split(arrays["train"], 4)
    pairings = [((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2))]
    gaps = []
    for pairing in pairings:
        first, second = (
            negative_log_likelihood(np.concatenate([quarters[i], quarters[j]])) for i, j in pairing
        )
        gaps.append(np.mean(first - second))
    floor = float(np.sqrt(np.mean(np.square(gaps))))
    if not np.all(np.isfinite(arrays["generated"])):
        return HeldoutGap(np.inf, np.nan, floor)
    difference = negative_log_likelihood(arrays["generated"][:n]) - negative_log_likelihood(
        arrays["train"][:n]
    )
    error = float(np.std(difference, ddof=1) / np.sqrt(len(difference)))
    return HeldoutGap(float(np.mean(difference)), error, floor)


def _mixture_nll(
    rows: Array, heldout: Array, components: int, regularisation: float, random_state: int
) -> Array:
    """−log q of the held-out rows, q a mixture fitted to `rows`; shape (n_heldout,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(
        components, reg_covar=regularisation, max_iter=200, random_state=random_state
    )
    with warnings.catch_warnings():
        # a fit short of convergence, or with duplicate rows, is still a density
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(rows)
    return np.asarray(-mixture.score_samples(heldout), dtype=np.float64)
