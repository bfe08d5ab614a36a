"""Schemes with Langevin steps x ← x + δ s(τ, x) + √(2δ) z at a fixed noise level.

Sources
-------
Song and Ermon (annealed Langevin dynamics, arXiv 1907.05600); Song et al. (predictor-corrector,
arXiv 2011.13456); Conforti and Durmus, lecture 2.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_integer, require_positive
from sgm.processes import Process
from sgm.registry import Count, Positive, register
from sgm.samplers.increments import factor, step_columns
from sgm.samplers.one_step import euler_maruyama
from sgm.samplers.steps import Stage, Steps, program, symbols

__all__ = [
    "annealed_langevin",
    "langevin",
    "predictor_corrector",
    "predictor_corrector_snr",
]

Array = npt.NDArray[np.float64]


@register("sampler", axes={"corrector_steps": "L", "step_size": "δ"})
def predictor_corrector(
    process: Process, times: npt.ArrayLike, corrector_steps: Count, step_size: Positive
) -> Steps:
    """Euler-Maruyama predictor, then L Langevin steps of one size at the arrival time.

    Parameters
    ----------
    process : Process
    times : array_like, shape (N + 1,)
        Decreasing grid, see `sgm.timegrids`.
    corrector_steps : int
        L ≥ 0.
    step_size : float
        δ > 0.

    Returns
    -------
    Steps
        N steps of L + 1 evaluations.

    Raises
    ------
    ValueError
        If `corrector_steps` or `step_size` is out of range.
    """
    require_integer(0, corrector_steps=corrector_steps)
    require_positive(step_size=step_size)
    _, stop = step_columns(times)
    return _corrected(process, times, corrector_steps, np.full_like(stop, step_size))


@register("sampler", axes={"corrector_steps": "L", "snr": "r"})
def predictor_corrector_snr(
    process: Process, times: npt.ArrayLike, corrector_steps: Count, snr: Positive
) -> Steps:
    """As `predictor_corrector`, its Langevin step set by a signal-to-noise ratio q.

    Song et al. take δ = (q |z|/|s|)² from the norms in each batch, which is not linear in the
    state. This is their rule at the norms of pure noise, |z|² = d and |s|² = d/v: δ = q² v(τ′).
    Where v = 0 nothing is corrected.

    Parameters
    ----------
    process, times, corrector_steps
        As in `predictor_corrector`.
    snr : float
        q > 0; 0.16 in their experiments on images.

    Returns
    -------
    Steps
        N steps of L + 1 evaluations, but for a last one onto the data, which has one.

    Raises
    ------
    ValueError
        If `corrector_steps` or `snr` is out of range.
    """
    require_integer(0, corrector_steps=corrector_steps)
    require_positive(snr=snr)
    _, stop = step_columns(times)
    return _corrected(process, times, corrector_steps, snr**2 * process.kernel_variance(stop))


def _corrected(process: Process, times: npt.ArrayLike, corrector_steps: int, size: Array) -> Steps:
    predictor = euler_maruyama(process, times)
    start, stop = step_columns(times)
    alpha, gamma, rho = (
        factor(part)[:, None] for part in (predictor.state, predictor.score, predictor.noise)
    )
    x, s, _, z = symbols(1)
    predict = Stage(start, x, [alpha * x + gamma * s + rho * z])
    correct = Stage(stop, x, [x + size * s + np.sqrt(2 * size) * z], when=size > 0)
    return program(process, len(start), [predict, *[correct] * corrector_steps])


@register("sampler", axes={"langevin_steps": "L", "step_size": "δ"})
def annealed_langevin(
    process: Process, times: npt.ArrayLike, langevin_steps: Count, step_size: Positive
) -> Steps:
    """Annealed Langevin dynamics: L Langevin steps at each of the levels τ₀, …, τ_{N−1}.

    Their size is δ = step_size · v(τ), Song and Ermon's α_i/2 ∝ σ_i². What leaves one level enters
    the next; the sample has the noise of the last one, τ_{N−1}.

    Parameters
    ----------
    process, times
        As in `predictor_corrector`.
    langevin_steps : int
        L ≥ 1.
    step_size : float
        Positive; in units of the variance of the noise.

    Returns
    -------
    Steps
        N steps of L evaluations.

    Raises
    ------
    ValueError
        If `langevin_steps` or `step_size` is out of range.
    """
    require_integer(1, langevin_steps=langevin_steps)
    require_positive(step_size=step_size)
    start, _ = step_columns(times)
    size = step_size * process.kernel_variance(start)
    x, s, _, z = symbols(1)
    stage = Stage(start, x, [x + size * s + np.sqrt(2 * size) * z])
    return program(process, len(start), [stage] * langevin_steps)


@register("sampler", axes={"step_size": "δ"})
def langevin(process: Process, times: npt.ArrayLike, step_size: Positive) -> Steps:
    """Plain Langevin dynamics: N steps at the last time of the grid, the data's or an early stop.

    The unadjusted Langevin algorithm from the prior, without annealing: where modes lie apart
    it does not pass between them, and keeps the weights with which it fell into them.

    Parameters
    ----------
    process, times
        As in `predictor_corrector`; of the times, τ_N and their number count.
    step_size : float
        δ > 0, in units of x².

    Returns
    -------
    Steps
        N steps of one evaluation, at τ_N.

    Raises
    ------
    ValueError
        If `step_size` is out of range.
    """
    require_positive(step_size=step_size)
    _, stop = step_columns(times)
    last = np.full_like(stop, stop[-1])
    x, s, _, z = symbols(1)
    stage = Stage(last, x, [x + step_size * s + np.sqrt(2 * step_size) * z])
    return program(process, len(last), [stage])
