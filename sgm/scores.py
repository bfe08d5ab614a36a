"""The exact score of a noised law, and perturbations of it.

Every score here is  scale · s(t, x) + bias · (1, …, 1)  with s = ∇log p_t for some law of X₀.
For X₀ ~ N(μ, U diag(λ) Uᵀ) it is affine: with V(t) = m² λ + v in the basis U,

    s(t, x) = −(x − m μ)/V,

and that law need not be the law of the data: the error e = s_θ − s is affine too. For other
laws the error is (scale − 1) s + bias · (1, …, 1). Either way its moments under p_t are known:
they are what the KL theorem's E₂ and the exact Girsanov term need.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_finite, require_instance, shown
from sgm.densities.base import Law
from sgm.gaussian import Gaussian, require_single
from sgm.processes import Process
from sgm.registry import Real, register

__all__ = ["DensityScore", "GaussianScore", "Score", "biased", "exact", "plugin", "scaled"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GaussianScore:
    """The affine score scale · [score of the noised `law`] + bias · (1, …, 1).

    Parameters
    ----------
    process : Process
    law : Gaussian
        Law of X₀ that the score believes in, of batch shape ().
    scale, bias : float
    """

    process: Process
    law: Gaussian
    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        require_instance(Process, process=self.process)
        require_single(law=self.law)
        require_finite(scale=self.scale, bias=self.bias)

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

    def denoiser(self, t: npt.ArrayLike) -> tuple[Array, Array, Array, Array]:
        """(Â, b̂, Ê, ê) of the denoiser x̂₀ = (x + v s)/m, at times with v > 0.

        Uᵀ x̂₀ = Â Uᵀx + b̂ + (v/m)(Ê Uᵀx + ê): with V = m² λ + v,

            Â = m λ/V,   b̂ = scale · v μ/V,   Ê = (1 − scale)/V,   ê = bias.

        The second part is apart from the first, for v/m overflows over long times.

        Parameters
        ----------
        t : array_like, shape (...)

        Returns
        -------
        slope, offset, error_slope, error_offset : ndarray, shape (..., d)
        """
        m, v = self.process.mean_scale(t)[..., None], self.process.kernel_variance(t)[..., None]
        noised = m**2 * self.law.eigenvalues + v
        slope = m * self.law.eigenvalues / noised
        offset = self.scale * self.law.rotate(self.law.mean) * (v / noised)
        error_offset = self.bias * self.law.rotate(np.ones(self.law.dimension))
        return slope, offset, (1 - self.scale) / noised, np.broadcast_to(error_offset, slope.shape)

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

        With s the exact score of p_t and s̃ = s + x/σ² the modified one (s̃ = s at σ² = ∞),

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
        require_single(score=self.law, law=law)
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


@dataclass(frozen=True, eq=False)
class DensityScore:
    """The score scale · ∇log p_t + bias · (1, …, 1) for any law of known density.

    Parameters
    ----------
    process : Process
    law : Law
        Law of X₀.
    scale, bias : float
    """

    process: Process
    law: Law
    scale: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        require_instance(Process, process=self.process)
        require_instance(Law, law=self.law)  # a target has one, and is none
        require_finite(scale=self.scale, bias=self.bias)

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
        process = self.process
        score = self.law.score(x, process.mean_scale(t), process.kernel_variance(t))
        return self.scale * score + self.bias

    def error_moments(self, law: Law, t: npt.ArrayLike) -> tuple[Array, Array]:
        """Moments of the error e = s_θ − s under p_t, as `GaussianScore.error_moments`.

        With J = E|s|², E s = 0 and E⟨s, x⟩ = −d (by parts), e = (scale − 1) s + bias 1 has

            mse   = (scale − 1)² J + bias² d,
            cross = (scale − 1)(J − d/σ²) + (bias/σ²) m Σᵢ μᵢ.

        Parameters
        ----------
        law : Law
            True law of X₀: the law of this score itself.
        t : array_like, shape (...)

        Returns
        -------
        mse, cross : ndarray, shape (...)

        Raises
        ------
        ValueError
            If `law` is another law, for which the moments have no closed form.
        """
        if law is not self.law:
            raise ValueError(f"law = {type(law).__name__}: must be the law of the score itself")
        variance, d = self.process.variance, law.dimension
        m, v = self.process.mean_scale(t), self.process.kernel_variance(t)
        if self.scale == 1 and self.bias == 0:  # whatever is known of J
            return np.zeros(np.shape(t)), np.zeros(np.shape(t))
        mse = (self.scale - 1) ** 2 * law.fisher_information(m, v) + self.bias**2 * d
        if np.isinf(variance):
            excess = law.fisher_information(m, v)
        else:
            # J − d/σ² = I − (E|x|² − d σ²)/σ⁴, where E|x|² − d σ² = m² (E|X₀|² − d σ²)
            excess = law.relative_fisher_information(variance, m, v)
            excess = excess - m**2 * (law.second_moment - d * variance) / variance**2
        cross = (self.scale - 1) * excess + self.bias * m * np.sum(law.mean) / variance
        return mse, cross


Score = GaussianScore | DensityScore
"""A score of known error."""


def _score(process: Process, law: Law, scale: float, bias: float) -> Score:
    if isinstance(law, Gaussian):
        return GaussianScore(process, law, scale, bias)
    return DensityScore(process, law, scale, bias)


@overload
def exact(process: Process, law: Gaussian) -> GaussianScore: ...
@overload
def exact(process: Process, law: Law) -> Score: ...
@register("score", needs="law")
def exact(process: Process, law: Law) -> Score:
    """The score of p_t for X₀ ~ `law`.

    Parameters
    ----------
    process : Process
    law : Law

    Returns
    -------
    GaussianScore or DensityScore
        Affine if the law is Gaussian.
    """
    return _score(process, law, 1.0, 0.0)


@overload
def scaled(process: Process, law: Gaussian, eps: float) -> GaussianScore: ...
@overload
def scaled(process: Process, law: Law, eps: float) -> Score: ...
@register("score", axes={"eps": "ε"}, needs="law")
def scaled(process: Process, law: Law, eps: Real) -> Score:
    """(1 + ε) s, the exact score overestimated by a factor.

    Parameters
    ----------
    process : Process
    law : Law
    eps : float

    Returns
    -------
    GaussianScore or DensityScore
    """
    require_finite(eps=eps)
    return _score(process, law, 1 + eps, 0.0)


@overload
def biased(process: Process, law: Gaussian, eps: float) -> GaussianScore: ...
@overload
def biased(process: Process, law: Law, eps: float) -> Score: ...
@register("score", axes={"eps": "ε"}, needs="law")
def biased(process: Process, law: Law, eps: Real) -> Score:
    """s + ε (1, …, 1), the exact score shifted along the diagonal.

    Parameters
    ----------
    process : Process
    law : Law
    eps : float

    Returns
    -------
    GaussianScore or DensityScore
    """
    require_finite(eps=eps)
    return _score(process, law, 1.0, eps)


@register("score", axes={"eps": "ε"}, needs="gaussian")
def plugin(process: Process, law: Law, eps: Real) -> GaussianScore:
    """The exact score of the wrong law N((1 − ε)μ, (1 + ε)Σ).

    Parameters
    ----------
    process : Process
    law : Law
        Gaussian: of no other law is there a canonical wrong version.
    eps : float
        Above −1.

    Returns
    -------
    GaussianScore

    Raises
    ------
    ValueError
        If `eps` is not a finite number above −1, or the law is not Gaussian.
    """
    if not isinstance(law, Gaussian):
        raise ValueError(f"law = {shown(law)}: must be Gaussian for a plug-in score")
    require_finite(eps=eps)
    if not eps > -1:
        raise ValueError(f"eps = {eps!r}: must be a finite number above -1")
    believed = Gaussian((1 - eps) * law.mean, (1 + eps) * law.eigenvalues, law.basis)
    return GaussianScore(process, believed)
