"""Noise schedules that their sources prescribe by a noise level: ᾱ(t), log-SNR or σ(t).

A VP process with stationary variance σ² has m²(t) = e^{−B(t)/σ²} and v = σ²(1 − m²). Where a
source prescribes ᾱ(t) = m²(t), or the ratio of noise to signal,

    B(t) = −σ² log ᾱ(t),    β(t) = −σ² ᾱ′(t)/ᾱ(t),

so β carries the variance of the process that it drives. Data are what X₀ is: B(0) = 0.

Most sources let ᾱ(T) = 0, hence β and B have a pole at T. As in `CosineSchedule`, β is then
clipped at `clip`, and B is the integral of the clipped β.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_integer, require_positive, require_within
from sgm.schedules import CosineSchedule, NoiseSchedule
from sgm.schedules.knots import require_levels

__all__ = [
    "DiscreteCosineSchedule",
    "EDMSchedule",
    "LaplaceSchedule",
    "PowerCosineSchedule",
    "SigmoidSchedule",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _ClippedSchedule(NoiseSchedule):
    """A schedule of unbounded β, clipped: min(β, clip), and the integral of that.

    [0, T] is cut where β crosses the clip. The two agree there, so that an error of the cut enters
    B by its square.

    Parameters
    ----------
    horizon : float
    variance : float
        σ² of the process that this schedule drives.
    clip : float
        Largest value of β; `inf` leaves the schedule unclipped.
    """

    variance: float
    clip: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(variance=self.variance)
        if not (isinstance(self.clip, float) and np.isinf(self.clip)):
            require_positive(clip=self.clip)
        self._require_shape()
        least = float(np.min(self._free_ends))
        if not self.clip > least:
            raise ValueError(f"clip = {self.clip!r}: must exceed the smallest beta, {least:.6g}")

    @property
    def process_variance(self) -> float | None:
        return self.variance

    @abstractmethod
    def _require_shape(self) -> None:
        """Refuse parameters out of range."""

    @abstractmethod
    def _free(self, t: Array) -> Array:
        """β without the clip; ∞ at a pole."""

    @abstractmethod
    def _free_integral(self, t: Array) -> Array:
        """B without the clip; ∞ at a pole that has no integral."""

    @property
    def _turns(self) -> tuple[float, ...]:
        """Times in (0, T) between which the free β is monotone."""
        return ()

    @property
    def _ends(self) -> Array:
        return np.array([0.0, *self._turns, self.horizon])

    @cached_property
    def _free_ends(self) -> Array:
        with np.errstate(divide="ignore", over="ignore"):
            return self._free(self._ends)

    @cached_property
    def _pieces(self) -> tuple[Array, Array, Array]:
        """Where the clip sets in or ends, B there, and whether β is held after it."""
        from scipy.optimize import brentq  # slow to import

        def excess(t: float) -> float:
            """Of the sign of clip − β, and bounded at a pole."""
            with np.errstate(divide="ignore", over="ignore"):
                return float(1 / (1 + self._free(np.array(t)) / self.clip) - 0.5)

        held = (self._free_ends >= self.clip) & np.isfinite(self.clip)
        ends = self._ends
        crossings = [
            # relative to the time, which a pole at 0 may be crossed very close to
            brentq(excess, ends[i], ends[i + 1], xtol=1e-300, rtol=1e-15, maxiter=10_000)
            for i in range(len(ends) - 1)
            if held[i] != held[i + 1]
        ]
        edges = np.array([0.0, *crossings, self.horizon])
        is_held = (np.arange(len(edges) - 1) % 2 == 1) ^ held[0]
        with np.errstate(divide="ignore", over="ignore"):
            free = np.diff(self._free_integral(edges[:-1]), append=0.0)
        values = np.where(is_held, self.clip * np.diff(edges), free)
        return edges[:-1], np.append(0.0, np.cumsum(values[:-1])), is_held

    @property
    def supremum(self) -> float:
        return float(min(self.clip, np.max(self._free_ends)))

    def beta(self, t: npt.ArrayLike) -> Array:
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(np.minimum(self._free(self.times(t)), self.clip))

    def integral(self, t: npt.ArrayLike) -> Array:
        t = self.times(t)
        edges, levels, is_held = self._pieces
        piece = np.searchsorted(edges, t, side="right") - 1
        start, held = edges[piece], is_held[piece]
        with np.errstate(divide="ignore", over="ignore"):
            free = self._free_integral(np.where(held, start, t)) - self._free_integral(start)
        late = self.clip * (t - start) if np.isfinite(self.clip) else 0.0
        return np.asarray(levels[piece] + np.where(held, late, free))


def _log_sinh(x: Array | float) -> Array:
    """log(2 sinh x) for x ≥ 0, which does not overflow."""
    return np.asarray(x + np.log(-np.expm1(-2 * np.asarray(x))))


def _log_cosh(x: Array | float) -> Array:
    """log(2 cosh x), which does not overflow."""
    size = np.abs(x)
    return np.asarray(size + np.log1p(np.exp(-2 * size)))


def _minus_log(alpha_bar: Array, less_one: Array) -> Array:
    """−log ᾱ from log ᾱ and log(1 − ᾱ), whichever is exact: as ᾱ → 1 the second."""
    near = np.log1p(-np.exp(np.minimum(less_one, np.log(0.5))))
    return np.asarray(-np.where(less_one < np.log(0.5), near, alpha_bar))


@dataclass(frozen=True)
class SigmoidSchedule(_ClippedSchedule):
    """Sigmoid schedule of Jabri et al. (arXiv 2212.11972) and T. Chen (arXiv 2301.10972), clipped.

    With x(t) = (start + (end − start) t/T)/τ and the logistic function S,

        ᾱ(t) = (S(x(T)) − S(x(t)))/(S(x(T)) − S(x(0))),

    hence, by S(a) − S(b) = sinh((a − b)/2)/(2 cosh(a/2) cosh(b/2)),

        ᾱ = sinh((x_T − x)/2) cosh(x_0/2)/(sinh((x_T − x_0)/2) cosh(x/2)),
        β = σ² x′ cosh(x_T/2)/(2 cosh(x/2) sinh((x_T − x)/2)),

    which increases to its pole at T and is clipped there. The sources clip ᾱ at 1e-9 instead.

    Parameters
    ----------
    horizon, variance, clip : float
        As in `CosineSchedule`.
    start, end : float
        start < end; −3 and 3, or 0 and 3, in the sources.
    tau : float
        τ > 0, the temperature: a small one changes the noise level late and fast.

    Raises
    ------
    ValueError
        If start or end exceed 300 τ in size, where S can't be told from 0 or 1.
    """

    start: float
    end: float
    tau: float

    def _require_shape(self) -> None:
        require_positive(tau=self.tau)
        bound = 300 * self.tau
        require_within(-bound, bound, start=self.start, end=self.end)
        if not self._length > 1e-9:
            raise ValueError(f"end = {self.end!r}: must exceed start = {self.start!r}")

    @property
    def _length(self) -> float:
        """x_T − x_0."""
        return (self.end - self.start) / self.tau

    def _arguments(self, t: Array) -> tuple[Array, Array, Array]:
        """x − x_0, x and x_T − x."""
        fraction = t / self.horizon
        rise, left = self._length * fraction, self._length * (1 - fraction)
        return rise, self.start / self.tau + rise, left

    def _free(self, t: Array) -> Array:
        _, x, left = self._arguments(t)
        logarithm = _log_cosh(self.end / self.tau / 2) - _log_cosh(x / 2) - _log_sinh(left / 2)
        return np.asarray(self.variance * self._length / self.horizon * np.exp(logarithm))

    def _free_integral(self, t: Array) -> Array:
        rise, x, left = self._arguments(t)
        common = _log_cosh(x / 2) + _log_sinh(self._length / 2)
        alpha_bar = _log_sinh(left / 2) + _log_cosh(self.start / self.tau / 2) - common
        less_one = _log_sinh(rise / 2) + _log_cosh(self.end / self.tau / 2) - common
        return self.variance * _minus_log(alpha_bar, less_one)


@dataclass(frozen=True)
class PowerCosineSchedule(_ClippedSchedule):
    """Cosine family of T. Chen (arXiv 2301.10972), clipped.

    With u(t) = (π/2)(start + (end − start) t/T) and c(t) = cos^{2τ} u(t),

        ᾱ(t) = (c(t) − c(T))/(c(0) − c(T)),    β(t) = 2σ²τ u′ tan u · c(t)/(c(t) − c(T)),

    which increases to its pole at T and is clipped there. The source clips ᾱ at 1e-9 instead.
    τ = 1, end = 1 and start = s/(1 + s) is the cosine of Nichol and Dhariwal with offset s.
    At start = 0, β(0) = 0.

    Parameters
    ----------
    horizon, variance, clip : float
        As in `CosineSchedule`.
    start, end : float
        0 ≤ start < end ≤ 1; 0 or 0.2, and 1, in the source.
    tau : float
        τ from 0.01 to 100, the exponent.
    """

    start: float
    end: float
    tau: float

    def _require_shape(self) -> None:
        require_within(0, 1, start=self.start, end=self.end)
        require_within(0.01, 100, tau=self.tau)
        if not self.end - self.start > 1e-9:
            raise ValueError(f"end = {self.end!r}: must exceed start = {self.start!r}")

    def _angles(self, t: Array | float) -> tuple[Array, Array, Array]:
        """u − u(0), cos u and u(T) − u, none of which cancels."""
        fraction = np.asarray(t) / self.horizon
        whole = np.pi / 2 * (self.end - self.start)
        left = whole * (1 - fraction)
        return whole * fraction, np.sin(np.pi / 2 * (1 - self.end) + left), left

    def _fall(self, t: Array | float) -> Array:
        """log(cos u(0)/cos u)."""
        rise, cosine, _ = self._angles(t)
        first, start = np.pi / 2 * self.start, np.sin(np.pi / 2 * (1 - self.start))
        drop = 2 * np.sin(first + rise / 2) * np.sin(rise / 2) / start
        near = np.log1p(-np.minimum(drop, 0.5))
        return np.asarray(-np.where(drop < 0.5, near, np.log(cosine / start)))

    def _rest(self, t: Array | float) -> Array:
        """1 − c(T)/c(t)."""
        _, _, left = self._angles(t)
        last = np.sin(np.pi / 2 * (1 - self.end))
        if last == 0:
            return np.ones(np.shape(t))
        gain = 2 * np.sin(np.pi / 2 * self.end - left / 2) * np.sin(left / 2) / last
        return np.asarray(-np.expm1(-2 * self.tau * np.log1p(gain)))

    def _free(self, t: Array) -> Array:
        rise, cosine, _ = self._angles(t)
        rate = np.pi * (self.end - self.start) / self.horizon * self.variance * self.tau
        tangent = np.sin(np.pi / 2 * self.start + rise) / cosine
        return np.asarray(rate * tangent / self._rest(t))

    def _free_integral(self, t: Array) -> Array:
        fall, whole = 2 * self.tau * self._fall(t), self._rest(0.0)
        alpha_bar = -fall + np.log(self._rest(t)) - np.log(whole)
        less_one = np.log(-np.expm1(-fall)) - np.log(whole)
        return self.variance * _minus_log(alpha_bar, less_one)


@dataclass(frozen=True)
class LaplaceSchedule(_ClippedSchedule):
    """Laplace schedule of Hang et al. (arXiv 2407.03297), clipped.

    The log signal-to-noise ratio λ = log(m²/(1 − m²)) of a uniform time has a Laplace law of
    location μ and scale b:

        λ(t) = μ − b log(2t/T) for t ≤ T/2,    λ(t) = μ + b log(2 − 2t/T) after,
        B(t) = σ² log(1 + e^{−λ(t)}),    β(t) = σ² (b/min(t, T − t))/(1 + e^{λ(t)}).

    At T there is a pole, which is clipped. So is the one at 0 of b < 1; β(0) = 0 for b > 1.

    Parameters
    ----------
    horizon, variance, clip : float
        As in `CosineSchedule`.
    location : float
        μ in [−100, 100], the median of λ; 0 in the source.
    scale : float
        b from 0.01 to 10; 0.5 in the source.
    """

    location: float
    scale: float

    def _require_shape(self) -> None:
        require_within(-100, 100, location=self.location)
        require_within(0.01, 10, scale=self.scale)

    @property
    def _turns(self) -> tuple[float, ...]:
        # the early β ∝ u^{b−1}/(1 + e^{−μ} u^b), u = 2t/T, is largest at e^{−μ} u^b = b − 1
        half = self.horizon / 2
        if self.scale <= 1:
            return (half,)
        top = half * np.exp((self.location + np.log(self.scale - 1)) / self.scale)
        return (float(top), half) if 0 < top < half else (half,)

    def _sides(self, t: Array) -> tuple[npt.NDArray[np.bool_], Array, Array]:
        """Whether t ≤ T/2; 2t/T and 2 − 2t/T, each 1 on the other side."""
        early = t <= self.horizon / 2
        before = np.where(early, 2 * t / self.horizon, 1.0)
        return early, before, np.where(early, 1.0, 2 * (1 - t / self.horizon))

    def _free(self, t: Array) -> Array:
        early, before, after = self._sides(t)
        odds, b = np.exp(self.location), self.scale
        rise = before ** (b - 1) / (odds + before**b)
        fall = 1 / (after * (1 + odds * after**b))
        return np.asarray(2 * b * self.variance / self.horizon * np.where(early, rise, fall))

    def _free_integral(self, t: Array) -> Array:
        _, before, after = self._sides(t)
        exponent = -self.location + self.scale * (np.log(before) - np.log(after))
        return np.asarray(self.variance * np.logaddexp(0.0, exponent))


@dataclass(frozen=True)
class EDMSchedule(NoiseSchedule):
    """Noise levels of Karras et al. (arXiv 2206.00364, equation 5), in VP or VE form.

    With s(t) = (σ_min^{1/ρ} + (σ_max^{1/ρ} − σ_min^{1/ρ}) t/T)^ρ, the noise added since time 0,
    seen beside unscaled data, has variance v/m² = s²(t) − s²(0):

        B(t) = σ² log(1 + (s²(t) − s²(0))/σ²),    β(t) = 2 s s′/(1 + (s²(t) − s²(0))/σ²).

    σ² = ∞ is VE, B = s² − s²(0), as that of `GeometricSchedule`, the limit ρ → ∞.

    Parameters
    ----------
    horizon : float
    variance : float
        σ² of the process that this schedule drives; `inf` for VE.
    sigma_min, sigma_max : float
        0 ≤ σ_min < σ_max; 0.002 and 80 in the source.
    rho : float
        ρ from 0.5 to 1000; 7 in the source. σ_min = 0 has β(0) = 0 for ρ > ½.
    """

    variance: float
    sigma_min: float
    sigma_max: float
    rho: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (isinstance(self.variance, float) and np.isinf(self.variance)):
            require_positive(variance=self.variance)
        require_positive(sigma_max=self.sigma_max)
        if self.sigma_min != 0:
            require_positive(sigma_min=self.sigma_min)
        require_within(0.5, 1000, rho=self.rho)
        if not self.sigma_max > self.sigma_min * (1 + 1e-9):
            raise ValueError(
                f"sigma_max = {self.sigma_max!r}: must exceed sigma_min = {self.sigma_min!r}"
            )

    @property
    def process_variance(self) -> float | None:
        return self.variance

    @property
    def _roots(self) -> tuple[float, float]:
        """σ_min^{1/ρ} and the difference of σ_max^{1/ρ} from it."""
        low = self.sigma_min ** (1 / self.rho)
        if low == 0:
            return 0.0, self.sigma_max ** (1 / self.rho)
        log_ratio = np.log1p((self.sigma_max - self.sigma_min) / self.sigma_min)
        return low, float(low * np.expm1(log_ratio / self.rho))

    def _added(self, t: Array) -> Array:
        """s²(t) − s²(0), exact as t → 0."""
        low, span = self._roots
        rise = span * t / self.horizon
        if low == 0:
            return np.asarray(rise ** (2 * self.rho))
        return np.asarray(self.sigma_min**2 * np.expm1(2 * self.rho * np.log1p(rise / low)))

    def beta(self, t: npt.ArrayLike) -> Array:
        t = self.times(t)
        low, span = self._roots
        root = low + span * t / self.horizon
        slope = 2 * self.rho * root ** (2 * self.rho - 1) * span / self.horizon
        return np.asarray(slope / (1 + self._added(t) / self.variance))

    def integral(self, t: npt.ArrayLike) -> Array:
        added = self._added(self.times(t))
        if np.isinf(self.variance):
            return added
        return np.asarray(self.variance * np.log1p(added / self.variance))

    def inverse_integral(self, b: npt.ArrayLike) -> Array:
        b = require_levels(self, b)
        added = b if np.isinf(self.variance) else self.variance * np.expm1(b / self.variance)
        low, span = self._roots
        if low == 0:
            rise = added ** (1 / (2 * self.rho))
        else:
            rise = low * np.expm1(np.log1p(added / self.sigma_min**2) / (2 * self.rho))
        return np.asarray(self.horizon * np.minimum(rise / span, 1.0))

    @property
    def supremum(self) -> float:
        # β ∝ g^{2ρ−1}/(σ² − s²(0) + g^{2ρ}), g = s^{1/ρ}: largest at g^{2ρ} = (2ρ − 1)(σ² − s²(0))
        low, span = self._roots
        excess = max(self.variance - self.sigma_min**2, 0.0)
        top = ((2 * self.rho - 1) * excess) ** (1 / (2 * self.rho)) if self.rho > 0.5 else 0.0
        turn = self.horizon * min(max((top - low) / span, 0.0), 1.0)
        return float(np.max(self.beta([0.0, turn, self.horizon])))


@dataclass(frozen=True)
class DiscreteCosineSchedule(NoiseSchedule):
    """Cosine schedule of Nichol & Dhariwal (arXiv 2102.09672, equation 17) as printed: discrete.

    K steps with ᾱ_k = f(k)/f(0), f(k) = cos²((π/2)(k/K + s)/(1 + s)), and

        β_k = min(1 − ᾱ_k/ᾱ_{k−1}, β_max).

    Step k is the interval ((k − 1)T/K, kT/K] of a process in continuous time. A VP process of
    constant rate has m² shrink by 1 − β_k over it where

        β(t) = −σ² (K/T) log(1 − β_k),

    so that at the times kT/K the law of the process is that of the discrete chain, clip included.
    B is linear between them. `CosineSchedule` with clip = ∞ is the limit K → ∞ for t < T;
    the clip here bounds one step, the last of many, there the rate.

    Parameters
    ----------
    horizon, variance, offset : float
        As in `CosineSchedule`.
    steps : int
        K ≥ 1; 1000 or 4000 in the source.
    max_beta : float
        β_max in (0, 1); 0.999 in the source.
    """

    variance: float
    offset: float
    steps: int
    max_beta: float

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(variance=self.variance, offset=self.offset)
        require_integer(1, steps=self.steps)
        require_within(1e-9, 1 - 1e-9, max_beta=self.max_beta)
        if self.steps > 10**6:
            raise ValueError(f"steps = {self.steps!r}: must be at most {10**6}")

    @property
    def process_variance(self) -> float | None:
        return self.variance

    @cached_property
    def _knots(self) -> tuple[Array, Array]:
        """Times kT/K, and B there."""
        times = np.linspace(0.0, self.horizon, self.steps + 1)
        free = CosineSchedule(self.horizon, self.variance, self.offset, np.inf)
        largest = -self.variance * np.log1p(-self.max_beta)
        increments = np.minimum(np.diff(free.integral(times)), largest)
        return times, np.append(0.0, np.cumsum(increments))

    def beta(self, t: npt.ArrayLike) -> Array:
        times, levels = self._knots
        step = np.clip(np.searchsorted(times, self.times(t), side="left"), 1, self.steps)
        return np.asarray(np.diff(levels)[step - 1] * self.steps / self.horizon)

    def integral(self, t: npt.ArrayLike) -> Array:
        times, levels = self._knots
        return np.asarray(np.interp(self.times(t), times, levels))

    def inverse_integral(self, b: npt.ArrayLike) -> Array:
        times, levels = self._knots
        return np.asarray(np.interp(require_levels(self, b), levels, times))
