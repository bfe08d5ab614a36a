"""The steps of least evidence bound of DDPM, by dynamic programming.

With the exact score the bound of N ancestral steps is KL(p_T ‖ p) + Σ D(τ_k, τ_{k+1}): additive,
and D is a closed form of any two times (`sgm.bounds.ddpm`). So the best N steps through candidates
are a shortest path. With a network Watson et al. take the measured losses of denoising for D.

Sources
-------
Watson, Ho, Norouzi, Chan (arXiv 2106.03802).
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_integer
from sgm.bounds.ddpm import step_losses
from sgm.densities import Law
from sgm.processes import Process
from sgm.registry import register
from sgm.timegrids.chains import shortest
from sgm.timegrids.level import log_level, require_finite_clock, time_at_level

__all__ = ["ddpm_optimal"]

Array = npt.NDArray[np.float64]

#: Candidates, the most steps through them, and how far below the data, in log σ, they begin.
CANDIDATES, MOST, BELOW = 400, 100, 5.0


@register("time_grid", needs="law")
def ddpm_optimal(
    process: Process,
    n_steps: int,
    law: Law,
    stop: float = 0.0,
    *,
    variance: Literal["large", "small"] = "large",
) -> Array:
    """The N steps of least evidence bound of ancestral sampling with the exact score.

    Through 400 candidates, equally spaced in log σ, σ² = v/m².

    Parameters
    ----------
    process : Process
    n_steps : int
        N, at most 100.
    law : Law
        Of the data, of known entropy and Fisher information.
    stop : float
        Last time.
    variance : {"large", "small"}
        Of the model's steps: that of the forward step, or that of q(x' | x, x₀).

    Returns
    -------
    ndarray, shape (n_steps + 1,)
        Decreasing times from T to `stop`.

    Raises
    ------
    ValueError
        If there are more than 100 steps, the level of T is infinite, or the law does not know its
        entropy.
    """
    require_integer(1, n_steps=n_steps)
    if n_steps > MOST:
        raise ValueError(f"n_steps = {n_steps}: must be at most {MOST} for ddpm_optimal")
    if np.isnan(law.negentropy(0.0)) or np.isnan(law.excess_information(1.0)):
        raise ValueError(f"law = {type(law).__name__}: must know its entropy and information")
    top = float(log_level(process, process.horizon))
    require_finite_clock(process, top)
    least = 0.5 * float(np.log(law.principal_variances.min())) - BELOW
    if stop > 0:
        least = float(log_level(process, stop))
    least = min(least, top - 1.0) if stop == 0 else least
    levels = np.linspace(least, top, CANDIDATES + 1)[1:]
    times = np.unique(np.append(time_at_level(process, levels[:-1]), process.horizon))
    times = times[(times > stop) & (times <= process.horizon)]
    if len(times) < n_steps:
        raise ValueError(
            f"n_steps = {n_steps}: must be at most {len(times)}, the times between stop = {stop!r} "
            f"and T = {process.horizon!r} that differ"
        )
    chain, _ = shortest(
        lambda start, end: step_losses(process, law, start, np.maximum(end, stop), variance),
        lambda start: np.where(start == process.horizon, 0.0, np.inf),
        times,
        n_steps,
    )
    chain[-1] = stop
    return chain
