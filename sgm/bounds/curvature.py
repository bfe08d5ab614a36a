"""Bounds of the second derivatives of log p_t, and so of the slopes of score and denoiser.

Let Y = m X + √v Z have the law p, H = ∇²log p, and x̂₀(y) = E[X | Y = y], whose slope is
(1 + v H)/m. For a mixture Σ_k w_k N(μ_k, S_k), V_k = m² S_k + v, with the responsibilities r_k
and the scores g_k of its components at y,

    H = −Σ_k r_k V_k⁻¹ + C,     C = Cov_r(g) = Σ_{j<k} r_j r_k (g_j − g_k)(g_j − g_k)ᵀ ≥ 0,

so that −1/V_min ≤ H ≤ −1/V_max + e, where V_min and V_max are the extreme variances of all
components and e bounds C:

* equal S_k: g_k = V⁻¹(m μ_k − y) differ by m V⁻¹(μ_j − μ_k), and a variable in an interval of
  length ℓ has a variance of ℓ²/4 at most (Popoviciu), hence

      e = m² R²/4,     R = max |V⁻¹(μ_j − μ_k)|;

* isotropic S_k = s_k I, not all equal: with q = log(r_j/r_k) and ∇q = g_j − g_k,
  r_j r_k = (r_j + r_k)²/(4 cosh²(q/2)). For V_j ≥ V_k, q = q* + a|y − c|² with
  a = (1/V_k − 1/V_j)/2, so that |∇q|² = 4a(q − q*), where
  −a q* = m²|μ_j − μ_k|²/(4 V_j V_k) + a ((d/2) log(V_j/V_k) − log(w_j/w_k)). As
  q/cosh²(q/2) ≤ κ = 0.8955, each pair has at most e_jk = a κ + (−a q*)₊, and since
  Σ_{j<k} (r_j + r_k)² ≤ K − 1,

      e = (K − 1) max e_jk;

* components that differ in directions as well have no bound in general: where two long ellipses
  cross, the scores of two components differ without limit along a line of equal responsibility.

A Gaussian has e = 0, independent factors have the extremes of theirs. The funnel's H at v = 0 is
unbounded, −e^{−2 slope x₁} in the other coordinates as x₁ → −∞; with noise no bound is known.

Sources
-------
Derived here. For equal covariances v I of the noise alone and data in a ball of radius R it is
H ≤ R²/v² − 1/v, the Lipschitz constant 1 + h(R²/t² − 1/t) of an Euler step of Beyler and Bach
(arXiv 2508.03210), with half the diameter, which is at most the radius.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sgm.densities import Affine, GaussianMixture, Law, Product
from sgm.gaussian import Gaussian

__all__ = ["Curvature", "curvature", "smallest_variance"]

Array = npt.NDArray[np.float64]

_KAPPA = 0.8955  # the largest q/cosh²(q/2), at q tanh(q/2) = 1: 0.895483, rounded up


class Curvature(NamedTuple):
    """Bounds of the eigenvalues of two symmetric matrices, for every y.

    Parameters
    ----------
    hessian : tuple of ndarray
        Lower and upper bound of ∇²log p, the slope of the score.
    denoiser : tuple of ndarray
        Lower and upper bound of ∇x̂₀ = (1 + v ∇²log p)/m, without this sum.
    """

    hessian: tuple[Array, Array]
    denoiser: tuple[Array, Array]


def curvature(law: Law, scale: npt.ArrayLike, variance: npt.ArrayLike) -> Curvature | None:
    """Bounds for the law of m X + √v Z, of which nothing else is evaluated.

    Parameters
    ----------
    law : Law
        That of X.
    scale, variance : array_like, shape (...)
        m > 0 and v ≥ 0.

    Returns
    -------
    Curvature or None
        Of arrays of this shape; None for a law of which no bound is known.
    """
    m, v = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (scale, variance)))
    match law:
        case Gaussian():
            return _between(law.eigenvalues.min(), law.eigenvalues.max(), np.zeros(m.shape), m, v)
        case GaussianMixture():
            excess = _excess(law, m, v)
            if excess is None:
                return None
            return _between(law.variances.min(), law.variances.max(), excess, m, v)
        case Product():
            parts = [curvature(factor, m, v) for factor in law.factors]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                return None
            return Curvature(
                *(
                    (
                        np.min([pair[0] for pair in pairs], axis=0),
                        np.max([pair[1] for pair in pairs], axis=0),
                    )
                    for pairs in zip(*known, strict=True)
                )
            )
        case Affine():
            base = curvature(law.base, m / law.scale, v)
            if base is None:
                return None
            low, high = (slope / law.scale for slope in base.denoiser)
            return Curvature(base.hessian, (low, high))
    return None


def smallest_variance(law: Law) -> float:
    """The largest c for which `law` is known to be the law of X′ + √c Z; 0 if none is."""
    match law:
        case Gaussian():
            return float(law.eigenvalues.min())
        case GaussianMixture():
            return float(law.variances.min())
        case Product():
            return min(smallest_variance(factor) for factor in law.factors)
        case Affine():
            return smallest_variance(law.base) / law.scale**2
    return 0.0


def _between(least: float, most: float, excess: Array, m: Array, v: Array) -> Curvature:
    """The bounds from the extreme variances of the components and e."""
    low, high = m**2 * least + v, m**2 * most + v
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        spread = np.where(excess == 0, 0.0, v * excess / m)
        return Curvature(
            (-1 / low, -1 / high + excess), (m * least / low, m * most / high + spread)
        )


def _excess(law: GaussianMixture, m: Array, v: Array) -> Array | None:
    """e of a mixture, shape of `m`; None if its components differ in directions as well."""
    k, d = law.means.shape
    if k == 1:
        return np.zeros(m.shape)
    j, i = np.triu_indices(k, 1)
    noised = m[..., None, None] ** 2 * law.variances + v[..., None, None]  # (..., K, d)
    if not np.any(np.ptp(law.variances, axis=0)):
        apart = np.sum(((law.means[j] - law.means[i]) / noised[..., :1, :]) ** 2, axis=-1)
        return np.asarray(m**2 * np.max(apart, axis=-1) / 4)
    if np.any(np.ptp(law.variances, axis=1)):
        return None
    spread = noised[..., 0]
    wide = law.variances[j, 0] >= law.variances[i, 0]
    j, i = np.where(wide, j, i), np.where(wide, i, j)  # V_j ≥ V_i
    wider, narrower = spread[..., j], spread[..., i]
    slope = m[..., None] ** 2 * (law.variances[j, 0] - law.variances[i, 0])
    a = slope / (2 * wider * narrower)
    apart = m[..., None] ** 2 * np.sum((law.means[j] - law.means[i]) ** 2, axis=-1)
    odds = d / 2 * np.log(wider / narrower) - np.log(law.weights[j] / law.weights[i])
    each = a * _KAPPA + np.maximum(apart / (4 * wider * narrower) + a * odds, 0.0)
    return np.asarray((k - 1) * np.max(each, axis=-1))
