"""Monte-Carlo moments of a score's error, under the noised law and along a chain.

For a target of known density, p_τ and its score s are known, and with x ~ p_τ the moments
of the error e = s_θ(τ, x) − s(τ, x) of any score s_θ are

    mse(τ) = E|e|²,     cross(τ) = E⟨s̃, e⟩,     s̃ = s + x/σ²,

at the departure times of the sampler. The first makes the KL theorem's
E₂ = Σ_k (B(τ_k) − B(τ_{k+1})) mse(τ_k), both together the path KL. Each time and each
replicate has its own draws, so that sums over the times average the noise: some
hundred draws a time fix E₂ to a percent.

The W2 theorem asks for the error where the sampler goes: `ChainError` watches a simulation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgm.densities import Law
from sgm.networks import ScoreFn
from sgm.processes import Process
from sgm.random import stream
from sgm.samplers import Steps

__all__ = ["ChainError", "ScoreErrorMoments", "denoising_losses", "score_error_moments"]

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
    process: Process,
    law: Law,
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
    process : Process
    law : Law
        Law of X₀.
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
    generators = [stream(study_seed, "score_error", seed=seed, **stream_axes) for seed in seeds]
    shape = (n_samples, law.dimension)
    moments = np.empty((4, len(seeds), len(times)))
    for k, t in enumerate(times.tolist()):
        scale, spread = float(process.mean_scale(t)), float(process.kernel_variance(t))
        x0 = np.stack([law.sample(n_samples, g) for g in generators])
        x = scale * x0 + np.sqrt(spread) * np.stack([g.standard_normal(shape) for g in generators])
        exact = law.score(x, scale, spread)
        score = score_fn(torch.as_tensor(x).to(device, dtype), t)
        error = score.double().cpu().numpy() - exact
        squares = np.sum(error**2, axis=-1)
        products = np.sum((exact + x / process.variance) * error, axis=-1)
        for row, values in zip((0, 1), (squares, products), strict=True):
            moments[row, :, k] = values.mean(axis=-1)
            moments[row + 2, :, k] = values.std(axis=-1, ddof=1) / np.sqrt(n_samples)
    return ScoreErrorMoments(*moments)


@torch.no_grad()
def denoising_losses(
    score_fn: ScoreFn,
    process: Process,
    rows: Array,
    times: npt.ArrayLike,
    study_seed: int,
    seeds: Sequence[int],
    stream_axes: Mapping[str, int | str],
    dtype: torch.dtype,
    device: torch.device,
) -> Array:
    """Unbiased to O(1/n) estimates of E[|s_θ(t, X_t) + Z/√v|² | X₀], one draw a row and time.

    Of |s + Z/√v|² the part c (|Z|² − d)/v, of mean zero, is taken away, c fitted over the rows:
    at small times it is nearly all of the noise (c = 1), at large ones none of it (c = 0).

    Parameters
    ----------
    score_fn : ScoreFn
    process : Process
    rows : ndarray, shape (R, n, d)
        X₀, of a law that need not be known.
    times : array_like, shape (K,)
        Positive.
    study_seed, seeds, stream_axes, dtype, device
        See `score_error_moments`.

    Returns
    -------
    ndarray, shape (R, n, K)
    """
    times = np.asarray(times, dtype=np.float64)
    generators = [stream(study_seed, "denoising_loss", seed=seed, **stream_axes) for seed in seeds]
    losses = np.empty((*rows.shape[:2], len(times)))
    for k, t in enumerate(times.tolist()):
        scale, spread = float(process.mean_scale(t)), float(process.kernel_variance(t))
        z = np.stack([g.standard_normal(rows.shape[1:]) for g in generators])
        x = scale * rows + np.sqrt(spread) * z
        score = score_fn(torch.as_tensor(x).to(device, dtype), t).double().cpu().numpy()
        loss = np.sum((score + z / np.sqrt(spread)) ** 2, axis=-1)
        noise = (np.sum(z**2, axis=-1) - rows.shape[-1]) / spread
        centred = noise - noise.mean(axis=1, keepdims=True)
        fitted = np.sum(centred * loss, axis=1) / np.sum(centred**2, axis=1)
        losses[..., k] = loss - fitted[:, None] * noise
    return losses


class ChainError:
    """Mean squared error of a score along the chain that it generates.

    An observer of `sgm.simulation.simulate_reverse`: at some stages, |s_θ − s|² at the states
    of the first rows, s the exact score at the stage's time.

    Parameters
    ----------
    process : Process
    law : Law
        Law of X₀.
    steps : Steps
        The sampler that is simulated.
    n_rows : int
        Rows of each replicate that are looked at.
    stages : slice, optional
        Stages that are looked at, such as `Steps.departures`; all by default.
    """

    def __init__(
        self,
        process: Process,
        law: Law,
        steps: Steps,
        n_rows: int,
        stages: slice = slice(None),
    ) -> None:
        self.process, self.law = process, law
        self.times, self.n_rows = steps.score_time, n_rows
        self.squares: dict[int, list[Array]] = {k: [] for k in range(len(steps))[stages]}

    def __call__(self, stage: int, rows: slice, x: Tensor, score: Tensor) -> None:
        """See `sgm.simulation.Observer`."""
        if rows.start >= self.n_rows or stage not in self.squares:
            return
        t, kept = self.times[stage], self.n_rows - rows.start
        states, scores = (part[:, :kept].double().cpu().numpy() for part in (x, score))
        scale, spread = float(self.process.mean_scale(t)), float(self.process.kernel_variance(t))
        error = scores - self.law.score(states, scale, spread)
        self.squares[stage].append(np.sum(error**2, axis=-1))

    @property
    def mse(self) -> Array:
        """E|s_θ − s|² at each of the stages looked at, shape (R, number of them)."""
        squares = (np.concatenate(found, axis=-1) for found in self.squares.values())
        return np.stack([found.mean(axis=-1) for found in squares], axis=-1)
