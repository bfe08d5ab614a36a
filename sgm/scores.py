"""Affine scores: the exact score of a noised Gaussian law, and perturbations of it.

For X₀ ~ N(μ, U diag(λ) Uᵀ) the score of p_t is, with V(t) = m² λ + v in the basis U,

    s(t, x) = −(x − m μ)/V,

and every score here is  scale · s(t, x) + bias · (1, …, 1)  for some Gaussian law, which
need not be the law of the data. The error e = s_θ − s of such a score is affine, so its
moments under p_t are closed forms: they are what the KL theorem's E₂ and the exact
Girsanov term need.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian
from sgm.processes import VPProcess

__all__ = ["GaussianScore", "biased", "exact", "plugin", "scaled"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GaussianScore:
    """The affine score scale · [score of the noised `law`] + bias · (1, …, 1).

    Parameters
    ----------
    process : VPProcess
    law : Gaussian
        Law of X₀ that the score believes in, of batch shape ().
    scale, bias : float
    """

    process: VPProcess
    law: Gaussian
    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        for key, value in {"scale": self.scale, "bias": self.bias}.items():
            if not np.isfinite(value):
                raise ValueError(f"{key} = {value!r}: must be a finite number")

    def coefficients(self, t: npt.ArrayLike) -> tuple[Array, Array]:
        """(A, b) with Uᵀ s(t, x) = A Uᵀx + b, U the basis of `law`.

        Parameters
        ----------
        t : array_like, shape (...)

        Returns
        -------
        A, b : ndarray, shape (..., d)
        """
        mean_scale = self.process.mean_scale(t)[..., None]
        kernel_variance = self.process.kernel_variance(t)[..., None]
        slope = mean_scale**2 * self.law.eigenvalues
        slope += kernel_variance
        np.divide(-self.scale, slope, out=slope)
        offset = mean_scale * -self.law.rotate(self.law.mean)
        offset *= slope
        if self.bias:
            offset += self.bias * self.law.rotate(np.ones(self.law.dimension))
        return slope, offset

    def __call__(self, x: npt.ArrayLike, t: npt.ArrayLike) -> Array:
        """s(t, x).

        Parameters
        ----------
        x : array_like, shape (n, d)
        t : array_like, shape () or (n,)
            One time for all rows, or one a row.

        Returns
        -------
        ndarray, shape (n, d)
        """
        slope, offset = self.coefficients(t)
        return np.asarray((slope * self.law.rotate(x) + offset) @ self.law.basis.T)

    def error_moments(self, law: Gaussian, t: npt.ArrayLike) -> tuple[Array, Array]:
        """Moments of the error e = s_θ − s under p_t, the noised `law`.

        With s the exact score of p_t and s̃ = s + x/σ² the modified one,

            mse = E|e|²,     cross = E⟨s̃, e⟩.

        With K = UᵀU_θ, V and V_θ the two noised variances, the linear part M of e has
        tr(M V Mᵀ) = Σ K²_ij V_i (scale/V_θj − 1/V_i)²: a sum of squares, which is exact
        at any error, and needs no matrix of a time.

        Parameters
        ----------
        law : Gaussian
            True law of X₀, of batch shape (); its basis may differ from the score's.
        t : array_like, shape (...)

        Returns
        -------
        mse, cross : ndarray, shape (...)
        """
        variance = self.process.variance
        true = self.process.marginal(law, t)
        believed = self.process.marginal(self.law, t)
        # mean of the error, in the believed basis, and of the modified score
        shift = self.law.rotate(believed.mean - true.mean)
        mean_error = self.scale * shift / believed.eigenvalues
        if self.bias:
            mean_error = mean_error + self.bias * self.law.rotate(np.ones(law.dimension))
        mean_modified = self.law.rotate(true.mean) / variance
        # V/σ² − 1 = m² (λ − σ²)/σ², which does not cancel at large times
        gap = self.process.mean_scale(t)[..., None] ** 2 * (law.eigenvalues / variance - 1)
        if law.shares_basis(self.law):
            v, v_believed, weight = true.eigenvalues, believed.eigenvalues, np.array(1.0)
            axes: tuple[int, ...] = (-1,)
        else:
            v, v_believed = true.eigenvalues[..., :, None], believed.eigenvalues[..., None, :]
            gap = gap[..., :, None]
            weight, axes = (law.basis.T @ self.law.basis) ** 2, (-2, -1)
        slope = (v_believed - self.scale * v) / (v_believed * v)  # 1/V − scale/V_θ
        mse = np.sum(weight * v * slope**2, axis=axes) + np.sum(mean_error**2, axis=-1)
        cross = np.sum(weight * gap * slope, axis=axes)
        cross = cross + np.sum(mean_modified * mean_error, axis=-1)
        return np.asarray(mse), np.asarray(cross)


def exact(process: VPProcess, law: Gaussian) -> GaussianScore:
    """The score of p_t for X₀ ~ `law`.

    Parameters
    ----------
    process : VPProcess
    law : Gaussian

    Returns
    -------
    GaussianScore
    """
    return GaussianScore(process, law)


def scaled(process: VPProcess, law: Gaussian, eps: float) -> GaussianScore:
    """(1 + ε) s, the exact score overestimated by a factor.

    Parameters
    ----------
    process : VPProcess
    law : Gaussian
    eps : float

    Returns
    -------
    GaussianScore
    """
    return GaussianScore(process, law, scale=1 + eps)


def biased(process: VPProcess, law: Gaussian, eps: float) -> GaussianScore:
    """s + ε (1, …, 1), the exact score shifted along the diagonal.

    Parameters
    ----------
    process : VPProcess
    law : Gaussian
    eps : float

    Returns
    -------
    GaussianScore
    """
    return GaussianScore(process, law, bias=eps)


def plugin(process: VPProcess, law: Gaussian, eps: float) -> GaussianScore:
    """The exact score of the wrong law N((1 − ε)μ, (1 + ε)Σ).

    Parameters
    ----------
    process : VPProcess
    law : Gaussian
    eps : float
        Above −1.

    Returns
    -------
    GaussianScore

    Raises
    ------
    ValueError
        If `eps` is not a finite number above −1.
    """
    if not (np.isfinite(eps) and eps > -1):
        raise ValueError(f"eps = {eps!r}: must be a finite number above -1")
    believed = Gaussian((1 - eps) * law.mean, (1 + eps) * law.eigenvalues, law.basis)
    return GaussianScore(process, believed)
