"""Noise schedules: the rate β : [0, T] → (0, ∞) of the forward SDE.

    dX = −β(t)/(2σ²) X dt + √β(t) dB,     B(t) = ∫₀ᵗ β(s) ds.

Every law of the process depends on β through B alone, so B is kept to full double
precision, from closed forms where they exist. A schedule is a frozen value of
floats; `horizon` is T. All functions accept arrays of times in [0, T] of any shape, and
refuse others: past T a schedule says nothing, and its supremum is another.

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650), the β_a family;
Nichol & Dhariwal (arXiv 2102.09672), the cosine schedule in discrete time;
Song et al. (arXiv 2011.13456), the geometric one.

`sgm.schedules.levels` holds those that their sources prescribe by a noise level,
`sgm.schedules.knots` those with free knots.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt

from sgm.arguments import (
    LARGEST,
    real_array,
    require_finite,
    require_instance,
    require_integer,
    require_positive,
    require_within,
)

__all__ = [
    "BetaSchedule",
    "ConstantSchedule",
    "CosineSchedule",
    "GeometricSchedule",
    "NoiseSchedule",
    "NumericalSchedule",
    "PolynomialSchedule",
    "TruncatedSchedule",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class NoiseSchedule(ABC):
    """A noise schedule β on [0, horizon].

    Parameters
    ----------
    horizon : float
        T > 0, the time at which the forward process stops.

    Raises
    ------
    ValueError
        If a parameter is out of range; the message names it.
    """

    horizon: float

    def __post_init__(self) -> None:
        require_positive(horizon=self.horizon)

    def times(self, t: npt.ArrayLike) -> Array:
        """`t` as float64; what exceeds T by rounding is T.

        Raises
        ------
        ValueError
            If a time lies outside [0, T].
        """
        t = real_array("t", t)
        if not np.all((t >= 0) & (t <= self.horizon * (1 + 1e-12))):
            wrong = t[~((t >= 0) & (t <= self.horizon * (1 + 1e-12)))]
            raise ValueError(f"t = {float(wrong[0])!r}: must lie in [0, T] = [0, {self.horizon!r}]")
        return np.minimum(t, self.horizon)

    @abstractmethod
    def beta(self, t: npt.ArrayLike) -> Array:
        """β(t), shape of `t`."""

    @abstractmethod
    def integral(self, t: npt.ArrayLike) -> Array:
        """B(t) = ∫₀ᵗ β, shape of `t`."""

    def inverse_integral(self, b: npt.ArrayLike) -> Array:
        """The time t with B(t) = b, shape of `b`; b must lie in [0, B(T)].

        Raises
        ------
        ValueError
            If b lies elsewhere.
        RuntimeError
            If no such time is found: `integral` is not that of a positive β.
        """
        from scipy.optimize import elementwise  # slow to import, and rarely needed

        b = real_array("b", b)
        total = float(self.integral(self.horizon))
        inside = (b >= 0) & (b <= total * (1 + 1e-12))
        if not np.all(inside):
            wrong = float(b[~inside][0])
            raise ValueError(f"b = {wrong!r}: must lie in [0, B(T)] = [0, {total}]")
        pole = np.isinf(b)  # B(T) = ∞: of an unclipped β
        levels = np.where(pole, 0.0, np.minimum(b, total))

        def excess(t: Array, /, *level: Any) -> Array:
            return np.asarray(self.integral(t) - level[0])

        root = elementwise.find_root(
            excess,
            (np.zeros_like(levels), np.full_like(levels, self.horizon)),
            args=(levels,),
            tolerances={"xatol": 0.0, "xrtol": 4 * np.finfo(np.float64).eps},
        )
        if not np.all(root.success):
            lost = float(levels[~root.success][0])
            raise RuntimeError(f"b = {lost!r}: no time with B(t) = b was found")
        return np.asarray(np.where(pole, self.horizon, root.x), dtype=np.float64)

    @property
    def supremum(self) -> float:
        """sup β over [0, T]: β(T) for a schedule that never decreases."""
        return float(self.beta(self.horizon))

    @property
    def process_variance(self) -> float | None:
        """The σ² that β is made for, of the process that it drives; None if it suits any."""
        return None


_PHI2_TAYLOR = np.array([1 / factorial(k + 2) for k in range(18)])


def _phi2(z: Array) -> Array:
    """(eᶻ − 1 − z)/z², by its Taylor series where the difference cancels."""
    small = np.abs(z) < 1
    near = np.polynomial.polynomial.polyval(np.where(small, z, 0.0), _PHI2_TAYLOR)
    safe = np.where(small, 1.0, z)
    return np.asarray(np.where(small, near, (np.expm1(safe) - safe) / safe**2))


@dataclass(frozen=True)
class BetaSchedule(NoiseSchedule):
    """The parametric family β_a of Strasman et al.

        β_a(t) = β_min + (β_max − β_min) (e^{at} − 1)/(e^{aT} − 1),   a ∈ ℝ,

    linear (the "VPSDE" of Song et al.) at a = 0. Increasing, with β(0) = β_min and
    β(T) = β_max for every a. Stable for |aT| up to 700 and beyond, and across a → 0.

    Parameters
    ----------
    horizon : float
    a : float
        Shape: a < 0 noises early, a > 0 late.
    beta_min, beta_max : float
        0 < β_min ≤ β_max.
    """

    a: float
    beta_min: float
    beta_max: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(beta_min=self.beta_min, beta_max=self.beta_max)
        require_finite(a=self.a)
        if abs(self.a) * self.horizon > LARGEST:
            raise ValueError(f"a = {self.a!r}: must be at most {LARGEST:g}/horizon in size")
        if self.beta_max < self.beta_min:
            raise ValueError(
                f"beta_max = {self.beta_max!r}: must be at least beta_min = {self.beta_min!r}"
            )

    @property
    def _linear(self) -> bool:
        """Whether β_a is linear to rounding: its relative distance from it is |aT|/2."""
        return abs(self.a * self.horizon) < 1e-16

    def beta(self, t: npt.ArrayLike) -> Array:
        t = self.times(t)
        a, horizon = self.a, self.horizon
        if self._linear:
            ratio = t / horizon
        elif a > 0:  # factor e^{a(t−T)} out: e^{aT} overflows
            ratio = np.exp(a * (t - horizon)) * np.expm1(-a * t) / np.expm1(-a * horizon)
        else:
            ratio = np.expm1(a * t) / np.expm1(a * horizon)
        return np.asarray(self.beta_min + (self.beta_max - self.beta_min) * ratio)

    def integral(self, t: npt.ArrayLike) -> Array:
        t = self.times(t)
        a, horizon = self.a, self.horizon
        # ∫₀ᵗ ratio = t² φ₂(at) a/(e^{aT} − 1); past at = 1 the exponentials are
        # combined first, where they no longer cancel and would overflow apart.
        late = a * t > 1
        with np.errstate(over="ignore", under="ignore"):
            slope = 1 / horizon if self._linear else a / np.expm1(a * horizon)
            early_part = t**2 * _phi2(np.where(late, 0.0, a * t)) * slope
            if np.any(late):
                late_part = np.exp(a * (t - horizon)) - np.exp(-a * horizon) * (1 + a * t)
                early_part = np.where(late, late_part / (-a * np.expm1(-a * horizon)), early_part)
        return np.asarray(self.beta_min * t + (self.beta_max - self.beta_min) * early_part)


@dataclass(frozen=True)
class PolynomialSchedule(NoiseSchedule):
    """A power of the time, from β_min to β_max.

        β(t) = β_min + (β_max − β_min) (t/T)^p,
        B(t) = β_min t + (β_max − β_min) t (t/T)^p/(p + 1).

    p = 1 is the linear schedule of Ho et al. (arXiv 2006.11239) and Song et al.

    Parameters
    ----------
    horizon : float
    exponent : float
        p from 0.01 to 1000.
    beta_min, beta_max : float
        0 < β_min ≤ β_max.
    """

    exponent: float
    beta_min: float
    beta_max: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_within(0.01, 1000, exponent=self.exponent)
        require_positive(beta_min=self.beta_min, beta_max=self.beta_max)
        if self.beta_max < self.beta_min:
            raise ValueError(
                f"beta_max = {self.beta_max!r}: must be at least beta_min = {self.beta_min!r}"
            )

    def beta(self, t: npt.ArrayLike) -> Array:
        power = (self.times(t) / self.horizon) ** self.exponent
        return np.asarray(self.beta_min + (self.beta_max - self.beta_min) * power)

    def integral(self, t: npt.ArrayLike) -> Array:
        t = self.times(t)
        mean = (t / self.horizon) ** self.exponent / (self.exponent + 1)
        return np.asarray(t * (self.beta_min + (self.beta_max - self.beta_min) * mean))


@dataclass(frozen=True)
class ConstantSchedule(NoiseSchedule):
    """β(t) = b.

    Parameters
    ----------
    horizon : float
    rate : float
        b > 0.
    """

    rate: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(rate=self.rate)

    def beta(self, t: npt.ArrayLike) -> Array:
        return np.full_like(self.times(t), self.rate)

    def integral(self, t: npt.ArrayLike) -> Array:
        return np.asarray(self.rate * self.times(t))


@dataclass(frozen=True)
class CosineSchedule(NoiseSchedule):
    """Continuous cosine schedule, clipped so that β(T) is finite.

    With θ(t) = (π/2)(t/T + s)/(1 + s), Nichol & Dhariwal prescribe the mean scale
    m²(t) = cos²θ(t)/cos²θ(0), hence

        β(t) = σ² π/(T(1 + s)) tan θ(t),    B(t) = −2σ² log(cos θ(t)/cos θ(0)),

    both infinite at T. β is clipped at `clip`, and B is the integral of the
    *clipped* β: the law of the process is the one that β generates.

    Against 60 digits, for offsets from 1e-6 to 100, the relative error of β and of B is below
    1e-12 for clip · T/σ² ≤ 1e4. Next to the pole it grows with clip · T/σ², to 6e-10 at 1e7.

    Parameters
    ----------
    horizon : float
    variance : float
        σ² of the process that this schedule drives; β must carry it for m² to come
        out as prescribed.
    offset : float
        s > 0; 0.008 in Nichol & Dhariwal, 0.021122 gives β(0) = 0.1 at σ² = T = 1.
    clip : float
        Largest value of β; `inf` leaves the schedule unclipped.
    """

    variance: float
    offset: float
    clip: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(variance=self.variance, offset=self.offset)
        if not (isinstance(self.clip, float) and np.isinf(self.clip)):
            require_positive(clip=self.clip)
        start = float(self._free(np.zeros(())))
        if not self.clip > start:
            raise ValueError(f"clip = {self.clip!r}: must exceed beta(0) = {start:.6g}")

    @property
    def process_variance(self) -> float | None:
        return self.variance

    @property
    def _rate(self) -> float:
        return self.variance * np.pi / (self.horizon * (1 + self.offset))

    def _remainder(self, t: npt.ArrayLike) -> Array:
        """π/2 − θ(t), exact next to the singularity, and never past it."""
        return np.asarray(0.5 * np.pi * (1 - np.asarray(t) / self.horizon) / (1 + self.offset))

    @property
    def clip_time(self) -> float:
        """The time t_c from which β is held at `clip`; T when unclipped."""
        remainder = np.arctan(self._rate / self.clip)
        return float(self.horizon * max(0.0, 1 - 2 / np.pi * (1 + self.offset) * remainder))

    def beta(self, t: npt.ArrayLike) -> Array:
        with np.errstate(divide="ignore"):  # ∞ at T, where tan θ has its pole
            free = self._free(self.times(t))
        return np.asarray(np.minimum(free, self.clip))

    def _free(self, t: Array) -> Array:
        """β without the clip, from the nearer of the zero and the pole of the tangent."""
        angle = 0.5 * np.pi * (t / self.horizon + self.offset) / (1 + self.offset)
        late = angle > np.pi / 4
        early = np.tan(np.where(late, 0.0, angle))
        return self._rate * np.where(late, 1 / np.tan(self._remainder(t)), early)

    def integral(self, t: npt.ArrayLike) -> Array:
        t = self.times(t)
        free = np.minimum(t, self.clip_time)
        late = t - free
        # cos θ/cos θ₀ = 1 − 2 sin((θ+θ₀)/2) sin((θ−θ₀)/2)/cos θ₀, whose second term is exact
        # as t → 0, the first as t → T
        quarter, fraction = np.pi / 4 / (1 + self.offset), free / self.horizon
        turned = np.sin(quarter * (fraction + 2 * self.offset)) * np.sin(quarter * fraction)
        start = np.sin(self._remainder(0.0))
        drop = 2 * turned / start
        with np.errstate(divide="ignore"):
            far = np.log(np.sin(self._remainder(free)) / start)
            value = np.where(drop < 0.5, np.log1p(-np.minimum(drop, 0.5)), far)
        held = self.clip * late if np.isfinite(self.clip) else 0.0
        return np.asarray(-2 * self.variance * value + held)


@dataclass(frozen=True)
class GeometricSchedule(NoiseSchedule):
    """Noise whose standard deviation grows geometrically, the "VESDE" of Song et al.

    With ρ(t) = σ_min (σ_max/σ_min)^{t/T},

        β(t) = dρ²/dt = (2/T) log(σ_max/σ_min) ρ²(t),    B(t) = ρ²(t) − ρ²(0).

    Parameters
    ----------
    horizon : float
    sigma_min, sigma_max : float
        0 < σ_min < σ_max; 0.01 and 50 in the literature.
    """

    sigma_min: float
    sigma_max: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        if not self.sigma_max > self.sigma_min:
            raise ValueError(
                f"sigma_max = {self.sigma_max!r}: must exceed sigma_min = {self.sigma_min!r}"
            )
        if self.sigma_max / self.sigma_min > LARGEST:
            raise ValueError(
                f"sigma_max = {self.sigma_max!r}: must be at most {LARGEST:g} sigma_min"
            )

    @property
    def _rate(self) -> float:
        """d log ρ²/dt."""
        ratio_less_one = (self.sigma_max - self.sigma_min) / self.sigma_min
        return 2 * float(np.log1p(ratio_less_one)) / self.horizon

    def beta(self, t: npt.ArrayLike) -> Array:
        growth = np.exp(self._rate * self.times(t))
        return np.asarray(self._rate * self.sigma_min**2 * growth)

    def integral(self, t: npt.ArrayLike) -> Array:
        growth = np.expm1(self._rate * self.times(t))
        return np.asarray(self.sigma_min**2 * growth)


@dataclass(frozen=True)
class NumericalSchedule(NoiseSchedule):
    """Any schedule given by β alone; B by Gauss-Legendre quadrature.

    Parameters
    ----------
    horizon : float
    rate : callable
        β, vectorised over an array of times; positive and finite on [0, T]. It may
        have kinks: the panels are short, and the error of one is O(panel²).
    panels : int
        Number of equal panels of [0, T], each with 16 nodes.

    Raises
    ------
    ValueError
        If β is not positive and finite at every node.
    """

    rate: Callable[[Array], npt.ArrayLike]
    panels: int = field(default=512)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer(1, panels=self.panels)
        times = np.append(self._nodes(self._knots[:-1], self._width).ravel(), [0.0, self.horizon])
        values = self.beta(times)
        wrong = ~(np.isfinite(values) & (values > 0))
        if wrong.any():
            t, value = times[wrong][0], float(values[wrong][0])
            raise ValueError(f"beta({t:.6g}) = {value!r}: a noise schedule must be positive")

    @property
    def _width(self) -> float:
        return self.horizon / self.panels

    @property
    def _knots(self) -> Array:
        return np.linspace(0.0, self.horizon, self.panels + 1)

    @staticmethod
    def _nodes(start: Array, width: Array | float) -> Array:
        nodes, _ = np.polynomial.legendre.leggauss(16)
        width = np.asarray(width)
        return np.asarray(start[..., None] + width[..., None] * (nodes + 1) / 2)

    def _quadrature(self, start: Array, width: Array | float) -> Array:
        _, weights = np.polynomial.legendre.leggauss(16)
        return np.asarray(np.asarray(width) / 2 * (self.beta(self._nodes(start, width)) @ weights))

    @cached_property
    def _cumulative(self) -> Array:
        panels = self._quadrature(self._knots[:-1], np.full(self.panels, self._width))
        return np.append(0.0, np.cumsum(panels))

    @property
    def supremum(self) -> float:
        return float(np.max(self.beta(np.linspace(0.0, self.horizon, 16 * self.panels + 1))))

    def beta(self, t: npt.ArrayLike) -> Array:
        t = self.times(t)
        values = real_array("rate(t)", self.rate(t))
        if values.shape not in ((), t.shape):
            raise ValueError(f"rate(t) has shape {values.shape}: must be {t.shape}, that of t")
        return np.broadcast_to(values, t.shape)

    def integral(self, t: npt.ArrayLike) -> Array:
        t = self.times(t)
        panel = np.clip((t / self._width).astype(int), 0, self.panels - 1)
        start = self._knots[panel]
        return np.asarray(self._cumulative[panel] + self._quadrature(start, t - start))


@dataclass(frozen=True)
class TruncatedSchedule(NoiseSchedule):
    """Another schedule stopped early: the same β, on [0, T] alone.

    The families above stretch with their horizon and keep the law of X_T; this one keeps
    the law of X_t, and asks how long to diffuse.

    Parameters
    ----------
    horizon : float
        At most that of `schedule`.
    schedule : NoiseSchedule
    """

    schedule: NoiseSchedule

    def __post_init__(self) -> None:
        super().__post_init__()
        require_instance(NoiseSchedule, schedule=self.schedule)
        if self.horizon > self.schedule.horizon:
            raise ValueError(
                f"horizon = {self.horizon!r}: must be at most {self.schedule.horizon!r}, "
                "that of the schedule"
            )

    def beta(self, t: npt.ArrayLike) -> Array:
        return self.schedule.beta(self.times(t))

    def integral(self, t: npt.ArrayLike) -> Array:
        return self.schedule.integral(self.times(t))

    @property
    def process_variance(self) -> float | None:
        return self.schedule.process_variance

    @property
    def supremum(self) -> float:
        return float(np.max(self.beta(np.linspace(0.0, self.horizon, 8193))))
