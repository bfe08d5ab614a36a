"""Grids of noise levels made for the law of the data.

Let p_σ be the law of X₀ + σZ, λ_i the variances of X₀ along its principal axes. What a grid is to
spend its steps on is a density in log σ, and the steps divide its integral into equal parts. Two of
them count the error of denoising,

    mmse(σ) = E|X₀ − E[X₀ | X₀ + σZ]|² = σ² d − σ⁴ J(σ) = Σ λ_i σ²/(λ_i + σ²) − σ⁴ D(σ²),

by Tweedie's formula, J the Fisher information of p_σ and D its excess above that of a Gaussian
(`sgm.densities`), zero for a Gaussian; others how fast p_σ changes.
"""

from __future__ import annotations

from collections.abc import Callable
from math import log
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from annotated_types import Interval
from numpy.polynomial.legendre import leggauss, legint, legval, legvander

from sgm.arguments import require_positive, require_within
from sgm.densities import Law
from sgm.processes import Process
from sgm.registry import Positive, register
from sgm.timegrids.level import (
    End,
    levels_to_times,
    log_level,
    log_snr,
    require_finite_clock,
)

__all__ = [
    "constant_rate",
    "entropic",
    "entropic_rescaled",
    "gaussian_geometric",
    "geometric_ends",
    "mmse",
    "score_optimal",
]

Array = npt.NDArray[np.float64]


def mmse(law: Law, sigma: npt.ArrayLike) -> Array:
    """E|X₀ − E[X₀ | X₀ + σZ]|², in x².

    Parameters
    ----------
    law : Law
        Of X₀.
    sigma : array_like, shape (...)
        σ > 0.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ValueError
        If the law does not know its Fisher information.
    """
    noise = np.asarray(sigma, dtype=np.float64) ** 2
    excess = law.excess_information(noise)
    if not np.all(np.isfinite(excess)):
        raise ValueError(f"law = {type(law).__name__}: must know its Fisher information")
    spread = law.principal_variances
    ratio = spread / (spread + noise[..., None])
    gaussian = np.sum(ratio, axis=-1) * noise
    # where its modes are resolved, a mixture's is a difference of nearly equal numbers
    return np.asarray(np.maximum(gaussian - noise**2 * excess, 0.0))


def geometric_ends(law: Law, n_steps: int) -> tuple[float, float]:
    """Noise variances between which N geometric steps serve a Gaussian best (Perbost et al. 2026).

        τ_max = (Tr Σ⁵/Tr Σ)^{1/4} √N,     τ_min = Tr Σ/(d N²),

    the ends of least W2 bound for the VE process started at N(0, τ_max I) and stopped at τ_min.
    The formulas are those of a summary of the paper, whose text was not at hand.

    Parameters
    ----------
    law : Law
        By its covariance alone.
    n_steps : int
        N ≥ 1.

    Returns
    -------
    tuple of float
        τ_max and τ_min, in x².
    """
    spread = law.principal_variances
    largest = float(np.max(spread))
    relative = spread / largest
    fourth = float(np.sum(relative**5) / np.sum(relative))
    return largest * fourth**0.25 * n_steps**0.5, float(np.mean(spread)) / n_steps**2


@register("time_grid", needs="gaussian")
def gaussian_geometric(
    process: Process, n_steps: int, law: Law, stop: float = 0.0, *, end: End = "zero"
) -> Array:
    """A geometric sequence of noise levels down to √τ_min, of `geometric_ends`.

    Perbost, Marion and Bach (2026) start it at √τ_max, a choice of the horizon. Here the process
    says where the simulation starts: a first step down to √τ_max would be one in which schemes that
    freeze the score lose everything. Choose a schedule with σ²(T) = τ_max for what they prove.

    Parameters
    ----------
    process, n_steps, stop
        As in `sgm.timegrids.level.log_snr`.
    end : {"zero", "stop"}
        Whether the last step leads from √τ_min to `stop`, or the grid ends at √τ_min.
    law : Law
        Of the data.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T.

    Raises
    ------
    ValueError
        If τ_min is not between the noise variances of the last time and of T.
    """
    _, quietest = geometric_ends(law, n_steps)
    return log_snr(process, n_steps, stop, sigma_min=quietest**0.5, end=end)


@register("time_grid", needs="law")
def entropic(
    process: Process,
    n_steps: int,
    law: Law,
    stop: float = 0.0,
    *,
    sigma_min: Positive,
    end: End = "zero",
) -> Array:
    """Equal parts of the entropy H(X₀ | X₀ + σZ) (Stančević et al., arXiv 2504.13612).

    dH/dσ = mmse/σ³, which has no integral at 0 where the data have a density: hence `sigma_min`.

    Parameters
    ----------
    process, n_steps, stop
        As in `sgm.timegrids.level.log_snr`.
    sigma_min, end
        The smallest level; whether the last step leads from it to `stop`, or the grid ends at it.
    law : Law
        Of the data.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the law does not know its Fisher information.
    """
    require_positive(sigma_min=sigma_min)

    def density(level: Array) -> Array:
        sigma = np.exp(level)
        return np.asarray(mmse(law, sigma) / sigma**2)

    return _divided(process, n_steps, law, stop, density, None, sigma_min=sigma_min, end=end)


@register("time_grid", needs="law")
def entropic_rescaled(process: Process, n_steps: int, law: Law, stop: float = 0.0) -> Array:
    """Equal parts of ∫ mmse/σ² dσ, the rescaled entropic time (arXiv 2504.13612).

    For N(μ, λI) it is `arctangent` with c = √λ, for N(μ, Σ) that of Σ √λ_i arctan(σ/√λ_i).

    Parameters
    ----------
    process, n_steps, stop
        As in `sgm.timegrids.level.log_snr`.
    law : Law
        Of the data.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`, which may be 0.

    Raises
    ------
    ValueError
        As in `entropic`.
    """

    def density(level: Array) -> Array:
        sigma = np.exp(level)
        return np.asarray(mmse(law, sigma) / sigma)

    return _divided(process, n_steps, law, stop, density, 1)


@register("time_grid", needs="gaussian")
def score_optimal(
    process: Process,
    n_steps: int,
    law: Law,
    stop: float = 0.0,
    *,
    velocity: Literal["unit", "noise"],
) -> Array:
    """Equal Fisher divergences between neighbours, for many steps (Williams et al. 2024).

    E_{p_σ}|∇log p_{σ+dσ} − ∇log p_σ|² = δ(σ) dσ², and a grid of least Σ δ Δσ² divides ∫ w√δ dσ
    into equal parts (arXiv 2412.07877): their corrector-optimised one, in the coordinates X₀ + σZ,
    with the velocity w = 1 or w = σ. For a Gaussian δ = Σ 4σ²/(λ_i + σ²)³. Rebuilt from the
    paper's abstract and a summary of it.

    Parameters
    ----------
    process, n_steps, stop
        As in `sgm.timegrids.level.log_snr`.
    law : Law
        Of the data, a Gaussian.
    velocity : {"unit", "noise"}
        w = 1 or w = σ.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`, which may be 0.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the level of T is infinite with `velocity` "noise".
    """
    from scipy.special import expit

    if velocity not in ("unit", "noise"):
        raise ValueError(f"velocity = {velocity!r}: must be 'unit' or 'noise'")
    power = 2 if velocity == "unit" else 3
    spread = law.principal_variances

    def density(level: Array) -> Array:
        share = expit(2 * level[..., None] - np.log(spread))  # σ²/(λ + σ²)
        return np.asarray(2 * np.sqrt(np.sum(share**3, axis=-1)) * np.exp((power - 3) * level))

    return _divided(process, n_steps, law, stop, density, power, decays=velocity == "unit")


@register("time_grid", needs="law")
def constant_rate(
    process: Process,
    n_steps: int,
    law: Law,
    stop: float = 0.0,
    *,
    exponent: Annotated[float, Interval(ge=0, le=100)],
    scale: Positive,
) -> Array:
    """A constant rate of change of the law (Okada et al., arXiv 2411.12188).

    dα/dt ∝ v(α)^{−ξ}, where v(α) = D(p_α, p_{α+dα})/dα is the speed of the law of
    α X₀ + c√(1 − α²) Z, and α² = 1/(1 + σ²/c²). Of their discrepancies D the Fréchet distance,
    here of the data themselves: W2 between the Gaussians of the same moments, so that with
    V_i = α²λ_i + c²(1 − α²)

        v² = |μ|² + Σ α²(λ_i − c²)²/V_i.

    ξ = 1 divides the length of the path into equal parts; ξ = 0 makes α linear. Rebuilt from the
    paper's abstract and a summary of it.

    Parameters
    ----------
    process, n_steps, stop
        As in `sgm.timegrids.level.log_snr`.
    law : Law
        Of the data, by its first two moments.
    exponent : float
        ξ ≥ 0.
    scale : float
        c > 0.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`, which may be 0.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the law is N(0, c²I), which does not change.
    """
    from scipy.special import expit

    require_positive(scale=scale)
    require_within(0.0, 100.0, exponent=exponent)
    spread = law.principal_variances
    shift = float(np.sum(law.mean**2))
    gap = (spread - scale**2) ** 2
    if exponent and not shift + np.sum(gap / scale**2) > 0:
        raise ValueError(
            f"scale = {scale!r}: must differ from the standard deviation of the data, which are "
            "N(0, scale² I): their law does not change"
        )

    def density(level: Array) -> Array:
        noise = expit(2 * (level - log(scale)))[..., None]  # 1 − α²
        signal = expit(2 * (log(scale) - level))[..., None]
        speed = shift + np.sum(signal * gap / (signal * spread + scale**2 * noise), axis=-1)
        # dα = −α (1 − α²) d log σ
        return np.asarray(speed ** (exponent / 2) * np.sqrt(signal[..., 0]) * noise[..., 0])

    return _divided(process, n_steps, law, stop, density, 2, at=scale)


def _divided(
    process: Process,
    n_steps: int,
    law: Law,
    stop: float,
    density: Callable[[Array], Array],
    power: int | None,
    *,
    decays: bool = True,
    at: float | None = None,
    sigma_min: float | None = None,
    end: End = "zero",
) -> Array:
    """The times of equal parts of ∫ density d log σ.

    Parameters
    ----------
    density : callable
        Of log σ, vectorised.
    power : int or None
        The density is that power of σ well below the data; None if it has no integral there, and
        `sigma_min` bounds it.
    decays : bool
        Whether it vanishes well above the data, like 1/σ at least; else it is constant there.
    at : float, optional
        A level at which it bends, besides those of the data.
    """
    bends = np.sqrt(law.principal_variances)
    low, high = (float(np.log(f(np.append(bends, at or bends[0])))) for f in (np.min, np.max))
    top = float(log_level(process, process.horizon))
    usual = min(top, high + _ABOVE)
    if decays:
        top = usual
    require_finite_clock(process, top)
    bottom = min(low - _BELOW if sigma_min is None else log(sigma_min), usual - 1.0)
    knots = np.linspace(bottom, usual, int(np.ceil(usual - bottom)) + 1)
    if top > usual:  # where the density is constant
        knots = np.append(knots, top)
    clock = _Clock(density, knots, power)
    return levels_to_times(
        process, n_steps, stop, clock, clock.inverse, sigma_min, end, top=float(knots[-1])
    )


#: How far below and above the bends of a density, in log σ, it is a power to double precision.
_BELOW, _ABOVE = 20.0, 37.0


class _Clock:
    """The integral of a positive density, from −∞ or from the first of some knots.

    Between two knots the density is a Legendre series; below the first it is a power, of σ.
    """

    def __init__(
        self, density: Callable[[Array], Array], knots: Array, power: int | None, nodes: int = 16
    ) -> None:
        points, weights = leggauss(nodes)
        half = np.diff(knots)[:, None] / 2
        values = half * density(knots[:-1, None] + half * (1 + points))
        projection = (np.arange(nodes)[:, None] + 0.5) * legvander(points, nodes - 1).T * weights
        self.knots = knots
        self.series = legint(projection @ values.T, lbnd=-1)  # one column a panel
        self.power = power
        base = float(density(knots[:1])[0]) / power if power else 0.0
        self.reached = base + np.append(0.0, np.cumsum(values @ weights))

    def __call__(self, level: Array) -> Array:
        last = len(self.knots) - 2
        panel = np.clip(np.searchsorted(self.knots, level, side="right") - 1, 0, last)
        width = np.diff(self.knots)[panel]
        x = 2 * (np.maximum(level, self.knots[0]) - self.knots[panel]) / width - 1
        inside = self.reached[panel] + legval(x, self.series[:, panel], tensor=False)
        below = self.reached[0] * np.exp((self.power or 0) * (level - self.knots[0]))
        return np.asarray(np.where(level < self.knots[0], below, inside))

    def inverse(self, value: Array) -> Array:
        """The levels at which the integral has some values."""
        from scipy.optimize import elementwise

        last = len(self.knots) - 2
        panel = np.clip(np.searchsorted(self.reached, value, side="right") - 1, 0, last)
        missing = np.clip(value - self.reached[panel], 0.0, np.diff(self.reached)[panel])

        def excess(x: Array, /, *place: Array) -> Array:
            index, due = place
            reached = legval(x, self.series[:, index.astype(int)], tensor=False)
            return np.asarray(reached - due)

        ends = np.full(value.shape, -1.0), np.ones(value.shape)
        root = elementwise.find_root(
            excess, ends, args=(panel.astype(float), missing), tolerances={"xatol": 1e-15}
        )
        inside = self.knots[panel] + np.diff(self.knots)[panel] * (1 + root.x) / 2
        with np.errstate(divide="ignore", invalid="ignore"):
            below = self.knots[0] + np.log(value / self.reached[0]) / (self.power or 1)
        return np.asarray(np.where(value < self.reached[0], below, inside))
