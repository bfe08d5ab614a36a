"""Schemes of one evaluation a step in one register.

x′ = α x + γ s(τ, x) + ρ z, or a x + c x̂₀ + ρ z in terms of the denoiser. With the exact score
s = −(x − m μ)/V, V = m²λ + v, the factor of x is P = α − γ/V: the difference of two numbers as
large as m(τ_{k+1})/m(τ_k) in schemes whose P is at most one; or P = a + c m λ/V, where the
exponential integrator of the modified score and the schemes of DDPM and DDIM have a ≥ 0 and
c ≥ 0 in closed form: nothing cancels.

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650) and their code; Le Corff,
"Most times are used multiple times" (the scheme of the KL theorem); Ho et al. (arXiv
2006.11239); Song et al. (DDIM, arXiv 2010.02502; VE, arXiv 2011.13456); Conforti and
Durmus, lecture 2.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sgm.processes import Process
from sgm.samplers.increments import (
    gain,
    half_step,
    kernel,
    squared_decay,
    squared_growth,
    step_ends,
)
from sgm.samplers.steps import Steps

__all__ = [
    "ancestral",
    "ancestral_small",
    "ddim",
    "euler_arrival",
    "euler_maruyama",
    "exponential_integrator",
    "exponential_integrator_modified",
    "probability_flow_euler",
]

Array = npt.NDArray[np.float64]


def exponential_integrator_modified(process: Process, times: npt.ArrayLike) -> Steps:
    """Exponential integrator that freezes the modified score s̃ = s + x/σ².

    x′ = e⁻ʰ x + 2σ²(1 − e⁻ʰ) s̃ + σ √(1 − e⁻²ʰ) z. This is the scheme of the KL theorem
    ("Most times are used multiple times"); its linear part contracts.

    Parameters
    ----------
    process : Process
    times : array_like, shape (N + 1,)
        Decreasing grid, see `sgm.timegrids`.

    Returns
    -------
    Steps
        N stages.

    Raises
    ------
    ValueError
        If the process has no stationary law, and hence no modified score.
    """
    if np.isinf(process.variance):
        raise ValueError(f"process = {process!r}: must have a stationary law")
    start, stop = step_ends(times)
    half = half_step(process, start, stop)
    lost = -np.expm1(-half)
    noise = np.sqrt(-process.variance * np.expm1(-2 * half))
    score = 2 * process.variance * lost
    m_next, v, v_next = kernel(process, start, stop)
    # a = e⁻ʰ [1 + m² − 2 m m′] σ²/v, a sum of squares
    kept = np.exp(-half) * (v_next + process.variance * (m_next * lost) ** 2) / v
    denoiser = score * process.mean_scale(start) / v
    return Steps(start, 1 + lost, score, noise, kept, denoiser)


def exponential_integrator(process: Process, times: npt.ArrayLike) -> Steps:
    """Exponential integrator that freezes the score s; the paper's sampler.

    x′ = eʰ x + 2σ²(eʰ − 1) s + σ √(e²ʰ − 1) z.

    Parameters
    ----------
    process, times
        As in `exponential_integrator_modified`.

    Returns
    -------
    Steps
        N stages.
    """
    start, stop = step_ends(times)
    with np.errstate(over="ignore"):  # its linear part grows: of h > 709, without bound
        noise = np.sqrt(gain(process, start, stop, squared_growth))
        state = np.exp(half_step(process, start, stop))
        return Steps(start, state, gain(process, start, stop, np.expm1), noise)


def euler_maruyama(process: Process, times: npt.ArrayLike) -> Steps:
    """Euler-Maruyama: drift and diffusion at the departure time τ_k.

    Parameters
    ----------
    process, times
        As in `exponential_integrator_modified`.

    Returns
    -------
    Steps
        N stages.
    """
    start, stop = step_ends(times)
    return _euler(process, start - stop, start)


def euler_arrival(process: Process, times: npt.ArrayLike) -> Steps:
    """The paper authors' "Euler": β and the score at the arrival time τ_{k+1}.

    Its last stage evaluates the score at τ_N, which is the data's own score if τ_N = 0.

    Parameters
    ----------
    process, times
        As in `exponential_integrator_modified`.

    Returns
    -------
    Steps
        N stages.
    """
    start, stop = step_ends(times)
    return _euler(process, start - stop, stop)


def _euler(process: Process, step: Array, evaluated: Array) -> Steps:
    growth = step * process.schedule.beta(evaluated)
    return Steps(evaluated, 1 + growth / (2 * process.variance), growth, np.sqrt(growth))


def probability_flow_euler(process: Process, times: npt.ArrayLike) -> Steps:
    """Explicit Euler on the probability-flow ODE; deterministic.

    Parameters
    ----------
    process, times
        As in `exponential_integrator_modified`.

    Returns
    -------
    Steps
        N stages without noise.
    """
    start, stop = step_ends(times)
    half_growth = (start - stop) * process.schedule.beta(start) / 2
    scale, v = process.mean_scale(start), process.kernel_variance(start)
    # 1/σ² − 1/v = −m²/v
    kept, denoiser = 1 - half_growth * scale**2 / v, half_growth * scale / v
    state = 1 + half_growth / process.variance
    return Steps(start, state, half_growth, np.zeros_like(start), kept, denoiser)


def ancestral(process: Process, times: npt.ArrayLike) -> Steps:
    """DDPM's ancestral sampler with the large variance, that of the forward step.

    x′ = eʰ x + 2σ² sinh(h) s + σ √(1 − e⁻²ʰ) z;
    a = e⁻ʰ v(τ_{k+1})/v(τ_k) and c = σ²(1 − e⁻²ʰ) m(τ_{k+1})/v(τ_k).

    Parameters
    ----------
    process, times
        As in `exponential_integrator_modified`.

    Returns
    -------
    Steps
        N stages.
    """
    start, stop = step_ends(times)
    forgotten = gain(process, start, stop, squared_decay)
    half = half_step(process, start, stop)
    m_next, v, v_next = kernel(process, start, stop)
    with np.errstate(over="ignore"):
        state, score = np.exp(half), gain(process, start, stop, np.sinh)
    kept, denoiser = np.exp(-half) * v_next / v, forgotten * m_next / v
    return Steps(start, state, score, np.sqrt(forgotten), kept, denoiser)


def ancestral_small(process: Process, times: npt.ArrayLike) -> Steps:
    """DDPM's ancestral sampler with the small variance, that of q(x_{k+1} | x_k, x₀).

    As `ancestral`, its variance times v(τ_{k+1})/v(τ_k); without noise at τ_{k+1} = 0.

    Parameters
    ----------
    process, times
        As in `exponential_integrator_modified`.

    Returns
    -------
    Steps
        N stages.
    """
    large = ancestral(process, times)
    start, stop = step_ends(times)
    shrink = process.std(stop) / process.std(start)
    return replace(large, noise=large.noise * shrink)


def ddim(process: Process, times: npt.ArrayLike, eta: float = 0.0) -> Steps:
    """DDIM: predict (x₀, noise) at τ_k, recombine at τ_{k+1}.

        x̂₀ = (x + v s)/m,  ε̂ = −√v s,  x′ = m′ x̂₀ + √(v′ − w) ε̂ + √w z,
        w = η² (v′/v) σ²(1 − e⁻²ʰ),

    with m, v at τ_k and m′, v′ at τ_{k+1}. The factor of s, eʰv − √(v(v′ − w)), is
    rationalised to eʰ√v (σ²(1 − e⁻²ʰ) + w e⁻²ʰ)/(√v + e⁻ʰ√(v′ − w)), which does not cancel;
    a = √((v′ − w)/v).

    Parameters
    ----------
    process, times
        As in `exponential_integrator_modified`.
    eta : float
        η in [0, 1]: 0 is deterministic, 1 equals `ancestral_small`.

    Returns
    -------
    Steps
        N stages.

    Raises
    ------
    ValueError
        If `eta` lies outside [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta = {eta!r}: must lie in [0, 1]")
    start, stop = step_ends(times)
    half = half_step(process, start, stop)
    forgotten = gain(process, start, stop, squared_decay)
    m_next, v, v_next = kernel(process, start, stop)
    drawn = eta**2 * v_next / v * forgotten
    # v′ − w, with 1 − σ²(1 − e⁻²ʰ)/v = e⁻²ʰ v′/v
    rest = v_next * ((1 - eta**2) + eta**2 * np.exp(-2 * half) * v_next / v)
    moved = forgotten + drawn * np.exp(-2 * half)
    moved /= np.sqrt(v) * (np.sqrt(v) + np.exp(-half) * np.sqrt(rest))
    with np.errstate(over="ignore"):
        state = np.exp(half)
        score = state * moved * v
    return Steps(start, state, score, np.sqrt(drawn), np.sqrt(rest / v), m_next * moved)
