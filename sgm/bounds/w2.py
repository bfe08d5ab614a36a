"""The W₂ theorem for the modified exponential integrator, for Gaussian data.

Let p_t be the law of X_t, π_∞ = N(0, σ²I), s̃ = ∇log(p_t/π_∞), with −∇s̃ between C_t and L_t
in every direction, Δ_k = B(τ_k) − B(τ_{k+1}), h the largest step, β* = sup β, S = τ₀ − τ_N
(T for a grid that ends at 0), and J_k = ∫_{step k} L dB. If p̂ is the law of the output
started at π_∞,

    W₂(p_{τ_N}, p̂) ≤ E_mix + E_disc + E_score + E_time,
    E_mix   = W₂(p_{τ_N}, π_∞) exp(−∫(1/σ² + C_t) dB),
    E_disc  = Σ_k J_k (√(2hβ*)/σ + hβ*/(2σ²) + 2J_k) B,       B² = E|X_{τ_N}|² + σ²d,
    E_score = ε S β*,      ε² = sup_k E|s_θ − s|²(τ_k, X̄_k) along the generated chain X̄,
    E_time  = M h S β* (1 + 2B),     |s̃(τ, x) − s̃(τ_k, x)| ≤ M h (1 + |x|) within step k.

For N(μ, Σ) at τ_N, of extreme variances λ_min and λ_max, with u = (B(t) − B(τ_N))/σ² and
V = σ² + (λ − σ²)e⁻ᵘ the noised variances, C_t = 1/V_max − 1/σ². Three choices of L_t:

    paper   min{1/(σ²(1 − e⁻ᵘ)), eᵘ/λ_min} − 1/σ²,
    sharp   1/V_min − 1/σ², the largest eigenvalue of −∇s̃,
    safe    max(|C_t|, |1/V_min − 1/σ²|), the Lipschitz constant of s̃.

As (1/V − 1/σ²) dB = d log V, every integral is a closed form; so E_mix = W₂ e⁻ᵘ λ_max/V_max
at T. With λ_min < σ² < λ_max the safe L_t changes sides once, where
e⁻ᵘ = (b − a)/(2ab), a = 1 − λ_min/σ², b = λ_max/σ² − 1: sharp before it, |C_t| after it.

Proof, with the hypotheses it uses. Let X run backwards from p_{τ₀}, Y from π_∞ by the same
noise, and X̄ be the chain, also from π_∞ by this noise; ‖·‖ is the norm of L².
‖X_t − X_k‖ ≤ √(hβ*)/σ B and ‖X_t‖ ≤ B, for r = e^{−∫dB/(2σ²)} makes the former at most
√(2(1 − r)) B. As C_t bounds the growth of Y − X, which starts at W₂(p_{τ₀}, π_∞) ≤ m B, the
law of Y_{τ_N} is at E_mix from p_{τ_N}. One step takes Y − X̄ to

    (e^{−κ} − 2σ²(1 − e^{−κ}) H)(Y_k − X̄_k) + ∫ e^{…} [s̃(t, Y_t) − s̃(t, Y_k)
        + s̃(t, Y_k) − s̃(τ_k, Y_k) + (s − s_θ)(τ_k, X̄_k)] dB,     κ = Δ_k/(2σ²),

H a symmetric matrix between C_{τ_k} and 1/v(τ_k) − 1/σ² for the kernel's variance v. The
upper end keeps the factor above −1 at any step size, since 2(1 − e^{−κ})/(e^{2κ} − 1) ≤ 1; the
lower end keeps it below 1 if C ≥ −1/(2σ²), that is λ_max ≤ 2σ². The three brackets are E_disc,
E_time and E_score if L_t is a Lipschitz constant of s̃: |Y_t − Y_k| ≤ |X_t − X_k| +
(κ + J_k)|Y − X|, ‖Y_k‖ ≤ 2B. Thus λ_max ≤ σ² (strong log-concavity of p_t/π_∞) is not needed,
nor a small step; the theorem with the paper's L_t asks for

    λ_max ≤ 2σ²     and     1/λ_min + 1/λ_max ≥ 2/σ²  (L_t ≥ |C_t| at all t),

that with the sharp one for λ_min + λ_max ≤ 2σ², that with the safe one for the first alone.
Past it Y − X and Y − X̄ grow by at most A = sup m λ_max/V_max = λ_max/(2σ√(λ_max − σ²)); the
terms after E_mix times A max(1, A m(T)) then bound the output for any Gaussian law.

M is the maximum, over steps and over all eigenvalues, of the slopes of s̃ in τ; where the
slope of its constant part m μ/V changes sign within a step, it is taken up to there.

Sources
-------
Strasman, Ocello, Boyer, Le Corff, Lemaire (arXiv 2402.04650), corrected: C_t is that of p_t/π_∞;
the score's error is that along the generated chain (their code: the forward process); M over
all eigenvalues (their code: λ_min); h is the step (their code: 1/N). The sharp and the safe
L_t, the closed forms and the conditions above are derived here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_positive, shown
from sgm.bounds.kl import _increments, _require_stationary, _weighted
from sgm.bounds.objection import Objection
from sgm.densities.base import Law
from sgm.gaussian import Gaussian, require_single, wasserstein2
from sgm.processes import VPProcess

__all__ = [
    "W2_BOUND_PROVED_FOR",
    "W2Bound",
    "W2Objection",
    "contraction",
    "gaussian_w2_bound",
    "lipschitz_paper",
    "lipschitz_safe",
    "lipschitz_sharp",
    "w2_objection",
]

Array = npt.NDArray[np.float64]

W2_BOUND_PROVED_FOR = frozenset({"exponential_integrator_modified"})
"""Samplers for which the bounds of `W2Bound` are theorems.

Of the others, over 3600 exact Gaussian cases each (6 targets, 3 variances, 5 schedules, N from
1 to 200, the exact score and 4 perturbed ones): `euler_maruyama`, `euler_arrival` and
`probability_flow_euler` never exceeded `total_safe`; `exponential_integrator` does up to N = 10,
also with the exact score; `ancestral`, `ancestral_small` and `ddim` do up to N = 3, with a
perturbed one.
"""


class W2Objection(Objection):
    """Why a bound of W₂ is not a theorem for a law and a sampler; NONE if it is one."""

    NONE = 0, "none"
    LAW_UNKNOWN = 1, "the law of the data is unknown"
    SURROGATE = 2, "a Gaussian surrogate stands for the law"
    SAMPLER = 3, "the theorem is about another sampler"
    NEGATIVE_LIPSCHITZ = 4, "the smallest variance exceeds σ²: L_t is negative"
    SMALL_LIPSCHITZ = 5, "L_t is below the Lipschitz constant of the modified score"
    EXPANSION = 6, "the largest variance exceeds 2σ²: errors may grow"
    FORWARD = 7, "the score error along the forward process bounds nothing"


_Total = Literal["paper", "sharp", "safe", "forward"]
_ROUNDING = 1e-9  # relative excess at which a variance still counts as equal to its limit


def w2_objection(
    law: Law | None,
    variance: float,
    sampler: str,
    total: _Total = "paper",
) -> W2Objection:
    """The first objection, in the order of `W2Objection`, to one of the bounds of `W2Bound`.

    Parameters
    ----------
    law : Law or None
        π_data; None if it is known through draws alone.
    variance : float
        σ².
    sampler : str
        Name of a function of `sgm.samplers`.
    total : {"paper", "sharp", "safe", "forward"}
        Which of them: `total`, `total_sharp`, `total_safe` or `total_forward`.

    Returns
    -------
    W2Objection

    Raises
    ------
    ValueError
        If `variance` is not positive and finite, `law` no single law, or `total` another name.
    """
    require_positive(variance=variance)
    if total not in get_args(_Total):
        raise ValueError(f"total = {shown(total)}: must be one of {', '.join(get_args(_Total))}")
    if law is None:
        return W2Objection.LAW_UNKNOWN
    if not isinstance(law, Gaussian):
        return W2Objection.SURROGATE
    require_single(law=law)
    if sampler not in W2_BOUND_PROVED_FOR:
        return W2Objection.SAMPLER
    if total == "forward":
        return W2Objection.FORWARD
    if total == "safe":
        return W2Objection.NONE
    low, high = law.eigenvalues.min(), law.eigenvalues.max()
    limit = variance * (1 + _ROUNDING)
    if low > limit:
        return W2Objection.NEGATIVE_LIPSCHITZ
    if low + high > 2 * limit if total == "sharp" else 1 / low + 1 / high < 2 / limit:
        return W2Objection.SMALL_LIPSCHITZ
    return W2Objection.EXPANSION if high > 2 * limit else W2Objection.NONE


@dataclass(frozen=True, eq=False)
class W2Bound:
    """The terms of the W₂ theorem, in units of x, and its constants.

    Parameters
    ----------
    mixing : ndarray, shape ()
        E_mix.
    discretization, discretization_sharp, discretization_safe : ndarray, shape ()
        E_disc with the paper's, the sharp and the safe L_t.
    score_error, score_error_forward : ndarray, shape (...)
        E_score with ε along the generated chain, which the theorem needs, and along the
        forward process, which it does not bound.
    time_regularity : ndarray, shape ()
        E_time.
    contraction : ndarray, shape ()
        Smallest C_t; negative if λ_max > σ².
    log_concavity, lipschitz : ndarray, shape ()
        C₀ = 1/λ_max and L₀ = 1/λ_min at τ_N.
    time_constant, moment_constant : ndarray, shape ()
        M and B.
    expansion : ndarray, shape ()
        A max(1, A m(T)); 1 if λ_max ≤ 2σ².
    score_rms, score_rms_forward : ndarray, shape (...)
        ε along the chain and along the forward process.
    """

    mixing: Array
    discretization: Array
    discretization_sharp: Array
    discretization_safe: Array
    score_error: Array
    score_error_forward: Array
    time_regularity: Array
    contraction: Array
    log_concavity: Array
    lipschitz: Array
    time_constant: Array
    moment_constant: Array
    expansion: Array
    score_rms: Array
    score_rms_forward: Array

    @property
    def total(self) -> Array:
        """The theorem with the paper's L_t; shape (...). See `w2_objection`."""
        return self._sum(self.discretization, self.score_error)

    @property
    def total_forward(self) -> Array:
        """`total` with ε along the forward process, as the paper's code has it."""
        return self._sum(self.discretization, self.score_error_forward)

    @property
    def total_sharp(self) -> Array:
        """The theorem with the sharp L_t, for λ_min + λ_max ≤ 2σ²; shape (...)."""
        return self._sum(self.discretization_sharp, self.score_error)

    @property
    def total_safe(self) -> Array:
        """A bound for any Gaussian law, with the safe L_t and the expansion; shape (...)."""
        return self._sum(self.discretization_safe, self.score_error, self.expansion)

    def _sum(self, discretization: Array, score_error: Array, factor: float | Array = 1.0) -> Array:
        local = discretization + score_error + self.time_regularity
        return np.asarray(self.mixing + factor * local)


def gaussian_w2_bound(
    process: VPProcess,
    law: Gaussian,
    times: npt.ArrayLike,
    *,
    score_mse_generated: npt.ArrayLike,
    score_mse_forward: npt.ArrayLike,
) -> W2Bound:
    """The bounds of W₂(p_{τ_N}, output) for X₀ ~ N(μ, Σ), all in closed form.

    A grid that ends early is that of the data p_{τ_N}: all constants are those of this law.

    Parameters
    ----------
    process : VPProcess
    law : Gaussian
        π_data, of batch shape ().
    times : array_like, shape (N + 1,)
        Decreasing grid from T; h is its largest step.
    score_mse_generated : array_like, shape (..., N)
        E|s_θ − s|² at the departure times along the chain, see `sgm.laws.chain_error`.
    score_mse_forward : array_like, shape (..., N)
        The same under p_{τ_k}. NaN where unknown, which leaves its terms unknown.

    Returns
    -------
    W2Bound
    """
    start, stop, increment = _increments(process, times)
    variance, supremum = process.variance, process.schedule.supremum
    largest, span = np.max(start - stop), start[0] - stop[-1]
    if not (np.all(np.isfinite(law.mean)) and np.all(np.isfinite(law.eigenvalues))):
        raise ValueError("law: mean and eigenvalues must be finite")
    data = process.marginal(law, stop[-1])
    low, high = np.min(data.eigenvalues), np.max(data.eigenvalues)
    width = increment / variance  # u at departure less u at arrival
    departure = np.cumsum(width[::-1])[::-1]
    arrival = np.append(departure[1:], 0.0)
    prior = Gaussian(np.zeros(law.dimension), np.full(law.dimension, variance), law.basis)
    last = np.exp(-departure[0])  # m² at τ₀
    moment = np.sqrt(np.sum(data.mean**2) + np.sum(data.eigenvalues) + variance * law.dimension)
    # the largest m λ_max/V_max, at V = 2σ² if the process passes there, else at an end
    turning = max(np.sqrt(variance / max(high - variance, variance)), np.sqrt(last))
    grown = turning * high / (variance + turning**2 * (high - variance))
    # the pole of an unclipped β leaves no finite h β*: where it enters, the terms are infinite
    bounded = np.isfinite(supremum)
    steepness = (
        _time_constant(process, data, start, stop, increment, departure, arrival)
        if bounded
        else np.inf
    )
    rms, rms_forward = (
        np.sqrt(np.max(_score_mse(key, value, len(start)), axis=-1))
        for key, value in {
            "score_mse_generated": score_mse_generated,
            "score_mse_forward": score_mse_forward,
        }.items()
    )
    growth = largest * supremum / variance
    frozen = np.sqrt(2 * growth) + growth / 2

    def discretization(integral: Callable[..., Array], *ratios: float) -> Array:
        if not bounded:
            return np.asarray(np.inf)
        lipschitz = integral(*ratios, arrival, width)
        return np.asarray(np.sum(lipschitz * (frozen + 2 * lipschitz)) * moment)

    far = wasserstein2(data, prior)
    floor = variance + last * (high - variance)
    return W2Bound(
        mixing=np.asarray(far * last * high / floor),
        discretization=discretization(_paper_integral, low / variance),
        discretization_sharp=discretization(_log_ratio, low / variance),
        discretization_safe=discretization(_safe_integral, low / variance, high / variance),
        score_error=_weighted(rms, span * supremum),
        score_error_forward=_weighted(rms_forward, span * supremum),
        time_regularity=np.asarray(steepness * largest * span * supremum * (1 + 2 * moment)),
        contraction=np.asarray(min(1 / high, 1 / floor) - 1 / variance),
        log_concavity=np.asarray(1 / high),
        lipschitz=np.asarray(1 / low),
        time_constant=np.asarray(steepness),
        moment_constant=np.asarray(moment),
        expansion=np.asarray(grown * max(1.0, grown * np.sqrt(last))),
        score_rms=np.asarray(rms),
        score_rms_forward=np.asarray(rms_forward),
    )


def contraction(process: VPProcess, law: Gaussian, t: npt.ArrayLike) -> Array:
    """C_t = 1/V_max − 1/σ², the smallest eigenvalue of −∇s̃; shape of `t`."""
    return _modified_curvature(process, t, np.max(law.eigenvalues))


def lipschitz_sharp(process: VPProcess, law: Gaussian, t: npt.ArrayLike) -> Array:
    """1/V_min − 1/σ², the largest eigenvalue of −∇s̃; shape of `t`."""
    return _modified_curvature(process, t, np.min(law.eigenvalues))


def lipschitz_safe(process: VPProcess, law: Gaussian, t: npt.ArrayLike) -> Array:
    """max(|C_t|, |1/V_min − 1/σ²|), the Lipschitz constant of s̃; shape of `t`."""
    ends = contraction(process, law, t), lipschitz_sharp(process, law, t)
    return np.asarray(np.maximum(*np.abs(ends)))


def lipschitz_paper(process: VPProcess, law: Gaussian, t: npt.ArrayLike) -> Array:
    """min{1/v, 1/(m² λ_min)} − 1/σ², above the sharp one; shape of `t`."""
    _require_stationary(process)
    spread = process.mean_scale(t) ** 2 * np.min(law.eigenvalues)
    largest = np.maximum(process.kernel_variance(t), spread)
    return np.asarray(1 / largest - 1 / process.variance)


def _modified_curvature(process: VPProcess, t: npt.ArrayLike, eigenvalue: float) -> Array:
    """1/V − 1/σ² = −m²(λ − σ²)/(σ²V), which does not cancel at large times."""
    _require_stationary(process)
    shrink, variance = process.mean_scale(t) ** 2, process.variance
    marginal = shrink * eigenvalue + process.kernel_variance(t)
    return np.asarray(shrink * (variance - eigenvalue) / (variance * marginal))


def _log_ratio(ratio: float, arrival: Array, width: Array) -> Array:
    """∫(1/V − 1/σ²) dB = log V_dep/V_arr over steps of u, for λ = ratio σ²."""
    shrink = np.exp(-arrival)
    reached = ratio * shrink - np.expm1(-arrival)  # V_arr/σ²
    return np.asarray(np.log1p((ratio - 1) * shrink * np.expm1(-width) / reached))


def _paper_integral(ratio: float, arrival: Array, width: Array) -> Array:
    """∫ of the paper's L_t over steps of u, for λ_min = ratio σ².

    eᵘ/ratio − 1 integrates to (eᵘ/ratio) − u up to u* = log(1 + ratio), and 1/(1 − e⁻ᵘ) − 1
    to log(1 − e⁻ᵘ) beyond.
    """
    switch = np.log1p(ratio)
    before = np.clip(switch - arrival, 0.0, width)
    early = np.exp(np.minimum(arrival, switch)) / ratio * np.expm1(before) - before
    # past the switch u ≥ log(1 + ratio) > 0, where 1 − e⁻ᵘ does not vanish
    return np.asarray(early + _log_ratio(0.0, np.maximum(arrival, switch), width - before))


def _safe_integral(low: float, high: float, arrival: Array, width: Array) -> Array:
    """∫ of the safe L_t over steps of u: sharp up to the switch, |C_t| beyond.

    λ_min and λ_max in units of σ².
    """
    below, above = 1 - low, high - 1
    if above <= below:
        switch = np.inf
    elif below <= 0:
        switch = 0.0
    else:
        switch = max(0.0, -np.log((above - below) / (2 * above * below)))
    before = np.clip(switch - arrival, 0.0, width)
    sharp = _log_ratio(low, arrival, before)
    contracting = _log_ratio(high, arrival + before, width - before)
    return np.asarray(np.abs(sharp) + np.abs(contracting))


def _time_constant(
    process: VPProcess, data: Gaussian, start: Array, stop: Array, increment: Array,
    departure: Array, arrival: Array,
) -> float:  # fmt: skip
    """M, from |1/V − 1/V_k| and |μ||m/V − m_k/V_k| at their largest within each step."""
    variance, gap = process.variance, data.eigenvalues - process.variance
    step, beta = start - stop, process.schedule.beta
    # β of a step: its largest value if β is monotone there, and at least its mean
    rate = np.maximum(np.maximum(beta(start), beta(stop)), increment / step)
    rate = (rate * step / np.max(step) / variance)[:, None]
    left, right = np.exp(-departure / 2)[:, None], np.exp(-arrival / 2)[:, None]
    departing, arriving = (
        np.exp(-u)[:, None] * data.eigenvalues - variance * np.expm1(-u)[:, None]
        for u in (departure, arrival)
    )
    slope = rate * right**2 * np.abs(gap) / (departing * arriving)
    # m/V is largest at m² = σ²/(λ − σ²): within a step, or the step's end counts alone
    peak = np.sqrt(variance / np.where(gap > 0, gap, variance))
    worst = float(np.max(slope))
    inside = (left < peak) & (peak < right)
    for scale, reached in (
        (right, arriving),
        (np.where(inside, peak, right), np.where(inside, 2 * variance, arriving)),
    ):
        shift = rate / 2 * scale * np.abs(left * scale * gap - variance) / (departing * reached)
        worst = max(worst, float(np.linalg.norm(data.mean) * np.max(shift)))
    return worst


def _score_mse(key: str, value: npt.ArrayLike, n_steps: int) -> Array:
    mse = np.asarray(value, dtype=np.float64)
    if mse.shape[-1:] != (n_steps,):
        raise ValueError(f"{key} has shape {mse.shape}: must be (..., {n_steps})")
    return mse
