"""Forward processes: Gaussian transition kernels X_t | X₀ ~ N(m(t) X₀, v(t) I).

    dX = −β(t)/(2σ²) X dt + √β(t) dB

Variance preserving (VP, time-changed Ornstein-Uhlenbeck), with stationary law
π_∞ = N(0, σ²I):

    m(t) = exp(−B(t)/(2σ²)),    v(t) = σ²(1 − e^{−B(t)/σ²}).

Variance exploding (VE, time-changed Brownian motion), the limit σ² = ∞ without a
stationary law:

    m(t) = 1,    v(t) = B(t).

The backward simulation starts from N(0, w(T) I): w = σ² for VP, w = v for VE. Either way
N(0, w(t) I) solves the Fokker-Planck equation of the process, as p_t does.

All coefficients are float64; v is computed with `expm1`, since v ~ B as t → 0.

Sources
-------
Song et al. (arXiv 2011.13456), for the names and the priors.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_instance, require_integer, require_positive, shown
from sgm.gaussian import Gaussian
from sgm.schedules import NoiseSchedule

__all__ = ["Process", "VEProcess", "VPProcess", "matching_times"]

Array = npt.NDArray[np.float64]


class Process(ABC):
    """A forward process driven by a noise schedule.

    Attributes
    ----------
    schedule : NoiseSchedule
        β on [0, T].
    variance : float
        σ², variance of each coordinate of the stationary law; ∞ where there is none.
    """

    schedule: NoiseSchedule
    variance: float

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

    @abstractmethod
    def mean_scale(self, t: npt.ArrayLike) -> Array:
        """m(t) = E[X_t | X₀ = 1]; shape of `t`."""

    @abstractmethod
    def kernel_variance(self, t: npt.ArrayLike) -> Array:
        """v(t) = Var(X_t | X₀); shape of `t`."""

    @abstractmethod
    def noise_variance(self, t: npt.ArrayLike) -> Array:
        """w(t), variance of the pure noise that stands for p_t; shape of `t`."""

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

    @property
    def prior_variance(self) -> float:
        """w(T), variance of each coordinate of the prior."""
        return float(self.noise_variance(self.horizon))

    def prior(self, dimension: int) -> Gaussian:
        """N(0, w(T) I_d), where the backward simulation starts: π_∞ for VP."""
        require_integer(1, dimension=dimension)
        return Gaussian.diagonal(np.zeros(dimension), np.full(dimension, self.prior_variance))

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


@dataclass(frozen=True)
class VPProcess(Process):
    """The VP (Ornstein-Uhlenbeck) process.

    Parameters
    ----------
    schedule : NoiseSchedule
        β on [0, T].
    variance : float
        σ² > 0, variance of each coordinate of the stationary law π_∞.

    Raises
    ------
    ValueError
        If `variance` is not positive and finite, or not the one that β is made for.
    """

    schedule: NoiseSchedule
    variance: float

    def __post_init__(self) -> None:
        require_positive(variance=self.variance)
        _require_schedule(self.schedule, self.variance)

    def mean_scale(self, t: npt.ArrayLike) -> Array:
        return np.asarray(np.exp(-self.schedule.integral(t) / (2 * self.variance)))

    def kernel_variance(self, t: npt.ArrayLike) -> Array:
        return np.asarray(-self.variance * np.expm1(-self.schedule.integral(t) / self.variance))

    def noise_variance(self, t: npt.ArrayLike) -> Array:
        return np.full(np.shape(t), self.variance)


@dataclass(frozen=True)
class VEProcess(Process):
    """The VE (Brownian) process.

    Parameters
    ----------
    schedule : NoiseSchedule
        β on [0, T]; `GeometricSchedule` in the literature.
    """

    schedule: NoiseSchedule
    variance: float = field(default=np.inf, init=False, repr=False)

    def __post_init__(self) -> None:
        _require_schedule(self.schedule, self.variance)

    def mean_scale(self, t: npt.ArrayLike) -> Array:
        return np.ones(np.shape(t))

    def kernel_variance(self, t: npt.ArrayLike) -> Array:
        return self.schedule.integral(t)

    def noise_variance(self, t: npt.ArrayLike) -> Array:
        return self.kernel_variance(t)


def matching_times(process: Process, other: Process) -> Callable[[npt.ArrayLike], Array]:
    """The times at which another process of the same kind has the noise of this one.

    m and v, hence p_t and its score, depend on t through B(t) alone. So a score learned under
    `other` is, at the time B_other⁻¹(B(t)), the score at the time t of `process`, without a factor.

    Parameters
    ----------
    process, other : Process
        Both VP of one stationary variance, or both VE.

    Returns
    -------
    callable
        From times of `process` to those of `other`, of the same shape.

    Raises
    ------
    ValueError
        If the processes differ by more than their schedules, or `other` ends with less noise.
    """
    if type(process) is not type(other) or process.variance != other.variance:
        raise ValueError(
            f"process: {type(process).__name__} of variance {shown(process.variance)}: must be "
            f"{type(other).__name__} of variance {shown(other.variance)}, as in training"
        )
    own, theirs = process.schedule, other.schedule
    needed, reached = float(own.integral(own.horizon)), float(theirs.integral(theirs.horizon))
    if not needed <= reached * (1 + 1e-9):
        raise ValueError(
            f"B(T) = {needed:.6g}: must be at most {reached:.6g}, that of the schedule of the "
            "training, which saw no more noise"
        )

    def times(t: npt.ArrayLike) -> Array:
        return theirs.inverse_integral(np.minimum(own.integral(t), reached))

    return times


def _require_schedule(schedule: NoiseSchedule, variance: float) -> None:
    require_instance(NoiseSchedule, schedule=schedule)
    expected = schedule.process_variance
    if expected not in (None, variance):
        raise ValueError(
            f"variance = {shown(variance)}: must be {shown(expected)}, which the schedule's β is "
            "made for"
        )
