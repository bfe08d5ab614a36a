"""Samplers of the backward process: one-step schemes as affine maps.

Along a grid of times T = τ₀ > τ₁ > … > τ_N each stage of a scheme is

    x′ = α x + γ s(τ, x) + ρ z,     z ~ N(0, I),

where the scalars α, γ, ρ and the time τ of the score depend on the process and the
grid alone. With the exact score s = −(x − m μ)/V, V = m²λ + v, the factor of x is P = α − γ/V:
the difference of two numbers as large as m(τ_{k+1})/m(τ_k) in schemes whose P is at most one.
In terms of the denoiser x̂₀ = (x + v s)/m the same stage reads

    x′ = a x + c x̂₀ + ρ z,     a = α − γ/v,     c = γ m/v,     P = a + c m λ/V.

The exponential integrator of the modified score and the schemes of DDPM and DDIM have a ≥ 0
and c ≥ 0 in closed form: nothing cancels. A scheme is one function (process, times) → `Steps`;
the exact law of the output (`sgm.laws`) and any simulation read the same coefficients. The
backward SDE and the probability flow that the schemes discretise are, in forward time τ run
backwards,

    dX = β [X/(2σ²) + s] dt + √β dB,     dX = (β/2) [X/σ² + s] dt.

Below h = (B(τ_k) − B(τ_{k+1}))/(2σ²), so that m(τ_{k+1})/m(τ_k) = eʰ. Formulas in h hold
for VE in the limit σ² = ∞: h = 0, and each 2σ² φ(h) with φ(h) ~ h is B(τ_k) − B(τ_{k+1}).

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650) and their code; Le Corff,
"Most times are used multiple times" (the scheme of the KL theorem); Ho et al. (arXiv
2006.11239); Song et al. (DDIM, arXiv 2010.02502; VE and predictor-corrector, arXiv
2011.13456); Conforti and Durmus, lecture 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated

import numpy as np
import numpy.typing as npt
from annotated_types import Interval

from sgm.arguments import real_array
from sgm.processes import Process
from sgm.registry import Count, Positive, register

__all__ = [
    "Steps",
    "ancestral",
    "ancestral_small",
    "ddim",
    "euler_arrival",
    "euler_maruyama",
    "exponential_integrator",
    "exponential_integrator_modified",
    "predictor_corrector",
    "probability_flow_euler",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Steps:
    """Coefficients of the stages x′ = α x + γ s(τ, x) + ρ z, in the order they are run.

    Parameters
    ----------
    score_time : ndarray, shape (n_stages,)
        τ, the time at which the score is evaluated.
    state : ndarray, shape (n_stages,)
        α, the factor of the state.
    score : ndarray, shape (n_stages,)
        γ, the factor of the score.
    noise : ndarray, shape (n_stages,)
        ρ ≥ 0, the factor of a fresh standard Gaussian vector; zero in a stage that
        draws none.
    kept, denoiser : ndarray, shape (n_stages,), optional
        a = α − γ/v(τ) and c = γ m(τ)/v(τ), where they are known without this difference; NaN
        elsewhere, and by default.
    """

    score_time: Array
    state: Array
    score: Array
    noise: Array
    kept: Array = field(default_factory=lambda: np.array(np.nan))
    denoiser: Array = field(default_factory=lambda: np.array(np.nan))

    def __post_init__(self) -> None:
        for key in ("score_time", "state", "score", "noise", "kept", "denoiser"):
            object.__setattr__(self, key, real_array(key, getattr(self, key)))
        shape = self.score_time.shape
        if len(shape) != 1 or not shape[0]:
            raise ValueError(f"score_time has shape {shape}: must be (n_stages,)")
        for key in ("kept", "denoiser"):
            if getattr(self, key).ndim == 0:
                object.__setattr__(self, key, np.broadcast_to(getattr(self, key), shape))
        for key in ("state", "score", "noise", "kept", "denoiser"):
            if getattr(self, key).shape != shape:
                raise ValueError(
                    f"{key} has shape {getattr(self, key).shape}: must be {shape}, as score_time"
                )
        # factors of very long steps may leave the range of float64
        for key, allowed in (
            ("score_time", np.isfinite(self.score_time) & (self.score_time >= 0)),
            ("state", ~np.isnan(self.state)),
            ("score", ~np.isnan(self.score)),
            ("noise", self.noise >= 0),
        ):
            if not np.all(allowed):
                stage = int(np.argmin(allowed))
                must = "a number >= 0" if key in ("score_time", "noise") else "a number"
                raise ValueError(f"{key}[{stage}] = {getattr(self, key)[stage]}: must be {must}")

    def __len__(self) -> int:
        """Number of stages, which is the number of evaluations of the score."""
        return len(self.score_time)

    def departures(self, n_steps: int) -> slice:
        """Which stages are the first ones of the N steps, and find the chain at τ_k.

        Parameters
        ----------
        n_steps : int
            N; each step has n_stages/N stages.

        Raises
        ------
        ValueError
            If the stages are not as many for each step.
        """
        per_step, rest = divmod(len(self), n_steps)
        if rest or not per_step:
            raise ValueError(f"{len(self)} stages: must be a multiple of the {n_steps} steps")
        return slice(None, None, per_step)

    def require_precision(self, epsilon: float) -> None:
        """Refuse steps too long for a simulation, whose score is known to `epsilon` alone.

        Unlike an exact law, which takes a and c, a simulation adds α x and γ s: the rounding
        error of s arrives multiplied by α.

        Parameters
        ----------
        epsilon : float
            Relative rounding error of the score, of float32 or float64.

        Raises
        ------
        ValueError
            If more than 10⁻² of a standard deviation of the noise would be rounding error.
        """
        loss = epsilon * np.max(self.state, where=~np.isnan(self.kept), initial=0.0)
        if loss > 1e-2:
            raise ValueError(
                f"times: a step multiplies rounding errors of the score, {epsilon:.1e}, by "
                f"{loss / epsilon:.3g}: must be at most {1e-2 / epsilon:.1g}; take more steps"
            )


def _departures(times: npt.ArrayLike) -> tuple[Array, Array]:
    """(τ_k, τ_{k+1}) for k = 0…N−1, each of shape (N,), from a decreasing grid."""
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 1 or times.size < 2:
        raise ValueError(f"times has shape {times.shape}: must be (N + 1,) with N >= 1")
    if not (np.all(np.diff(times) < 0) and times[-1] >= 0):
        raise ValueError(f"times = {times!r}: must decrease strictly and stay >= 0")
    return times[:-1], times[1:]


def _half_step(process: Process, start: Array, stop: Array) -> Array:
    """h = (B(τ_k) − B(τ_{k+1}))/(2σ²), shape (N,)."""
    return _increment(process, start, stop) / (2 * process.variance)


def _increment(process: Process, start: Array, stop: Array) -> Array:
    """B(τ_k) − B(τ_{k+1}), shape (N,)."""
    integral = process.schedule.integral
    return np.asarray(integral(start) - integral(stop))


def _gain(process: Process, start: Array, stop: Array, growth: Callable[[Array], Array]) -> Array:
    """2σ² φ(h) for a φ(h) = h + O(h²), the increment of B at σ² = ∞; shape (N,)."""
    if np.isinf(process.variance):
        return _increment(process, start, stop)
    return np.asarray(2 * process.variance * growth(_half_step(process, start, stop)))


def _kernel(process: Process, start: Array, stop: Array) -> tuple[Array, Array, Array]:
    """m(τ_{k+1}), v(τ_k) and v(τ_{k+1}), each of shape (N,)."""
    return process.mean_scale(stop), process.kernel_variance(start), process.kernel_variance(stop)


def _squared_growth(half: Array) -> Array:
    """(e²ʰ − 1)/2."""
    return np.asarray(np.expm1(2 * half) / 2)


def _squared_decay(half: Array) -> Array:
    """(1 − e⁻²ʰ)/2."""
    return np.asarray(-np.expm1(-2 * half) / 2)


@register("sampler")
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
    start, stop = _departures(times)
    half = _half_step(process, start, stop)
    lost = -np.expm1(-half)
    noise = np.sqrt(-process.variance * np.expm1(-2 * half))
    score = 2 * process.variance * lost
    m_next, v, v_next = _kernel(process, start, stop)
    # a = e⁻ʰ [1 + m² − 2 m m′] σ²/v, a sum of squares
    kept = np.exp(-half) * (v_next + process.variance * (m_next * lost) ** 2) / v
    denoiser = score * process.mean_scale(start) / v
    return Steps(start, 1 + lost, score, noise, kept, denoiser)


@register("sampler")
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
    start, stop = _departures(times)
    with np.errstate(over="ignore"):  # its linear part grows: of h > 709, without bound
        noise = np.sqrt(_gain(process, start, stop, _squared_growth))
        state = np.exp(_half_step(process, start, stop))
        return Steps(start, state, _gain(process, start, stop, np.expm1), noise)


@register("sampler")
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
    start, stop = _departures(times)
    return _euler(process, start - stop, start)


@register("sampler")
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
    start, stop = _departures(times)
    return _euler(process, start - stop, stop)


def _euler(process: Process, step: Array, evaluated: Array) -> Steps:
    growth = step * process.schedule.beta(evaluated)
    return Steps(evaluated, 1 + growth / (2 * process.variance), growth, np.sqrt(growth))


@register("sampler")
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
    start, stop = _departures(times)
    half_growth = (start - stop) * process.schedule.beta(start) / 2
    scale, v = process.mean_scale(start), process.kernel_variance(start)
    # 1/σ² − 1/v = −m²/v
    kept, denoiser = 1 - half_growth * scale**2 / v, half_growth * scale / v
    state = 1 + half_growth / process.variance
    return Steps(start, state, half_growth, np.zeros_like(start), kept, denoiser)


@register("sampler")
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
    start, stop = _departures(times)
    forgotten = _gain(process, start, stop, _squared_decay)
    half = _half_step(process, start, stop)
    m_next, v, v_next = _kernel(process, start, stop)
    with np.errstate(over="ignore"):
        state, score = np.exp(half), _gain(process, start, stop, np.sinh)
    kept, denoiser = np.exp(-half) * v_next / v, forgotten * m_next / v
    return Steps(start, state, score, np.sqrt(forgotten), kept, denoiser)


@register("sampler")
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
    start, stop = _departures(times)
    shrink = process.std(stop) / process.std(start)
    return replace(large, noise=large.noise * shrink)


@register("sampler")
def ddim(
    process: Process, times: npt.ArrayLike, eta: Annotated[float, Interval(ge=0, le=1)] = 0.0
) -> Steps:
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
    start, stop = _departures(times)
    half = _half_step(process, start, stop)
    forgotten = _gain(process, start, stop, _squared_decay)
    m_next, v, v_next = _kernel(process, start, stop)
    drawn = eta**2 * v_next / v * forgotten
    # v′ − w, with 1 − σ²(1 − e⁻²ʰ)/v = e⁻²ʰ v′/v
    rest = v_next * ((1 - eta**2) + eta**2 * np.exp(-2 * half) * v_next / v)
    gain = forgotten + drawn * np.exp(-2 * half)
    gain /= np.sqrt(v) * (np.sqrt(v) + np.exp(-half) * np.sqrt(rest))
    with np.errstate(over="ignore"):
        state = np.exp(half)
        score = state * gain * v
    return Steps(start, state, score, np.sqrt(drawn), np.sqrt(rest / v), m_next * gain)


@register("sampler")
def predictor_corrector(
    process: Process, times: npt.ArrayLike, corrector_steps: Count, step_size: Positive
) -> Steps:
    """Euler-Maruyama predictor, then L Langevin steps at the arrival time.

    Corrector: x ← x + δ s(τ_{k+1}, x) + √(2δ) z.

    Parameters
    ----------
    process, times
        As in `exponential_integrator_modified`.
    corrector_steps : int
        L ≥ 0.
    step_size : float
        δ > 0.

    Returns
    -------
    Steps
        N (L + 1) stages.

    Raises
    ------
    ValueError
        If `corrector_steps` or `step_size` is out of range.
    """
    if corrector_steps < 0:
        raise ValueError(f"corrector_steps = {corrector_steps!r}: must be >= 0")
    if not (np.isfinite(step_size) and step_size > 0):
        raise ValueError(f"step_size = {step_size!r}: must be a positive finite number")
    predictor = euler_maruyama(process, times)
    _, stop = _departures(times)

    def interleave(predicted: Array, corrected: Array | float) -> Array:
        table = np.empty((len(predicted), corrector_steps + 1))
        table[:, 0] = predicted
        table[:, 1:] = np.reshape(corrected, (-1, 1))
        return table.ravel()

    return Steps(
        interleave(predictor.score_time, stop),
        interleave(predictor.state, 1.0),
        interleave(predictor.score, step_size),
        interleave(predictor.noise, np.sqrt(2 * step_size)),
    )
