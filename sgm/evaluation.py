"""Monte-Carlo moments of a score's error, under the noised law and along a chain.

For a target of known density, p_τ and its score s are known, and with x ~ p_τ the moments
of the error e = s_θ(τ, x) − s(τ, x) of any score s_θ are

    mse(τ) = E|e|²,     cross(τ) = E⟨s̃, e⟩,     s̃ = s + x/σ²,

at the departure times of the sampler. The first makes the KL theorem's
E₂ = Σ_k (B(τ_k) − B(τ_{k+1})) mse(τ_k), both together the path KL. Each time and each
replicate has its own draws, so that sums over the times average the noise: on 500 times
five draws a time fix E₂ to a percent if the error is even, hundreds if a few times make it.
`score_error_within` asks a pilot how many.

The W2 theorem asks for the error where the sampler goes: `ChainError` watches a simulation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise, takewhile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sgm.densities import Law
from sgm.networks import ScoreFn
from sgm.processes import Process
from sgm.random import stream
from sgm.samplers import Steps

__all__ = [
    "ChainError",
    "ScoreErrorMoments",
    "denoised_rows",
    "denoising_losses",
    "score_error_moments",
    "score_error_within",
]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ScoreErrorMoments:
    """Estimated moments of a score's error, with their standard errors.

    Parameters
    ----------
    mse, cross : ndarray, shape (R, N)
    mse_standard_error, cross_standard_error : ndarray, shape (R, N)
    draws : ndarray, shape (R, N)
        Draws behind each of them.
    """

    mse: Array
    cross: Array
    mse_standard_error: Array
    cross_standard_error: Array
    draws: Array

    def __getitem__(self, block: slice) -> ScoreErrorMoments:
        """Those of some of the times."""
        return ScoreErrorMoments(**{name: part[:, block] for name, part in vars(self).items()})

    @classmethod
    def concatenate(cls, parts: Sequence[ScoreErrorMoments]) -> ScoreErrorMoments:
        """Those of all times, from those of some."""
        names = vars(parts[0])
        return cls(**{name: np.hstack([getattr(part, name) for part in parts]) for name in names})

    def pooled(self, other: ScoreErrorMoments, where: npt.NDArray[np.bool_]) -> ScoreErrorMoments:
        """These and other draws together for some of the replicates, `where` of shape (R,).

        Means and sums of squares as Chan, Golub & LeVeque (1983) pool them.
        """
        n, m = self.draws, other.draws
        pooled = {"draws": n + m}
        for name in ("mse", "cross"):
            error = f"{name}_standard_error"
            gap = getattr(other, name) - getattr(self, name)
            own, others = (k * (k - 1) * getattr(part, error) ** 2
                           for k, part in ((n, self), (m, other)))  # fmt: skip
            squares = own + others + gap**2 * n * m / (n + m)
            pooled[name] = getattr(self, name) + gap * m / (n + m)
            pooled[error] = np.sqrt(squares / (n + m - 1) / (n + m))
        return ScoreErrorMoments(
            **{k: np.where(where[:, None], v, getattr(self, k)) for k, v in pooled.items()}
        )


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
    mse, cross, mse_error, cross_error = moments
    draws = np.full(mse.shape, float(n_samples))
    return ScoreErrorMoments(mse, cross, mse_error, cross_error, draws)


PILOT = 20
"""Draws a time of the pilot of `score_error_within`; each round makes them four times as many."""

TIMES_TOGETHER = 25
"""Consecutive times that `score_error_within` gives equally many draws."""


def score_error_within(
    score_fn: ScoreFn,
    process: Process,
    law: Law,
    times: npt.ArrayLike,
    weights: npt.ArrayLike,
    tolerance: float,
    n_samples: int,
    study_seed: int,
    seeds: Sequence[int],
    stream_axes: Mapping[str, int | str],
    dtype: torch.dtype,
    device: torch.device,
    *,
    largest: bool = False,
) -> ScoreErrorMoments:
    """The moments with as many draws as Σ_k w_k mse(τ_k) needs, numbers for each replicate.

    In two stages: the spreads of a pilot of `PILOT` draws a time say how many are needed at each
    `TIMES_TOGETHER` times (Neyman's allocation: in proportion to w_k sd_k), and rounds of
    fixed sizes follow, up to 80, 320, … draws a time, until there are as many. All draws count;
    that the pilot had a say biases the sum by less than a tenth of its standard error. A
    replicate's numbers depend on no other's, and a round's draws are the same for all
    schedules and scores.

    Parameters
    ----------
    score_fn, process, law, times, study_seed, seeds, stream_axes, dtype, device
        See `score_error_moments`.
    weights : array_like, shape (N,)
        w_k ≥ 0, for E₂ the increments B(τ_k) − B(τ_{k+1}).
    tolerance : float
        Relative standard error of the sum that is aimed at; positive.
    n_samples : int
        The most draws a time, whatever the standard error then is.
    largest : bool
        Whether the largest √mse(τ_k) is to be as sharp: more draws where it may lie.

    Returns
    -------
    ScoreErrorMoments
        Those of the pilot where the sum is zero, NaN or infinite.
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance = {tolerance!r}: must be positive")
    times, weights = (np.asarray(part, dtype=np.float64) for part in (times, weights))

    def draw(times: Array, n: int, **axes: int) -> ScoreErrorMoments:
        return score_error_moments(
            score_fn, process, law, times, n, study_seed, seeds, {**stream_axes, **axes},
            dtype, device,
        )  # fmt: skip

    totals = takewhile(lambda n: n + PILOT <= n_samples, (PILOT * 4**k for k in count()))
    drawn = [*totals, n_samples]
    pilot = draw(times, drawn[0])
    parts = []
    for start, needed in _needed(pilot, weights, tolerance, largest).items():
        block = slice(start, start + TIMES_TOGETHER)
        part = pilot[block]
        for further, (before, after) in enumerate(pairwise(drawn), start=1):
            wanting = part.draws[:, 0] < needed
            if not wanting.any():
                break
            found = draw(times[block], after - before, block=start, round=further)
            part = part.pooled(found, wanting)
        parts.append(part)
    return ScoreErrorMoments.concatenate(parts)


def _needed(
    pilot: ScoreErrorMoments, weights: Array, tolerance: float, largest: bool
) -> dict[int, Array]:
    """Draws a time that each replicate needs, by the first of `TIMES_TOGETHER` times.

    n_b draws at each of L times of block b cost Σ L n_b, and leave the sum the variance
    Σ a_b²/n_b, a_b² = Σ_{k in b} (w_k sd_k)²: least at n_b ∝ a_b/√L.
    """
    starts = np.arange(0, len(weights), TIMES_TOGETHER)
    root = np.sqrt(np.diff(starts, append=len(weights)))
    mse, error, n = pilot.mse, pilot.mse_standard_error, pilot.draws
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        allowed = tolerance * np.sum(weights * mse, axis=-1, keepdims=True)
        spread = np.sqrt(np.add.reduceat((weights * error) ** 2 * n, starts, axis=-1))
        needed = spread / root * np.sum(spread * root, axis=-1, keepdims=True) / allowed**2
        if largest:
            peak = np.max(mse, axis=-1, keepdims=True)
            sharp = n * (error / (2 * tolerance * peak)) ** 2
            near = np.where(mse + 3 * error >= peak, sharp, 0.0)
            needed = np.fmax(needed, np.maximum.reduceat(near, starts, axis=-1))
    needed = np.where(np.isfinite(needed), needed, 0.0)
    return dict(zip(starts.tolist(), needed.T, strict=True))


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


def denoised_rows(
    score_fn: ScoreFn,
    process: Process,
    rows: Array,
    t: float,
    study_seed: int,
    seeds: Sequence[int],
    stream_axes: Mapping[str, int | str],
    dtype: torch.dtype,
    device: torch.device,
) -> Array:
    """(x + v s_θ(t, x))/m at one draw x of X_t of each row, by Tweedie's formula the row denoised.

    Parameters
    ----------
    score_fn, process, rows, study_seed, seeds, stream_axes, dtype, device
        See `denoising_losses`.
    t : float
        Positive.

    Returns
    -------
    ndarray, shape (R, n, d)
    """
    generators = [stream(study_seed, "denoised", seed=seed, **stream_axes) for seed in seeds]
    scale, spread = float(process.mean_scale(t)), float(process.kernel_variance(t))
    z = np.stack([g.standard_normal(rows.shape[1:]) for g in generators])
    x = scale * rows + np.sqrt(spread) * z
    score = score_fn(torch.as_tensor(x).to(device, dtype), t).double().cpu().numpy()
    return np.asarray((x + spread * score) / scale)


class ChainError:
    """Mean squared error of a score along the chain that it generates.

    An observer of `sgm.simulation.simulate_reverse`: at each evaluation, |s_θ − s|² at the points
    of the first rows, s the exact score at its time.

    Parameters
    ----------
    process : Process
    law : Law
        Law of X₀.
    steps : Steps
        The sampler that is simulated.
    n_rows : int
        Rows of each replicate that are looked at.
    """

    def __init__(self, process: Process, law: Law, steps: Steps, n_rows: int) -> None:
        self.process, self.law = process, law
        self.times, self.n_rows = steps.score_time, n_rows
        self.squares: dict[int, list[Array]] = {
            k: [] for k in np.flatnonzero(steps.evaluated).tolist()
        }

    def __call__(self, stage: int, rows: slice, x: Tensor, score: Tensor) -> None:
        """See `sgm.simulation.Observer`."""
        if rows.start >= self.n_rows:
            return
        t, kept = self.times[stage], self.n_rows - rows.start
        states, scores = (part[:, :kept].double().cpu().numpy() for part in (x, score))
        scale, spread = float(self.process.mean_scale(t)), float(self.process.kernel_variance(t))
        error = scores - self.law.score(states, scale, spread)
        self.squares[stage].append(np.sum(error**2, axis=-1))

    @property
    def mse(self) -> Array:
        """E|s_θ − s|² at each evaluation, shape (R, NFE)."""
        squares = (np.concatenate(found, axis=-1) for found in self.squares.values())
        return np.stack([found.mean(axis=-1) for found in squares], axis=-1)
