"""Monte-Carlo moments of a score's error under the true noised law.

For a Gaussian target, p_τ and its score s are known, and with x ~ p_τ the moments of
the error e = s_θ(τ, x) − s(τ, x) of any score s_θ are

    mse(τ) = E|e|²,     cross(τ) = E⟨s̃, e⟩,     s̃ = s + x/σ²,

at the departure times of the sampler. The first makes the KL theorem's
E₂ = Σ_k (B(τ_k) − B(τ_{k+1})) mse(τ_k), both together the path KL. Each time and each
replicate has its own draws, so that sums over the times average the noise: some
hundred draws a time fix E₂ to a percent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from sgm.gaussian import Gaussian
from sgm.networks import ScoreFn
from sgm.processes import VPProcess
from sgm.random import stream_seed

__all__ = ["ScoreErrorMoments", "score_error_moments"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoreErrorMoments:
    """Estimated moments of a score's error, with their standard errors.

    Parameters
    ----------
    mse, cross : ndarray, shape (R, N)
    mse_standard_error, cross_standard_error : ndarray, shape (R, N)
    """

    mse: Array
    cross: Array
    mse_standard_error: Array
    cross_standard_error: Array


@torch.no_grad()
def score_error_moments(
    score_fn: ScoreFn,
    process: VPProcess,
    law: Gaussian,
    times: npt.ArrayLike,
    n_samples: int,
    study_seed: int,
    seeds: Sequence[int],
    stream_axes: Mapping[str, int | str],
    dtype: torch.dtype,
    device: torch.device,
) -> ScoreErrorMoments:
    """Estimate E|e|² and E⟨s̃, e⟩ at each time.

    Parameters
    ----------
    score_fn : ScoreFn
        Scores of states of shape (R, n, d), one replicate a seed.
    process : VPProcess
    law : Gaussian
        Law of X₀, of batch shape ().
    times : array_like, shape (N,)
        The departure times τ_0 … τ_{N−1}.
    n_samples : int
        Draws a time and replicate, at least 2.
    study_seed : int
    seeds : sequence of int, length R
    stream_axes : mapping
        Axes, besides the seed, along which draws must be independent, such as the target.
    dtype : torch.dtype
        Type of the states that the score sees; the exact score is float64.
    device : torch.device

    Returns
    -------
    ScoreErrorMoments
        NaN for a replicate whose score is NaN.
    """
    if n_samples < 2:
        raise ValueError(f"n_samples = {n_samples!r}: must be at least 2 for a standard error")
    times = np.asarray(times, dtype=np.float64)
    marginals = process.marginal(law, times)
    generators = [
        torch.Generator().manual_seed(
            stream_seed(study_seed, "score_error", seed=seed, **stream_axes)
        )
        for seed in seeds
    ]
    shape = (n_samples, law.dimension)
    moments = np.empty((4, len(seeds), len(times)))
    for k, t in enumerate(times.tolist()):
        root = np.sqrt(marginals.eigenvalues[k])
        z = np.stack([torch.randn(shape, generator=g, dtype=torch.float64) for g in generators])
        x = marginals.mean[k] + (z * root) @ law.basis.T
        exact = -(z / root) @ law.basis.T
        score = score_fn(torch.as_tensor(x).to(device, dtype), t)
        error = score.double().cpu().numpy() - exact
        squares = np.sum(error**2, axis=-1)
        products = np.sum((exact + x / process.variance) * error, axis=-1)
        for row, values in zip((0, 1), (squares, products), strict=True):
            moments[row, :, k] = values.mean(axis=-1)
            moments[row + 2, :, k] = values.std(axis=-1, ddof=1) / np.sqrt(n_samples)
    return ScoreErrorMoments(*moments)
