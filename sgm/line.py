"""The law of a sampler's output on the line, for scores that are not affine.

With one evaluation a step, x′ = α x + γ s(τ, x) + ρ z is a transition kernel; the law of x is
carried through the kernels on a grid that follows it. It is the exact counterpart of samples where
`sgm.laws` has no closed form, to about 10⁻⁴ of the standard deviation.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from sgm.densities import GaussianMixture, Law
from sgm.processes import Process
from sgm.samplers import Steps

__all__ = ["output_quantiles", "w2_on_the_line"]

Array = npt.NDArray[np.float64]
CELLS = 1500  # of the grid, on which points of equal mass follow a step without noise
REACH = 9.0  # of the grid beyond all means, in standard deviations of the noise
NEGLIGIBLE = 1e-15  # mass of a cell
LEVELS = 8000  # quantiles that W₂ averages


def output_quantiles(process: Process, law: Law, steps: Steps, levels: Array) -> Array:
    """Quantiles of what a sampler returns with the exact score of a law on the line.

    Parameters
    ----------
    process : Process
    law : Law
        Of dimension 1.
    steps : Steps
        With one register, such as those of `ancestral` or `ddim`; after a step without noise none
        has any.
    levels : ndarray, shape (n,)
        Between 0 and 1, increasing.

    Returns
    -------
    ndarray, shape (n,)

    Raises
    ------
    ValueError
        If the law is not on the line, or steps are not of that form.
    """
    if law.dimension != 1:
        raise ValueError(f"law has dimension {law.dimension}: must be 1")
    if steps.registers > 1:
        raise ValueError(f"steps have {steps.registers} registers: must be 1")
    drawn = int(np.sum(steps.noise > 0))
    if not np.all(steps.noise[:drawn] > 0):
        raise ValueError("noise: after a step without noise, none may have any")

    def moved(k: int, x: Array) -> Array:
        tau = steps.score_time[k]
        m, v = float(process.mean_scale(tau)), float(process.kernel_variance(tau))
        return np.asarray(steps.state[k] * x + steps.score[k] * law.score(x[:, None], m, v)[:, 0])

    start = float(np.sqrt(process.prior_variance))
    if not drawn:
        x = start * ndtri(levels)
    else:
        edges = np.linspace(-REACH * start, REACH * start, CELLS + 1)
        mass = np.diff(ndtr(edges / start))
        for k in range(drawn):
            held = mass > NEGLIGIBLE
            means = moved(k, ((edges[:-1] + edges[1:]) / 2)[held])
            reach = REACH * steps.noise[k]
            edges = np.linspace(means.min() - reach, means.max() + reach, CELLS + 1)
            kernel = np.diff(ndtr((edges - means[:, None]) / steps.noise[k]))
            mass = mass[held] @ kernel
        x = np.interp(levels, np.cumsum(mass), edges[1:])
    for k in range(drawn, len(steps)):
        x = np.sort(moved(k, x))
    return np.asarray(x)


def w2_on_the_line(process: Process, law: GaussianMixture, steps: Steps) -> float:
    """W₂ of a mixture on the line to what a sampler returns with its exact score.

    W₂² = ∫ (F⁻¹(u) − G⁻¹(u))² du, at `LEVELS` midpoints; see `output_quantiles`.
    """
    levels = (np.arange(LEVELS) + 0.5) / LEVELS
    sd = np.sqrt(law.variances[:, 0])
    low, high = np.min(law.means[:, 0] - 10 * sd), np.max(law.means[:, 0] + 10 * sd)
    x = np.linspace(low, high, 100_001)
    parts = zip(law.weights, law.means[:, 0], sd, strict=True)
    mass = sum(w * ndtr((x - mean) / own) for w, mean, own in parts)
    gap = output_quantiles(process, law, steps, levels) - np.interp(levels, mass, x)
    return float(np.sqrt(np.mean(gap**2)))
