"""Dynamic programming: the best levels among candidates for an additive cost.

Of candidates u_1 < … < u_M, with u_0 = 0 where the data are, and a cost c(u, u′) of one step,

    W_1(u) = c(u, 0),    W_j(u) = min_{u′ < u} c(u, u′) + W_{j−1}(u′),

and min_u KL(p_u ‖ π_∞) + W_N(u) is the least path KL of N steps through candidates, its total B
free. Work O(N M²). GITS takes for c the error of one Euler step of the probability flow, from a
fixed first level, and later steps γ times as much each: W_j = min c + γ W_{j−1}. For a Gaussian its
teacher, the flow itself, is a closed form. In y = x/m at s = √v/m, in units of σ,

    y(s′) − μ = √((λ + s′²)/(λ + s²)) (y(s) − μ),    Euler's: [1 + (s′ − s)s/(λ + s²)] (y(s) − μ),

and E(y − μ)² = λ + s², so that a direction's root mean square error is, in terms that don't cancel,
λ (s − s′)²/[√(λ + s²) (λ + s s′ + √((λ + s²)(λ + s′²)))].

Sources
-------
Watson, Ho, Norouzi, Chan (arXiv 2106.03802). Chen, Zhou, Wang, Shen, Lyu (arXiv 2405.11326): GITS,
with γ = 1.15 and first level 80, and 61 points of a numerical teacher for our candidates.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sgm.arguments import require_integer
from sgm.optimal_schedule.objectives import Spectrum, step_costs, terminal_kl
from sgm.timegrids.chains import shortest

__all__ = ["best_levels", "candidates", "flow_costs", "gits_levels"]

Array = npt.NDArray[np.float64]

#: γ and the first noise-to-signal ratio of GITS.
LATER, FIRST = 1.15, 80.0


def candidates(spectrum: Spectrum, n: int) -> Array:
    """Levels of a geometric grid of the noise-to-signal variance τ = v/m² = eᵘ − 1.

    From a hundredth of the smallest variance, or of 1, to where p_u and π_∞ agree to 10⁻⁶ nats.

    Parameters
    ----------
    spectrum : Spectrum
    n : int
        M ≥ 2.

    Returns
    -------
    ndarray, shape (n,)
        Increasing.
    """
    require_integer(2, n=n)
    least = 1e-2 * min(float(spectrum.variances[0]), 1.0)
    most = max(1e6 * spectrum.entropy, 1e3)
    return np.asarray(np.log1p(np.geomspace(least, most, n)))


def best_levels(spectrum: Spectrum, n_steps: int, n_candidates: int = 400) -> Array:
    """Levels of the least path KL of N steps through `candidates`, shape (N + 1,)."""
    levels = candidates(spectrum, max(n_candidates, 4 * n_steps))
    chain, _ = shortest(
        lambda start, stop: step_costs(spectrum, start, stop),
        lambda start: terminal_kl(spectrum, start),
        levels,
        n_steps,
    )
    return chain


def flow_costs(spectrum: Spectrum, start: Array, stop: Array) -> Array:
    """Root mean square error of one Euler step of the flow from levels u to u′ < u, in σ."""
    s, t = (np.sqrt(np.expm1(np.asarray(u)))[..., None] for u in np.broadcast_arrays(start, stop))
    ratio = spectrum.variances
    a, b = np.sqrt(ratio + s**2), np.sqrt(ratio + t**2)
    error = ratio * (s - t) ** 2 / (a * (ratio + s * t + a * b))
    return np.asarray(np.sqrt(error**2 @ spectrum.multiplicities))


def gits_levels(spectrum: Spectrum, n_steps: int, n_candidates: int = 400) -> Array:
    """Levels of GITS with the exact flow as its teacher, shape (N + 1,)."""
    first = np.log1p(FIRST**2)
    below = candidates(spectrum, max(n_candidates, 2 * n_steps))
    levels = np.append(below[below < first], first)
    chain, _ = shortest(
        lambda start, stop: flow_costs(spectrum, start, stop),
        lambda start: np.where(start == first, 0.0, np.inf),
        levels,
        n_steps,
        LATER,
    )
    return chain
