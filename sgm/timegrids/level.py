"""Grids of noise levels: the same levels for every schedule that reaches them.

p_t is, up to a factor m, the data at noise of standard deviation σ = √v/m, the noise-to-signal
ratio of Karras et al.; half the log-SNR of DPM-Solver is λ = −log σ. With the stationary variance
σ_∞²,

    B = σ_∞² log(1 + σ²/σ_∞²)   (VP),     B = σ²   (VE),

so a level is found in a schedule by B⁻¹. All is done in log σ, which no horizon overflows. A grid
divides a *clock*, an increasing function of log σ, into equal parts between the level of T and that
of its end; `sgm.timegrids` says how a grid ends.

A `scale` c is what σ is compared with: the standard deviation of the prior in VP form, m² =
1/(1 + σ²/c²), hence σ_∞ where a formula is that of a schedule.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log
from typing import Literal

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_finite, require_positive, require_within
from sgm.processes import Process
from sgm.registry import NonNegative, Positive, Real, register
from sgm.timegrids.time import ordered, require_end

__all__ = [
    "arctangent",
    "cosine",
    "dmn",
    "karras",
    "laplace",
    "levels_to_times",
    "linear_steps",
    "log_level",
    "log_snr",
    "require_finite_clock",
    "sigmoid",
    "time_at_level",
]

Array = npt.NDArray[np.float64]
End = Literal["zero", "stop"]


def log_level(process: Process, t: npt.ArrayLike) -> Array:
    """log σ(t) = log(√v/m), shape of `t`; −∞ at t = 0, and finite wherever B is."""
    integral = np.asarray(process.schedule.integral(t))
    with np.errstate(divide="ignore"):
        if np.isinf(process.variance):
            return np.asarray(np.log(integral) / 2)
        relative = integral / process.variance
        # log(eˣ − 1), for tiny x and for huge ones
        return np.asarray((log(process.variance) + relative + np.log(-np.expm1(-relative))) / 2)


def time_at_level(process: Process, log_sigma: npt.ArrayLike) -> Array:
    """The time t with log σ(t) = `log_sigma`, shape of it; what exceeds σ(T) by rounding is T."""
    doubled = 2 * np.asarray(log_sigma, dtype=np.float64)
    if np.isinf(process.variance):
        integral = np.exp(doubled)
    else:
        integral = process.variance * np.logaddexp(0.0, doubled - log(process.variance))
    total = process.schedule.integral(process.horizon)
    return process.schedule.inverse_integral(np.minimum(integral, total))


@register("time_grid")
def log_snr(
    process: Process, n_steps: int, stop: float = 0.0, *, sigma_min: Positive, end: End = "zero"
) -> Array:
    """Equal steps in log σ, hence in log-SNR: a geometric sequence of noise levels.

    The "logSNR" steps of DPM-Solver (Lu et al., arXiv 2206.00927), the noise levels of Song and
    Ermon (arXiv 1907.05600) and the "exponential" ones of k-diffusion: λ = −log σ is one thing.

    Parameters
    ----------
    process : Process
    n_steps : int
        N ≥ 1.
    stop : float
        Last time, in [0, T).
    sigma_min : float
        The smallest level σ, a noise-to-signal ratio, below that of T.
    end : {"zero", "stop"}
        Whether the last step leads from `sigma_min` to `stop`, or the grid ends at `sigma_min`.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the steps are too small for double precision.
    """
    return levels_to_times(process, n_steps, stop, _identity, _identity, sigma_min, end)


@register("time_grid", axes={"rho": "ρ"})
def karras(
    process: Process,
    n_steps: int,
    stop: float = 0.0,
    *,
    rho: Positive,
    sigma_min: Positive,
    end: End = "zero",
) -> Array:
    """Equal steps in σ^{1/ρ} (Karras et al., arXiv 2206.00364, equation 5).

    There ρ = 7 and σ_min = 0.002, and a last step to 0. Towards ρ = ∞ it is `log_snr`.

    Parameters
    ----------
    process, n_steps, stop
        As in `log_snr`.
    sigma_min, end
        The smallest level; whether the last step leads from it to `stop`, or the grid ends at it.
    rho : float
        ρ > 0.

    Returns
    -------
    ndarray, shape (n_steps + 1,)

    Raises
    ------
    ValueError
        As in `log_snr`; or if σ(T)^{1/ρ} is no number.
    """
    require_positive(rho=rho)

    def clock(level: Array) -> Array:
        return np.asarray(np.exp(level / rho))

    def inverse(value: Array) -> Array:
        return np.asarray(rho * np.log(value))

    return levels_to_times(process, n_steps, stop, clock, inverse, sigma_min, end)


@register("time_grid", axes=["scale"])
def arctangent(process: Process, n_steps: int, stop: float = 0.0, *, scale: Positive) -> Array:
    """Equal steps in arctan(σ/c) (Sabour et al., arXiv 2404.14507, their closed form).

    It minimises a bound of the path KL for data N(0, c²I), for many steps. σ = c tan(πu/2) are the
    levels of `cosine` without an offset.

    Parameters
    ----------
    process, n_steps, stop
        As in `log_snr`.
    scale : float
        c > 0.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`, which may be 0.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the steps are too small for double precision.
    """
    require_positive(scale=scale)

    def clock(level: Array) -> Array:
        return np.asarray(np.arctan(np.exp(level - log(scale))))

    def inverse(value: Array) -> Array:
        return np.asarray(log(scale) + np.log(np.tan(value)))

    return levels_to_times(process, n_steps, stop, clock, inverse)


@register("time_grid")
def cosine(
    process: Process, n_steps: int, stop: float = 0.0, *, offset: NonNegative, scale: Positive
) -> Array:
    """The levels of the cosine schedule at equal steps of its angle (arXiv 2102.09672).

    θ with m² = 1/(1 + σ²/c²) = cos²θ/cos²θ₀, θ₀ = (π/2) s/(1 + s), so that

        tan²θ = (σ²/c² + sin²θ₀)/cos²θ₀,     σ²/c² = sin(θ − θ₀) sin(θ + θ₀)/cos²θ.

    Between the level of T, wherever that is, and 0: without its pole, and without a clip.

    Parameters
    ----------
    process, n_steps, stop
        As in `log_snr`.
    offset : float
        s ≥ 0; 0.008 in Nichol & Dhariwal.
    scale : float
        c > 0.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`, which may be 0.

    Raises
    ------
    ValueError
        As in `arctangent`.
    """
    require_positive(scale=scale)
    require_within(0.0, 1e9, offset=offset)
    first = np.pi / 2 * offset / (1 + offset)

    def clock(level: Array) -> Array:
        sigma = np.exp(level - log(scale))
        return np.asarray(np.arctan(np.hypot(sigma, np.sin(first)) / np.cos(first)))

    def inverse(value: Array) -> Array:
        turned = np.sin(np.maximum(value - first, 0.0)) * np.sin(value + first)
        return np.asarray(log(scale) + np.log(turned) / 2 - np.log(np.cos(value)))

    return levels_to_times(process, n_steps, stop, clock, inverse)


@register("time_grid")
def sigmoid(
    process: Process,
    n_steps: int,
    stop: float = 0.0,
    *,
    start: Real,
    finish: Real,
    temperature: Positive,
    scale: Positive,
) -> Array:
    """The levels of the sigmoid schedule at equal steps of its time (arXiv 2212.11972).

    With S the logistic function, a = start, b = finish, τ = temperature, and u from a to b,

        m² = 1/(1 + σ²/c²) = (S(b/τ) − S(u/τ))/(S(b/τ) − S(a/τ)),
        σ²/c² = sinh((u − a)/2τ) cosh(b/2τ) / (sinh((b − u)/2τ) cosh(a/2τ)).

    Jabri, Fleet and Chen have a = −3, b = 3 and τ = 0.9 or so.

    Parameters
    ----------
    process, n_steps, stop
        As in `log_snr`.
    start, finish : float
        a < b.
    temperature : float
        τ > 0; a and b are at most 200 of it from 0.
    scale : float
        c > 0.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`, which may be 0.

    Raises
    ------
    ValueError
        As in `arctangent`.
    """
    from scipy.special import expit

    require_positive(scale=scale, temperature=temperature)
    low, high = start / temperature, finish / temperature
    require_within(-200.0, 200.0, **{"start / temperature": low, "finish / temperature": high})
    if not low < high:
        raise ValueError(f"finish = {finish!r}: must exceed start = {start!r}")
    span = expit(high) - expit(low)

    def clock(level: Array) -> Array:
        noise = expit(2 * (level - log(scale)))  # 1 − m²
        signal = expit(2 * (log(scale) - level))
        return np.asarray(np.log(expit(low) + span * noise) - np.log(expit(-high) + span * signal))

    def inverse(value: Array) -> Array:
        up, down = np.maximum(value - low, 0.0) / 2, np.maximum(high - value, 0.0) / 2
        ratio = np.log(np.sinh(up)) - np.log(np.sinh(down))
        return np.asarray(log(scale) + (ratio + _log_cosh(high / 2) - _log_cosh(low / 2)) / 2)

    return levels_to_times(process, n_steps, stop, clock, inverse)


@register("time_grid")
def laplace(
    process: Process, n_steps: int, stop: float = 0.0, *, location: Real, width: Positive
) -> Array:
    """Quantiles of a Laplace law of the log-SNR 2λ = −2 log σ (Hang et al., arXiv 2407.03297).

    Uniform in F(2 log σ) between T and 0, F the distribution function of Laplace(−μ, b), so that
    levels are dense where the log-SNR is about μ. Hang et al. train with μ = 0, b = 0.5.

    Parameters
    ----------
    process, n_steps, stop
        As in `log_snr`.
    location : float
        μ, of log(m²/v).
    width : float
        b > 0.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`, which may be 0.

    Raises
    ------
    ValueError
        As in `arctangent`.
    """
    require_positive(width=width)
    require_finite(location=location)

    def clock(level: Array) -> Array:
        distance = (2 * level + location) / width
        tail = np.exp(-np.abs(distance)) / 2
        return np.where(distance < 0, tail, 1 - tail)

    def inverse(value: Array) -> Array:
        distance = np.where(value < 0.5, np.log(2 * value), -np.log(2 * (1 - value)))
        return np.asarray((width * distance - location) / 2)

    return levels_to_times(process, n_steps, stop, clock, inverse)


@register("time_grid", axes=["ratio"])
def linear_steps(process: Process, n_steps: int, stop: float = 0.0, *, ratio: Positive) -> Array:
    """Steps γ_k of B that grow linearly from γ_min, at the data, to γ_max (Conforti, Durmus).

    They are steps of the Ornstein-Uhlenbeck process dX = −X dt/(2σ²) + dB, whose time is B, and sum
    to B(T) − B(τ_N): only γ_max/γ_min is free. `uniform` of the schedule with linear β has such
    steps, and so has DDPM, with 0.02/0.0001. Rebuilt from a summary of the lecture.

    Parameters
    ----------
    process, n_steps, stop
        As in `log_snr`.
    ratio : float
        γ_max/γ_min > 0.

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`, which may be 0.

    Raises
    ------
    ValueError
        As in `arctangent`; or if B(T) = ∞.
    """
    require_positive(ratio=ratio)
    require_end(process.horizon, n_steps, stop)
    below, total = (float(b) for b in process.schedule.integral([stop, process.horizon]))
    require_finite_clock(process, total)
    steps = np.linspace(1.0, ratio, n_steps)
    reached = np.append(0.0, np.cumsum(steps / np.sum(steps)))[::-1]
    levels = np.minimum(below + (total - below) * reached, total)
    return _closed(process, stop, process.schedule.inverse_integral(levels))


@register("time_grid")
def dmn(
    process: Process,
    n_steps: int,
    stop: float = 0.0,
    *,
    order: Literal[1, 2, 3],
    exponent: Positive,
    scale: Positive,
    sigma_min: Positive,
    end: End = "zero",
) -> Array:
    """Levels that minimise a bound of a multistep solver's error (Xue et al., arXiv 2402.17376).

    A solver of order p in λ = −log σ takes w_{n,j} = ∫_{λ_n}^{λ_{n+1}} e^λ ℓ_{n,j}(λ) dλ times the
    denoiser's value at λ_j in step n, ℓ_{n,j} the Lagrange polynomials of the last p values, fewer
    in the first steps. With an error of the denoiser of the size ε_j = s_j^q/m_j, where m² =
    1/(1 + e^{−2λ}) and s² = 1 − m² at σ in units of c,

        min Σ_n Σ_j ε_j |w_{n,j}|

    over the N − 1 free λ's. At p = q = 1 the minimum is `log_snr`, where the search starts. Xue et
    al. add the w_{n,j} of one j before they take absolute values: a smaller bound, but with kinks
    and many minima, since steps may cancel each other's; at p = 3 and N = 10 its search ends in one
    whose first step is half of the range. The sum taken here is smooth.

    Parameters
    ----------
    process, n_steps, stop
        As in `log_snr`; at most 64 steps.
    sigma_min, end
        The smallest level; whether the last step leads from it to `stop`, or the grid ends at it.
    order : int
        p, from 1 to 3.
    exponent : float
        q > 0; the authors take 1 for pixels and 2 for latents.
    scale : float
        c > 0.

    Returns
    -------
    ndarray, shape (n_steps + 1,)

    Raises
    ------
    ValueError
        As in `log_snr`; or if there are too many steps for the search.
    """
    require_positive(exponent=exponent, scale=scale)
    if order not in (1, 2, 3):
        raise ValueError(f"order = {order!r}: must be 1, 2 or 3")
    if n_steps > _MOST_SEARCHED:
        raise ValueError(
            f"n_steps = {n_steps!r}: must be at most {_MOST_SEARCHED} for the search of dmn, which "
            "is meant for few steps"
        )

    def inverse(levels: Array) -> Array:
        return log(scale) - _searched(log(scale) - levels, order, exponent)

    return levels_to_times(process, n_steps, stop, _identity, inverse, sigma_min, end)


_MOST_SEARCHED = 64
#: Logarithms of the steps, up to a constant: two steps differ by at most e^16.
_SHARES = (-8.0, 8.0)


def _searched(start: Array, order: int, exponent: float) -> Array:
    """The λ's of least error between the ends of `start`, an increasing sequence."""
    from scipy.optimize import minimize

    if len(start) < 3:
        return start
    span, n = start[-1] - start[0], len(start) - 1

    def lambdas(shares: Array) -> Array:
        """From logarithms of the steps, shape (..., N), to λ, shape (..., N + 1)."""
        steps = np.exp(shares - shares.max(axis=-1, keepdims=True))
        reached = np.cumsum(steps, axis=-1) / np.sum(steps, axis=-1, keepdims=True)
        inside = start[0] + span * reached[..., :-1]
        ends = [np.broadcast_to(end, (*inside.shape[:-1], 1)) for end in start[[0, -1]]]
        return np.concatenate([ends[0], inside, ends[1]], axis=-1)

    def with_gradient(shares: Array) -> tuple[float, Array]:
        nudge = 1e-6
        both = np.concatenate([nudge * np.eye(n), -nudge * np.eye(n), np.zeros((1, n))])
        values = _multistep_error(lambdas(shares + both), order, exponent)
        return float(values[-1]), (values[:n] - values[n:-1]) / (2 * nudge)

    found = minimize(with_gradient, np.zeros(n), jac=True, bounds=[_SHARES] * n)
    return lambdas(np.asarray(found.x))


def _multistep_error(lam: Array, order: int, exponent: float) -> Array:
    """log Σ_n Σ_j ε_j |w_{n,j}| for sequences of λ's, shape (..., N + 1); shape (...)."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    n_steps = lam.shape[-1] - 1
    departed, width = lam[..., :-1], np.diff(lam)
    # s^q/m with m = (1 + e^{−2λ})^{−1/2}, s = (1 + e^{2λ})^{−1/2}
    log_error = np.logaddexp(0, -2 * departed) / 2 - exponent * np.logaddexp(0, 2 * departed) / 2
    terms = []
    for count in range(1, order + 1):  # of the values that a step has
        first, last = count - 1, n_steps if count == order else min(count, n_steps)
        step = np.arange(first, last)
        known = step[:, None] - np.arange(count)
        at = departed[..., known]
        reach = departed[..., step, None] + width[..., step, None] * (1 + nodes) / 2
        gap = reach[..., None, :] - at[..., None]
        for j in range(count):
            others = [i for i in range(count) if i != j]
            spread = at[..., [j]] - at[..., others]
            basis = np.prod(gap[..., others, :] / spread[..., None], axis=-2)
            # e^λ in units of that at the end of the step
            mass = np.exp(reach - lam[..., step + 1, None]) * weights
            weight = np.abs(np.sum(basis * mass, axis=-1)) * width[..., step] / 2
            terms.append(log_error[..., known[:, j]] + lam[..., step + 1] + np.log(weight))
    return np.asarray(np.logaddexp.reduce(np.concatenate(terms, axis=-1), axis=-1))


def levels_to_times(
    process: Process,
    n_steps: int,
    stop: float,
    clock: Callable[[Array], Array],
    inverse: Callable[[Array], Array],
    sigma_min: float | None = None,
    end: End = "zero",
    top: float = inf,
) -> Array:
    """The times of equal steps of a clock.

    Parameters
    ----------
    process, n_steps, stop, sigma_min, end
        As in `log_snr`; without `sigma_min` the clock runs to `stop` itself.
    clock, inverse : callable
        An increasing function of log σ, and its inverse, both vectorised.
    top : float
        The largest level from which the clock runs, in place of that of T; the times begin at T.
    """
    horizon = process.horizon
    require_end(horizon, n_steps, stop)
    first = float(log_level(process, horizon))
    last = float(log_level(process, stop))
    remaining = n_steps
    if sigma_min is not None:
        require_positive(sigma_min=sigma_min)
        _require_end_of_levels(first, last, stop, log(sigma_min), end)
        last = log(sigma_min)
        remaining -= end == "zero"
    if not remaining:
        return np.array([horizon, stop])
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        ends = clock(np.array([min(first, top), last]))
        require_finite_clock(process, *ends)
        levels = inverse(np.linspace(ends[0], ends[1], remaining + 1))
        levels[0], levels[-1] = first, last
        # levels past those of the ends by rounding
        times = time_at_level(process, np.clip(levels, last, first))
    if remaining < n_steps:
        times = np.append(times, stop)
    elif sigma_min is not None:
        stop = float(times[-1])
    return _closed(process, stop, times)


def _closed(process: Process, stop: float, times: Array) -> Array:
    """The times, from T to `stop` exactly."""
    times[0], times[-1] = process.horizon, stop
    return ordered(times)


def _require_end_of_levels(first: float, last: float, stop: float, lowest: float, end: str) -> None:
    """Refuse a smallest level that is not one, or a grid that would end twice."""
    sigma_min = float(np.exp(lowest))
    if end not in ("zero", "stop"):
        raise ValueError(f"end = {end!r}: must be 'zero' or 'stop'")
    if end == "stop" and stop:
        raise ValueError(
            f"stop = {stop!r}: must be 0 with end = 'stop', where the grid ends at sigma_min"
        )
    if not last < lowest < first:
        raise ValueError(
            f"sigma_min = {sigma_min:.6g}: must lie between the noise levels of the last time, "
            f"{np.exp(last):.6g}, and of T, {_shown_level(first)}"
        )


def _shown_level(level: float) -> str:
    return f"{np.exp(level):.6g}" if level < 700 else f"e^{level:.6g}"


def require_finite_clock(process: Process, *values: float) -> None:
    """Refuse a process whose noisiest level a clock can't tell from infinity."""
    if not np.all(np.isfinite(values)):
        total = float(process.schedule.integral(process.horizon))
        raise ValueError(
            f"B(T) = {total:.6g}, the integral of beta: must be smaller for this time grid, whose "
            "function of the noise level is infinite there in double precision"
        )


def _identity(values: Array) -> Array:
    return values


def _log_cosh(x: float) -> float:
    return float(np.logaddexp(x, -x)) - log(2)
