"""Where else than at N(0, w I) the backward process may start: at a law that was fitted to p_T.

Over a short time p_T is far from p_noise = N(0, w(T) I). A backward process that starts at
another law ν has the evidence bound

    E log q(X₀) ≥ E log p₀(X₀) − G − KL(p_T ‖ ν) = ELBO + gain,
    gain = KL(p_T ‖ p_noise) − KL(p_T ‖ ν) = E_{p_T}[log ν(X_T) − log p_noise(X_T)],

whatever the score, and the second form of the gain needs no density of p_T. The Gaussian ν_t of
the moments of X_t solves the Fokker-Planck equation of the process, as p_noise,t does, so that

    d KL(p_t ‖ ν_t)/dt = −½ g² E_{p_t}|∇log(p_t/ν_t)|²,

and the best time to stop is where that excess information meets the error of the score
(`sgm.optimal_horizon`).

Sources
-------
Franzese et al. (Entropy 25, 633, section 4), for ν and the last term; the rest is derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.arguments import real_array, require_integer
from sgm.densities.base import Law
from sgm.elbo import Start, line_panels
from sgm.gaussian import Gaussian
from sgm.optimal_horizon import OptimalHorizon, optimal_horizon
from sgm.processes import Process

__all__ = [
    "FittedMixture",
    "PriorTerms",
    "Start",
    "mixture_prior",
    "moments_optimal_horizon",
    "moments_prior",
    "prior_terms",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class FittedMixture:
    """A Gaussian mixture with full covariances, as scikit-learn fits it.

    Parameters
    ----------
    fitted : sklearn.mixture.GaussianMixture
    """

    fitted: Any

    def log_density(self, x: Array) -> Array:
        """Log ν(x) of rows (n, d), shape (n,)."""
        return np.asarray(self.fitted.score_samples(np.asarray(x)))


def moments_prior(process: Process, data: Law | npt.ArrayLike) -> Gaussian:
    """The Gaussian with the mean and covariance of X_T: exact, or those of rows of the data.

    Parameters
    ----------
    process : Process
    data : Law or array_like, shape (n, d)

    Returns
    -------
    Gaussian
        p_T itself if the law is Gaussian.
    """
    if isinstance(data, Gaussian):
        return process.marginal(data, process.horizon)
    m, v = (float(f(process.horizon)) for f in (process.mean_scale, process.kernel_variance))
    if isinstance(data, Law):
        mean, covariance = data.mean, data.covariance
    else:
        rows = _rows(data)
        mean, covariance = rows.mean(axis=0), np.atleast_2d(np.cov(rows.T, bias=True))
    return Gaussian.from_covariance(m * mean, m**2 * covariance + v * np.eye(len(mean)))


def mixture_prior(
    process: Process, rows: npt.ArrayLike, components: int, generator: np.random.Generator
) -> FittedMixture:
    """A mixture fitted to noised rows by expectation-maximisation.

    Parameters
    ----------
    process : Process
    rows : array_like, shape (n, d)
        Training rows of X₀; each is noised once.
    components : int
        K.
    generator : numpy.random.Generator
        Of the noise and of where the algorithm starts.

    Returns
    -------
    FittedMixture

    Raises
    ------
    ValueError
        If there are fewer than 4 rows a component.
    """
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    require_integer(1, components=components)
    x0 = _rows(rows)
    if components > len(x0) // 4:
        raise ValueError(
            f"components = {components}: must be at most {len(x0) // 4}, a quarter of the rows"
        )
    x = process.perturb(x0, np.full(len(x0), process.horizon), generator.standard_normal(x0.shape))
    spread = float(np.var(x, axis=0).mean())
    model = GaussianMixture(
        components, random_state=int(generator.integers(2**31)), reg_covar=1e-6 * spread
    )
    with warnings.catch_warnings():  # a fit that is still moving is a law as well
        warnings.simplefilter("ignore", ConvergenceWarning)
        return FittedMixture(model.fit(x))


def _rows(data: npt.ArrayLike) -> Array:
    rows = real_array("rows", data)
    if rows.ndim != 2 or len(rows) < 2:
        raise ValueError(f"rows has shape {rows.shape}: must be (n, d) with n >= 2")
    return rows


@dataclass(frozen=True)
class PriorTerms:
    """What a start at ν changes of the evidence bound, in nats.

    Parameters
    ----------
    kl : float
        KL(p_T ‖ ν); NaN where the density of p_T is not known.
    gain : float
        KL(p_T ‖ p_noise) − KL(p_T ‖ ν), negative where ν is worse than p_noise.
    standard_error : float
        Of the gain, and of the KL where it is estimated; 0 for what is exact.
    """

    kl: float
    gain: float
    standard_error: float


def prior_terms(process: Process, start: Start, law: Law | None, rows: npt.ArrayLike) -> PriorTerms:
    """KL(p_T ‖ ν) and the gain over the standard prior.

    Exact for the moments' Gaussian of a law of known negentropy; on the line by quadrature; else
    a mean over rows, of log p_T − log ν for a known law and of log ν − log p_noise for data.

    Parameters
    ----------
    process : Process
    start : Start
        ν.
    law : Law or None
        π_data, if it is known.
    rows : array_like, shape (n, d)
        Rows of X_T that had no part in the fit of ν.
    """
    x = _rows(rows)
    noise = process.prior(x.shape[1])
    if law is None:
        return _mean_gain(start, noise, x)
    m, v = (float(f(process.horizon)) for f in (process.mean_scale, process.kernel_variance))
    terminal = law.kl_to_normal(process.prior_variance, m, v)
    if not np.isfinite(terminal):  # of a law that does not know its entropy
        return _mean_gain(start, noise, x)
    if isinstance(start, Gaussian) and _has_moments(start, law, m, v):
        kl, error = float(law.negentropy(np.asarray(v / m**2))), 0.0
    elif law.dimension == 1:
        y, weights = line_panels(m * law.mean[0], np.sqrt(m**2 * law.principal_variances[0] + v))
        log_p = law.log_density(y[:, None], m, v)
        mass = weights * np.exp(log_p)
        kl, error = float(np.sum(mass * (log_p - start.log_density(y[:, None])))), 0.0
    else:
        gaps = law.log_density(x, m, v) - start.log_density(x)
        kl, error = float(gaps.mean()), float(np.std(gaps, ddof=1) / np.sqrt(len(gaps)))
    return PriorTerms(kl, terminal - kl, error)


def _mean_gain(start: Start, noise: Gaussian, x: Array) -> PriorTerms:
    gains = start.log_density(x) - noise.log_density(x)
    return PriorTerms(
        np.nan, float(gains.mean()), float(np.std(gains, ddof=1) / np.sqrt(len(gains)))
    )


def _has_moments(start: Gaussian, law: Law, m: float, v: float) -> bool:
    """Whether ν is the Gaussian of X_T's moments, up to rounding."""
    own = m**2 * law.covariance + v * np.eye(law.dimension)
    scale = np.abs(own).max()
    same = np.allclose(start.covariance, own, rtol=0, atol=1e-12 * scale)
    return same and np.allclose(start.mean, m * law.mean, rtol=0, atol=1e-12 * np.sqrt(scale))


@dataclass(frozen=True, eq=False)
class _AgainstMoments:
    """What `optimal_horizon` asks of a law, against the Gaussian of the moments of X_t."""

    law: Law

    def relative_fisher_information(self, normal_variance: float, m: float, v: float) -> Array:
        """E|∇log(p_t/ν_t)|²."""
        return np.asarray(self.law.excess_information(np.asarray(v / m**2)) / m**2)

    def kl_to_normal(self, normal_variance: float, m: float, v: float) -> float:
        """KL(p_t ‖ ν_t)."""
        return float(self.law.negentropy(np.asarray(v / m**2)))


def moments_optimal_horizon(
    process: Process, law: Law, error: Callable[[Array], npt.ArrayLike]
) -> OptimalHorizon:
    """The time of the largest evidence bound of starts at the Gaussian of X_t's moments.

    Parameters
    ----------
    process : Process
        With the longest horizon T that is considered.
    law : Law
        π_data.
    error : callable
        As of `sgm.optimal_horizon.optimal_horizon`.

    Returns
    -------
    OptimalHorizon
        At 10⁻⁶ T of a Gaussian law and a score with any error: there is no better start.

    Raises
    ------
    ValueError
        If the error is negative or not finite somewhere, or the law does not know its
        information.
    """
    return optimal_horizon(process, _AgainstMoments(law), error)  # type: ignore[arg-type]
