"""Forward processes: Gaussian transition kernels X_t | X₀ ~ N(m(t) X₀, v(t) I).

Variance preserving (VP, time-changed Ornstein-Uhlenbeck) with stationary law
π_∞ = N(0, σ²I):

    dX = −β(t)/(2σ²) X dt + √β(t) dB,
    m(t) = exp(−B(t)/(2σ²)),    v(t) = σ²(1 − e^{−B(t)/σ²}).

All coefficients are float64; v is computed with `expm1`, since v ~ B as t → 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sgm.gaussian import Gaussian
from sgm.schedules import NoiseSchedule

__all__ = ["VPProcess"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class VPProcess:
    """The VP (Ornstein-Uhlenbeck) process driven by a noise schedule.

    Parameters
    ----------
    schedule : NoiseSchedule
        β on [0, T].
    variance : float
        σ² > 0, variance of each coordinate of the stationary law π_∞.

    Raises
    ------
    ValueError
        If `variance` is not positive and finite.
    """

    schedule: NoiseSchedule
    variance: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.variance) and self.variance > 0):
            raise ValueError(f"variance = {self.variance!r}: must be a positive finite number")

    @property
    def horizon(self) -> float:
        """T."""
        return self.schedule.horizon

    def drift(self, t: npt.ArrayLike) -> Array:
        """−β(t)/(2σ²), the factor of X in the forward drift; shape of `t`."""
        return -self.schedule.beta(t) / (2 * self.variance)

    def diffusion(self, t: npt.ArrayLike) -> Array:
        """√β(t), the factor of dB; shape of `t`."""
        return np.asarray(np.sqrt(self.schedule.beta(t)))

    def mean_scale(self, t: npt.ArrayLike) -> Array:
        """m(t) = E[X_t | X₀ = 1]; shape of `t`."""
        return np.asarray(np.exp(-self.schedule.integral(t) / (2 * self.variance)))

    def kernel_variance(self, t: npt.ArrayLike) -> Array:
        """v(t) = Var(X_t | X₀); shape of `t`."""
        return np.asarray(-self.variance * np.expm1(-self.schedule.integral(t) / self.variance))

    def std(self, t: npt.ArrayLike) -> Array:
        """√v(t); shape of `t`."""
        return np.asarray(np.sqrt(self.kernel_variance(t)))

    def perturb(self, x0: Array, t: npt.ArrayLike, noise: Array) -> Array:
        """X_t = m(t) x₀ + √v(t) z.

        Parameters
        ----------
        x0, noise : ndarray, shape (n, d)
        t : array_like, shape (n,)
            One time a row.

        Returns
        -------
        ndarray, shape (n, d)
        """
        mean_scale, std = self.mean_scale(t)[..., None], self.std(t)[..., None]
        return np.asarray(mean_scale * x0 + std * noise)

    def prior(self, dimension: int) -> Gaussian:
        """π_∞ = N(0, σ²I_d), where the backward simulation starts."""
        return Gaussian.diagonal(np.zeros(dimension), np.full(dimension, self.variance))

    def marginal(self, law: Gaussian, t: npt.ArrayLike) -> Gaussian:
        """p_t = N(m μ, m² Σ + v I), the law of X_t for X₀ ~ N(μ, Σ).

        Parameters
        ----------
        law : Gaussian
            Law of X₀, of batch shape ().
        t : array_like, shape (...)

        Returns
        -------
        Gaussian
            Of batch shape (...), in the basis of `law`.
        """
        mean_scale = self.mean_scale(t)[..., None]
        variances = mean_scale**2 * law.eigenvalues + self.kernel_variance(t)[..., None]
        return Gaussian(mean_scale * law.mean, variances, law.basis)
