"""Schemes of two evaluations a step, for the probability flow and for the backward SDE.

In the noise level σ̃ = √v/m and u = x/m the probability flow is du/dσ̃ = (u − x̂₀)/σ̃, whatever
the process; the step that freezes x̂₀ is x′ = √(v′/v) x + m′(1 − r) x̂₀, r = σ̃′/σ̃ (DDIM). Heun's
scheme and both DPM-Solvers evaluate x̂₀* at a second level, at the point where that step
arrives there, and are

    x′ = √(v′/v) x + m′(1 − r) [x̂₀ + ω (x̂₀* − x̂₀)],

with ω = 1/(2r) at σ̃′ (Heun), ω = r^{−1/2} at √(σ̃ σ̃′) (DPM-Solver-2) and ω = 1 there
((DPM-Solver++(2S)). A step onto the data, where r = 0, has one evaluation and ω = 0.

Sources
-------
Karras et al. (EDM, arXiv 2206.00364); Lu et al. (DPM-Solver, arXiv 2206.00927; DPM-Solver++,
arXiv 2211.01095); Cox and Matthews (J. Comput. Phys. 176, 2002), exponential Runge-Kutta;
Xu et al. (restart, arXiv 2306.14878); Shen and Lee (randomised midpoint, arXiv 1909.05503).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from sgm.arguments import require_integer, require_positive, require_within
from sgm.processes import Process
from sgm.random import stream
from sgm.registry import NonNegative, Positive, Seed, register
from sgm.samplers.increments import (
    factor,
    gain,
    half_step,
    increment,
    level_ratio,
    log_level,
    phi,
    renoised,
    squared_decay,
    squared_growth,
    step_columns,
    step_ends,
    time_of_level,
    towards_denoiser,
)
from sgm.samplers.steps import Stage, Steps, program, symbols

__all__ = [
    "dpm_solver_2s",
    "dpm_solver_pp_2s",
    "edm",
    "exponential_runge_kutta",
    "exponential_runge_kutta_modified",
    "heun",
    "randomised_midpoint",
    "restart",
]

Array = npt.NDArray[np.float64]


@register("sampler")
def heun(process: Process, times: npt.ArrayLike) -> Steps:
    """Heun's scheme for the probability flow in the noise level; EDM's deterministic sampler.

    Parameters
    ----------
    process : Process
    times : array_like, shape (N + 1,)
        Decreasing grid, see `sgm.timegrids`.

    Returns
    -------
    Steps
        N steps, 2N evaluations, or 2N − 1 if the grid ends at 0.
    """
    start, stop = step_columns(times)
    return program(process, len(start), _heun(process, start, stop))


@register("sampler", axes={"s_churn": "S"})
def edm(
    process: Process,
    times: npt.ArrayLike,
    s_churn: NonNegative,
    s_tmin: NonNegative = 0.0,
    s_tmax: Positive | None = None,
    s_noise: Positive = 1.0,
) -> Steps:
    """EDM's stochastic sampler: noise is added ("churn"), then a step of `heun` removes more.

    At levels σ̃ in [s_tmin, s_tmax] each step first goes up to σ̂ = (1 + γ) σ̃ with
    γ = min(s_churn/N, √2 − 1), by x ← (m̂/m) x + s_noise √(v̂ − (m̂/m)² v) z, but to no level above
    that of T.

    Parameters
    ----------
    process, times
        As in `heun`.
    s_churn : float
        ≥ 0; 0 is `heun`.
    s_tmin, s_tmax : float
        Levels 0 ≤ s_tmin ≤ s_tmax between which noise is added; None is no limit.
    s_noise : float
        Positive factor of that noise.

    Returns
    -------
    Steps
        With as many evaluations as `heun`.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """
    require_within(0.0, 1e100, s_churn=s_churn, s_tmin=s_tmin)
    require_positive(s_noise=s_noise)
    highest = np.inf if s_tmax is None else s_tmax
    if not highest >= s_tmin:
        raise ValueError(f"s_tmax = {s_tmax!r}: must be at least s_tmin = {s_tmin!r}")
    start, stop = step_columns(times)
    level = log_level(process, start)
    with np.errstate(over="ignore"):
        churned = (s_tmin <= np.exp(level / 2)) & (np.exp(level / 2) <= highest)
    growth = np.log1p(min(s_churn / len(start), np.sqrt(2) - 1))
    churned &= (growth > 0) & (start < process.horizon)
    raised = np.where(churned, time_of_level(process, level + 2 * growth), start)
    raised = np.maximum(raised, start)
    # without churn from time 0 to 0: B(T) − B(T) is no number for a β that has a pole at T
    scale, spread = renoised(process, start * churned, raised * churned)
    x, base, _, _, z = symbols(2)
    churn = Stage(None, x, [scale * x + s_noise * spread * z, base], when=churned)
    return program(process, len(start), [churn, *_heun(process, raised, stop)])


@register("sampler")
def dpm_solver_2s(process: Process, times: npt.ArrayLike) -> Steps:
    """DPM-Solver-2 (singlestep): the midpoint rule in the level, at the geometric mean.

    Parameters
    ----------
    process, times
        As in `heun`.

    Returns
    -------
    Steps
        With as many evaluations as `heun`.
    """
    return _by_midpoint(process, times, lambda r: r**-0.5)


@register("sampler")
def dpm_solver_pp_2s(process: Process, times: npt.ArrayLike) -> Steps:
    """DPM-Solver++(2S): as `dpm_solver_2s`, exponential in the data prediction.

    Parameters
    ----------
    process, times
        As in `heun`.

    Returns
    -------
    Steps
        With as many evaluations as `heun`.
    """
    return _by_midpoint(process, times, np.ones_like)


@register("sampler")
def exponential_runge_kutta(process: Process, times: npt.ArrayLike) -> Steps:
    """Exponential Runge-Kutta of second order for the backward SDE, of the score s.

    With L = 1/(2σ²), Δ the increment of B and h = LΔ (ETD2RK, Cox and Matthews): the predictor
    is `exponential_integrator`, with its noise, and the score of its output corrects it,

        y = eʰ x + Δ φ₁(h) s(τ, x) + noise,     x′ = y + Δ φ₂(h) [s(τ′, y) − s(τ, x)],

    φ₁ = (eʰ − 1)/h and φ₂ = (φ₁ − 1)/h; a step onto time 0 is not corrected. For additive noise
    the weak order is two. For VE it is stochastic Heun.

    Parameters
    ----------
    process, times
        As in `heun`.

    Returns
    -------
    Steps
        With as many evaluations as `heun`.
    """
    start, stop = step_columns(times)
    s = symbols(2)[2]
    with np.errstate(over="ignore"):
        noise = gain(process, start, stop, squared_growth)
    return _exponential(process, start, stop, half_step(process, start, stop), s, s, noise)


@register("sampler")
def exponential_runge_kutta_modified(process: Process, times: npt.ArrayLike) -> Steps:
    """As `exponential_runge_kutta`, of the modified score s̃ = s + x/σ² and L = −1/(2σ²).

    Its predictor is `exponential_integrator_modified`.

    Parameters
    ----------
    process, times
        As in `heun`.

    Returns
    -------
    Steps
        With as many evaluations as `heun`.

    Raises
    ------
    ValueError
        If the process has no stationary law, and hence no modified score.
    """
    if np.isinf(process.variance):
        raise ValueError(f"process = {process!r}: must have a stationary law")
    start, stop = step_columns(times)
    x, _, _, denoised, _ = symbols(2)

    def modified(t: Array) -> Array:
        # s̃ = (m/v)(x̂₀ − m x), which does not cancel; not asked for at t = 0
        m, v = process.mean_scale(t), np.where(t > 0, process.kernel_variance(t), 1.0)
        return np.asarray(m / v * (denoised - m * x))

    half = -half_step(process, start, stop)
    noise = gain(process, start, stop, squared_decay)
    return _exponential(process, start, stop, half, modified(start), modified(stop), noise)


@register("sampler", axes=["times_seed"])
def randomised_midpoint(process: Process, times: npt.ArrayLike, times_seed: Seed) -> Steps:
    """Exponential integrator whose score is evaluated at a random time in each step.

    With α uniform in [0, 1], h and Δ of the step in B, and τ* at B(τ) − αΔ, y is the output of
    `exponential_integrator` at τ*, and x′ = eʰ x + Δ e^{(1−α)h} s(τ*, y) + noise, that of y
    continued. The mean over α of what is added is the integral over the step. The α are drawn
    once, from a seed: given them, the scheme is linear, and its law exact.

    Parameters
    ----------
    process, times
        As in `heun`.
    times_seed : int
        Seed of the α, ≥ 0.

    Returns
    -------
    Steps
        N steps of two evaluations.

    Raises
    ------
    ValueError
        If `times_seed` is no integer of at least 0, or B(T) is infinite.
    """
    require_integer(0, times_seed=times_seed)
    start, stop = step_columns(times)
    drawn = stream(times_seed, "randomised_midpoint").uniform(size=start.shape)
    step = increment(process, start, stop)
    if not np.all(np.isfinite(step)):
        raise ValueError(f"process = {process!r}: must have a finite B(T)")
    clock = process.schedule.integral(start) - drawn * step
    middle = np.clip(process.schedule.inverse_integral(clock), stop, start)
    x, base, s, _, z = symbols(2)
    with np.errstate(over="ignore"):
        early, late = (half_step(process, a, b) for a, b in ((start, middle), (middle, stop)))
        moved = factor(gain(process, start, middle, np.expm1))
        first, second = (
            factor(np.sqrt(gain(process, a, b, squared_growth)))
            for a, b in ((start, middle), (middle, stop))
        )
        ahead, rest, whole = (factor(np.exp(h)) for h in (early, late, early + late))
    stages = [
        Stage(start, x, [ahead * x + moved * s + first * z, whole * x + factor(rest * first) * z]),
        Stage(middle, x, [base + factor(step * rest) * s + second * z, 0 * base]),
    ]
    return program(process, len(start), stages)


def _exponential(
    process: Process, start: Array, stop: Array, half: Array, now: Array, then: Array, noise: Array
) -> Steps:
    """ETD2RK of a drift L x + N, of the forms of N at the start and at the end of a step."""
    x, base, _, _, z = symbols(2)
    corrected = stop > 0
    step = increment(process, start, stop)
    pole = np.isinf(half)  # from the infinite level of a β that has a pole at T
    step, finite = np.where(pole, 1.0, step), np.where(pole, 0.0, half)
    whole = np.where(half < 0, 2 * process.variance, np.inf)  # |Δ φ_k| at h = −∞ and ∞
    with np.errstate(over="ignore", invalid="ignore"):
        growth, spread, first, second = (
            factor(value)
            for value in (
                np.exp(half),
                np.sqrt(noise),
                *(np.where(pole, whole, step * phi(k, finite)) for k in (1, 2)),
            )
        )
    second = np.where(corrected, second, 0.0)
    stages = [
        Stage(start, x, [growth * x + spread * z + f * now for f in (first, first - second)]),
        Stage(stop, x, [base + second * then, 0 * base], when=corrected),
    ]
    return program(process, len(start), stages)


@register("sampler", axes={"restarts": "K"})
def restart(
    process: Process,
    times: npt.ArrayLike,
    restarts: Annotated[int, Interval(ge=0, le=10**4)],
    low: Annotated[float, Interval(ge=0, le=1)],
    high: Annotated[float, Interval(ge=0, le=1)],
) -> Steps:
    """Restart sampling: `heun`, with an interval of times gone through again and again.

    When the chain arrives at the grid point next to low·T, noise takes it back to the one next to
    high·T by the forward kernel, and the steps between are run again, K times.

    Parameters
    ----------
    process, times
        As in `heun`.
    restarts : int
        K ≥ 0; 0 is `heun`.
    low, high : float
        Fractions of T, 0 ≤ low < high ≤ 1.

    Returns
    -------
    Steps
        N steps; the evaluations of the restarts count to the one that arrives at low·T.

    Raises
    ------
    ValueError
        If a parameter is out of range, or no step lies between the two.
    """
    require_integer(0, restarts=restarts)
    require_within(0.0, 1.0, low=low, high=high)
    if not high > low:
        raise ValueError(f"high = {high!r}: must exceed low = {low!r}")
    plain = heun(process, times)
    start, stop = step_ends(times)
    grid = np.append(start, stop[-1])
    first, last = (int(np.argmin(abs(grid - part * start[0]))) for part in (high, low))
    if not first < last:
        raise ValueError(
            f"low = {low!r}, high = {high!r}: must have a step of the grid between them"
        )
    scale, spread = renoised(process, grid[last : last + 1], grid[first : first + 1])
    n, starts = len(plain), np.append(plain.starts, len(plain))
    # the stages in the order that they are run; stage n takes the chain back
    again = np.append(n, np.arange(starts[first], starts[last]))
    order = np.concatenate(
        [np.arange(starts[last]), np.tile(again, restarts), np.arange(starts[last], n)]
    )
    x, base = np.eye(2)
    back = {
        "score_time": np.nan, "state": [scale * x, base], "score": 0 * x, "noise": spread * x,
        "kept": [scale * x, base], "denoiser": 0 * x, "point": x,
    }  # fmt: skip
    table = {
        key: np.concatenate([getattr(plain, key), [np.asarray(row, dtype=float)]])[order]
        for key, row in back.items()
    }
    later = np.where(np.arange(plain.n_steps) >= last, restarts * len(again), 0)
    return Steps(**table, starts=plain.starts + later)


def _heun(process: Process, start: Array, stop: Array) -> list[Stage]:
    r, _ = level_ratio(process, start, stop)
    with np.errstate(divide="ignore"):
        return _two_stages(process, start, stop, stop, 1 / (2 * r))


def _by_midpoint(process: Process, times: npt.ArrayLike, weight: Callable[[Array], Array]) -> Steps:
    """The scheme with its second evaluation at the geometric mean of the levels."""
    start, stop = step_columns(times)
    r, _ = level_ratio(process, start, stop)
    between = r > 0
    ends = [np.where(between, log_level(process, t), 0.0) for t in (start, stop)]
    middle = np.clip(time_of_level(process, (ends[0] + ends[1]) / 2), stop, start)
    omega = np.where(between, weight(np.where(between, r, 1.0)), np.inf)
    return program(process, len(start), _two_stages(process, start, stop, middle, omega))


def _two_stages(
    process: Process, start: Array, stop: Array, middle: Array, weight: Array
) -> list[Stage]:
    """The stages of a second evaluation of weight ω at another time."""
    # r = 0 onto the data, and from the infinite level of a β that has a pole at T
    corrected = (process.kernel_variance(stop) > 0) & np.isfinite(weight)
    weight, middle = np.where(corrected, weight, 0.0), np.where(corrected, middle, stop)
    keep, move = towards_denoiser(process, start, stop)
    keep_first, move_first = towards_denoiser(process, start, middle)
    x, base, _, denoised, _ = symbols(2)
    first = [
        keep_first * x + move_first * denoised,
        keep * x + move * (1 - weight) * denoised,
    ]
    second = [base + move * weight * denoised, 0 * base]
    return [Stage(start, x, first), Stage(middle, x, second, when=corrected)]
