"""The likelihood of rows under the probability flow of a score.

The flow carries the data to noise by

    dx/dt = f(t) x − ½ g²(t) s_θ(t, x),     f = −β/(2σ²),  g² = β,     t from ε to T,

and backwards the prior p_noise to the flow's law q. Along it the density changes with the
divergence of the velocity (the instantaneous change of variables), so that

    log q(x) = log p_noise(x(T)) + ∫_ε^T [d f − ½ g² ∇·s_θ](t, x(t)) dt,     x(ε) = x.

With the exact score q ≠ p_ε still, since the flow starts from p_noise and not from p_T.

∇·s_θ = Σ_k ∂_k s_k: in closed form for affine scores; by differences of fourth order along the
axes for other scores of NumPy; by automatic derivatives for networks, along the axes or, at
a cost that doesn't grow with d, along random signs z with E zᵀ(∂s)z = ∇·s (Hutchinson). The
signs stay the same along the path: the estimate of log q is unbiased, and the ODE smooth.

Sources
-------
Chen et al. (arXiv 1806.07366), the change of variables; Grathwohl et al. (arXiv 1810.01367),
fixed signs; Song et al. (arXiv 2011.13456), the flow and bits per dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from sgm.networks import ScoreFn
from sgm.processes import Process
from sgm.scores import GaussianScore, Score

__all__ = [
    "FlowLikelihood",
    "ScoreField",
    "bits_per_dimension",
    "flow_likelihood",
    "network_field",
    "score_field",
]

Array = npt.NDArray[np.float64]

ScoreField = Callable[[Array, float], tuple[Array, Array]]
"""(x of shape (..., d), t) → the score, shape (..., d), and its divergence, shape (...)."""


@dataclass(frozen=True, eq=False)
class FlowLikelihood:
    """Log-likelihoods of rows, and what they cost.

    Parameters
    ----------
    log_likelihood : ndarray, shape (...)
        log q of each row, in nats.
    evaluations : int
        Of the score and its divergence, by the solver.
    rtol, atol, atol_nats : float
        Its tolerances.
    """

    log_likelihood: Array
    evaluations: int
    rtol: float
    atol: float
    atol_nats: float


def flow_likelihood(
    process: Process,
    field: ScoreField,
    rows: npt.ArrayLike,
    *,
    rtol: float,
    atol: float,
    atol_nats: float,
    method: Literal["RK45", "DOP853"] = "RK45",
    cutoff: float = 0.0,
) -> FlowLikelihood:
    """log q of rows under the probability flow, by an adaptive Runge-Kutta method.

    All rows are one system: the solver's local error, root mean square over rows, is held
    below atol + rtol |value|. A row's error can exceed the mean one: repeat at a tenth of the
    tolerances to see.

    The divergence of a ReLU network jumps where a unit switches. A solver asked for log q to
    many digits then steps from jump to jump: leave `atol_nats` near 0.01, well below the
    spread of log q over rows, and take DOP853 for smooth scores alone.

    Parameters
    ----------
    process : Process
    field : callable
        The score with its divergence, see `score_field` and `network_field`.
    rows : array_like, shape (..., d)
    rtol, atol : float
        Relative tolerance, and the absolute one of the coordinates; positive.
    atol_nats : float
        Absolute tolerance of log q.
    method : {"RK45", "DOP853"}
        Of order 5 or 8.
    cutoff : float
        ε in [0, T): q is then the law of the flow stopped there.

    Raises
    ------
    ValueError
        If a parameter is out of range.
    ArithmeticError
        If the solver fails, or the score is not finite.
    """
    from scipy.integrate import solve_ivp

    for key, value in {"rtol": rtol, "atol": atol, "atol_nats": atol_nats}.items():
        if not (np.isfinite(value) and value > 0):
            raise ValueError(f"{key} = {value!r}: must be a positive finite number")
    if not 0 <= cutoff < process.horizon:
        raise ValueError(f"cutoff = {cutoff!r}: must lie in [0, {process.horizon!r})")
    x = np.asarray(rows, dtype=np.float64)
    size, d = x.size, x.shape[-1]

    def velocity(t: float, state: Array) -> Array:
        position = state[:size].reshape(x.shape)
        score, divergence = field(position, t)
        drift, half_rate = float(process.drift(t)), float(process.schedule.beta(t)) / 2
        flow = drift * position - half_rate * score
        return np.concatenate([flow.ravel(), (d * drift - half_rate * divergence).ravel()])

    start = np.concatenate([x.ravel(), np.zeros(size // d)])
    if not np.all(np.isfinite(velocity(cutoff, start))):  # the solver would try for ever
        raise ArithmeticError("the probability flow was not solved: the score is not finite")
    tolerance = np.repeat([atol, atol_nats], [size, size // d])
    solved = solve_ivp(
        velocity, (cutoff, process.horizon), start, method, rtol=rtol, atol=tolerance,
        t_eval=[process.horizon],
    )  # fmt: skip
    if not solved.success:
        raise ArithmeticError(f"the probability flow was not solved: {solved.message}")
    end = solved.y[:, -1]
    prior = process.prior(d).log_density(end[:size].reshape(x.shape))
    log_likelihood = prior + end[size:].reshape(x.shape[:-1])
    return FlowLikelihood(log_likelihood, int(solved.nfev), rtol, atol, atol_nats)


def score_field(score: Score, *, difference_step: float | None = None) -> ScoreField:
    """A score of NumPy with its divergence.

    Parameters
    ----------
    score : GaussianScore or DensityScore
    difference_step : float, optional
        Step δ of the differences, in units of the rows; needed unless the score is affine.
        Their error is O(δ⁴) and, by rounding, 10⁻¹⁶ |s|/δ: a hundredth of the standard
        deviation of the narrowest feature gives about 10⁻⁹.

    Returns
    -------
    callable
        4d evaluations of the score for a divergence by differences.

    Raises
    ------
    ValueError
        If `difference_step` is not positive, or missing where it is needed.
    """
    if isinstance(score, GaussianScore):

        def affine(x: Array, t: float) -> tuple[Array, Array]:
            slope, _ = score.coefficients(t)
            return score(x, t), np.full(x.shape[:-1], np.sum(slope))

        return affine
    step = difference_step
    if step is None or not (np.isfinite(step) and step > 0):
        raise ValueError(
            f"difference_step = {step!r}: must be a positive finite number for a score "
            "that is not affine"
        )

    def differenced(x: Array, t: float) -> tuple[Array, Array]:
        axes = np.eye(x.shape[-1])
        shifts = step * np.array([-2.0, -1.0, 1.0, 2.0])[:, None, None] * axes
        moved = score(x[..., None, None, :] + shifts, t)
        # (f(−2δ) − 8f(−δ) + 8f(δ) − f(2δ))/(12δ), summed over the axes
        weights = np.array([1.0, -8.0, 8.0, -1.0])[:, None, None] * axes / (12 * step)
        return score(x, t), np.sum(moved * weights, axis=(-3, -2, -1))

    return differenced


def network_field(
    score_fn: ScoreFn,
    *,
    signs: npt.ArrayLike | None = None,
    device: torch.device | None = None,
) -> ScoreField:
    """A score of torch with its divergence, in float64.

    Parameters
    ----------
    score_fn : ScoreFn
        Replicates of networks in float64, see `ScoreEnsemble.to`; rows are then of shape
        (R, n, d).
    signs : array_like, shape (K, R, n, d), optional
        ±1 with equal probability, drawn once for the rows: Hutchinson's estimate from K
        directions. Without it the divergence is exact, from d directions.
    device : torch.device
        Of the networks; the CPU by default.

    Returns
    -------
    callable
        K or d derivatives along the path for a divergence, in one batch.
    """
    drawn = None if signs is None else torch.tensor(np.asarray(signs, float), device=device)

    def evaluate(x: Array, t: float) -> tuple[Array, Array]:
        replicates, n, d = x.shape
        if drawn is None:
            directions = torch.eye(d, dtype=torch.float64, device=device)
            directions = directions[:, None, None, :].expand(d, *x.shape)
        else:
            directions = drawn
        # all directions in one pass, as further rows
        rows = (replicates, len(directions) * n, d)
        tangents = directions.transpose(0, 1).reshape(rows)
        position = torch.as_tensor(x, device=device).repeat(1, len(directions), 1)
        position.requires_grad_()
        with torch.enable_grad():
            score = score_fn(position, t)
            (pulled,) = torch.autograd.grad(score, position, tangents)
        terms = (tangents * pulled).sum(dim=-1).reshape(replicates, -1, n)
        divergence = terms.sum(dim=1) if drawn is None else terms.mean(dim=1)
        return score[:, :n].detach().cpu().numpy(), divergence.cpu().numpy()

    return evaluate


def bits_per_dimension(
    log_likelihood: npt.ArrayLike, dimension: int, levels: int, *, span: float
) -> Array:
    """Bits per dimension of rows quantised to `levels`, from the density of dequantised ones.

    A row whose coordinates are spread uniformly over bins of width Δ = span/levels has
    E log q ≤ log P − d log Δ, P the probability of its bin (Jensen): the result,

        −(log q + d log Δ)/(d log 2),

    is in the mean at least −log₂ P/d. Rows scaled to [−1, 1] at 256 levels have Δ = 2/256,
    the offset of 7 bits in the literature.

    Parameters
    ----------
    log_likelihood : array_like, shape (...)
        log q of dequantised rows, in nats.
    dimension : int
        d ≥ 1.
    levels : int
        Number of values a coordinate can take, at least 2.
    span : float
        Length that the bins cover together, in units of the rows, positive.

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    ValueError
        If a parameter is out of range.
    """
    if dimension < 1:
        raise ValueError(f"dimension = {dimension!r}: must be >= 1")
    if levels < 2:
        raise ValueError(f"levels = {levels!r}: must be >= 2")
    if not (np.isfinite(span) and span > 0):
        raise ValueError(f"span = {span!r}: must be a positive finite number")
    nats = np.asarray(log_likelihood, dtype=np.float64) / dimension + np.log(span / levels)
    return np.asarray(-nats / np.log(2))
